//! The HTTP semantics around an endpoint: one request in, one response out, whatever the endpoint does.

use std::{convert::Infallible, panic::AssertUnwindSafe};

use futures_util::FutureExt;
use lambda_http::{
    Context, RequestExt, Service,
    http::{
        HeaderName, HeaderValue, Method, StatusCode,
        header::{ALLOW, CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS},
    },
    service_fn,
};
use tokio::time::{Instant, timeout_at};
use tower::ServiceBuilder;
use tower_http::set_header::SetResponseHeaderLayer;
use tracing::{error, info};

use crate::{Body, Endpoint, Problem, Request, Response, deadline, event::Malformed, problem::ALLOWED};

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
    let started = Instant::now();
    let request_id =
        request.lambda_context_ref().map_or_else(String::new, |Context { request_id, .. }| request_id.clone());
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
    log(&outcome, &request_id, &method, started);
    let mut response = outcome.unwrap_or_else(|problem| problem.into_response(&request_id));
    if method == Method::HEAD {
        *response.body_mut() = Body::Empty;
    }
    if let Ok(request_id) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(X_REQUEST_ID, request_id);
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
        // The panic hook has logged what the panic was.
        .unwrap_or_else(|_| Err(Problem::internal().because("the endpoint panicked")))
}

fn options() -> Response {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(ALLOW, ALLOWED);
    response
}

/// Writes the invocation's line: an error when the fault is ours or the upstream's, with all that led to it.
fn log(outcome: &Result<Response, Problem>, request_id: &str, method: &Method, started: Instant) {
    let method = method.as_str();
    let duration_ms = started.elapsed().as_secs_f64() * 1e3;
    match outcome {
        Ok(response) => {
            let status = response.status().as_u16();
            info!(request_id, method, status, duration_ms, "invocation");
        }
        Err(problem) => {
            let (status, name) = (problem.status().as_u16(), problem.name());
            if problem.status().is_server_error() {
                let error: &dyn std::error::Error = problem;
                error!(request_id, method, status, problem = name, duration_ms, error, "invocation");
            } else {
                info!(request_id, method, status, problem = name, duration_ms, "invocation");
            }
        }
    }
}
