//! A stream on its way to Lambda.
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-custom.html#runtimes-custom-response-streaming>

use std::{mem, time::Duration};

use bytes::Bytes;
use futures_util::{
    StreamExt,
    stream::{iter, unfold},
};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use lambda_http::{Error, http::StatusCode};
use lambda_runtime_api_client::body::Body;
use tokio::{
    sync::watch::{Receiver, Sender, channel},
    time::Instant,
};

use super::Streamed;
use crate::{
    Problem, Response,
    answer::prelude,
    caught::{caught, caught_async},
    deadline::{GRACE, in_time},
    lambda::stream_failure,
    log::{InvocationSpan, StreamEnd},
    respond::sent,
    service::problem,
};

/// How long past the time at which a stream is ended Lambda may take to read that.
const LAST_WORDS: Duration = Duration::from_millis(25);

/// The end of the prelude.
const DELIMITER: Bytes = Bytes::from_static(&[0; 8]);

/// Makes the answer for a trigger that streams: the body of the request that sends it, and what waits for its end. Like
/// any other answer, it is a problem if it cannot be sent.
pub(crate) fn begin(invocation: &InvocationSpan, is_head: bool, outcome: Result<Response, Problem>) -> (Body, Begun) {
    let convert = |mut response: Response| {
        let whole = mem::take(response.body_mut());
        let body = Streamed::take(&mut response, is_head).or((!is_head).then(|| whole.boxed_unsync()));
        Ok((prelude(&response)?, response.status(), body))
    };
    let last_resort = |json| (String::from(json), StatusCode::INTERNAL_SERVER_ERROR, None);
    let ((prelude, status, body), problem) = sent(invocation, outcome, convert, last_resort);
    let (progress, ended) = channel(Progress { status, problem, ..Progress::default() });
    let deadline = invocation.deadline().map(|at| at + GRACE);
    let sending = Sending { body, deadline, progress, invocation: invocation.clone() };
    // Two pieces, because `cargo lambda watch` takes the first one for the prelude, and the second one for its end.
    let head = iter([prelude.into(), DELIMITER].map(|piece| Ok::<_, Error>(Frame::data(piece))));
    let frames = unfold(Some(sending), |sending| async {
        let mut sending = sending?;
        match sending.next().await {
            Ok(Some(piece)) => Some((Ok(Frame::data(piece)), Some(sending))),
            Ok(None) => {
                sending.end(StreamEnd::Complete, None);
                None
            }
            Err((end, problem)) => {
                sending.end(end, Some(problem));
                Some((Ok(Frame::trailers(stream_failure(end))), None))
            }
        }
    });
    let begun = Begun { invocation: invocation.clone(), ended, deadline };
    (Body::new(StreamBody::new(head.chain(frames))), begun)
}

/// What is known of a stream while it is sent.
#[derive(Default)]
struct Progress {
    status: StatusCode,
    bytes: usize,
    first_byte: Option<Duration>,
    end: StreamEnd,
    /// Why the answer is one of an error, or why the stream failed.
    problem: Option<Problem>,
}

/// A stream that has begun. Whoever sends it waits for its end.
pub(crate) struct Begun {
    invocation: InvocationSpan,
    /// Closed when the stream has ended.
    ended: Receiver<Progress>,
    deadline: Option<Instant>,
}

impl Begun {
    /// Waits until `sending`, the request whose body the stream is, is done, and the stream has ended, which can be later:
    /// `cargo lambda watch` responds before it has read the body. Then ends the invocation. A stream whose reader does not
    /// read is given up at the deadline.
    pub(crate) async fn end(self, sending: impl Future<Output = Result<bool, Error>>) -> Result<(), Error> {
        let Self { invocation, mut ended, deadline } = self;
        let all = async {
            if sending.await? {
                let _closed = ended.wait_for(|_| false).await.is_err();
            }
            Ok(())
        };
        let sent = in_time(deadline.map(|at| at + LAST_WORDS), all).await;
        let given_up = sent.is_none().then(Problem::deadline_exceeded);
        {
            let Progress { status, bytes, first_byte, end, problem } = &*ended.borrow();
            let end = if given_up.is_some() { StreamEnd::Deadline } else { *end };
            invocation.end(*status, *bytes, problem.as_ref().or(given_up.as_ref()), Some((end, *first_byte)));
        }
        // The problem's cause is the endpoint's, whose `drop` may panic.
        caught(|| drop(ended));
        sent.unwrap_or(Ok(()))
    }
}

/// A stream that is sent. hyper asks it for a piece when it has room for one. If it is dropped before it has ended, nobody
/// reads it any more.
struct Sending {
    body: Option<UnsyncBoxBody<Bytes, Error>>,
    deadline: Option<Instant>,
    progress: Sender<Progress>,
    invocation: InvocationSpan,
}

impl Sending {
    async fn next(&mut self) -> Result<Option<Bytes>, (StreamEnd, Problem)> {
        let Some(body) = &mut self.body else { return Ok(None) };
        let ran_out = || (StreamEnd::Deadline, Problem::deadline_exceeded());
        // First, so that a body that always has a piece ends, too.
        if self.deadline.is_some_and(|at| at <= Instant::now()) {
            return Err(ran_out());
        }
        // Panics and events in the endpoint's code are the invocation's.
        let piece = self.invocation.scope(caught_async(piece(body)));
        let piece = in_time(self.deadline, piece).await.ok_or_else(ran_out)?;
        let piece = piece.ok_or_else(|| (StreamEnd::Panic, Problem::panicked()))?;
        let piece = piece.map_err(|error| (StreamEnd::Error, problem(error)))?;
        self.progress.send_if_modified(|progress| {
            if let Some(piece) = &piece {
                progress.bytes += piece.len();
                progress.first_byte.get_or_insert_with(|| self.invocation.age());
            }
            // Nobody waits for that.
            false
        });
        Ok(piece)
    }

    fn end(&self, end: StreamEnd, failure: Option<Problem>) {
        self.progress
            .send_modify(|progress| (progress.end, progress.problem) = (end, progress.problem.take().or(failure)));
    }
}

/// The next piece of a body that is not empty. Its trailers are left out, because Lambda would not pass them on.
async fn piece(body: &mut UnsyncBoxBody<Bytes, Error>) -> Result<Option<Bytes>, Error> {
    while let Some(frame) = body.frame().await {
        if let Some(piece) = frame?.into_data().ok().filter(|data| !data.is_empty()) {
            return Ok(Some(piece));
        }
    }
    Ok(None)
}

impl Drop for Sending {
    /// Drops the body, which is the endpoint's, and whose `drop` may panic. Then those who wait are told.
    fn drop(&mut self) {
        let body = self.body.take();
        self.invocation.sync_scope(|| caught(|| drop(body)));
    }
}
