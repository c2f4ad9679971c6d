//! For tests and benches only, never shipped: Lambda's Runtime API, the functions as `make build` packaged them, and what the
//! crate `replay` has.

#![expect(clippy::expect_used, reason = "a test that cannot go on panics, and says why")]
#![allow(
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    reason = "so it is with all of it, and tests alone use it"
)]

pub mod budget;
mod callgrind;
pub mod contract;
mod function;
pub mod property;
mod runtime_api;
mod usage;
pub mod upstream {
    //! The server of [`replay::upstream`], and the faults that it can have.

    mod fault;

    pub use fault::Fault;
    pub use replay::upstream::*;
}

pub use function::{Function, example, outside_of_cargo, packaged, packaged_zip, write_executable};
pub use replay::{
    Call, Case, HttpAnswer, Invocation, InvocationResult, Request, Streamed, TRIGGERS, Tables, functions, has_items,
    has_upstream, replay, root, settings, steady_upstream, tested, upstreams,
};
pub use runtime_api::{Fault, Piece, RuntimeApi, Sent};
pub use usage::Usage;
