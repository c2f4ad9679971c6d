//! The cases in `events/`: requests, and the answers they must get.
//!
//! In the folder of a function, `<case>.json` holds a `request` and its `answer`. The payloads of all triggers are made
//! from it, except those that have a file, `<case>.<trigger>.json`. If all payloads of a case are files, its answer is alone, in
//! `<case>.answer.json`.
//!
//! Beside them, `items` are those of the tables before the request, and `items_after` those after it: the same, if it is not
//! there. A function with such cases has the tables of template.yaml in an emulated AWS: [`Tables`].
//!
//! Several cases can stand in one file: then `cases` holds them by name, and that of `empty` in `name.json` is `name-empty`.
//! Each has the members of `request`, and the `items`, that stand beside `cases`, unless it has its own. If there is an `answer`
//! beside `cases`, that is the case `name`.
//!
//! `settings.json` holds the environment variables that the function has in tests and under `make run`. In them,
//! `{upstream}` is the origin (scheme, host and port) of an upstream, which answers every request with `upstream.json`.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    thread,
};

use base64::prelude::{BASE64_STANDARD, Engine};
use handler::{Context, Endpoint};
use regex_lite::Regex;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::{Map, Value, from_value, json};

#[cfg(feature = "upstream")]
use crate::upstream::{Answer, Upstream};
use crate::{
    HttpAnswer, Invocation, InvocationResult, Request, TRIGGERS,
    tables::{self, Items, Tables},
};

/// The name of a function's settings, beside its cases.
const SETTINGS: &str = "settings.json";

/// The JSON with which a function's upstream answers, if that matters to the function.
const UPSTREAM: &str = "upstream.json";

/// The headers that every answer has.
const ALWAYS: [(&str, &str); 2] = [("x-content-type-options", "nosniff"), ("x-request-id", "{request_id}")];

/// The headers that every problem has, besides.
const OF_PROBLEMS: [(&str, &str); 2] = [("content-type", "application/problem+json"), ("cache-control", "no-store")];

/// What testbed/unchanged.py says about a test: the endpoints that it may use, and those of which it may use the cases alone.
const TESTED_ENDPOINTS: &str = "TESTED_ENDPOINTS";
const TESTED_CASES: &str = "TESTED_CASES";

/// Set in a process that has a function's settings already.
const HAS_SETTINGS: &str = "TESTBED_HAS_SETTINGS";

/// A payload, and the answer it must get.
#[derive(Clone)]
pub struct Case {
    /// The function, and the payload's name without `.json`, such as `hello/plain.http-api`.
    pub name: String,
    payload: Vec<u8>,
    expected: Expected,
    items: Option<Items>,
    items_after: Option<Items>,
}

/// A file with a case, or with several: then `request` and `items` are also those of each in `cases`.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    request: Map<String, Value>,
    answer: Option<Expected>,
    items: Option<Items>,
    items_after: Option<Items>,
    #[serde(default)]
    cases: BTreeMap<String, Self>,
}

impl Written {
    /// Its cases, each with what it shares with others.
    fn all(mut self, name: &str) -> Vec<(String, Self)> {
        let cases = std::mem::take(&mut self.cases);
        let named = cases.into_iter().flat_map(|(own, mut case)| {
            let shared = self.request.clone().into_iter();
            case.request = shared.chain(case.request).collect();
            case.items = case.items.or_else(|| self.items.clone());
            case.all(&format!("{name}-{own}"))
        });
        let mut all: Vec<_> = named.collect();
        if self.answer.is_some() || all.is_empty() {
            all.push((name.to_owned(), self));
        }
        all
    }

