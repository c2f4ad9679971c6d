//! `/docs`: the API reference in the browser. Swagger UI renders openapi.yaml. Everything comes from this origin.

use std::{io::Read, process::ExitCode};

use flate2::read::GzDecoder;
use handler::{
    Body, Problem, Request, Response,
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{
            ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
            IF_NONE_MATCH, REFERRER_POLICY, VARY,
        },
    },
    lists_etag, weighted,
};

/// A page may load scripts and styles from its own origin only, and call only that origin. Swagger UI's icons are in
/// its style sheet (`data:`).
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

struct File {
    name: &'static str,
    content_type: &'static str,
    etag: &'static str,
    gzipped: &'static [u8],
}

const FILES: &[File] = include!(concat!(env!("OUT_DIR"), "/files.rs"));

fn main() -> ExitCode {
    handler::run(docs)
}

async fn docs(request: Request) -> Result<Response, Problem> {
    let name = request.uri().path().rsplit('/').next().unwrap_or_default();
    let file = FILES
        .iter()
        .find(|file| file.name == name)
        .ok_or_else(|| Problem::not_found("The reference has no such file."))?;
    let mut response = Response::default();
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(lifetime(&request)));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(ETAG, HeaderValue::from_static(file.etag));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    if request.headers().get(IF_NONE_MATCH).is_some_and(|etags| lists_etag(etags.as_bytes(), file.etag.as_bytes())) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(file.content_type));
    *response.body_mut() = if takes_gzip(request.headers()) {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        Body::Binary(file.gzipped.to_vec())
    } else {
        let mut content = String::new();
        GzDecoder::new(file.gzipped)
            .read_to_string(&mut content)
            .map_err(|error| Problem::internal().because(error))?;
        Body::Text(content)
    };
    Ok(response)
}

/// A URL with a version always returns the same content.
fn lifetime(request: &Request) -> &'static str {
    let has_version = request.uri().query().is_some_and(|query| query.starts_with("v="));
    if has_version { "public, max-age=31536000, immutable" } else { "no-cache" }
}

/// RFC 9110, section 12.5.3, for gzip, the only encoding here.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
    let mut others = 0.0;
    for (coding, weight) in lines.flat_map(|line| line.split(',')).filter_map(weighted) {
        if coding.eq_ignore_ascii_case("gzip") {
            return weight > 0.0;
        }
        if coding == "*" {
            others = weight;
        }
    }
    others > 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_its_events() {
        testbed::replay("docs", docs).await;
    }

    #[test]
    fn sends_gzip_only_to_clients_that_accept_it() {
        for (accepted, takes) in [
            ("gzip, deflate, br", true),
            ("br, *;q=0.1", true),
            ("gzip;q=0", false),
            ("gzip;q=0, *", false),
            ("*;q=0", false),
            ("identity", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, accepted.parse().unwrap())]);
            assert_eq!(takes_gzip(&headers), takes, "{accepted}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
