//! Bodies: reads a request's as it came, or as JSON of a type, and writes an answer's.

use lambda_http::http::{
    HeaderName, HeaderValue, StatusCode,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::{Body, Problem, Request, Response, faults::faults, negotiate::split};

/// Reads the request's body, JSON of at most `max_bytes`, as a `T`. It accepts what [`serde_json::from_str`] accepts, and
/// ignores a byte order mark before it (RFC 8259, section 8.1). With `#[serde(deny_unknown_fields)]` on `T`, a misspelt
/// member is a fault.
///
/// # Errors
///
/// - 400 [`malformed-request`](Problem::malformed_request): it is absent, not UTF-8, or not JSON.
/// - 413 [`content-too-large`](Problem::content_too_large): it is larger than `max_bytes`.
/// - 415 [`unsupported-media-type`](Problem::unsupported_media_type): its type is neither `application/json` nor
///   `application/*+json`, or it is compressed. A charset has no effect (RFC 8259, section 11).
/// - 422 [`unprocessable-content`](Problem::unprocessable_content): it is not of the type `T`. `errors` lists each
///   member that is missing, unknown, repeated, of another type, or nested too deeply. For a long body, it lists the
///   first ones, because a refusal costs at most a few times what an answer costs. `detail` says if there may be more.
///
/// ```
/// use handler::{Body, Request, body, http::header::CONTENT_TYPE};
///
/// #[derive(serde::Deserialize)]
/// struct NewOrder {
///     sku: String,
///     quantity: u8,
/// }
///
/// let mut request = Request::new(Body::from(r#"{"sku": "A-7", "quantity": 2}"#));
/// request.headers_mut().insert(CONTENT_TYPE, "application/json".parse()?);
/// let order: NewOrder = body(&request, 16 * 1024)?;
/// assert_eq!((&*order.sku, order.quantity), ("A-7", 2));
///
/// *request.body_mut() = Body::from(r#"{"quantity": 300}"#);
/// assert_eq!(body::<NewOrder>(&request, 16 * 1024).err().map(|problem| problem.status().as_u16()), Some(422));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn body<T: DeserializeOwned>(request: &Request, max_bytes: usize) -> Result<T, Problem> {
    let bytes = bytes_of(request, max_bytes, "application/json", "JSON", is_json)?;
    if bytes.is_empty() {
        return Err(Problem::malformed_request("The body is empty, and must be JSON."));
    }
    let text = str::from_utf8(bytes).map_err(|_| Problem::malformed_request("The body is not UTF-8."))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    serde_json::from_str(text).map_err(|_| {
        // Checks whether it is JSON at all: for some types, serde_json's error category does not tell.
        match serde_json::from_str::<&RawValue>(text) {
            Ok(_) => Problem::unprocessable(faults::<T>(text)),
            Err(error) => Problem::malformed_request(format!("The body is not JSON: {error}.")),
        }
    })
}

/// Returns the request's body of at most `max_bytes`, byte for byte as the caller sent it, whether or not the trigger sent
/// it in base64. So it is what a signature was made for. It may be of any type, compressed, or empty.
///
/// A REST API passes on only text, unless its `binaryMediaTypes` match the request's `Content-Type`: in other bodies, it
/// replaces what is not UTF-8.
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-payload-encodings.html>
///
/// # Errors
///
/// 413 [`content-too-large`](Problem::content_too_large) if it is larger than `max_bytes`.
///
/// ```
/// use handler::{Body, Request, bytes};
///
/// let request = Request::new(Body::from("a=1"));
/// assert_eq!(bytes(&request, 64 * 1024)?, b"a=1");
/// # Ok::<(), handler::Problem>(())
/// ```
pub fn bytes(request: &Request, max_bytes: usize) -> Result<&[u8], Problem> {
    let bytes: &[u8] = match request.body() {
        Body::Text(text) => text.as_bytes(),
        Body::Binary(bytes) => bytes,
        _ => &[],
    };
    if bytes.len() > max_bytes { Err(Problem::content_too_large(max_bytes)) } else { Ok(bytes) }
}

