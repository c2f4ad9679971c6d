//! A good response, which may be stored. [`freshness`](crate::freshness) decides how it may be used. This module
//! validates it, and makes answers from it.

use std::time::{Duration, SystemTime};

use handler::{
    Body, Response,
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{
            AGE, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_TYPE, DATE,
            ETAG, EXPIRES, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, PRAGMA, PROXY_AUTHENTICATE, TE, TRAILER,
            TRANSFER_ENCODING, UPGRADE, VARY,
        },
    },
    lists_etag,
};

use crate::{
    attempt::Fetched,
    freshness::{Policy, date},
};

/// The upstream's response headers that callers get.
const PASSED_ON: [HeaderName; 6] = [CACHE_CONTROL, CONTENT_LANGUAGE, CONTENT_TYPE, ETAG, EXPIRES, LAST_MODIFIED];

/// Further headers that decide whether the response may be used.
const DECIDE: [HeaderName; 4] = [AGE, DATE, PRAGMA, VARY];

/// Headers that are kept in one line. For a list, all lines are joined. For a date too, because a second line makes it
/// invalid. For others, the first line counts.
const LISTS: [HeaderName; 4] = [CACHE_CONTROL, CONTENT_LANGUAGE, PRAGMA, VARY];
const DATES: [HeaderName; 3] = [DATE, EXPIRES, LAST_MODIFIED];
const FIRSTS: [HeaderName; 3] = [AGE, CONTENT_TYPE, ETAG];

