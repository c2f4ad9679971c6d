//! The URL of a request, below the operator's.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::Url;

use crate::error::Failure;

/// All but the unreserved characters (RFC 3986, section 2.3), so that a parameter stays one segment of the path.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// How often a parameter may be encoded for what it means to be found. An upstream behind several proxies decodes more
/// than once.
const DECODED: usize = 8;

/// `path` below `base`, with `parameters` for each `{}` in it. An empty `path` is `base` itself. The query of `base` is
/// kept.
///
/// # Errors
///
/// If a parameter is empty, or would lead out of `base` in an upstream that decodes it, or holds a control character: the
/// caller's fault. If `path` does not begin with `/`, or has another number of `{}`: a bug.
pub(crate) fn below(base: &Url, path: &str, parameters: &[&str]) -> Result<Url, Failure> {
    let mut literals = path.split("{}");
    let mut joined = literals.next().unwrap_or_default().to_owned();
    for parameter in parameters {
        let Some(literal) = literals.next() else { return Err(mismatch(path, parameters.len())) };
        if let Some(fault) = fault(parameter) {
            return Err(Failure::Parameter(fault));
        }
        joined.extend(utf8_percent_encode(parameter, RESERVED));
        joined.push_str(literal);
    }
    if literals.next().is_some() {
        return Err(mismatch(path, parameters.len()));
    }
    let mut url = base.clone();
    if path.is_empty() {
        return Ok(url);
    }
    if !path.starts_with('/') || path.contains(['?', '#', '\\']) {
        return Err(Failure::bug(format!("the path `{path}` must begin with `/`, and its query belongs into `query`")));
    }
    // A literal and a parameter can make one together.
    if joined.split('/').any(is_dots) {
        return Err(Failure::Parameter("leads out of the path"));
    }
    let joined = [base.path().trim_end_matches('/'), &joined].concat();
    url.set_path(&joined);
    Ok(url)
}

fn mismatch(path: &str, parameters: usize) -> Failure {
    Failure::bug(format!("the path `{path}` is given {parameters} parameters, one for each `{{}}`"))
}

/// What is wrong with a parameter.
fn fault(parameter: &str) -> Option<&'static str> {
    if parameter.is_empty() {
        return Some("is empty");
    }
    let mut decoded = Cow::Borrowed(parameter);
    for _ in 0..DECODED {
        if decoded.contains(char::is_control) {
            return Some("contains a control character");
        }
        if decoded.split(['/', '\\']).any(is_dots) {
            return Some("leads out of the path");
        }
        let further = percent_decode_str(&decoded).decode_utf8_lossy().into_owned();
        if further == *decoded {
            return None;
        }
        decoded = Cow::Owned(further);
    }
    Some("is encoded too often")
}

/// Whether a URL's path has a segment like this that is no name: RFC 3986, section 5.2.4. Some servers cut off what
/// follows a `;` before they look.
fn is_dots(segment: &str) -> bool {
    matches!(segment.split(';').next().map(str::trim), Some("." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(base: &str, path: &str, parameters: &[&str]) -> Result<String, Failure> {
        below(&Url::parse(base).unwrap(), path, parameters).map(String::from)
    }

    #[test]
    fn a_path_is_joined_below_the_base() {
        for (base, path, parameters, expected) in [
            ("https://a.example", "", &[][..], "https://a.example/"),
            ("https://a.example/v1/x?key=1", "", &[], "https://a.example/v1/x?key=1"),
            ("https://a.example", "/rates", &[], "https://a.example/rates"),
            ("https://a.example/v1", "/rates/", &[], "https://a.example/v1/rates/"),
            ("https://a.example/v1/?key=1", "/rates", &[], "https://a.example/v1/rates?key=1"),
            ("https://a.example/v1", "/{}/b/{}", &["x", "y"], "https://a.example/v1/x/b/y"),
            (
                "https://a.example/v1",
                "/{}",
                &["a b/ü?#&=+;:@"],
                "https://a.example/v1/a%20b%2F%C3%BC%3F%23%26%3D%2B%3B%3A%40",
            ),
            (
                "https://a.example/v1",
                "/{}",
                &["https://evil.example/x"],
                "https://a.example/v1/https%3A%2F%2Fevil.example%2Fx",
            ),
            ("https://a.example/v1", "/{}", &["//evil.example"], "https://a.example/v1/%2F%2Fevil.example"),
            ("https://a.example/v1", "/{}", &["100%"], "https://a.example/v1/100%25"),
            ("https://a.example/v1", "/{}", &["..."], "https://a.example/v1/..."),
            ("https://a.example/v1", "/{}", &["a..b"], "https://a.example/v1/a..b"),
            ("https://a.example/v1", "/{}", &["{}"], "https://a.example/v1/%7B%7D"),
            ("https://a.example/v1", "/{}", &["%41"], "https://a.example/v1/%2541"),
        ] {
            assert_eq!(joined(base, path, parameters).unwrap(), expected, "{path} {parameters:?}");
        }
    }

    #[test]
    fn a_parameter_cannot_leave_the_base() {
        let nested = (0..20).fold("../".to_owned(), |nested, _| nested.replace('%', "%25").replace("../", "%2e%2e%2f"));
        for parameter in [
            "",
            ".",
            "..",
            "../",
            "../..",
            "a/../../b",
            "..\\",
            "..%2f",
            "%2e%2e",
            "%2E%2e%2F",
            ".%2e/",
            "%252e%252e%252f",
            "..;",
            "..;x=1/",
            "%2e%2e;/",
            " .. ",
            "a/..",
            "\0",
            "a%00",
            "a%2500",
            "a\r\nb",
            "%0d%0a",
            "\u{7f}",
            "\u{85}",
            &nested,
        ] {
            for path in ["/v2/{}", "/v2/{}/x", "/{}"] {
                let refused = joined("https://a.example/v1", path, &[parameter]);
                assert!(matches!(refused, Err(Failure::Parameter(_))), "{parameter:?}: {refused:?}");
            }
        }
        let refused = joined("https://a.example/v1", "/.{}", &["."]);
        assert!(matches!(refused, Err(Failure::Parameter(_))), "{refused:?}");
    }

    #[test]
    fn a_path_that_does_not_fit_its_parameters_is_a_bug() {
        for (path, parameters) in
            [("/{}", &[][..]), ("/", &["a"]), ("", &["a"]), ("/{}/{}", &["a"]), ("a", &[]), ("/a?b", &[])]
        {
            let refused = joined("https://a.example", path, parameters);
            assert!(matches!(refused, Err(Failure::Bug(_))), "{path}: {refused:?}");
        }
    }
}
