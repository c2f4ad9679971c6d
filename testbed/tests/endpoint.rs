//! Tests what an endpoint can do besides `GET`, with the example from README, through every trigger.

#![expect(clippy::expect_used, reason = "what a test relies on")]

use std::collections::BTreeMap;

use futures_util::FutureExt;
use handler::{Context, Endpoint, Problem, Request, http::StatusCode, json, parameters};
use serde_json::{Value, json};
use testbed::{Call, HttpAnswer, TRIGGERS};

#[path = "../../functions/handler/examples/orders.rs"]
#[expect(dead_code, reason = "the test calls what `main` would run")]
mod orders;

/// A `POST` of an order, by a known caller.
fn order(body: &str) -> Call {
    Call {
        route: "ANY /shops/{shop}/orders".into(),
        method: "POST".into(),
        path: "/shops/caf%C3%A9%20A%2FS/orders".into(),
        query: String::new(),
        headers: vec![("content-type".into(), "application/json".into())],
        cookies: Vec::new(),
        body: Some((body.into(), false)),
        claims: vec![("sub".into(), "ada".into())],
    }
}

/// The answer through each trigger: the status, the body, and the whole answer.
fn answers(endpoint: &impl Endpoint, call: &Call) -> BTreeMap<&'static str, (u16, String, HttpAnswer)> {
    let answer = |trigger| {
        let event = call.event(trigger, "orders").expect("a call that every trigger lets pass").to_string();
        let answer = handler::invoke(endpoint.clone(), event.as_bytes(), Context::default()).now_or_never();
        let answer = answer.expect("an endpoint that never waits").expect("an HTTP answer");
        let answer = HttpAnswer::read(&answer, ["rest-api", "alb-multi-value"].contains(&trigger)).expect(trigger);
        (trigger, (answer.status, answer.body.clone(), answer))
    };
    TRIGGERS.into_iter().map(answer).collect()
}

/// The status and the body. They must be the same through all triggers or, if there are claims, through those with an
/// authorizer.
fn answer(call: &Call) -> (u16, Value) {
    let mut answers = answers(&orders::orders(), call);
    if !call.claims.is_empty() {
        answers.retain(|trigger, (status, _, answer)| {
            let has_authorizer = ["http-api", "rest-api"].contains(trigger);
            assert!(has_authorizer || (*status, answer.header("www-authenticate")) == (401, "Bearer"), "{trigger}");
            has_authorizer
        });
    }
    let (status, body, _) = &answers["http-api"];
    assert!(answers.values().all(|answer| (answer.0, &answer.1) == (*status, body)), "{answers:?}");
    (*status, serde_json::from_str(body).unwrap_or_default())
}