/// Headers that are about the connection or the form in which the body was sent (RFC 9110, sections 7.6.1 and 8). They are
/// not kept: RFC 9111, section 3.1.
const DROPPED: [HeaderName; 8] =
    [CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, PROXY_AUTHENTICATE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
const ALSO_DROPPED: [&str; 3] = ["keep-alive", "proxy-authentication-info", "proxy-connection"];

/// Headers that describe the stored body, which a 304 does not change: RFC 9111, section 3.2.
const OF_THE_BODY: [&str; 3] = ["content-digest", "content-md5", "content-range"];

/// What a header takes in memory beside its text.
const HEADER_BYTES: usize = 64;

/// A good response.
pub(crate) struct Entry {
    status: StatusCode,
    headers: HeaderMap,
    body: Body,
    policy: Policy,
    requested: SystemTime,
    received: SystemTime,
}

impl Entry {
    /// The response that was received at `now`.
    pub(crate) fn new(fetched: Fetched, now: SystemTime) -> Self {
        let Fetched { status, headers, body: bytes, requested } = fetched;
        Self::with(status, kept(&headers), body(bytes), requested, now)
    }

    fn with(status: StatusCode, headers: HeaderMap, body: Body, requested: SystemTime, received: SystemTime) -> Self {
        let policy = Policy::new(status, &headers, requested, received);
        Self { status, headers, body, policy, requested, received }
    }

    /// The response that another environment received.
    pub(crate) fn restored(
        status: StatusCode,
        headers: &HeaderMap,
        bytes: Vec<u8>,
        requested: SystemTime,
        received: SystemTime,
    ) -> Self {
        Self::with(status, kept(headers), body(bytes), requested, received)
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The headers that other environments need: those that are passed on, and those that decide about that. Others may be
    /// internal, and the table is read by more people than the response.
    pub(crate) fn needed_headers(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.headers.iter().filter(|(name, _)| PASSED_ON.contains(name) || DECIDE.contains(name))
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    /// What it takes in memory, roughly.
    pub(crate) fn bytes(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER_BYTES);
        self.body.len() + headers.sum::<usize>()
    }

    pub(crate) fn requested(&self) -> SystemTime {
        self.requested
    }

    pub(crate) fn received(&self) -> SystemTime {
        self.received
    }

    pub(crate) fn may_be_stored(&self) -> bool {
        self.policy.is_storable()
    }

    /// The headers that ask the upstream whether this response has changed: RFC 9111, section 4.3.1.
    pub(crate) fn validators(&self) -> HeaderMap {
        let conditions = [(ETAG, IF_NONE_MATCH), (LAST_MODIFIED, IF_MODIFIED_SINCE)].into_iter();
        conditions.filter_map(|(name, condition)| Some((condition, self.headers.get(name)?.clone()))).collect()
    }

    /// This response, freshened by a 304 to a request with its [`validators`](Self::validators): RFC 9111, section
    /// 4.3.4. `None` if the 304 is about another response.
    pub(crate) fn validated(&self, not_modified: &Fetched, now: SystemTime) -> Option<Self> {
        let new = &not_modified.headers;
        let is_about_this = match (new.get(ETAG), new.get(LAST_MODIFIED)) {
            (Some(etag), _) if etag.as_bytes().starts_with(b"W/") => {
                self.headers.get(ETAG).is_some_and(|stored| lists_etag(stored.as_bytes(), etag.as_bytes()))
            }
            (Some(etag), _) => self.headers.get(ETAG) == Some(etag),
            (None, Some(modified)) => self.headers.get(LAST_MODIFIED) == Some(modified),
            // Some servers leave them out. The request was about this response only.
            (None, None) => true,
        };
        let mut headers = self.headers.clone();
        // These describe the message, not the stored content, so the old values do not apply to the 304.
        headers.remove(AGE);
        headers.remove(DATE);
        let mut new = kept(new);
        for name in OF_THE_BODY {
            new.remove(name);
        }
        headers.extend(new);
        is_about_this.then(|| Self::with(self.status, headers, self.body.clone(), not_modified.requested, now))
    }

    /// How long ago the upstream made it.
    pub(crate) fn age(&self, now: SystemTime) -> Duration {
        self.policy.age(now)
    }

    pub(crate) fn is_fresh(&self, now: SystemTime) -> bool {
        self.policy.is_fresh(now)
    }

    /// Whether it is stale, or in the last `part` of its lifetime, from 0 to 1.
    pub(crate) fn is_stale_within(&self, part: f64, now: SystemTime) -> bool {
        !self.is_fresh(now) || self.age(now) >= self.policy.lifetime().mul_f64(1.0 - part)
    }

    /// How long it may be used, fresh or stale, counted from when it was received.
    pub(crate) fn of_use_for(&self, operators: Duration) -> Duration {
        let stale = self.policy.if_error(operators).max(self.policy.while_revalidating()).unwrap_or_default();
        self.policy.lifetime().saturating_add(stale)
    }

    /// Whether it may be used while a new one is fetched. The upstream says for how long.
    pub(crate) fn may_be_used_while_revalidating(&self, now: SystemTime) -> bool {
        self.policy.while_revalidating().is_some_and(|window| self.policy.staleness(now) <= window)
    }

    /// Whether it may be used instead of an error. The `operators` setting limits for how long.
    pub(crate) fn may_be_used_if_error(&self, operators: Duration, now: SystemTime) -> bool {
        self.policy.if_error(operators).is_some_and(|window| self.policy.staleness(now) <= window)
    }

    /// The answer to a request with `headers`: this response, or 304 if the caller already has it.
    pub(crate) fn answer(&self, headers: &HeaderMap, now: SystemTime) -> Response {
        let mut response = Response::default();
        if self.is_what_the_caller_has(headers) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            *response.status_mut() = self.status;
            *response.body_mut() = self.body.clone();
        }
        let headers = response.headers_mut();
        // Lambda's answer is JSON, which cannot hold a header's bytes if they are not UTF-8.
        headers.extend(PASSED_ON.into_iter().filter_map(|name| {
            let value = self.headers.get(&name).filter(|value| value.to_str().is_ok())?;
            Some((name, value.clone()))
        }));
        headers.insert(AGE, self.age(now).as_secs().into());
        if self.policy.is_fresh(now) && !headers.contains_key(CACHE_CONTROL) {
            // The lifetime comes from `Expires` or a heuristic. As `max-age`, it counts together with `Age`.
            headers.insert(CACHE_CONTROL, max_age(self.policy.lifetime()));
        }
        response
    }

    /// Checks the caller's conditions (RFC 9110, section 13.2.2). These two apply to `GET`.
    fn is_what_the_caller_has(&self, headers: &HeaderMap) -> bool {
        match headers.get(IF_NONE_MATCH) {
            Some(etags) => self.headers.get(ETAG).is_some_and(|etag| lists_etag(etags.as_bytes(), etag.as_bytes())),
            None => date(headers, &IF_MODIFIED_SINCE, self.received).is_some_and(|since| {
                let modified = [LAST_MODIFIED, DATE].iter().find_map(|name| date(&self.headers, name, self.received));
                modified.unwrap_or(self.received) <= since
            }),
        }
    }

    /// For how many seconds it stays fresh. A negative number says for how many seconds it has been stale.
    pub(crate) fn ttl(&self, now: SystemTime) -> i64 {
        let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        seconds(self.policy.lifetime()) - seconds(self.age(now))
    }
}

/// A value from the connection is a part of the buffer that was read, 8 kB, and keeps all of it.
fn copied(value: &HeaderValue) -> HeaderValue {
    HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone())
}

