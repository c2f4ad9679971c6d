//! The code that all endpoints share. Code that only one endpoint needs does not belong here.
//!
//! An endpoint is an async function from a [`Request`] to a [`Response`] or a [`Problem`]; [`run()`] is its `main`:
//!
//! ```no_run
//! use handler::{Problem, Request, Response, negotiate, query};
//!
//! fn main() -> std::process::ExitCode {
//!     handler::run(square)
//! }
//!
//! async fn square(request: Request) -> Result<Response, Problem> {
//!     let number = query(&request, "number", 5)?.unwrap_or("1".into());
//!     let number: u64 = number
//!         .parse()
//!         .map_err(|_| Problem::invalid_parameter("`number` must be a whole number."))?;
//!     negotiate(&request, &(number * number))
//! }
//! ```
//!
//! This endpoint answers `GET` and `HEAD`. [`get()`], [`post()`] and the like make an endpoint with several methods, and
//! [`routes()`] one with several paths. A request may have a [`body()`], parameters in its [`path()`], a [`claim()`] about
//! its caller, and the caller's [certificate](client_certificate()); docs/requests.md lists by task what else it may have, and
//! what an answer may be, and docs/streams.md how to send one in pieces. [`service()`] runs a tower service, such as an axum
//! router, and [`Endpoint::layer`] puts a tower layer around an endpoint.
//!
//! [`run()`] does everything around that function: the tokio runtime, Lambda's loop, methods, common headers, the
//! deadline, panics, and the log line.

mod answer;
#[cfg(feature = "axum")]
pub mod axum;
mod background;
mod body;
mod bounded;
mod caller;
mod caught;
mod client;
#[cfg(feature = "cookie")]
mod cookies;
mod deadline;
mod endpoint;
mod etag;
mod event;
mod faults;
mod file;
mod form;
mod lambda;
mod log;
mod multipart;
mod negotiate;
mod parameters;
mod path;
mod pieces;
mod problem;
mod respond;
mod run;
#[cfg(feature = "serve")]
mod serve;
mod service;
#[cfg(feature = "stream")]
mod stream;
mod trace;
mod trigger;

pub use background::{after_response, spawn};
pub use body::{body, bytes, is_stream, json};
pub use bounded::{Int, OutOfBounds, Text};
pub use caller::{
    ClientCertificate, IamIdentity, api_id, claim, claims, client_address, client_certificate, iam_identity,
    lambda_context, request_context, scopes, stage,
};
#[cfg(feature = "cookie")]
pub use cookie;
#[cfg(feature = "cookie")]
pub use cookies::{cookies, set_cookies};
pub use deadline::deadline;
pub use endpoint::{Endpoint, Resource, Routes, delete, get, patch, post, put, routes};
pub use etag::{ETag, lists_etag, precondition, required_precondition};
pub use file::{Disposition, file, redirect};
pub use form::form;
pub use lambda_http::{Body, Context, Error, Request, http};
pub use log::{Value, count, count_with, record, record_with};
pub use multipart::{Part, multipart};
pub use negotiate::{negotiate, weighted};
pub use parameters::{parameters, query};
pub use path::path;
pub use problem::Problem;
pub use run::{invoke, observe, run};
pub use service::{EndpointService, ServiceEndpoint, service};
#[cfg(feature = "stream")]
pub use stream::{Events, Pieces, ServerSentEvent, server_sent_events, stream, stream_body};
pub use trace::{current_trace, trace_headers};
pub use trigger::takes_binary;

/// The code in docs/requests.md.
#[cfg(all(doctest, feature = "cookie"))]
#[doc = include_str!("../../../docs/requests.md")]
struct Requests;

/// An HTTP response with its whole body in memory, as Lambda needs it.
pub type Response = http::Response<Body>;
