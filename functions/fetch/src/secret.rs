//! The upstream's bearer token, out of AWS Secrets Manager. Where no setting asks for one, none of this runs.

use std::{error::Error, fmt, time::Duration};

use aws_config::{BehaviorVersion, ConfigLoader, retry::RetryConfig};
use aws_sdk_secretsmanager::{Client, error::DisplayErrorContext, operation::get_secret_value::GetSecretValueError};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::SdkError};
use handler::http::HeaderValue;
use tokio::{
    sync::{Mutex, OnceCell},
    time::Instant,
};

use crate::failure::Failure;

/// How long a token is used before it is asked for anew.
const USED_FOR: Duration = Duration::from_mins(5);
/// A token that is younger than this is not asked for anew when the upstream refuses it: it would be the same.
const REFUSABLE_AFTER: Duration = Duration::from_secs(10);

/// A secret, loaded when it is first needed.
pub(crate) struct Secret {
    id: String,
    client: OnceCell<Client>,
    token: Mutex<Option<Token>>,
}

struct Token {
    authorization: HeaderValue,
    since: Instant,
}

impl Secret {
    pub(crate) fn new(id: String) -> Self {
        Self { id, client: OnceCell::new(), token: Mutex::new(None) }
    }

    /// The value of the `Authorization` header. Callers that need it at the same time load it once.
    pub(crate) async fn authorization(&self) -> Result<HeaderValue, Failure> {
        let mut token = self.token.lock().await;
        if let Some(token) = token.as_ref().filter(|token| token.since.elapsed() < USED_FOR) {
            return Ok(token.authorization.clone());
        }
        match self.load().await {
            Ok(authorization) => {
                *token = Some(Token { authorization: authorization.clone(), since: Instant::now() });
                Ok(authorization)
            }
            // An old token is more likely good than none.
            Err(Failure::SecretUnavailable(cause)) => match token.as_ref() {
                Some(token) => Ok(token.authorization.clone()),
                None => Err(Failure::SecretUnavailable(cause)),
            },
            Err(failure) => Err(failure),
        }
    }

    /// Forgets the token that the upstream refused. `false` if asking for another one would be of no use.
    pub(crate) async fn forget(&self, refused: &HeaderValue) -> bool {
        let mut token = self.token.lock().await;
        match token.as_ref() {
            Some(token) if token.authorization != refused => true,
            Some(token) if token.since.elapsed() < REFUSABLE_AFTER => false,
            _ => {
                *token = None;
                true
            }
        }
    }

    async fn load(&self) -> Result<HeaderValue, Failure> {
        let client = self.client.get_or_init(client).await;
        let secret = client.get_secret_value().secret_id(&self.id).send().await.map_err(|error| failure(&error))?;
        let token = secret.secret_string().map(str::trim).filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| Failure::misconfigured("the secret holds no text"))?;
        let mut authorization = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| Failure::misconfigured("the secret holds characters that no header may hold"))?;
        authorization.set_sensitive(true);
        Ok(authorization)
    }
}

async fn client() -> Client {
    // The SDK's TLS is reqwest's: two would be another megabyte.
    let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let config = ConfigLoader::default()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http)
        .retry_config(RetryConfig::standard().with_max_attempts(2))
        .load()
        .await;
    Client::new(&config)
}

/// Whose fault it is that there is no secret: the operator's, or a passing one of AWS or the network.
fn failure(error: &SdkError<GetSecretValueError, HttpResponse>) -> Failure {
    let operators = match error {
        SdkError::ConstructionFailure(_) => true,
        SdkError::ServiceError(service) => service.raw().status().is_client_error() && !is_throttling(service.err()),
        _ => false,
    };
    let cause = SecretError(DisplayErrorContext(error).to_string());
    if operators { Failure::misconfigured(cause) } else { Failure::SecretUnavailable(std::sync::Arc::new(cause)) }
}

fn is_throttling(error: &GetSecretValueError) -> bool {
    error.meta().code().is_some_and(|code| code.contains("Throttl") || code.contains("TooManyRequests"))
}

/// The SDK's error in words, which hold the request's id and what was wrong, and never the secret.
#[derive(Debug)]
struct SecretError(String);

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the secret of UPSTREAM_SECRET_ID could not be read: {}", self.0)
    }
}

impl Error for SecretError {}
