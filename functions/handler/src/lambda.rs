//! Lambda's loop: ask for an invocation, answer it, ask for the next one.
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>
//!
//! It replaces the loop of `lambda_runtime` (1.5), because that one leaks: it puts each invocation's trace id into the
//! process's environment, and glibc never frees the old value. That is 144 bytes per invocation, 14 MB in 100,000, as
//! `make soak` shows. `functions/handler/tests/lambda_runtime.rs` drives both loops through the same script and compares what
//! they send. They differ in this:
//!
//! | | `lambda_runtime` | here |
//! | --- | --- | --- |
//! | the trace id | is in `_X_AMZN_TRACE_ID`, except when there are several workers | is part of the invocation only |
//! | a poll gets no answer | the process ends; of several workers, each polls again at once, for ever | the poll is repeated after a pause that grows; the process ends if the Runtime API stays away |
//! | a poll gets an error, or no valid request id | panics: the process or the worker ends | the same |
//! | no deadline | panics | there is none |
//! | the client context or the identity is malformed | the process or the worker ends | there is none |
//! | a header is not UTF-8 | U+FFFD is in the trace id and the tenant; with such an ARN, the process or the worker ends | the header is taken for absent |
//! | the connection fails while the result is sent | the process or the worker ends | the invocation is reported as failed, and the process goes on |
//! | `errorType` | the name of a Rust type | one of the names below, such as `Runtime.UnknownEvent` |
//! | the header with the error's type | always `unhandled` | the same as `errorType` |
//! | a panic | the caller gets its message | the log gets its message |
//! | the process cannot start | panics | Lambda gets the reason at `/init/error` |
//! | code around a snapshot, `/restore/error` | `SnapStartResource` | none: nothing here has to be closed or renewed |
//! | streamed responses | fail in the body: what should be trailers is its end | with the feature `stream`; fail in the trailers |

use std::{
    env,
    io::{self, Write},
    net::TcpStream,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use lambda_http::{
    Context, Error,
    http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, request::Builder},
    lambda_runtime::{Config, layers::trace::request_span},
};
use lambda_runtime_api_client::body::Body;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::{task::JoinSet, time::sleep};
use tracing::{Instrument, error, warn};

use crate::{
    background::answer_then_finish,
    caught::{caught, caught_async},
    client::{self, Client},
    respond::Outgoing,
};

const REQUEST_ID: HeaderName = HeaderName::from_static("lambda-runtime-aws-request-id");
const DEADLINE_MS: HeaderName = HeaderName::from_static("lambda-runtime-deadline-ms");
const INVOKED_FUNCTION_ARN: HeaderName = HeaderName::from_static("lambda-runtime-invoked-function-arn");
const TRACE_ID: HeaderName = HeaderName::from_static("lambda-runtime-trace-id");
const CLIENT_CONTEXT: HeaderName = HeaderName::from_static("lambda-runtime-client-context");
const COGNITO_IDENTITY: HeaderName = HeaderName::from_static("lambda-runtime-cognito-identity");
const TENANT_ID: HeaderName = HeaderName::from_static("lambda-runtime-aws-tenant-id");

/// Echoed with the result of an invocation, so that a late result is not taken for another invocation's.
const INVOCATION_ID: HeaderName = HeaderName::from_static("lambda-runtime-invocation-id");

pub(crate) const FUNCTION_ERROR_TYPE: HeaderName = HeaderName::from_static("lambda-runtime-function-error-type");

/// The types of errors, in the form that AWS recommends. The process could not start:
const INIT_ERROR: &str = "Runtime.InitError";
/// The event is not one that an HTTP trigger sends.
const UNKNOWN_EVENT: &str = "Runtime.UnknownEvent";
/// There was a panic outside the endpoint's code.
pub(crate) const PANIC: &str = "Runtime.Panic";
/// The connection failed while the result was sent.
const RESULT_NOT_SENT: &str = "Runtime.ResultNotSent";

/// The pause after the first failed poll. Each further pause is twice as long, until the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(5120);

