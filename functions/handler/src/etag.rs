//! Entity tags and conditional requests: RFC 9110, sections 8.8.3 and 13.

use std::fmt::Display;

use lambda_http::http::{
    HeaderName, HeaderValue, Method, StatusCode,
    header::{CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH},
};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::{Body, Problem, Request, Response, negotiate::split};

/// The characters that an entity tag cannot hold, the one that escapes them, and one that some readers take for an escape
/// (RFC 9110, section 8.8.3).
const NOT_IN_A_TAG: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%').add(b'\\');

/// Which version of a resource an answer shows, or a request is about.
///
/// `GET` answers with it, and with 304 if the caller has this version already. `PUT`, `PATCH` and `DELETE` check it, and
/// fail with 412 if another caller was faster:
///
/// ```
/// use handler::{Body, ETag, Problem, Request, Response, http::StatusCode, json, required_precondition};
///
/// async fn show(request: Request) -> Result<Response, Problem> {
///     let (order, version) = load();
///     ETag::strong(version).answer(&request, json(StatusCode::OK, &order)?)
/// }
///
/// async fn change(request: Request) -> Result<Response, Problem> {
///     let (_, version) = load();
///     required_precondition(&request, Some(&ETag::strong(version)))?;
///     // Here the store must check the version again, as it writes: another request can come between.
///     let (order, version) = store(version);
///     ETag::strong(version).answer(&request, json(StatusCode::OK, &order)?)
/// }
/// # fn load() -> (&'static str, u64) { ("tea", 7) }
/// # fn store(version: u64) -> (&'static str, u64) { ("tea", version + 1) }
/// ```
///
/// An answer with an entity tag and without a `Cache-Control` of the endpoint gets `private, no-cache`: the caller's own
/// cache may keep it, and asks each time whether it is still right.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ETag(HeaderValue);

impl ETag {
    /// The tag of a version that is the same byte for byte each time, in each encoding and media type that has this tag.
    /// `version` is a number, a hash or the like. What a tag cannot hold is percent-encoded.
    pub fn strong(version: impl Display) -> Self {
        Self::new("", &version.to_string())
    }

    /// The tag of a version that means the same each time, but may differ in its bytes. `If-Match` never matches it.
    pub fn weak(version: impl Display) -> Self {
        Self::new("W/", &version.to_string())
    }

    fn new(weak: &str, version: &str) -> Self {
        let tag = format!("{weak}\"{}\"", utf8_percent_encode(version, NOT_IN_A_TAG));
        // After the encoding, a header can hold it.
        Self(HeaderValue::try_from(tag).unwrap_or(HeaderValue::from_static("W/\"\"")))
    }

    /// Adds the tag to the answer, of which it is the version. If the request is a `GET` or a `HEAD`, the answer is a
    /// success, and the caller's `If-None-Match` lists the tag, it becomes 304 (not modified), without a body.
    ///
    /// # Errors
    ///
    /// 412 [`precondition-failed`](Problem::precondition_failed) if the request is a `GET` or a `HEAD` with an `If-Match`
    /// that does not list the tag.
    pub fn answer(&self, request: &Request, mut response: Response) -> Result<Response, Problem> {
        response.headers_mut().insert(ETAG, self.0.clone());
        if is_safe(request) && response.status().is_success() {
            precondition(request, Some(self))?;
            if self.is_listed(request, &IF_NONE_MATCH) {
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                *response.body_mut() = Body::Empty;
                // Section 15.4.5: what describes the content that the caller has.
                for name in [CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE] {
                    response.headers_mut().remove(name);
                }
            }
        }
        Ok(response)
    }

    /// Whether a header of the request lists the tag, by strong comparison in `If-Match` and weak in `If-None-Match`.
    fn is_listed(&self, request: &Request, header: &HeaderName) -> bool {
        let (own, is_weak) = (self.0.as_bytes(), *header == IF_NONE_MATCH);
        let is_own = |tag: &[u8]| if is_weak { opaque(tag) == opaque(own) } else { tag == own && tag == opaque(own) };
        request.headers().get_all(header).iter().any(|line| lists(line.as_bytes(), is_own))
    }
}

fn is_safe(request: &Request) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD)
}

