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
    lists_etag, takes_binary, weighted,
};

/// A page may load scripts and styles from its own origin only, and call only that origin. Swagger UI's icons are in
/// its style sheet (`data:`). It shows an answer that is an image from memory (`blob:`), and plays one that is a sound.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; \
                      media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

struct File {
    name: &'static str,
    content_type: &'static str,
    etag: &'static str,
    /// The query with which the page links it.
    query: &'static str,
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
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(lifetime(&request, file)));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(ETAG, HeaderValue::from_static(file.etag));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    if request.headers().get(IF_NONE_MATCH).is_some_and(|etags| lists_etag(etags.as_bytes(), file.etag.as_bytes())) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(file.content_type));
    *response.body_mut() = if takes_binary(&request) && takes_gzip(request.headers()) {
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

/// A URL with this file's version always has the same content. One with another version is of another deployment: while
/// both answer, a cache must not keep this file under that URL.
fn lifetime(request: &Request, file: &File) -> &'static str {
    if request.uri().query() == Some(file.query) { "public, max-age=31536000, immutable" } else { "no-cache" }
}

/// Whether gzip, the only encoding here, is acceptable and no encoding is not preferred: RFC 9110, section 12.5.3. Section
/// 8.4.1.3 gives gzip a second name.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
    let (mut gzip, mut identity, mut others) = (None, None, 0.0);
    for (coding, weight) in lines.flat_map(|line| line.split(',')).filter_map(weighted) {
        match coding.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => gzip = gzip.or(Some(weight)),
            "identity" => identity = Some(weight),
            "*" => others = weight,
            _ => {}
        }
    }
    let (gzip, identity) = (gzip.unwrap_or(others), identity.unwrap_or(others));
    gzip > 0.0 && gzip >= identity
}

#[cfg(test)]
mod tests {
    use handler::Context;
    use serde_json::Value;
    use testbed::{Call, TRIGGERS};

    use super::*;

    #[tokio::test]
    async fn answers_its_events() {
        testbed::replay("docs", docs).await;
    }

    /// The answers through all triggers.
    async fn answers(method: &str, file: &str, query: &str, headers: &[(&str, &str)]) -> Vec<(&'static str, Value)> {
        let call = Call {
            route: "ANY /docs/{file}".into(),
            method: method.into(),
            path: format!("/docs/{file}"),
            query: query.into(),
            headers: headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            cookies: Vec::new(),
            body: None,
            claims: Vec::new(),
        };
        let mut answers = Vec::new();
        for trigger in TRIGGERS {
            let event = call.event(trigger, "docs").unwrap().to_string();
            let answer = handler::invoke(docs, event.as_bytes(), Context::default()).await.unwrap();
            answers.push((trigger, serde_json::from_str(&answer).unwrap()));
        }
        answers
    }

    fn header<'a>(answer: &'a Value, name: &str) -> Option<&'a str> {
        answer["headers"][name].as_str().or(answer["multiValueHeaders"][name][0].as_str())
    }

    #[tokio::test]
    async fn only_a_files_own_version_may_be_kept_for_a_year() {
        let mut request = Request::new(Body::Empty);
        *request.uri_mut() = "/docs".parse().unwrap();
        let page = docs(request).await.unwrap();
        let Body::Text(page) = page.into_body() else { panic!("the page is text") };
        let links: Vec<_> =
            page.split("\"docs/").skip(1).filter_map(|rest| rest.split('"').next()?.split_once('?')).collect();
        assert!(links.len() >= 4, "{page}");
        for (file, own) in links {
            let etag = format!("W/\"{}\"", own.trim_start_matches("v="));
            // A load balancer does not take the largest file uncompressed.
            let (gzip, known) = (("accept-encoding", "gzip"), ("if-none-match", etag.as_str()));
            for (method, headers) in [("GET", &[gzip][..]), ("HEAD", &[gzip]), ("GET", &[gzip, known])] {
                for (trigger, answer) in answers(method, file, own, headers).await {
                    let kept = header(&answer, "cache-control");
                    assert_eq!(kept, Some("public, max-age=31536000, immutable"), "{file} {headers:?} {trigger}");
                }
                for other in
                    ["", "v=", "v=0", "v", "V=0", &format!("{own}0"), &format!("v=0&{own}"), &format!("{own}&v=0")]
                {
                    for (trigger, answer) in answers(method, file, other, headers).await {
                        // A load balancer without multi-value headers passes on the last value of a parameter.
                        if trigger != "alb" || !other.ends_with(&format!("&{own}")) {
                            assert_eq!(header(&answer, "cache-control"), Some("no-cache"), "{file}?{other} {trigger}");
                        }
                    }
                }
            }
            for (trigger, answer) in answers("GET", "nothing.js", own, &[]).await {
                assert_eq!(
                    (&answer["statusCode"], header(&answer, "cache-control")),
                    (&404.into(), Some("no-store")),
                    "{trigger}"
                );
            }
        }
    }

    #[tokio::test]
    async fn gzip_goes_only_through_triggers_that_take_it() {
        for (trigger, answer) in answers("GET", "docs.css", "", &[("accept-encoding", "gzip")]).await {
            let is_compressed = trigger != "rest-api";
            assert_eq!(answer["isBase64Encoded"], is_compressed, "{trigger}");
            assert_eq!(header(&answer, "content-encoding"), is_compressed.then_some("gzip"), "{trigger}");
            assert_eq!(header(&answer, "vary"), Some("accept-encoding"), "{trigger}");
        }
    }

    #[test]
    fn sends_gzip_only_to_clients_that_accept_it() {
        for (accepted, takes) in [
            ("gzip, deflate, br", true),
            ("br, *;q=0.1", true),
            ("X-GZip", true),
            ("gzip;q=0", false),
            ("gzip;q=0, *", false),
            ("*;q=0", false),
            ("identity;q=1, gzip;q=0.5", false),
            ("gzip;q=0.5, Identity", false),
            ("identity, *;q=0.5", false),
            ("gzip;q=0.5, *", false),
            ("identity;q=0.5, gzip", true),
            ("identity;q=0.5, *", true),
            ("identity, gzip", true),
            ("identity;q=0, gzip;q=0.1", true),
            ("gzip;q=0.1", true),
            ("identity", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, accepted.parse().unwrap())]);
            assert_eq!(takes_gzip(&headers), takes, "{accepted}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
