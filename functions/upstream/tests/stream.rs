//! Tests the example of docs/streams.md with a service that fails, before the head of its response and after it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::time::Duration;

use serde_json::{Value, json};
use testbed::{
    Call, Function, HttpAnswer, Invocation, InvocationResult, Piece, Streamed, Usage, example,
    upstream::{Answer, Behaviour, Upstream},
};

async fn start(server: &Upstream, settings: &[(&str, &str)]) -> Function {
    let url = server.url("/");
    let own = [("REPORTS_URL", &*url), ("INVOKE_MODE", "RESPONSE_STREAM"), ("REPORTS_TIMEOUT_MS", "60000")];
    let patient = ("REPORTS_ATTEMPT_TIMEOUT_MS", "60000");
    Function::start(&example("reports"), &[&own[..], &[patient], settings].concat()).await
}

fn get(trigger: &str, headers: &[(&str, &str)]) -> Invocation {
    let event = Call::get("/reports/7", headers).event(trigger, "reports").unwrap().to_string();
    Invocation::new(event).with_timeout(Duration::from_mins(2))
}

async fn streamed(function: &mut Function, headers: &[(&str, &str)]) -> Streamed {
    match function.invoke(&get("function-url", headers)).await {
        InvocationResult::Stream(streamed) => streamed,
        other => panic!("{other:?}"),
    }
}

async fn lines(function: Function) -> Vec<Value> {
    let lines = function.terminate().await;
    let lines = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["message"] == "invocation").collect()
}

/// Byte for byte, with all that says what the bytes are, over a connection that serves the next request, too.
#[tokio::test]
async fn a_response_is_passed_on_as_it_is() {
    let server = Upstream::start();
    let gzipped = "no gzip, but nobody looks";
    let headers = [
        ("content-type", "text/csv"),
        ("content-disposition", "attachment"),
        ("content-range", "bytes 3-27/28"),
        ("etag", "\"1\""),
        ("vary", "accept-encoding"),
        ("cache-control", "max-age=60"),
        ("cache-status", "theirs"),
        ("set-cookie", "theirs=1"),
    ];
    let part =
        headers.iter().fold(Answer::status(206).body(gzipped), |answer, (name, value)| answer.header(name, *value));
    server.then(part.header("content-encoding", "gzip")).always(Answer::ok("plain"));
    let mut function = start(&server, &[]).await;
    let of_caller = [("range", "bytes=3-"), ("accept-encoding", "gzip, br")];
    let answer = streamed(&mut function, &of_caller).await;
    let prelude: Value = serde_json::from_str(&answer.prelude).unwrap();
    assert!(answer.body == gzipped.as_bytes() && answer.trailers.is_empty(), "{answer:?}");
    assert_eq!(prelude["statusCode"], 206);
    for (name, value) in &headers[..6] {
        assert_eq!(prelude["headers"][name], *value, "{name}");
    }
    assert_eq!(prelude["headers"]["content-encoding"], "gzip");
    assert_eq!(prelude["headers"]["cache-status"], "upstream; fwd=miss; fwd-status=206");
    assert_eq!(prelude["cookies"], json!([]));
    assert_eq!(streamed(&mut function, &[]).await.body, b"plain");
    let unchanged = streamed(&mut function, &[("if-none-match", "\"1\"")]).await;
    assert_eq!(unchanged.body, b"plain", "another response");
    let [first, second, third] = &server.requests()[..] else { panic!("{:?}", server.requests()) };
    assert_eq!((first.header("range"), first.header("accept-encoding")), (Some("bytes=3-"), Some("gzip, br")));
    assert_eq!((second.header("range"), second.header("accept-encoding")), (None, Some("identity")));
    assert_eq!((&*third.target, server.connections()), ("/files/7", 1));
    let lines = lines(function).await;
    for (line, bytes) in lines.iter().zip([gzipped.len(), 5, 5]) {
        assert_eq!(
            (&line["stream"], &line["bytes_out"], &line["attempts"]),
            (&json!("complete"), &json!(bytes), &json!(1))
        );
        assert_eq!(
            (&line["cache_status"], &line["breaker_state"], &line["level"]),
            (&Value::Null, &Value::Null, &json!("INFO"))
        );
        assert_eq!((&line["reports_cache_status"], &line["reports_breaker_state"]), (&json!("miss"), &json!("closed")));
    }
}