/// The headers that are kept.
fn kept(headers: &HeaderMap) -> HeaderMap {
    let listed = headers.get_all(CONNECTION).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let listed: Vec<_> = listed.map(|name| name.trim_ascii().to_ascii_lowercase()).collect();
    let mut kept = HeaderMap::with_capacity(headers.keys_len());
    for name in headers.keys() {
        let is_listed = listed.iter().any(|listed| *listed == name.as_str().as_bytes());
        if DROPPED.contains(name) || ALSO_DROPPED.contains(&name.as_str()) || is_listed {
            continue;
        }
        let mut lines = headers.get_all(name).iter();
        let is_joined = LISTS.contains(name) || DATES.contains(name);
        if !is_joined && !FIRSTS.contains(name) {
            for line in lines {
                kept.append(name, copied(line));
            }
        } else if let Some(first) = lines.next() {
            let joined = lines.filter(|_| is_joined).fold(copied(first), |joined, line| {
                HeaderValue::try_from([joined.as_bytes(), line.as_bytes()].join(&b", "[..])).unwrap_or(joined)
            });
            kept.insert(name, joined);
        }
    }
    kept
}

/// Text, if that makes the answer shorter than base64. A body that is not UTF-8 is sent in base64.
fn body(mut bytes: Vec<u8>) -> Body {
    // It grew while it was read, by up to as much again.
    bytes.shrink_to_fit();
    let escapes: usize = bytes.iter().map(|byte| json_escape_bytes(*byte)).sum();
    if escapes > bytes.len() / 3 {
        return Body::Binary(bytes);
    }
    String::from_utf8(bytes).map_or_else(|error| Body::Binary(error.into_bytes()), Body::Text)
}

/// How many additional bytes `byte` takes in a JSON string.
fn json_escape_bytes(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 1,
        0x00..=0x1f => 5,
        _ => 0,
    }
}

