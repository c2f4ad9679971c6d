//! An invocation of a function, and its outcome.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use crate::Call;

/// One event for a function, with what Lambda says about it.
#[derive(Clone)]
#[must_use]
pub struct Invocation {
    /// The event.
    pub payload: Vec<u8>,
    /// Unique in this process, in the form of a UUID.
    pub request_id: String,
    /// When Lambda will give up on it, in milliseconds since 1970.
    pub deadline_ms: u64,
    /// Its X-Ray trace, as unique as `request_id`, in the form of an `X-Amzn-Trace-Id`.
    pub trace_id: String,
    /// Other headers, and headers that are left out.
    pub headers: Vec<(&'static str, Option<&'static str>)>,
}

impl Invocation {
    /// An invocation with a deadline in ten seconds.
    pub fn new(payload: impl Into<Vec<u8>>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let invocation = Self {
            payload: payload.into(),
            request_id: format!("00000000-0000-4000-8000-{number:012}"),
            deadline_ms: 0,
            trace_id: format!("Root=1-5759e988-{number:024x};Parent=53995c3f42cd8ad8;Sampled=1"),
            headers: Vec::new(),
        };
        invocation.with_timeout(Duration::from_secs(10))
    }

    /// A `GET` request through an HTTP API, for `path`, which may have a query, with `headers`.
    pub fn get(path: &str, headers: &[(&str, &str)]) -> Self {
        Self::new(Call::get(path, headers).event_of("http-api", "testbed").to_string())
    }

    /// A request for `path` with any `method` and a body in JSON, through an HTTP API.
    pub fn with_json(method: &str, path: &str, body: &str) -> Self {
        let call = Call::get(path, &[("content-type", "application/json")]);
        let call = Call { method: method.to_owned(), body: Some((body.to_owned(), false)), ..call };
        Self::new(call.event_of("http-api", "testbed").to_string())
    }

    /// The same with a deadline after `timeout`.
    pub fn with_timeout(self, timeout: Duration) -> Self {
        let deadline = SystemTime::now() + timeout;
        let deadline = deadline.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        Self { deadline_ms: deadline.try_into().unwrap_or(u64::MAX), ..self }
    }

    /// The same with the header `name`, or without it.
    pub fn with_header(mut self, name: &'static str, value: Option<&'static str>) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// What a function sends for an invocation, in the words of the Runtime API.
#[derive(Clone, Debug)]
pub enum InvocationResult {
    /// The response for the trigger, in JSON.
    Response(String),
    /// The message of the error that it reported instead.
    Error(String),
    /// The response for a trigger that streams.
    Stream(Streamed),
}

/// A streamed response, as far as it came.
/// <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-custom.html#runtimes-custom-response-streaming>
#[derive(Clone, Debug, Default)]
pub struct Streamed {
    /// The status, headers and cookies, in JSON.
    pub prelude: String,
    /// The body.
    pub body: Vec<u8>,
    /// The trailers, which report an error.
    pub trailers: BTreeMap<String, String>,
    /// Whether the connection failed before the end.
    pub is_broken: bool,
}
