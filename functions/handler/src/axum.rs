//! For [axum](https://docs.rs/axum/0.8): [`Problem`] is a response, and the readers are extractors. They refuse a request
//! with the same problems as elsewhere.
//!
//! ```
//! use axum::{Router, routing::post};
//! use handler::{Context, Problem, axum::{Body, Claims}};
//!
//! #[derive(serde::Deserialize)]
//! struct NewOrder {
//!     sku: String,
//! }
//!
//! async fn create(claims: Claims, Body(order): Body<NewOrder>) -> Result<String, Problem> {
//!     let customer = claims.get("sub").ok_or_else(|| Problem::unauthorized("Bearer", "Orders need a token."))?;
//!     Ok(format!("{customer}: {}", order.sku))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), handler::Error> {
//! let router = Router::new().route("/orders", post(create));
//! let event = br#"{"path": "/orders", "httpMethod": "POST", "headers": {"content-type": "application/json"},
//!     "body": "{}", "requestContext": {"elb": {}}}"#;
//! let answer = handler::invoke(handler::service(router), event, Context::default()).await?;
//! assert!(answer.contains("422 Unprocessable"));
//! # Ok(())
//! # }
//! ```

use std::{any::Any, mem};

use ::axum::{
    Router,
    body::Body as AxumBody,
    extract::{FromRequest, FromRequestParts, MatchedPath, Path as AxumPath, RawPathParams, Request as AxumRequest},
    response::{IntoResponse, Response as AxumResponse},
};
use lambda_http::http::{StatusCode, request::Parts};
use serde::de::DeserializeOwned;
use tower::util::MapRequestLayer;

use crate::{
    Problem, Request, body, claim, log::InvocationSpan, parameters, parameters::check_readable, service::whole,
    trigger::MAX_ANSWER_BYTES,
};

impl IntoResponse for Problem {
    fn into_response(self) -> AxumResponse {
        self.into_http().map(AxumBody::new)
    }
}

/// The request's JSON body as a `T`, of at most `MAX_BYTES`, or 16 kB: [`body`](crate::body()).
#[derive(Clone, Copy, Debug)]
pub struct Body<T, const MAX_BYTES: usize = { 16 * 1024 }>(pub T);

impl<S: Sync, T: DeserializeOwned, const MAX_BYTES: usize> FromRequest<S> for Body<T, MAX_BYTES> {
    type Rejection = Problem;

    async fn from_request(request: AxumRequest, _: &S) -> Result<Self, Problem> {
        let (parts, content) = request.into_parts();
        // What Lambda passes on, so that the same fault comes first as elsewhere. A layer may have set a lower limit.
        let content = whole(content, MAX_ANSWER_BYTES).await.map_err(|_| Problem::content_too_large(MAX_BYTES))?;
        body(&Request::from_parts(parts, content), MAX_BYTES).map(Self)
    }
}

/// The request's query parameters as a `T`: [`parameters`](crate::parameters()).
#[derive(Clone, Copy, Debug)]
pub struct Parameters<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parameters(&without_body(parts)).map(Self)
    }
}

/// The path parameters as a `T`, as axum's own [`Path`](AxumPath) reads them, but like [`path`](crate::path()) without
/// control characters.
#[derive(Clone, Copy, Debug)]
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        // What is wrong with a path that this cannot read, the other extractor tells.
        if let Ok(all) = RawPathParams::from_request_parts(parts, state).await {
            all.iter().try_for_each(|(name, value)| check_readable(name, value))?;
        }
        let path = AxumPath::from_request_parts(parts, state).await;
        path.map(|AxumPath(path)| Self(path)).map_err(|rejection| {
            let said = rejection.body_text();
            let fault = said.trim_start_matches("Invalid URL: ");
            match fault.strip_prefix("Invalid UTF-8 in ") {
                Some(name) => Problem::invalid_parameter(format!("{name} is not valid UTF-8.")),
                None if rejection.status() == StatusCode::BAD_REQUEST => {
                    Problem::invalid_parameter(format!("{fault}."))
                }
                None => Problem::internal().because(said),
            }
        })
    }
}

/// What the trigger knows about the caller: [`claim`](crate::claim()).
#[derive(Debug)]
pub struct Claims(Request);

impl Claims {
    /// Returns the claim `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<String> {
        claim(&self.0, name)
    }
}

impl<S: Sync> FromRequestParts<S> for Claims {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self(without_body(parts)))
    }
}

/// What the readers of parameters and claims look at.
fn without_body(parts: &Parts) -> Request {
    Request::from_parts(parts.clone(), crate::Body::Empty)
}

/// If `service` is a router, makes its matched path the route in the log. Only what the router calls sees that path.
pub(crate) fn with_route<S: 'static>(mut service: S) -> S {
    if let Some(router) = (&mut service as &mut dyn Any).downcast_mut::<Router>() {
        *router = mem::take(router).layer(MapRequestLayer::new(|request: AxumRequest| {
            if let Some(path) = request.extensions().get::<MatchedPath>() {
                InvocationSpan::current(|invocation| invocation.route(path.as_str()));
            }
            request
        }));
    }
    service
}
