//! An HTTP/1.1 client for one origin, made of hyper's connections.
//!
//! It is our own because of what Lambda's freeze does to idle connections. The pools of `reqwest` and `hyper-util` judge
//! a connection's age by one clock, find out that it is dead only if the peer says so in time, and do not tell whether a
//! request failed on a connection that was kept.

use std::{
    error::Error,
    future::pending,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::{Either, select};
use handler::http::{
    Request, StatusCode, Uri,
    header::{HOST, HeaderValue},
};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    task::yield_now,
    time::{Instant, sleep, sleep_until},
};
use tokio_rustls::TlsConnector;
use tower_service::Service;
use url::Url;

use crate::connection::{Body, Clocks, Connection, MAX_IDLE, Received, Stream, Unanswered};

/// So that a NAT gateway does not forget a connection on which the response takes minutes.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// A request that may not be repeated is lost on a connection that is dead without a sign. A server that closes one this
/// soon is rare. Between requests that follow each other within this time, a handshake for each would cost more.
const MOMENT: Duration = Duration::from_secs(1);

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// Sends requests to one origin, and keeps its connections.
pub(crate) struct Client {
    /// Scheme, host and port.
    origin: Uri,
    /// The origin as the field `Host` has it.
    host: HeaderValue,
    connector: HttpConnector<aws::Resolver>,
    /// For `https`.
    tls: Option<(TlsConnector, ServerName<'static>)>,
    idle: Mutex<Vec<Connection>>,
}

/// A second request on another connection, if the first one has no response after a while.
#[derive(Clone, Copy)]
pub(crate) struct Hedge<'a> {
    pub(crate) after: Duration,
    /// Returns whether it may be sent.
    pub(crate) pay: &'a (dyn Fn() -> bool + Send + Sync),
}

