//! The cases in `events/`: payloads, and the answers they must get.
//!
//! In the folder of a function, every `*.json` except `*.answer.json` and `settings.json` is a payload. The part of its name before the
//! first dot is its case. `<case>.answer.json` is the answer that every payload of the case must get. `settings.json` holds
//! the environment variables that the function has in tests and under `make run`, in which `{upstream}` is the URL of an
//! upstream, without a path.

use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
    thread,
};

use handler::{Context, Endpoint};
use regex_lite::Regex;
use serde::{Deserialize, Serialize};
use serde_json::{
    Serializer, Value,
    ser::{Formatter, PrettyFormatter},
};

use crate::{
    Call, HttpAnswer, Invocation, Outcome, TRIGGERS,
    upstream::{Answer, Upstream},
};

/// The name of a function's settings, beside its cases.
const SETTINGS: &str = "settings.json";

/// Set in a process that has a function's settings already.
const HAS_SETTINGS: &str = "TESTBED_HAS_SETTINGS";

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
        /// The triggers that the case is for. Without it: all that let it pass.
        triggers: Option<Vec<String>>,
        /// Whether the budget and the bench measure this case, instead of the plain one.
        #[serde(default)]
        measured: bool,
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

/// The environment variables that `function` has in tests, with its upstream at `upstream`.
///
/// # Panics
///
/// If its settings are not an object of strings.
#[must_use]
pub fn settings(function: &str, upstream: &Upstream) -> Vec<(String, String)> {
    let url = upstream.url("/");
    let fill = |(name, value): (String, String)| (name, value.replace("{upstream}", url.trim_end_matches('/')));
    written_settings(function).into_iter().map(fill).collect()
}

/// Whether `function` calls the testbed's upstream.
#[must_use]
pub fn has_upstream(function: &str) -> bool {
    written_settings(function).values().any(|value| value.contains("{upstream}"))
}

