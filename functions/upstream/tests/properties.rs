//! Properties that must hold for anything that an upstream sends or the operator sets. `cargo test` checks them with random input,
//! which `PROPERTY_SEED=` repeats, and `make fuzz` with a coverage-guided fuzzer.

#![expect(clippy::expect_used, reason = "a property that does not hold panics")]

use std::{
    collections::BTreeSet,
    fmt::Write,
    sync::{Arc, LazyLock},
    time::{Duration, SystemTime},
};

use arbitrary::{Result, Unstructured};
use handler::{
    Context, Endpoint, Request,
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{AGE, CACHE_CONTROL},
    },
};
use testbed::{
    HttpAnswer, Invocation,
    property::{Property, text},
    upstream::{Answer, Upstream},
};
use tokio::runtime::{Builder, Runtime};
use upstream::{Upstream as Called, cache_control::CacheControl, freshness::Policy};

/// The properties, by name.
pub(crate) const PROPERTIES: [(&str, Property); 4] = [
    ("directives_are_read_as_they_are_written", directives_are_read_as_they_are_written),
    ("headers_take_any_text", headers_take_any_text),
    ("settings_take_any_text", settings_take_any_text),
    ("a_stored_response_is_used_where_that_is_allowed", a_stored_response_is_used_where_that_is_allowed),
];

static TOKIO: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_all().build().expect("a runtime"));

/// A directive of `Cache-Control`, and its number of seconds, if it takes one.
type Directive = (&'static str, Option<u32>);

fn directives(u: &mut Unstructured<'_>) -> Result<Vec<Directive>> {
    const FLAGS: [&str; 7] =
        ["must-revalidate", "must-understand", "no-cache", "no-store", "private", "proxy-revalidate", "public"];
    const TIMES: [&str; 4] = ["max-age", "s-maxage", "stale-if-error", "stale-while-revalidate"];
    let mut all: Vec<Directive> = Vec::new();
    for _ in 0..u.int_in_range(0..=4)? {
        let directive = if u.ratio(1, 3)? {
            (*u.choose(&FLAGS)?, None)
        } else {
            (*u.choose(&TIMES)?, Some(*u.choose(&[0, 0, 3, 60, u32::MAX])?))
        };
        if all.iter().all(|(name, _)| *name != directive.0) {
            all.push(directive);
        }
    }
    Ok(all)
}

/// Header lines with these directives: in upper or lower case, quoted or not, among unknown directives.
fn written(u: &mut Unstructured<'_>, directives: &[Directive]) -> Result<Vec<String>> {
    let mut lines = vec![String::new()];
    for (name, seconds) in directives {
        if u.ratio(1, 4)? {
            lines.push(String::new());
        }
        let mut name = (*name).to_owned();
        if u.ratio(1, 2)? {
            name =
                name.chars().map(|c| if u.arbitrary().unwrap_or(false) { c.to_ascii_uppercase() } else { c }).collect();
        }
        let directive = match seconds {
            Some(seconds) if u.ratio(1, 4)? => format!("{name}=\"{seconds}\""),
            Some(seconds) => format!("{name}={seconds}"),
            None if u.ratio(1, 8)? => format!("{name}=\"a, max-age=7\""),
            None => name,
        };
        let noise = u.choose(&[
            "",
            ",",
            " , x=\"no-store, private\"",
            ", y=\"\\\", max-age=9\"",
            ", immutable",
            ", no-cached",
        ])?;
        let line = lines.last_mut().expect("one at least");
        let separator = if line.is_empty() { "" } else { u.choose(&[",", ", ", " ,\t"])? };
        write!(line, "{separator}{directive}{noise}").expect("a string takes it");
    }
    Ok(lines)
}

fn directives_are_read_as_they_are_written(u: &mut Unstructured<'_>) -> Result<()> {
    let directives = directives(u)?;
    let mut headers = HeaderMap::new();
    for line in written(u, &directives)? {
        headers.append(CACHE_CONTROL, HeaderValue::from_str(&line).expect("visible characters"));
    }
    let seconds = |name| {
        let (_, seconds) = directives.iter().find(|(directive, _)| *directive == name)?;
        Some(Duration::from_secs(u64::from((*seconds)?).min(1 << 31)))
    };
    let is_there = |name| directives.iter().any(|(directive, _)| *directive == name);
    let expected = CacheControl {
        max_age: seconds("max-age"),
        s_maxage: seconds("s-maxage"),
        stale_while_revalidate: seconds("stale-while-revalidate"),
        stale_if_error: seconds("stale-if-error"),
        must_revalidate: is_there("must-revalidate"),
        must_understand: is_there("must-understand"),
        no_cache: is_there("no-cache"),
        no_store: is_there("no-store"),
        private: is_there("private"),
        proxy_revalidate: is_there("proxy-revalidate"),
        public: is_there("public"),
    };
    assert_eq!(CacheControl::of(&headers), expected, "{headers:?}");
    Ok(())
}

fn headers_take_any_text(u: &mut Unstructured<'_>) -> Result<()> {
    const NAMES: [&str; 8] =
        ["age", "cache-control", "date", "expires", "last-modified", "pragma", "vary", "retry-after"];
    let mut headers = HeaderMap::new();
    for _ in 0..u.int_in_range(0..=6)? {
        let value = if u.ratio(1, 2)? { text(u)?.into_bytes() } else { plausible(u)?.into_bytes() };
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            headers.append(HeaderName::from_static(u.choose(&NAMES)?), value);
        }
    }
    let at = |u: &mut Unstructured<'_>| {
        Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(u.int_in_range(0..=4_102_444_800_u64)?))
    };
    let (requested, received, now) = (at(u)?, at(u)?, at(u)?);
    let status = StatusCode::from_u16(u.int_in_range(200..=299)?).expect("a status");
    let policy = Policy::new(status, &headers, requested, received);
    let later = now + Duration::from_secs(1);
    assert!(policy.age(later) >= policy.age(now), "grows younger: {headers:?}");
    assert!(!policy.is_fresh(now) || policy.age(now) < policy.lifetime(), "fresh past its lifetime: {headers:?}");
    assert!(policy.is_fresh(now) || !policy.is_fresh(later), "fresh again: {headers:?}");
    Ok(())
}