#[tokio::test]
async fn a_caller_that_has_it_gets_no_body() {
    let server = Upstream::start();
    server.always(
        Answer::ok("long").etag("\"1\"").header("vary", "accept-encoding").header("content-disposition", "inline"),
    );
    let mut function = start(&server, &[]).await;
    let answer = streamed(&mut function, &[("if-none-match", "\"1\"")]).await;
    let prelude: Value = serde_json::from_str(&answer.prelude).unwrap();
    assert_eq!((&prelude["statusCode"], &*answer.body), (&json!(304), &b""[..]));
    assert_eq!(
        (&prelude["headers"]["vary"], &prelude["headers"]["content-disposition"]),
        (&json!("accept-encoding"), &Value::Null)
    );
    assert_eq!(server.requests()[0].header("if-none-match"), None);
}

/// Until the head is there, all is as for a whole response.
#[tokio::test]
async fn a_failure_before_the_head_is_retried_and_becomes_a_problem() {
    let in_transfer = "HTTP/1.1 200 OK\ntransfer-encoding: gzip, chunked";
    for (does, problem, calls) in [
        (Behaviour::ResetMidHeader, "upstream-unreachable", 3),
        (Behaviour::MalformedHeaders, "upstream-unreachable", 3),
        (Answer::status(503).into(), "upstream-error", 3),
        (Answer::status(404).into(), "upstream-error", 1),
        (Answer::status(304).into(), "upstream-error", 1),
        (Answer::status(206).into(), "upstream-unreachable", 1),
        (Behaviour::raw(in_transfer, "0\r\n\r\n", false), "upstream-unreachable", 1),
        (Behaviour::raw("HTTP/1.1 200 OK\ncontent-length: 1073741825", "", false), "upstream-response-too-large", 1),
    ] {
        let server = Upstream::start();
        server.always(does.clone());
        let mut function = start(&server, &[]).await;
        let answer = HttpAnswer::of(&function.invoke(&get("function-url", &[])).await, false).unwrap();
        assert_eq!((&*answer.problem(), server.calls()), (problem, calls), "{does:?}");
        let [line] = &lines(function).await[..] else { panic!("no line") };
        assert_eq!(line["stream"], "complete", "{does:?}");
    }
    let server = Upstream::start();
    server.always(Behaviour::raw("HTTP/1.1 200 OK\ncontent-length: 1073741824", "", true));
    let mut function = start(&server, &[]).await;
    assert!(!streamed(&mut function, &[]).await.trailers.is_empty(), "it may be that long");
    server.always(Behaviour::Silent);
    let mut function = start(&server, &[("REPORTS_ATTEMPT_TIMEOUT_MS", "500"), ("REPORTS_MAX_ATTEMPTS", "1")]).await;
    let answer = HttpAnswer::of(&function.invoke(&get("function-url", &[])).await, false).unwrap();
    assert_eq!((answer.status, &*answer.problem()), (504, "upstream-timeout"));
}

#[tokio::test]
async fn a_failure_after_the_head_breaks_the_stream() {
    let server = Upstream::start();
    let mut function = start(&server, &[("REPORTS_IDLE_TIMEOUT_MS", "500")]).await;
    let rows = [
        (Behaviour::ResetMidBody, "only the beginning", "upstream-unreachable"),
        (Behaviour::Truncate, "only the beginning", "upstream-unreachable"),
        (Behaviour::MalformedChunks, "first", "upstream-unreachable"),
        (Behaviour::LengthTooLong, "only the beginning", "upstream-timeout"),
        (Behaviour::Drip, "only the beginning", "upstream-timeout"),
    ];
    for (does, body, _) in &rows {
        let calls = server.calls();
        server.always(does.clone());
        let answer = streamed(&mut function, &[]).await;
        // A reset may overtake what was sent before it.
        let came = String::from_utf8(answer.body).unwrap();
        assert!(
            came == *body || matches!(does, Behaviour::ResetMidBody) && body.starts_with(&came),
            "{does:?}: {came}"
        );
        assert_eq!(answer.trailers["lambda-runtime-function-error-type"], "Runtime.StreamError", "{does:?}");
        assert_eq!(server.calls(), calls + 1, "{does:?} was repeated");
        server.all_closed().await;
    }
    for (line, (does, _, problem)) in lines(function).await.iter().zip(&rows) {
        assert_eq!(
            (&line["stream"], &line["problem"], &line["level"]),
            (&json!("error"), &json!(problem), &json!("ERROR")),
            "{does:?}"
        );
        assert!(line["error"].as_str().unwrap().contains("REPORTS"), "{line}");
    }
}