/// How many polls a worker makes before the Runtime API is taken for gone: with the pauses, for ten seconds. The process
/// then ends, and Lambda starts another one. Lambda gives a process that long to start, too.
const MAX_FAILED_POLLS: u32 = 11;

/// Lambda's Runtime API.
pub(crate) struct Lambda {
    client: Client,
    /// How many invocations Lambda sends at a time.
    at_a_time: u32,
    /// How many polls of all workers have failed since the last one that did not.
    failed_polls: AtomicU32,
    /// The part that is the same for all invocations.
    context: Context,
}

impl Lambda {
    /// The Runtime API at `address`, for up to `at_a_time` invocations at a time.
    ///
    /// # Errors
    ///
    /// If `address` is not an address.
    pub(crate) fn new(address: &str, at_a_time: u32) -> Result<Self, Error> {
        let client = Client::new(address)?;
        let variable = |name| env::var(name).unwrap_or_default();
        let function = Config {
            function_name: variable("AWS_LAMBDA_FUNCTION_NAME"),
            memory: variable("AWS_LAMBDA_FUNCTION_MEMORY_SIZE").parse().unwrap_or_default(),
            version: variable("AWS_LAMBDA_FUNCTION_VERSION"),
            log_group: variable("AWS_LAMBDA_LOG_GROUP_NAME"),
            log_stream: variable("AWS_LAMBDA_LOG_STREAM_NAME"),
        };
        let mut context = Context::default();
        context.env_config = Arc::new(function);
        Ok(Self { client, at_a_time, failed_polls: AtomicU32::new(0), context })
    }

    /// Says that the process is ready for a snapshot (`SnapStart`), and returns when it is restored from it.
    ///
    /// # Errors
    ///
    /// If Lambda refuses.
    pub(crate) async fn restored(&self) -> Result<(), Error> {
        let request = Request::builder().uri("/2018-06-01/runtime/restore/next").body(Body::empty())?;
        let status = self.client.call(request).await?.status();
        if !status.is_success() {
            return Err(format!("the process was not restored: {status}").into());
        }
        // The connections of the snapshot are dead.
        self.client.reset();
        Ok(())
    }

    /// Serves invocations with `answer`. Returns when the Runtime API is gone, with the reason.
    pub(crate) async fn serve<A, F>(self, answer: A) -> Error
    where
        A: Fn(Bytes, Context) -> F + Clone + Send + 'static,
        F: Future<Output = Result<Outgoing, Error>> + Send + 'static,
    {
        if self.at_a_time == 1 {
            return self.run_worker(answer).await;
        }
        let lambda = Arc::new(self);
        let mut workers = JoinSet::new();
        let worker = || {
            let (lambda, answer) = (Arc::clone(&lambda), answer.clone());
            async move { lambda.run_worker(answer).await }
        };
        for _ in 0..lambda.at_a_time {
            workers.spawn(worker());
        }
        loop {
            match workers.join_next().await {
                Some(Ok(end)) => return end,
                // A panic that is not of an answer is a bug here. No other worker suffers from it.
                Some(Err(_)) => drop(workers.spawn(worker())),
                None => return "there is no worker".into(),
            }
        }
    }

    /// Serves one invocation after the other.
    async fn run_worker<A, F>(&self, answer: A) -> Error
    where
        A: Fn(Bytes, Context) -> F,
        F: Future<Output = Result<Outgoing, Error>>,
    {
        let mut failed = 0;
        loop {
            let next = match self.next().await {
                Ok(next) => next,
                Err(error) => {
                    failed += 1;
                    let by_all = self.failed_polls.fetch_add(1, Ordering::Relaxed).saturating_add(1);
                    if by_all >= MAX_FAILED_POLLS.saturating_mul(self.at_a_time) {
                        return error;
                    }
                    warn!(error = &*error as &dyn std::error::Error, "a poll for the next invocation failed");
                    sleep(pause(failed)).await;
                    continue;
                }
            };
            failed = 0;
            self.failed_polls.store(0, Ordering::Relaxed);
            let Some((headers, event)) = next else {
                // A server that answers so at once must not keep the process busy.
                sleep(FIRST_PAUSE).await;
                continue;
            };
            let context = self.context(&headers);
            let span = request_span(&context);
            let path = format!("/2018-06-01/runtime/invocation/{}/response", context.request_id);
            let answer = caught(|| answer(event, context));
            // Pinned, because each future around it would hold it twice.
            answer_then_finish(pin!(self.end(path, &headers, answer))).instrument(span).await;
        }
    }

