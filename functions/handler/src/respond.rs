//! From an event to an answer, whatever the endpoint does.

use std::{future::pending, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::{Either, select};
use lambda_http::{
    Context, Error, RequestExt,
    http::{
        HeaderName, HeaderValue, Method, StatusCode,
        header::{CACHE_CONTROL, ETAG, LAST_MODIFIED, X_CONTENT_TYPE_OPTIONS},
    },
};
use tokio::{
    task::{unconstrained, yield_now},
    time::sleep_until,
};

use crate::{
    Body, Endpoint, Problem, Request, Response,
    answer::answer,
    caught::{caught, caught_async},
    deadline,
    endpoint::without_endpoint,
    event::{Event, Malformed},
    log::{InvocationSpan, Log},
    pieces::Pieces,
    trace,
    trigger::Trigger,
};

#[cfg(feature = "stream")]
use crate::stream::Begun;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What is sent to Lambda.
pub(crate) enum Outgoing {
    /// The JSON for the trigger.
    Json(Pieces),
    #[cfg(feature = "stream")]
    Stream(Box<Begun>),
}

impl Outgoing {
    /// The JSON for the trigger.
    ///
    /// # Errors
    ///
    /// If it is a stream.
    pub(crate) fn json(self) -> Result<String, Error> {
        match self {
            Self::Json(json) => json.into_text(),
            #[cfg(feature = "stream")]
            Self::Stream(_) => Err("the answer is a stream".into()),
        }
    }
}

/// Serves `event` with `endpoint`: HTTP semantics, the common headers, and the log line. `init` is how long the process
/// took to start, and `streams` whether triggers that can stream do.
///
/// A panic in the endpoint, wherever it is, becomes an answer. That includes its `clone` and the `drop` of what it
/// returned.
///
/// # Errors
///
/// If the event is not from an HTTP trigger.
pub(crate) fn respond<E: Endpoint>(
    log: &Arc<Log>,
    init: Duration,
    endpoint: &E,
    event: Bytes,
    context: Context,
    streams: bool,
) -> impl Future<Output = Result<Outgoing, Error>> + Send + use<E> {
    let event = caught(|| Event::read(event, streams, log.client_address))
        .unwrap_or_else(|| Err("reading the event panicked".into()));
    // An endpoint need not be `Sync`, so the future cannot clone it.
    let started = event.map(|mut event| {
        let invocation = InvocationSpan::start(log, init, &mut event, &context);
        let endpoint = invocation.sync_scope(|| caught(|| endpoint.clone()));
        (invocation, event, endpoint)
    });
    async move {
        let (invocation, event, endpoint) = started?;
        let Event { trigger, is_head, streams, request, .. } = event;
        let served = async {
            let is_whole = !streams && !is_head;
            let called = call(endpoint, request, context, is_whole.then(|| trigger.max_answer_bytes()));
            let outcome = caught_async(called).await.unwrap_or_else(panicked);
            #[cfg(feature = "stream")]
            if streams {
                return Outgoing::Stream(Box::new(Begun { invocation: invocation.clone(), is_head, outcome }));
            }
            Outgoing::Json(finish(&invocation, trigger, is_head, outcome))
        };
        Ok(invocation.scope(served).await)
    }
}

/// Makes the answer, and ends the invocation.
fn finish(invocation: &InvocationSpan, trigger: Trigger, is_head: bool, outcome: Result<Response, Problem>) -> Pieces {
    let convert = |mut response: Response| {
        if is_head {
            *response.body_mut() = Body::Empty;
        }
        Ok((answer(trigger, &response)?, response.status(), response.body().len()))
    };
    let last_resort = |json: &str| (json.into(), StatusCode::INTERNAL_SERVER_ERROR, 0);
    let ((answer, status, bytes_out), problem) = sent(invocation, outcome, convert, last_resort);
    invocation.end(status, bytes_out, problem.as_ref(), None);
    caught(|| drop(problem));
    answer
}

/// What `convert` makes of the outcome, with the common headers, or else of the problem that there is instead, and that
/// problem. Whatever panics or cannot be sent, there is an answer: at last `last_resort`, which gets JSON for any trigger.
pub(crate) fn sent<T>(
    invocation: &InvocationSpan,
    outcome: Result<Response, Problem>,
    convert: impl Fn(Response) -> Result<T, Problem>,
    last_resort: impl FnOnce(&'static str) -> T,
) -> (T, Option<Problem>) {
    let convert = |mut response| {
        with_common_headers(invocation, &mut response);
        convert(response)
    };
    let convert_problem =
        |problem: &Problem| caught(|| convert(problem.to_response(invocation.request_id()))).unwrap_or_else(panicked);
    let problem = match caught(|| outcome.and_then(&convert)).unwrap_or_else(panicked) {
        Ok(sent) => return (sent, None),
        Err(problem) => problem,
    };
    match convert_problem(&problem) {
        Ok(sent) => (sent, Some(problem)),
        Err(cause) => {
            invocation.could_not_send(&problem);
            caught(|| drop(problem));
            // Nothing in it comes from the endpoint or the caller.
            let sent = convert_problem(&Problem::internal());
            (sent.unwrap_or_else(|_| last_resort(r#"{"statusCode":500}"#)), Some(cause))
        }
    }
}

fn with_common_headers(invocation: &InvocationSpan, response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // An endpoint whose answers may be shared sets the header itself. With a validator, the caller's cache can ask.
    let has_validator = headers.contains_key(ETAG) || headers.contains_key(LAST_MODIFIED);
    let stored = if has_validator { "private, no-cache" } else { "no-store" };
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static(stored));
    if let Ok(request_id) = HeaderValue::from_str(invocation.request_id()) {
        headers.insert(X_REQUEST_ID, request_id);
    }
}

fn panicked<T>() -> Result<T, Problem> {
    Err(Problem::panicked())
}

/// Calls the endpoint if it takes the method.
pub(crate) async fn dispatch<E: Endpoint>(endpoint: E, request: Request) -> Result<Response, Problem> {
    if E::TAKES_ALL || matches!(*request.method(), Method::GET | Method::HEAD) {
        return endpoint.call(request).await;
    }
    without_endpoint(request.method(), HeaderValue::from_static("GET, HEAD, OPTIONS"))
}

/// Calls the endpoint, for at most the time that is left. `most` is how many bytes of a stream are collected, if one is.
#[cfg_attr(not(feature = "stream"), expect(unused_variables, reason = "there are no streams"))]
async fn call(
    endpoint: Option<impl Endpoint>,
    request: Result<Request, Malformed>,
    context: Context,
    most: Option<usize>,
) -> Result<Response, Problem> {
    let endpoint = endpoint.ok_or_else(Problem::panicked)?;
    let request = request.map_err(|malformed| Problem::malformed_request(malformed.0))?.with_lambda_context(context);
    trace::keep(&request);
    let answering = dispatch(endpoint, request);
    #[cfg(feature = "stream")]
    let answering = crate::stream::collected(answering, most);
    let deadline = deadline::deadline();
    let given_up = async {
        match deadline {
            // An endpoint that always has something to do uses up tokio's budget, without which a timer is not polled.
            Some(at) => unconstrained(sleep_until(at + deadline::GRACE)).await,
            None => pending().await,
        }
        // After a stall, the endpoint's own timers fire at the same moment: what it does then comes first.
        yield_now().await;
    };
    match select(pin!(answering), pin!(given_up)).await {
        Either::Left((outcome, _)) => outcome,
        Either::Right(_) => Err(Problem::deadline_exceeded()),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        panic::panic_any,
        task,
        time::{SystemTime, UNIX_EPOCH},
    };

    use futures_util::FutureExt;
    use serde_json::{Value, json};
    use tokio::task::coop::consume_budget;

    use super::*;
    use crate::{get, observe, record};

    /// Panics when it is dropped.
    #[derive(Clone)]
    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in a drop");
        }
    }

    /// An endpoint that panics in the place that it is named after.
    #[derive(PartialEq)]
    struct Panics(&'static str);

    impl Panics {
        fn at(&self, place: &str) {
            assert!(self.0 != place, "at {place}");
        }
    }

    impl Clone for Panics {
        fn clone(&self) -> Self {
            self.at("clone");
            Self(self.0)
        }
    }

    impl Drop for Panics {
        fn drop(&mut self) {
            // The original is dropped by the test, its clone by this crate.
            if InvocationSpan::current(|_| ()).is_some() {
                self.at("drop");
            }
        }
    }

    impl Endpoint for Panics {
        fn call(self, _: Request) -> impl Future<Output = Result<Response, Problem>> + Send + 'static {
            self.at("call");
            let place = self.0;
            Called(place)
        }
    }

    struct Called(&'static str);
    impl Future for Called {
        type Output = Result<Response, Problem>;
        fn poll(self: std::pin::Pin<&mut Self>, _: &mut task::Context<'_>) -> task::Poll<Self::Output> {
            let mut response = Response::default();
            match self.0 {
                "poll" => panic!("at poll"),
                "payload" => panic_any(Bomb),
                "extensions" => drop(response.extensions_mut().insert(Bomb)),
                "headers" => {
                    for number in 0..24_576 {
                        let name = HeaderName::try_from(format!("x-{number}")).unwrap();
                        response.headers_mut().insert(name, HeaderValue::from_static(""));
                    }
                }
                "cause" => return task::Poll::Ready(Err(Problem::internal().because(Box::new(Cause(Bomb))))),
                _ => {}
            }
            task::Poll::Ready(Ok(response))
        }
    }
    impl Drop for Called {
        fn drop(&mut self) {
            assert!(self.0 != "future", "at the drop of the future");
        }
    }

    struct Cause(Bomb);
    impl std::error::Error for Cause {}
    impl std::fmt::Debug for Cause {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Cause")
        }
    }
    impl std::fmt::Display for Cause {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            let _ = &self.0;
            panic!("at the display")
        }
    }

    fn event(method: &str) -> Value {
        json!({ "rawPath": "/", "requestContext": { "http": { "method": method } } })
    }

    /// The answer and the line.
    fn observed(endpoint: impl Endpoint, event: &Value) -> (Value, Value) {
        let event = event.to_string();
        let (answer, line) = observe(endpoint, event.as_bytes(), Context::default()).now_or_never().unwrap().unwrap();
        (serde_json::from_str(&answer).unwrap(), serde_json::from_str(&line).unwrap())
    }

    /// The clock runs: while it is paused, it moves only if all wait.
    #[tokio::test]
    async fn the_deadline_ends_an_endpoint_that_always_has_something_to_do() {
        let endpoint = |_: Request| async {
            while InvocationSpan::current(|_| ()).is_some() {
                consume_budget().await;
            }
            Ok(Response::default())
        };
        let mut context = Context::default();
        let at = SystemTime::now() + Duration::from_millis(300);
        context.deadline = at.duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap();
        let (answer, _) = observe(endpoint, event("GET").to_string().as_bytes(), context).await.unwrap();
        assert!(answer.contains("deadline-exceeded"), "{answer}");
    }

    #[test]
    fn a_panic_anywhere_in_an_endpoint_is_a_problem() {
        for (place, method) in [
            ("clone", "GET"),
            ("call", "GET"),
            ("poll", "GET"),
            ("payload", "GET"),
            ("future", "GET"),
            ("drop", "GET"),
            ("drop", "not a method"),
            ("extensions", "GET"),
            ("headers", "GET"),
            ("cause", "GET"),
        ] {
            let (answer, line) = observed(Panics(place), &event(method));
            assert_eq!((&answer["statusCode"], &line["status"]), (&500.into(), &500.into()), "{place}");
            assert_eq!((&line["problem"], &line["ServerErrors"]), (&"internal".into(), &1.into()), "{place}");
            assert!(answer["body"].as_str().unwrap().contains("urn:problem-type:internal"), "{place}");
            assert_eq!(answer["headers"]["cache-control"], "no-store", "{place}");
        }
        let (answer, _) = observed(Panics("nowhere"), &event("GET"));
        assert_eq!(answer["statusCode"], 200);
    }

    #[test]
    fn a_request_with_more_headers_than_fit_is_malformed() {
        for (headers, status) in [(24_000, 200), (24_577, 400), (40_000, 400)] {
            let mut event = event("GET");
            event["headers"] = (0..headers).map(|number| (format!("x-{number}"), Value::from(""))).collect();
            let (answer, line) = observed(get(|_| async { Ok(Response::default()) }), &event);
            assert_eq!((&answer["statusCode"], &line["status"]), (&status.into(), &status.into()));
            assert_eq!(line["method"], "GET");
        }
    }

    #[test]
    fn headers_of_the_same_name_are_one_however_many_they_are() {
        let mut event = event("GET");
        event["headers"] = json!({ "x-many": vec!["a"; 300_000], "cookie": ["b=1", "c=2"], "x-one": "d" });
        let endpoint = get(|request: Request| async move {
            let headers = request.headers();
            assert_eq!((headers.len(), headers["x-many"].len()), (3, 899_998));
            assert!(headers["cookie"] == "b=1; c=2" && headers["x-one"] == "d");
            Ok(Response::default())
        });
        let (answer, line) = observed(endpoint, &event);
        assert_eq!(answer["statusCode"], 200, "{line}");
    }

    #[test]
    fn a_malformed_request_is_logged_with_its_method() {
        for (method, logged) in [("GET", "GET"), ("HEAD", "HEAD"), ("BREW", "_OTHER"), ("not a method", "_OTHER")] {
            let mut event = event(method);
            event["headers"] = json!({ "host": "not a host" });
            let (answer, line) = observed(|_| async { Ok(Response::default()) }, &event);
            assert_eq!((&answer["statusCode"], &line["method"]), (&400.into(), &logged.into()));
        }
    }

    #[test]
    fn an_endpoint_that_records_the_lines_own_names_leaves_them_alone() {
        let endpoint = |_| async {
            record("status", 0_u64);
            record("problem", "none");
            Err(Problem::not_found("Gone."))
        };
        let (_, line) = observed(endpoint, &event("GET"));
        assert_eq!((&line["status"], &line["status_"]), (&404.into(), &0.into()));
        assert_eq!((&line["problem"], &line["problem_"]), (&"not-found".into(), &"none".into()));
    }
}