fn written_settings(function: &str) -> BTreeMap<String, String> {
    let file = events_folder().join(function).join(SETTINGS);
    let Ok(json) = fs::read(&file) else { return BTreeMap::new() };
    serde_json::from_slice(&json).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// An upstream that always answers the same, in JSON.
#[must_use]
pub fn steady_upstream() -> Upstream {
    let upstream = Upstream::start();
    upstream.always(Answer::ok(r#"{"upstream":"testbed"}"#).header("content-type", "application/json"));
    upstream
}

/// All payloads.
pub(crate) fn payloads() -> Vec<Vec<u8>> {
    functions().iter().flat_map(|function| Case::all(function)).map(|case| case.payload).collect()
}

/// What `make events` makes of the payloads of HTTP APIs.
#[derive(Default)]
pub struct Made {
    /// The files, and their content.
    pub payloads: Vec<(PathBuf, String)>,
    /// What cannot be made, and why, in words.
    pub skipped: Vec<String>,
    /// The files whose case is not for their trigger.
    pub stale: Vec<PathBuf>,
}

/// The payloads in events/ that are made from an HTTP API's, and their files. No payload is made from one that holds
/// more than a [`Call`], such as a malformed part.
///
/// # Panics
///
/// If a folder or a payload cannot be read.
#[must_use]
pub fn made_payloads() -> Made {
    let mut made = Made::default();
    for function in functions() {
        for case in Case::all(&function).iter().filter(|case| case.name.ends_with(".http-api")) {
            let event: Value = serde_json::from_slice(&case.payload).expect("JSON from an HTTP API");
            let name = case.name.trim_end_matches("http-api");
            let call = Call::of_http_api(&event);
            let Some(call) = call.filter(|call| call.event("http-api", &function).as_ref() == Some(&event)) else {
                made.skipped.push(format!(
                    "{}: it has parts that no other trigger's payload can be made from; write those by hand",
                    case.name
                ));
                continue;
            };
            for trigger in TRIGGERS {
                let file = events_folder().join(format!("{name}{trigger}.json"));
                match call.event(trigger, &function) {
                    _ if !case.is_for(trigger) => made.stale.extend(Some(file).filter(|file| file.exists())),
                    Some(event) => made.payloads.push((file, pretty(&event))),
                    None => made.skipped.push(format!("{name}{trigger}: this trigger lets no such request pass")),
                }
            }
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

/// The folder of the repository that this runs in, which may be a copy of the one that it was compiled in.
///
/// # Panics
///
/// Outside of such a repository.
#[must_use]
pub fn root() -> PathBuf {
    let here = env::current_dir().expect("a current folder");
    let root = here.ancestors().find(|folder| folder.join("events").is_dir() && folder.join("testbed").is_dir());
    root.unwrap_or_else(|| panic!("{} is not in the repository", here.display())).to_owned()
}

fn events_folder() -> PathBuf {
    root().join("events")
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

    /// The case that the budget and the bench measure: the one whose answer says so, or else the plain one.
    ///
    /// # Panics
    ///
    /// If its answer is an error, which would measure how the function refuses.
    #[must_use]
    pub fn measured(function: &str) -> Self {
        let is_measured = |case: &Self| matches!(case.expected, Expected::Answer { measured: true, .. });
        let chosen = Self::all(function).into_iter().find(|case| case.name.ends_with(".http-api") && is_measured(case));
        let chosen = chosen.unwrap_or_else(|| Self::plain(function));
        assert!(
            chosen.status().is_some_and(|status| status < 400),
            "{} is refused, and would be measured: add `\"measured\": true` to the answer of a case that succeeds",
            chosen.name
        );
        chosen
    }

    /// The status that it must get. `None` if the invocation must fail.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self.expected {
            Expected::Answer { status, .. } => Some(status),
            Expected::Failure { .. } => None,
        }
    }

    fn is_for(&self, trigger: &str) -> bool {
        let Expected::Answer { triggers: Some(triggers), .. } = &self.expected else { return true };
        triggers.iter().any(|named| named == trigger)
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
        files.retain(|file| file_name(file) != SETTINGS);
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
            (Expected::Answer { status, headers, body, body_pattern, .. }, Outcome::Answer(answer)) => {
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
/// runs on Lambda. If the function has settings, another process replays them, with the settings in its environment.
///
/// # Panics
///
/// If a case does not get the answer that it must get. The message lists all such cases.
pub async fn replay(function: &str, endpoint: impl Endpoint) {
    if env::var_os(HAS_SETTINGS).is_none() && !written_settings(function).is_empty() {
        return replay_with_settings(function).await;
    }
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

/// Runs this test again, in a process with the function's settings: a process must not change its own environment while
/// it has threads.
async fn replay_with_settings(function: &str) {
    let upstream = steady_upstream();
    let mut again = tokio::process::Command::new(env::current_exe().expect("the path of this test"));
    // With `--test-threads=1` the thread has no name of a test: then all tests run again.
    if let Some(test) = thread::current().name().filter(|name| *name != "main") {
        again.args(["--exact", test]);
    }
    let again = again.env(HAS_SETTINGS, "1").envs(settings(function, &upstream)).output().await;
    let again = again.expect("this test starts a second time");
    let told = String::from_utf8_lossy(&again.stdout);
    assert!(again.status.success() && !told.contains("running 0 tests"), "{told}");
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
    fn an_answer_can_say_which_triggers_it_is_for() {
        let expected = |more: &str| {
            let answer = format!(r#"{{ "status": 200, "headers": {{}}, "body": ""{more} }}"#);
            let expected = serde_json::from_str(&answer).expect("an answer");
            Case { name: "orders/plain.http-api".into(), payload: Vec::new(), expected }
        };
        assert!(TRIGGERS.iter().all(|trigger| expected("").is_for(trigger)));
        let authorized = expected(r#", "triggers": ["http-api", "rest-api"]"#);
        assert!(authorized.is_for("rest-api") && !authorized.is_for("alb"));
    }

    #[tokio::test]
    async fn settings_name_the_upstream() {
        let upstream = steady_upstream();
        assert_eq!(settings("fetch", &upstream), [("UPSTREAM_URL".to_owned(), upstream.url("/"))]);
        assert!(has_upstream("fetch") && !has_upstream("hello") && settings("hello", &upstream).is_empty());
    }

    #[test]
    fn the_made_payloads_are_up_to_date() {
        let made = made_payloads();
        assert_eq!(made.stale, [] as [PathBuf; 0], "run `make events`");
        for (file, payload) in made.payloads {
            let there = fs::read_to_string(&file).unwrap_or_default();
            assert_eq!(there, payload, "{}: run `make events`", file.display());
        }
    }
}
