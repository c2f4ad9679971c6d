//! Bodies of HTML forms with files: RFC 7578.

use std::borrow::Cow;

use lambda_http::http::header::CONTENT_TYPE;
use memchr::memmem::{find, find_iter};

use crate::{
    Problem, Request,
    body::{bytes_of, media},
    negotiate::split,
};

const MULTIPART: &str = "multipart/form-data";

/// A field or a file of a form.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Part<'a> {
    /// The field's name. Several parts can have the same one.
    pub name: Cow<'a, str>,
    /// The file's name as the caller sent it, which may be any text: no path to write to.
    pub file_name: Option<Cow<'a, str>>,
    /// The `Content-Type` as the caller sent it. Nothing has checked it.
    pub content_type: Option<&'a str>,
    /// The content.
    pub bytes: &'a [u8],
}

impl<'a> Part<'a> {
    /// The content as text.
    ///
    /// # Errors
    ///
    /// 400 [`malformed-request`](Problem::malformed_request) if it is not UTF-8.
    pub fn text(&self) -> Result<&'a str, Problem> {
        str::from_utf8(self.bytes)
            .map_err(|_| Problem::malformed_request(format!("The part `{}` is not UTF-8.", self.name)))
    }
}

/// Reads the request's body, an HTML form with files (`multipart/form-data`) of at most `max_bytes`, as its parts, in
/// their order. `max_bytes_of` tells how many bytes a part with this name may have. Nothing is copied.
///
/// The body is in memory already: Lambda passes at most 6 MB, of which base64 takes a quarter, and a load balancer 1 MB.
/// Larger files belong into S3, by a presigned URL. Behind a REST API, files need `binaryMediaTypes`, as with
/// [`bytes`](crate::bytes()).
///
/// As RFC 7578 says, a part has a name, headers other than `Content-Disposition` and `Content-Type` have no effect, and
/// neither has `filename*`.
///
/// # Errors
///
/// - 400 [`malformed-request`](Problem::malformed_request): it is incomplete, or a part has no name.
/// - 413 [`content-too-large`](Problem::content_too_large): it or a part is larger than allowed.
/// - 415 [`unsupported-media-type`](Problem::unsupported_media_type): it is of another type, or it is compressed.
///
/// ```
/// use handler::{Body, Request, http::header::CONTENT_TYPE, multipart};
///
/// let mut request = Request::new(Body::from(
///     "--x\r\nContent-Disposition: form-data; name=\"photo\"; filename=\"cat.png\"\r\n\r\nPNG\r\n--x--\r\n",
/// ));
/// request.headers_mut().insert(CONTENT_TYPE, "multipart/form-data; boundary=x".parse()?);
/// let parts = multipart(&request, 4 << 20, |name| if name == "photo" { 3 << 20 } else { 1024 })?;
/// assert_eq!((&*parts[0].name, parts[0].file_name.as_deref(), parts[0].bytes), ("photo", Some("cat.png"), &b"PNG"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn multipart(
    request: &Request,
    max_bytes: usize,
    max_bytes_of: impl Fn(&str) -> usize,
) -> Result<Vec<Part<'_>>, Problem> {
    let is_right = |line: &str| media(line).eq_ignore_ascii_case(MULTIPART);
    let body = bytes_of(request, max_bytes, MULTIPART, "a form", is_right)?;
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|line| line.to_str().ok()).unwrap_or_default();
    // RFC 2046, section 5.1.1.
    let boundary = parameter(content_type, "boundary").filter(|boundary| (1..=70).contains(&boundary.len()));
    let boundary =
        boundary.ok_or(Problem::malformed_request("The Content-Type has no boundary of 1 to 70 characters."))?;
    let parts = parts(body, &boundary).map_err(Problem::malformed_request)?;
    match parts.iter().find(|part| part.bytes.len() > max_bytes_of(&part.name)) {
        None => Ok(parts),
        Some(Part { name, .. }) => Err(Problem::too_large(&format!("The part `{name}`"), max_bytes_of(name))),
    }
}

fn parts<'a>(body: &'a [u8], boundary: &str) -> Result<Vec<Part<'a>>, &'static str> {
    let delimiter = format!("--{boundary}");
    // What comes before the first delimiter is no part.
    let (mut parts, mut start, mut at) = (Vec::new(), None, 0);
    for end in find_iter(body, b"\r\n").chain([body.len()]) {
        let after = body[at..end].strip_prefix(delimiter.as_bytes());
        let is_last = after.is_some_and(|after| after.starts_with(b"--"));
        // Otherwise the line only begins like a delimiter.
        if is_last || after.is_some_and(|after| after.iter().all(|byte| b" \t".contains(byte))) {
            if let Some(start) = start {
                parts.push(Part::read(&body[start..at])?);
            }
            if is_last {
                return Ok(parts);
            }
            start = Some(end);
        }
        at = end + 2;
    }
    Err(if start.is_none() {
        "The body does not have its boundary."
    } else {
        "The body does not end with its boundary."
    })
}

