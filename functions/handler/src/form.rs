//! Bodies of HTML forms without files.

use std::collections::BTreeMap;

use percent_encoding::percent_decode;
use serde::de::DeserializeOwned;

use crate::{
    Problem, Request,
    body::{bytes_of, media},
    parameters::{Source, Values, read},
};

const FORM: &str = "application/x-www-form-urlencoded";

/// Reads the request's body, an HTML form (`application/x-www-form-urlencoded`) of at most `max_bytes`, as a `T`: a struct
/// whose fields are text, numbers, booleans, enums of names, or lists of these. A list has all values of its name, as
/// check boxes send them; otherwise the last one counts. A field that may be absent is an [`Option`] or has a
/// `#[serde(default)]`. An empty value counts as absent, because browsers send every text field.
///
/// Text may have several lines, which browsers end with `\r\n`. It is parsed as the
/// [URL standard](https://url.spec.whatwg.org/#urlencoded-parsing) says. A charset has no effect. [`multipart`](crate::multipart())
/// reads forms with files.
///
/// # Errors
///
/// As for JSON with [`body`](crate::body()):
///
/// - 400 [`malformed-request`](Problem::malformed_request): it is not UTF-8.
/// - 413 [`content-too-large`](Problem::content_too_large): it is larger than `max_bytes`.
/// - 415 [`unsupported-media-type`](Problem::unsupported_media_type): it is of another type, or it is compressed.
/// - 422 [`unprocessable-content`](Problem::unprocessable_content): it is not of the type `T`. `errors` lists each field
///   that is missing, unknown, or of another type.
///
/// ```
/// use handler::{Body, Request, form, http::header::CONTENT_TYPE};
///
/// #[derive(serde::Deserialize)]
/// struct Comment {
///     stars: u8,
///     text: String,
///     #[serde(default)]
///     tags: Vec<String>,
/// }
///
/// let mut request = Request::new(Body::from("stars=5&text=Good.%0D%0ABuy+it.&tags=tea&tags=green"));
/// request.headers_mut().insert(CONTENT_TYPE, "application/x-www-form-urlencoded".parse()?);
/// let comment: Comment = form(&request, 16 * 1024)?;
/// assert_eq!((comment.stars, &*comment.text), (5, "Good.\r\nBuy it."));
/// assert_eq!(comment.tags, ["tea", "green"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn form<T: DeserializeOwned>(request: &Request, max_bytes: usize) -> Result<T, Problem> {
    let bytes = bytes_of(request, max_bytes, FORM, "a form", |line| media(line).eq_ignore_ascii_case(FORM))?;
    // A separator is ASCII, so that no valid sequence spans it: this checks each name and each value.
    if percent_decode(bytes).decode_utf8().is_err() {
        return Err(Problem::malformed_request("The body is not UTF-8."));
    }
    let mut values: Values<'_> = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(bytes).filter(|(_, value)| !value.is_empty()) {
        values.entry(name).or_default().push(value);
    }
    read(values, Source::Form).map_err(|(_, faults)| Problem::unprocessable(faults))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::*;
    use crate::{Body, body::tests::request};

    fn read_as<T: DeserializeOwned>(bytes: impl AsRef<[u8]>) -> Result<T, (u16, Value)> {
        form(&request(Some(FORM), bytes.as_ref()), 256).map_err(|problem| {
            let response = problem.to_response("");
            let Body::Text(json) = response.body() else { panic!("{response:?}") };
            let json: Value = serde_json::from_str(json).unwrap();
            (response.status().as_u16(), json.get("errors").unwrap_or(&json["detail"]).clone())
        })
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, rename_all = "kebab-case")]
    struct Comment {
        text: String,
        stars: Option<u8>,
        #[serde(default)]
        tags: Vec<Tag>,
        #[serde(default)]
        bills: Vec<u16>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "kebab-case")]
    enum Tag {
        Green,
        Black,
    }

    #[test]
    fn a_form_is_read_as_a_type() {
        let comment = |text: &str| Comment { text: text.into(), stars: None, tags: Vec::new(), bills: Vec::new() };
        assert_eq!(read_as("text=a%0D%0A%09b%00+%EF%BF%BD%2B&stars="), Ok(comment("a\r\n\tb\0 \u{fffd}+")));
        assert_eq!(read_as("text=a&text=b"), Ok(comment("b")));
        let full = Comment { stars: Some(5), tags: vec![Tag::Green, Tag::Black], bills: vec![7], ..comment("a") };
        assert_eq!(read_as("text=a&stars=5&tags=green&bills=7&tags=&tags=black"), Ok(full));
        let fault = |pointer: &str, detail: &str| json!({ "detail": detail, "pointer": pointer });
        let (u8s, u16s) = ("must be an integer from 0 to 255", "must be an integer from 0 to 65535");
        let known = "is unknown; there is `text`, `stars`, `tags` or `bills`";
        for (body, status, expected) in [
            ("", 422, json!([fault("#/text", "is missing")])),
            ("text=", 422, json!([fault("#/text", "is missing")])),
            ("stars=256", 422, json!([fault("#/stars", u8s), fault("#/text", "is missing")])),
            ("text=a&stars=many", 422, json!([fault("#/stars", u8s)])),
            (
                "text=a&tags=green&tags=red&bills=1&bills=-1&bills=b&tags=blue",
                422,
                json!([
                    fault("#/bills/1", u16s),
                    fault("#/bills/2", u16s),
                    fault("#/tags/1", "must be `green` or `black`"),
                    fault("#/tags/2", "must be `green` or `black`"),
                ]),
            ),
            ("text=a&a/b~%20c=1", 422, json!([fault("#/a~1b~0%20c", known)])),
            ("text=%C2", 400, json!("The body is not UTF-8.")),
            ("%C2=%A9", 400, json!("The body is not UTF-8.")),
            ("text=%C2&%A9=1", 400, json!("The body is not UTF-8.")),
            (&"a".repeat(257), 413, json!("The body may have at most 256 bytes.")),
        ] {
            assert_eq!(read_as::<Comment>(body), Err((status, expected)), "{body}");
        }
        assert_eq!(read_as::<Comment>(b"text=\xff"), Err((400, json!("The body is not UTF-8."))));
    }

    /// A case for each rule of <https://url.spec.whatwg.org/#urlencoded-parsing>. What that parser decodes to U+FFFD is
    /// refused here, and an empty value is absent.
    #[test]
    fn a_form_is_parsed_as_the_url_standard_says() {
        type All = BTreeMap<String, Vec<String>>;
        for (body, pairs) in [
            ("", &[][..]),
            ("&&", &[]),
            ("k", &[]),
            ("k=&k&=", &[]),
            ("=v", &[("", "v")]),
            ("&&k=v&&l=w&", &[("k", "v"), ("l", "w")]),
            ("k=1&l=2&k=3&k=1", &[("k", "1"), ("k", "3"), ("k", "1"), ("l", "2")]),
            ("k==v=", &[("k", "=v=")]),
            ("k+1=v++w", &[("k 1", "v  w")]),
            ("%4b%2B=%76%26%3d", &[("K+", "v&=")]),
            ("%=%&%4=%4&%4g=%zz%", &[("%", "%"), ("%4", "%4"), ("%4g", "%zz%")]),
            ("k=%3%33%%33", &[("k", "%33%3")]),
            ("\u{feff}é=%EF%BB%BF%C3%A9", &[("\u{feff}é", "\u{feff}é")]),
            ("k=%EF%BF%BF%EF%BF%BD", &[("k", "\u{ffff}\u{fffd}")]),
            ("_charset_=windows-1252&k=%C3%A9", &[("_charset_", "windows-1252"), ("k", "é")]),
        ] {
            let mut expected = All::new();
            for (name, value) in pairs {
                expected.entry((*name).into()).or_default().push((*value).into());
            }
            assert_eq!(read_as::<All>(body), Ok(expected), "{body}");
        }
        for body in ["%FF%FE", "%C3", "%C3x=1", "_charset_=windows-1252&k=%E9"] {
            assert_eq!(read_as::<All>(body), Err((400, json!("The body is not UTF-8."))), "{body}");
        }
    }

    #[test]
    fn a_form_must_be_declared_as_one() {
        for (content_type, status) in [
            (FORM, None),
            ("Application/X-WWW-Form-URLencoded ; charset=windows-1252", None),
            ("multipart/form-data; boundary=a", Some(415)),
            ("text/plain; a=application/x-www-form-urlencoded", Some(415)),
            ("application/x-www-form-urlencoded, text/plain", Some(415)),
        ] {
            let read = form::<BTreeMap<String, String>>(&request(Some(content_type), "a=1"), 16);
            assert_eq!(read.err().map(|problem| problem.status().as_u16()), status, "{content_type}");
        }
    }
}
