//! An invocation of a function, its outcome, and the HTTP answer in that.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::Value;

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
        Self::new(Call::get(path, headers).event("http-api", "testbed").expect("an event").to_string())
    }

    /// A request for `path` with any `method` and a body in JSON, through an HTTP API.
    pub fn with_json(method: &str, path: &str, body: &str) -> Self {
        let call = Call::get(path, &[("content-type", "application/json")]);
        let call = Call { method: method.to_owned(), body: Some((body.to_owned(), false)), ..call };
        Self::new(call.event("http-api", "testbed").expect("an event").to_string())
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

/// An answer as the trigger sends it to the caller.
#[derive(Debug, PartialEq)]
pub struct HttpAnswer {
    /// The status.
    pub status: u16,
    /// The headers, with names in lower case. Several with one name are joined with commas.
    pub headers: BTreeMap<String, String>,
    /// The body as text, decoded from base64.
    pub body: String,
    /// The same as bytes.
    pub bytes: Vec<u8>,
}

/// The JSON that a function returns to any HTTP trigger.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TriggerAnswer {
    status_code: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    multi_value_headers: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    cookies: Vec<String>,
    body: Option<String>,
    #[serde(default)]
    is_base64_encoded: bool,
}

impl HttpAnswer {
    /// Reads the answer as a trigger does that reads only `multiValueHeaders`, or only `headers`. The error is what is wrong with it.
    pub fn read(answer: &str, multi_value_headers: bool) -> Result<Self, String> {
        let answer: TriggerAnswer =
            serde_json::from_str(answer).map_err(|error| format!("{error} in the answer {answer}"))?;
        let mut headers = if multi_value_headers {
            answer.multi_value_headers.into_iter().map(|(name, values)| (name, values.join(", "))).collect()
        } else {
            answer.headers
        };
        if !answer.cookies.is_empty() {
            headers.insert("set-cookie".into(), answer.cookies.join(", "));
        }
        let body = answer.body.unwrap_or_default();
        let bytes = if answer.is_base64_encoded {
            BASE64_STANDARD.decode(&body).map_err(|error| format!("{error} in the body {body}"))?
        } else {
            body.into_bytes()
        };
        Ok(Self { status: answer.status_code, headers, body: String::new(), bytes: Vec::new() }.with_body(bytes))
    }

    /// Reads a whole outcome as the trigger does. A streamed one has its headers in `headers`, whatever the trigger reads
    /// otherwise. The error is what is wrong with it, or why there is no answer.
    pub fn of(outcome: &InvocationResult, multi_value_headers: bool) -> Result<Self, String> {
        match outcome {
            InvocationResult::Response(answer) => Self::read(answer, multi_value_headers),
            InvocationResult::Error(message) => Err(format!("the invocation failed: {message}")),
            InvocationResult::Stream(Streamed { prelude, body, trailers, is_broken: false }) if trailers.is_empty() => {
                Ok(Self::read(prelude, false)?.with_body(body.clone()))
            }
            InvocationResult::Stream(failed) => Err(format!("the stream failed: {failed:?}")),
        }
    }

    fn with_body(self, bytes: Vec<u8>) -> Self {
        Self { body: String::from_utf8_lossy(&bytes).into_owned(), bytes, ..self }
    }

    /// The value of a header. Empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The type of the problem in the body, without `urn:problem-type:`. Empty if the body is not a problem.
    pub fn problem(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        let problem = body["type"].as_str().unwrap_or_default();
        problem.trim_start_matches("urn:problem-type:").to_owned()
    }
}

impl TryFrom<InvocationResult> for HttpAnswer {
    type Error = String;

    /// Reads the answer to an HTTP API.
    fn try_from(outcome: InvocationResult) -> Result<Self, String> {
        Self::of(&outcome, false)
    }
}