#[tokio::test]
async fn streams_that_break_open_the_circuit_breaker() {
    let server = Upstream::start();
    server.always(Behaviour::Truncate);
    let mut function = start(&server, &[]).await;
    for _ in 0..10 {
        streamed(&mut function, &[]).await;
    }
    let answer = HttpAnswer::of(&function.invoke(&get("function-url", &[])).await, false).unwrap();
    assert_eq!((&*answer.problem(), server.calls()), ("upstream-unavailable", 10));
    let lines = lines(function).await;
    let opens: Vec<_> = lines.iter().map(|line| line["BreakerOpens"].as_u64().unwrap_or_default()).collect();
    assert_eq!(opens, [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(
        (&lines[8]["reports_breaker_state"], &lines[9]["reports_breaker_state"]),
        (&json!("closed"), &json!("open"))
    );
}

#[tokio::test]
async fn the_fleet_hears_of_a_circuit_breaker_that_a_stream_opens() {
    let (server, aws) = (Upstream::start(), Upstream::start());
    server.always(Behaviour::Truncate);
    aws.always(Answer::ok("{}"));
    let endpoint = aws.url("");
    let mut function = start(
        &server,
        &[
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_ENDPOINT_URL", &endpoint),
            ("AWS_REGION", "us-east-1"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("SHARED_STATE_TABLE", "table"),
        ],
    )
    .await;
    // What the fleet knows is read before a call.
    let told = || {
        let targets =
            aws.requests().into_iter().filter_map(|request| request.header("x-amz-target").map(str::to_owned));
        targets.filter(|target| target != "DynamoDB_20120810.BatchGetItem").collect::<Vec<_>>()
    };
    for _ in 0..10 {
        assert!(told().is_empty(), "{:?}", told());
        streamed(&mut function, &[]).await;
    }
    // The invocation waits until it is told.
    assert_eq!(lines(function).await[9]["BreakerOpens"], 1);
    assert_eq!(told(), ["DynamoDB_20120810.UpdateItem"]);
}

/// The upstream is slow but not silent, so the function's own time is what ends it.
#[tokio::test]
async fn the_deadline_ends_a_slow_body() {
    let server = Upstream::start();
    server.always(Behaviour::Drip);
    let mut function = start(&server, &[]).await;
    let answer = match function.invoke(&get("function-url", &[]).with_timeout(Duration::from_secs(3))).await {
        InvocationResult::Stream(streamed) => streamed,
        other => panic!("{other:?}"),
    };
    assert!(answer.body.starts_with(b"only the beginning"), "{answer:?}");
    server.all_closed().await;
    // Lambda may get the trailers too late, but the line says it.
    let [line] = &lines(function).await[..] else { panic!("no line") };
    assert_eq!((&line["stream"], &line["problem"]), (&json!("deadline"), &json!("deadline-exceeded")), "{line}");
}

/// 200 MB, of which little is in memory at a time. Then the caller goes, which is the end for the upstream, too.
#[tokio::test]
async fn memory_is_bounded_and_a_caller_that_goes_ends_the_upstreams_response() {
    const BYTES: usize = 200_000_000;
    const MOST_RESIDENT: u64 = 10 << 20;
    let server = Upstream::start();
    server.then(Answer::ok("small")).always(Behaviour::EndlessBody);
    let mut function = start(&server, &[]).await;
    assert_eq!(streamed(&mut function, &[]).await.body, b"small");
    let before = Usage::of(function.id()).resident;
    let mut pieces = function.stream(&get("function-url", &[]));
    // Nobody reads, so the upstream waits.
    function.polled(2).await;
    let mut bytes = 0;
    while bytes < BYTES {
        let Some(Piece::Data(piece)) = pieces.recv().await else { panic!("it ended after {bytes}") };
        bytes += piece.len();
        if bytes == piece.len() {
            function.idle().await;
            let waiting = Usage::of(function.id()).resident;
            assert!(waiting - before <= MOST_RESIDENT, "{before} {waiting}");
        }
    }
    drop(pieces);
    server.all_closed().await;
    let peak = Usage::of(function.id()).peak;
    println!("before {before}, at most {peak}");
    assert!(peak - before <= MOST_RESIDENT, "{before} {peak}");
    server.always(Answer::ok("small"));
    assert_eq!(streamed(&mut function, &[]).await.body, b"small");
    let ends: Vec<_> = lines(function).await.iter().map(|line| line["stream"].clone()).collect();
    assert_eq!(ends, ["complete", "caller-gone", "complete"]);
}

#[tokio::test]
async fn behind_a_trigger_that_cannot_stream_it_is_collected() {
    let server = Upstream::start();
    let mut function = start(&server, &[]).await;
    for (does, status, problem) in [
        (Behaviour::from(Answer::ok("good")), 200, ""),
        (Behaviour::Truncate, 502, "upstream-unreachable"),
        (Behaviour::EndlessBody, 500, "internal"),
    ] {
        server.always(does.clone());
        let answer = HttpAnswer::try_from(function.invoke(&get("http-api", &[])).await).expect("an answer");
        assert_eq!((answer.status, &*answer.problem()), (status, problem), "{does:?}");
    }
}
