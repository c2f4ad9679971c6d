//! `Cache-Control` in a response: RFC 9111, section 5.2.2, and the two directives of RFC 5861.

use std::time::Duration;

use handler::http::{HeaderMap, header::CACHE_CONTROL};

/// The directives that mean something to a shared cache; all others are ignored (section 5.2.3).
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a directive")]
pub struct CacheControl {
    /// Section 5.2.2.1.
    pub max_age: Option<Duration>,
    /// Section 5.2.2.10.
    pub s_maxage: Option<Duration>,
    /// RFC 5861, section 3.
    pub stale_while_revalidate: Option<Duration>,
    /// RFC 5861, section 4.
    pub stale_if_error: Option<Duration>,
    /// Section 5.2.2.2.
    pub must_revalidate: bool,
    /// Section 5.2.2.3.
    pub must_understand: bool,
    /// Section 5.2.2.4. With field names it is treated as without them, which is stricter.
    pub no_cache: bool,
    /// Section 5.2.2.5.
    pub no_store: bool,
    /// Section 5.2.2.7. With field names it is treated as without them, which is stricter.
    pub private: bool,
    /// Section 5.2.2.8.
    pub proxy_revalidate: bool,
    /// Section 5.2.2.9.
    pub public: bool,
}

impl CacheControl {
    /// Reads all `Cache-Control` lines as one. A value that is not UTF-8 is read as far as possible.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let mut all = Self::default();
        for line in headers.get_all(CACHE_CONTROL) {
            let line = String::from_utf8_lossy(line.as_bytes());
            for (name, value) in directives(&line) {
                all.add(&name.to_ascii_lowercase(), value.as_deref());
            }
        }
        all
    }

    fn add(&mut self, name: &str, value: Option<&str>) {
        match name {
            "max-age" => set(&mut self.max_age, value),
            "s-maxage" => set(&mut self.s_maxage, value),
            "stale-while-revalidate" => set(&mut self.stale_while_revalidate, value),
            "stale-if-error" => set(&mut self.stale_if_error, value),
            "must-revalidate" => self.must_revalidate = true,
            "must-understand" => self.must_understand = true,
            "no-cache" => self.no_cache = true,
            "no-store" => self.no_store = true,
            "private" => self.private = true,
            "proxy-revalidate" => self.proxy_revalidate = true,
            "public" => self.public = true,
            _ => {}
        }
    }
}

/// Sets a number of seconds. An invalid number, or two different ones, count as 0, so that the response is stale
/// (section 4.2.1).
fn set(seconds: &mut Option<Duration>, value: Option<&str>) {
    let value = value.and_then(delta_seconds).unwrap_or_default();
    *seconds = Some(if seconds.is_some_and(|earlier| earlier != value) { Duration::ZERO } else { value });
}

/// A non-negative whole number of seconds. One that is too large counts as 2^31: section 1.2.2.
pub(crate) fn delta_seconds(text: &str) -> Option<Duration> {
    const MOST: u64 = 1 << 31;
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| Duration::from_secs(text.parse().unwrap_or(MOST).min(MOST)))
}

/// The directives of a line, each with its value, if it has one. A value is a token or a quoted string.
fn directives(line: &str) -> impl Iterator<Item = (&str, Option<String>)> {
    let mut rest = line;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest.find([',', '=']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let value = after.strip_prefix('=').map(|value| {
            let (value, after) = value.strip_prefix('"').map_or_else(|| token(value), quoted_string);
            rest = after;
            value
        });
        if value.is_none() {
            rest = after;
        }
        // Skips to the next directive, past anything that wrongly follows a quoted string.
        rest = rest.split_once(',').map_or("", |(_, next)| next);
        Some((name.trim(), value))
    })
}

fn token(text: &str) -> (String, &str) {
    let (value, rest) = text.split_at(text.find(',').unwrap_or(text.len()));
    (value.trim().to_owned(), rest)
}

/// The text before the closing quotation mark, and the text after it: RFC 9110, section 5.6.4.
fn quoted_string(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            char => value.push(char),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[&str]) -> CacheControl {
        CacheControl::of(&lines.iter().map(|line| (CACHE_CONTROL, line.parse().unwrap())).collect())
    }

    fn max_age(lines: &[&str]) -> Option<u64> {
        of(lines).max_age.map(|seconds| seconds.as_secs())
    }

    #[test]
    fn directives_are_case_insensitive_and_may_be_in_several_lines() {
        let all = of(&["MaX-AgE=60, No-StOrE", "PRIVATE , s-maxage=1", "", ",,must-Revalidate,x"]);
        let expected = CacheControl {
            max_age: Some(Duration::from_mins(1)),
            s_maxage: Some(Duration::from_secs(1)),
            no_store: true,
            private: true,
            must_revalidate: true,
            ..CacheControl::default()
        };
        assert_eq!(all, expected);
    }

    #[test]
    fn a_value_may_be_quoted_and_quoted_text_is_not_a_directive() {
        for (line, seconds) in [
            (r#"max-age="60""#, Some(60)),
            (r#"extension="max-age=3600", max-age=1"#, Some(1)),
            (r#"max-age=1, extension="max-age=3600""#, Some(1)),
            (r#"extension="\", max-age=3600", max-age=1"#, Some(1)),
            (r#"extension="max-age=3600, max-age=3600"#, None),
            (r#"no-cache="a, max-age=9", max-age=5"#, Some(5)),
            (r#"extension="x"y, max-age=5"#, Some(5)),
        ] {
            assert_eq!(max_age(&[line]), seconds, "{line}");
        }
        assert!(of(&[r#"private="set-cookie""#]).private && of(&[r#"No-Cache="a, b""#]).no_cache);
    }

    #[test]
    fn seconds_are_capped_and_an_invalid_number_is_0() {
        for (line, seconds) in [
            ("max-age=003600", 3600),
            ("max-age=2147483648", 1 << 31),
            ("max-age=9223372036854775807", 1 << 31),
            ("max-age=99999999999999999999999", 1 << 31),
            ("max-age=-1", 0),
            ("max-age=+1", 0),
            ("max-age=3600.0", 0),
            ("max-age='3600'", 0),
            ("max-age=100a", 0),
            ("max-age=", 0),
            ("max-age", 0),
            ("max-age=60, max-age=60", 60),
            ("max-age=60, max-age=0", 0),
            ("max-age=1, max-age=60", 0),
        ] {
            assert_eq!(max_age(&[line]), Some(seconds), "{line}");
        }
    }
}
