//! Resolves names to addresses without the C library.
//!
//! The functions are linked statically, so that they start sooner, and a static `getaddrinfo` loads parts of itself
//! from whatever C library the machine has.

use std::{
    collections::HashMap,
    error, fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns, ResolveDnsError};
use domain::base::Rtype;
use futures_util::future::{BoxFuture, Either, select};
use hyper_util::client::legacy::connect;
use tokio::{sync::watch, time::timeout};
use tower_service::Service;

use system::System;

mod query;
mod system;
#[cfg(test)]
mod tests;

/// How long IPv4 addresses wait for IPv6 addresses: RFC 8305, section 3.
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);
/// How long IPv6 addresses wait for IPv4 addresses. The HTTP clients try the second family 300 ms after the first
/// (RFC 8305, section 5: 250 ms), but only if they have its addresses from the start.
const FALLBACK_DELAY: Duration = Duration::from_millis(250);
/// A missing name may exist a moment later, whatever negative TTL its zone sets.
const MISSING_FOR: Duration = Duration::from_secs(1);
/// Whatever TTL the name has (RFC 8767, section 4).
const KNOWN_FOR: Duration = Duration::from_hours(24 * 7);
/// Of names, in each family.
const MOST_CACHED: usize = 500;

/// Resolves with `/etc/hosts` and the name servers in `/etc/resolv.conf`, and caches answers for their TTL.
#[derive(Clone, Debug, Default)]
pub struct Resolver(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    system: OnceLock<System>,
    v4: Lookups,
    v6: Lookups,
}

/// Those of one family, so that a name server that never responds for one family does not delay the other.
type Lookups = Mutex<HashMap<String, Lookup>>;

/// One that goes on, or whose result is known.
type Lookup = watch::Receiver<Option<Found>>;

#[derive(Clone, Debug)]
struct Found {
    addresses: Result<Vec<IpAddr>, ResolveError>,
    until: Instant,
}

/// Why no address of a name is known.
#[derive(Clone, Debug)]
pub struct ResolveError(String);

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl error::Error for ResolveError {}

impl Resolver {
    /// Returns the addresses of `name`, of both families if both are known by then. Both lookups go on and are cached,
    /// whichever answers first, and also if the caller gives up.
    ///
    /// # Errors
    ///
    /// Fails if `name` has no address, or if no name server answers.
    pub async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let known = self.0.system().known(name);
        if !known.is_empty() {
            return Ok(known);
        }
        let v4 = Box::pin(finished(self.start(name, Rtype::A, &self.0.v4)));
        let v6 = Box::pin(finished(self.start(name, Rtype::AAAA, &self.0.v6)));
        let (first, mut other, delay) = match select(v4, v6).await {
            Either::Left((v4, v6)) => (v4, Either::Right(v6), RESOLUTION_DELAY),
            Either::Right((v6, v4)) => (v6, Either::Left(v4), FALLBACK_DELAY),
        };
        let (mut found, rest) = match first {
            Ok(found) if found.iter().copied().any(has_route) => (found, timeout(delay, &mut other).await.ok()),
            // In a network without this family, only the other one helps.
            Ok(found) => (found, Some(other.await)),
            // The first error says more: most names have no address of the other family.
            Err(error) => (other.await.map_err(|_| error)?, None),
        };
        found.extend(rest.and_then(Result::ok).unwrap_or_default());
        Ok(found)
    }

    /// The lookup that goes on or is cached, or a new one.
    fn start(&self, name: &str, of: Rtype, lookups: &Lookups) -> Lookup {
        let mut lookups = lookups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lookup) = lookups.get(name).filter(|lookup| is_current(lookup)) {
            return lookup.clone();
        }
        lookups.retain(|_, lookup| is_current(lookup));
        if lookups.len() >= MOST_CACHED {
            lookups.clear();
        }
        let (done, lookup) = watch::channel(None);
        lookups.insert(name.to_owned(), lookup.clone());
        let (inner, name) = (Arc::clone(&self.0), name.to_owned());
        tokio::spawn(async move { done.send_replace(Some(inner.find(&name, of).await)) });
        lookup
    }
}

impl Inner {
    fn system(&self) -> &System {
        self.system.get_or_init(System::read)
    }

    async fn find(&self, name: &str, of: Rtype) -> Found {
        let (addresses, known_for) = match self.system().ask(name, of).await {
            Ok(answer) if answer.addresses.is_empty() => {
                (Err(ResolveError(format!("{name} has no {of} record"))), MISSING_FOR)
            }
            Ok(answer) => (Ok(answer.addresses), Duration::from_secs(answer.ttl.into()).min(KNOWN_FOR)),
            Err(error) => (Err(ResolveError(format!("{name} could not be resolved: {error}"))), Duration::ZERO),
        };
        Found { addresses, until: Instant::now() + known_for }
    }
}

/// Whether the lookup goes on, or its result is still valid.
fn is_current(lookup: &Lookup) -> bool {
    lookup.borrow().as_ref().map_or(lookup.has_changed().is_ok(), |found| found.until > Instant::now())
}

async fn finished(mut lookup: Lookup) -> Result<Vec<IpAddr>, ResolveError> {
    let found = lookup.wait_for(Option::is_some).await.ok().and_then(|found| found.clone());
    found.map_or_else(|| Err(ResolveError("the lookup panicked".to_owned())), |found| found.addresses)
}

/// Whether this machine can send to `address`. This sends nothing.
fn has_route(address: IpAddr) -> bool {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    UdpSocket::bind((any, 0)).and_then(|socket| socket.connect((address, 443))).is_ok()
}

/// For a container's credentials, whose host may be a name.
impl ResolveDns for Resolver {
    fn resolve_dns<'a>(&'a self, name: &'a str) -> DnsFuture<'a> {
        DnsFuture::new(async { self.lookup(name).await.map_err(ResolveDnsError::new) })
    }
}

/// For hyper-util's connector, which adds the port.
impl Service<connect::dns::Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = ResolveError;
    type Future = BoxFuture<'static, Result<Self::Response, ResolveError>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), ResolveError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: connect::dns::Name) -> Self::Future {
        let resolver = self.clone();
        Box::pin(async move {
            let addresses = resolver.lookup(name.as_str()).await?;
            let addresses: Vec<_> = addresses.into_iter().map(|address| SocketAddr::new(address, 0)).collect();
            Ok(addresses.into_iter())
        })
    }
}
