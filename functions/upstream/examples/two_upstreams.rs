//! An endpoint with two upstreams and any number of their URLs. `functions/upstream/tests/test_fleet.py` tests with it what
//! environments share.

use std::process::ExitCode;

use handler::{Problem, Request, Response, get, path, query};
use upstream::Upstream;

static PRICES: Upstream = Upstream::new("PRICES");
static RATES: Upstream = Upstream::new("RATES");

fn main() -> ExitCode {
    handler::run(get(pass_on).put(change).at("/{upstream}/{item}"))
}

/// Answers with an item, in the language that the caller wants, and as it arrives if `streamed` says so.
async fn pass_on(request: Request) -> Result<Response, Problem> {
    let mut sent = upstream(&request)?.get("/{}", [path(&request, "item")?]);
    if let Some(language) = request.headers().get("accept-language") {
        sent = sent.header("accept-language", language);
    }
    if query(&request, "streamed", 4)?.is_some() {
        return Ok(sent.stream().await?.pass_on(&request));
    }
    Ok(sent.send().await?.pass_on(&request))
}

/// Changes an item, and answers with what it is then.
async fn change(request: Request) -> Result<Response, Problem> {
    upstream(&request)?.put("/{}", [path(&request, "item")?]).send().await?;
    pass_on(request).await
}

fn upstream(request: &Request) -> Result<&'static Upstream, Problem> {
    Ok(if path(request, "upstream")? == "rates" { &RATES } else { &PRICES })
}
