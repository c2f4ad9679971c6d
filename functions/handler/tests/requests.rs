//! Tests what a request may be, and what a trigger tells about it, through every trigger.

#![expect(clippy::expect_used, reason = "what a test relies on")]

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::FutureExt;
use handler::{Context, Endpoint, Problem, Request, Response, http::StatusCode, json, post};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use testbed::{Call, HttpAnswer, TRIGGERS};

#[path = "../examples/webhook.rs"]
#[expect(dead_code, reason = "the test calls what `main` would run")]
mod webhook;

fn call(method: &str, content_type: &str, body: Option<(String, bool)>) -> Call {
    Call {
        route: "ANY /thing".into(),
        method: method.into(),
        path: "/thing".into(),
        query: String::new(),
        headers: vec![("content-type".into(), content_type.into())],
        cookies: Vec::new(),
        body,
        claims: Vec::new(),
    }
}

fn event(trigger: &str) -> Value {
    call("GET", "text/plain", None).event(trigger, "thing").expect("a call that every trigger lets pass")
}

/// The answer and the line.
fn observed(endpoint: &impl Endpoint, event: &Value, trigger: &str) -> (HttpAnswer, Value) {
    let mut context = Context::default();
    context.invoked_function_arn = "arn:aws:lambda:us-east-1:123456789012:function:thing".into();
    let observed = handler::observe(endpoint.clone(), event.to_string().as_bytes(), context).now_or_never();
    let (answer, line) = observed.expect("an endpoint that never waits").expect("an HTTP answer");
    let answer = HttpAnswer::read(&answer, ["rest-api", "alb-multi-value"].contains(&trigger)).expect(trigger);
    (answer, serde_json::from_str(&line).expect("JSON"))
}

/// The answer's body, which is JSON.
fn told(endpoint: &impl Endpoint, event: &Value, trigger: &str) -> Value {
    let (answer, line) = observed(endpoint, event, trigger);
    serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{line}"))
}

#[test]
fn a_schedule_can_send_what_docs_endpoints_md_says() {
    let page = include_str!("../../../docs/endpoints.md");
    let input = page.split("Input: '").nth(1).and_then(|text| text.split('\'').next()).expect("a schedule's input");
    let event = serde_json::from_str(input).expect("JSON");
    let cleanup = post(async |_: Request| json(StatusCode::OK, &"clean")).at("/cleanup");
    let (answer, line) = observed(&cleanup, &event, "http-api");
    assert_eq!((answer.status, &line["trigger"], &line["route"]), (200, &json!("http-api"), &json!("/cleanup")));
}

#[test]
fn members_of_the_wrong_type_do_no_harm() {
    async fn seen(request: Request) -> Result<Response, Problem> {
        json(StatusCode::OK, &(request.method().as_str(), request.uri().path(), handler::claim(&request, "sub")))
    }
    let wrong = [
        (
            "",
            json!({ "isBase64Encoded": null, "version": 2, "stageVariables": 7, "pathParameters": "none", "cookies": 1 }),
        ),
        ("", json!({ "cookies": "none" })),
        ("/requestContext", json!({ "timeEpoch": "soon", "requestTimeEpoch": [1], "accountId": {} })),
        ("/requestContext", json!({ "identity": [], "authorizer": "nobody" })),
        ("/headers", json!({ "x-number": 7, "x-list": ["1", 2, null] })),
        ("/multiValueHeaders", json!({ "x-number": [7], "x-list": "1" })),
    ];
    for trigger in TRIGGERS {
        let mut event = event(trigger);
        for (place, members) in &wrong {
            if let Some(Value::Object(there)) = event.pointer_mut(place) {
                there.extend(members.as_object().cloned().unwrap_or_default());
                assert_eq!(told(&seen, &event, trigger), json!(["GET", "/thing", null]), "{trigger}: {event}");
            }
        }
    }
}

