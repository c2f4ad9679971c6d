//! Answers that are files, and answers that lead elsewhere.

use lambda_http::http::{
    Response, StatusCode,
    header::{CONTENT_DISPOSITION, CONTENT_TYPE, LOCATION},
};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::{Body, Problem};

/// RFC 8187, section 3.2.1, lets a few more characters stay as they are.
const NOT_IN_AN_ATTRIBUTE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_');

/// The characters that no URI can hold: RFC 3986, section 2. A `%` is left alone, as what it encodes is encoded already.
pub(crate) const NOT_IN_A_URI: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'\\').add(b'^').add(b'`').add(b'{').add(b'|').add(b'}');

/// What a browser does with a file: RFC 6266, section 4.2.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Disposition {
    /// It saves it.
    Attachment,
    /// It shows it, if it can. For content of callers, this lets them run scripts on the API's origin.
    Inline,
}

/// Answers with a file: its type, and the name under which it is saved. A name in any language is sent as RFC 6266 and
/// RFC 8187 say, with one in ASCII for old clients. Control characters, `/` and `\` in it become `_`.
///
/// Lambda takes answers of at most 6 MB, of which the base64 of a binary body takes a quarter, and a load balancer 1 MB.
/// Not every REST API passes on binary bodies: [`takes_binary`](crate::takes_binary).
///
/// # Errors
///
/// Returns an `internal` problem if `content_type` is no header's value.
///
/// ```
/// use handler::{Disposition, file, http::header::CONTENT_DISPOSITION};
///
/// let response = file(Disposition::Attachment, "Übersicht.csv", "text/csv; charset=utf-8", "a,b\r\n")?;
/// assert_eq!(
///     response.headers()[CONTENT_DISPOSITION],
///     "attachment; filename=\"_bersicht.csv\"; filename*=UTF-8''%C3%9Cbersicht.csv"
/// );
/// # Ok::<(), handler::Problem>(())
/// ```
pub fn file(
    disposition: Disposition,
    name: &str,
    content_type: &str,
    content: impl Into<Body>,
) -> Result<Response<Body>, Problem> {
    let name = name.replace(|c: char| c.is_control() || c == '/' || c == '\\', "_");
    // RFC 6266, appendix D: some clients take `%` for percent-encoding.
    let ascii = name.replace(|c: char| !c.is_ascii() || c == '"' || c == '%', "_");
    let kind = if disposition == Disposition::Attachment { "attachment" } else { "inline" };
    let mut value = format!("{kind}; filename=\"{ascii}\"");
    if ascii != name {
        value.extend(["; filename*=UTF-8''"]);
        value.extend(utf8_percent_encode(&name, NOT_IN_AN_ATTRIBUTE));
    }
    let response = Response::builder().header(CONTENT_TYPE, content_type).header(CONTENT_DISPOSITION, value);
    response.body(content.into()).map_err(|error| Problem::internal().because(error))
}

/// Answers with a redirect to `location`, which is relative to the request's URL or absolute. A relative one without a
/// slash at its beginning, such as `orders/7`, is also right behind a stage or a base path. What a URI cannot hold is
/// percent-encoded. A caller must not choose the location freely, or others can use it to lend your name to their pages.
///
/// | `status` | the caller repeats the request | for |
/// | --- | --- | --- |
/// | 303 `SEE_OTHER` | as a `GET` | the result of a form |
/// | 307 `TEMPORARY_REDIRECT` | as it is | a resource that is elsewhere for now |
/// | 308 `PERMANENT_REDIRECT` | as it is | a resource that has moved |
/// | 301, 302 | browsers turn `POST` into `GET` | old clients |
///
/// # Errors
///
/// Returns an `internal` problem if `status` is none of these.
///
/// ```
/// use handler::{http::{StatusCode, header::LOCATION}, redirect};
///
/// let response = redirect(StatusCode::SEE_OTHER, "orders/7?shop=café")?;
/// assert_eq!(response.headers()[LOCATION], "orders/7?shop=caf%C3%A9");
/// # Ok::<(), handler::Problem>(())
/// ```
pub fn redirect(status: StatusCode, location: &str) -> Result<Response<Body>, Problem> {
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Err(Problem::internal().because(format!("{status} is not a redirect")));
    }
    let location = utf8_percent_encode(location, NOT_IN_A_URI).to_string();
    let response = Response::builder().status(status).header(LOCATION, location);
    response.body(Body::Empty).map_err(|error| Problem::internal().because(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_name_for_every_client() {
        for (name, disposition) in [
            ("a b.txt", "attachment; filename=\"a b.txt\""),
            ("a\"b.txt", "attachment; filename=\"a_b.txt\"; filename*=UTF-8''a%22b.txt"),
            ("50%.txt", "attachment; filename=\"50_.txt\"; filename*=UTF-8''50%25.txt"),
            ("€ '(*).txt", "attachment; filename=\"_ '(*).txt\"; filename*=UTF-8''%E2%82%AC%20%27%28%2A%29.txt"),
            ("../a\\b\r\nx: y", "attachment; filename=\".._a_b__x: y\""),
            ("", "attachment; filename=\"\""),
        ] {
            let response = file(Disposition::Attachment, name, "text/plain", "a").unwrap();
            assert_eq!(response.headers()[CONTENT_DISPOSITION], disposition, "{name}");
        }
        let response = file(Disposition::Inline, "a.png", "image/png", vec![0_u8]).unwrap();
        let headers = response.headers();
        assert!(headers[CONTENT_DISPOSITION] == "inline; filename=\"a.png\"" && headers[CONTENT_TYPE] == "image/png");
        assert_eq!(response.body(), &Body::Binary(vec![0]));
        assert_eq!(file(Disposition::Inline, "", "a\nb", "").unwrap_err().status(), 500);
    }

    #[test]
    fn a_redirect_cannot_hold_a_second_header() {
        for (location, sent) in [
            ("/a?b=%20c#d", "/a?b=%20c#d"),
            ("https://example.com/[1]", "https://example.com/[1]"),
            ("/a\r\nset-cookie: b c", "/a%0D%0Aset-cookie:%20b%20c"),
            ("", ""),
        ] {
            let response = redirect(StatusCode::PERMANENT_REDIRECT, location).unwrap();
            assert_eq!((response.status().as_u16(), &response.headers()[LOCATION]), (308, &sent.parse().unwrap()));
        }
        for status in [StatusCode::OK, StatusCode::NOT_MODIFIED, StatusCode::MULTIPLE_CHOICES] {
            assert_eq!(redirect(status, "/").unwrap_err().status(), 500);
        }
    }
}
