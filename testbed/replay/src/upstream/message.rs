//! What a client sent, and the well-formed responses to it.

use std::io::{ErrorKind, Result};
use std::sync::Arc;
use std::time::SystemTime;

use httpdate::fmt_http_date;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::Instant;

/// A well-formed response: a correct `Content-Length`, a `Date`, and a connection that is kept alive.
///
/// ```
/// use replay::upstream::Answer;
///
/// let fresh = Answer::ok("good").cache_control("max-age=60").etag("\"1\"");
/// let busy = Answer::status(503).retry_after(1);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Arc<[u8]>,
}

impl Answer {
    /// A `200` with this body.
    pub fn ok(body: impl AsRef<[u8]>) -> Self {
        Self::status(200).body(body)
    }

    /// An answer of any status, without a body.
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Arc::default() }
    }

    /// Sets the body.
    pub fn body(self, body: impl AsRef<[u8]>) -> Self {
        Self { body: body.as_ref().into(), ..self }
    }

    /// Adds a header. Your own `date` replaces the real one.
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Adds `Cache-Control`.
    pub fn cache_control(self, value: &str) -> Self {
        self.header("cache-control", value)
    }

    /// Adds an `ETag`, quotes included. A request whose `If-None-Match` has it gets a 304.
    pub fn etag(self, value: &str) -> Self {
        self.header("etag", value)
    }

    /// Adds `Retry-After` in seconds.
    pub fn retry_after(self, seconds: u64) -> Self {
        self.header("retry-after", seconds.to_string())
    }

    /// The bytes that answer this request.
    pub(super) fn encode(&self, request: &Request) -> Vec<u8> {
        let status = if self.is_validated_by(request) { 304 } else { self.status };
        let has_body = !matches!(status, 204 | 304);

        let mut head = format!("HTTP/1.1 {status} \r\n");
        let mut add = |name: &str, value: &str| head.extend([name, ": ", value, "\r\n"]);
        self.headers.iter().for_each(|(name, value)| add(name, value));
        if self.own("date").is_none() {
            add("date", &fmt_http_date(SystemTime::now()));
        }
        if has_body {
            add("content-length", &self.body.len().to_string());
        }
        head.push_str("\r\n");

        let mut bytes = head.into_bytes();
        if has_body && request.method != "HEAD" {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }

    /// Whether the client already has exactly this answer (RFC 9110, section 13).
    fn is_validated_by(&self, request: &Request) -> bool {
        let validated = match (request.header("if-none-match"), request.header("if-modified-since")) {
            (Some(tags), _) => self.own("etag").is_some_and(|etag| tags.split(',').any(|tag| tag.trim() == etag)),
            (None, since) => since.is_some() && since == self.own("last-modified"),
        };
        validated && self.status == 200
    }

    fn own(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

/// The head of a request, as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    /// When all of it was there. The difference between two requests is how long the client waited.
    pub at: Instant,
    /// `GET`, mostly.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names and values, in their order and spelling.
    pub headers: Vec<(String, String)>,
}

impl Request {
    /// The first header of this name, in any spelling.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// Reads the next request, and skips its body; `None` if the client has hung up. `buffer` holds the bytes after it.
    pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Result<Option<Self>> {
        loop {
            if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = buffer.drain(..end + 4).collect();
                let request = Self::parse(&head).ok_or(ErrorKind::InvalidData)?;
                let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
                while buffer.len() < length {
                    if stream.read_buf(buffer).await? == 0 {
                        return Ok(None);
                    }
                }
                buffer.drain(..length);
                return Ok(Some(request));
            }
            if stream.read_buf(buffer).await? == 0 {
                return Ok(None);
            }
        }
    }

    fn parse(head: &[u8]) -> Option<Self> {
        let head = String::from_utf8_lossy(head);
        let mut lines = head.trim_end().split("\r\n");
        let (method, rest) = lines.next()?.split_once(' ')?;
        let target = rest.strip_suffix(" HTTP/1.1")?;
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_owned(), value.trim().to_owned()))
        });
        Some(Self {
            at: Instant::now(),
            method: method.to_owned(),
            target: target.to_owned(),
            headers: headers.collect::<Option<_>>()?,
        })
    }
}

/// The first header of this name, in any spelling.
fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|header| header.0.eq_ignore_ascii_case(name)).map(|header| header.1.as_str())
}
