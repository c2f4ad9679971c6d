//! The upstream's bearer token, from AWS Secrets Manager. None of this runs if no secret is configured.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use aws_sdk_secretsmanager::Client;
use handler::http::HeaderValue;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout_at},
};

use crate::failure::Failure;

/// How long a token is used before it is loaded again.
const USED_FOR: Duration = Duration::from_mins(5);
/// If the upstream refuses every token, the token is loaded again at most this often.
const REFUSED_EVERY: Duration = Duration::from_secs(10);
/// How long Secrets Manager is left alone after it did not return the secret.
const PAUSE: Duration = Duration::from_secs(5);

static SECRETS: aws::Lazy<Client> = aws::Lazy::new(Client::new);

/// A secret, loaded when it is first needed.
pub(crate) struct Secret {
    id: String,
    token: Mutex<Token>,
}

#[derive(Default)]
struct Token {
    authorization: Option<HeaderValue>,
    /// When it was loaded, unless it must be loaded again.
    since: Option<Instant>,
    refused: Option<Instant>,
    /// When it could not be loaded, and why.
    failed: Option<(Instant, Failure)>,
}

impl Secret {
    pub(crate) fn new(id: String) -> Self {
        Self { id, token: Mutex::default() }
    }

    /// The value of the `Authorization` header. Callers that need it at the same time load it once.
    pub(crate) async fn authorization(&self, deadline: Instant) -> Result<HeaderValue, Failure> {
        let authorization = timeout_at(deadline, self.current());
        authorization.await.unwrap_or_else(|_| Err(unavailable("the time for the request ran out")))
    }

    async fn current(&self) -> Result<HeaderValue, Failure> {
        let mut token = self.token.lock().await;
        let current = token.since.is_some_and(|since| since.elapsed() < USED_FOR);
        if let Some(authorization) = token.authorization.as_ref().filter(|_| current) {
            return Ok(authorization.clone());
        }
        let failure = match token.failed.take().filter(|(at, _)| at.elapsed() < PAUSE) {
            Some(failed) => token.failed.insert(failed).1.clone(),
            None => match self.load().await {
                Ok(authorization) => {
                    token.authorization = Some(authorization.clone());
                    token.since = Some(Instant::now());
                    return Ok(authorization);
                }
                Err(failure) => token.failed.insert((Instant::now(), failure)).1.clone(),
            },
        };
        match (failure, &token.authorization) {
            // An old token may still work.
            (Failure::SecretUnavailable(_), Some(authorization)) => Ok(authorization.clone()),
            (failure, _) => Err(failure),
        }
    }

    /// Makes the next request load the token again, because the upstream `refused` it. Returns `false` if that was done
    /// just before, so that it would not help.
    pub(crate) async fn refuse(&self, refused: &HeaderValue) -> bool {
        let mut token = self.token.lock().await;
        if token.authorization.as_ref() != Some(refused) {
            return true;
        }
        if token.refused.is_some_and(|at| at.elapsed() < REFUSED_EVERY) {
            return false;
        }
        token.refused = Some(Instant::now());
        token.since = None;
        true
    }

    async fn load(&self) -> Result<HeaderValue, Failure> {
        let secret = SECRETS.get().await.get_secret_value().secret_id(&self.id).send().await;
        let secret = secret.map_err(|error| failure(&error.into()))?;
        let token = secret.secret_string().map(str::trim).filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| Failure::misconfigured("the secret holds no text"))?;
        let mut authorization = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| Failure::misconfigured("the secret holds characters that no header may hold"))?;
        authorization.set_sensitive(true);
        Ok(authorization)
    }
}

/// Decides why there is no secret: a mistake of the operator, or a temporary fault of AWS or the network.
fn failure(error: &aws::Error) -> Failure {
    let is_throttling = error.code().is_some_and(|code| code.contains("Throttl") || code.contains("TooManyRequests"));
    match error.status() {
        Some(status @ 400..500) if !is_throttling && !matches!(status, 408 | 429) => {
            Failure::misconfigured(SecretError(error.to_string()))
        }
        _ => unavailable(error.to_string()),
    }
}

fn unavailable(words: impl Into<String>) -> Failure {
    Failure::SecretUnavailable(Arc::new(SecretError(words.into())))
}

/// Why the secret could not be read. See [`aws::Error`]: it contains nothing of the secret.
#[derive(Debug)]
struct SecretError(String);

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the secret of UPSTREAM_SECRET_ID could not be read: {}", self.0)
    }
}

impl Error for SecretError {}
