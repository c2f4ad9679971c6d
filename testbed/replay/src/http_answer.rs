//! The HTTP answer in the JSON that a function returns to a trigger.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::Value;

use crate::{InvocationResult, Streamed};

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
    /// Reads the answer as a trigger does that reads only `multiValueHeaders`, or only `headers`.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with it.
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
    /// otherwise.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with it, or why there is no answer.
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