impl Client {
    /// A client for the origin of `url`, which is `http` or `https`. It connects to nothing yet.
    ///
    /// # Errors
    ///
    /// Fails if the host cannot be in a certificate or in a header.
    pub(crate) fn new(url: &Url, tls: impl FnOnce() -> Result<ClientConfig, BoxError>) -> Result<Self, BoxError> {
        let host = url.host_str().ok_or("the URL has no host")?;
        let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let tls = if url.scheme() == "https" {
            let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())?;
            Some((TlsConnector::from(Arc::new(tls()?)), name))
        } else {
            None
        };
        let mut connector = HttpConnector::new_with_resolver(aws::Resolver::default());
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_keepalive(Some(KEEPALIVE));
        Ok(Self {
            origin: Uri::builder().scheme(url.scheme()).authority(authority.as_str()).path_and_query("/").build()?,
            host: HeaderValue::try_from(authority)?,
            connector,
            tls,
            idle: Mutex::default(),
        })
    }

    /// Sends a request.
    ///
    /// If it is repeatable, a kept connection costs nothing that is dead: if one fails before a byte of the response
    /// arrives, the request is sent once more, on a new connection (RFC 9112, section 9.3.1). If one does not answer for
    /// long, or if `hedge` says so, a new one gets the request too, and the first response counts. The caller waits until
    /// `deadline`.
    ///
    /// Any other request is sent once: on a connection that was used a moment ago, or on a new one.
    ///
    /// # Errors
    ///
    /// Fails if there is no connection, or if it breaks or sends no HTTP before the head of the response is complete.
    pub(crate) async fn send(
        &self,
        request: &Request<Body>,
        is_repeatable: bool,
        hedge: Option<Hedge<'_>>,
        deadline: Instant,
    ) -> Result<Received, Unanswered> {
        let hedge = hedge.filter(|_| is_repeatable);
        let mut kept = self.take(is_repeatable).await;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let limit = kept.as_ref().filter(|_| is_repeatable).map(|kept| head_timeout(kept.latency, left));
            let is_kept = kept.is_some();
            let first = pin!(self.send_over(kept.take(), request));
            let answer = match select(first, pin!(late(limit, hedge))).await {
                Either::Left((answer, _)) => answer,
                Either::Right(((), first)) => {
                    if is_kept {
                        self.idle().clear();
                    }
                    return match select(first, pin!(self.send_over(None, request))).await.factor_first() {
                        (Ok(received), _) => Ok(received),
                        (Err(_), other) => other.await,
                    };
                }
            };
            let is_dead = match &answer {
                Err(Unanswered::Unsent(_)) => true,
                Err(Unanswered::WithoutAByte(_)) => is_repeatable,
                // It is how a server closes a connection that was idle for too long: RFC 9110, section 15.5.9.
                Ok(received) => is_repeatable && received.response.status() == StatusCode::REQUEST_TIMEOUT,
                Err(Unanswered::Broken(_)) => false,
            };
            if !is_kept || !is_dead {
                return answer;
            }
            // They went through the same freeze.
            self.idle().clear();
        }
    }

    /// Keeps the connection for another request, once its response is read or dropped.
    pub(crate) fn keep(&self, mut connection: Connection) {
        connection.used = Clocks::now();
        self.idle().push(connection);
    }

    /// Sends a request over a connection, or over a new one.
    async fn send_over(&self, kept: Option<Connection>, request: &Request<Body>) -> Result<Received, Unanswered> {
        let connection = match kept {
            Some(kept) => kept,
            // Boxed, because a request can be on its way three times, and most connections are kept.
            None => Box::pin(self.connect()).await.map_err(Unanswered::Unsent)?,
        };
        connection.send(self.addressed(request)).await
    }

    fn addressed(&self, request: &Request<Body>) -> Request<Body> {
        let mut request = request.clone();
        request.headers_mut().insert(HOST, self.host.clone());
        request
    }

    async fn connect(&self) -> Result<Connection, BoxError> {
        let tcp = self.connector.clone().call(self.origin.clone()).await?.into_inner();
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(tcp),
            Some((tls, name)) => Box::new(tls.connect(name.clone(), tcp).await?),
        };
        Ok(Connection::over(stream).await?)
    }

    /// The connection that was used last, if it is still usable for this request.
    async fn take(&self, is_repeatable: bool) -> Option<Connection> {
        let limit = if is_repeatable { MAX_IDLE } else { MOMENT };
        if !is_repeatable {
            // So that the connections' tasks see what arrived in a freeze.
            yield_now().await;
        }
        loop {
            let mut kept = {
                let mut idle = self.idle();
                idle.retain(|kept| kept.is_usable(MAX_IDLE));
                idle.pop_if(|kept| kept.is_usable(limit))?
            };
            if kept.ready().await {
                return Some(kept);
            }
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long to wait for a kept connection alone, if its latest response began after `latency`, and the caller waits no
/// longer than `left`. A slow upstream gets no second request, unless it is much slower than it was.
fn head_timeout(latency: Duration, left: Duration) -> Duration {
    (latency * 4).clamp(left / 4, left / 2)
}

/// Ends when another connection should get the request too.
async fn late(limit: Option<Duration>, hedge: Option<Hedge<'_>>) {
    let began = Instant::now();
    if let Some(hedge) = hedge.filter(|hedge| limit.is_none_or(|limit| hedge.after < limit)) {
        sleep(hedge.after).await;
        if (hedge.pay)() {
            return;
        }
    }
    match limit {
        Some(limit) => sleep_until(began + limit).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use handler::http::Method;
    use testbed::upstream::{Answer, IdleEnd, Upstream};
    use tokio::{
        runtime::{Builder, Runtime},
        time::timeout,
    };

    use super::*;

    async fn get(client: &Client) {
        let deadline = Instant::now() + Duration::from_mins(1);
        let received =
            client.send(&Request::new(Body::default()), true, None, deadline).await.ok().expect("a response");
        drop(received.response);
        client.keep(received.connection);
    }

    #[tokio::test]
    async fn a_connection_is_kept_for_a_while_by_either_clock() {
        let upstream = Upstream::start();
        let client = Client::new(&upstream.url("/").parse().unwrap(), || Err("no TLS".into())).unwrap();
        let just_now = Duration::from_secs(1);
        let too_long = MAX_IDLE + just_now;
        for (monotonic, wall, connections) in [
            (Duration::ZERO, Duration::ZERO, 1),
            (just_now, just_now, 1),
            (too_long, just_now, 2),
            (just_now, too_long, 3),
            (too_long, too_long, 4),
        ] {
            if let Some(idle) = client.idle().last_mut() {
                idle.used.monotonic -= monotonic;
                idle.used.wall -= wall;
            }
            get(&client).await;
            assert_eq!(upstream.connections(), connections, "after {monotonic:?} and {wall:?}");
            assert_eq!(client.idle().len(), 1, "none that is too old");
        }
        if let Some(idle) = client.idle().last_mut() {
            idle.used.wall += too_long;
        }
        get(&client).await;
        assert_eq!(upstream.connections(), 5, "after the clock was set back");
    }

    /// Whether a `POST` is answered, over a connection that ended like this after it was used, which is this long ago by
    /// the monotonic clock and by the wall clock. The upstream is another runtime's, and the client's stands still
    /// meanwhile, as in a freeze.
    fn post_after(
        how: Option<IdleEnd>,
        [monotonic, wall]: [Duration; 2],
        upstream: &Upstream,
        theirs: &Runtime,
    ) -> bool {
        let client = Client::new(&upstream.url("/").parse().unwrap(), || Err("no TLS".into())).unwrap();
        let ours = Builder::new_current_thread().enable_all().build().unwrap();
        ours.block_on(get(&client));
        if let Some(how) = how {
            assert_eq!(theirs.block_on(upstream.end_idle_connections(how)), 1);
        }
        if let Some(idle) = client.idle().last_mut() {
            idle.used.monotonic -= monotonic;
            idle.used.wall -= wall;
        }
        let mut post = Request::new(Body::default());
        *post.method_mut() = Method::POST;
        let is_silent = how == Some(IdleEnd::Vanish) && [monotonic, wall] == [Duration::ZERO; 2];
        let limit = if is_silent { Duration::from_millis(100) } else { Duration::from_mins(1) };
        let sent =
            ours.block_on(async { timeout(limit, client.send(&post, false, None, Instant::now() + limit)).await });
        sent.is_ok_and(|sent| sent.is_ok_and(|received| received.response.status() == StatusCode::OK))
    }

    #[test]
    fn a_request_that_is_not_repeatable_is_sent_once_whatever_the_connection_has_met() {
        let theirs = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let _entered = theirs.enter();
        let ends = [IdleEnd::Close, IdleEnd::Reset, IdleEnd::TimeOut, IdleEnd::Forget, IdleEnd::Vanish];
        let too_long = MOMENT + Duration::from_secs(1);
        for how in ends {
            for idle in [[too_long, too_long], [Duration::ZERO, too_long], [too_long, Duration::ZERO]] {
                let upstream = Upstream::start();
                assert!(post_after(Some(how), idle, &upstream, &theirs), "{how:?} after {idle:?}");
                assert_eq!((upstream.calls(), upstream.connections()), (2, 2), "{how:?} after {idle:?}");
            }
            // It sees what the server has said. Of anything else it does not know whether the server got the request.
            let upstream = Upstream::start();
            let is_seen = matches!(how, IdleEnd::Close | IdleEnd::Reset | IdleEnd::TimeOut);
            assert_eq!(post_after(Some(how), [Duration::ZERO; 2], &upstream, &theirs), is_seen, "{how:?} just now");
            assert_eq!(upstream.calls(), 1 + usize::from(is_seen), "{how:?} just now");
        }
        let upstream = Upstream::start();
        assert!(post_after(None, [Duration::ZERO; 2], &upstream, &theirs));
        assert_eq!((upstream.calls(), upstream.connections()), (2, 1), "one that was used a moment ago");
        upstream.then(Answer::ok("good")).then(Answer::status(408));
        assert!(!post_after(None, [Duration::ZERO; 2], &upstream, &theirs));
        assert_eq!(upstream.calls(), 4, "a 408");
    }

    #[test]
    fn the_head_timeout_grows_with_the_latency() {
        for (latency, left, timeout) in [(10, 2000, 500), (150, 2000, 600), (900, 2000, 1000), (150, 60_000, 15_000)] {
            let [latency, left, expected] = [latency, left, timeout].map(Duration::from_millis);
            assert_eq!(super::head_timeout(latency, left), expected, "{latency:?} of {left:?}");
        }
    }

    #[test]
    fn the_host_is_a_name_or_an_address() {
        for (url, origin, host) in [
            ("https://example.com/a?b", "https://example.com/", "example.com"),
            ("https://my_host.example.com:443/", "https://my_host.example.com/", "my_host.example.com"),
            ("https://example.com:8443", "https://example.com:8443/", "example.com:8443"),
            ("https://[::1]:8443/", "https://[::1]:8443/", "[::1]:8443"),
            ("http://127.0.0.1:80/", "http://127.0.0.1/", "127.0.0.1"),
        ] {
            let tls = || {
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
                Ok(config.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
            };
            let client = Client::new(&url.parse().unwrap(), tls).unwrap();
            assert_eq!((client.origin.to_string().as_str(), client.host.to_str().unwrap()), (origin, host));
        }
    }
}
