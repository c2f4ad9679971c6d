//! One call of the upstream: a request, and its response to the last byte or the reason why there is none.

use std::{
    env,
    error::Error,
    sync::{Arc, OnceLock},
};

use handler::{
    Problem,
    http::{HeaderValue, header::CONTENT_TYPE},
};
use reqwest::redirect::{Attempt, Policy};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::time::{Instant, timeout_at};

use crate::settings::Settings;

/// A file of certificates in PEM to trust instead of Mozilla's, which are compiled in: OpenSSL's variable.
const SSL_CERT_FILE: &str = "SSL_CERT_FILE";

const MAX_REDIRECTS: usize = 3;

/// Makes attempts. The HTTP client behind it, with its connections, comes to life with the first one.
#[derive(Default)]
pub(crate) struct Client(OnceLock<reqwest::Client>);

/// A good response of the upstream.
pub(crate) struct Fetched {
    pub(crate) body: Vec<u8>,
    pub(crate) content_type: Option<HeaderValue>,
}

impl Client {
    /// Fetches the upstream's URL, until `deadline` or for the time that one attempt may take.
    ///
    /// # Errors
    ///
    /// What the caller is told when this was the last attempt.
    pub(crate) async fn attempt(&self, settings: &Settings, deadline: Instant) -> Result<Fetched, Problem> {
        let client = self.client().map_err(Problem::misconfigured)?;
        let deadline = deadline.min(Instant::now() + settings.attempt_timeout);
        let response = exchange(client, settings);
        timeout_at(deadline, response).await.unwrap_or_else(|_| Err(Problem::upstream_timeout()))
    }

    fn client(&self) -> Result<&reqwest::Client, Box<dyn Error + Send + Sync>> {
        if let Some(client) = self.0.get() {
            return Ok(client);
        }
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(Policy::custom(follow))
            .referer(false)
            .tls_backend_preconfigured(tls()?)
            .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(self.0.get_or_init(|| client))
    }
}

async fn exchange(client: &reqwest::Client, settings: &Settings) -> Result<Fetched, Problem> {
    let mut response = client.get(settings.url.clone()).send().await.map_err(unreachable)?;
    if !response.status().is_success() {
        return Err(Problem::upstream_error(response.status()));
    }
    let limit = settings.max_body_bytes;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > limit {
            return Err(Problem::upstream_response_too_large(limit));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Fetched { body, content_type: response.headers_mut().remove(CONTENT_TYPE) })
}

/// The error goes to the log, so it goes without the URL, whose query may be secret.
fn unreachable(error: reqwest::Error) -> Problem {
    Problem::upstream_unreachable().because(error.without_url())
}

/// Follows a redirect within the origin that the operator named, and nowhere else. A response that is not followed is
/// an error like any other that is no success.
fn follow(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let same_origin = attempt.previous().first().is_some_and(|first| first.origin() == attempt.url().origin());
    if same_origin && attempt.previous().len() <= MAX_REDIRECTS { attempt.follow() } else { attempt.stop() }
}

fn tls() -> Result<ClientConfig, Box<dyn Error + Send + Sync>> {
    let mut roots = RootCertStore::empty();
    match env::var_os(SSL_CERT_FILE) {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(file) => {
            for certificate in CertificateDer::pem_file_iter(file)? {
                roots.add(certificate?)?;
            }
        }
    }
    Ok(ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
