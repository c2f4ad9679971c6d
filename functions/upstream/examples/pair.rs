//! A function that calls two services, for tests/pair.rs. `GET /a,b/c` reads `a` and `b` of one, one after the other, and `c`
//! of the other at the same time; `-` is nothing. `POST /a/b` writes `a`, with a key if `b` is `key`.

use std::process::ExitCode;

use handler::{Problem, Request, Response, http::StatusCode, json, path};
use upstream::{Error, Upstream};

static PRICES: Upstream = Upstream::new("PRICES");
static RATES: Upstream = Upstream::new("RATES");

fn main() -> ExitCode {
    handler::run(handler::get(read).post(write).at("/{prices}/{rates}"))
}

async fn read(request: Request) -> Result<Response, Problem> {
    let (prices, rates) = (path(&request, "prices")?, path(&request, "rates")?);
    let (prices, rates) = tokio::try_join!(all(&PRICES, prices), all(&RATES, rates))?;
    json(StatusCode::OK, &[prices, rates])
}

async fn all(upstream: &Upstream, names: &str) -> Result<Vec<String>, Error> {
    let mut all = Vec::new();
    for name in names.split(',').filter(|name| *name != "-") {
        let response = upstream.get("/{}", [name]).send().await?;
        all.push(String::from_utf8_lossy(response.body()).into_owned());
    }
    Ok(all)
}

async fn write(request: Request) -> Result<Response, Problem> {
    let name = path(&request, "prices")?;
    let post = PRICES.post("/{}", [name]).with_json(&name);
    let post = if path(&request, "rates")? == "key" { post.idempotent() } else { post };
    json(StatusCode::CREATED, &post.send().await?.status().as_u16())
}
