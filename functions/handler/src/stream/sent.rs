//! A stream on its way to Lambda.
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-custom.html#runtimes-custom-response-streaming>

use std::{
    mem,
    pin::pin,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures_util::{
    StreamExt,
    future::{Either, join, select},
    stream::{iter, poll_fn},
};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use lambda_http::{
    Error,
    http::{
        HeaderMap, HeaderName, HeaderValue, Request, StatusCode,
        header::{CONTENT_TYPE, TRAILER, TRANSFER_ENCODING},
        request::Builder,
    },
};
use lambda_runtime_api_client::body::Body;
use tokio::sync::mpsc::channel;

use super::Streamed;
use crate::{
    Problem, Response,
    answer::prelude,
    caught::{caught, caught_async},
    deadline::{GRACE, in_time},
    lambda::{FUNCTION_ERROR_TYPE, PANIC, failure},
    log::InvocationSpan,
    respond::sent,
    service::problem,
};

const RESPONSE_MODE: HeaderName = HeaderName::from_static("lambda-runtime-function-response-mode");
const FUNCTION_ERROR_BODY: HeaderName = HeaderName::from_static("lambda-runtime-function-error-body");

/// How long past the time at which a stream is ended Lambda may take to read that.
const LAST_WORDS: Duration = Duration::from_millis(25);

/// The end of the prelude.
const DELIMITER: Bytes = Bytes::from_static(&[0; 8]);

/// An answer for a trigger that streams.
pub(crate) struct Begun {
    pub(crate) invocation: InvocationSpan,
    pub(crate) is_head: bool,
    pub(crate) outcome: Result<Response, Problem>,
}

impl Begun {
    /// Sends it with `post`, as the body of a request, until the deadline, and ends the invocation. Like any other
    /// answer, it is a problem if it cannot be sent.
    pub(crate) async fn send<F>(self, post: impl FnOnce(Builder, Body) -> F) -> Result<(), Error>
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
            .header(RESPONSE_MODE, "streaming")
            .header(CONTENT_TYPE, "application/vnd.awslambda.http-integration-response")
            .header(TRANSFER_ENCODING, "chunked")
            .header(TRAILER, FUNCTION_ERROR_TYPE)
            .header(TRAILER, FUNCTION_ERROR_BODY);
        let posted = post(request, Body::new(StreamBody::new(pieces.chain(given_up))));
        let written = invocation.scope(caught_async(async {
            // Two pieces, because `cargo lambda watch` takes the first one for the prelude, and the second one for its end.
            for piece in [prelude.into(), DELIMITER] {
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
