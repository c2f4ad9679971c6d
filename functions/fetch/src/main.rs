//! `GET /fetch`: the body of the one upstream that the operator configured.

use std::process::ExitCode;

use handler::{Problem, Request, Response};
use upstream::Upstream;

/// The settings are environment variables: `UPSTREAM_URL` says what is fetched.
static UPSTREAM: Upstream = Upstream::new("UPSTREAM").known_as("fetch");

fn main() -> ExitCode {
    handler::run(fetch)
}

/// Passes the upstream's response on. A failure becomes the problem that says what was wrong with the upstream.
async fn fetch(request: Request) -> Result<Response, Problem> {
    let response = UPSTREAM.get("", []).send().await?;
    Ok(response.pass_on(&request))
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn answers_its_events() {
        testbed::replay("fetch", super::fetch).await;
    }
}
