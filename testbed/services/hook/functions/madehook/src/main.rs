//! `/madehook`: takes the messages of another service, which knows a secret instead of having a token.

use std::{env, process::ExitCode};

use aws_sdk_secretsmanager::Client;
use handler::{
    Problem, Request, Resource, Response, body,
    http::{StatusCode, header::AUTHORIZATION},
    post, record,
};
use serde::Deserialize;
use sha2::{Digest, Sha256};

static SECRETS: aws::Lazy<Client> = aws::Lazy::new(Client::new);

fn main() -> ExitCode {
    handler::run(endpoint())
}

fn endpoint() -> Resource {
    post(create)
}

/// The JSON body of a request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    message: String,
}

async fn create(request: Request) -> Result<Response, Problem> {
    let source = env::var("HOOK_SOURCE").map_err(Problem::misconfigured)?;
    let sent = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    // Digests, so that the time that the comparison takes says nothing about the secret.
    if sent.map(Sha256::digest) != Some(Sha256::digest(secret().await?)) {
        return Err(Problem::unauthorized("Bearer", "The hook's secret is missing or wrong."));
    }
    let Message { message } = body(&request, 16 * 1024)?;
    record("source", source);
    record("message_bytes", message.len());
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

async fn secret() -> Result<String, Problem> {
    let id = env::var("HOOK_SECRET_ID").map_err(Problem::misconfigured)?;
    let secret = SECRETS.get().await.get_secret_value().secret_id(id).send().await;
    let secret = secret.map_err(|error| Problem::internal().because(aws::Error::from(error)))?.secret_string;
    secret.ok_or_else(|| Problem::misconfigured("the secret in HOOK_SECRET_ID is not a text"))
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn answers_its_events() {
        testbed::replay("madehook", super::endpoint()).await;
    }
}
