//! For tests and benches only, never shipped: event payloads and the answers they must get, Lambda's Runtime API, and
//! the functions as `make build` packaged them.

#![expect(clippy::expect_used, reason = "a test that cannot go on panics, and says why")]

pub mod budget;
mod call;
mod callgrind;
mod case;
mod function;
mod http_answer;
pub mod property;
mod runtime_api;
mod tables;
pub mod upstream;
mod usage;

pub use call::{Call, Request, TRIGGERS};
pub use case::{Case, Cases, functions, has_items, has_upstream, replay, root, settings, steady_upstream, upstreams};
pub use function::{Function, example, outside_of_cargo, packaged, packaged_zip, unpacked, write_executable};
pub use http_answer::HttpAnswer;
pub use runtime_api::{Fault, Invocation, InvocationResult, Piece, RuntimeApi, Sent, Streamed};
pub use tables::Tables;
pub use usage::Usage;
