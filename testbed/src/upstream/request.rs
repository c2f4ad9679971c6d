//! What a client sent.

use std::io::{ErrorKind, Result};

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::Instant;

/// Longer heads than this are not served.
const MAX_HEAD: usize = 64 * 1024;

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
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// Whether `value` is in the list in the header.
    pub(super) fn has(&self, name: &str, value: &str) -> bool {
        self.header(name).is_some_and(|list| list.split([',', ';']).any(|each| each.trim() == value))
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
            if buffer.len() > MAX_HEAD {
                return Err(ErrorKind::InvalidData.into());
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
pub(super) fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|header| header.0.eq_ignore_ascii_case(name)).map(|header| header.1.as_str())
}