/// Text that is almost valid in one of the headers.
fn plausible(u: &mut Unstructured<'_>) -> Result<String> {
    const PARTS: [&str; 24] = [
        "max-age",
        "=",
        "0",
        "60",
        "-1",
        "9223372036854775807",
        "\"",
        "\\",
        ",",
        " ",
        ";",
        "*",
        "private",
        "Sun, ",
        "Sunday, ",
        "06-Nov-94",
        "06 Nov 1994",
        " 08:49:37",
        " GMT",
        "Nov  6",
        "-",
        "é",
        "no-cache",
        "99",
    ];
    (0..u.int_in_range(0..=8)?).map(|_| u.choose(&PARTS).copied()).collect()
}

fn settings_take_any_text(u: &mut Unstructured<'_>) -> Result<()> {
    let url = if u.ratio(1, 2)? { "http://127.0.0.1:9/".to_owned() } else { text(u)? };
    let mut values = Vec::new();
    for name in [
        "UPSTREAM_TIMEOUT_MS",
        "UPSTREAM_ATTEMPT_TIMEOUT_MS",
        "UPSTREAM_MAX_ATTEMPTS",
        "UPSTREAM_HEDGE_AFTER_MS",
        "UPSTREAM_SLOW_CALL_MS",
        "UPSTREAM_MAX_BODY_BYTES",
        "STALE_IF_ERROR_SECONDS",
        "UPSTREAM_SECRET_ID",
        "UPSTREAM_CA_FILE",
    ] {
        values.push((name, if u.ratio(1, 2)? { text(u)? } else { plausible(u)? }));
    }
    // This makes no call: the first request does that.
    let _upstream = Called::new("UPSTREAM").with_settings(|name| {
        let other = values.iter().find(|(other, _)| *other == name).map(|(_, value)| value.clone());
        if name == "UPSTREAM_URL" { Some(url.clone()) } else { other }
    });
    Ok(())
}

/// An answer that the upstream sent. Its body is its number.
struct Sent {
    directives: Vec<Directive>,
    age: u32,
    status: u16,
}

impl Sent {
    fn has(&self, name: &str) -> bool {
        self.directives.iter().any(|(directive, _)| *directive == name)
    }

    fn seconds(&self, name: &str) -> Option<u32> {
        self.directives.iter().find(|(directive, _)| *directive == name)?.1
    }

    /// RFC 9111, section 3.
    fn may_be_stored(&self) -> bool {
        let understood = [200, 203, 204].contains(&self.status);
        let allowed = if self.has("must-understand") { understood } else { !self.has("no-store") };
        let marked = self.has("public") || self.has("max-age") || self.has("s-maxage");
        allowed && !self.has("private") && (understood || marked)
    }

    /// RFC 9111, section 4.2.
    fn is_fresh(&self) -> bool {
        let lifetime = self.seconds("s-maxage").or(self.seconds("max-age")).unwrap_or(0);
        !self.has("no-cache") && self.age < lifetime
    }