    /// Adds the cases of all triggers to `all`, except those that are there by hand and those that are `skipped`.
    fn made(mut self, function: &str, name: &str, all: &mut Vec<Case>, skipped: &mut Vec<String>) {
        let request = from_value::<Request>(std::mem::take(&mut self.request).into());
        let call = request.unwrap_or_else(|error| panic!("{name}: request: {error}")).call(function);
        let case = Case::new(name.to_owned(), Vec::new(), self);
        let expected = &case.expected;
        let unknown = |trigger: &String| !TRIGGERS.contains(&trigger.as_str());
        assert!(!expected.triggers.iter().flatten().any(unknown), "{name}: `triggers` can be {TRIGGERS:?}");
        for trigger in TRIGGERS {
            let name = format!("{name}.{trigger}");
            let event = if !expected.is_for(trigger) {
                Err("`triggers` in the answer does not name it")
            } else if !call.claims.is_empty() && !["http-api", "rest-api"].contains(&trigger) {
                Err("only HTTP APIs and REST APIs send the claims of a caller")
            } else {
                call.event(trigger, function).ok_or("this trigger lets no such query pass")
            };
            match event {
                _ if all.iter().any(|by_hand| by_hand.name == name) => {}
                Ok(event) => {
                    all.push(Case { name, payload: format!("{event:#}\n").into_bytes(), ..case.clone() });
                }
                Err(why) if expected.triggers.is_none() || !expected.is_for(trigger) => {
                    skipped.push(format!("{name}: {why}"));
                }
                Err(why) => panic!("{name}: the answer names it, but {why}: write the payload by hand"),
            }
        }
    }
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    status: u16,
    /// `null`: the header must be absent. Those of [`ALWAYS`] are in every answer.
    #[serde(default, deserialize_with = "in_lower_case")]
    headers: BTreeMap<String, Option<String>>,
    /// A string: the exact body. An object: the JSON in the body. Without it: no body.
    body: Option<Value>,
    /// The pattern that the whole body must match, instead of `body`.
    body_pattern: Option<String>,
    /// The exact bytes, instead of `body`.
    body_base64: Option<String>,
    /// A problem (RFC 9457), instead of `body`: its `type` without `urn:problem-type:`, and those of its members that do not
    /// follow from that. `detail` may be absent: then there must be any.
    problem: Option<Map<String, Value>>,
    /// The triggers that the case is for. Without it: all that can carry its request. A load balancer with single
    /// values and VPC Lattice cannot carry an answer with two `Set-Cookie` headers.
    triggers: Option<Vec<String>>,
    /// Whether the budget and the bench measure this case, instead of the plain one.
    #[serde(default)]
    measured: bool,
}

/// The headers by their names as an answer has them.
fn in_lower_case<'de, D: Deserializer<'de>>(written: D) -> Result<BTreeMap<String, Option<String>>, D::Error> {
    let headers = BTreeMap::<String, Option<String>>::deserialize(written)?;
    Ok(headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect())
}

impl Expected {
    /// Whether the case is for `trigger`.
    fn is_for(&self, trigger: &str) -> bool {
        self.triggers.as_ref().is_none_or(|triggers| triggers.iter().any(|named| named == trigger))
    }
}

/// The names of all functions: each has a folder in `events/`.
pub fn functions() -> Vec<String> {
    let folders = fs::read_dir(events_folder()).expect("the folder events");
    let mut names: Vec<String> =
        folders.map(|folder| file_name(&folder.expect("a folder").path()).to_owned()).collect();
    names.sort();
    names
}

/// Those of [`functions`] that this run of an `each-endpoint` test is for: see testbed/unchanged.py. Outside of `make test`, all.
///
/// # Panics
///
/// If this run is for none.
#[doc(hidden)]
#[must_use]
pub fn tested() -> Vec<String> {
    let is_tested = |function: &String| is_in(TESTED_ENDPOINTS, function).unwrap_or(true);
    let tested: Vec<_> = functions().into_iter().filter(is_tested).collect();
    assert!(!tested.is_empty(), "add this test to `each-endpoint` in its Cargo.toml; testbed/unchanged.py says why");
    tested
}

/// The environment variables that `function` has in tests, with its upstream at `upstream`, which from now on answers with
/// the function's `upstream.json`, if there is one. If its cases have items, it gets tables of its own.
#[cfg(feature = "upstream")]
pub fn settings(function: &str, upstream: &Upstream) -> Vec<(String, String)> {
    if let Ok(body) = fs::read_to_string(events_folder().join(function).join(UPSTREAM)) {
        upstream.always(Answer::ok(body).header("content-type", "application/json"));
    }
    settings_with(function, &upstream.url(""))
}

