//! A stream on its way to Lambda.
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-custom.html#runtimes-custom-response-streaming>

use std::{
    array,
    convert::Infallible,
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use lambda_http::{
    Error,
    http::{HeaderMap, StatusCode},
};
use tokio::{
    sync::oneshot,
    time::{Instant, Sleep, sleep_until, timeout_at},
};

use super::Streamed;
use crate::{
    Problem, Response,
    answer::prelude,
    caught::caught,
    deadline,
    log::{InvocationSpan, StreamEnd},
    respond::{sent, with_common_headers},
    service::problem,
};

/// How long past the time at which a stream is ended Lambda may take to read that.
const LAST_WORDS: Duration = Duration::from_millis(25);

/// The end of the prelude.
const DELIMITER: Bytes = Bytes::from_static(&[0; 8]);

/// Makes the answer for a trigger that streams: what is sent, and what waits for that. Like any other, it is a problem if
/// it cannot be sent.
pub(crate) fn begin(
    invocation: &InvocationSpan,
    is_head: bool,
    outcome: Result<Response, Problem>,
) -> (SentBody, Begun) {
    let convert = |mut response: Response| {
        let whole = mem::take(response.body_mut());
        let body = Streamed::take(&mut response, is_head).or((!is_head).then(|| whole.boxed_unsync()));
        Ok((prelude(&response)?, response.status(), body))
    };
    let last_resort = || {
        let mut internal = Problem::internal().to_response(invocation.request_id());
        with_common_headers(invocation, &mut internal);
        convert(internal).unwrap_or((r#"{"statusCode":500}"#.into(), StatusCode::INTERNAL_SERVER_ERROR, None))
    };
    let ((prelude, status, body), problem) = sent(invocation, outcome, convert, last_resort);
    let (ends, ended) = oneshot::channel();
    let progress = Arc::default();
    let deadline = invocation.deadline().map(|at| at + deadline::GRACE);
    let sent = SentBody {
        // Two chunks, because `cargo lambda watch` takes the first one for the prelude, and the second one for its end.
        head: [prelude.into(), DELIMITER].into_iter(),
        body,
        ends: Some(ends),
        deadline: deadline.map(|at| Box::pin(sleep_until(at))),
        progress: Arc::clone(&progress),
        invocation: invocation.clone(),
    };
    (sent, Begun { invocation: invocation.clone(), status, problem, progress, ended, deadline })
}

/// What is known of a stream while it is sent.
#[derive(Default)]
struct Progress {
    bytes: usize,
    first_byte: Option<Duration>,
    end: StreamEnd,
    problem: Option<Problem>,
}

/// A stream that has begun. Whoever sends it waits for its end.
pub(crate) struct Begun {
    invocation: InvocationSpan,
    status: StatusCode,
    /// Why the answer is one of an error.
    problem: Option<Problem>,
    progress: Arc<Mutex<Progress>>,
    ended: oneshot::Receiver<()>,
    deadline: Option<Instant>,
}

impl Begun {
    /// Waits until `sending`, the request whose body the stream is, is done, and the stream has ended, which can be later:
    /// `cargo lambda watch` responds before it has read the body. Then ends the invocation. A stream whose reader does not
    /// read is given up at the deadline.
    pub(crate) async fn end(self, sending: impl Future<Output = Result<bool, Error>>) -> Result<(), Error> {
        let Self { invocation, status, problem, progress, ended, deadline } = self;
        let all = async {
            if sending.await? {
                let _ = ended.await;
            }
            Ok(())
        };
        let sent = match deadline {
            Some(at) => timeout_at(at + LAST_WORDS, all).await.unwrap_or_else(|_| {
                let mut progress = locked(&progress);
                (progress.end, progress.problem) = (StreamEnd::Deadline, Some(Problem::deadline_exceeded()));
                Ok(())
            }),
            None => all.await,
        };
        let Progress { bytes, first_byte, end, problem: failure } = mem::take(&mut *locked(&progress));
        invocation.end(status, bytes, failure.as_ref().or(problem.as_ref()), Some((end, first_byte)));
        // Their causes are the endpoint's, whose `drop` may panic.
        caught(|| drop(failure));
        caught(|| drop(problem));
        sent
    }
}

/// The body of the request that sends a stream. hyper asks it for a piece when it has room for one.
pub(crate) struct SentBody {
    head: array::IntoIter<Bytes, 2>,
    body: Option<UnsyncBoxBody<Bytes, Error>>,
    /// Tells that the stream has ended.
    ends: Option<oneshot::Sender<()>>,
    deadline: Option<Pin<Box<Sleep>>>,
    progress: Arc<Mutex<Progress>>,
    invocation: InvocationSpan,
}

impl http_body::Body for SentBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if let Some(head) = this.head.next() {
            return Poll::Ready(Some(Ok(Frame::data(head))));
        }
        if this.ends.is_none() {
            return Poll::Ready(None);
        }
        let (end, failure) = match ready!(this.next(context)) {
            Some(Ok(piece)) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
            Some(Err((end, problem))) => (end, Some(problem)),
            None => (StreamEnd::Complete, None),
        };
        let trailers = this.end(end, failure);
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }
}

impl SentBody {
    fn next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, (StreamEnd, Problem)>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        // First, so that a body that always has a piece ends, too. That may also keep the timer from being looked at.
        let is_over = |deadline: &mut Pin<Box<Sleep>>| {
            deadline.deadline() <= Instant::now() || deadline.as_mut().poll(context).is_ready()
        };
        if self.deadline.as_mut().is_some_and(is_over) {
            return Poll::Ready(Some(Err((StreamEnd::Deadline, Problem::deadline_exceeded()))));
        }
        let piece = || -> Poll<Result<Option<Bytes>, Error>> {
            loop {
                match ready!(Pin::new(&mut *body).poll_frame(context)?) {
                    None => return Poll::Ready(Ok(None)),
                    Some(frame) => match frame.into_data() {
                        Ok(data) if !data.is_empty() => return Poll::Ready(Ok(Some(data))),
                        // Nothing, or its trailers, which Lambda would not pass on.
                        _ => {}
                    },
                }
            }
        };
        // Panics and events in the endpoint's code are the invocation's.
        match self.invocation.sync_scope(|| caught(piece)) {
            Some(Poll::Pending) => Poll::Pending,
            Some(Poll::Ready(Ok(piece))) => {
                if let Some(piece) = &piece {
                    let mut progress = locked(&self.progress);
                    progress.bytes += piece.len();
                    progress.first_byte.get_or_insert_with(|| self.invocation.age());
                }
                Poll::Ready(piece.map(Ok))
            }
            Some(Poll::Ready(Err(error))) => Poll::Ready(Some(Err((StreamEnd::Error, problem(error))))),
            None => Poll::Ready(Some(Err((StreamEnd::Panic, Problem::panicked())))),
        }
    }

    /// Ends the stream, and returns the trailers that say so to Lambda if it failed.
    fn end(&mut self, end: StreamEnd, failure: Option<Problem>) -> Option<HeaderMap> {
        let trailers = failure.as_ref().map(|_| crate::lambda::stream_failure(end));
        {
            let mut progress = locked(&self.progress);
            (progress.end, progress.problem) = (end, failure);
        }
        self.drop_body();
        trailers
    }

    /// Drops the body, which is the endpoint's, and whose `drop` may panic. Then tells that it is gone.
    fn drop_body(&mut self) {
        let body = self.body.take();
        self.invocation.sync_scope(|| caught(|| drop(body)));
        self.ends = None;
    }
}

/// If it has not ended, nobody reads it any more.
impl Drop for SentBody {
    fn drop(&mut self) {
        self.drop_body();
    }
}

fn locked(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}
