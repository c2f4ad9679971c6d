//! Resolves names to addresses without the C library.
//!
//! The functions are linked statically, so that they start sooner, and a static `getaddrinfo` loads parts of itself
//! from whatever C library the machine has.

use std::{
    net::IpAddr,
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns, ResolveDnsError};
use futures_util::future::select;
use hickory_resolver::{TokioResolver, config::LookupIpStrategy, net::NetError};
use tokio::time::timeout;

/// A datagram can be lost. The next one must go out while the attempt that waits for the answer has time left.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How long the addresses of one family wait for the other family's: RFC 8305, section 3.
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);
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
    /// Returns the addresses of `name`, of both families.
    ///
    /// # Errors
    ///
    /// Fails if `name` has no address, or if no name server answers.
    pub async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, NetError> {
        let Families { v4, v6 } = self.families()?;
        let (v4, v6) = (pin!(v4.lookup_ip(name)), pin!(v6.lookup_ip(name)));
        let (first, other) = select(v4, v6).await.factor_first();
        let (found, rest) = match first {
            Ok(found) => (found, timeout(RESOLUTION_DELAY, other).await.ok().and_then(Result::ok)),
            // The first error says more: most names have no address of the other family.
            Err(error) => (other.await.map_err(|_| error)?, None),
        };
        Ok(found.iter().chain(rest.iter().flat_map(|rest| rest.iter())).collect())
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

impl ResolveDns for Resolver {
    fn resolve_dns<'a>(&'a self, name: &'a str) -> DnsFuture<'a> {
        DnsFuture::new(async move { self.lookup(name).await.map_err(ResolveDnsError::new) })
    }
}
