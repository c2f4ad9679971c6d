//! `POST /webhook`: events of another service, which signs them as Stripe does: an HMAC-SHA256 of the time and the body.
//!
//! GitHub signs the body alone (`X-Hub-Signature-256: sha256=…`): then `check` has no time to check.

use std::{
    env,
    process::ExitCode,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use handler::{Problem, Request, Resource, Response, after_response, body, bytes, http::StatusCode, post, record};
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha2::Sha256;

const WEBHOOK_SECRET: &str = "WEBHOOK_SECRET";

/// How old a signature may be, and how far in the future, because clocks differ.
const MOST_AGE: Duration = Duration::from_mins(5);

const MOST_BYTES: usize = 256 * 1024;

fn main() -> ExitCode {
    handler::run(webhook(env::var(WEBHOOK_SECRET).ok()))
}

pub(crate) fn webhook(secret: Option<String>) -> Resource {
    let secret: Option<Arc<str>> = secret.filter(|secret| !secret.is_empty()).map(Into::into);
    post(move |request| {
        let secret = secret.clone();
        async move { receive(secret.as_deref(), &request) }
    })
}

#[derive(Deserialize)]
struct Event {
    id: String,
}

fn receive(secret: Option<&str>, request: &Request) -> Result<Response, Problem> {
    let secret = secret.ok_or_else(|| Problem::misconfigured(format!("{WEBHOOK_SECRET} is not set")))?;
    let signature = request.headers().get("webhook-signature").and_then(|header| header.to_str().ok());
    check(secret.as_bytes(), signature.unwrap_or_default(), bytes(request, MOST_BYTES)?, SystemTime::now())?;
    let event: Event = body(request, MOST_BYTES)?;
    // The sender waits for the answer, and not for the work. If the work fails, the sender does not send the event again:
    // what must not be lost goes into a queue first.
    // Within the time that a signature is valid, and whenever the sender gets no answer, an event can come again: real work
    // looks up its id first.
    after_response(async move { record("event", event.id) });
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// Checks a signature such as `t=1795344091,v1=6b2a…`. While the secret changes, there is one `v1` for each secret.
fn check(secret: &[u8], signature: &str, body: &[u8], now: SystemTime) -> Result<(), Problem> {
    let refused = || Problem::forbidden("The signature is missing, wrong or too old.");
    let values = |name| signature.split(',').filter_map(move |part| part.trim().strip_prefix(name)?.strip_prefix('='));
    let time = values("t").next().ok_or_else(refused)?;
    let signed_at = time.parse().ok().and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    let signed_at = signed_at.ok_or_else(refused)?;
    let age = now.duration_since(signed_at).unwrap_or_else(|ahead| ahead.duration());
    let mut hmac = Hmac::<Sha256>::new_from_slice(secret).map_err(Problem::misconfigured)?;
    hmac.update(time.as_bytes());
    hmac.update(b".");
    hmac.update(body);
    // `verify_slice` takes the same time for each wrong signature: nobody can guess a right one byte by byte.
    let is_right = values("v1").filter_map(from_hex).any(|tag| hmac.clone().verify_slice(&tag).is_ok());
    if is_right && age <= MOST_AGE { Ok(()) } else { Err(refused()) }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let bytes = (0..text.len()).step_by(2);
    bytes.map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}