    /// RFC 9111, section 4.2.4, and RFC 5861: a time that is allowed is longer than the test takes.
    fn may_be_stale(&self, instead_of_an_error: bool) -> bool {
        let forbidden = ["no-cache", "must-revalidate", "proxy-revalidate"].iter().any(|name| self.has(name));
        let window = self.seconds(if instead_of_an_error { "stale-if-error" } else { "stale-while-revalidate" });
        let by_default = instead_of_an_error && !self.has("s-maxage");
        !forbidden && window.map_or(by_default, |_| true)
    }
}

/// Sends requests to `fetch`, whose upstream sends various answers and sometimes fails. If `fetch` uses an earlier
/// answer, it must be allowed to.
fn a_stored_response_is_used_where_that_is_allowed(u: &mut Unstructured<'_>) -> Result<()> {
    let mut steps = Vec::new();
    for number in 0..u.int_in_range(2..=5)? {
        let directives = directives(u)?;
        let age = *u.choose(&[0, 0, 2, 60, 100])?;
        let status = if u.ratio(1, 4)? { *u.choose(&[201, 203, 299, 404, 500, 503])? } else { 200 };
        let mut answer = Answer::status(status).body(number.to_string());
        for line in written(u, &directives)?.iter().filter(|line| !line.is_empty()) {
            answer = answer.header(CACHE_CONTROL.as_str(), line.clone());
        }
        if age > 0 {
            answer = answer.header(AGE.as_str(), age.to_string());
        }
        if u.ratio(1, 2)? {
            answer = answer.etag(&format!("\"{number}\""));
        }
        if status == 503 {
            let values = ["0", "60", "18446744073709551615", "-1", "soon", "Sun, 06 Nov 9999 08:49:37 GMT"];
            answer = answer.header("retry-after", *u.choose(&values)?);
        }
        steps.push((answer, Sent { directives, age, status }));
    }
    TOKIO.block_on(async {
        let upstream = Upstream::start();
        let url = upstream.url("/");
        let called = Called::new("UPSTREAM").with_settings(|name| match name {
            "UPSTREAM_URL" => Some(url.clone()),
            // One call is one attempt.
            "UPSTREAM_MAX_ATTEMPTS" => Some("1".into()),
            _ => None,
        });
        let called = Arc::new(called);
        let endpoint = move |request: Request| {
            let called = Arc::clone(&called);
            async move { Ok(called.get("", []).send().await?.pass_on(&request)) }
        };
        for (number, (answer, _)) in steps.iter().enumerate() {
            upstream.always(answer.clone());
            let before = upstream.calls();
            let answer = invoke(endpoint.clone()).await;
            let asked = upstream.calls() > before;
            let told = answer.header("cache-status").to_owned();
            assert_ne!(answer.problem(), "internal", "{answer:?}");
            let Ok(used) = answer.body.parse::<usize>() else { continue };
            let sent = &steps[used].1;
            if used == number || told.contains("fwd-status=304") {
                continue;
            }
            let allowed = match (told.contains("detail=stale-while-revalidate"), told.contains("detail=")) {
                (true, _) => sent.may_be_stale(false),
                (_, true) => sent.may_be_stale(true) && (asked || told.contains("circuit-breaker-open")),
                _ => sent.is_fresh() && !asked,
            };
            let names: BTreeSet<_> = sent.directives.iter().collect();
            assert!(allowed && sent.may_be_stored(), "{told} of {} {names:?} with age {}", sent.status, sent.age);
        }
    });
    Ok(())
}

async fn invoke(endpoint: impl Endpoint) -> HttpAnswer {
    let mut context = Context::default();
    context.request_id = "6b2a".into();
    let event = Invocation::get("/fetch", &[]).payload;
    let answer = handler::invoke(endpoint, &event, context).await.expect("an answer");
    HttpAnswer::read(&answer, false).expect("an HTTP answer")
}

#[cfg(test)]
mod tests {
    use testbed::property::check;

    use super::PROPERTIES;

    #[test]
    fn directives_are_read_as_they_are_written() {
        check(&PROPERTIES, "directives_are_read_as_they_are_written", 20_000);
    }

    #[test]
    fn headers_take_any_text() {
        check(&PROPERTIES, "headers_take_any_text", 20_000);
    }

    #[test]
    fn settings_take_any_text() {
        check(&PROPERTIES, "settings_take_any_text", 5_000);
    }

    #[test]
    fn a_stored_response_is_used_where_that_is_allowed() {
        check(&PROPERTIES, "a_stored_response_is_used_where_that_is_allowed", 1_000);
    }
}
