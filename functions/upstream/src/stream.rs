//! A response whose body is passed on as it arrives.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use handler::{
    Problem,
    http::{
        HeaderMap, HeaderName, StatusCode,
        header::{ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_RANGE, VARY},
    },
    stream_body,
};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use crate::{
    Error, Request, Response,
    client::BoxError,
    connection::{Connection, Received},
    error::Failure,
    upstream::Inner,
};

/// The upstream's response headers that callers get beside those of a whole response: they describe a body that is not
/// changed.
const ALSO_PASSED_ON: [HeaderName; 5] = [ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_RANGE, VARY];

/// Where an attempt leaves its good response, to be read as it arrives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arriving(Arc<Mutex<Option<Received>>>);

impl Arriving {
    pub(crate) fn put(&self, received: Received) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(received);
    }

    fn take(&self) -> Option<Received> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<'a> Request<'a> {
    /// Sends the request, and returns the response when its head is there. Its body is passed on as it arrives, of any
    /// size:
    ///
    /// ```
    /// # use handler::{Problem, Request, Response, path};
    /// # use upstream::Upstream;
    /// # static REPORTS: Upstream = Upstream::new("REPORTS");
    /// async fn report(request: Request) -> Result<Response, Problem> {
    ///     let report = REPORTS.get("/reports/{}", [path(&request, "id")?]).stream().await?;
    ///     Ok(report.pass_on(&request))
    /// }
    /// ```
    ///
    /// Until the head is there, this is like [`send`](Self::send), with `NAME_TIMEOUT_MS`, attempts, retries and the circuit
    /// breaker. After it there is no retry: the body may take until the invocation's deadline, but fails if nothing arrives
    /// for `NAME_IDLE_TIMEOUT_MS` while it is waited for. Then, or if it is cut, the caller's stream breaks, and the circuit
    /// breaker counts a failure. If the caller goes, the connection is closed.
    ///
    /// No stored response answers it, and none is stored. `NAME_MAX_BODY_BYTES` is not for it:
    /// [`at_most`](StreamedResponse::at_most) is. The body is not decoded: it has the coding that the author's
    /// `Accept-Encoding` asked for, and without one the upstream is asked for none.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn stream(self) -> impl Future<Output = Result<StreamedResponse, Error>> + Send + use<'a> {
        let (upstream, arriving) = (self.upstream, Arriving::default());
        let sent = self.arriving(arriving.clone()).send();
        // On the heap, as `send`.
        Box::pin(async move {
            let response = sent.await?;
            let arrived = arriving.take().ok_or_else(|| Failure::bug("the response has no body"));
            let arrived = arrived.and_then(|received| Ok((received, Arc::clone(upstream.inner()?))));
            let (received, inner) = arrived.map_err(|failure| upstream.failed(failure))?;
            let Received { response: received, connection } = received;
            let (head, body) = received.into_parts();
            let body = Bounded::new(body, inner.settings.idle_timeout);
            let body = Passed { body, connection: Some(connection), upstream: inner };
            Ok(StreamedResponse { response, headers: head.headers, body })
        })
    }
}

/// An upstream's good response, whose body is still arriving. [`Request::stream`] makes it.
pub struct StreamedResponse {
    /// Its head alone.
    response: Response,
    /// As they came.
    headers: HeaderMap,
    body: Passed,
}

/// Without the values of headers, which may be secret.
impl fmt::Debug for StreamedResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<_> = self.headers.keys().collect();
        f.debug_struct("StreamedResponse")
            .field("status", &self.status())
            .field("headers", &headers)
            .finish_non_exhaustive()
    }
}

impl StreamedResponse {
    /// The upstream's status, from 200 to 299.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// The upstream's headers, as they came.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Lets the body have at most this many bytes, as they come, before any decoding. A longer one breaks the caller's
    /// stream.
    ///
    /// # Errors
    ///
    /// If `Content-Length` says already that it is longer: a 502, `upstream-response-too-large`.
    pub fn at_most(mut self, bytes: usize) -> Result<Self, Error> {
        if self.body.size_hint().lower() > bytes as u64 {
            return Err(Error { upstream: self.response.upstream, failure: Failure::TooLarge(bytes) });
        }
        (self.body.body.most, self.body.body.left) = (bytes, bytes);
        Ok(self)
    }

    /// The answer to the endpoint's own caller, as [`Response::pass_on`], with the body as it arrives, and with what
    /// describes it: `Accept-Ranges`, `Content-Disposition`, `Content-Encoding`, `Content-Range` and `Vary`, too.
    #[must_use]
    pub fn pass_on(self, request: &handler::Request) -> handler::Response {
        let (mut head, _) = self.response.pass_on(request).into_parts();
        let is_body_sent = head.status != StatusCode::NOT_MODIFIED;
        for name in ALSO_PASSED_ON.into_iter().filter(|name| is_body_sent || *name == VARY) {
            for value in self.headers.get_all(&name).iter().filter(|value| value.to_str().is_ok()) {
                head.headers.append(&name, value.clone());
            }
        }
        let mut response = stream_body(self.body);
        (*response.status_mut(), *response.headers_mut()) = (head.status, head.headers);
        response
    }

    /// The body, for an answer of the endpoint's own making: see [`handler::stream_body`]. Whoever drops it before its end
    /// closes the connection.
    #[must_use]
    pub fn into_body(self) -> impl Body<Data = Bytes, Error = handler::Error> + Send + Unpin + 'static {
        self.body
    }
}