impl<'a> Part<'a> {
    /// Reads what is between two delimiters, from the end of the line of the first one.
    fn read(part: &'a [u8]) -> Result<Self, &'static str> {
        const UNREADABLE: &str = "The headers of a part are malformed.";
        let (head, bytes) = part.split_at(find(part, b"\r\n\r\n").ok_or(UNREADABLE)?);
        let head = str::from_utf8(head).map_err(|_| UNREADABLE)?;
        let fields: Option<Vec<_>> = head.split("\r\n").skip(1).map(|line| line.split_once(':')).collect();
        let fields = fields.ok_or(UNREADABLE)?;
        let value = |name: &str| {
            let field = fields.iter().rfind(|(found, _)| found.eq_ignore_ascii_case(name));
            field.map(|(_, value)| value.trim())
        };
        let disposition = value("content-disposition").unwrap_or_default();
        let is_field = media(disposition).eq_ignore_ascii_case("form-data") && !head.contains('\0');
        let name = parameter(disposition, "name").filter(|_| is_field).ok_or("A part has no name.")?;
        // The line's end before the delimiter may also be the one after the headers.
        let bytes = bytes[4..].strip_suffix(b"\r\n").unwrap_or_default();
        Ok(Self { name, file_name: parameter(disposition, "filename"), content_type: value("content-type"), bytes })
    }
}

/// The value of a header's parameter.
fn parameter<'a>(header: &'a str, name: &str) -> Option<Cow<'a, str>> {
    let value = split(header, ';').skip(1).find_map(|parameter| {
        let (found, value) = parameter.split_once('=')?;
        found.trim().eq_ignore_ascii_case(name).then_some(value.trim())
    })?;
    let Some(quoted) = value.strip_prefix('"') else { return Some(value.into()) };
    let quoted = quoted.strip_suffix('"')?;
    // Other clients escape two characters (RFC 2183), browsers percent-encode three (HTML, "multipart form data"). Any
    // other backslash or percent sign is a part of the name, as in the paths that old clients send.
    let escapes = [("\\\"", "\""), ("\\\\", "\\"), ("%22", "\""), ("%0D", "\r"), ("%0A", "\n")];
    let unescape =
        |text: Cow<'a, str>, (escape, c)| if text.contains(escape) { text.replace(escape, c).into() } else { text };
    Some(escapes.into_iter().fold(quoted.into(), unescape))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::tests::request;

    /// The name, the file's name, the type and the content of each part, or the status and the detail.
    fn read(body: &str) -> Result<Vec<[String; 4]>, (u16, String)> {
        read_as("multipart/form-data; boundary=x", body)
    }

    fn read_as(content_type: &str, body: &str) -> Result<Vec<[String; 4]>, (u16, String)> {
        let request = request(Some(content_type), body);
        let parts = multipart(&request, 512, |name| if name == "small" { 2 } else { 512 });
        let told = |part: &Part<'_>| {
            let file_name = part.file_name.as_deref().unwrap_or("-");
            let texts = [&*part.name, file_name, part.content_type.unwrap_or("-"), part.text().unwrap()];
            texts.map(str::to_owned)
        };
        let parts = parts.map(|parts| parts.iter().map(told).collect());
        parts.map_err(|problem| (problem.status().as_u16(), problem.to_string()))
    }

    fn one(disposition: &str) -> String {
        format!("--x\r\nContent-Disposition: {disposition}\r\n\r\n1\r\n--x--")
    }

    #[test]
    fn a_form_with_files_is_read_as_its_parts() {
        let body = "preamble\r\n--x \t\r\ncontent-disposition: Form-Data ; Name = a\r\n\r\n\r\n--x\r\n\
                    Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\
                    CONTENT-DISPOSITION:form-data;name=\"b;\\\"c\";filename=\"d=é.txt\"; filename*=UTF-8''e\r\n\r\n\
                    y--x\r\n\r\n--xy\r\n--x\n\n\r\n--x\r\nContent-Disposition: form-data; name=c\r\n\r\n\
                    --x\r\nContent-Disposition: form-data; name=\"\"\r\n\r\n\r\n\r\n\r\n--x--\r\nepilogue";
        let parts = [
            ["a", "-", "-", ""],
            ["b;\"c", "d=é.txt", "text/plain; charset=utf-8", "y--x\r\n\r\n--xy\r\n--x\n\n"],
            ["c", "-", "-", ""],
            ["", "-", "-", "\r\n\r\n"],
        ];
        assert_eq!(read(body), Ok(parts.map(|part| part.map(str::to_owned)).into()));
        assert_eq!(read("--x--"), Ok(Vec::new()));
        assert_eq!(read("\r\n--x--\r\n"), Ok(Vec::new()));
    }

    #[test]
    fn a_name_is_what_a_browser_or_another_client_means() {
        for (sent, name) in [
            ("name=\"a%22%0D%0Ab%20%2\"", "a\"\r\nb%20%2"),
            (r#"name="C:\dir\a\\.txt""#, r"C:\dir\a\.txt"),
            (r#"name="a\\""#, "a\\"),
            (r#"name="a\\\"b""#, "a\\\"b"),
            ("name=token", "token"),
            ("filename=\"name=b\"; name=\"a\"", "a"),
            ("x=\"; name=b\"; name=a", "a"),
            ("name=\"日本\"", "日本"),
        ] {
            let parts = read(&one(&format!("form-data; {sent}")));
            assert_eq!(parts.map(|parts| parts[0][0].clone()), Ok(name.into()), "{sent}");
        }
    }

    #[test]
    fn a_form_that_is_malformed_or_too_large_is_refused() {
        let incomplete = "malformed-request: The body does not end with its boundary.";
        let nameless = "malformed-request: A part has no name.";
        let unreadable = "malformed-request: The headers of a part are malformed.";
        for (body, status, detail) in [
            ("", 400, "malformed-request: The body does not have its boundary."),
            ("x--x--", 400, "malformed-request: The body does not have its boundary."),
            ("--x\n--x--", 400, "malformed-request: The body does not have its boundary."),
            ("--x\r\n", 400, incomplete),
            ("--x\r\nContent-Disposition: form-data; name=a\r\n\r\n1", 400, incomplete),
            ("--x\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--x", 400, incomplete),
            ("--x\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--x-", 400, incomplete),
            ("--x\r\nContent-Disposition: form-data; name=a\r\n--x--", 400, unreadable),
            ("--x\r\nContent-Disposition\r\n\r\n\r\n--x--", 400, unreadable),
            ("--x\r\n\r\n1\r\n--x--", 400, nameless),
            (&one("form-data"), 400, nameless),
            (&one("attachment; name=a"), 400, nameless),
            (&one("form-data; name=\"a"), 400, nameless),
            (&one("form-data; name=\"a\0\""), 400, nameless),
            (&one("form-data; name*=UTF-8''a"), 400, nameless),
            (&"-".repeat(513), 413, "content-too-large: The body may have at most 512 bytes."),
            (
                "--x\r\nContent-Disposition: form-data; name=small\r\n\r\n123\r\n--x--",
                413,
                "content-too-large: The part `small` may have at most 2 bytes.",
            ),
        ] {
            assert_eq!(read(body), Err((status, detail.into())), "{body}");
        }
        let not_utf_8 = request(Some("multipart/form-data; boundary=x"), &b"--x\r\nA: \xff\r\n\r\n1\r\n--x--"[..]);
        assert_eq!(multipart(&not_utf_8, 512, |_| 512).unwrap_err().status(), 400);
        let content = request(
            Some("multipart/form-data; boundary=x"),
            &b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n\xff\r\n--x--"[..],
        );
        let parts = multipart(&content, 512, |_| 512).unwrap();
        assert_eq!((parts[0].bytes, parts[0].text().unwrap_err().status().as_u16()), (&b"\xff"[..], 400));
    }

    #[test]
    fn a_boundary_is_in_the_content_type() {
        let long = "b".repeat(70);
        for (content_type, boundary, status) in [
            ("multipart/form-data; boundary=x", "x", None),
            ("Multipart/Form-Data;charset=utf-8; Boundary=\"a b:=?\"", "a b:=?", None),
            (&format!("multipart/form-data; boundary={long}"), &long, None),
            (&format!("multipart/form-data; boundary={long}b"), &format!("{long}b"), Some(400)),
            ("multipart/form-data; boundary=", "", Some(400)),
            ("multipart/form-data", "x", Some(400)),
            ("multipart/mixed; boundary=x", "x", Some(415)),
            ("application/x-www-form-urlencoded", "x", Some(415)),
        ] {
            let read = read_as(content_type, &one("form-data; name=a").replace("--x", &format!("--{boundary}")));
            assert_eq!(read.as_ref().err().map(|(status, _)| *status), status, "{content_type}: {read:?}");
        }
    }
}
