//! What the upstream does with a call, the bytes that it sends, and how the next behaviour is chosen.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::io::Write as _;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use flate2::{Compress, Compression, Crc, FlushCompress};

use super::{Answer, Request};

/// What the upstream does with one call.
///
/// Every fault that begins like a good answer has `Cache-Control: max-age=60`, so that a client that stores a broken
/// answer is detected. A fault that does not close the connection leaves it open, so that the client must notice the
/// fault itself.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Behaviour {
    /// Sends the answer.
    Answer(Answer),
    /// Sends the answer, then closes the connection at once, without a `Connection: close`.
    CloseIdle(Answer),
    /// Sends these bytes, whatever they are, then closes the connection if it is told to.
    Raw {
        /// The bytes.
        bytes: Arc<[u8]>,
        /// Whether it then closes the connection.
        close: bool,
    },
    /// Waits, then does the other behaviour, unless the client has hung up.
    Late(Duration, Box<Behaviour>),
    /// Looks at the request, then decides. Made by [`Behaviour::decide`].
    Decide(Decision),
    /// Sends a RST as soon as the connection is accepted. This counts as a connection, not as a call. On a connection
    /// that was kept alive, it counts as a call, which is reset before anything is sent.
    ResetAtConnect,
    /// Sends half of a head, then a RST.
    ResetMidHeader,
    /// Sends a head and some of the body, then a RST.
    ResetMidBody,
    /// Sends a head and some of the body, then ends the connection cleanly.
    Truncate,
    /// Reads, and sends nothing.
    Silent,
    /// Sends a head, then one byte of the body a second.
    Drip,
    /// Sends less than its `Content-Length`, and leaves the client waiting for the rest.
    LengthTooLong,
    /// Sends one good chunk, then one whose size is not a number.
    MalformedChunks,
    /// Sends a header without a colon.
    MalformedHeaders,
    /// Sends 100,000 header lines; everything else is correct.
    ManyHeaders,
    /// Sends chunks of zeros as fast as they are read, and never ends.
    EndlessBody,
    /// Sends 1 GiB of zeros, gzipped to 1 MiB.
    GzipBomb,
}

/// Chooses a behaviour by the request. Made by [`Behaviour::decide`].
#[derive(Clone)]
pub struct Decision(Arc<dyn Fn(&Request) -> Behaviour + Send + Sync>);

impl fmt::Debug for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decision")
    }
}

