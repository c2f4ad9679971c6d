//! Answers whose body comes in pieces.
//!
//! Behind a trigger that streams, each piece is sent when it is there:
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-custom.html#runtimes-custom-response-streaming>. The function
//! cannot see whether its trigger does that, so [`INVOKE_MODE`](crate::run::INVOKE_MODE) says it. Behind any other trigger,
//! the pieces are collected.

use std::{
    future::ready,
    mem,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::{Buf, Bytes};
use futures_util::{
    FutureExt, StreamExt,
    future::{Either, join, select},
    stream::{iter, poll_fn, select as merge},
};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use lambda_http::{
    Error,
    http::{
        HeaderMap, HeaderName, HeaderValue, Request, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, TRAILER, TRANSFER_ENCODING},
        request::Builder,
        response::Parts,
    },
};
use lambda_runtime_api_client::body::Body as Sent;
use tokio::{
    sync::mpsc::{Sender, channel},
    task::yield_now,
};

use crate::{
    Body, Problem, Response,
    answer::prelude,
    caught::{caught, caught_async},
    deadline::{GRACE, in_time},
    lambda::{FUNCTION_ERROR_TYPE, PANIC, failure},
    log::InvocationSpan,
    respond::sent,
    service::{problem, whole},
};

const FUNCTION_ERROR_BODY: HeaderName = HeaderName::from_static("lambda-runtime-function-error-body");

/// How long past the time at which a stream is ended Lambda may take to read that.
const LAST_WORDS: Duration = Duration::from_millis(25);

/// The body beside a stream. Unlike `Body::Empty`, it tells a layer its size, so that none begins to compress it.
const NO_BODY: Body = Body::Text(String::new());

