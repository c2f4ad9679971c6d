//! The stored response: one, because there is one URL, so its bytes are bounded by the setting for a body.
//!
//! Freshness and validation are RFC 9111's, by `http-cache-semantics`; what that leaves open is here: the windows in
//! which a stale response may be used (RFC 5861), and what a caller is told (RFC 9211).
//!
//! This is a shared cache. The bearer token is the operator's and the same for every caller, so a response to it may be
//! stored like any other; one that is `private` may not. A caller's own `Cache-Control` is not heeded: callers can't make
//! the upstream work.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use handler::{
    Body, Response,
    http::{
        self, HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{AGE, CACHE_CONTROL, CONTENT_LANGUAGE, CONTENT_TYPE, ETAG, EXPIRES, IF_NONE_MATCH, LAST_MODIFIED},
    },
};
use http_cache_semantics::{AfterResponse, BeforeRequest, CacheOptions, CachePolicy};
use reqwest::Url;

use crate::attempt::Fetched;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// What of the upstream's response headers reaches a caller.
const PASSED_ON: [HeaderName; 6] = [CACHE_CONTROL, CONTENT_LANGUAGE, CONTENT_TYPE, ETAG, EXPIRES, LAST_MODIFIED];

/// The oldest that a response can say it is: RFC 9111, section 1.2.2.
const MAX_AGE: u64 = 1 << 31;

/// The last good response, if it may be stored.
#[derive(Default)]
pub(crate) struct Cache(Mutex<Option<Arc<Entry>>>);

/// A good response.
pub(crate) struct Entry {
    policy: CachePolicy,
    headers: HeaderMap,
    body: Body,
    /// From then on it is stale; for a response without a freshness lifetime that is when it came.
    stale_from: SystemTime,
}

impl Cache {
    pub(crate) fn get(&self) -> Option<Arc<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps `entry` instead of what there was, or nothing if it may not be stored.
    pub(crate) fn put(&self, entry: &Arc<Entry>) {
        let stored = entry.policy.is_storable().then(|| Arc::clone(entry));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = stored;
    }
}

impl Entry {
    /// A response to a request for `url`.
    pub(crate) fn new(url: &Url, fetched: Fetched, now: SystemTime) -> Self {
        let mut response = parts(fetched.status, fetched.headers);
        bound_age(&mut response.headers);
        let policy = CachePolicy::new_options(&request(url), &response, now, CacheOptions::default());
        Self::with_policy(policy, &response.headers, body(fetched.body), now)
    }

    fn with_policy(policy: CachePolicy, response: &HeaderMap, body: Body, now: SystemTime) -> Self {
        // Lambda's answer is JSON, which has no place for the bytes besides ASCII that a header may hold.
        let passed_on = PASSED_ON.into_iter().filter_map(|name| {
            let value = response.get(&name).filter(|value| value.to_str().is_ok())?;
            Some((name, value.clone()))
        });
        let headers = passed_on.collect();
        let stale_from = now + policy.time_to_live(now);
        Self { policy, headers, body, stale_from }
    }

    /// The headers that make a request for `url` conditional on this response's having changed.
    pub(crate) fn validators(&self, url: &Url, now: SystemTime) -> HeaderMap {
        match self.policy.before_request(&request(url), now) {
            BeforeRequest::Fresh(_) => HeaderMap::new(),
            BeforeRequest::Stale { request, .. } => request.headers,
        }
    }

    /// This response, freshened by a 304 to a request with its [`validators`](Self::validators). `None` when the 304 is
    /// about another one.
    pub(crate) fn validated(&self, url: &Url, mut headers: HeaderMap, now: SystemTime) -> Option<Self> {
        // A 304 without validators is about the one response that was asked about.
        if !headers.contains_key(ETAG) && !headers.contains_key(LAST_MODIFIED) {
            let validators = [ETAG, LAST_MODIFIED].into_iter();
            headers.extend(validators.filter_map(|name| Some((name.clone(), self.headers.get(&name)?.clone()))));
        }
        bound_age(&mut headers);
        let not_modified = parts(StatusCode::NOT_MODIFIED, headers);
        match self.policy.after_response(&request(url), &not_modified, now) {
            AfterResponse::NotModified(policy, response) => {
                Some(Self::with_policy(policy, &response.headers, self.body.clone(), now))
            }
            AfterResponse::Modified(..) => None,
        }
    }

    pub(crate) fn is_fresh(&self, now: SystemTime) -> bool {
        now < self.stale_from
    }

    /// Whether it may be used at once while a new one is fetched: as long as the upstream says.
    pub(crate) fn may_be_used_while_revalidating(&self, now: SystemTime) -> bool {
        self.window("stale-while-revalidate").is_some_and(|window| self.staleness(now) <= window)
    }

