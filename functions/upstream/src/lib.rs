//! Calls of other services, from any endpoint: a deadline, retries with a budget, a circuit breaker, a cache that can
//! answer instead of a failing upstream, and a problem for each way in which a call can fail.
//!
//! ```no_run
//! use handler::{Problem, Request, Response, negotiate, path};
//! use serde::Deserialize;
//! use upstream::Upstream;
//!
//! static PRICES: Upstream = Upstream::new("PRICES"); // PRICES_URL, PRICES_SECRET_ID, PRICES_TIMEOUT_MS, …
//! static RATES: Upstream = Upstream::new("RATES");
//!
//! #[derive(Deserialize)]
//! struct Price {
//!     cents: f64,
//! }
//!
//! async fn quote(request: Request) -> Result<Response, Problem> {
//!     let symbol = path(&request, "symbol")?;
//!     let price = PRICES.get("/v1/prices/{}", [symbol]).json::<Price>();
//!     let rate = RATES.get("/rates", []).query("currency", "EUR").json::<f64>();
//!     let (price, rate) = tokio::try_join!(price, rate)?;
//!     negotiate(&request, &(price.cents * rate))
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     handler::run(handler::get(quote).at("/quotes/{symbol}"))
//! }
//! ```
//!
//! # Settings
//!
//! Environment variables. Those of the upstream `PRICES`; an empty one counts as unset:
//!
//! | name | default | meaning |
//! | --- | --- | --- |
//! | `PRICES_URL` | none | where it is: `https`, or `http` to a loopback address |
//! | `PRICES_SECRET_ID` | none | a Secrets Manager secret, sent as `Authorization: Bearer …` |
//! | `PRICES_SECRET_JSON_KEY` | none | the member that is the token, if the secret is a JSON object |
//! | `PRICES_TIMEOUT_MS` | 5000 | for a request, retries included; Lambda's deadline counts too |
//! | `PRICES_ATTEMPT_TIMEOUT_MS` | 2000 | for one attempt, from connect to the last byte |
//! | `PRICES_IDLE_TIMEOUT_MS` | 30000 | how long nothing may arrive of a body that is passed on as it arrives; needs the feature `stream` |
//! | `PRICES_MAX_ATTEMPTS` | 3 | the first one included |
//! | `PRICES_HEDGE_AFTER_MS` | none | if there is no head of a response by then, a request that may be repeated is also sent on another connection |
//! | `PRICES_SLOW_CALL_MS` | none | an attempt that takes this long counts as a failure for the circuit breaker, whatever its result |
//! | `PRICES_MAX_BODY_BYTES` | 4194304 | of a response, after decompression |
//! | `PRICES_STALE_IF_ERROR_SECONDS` | `STALE_IF_ERROR_SECONDS`, or 3600 | how long a stale response may be used instead of an error; 0: never |
//! | `PRICES_CA_FILE` | `SSL_CERT_FILE`, or none | certificates in PEM to trust instead of Mozilla's |
//! | `SHARED_STATE_TABLE` | none | a DynamoDB table with which environments share responses and the upstream's health; needs the feature `fleet` |
//! | `SHARED_STATE_TIMEOUT_MS` | 40 | how much of a request's time the table may take, and at most half of it |
//!
//! # Features
//!
//! `fleet` links what `SHARED_STATE_TABLE` needs, the client of DynamoDB. An endpoint asks for it in its Cargo.toml:
//! `upstream = { workspace = true, features = ["fleet"] }`. `stream` has `Request::stream`, which passes a body on as it arrives.
//!
//! The modules, in the order in which a request meets them: `request` says what is sent, and `target` where. `upstream`
//! answers it from the `cache`, whose [`freshness`] decides how an `entry` may be used, or from a `call`. `retry` and
//! `breaker` decide when the upstream is called. `fleet` exchanges this with other environments. `secret` loads
//! the upstream's token, `attempt` makes one attempt: `client` chooses the `connection`, `tls` says whom it trusts, and
//! `coding` decodes the response. `error` lists how a call can fail, `line` logs what it cost, and `response` is what the author gets,
//! or `stream`, if the body is still arriving.

// Only the fleet's memory reads some of it.
#![cfg_attr(not(feature = "fleet"), allow(dead_code))]

mod attempt;
mod breaker;
mod cache;
pub mod cache_control;
mod cache_status;
mod call;
mod client;
mod coding;
mod connection;
mod entry;
mod error;
mod fleet;
pub mod freshness;
mod line;
mod request;
mod response;
mod retry;
mod secret;
mod settings;
#[cfg(feature = "stream")]
mod stream;
mod target;
mod tls;
mod upstream;

pub use error::Error;
pub use request::Request;
pub use response::Response;
#[cfg(feature = "stream")]
pub use stream::StreamedResponse;
pub use upstream::Upstream;
