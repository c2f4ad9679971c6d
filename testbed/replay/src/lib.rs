//! Replays what is in `events/` against an endpoint: each case is a request and the answer that it must get, through every
//! trigger of Lambda that can carry it. From the event to the answer, the code that runs is that of Lambda.
//!
//! `events/greeting/plain.json`, beside the workspace's Cargo.lock:
//!
//! ```json
//! {
//!   "request": { "path": "/greeting?name=Ada" },
//!   "answer": { "status": 200, "headers": { "content-type": "text/plain; charset=utf-8" }, "body": "Hello, Ada!" }
//! }
//! ```
//!
//! In the tests of the endpoint:
//!
//! ```no_run
//! # async fn greeting(_: handler::Request) -> Result<handler::Response, handler::Problem> { todo!() }
//! #[tokio::test]
//! async fn answers_its_events() {
//!     replay::replay("greeting", greeting).await;
//! }
//! ```
//!
//! All of it panics if it cannot go on, as when a case or the settings of a function are malformed; the message says why.
//!
//! [`Case`] has the cases one by one, for tests that send them elsewhere, and [`Call`] makes any request's event.

#![expect(clippy::expect_used, reason = "a test that cannot go on panics, and says why")]
#![allow(clippy::missing_errors_doc, clippy::missing_panics_doc, reason = "said of all, or where the item is")]
#![allow(clippy::must_use_candidate, reason = "a test whose result is not used does no harm")]

mod call;
mod case;
mod invocation;
mod tables;
#[cfg(feature = "upstream")]
pub mod upstream;

pub use call::{Call, Request, TRIGGERS};
pub use case::{Case, functions, has_items, has_upstream, replay, root, upstreams};
#[doc(hidden)]
pub use case::{assert_declared, tested};
#[cfg(feature = "upstream")]
pub use case::{settings, steady_upstream};
pub use invocation::{HttpAnswer, Invocation, InvocationResult, Streamed};
pub use tables::Tables;
