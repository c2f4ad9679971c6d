//! When a response may be stored, how long it is fresh, and when it may be used after that: RFC 9111, section by
//! section, for a shared cache that stores the responses to one `GET` request.
//!
//! The crate `http-cache-semantics` (3.0) did this before. It compares directives case-sensitively, lets sums of
//! durations overflow, splits quoted strings at commas, and reads only one of the three date formats. Correcting it
//! took more code than it saved.

use std::time::{Duration, SystemTime};

use handler::http::{
    HeaderMap, StatusCode,
    header::{AGE, CACHE_CONTROL, DATE, EXPIRES, HeaderName, LAST_MODIFIED, PRAGMA, VARY},
};

use httpdate::{fmt_http_date, parse_http_date};

use crate::cache_control::{CacheControl, delta_seconds};

/// Header fields that may differ between requests to the upstream. A response that varies by one of them is good for
/// one request only (section 4.1).
const DIFFERS: [&str; 4] = ["*", "authorization", "traceparent", "x-amzn-trace-id"];

/// What a response says about storing and using it.
#[derive(Clone, Debug)]
pub struct Policy {
    control: CacheControl,
    is_storable: bool,
    lifetime: Duration,
    received: SystemTime,
    /// How old it was when it was received.
    initial_age: Duration,
}

impl Policy {
    /// The policy of a response to a request that was sent at `requested`.
    #[must_use]
    pub fn new(status: StatusCode, headers: &HeaderMap, requested: SystemTime, received: SystemTime) -> Self {
        let mut control = CacheControl::of(headers);
        // HTTP/1.0 servers mean `no-cache`, although section 5.4 defines this for requests only.
        let pragma = headers.get(PRAGMA).is_some_and(|pragma| pragma.as_bytes().eq_ignore_ascii_case(b"no-cache"));
        control.no_cache |= pragma && !headers.contains_key(CACHE_CONTROL);
        Self {
            is_storable: is_storable(status, headers, &control),
            lifetime: lifetime(status, headers, &control, received),
            initial_age: initial_age(headers, requested, received),
            control,
            received,
        }
    }

    /// Whether it may be stored: section 3.
    #[must_use]
    pub fn is_storable(&self) -> bool {
        self.is_storable
    }

    /// How long it is fresh, counted from when the upstream made it: section 4.2.1.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// How long ago the upstream made it: section 4.2.3.
    #[must_use]
    pub fn age(&self, now: SystemTime) -> Duration {
        self.initial_age.saturating_add(now.duration_since(self.received).unwrap_or_default())
    }

    /// Whether it may be used without asking the upstream: sections 4.2 and 5.2.2.4.
    #[must_use]
    pub fn is_fresh(&self, now: SystemTime) -> bool {
        !self.control.no_cache && self.age(now) < self.lifetime
    }

    /// How long it has been stale.
    #[must_use]
    pub fn staleness(&self, now: SystemTime) -> Duration {
        self.age(now).saturating_sub(self.lifetime)
    }

    /// How long it may be used, once stale, while a new one is fetched: RFC 5861, section 3.
    #[must_use]
    pub fn while_revalidating(&self) -> Option<Duration> {
        self.control.stale_while_revalidate.filter(|_| !self.must_be_validated())
    }

    /// How long it may be used, once stale, instead of an error: as long as the operator says, but no longer than the
    /// upstream says, if it says so (RFC 5861, section 4).
    #[must_use]
    pub fn if_error(&self, operators: Duration) -> Option<Duration> {
        let upstreams = self.control.stale_if_error;
        // `s-maxage` alone forbids it (section 5.2.2.10). If `stale-if-error` is also present, it allows shared caches
        // to do it.
        let allowed = !self.must_be_validated() && (self.control.s_maxage.is_none() || upstreams.is_some());
        let window = upstreams.map_or(operators, |upstreams| upstreams.min(operators));
        (allowed && !operators.is_zero()).then_some(window)
    }

    /// Section 4.2.4.
    fn must_be_validated(&self) -> bool {
        self.control.no_cache || self.control.must_revalidate || self.control.proxy_revalidate
    }
}

