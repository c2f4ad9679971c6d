//! What outlives a request: the settings and the connections.

use handler::{
    Body, Problem, Request, Response, deadline,
    http::{HeaderValue, header::CONTENT_TYPE},
};
use tokio::time::Instant;

use crate::{
    attempt::{Client, Fetched},
    settings::{InvalidSetting, Settings},
};

/// The operator's upstream.
pub(crate) struct Upstream {
    settings: Result<Settings, InvalidSetting>,
    client: Client,
}

impl Upstream {
    /// Nothing is connected, and no TLS is set up, before the first request.
    pub(crate) fn new(settings: Result<Settings, InvalidSetting>) -> Self {
        Self { settings, client: Client::default() }
    }

    /// Answers `request` with what the upstream has.
    pub(crate) async fn fetch(&self, request: &Request) -> Result<Response, Problem> {
        let settings = self.settings.as_ref().map_err(|invalid| Problem::misconfigured(invalid.clone()))?;
        let budget = Instant::now() + settings.timeout;
        let deadline = deadline(request).map_or(budget, |deadline| deadline.min(budget));
        let fetched = self.client.attempt(settings, deadline).await?;
        Ok(answer(fetched))
    }
}

fn answer(fetched: Fetched) -> Response {
    let mut response = Response::new(body(fetched.body));
    if let Some(content_type) = fetched.content_type.filter(is_text) {
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    response
}

/// Lambda's answer is JSON, which has no place for the bytes that a header may hold besides ASCII.
fn is_text(value: &HeaderValue) -> bool {
    value.to_str().is_ok()
}

/// Text where that makes the answer shorter than base64 would, which also holds what is not UTF-8.
fn body(bytes: Vec<u8>) -> Body {
    let escapes: usize = bytes.iter().map(|byte| json_escape_bytes(*byte)).sum();
    if escapes > bytes.len() / 3 {
        return Body::Binary(bytes);
    }
    String::from_utf8(bytes).map_or_else(|error| Body::Binary(error.into_bytes()), Body::Text)
}

/// How many bytes `byte` takes in a JSON string, beyond its own.
fn json_escape_bytes(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 1,
        0x00..=0x1f => 5,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_takes_the_shorter_form() {
        for (bytes, text) in
            [(&b"plain \"text\""[..], true), ("Zo\u{eb}".as_bytes(), true), (b"\n\n\n\n", false), (b"\xff\xfe", false)]
        {
            assert_eq!(matches!(body(bytes.to_vec()), Body::Text(_)), text, "{bytes:?}");
        }
    }
}
