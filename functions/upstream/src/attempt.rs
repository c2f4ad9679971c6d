//! One call of the upstream: a request, and the whole response or the reason for the failure.

use std::{
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use handler::http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode, Uri,
    header::{ACCEPT, ACCEPT_ENCODING, LOCATION, RANGE, RETRY_AFTER, USER_AGENT},
    uri::InvalidUri,
};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, timeout_at};
use url::{Position, Url};

#[cfg(feature = "stream")]
use crate::connection::Connection;
use crate::{
    cache_control::delta_seconds,
    client::{self, BoxError, Hedge},
    coding::Codings,
    connection::{Body, Received, Unanswered},
    error::Failure,
    freshness::http_date,
    request::Prepared,
    settings::Settings,
    tls,
};

const MAX_REDIRECTS: usize = 3;

/// Makes attempts. The HTTP client, with its TLS and its connections, is created by the first attempt.
#[derive(Default)]
pub(crate) struct Client(OnceLock<client::Client>);

/// A successful response, or a 304.
pub(crate) struct Fetched {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// When the request was sent.
    pub(crate) requested: SystemTime,
}

impl Client {
    /// Sends `prepared` with `headers`, and also as `hedge` says. Gives up at `deadline`, or after the time that one attempt may take.
    pub(crate) async fn attempt(
        &self,
        settings: &Settings,
        known_as: &str,
        prepared: &Prepared,
        mut headers: HeaderMap,
        hedge: Option<Hedge<'_>>,
        deadline: Instant,
    ) -> Result<Fetched, Failure> {
        let client = self.client(settings).map_err(Failure::misconfigured)?;
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        if prepared.is_streamed() {
            // It is not decoded.
            headers.entry(ACCEPT_ENCODING).or_insert(HeaderValue::from_static("identity"));
        } else {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let agent = HeaderValue::try_from(format!("{known_as}/{}", env!("CARGO_PKG_VERSION")));
        headers.insert(USER_AGENT, agent.map_err(Failure::bug)?);
        let limit = Instant::now() + settings.attempt_timeout;
        let too_late = if limit < deadline { Failure::TimedOut } else { Failure::DeadlineExceeded };
        let deadline = deadline.min(limit);
        let response = exchange(client, settings, prepared, headers, hedge, deadline);
        timeout_at(deadline, response).await.unwrap_or(Err(too_late))
    }

    /// Keeps the connection of a body that was read after its attempt.
    #[cfg(feature = "stream")]
    pub(crate) fn keep(&self, connection: Option<Connection>) {
        if let (Some(client), Some(connection)) = (self.0.get(), connection) {
            client.keep(connection);
        }
    }

    fn client(&self, settings: &Settings) -> Result<&client::Client, BoxError> {
        if let Some(client) = self.0.get() {
            return Ok(client);
        }
        let client = client::Client::new(&settings.url, || tls::config(settings.ca_file.as_ref()))?;
        Ok(self.0.get_or_init(|| client))
    }
}

async fn exchange(
    client: &client::Client,
    settings: &Settings,
    prepared: &Prepared,
    headers: HeaderMap,
    hedge: Option<Hedge<'_>>,
    deadline: Instant,
) -> Result<Fetched, Failure> {
    let requested = SystemTime::now();
    let sent = send(client, prepared, headers, hedge, deadline);
    let Received { response, connection } = sent.await?;
    let is_part_wanted = prepared.headers.contains_key(RANGE);
    #[cfg(feature = "stream")]
    if let Some(arriving) = prepared.arriving.as_ref().filter(|_| response.status().is_success()) {
        check(&response, is_part_wanted)?;
        Codings::none_of_the_transfer(response.headers())?;
        let (status, headers) = (response.status(), response.headers().clone());
        arriving.put(Received { response, connection });
        return Ok(Fetched { status, headers, body: Vec::new(), requested });
    }
    let fetched = read(response, requested, settings.max_body_bytes, is_part_wanted).await;
    client.keep(connection);
    fetched
}

/// Sends `prepared`. A safe request also goes to where it is redirected to within the origin of the operator's URL. A
/// redirect that is not followed is handled like any other response that is not a success.
async fn send(
    client: &client::Client,
    prepared: &Prepared,
    headers: HeaderMap,
    hedge: Option<Hedge<'_>>,
    deadline: Instant,
) -> Result<Received, Unanswered> {
    let mut request = Request::new(Body::new(prepared.body.clone()));
    *request.method_mut() = prepared.method.clone();
    *request.headers_mut() = headers;
    let mut url = prepared.url.clone();
    let mut redirects = if prepared.method.is_safe() { MAX_REDIRECTS } else { 0 };
    loop {
        *request.uri_mut() = target(&url).map_err(|invalid| Unanswered::Unsent(invalid.into()))?;
        let received = client.send(&request, prepared.is_repeatable(), hedge, deadline).await?;
        let Some(next) = location(&url, &received.response).filter(|_| redirects > 0) else {
            return Ok(received);
        };
        let Received { response, connection } = received;
        drop(response);
        client.keep(connection);
        url = next;
        redirects -= 1;
    }
}

/// What a request for `url` asks the server for.
///
/// # Errors
///
/// Fails if it is too long for a request: over 65,534 bytes.
fn target(url: &Url) -> Result<Uri, InvalidUri> {
    url[Position::BeforePath..Position::AfterQuery].parse()
}

/// Where the response to a `GET` of `url` redirects to, if that is within the same origin and can be requested.
fn location(url: &Url, response: &Response<Incoming>) -> Option<Url> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = str::from_utf8(response.headers().get(LOCATION)?.as_bytes()).ok()?;
    url.join(location).ok().filter(|next| next.origin() == url.origin() && target(next).is_ok())
}