/// What AWS's clients need beside the address that settings give them. The settings count before these.
const FOR_AWS: [(&str, &str); 4] = [
    ("AWS_ACCESS_KEY_ID", "test"),
    ("AWS_SECRET_ACCESS_KEY", "test"),
    ("AWS_REGION", "us-east-1"),
    ("AWS_OPERATION_TIMEOUT_MS", "60000"),
];

/// Without an `origin`, there is no upstream.
fn settings_with(function: &str, origin: &str) -> Vec<(String, String)> {
    let is_lacking = origin.is_empty() && has_upstream(function);
    assert!(!is_lacking, "{function} has an upstream in its settings: enable replay's feature `upstream`");
    let fill = |(name, value): (String, String)| (name, value.replace("{upstream}", origin));
    let written = written_settings(function);
    let has_aws = written.keys().any(|name| name.starts_with("AWS_ENDPOINT_URL"));
    let for_aws = FOR_AWS.iter().filter(|_| has_aws).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let all = for_aws.chain(written.into_iter().map(fill));
    if has_items(function) { all.chain(tables::variables(function)).collect() } else { all.collect() }
}

/// Whether a case of `function` has items in tables.
pub fn has_items(function: &str) -> bool {
    Case::all(function).iter().any(|case| case.items.is_some() || case.items_after.is_some())
}

/// Whether `function` calls the upstream of its tests.
pub fn has_upstream(function: &str) -> bool {
    written_settings(function).values().any(|value| value.contains("{upstream}"))
}

/// The names of the upstreams of `function` that tests put their own in place of: `PRICES`, if `PRICES_URL` is
/// `{upstream}` or a path there.
pub fn upstreams(function: &str) -> Vec<String> {
    let is_ours = |(_, value): &(String, String)| value.contains("{upstream}");
    let all = written_settings(function).into_iter().filter(is_ours);
    all.filter_map(|(setting, _)| setting.strip_suffix("_URL").map(str::to_owned)).collect()
}

