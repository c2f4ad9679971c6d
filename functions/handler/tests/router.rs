//! Tests endpoints made from an axum router, with the example router, through every trigger.

#![expect(clippy::expect_used, reason = "what a test relies on")]

use std::collections::BTreeMap;

use futures_util::FutureExt;
use handler::{Context, Endpoint, Problem, Request, body};
use serde_json::{Value, json};
use testbed::{Call, HttpAnswer, TRIGGERS};

#[path = "../examples/router.rs"]
#[expect(dead_code, reason = "the test calls what `main` would run")]
mod router;

fn call(method: &str, path: &str, body: Option<&str>) -> Call {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    Call {
        route: "ANY /{proxy+}".into(),
        method: method.into(),
        path: path.into(),
        query: query.into(),
        headers: body.map(|_| ("content-type".into(), "application/json".into())).into_iter().collect(),
        cookies: Vec::new(),
        body: body.map(|body| (body.into(), false)),
        claims: Vec::new(),
    }
}

/// The answer and the log line through each trigger that can carry the call.
fn answers(endpoint: &impl Endpoint, call: &Call) -> BTreeMap<&'static str, (HttpAnswer, Value)> {
    let answer = |trigger: &'static str| {
        let event = call.event(trigger, "router").expect("a call that every trigger lets pass").to_string();
        let mut context = Context::default();
        context.request_id = "6b2a".into();
        let observed = handler::observe(endpoint.clone(), event.as_bytes(), context).now_or_never();
        let (answer, line) = observed.expect("an endpoint that never waits").expect("an HTTP answer");
        let answer = HttpAnswer::read(&answer, ["rest-api", "alb-multi-value"].contains(&trigger)).expect(trigger);
        (trigger, (answer, serde_json::from_str(&line).expect("JSON")))
    };
    TRIGGERS.into_iter().map(answer).collect()
}

#[test]
fn a_router_answers_the_same_through_every_trigger() {
    let endpoint = handler::service(router::letters());
    for (method, path, sent, status, expected, route) in [
        ("GET", "/letters?limit=20", None, 200, r#"{"limit":20}"#, "/letters"),
        ("HEAD", "/letters", None, 200, "", "/letters"),
        ("POST", "/letters", Some(r#"{"to": "Ada", "grams": 70}"#), 201, r#"{"to":"Ada","grams":70}"#, "/letters"),
        ("GET", "/letters/7", None, 200, "letter 7", "/letters/{id}"),
        ("DELETE", "/letters/7", None, 405, "", "/letters/{id}"),
        ("OPTIONS", "/letters/7", None, 200, "", "/letters/{id}"),
        ("GET", "/other", None, 404, "", ""),
    ] {
        for (trigger, (answer, line)) in answers(&endpoint, &call(method, path, sent)) {
            let what = format!("{method} {path} through {trigger}: {line}");
            assert_eq!((answer.status, &*answer.body), (status, expected), "{what}");
            for (name, value) in [
                ("access-control-allow-origin", "*"),
                ("cache-control", if method == "OPTIONS" { "no-store" } else { "private" }),
                ("x-content-type-options", "nosniff"),
                ("x-request-id", "6b2a"),
            ] {
                assert_eq!(answer.header(name), value, "{name} of {what}");
            }
            assert_eq!((&line["status"], &line["method"]), (&json!(status), &json!(method)), "{what}");
            let general = match trigger {
                "http-api" => "ANY /{proxy+}",
                "function-url" => "$default",
                "rest-api" => "/{proxy+}",
                _ => "",
            };
            let logged = if route.is_empty() { general } else { route };
            assert_eq!(line["route"].as_str().unwrap_or_default(), logged, "{what}");
        }
    }
}

#[test]
fn the_extractors_refuse_what_the_readers_refuse() {
    let endpoint = handler::service(router::letters());
    let ours = handler::post(|request: Request| async move {
        body::<router::NewLetter>(&request, 16 * 1024).map(|_| handler::Response::default())
    });
    let long = format!("{:20000}", "{}");
    for (sent, status) in [(r#"{"to": 7, "grams": 70000, "colour": "red"}"#, 422), ("{", 400), ("", 400), (&long, 413)]
    {
        let call = call("POST", "/letters", Some(sent));
        let ours = answers(&ours, &call);
        for (trigger, (answer, line)) in answers(&endpoint, &call) {
            let (expected, _) = &ours[trigger];
            assert_eq!((answer.status, &answer.body), (status, &expected.body), "{trigger}");
            assert_eq!(answer.header("content-type"), "application/problem+json");
            let problem: Value = serde_json::from_str(&answer.body).expect("JSON");
            assert_eq!(problem["type"], format!("urn:problem-type:{}", line["problem"].as_str().unwrap_or_default()));
        }
    }
    let mut text = call("POST", "/letters", Some("{}"));
    text.headers.clear();
    for (path, call, status, detail) in [
        ("/letters", text, 415, "The body must be JSON, with the Content-Type application/json."),
        (
            "/letters?limit=300",
            call("GET", "/letters?limit=300", None),
            400,
            "`limit` must be an integer from 0 to 255.",
        ),
        ("/letters/x", call("GET", "/letters/x", None), 400, "Cannot parse `x` to a `u32`."),
        ("/letters/%00", call("GET", "/letters/%00", None), 400, "`id` must not contain control characters."),
        ("/letters/%ff", call("GET", "/letters/%ff", None), 400, "`id` is not valid UTF-8."),
        ("/letters", call("POST", "/letters", Some(r#"{"to": "Ada", "grams": 40000}"#)), 409, "A letter may have"),
        ("/letters/7/sender", call("GET", "/letters/7/sender", None), 401, "The sender needs a token."),
    ] {
        for (trigger, (answer, _)) in answers(&endpoint, &call) {
            let problem: Value = serde_json::from_str(&answer.body).unwrap_or_default();
            let told = problem["detail"].as_str().unwrap_or_default();
            assert!(answer.status == status && told.starts_with(detail), "{path} through {trigger}: {}", answer.body);
        }
    }
}

#[test]
fn claims_are_an_extractor() {
    let endpoint = handler::service(router::letters());
    let call = Call { claims: vec![("sub".into(), "ada".into())], ..call("GET", "/letters/7/sender", None) };
    let answers = answers(&endpoint, &call);
    for trigger in ["http-api", "rest-api"] {
        assert_eq!(answers[trigger].0.body, "letter 7 is from ada", "{trigger}");
    }
    assert!(answers.values().all(|(_, line)| !line.to_string().contains("ada")), "{answers:?}");
}

#[test]
fn wrong_extractors_are_internal_problems() {
    use axum::{Router, routing::get};
    use handler::axum::Path;
    async fn two(Path((_, _)): Path<(u8, u8)>) -> Result<(), Problem> {
        Ok(())
    }
    let endpoint = handler::service(Router::new().route("/{id}", get(two)));
    for (trigger, (answer, line)) in answers(&endpoint, &call("GET", "/7", None)) {
        assert_eq!((answer.status, &line["problem"]), (500, &json!("internal")), "{trigger}: {line}");
        assert!(line["error"].as_str().unwrap_or_default().contains("Wrong number of path arguments"), "{line}");
    }
}