#[test]
fn an_event_that_no_http_trigger_sends_fails() {
    async fn never(_: Request) -> Result<Response, Problem> {
        Err(Problem::internal())
    }
    let queue =
        json!({ "Records": [{ "messageId": "059f36b4", "body": "Hello", "eventSource": "aws:sqs" }] }).to_string();
    for (event, expected) in [("this is not JSON", "expected"), (&queue, "not from an HTTP trigger")] {
        let failed = handler::invoke(never, event.as_bytes(), Context::default()).now_or_never();
        let error = failed.expect("an endpoint that never waits").expect_err("no answer").to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn the_bytes_of_a_body_are_those_that_were_sent() {
    async fn echo(request: Request) -> Result<Response, Problem> {
        json(StatusCode::OK, &handler::bytes(&request, 16)?)
    }
    let sent = |bytes: &[u8]| (BASE64_STANDARD.encode(bytes), true);
    for (body, bytes) in [
        (None, &b""[..]),
        (Some((" {\"a\": 1}\r\n".into(), false)), b" {\"a\": 1}\r\n"),
        (Some(sent(b" {\"a\": 1}\r\n")), b" {\"a\": 1}\r\n"),
        (Some(sent(b"\xef\xbb\xbf\0\xff")), b"\xef\xbb\xbf\0\xff"),
    ] {
        for trigger in TRIGGERS {
            let event =
                call("GET", "text/plain; charset=utf-16", body.clone()).event(trigger, "thing").expect("an event");
            assert_eq!(told(&echo, &event, trigger), json!(bytes), "{trigger}");
        }
    }
    let too_large = call("GET", "", Some(("x".repeat(17), false))).event("http-api", "thing").expect("an event");
    assert_eq!(told(&echo, &too_large, "http-api")["status"], 413);
}

#[test]
fn forms_are_the_same_through_every_trigger() {
    #[derive(serde::Deserialize, serde::Serialize)]
    struct Comment {
        text: String,
        tags: Vec<String>,
    }
    async fn comment(request: Request) -> Result<Response, Problem> {
        json(StatusCode::OK, &handler::form::<Comment>(&request, 64)?)
    }
    async fn parts(request: Request) -> Result<Response, Problem> {
        let parts = handler::multipart(&request, 256, |_| 64)?;
        json(StatusCode::OK, &parts.iter().map(|part| (&part.name, &part.file_name, part.bytes)).collect::<Vec<_>>())
    }
    let form = "text=a%0D%0Ab+%26&tags=c&tags=%C3%A9";
    let file =
        b"--x y\r\nContent-Disposition: form-data; name=\"f\"; filename=\"\xc3\xa9\"\r\n\r\n\xff\0\r\n--x y--\r\n";
    let in_base64 = |bytes: &[u8]| Some((BASE64_STANDARD.encode(bytes), true));
    for trigger in TRIGGERS {
        let event = |content_type, body| call("POST", content_type, body).event(trigger, "thing").expect("an event");
        for body in [Some((form.into(), false)), in_base64(form.as_bytes())] {
            let event = event("application/x-www-form-urlencoded", body);
            let comment = told(&handler::post(comment), &event, trigger);
            assert_eq!(comment, json!({ "text": "a\r\nb &", "tags": ["c", "é"] }), "{trigger}");
        }
        let event = event("multipart/form-data; boundary=\"x y\"", in_base64(file));
        assert_eq!(told(&handler::post(parts), &event, trigger), json!([["f", "é", [255, 0]]]), "{trigger}");
    }
}

#[test]
fn the_callers_address_is_what_the_trigger_saw() {
    async fn address(request: Request) -> Result<Response, Problem> {
        json(StatusCode::OK, &handler::client_address(&request))
    }
    for trigger in TRIGGERS {
        let is_in_a_header = trigger.starts_with("alb") || trigger == "vpc-lattice";
        let seen = if trigger == "function-url" { "2001:db8::10" } else { "192.0.2.10" };
        assert_eq!(told(&address, &event(trigger), trigger), seen, "{trigger}");
        for (appended, seen) in [
            ("198.51.100.7", json!("198.51.100.7")),
            ("198.51.100.7:4711", json!("198.51.100.7")),
            ("[2001:db8::7]:4711", json!("2001:db8::7")),
            ("2001:db8::7", json!("2001:db8::7")),
            ("unknown", Value::Null),
        ] {
            let forged = ("x-forwarded-for".to_owned(), format!("10.0.0.1, {appended}"));
            let forged = Call { headers: vec![forged], ..call("GET", "", None) };
            let address = told(&address, &forged.event(trigger, "thing").expect("an event"), trigger);
            assert_eq!(address == seen, is_in_a_header, "{trigger} {appended}");
        }
    }
    let mut console = event("rest-api");
    console["requestContext"]["identity"]["sourceIp"] = json!("test-invoke-source-ip");
    assert_eq!(told(&address, &console, "rest-api"), Value::Null);
    assert_eq!(handler::client_address(&Request::default()), None);
}

#[test]
fn what_a_trigger_tells_has_a_name() {
    async fn all(request: Request) -> Result<Response, Problem> {
        let context: Value = handler::request_context(&request)?;
        let arn = handler::lambda_context(&request).map(|context| &context.invoked_function_arn);
        json(StatusCode::OK, &json!([handler::stage(&request), handler::api_id(&request), arn, context]))
    }
    for (trigger, stage, api) in [
        ("http-api", json!("$default"), json!("a1b2c3d4e5")),
        ("function-url", json!("$default"), json!("abcdefghijklmnopqrstuvwxyz012345")),
        ("rest-api", json!("prod"), json!("f6g7h8i9j0")),
        ("alb", Value::Null, Value::Null),
        ("alb-multi-value", Value::Null, Value::Null),
        ("vpc-lattice", Value::Null, Value::Null),
    ] {
        let event = event(trigger);
        let arn = "arn:aws:lambda:us-east-1:123456789012:function:thing";
        assert_eq!(told(&all, &event, trigger), json!([stage, api, arn, event["requestContext"]]), "{trigger}");
    }
}

#[test]
fn a_request_context_of_another_type_is_a_fault_of_the_function() {
    #[derive(serde::Deserialize)]
    #[expect(dead_code, reason = "it is only read")]
    struct Other {
        stage: u8,
        account: String,
    }
    async fn other(request: Request) -> Result<Response, Problem> {
        handler::request_context::<Other>(&request).map(|_| Response::default())
    }
    let (answer, line) = observed(&other, &event("http-api"), "http-api");
    assert_eq!((answer.status, &line["problem"]), (500, &json!("internal")));
    let why = "the requestContext is of another type: /stage must be an integer from 0 to 255, /account is missing";
    assert!(line["error"].as_str().is_some_and(|error| error.ends_with(why)), "{line}");
}

#[derive(serde::Deserialize, serde::Serialize)]
struct Caller {
    sub: String,
    level: Option<String>,
}

async fn claims(request: Request) -> Result<Response, Problem> {
    json(StatusCode::OK, &handler::claims::<Caller>(&request)?)
}

#[test]
fn all_claims_are_read_as_a_type() {
    let ada = json!({ "sub": "ada", "level": "7" });
    let with = |trigger: &str, authorizer: &Value| {
        let mut event = event(trigger);
        event["requestContext"]["authorizer"] = authorizer.clone();
        event
    };
    for (trigger, authorizer) in [
        ("http-api", json!({ "jwt": { "claims": ada, "scopes": null } })),
        ("http-api", json!({ "lambda": ada })),
        // Payloads of version 1 of an HTTP API.
        ("rest-api", json!({ "claims": ada, "scopes": ["a"] })),
        ("rest-api", json!({ "principalId": "user", "integrationLatency": 7, "sub": "ada", "level": "7" })),
    ] {
        assert_eq!(told(&claims, &with(trigger, &authorizer), trigger), ada, "{authorizer}");
    }
    for trigger in TRIGGERS {
        assert_eq!(told(&claims, &event(trigger), trigger), Value::Null, "{trigger}");
    }
    for authorizer in [
        json!({}),
        json!(null),
        json!({ "lambda": null }),
        json!({ "iam": { "userArn": "arn:aws:iam::123456789012:user/ada" } }),
    ] {
        assert_eq!(told(&claims, &with("http-api", &authorizer), "http-api"), Value::Null, "{authorizer}");
    }
    let event = with("http-api", &json!({ "jwt": { "claims": { "level": ["secret"], "email": "secret" } } }));
    let (answer, line) = observed(&claims, &event, "http-api");
    assert_eq!((answer.status, &line["problem"]), (403, &json!("forbidden")));
    assert!(answer.body.contains("needed here: /level must be a string, /sub is missing."), "{answer:?}");
    assert!(!answer.body.contains("secret") && !line.to_string().contains("secret"), "{line}");
}

#[test]
fn scopes_are_a_list_however_the_issuer_writes_them() {
    async fn scopes(request: Request) -> Result<Response, Problem> {
        json(StatusCode::OK, &handler::scopes(&request))
    }
    for (trigger, authorizer) in [
        ("http-api", json!({ "jwt": { "claims": { "scope": "read  write" }, "scopes": null } })),
        ("http-api", json!({ "jwt": { "claims": { "scp": "[read write]" }, "scopes": ["other"] } })),
        ("http-api", json!({ "jwt": { "claims": {}, "scopes": ["read", "write"] } })),
        ("http-api", json!({ "lambda": { "scope": ["read", "write"] } })),
        ("rest-api", json!({ "claims": { "scope": "read write" } })),
        ("rest-api", json!({ "claims": {}, "scopes": ["read", "write"] })),
        ("rest-api", json!({ "principalId": "user", "scope": "read,write" })),
    ] {
        let mut event = event(trigger);
        event["requestContext"]["authorizer"] = authorizer;
        assert_eq!(told(&scopes, &event, trigger), json!(["read", "write"]), "{event}");
    }
    for trigger in TRIGGERS {
        assert_eq!(told(&scopes, &event(trigger), trigger), json!([]), "{trigger}");
    }
}

#[test]
fn iam_identities_are_the_same_through_every_trigger_that_has_them() {
    async fn identity(request: Request) -> Result<Response, Problem> {
        let identity = handler::iam_identity(&request);
        json(StatusCode::OK, &identity.map(|identity| [Some(identity.arn), identity.account, identity.organization]))
    }
    let arn = "arn:aws:sts::123456789012:assumed-role/caller/session";
    for trigger in TRIGGERS {
        let mut event = event(trigger);
        assert_eq!(told(&identity, &event, trigger), Value::Null, "{trigger}");
        let context = &mut event["requestContext"];
        let iam = json!({ "userArn": arn, "accountId": "123456789012", "principalOrgId": "o-a1b2c3d4e5" });
        match trigger {
            "http-api" | "function-url" => context["authorizer"] = json!({ "iam": iam }),
            "rest-api" => context["identity"] = iam,
            "vpc-lattice" => {
                context["identity"] = json!({ "principal": arn, "principalOrgID": "o-a1b2c3d4e5", "type": "AWS_IAM" });
            }
            _ => continue,
        }
        assert_eq!(told(&identity, &event, trigger), json!([arn, "123456789012", "o-a1b2c3d4e5"]), "{trigger}");
    }
}

#[test]
fn two_cookies_pass_through_every_trigger_that_takes_two() {
    async fn swap(request: Request) -> Result<Response, Problem> {
        let mut jar = handler::cookies(&request);
        let [a, b] = ["a", "b"].map(|name| jar.get(name).map(|cookie| cookie.value().to_owned()).unwrap_or_default());
        jar.add(("a", b));
        jar.add(("b", a));
        let mut response = Response::default();
        handler::set_cookies(&mut response, &jar).map(|()| response)
    }
    for trigger in TRIGGERS {
        let call = Call { cookies: vec!["a=1".into(), "b=%C3%A9".into()], ..call("GET", "text/plain", None) };
        let event = call.event(trigger, "thing").expect("an event");
        let (answer, line) = observed(&swap, &event, trigger);
        let takes_one = trigger == "alb" || trigger == "vpc-lattice";
        assert_eq!(answer.status, if takes_one { 500 } else { 200 }, "{trigger}");
        if takes_one {
            let why = "two Set-Cookie headers cannot be joined";
            assert!(line["error"].as_str().is_some_and(|error| error.contains(why)), "{line}");
        } else {
            let cookies = answer.header("set-cookie");
            assert!(cookies.contains("a=%C3%A9") && cookies.contains("b=1"), "{trigger}: {answer:?}");
        }
    }
}

/// The time, in seconds, some seconds from now.
fn in_seconds(seconds: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock that is right");
    now.as_secs().checked_add_signed(seconds).expect("a time").to_string()
}

fn signature(secret: &str, time: &str, body: &[u8]) -> String {
    let mut hmac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key of any length");
    hmac.update(&[time.as_bytes(), b".", body].concat());
    hmac.finalize().into_bytes().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

#[test]
fn a_webhook_is_answered_at_once_and_processed_after_that() {
    let (secret, now) = ("whsec_7", in_seconds(0));
    // Other bytes of the same JSON have another signature.
    let body = b" {\"id\": \"evt_1\" }\n";
    let right = signature(secret, &now, body);
    let webhook = webhook::webhook(Some(secret.into()));
    let ask = |signature: String, body: &[u8], in_base64: bool, trigger: &str| {
        let body = if in_base64 { BASE64_STANDARD.encode(body) } else { String::from_utf8_lossy(body).into_owned() };
        let mut call = call("POST", "application/json", Some((body, in_base64)));
        call.headers.push(("webhook-signature".into(), signature));
        observed(&webhook, &call.event(trigger, "thing").expect("an event"), trigger)
    };
    for trigger in TRIGGERS {
        for in_base64 in [false, true] {
            let (answer, line) = ask(format!("t={now},v1={right}"), body, in_base64, trigger);
            assert_eq!((answer.status, &*answer.body, &line["event"]), (204, "", &json!("evt_1")), "{trigger}: {line}");
        }
    }
    let rotated = format!("t={now}, v1={}, v1={right}", "00".repeat(32));
    assert_eq!(ask(rotated, body, false, "http-api").0.status, 204);
    let of = |secret: &str, time: &str| format!("t={time},v1={}", signature(secret, time, body));
    for (signature, body) in [
        (of("whsec_8", &now), &body[..]),
        (of("", &now), body),
        (of(secret, &now), b"{\"id\": \"evt_1\" }"),
        // Right, but sent again later, or signed with a clock that is wrong.
        (of(secret, &in_seconds(-400)), body),
        (of(secret, &in_seconds(400)), body),
        (of(secret, "x"), body),
        (of(secret, &u64::MAX.to_string()), body),
        (format!("t={now},v0={right}"), body),
        (format!("t={now},v1={}", &right[..62]), body),
        (format!("t={now},v1={right}0"), body),
        (format!("t={now},v1="), body),
        (format!("t={now},v1=é"), body),
        (format!("v1={right}"), body),
        (String::new(), body),
    ] {
        let (answer, line) = ask(signature.clone(), body, true, "http-api");
        assert_eq!((answer.status, line.get("event")), (403, None), "{signature}");
    }
    for secret in [None, Some(String::new())] {
        let call = call("POST", "application/json", Some(("{}".into(), false)));
        let event = call.event("http-api", "thing").expect("an event");
        let (answer, line) = observed(&webhook::webhook(secret), &event, "http-api");
        assert!(answer.status == 500 && line["error"].to_string().contains("WEBHOOK_SECRET is not set"), "{line}");
    }
}
