//! HTTP/1.1 to AWS's services.
//!
//! The SDK's own client parses all certificates of the system before the first request, which takes most of the first
//! answer, and links HTTP/2, which these services do not need. This one trusts Mozilla's roots, which are compiled in.

use std::{
    env, error,
    fmt::{Debug, Formatter},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        http::{HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
        orchestrator::{HttpRequest, HttpResponse},
        result::ConnectorError,
        runtime_components::RuntimeComponents,
    },
};
use aws_smithy_types::{body::SdkBody, retry::ErrorKind};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::time::timeout;

use crate::{resolve::Resolver, trace};

/// The environment variables that name a file of certificates to trust instead of Mozilla's.
const CA_FILES: [&str; 2] = ["AWS_CA_BUNDLE", "SSL_CERT_FILE"];

/// Load balancers of AWS close a connection that was idle for 60 seconds.
const MAX_IDLE: Duration = Duration::from_secs(50);

/// The connections of all clients with equal limits.
#[derive(Debug)]
pub(crate) struct Http {
    tls: ClientConfig,
    resolver: Resolver,
    connectors: Mutex<Vec<Connector>>,
}

impl Http {
    pub(crate) fn new(resolver: Resolver) -> Self {
        Self { tls: tls(), resolver, connectors: Mutex::default() }
    }

    fn connector(&self, connect_timeout: Option<Duration>) -> Pool {
        let mut tcp = connect::HttpConnector::new_with_resolver(self.resolver.clone());
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(connect_timeout);
        let tls = HttpsConnectorBuilder::new().with_tls_config(self.tls.clone());
        legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(MAX_IDLE)
            .build(tls.https_or_http().enable_http1().wrap_connector(tcp))
    }
}

impl HttpClient for Http {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        let limits = (settings.connect_timeout(), settings.read_timeout());
        let mut connectors = self.connectors.lock().unwrap_or_else(PoisonError::into_inner);
        let found = connectors.iter().find(|connector| connector.limits == limits).cloned();
        SharedHttpConnector::new(found.unwrap_or_else(|| {
            let made = Connector { limits, pool: self.connector(limits.0) };
            connectors.push(made.clone());
            made
        }))
    }
}

type Pool = legacy::Client<HttpsConnector<connect::HttpConnector<Resolver>>, SdkBody>;

#[derive(Clone)]
struct Connector {
    /// For a connection, and for the head of a response.
    limits: (Option<Duration>, Option<Duration>),
    pool: Pool,
}

impl Debug for Connector {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl HttpConnector for Connector {
    fn call(&self, mut request: HttpRequest) -> HttpConnectorFuture {
        trace::add_to(&mut request);
        let request = match request.try_into_http1x() {
            Ok(request) => request,
            Err(error) => return HttpConnectorFuture::ready(Err(ConnectorError::user(error.into()))),
        };
        let (answer, limit) = (self.pool.request(request), self.limits.1);
        HttpConnectorFuture::new(async move {
            let answer = match limit {
                Some(limit) => timeout(limit, answer).await.map_err(|late| ConnectorError::timeout(late.into()))?,
                None => answer.await,
            };
            let answer = answer.map_err(failure)?.map(SdkBody::from_body_1_x);
            HttpResponse::try_from(answer).map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

/// What the SDK may do about `error`: it sends a request again whose connection failed.
fn failure(error: legacy::Error) -> ConnectorError {
    let in_hyper = source::<hyper::Error>(&error);
    let io = source::<std::io::Error>(&error);
    if io.is_some_and(|io| io.kind() == std::io::ErrorKind::TimedOut) {
        ConnectorError::timeout(error.into())
    } else if in_hyper.is_some_and(hyper::Error::is_user) {
        ConnectorError::user(error.into())
    } else if in_hyper.is_some_and(hyper::Error::is_incomplete_message) {
        ConnectorError::other(error.into(), Some(ErrorKind::TransientError))
    } else if error.is_connect()
        || io.is_some()
        || in_hyper.is_some_and(|error| error.is_closed() || error.is_canceled())
    {
        ConnectorError::io(error.into())
    } else {
        ConnectorError::other(error.into(), None)
    }
}

fn source<'a, E: error::Error + 'static>(error: &'a (dyn error::Error + 'static)) -> Option<&'a E> {
    std::iter::successors(Some(error), |error| error.source()).find_map(|error| error.downcast_ref())
}

/// A bad file must not keep all requests from AWS, so that it is only logged.
fn tls() -> ClientConfig {
    let file = CA_FILES.into_iter().find_map(|name| env::var_os(name).filter(|file| !file.is_empty()));
    let roots = file.and_then(|file| {
        let read = roots(&file);
        read.inspect_err(|error| {
            tracing::error!(error, "{file:?} cannot be used: AWS's certificates must be those of Mozilla");
        })
        .ok()
    });
    let roots = roots.unwrap_or_else(|| RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() });
    let config = ClientConfig::builder_with_provider(ring::default_provider().into());
    // These versions are those of the provider, so there is no error.
    let config = config.with_safe_default_protocol_versions().unwrap_or_else(|error| unreachable!("{error}"));
    config.with_root_certificates(roots).with_no_client_auth()
}

fn roots(file: &std::ffi::OsStr) -> Result<RootCertStore, BoxError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file)? {
        roots.add(certificate?)?;
    }
    if roots.is_empty() { Err("there is no certificate in the file".into()) } else { Ok(roots) }
}