#[test]
fn a_post_has_a_body_a_path_parameter_and_a_caller() {
    let call = order(r#"{"sku": "A-7", "quantity": 2}"#);
    let ordered = json!({ "shop": "café A/S", "customer": "ada", "sku": "A-7", "quantity": 2 });
    assert_eq!(answer(&call), (201, ordered.clone()));
    let in_base64 = Call { body: Some(("eyJza3UiOiAiQS03IiwgInF1YW50aXR5IjogMn0=".into(), true)), ..call };
    assert_eq!(answer(&in_base64), (201, ordered));
}

#[test]
fn all_faults_of_a_body_are_reported() {
    let (status, problem) = answer(&order(r#"{"sku": 7, "quantity": 300, "colour": "red"}"#));
    assert_eq!((status, &problem["type"]), (422, &json!("urn:problem-type:unprocessable-content")));
    let readme = include_str!("../../README.md");
    let shown =
        readme.lines().find(|line| line.contains("urn:problem-type:unprocessable-content\"")).expect("an example");
    let mut shown: Value = serde_json::from_str(shown).expect("JSON");
    shown["instance"] = problem["instance"].clone();
    assert_eq!(problem, shown);
}

#[test]
fn neither_bodies_nor_claims_are_logged() {
    for body in [r#"{"sku": "secret-7", "quantity": 2}"#, r#"{"sku": "secret-7", "quantity": "secret-8"}"#, "secret-9"]
    {
        let call = Call { claims: vec![("sub".into(), "secret-ada".into())], ..order(body) };
        let event = call.event("http-api", "orders").expect("an event").to_string();
        let observed = handler::observe(orders::orders(), event.as_bytes(), Context::default()).now_or_never();
        let (_, line) = observed.expect("an endpoint that never waits").expect("an HTTP answer");
        assert!(line.contains("/shops/{shop}/orders") && !line.contains("secret"), "{line}");
    }
}

#[test]
fn an_endpoint_can_return_its_own_problem() {
    let (status, problem) = answer(&order(r#"{"sku": "A-7", "quantity": 4}"#));
    assert_eq!((status, &problem["type"], &problem["left"]), (409, &json!("urn:problem-type:out-of-stock"), &json!(3)));
}

#[test]
fn methods_and_paths_follow_from_what_is_declared() {
    let call = Call { claims: Vec::new(), body: None, headers: Vec::new(), ..order("") };
    let with = |method: &str, path: &str, query: &str| Call {
        method: method.into(),
        path: path.into(),
        query: query.into(),
        ..call.clone()
    };
    let orders = "/shops/b%252Fc/orders";
    assert_eq!(
        answer(&with("GET", orders, "limit=20&limit=30&other")),
        (200, json!(["b%2Fc", { "offset": 0, "limit": 30 }]))
    );
    let (status, problem) = answer(&with("GET", orders, "limit=300&offset=-1"));
    assert_eq!((status, &problem["detail"]), (400, &json!("`limit` must be an integer from 0 to 255.")));
    let errors = json!([
        { "parameter": "limit", "detail": "must be an integer from 0 to 255" },
        { "parameter": "offset", "detail": "must be an integer from 0 to 4294967295" },
    ]);
    assert_eq!(problem["errors"], errors);
    for (method, status, allow) in
        [("HEAD", 200, ""), ("OPTIONS", 204, "GET, HEAD, OPTIONS, POST"), ("PUT", 405, "GET, HEAD, OPTIONS, POST")]
    {
        for (trigger, (actual, _, answer)) in answers(&orders::orders(), &with(method, orders, "")) {
            assert_eq!((actual, answer.header("allow")), (status, allow), "{method} through {trigger}");
        }
    }
    assert_eq!(answer(&with("GET", "/shops/%ff/orders", "")).0, 400);
    assert_eq!(answer(&with("GET", "/shops/%00/orders", "")).0, 400);
    // API Gateway sends it such a path only if it is configured to send all paths.
    for path in ["/", "/shops", "/shops//orders", "/shops/a/b/orders", "/shops/a/orders/", "/Shops/a/orders"] {
        let call = Call { route: "ANY /{proxy+}".into(), ..with("GET", path, "") };
        let (status, problem) = answer(&call);
        assert_eq!((status, &problem["type"]), (404, &json!("urn:problem-type:not-found")), "{path}");
    }
}

#[test]
fn the_rest_of_a_path_can_be_a_parameter() {
    async fn file(request: Request) -> Result<handler::Response, Problem> {
        json(StatusCode::OK, &handler::path(&request, "name")?)
    }
    let call = Call { route: "ANY /{proxy+}".into(), method: "GET".into(), path: "/files/a/b%20c".into(), ..order("") };
    for (trigger, (_, body, _)) in answers(&handler::get(file).at("/files/{name+}"), &call) {
        assert_eq!(body, r#""a/b c""#, "{trigger}");
    }
}

#[test]
fn every_authorizer_tells_who_the_caller_is() {
    async fn claims(request: Request) -> Result<handler::Response, Problem> {
        json(StatusCode::OK, &["sub", "level", "none"].map(|name| handler::claim(&request, name)))
    }
    let events = |authorizer: Value| {
        let v2 = json!({ "rawPath": "/", "requestContext": { "http": { "method": "GET" }, "authorizer": authorizer } });
        let v1 = json!({ "resource": "/", "path": "/", "httpMethod": "GET", "requestContext": { "authorizer": authorizer } });
        [v2, v1]
    };
    for authorizer in [
        json!({ "jwt": { "claims": { "sub": "ada", "level": "7", "none": null } } }),
        json!({ "lambda": { "sub": "ada", "level": 7 } }),
        json!({ "iam": { "sub": "ada", "level": 7 } }),
        json!({ "claims": { "sub": "ada", "level": "7" } }),
        json!({ "principalId": "user", "sub": "ada", "level": "7" }),
    ] {
        for event in events(authorizer.clone()) {
            let answer = handler::invoke(claims, event.to_string().as_bytes(), Context::default()).now_or_never();
            let answer = answer.expect("an endpoint that never waits").expect("an HTTP answer");
            let answer: Value = serde_json::from_str(&answer).unwrap();
            assert_eq!(answer["body"], r#"["ada","7",null]"#, "{event}");
        }
    }
}

#[test]
fn parameters_are_parsed_into_a_type() {
    #[derive(serde::Deserialize, serde::Serialize)]
    struct Search {
        text: String,
        sort: Option<Sort>,
        #[serde(default)]
        deep: bool,
        near: Option<f32>,
    }
    #[derive(serde::Deserialize, serde::Serialize)]
    #[serde(rename_all = "kebab-case")]
    enum Sort {
        ByDate,
        ByName,
    }
    let read = |query: &str| {
        let mut request = Request::default();
        *request.uri_mut() = format!("/?{query}").parse().unwrap();
        parameters::<Search>(&request)
            .map(|search| serde_json::to_value(search).unwrap())
            .map_err(|problem| problem.to_string())
    };
    let refused = |detail: &str| Err(format!("invalid-parameter: {detail}"));
    let found = json!({ "text": "7", "sort": "by-name", "deep": true, "near": 0.5 });
    assert_eq!(read("text=7&sort=by-name&deep=true&near=0.5&unread=%00"), Ok(found));
    assert_eq!(read("text=a&sort="), Ok(json!({ "text": "a", "sort": null, "deep": false, "near": null })));
    for (query, detail) in [
        ("", "`text` is missing."),
        ("text=", "`text` is missing."),
        ("text=%00", "`text` must not contain control characters."),
        ("text=%ff", "`text` is not valid UTF-8."),
        ("text=a&sort=by-size", "`sort` must be `by-date` or `by-name`."),
        ("text=a&deep=yes", "`deep` must be true or false."),
        ("text=a&near=NaN", "`near` must be a number."),
    ] {
        assert_eq!(read(query), refused(detail), "{query}");
    }
}