    /// Waits for an invocation, and returns its headers and its event. `None` means: keep waiting.
    /// `cargo lambda watch` answers that way.
    async fn next(&self) -> Result<Option<(HeaderMap, Bytes)>, Error> {
        let request = Request::builder().uri("/2018-06-01/runtime/invocation/next").body(Body::empty())?;
        let (parts, event) = self.client.call(request).await?.into_parts();
        match parts.status {
            StatusCode::OK => {}
            StatusCode::NO_CONTENT => return Ok(None),
            status => return Err(format!("there is no next invocation: {status}").into()),
        }
        // Without its id, an invocation cannot be answered. The id is a segment of a path.
        let is_unreserved = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
        match parts.headers.get(REQUEST_ID).map(HeaderValue::as_bytes) {
            Some(id) if !id.is_empty() && id.iter().all(is_unreserved) => Ok(Some((parts.headers, event))),
            _ => Err("the next invocation has no valid request id".into()),
        }
    }

    /// Sends the result of an invocation to Lambda.
    async fn end<F>(&self, path: String, headers: &HeaderMap, answer: Option<F>)
    where
        F: Future<Output = Result<Outgoing, Error>>,
    {
        let answer = match answer {
            Some(answer) => caught_async(answer).await,
            None => None,
        };
        let (kind, cause) = match answer {
            Some(Ok(answer)) => match self.send(path, headers, answer).await {
                Ok(()) => return,
                Err(cause) => (RESULT_NOT_SENT, cause),
            },
            Some(Err(cause)) => (UNKNOWN_EVENT, cause),
            // The panic hook has logged its message.
            None => (PANIC, "the function panicked".into()),
        };
        // Boxed, because most invocations do not fail.
        self.fail(headers, kind, cause).boxed().await;
    }

    /// Sends an answer.
    async fn send(&self, path: String, headers: &HeaderMap, answer: Outgoing) -> Result<(), Error> {
        match answer {
            Outgoing::Json(json) => self.post(Request::builder(), path, headers, json.into()).await.map(drop),
            #[cfg(feature = "stream")]
            // Boxed, because most answers are no streams.
            Outgoing::Stream(stream) => {
                stream.send(|request, body| self.post(request, path, headers, body)).boxed().await
            }
        }
    }

    /// Tells Lambda that an invocation failed. If there was an answer, and it arrived after all, Lambda refuses this.
    async fn fail(&self, headers: &HeaderMap, kind: &'static str, cause: Error) {
        let id = request_id(headers);
        error!(request_id = id, error = &*cause as &dyn std::error::Error, error_type = kind, "the invocation failed");
        let path = format!("/2018-06-01/runtime/invocation/{id}/error");
        // The address of the Runtime API is no caller's business.
        let message =
            if kind == RESULT_NOT_SENT { "the result could not be sent".to_owned() } else { cause.to_string() };
        let request = Request::builder().header(FUNCTION_ERROR_TYPE, kind);
        if let Err(error) = self.post(request, path, headers, failure(kind, &message).into()).await {
            let error = &*error as &dyn std::error::Error;
            error!(request_id = id, error, "Lambda could not be told that the invocation failed");
        }
    }

    /// Sends a result with the headers that `request` has, and returns whether Lambda took it. It is an error if the
    /// connection fails, but not if Lambda refuses the result.
    async fn post(&self, request: Builder, path: String, headers: &HeaderMap, body: Body) -> Result<bool, Error> {
        let mut request = request.method(Method::POST).uri(path);
        if let Some(id) = headers.get(INVOCATION_ID) {
            request = request.header(INVOCATION_ID, id);
        }
        let status = self.client.call(request.body(body)?).await?.status();
        if !status.is_success() {
            // The result was too late, or too long. That ends this invocation, but not the function.
            error!(request_id = request_id(headers), "Lambda refused the result of the invocation: {status}");
        }
        Ok(status.is_success())
    }