/// Section 3. The request had no `no-store`, and its `Authorization` (section 3.5) is the operator's, the same for all
/// callers. A response that is not a success is a failure, and is not stored.
fn is_storable(status: StatusCode, headers: &HeaderMap, control: &CacheControl) -> bool {
    let is_complete = status.is_success() && status != StatusCode::PARTIAL_CONTENT;
    // Section 5.2.2.3.
    let is_allowed = if control.must_understand { is_heuristically_cacheable(status) } else { !control.no_store };
    let has_lifetime = control.max_age.is_some() || control.s_maxage.is_some() || headers.contains_key(EXPIRES);
    let is_cacheable = control.public || has_lifetime || is_heuristically_cacheable(status);
    is_complete && is_allowed && !control.private && is_cacheable && !varies(headers)
}

/// Section 4.1.
fn varies(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(VARY).iter().map(|line| String::from_utf8_lossy(line.as_bytes()));
    lines
        .into_iter()
        .any(|line| line.split(',').any(|name| DIFFERS.contains(&name.trim().to_ascii_lowercase().as_str())))
}

/// The success statuses of RFC 9110, section 15.1, except 206. These are also the ones that `must-understand` allows
/// here.
fn is_heuristically_cacheable(status: StatusCode) -> bool {
    [StatusCode::OK, StatusCode::NON_AUTHORITATIVE_INFORMATION, StatusCode::NO_CONTENT].contains(&status)
}

/// Sections 4.2.1 and 4.2.2.
fn lifetime(status: StatusCode, headers: &HeaderMap, control: &CacheControl, received: SystemTime) -> Duration {
    if let Some(explicit) = control.s_maxage.or(control.max_age) {
        return explicit;
    }
    let made = date(headers, &DATE, received).unwrap_or(received);
    if headers.contains_key(EXPIRES) {
        // A malformed date means that the response has expired: section 5.3.
        let expires = date(headers, &EXPIRES, received);
        return expires.and_then(|expires| expires.duration_since(made).ok()).unwrap_or_default();
    }
    if !control.public && !is_heuristically_cacheable(status) {
        return Duration::ZERO;
    }
    let unchanged_for = date(headers, &LAST_MODIFIED, received).and_then(|since| made.duration_since(since).ok());
    unchanged_for.unwrap_or_default() / 10
}

/// Section 4.2.3.
fn initial_age(headers: &HeaderMap, requested: SystemTime, received: SystemTime) -> Duration {
    let apparent =
        date(headers, &DATE, received).and_then(|date| received.duration_since(date).ok()).unwrap_or_default();
    let delay = received.duration_since(requested).unwrap_or_default();
    apparent.max(age(headers).saturating_add(delay))
}

/// Section 5.1: the first value of a list counts. It is ignored if it is not a number of seconds.
fn age(headers: &HeaderMap) -> Duration {
    let first = headers.get(AGE).and_then(|age| age.to_str().ok()?.split(',').next());
    first.and_then(|age| delta_seconds(age.trim())).unwrap_or_default()
}

/// The date in a header, if there is exactly one and it is valid.
pub(crate) fn date(headers: &HeaderMap, name: &HeaderName, now: SystemTime) -> Option<SystemTime> {
    let mut dates = headers.get_all(name).iter();
    let date = dates.next().filter(|_| dates.next().is_none())?;
    http_date(date.to_str().ok()?, now)
}

/// Reads a date in any of the three forms of RFC 9110, section 5.6.7. `httpdate` reads them all, but takes a two-digit year as one from 1970 to
/// 2069, whatever the current year is.
pub(crate) fn http_date(text: &str, now: SystemTime) -> Option<SystemTime> {
    let with_century = with_century(text, now);
    parse_http_date(with_century.as_deref().unwrap_or(text)).ok()
}

/// Converts the form of RFC 850 to the preferred form. The year is at most 50 years in the future.
fn with_century(text: &str, now: SystemTime) -> Option<String> {
    let (weekday, date) = text.split_once(", ")?;
    let [day, month, year_and_time] = date.splitn(3, '-').collect::<Vec<_>>().try_into().ok()?;
    let (year, time) = year_and_time.split_once(' ')?;
    let present: u32 = fmt_http_date(now).get(12..16)?.parse().ok()?;
    let mut year = year.parse::<u32>().ok().filter(|_| year.len() == 2)? + present / 100 * 100;
    if year > present + 50 {
        year -= 100;
    }
    Some(format!("{}, {day} {month} {year} {time}", weekday.get(..3)?))
}

#[cfg(test)]
mod tests {
    use handler::http::HeaderValue;

    use super::*;

    /// Sun, 22 Nov 2026 10:41:31 GMT.
    const SECONDS: u64 = 1_795_344_091;
    const HOUR: Duration = Duration::from_hours(1);

