//! AWS clients, made when a request first needs one, so that no cold start pays for the configuration. An endpoint without
//! a client does not depend on this crate.
//!
//! ```no_run
//! use aws_sdk_secretsmanager::Client;
//! use handler::{Problem, Request, Response, negotiate};
//!
//! static SECRETS: aws::Lazy<Client> = aws::Lazy::new(Client::new);
//!
//! async fn secrets(request: Request) -> Result<Response, Problem> {
//!     let secrets = SECRETS.get().await.list_secrets().send().await;
//!     let secrets = secrets.map_err(aws::Error::from)?;
//!     negotiate(&request, &secrets.secret_list().len())
//! }
//! ```
//!
//! The requests carry the trace of the invocation that they are made for. An error becomes an [`Error`], and
//! with `?` the problem that fits: the SDK's own may print a secret.

mod error;
mod http;
mod resolve;
mod trace;

use std::{env, time::Duration};

use aws_config::{
    BehaviorVersion, Region, ecs::EcsCredentialsProvider, environment::EnvironmentVariableCredentialsProvider,
    meta::credentials::CredentialsProviderChain, provider_config::ProviderConfig, retry::RetryConfig,
    timeout::TimeoutConfig,
};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_async::rt::sleep::{SharedAsyncSleep, TokioSleep};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_types::service_config::{LoadServiceConfig, ServiceConfigKey};
use http::Http;
use tokio::sync::OnceCell;

pub use aws_config::SdkConfig;
pub use error::Error;
pub use resolve::{ResolveError, Resolver};

/// How long an operation may take, retries included, if [`TIMEOUT_MS`] does not say it: only part of a request's time.
pub const TIMEOUT: Duration = Duration::from_secs(1);

/// The environment variable that says how many milliseconds an operation may take, instead of [`TIMEOUT`].
pub const TIMEOUT_MS: &str = "AWS_OPERATION_TIMEOUT_MS";

/// A client of an AWS service, made on first use. All clients share one configuration and its connections.
///
/// An operation is tried at most twice, and takes at most [`TIMEOUT`] or [`TIMEOUT_MS`]. For other limits, change the configuration that
/// the client is made from, with [`timeouts`]: `aws::Lazy::new(|config| Client::new(&config.to_builder()…build()))`.
#[derive(Debug)]
pub struct Lazy<C> {
    client: OnceCell<C>,
    new: fn(&SdkConfig) -> C,
}

impl<C> Lazy<C> {
    /// Returns a `Lazy` that makes its client with `new`.
    pub const fn new(new: fn(&SdkConfig) -> C) -> Self {
        Self { client: OnceCell::const_new(), new }
    }

    /// Returns the client. The first call takes some milliseconds.
    pub async fn get(&self) -> &C {
        self.client.get_or_init(async || (self.new)(config().await)).await
    }
}

/// Returns the region, the credentials and the other settings from AWS's environment variables, loaded on first use.
pub async fn config() -> &'static SdkConfig {
    static CONFIG: OnceCell<SdkConfig> = OnceCell::const_new();
    CONFIG.get_or_init(async || load()).await
}

/// Returns the time limits of a client whose operations may take `operation`, retries included.
#[must_use]
pub fn timeouts(operation: Duration) -> TimeoutConfig {
    // Packets can be lost. This leaves time to try another connection.
    let connect = operation * 2 / 5;
    TimeoutConfig::builder().operation_timeout(operation).connect_timeout(connect).build()
}

/// The limit that the variable sets. A bad one must not keep all requests from AWS, so that it is only logged.
fn timeout(setting: Option<String>) -> Duration {
    let Some(setting) = setting.filter(|setting| !setting.is_empty()) else { return TIMEOUT };
    setting.parse().ok().filter(|ms| *ms > 0).map_or_else(
        || {
            tracing::error!("{TIMEOUT_MS} must be a whole number of milliseconds above 0; {TIMEOUT:?} is used instead");
            TIMEOUT
        },
        Duration::from_millis,
    )
}

/// Reads what Lambda puts into the environment. The SDK's own loader also looks for profiles, web identities and an
/// instance's metadata, which no function has: its code is a twelfth of a function's zip.
fn load() -> SdkConfig {
    let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let is_true = |name: &str| set(name).is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let resolver = Resolver::default();
    let http = SharedHttpClient::new(Http::new(resolver.clone()));
    // An environment that Lambda restored from a snapshot asks for its credentials, as a container does.
    let container = ProviderConfig::empty().with_http_client(http.clone());
    let container = EcsCredentialsProvider::builder().configure(&container).dns(resolver).build();
    let credentials = CredentialsProviderChain::first_try("Environment", EnvironmentVariableCredentialsProvider::new());
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(set("AWS_REGION").or_else(|| set("AWS_DEFAULT_REGION")).map(Region::new))
        .credentials_provider(SharedCredentialsProvider::new(credentials.or_else("Container", container)))
        .http_client(http)
        .sleep_impl(SharedAsyncSleep::new(TokioSleep::new()))
        .retry_config(RetryConfig::standard().with_max_attempts(2).with_initial_backoff(Duration::from_millis(50)))
        .timeout_config(timeouts(timeout(env::var(TIMEOUT_MS).ok())))
        .use_fips(is_true("AWS_USE_FIPS_ENDPOINT"))
        .use_dual_stack(is_true("AWS_USE_DUALSTACK_ENDPOINT"))
        .service_config(OfServices);
    match set("AWS_ENDPOINT_URL") {
        Some(url) => config.endpoint_url(url),
        None => config,
    }
    .build()
}

/// The settings of single services, such as `AWS_ENDPOINT_URL_DYNAMODB`:
/// <https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html>
#[derive(Debug)]
struct OfServices;

impl LoadServiceConfig for OfServices {
    fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
        let service = key.service_id().to_uppercase().replace(' ', "_");
        env::var(format!("{}_{service}", key.env())).ok().filter(|value| !value.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operations_limit_can_be_set() {
        for (setting, milliseconds) in [
            (None, 1000),
            (Some(""), 1000),
            (Some("60000"), 60000),
            (Some("0"), 1000),
            (Some("-5"), 1000),
            (Some("1s"), 1000),
        ] {
            assert_eq!(timeout(setting.map(str::to_owned)), Duration::from_millis(milliseconds), "{setting:?}");
        }
    }
}
