//! Drives our loop and the official one (`lambda_runtime`) through the same script of Lambda's Runtime API, and compares
//! what they send. The doc of functions/handler/src/lambda.rs says why they differ.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use hyper::StatusCode;
use serde_json::Value;
use testbed::{Fault, Function, Invocation, InvocationResult, RuntimeApi, Sent, example};
use tokio::process::Command;

const NEXT: &str = "/invocation/next";
const MANAGED: &[(&str, &str)] = &[("AWS_LAMBDA_MAX_CONCURRENCY", "2")];
const SNAP_START: &[(&str, &str)] = &[("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start")];
const CLIENT: &str = r#"{"client":{"installationId":"i","appTitle":"t","appVersionName":"n","appVersionCode":"c","appPackageName":"p"}}"#;

fn ours() -> PathBuf {
    example("probe")
}

fn official() -> PathBuf {
    example("official_loop")
}

fn plain() -> Invocation {
    Invocation::get("/", &[])
}

fn status(status: u16) -> Fault {
    Fault::Status(StatusCode::from_u16(status).unwrap())
}

/// What a process sent, without its polls, and how it ended, if it did.
async fn drive(
    executable: &Path,
    env: &[(&str, &str)],
    faults: &[(&'static str, Fault)],
    invocation: &Invocation,
) -> (Vec<Sent>, String, Vec<String>) {
    let api = RuntimeApi::start().await;
    for (end, fault) in faults {
        api.fail(end, *fault);
    }
    let mut function = Function::with(api, Command::new(executable), env);
    for invocation in [invocation, &plain(), &plain()] {
        let Err(ended) = function.try_invoke(invocation).await else { continue };
        let sent = function.runtime_api().sent();
        let (_, lines) = function.end().await;
        return (sent, format!("ended with {}", ended.code().unwrap_or_default()), lines);
    }
    let sent = function.runtime_api().sent();
    (sent, "serves".to_owned(), function.terminate().await)
}

/// In short, what was sent: the ends of the paths, and the types of errors.
fn summary((sent, end, _): &(Vec<Sent>, String, Vec<String>)) -> String {
    let mut summary = String::new();
    for Sent { path, body, .. } in sent.iter().filter(|sent| sent.path != NEXT) {
        let id_and_kind = path.strip_prefix("/invocation/").and_then(|path| path.split_once('/'));
        summary += id_and_kind.map_or(path, |(_, kind)| kind);
        if path.ends_with("/error") {
            let error: Value = serde_json::from_str(body).unwrap();
            let kind = error["errorType"].as_str().unwrap();
            summary.extend([" (", if kind.contains("::") { "a Rust type" } else { kind }, ")"]);
        }
        summary += ", ";
    }
    summary + end
}

const SERVES: &str = "response, response, response, serves";

/// What Lambda does, and what ours and the official loop make of it.
struct Row {
    name: &'static str,
    env: &'static [(&'static str, &'static str)],
    faults: Vec<(&'static str, Fault)>,
    invocation: Invocation,
    ours: &'static str,
    official: &'static str,
}

fn rows() -> Vec<Row> {
    const DEADLINE: &str = "lambda-runtime-deadline-ms";
    const RESTORED: &str = "/restore/next, response, response, response, serves";
    const OURS_FAILED: &str = "/restore/next, /init/error (Runtime.InitError), ended with 1";
    const FAILED: &str = "/restore/next, /init/error (a Rust type), ended with 1";
    let row = |name, env, faults, ours, official| Row { name, env, faults, invocation: plain(), ours, official };
    let next = |name, env, faults: Vec<Fault>, official| {
        row(name, env, faults.into_iter().map(|fault| (NEXT, fault)).collect(), SERVES, official)
    };
    let result = |name, fault, ours, official| row(name, &[], vec![("/response", fault)], ours, official);
    let with = |name, header, value, official| Row {
        invocation: plain().with_header(header, value),
        ..row(name, &[], vec![], SERVES, official)
    };
    let (close, no_headers) = (Fault::Close, status(200));
    let lost = "response, error (Runtime.ResultNotSent), response, response, serves";
    let identity = r#"{"identityId":"i","identityPoolId":"p"}"#;
    vec![
        row("nothing special", &[], vec![], SERVES, SERVES),
        next("a poll: closed", &[], vec![close], "ended with 1"),
        next("a poll: 500", &[], vec![status(500)], "ended with 101"),
        next("a poll: 403", &[], vec![status(403)], "ended with 101"),
        next("a poll: 204", &[], vec![status(204)], SERVES),
        next("a poll: no headers", &[], vec![no_headers], "ended with 101"),
        next("polls: all of these", &[], vec![close, status(500), no_headers, status(429)], "ended with 1"),
        next("two workers: closed", MANAGED, vec![close; 4], SERVES),
        next("two workers: 500", MANAGED, vec![status(500); 4], "ended with 1"),
        result("a result: closed", close, lost, "response, ended with 1"),
        result("a result: too long", status(413), SERVES, SERVES),
        result("a result: too late", status(410), SERVES, SERVES),
        result("a result: 400", status(400), SERVES, SERVES),
        result("a result: 403", status(403), SERVES, SERVES),
        result("a result: 500", status(500), SERVES, SERVES),
        with("no deadline", DEADLINE, None, "ended with 101"),
        with("a malformed deadline", DEADLINE, Some("soon"), "ended with 1"),
        with("no ARN", "lambda-runtime-invoked-function-arn", None, SERVES),
        with("no trace", "lambda-runtime-trace-id", None, SERVES),
        with("a tenant", "lambda-runtime-aws-tenant-id", Some("tenant"), SERVES),
        with("a client context", "lambda-runtime-client-context", Some(CLIENT), SERVES),
        with("a malformed client context", "lambda-runtime-client-context", Some("{"), "ended with 1"),
        with("an identity", "lambda-runtime-cognito-identity", Some(identity), SERVES),
        with("a malformed identity", "lambda-runtime-cognito-identity", Some("{}"), "ended with 1"),
        Row {
            invocation: Invocation::new("{"),
            ours: "error (Runtime.UnknownEvent), response, response, serves",
            ..row("an unreadable event", &[], vec![], "", "error (a Rust type), response, response, serves")
        },
        row("a snapshot", SNAP_START, vec![], RESTORED, RESTORED),
        row("a snapshot: 500", SNAP_START, vec![("/restore/next", status(500))], OURS_FAILED, FAILED),
        row("a snapshot: closed", SNAP_START, vec![("/restore/next", close)], OURS_FAILED, FAILED),
    ]
}

#[tokio::test]
async fn both_loops_get_the_same_script() {
    let mut wrong = Vec::new();
    for Row { name, env, faults, invocation, ours: expected, official: expected_official } in rows() {
        for (executable, expected) in [(ours(), expected), (official(), expected_official)] {
            let driven = drive(&executable, env, &faults, &invocation).await;
            let seen = summary(&driven);
            if seen != expected {
                wrong.push(format!(
                    "{name}, {}: {seen}\n    instead of {expected}\n    {:?}",
                    executable.display(),
                    driven.2
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The headers of what was sent after the first poll, without those that depend on the body.
fn headers(sent: &[Sent]) -> Vec<BTreeMap<String, String>> {
    let without = |sent: &Sent| {
        let mut headers = sent.headers.clone();
        headers.retain(|name, _| !["host", "content-length"].contains(&name.as_str()));
        headers
    };
    sent.iter().take(2).map(without).collect()
}

#[tokio::test]
async fn both_loops_send_the_same_headers() {
    let invocation = plain().with_header("lambda-runtime-invocation-id", Some("an id"));
    let (ours, ..) = drive(&ours(), &[], &[], &invocation).await;
    let (official, ..) = drive(&official(), &[], &[], &invocation).await;
    assert_eq!(headers(&ours), headers(&official));
    assert_eq!(ours[1].headers["lambda-runtime-invocation-id"], "an id");
}

#[tokio::test]
async fn a_failure_has_one_type_and_its_line_has_the_request() {
    let invocation = Invocation::new("{").with_header("lambda-runtime-invocation-id", Some("an id"));
    let (sent, _, lines) = drive(&ours(), &[], &[("/error", status(403))], &invocation).await;
    let (official, ..) = drive(&official(), &[], &[], &invocation).await;
    let mut headers = [headers(&sent).remove(1), headers(&official).remove(1)];
    let types = headers.each_mut().map(|headers| headers.remove("lambda-runtime-function-error-type").unwrap());
    assert_eq!(types, ["Runtime.UnknownEvent", "unhandled"]);
    assert_eq!(headers[0], headers[1]);
    for message in ["the invocation failed", "Lambda refused the result of the invocation: 403 Forbidden"] {
        let line = lines.iter().find(|line| line.contains(message)).unwrap();
        assert!(line.contains(&invocation.request_id), "{line}");
    }
}

#[tokio::test]
async fn a_lost_result_is_logged_with_its_request() {
    let invocation = plain();
    let (_, _, lines) = drive(&ours(), &[], &[("/response", Fault::Close)], &invocation).await;
    let line = lines.iter().find(|line| line.contains("Runtime.ResultNotSent")).unwrap();
    assert!(line.contains(&invocation.request_id), "{line}");
}

/// The official loop tells the caller what the panic said.
#[tokio::test]
async fn a_panic_is_an_answer_here_and_an_error_there() {
    let named = Invocation::get("/?panic=a-bug", &[]);
    let ours = drive(&example("probe"), &[], &[], &named).await;
    assert_eq!(summary(&ours), SERVES);
    assert!(ours.0.iter().all(|sent| !sent.body.contains("a bug")));
    let official = drive(&official(), &[], &[], &named).await;
    assert_eq!(summary(&official), "error (a Rust type), response, response, serves");
    assert!(official.0.iter().any(|sent| sent.body.contains("a bug")));
}

/// With four file descriptors, tokio cannot start.
#[tokio::test]
async fn a_start_that_fails_is_reported() {
    for (executable, expected) in [(ours(), vec!["Runtime.InitError"]), (official(), vec![])] {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", r#"ulimit -n 4; exec "$0""#]).arg(&executable);
        let mut function = Function::with(RuntimeApi::start().await, command, &[]);
        assert!(matches!(function.try_invoke(&plain()).await, Err(status) if !status.success()));
        let sent = function.runtime_api().sent();
        let types: Vec<&str> = sent.iter().map(|sent| &*sent.headers["lambda-runtime-function-error-type"]).collect();
        assert_eq!(types, expected, "{}", executable.display());
        assert!(sent.iter().all(|sent| sent.path == "/init/error" && sent.body.contains("Too many open files")));
    }
}

#[tokio::test]
async fn a_worker_that_polled_in_vain_works_again() {
    let api = RuntimeApi::start().await;
    for _ in 0..8 {
        api.fail(NEXT, status(500));
    }
    let mut function = Function::with(api, Command::new(ours()), MANAGED);
    // Both wait at the same time.
    function.polled(2).await;
    for outcome in function.invoke_all(&[plain(), plain()]).await {
        assert!(matches!(outcome, InvocationResult::Response(_)));
    }
    function.polled(4).await;
}
