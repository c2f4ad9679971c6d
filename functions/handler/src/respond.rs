//! The HTTP semantics around an endpoint: one request in, one response out, whatever the endpoint does.

use std::{convert::Infallible, panic::AssertUnwindSafe};

use futures_util::FutureExt;
use lambda_http::{
    Service,
    http::{
        HeaderName, HeaderValue, Method, StatusCode,
        header::{ALLOW, CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS},
    },
    service_fn,
};
use tokio::time::timeout_at;
use tower::ServiceBuilder;
use tower_http::set_header::SetResponseHeaderLayer;

use crate::{
    Body, Endpoint, Problem, Request, Response, after_response, deadline, event::Malformed, log::Invocation,
    problem::ALLOWED,
};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Makes an endpoint an HTTP service that never fails.
pub(crate) fn http_service(
    endpoint: impl Endpoint,
) -> impl Service<
    Request,
    Response = Response,
    Error = Infallible,
    Future = impl Future<Output = Result<Response, Infallible>> + Send + 'static,
> + Clone
+ Send
+ 'static {
    ServiceBuilder::new()
        .layer(SetResponseHeaderLayer::overriding(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")))
        // An endpoint whose answers may be stored says so itself.
        .layer(SetResponseHeaderLayer::if_not_present(CACHE_CONTROL, HeaderValue::from_static("no-store")))
        .service(service_fn(move |request| respond(endpoint.clone(), request)))
}

async fn respond(endpoint: impl Endpoint, request: Request) -> Result<Response, Infallible> {
    let invocation = request.extensions().get::<Invocation>().cloned();
    let request_id = invocation.as_ref().map_or("", Invocation::request_id);
    let method = request.method().clone();
    let outcome = if request.extensions().get::<Malformed>().is_some() {
        Err(Problem::malformed_request())
    } else {
        match method {
            Method::GET | Method::HEAD => call(endpoint, request).await,
            Method::OPTIONS => Ok(options()),
            _ => Err(Problem::method_not_allowed(&method)),
        }
    };
    let (mut response, problem) = match outcome {
        Ok(response) => (response, None),
        Err(problem) => (problem.to_response(request_id), Some(problem)),
    };
    if method == Method::HEAD {
        *response.body_mut() = Body::Empty;
    }
    if let Ok(request_id) = HeaderValue::from_str(request_id) {
        response.headers_mut().insert(X_REQUEST_ID, request_id);
    }
    if let Some(invocation) = &invocation {
        // The caller need not wait for whoever reads the log, and nothing is lost: Lambda neither freezes nor ends a
        // process before it asks for the next invocation.
        after_response(invocation.end(&response, problem.as_ref()));
    }
    Ok(response)
}

/// Calls the endpoint, for at most the time there is, and makes a panic in it a problem.
async fn call(endpoint: impl Endpoint, mut request: Request) -> Result<Response, Problem> {
    let deadline = deadline::start(&mut request);
    let outcome = AssertUnwindSafe(endpoint.call(request)).catch_unwind();
    let outcome = match deadline {
        Some(at) => timeout_at(at + deadline::GRACE, outcome).await,
        None => Ok(outcome.await),
    };
    outcome
        .map_err(|_| Problem::upstream_timeout().because("the endpoint outlived its deadline"))?
        // The panic hook has recorded what the panic was.
        .unwrap_or_else(|_| Err(Problem::internal().because("the endpoint panicked")))
}

fn options() -> Response {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(ALLOW, ALLOWED);
    response
}