    fn at(seconds: i64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(SECONDS.checked_add_signed(seconds).unwrap())
    }

    /// The date `seconds` from now.
    fn in_seconds(seconds: i64) -> String {
        fmt_http_date(at(seconds))
    }

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn policy(status: u16, lines: &[(&str, &str)]) -> Policy {
        Policy::new(StatusCode::from_u16(status).unwrap(), &headers(lines), at(0), at(0))
    }

    #[test]
    fn stores_what_a_shared_cache_may() {
        for (status, control, storable) in [
            (200, "", true),
            (200, "max-age=60", true),
            (200, "no-cache", true),
            (200, "no-store", false),
            (200, "No-Store, max-age=60", false),
            (200, "private, max-age=60", false),
            (200, "Private=\"x\", public", false),
            (200, "no-store, must-understand", true),
            (200, "private, must-understand", false),
            (201, "no-store, must-understand, max-age=60", false),
            (299, "must-understand, max-age=60", false),
            (201, "", false),
            (201, "max-age=60", true),
            (202, "public", true),
            (203, "", true),
            (204, "", true),
            (206, "max-age=60", false),
            (299, "s-maxage=60", true),
            (304, "max-age=60", false),
            (404, "max-age=60", false),
        ] {
            assert_eq!(policy(status, &[("cache-control", control)]).is_storable(), storable, "{status} {control}");
        }
        assert!(policy(201, &[("expires", "0")]).is_storable());
        for (vary, storable) in [
            ("accept", true),
            ("*", false),
            ("accept, *", false),
            ("Traceparent", false),
            ("x-a, Authorization", false),
        ] {
            assert_eq!(policy(200, &[("vary", vary)]).is_storable(), storable, "{vary}");
        }
    }

    #[test]
    fn is_fresh_for_its_lifetime_less_its_age() {
        let (now, past, ago, soon) = (&*in_seconds(0), &*in_seconds(-1), &*in_seconds(-100), &*in_seconds(30));
        for (status, lines, seconds) in [
            (200, &[("cache-control", "max-age=60")][..], 60),
            (200, &[("cache-control", "max-age=60"), ("age", "50")], 10),
            (200, &[("cache-control", "max-age=60, s-maxage=5")], 5),
            (200, &[("cache-control", "max-age=60"), ("cache-control", "s-maxage=5")], 5),
            (200, &[("cache-control", "s-maxage=60, max-age=0"), ("expires", past)], 60),
            (200, &[("cache-control", "max-age=9223372036854775807")], 1 << 31),
            (200, &[("cache-control", "max-age=60"), ("age", "18446744073709551616")], 0),
            (200, &[("cache-control", "no-cache, max-age=60")], 0),
            (200, &[("cache-control", "max-age=60"), ("pragma", "no-cache")], 60),
            (200, &[("pragma", "No-Cache"), ("expires", soon)], 0),
            (200, &[("cache-control", "max-age=60"), ("expires", past)], 60),
            (200, &[("cache-control", "max-age=0"), ("expires", soon)], 0),
            // Ages.
            (200, &[("cache-control", "max-age=60"), ("age", "abc")], 60),
            (200, &[("cache-control", "max-age=60"), ("age", "-1")], 60),
            (200, &[("cache-control", "max-age=60"), ("age", "7.5")], 60),
            (200, &[("cache-control", "max-age=60"), ("age", "7;a=b")], 60),
            (200, &[("cache-control", "max-age=60"), ("age", "0, old")], 60),
            (200, &[("cache-control", "max-age=60"), ("age", "0, 0")], 60),
            (200, &[("cache-control", "max-age=60"), ("age", "7, 0")], 53),
            (200, &[("cache-control", "max-age=60"), ("age", "7"), ("age", "0")], 53),
            (200, &[("cache-control", "max-age=200"), ("date", ago)], 100),
            (200, &[("cache-control", "max-age=200"), ("date", ago), ("age", "150")], 50),
            (200, &[("cache-control", "max-age=60"), ("date", soon)], 60),
            // Dates.
            (200, &[("expires", soon)], 30),
            (200, &[("expires", soon), ("date", now)], 30),
            (200, &[("expires", soon), ("date", "yesterday")], 30),
            (200, &[("expires", now), ("date", now)], 0),
            (200, &[("expires", soon), ("date", ago), ("age", "200")], 0),
            (200, &[("expires", "Sunday, 22-Nov-26 10:42:01 GMT")], 30),
            (200, &[("expires", "Sun Nov 22 10:42:01 2026")], 30),
            (200, &[("expires", "0")], 0),
            (200, &[("expires", soon), ("expires", soon)], 0),
            // Heuristics.
            (200, &[("last-modified", ago)], 10),
            (203, &[("last-modified", ago)], 10),
            (204, &[("last-modified", ago)], 10),
            (201, &[("last-modified", ago)], 0),
            (299, &[("last-modified", ago), ("cache-control", "public")], 10),
            (200, &[("last-modified", ago), ("expires", "never")], 0),
            (200, &[("last-modified", soon)], 0),
            (200, &[], 0),
        ] {
            let policy = policy(status, lines);
            assert!(seconds == 0 || policy.is_fresh(at(seconds - 1)), "{status} {lines:?} before {seconds}");
            assert!(!policy.is_fresh(at(seconds)), "{status} {lines:?} after {seconds}");
        }
    }

