//! The cases in `events/`: payloads, and the answers they must get.
//!
//! In the folder of a function, every `*.json` except `*.answer.json` is a payload. The part of its name before the
//! first dot is its case. `<case>.answer.json` is the answer that every payload of the case must get.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use handler::{Context, Endpoint};
use regex_lite::Regex;
use serde::{Deserialize, Serialize};
use serde_json::{
    Serializer, Value,
    ser::{Formatter, PrettyFormatter},
};

use crate::{Call, HttpAnswer, Invocation, Outcome, TRIGGERS};

/// A payload, and the answer it must get.
#[derive(Clone)]
pub struct Case {
    /// The function, and the payload's name without `.json`, such as `hello/plain.http-api`.
    pub name: String,
    payload: Vec<u8>,
    expected: Expected,
}

#[derive(Clone, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Expected {
    Answer {
        status: u16,
        /// `null`: the header must be absent.
        headers: BTreeMap<String, Option<String>>,
        /// A string: the exact body. An object: the JSON in the body.
        body: Option<Value>,
        /// The pattern that the whole body must match, instead of `body`.
        body_pattern: Option<String>,
    },
    Failure {
        /// The pattern that the message of the failed invocation must match.
        error_pattern: String,
    },
}

/// The names of all functions: each has a folder in `events/`.
///
/// # Panics
///
/// When there is no such folder.
#[must_use]
pub fn functions() -> Vec<String> {
    let folders = fs::read_dir(events_folder()).expect("the folder events");
    let mut names: Vec<String> =
        folders.map(|folder| file_name(&folder.expect("a folder").path()).to_owned()).collect();
    names.sort();
    names
}

/// All payloads.
pub(crate) fn payloads() -> Vec<Vec<u8>> {
    functions().iter().flat_map(|function| Case::all(function)).map(|case| case.payload).collect()
}

/// The payloads in events/ that are made from an HTTP API's, and their files. No payload is made from one that holds
/// more than a [`Call`], such as a malformed part.
///
/// # Panics
///
/// If a folder or a payload cannot be read.
#[must_use]
pub fn made_payloads() -> Vec<(PathBuf, String)> {
    let mut made = Vec::new();
    for function in functions() {
        for case in Case::all(&function).iter().filter(|case| case.name.ends_with(".http-api")) {
            let event: Value = serde_json::from_slice(&case.payload).expect("JSON from an HTTP API");
            let Some(call) = Call::of_http_api(&event) else { continue };
            if call.event("http-api", &function).as_ref() != Some(&event) {
                continue;
            }
            let name = case.name.trim_end_matches("http-api");
            let events = TRIGGERS.iter().filter_map(|trigger| Some((trigger, call.event(trigger, &function)?)));
            made.extend(
                events.map(|(trigger, event)| (events_folder().join(format!("{name}{trigger}.json")), pretty(&event))),
            );
        }
    }
    made
}

/// Indented, except for lists, which are short.
fn pretty(event: &Value) -> String {
    struct Payload(PrettyFormatter<'static>);
    impl Formatter for Payload {
        fn begin_array_value<W: io::Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
            writer.write_all(if first { b"" } else { b", " })
        }
        fn begin_object<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
            self.0.begin_object(writer)
        }
        fn end_object<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
            self.0.end_object(writer)
        }
        fn begin_object_key<W: io::Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
            self.0.begin_object_key(writer, first)
        }
        fn begin_object_value<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
            self.0.begin_object_value(writer)
        }
        fn end_object_value<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
            self.0.end_object_value(writer)
        }
    }
    let mut json = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut json, Payload(PrettyFormatter::new()));
    event.serialize(&mut serializer).expect("memory takes it all");
    json.push(b'\n');
    String::from_utf8(json).expect("JSON is UTF-8")
}

fn events_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../events")
}

impl Case {
    /// The case of a plain request to `function` through an HTTP API. Every function has one.
    ///
    /// # Panics
    ///
    /// When it has none.
    #[must_use]
    pub fn plain(function: &str) -> Self {
        let name = format!("{function}/plain.http-api");
        Self::all(function).into_iter().find(|case| case.name == name).unwrap_or_else(|| panic!("no event {name}"))
    }