fn max_age(lifetime: Duration) -> HeaderValue {
    HeaderValue::try_from(format!("max-age={}", lifetime.as_secs()))
        .unwrap_or_else(|_| HeaderValue::from_static("no-cache"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;
    const MODIFIED: &str = "Thu, 01 Jan 1970 00:00:00 GMT";

    fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn fetched(lines: &[(HeaderName, &str)]) -> Fetched {
        Fetched { status: StatusCode::OK, headers: headers(lines), body: b"body".to_vec(), requested: NOW }
    }

    fn entry(lines: &[(HeaderName, &str)]) -> Entry {
        Entry::new(fetched(lines), NOW)
    }

    fn after(seconds: u64) -> SystemTime {
        NOW + Duration::from_secs(seconds)
    }

    #[test]
    fn validates_with_the_validators_that_it_has() {
        for (lines, conditions) in [
            (&[(ETAG, "\"1\"")][..], &[(IF_NONE_MATCH, "\"1\"")][..]),
            (&[(LAST_MODIFIED, MODIFIED)], &[(IF_MODIFIED_SINCE, MODIFIED)]),
            (
                &[(ETAG, "W/\"1\""), (LAST_MODIFIED, MODIFIED)],
                &[(IF_NONE_MATCH, "W/\"1\""), (IF_MODIFIED_SINCE, MODIFIED)],
            ),
            (&[], &[]),
        ] {
            assert_eq!(entry(lines).validators(), headers(conditions));
        }
    }

    #[test]
    fn a_304_freshens_the_response_that_it_is_about() {
        let strong = &[(ETAG, "\"1\""), (LAST_MODIFIED, MODIFIED)][..];
        let weak = &[(ETAG, "W/\"1\"")][..];
        for (stored, not_modified, is_about_it) in [
            (strong, &[][..], true),
            (strong, &[(ETAG, "\"1\"")][..], true),
            (strong, &[(ETAG, "\"2\"")], false),
            (strong, &[(ETAG, "W/\"1\"")], true),
            (strong, &[(LAST_MODIFIED, MODIFIED)], true),
            (strong, &[(LAST_MODIFIED, "Fri, 02 Jan 1970 00:00:00 GMT")], false),
            (weak, &[(ETAG, "W/\"1\"")], true),
            (weak, &[(ETAG, "W/\"2\"")], false),
            // A strong validator needs the strong comparison: RFC 9111, section 4.3.4.
            (weak, &[(ETAG, "\"1\"")], false),
            (&[], &[(ETAG, "\"1\"")], false),
            (&[], &[], true),
        ] {
            let validated = entry(stored).validated(&fetched(not_modified), after(61));
            assert_eq!(validated.is_some(), is_about_it, "{stored:?} {not_modified:?}");
        }
    }

    #[test]
    fn a_304_has_its_own_age() {
        let old = entry(&[(CACHE_CONTROL, "max-age=60"), (AGE, "500"), (CONTENT_TYPE, "text/plain"), (DATE, MODIFIED)]);
        assert!(!old.is_fresh(after(0)));
        let not_modified = Fetched { requested: after(61), ..fetched(&[(CONTENT_LANGUAGE, "en")]) };
        let fresh = old.validated(&not_modified, after(61)).unwrap();
        assert!(fresh.is_fresh(after(120)) && !fresh.is_fresh(after(121)));
        assert_eq!((fresh.status, &fresh.body), (StatusCode::OK, &old.body));
        let answer = fresh.answer(&HeaderMap::new(), after(61));
        assert_eq!(
            (&answer.headers()[CONTENT_TYPE], &answer.headers()[CONTENT_LANGUAGE]),
            (&"text/plain".parse().unwrap(), &"en".parse().unwrap())
        );
        let not_modified = Fetched { requested: after(61), ..fetched(&[(CACHE_CONTROL, "max-age=5"), (AGE, "3")]) };
        assert_eq!(old.validated(&not_modified, after(61)).unwrap().ttl(after(61)), 2);
    }

    #[test]
    fn answers_with_its_age_and_the_allowed_headers() {
        let entry = entry(&[
            (CACHE_CONTROL, "max-age=60"),
            (CONTENT_TYPE, "text/plain"),
            (handler::http::header::SERVER, "nginx"),
            (handler::http::header::CONNECTION, "close"),
        ]);
        let response = entry.answer(&HeaderMap::new(), after(20));
        let mut headers: Vec<_> =
            response.headers().iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        headers.sort();
        assert_eq!(headers, ["age: 20", "cache-control: max-age=60", "content-type: text/plain"]);
    }

    #[test]
    fn passes_on_lists_in_one_line_and_nothing_that_is_not_ascii() {
        let entry = entry(&[
            (CACHE_CONTROL, "max-age=60"),
            (CACHE_CONTROL, "Must-Revalidate"),
            (CONTENT_LANGUAGE, "en"),
            (CONTENT_LANGUAGE, "de"),
            (CONTENT_TYPE, "text/plain"),
            (CONTENT_TYPE, "text/html"),
            (ETAG, "\"é\""),
        ]);
        let response = entry.answer(&HeaderMap::new(), NOW);
        assert_eq!(response.headers()[CACHE_CONTROL], "max-age=60, Must-Revalidate");
        assert_eq!(response.headers()[CONTENT_LANGUAGE], "en, de");
        assert_eq!(response.headers()[CONTENT_TYPE], "text/plain");
        assert!(!response.headers().contains_key(ETAG));
    }

    #[test]
    fn a_heuristic_lifetime_is_sent_as_max_age() {
        let ten_hours_old = entry(&[(LAST_MODIFIED, MODIFIED), (DATE, "Thu, 01 Jan 1970 10:00:00 GMT")]);
        let response = ten_hours_old.answer(&HeaderMap::new(), NOW);
        assert_eq!(response.headers()[CACHE_CONTROL], "max-age=3600");
    }

    #[test]
    fn passes_on_the_status_of_a_success() {
        for status in [200, 201, 202, 203, 204, 299] {
            let status = StatusCode::from_u16(status).unwrap();
            let entry = Entry::new(Fetched { status, ..fetched(&[]) }, NOW);
            assert_eq!(entry.answer(&HeaderMap::new(), NOW).status(), status);
        }
    }

    #[test]
    fn answers_304_to_a_caller_who_has_it() {
        let etag = &[(ETAG, "W/\"1,2\""), (LAST_MODIFIED, MODIFIED)][..];
        let modified = &[(LAST_MODIFIED, MODIFIED), (DATE, "Fri, 02 Jan 1970 00:00:00 GMT")][..];
        let (before, later) = ("Wed, 31 Dec 1969 23:59:59 GMT", "Thursday, 01-Jan-70 00:00:01 GMT");
        for (stored, conditions, status) in [
            (etag, &[(IF_NONE_MATCH, "\"1,2\"")][..], 304),
            (etag, &[(IF_NONE_MATCH, "\"0\", W/\"1,2\"")], 304),
            (etag, &[(IF_NONE_MATCH, "\"0\",\"3\" , \"1,2\"")], 304),
            (etag, &[(IF_NONE_MATCH, "*")], 304),
            (etag, &[(IF_NONE_MATCH, "\"1\", \"2\"")], 200),
            (etag, &[(IF_NONE_MATCH, "1,2")], 200),
            (etag, &[(IF_NONE_MATCH, "W/")], 200),
            (etag, &[(IF_NONE_MATCH, "\"1,2")], 200),
            (etag, &[(IF_NONE_MATCH, "")], 200),
            // If both are present, only If-None-Match counts: RFC 9110, section 13.1.3.
            (etag, &[(IF_NONE_MATCH, "\"2\""), (IF_MODIFIED_SINCE, MODIFIED)], 200),
            (modified, &[(IF_NONE_MATCH, "*")], 200),
            (modified, &[(IF_MODIFIED_SINCE, MODIFIED)], 304),
            (modified, &[(IF_MODIFIED_SINCE, later)], 304),
            (modified, &[(IF_MODIFIED_SINCE, before)], 200),
            (modified, &[(IF_MODIFIED_SINCE, "yesterday")], 200),
            (modified, &[(IF_MODIFIED_SINCE, MODIFIED), (IF_MODIFIED_SINCE, MODIFIED)], 200),
            // Without Last-Modified, the Date counts, or else the time of receipt: RFC 9111, section 4.3.2.
            (&[(DATE, "Fri, 02 Jan 1970 00:00:00 GMT")], &[(IF_MODIFIED_SINCE, MODIFIED)], 200),
            (&[], &[(IF_MODIFIED_SINCE, MODIFIED)], 304),
        ] {
            let response = entry(stored).answer(&headers(conditions), NOW);
            assert_eq!(response.status(), status, "{stored:?} {conditions:?}");
            assert_eq!(*response.body() == Body::Empty, status == 304, "{conditions:?}");
            assert_eq!(response.headers().get(ETAG).is_some(), stored[..stored.len().min(1)] == etag[..1]);
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