    #[test]
    fn the_time_in_transit_counts_as_age() {
        let headers = headers(&[("cache-control", "max-age=60"), ("age", "10")]);
        let policy = Policy::new(StatusCode::OK, &headers, at(-5), at(0));
        assert_eq!(policy.age(at(7)), Duration::from_secs(10 + 5 + 7));
        // A clock that was set back does not make a response younger.
        assert_eq!(policy.age(at(-100)), Duration::from_secs(15));
    }

    #[test]
    fn may_be_used_stale_as_long_as_both_sides_allow() {
        for (control, operators, revalidating, stands_in) in [
            ("max-age=60", HOUR, None, Some(3600)),
            ("max-age=60", Duration::ZERO, None, None),
            ("max-age=60, stale-while-revalidate=30", HOUR, Some(30), Some(3600)),
            ("max-age=60, stale-if-error=90", HOUR, None, Some(90)),
            ("max-age=60, Stale-If-Error=9000", HOUR, None, Some(3600)),
            ("max-age=60, must-revalidate", HOUR, None, None),
            ("max-age=60, must-revalidate, stale-if-error=90, stale-while-revalidate=9", HOUR, None, None),
            ("max-age=60, proxy-revalidate, stale-if-error=90, stale-while-revalidate=9", HOUR, None, None),
            ("no-cache", HOUR, None, None),
            ("no-cache, stale-if-error=90, stale-while-revalidate=9", HOUR, None, None),
            ("s-maxage=60", HOUR, None, None),
            ("s-maxage=60, stale-if-error=90", HOUR, None, Some(90)),
            ("s-maxage=60, stale-while-revalidate=9", HOUR, Some(9), None),
        ] {
            let policy = policy(200, &[("cache-control", control)]);
            assert_eq!(policy.while_revalidating(), revalidating.map(Duration::from_secs), "{control}");
            assert_eq!(policy.if_error(operators), stands_in.map(Duration::from_secs), "{control}");
        }
        let policy = policy(200, &[("cache-control", "max-age=60"), ("age", "10")]);
        assert_eq!(policy.staleness(at(40)), Duration::ZERO);
        assert_eq!(policy.staleness(at(57)), Duration::from_secs(7));
    }

    #[test]
    fn a_date_is_read_in_all_its_forms() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_344_091);
        for (text, expected) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some("Sun, 06 Nov 1994 08:49:37 GMT")),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some("Sun, 06 Nov 1994 08:49:37 GMT")),
            ("Sun Nov  6 08:49:37 1994", Some("Sun, 06 Nov 1994 08:49:37 GMT")),
            ("Thursday, 18-Aug-50 02:01:18 GMT", Some("Thu, 18 Aug 2050 02:01:18 GMT")),
            ("Wednesday, 01-Jan-76 00:00:00 GMT", Some("Wed, 01 Jan 2076 00:00:00 GMT")),
            ("Saturday, 01-Jan-77 00:00:00 GMT", Some("Sat, 01 Jan 1977 00:00:00 GMT")),
            ("Thu, 18 Aug 50 02:01:18 GMT", None),
            ("Thu, 18-Aug-2050 02:01:18 GMT", None),
            ("Thu, 18 Aug 2050 02:01:18 AEST", None),
            ("0", None),
            ("", None),
            (", - -", None),
            ("\u{e9}\u{e9}, 1-2-33 4", None),
        ] {
            assert_eq!(http_date(text, now).map(fmt_http_date).as_deref(), expected, "{text}");
        }
    }
}
