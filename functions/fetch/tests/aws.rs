//! Tests what the AWS clients of `fetch` send, and that nothing of what AWS answers is told, with a server that plays
//! AWS. And what a failure adds to the log.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod bed;

use bed::Bed;
use futures_util::future::join_all;
use serde_json::Value;
use testbed::{
    HttpAnswer, Invocation,
    budget::{Budget, debug_build, is_countable, start},
    upstream::{Answer, Behaviour, Certificate, Upstream},
};

/// A secret in every place of an answer where a fault could put it.
const PLANTED: &str = "PLANTED-4f1e";

/// The settings for clients that call `endpoint`, and log all they can.
fn settings(endpoint: &str) -> Vec<(&str, &str)> {
    vec![
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_LAMBDA_LOG_LEVEL", "TRACE"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("SHARED_STATE_TIMEOUT_MS", "30000"),
    ]
}

/// Answers that cannot be read, or that are errors.
fn answers() -> Vec<Behaviour> {
    let json = |status, body: String| Answer::status(status).body(body).header("x-planted", PLANTED);
    let raw = |head: &str, body: &[u8]| Behaviour::raw(&format!("HTTP/1.1 200 OK\n{head}"), body, true);
    let secret = format!(r#"{{"SecretString":"{PLANTED}","Responses":{{"table":[{{"part":{{"S":"{PLANTED}"}}}}]}}}}"#);
    let mut answers: Vec<Behaviour> = [
        // 200, but not JSON, or not the expected JSON.
        PLANTED.to_owned(),
        format!("{secret}{PLANTED}"),
        secret[..secret.len() - 1].to_owned(),
        format!("<html>{PLANTED}</html>"),
        format!(r#"["{PLANTED}"]"#),
        format!(r#"{{"SecretString":["{PLANTED}"],"Responses":"{PLANTED}"}}"#),
        format!(r#"{{"SecretString":{{"a":"{PLANTED}"}},"Responses":{{"table":{{"a":"{PLANTED}"}}}}}}"#),
        format!(r#"{{"SecretString":"\u{PLANTED}","Responses":"\u{PLANTED}"}}"#),
        format!(r#"{{"SecretBinary":"{PLANTED}","Responses":{{"table":[{{"body":{{"B":"{PLANTED}"}}}}]}}}}"#),
        format!(r#"{{"CreatedDate":"{PLANTED}","Count":"{PLANTED}"}}"#),
        // What is no token, or no item.
        format!(r#"{{"SecretString":"{{\"token\":\"{PLANTED}\"}}","Responses":{{"table":[{{"part":{{"S":"response"}}}}]}}}}"#),
        format!(r#"{{"SecretString":"Bearer {PLANTED}","Responses":{{"table":[{{"{PLANTED}":{{"{PLANTED}":"{PLANTED}"}}}}]}}}}"#),
    ]
    .into_iter()
    .map(|body| json(200, body).into())
    .collect();
    for status in [400, 403, 404, 500, 503] {
        answers.extend([
            json(status, format!(r#"{{"__type":"{PLANTED}","message":"{PLANTED}"}}"#)).into(),
            json(status, format!(r#"{{"code":"a#{PLANTED}:b","Message":"{PLANTED}","SecretString":"{PLANTED}"}}"#))
                .into(),
            json(status, format!("<html>{PLANTED}</html>")).into(),
            json(status, secret.clone()).header("x-amzn-errortype", PLANTED).header("x-amzn-requestid", PLANTED).into(),
            json(status, format!(r#"{{"__type":"ValidationException","message":"{PLANTED}"}}"#)).into(),
        ]);
    }
    let not_utf_8 = [&secret.as_bytes()[..20], b"\xff\xfe", PLANTED.as_bytes(), b"\"}"].concat();
    answers.extend([
        Answer::ok(not_utf_8).into(),
        raw("content-length: 1000", secret.as_bytes()),
        raw("content-length: 20", secret.as_bytes()),
        raw(&format!("content-length: {PLANTED}"), secret.as_bytes()),
        raw("transfer-encoding: chunked", format!("5\r\n{{\"Sec\r\n{PLANTED}\r\n").as_bytes()),
        raw(&format!("{PLANTED}\ncontent-length: 2"), b"{}"),
        raw("content-encoding: gzip\ncontent-length: 12", PLANTED.as_bytes()),
        Behaviour::raw(&format!("HTTP/1.1 {PLANTED}"), b"", true),
        Behaviour::raw(PLANTED, b"", true),
        Answer::status(301).header("location", format!("http://127.0.0.1:1/{PLANTED}")).into(),
        Answer::status(204).header("x-planted", PLANTED).into(),
    ]);
    answers
}

/// What callers and the log get of an invocation while AWS does one of `answers`, for each of them.
async fn told(answers: Vec<Behaviour>, more: &[(&str, &str)]) -> Vec<(Behaviour, String)> {
    let told = async |answer: &Behaviour| {
        let (aws, upstream) = (Upstream::start(), Upstream::start());
        aws.always(answer.clone());
        upstream.always(Answer::ok("good").cache_control("max-age=60"));
        let (endpoint, credentials) = (aws.url(""), aws.url("/credentials"));
        let mut env = settings(&endpoint);
        env.push(("AWS_CONTAINER_CREDENTIALS_FULL_URI", &credentials));
        env.extend_from_slice(more);
        let mut bed = Bed::new(upstream, &env).await;
        let told: HttpAnswer = bed.get(&[]).await.unwrap();
        let sent = format!("{:?}", bed.upstream.requests());
        assert!(!sent.contains(PLANTED), "{answer:?}: {sent}");
        format!("{told:?}\n{}", bed.fetch.terminate().await.join("\n"))
    };
    let mut all = Vec::new();
    // Many at a time, because the clients wait before they try again.
    for some in answers.chunks(16) {
        all.extend(some.iter().cloned().zip(join_all(some.iter().map(told)).await));
    }
    for (answer, told) in &all {
        assert!(!told.contains(PLANTED), "{answer:?}: {told}");
    }
    all
}

#[tokio::test]
async fn nothing_of_a_secret_is_told() {
    for (answer, told) in told(answers(), &[("UPSTREAM_SECRET_ID", "token")]).await {
        assert!(told.contains("UPSTREAM_SECRET_ID"), "{answer:?}: {told}");
    }
}

#[tokio::test]
async fn nothing_of_an_item_is_told() {
    let told = told(answers(), &[("SHARED_STATE_TABLE", "table")]).await;
    let failures = told.iter().filter(|(_, told)| told.contains("the table of SHARED_STATE_TABLE")).count();
    assert!(failures > 30, "{failures} of {}", told.len());
}

/// Those that a function gets by HTTP.
#[tokio::test]
async fn nothing_of_credentials_is_told() {
    let mut answers = answers();
    answers.extend(
        [
            format!(r#"{{"AccessKeyId":"{PLANTED}","SecretAccessKey":"{PLANTED}"}}"#),
            format!(
                r#"{{"AccessKeyId":"a","SecretAccessKey":"{PLANTED}","Token":"{PLANTED}","Expiration":"{PLANTED}"}}"#
            ),
            format!(r#"{{"Code":"{PLANTED}","Message":"{PLANTED}"}}"#),
        ]
        .map(|body| Answer::ok(body).into()),
    );
    let env = [("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", ""), ("UPSTREAM_SECRET_ID", "token")];
    for (answer, told) in told(answers, &env).await {
        assert!(told.contains("UPSTREAM_SECRET_ID"), "{answer:?}: {told}");
    }
}

/// AWS's clients trust what is in `SSL_CERT_FILE`. The log must say why that does not work.
#[tokio::test]
async fn a_missing_file_of_certificates_is_told() {
    let (aws, upstream) = (Upstream::start_tls(Certificate::Valid), Upstream::start());
    let endpoint = aws.url("");
    let mut env = settings(&endpoint);
    env.extend([("SSL_CERT_FILE", "/missing.pem"), ("UPSTREAM_SECRET_ID", "token")]);
    let mut bed = Bed::new(upstream, &env).await;
    assert_eq!(bed.get(&[]).await.unwrap().problem(), "upstream-unavailable");
    let told = bed.fetch.terminate().await.join("\n");
    assert!(told.contains("/missing.pem") && told.contains("invalid peer certificate: UnknownIssuer"), "{told}");
}

/// Whatever is in the environment, where the SDK looks for it.
#[tokio::test]
async fn calls_of_aws_are_in_the_trace() {
    let aws = Upstream::start();
    aws.always(Answer::ok(r#"{"SecretString":"tok"}"#));
    let endpoint = aws.url("");
    let mut env = settings(&endpoint);
    env.extend([
        ("SHARED_STATE_TABLE", "table"),
        ("UPSTREAM_SECRET_ID", "token"),
        ("_X_AMZN_TRACE_ID", "Root=1-00000000-000000000000000000000001"),
    ]);
    let mut bed = Bed::new(Upstream::start(), &env).await;
    let invocation = Invocation::get("/fetch", &[]);
    let trace = invocation.trace_id.clone();
    HttpAnswer::try_from(bed.fetch.invoke(&invocation).await).unwrap();
    bed.fetch.terminate().await;
    let mut operations = Vec::new();
    for request in aws.requests() {
        assert_eq!(request.header("x-amzn-trace-id"), Some(&*trace), "{request:?}");
        operations.extend(request.header("x-amz-target").map(str::to_owned));
    }
    assert!(operations.iter().any(|operation| operation.contains("GetSecretValue")), "{operations:?}");
    assert!(operations.iter().any(|operation| operation.starts_with("DynamoDB")), "{operations:?}");
}

/// A start that loads what no request needs yet is over the budget. A debug build shows that as well as the packaged one,
/// and exists anyway.
#[tokio::test]
async fn eager_configuration_breaks_the_budget() {
    if !is_countable() {
        return;
    }
    let budget = Budget::new(start("fetch", &debug_build(&["--bins"]).join("fetch")).await);
    let eager = debug_build(&["--example", "eager"]).join("examples/eager");
    let eager = start("fetch", &eager).await;
    assert!(!budget.overruns("fetch", &eager).is_empty(), "it passed: {eager:?}, {budget:?}");
}

#[tokio::test]
async fn a_failure_is_told_in_documented_names() {
    let schema: Value = serde_json::from_str(include_str!("../../handler/log-event.schema.json")).unwrap();
    let is_known = |name: &str| {
        let in_part = |part: &str| !schema["$defs"][part]["properties"][name].is_null();
        ["level", "message"].contains(&name) || in_part("invocation") || in_part("metrics")
    };
    for (behaviour, problem) in
        [(Behaviour::from(Answer::status(503)), "upstream-error"), (Behaviour::Truncate, "upstream-unreachable")]
    {
        let mut bed = Bed::new(Upstream::start(), &[]).await;
        bed.upstream.always(behaviour);
        bed.get(&[]).await.unwrap();
        let lines = bed.fetch.terminate().await;
        let line: Value = lines.iter().find(|line| line.contains("_aws")).unwrap().parse().unwrap();
        assert_eq!((&line["problem"], &line["level"]), (&problem.into(), &"ERROR".into()));
        assert!(line["error"].as_str().unwrap().starts_with(&format!("{problem}: ")), "{line}");
        let unknown: Vec<_> = line.as_object().unwrap().keys().filter(|name| !is_known(name)).collect();
        assert!(unknown.is_empty(), "{unknown:?} are not in the schema");
    }
}