/// Answers with what `write` sends, piece by piece, as `content_type`.
///
/// `write` runs only while the caller can take more, and only [until the deadline](crate::deadline()). How it ends is how the
/// body ends: with `Ok` it is complete. With an error or a panic, the caller's connection breaks, so that nobody takes what
/// came for the whole, and the log has the cause. If the caller is gone, `write` is dropped.
///
/// Behind a trigger that does not stream, the pieces are collected. If they are more than the trigger takes, or if `write`
/// fails, the caller gets a problem.
///
/// ```
/// use handler::{Context, Problem, Request, Response, stream};
///
/// async fn numbers(_: Request) -> Result<Response, Problem> {
///     Ok(stream("text/csv", |pieces| async move {
///         for number in 1..=3 {
///             pieces.send(format!("{number}\r\n")).await?;
///         }
///         Ok(())
///     }))
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), handler::Error> {
/// let event = br#"{"path": "/", "httpMethod": "GET", "requestContext": {"elb": {}}}"#;
/// let answer = handler::invoke(numbers, event, Context::default()).await?;
/// assert!(answer.contains(r#""body":"1\r\n2\r\n3\r\n""#));
/// # Ok(())
/// # }
/// ```
pub fn stream<F>(content_type: &'static str, write: impl FnOnce(Pieces) -> F) -> Response
where
    F: Future<Output = Result<(), Error>> + Send + 'static,
{
    let (pieces, mut receiver) = channel(1);
    // A piece is taken before `send` ends, so it comes before the failure of what sent it.
    let failure = write(Pieces(pieces)).into_stream().filter_map(|ended| ready(ended.err().map(Err)));
    let pieces = poll_fn(move |context| receiver.poll_recv(context)).map(|piece| Ok(Frame::data(piece)));
    let mut response = stream_body(StreamBody::new(merge(pieces, failure)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Answers with a body of any kind as it comes, such as another service's response. Its trailers are left out, because
/// Lambda passes none on. Otherwise this is like [`stream`]. A [layer](crate::Endpoint::layer) around the endpoint sees the
/// head of the answer alone.
///
/// ```
/// use bytes::Bytes;
/// use handler::stream_body;
/// use http_body_util::Full;
///
/// let response = stream_body(Full::new(Bytes::from("from elsewhere")));
/// assert_eq!(response.status(), 200);
/// ```
pub fn stream_body(body: impl http_body::Body<Data: Send, Error: Into<Error>> + Send + 'static) -> Response {
    let body = body.map_frame(|frame| frame.map_data(|mut data| data.copy_to_bytes(data.remaining())));
    let body = body.map_err(Into::into);
    let mut response = Response::new(NO_BODY);
    response.extensions_mut().insert(Streamed(Arc::new(Mutex::new(body.boxed_unsync()))));
    response
}

/// Answers with server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>). Otherwise this is
/// like [`stream`]. A browser that lost the connection, as at Lambda's deadline, asks again, and sends the last event's id as
/// `Last-Event-ID`.
///
/// ```
/// use handler::{Context, Problem, Request, Response, ServerSentEvent, server_sent_events};
///
/// async fn progress(_: Request) -> Result<Response, Problem> {
///     Ok(server_sent_events(|events| async move {
///         events.send(ServerSentEvent { id: "7", name: "progress", data: "half" }).await?;
///         events.send(ServerSentEvent { data: "two\nlines", ..ServerSentEvent::default() }).await
///     }))
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), handler::Error> {
/// let event = br#"{"path": "/", "httpMethod": "GET", "requestContext": {"elb": {}}}"#;
/// let answer = handler::invoke(progress, event, Context::default()).await?;
/// assert!(answer.contains(r"id: 7\nevent: progress\ndata: half\n\ndata: two\ndata: lines\n\n"));
/// # Ok(())
/// # }
/// ```
pub fn server_sent_events<F>(write: impl FnOnce(Events) -> F) -> Response
where
    F: Future<Output = Result<(), Error>> + Send + 'static,
{
    let mut response = stream("text/event-stream", |pieces| write(Events(pieces)));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Where the pieces of an answer go.
#[derive(Clone, Debug)]
pub struct Pieces(Sender<Bytes>);

impl Pieces {
    /// Sends a piece, and waits until the caller can take another one. Each piece is written on its own: gather small ones.
    ///
    /// # Errors
    ///
    /// If the answer has ended. Only a task that was [spawned](crate::spawn) can see that.
    pub async fn send(&self, piece: impl Into<Bytes>) -> Result<(), Error> {
        let ended = || Error::from("the answer has ended");
        self.0.send(piece.into()).await.map_err(|_| ended())?;
        // There is room for one piece, so this one was taken.
        self.0.reserve().await.map_err(|_| ended())?;
        // hyper sends what it has when there is nothing more for now. What comes next may take the endpoint a while.
        yield_now().await;
        Ok(())
    }
}

/// Where server-sent events go.
#[derive(Clone, Debug)]
pub struct Events(Pieces);

/// A server-sent event. A field that is empty is not sent, except for `data`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServerSentEvent<'a> {
    /// What the browser sends as `Last-Event-ID` when it asks again.
    pub id: &'a str,
    /// What the page listens for. Empty: `message`.
    pub name: &'a str,
    /// One line or several.
    pub data: &'a str,
}

impl Events {
    /// Sends an event, and waits until the caller can take another one.
    ///
    /// # Errors
    ///
    /// As for [`Pieces::send`], and if the id or the name has a line break, which would begin another field, or the id a NUL.
    pub async fn send(&self, event: ServerSentEvent<'_>) -> Result<(), Error> {
        let ServerSentEvent { id, name, data } = event;
        if [id, name].concat().contains(['\n', '\r', '\0']) {
            return Err("the id or the name of an event has a line break or a NUL".into());
        }
        let data = data.replace("\r\n", "\n");
        let named = [("id", id), ("event", name)].into_iter().filter(|(_, value)| !value.is_empty());
        // A carriage return ends a line, too.
        let lines = data.split(['\n', '\r']).map(|line| ("data", line));
        let fields = named.chain(lines).flat_map(|(field, value)| [field, ": ", value, "\n"]);
        self.0.send(fields.chain(["\n"]).collect::<String>()).await
    }
}

/// A body in a response's extensions, which are cloned with it.
#[derive(Clone)]
pub(crate) struct Streamed(Arc<Mutex<UnsyncBoxBody<Bytes, Error>>>);

impl Streamed {
    /// Takes the body of `response`, unless such a response has none (RFC 9110, sections 9.3.2, 15.3.5 and 15.4.5).
    fn take(response: &mut Response, is_head: bool) -> Option<UnsyncBoxBody<Bytes, Error>> {
        let has_none = is_head || matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let Self(body) = response.extensions_mut().remove().filter(|_| !has_none)?;
        let mut body = body.lock().unwrap_or_else(PoisonError::into_inner);
        Some(mem::take(&mut *body))
    }
}

/// The response of a tower service, whose body need not be there yet.
///
/// # Errors
///
/// If it is a layer around an endpoint that streams, and has made a body of its own.
pub(crate) fn of_service<B>(mut parts: Parts, body: B) -> Result<Response, Problem>
where
    B: http_body::Body<Data: Send, Error: Into<Error>> + Send + 'static,
{
    if body.size_hint().exact() != Some(0) && !body.is_end_stream() {
        if parts.extensions.get::<Streamed>().is_some() {
            let cause = "a layer changed the body of a stream, of which it sees only the head";
            return Err(Problem::internal().because(cause));
        }
        parts.extensions.extend(stream_body(body).into_parts().0.extensions);
    }
    Ok(Response::from_parts(parts, NO_BODY))
}

/// The answer of an endpoint. `most` is how many bytes of a stream are collected; without it, the stream is sent.
pub(crate) async fn collected(
    answering: impl Future<Output = Result<Response, Problem>>,
    most: Option<usize>,
) -> Result<Response, Problem> {
    let mut response = answering.await?;
    if let Some(most) = most
        && let Some(body) = Streamed::take(&mut response, false)
    {
        // Boxed, because most answers are no streams.
        *response.body_mut() = whole(body, most).boxed().await?;
    }
    Ok(response)
}

/// An answer for a trigger that streams.
pub(crate) struct Begun {
    pub(crate) invocation: InvocationSpan,
    pub(crate) is_head: bool,
    pub(crate) outcome: Result<Response, Problem>,
}

impl Begun {
    /// Sends it with `post`, as the body of a request, until the deadline, and ends the invocation. Like any other
    /// answer, it is a problem if it cannot be sent.
    pub(crate) async fn send<F>(self, post: impl FnOnce(Builder, Sent) -> F) -> Result<(), Error>
    where
        F: Future<Output = Result<bool, Error>>,
    {
        let Self { invocation, is_head, outcome } = self;
        let convert = |mut response: Response| {
            let whole = mem::take(response.body_mut());
            let body = Streamed::take(&mut response, is_head).or((!is_head).then(|| whole.boxed_unsync()));
            Ok((prelude(&response)?, response.status(), body.unwrap_or_default()))
        };
        let last_resort = |json| (String::from(json), StatusCode::INTERNAL_SERVER_ERROR, UnsyncBoxBody::default());
        // Panics and events in the endpoint's code are the invocation's.
        let answer = invocation.sync_scope(|| sent(&invocation, outcome, convert, last_resort));
        let ((prelude, status, mut body), of_answer) = answer;
        let deadline = invocation.deadline().map(|at| at + GRACE);
        let (mut bytes, mut first_byte) = (0, None);
        // With room for one, each piece would wake the connection.
        let (frames, mut receiver) = channel(4);
        let pieces = poll_fn(move |context| receiver.poll_recv(context)).map(Ok::<_, Error>);
        // A stream ends with trailers, if only with none. Without them it was given up, and the connection breaks.
        let given_up = iter([Err("the stream was given up".into())]);
        let request = Request::builder()
            .header("lambda-runtime-function-response-mode", "streaming")
            .header(CONTENT_TYPE, "application/vnd.awslambda.http-integration-response")
            .header(TRANSFER_ENCODING, "chunked")
            .header(TRAILER, FUNCTION_ERROR_TYPE)
            .header(TRAILER, FUNCTION_ERROR_BODY);
        let posted = post(request, Sent::new(StreamBody::new(pieces.chain(given_up))));
        let written = invocation.scope(caught_async(async {
            // Two pieces, because `cargo lambda watch` takes the first one for the prelude, and the second one for its end.
            for piece in [prelude.into(), Bytes::from_static(&[0; 8])] {
                frames.send(Frame::data(piece)).await?;
            }
            while let Some(frame) = body.frame().await {
                // Its trailers are left out, because Lambda would not pass them on.
                let Ok(piece) = frame?.into_data() else { continue };
                bytes += piece.len();
                frames.send(Frame::data(piece)).await?;
                if bytes > 0 {
                    first_byte.get_or_insert_with(Instant::now);
                }
            }
            Ok::<_, Error>(())
        }));
        let ended = async {
            let (end, failure) = match select(pin!(frames.closed()), pin!(in_time(deadline, written))).await {
                // Nobody reads any more.
                _ if frames.is_closed() => ("caller-gone", None),
                Either::Right((Some(Some(Ok(()))), _)) => ("complete", None),
                Either::Right((Some(Some(Err(error))), _)) => ("error", Some(problem(error))),
                Either::Right((Some(None), _)) => ("panic", Some(Problem::panicked())),
                _ => ("deadline", Some(Problem::deadline_exceeded())),
            };
            let trailers = failure.as_ref().map(|_| reported(end)).unwrap_or_default();
            let _ = frames.send(Frame::trailers(trailers)).await;
            (end, failure)
        };
        // `cargo lambda watch` responds before it has read the body.
        let all = in_time(deadline.map(|at| at + LAST_WORDS), join(ended, posted)).await;
        let ((end, failure), posted) = all.unwrap_or((("deadline", Some(Problem::deadline_exceeded())), Ok(false)));
        let problem = of_answer.or(failure);
        invocation.end(status, bytes, problem.as_ref(), Some((end, first_byte)));
        // They are the endpoint's, whose `drop` may panic.
        invocation.sync_scope(|| caught(|| drop((body, problem))));
        posted.map(drop)
    }
}

/// The trailers that report a failure. The log has its cause.
fn reported(end: &str) -> HeaderMap {
    let (kind, message) = match end {
        "deadline" => ("Runtime.StreamDeadline", "the time for this request ran out"),
        "panic" => (PANIC, "the function panicked"),
        _ => ("Runtime.StreamError", "the stream failed"),
    };
    let body = BASE64_STANDARD.encode(failure(kind, message));
    let body = HeaderValue::try_from(body).unwrap_or(HeaderValue::from_static(""));
    [(FUNCTION_ERROR_TYPE, HeaderValue::from_static(kind)), (FUNCTION_ERROR_BODY, body)].into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        time::{Duration, SystemTime, UNIX_EPOCH},
    };

    use http_body_util::Full;
    use lambda_http::http::{
        self,
        header::{ETAG, SET_COOKIE},
        request::Builder,
    };
    use serde_json::{Value, json};
    use tower::{service_fn, util::MapResponseLayer};
    use tower_http::{compression::CompressionLayer, cors::CorsLayer, set_header::SetResponseHeaderLayer};

    use super::*;
    use crate::{
        Endpoint, Request,
        background::answer_then_finish,
        get,
        log::{Format, Log},
        respond::{Outgoing, respond},
        service,
    };

    async fn observed(endpoint: impl Endpoint) -> (Value, String, usize, Value) {
        observed_for(Duration::ZERO, endpoint).await
    }

    const URL: &[u8] = br#"{"rawPath": "/", "headers": {"accept-encoding": "gzip"}, "requestContext":
        {"domainName": "a.lambda-url.us-east-1.on.aws", "http": {"method": "GET"}}}"#;

    /// Sends the answer to an invocation that Lambda ends after `limit` with `post`, and returns the line.
    async fn sent<F>(limit: Duration, endpoint: impl Endpoint, post: impl FnOnce(Builder, Sent) -> F) -> Value
    where
        F: Future<Output = Result<bool, Error>>,
    {
        let line = Arc::new(Mutex::new(Value::Null));
        let written = Arc::clone(&line);
        let write = move |line: &[u8]| *written.lock().unwrap() = serde_json::from_slice(line).unwrap();
        let log = Arc::new(Log::new(Format::Json, write));
        let mut context = crate::Context::default();
        let deadline = SystemTime::now() + limit;
        context.deadline = deadline.duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap();
        let answering = respond(&log, Duration::ZERO, &endpoint, Bytes::from_static(URL), context, true).boxed();
        let sending = async {
            let Outgoing::Stream(stream) = answering.await.unwrap() else { panic!("no stream") };
            stream.send(post).await.unwrap();
        };
        answer_then_finish(sending).boxed_local().await;
        line.lock().unwrap().take()
    }

    /// The prelude, the body, the number of trailers, and the line, of an invocation that Lambda ends after `limit`.
    async fn observed_for(limit: Duration, endpoint: impl Endpoint) -> (Value, String, usize, Value) {
        let (mut sent_bytes, mut trailers) = (Vec::new(), None);
        let post = async |_, mut body: Sent| {
            // As hyper, it reads nothing after the trailers.
            while trailers.is_none() {
                match body.frame().await.unwrap().unwrap().into_data() {
                    Ok(piece) => sent_bytes.extend(piece),
                    Err(frame) => trailers = Some(frame.into_trailers().unwrap().len()),
                }
            }
            Ok(true)
        };
        let line = sent(limit, endpoint, post).await;
        let sent = String::from_utf8(sent_bytes).unwrap();
        let (prelude, body) = sent.split_once("\0\0\0\0\0\0\0\0").unwrap();
        (serde_json::from_str(prelude).unwrap(), body.to_owned(), trailers.unwrap(), line)
    }

    #[tokio::test]
    async fn the_body_of_a_service_is_sent_as_it_comes_and_a_layer_leaves_a_stream_alone() {
        let pieces = || {
            let pieces = [Ok("a"), Ok("b"), Err(Error::from("the cause"))];
            let frames = pieces.map(|piece| piece.map(|piece| http_body::Frame::data(Bytes::from(piece))));
            StreamBody::new(futures_util::stream::iter(frames))
        };
        let of_service = service(service_fn(move |_: Request| async move {
            Ok::<_, Infallible>(http::Response::builder().header(ETAG, "\"a\"").body(pieces()).unwrap())
        }));
        let layered = get(move |_: Request| async move { Ok(stream_body(pieces())) })
            .layer(SetResponseHeaderLayer::overriding(ETAG, HeaderValue::from_static("\"a\"")))
            .layer(CompressionLayer::new())
            .layer(CorsLayer::new());
        let (of_service, layered) = (observed(of_service).await, observed(layered).await);
        for (prelude, body, trailers, line) in [of_service, layered] {
            assert_eq!((&*body, trailers, &prelude["headers"]["etag"]), ("ab", 2, &json!("\"a\"")));
            assert_eq!(
                (&line["stream"], &line["bytes_out"], &line["ServerErrors"]),
                (&json!("error"), &json!(2), &json!(1))
            );
            assert!(line["error"].as_str().unwrap().ends_with("the cause"), "{line}");
        }
        let body = |_| Body::Text("another".into());
        let changed = get(move |_: Request| async move { Ok(stream_body(pieces())) })
            .layer(MapResponseLayer::new(move |response: Response| response.map(body)));
        let (prelude, _, _, line) = observed(changed).await;
        assert_eq!((&prelude["statusCode"], &line["problem"]), (&json!(500), &json!("internal")));
        assert!(line["error"].as_str().unwrap().contains("a layer changed"), "{line}");
    }

    /// Panics when it is dropped.
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in a drop");
        }
    }

    fn is_ended_by_the_deadline((_, body, trailers, line): &(Value, String, usize, Value)) -> bool {
        body.starts_with('x') && *trailers == 2 && tells_of_the_deadline(line)
    }

    fn tells_of_the_deadline(line: &Value) -> bool {
        (&line["stream"], &line["problem"], &line["status"])
            == (&json!("deadline"), &json!("deadline-exceeded"), &json!(200))
            && (&line["level"], &line["ServerErrors"]) == (&json!("ERROR"), &json!(1))
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_ends_a_stream_that_stalls_whatever_its_drop_does() {
        let endpoint = |_: Request| async {
            Ok(stream("text/plain", |pieces| async move {
                let _bomb = Bomb;
                pieces.send("x").await?;
                std::future::pending().await
            }))
        };
        let observed = observed_for(Duration::from_mins(1), endpoint).await;
        assert!(is_ended_by_the_deadline(&observed), "{observed:?}");
    }

    /// Lambda has responded already, so the connection is not closed.
    #[tokio::test(start_paused = true)]
    async fn a_stream_that_is_given_up_does_not_seem_complete() {
        let endpoint = |_: Request| async {
            Ok(stream("text/plain", |pieces| async move {
                loop {
                    pieces.send("x").await?;
                }
            }))
        };
        let mut unread = None;
        let line = sent(Duration::from_mins(1), endpoint, |_, body| {
            unread = Some(body);
            async { Ok(true) }
        });
        let line = line.await;
        assert_eq!((&line["stream"], &line["problem"]), (&json!("deadline"), &json!("deadline-exceeded")));
        assert!(unread.unwrap().collect().await.is_err());
    }

    /// The clock runs: while it is paused, it moves only if all wait. So on a busy machine there may be no time for trailers.
    #[tokio::test]
    async fn the_deadline_ends_a_stream_that_always_has_a_piece() {
        let read = async |_, mut body: Sent| {
            while body.frame().await.is_some_and(|frame| frame.is_ok_and(|frame| frame.is_data())) {}
            Ok(true)
        };
        let endpoint = |_: Request| async {
            Ok(stream("text/plain", |pieces| async move {
                loop {
                    pieces.send("x").await?;
                }
            }))
        };
        let line = sent(Duration::from_millis(300), endpoint, read).await;
        assert!(tells_of_the_deadline(&line) && line["bytes_out"] != 0, "{line}");
        let endpoint = |_: Request| async {
            let ready = futures_util::stream::repeat_with(|| Ok::<_, Error>(http_body::Frame::data(Bytes::from("x"))));
            Ok(stream_body(StreamBody::new(ready)))
        };
        let line = sent(Duration::from_millis(300), endpoint, read).await;
        assert!(tells_of_the_deadline(&line) && line["bytes_out"] != 0, "{line}");
    }

    #[tokio::test]
    async fn a_problem_that_a_service_passes_on_is_in_the_line() {
        let refuses = service(service_fn(async |_: Request| {
            Ok::<_, Infallible>(Problem::misconfigured(std::io::Error::other("the cause")).into_http())
        }));
        let (prelude, body, trailers, line) = observed(refuses).await;
        assert_eq!((&prelude["statusCode"], trailers, &line["stream"]), (&json!(500), 0, &json!("complete")));
        assert!(body.contains("misconfigured") && !body.contains("cause"), "{body}");
        assert_eq!((&line["problem"], &line["ServerErrors"]), (&json!("misconfigured"), &json!(1)));
    }

    #[tokio::test]
    async fn cookies_are_apart_and_a_head_that_cannot_be_sent_is_a_problem() {
        let with = |name: http::HeaderName, values: Vec<Vec<u8>>| {
            move |_: Request| {
                let mut response = stream("text/plain", |pieces| async move { pieces.send("sent").await });
                for value in &values {
                    response.headers_mut().append(&name, HeaderValue::from_bytes(value).unwrap());
                }
                async { Ok(response) }
            }
        };
        let (prelude, body, ..) = observed(with(SET_COOKIE, vec![b"a=1".into(), b"b=2".into()])).await;
        assert_eq!((&prelude["cookies"], &*body), (&json!(["a=1", "b=2"]), "sent"));
        for values in [vec![b"\xff".into()], vec![vec![b'x'; 16 * 1024]]] {
            let (prelude, body, _, line) = observed(with(ETAG, values.clone())).await;
            assert_eq!((&prelude["statusCode"], &line["problem"]), (&json!(500), &json!("internal")), "{line}");
            assert!(body.contains("urn:problem-type:internal") && line["error"].is_string(), "{body}");
            let refuses = move |_: Request| {
                let value = HeaderValue::from_bytes(&values[0]).unwrap();
                async { Err(Problem::not_found("Gone.").with_header(ETAG, value)) }
            };
            let (prelude, _, _, line) = observed(refuses).await;
            assert_eq!((&prelude["statusCode"], &line["problem"]), (&json!(500), &json!("internal")));
            assert!(line["unsent_problem"].as_str().unwrap().starts_with("not-found"), "{line}");
        }
    }

    #[tokio::test]
    async fn a_task_may_write_and_sees_that_the_answer_has_ended() {
        let endpoint = |_: Request| async {
            Ok(stream("text/plain", |pieces| async move {
                let task = pieces.clone();
                crate::spawn(async move { while task.send("x").await.is_ok() {} });
                pieces.send("y").await?;
                Err("the cause".into())
            }))
        };
        let (_, body, trailers, line) = observed(endpoint).await;
        assert!(body.contains('y') && trailers == 2 && line["stream"] == "error", "{body} {line}");
        let endpoint = |_: Request| async {
            Ok(stream("text/plain", |pieces| async move {
                crate::spawn(async move { pieces.send("later").await });
                Ok(())
            }))
        };
        let (_, body, trailers, line) = observed(endpoint).await;
        assert!(body == "later" && trailers == 0 && line["stream"] == "complete", "{body} {line}");
    }

    #[tokio::test]
    async fn an_event_cannot_have_a_field_that_its_author_did_not_name() {
        for (id, name) in [("a\ndata: b", ""), ("", "a\rb"), ("a\0", "")] {
            let endpoint = move |_: Request| async move {
                Ok(server_sent_events(move |events| async move {
                    events.send(ServerSentEvent { id, name, data: "" }).await
                }))
            };
            let (_, body, trailers, _) = observed(endpoint).await;
            assert_eq!((&*body, trailers), ("", 2));
        }
        let endpoint = |_: Request| async {
            Ok(server_sent_events(|events| async move {
                events.send(ServerSentEvent { data: "a\r\nid: b\rc", ..ServerSentEvent::default() }).await
            }))
        };
        let (prelude, body, ..) = observed(endpoint).await;
        assert_eq!(body, "data: a\ndata: id: b\ndata: c\n\n");
        assert_eq!(prelude["headers"]["content-type"], "text/event-stream");
    }

    #[tokio::test]
    async fn trailers_and_empty_pieces_of_a_body_are_left_out() {
        let trailers = [(ETAG, HeaderValue::from_static("\"a\""))].into_iter().collect();
        let body = Full::new(Bytes::from("a")).with_trailers(async { Some(Ok::<_, Infallible>(trailers)) });
        let body = Mutex::new(Some(body));
        let body = Arc::new(body);
        let endpoint = move |_: Request| {
            let body = body.lock().unwrap().take().unwrap();
            async { Ok(stream_body(body)) }
        };
        let (_, body, trailers, line) = observed(endpoint).await;
        assert_eq!((&*body, trailers, &line["bytes_out"]), ("a", 0, &json!(1)));
    }
}