    /// Whether it may stand in for a failing upstream: as long as the operator says, and no longer than the upstream
    /// does, if it does.
    pub(crate) fn may_stand_in(&self, operators: Duration, now: SystemTime) -> bool {
        let upstreams = self.window("stale-if-error");
        let allowed = upstreams.is_some() || !self.forbids_stale();
        let window = upstreams.map_or(operators, |upstreams| upstreams.min(operators));
        allowed && !operators.is_zero() && self.staleness(now) <= window
    }

    fn staleness(&self, now: SystemTime) -> Duration {
        now.duration_since(self.stale_from).unwrap_or_default()
    }

    fn window(&self, directive: &str) -> Option<Duration> {
        let seconds = self.directive(directive)?.trim_matches('"').parse().ok()?;
        Some(Duration::from_secs(seconds))
    }

    /// RFC 9111, section 4.2.4.
    fn forbids_stale(&self) -> bool {
        ["must-revalidate", "no-cache", "proxy-revalidate", "s-maxage"]
            .iter()
            .any(|directive| self.directive(directive).is_some())
    }

    /// The value of a directive in `Cache-Control`, empty where it has none.
    fn directive(&self, name: &str) -> Option<&str> {
        let directives = self.headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
        directives.flat_map(|value| value.split(',')).find_map(|directive| {
            let (directive, value) = directive.split_once('=').unwrap_or((directive, ""));
            directive.trim().eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// The answer to a request with `headers`: this response, or 304 when the caller has it.
    pub(crate) fn answer(&self, headers: &HeaderMap, status: CacheStatus, now: SystemTime) -> Response {
        let not_modified = self.headers.get(ETAG).is_some_and(|etag| none_match_fails(headers, etag));
        let mut response = Response::default();
        if not_modified {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            *response.body_mut() = self.body.clone();
        }
        let headers = response.headers_mut();
        headers.clone_from(&self.headers);
        headers.insert(AGE, self.policy.age(now).as_secs().into());
        let lifetime = self.policy.time_to_live(now).as_secs();
        if lifetime > 0 && !headers.contains_key(CACHE_CONTROL) {
            // Said otherwise (`Expires`, or a heuristic), and now said so that the age counts.
            headers.insert(CACHE_CONTROL, max_age(self.policy.age(now).as_secs() + lifetime));
        }
        headers.insert(CACHE_STATUS, status.header(self.ttl(now)));
        response
    }

    /// How many seconds it is fresh for, negative when it has been stale for so long.
    fn ttl(&self, now: SystemTime) -> i64 {
        let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        match self.stale_from.duration_since(now) {
            Ok(left) => seconds(left),
            Err(past) => -seconds(past.duration()),
        }
    }
}

/// How an answer came about: RFC 9211.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum CacheStatus {
    /// It was stored and fresh.
    Hit,
    /// It was stored and stale, and is used for the reason that is given.
    Stale { forwarded: Option<Forwarded>, because: &'static str },
    /// It came from the upstream.
    Forwarded(Forwarded),
}

/// What was asked of the upstream, and what it said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Forwarded {
    /// Whether there was a stored response: `fwd=stale` rather than `fwd=miss`.
    pub(crate) stale: bool,
    pub(crate) status: Option<StatusCode>,
}

impl CacheStatus {
    /// For the log: `hit`, `stale` or `miss`, and `revalidated` for a stored response that proved to be good.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale { .. } => "stale",
            Self::Forwarded(Forwarded { status: Some(StatusCode::NOT_MODIFIED), .. }) => "revalidated",
            Self::Forwarded(_) => "miss",
        }
    }

    /// Whether the caller got what was stored, without waiting for the upstream to say that it may.
    pub(crate) fn is_from_cache(self) -> bool {
        matches!(self, Self::Hit | Self::Stale { .. })
    }

    fn header(self, ttl: i64) -> HeaderValue {
        let text = match self {
            Self::Hit => format!("fetch; hit; ttl={ttl}"),
            Self::Stale { forwarded: None, because } => format!("fetch; hit; ttl={ttl}; detail={because}"),
            Self::Stale { forwarded: Some(forwarded), because } => {
                format!("fetch; {forwarded}; ttl={ttl}; detail={because}")
            }
            Self::Forwarded(forwarded) => format!("fetch; {forwarded}"),
        };
        HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("fetch"))
    }
}

impl fmt::Display for Forwarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fwd={}", if self.stale { "stale" } else { "miss" })?;
        self.status.map_or(Ok(()), |status| write!(f, "; fwd-status={}", status.as_u16()))
    }
}

