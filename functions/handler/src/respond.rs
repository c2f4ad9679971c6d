//! From an event to an answer, whatever the endpoint does.

use std::{future::pending, panic::AssertUnwindSafe, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{
    FutureExt,
    future::{Either, select},
};
use lambda_http::{
    Context, Error, RequestExt,
    http::{
        HeaderName, HeaderValue, Method, StatusCode,
        header::{ALLOW, CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS},
    },
};
use tokio::{task::yield_now, time::sleep_until};

use crate::{
    Body, Endpoint, Problem, Request, Response,
    answer::answer,
    deadline,
    event::Event,
    log::{Invocation, Log},
};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Serves `event` with `endpoint`: HTTP semantics, the common headers, and the log line. `init` is how long the process
/// took to start. Returns the JSON for the trigger.
///
/// # Errors
///
/// If the event is not from an HTTP trigger.
pub(crate) async fn respond(
    log: Arc<Log>,
    init: Duration,
    endpoint: impl Endpoint,
    event: Bytes,
    context: Context,
) -> Result<String, Error> {
    let event = Event::read(&event)?;
    let invocation = Invocation::start(&log, init, &event, &context);
    let Event { trigger, is_head, request, .. } = event;
    let served = async {
        let outcome = match request {
            Err(malformed) => Err(Problem::malformed_request(malformed.0)),
            Ok(request) => serve(endpoint, request.with_lambda_context(context)).await,
        };
        let finish = |mut response: Response| {
            if is_head {
                *response.body_mut() = Body::Empty;
            }
            let headers = response.headers_mut();
            headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            // An endpoint whose answers may be stored sets the header itself.
            headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
            if let Ok(request_id) = HeaderValue::from_str(invocation.request_id()) {
                headers.insert(X_REQUEST_ID, request_id);
            }
            answer(trigger, &response).map(|answer| (answer, response))
        };
        let (finished, problem) = match outcome.and_then(finish) {
            Ok(finished) => (Ok(finished), None),
            Err(problem) => (finish(problem.to_response(invocation.request_id())), Some(problem)),
        };
        let (answer, response) = finished?;
        invocation.end(&response, problem.as_ref());
        Ok(answer)
    };
    invocation.scope(served).await
}

/// Calls the endpoint if it matches the path and answers the method.
async fn serve(endpoint: impl Endpoint, mut request: Request) -> Result<Response, Problem> {
    endpoint.find(&mut request)?;
    match request.method() {
        method if endpoint.answers(method) => call(endpoint, request).await,
        &Method::OPTIONS => Ok(options(endpoint.allow())),
        method => Err(Problem::method_not_allowed(method, endpoint.allow())),
    }
}

/// Calls the endpoint, for at most the time that is left, and turns a panic in it into a problem.
async fn call(endpoint: impl Endpoint, mut request: Request) -> Result<Response, Problem> {
    let deadline = deadline::start(&mut request);
    let outcome = AssertUnwindSafe(endpoint.call(request)).catch_unwind();
    let given_up = async {
        match deadline {
            Some(at) => sleep_until(at + deadline::GRACE).await,
            None => pending().await,
        }
        // After a stall, the endpoint's own timers fire at the same moment: what it does then comes first.
        yield_now().await;
    };
    match select(pin!(outcome), pin!(given_up)).await {
        Either::Left((outcome, _)) => {
            // The panic hook has recorded the panic's message.
            outcome.unwrap_or_else(|_| Err(Problem::internal().because("the endpoint panicked")))
        }
        Either::Right(_) => Err(Problem::deadline_exceeded()),
    }
}

fn options(allow: HeaderValue) -> Response {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(ALLOW, allow);
    response
}