/// Checks the request's `If-Match` and `If-None-Match` before it changes anything. `current` is the tag of the resource as
/// it is now, or `None` if it does not exist. [`ETag`] has an example.
///
/// `If-None-Match: *` lets a caller create a resource only if it does not exist. In a `GET` or a `HEAD`, `If-None-Match` is
/// left to [`ETag::answer`]. `If-Unmodified-Since` has no effect, because the resource has no date here (section 13.1.4).
///
/// # Errors
///
/// 412 [`precondition-failed`](Problem::precondition_failed) if one of them does not hold.
pub fn precondition(request: &Request, current: Option<&ETag>) -> Result<(), Problem> {
    let listed = |header| current.is_some_and(|etag| etag.is_listed(request, header));
    if request.headers().contains_key(IF_MATCH) && !listed(&IF_MATCH) {
        let is_tags = |line: &HeaderValue| lists(line.as_bytes(), |tag| tag.ends_with(b"\""));
        let detail = match current {
            None => "The resource does not exist.",
            Some(_) if request.headers().get_all(IF_MATCH).iter().any(is_tags) => "The resource has changed.",
            Some(_) => "If-Match must have an ETag as it was sent, in quotation marks.",
        };
        return Err(Problem::precondition_failed(detail));
    }
    if !is_safe(request) && listed(&IF_NONE_MATCH) {
        return Err(Problem::precondition_failed("The resource exists, and If-None-Match excludes it."));
    }
    Ok(())
}

/// The same, and the request must say which version it changes, so that no caller overwrites what another one wrote: with
/// `If-Match` if the resource exists, and otherwise with `If-None-Match: *`.
///
/// # Errors
///
/// 428 [`precondition-required`](Problem::precondition_required) if it does not say so, and 412 as [`precondition`].
pub fn required_precondition(request: &Request, current: Option<&ETag>) -> Result<(), Problem> {
    precondition(request, current)?;
    let (header, detail) = match current {
        Some(_) => (IF_MATCH, "Send If-Match with the ETag of the version that you change."),
        None => (IF_NONE_MATCH, "Send `If-None-Match: *` to create it."),
    };
    if request.headers().contains_key(header) { Ok(()) } else { Err(Problem::precondition_required(detail)) }
}

/// Whether an `If-None-Match` lists `etag`, by weak comparison: RFC 9110, section 13.1.2. If so, the caller already has
/// the content, and the answer is 304 without a body. [`ETag::answer`] does both.
///
/// ```
/// use handler::lists_etag;
///
/// assert!(lists_etag(br#""0", W/"1,2""#, br#""1,2""#));
/// assert!(lists_etag(b"*", br#""1,2""#));
/// assert!(!lists_etag(br#""1", "2""#, br#""1,2""#));
/// ```
#[must_use]
pub fn lists_etag(etags: &[u8], etag: &[u8]) -> bool {
    lists(etags, |tag| opaque(tag) == opaque(etag))
}

fn lists(etags: &[u8], is_it: impl Fn(&[u8]) -> bool) -> bool {
    let mut tags = split(str::from_utf8(etags).unwrap_or_default(), ',').map(str::trim);
    tags.any(|tag| tag == "*" || is_it(tag.as_bytes()))
}

/// An entity tag without the prefix of a weak tag: section 8.8.3.2.
fn opaque(etag: &[u8]) -> &[u8] {
    etag.strip_prefix(b"W/").unwrap_or(etag)
}

#[cfg(test)]
mod tests {
    use lambda_http::http::header::{CACHE_CONTROL, VARY};

    use super::*;
    use crate::{Context, json};

    fn request(method: &str, headers: &[(&HeaderName, &str)]) -> Request {
        let mut request = Request::default();
        *request.method_mut() = method.parse().unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        request
    }

    #[test]
    fn a_tag_holds_any_version() {
        assert_eq!(ETag::strong(7).0, "\"7\"");
        assert_eq!(ETag::weak("a-1").0, "W/\"a-1\"");
        assert_eq!(ETag::strong("a\"b\r\n é%").0, "\"a%22b%0D%0A%20%C3%A9%25\"");
        assert_eq!(ETag::strong("a\\").0, "\"a%5C\"");
        assert_eq!(ETag::strong("").0, "\"\"");
    }