/// Text where that makes the answer shorter than base64 would, which also holds what is not UTF-8.
fn body(bytes: Vec<u8>) -> Body {
    let escapes: usize = bytes.iter().map(|byte| json_escape_bytes(*byte)).sum();
    if escapes > bytes.len() / 3 {
        return Body::Binary(bytes);
    }
    String::from_utf8(bytes).map_or_else(|error| Body::Binary(error.into_bytes()), Body::Text)
}

/// How many bytes `byte` takes in a JSON string, beyond its own.
fn json_escape_bytes(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 1,
        0x00..=0x1f => 5,
        _ => 0,
    }
}

/// Whether `If-None-Match` names `etag`, compared weakly (RFC 9110, section 13.1.2).
fn none_match_fails(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let opaque = |etag: &str| etag.trim().trim_start_matches("W/").to_owned();
    let etag = etag.to_str().map(opaque).unwrap_or_default();
    let values = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|value| value.trim() == "*" || opaque(value) == etag)
}

/// A larger age than there is would overflow where ages are added up.
fn bound_age(headers: &mut HeaderMap) {
    if let Some(age) = headers.get(AGE) {
        let age = age.to_str().ok().and_then(|age| age.parse::<u64>().ok());
        headers.insert(AGE, age.unwrap_or(MAX_AGE).min(MAX_AGE).into());
    }
}

fn max_age(seconds: u64) -> HeaderValue {
    HeaderValue::try_from(format!("max-age={seconds}")).unwrap_or_else(|_| HeaderValue::from_static("no-cache"))
}

/// The request as the cache sees it: always the same one.
fn request(url: &Url) -> http::request::Parts {
    let mut request = http::Request::new(()).into_parts().0;
    request.uri = url.as_str().parse().unwrap_or_default();
    request
}

fn parts(status: StatusCode, headers: HeaderMap) -> http::response::Parts {
    let mut response = http::Response::new(()).into_parts().0;
    response.status = status;
    response.headers = headers;
    response
}

#[cfg(test)]
mod tests {
    use handler::http::header::DATE;

    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;
    const HOUR: Duration = Duration::from_hours(1);

    fn url() -> Url {
        Url::parse("https://example.com/").unwrap()
    }

    fn entry(headers: &[(HeaderName, &str)]) -> Entry {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        let fetched = Fetched { status: StatusCode::OK, headers, body: b"body".to_vec() };
        Entry::new(&url(), fetched, NOW)
    }

    fn after(seconds: u64) -> SystemTime {
        NOW + Duration::from_secs(seconds)
    }

    fn stored(entry: Entry) -> bool {
        let cache = Cache::default();
        cache.put(&Arc::new(entry));
        cache.get().is_some()
    }

    #[test]
    fn stores_what_a_shared_cache_may() {
        for (cache_control, expected) in
            [("max-age=60", true), ("no-cache", true), ("no-store", false), ("private, max-age=60", false)]
        {
            assert_eq!(stored(entry(&[(CACHE_CONTROL, cache_control)])), expected, "{cache_control}");
        }
        assert!(stored(entry(&[])));
    }

    #[test]
    fn is_fresh_for_its_lifetime_less_its_age() {
        for (headers, seconds) in [
            (&[(CACHE_CONTROL, "max-age=60")][..], 60),
            (&[(CACHE_CONTROL, "max-age=60"), (AGE, "50")], 10),
            (&[(CACHE_CONTROL, "max-age=60, s-maxage=5")], 5),
            (&[(CACHE_CONTROL, "max-age=60"), (AGE, "18446744073709551615")], 0),
            (&[(CACHE_CONTROL, "no-cache, max-age=60")], 0),
            (&[(DATE, "Thu, 01 Jan 1970 00:00:00 GMT"), (EXPIRES, "Thu, 01 Jan 1970 00:00:30 GMT")], 30),
            (&[], 0),
        ] {
            let entry = entry(headers);
            assert!(seconds == 0 || entry.is_fresh(after(seconds - 1)), "{headers:?} before {seconds}");
            assert!(!entry.is_fresh(after(seconds)), "{headers:?} after {seconds}");
        }
    }

