//! `fetch` with a mistake: it loads AWS's configuration before a request needs it. functions/fetch/tests/budget.rs checks that
//! the budget catches such a start.

use std::process::ExitCode;

use handler::{Problem, Request, Response};
use tokio::runtime::Builder;
use upstream::Upstream;

static UPSTREAM: Upstream = Upstream::new("UPSTREAM").known_as("fetch");

fn main() -> ExitCode {
    let tokio = Builder::new_current_thread().enable_all().build();
    let _config = tokio.map(|tokio| tokio.block_on(aws::config()));
    handler::run(fetch)
}

async fn fetch(request: Request) -> Result<Response, Problem> {
    Ok(UPSTREAM.get("", []).send().await?.pass_on(&request))
}
