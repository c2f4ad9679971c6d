//! Proactive content negotiation (RFC 9110, section 12) between plain text and JSON.

use std::fmt::Display;

use lambda_http::http::{
    HeaderMap, HeaderValue,
    header::{ACCEPT, CONTENT_TYPE, VARY},
};
use serde::Serialize;

use crate::{Body, Problem, Request, Response};

pub(crate) const VARY_ACCEPT: HeaderValue = HeaderValue::from_static("Accept");

#[derive(Clone, Copy, Debug, PartialEq)]
enum Format {
    Text,
    Json,
}

/// Answers with `content` in the representation that the request's `Accept` prefers: plain text (its [`Display`]) or
/// JSON (its [`Serialize`]). A caller without a preference gets plain text.
///
/// # Errors
///
/// Returns a `not-acceptable` problem if `Accept` allows neither, and an `internal` problem if `content` cannot be
/// written as JSON.
///
/// ```
/// # use handler::{Body, Request, http::header::ACCEPT};
/// let mut request = Request::default();
/// request.headers_mut().insert(ACCEPT, "application/json".parse()?);
/// let response = handler::negotiate(&request, &"hi")?;
/// assert_eq!(response.body(), &Body::from(r#""hi""#));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn negotiate<C: Display + Serialize>(request: &Request, content: &C) -> Result<Response, Problem> {
    let format = preferred(request.headers()).ok_or_else(Problem::not_acceptable)?;
    let (content_type, body) = match format {
        Format::Text => ("text/plain; charset=utf-8", content.to_string()),
        Format::Json => {
            ("application/json", serde_json::to_string(content).map_err(|error| Problem::internal().because(error))?)
        }
    };
    let mut response = Response::new(Body::Text(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(VARY, VARY_ACCEPT);
    Ok(response)
}

/// The acceptable format with the highest weight; text if the weights are equal. `None` if neither is acceptable.
fn preferred(headers: &HeaderMap) -> Option<Format> {
    let (mut text, mut json) = (Quality::default(), Quality::default());
    let mut any_range = false;
    for value in headers.get_all(ACCEPT) {
        for range in split(value.to_str().unwrap_or_default(), ',') {
            let Some((range, weight)) = weighted(range).filter(|(range, _)| range.contains('/')) else {
                continue;
            };
            any_range = true;
            text.consider(range, weight, "text/plain", "text/*");
            json.consider(range, weight, "application/json", "application/*");
        }
    }
    // A header without a readable range expresses no preference, like a missing header.
    if !any_range || (text.weight > 0.0 && text.weight >= json.weight) {
        Some(Format::Text)
    } else if json.weight > 0.0 {
        Some(Format::Json)
    } else {
        None
    }
}

/// The weight of a media type in a header, from the most specific range that matches it.
#[derive(Default)]
struct Quality {
    specificity: u8,
    weight: f32,
}

impl Quality {
    fn consider(&mut self, range: &str, weight: f32, exact: &str, subtypes: &str) {
        let specificity = if range.eq_ignore_ascii_case(exact) {
            3
        } else if range.eq_ignore_ascii_case(subtypes) {
            2
        } else if range == "*/*" {
            1
        } else {
            return;
        };
        if specificity >= self.specificity {
            *self = Self { specificity, weight };
        }
    }
}

/// Splits a header's value, but not in a quoted string (RFC 9110, section 5.6.4).
pub(crate) fn split(value: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    value.split(move |c| {
        let is_plain = !is_escaped;
        is_escaped = is_plain && is_quoted && c == '\\';
        is_quoted ^= is_plain && c == '"';
        c == separator && !is_quoted
    })
}

/// Splits an element of a header with preferences, such as `Accept-Encoding`, into its value, without parameters, and
/// its weight: RFC 9110, section 12.4.2. Returns `None` if the weight is invalid.
///
/// ```
/// assert_eq!(handler::weighted("gzip;q=0.5"), Some(("gzip", 0.5)));
/// assert_eq!(handler::weighted("gzip"), Some(("gzip", 1.0)));
/// ```
#[must_use]
pub fn weighted(element: &str) -> Option<(&str, f32)> {
    let mut parts = split(element, ';').map(str::trim);
    let value = parts.next()?;
    let weight = parts.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("q").then_some(value)
    });
    match weight {
        None => Some((value, 1.0)),
        Some(weight) => {
            let weight = weight.trim().parse().ok()?;
            (0.0..=1.0).contains(&weight).then_some((value, weight))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefers_what_accept_prefers() {
        for (accept, expected) in [
            (&[][..], Some(Format::Text)),
            (&["*/*"], Some(Format::Text)),
            (&["text/*"], Some(Format::Text)),
            (&["application/json"], Some(Format::Json)),
            (&["Application/JSON; charset=utf-8"], Some(Format::Json)),
            (&["application/*"], Some(Format::Json)),
            (&["application/json, */*"], Some(Format::Text)),
            (&["application/json, */*;q=0.8"], Some(Format::Json)),
            (&["text/plain;q=0.5, application/json;q=0.9"], Some(Format::Json)),
            (&["text/plain; Q=0.5", "application/json"], Some(Format::Json)),
            (&["text/html,application/xhtml+xml,*/*;q=0.8"], Some(Format::Text)),
            (&["*/*, text/plain;q=0"], Some(Format::Json)),
            (&["*/*;q=0"], None),
            (&["image/png"], None),
            (&["text/plain;q=0, application/json;q=0.000"], None),
            (&["text/plain;q=2, application/json;q=0.1"], Some(Format::Json)),
            (&["rubbish"], Some(Format::Text)),
            (&[r#"application/json;profile="a;q=0""#], Some(Format::Json)),
            (&[r#"application/json;profile="a,text/plain;q=1";q=0, text/plain;q=0.1"#], Some(Format::Text)),
            (&[r#"application/json;a="\";q=0, text/plain";b="\\";q=0.5, text/plain;q=0.4"#], Some(Format::Json)),
            (&[r#"text/plain;q=0.1;a="x", application/json;a="q=0";q=0.2;b"#], Some(Format::Json)),
            (&[r#"application/json;a="never closed, text/plain"#], Some(Format::Json)),
            (&[""], Some(Format::Text)),
        ] {
            let mut headers = HeaderMap::new();
            for value in accept {
                headers.append(ACCEPT, HeaderValue::from_static(value));
            }
            assert_eq!(preferred(&headers), expected, "Accept: {accept:?}");
        }
    }
}
