//! A good answer, or a well-formed error.

use std::io::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

use flate2::{Compression, write::GzEncoder};
use httpdate::fmt_http_date;

use super::{Request, request::find};

/// A well-formed response: a correct `Content-Length`, a `Date`, and a connection that is kept alive.
///
/// ```
/// use testbed::upstream::Answer;
///
/// let fresh = Answer::ok("good").cache_control("max-age=60").etag("\"1\"").gzip();
/// let busy = Answer::status(503).retry_after(1);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Arc<[u8]>,
    gzipped: Option<Arc<[u8]>>,
}

impl Answer {
    /// A `200` with this body.
    pub fn ok(body: impl AsRef<[u8]>) -> Self {
        Self::status(200).body(body)
    }

    /// An answer of any status, without a body.
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Arc::default(), gzipped: None }
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

    /// Adds `Last-Modified`. A request whose `If-Modified-Since` repeats it gets a 304.
    pub fn last_modified(self, when: SystemTime) -> Self {
        self.header("last-modified", fmt_http_date(when))
    }

    /// Adds `Retry-After` in seconds.
    pub fn retry_after(self, seconds: u64) -> Self {
        self.header("retry-after", seconds.to_string())
    }

    /// Adds `Retry-After` as an HTTP-date, which has no fractions of a second.
    pub fn retry_after_date(self, when: SystemTime) -> Self {
        self.header("retry-after", fmt_http_date(when))
    }

    /// Compresses the body that was set before, for clients that accept gzip.
    pub fn gzip(self) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        let gzipped = encoder.write_all(&self.body).and_then(|()| encoder.finish()).ok();
        Self { gzipped: gzipped.map(Arc::from), ..self.header("vary", "accept-encoding") }
    }

    /// The bytes that answer this request.
    pub(super) fn encode(&self, request: &Request) -> Vec<u8> {
        let status = if self.is_validated_by(request) { 304 } else { self.status };
        let gzipped = self.gzipped.as_ref().filter(|_| request.has("accept-encoding", "gzip"));
        let body = gzipped.unwrap_or(&self.body);
        let has_body = !matches!(status, 204 | 304);

        let mut head = format!("HTTP/1.1 {status} \r\n");
        let mut add = |name: &str, value: &str| head.extend([name, ": ", value, "\r\n"]);
        self.headers.iter().for_each(|(name, value)| add(name, value));
        if self.own("date").is_none() {
            add("date", &fmt_http_date(SystemTime::now()));
        }
        if has_body {
            add("content-length", &body.len().to_string());
            if gzipped.is_some() {
                add("content-encoding", "gzip");
            }
        }
        head.push_str("\r\n");

        let mut bytes = head.into_bytes();
        if has_body && request.method != "HEAD" {
            bytes.extend_from_slice(body);
        }
        bytes
    }

    /// Whether the client already has exactly this answer (RFC 9110, section 13).
    fn is_validated_by(&self, request: &Request) -> bool {
        let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
        let has = |tags: &str, etag: &str| tags == "*" || tags.split(',').any(|tag| opaque(tag) == opaque(etag));
        let validated = match (request.header("if-none-match"), request.header("if-modified-since")) {
            (Some(tags), _) => self.own("etag").is_some_and(|etag| has(tags, etag)),
            (None, since) => since.is_some() && since == self.own("last-modified"),
        };
        validated && self.status == 200
    }

    fn own(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}