fn written_settings(function: &str) -> BTreeMap<String, String> {
    let file = folder(function).join(SETTINGS);
    let Ok(json) = fs::read(&file) else { return BTreeMap::new() };
    serde_json::from_slice(&json).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// An upstream that always answers the same, in JSON.
#[cfg(feature = "upstream")]
pub fn steady_upstream() -> Upstream {
    let upstream = Upstream::start();
    upstream.always(Answer::ok(r#"{"upstream":"testbed"}"#).header("content-type", "application/json"));
    upstream
}

/// The folder with `events` and Cargo.lock that this runs in, which may be a copy of the one that it was compiled in.
pub fn root() -> PathBuf {
    let here = env::current_dir().expect("a current folder");
    let root = here.ancestors().find(|folder| folder.join("events").is_dir() && folder.join("Cargo.lock").is_file());
    root.unwrap_or_else(|| panic!("{} is in no workspace with a folder `events`", here.display())).to_owned()
}

/// Panics if `make test` would not run this test again after a change of `function`.
#[doc(hidden)]
pub fn assert_declared(function: &str) {
    assert!(
        is_in(TESTED_ENDPOINTS, function).unwrap_or(true),
        "this test uses {function}: add its name to `uses-endpoints` in its Cargo.toml, \
         or move it to functions/{function}/tests; testbed/unchanged.py says why",
    );
}

/// Whether `function` is in the list in this variable, if testbed/unchanged.py has set it.
fn is_in(variable: &str, function: &str) -> Option<bool> {
    env::var(variable).ok().map(|names| names.split(' ').any(|name| name == function))
}

fn events_folder() -> PathBuf {
    root().join("events")
}

fn folder(function: &str) -> PathBuf {
    if is_in(TESTED_CASES, function) != Some(true) {
        assert_declared(function);
    }
    events_folder().join(function)
}

impl Case {
    /// The case of a plain request to `function` through an HTTP API. Every function has one.
    pub fn plain(function: &str) -> Self {
        let name = format!("{function}/plain.http-api");
        Self::all(function).into_iter().find(|case| case.name == name).unwrap_or_else(|| panic!("no event {name}"))
    }

    /// The case that the budget and the bench measure: the one whose answer says so, or else the plain one. It must be one that
    /// succeeds.
    pub fn measured(function: &str) -> Self {
        let is_measured = |case: &Self| case.expected.measured && case.name.ends_with(".http-api");
        let chosen = Self::all(function).into_iter().find(is_measured);
        let chosen = chosen.unwrap_or_else(|| Self::plain(function));
        assert!(
            chosen.status() < 400,
            "{} is refused, and would be measured: add `\"measured\": true` to the answer of a case that succeeds",
            chosen.name
        );
        chosen
    }

    /// The status that it must get.
    pub fn status(&self) -> u16 {
        self.expected.status
    }

    /// All cases of `function`, for all triggers, sorted by name.
    pub fn all(function: &str) -> Vec<Self> {
        Self::in_folder(&folder(function), function).0
    }

    /// The payloads of `function` that cannot be made, and why.
    pub fn skipped(function: &str) -> Vec<String> {
        Self::in_folder(&folder(function), function).1
    }

    fn in_folder(folder: &Path, function: &str) -> (Vec<Self>, Vec<String>) {
        let files = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let files = files.map(|file| file_name(&file.expect("a readable folder").path()).to_owned());
        let files = files.filter(|file| ![SETTINGS, UPSTREAM].contains(&file.as_str()));
        let names: Vec<String> = files.map(|file| file.trim_end_matches(".json").to_owned()).collect();
        let (answers, payloads): (Vec<&String>, Vec<_>) = names.iter().partition(|name| name.ends_with(".answer"));
        for answer in &answers {
            let case = answer.trim_end_matches(".answer");
            let used = payloads.iter().any(|payload| payload.split('.').next() == Some(case));
            assert!(used, "{}/{answer}.json is the answer of no payload", folder.display());
        }
        let is_by_hand = |name: &&String| name.contains('.') || answers.contains(&&format!("{name}.answer"));
        let (by_hand, written): (Vec<_>, Vec<_>) = payloads.into_iter().partition(is_by_hand);
        let mut all: Vec<Self> = by_hand.into_iter().map(|name| Self::by_hand(folder, function, name)).collect();
        let mut skipped = Vec::new();
        for name in written {
            let file = parsed::<Written>(&folder.join(format!("{name}.json")));
            for (name, written) in file.all(&format!("{function}/{name}")) {
                written.made(function, &name, &mut all, &mut skipped);
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        (all, skipped)
    }

    /// The case of a payload that is written as it is. Its answer is in a file of its own, or beside the request.
    fn by_hand(folder: &Path, function: &str, name: &str) -> Self {
        let (case, trigger) = name.split_once('.').unwrap_or((name, ""));
        let [file, answer, written] =
            [name, &format!("{case}.answer"), case].map(|name| folder.join(format!("{name}.json")));
        let written = if answer.exists() {
            Written { answer: Some(parsed(&answer)), ..Written::default() }
        } else {
            assert!(written.exists(), "{} has no answer: write {}", file.display(), answer.display());
            parsed(&written)
        };
        let payload = fs::read(&file).expect("a payload that was listed");
        let case = Self::new(format!("{function}/{name}"), payload, written);
        let is_for = case.expected.is_for(trigger) || !TRIGGERS.contains(&trigger);
        assert!(is_for, "{}: `triggers` in the answer does not name it", file.display());
        case
    }

    fn new(name: String, payload: Vec<u8>, Written { answer, items, items_after, .. }: Written) -> Self {
        let expected = answer.unwrap_or_else(|| panic!("{name} has no `answer`"));
        Self { name, payload, expected, items, items_after }
    }

    /// An invocation with the case's payload.
    pub fn invocation(&self) -> Invocation {
        Invocation::new(self.payload.clone())
    }

    /// Puts the items into `tables` that are there before the request, and no others.
    pub fn prepare(&self, tables: &Tables) {
        tables.set(self.items.as_ref().unwrap_or(&Items::new()));
    }

    /// Compares the items in `tables` with those that must be there after the request: the same as before, if it does not say.
    /// The error is the difference, in words.
    pub fn check_items(&self, tables: &Tables) -> Result<(), String> {
        self.items_after.as_ref().or(self.items.as_ref()).map_or(Ok(()), |expected| tables.check(expected))
    }

    /// Compares the outcome of `invocation` with the expected one. The error is the difference, in words.
    pub fn check(&self, invocation: &Invocation, outcome: &InvocationResult) -> Result<(), String> {
        let Expected { status, headers, body, body_pattern, body_base64, problem, .. } = &self.expected;
        // The triggers that read only `multiValueHeaders`.
        let has_multi_value_headers = [".rest-api", ".alb-multi-value"].iter().any(|end| self.name.ends_with(end));
        let actual = HttpAnswer::of(outcome, has_multi_value_headers)?;
        let fill = |text: &str| text.replace("{request_id}", &invocation.request_id);
        let json = || serde_json::from_str::<Value>(&actual.body).unwrap_or_default();
        let filled = |json: &Value| serde_json::from_str::<Value>(&fill(&json.to_string())).unwrap_or_default();
        let (same, expected) = match (body, body_pattern, body_base64, problem) {
            (Some(Value::String(text)), None, None, None) => (actual.body == fill(text), text.clone()),
            (Some(body), None, None, None) => (json() == filled(body), body.to_string()),
            (None, Some(pattern), None, None) => {
                let whole = Regex::new(&format!("^(?:{pattern})$"))
                    .map_err(|error| format!("its `body_pattern` is no regular expression: {error}"))?;
                (whole.is_match(&actual.body), pattern.clone())
            }
            (None, None, Some(base64), None) => (BASE64_STANDARD.encode(&actual.bytes) == *base64, base64.clone()),
            (None, None, None, Some(members)) => {
                let (expected, mut actual) = (filled(&problem_of(*status, members)), json());
                let told = actual["detail"].as_str().is_some_and(|detail| !detail.is_empty());
                if told && !members.contains_key("detail") {
                    actual.as_object_mut().map(|members| members.remove("detail"));
                }
                (told && actual == expected, expected.to_string())
            }
            (None, None, None, None) => (actual.bytes.is_empty(), String::new()),
            _ => {
                return Err(
                    "its answer must have only one of `body`, `body_pattern`, `body_base64` and `problem`".into()
                );
            }
        };
        if actual.status != *status {
            return Err(differs("status", status, format!("{} with {}", actual.status, actual.body)));
        }
        let of_problems = OF_PROBLEMS.into_iter().filter(|_| problem.is_some());
        let implied = ALWAYS.into_iter().chain(of_problems).filter(|(name, _)| !headers.contains_key(*name));
        let written = headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
        for (name, value) in implied.map(|(name, value)| (name, Some(value))).chain(written) {
            let value = value.map(fill);
            if actual.headers.get(name) != value.as_ref() {
                return Err(differs(name, format!("{value:?}"), format!("{:?}", actual.headers.get(name))));
            }
        }
        let told = || if body_base64.is_some() { BASE64_STANDARD.encode(&actual.bytes) } else { actual.body.clone() };
        same.then_some(()).ok_or_else(|| differs("body", expected, told()))
    }
}

/// Replays all cases of `function` in this process: from the event to the answer for the trigger, this is the code that
/// runs on Lambda. If the function has settings, another process replays them, with the settings in its environment. Panics
/// with all cases that do not get their answer.
pub async fn replay(function: &str, endpoint: impl Endpoint) {
    if env::var_os(HAS_SETTINGS).is_none() && (!written_settings(function).is_empty() || has_items(function)) {
        return replay_with_settings(function).await;
    }
    let (mut failures, tables) = (Vec::new(), Tables::of_this_process());
    for case in Case::all(function) {
        case.prepare(&tables);
        let invocation = case.invocation();
        let mut context = Context::default();
        context.request_id.clone_from(&invocation.request_id);
        context.deadline = invocation.deadline_ms;
        // Boxed, or each test that awaits this would be a large future.
        let outcome = match Box::pin(handler::invoke(endpoint.clone(), &invocation.payload, context)).await {
            Ok(answer) => InvocationResult::Response(answer),
            Err(error) => InvocationResult::Error(error.to_string()),
        };
        if let Err(difference) = case.check(&invocation, &outcome).and_then(|()| case.check_items(&tables)) {
            failures.push((case.name, difference.replace(&invocation.request_id, "{request_id}")));
        }
    }
    assert!(failures.is_empty(), "{}", of_all_triggers(failures));
}

/// The failures of the cases with these names, a line for those that are the same through several triggers.
fn of_all_triggers(failures: Vec<(String, String)>) -> String {
    let mut lines: Vec<(String, Vec<String>, String)> = Vec::new();
    for (name, difference) in failures {
        let (case, trigger) = name.rsplit_once('.').unwrap_or((&name, ""));
        match lines.iter_mut().find(|(of, _, same)| of == case && *same == difference) {
            Some((_, triggers, _)) => triggers.push(trigger.to_owned()),
            None => lines.push((case.to_owned(), vec![trigger.to_owned()], difference)),
        }
    }
    let line =
        |(case, triggers, difference): &(_, Vec<_>, _)| format!("{case} ({}): {difference}", triggers.join(", "));
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Runs this test again, in a process with the function's settings: a process must not change its own environment while
/// it has threads.
async fn replay_with_settings(function: &str) {
    #[cfg(feature = "upstream")]
    let upstream = steady_upstream();
    #[cfg(feature = "upstream")]
    let settings = settings(function, &upstream);
    #[cfg(not(feature = "upstream"))]
    let settings = settings_with(function, "");
    let mut again = tokio::process::Command::new(env::current_exe().expect("the path of this test"));
    // With `--test-threads=1` the thread has no name of a test: then all tests run again, and all that they say counts.
    let thread = thread::current();
    let test = thread.name().filter(|name| *name != "main");
    if let Some(test) = test {
        again.args(["--exact", test]);
    }
    let again = again.env(HAS_SETTINGS, "1").env("RUST_BACKTRACE", "0").envs(settings).output().await;
    let again = again.expect("this test starts a second time");
    let told = String::from_utf8_lossy(&again.stdout);
    // What the other process says besides is about this test, too.
    let panic = test.and_then(|_| told.split_once("panicked at ")?.1.split_once('\n'));
    let why = panic.and_then(|(_, told)| told.split("\nnote: run with").next()).unwrap_or(&told);
    assert!(again.status.success() && !told.contains("running 0 tests"), "{why}");
}

/// The JSON of a problem with these members, and those that follow from them.
fn problem_of(status: u16, members: &Map<String, Value>) -> Value {
    let name = members.get("type").and_then(Value::as_str).unwrap_or_default();
    let words = name.replace('-', " ");
    let title = words.get(..1).unwrap_or_default().to_uppercase() + words.get(1..).unwrap_or_default();
    let mut problem = json!({ "title": title, "status": status, "instance": "urn:uuid:{request_id}" });
    for (member, value) in members {
        problem[member] = value.clone();
    }
    problem["type"] = format!("urn:problem-type:{name}").into();
    problem
}

fn parsed<T: DeserializeOwned>(file: &Path) -> T {
    let json = fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_json::from_slice(&json).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn differs(what: &str, expected: impl std::fmt::Display, actual: impl std::fmt::Display) -> String {
    format!("{what}: expected {expected}, got {actual}")
}

#[cfg(test)]
mod tests {
    use std::{panic::catch_unwind, slice};

    use serde_json::json;

    use super::*;

    #[test]
    fn a_failure_is_told_once_for_the_triggers_that_share_it() {
        let failures = [("a.alb", "status"), ("a.http-api", "status"), ("a.rest-api", "body"), ("b.alb", "status")];
        let told = of_all_triggers(failures.map(|(name, why)| (name.to_owned(), why.to_owned())).into());
        assert_eq!(told, "a (alb, http-api): status\na (rest-api): body\nb (alb): status");
    }

    #[test]
    fn what_is_made_can_be_written_by_hand_or_restricted() {
        let folder = env::temp_dir().join(format!("cases-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let read = |files: &[(&str, String)]| {
            for file in fs::read_dir(&folder).expect("a folder") {
                fs::remove_file(file.expect("a file").path()).expect("a file");
            }
            for (file, content) in files {
                fs::write(folder.join(file), content).expect("a file");
            }
            let (all, skipped) = Case::in_folder(&folder, "any");
            assert!(skipped.iter().all(|skipped| skipped.contains(": ")), "{skipped:?}");
            let is_by_hand = |case: &Case| case.payload == b"by hand";
            let told =
                |case: &Case| format!("{}{}", &case.name["any/".len()..], if is_by_hand(case) { "!" } else { "" });
            (all.iter().map(told).collect::<Vec<_>>().join(" "), skipped.len())
        };
        let answer = |more: &str| format!(r#"{{ "status": 200{more} }}"#);
        let case = |request: &str, more: &str| {
            format!(r#"{{ "request": {{ "path": "/"{request} }}, "answer": {} }}"#, answer(more))
        };
        let of_all = |case: &str| TRIGGERS.map(|trigger| format!("{case}.{trigger}"));
        let sorted = |mut names: Vec<String>| {
            names.sort();
            names.join(" ")
        };
        let plain = ("plain.json", case("", ""));
        let all = sorted(of_all("plain").into());
        assert_eq!(read(slice::from_ref(&plain)), (all.clone(), 0));
        let by_hand = ["plain.alb.json", "plain.http-api.json"].map(|file| (file, "by hand".to_owned()));
        let written = all.replace("plain.alb ", "plain.alb! ").replace("http-api", "http-api!");
        assert_eq!(read(&[&[plain][..], &by_hand].concat()), (written, 0));
        let alone = ("plain.answer.json", answer(""));
        assert_eq!(read(&[slice::from_ref(&alone), &by_hand].concat()), ("plain.alb! plain.http-api!".into(), 0));
        let of_nobody = [("none.answer.json", answer("")), ("none.json", "by hand".to_owned())];
        assert_eq!(read(&of_nobody), ("none!".into(), 0));

        let two = r#", "triggers": ["http-api", "vpc-lattice"]"#;
        let restricted = ("plain.json", case("", two));
        assert_eq!(read(slice::from_ref(&restricted)), ("plain.http-api plain.vpc-lattice".into(), 4));
        let claims = r#", "claims": { "sub": "ada" }"#;
        assert_eq!(read(&[("plain.json", case(claims, ""))]), ("plain.http-api plain.rest-api".into(), 4));
        // No load balancer and no REST API lets a raw space pass.
        let raw = ("plain.json", case("", "").replace("/\"", "/?a=b c\""));
        assert_eq!(read(&[raw]), ("plain.function-url plain.http-api".into(), 4));
        let several = |cases: &str| ("plain.json", format!(r#"{{ "items": {{}}, "cases": {{ {cases} }} }}"#));
        let both = several(&format!(r#""a": {}, "b": {}"#, case("", ""), case("", "")));
        assert_eq!(read(&[both]), (sorted([of_all("plain-a"), of_all("plain-b")].concat()), 0));

        for refused in [
            vec![("plain.json", case(claims, two))],
            vec![("plain.json", case("", r#", "triggers": ["http"]"#))],
            vec![restricted, ("plain.alb.json", "by hand".to_owned())],
            vec![("plain.http-api.json", "by hand".to_owned())],
            vec![alone],
        ] {
            assert!(catch_unwind(|| read(&refused)).is_err(), "{refused:?}");
        }
    }

    /// What the case that expects this says of an answer, in which `{request_id}` is the invocation's.
    fn check(expected: Value, answer: &Value) -> Result<(), String> {
        let written = Written { answer: Some(from_value(expected).expect("an answer")), ..Written::default() };
        let case = Case::new("any/plain.http-api".to_owned(), Vec::new(), written);
        let invocation = Invocation::new("");
        let answer = answer.to_string().replace("{request_id}", &invocation.request_id);
        case.check(&invocation, &InvocationResult::Response(answer))
    }

    #[test]
    fn exact_bytes_can_be_expected_and_some_headers_always_are() {
        let check = |base64: &str, unsure: &str| {
            let headers = json!({ "x-content-type-options": unsure, "x-request-id": "{request_id}" });
            let answer = json!({ "statusCode": 200, "headers": headers, "body": "/wA=", "isBase64Encoded": true });
            check(json!({ "status": 200, "body_base64": base64 }), &answer)
        };
        assert_eq!(check("/wA=", "nosniff"), Ok(()));
        assert!(check("/w==", "nosniff").is_err_and(|difference| difference == "body: expected /w==, got /wA="));
        assert!(check("/wA=", "sniff").is_err_and(|difference| difference.starts_with("x-content-type-options")));
    }

    #[test]
    fn a_header_may_be_written_in_any_case() {
        let given = json!({ "x-content-type-options": "nosniff", "x-request-id": "{request_id}", "vary": "accept" });
        let answer = json!({ "statusCode": 200, "headers": given });
        let check = |headers: Value| check(json!({ "status": 200, "headers": headers }), &answer);
        assert_eq!(check(json!({ "Vary": "accept", "X-Request-Id": "{request_id}", "ETag": null })), Ok(()));
        assert!(check(json!({ "VARY": null })).is_err());
        assert!(check(json!({ "X-Content-Type-Options": null })).is_err());
    }

    #[test]
    fn an_answer_that_no_response_can_have_is_told_before_all_else() {
        let answer = json!({ "statusCode": 404, "headers": {} });
        let told = |written: Value| check(written, &answer).expect_err("an impossible answer");
        let both = told(json!({ "status": 200, "body": "a", "problem": { "type": "gone" } }));
        assert!(both.starts_with("its answer must have only one of"), "{both}");
        let pattern = told(json!({ "status": 200, "body_pattern": "(a" }));
        assert!(pattern.starts_with("its `body_pattern` is no regular expression: "), "{pattern}");
    }

    #[test]
    fn cases_of_a_file_share_its_request_and_items() {
        let answer = json!({ "status": 200 });
        let shared: Written = from_value(json!({
            "request": { "path": "/", "claims": { "sub": "ada" } }, "items": { "Table": [] }, "answer": answer,
            "cases": {
                "own": { "request": { "path": "/own", "claims": {} }, "items": {}, "answer": answer },
                "shared": { "answer": answer },
            }
        }))
        .expect("cases");
        let mut all = BTreeMap::from_iter(shared.all("plain"));
        for (name, request, tables) in [
            ("plain", json!({ "path": "/", "claims": { "sub": "ada" } }), 1),
            ("plain-own", json!({ "path": "/own", "claims": {} }), 0),
            ("plain-shared", json!({ "path": "/", "claims": { "sub": "ada" } }), 1),
        ] {
            let case = all.remove(name).expect(name);
            assert_eq!((Value::Object(case.request), case.items.map(|items| items.len())), (request, Some(tables)));
        }
        assert!(all.is_empty(), "the file without `cases` is one case, and with them only if it has an `answer`");
    }

    #[test]
    fn what_follows_from_a_problem_is_not_written() {
        let check = |written: Value, headers: Value, told: Value| {
            let mut body = json!({ "type": "urn:problem-type:no-such-seat", "title": "No such seat", "status": 409 });
            body["instance"] = "urn:uuid:{request_id}".into();
            body.as_object_mut().expect("an object").extend(told.as_object().cloned().unwrap_or_default());
            let given = json!({
                "x-content-type-options": "nosniff", "x-request-id": "{request_id}",
                "content-type": "application/problem+json", "cache-control": "no-store",
            });
            let answer = json!({ "statusCode": 409, "headers": given, "body": body.to_string() });
            check(json!({ "status": 409, "headers": headers, "problem": written }), &answer)
        };
        let written = json!({ "type": "no-such-seat" });
        let full = json!({ "type": "no-such-seat", "detail": "The last seat is 300.", "seats": 300 });
        let told = json!({ "detail": "The last seat is 300." });
        assert_eq!(check(written.clone(), json!({}), told.clone()), Ok(()));
        let with_seats = json!({ "detail": "The last seat is 300.", "seats": 300 });
        assert_eq!(check(full.clone(), json!({}), with_seats.clone()), Ok(()));
        for (written, headers, told) in [
            (full, json!({}), told.clone()),
            (written.clone(), json!({}), with_seats),
            (written.clone(), json!({}), json!({})),
            (written.clone(), json!({}), json!({ "detail": "" })),
            (written.clone(), json!({}), json!({ "detail": "Why.", "title": "Other" })),
            (written.clone(), json!({}), json!({ "detail": "Why.", "instance": "urn:uuid:0" })),
            (json!({ "type": "conflict" }), json!({}), told.clone()),
            (written, json!({ "cache-control": "no-cache" }), told),
        ] {
            assert!(check(written.clone(), headers, told.clone()).is_err(), "{written} {told}");
        }
    }
}