    #[test]
    fn may_be_stale_as_long_as_both_sides_say() {
        for (cache_control, operators, revalidating, stands_in) in [
            ("max-age=60", HOUR, 0, 3600),
            ("max-age=60", Duration::ZERO, 0, 0),
            ("max-age=60, stale-while-revalidate=30", HOUR, 30, 3600),
            ("max-age=60, stale-if-error=90", HOUR, 0, 90),
            ("max-age=60, stale-if-error=9000", HOUR, 0, 3600),
            ("max-age=60, must-revalidate", HOUR, 0, 0),
            ("no-cache", HOUR, 0, 0),
            ("s-maxage=60", HOUR, 0, 0),
            ("s-maxage=60, stale-if-error=90", HOUR, 0, 90),
        ] {
            let entry = entry(&[(CACHE_CONTROL, cache_control)]);
            let stale_after = |seconds| entry.stale_from + Duration::from_secs(seconds);
            for (window, may) in [
                (revalidating, &(|now| entry.may_be_used_while_revalidating(now)) as &dyn Fn(SystemTime) -> bool),
                (stands_in, &|now| entry.may_stand_in(operators, now)),
            ] {
                assert_eq!(may(stale_after(1)), window > 0, "{cache_control}");
                assert!(window == 0 || may(stale_after(window)), "{cache_control} at {window}");
                assert!(!may(stale_after(window + 1)), "{cache_control} after {window}");
            }
        }
    }

    #[test]
    fn is_validated_by_its_etag_or_date_and_freshened_by_a_304() {
        let modified = "Wed, 31 Dec 1969 00:00:00 GMT";
        for (validator, condition) in
            [((ETAG, "\"1\""), "if-none-match"), ((LAST_MODIFIED, modified), "if-modified-since")]
        {
            let entry = entry(&[(CACHE_CONTROL, "max-age=60"), validator.clone()]);
            let validators = entry.validators(&url(), after(61));
            assert_eq!(validators[condition], validator.1);
            assert_eq!(validators.len(), 1);
            let headers = HeaderMap::from_iter([(CACHE_CONTROL, "max-age=10".parse().unwrap())]);
            let fresh = entry.validated(&url(), headers, after(61)).unwrap();
            assert!(fresh.is_fresh(after(70)) && !fresh.is_fresh(after(71)));
            assert_eq!(fresh.body, entry.body);
            let other = HeaderMap::from_iter([(ETAG, "\"2\"".parse().unwrap())]);
            assert!(entry.validated(&url(), other, after(61)).is_none());
        }
    }

    #[test]
    fn answers_with_its_age_and_what_may_be_passed_on() {
        let entry = entry(&[
            (CACHE_CONTROL, "max-age=60"),
            (CONTENT_TYPE, "text/plain"),
            (http::header::SERVER, "nginx"),
            (http::header::CONNECTION, "close"),
        ]);
        let response = entry.answer(&HeaderMap::new(), CacheStatus::Hit, after(20));
        let mut headers: Vec<_> =
            response.headers().iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        headers.sort();
        assert_eq!(
            headers,
            ["age: 20", "cache-control: max-age=60", "cache-status: fetch; hit; ttl=40", "content-type: text/plain"]
        );
    }

    #[test]
    fn answers_304_to_a_caller_who_has_it() {
        let entry = entry(&[(ETAG, "W/\"1\"")]);
        for (value, status) in [("\"1\"", 304), ("\"0\", W/\"1\"", 304), ("*", 304), ("\"2\"", 200), ("", 200)] {
            let headers = HeaderMap::from_iter([(IF_NONE_MATCH, value.parse().unwrap())]);
            let response = entry.answer(&headers, CacheStatus::Hit, NOW);
            assert_eq!(response.status(), status, "{value}");
            assert_eq!(*response.body() == Body::Empty, status == 304, "{value}");
            assert_eq!(response.headers()[ETAG], "W/\"1\"");
        }
    }

    #[test]
    fn says_how_an_answer_came_about() {
        let forwarded = Forwarded { stale: true, status: Some(StatusCode::BAD_GATEWAY) };
        for (status, header) in [
            (CacheStatus::Hit, "fetch; hit; ttl=-7"),
            (
                CacheStatus::Stale { forwarded: None, because: "revalidating" },
                "fetch; hit; ttl=-7; detail=revalidating",
            ),
            (
                CacheStatus::Stale { forwarded: Some(forwarded), because: "error" },
                "fetch; fwd=stale; fwd-status=502; ttl=-7; detail=error",
            ),
            (CacheStatus::Forwarded(Forwarded { stale: false, status: None }), "fetch; fwd=miss"),
        ] {
            assert_eq!(status.header(-7), header);
        }
    }

    #[test]
    fn a_body_takes_the_shorter_form() {
        for (bytes, text) in
            [(&b"plain \"text\""[..], true), ("Zo\u{eb}".as_bytes(), true), (b"\n\n\n\n", false), (b"\xff\xfe", false)]
        {
            assert_eq!(matches!(body(bytes.to_vec()), Body::Text(_)), text, "{bytes:?}");
        }
    }
}
