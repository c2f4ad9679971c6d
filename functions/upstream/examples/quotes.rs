//! An endpoint that calls two services: the example of docs/upstream.md. `tests/quotes.rs` tests it with services that
//! fail.

use std::process::ExitCode;

use handler::{Problem, Request, Resource, Response, body, get, http::StatusCode, json, path};
use serde::{Deserialize, Serialize};
use tokio::try_join;
use upstream::Upstream;

static PRICES: Upstream = Upstream::new("PRICES");
static RATES: Upstream = Upstream::new("RATES");

fn main() -> ExitCode {
    handler::run(quotes())
}

fn quotes() -> Resource {
    get(quote).post(order).at("/quotes/{symbol}")
}

async fn quote(request: Request) -> Result<Response, Problem> {
    let symbol = path(&request, "symbol")?;
    let price = PRICES.get("/v1/prices/{}", [symbol]).query("currency", "EUR").json::<Price>();
    let (price, rate) = try_join!(price, RATES.get("/rates/EUR", []).json::<Rate>())?;
    json(StatusCode::OK, &Quote { symbol, dollars: price.euros * rate.dollars })
}

async fn order(request: Request) -> Result<Response, Problem> {
    let order: NewOrder = body(&request, 1024)?;
    let placed = PRICES.post("/v1/orders/{}", [path(&request, "symbol")?]).with_json(&order).json::<Order>().await;
    match placed {
        Err(error) if error.status() == Some(StatusCode::CONFLICT) => Err(Problem::conflict("The price has changed.")),
        placed => json(StatusCode::CREATED, &placed?),
    }
}

#[derive(Deserialize)]
struct Price {
    euros: f64,
}

#[derive(Deserialize)]
struct Rate {
    dollars: f64,
}

#[derive(Serialize)]
struct Quote<'a> {
    symbol: &'a str,
    dollars: f64,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct NewOrder {
    euros: f64,
}

#[derive(Deserialize, Serialize)]
struct Order {
    id: u64,
}
