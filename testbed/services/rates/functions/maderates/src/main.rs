//! `/maderates/{currency}`: an exchange rate, from the list of another service.

use std::{collections::BTreeMap, env, process::ExitCode, sync::OnceLock, time::Duration};

use handler::{Problem, Request, Resource, Response, get, http::StatusCode, json, path};
use reqwest::Client;
use serde::Serialize;

fn main() -> ExitCode {
    handler::run(endpoint())
}

fn endpoint() -> Resource {
    get(read).at("/maderates/{currency}")
}

/// The JSON body of an answer.
#[derive(Serialize)]
struct Rate<'a> {
    currency: &'a str,
    rate: f64,
}

async fn read(request: Request) -> Result<Response, Problem> {
    let currency = path(&request, "currency")?;
    let url = env::var("RATES_URL").map_err(Problem::misconfigured)?;
    let timeout =
        env::var("RATES_TIMEOUT_MS").map_or(Ok(2000), |timeout| timeout.parse()).map_err(Problem::misconfigured)?;
    let rates = client()?.get(url).timeout(Duration::from_millis(timeout)).send().await.map_err(failed)?;
    if !rates.status().is_success() {
        return Err(Problem::upstream_error(rates.status()));
    }
    let rates: BTreeMap<String, f64> = rates.json().await.map_err(failed)?;
    let rate = *rates.get(currency).ok_or_else(|| Problem::not_found("There is no rate of this currency."))?;
    json(StatusCode::OK, &Rate { currency, rate })
}

/// The client of all requests, which keeps connections. It is made when a request first needs it.
fn client() -> Result<&'static Client, Problem> {
    static CLIENT: OnceLock<Client> = OnceLock::new();
    if let Some(client) = CLIENT.get() {
        return Ok(client);
    }
    // It fails if another request was quicker.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().build().map_err(|error| Problem::internal().because(error))?;
    Ok(CLIENT.get_or_init(|| client))
}

fn failed(error: reqwest::Error) -> Problem {
    let problem = if error.is_timeout() { Problem::upstream_timeout() } else { Problem::upstream_unreachable() };
    // Without the URL, which may hold a secret.
    problem.because(error.without_url())
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn answers_its_events() {
        testbed::replay("maderates", super::endpoint()).await;
    }
}
