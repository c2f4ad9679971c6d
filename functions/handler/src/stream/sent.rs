//! A stream on its way to Lambda.
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-custom.html#runtimes-custom-response-streaming>

use std::{future::pending, mem, pin::pin, time::Duration};

use bytes::Bytes;
use futures_util::{
    StreamExt,
    future::{Either, select},
    stream::{iter, poll_fn},
};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use lambda_http::{
    Error,
    http::{HeaderMap, StatusCode},
};
use lambda_runtime_api_client::body::Body;
use tokio::sync::mpsc::channel;

use super::Streamed;
use crate::{
    Problem, Response,
    answer::prelude,
    caught::{caught, caught_async},
    deadline::{GRACE, in_time},
    lambda::stream_failure,
    log::InvocationSpan,
    respond::sent,
    service::problem,
};

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
    /// Sends it as the body of the request that `post` makes, until the deadline, and ends the invocation. Like any other
    /// answer, it is a problem if it cannot be sent.
    pub(crate) async fn send<F>(self, post: impl FnOnce(Body) -> F) -> Result<(), Error>
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
        let (frames, mut receiver) = channel(1);
        let pieces = poll_fn(move |context| receiver.poll_recv(context)).map(Ok::<_, Error>);
        // A stream ends with trailers, if only with none. Without them it was given up, and the connection breaks.
        let given_up = iter([Err("the stream was given up".into())]);
        let posted = post(Body::new(StreamBody::new(pieces.chain(given_up))));
        // If nobody reads any more, this waits, and `closed` tells.
        let send = async |piece: Bytes| {
            if frames.send(Frame::data(piece)).await.is_err() {
                pending::<()>().await;
            }
        };
        let written = invocation.scope(caught_async(async {
            // Two pieces, because `cargo lambda watch` takes the first one for the prelude, and the second one for its end.
            for piece in [prelude.into(), DELIMITER] {
                send(piece).await;
            }
            while let Some(frame) = body.frame().await {
                // Its trailers are left out, because Lambda would not pass them on.
                let Ok(piece) = frame?.into_data() else { continue };
                let length = piece.len();
                send(piece).await;
                if length > 0 {
                    bytes += length;
                    first_byte.get_or_insert_with(|| invocation.age());
                }
            }
            Ok::<_, Error>(())
        }));
        let ended = async {
            // Nobody reads a stream whose body was dropped.
            let (end, failure) = match select(pin!(frames.closed()), pin!(in_time(deadline, written))).await {
                Either::Left(_) => ("caller-gone", None),
                Either::Right((None, _)) => ("deadline", Some(Problem::deadline_exceeded())),
                Either::Right((Some(None), _)) => ("panic", Some(Problem::panicked())),
                Either::Right((Some(Some(Err(error))), _)) => ("error", Some(problem(error))),
                Either::Right((Some(Some(Ok(()))), _)) => ("complete", None),
            };
            let trailers = if failure.is_some() { stream_failure(end) } else { HeaderMap::new() };
            let _ = frames.send(Frame::trailers(trailers)).await;
            (end, failure)
        };
        let all = async {
            match select(pin!(posted), pin!(ended)).await {
                // `cargo lambda watch` responds before it has read the body.
                Either::Left((Ok(true), ended)) => (ended.await, Ok(())),
                Either::Left((refused, _)) => (("caller-gone", None), refused.map(drop)),
                Either::Right((ended, posted)) => (ended, posted.await.map(drop)),
            }
        };
        let all = in_time(deadline.map(|at| at + LAST_WORDS), all).await;
        // Somebody reads it, but too slowly.
        let too_slow = || (("deadline", Some(Problem::deadline_exceeded())), Ok(()));
        let ((end, failure), posted) = all.unwrap_or_else(too_slow);
        let problem = of_answer.or(failure);
        invocation.end(status, bytes, problem.as_ref(), Some((end, first_byte)));
        // They are the endpoint's, whose `drop` may panic.
        invocation.sync_scope(|| caught(|| drop((body, problem))));
        posted
    }
}
