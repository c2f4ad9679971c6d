//! One call of the upstream: a request, and the whole response or the reason for the failure.

use std::{
    error::Error,
    net::SocketAddr,
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use handler::http::{
    HeaderMap, StatusCode,
    header::{CONTENT_ENCODING, RETRY_AFTER},
};
use reqwest::{
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::{self, Policy},
};
use tokio::time::{Instant, timeout_at};

use crate::{failure::Failure, http_date::http_date, settings::Settings, tls};

const MAX_REDIRECTS: usize = 3;

/// Makes attempts. The HTTP client, with its TLS and its connections, is created by the first attempt.
#[derive(Default)]
pub(crate) struct Client(OnceLock<reqwest::Client>);

/// A successful response, or a 304.
pub(crate) struct Fetched {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// When the request was sent.
    pub(crate) requested: SystemTime,
}

impl Client {
    /// Fetches the upstream's URL with `headers`. Gives up at `deadline`, or after the time that one attempt may take.
    pub(crate) async fn attempt(
        &self,
        settings: &Settings,
        headers: HeaderMap,
        deadline: Instant,
    ) -> Result<Fetched, Failure> {
        let client = self.client(settings).map_err(Failure::misconfigured)?;
        let limit = Instant::now() + settings.attempt_timeout;
        let too_late = if limit < deadline { Failure::TimedOut } else { Failure::DeadlineExceeded };
        let response = exchange(client, settings, headers);
        timeout_at(limit.min(deadline), response).await.unwrap_or(Err(too_late))
    }

    fn client(&self, settings: &Settings) -> Result<&reqwest::Client, Box<dyn Error + Send + Sync>> {
        if let Some(client) = self.0.get() {
            return Ok(client);
        }
        let client = reqwest::Client::builder()
            .dns_resolver(Resolver(aws::Resolver::default()))
            .no_proxy()
            .redirect(Policy::custom(follow))
            .referer(false)
            // Retries are decided in one place, `retry`.
            .retry(reqwest::retry::never())
            .tls_backend_preconfigured(tls::config(settings.ca_file.as_ref())?)
            .user_agent(concat!("fetch/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(self.0.get_or_init(|| client))
    }
}

struct Resolver(aws::Resolver);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.0.clone();
        Box::pin(async move {
            let addresses = resolver.lookup(name.as_str()).await?;
            // The client replaces the port.
            let addresses: Addrs = Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok::<_, Box<dyn Error + Send + Sync>>(addresses)
        })
    }
}

async fn exchange(client: &reqwest::Client, settings: &Settings, headers: HeaderMap) -> Result<Fetched, Failure> {
    let requested = SystemTime::now();
    let request = client.get(settings.url.clone()).headers(headers);
    let mut response = request.send().await.map_err(unreachable)?;
    let status = response.status();
    if !status.is_success() && status != StatusCode::NOT_MODIFIED {
        return Err(Failure::Status { status, retry_after: retry_after(response.headers(), SystemTime::now()) });
    }
    if status == StatusCode::PARTIAL_CONTENT {
        return Err(Failure::unusable("the response is a part that was not asked for"));
    }
    // An encoding that was not asked for cannot be decoded, and its bytes do not match the content type.
    if response.headers().contains_key(CONTENT_ENCODING) {
        return Err(Failure::unusable("the response is in a content encoding that was not asked for"));
    }
    let limit = settings.max_body_bytes;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > limit {
            return Err(Failure::TooLarge(limit));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Fetched { status, headers: std::mem::take(response.headers_mut()), body, requested })
}

/// Removes the URL from the error: it goes to the log, and the query may be secret.
fn unreachable(error: reqwest::Error) -> Failure {
    Failure::unreachable(error.without_url())
}

/// The time to wait that `Retry-After` gives, in seconds or as a date (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(http_date(value, now)?.duration_since(now).unwrap_or_default()),
    }
}

/// Follows a redirect only within the origin of the operator's URL. A redirect that is not followed is handled like any
/// other response that is not a success.
fn follow(redirect: redirect::Attempt<'_>) -> redirect::Action {
    let same_origin = redirect.previous().first().is_some_and(|first| first.origin() == redirect.url().origin());
    if same_origin && redirect.previous().len() <= MAX_REDIRECTS { redirect.follow() } else { redirect.stop() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 10);
        for (value, seconds) in [
            ("7", Some(7)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(10)),
            ("Sun, 06 Nov 1994 08:49:07 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
            assert_eq!(retry_after(&headers, now), seconds.map(Duration::from_secs), "{value}");
        }
    }
}