    #[test]
    fn preconditions_are_those_of_rfc_9110() {
        let (strong, weak) = (ETag::strong(7), ETag::weak(7));
        // The status with `precondition`, and with `required_precondition`, for a `PUT`.
        for (headers, current, optional, required) in [
            (&[][..], Some(&strong), None, Some(428)),
            (&[], None, None, Some(428)),
            (&[(&IF_MATCH, "\"7\"")], Some(&strong), None, None),
            (&[(&IF_MATCH, "\"6\", \"7\"")], Some(&strong), None, None),
            (&[(&IF_MATCH, "\"6\""), (&IF_MATCH, "\"7\"")], Some(&strong), None, None),
            (&[(&IF_MATCH, "*")], Some(&strong), None, None),
            (&[(&IF_MATCH, "*")], Some(&weak), None, None),
            (&[(&IF_MATCH, "*")], None, Some(412), Some(412)),
            (&[(&IF_MATCH, "\"6\"")], Some(&strong), Some(412), Some(412)),
            (&[(&IF_MATCH, "\"7\"")], None, Some(412), Some(412)),
            // Strong comparison: section 8.8.3.2.
            (&[(&IF_MATCH, "W/\"7\"")], Some(&strong), Some(412), Some(412)),
            (&[(&IF_MATCH, "W/\"7\"")], Some(&weak), Some(412), Some(412)),
            (&[(&IF_MATCH, "\"7\"")], Some(&weak), Some(412), Some(412)),
            (&[(&IF_MATCH, "7")], Some(&strong), Some(412), Some(412)),
            (&[(&IF_MATCH, "")], Some(&strong), Some(412), Some(412)),
            (&[(&IF_NONE_MATCH, "*")], None, None, None),
            (&[(&IF_NONE_MATCH, "*")], Some(&strong), Some(412), Some(412)),
            (&[(&IF_NONE_MATCH, "W/\"7\"")], Some(&strong), Some(412), Some(412)),
            (&[(&IF_NONE_MATCH, "\"6\"")], Some(&strong), None, Some(428)),
            (&[(&IF_MATCH, "\"7\""), (&IF_NONE_MATCH, "\"7\"")], Some(&strong), Some(412), Some(412)),
        ] {
            let request = request("PUT", headers);
            let status = |checked: Result<(), Problem>| checked.err().map(|problem| problem.status().as_u16());
            assert_eq!(status(precondition(&request, current)), optional, "{headers:?} {current:?}");
            assert_eq!(status(required_precondition(&request, current)), required, "{headers:?} {current:?}");
        }
    }

    #[test]
    fn a_refusal_says_whether_the_resource_has_changed_or_the_header_is_malformed() {
        for (value, detail) in [
            ("\"6\", \"8\"", "The resource has changed."),
            ("W/\"7\"", "The resource has changed."),
            ("7", "If-Match must have an ETag as it was sent, in quotation marks."),
            ("", "If-Match must have an ETag as it was sent, in quotation marks."),
        ] {
            let refused = precondition(&request("PUT", &[(&IF_MATCH, value)]), Some(&ETag::strong(7)));
            assert_eq!(refused.unwrap_err().detail(), detail, "{value}");
        }
    }

    #[test]
    fn an_answer_that_the_caller_has_is_not_sent_again() {
        for (method, headers, status) in [
            ("GET", &[][..], 200),
            ("GET", &[(&IF_NONE_MATCH, "\"7\"")][..], 304),
            ("HEAD", &[(&IF_NONE_MATCH, "W/\"7\"")], 304),
            ("GET", &[(&IF_NONE_MATCH, "*")], 304),
            ("GET", &[(&IF_NONE_MATCH, "\"6\", \"8\"")], 200),
            ("GET", &[(&IF_MATCH, "\"6\""), (&IF_NONE_MATCH, "\"7\"")], 412),
            ("GET", &[(&IF_MATCH, "\"7\""), (&IF_NONE_MATCH, "\"7\"")], 304),
            // After a change, the tag is another one than the one that was checked.
            ("PUT", &[(&IF_MATCH, "\"6\""), (&IF_NONE_MATCH, "\"7\"")], 200),
        ] {
            let mut response = json(StatusCode::OK, &7).unwrap();
            response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
            let answer = ETag::strong(7).answer(&request(method, headers), response);
            let answer = answer.unwrap_or_else(|problem| problem.to_response(""));
            assert_eq!(answer.status(), status, "{method} {headers:?}");
            let has = |name: HeaderName| answer.headers().contains_key(name);
            assert_eq!((has(ETAG), has(VARY)), (status != 412, status != 412), "{method} {headers:?}");
            assert_eq!((has(CONTENT_TYPE), answer.body().is_empty()), (status != 304, status == 304), "{headers:?}");
        }
        let missing = json(StatusCode::NOT_FOUND, &7).unwrap();
        let answer = ETag::strong(7).answer(&request("GET", &[(&IF_NONE_MATCH, "*")]), missing).unwrap();
        assert_eq!(answer.status(), 404);
    }

    #[tokio::test]
    async fn an_answer_with_a_validator_may_be_kept_by_its_caller() {
        for (etag, own, sent) in [
            (false, None, "no-store"),
            (true, None, "private, no-cache"),
            (true, Some("max-age=60"), "max-age=60"),
            (false, Some("max-age=60"), "max-age=60"),
        ] {
            let endpoint = move |request: Request| async move {
                let mut response = Response::default();
                if let Some(own) = own {
                    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(own));
                }
                if etag { ETag::weak(7).answer(&request, response) } else { Ok(response) }
            };
            let event = br#"{"rawPath": "/", "requestContext": {"http": {"method": "GET"}}}"#;
            let answer = crate::invoke(endpoint, event, Context::default()).await.unwrap();
            assert!(answer.contains(&format!(r#""cache-control":"{sent}""#)), "{answer}");
        }
    }
}
