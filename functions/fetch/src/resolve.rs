//! Names to addresses.
//!
//! Not by the C library: the functions are linked statically, so that they start sooner, and a static
//! `getaddrinfo` loads parts of itself from whatever C library the machine has.

use std::{
    error::Error,
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};

use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns, ResolveDnsError};
use hickory_resolver::{TokioResolver, net::NetError};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// A datagram can be lost, and the next one must go out while the attempt that waits for it has time left.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Resolves by `/etc/hosts` and the name servers of `/etc/resolv.conf`, and remembers for as long as they allow.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resolver(Arc<OnceLock<TokioResolver>>);

impl Resolver {
    async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, NetError> {
        Ok(self.resolver()?.lookup_ip(name).await?.iter().collect())
    }

    fn resolver(&self) -> Result<&TokioResolver, NetError> {
        if let Some(resolver) = self.0.get() {
            return Ok(resolver);
        }
        let mut builder = TokioResolver::builder_tokio()?;
        builder.options_mut().timeout = ASK_AGAIN_AFTER;
        let resolver = builder.build()?;
        Ok(self.0.get_or_init(|| resolver))
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            let addresses = resolver.lookup(name.as_str()).await?;
            // The client replaces the port.
            let addresses: Addrs = Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok::<_, Box<dyn Error + Send + Sync>>(addresses)
        })
    }
}

impl ResolveDns for Resolver {
    fn resolve_dns<'a>(&'a self, name: &'a str) -> DnsFuture<'a> {
        DnsFuture::new(async move { self.lookup(name).await.map_err(ResolveDnsError::new) })
    }
}