/// Answers with `content` as JSON, whatever the request accepts. [`negotiate`](crate::negotiate()) respects `Accept`.
///
/// # Errors
///
/// Returns an `internal` problem if `content` cannot be written as JSON.
///
/// ```
/// # use handler::{http::StatusCode, json};
/// let response = json(StatusCode::CREATED, &["A-7"])?;
/// assert_eq!(response.status(), 201);
/// # Ok::<(), handler::Problem>(())
/// ```
pub fn json(status: StatusCode, content: &impl Serialize) -> Result<Response, Problem> {
    let body = serde_json::to_string(content).map_err(|error| Problem::internal().because(error))?;
    let mut response = Response::new(Body::Text(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// Whether the answer is a stream, as with the feature `stream`. Then the body that it has in memory is empty.
#[must_use]
#[cfg_attr(not(feature = "stream"), expect(unused_variables, reason = "there are no streams"))]
pub fn is_stream(response: &Response) -> bool {
    #[cfg(feature = "stream")]
    return response.extensions().get::<crate::stream::Streamed>().is_some();
    #[cfg(not(feature = "stream"))]
    false
}

/// The request's body, of the type `media`, `what` in words, and not compressed.
pub(crate) fn bytes_of<'a>(
    request: &'a Request,
    max_bytes: usize,
    media: &'static str,
    what: &str,
    is_right: fn(&str) -> bool,
) -> Result<&'a [u8], Problem> {
    let headers = request.headers();
    let unsupported = |detail: String| Problem::unsupported_media_type(media, detail);
    // Either header may hold a list, if it came in several lines.
    let all = |name, is_right: fn(&str) -> bool| {
        let mut lines = headers.get_all(name).into_iter();
        lines.all(|line| line.to_str().is_ok_and(|line| split(line, ',').map(str::trim).all(is_right)))
    };
    if !all(CONTENT_ENCODING, |coding| coding.is_empty() || coding.eq_ignore_ascii_case("identity")) {
        // RFC 9110, section 12.5.3: the encoding that would have been accepted.
        return Err(unsupported("The body must come without a content encoding.".into())
            .with_header(ACCEPT_ENCODING, HeaderValue::from_static("identity")));
    }
    if !headers.contains_key(CONTENT_TYPE) || !all(CONTENT_TYPE, is_right) {
        return Err(unsupported(format!("The body must be {what}, with the Content-Type {media}.")));
    }
    bytes(request, max_bytes)
}

/// A media type without its parameters.
pub(crate) fn media(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim_end()
}

/// Whether it is `application/json` or `application/*+json`, with any parameters.
fn is_json(content_type: &str) -> bool {
    let media = media(content_type).to_ascii_lowercase();
    let is_token = |name: &str| HeaderName::from_bytes(name.as_bytes()).is_ok();
    media
        .strip_prefix("application/")
        .is_some_and(|subtype| subtype == "json" || subtype.strip_suffix("+json").is_some_and(is_token))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct NewOrder {
        sku: String,
        quantity: u8,
    }

    /// A request with this body, also for the tests of other bodies.
    pub(crate) fn request(content_type: Option<&str>, bytes: impl Into<Body>) -> Request {
        let mut request = Request::new(bytes.into());
        if let Some(content_type) = content_type {
            request.headers_mut().insert(CONTENT_TYPE, content_type.parse().unwrap());
        }
        request
    }

    fn read_as<T: DeserializeOwned>(bytes: impl Into<Body>) -> Result<T, (u16, Value)> {
        body(&request(Some("application/json"), bytes), 64).map_err(|problem| {
            let response = problem.to_response("");
            let Body::Text(json) = response.body() else { panic!("{response:?}") };
            let json: Value = serde_json::from_str(json).unwrap();
            (response.status().as_u16(), json.get("errors").unwrap_or(&json["detail"]).clone())
        })
    }

    #[test]
    fn a_body_is_read_as_json_of_a_type() {
        let good = NewOrder { sku: "A".into(), quantity: 2 };
        let json = r#" {"quantity": 2, "sku": "A"} "#;
        assert_eq!(read_as(json), Ok(NewOrder { sku: "A".into(), quantity: 2 }));
        assert_eq!(read_as(json.as_bytes().to_vec()), Ok(good));
        assert_eq!(read_as("[[1], []]"), Ok([vec![1_u8], vec![]]));
        assert_eq!(read_as("\u{feff}7"), Ok(7));
        // As serde_json does, at any depth.
        assert_eq!(read_as(r#"[["A", 2]]"#), Ok([NewOrder { sku: "A".into(), quantity: 2 }]));
        let fault = |pointer, detail| json!([{ "detail": detail, "pointer": pointer }]);
        let unknown = "is unknown; there is `sku` or `quantity`";
        for (bytes, status, expected) in [
            (&b""[..], 400, json!("The body is empty, and must be JSON.")),
            (b"{", 400, json!("The body is not JSON: EOF while parsing an object at line 1 column 1.")),
            (b"{} {}", 400, json!("The body is not JSON: trailing characters at line 1 column 4.")),
            (b"{\"sku\": 7,", 400, json!("The body is not JSON: EOF while parsing an object at line 1 column 10.")),
            (b"{\"sku\": \"\xff\"}", 400, json!("The body is not UTF-8.")),
            (&[b'['; 65], 413, json!("The body may have at most 64 bytes.")),
            (b"[]", 422, fault("#", "must be an object")),
            (b"[\"A\", \"2\"]", 422, fault("#/1", "must be an integer from 0 to 255")),
            (b"{\"sku\": \"A\", \"quantity\": 256}", 422, fault("#/quantity", "must be an integer from 0 to 255")),
            (b"{\"sku\": \"A\", \"quantity\": 1.0}", 422, fault("#/quantity", "must be an integer from 0 to 255")),
            (b"{\"sku\": \"A\", \"sku\": \"B\", \"quantity\": 1}", 422, fault("#/sku", "appears twice")),
            (b"{\"sku\": \"A\", \"quantity\": 1, \"a b%\": 1}", 422, fault("#/a%20b%25", unknown)),
        ] {
            assert_eq!(read_as::<NewOrder>(bytes.to_vec()), Err((status, expected)), "{}", bytes.escape_ascii());
        }
        let deep = format!("{}1{}", r#"{"a":"#.repeat(128), "}".repeat(128));
        let deep = body::<Value>(&request(Some("application/json"), deep), 4096).unwrap_err();
        let deep = deep.to_response("");
        let Body::Text(text) = deep.body() else { panic!("{deep:?}") };
        assert!(deep.status() == 422 && text.contains("is nested too deeply"), "{deep:?}");
    }

    #[test]
    fn a_body_must_be_declared_as_json() {
        for (content_type, is_json) in [
            (Some("application/json"), true),
            (Some("Application/JSON ; Charset=\"UTF-8\""), true),
            (Some("application/merge-patch+json"), true),
            (Some("application/json; charset=iso-8859-1"), true),
            (Some(r#"application/json;profile="a, b; c""#), true),
            (Some("application/json, application/json; charset=utf-8"), true),
            (Some("application/json; a=b, text/plain"), false),
            (Some("application/+json"), false),
            (Some("application/a b+json"), false),
            (Some("application/xml, application/a+json"), false),
            (Some("application/json;a=\"b, text/plain"), true),
            (Some("text/json"), false),
            (Some("text/plain; a=application/json"), false),
            (None, false),
        ] {
            let read = body::<BTreeMap<String, u8>>(&request(content_type, "{}"), 2);
            assert_eq!(
                read.map_err(|problem| problem.status().as_u16()),
                if is_json { Ok(BTreeMap::new()) } else { Err(415) },
                "{content_type:?}"
            );
        }
        let mut compressed = request(Some("application/json"), "{}");
        compressed.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        let refused = body::<Value>(&compressed, 2).unwrap_err().to_response("");
        assert_eq!(
            (refused.status(), &refused.headers()[ACCEPT_ENCODING]),
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, &HeaderValue::from_static("identity"))
        );
        for (codings, status) in [("Identity", None), ("", None), ("identity, gzip", Some(415))] {
            compressed.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static(codings));
            assert_eq!(
                body::<Value>(&compressed, 2).err().map(|problem| problem.status().as_u16()),
                status,
                "{codings}"
            );
        }
    }
}