    /// The context of an invocation from its headers. A missing or malformed header leaves the default.
    fn context(&self, headers: &HeaderMap) -> Context {
        let text = |name| headers.get(name).and_then(|value| str::from_utf8(value.as_bytes()).ok());
        let mut context = self.context.clone();
        context.request_id = request_id(headers).into();
        context.deadline = text(DEADLINE_MS).and_then(|ms| ms.parse().ok()).unwrap_or_default();
        context.invoked_function_arn = text(INVOKED_FUNCTION_ARN).unwrap_or_default().into();
        context.xray_trace_id = text(TRACE_ID).map(Into::into);
        context.client_context = headers.get(CLIENT_CONTEXT).and_then(json);
        context.identity = headers.get(COGNITO_IDENTITY).and_then(json);
        context.tenant_id = text(TENANT_ID).map(Into::into);
        context
    }
}

/// Tells Lambda that the process could not start. This works without tokio, which may be what could not start.
#[cold]
pub(crate) fn init_failed(address: &str, cause: &Error) {
    let body = failure(INIT_ERROR, &cause.to_string());
    let request = format!(
        "POST /2018-06-01/runtime/init/error HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         {FUNCTION_ERROR_TYPE}: {INIT_ERROR}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let send = || {
        let mut api = TcpStream::connect(client::address(&address.parse()?)?)?;
        api.set_read_timeout(Some(Duration::from_secs(1)))?;
        api.write_all(request.as_bytes())?;
        // The connection must not end before Lambda has read the request.
        io::copy(&mut api, &mut io::sink())?;
        Ok::<_, Error>(())
    };
    if let Err(error) = send() {
        let error = &*error as &dyn std::error::Error;
        error!(error, "Lambda could not be told that the function cannot start");
    }
}

/// The body that reports an error.
#[cold]
pub(crate) fn failure(kind: &str, message: &str) -> String {
    json!({ "errorType": kind, "errorMessage": message }).to_string()
}

/// The pause after `failed` polls in a row.
fn pause(failed: u32) -> Duration {
    let doubled = 1_u32.checked_shl(failed.saturating_sub(1)).unwrap_or(u32::MAX);
    FIRST_PAUSE.saturating_mul(doubled).min(LONGEST_PAUSE)
}

fn request_id(headers: &HeaderMap) -> &str {
    headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default()
}

