//! Streams, as a process sends them to Lambda's Runtime API.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "lines/mod.rs"]
mod lines;

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use lines::read;
use serde_json::{Value, json};
use testbed::{Call, Function, HttpAnswer, Invocation, InvocationResult, Piece, Streamed, Usage, example};

const STREAMS: &[(&str, &str)] = &[("INVOKE_MODE", "RESPONSE_STREAM")];

async fn probe(env: &[(&str, &str)]) -> Function {
    Function::start(&example("stream_probe"), env).await
}

fn call(trigger: &str, path: &str) -> Invocation {
    Invocation::new(Call::get(path, &[]).event(trigger, "probe").unwrap().to_string())
}

fn url(path: &str) -> Invocation {
    call("function-url", path)
}

/// The invocations' lines.
async fn lines(function: Function) -> Vec<Value> {
    let lines = read(&function.terminate().await);
    lines.into_iter().filter(|line| line["message"] == "invocation").collect()
}

async fn streamed(function: &mut Function, invocation: &Invocation) -> Streamed {
    match function.invoke(invocation).await {
        InvocationResult::Stream(streamed) => streamed,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_stream_has_a_prelude_and_its_line_comes_when_it_ends() {
    let mut function = probe(STREAMS).await;
    let invocation = url("/?bytes=200000");
    let answer = streamed(&mut function, &invocation).await;
    let prelude: Value = serde_json::from_str(&answer.prelude).unwrap();
    assert_eq!(prelude["statusCode"], 200);
    assert_eq!(prelude["headers"]["content-type"], "application/octet-stream");
    assert_eq!(prelude["headers"]["x-request-id"], *invocation.request_id);
    assert_eq!(prelude["cookies"], json!([]));
    assert!(answer.body == vec![b'x'; 200_000] && !answer.is_broken && answer.trailers.is_empty());
    let request = function.runtime_api().sent().pop().unwrap();
    for (name, value) in [
        ("lambda-runtime-function-response-mode", "streaming"),
        ("transfer-encoding", "chunked"),
        ("content-type", "application/vnd.awslambda.http-integration-response"),
    ] {
        assert_eq!(request.headers[name], value);
    }
    let [line] = &lines(function).await[..] else { panic!("no line") };
    assert_eq!(
        (&line["stream"], &line["bytes_out"], &line["level"]),
        (&json!("complete"), &json!(200_000), &json!("INFO"))
    );
    assert_eq!((&line["sent"], &line["later"]), (&json!(200_000), &json!(true)), "what came after the head");
    assert!(line["first_byte_ms"].as_f64().unwrap() <= line["duration_ms"].as_f64().unwrap(), "{line}");
}

#[tokio::test]
async fn a_failure_after_the_head_is_in_the_trailers_and_in_the_line() {
    let mut function = probe(STREAMS).await;
    let rows = [
        ("fail", "Runtime.StreamError", "error", "internal", "the cause, which is internal"),
        ("problem", "Runtime.StreamError", "error", "misconfigured", "the cause, which is internal"),
        ("panic", "Runtime.Panic", "panic", "internal", "the endpoint panicked"),
    ];
    for (then, kind, ..) in rows {
        let invocation = url(&format!("/?bytes=100&then={then}"));
        let answer = streamed(&mut function, &invocation).await;
        assert!(answer.body.len() == 100 && !answer.is_broken, "{then}: {answer:?}");
        assert_eq!(answer.trailers["lambda-runtime-function-error-type"], kind, "{then}");
        let body = BASE64_STANDARD.decode(&answer.trailers["lambda-runtime-function-error-body"]).unwrap();
        let body = String::from_utf8(body).unwrap();
        let error: Value = serde_json::from_str(&body).unwrap();
        assert!(error["errorType"] == kind && !body.contains("cause"), "{then}: {body}");
    }
    let lines = lines(function).await;
    assert_eq!(lines.len(), rows.len());
    for (line, (then, _, end, problem, error)) in lines.iter().zip(rows) {
        assert_eq!(
            (&line["stream"], &line["problem"], &line["status"]),
            (&json!(end), &json!(problem), &json!(200)),
            "{then}"
        );
        assert_eq!((&line["level"], &line["ServerErrors"]), (&json!("ERROR"), &json!(1)), "{then}: {line}");
        assert!(line["error"].as_str().unwrap().ends_with(error), "{then}: {line}");
        assert_eq!(line["panic"].is_string(), then == "panic", "{then}: {line}");
    }
}

#[tokio::test]
async fn every_answer_to_a_trigger_that_streams_has_the_form_of_a_stream() {
    let mut function = probe(STREAMS).await;
    for trigger in ["function-url", "rest-api"] {
        for (path, status, expected) in [
            ("/?then=whole&bytes=7", 200, "7"),
            ("/?bytes=-1", 400, "invalid-parameter"),
            ("/?then=refuse", 404, "not-found"),
            ("/?then=pass-on&bytes=3", 200, "xxx"),
            ("/?bytes=0", 200, ""),
        ] {
            let outcome = function.invoke(&call(trigger, path)).await;
            assert!(matches!(outcome, InvocationResult::Stream(_)), "{trigger} {path}: {outcome:?}");
            let answer = HttpAnswer::of(&outcome, false).unwrap();
            assert_eq!(answer.status, status, "{path}");
            assert!(answer.problem() == expected || answer.body == expected, "{path}: {answer:?}");
        }
    }
    let lines = lines(function).await;
    assert!(lines.iter().all(|line| line["stream"] == "complete" && line["level"] == "INFO"), "{lines:?}");
}

#[tokio::test]
async fn what_has_no_body_streams_none() {
    let mut function = probe(STREAMS).await;
    let head = Call { method: "HEAD".into(), ..Call::get("/?bytes=100&then=flood", &[]) };
    let head = Invocation::new(head.event("function-url", "probe").unwrap().to_string());
    let rows = [(head, 200), (url("/?bytes=100&then=flood&status=204"), 204), (url("/?then=fail&status=304"), 304)];
    for (invocation, status) in rows {
        let answer = streamed(&mut function, &invocation).await;
        let prelude: Value = serde_json::from_str(&answer.prelude).unwrap();
        assert!(prelude["statusCode"] == status && answer.body.is_empty() && answer.trailers.is_empty(), "{answer:?}");
    }
    let lines = lines(function).await;
    assert!(lines.iter().all(|line| line["stream"] == "complete" && line["bytes_out"] == 0), "{lines:?}");
}

#[tokio::test]
async fn behind_a_trigger_that_cannot_stream_the_pieces_are_collected_up_to_its_limit() {
    for (env, trigger, most) in [
        (STREAMS, "http-api", 6_000_000),
        (STREAMS, "vpc-lattice", 6_000_000),
        (STREAMS, "alb", 1_000_000),
        (&[], "function-url", 6_000_000),
        (&[("INVOKE_MODE", "BUFFERED")], "rest-api", 6_000_000),
    ] {
        let mut function = probe(env).await;
        let is_multi_value = trigger == "rest-api";
        for (path, status, expected) in [
            (format!("/?bytes={most}"), 200, ""),
            (format!("/?bytes={}", most + 400_000), 500, "internal"),
            ("/?bytes=20&then=flood".to_owned(), 500, "internal"),
            ("/?bytes=20&then=fail".to_owned(), 500, "internal"),
            ("/?bytes=20&then=panic".to_owned(), 500, "internal"),
            ("/?then=pass-on&bytes=3".to_owned(), 200, ""),
            ("/?bytes=20&then=flood&status=204".to_owned(), 204, ""),
        ] {
            let outcome = function.invoke(&call(trigger, &path)).await;
            assert!(matches!(outcome, InvocationResult::Response(_)), "{trigger} {path}: {outcome:?}");
            let answer = HttpAnswer::of(&outcome, is_multi_value).unwrap();
            assert_eq!((answer.status, &*answer.problem()), (status, expected), "{trigger} {path}");
            assert!(!answer.body.contains("which is internal"), "{trigger} {path}");
        }
        let lines = lines(function).await;
        assert!(lines.iter().all(|line| line.get("stream").is_none()), "{trigger}");
        assert!(
            lines[1]["error"].as_str().unwrap().contains("INVOKE_MODE is not RESPONSE_STREAM"),
            "{trigger}: {}",
            lines[1]
        );
    }
}

/// The head comes before the first piece, and each piece before the next one is asked for.
#[tokio::test]
async fn the_head_comes_at_once() {
    let mut function = probe(STREAMS).await;
    let mut pieces = function.stream(&url("/?then=stall&bytes=3").with_timeout(Duration::from_mins(1)));
    let mut seen = Vec::new();
    while !seen.ends_with(b"\0\0\0\0\0\0\0\0xxx") {
        let Some(Piece::Data(piece)) = pieces.recv().await else { panic!("{seen:?}") };
        seen.extend_from_slice(&piece);
    }
}

/// Code that works without a pause must not keep back what was sent before.
#[tokio::test]
async fn a_piece_is_there_before_the_next_one_is_made() {
    let pipe = std::env::temp_dir().join(format!("stream-{}", std::process::id()));
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let mut function = probe(&[STREAMS[0], ("PIPE", pipe.to_str().unwrap())]).await;
    let mut pieces = function.stream(&url("/?then=block&bytes=3").with_timeout(Duration::from_mins(1)));
    let mut seen = Vec::new();
    while !seen.ends_with(b"xxx") {
        let Some(Piece::Data(piece)) = pieces.recv().await else { panic!("{seen:?}") };
        seen.extend_from_slice(&piece);
    }
    // The function opens it for reading, if it has not done so.
    std::fs::OpenOptions::new().write(true).open(&pipe).unwrap();
    std::fs::remove_file(&pipe).unwrap();
    assert!(pieces.recv().await.is_none());
}

const MOST_RESIDENT: u64 = 10 << 20;

#[tokio::test]
async fn a_slow_reader_slows_the_writer_and_memory_is_bounded() {
    const BYTES: usize = 200_000_000;
    let mut function = probe(STREAMS).await;
    function.invoke(&url("/?bytes=100000")).await;
    let before = Usage::of(function.id()).resident;
    let mut pieces = function.stream(&url(&format!("/?bytes={BYTES}")).with_timeout(Duration::from_mins(2)));
    // Nobody reads, so the writer waits.
    function.polled(2).await;
    pieces.recv().await.unwrap();
    function.idle().await;
    let waiting = Usage::of(function.id()).resident;
    let mut bytes = 0;
    while let Some(piece) = pieces.recv().await {
        let Piece::Data(piece) = piece else { panic!("{piece:?}") };
        bytes += piece.len();
    }
    let peak = Usage::of(function.id()).peak;
    println!("before {before}, while nobody read {waiting}, at most {peak}");
    // The prelude comes first.
    assert!((BYTES..BYTES + 1000).contains(&bytes), "{bytes}");
    assert!(waiting.max(peak) - before <= MOST_RESIDENT, "{before} {waiting} {peak}");
    let [_, line] = &lines(function).await[..] else { panic!("no line") };
    assert_eq!((&line["stream"], &line["bytes_out"]), (&json!("complete"), &json!(BYTES)));
}

#[tokio::test]
async fn a_caller_that_goes_ends_the_writer_and_the_next_one_is_served() {
    let mut function = probe(STREAMS).await;
    let mut pieces = function.stream(&url("/?then=flood&bytes=3").with_timeout(Duration::from_mins(1)));
    pieces.recv().await.unwrap();
    drop(pieces);
    let answer = streamed(&mut function, &url("/?bytes=3")).await;
    assert_eq!(answer.body, b"xxx");
    let lines = lines(function).await;
    assert_eq!(
        lines.iter().map(|line| line["stream"].as_str().unwrap()).collect::<Vec<_>>(),
        ["caller-gone", "complete"]
    );
    assert_eq!((&lines[0]["level"], &lines[0]["status"]), (&json!("INFO"), &json!(200)));
}

/// Lambda does not read any more, so it can't be told, but the log can.
#[tokio::test]
async fn a_reader_that_stops_is_given_up_at_the_deadline() {
    let mut function = probe(STREAMS).await;
    let pieces = function.stream(&url("/?then=flood").with_timeout(Duration::from_millis(500)));
    let answer = streamed(&mut function, &url("/?bytes=3")).await;
    assert_eq!(answer.body, b"xxx");
    drop(pieces);
    let lines = lines(function).await;
    assert_eq!((&lines[0]["stream"], &lines[0]["problem"]), (&json!("deadline"), &json!("deadline-exceeded")));
}
