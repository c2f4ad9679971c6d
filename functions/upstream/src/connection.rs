//! A connection that serves one request after another.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use handler::http::{Request, Response};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use crate::client::BoxError;

/// Load balancers of AWS close a connection that was idle for 60 seconds, and NAT gateways forget it after 350.
pub(crate) const MAX_IDLE: Duration = Duration::from_secs(50);
/// The most lines of a response's head.
const MAX_HEADERS: usize = 1000;
/// The most bytes of a response's head.
const MAX_HEAD: usize = 256 * 1024;
/// The most bytes that arrive before a head is known, informational responses (RFC 9110, section 15.2) included. hyper
/// bounds each of them, but not their number. It reads up to three buffers ahead, of [`MAX_HEAD`] each.
const MAX_UNTIL_HEAD: usize = 4 * MAX_HEAD;
/// Where the count of these bytes goes on when the head is known.
const HEAD_IS_KNOWN: usize = usize::MAX / 2;

pub(crate) type Body = Full<Bytes>;

/// A connection that serves one request at a time.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: SendRequest<Body>,
    /// How many bytes have arrived since the latest request was sent. From [`HEAD_IS_KNOWN`] on if that is so.
    received: Arc<AtomicUsize>,
    /// How long the latest response took to begin.
    pub(crate) latency: Duration,
    /// When it was used last.
    pub(crate) used: Clocks,
}

/// A response, and the connection on which its body arrives.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) response: Response<Incoming>,
    pub(crate) connection: Connection,
}

/// Why a request got no response.
pub(crate) enum Unanswered {
    /// Nothing of it was sent.
    Unsent(BoxError),
    /// The connection failed before a byte of the response arrived.
    WithoutAByte(BoxError),
    /// The connection failed later than that.
    Broken(BoxError),
}

/// A moment. After a freeze, the two clocks may differ on how long ago it was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clocks {
    pub(crate) monotonic: Instant,
    pub(crate) wall: SystemTime,
}

impl Connection {
    /// Speaks HTTP over `stream`.
    pub(crate) async fn over(stream: Box<dyn Stream>) -> hyper::Result<Self> {
        let received = Arc::<AtomicUsize>::default();
        let stream = TokioIo::new(Watched { stream, received: Arc::clone(&received) });
        let (sender, connection) =
            http1::Builder::new().max_headers(MAX_HEADERS).max_buf_size(MAX_HEAD).handshake(stream).await?;
        // Its error is also that of the request, or else nobody is interested.
        tokio::spawn(connection);
        Ok(Self { sender, received, latency: Duration::ZERO, used: Clocks::now() })
    }

    /// Whether it is open, as far as is known, and was idle for at most `limit`.
    pub(crate) fn is_usable(&self, limit: Duration) -> bool {
        !self.sender.is_closed() && self.used.is_within(limit)
    }

    /// Waits until its task has seen the end of the latest response, and returns whether it is still open.
    pub(crate) async fn ready(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    /// Sends a request and waits for the head of the response.
    pub(crate) async fn send(mut self, request: Request<Body>) -> Result<Received, Unanswered> {
        self.received.store(0, Ordering::Relaxed);
        let sent = Instant::now();
        match self.sender.send_request(request).await {
            Ok(response) => {
                self.received.store(HEAD_IS_KNOWN, Ordering::Relaxed);
                self.latency = sent.elapsed();
                Ok(Received { response, connection: self })
            }
            // What arrives before the request is sent, and then cancels it, is no response to it.
            Err(error) if error.is_canceled() => Err(Unanswered::Unsent(error.into())),
            Err(error) if self.received.load(Ordering::Relaxed) == 0 => Err(Unanswered::WithoutAByte(error.into())),
            Err(error) => Err(Unanswered::Broken(error.into())),
        }
    }
}

impl Clocks {
    pub(crate) fn now() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now() }
    }

    /// Whether it was at most `limit` ago, by both clocks. If a clock was set back, nobody knows, which counts as `false`.
    fn is_within(self, limit: Duration) -> bool {
        self.monotonic.elapsed() <= limit && self.wall.elapsed().is_ok_and(|elapsed| elapsed <= limit)
    }
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A stream that counts what arrives, and fails if that is too much without a head.
struct Watched {
    stream: Box<dyn Stream>,
    received: Arc<AtomicUsize>,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let arrived = buf.filled().len() - before;
        let received = self.received.fetch_add(arrived, Ordering::Relaxed) + arrived;
        if (MAX_UNTIL_HEAD + 1..HEAD_IS_KNOWN).contains(&received) {
            return Poll::Ready(Err(io::Error::other("too many informational responses")));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