#[cold]
fn json<T: DeserializeOwned>(value: &HeaderValue) -> Option<T> {
    serde_json::from_slice(value.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::{
        io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
        net::TcpListener,
        sync::mpsc,
    };

    use super::*;

    const INVOCATION: &str = "HTTP/1.1 200 OK\r\nlambda-runtime-aws-request-id: 6b2a\r\ncontent-length: 2\r\n\r\n{}";
    const ACCEPTED: &str = "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";
    const BROKEN: &str = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";

    /// A Runtime API that sends each of `responses` on a connection of its own, and after them the last one, for ever.
    /// Returns its address, and the first line of each request with its body.
    async fn runtime_api(responses: &'static [&'static str]) -> (String, mpsc::UnboundedReceiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (seen, requests) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            for number in 0.. {
                let mut stream = BufReader::new(listener.accept().await.unwrap().0);
                let (mut request, mut length) = (String::new(), 0);
                stream.read_line(&mut request).await.unwrap();
                loop {
                    let mut line = String::new();
                    stream.read_line(&mut line).await.unwrap();
                    match line.trim().split_once(": ") {
                        Some(("content-length", value)) => length = value.parse().unwrap(),
                        Some(_) => {}
                        None => break,
                    }
                }
                let mut body = vec![0; length];
                stream.read_exact(&mut body).await.unwrap();
                let _ = seen.send(request.trim().to_owned() + " " + str::from_utf8(&body).unwrap());
                let response = responses.get(number).or(responses.last()).unwrap();
                stream.write_all(response.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
        (address, requests)
    }

    async fn answer(_: Bytes, context: Context) -> Result<Outgoing, Error> {
        Ok(Outgoing::Json(context.request_id.into()))
    }

    #[test]
    fn pauses_grow_up_to_a_limit() {
        let pauses: Vec<u128> = [1, 2, 3, 10, 11, 40, u32::MAX].map(|failed| pause(failed).as_millis()).into();
        assert_eq!(pauses, [10, 20, 40, 5120, 5120, 5120, 5120]);
    }

    /// The clock is paused: it is the order of things that is tested, and no time passes.
    #[tokio::test(start_paused = true)]
    async fn a_poll_that_fails_is_repeated() {
        const RESPONSES: &[&str] = &[
            "",
            "This is not HTTP.\r\n\r\n",
            BROKEN,
            "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\nlambda-runtime-aws-request-id: \r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\nlambda-runtime-aws-request-id: a/../b\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\nlambda-runtime-aws-request-id: a b\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\nlambda-runtime-aws-request-id: 6b2a\r\ncontent-length: 20\r\n\r\n{",
            INVOCATION,
            ACCEPTED,
            BROKEN,
        ];
        let (address, mut requests) = runtime_api(RESPONSES).await;
        let served = tokio::spawn(Lambda::new(&address, 1).unwrap().serve(answer));
        for _ in 0..12 {
            assert_eq!(requests.recv().await.unwrap(), "GET /2018-06-01/runtime/invocation/next HTTP/1.1 ");
        }
        let result = requests.recv().await.unwrap();
        assert_eq!(result, "POST /2018-06-01/runtime/invocation/6b2a/response HTTP/1.1 6b2a");
        // The count of failures began again with the invocation.
        let end = served.await.unwrap();
        assert_eq!(end.to_string(), "there is no next invocation: 500 Internal Server Error");
        assert_eq!(requests.len(), 11);
    }

    #[tokio::test(start_paused = true)]
    async fn no_worker_is_lost_before_all_have_polled_in_vain() {
        let (address, mut requests) = runtime_api(&[BROKEN]).await;
        let end = Lambda::new(&address, 4).unwrap().serve(answer).await;
        assert_eq!(end.to_string(), "there is no next invocation: 500 Internal Server Error");
        // The others may be about to poll.
        let polls = std::iter::from_fn(|| requests.try_recv().ok()).count();
        assert!((44..=47).contains(&polls), "{polls}");
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_when_nothing_listens() {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let end = Lambda::new(&address.to_string(), 1).unwrap().serve(answer).await;
        let end = end.downcast_ref().map(io::Error::kind);
        assert_eq!(end, Some(io::ErrorKind::ConnectionRefused));
    }

    #[tokio::test(start_paused = true)]
    async fn a_result_that_could_not_be_sent_is_a_failed_invocation() {
        let (address, mut requests) = runtime_api(&[INVOCATION, "", ACCEPTED, INVOCATION, "", "", BROKEN]).await;
        let served = tokio::spawn(Lambda::new(&address, 1).unwrap().serve(answer));
        let next = "GET /2018-06-01/runtime/invocation/next ";
        let response = "POST /2018-06-01/runtime/invocation/6b2a/response ";
        let error = "POST /2018-06-01/runtime/invocation/6b2a/error ";
        for expected in [next, response, error, next, response, error, next] {
            let request = requests.recv().await.unwrap();
            assert!(request.starts_with(expected), "{request}");
            assert_eq!(request.contains(r#""errorType":"Runtime.ResultNotSent""#), expected == error, "{request}");
            // The caller is not told the address of the Runtime API.
            assert_eq!(request.contains(r#""errorMessage":"the result could not be sent""#), expected == error);
        }
        served.abort();
    }

    /// What surrounds the endpoint catches its panics. This is the boundary behind that.
    #[tokio::test(start_paused = true)]
    async fn a_panic_in_the_answer_is_a_failed_invocation() {
        let (address, mut requests) = runtime_api(&[INVOCATION, ACCEPTED, INVOCATION, ACCEPTED, BROKEN]).await;
        let count = Arc::new(Mutex::new(0));
        let answer = move |event, context| {
            let mut count = count.lock().unwrap();
            *count += 1;
            assert!(*count == 2, "before there is a future");
            answer(event, context)
        };
        let served = tokio::spawn(Lambda::new(&address, 1).unwrap().serve(answer));
        requests.recv().await;
        let failed = requests.recv().await.unwrap();
        assert!(failed.contains(r#""errorType":"Runtime.Panic""#) && !failed.contains("before"), "{failed}");
        requests.recv().await;
        served.abort();
    }

    #[test]
    fn the_context_has_all_that_lambda_says_and_defaults_for_what_is_malformed() {
        let lambda = Lambda::new("127.0.0.1:1", 1).unwrap();
        let mut headers = HeaderMap::new();
        assert_eq!(lambda.context(&headers), lambda.context);
        let client = r#"{"client":{"installation_id":"i","app_title":"t","app_version_name":"n","app_version_code":"c","app_package_name":"p"},"custom":{"a":"é"},"environment":{"b":"2"}}"#;
        let good = [
            (REQUEST_ID, "6b2a"),
            (DEADLINE_MS, "1542409706888"),
            (INVOKED_FUNCTION_ARN, "arn:aws:lambda:us-east-1:123456789012:function:f"),
            (TRACE_ID, "Root=1-5759e988-bd862e3fe1be46a994272793"),
            (CLIENT_CONTEXT, client),
            (COGNITO_IDENTITY, r#"{"cognitoIdentityId":"i","cognitoIdentityPoolId":"p"}"#),
            (TENANT_ID, "ténant"),
        ];
        for (name, value) in &good {
            headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let context = lambda.context(&headers);
        assert_eq!((&*context.request_id, context.deadline), ("6b2a", 1_542_409_706_888));
        assert_eq!(context.invoked_function_arn, good[2].1);
        assert_eq!((context.xray_trace_id.as_deref(), context.tenant_id.as_deref()), (Some(good[3].1), Some("ténant")));
        let (client, identity) = (context.client_context.unwrap(), context.identity.unwrap());
        assert_eq!((&*client.client.app_title, &*client.custom["a"], &*client.environment["b"]), ("t", "é", "2"));
        assert_eq!((&*identity.identity_id, &*identity.identity_pool_id), ("i", "p"));
        for malformed in ["", "{", "7", "null", "{}}", "\u{1}"] {
            for name in [DEADLINE_MS, CLIENT_CONTEXT, COGNITO_IDENTITY] {
                headers.insert(
                    name,
                    HeaderValue::from_bytes(malformed.as_bytes()).unwrap_or(HeaderValue::from_static("x")),
                );
            }
            let context = lambda.context(&headers);
            assert!(matches!(context.deadline, 0 | 7), "{malformed}");
            assert_eq!((context.client_context, context.identity), (None, None), "{malformed}");
        }
    }

    #[test]
    fn a_header_that_is_not_utf_8_is_taken_for_absent() {
        let lambda = Lambda::new("127.0.0.1:1", 1).unwrap();
        let not_utf_8 = || HeaderValue::from_bytes(b"a\xffb").unwrap();
        let deadline = (DEADLINE_MS, HeaderValue::from_static("7"));
        let mut headers = HeaderMap::from_iter([deadline, (TRACE_ID, not_utf_8()), (TENANT_ID, not_utf_8())]);
        let of_official_loop = |headers: &HeaderMap| Context::new("", Arc::default(), headers);
        let texts = |context: Context| [context.xray_trace_id, context.tenant_id];
        assert_eq!(texts(lambda.context(&headers)), [None, None]);
        assert_eq!(texts(of_official_loop(&headers).unwrap()), [Some("a\u{fffd}b".into()), Some("a\u{fffd}b".into())]);
        headers.insert(INVOKED_FUNCTION_ARN, not_utf_8());
        assert_eq!(lambda.context(&headers).invoked_function_arn, "");
        assert!(of_official_loop(&headers).is_err());
    }

    #[test]
    fn an_address_that_is_none_is_refused() {
        for address in ["", "/", "http://", "a b"] {
            assert!(Lambda::new(address, 1).is_err(), "{address}");
        }
    }
}