impl From<Answer> for Behaviour {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

/// How an exchange goes on after its first bytes.
pub(super) enum End {
    /// With the next request.
    KeepAlive,
    /// With a clean end.
    Close,
    /// With a RST.
    Reset,
    /// With these bytes after every pause, until the client hangs up.
    Repeat(&'static [u8], Duration),
}

impl End {
    /// With nothing, until the client hangs up.
    const SILENCE: Self = Self::Repeat(b"", Duration::MAX);
}

/// A behaviour in bytes, to be sent after a wait.
pub(super) struct Wire(pub(super) Duration, pub(super) Cow<'static, [u8]>, pub(super) End);

impl Behaviour {
    /// Sends `head`, whose lines it ends as HTTP does, and `body`. Says nothing by itself about the length or the coding.
    pub fn raw(head: &str, body: impl AsRef<[u8]>, close: bool) -> Self {
        let head = format!("{}\r\n\r\n", head.replace('\n', "\r\n"));
        Self::Raw { bytes: [head.as_bytes(), body.as_ref()].concat().into(), close }
    }

    /// A redirect to any location: `"/elsewhere"` on the same origin, `other.url("/")` on another one,
    /// `"http://169.254.169.254/"`. With [`always`](super::Upstream::always) and the same path, it redirects to itself.
    pub fn redirect(status: u16, location: impl Into<String>) -> Self {
        Answer::status(status).header("location", location).into()
    }

    /// Waits for `delay` before it does `what`.
    pub fn late(delay: Duration, what: impl Into<Self>) -> Self {
        Self::Late(delay, Box::new(what.into()))
    }

    /// Lets a function choose, such as by the request's `Authorization`.
    pub fn decide(choose: impl Fn(&Request) -> Self + Send + Sync + 'static) -> Self {
        Self::Decide(Decision(Arc::new(choose)))
    }

    /// What to send as the answer to this request.
    pub(super) fn wire(&self, request: &Request) -> Wire {
        let (bytes, end) = match self {
            Self::Decide(Decision(choose)) => return choose(request).wire(request),
            Self::Late(delay, what) => {
                let Wire(wait, bytes, end) = what.wire(request);
                return Wire(wait + *delay, bytes, end);
            }
            Self::Answer(answer) => (answer.encode(request).into(), End::KeepAlive),
            Self::CloseIdle(answer) => (answer.encode(request).into(), End::Close),
            Self::Raw { bytes, close } => (bytes.to_vec().into(), if *close { End::Close } else { End::KeepAlive }),
            Self::ResetAtConnect => (Cow::default(), End::Reset),
            Self::ResetMidHeader => (PARTIAL[..PARTIAL.len() / 2].into(), End::Reset),
            Self::ResetMidBody => (PARTIAL.into(), End::Reset),
            Self::Truncate => (PARTIAL.into(), End::Close),
            Self::Silent => (Cow::default(), End::SILENCE),
            Self::Drip => (PARTIAL.into(), End::Repeat(b".", Duration::from_secs(1))),
            Self::LengthTooLong => (PARTIAL.into(), End::SILENCE),
            Self::MalformedChunks => (BAD_CHUNKS.into(), End::SILENCE),
            Self::MalformedHeaders => (BAD_HEADERS.into(), End::SILENCE),
            Self::ManyHeaders => (MANY_HEADERS.as_slice().into(), End::KeepAlive),
            Self::EndlessBody => (ENDLESS.into(), End::Repeat(&CHUNK, Duration::ZERO)),
            Self::GzipBomb => {
                let bomb = Answer::ok(&*GZIP_BOMB).cache_control("max-age=60").header("content-encoding", "gzip");
                (bomb.encode(request).into(), End::KeepAlive)
            }
        };
        Wire(Duration::ZERO, bytes, end)
    }
}

const PARTIAL: &[u8] = b"HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-type: text/plain\r\n\
    content-length: 1000\r\n\r\nonly the beginning";

const BAD_CHUNKS: &[u8] = b"HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ntransfer-encoding: chunked\r\n\r\n\
    5\r\nfirst\r\nfive\r\nfifth\r\n0\r\n\r\n";

const BAD_HEADERS: &[u8] = b"HTTP/1.1 200 OK\r\nthis is no header\r\ncontent-length: 4\r\n\r\ngood";

const ENDLESS: &[u8] = b"HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ntransfer-encoding: chunked\r\n\r\n";

/// A chunk of 16 KiB of zeros.
static CHUNK: [u8; 6 + 0x4000 + 2] = {
    let mut chunk = [0; _];
    chunk.first_chunk_mut::<6>().unwrap().copy_from_slice(b"4000\r\n");
    chunk.last_chunk_mut::<2>().unwrap().copy_from_slice(b"\r\n");
    chunk
};

static MANY_HEADERS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut bytes = b"HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 4\r\n".to_vec();
    for line in 0..100_000 {
        write!(bytes, "x-{line}: {line}\r\n").expect("memory takes it all");
    }
    bytes.extend_from_slice(b"\r\ngood");
    bytes
});

/// One block of deflate for 1 MiB of zeros, repeated 1024 times: a valid gzip file that is made quickly.
static GZIP_BOMB: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let zeros = vec![0; 1 << 20];
    let mut block = Vec::with_capacity(1 << 14);
    let mut deflate = Compress::new(Compression::best(), false);
    deflate.compress_vec(&zeros, &mut block, FlushCompress::Full).expect("memory takes it all");
    let (mut one, mut all) = (Crc::new(), Crc::new());
    one.update(&zeros);
    (0..1024).for_each(|_| all.combine(&one));
    let head = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    let last_block = [3, 0];
    [&head, &*block.repeat(1024), &last_block, &all.sum().to_le_bytes(), &all.amount().to_le_bytes()].concat()
});

/// The next behaviours, and the one after them.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) queue: VecDeque<Behaviour>,
    pub(super) otherwise: Behaviour,
}

impl Script {
    /// Takes the behaviour for the next call.
    pub(super) fn next(&mut self) -> Behaviour {
        self.queue.pop_front().unwrap_or_else(|| self.otherwise.clone())
    }

    /// Whether a connection that was just accepted is to be reset, which uses up the behaviour of the next call.
    pub(super) fn resets_connection(&mut self) -> bool {
        let next = self.queue.front().unwrap_or(&self.otherwise);
        matches!(next, Behaviour::ResetAtConnect) && matches!(self.next(), Behaviour::ResetAtConnect)
    }
}
