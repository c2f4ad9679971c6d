//! Resolves names to addresses without the C library.
//!
//! The functions are linked statically, so that they start sooner, and a static `getaddrinfo` loads parts of itself
//! from whatever C library the machine has.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::{BoxFuture, Either, select};
use hickory_resolver::{TokioResolver, config::LookupIpStrategy, net::NetError, proto::rr::Name};
use hyper_util::client::legacy::connect;
use tokio::{task::JoinHandle, time::timeout};
use tower_service::Service;

/// A datagram can be lost. The next one must go out while the attempt that waits for the answer has time left.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How long IPv4 addresses wait for IPv6 addresses: RFC 8305, section 3.
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);
/// How long IPv6 addresses wait for IPv4 addresses. The HTTP clients try the second family 300 ms after the first
/// (RFC 8305, section 5: 250 ms), but only if they have its addresses from the start.
const FALLBACK_DELAY: Duration = Duration::from_millis(250);
/// A missing name may exist a moment later, whatever negative TTL its zone sets.
const MISSING_FOR: Duration = Duration::from_secs(1);

/// Resolves with `/etc/hosts` and the name servers in `/etc/resolv.conf`, and caches answers for their TTL.
#[derive(Clone, Debug, Default)]
pub struct Resolver(Arc<OnceLock<Families>>);

/// One resolver per family, so that a name server that never responds for one family does not delay the other.
#[derive(Debug)]
struct Families {
    v4: TokioResolver,
    v6: TokioResolver,
}

impl Resolver {
    /// Returns the addresses of `name`, of both families if both are known by then. Both lookups go on and are cached,
    /// whichever answers first, and also if the caller gives up.
    ///
    /// # Errors
    ///
    /// Fails if `name` has no address, or if no name server answers.
    pub async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, NetError> {
        let Families { v4, v6 } = self.families()?;
        let name = labels(name)?;
        let (v4, v6) = (spawn(v4.clone(), name.clone()), spawn(v6.clone(), name));
        let (first, mut other, delay) = match select(v4, v6).await {
            Either::Left((v4, v6)) => (finished(v4), v6, RESOLUTION_DELAY),
            Either::Right((v6, v4)) => (finished(v6), v4, FALLBACK_DELAY),
        };
        let (mut found, rest) = match first {
            Ok(found) if found.iter().copied().any(has_route) => (found, timeout(delay, &mut other).await.ok()),
            // In a network without this family, only the other one helps.
            Ok(found) => (found, Some(other.await)),
            // The first error says more: most names have no address of the other family.
            Err(error) => (finished(other.await).map_err(|_| error)?, None),
        };
        found.extend(rest.and_then(|rest| finished(rest).ok()).unwrap_or_default());
        Ok(found)
    }

    fn families(&self) -> Result<&Families, NetError> {
        if let Some(families) = self.0.get() {
            return Ok(families);
        }
        let family = |strategy| {
            let mut builder = TokioResolver::builder_tokio()?;
            let options = builder.options_mut();
            options.ip_strategy = strategy;
            options.negative_max_ttl = Some(MISSING_FOR);
            options.timeout = ASK_AGAIN_AFTER;
            builder.build()
        };
        let families = Families { v4: family(LookupIpStrategy::Ipv4Only)?, v6: family(LookupIpStrategy::Ipv6Only)? };
        Ok(self.0.get_or_init(|| families))
    }
}

type Lookup = JoinHandle<Result<Vec<IpAddr>, NetError>>;

fn spawn(family: TokioResolver, name: Name) -> Lookup {
    tokio::spawn(async move { Ok(family.lookup_ip(name).await?.iter().collect()) })
}

fn finished<E>(lookup: Result<Result<Vec<IpAddr>, NetError>, E>) -> Result<Vec<IpAddr>, NetError> {
    lookup.unwrap_or(Err(NetError::Message("the lookup panicked")))
}

/// The labels of `name` as they are. A URL's host is ASCII, but need not be a host name of RFC 952: a label may have any
/// bytes, such as `_` (RFC 2181, section 11).
fn labels(name: &str) -> Result<Name, NetError> {
    let (name, is_complete) = name.strip_suffix('.').map_or((name, false), |name| (name, true));
    let mut labels = Name::from_labels(name.split('.').map(str::as_bytes))?;
    // To others, the search list of `/etc/resolv.conf` applies.
    labels.set_fqdn(is_complete);
    Ok(labels)
}

/// Whether this machine can send to `address`. This sends nothing.
fn has_route(address: IpAddr) -> bool {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    UdpSocket::bind((any, 0)).and_then(|socket| socket.connect((address, 443))).is_ok()
}

/// For hyper-util's connector, which adds the port.
impl Service<connect::dns::Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = NetError;
    type Future = BoxFuture<'static, Result<Self::Response, NetError>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), NetError>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_of_any_labels() {
        for (name, fqdn) in [("a_b.c_.example", false), ("a-.example.", true), ("xn--bcher-kva.example", false)] {
            let labels = labels(name).unwrap();
            assert_eq!((labels.is_fqdn(), labels.to_ascii()), (fqdn, name.to_owned()));
        }
        let long = format!("{}.example", "a".repeat(64));
        for name in ["", ".", "a..example", &long] {
            assert!(labels(name).is_err(), "{name}");
        }
    }
}
