//! `fetch` with another name for its upstream, `PRICES`, and a second one beside it, `RATES`, which is called if
//! `RATES_URL` is set and has no influence on the answer. The tests of `fetch` run with it once more.

use std::{env, process::ExitCode};

use handler::{Problem, Request, Response};
use tokio::join;
use upstream::Upstream;

static PRICES: Upstream = Upstream::new("PRICES").known_as("fetch");
static RATES: Upstream = Upstream::new("RATES");

fn main() -> ExitCode {
    handler::run(pair)
}

async fn pair(request: Request) -> Result<Response, Problem> {
    let rates = async {
        if env::var_os("RATES_URL").is_some() {
            let _failure = RATES.get("", []).send().await;
        }
    };
    let (prices, ()) = join!(PRICES.get("", []).send(), rates);
    Ok(prices?.pass_on(&request))
}