    /// All cases of `function`.
    ///
    /// # Panics
    ///
    /// If the folder cannot be read, a payload has no answer, or an answer has no payload.
    #[must_use]
    pub fn all(function: &str) -> Vec<Self> {
        let folder = events_folder().join(function);
        let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut files: Vec<PathBuf> = files.map(|file| file.expect("a readable folder").path()).collect();
        files.sort();
        let (answers, payloads): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|file| file_name(file).ends_with(".answer.json"));
        let cases: Vec<Self> = payloads.iter().map(|payload| Self::read(function, payload)).collect();
        for answer in &answers {
            let case = file_name(answer).trim_end_matches("answer.json");
            let used = payloads.iter().any(|payload| file_name(payload).starts_with(case));
            assert!(used, "{} is the answer of no payload", answer.display());
        }
        cases
    }

    fn read(function: &str, payload: &Path) -> Self {
        let name = file_name(payload).trim_end_matches(".json");
        let case = name.split('.').next().unwrap_or(name);
        let answer = payload.with_file_name(format!("{case}.answer.json"));
        let expected = fs::read(&answer).unwrap_or_else(|error| panic!("{}: {error}", answer.display()));
        Self {
            name: format!("{function}/{name}"),
            payload: fs::read(payload).expect("a payload that was listed"),
            expected: serde_json::from_slice(&expected).unwrap_or_else(|error| panic!("{}: {error}", answer.display())),
        }
    }

    /// An invocation with the case's payload.
    #[must_use]
    pub fn invocation(&self) -> Invocation {
        Invocation::new(self.payload.clone())
    }

    /// Compares the outcome of `invocation` with the expected one.
    ///
    /// # Errors
    ///
    /// Returns the difference, in words.
    pub fn check(&self, invocation: &Invocation, outcome: &Outcome) -> Result<(), String> {
        match (&self.expected, outcome) {
            (Expected::Failure { error_pattern }, Outcome::Failure(message)) => {
                matches(error_pattern, message).then_some(()).ok_or_else(|| differs("error", error_pattern, message))
            }
            (Expected::Failure { .. }, Outcome::Answer(answer)) => Err(format!("must fail, but answered {answer}")),
            (Expected::Answer { .. }, Outcome::Failure(message)) => Err(format!("failed: {message}")),
            (Expected::Answer { status, headers, body, body_pattern }, Outcome::Answer(answer)) => {
                let actual = HttpAnswer::read(answer, self.has_multi_value_headers())?;
                if actual.status != *status {
                    return Err(differs("status", status, format!("{} with {}", actual.status, actual.body)));
                }
                let fill = |text: &str| text.replace("{request_id}", &invocation.request_id);
                for (name, value) in headers {
                    let value = value.as_deref().map(fill);
                    if actual.headers.get(name) != value.as_ref() {
                        return Err(differs(name, format!("{value:?}"), format!("{:?}", actual.headers.get(name))));
                    }
                }
                let same = match (body, body_pattern) {
                    (Some(Value::String(body)), None) => actual.body == fill(body),
                    (Some(body), None) => serde_json::from_str(&actual.body).is_ok_and(|json: Value| {
                        json == serde_json::from_str::<Value>(&fill(&body.to_string())).unwrap_or_default()
                    }),
                    (None, Some(pattern)) => matches(&format!("^(?:{pattern})$"), &actual.body),
                    _ => return Err("its answer must have either `body` or `body_pattern`".into()),
                };
                same.then_some(()).ok_or_else(|| differs("body", format!("{body:?}{body_pattern:?}"), &actual.body))
            }
        }
    }

    /// Whether the case's trigger reads only `multiValueHeaders`.
    fn has_multi_value_headers(&self) -> bool {
        self.name.ends_with(".rest-api") || self.name.ends_with(".alb-multi-value")
    }
}

/// Replays all cases of `function` in this process: from the event to the answer for the trigger, this is the code that
/// runs on Lambda.
///
/// # Panics
///
/// If a case does not get the answer that it must get. The message lists all such cases.
pub async fn replay(function: &str, endpoint: impl Endpoint) {
    let mut failures = Vec::new();
    for case in Case::all(function) {
        let invocation = case.invocation();
        let mut context = Context::default();
        context.request_id.clone_from(&invocation.request_id);
        context.deadline = invocation.deadline_ms;
        let outcome = match handler::invoke(endpoint.clone(), &invocation.payload, context).await {
            Ok(answer) => Outcome::Answer(answer),
            Err(error) => Outcome::Failure(error.to_string()),
        };
        if let Err(difference) = case.check(&invocation, &outcome) {
            failures.push(format!("{}: {difference}", case.name));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn matches(pattern: &str, text: &str) -> bool {
    Regex::new(pattern).expect("a valid pattern").is_match(text)
}

fn differs(what: &str, expected: impl std::fmt::Display, actual: impl std::fmt::Display) -> String {
    format!("{what}: expected {expected}, got {actual}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_made_payloads_are_up_to_date() {
        for (file, payload) in made_payloads() {
            let there = fs::read_to_string(&file).unwrap_or_default();
            assert_eq!(there, payload, "{}: run `make events`", file.display());
        }
    }
}