/// The body of an upstream's response on its way to the caller. How it ends counts for the circuit breaker.
struct Passed {
    body: Bounded<Incoming>,
    /// The one on which it arrives. `None` if it has ended.
    connection: Option<Connection>,
    upstream: Arc<Inner>,
}

impl Body for Passed {
    type Data = Bytes;
    type Error = handler::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, handler::Error>>> {
        let this = &mut *self;
        if this.connection.is_none() {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        match &frame {
            Some(Ok(_)) if !this.body.is_end_stream() => {}
            Some(Err(failure)) => this.end(failure.is_healthy() != Some(false), None),
            _ => {
                let connection = this.connection.take();
                this.end(true, connection);
            }
        }
        let name = this.upstream.settings.name;
        Poll::Ready(frame.map(|frame| frame.map_err(|failure| Problem::from(Error { upstream: name, failure }).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Passed {
    /// Tells what the body has shown of the upstream, and lets another request have the connection.
    fn end(&mut self, is_healthy: bool, connection: Option<Connection>) {
        self.connection = None;
        self.upstream.streamed(is_healthy, connection);
    }
}

/// A body that may have so many bytes, and must not be silent for long.
struct Bounded<B> {
    body: B,
    most: usize,
    left: usize,
    idle_timeout: Duration,
    /// When it has been silent for too long.
    silent: Pin<Box<Sleep>>,
    /// Whether that counts: not while the caller reads.
    is_waiting: bool,
}

impl<B> Bounded<B> {
    fn new(body: B, idle_timeout: Duration) -> Self {
        let silent = Box::pin(sleep(idle_timeout));
        Self { body, most: usize::MAX, left: usize::MAX, idle_timeout, silent, is_waiting: false }
    }
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin> Body for Bounded<B> {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) else {
            if !std::mem::replace(&mut this.is_waiting, true) {
                this.silent.as_mut().reset(Instant::now() + this.idle_timeout);
            }
            ready!(this.silent.as_mut().poll(context));
            return Poll::Ready(Some(Err(Failure::TimedOut)));
        };
        this.is_waiting = false;
        let frame = frame.map(|frame| frame.map_err(Failure::unreachable));
        if let Some(Ok(frame)) = &frame {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            let Some(left) = this.left.checked_sub(bytes) else {
                return Poll::Ready(Some(Err(Failure::TooLarge(this.most))));
            };
            this.left = left;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{StreamExt, stream};
    use http_body_util::{BodyExt, StreamBody};
    use tokio::time::{advance, sleep_until};

    use super::*;

    /// A body whose pieces are there at these seconds.
    fn body(seconds: &'static [u64]) -> Bounded<impl Body<Data = Bytes, Error = Infallible> + Unpin> {
        let began = Instant::now();
        let pieces = stream::iter(seconds).then(move |second| async move {
            sleep_until(began + Duration::from_secs(*second)).await;
            Ok(Frame::data(Bytes::from("piece")))
        });
        Bounded::new(StreamBody::new(Box::pin(pieces)), Duration::from_secs(30))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_may_be_slow_but_not_silent() {
        let all = body(&[29, 58, 87]).collect().await.unwrap().to_bytes();
        assert_eq!(all, "piecepiecepiece");
        let mut silent = body(&[29, 60]);
        assert!(silent.frame().await.is_some_and(|frame| frame.is_ok()));
        let began = Instant::now();
        assert!(matches!(silent.frame().await, Some(Err(Failure::TimedOut))));
        assert_eq!(began.elapsed().as_secs(), 30);
    }

    /// The caller is slow, and the upstream is not to blame.
    #[tokio::test(start_paused = true)]
    async fn the_time_that_a_reader_takes_does_not_count() {
        let mut slow = body(&[1, 2, 260]);
        slow.frame().await.unwrap().unwrap();
        advance(Duration::from_mins(4)).await;
        slow.frame().await.unwrap().unwrap();
        assert!(slow.frame().await.is_some_and(|frame| frame.is_ok()), "20 seconds after it was asked for");
    }

    /// Else one stream would keep all other requests waiting for as long as it lasts.
    #[tokio::test]
    async fn a_probe_ends_at_the_head() {
        let server = testbed::upstream::Upstream::start();
        server.always(testbed::upstream::Behaviour::LengthTooLong);
        let url = server.url("/");
        let upstream = crate::Upstream::new("A").with_settings(|name| (name == "A_URL").then(|| url.clone()));
        let breaker = &upstream.inner().unwrap().breaker;
        breaker.hold(Duration::ZERO);
        let _streamed = upstream.get("", []).stream().await.unwrap();
        assert_eq!(breaker.state_name(), "closed");
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_bytes_come_than_may() {
        for (most, pieces) in [(9, 1), (10, 2), (15, 3)] {
            let mut body = body(&[0, 0, 0]);
            (body.most, body.left) = (most, most);
            for _ in 0..pieces {
                assert!(body.frame().await.is_some_and(|frame| frame.is_ok()), "{most}");
            }
            match body.frame().await {
                None => assert_eq!(most, 15),
                Some(Err(Failure::TooLarge(told))) => assert!(told == most && most < 15),
                other => panic!("{most}: {other:?}"),
            }
        }
    }
}