/// Whether it is a good response, or a 304.
fn check(response: &Response<Incoming>, is_part_wanted: bool) -> Result<(), Failure> {
    let status = response.status();
    if !status.is_success() && status != StatusCode::NOT_MODIFIED {
        return Err(Failure::Status { status, retry_after: retry_after(response.headers(), SystemTime::now()) });
    }
    if status == StatusCode::PARTIAL_CONTENT && !is_part_wanted {
        return Err(Failure::unusable("the response is a part that was not asked for"));
    }
    Ok(())
}

async fn read(
    mut response: Response<Incoming>,
    requested: SystemTime,
    limit: usize,
    is_part_wanted: bool,
) -> Result<Fetched, Failure> {
    check(&response, is_part_wanted)?;
    let mut body = Vec::new();
    // A 304 names the coding of the response that it is about, and has no body itself.
    if !response.body().is_end_stream() {
        let codings = Codings::of(response.headers())?;
        while let Some(frame) = response.body_mut().frame().await {
            // Trailers are ignored.
            let Ok(chunk) = frame.map_err(Failure::unreachable)?.into_data() else { continue };
            if body.len() + chunk.len() > codings.encoded(limit) {
                return Err(Failure::TooLarge(limit));
            }
            body.extend_from_slice(&chunk);
        }
        body = codings.decode(body, limit)?;
    }
    Ok(Fetched { status: response.status(), headers: std::mem::take(response.headers_mut()), body, requested })
}

/// The time to wait that `Retry-After` gives, in seconds or as a date (RFC 9110, section 10.2.3). The longest, if there
/// are several.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let wait = |value: &str| {
        let until = || Some(http_date(value, now)?.duration_since(now).unwrap_or_default());
        delta_seconds(value).or_else(until)
    };
    headers.get_all(RETRY_AFTER).iter().filter_map(|value| wait(value.to_str().ok()?)).max()
}

#[cfg(test)]
mod tests {
    use handler::http::Method;
    use testbed::upstream::{Behaviour, Upstream};

    use super::*;

    #[tokio::test]
    async fn which_limit_ended_it_is_told() {
        let upstream = Upstream::start();
        upstream.always(Behaviour::Silent);
        let url = upstream.url("/");
        for (attempt_timeout, time_left, is_attempts_own) in [("50", 60_000, true), ("60000", 50, false)] {
            let settings = Settings::read("UPSTREAM", |name| match name {
                "UPSTREAM_URL" => Some(url.clone()),
                "UPSTREAM_ATTEMPT_TIMEOUT_MS" => Some(attempt_timeout.to_owned()),
                _ => None,
            });
            let deadline = Instant::now() + Duration::from_millis(time_left);
            let settings = settings.unwrap();
            let prepared = Prepared::new(Method::GET, settings.url.clone());
            let client = Client::default();
            let failure = client.attempt(&settings, "test", &prepared, HeaderMap::new(), None, deadline).await.err();
            match failure {
                Some(Failure::TimedOut) => assert!(is_attempts_own),
                Some(Failure::DeadlineExceeded) => assert!(!is_attempts_own),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 10);
        for (value, seconds) in [
            ("7", Some(7)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(10)),
            ("Sun, 06 Nov 1994 08:49:07 GMT", Some(0)),
            ("99999999999999999999", Some(1 << 31)),
            ("soon", None),
            ("-1", None),
            ("+1", None),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
            assert_eq!(retry_after(&headers, now), seconds.map(Duration::from_secs), "{value}");
        }
        let mut several = HeaderMap::new();
        for value in ["soon", "7", "60", "1"] {
            several.append(RETRY_AFTER, value.parse().unwrap());
        }
        assert_eq!(retry_after(&several, now), Some(Duration::from_mins(1)));
    }
}
