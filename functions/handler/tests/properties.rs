//! Properties that must hold for any input. `cargo test` checks them with random input, which `PROPERTY_SEED=` repeats, and
//! `make fuzz` with a coverage-guided fuzzer. A property panics if it does not hold.

#![expect(clippy::expect_used, reason = "what a property relies on")]

#[path = "property/faults.rs"]
mod faults;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use arbitrary::{Result, Unstructured};
use futures_util::FutureExt;
use handler::{
    Body, Context, Endpoint, Problem, Request, Response,
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{ACCEPT, CONTENT_TYPE, COOKIE, LINK, SET_COOKIE, VARY},
    },
    negotiate, query, trace_headers,
};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use testbed::{
    Call, HttpAnswer, Invocation, InvocationResult, TRIGGERS,
    property::{Property, change, changed_event, check_result, text},
};

/// The properties of `handler`, by name.
pub(crate) const PROPERTIES: [(&str, Property); 8] = [
    ("any_event_gets_an_answer_or_a_named_failure", any_event_gets_an_answer_or_a_named_failure),
    ("a_request_gets_the_same_answer_through_every_trigger", a_request_gets_the_same_answer_through_every_trigger),
    ("any_body_is_read_or_all_its_faults_are_told", any_body_is_read_or_all_its_faults_are_told),
    ("a_list_of_faults_that_claims_to_be_complete_is", faults::a_list_of_faults_that_claims_to_be_complete_is),
    ("any_form_is_read_or_refused", any_form_is_read_or_refused),
    ("any_multipart_form_is_read_or_refused", any_multipart_form_is_read_or_refused),
    ("accept_takes_any_text", accept_takes_any_text),
    ("traceparent_takes_any_text", traceparent_takes_any_text),
];

/// Answers one event in this process.
fn invoke(endpoint: impl Endpoint, event: &[u8]) -> std::result::Result<String, String> {
    let mut context = Context::default();
    context.request_id = "6b2a".into();
    let answer = handler::invoke(endpoint, event, context).now_or_never().expect("an endpoint that never waits");
    answer.map_err(|error| error.to_string())
}

fn any_event_gets_an_answer_or_a_named_failure(u: &mut Unstructured<'_>) -> Result<()> {
    let event = changed_event(u)?;
    let outcome = match invoke(|request| async move { negotiate(&request, &request.uri().to_string()) }, &event) {
        Ok(answer) => InvocationResult::Response(answer),
        Err(error) => InvocationResult::Error(error),
    };
    check_result(&event, &outcome, &[200, 204, 400, 405, 406]);
    Ok(())
}

/// The names of parameters, headers and cookies in a random request.
const NAMES: [&str; 4] = ["name", "tz", "x-a", "b"];

/// Sends a random request to an endpoint that answers with everything that it sees of the request.
fn a_request_gets_the_same_answer_through_every_trigger(u: &mut Unstructured<'_>) -> Result<()> {
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let mut parameters = Vec::new();
    for _ in 0..u.int_in_range(0..=4)? {
        let name = *u.choose(&NAMES)?;
        let value =
            if u.ratio(1, 4)? { text(u)?.replace(|c| c < '!' || "&#%".contains(c), "+") } else { encode(&text(u)?) };
        let value = if value.is_ascii() { value } else { encode(&value) };
        // A URI holds 64 kB. A longer query would still fit through a load balancer that keeps only the last value of
        // each name.
        parameters.push(format!("{name}={}", &value[..value.len().min(8_000)]));
    }
    let mut headers = vec![("accept".to_owned(), "*/*".to_owned())];
    for _ in 0..u.int_in_range(0..=4)? {
        let value = text(u)?.replace(|c: char| c.is_control() || c == ',', "");
        headers.push(((*u.choose(&NAMES)?).to_owned(), value.trim().to_owned()));
    }
    let mut cookies = Vec::new();
    for _ in 0..u.int_in_range(0..=2)? {
        cookies.push(format!("{}={}", u.choose(&NAMES)?, u.arbitrary::<u8>()?));
    }
    let body = if u.ratio(1, 2)? { None } else { Some((text(u)?, false)) };
    let call = Call {
        route: "ANY /a".into(),
        method: (*u.choose(&["GET", "HEAD", "OPTIONS", "DELETE", "MADE-UP", "m\u{e9}thod"])?).into(),
        path: format!("/{}", encode(&text(u)?.chars().take(100).collect::<String>())),
        query: parameters.join("&"),
        headers,
        cookies,
        body,
        claims: Vec::new(),
    };
    let answer_body: Vec<u8> = if u.ratio(1, 2)? { u.arbitrary()? } else { Vec::new() };
    let endpoint = move |request| {
        let answer = echo(&request, answer_body.clone());
        async { answer }
    };
    let mut first = None;
    for trigger in TRIGGERS {
        let Some(event) = call.event(trigger, "endpoint") else { continue };
        let answer = invoke(endpoint.clone(), event.to_string().as_bytes());
        let answer = answer.unwrap_or_else(|error| panic!("{trigger}: {error}: {event}"));
        let answer = HttpAnswer::read(&answer, ["rest-api", "alb-multi-value"].contains(&trigger));
        let answer = answer.unwrap_or_else(|error| panic!("{trigger}: {error}: {event}"));
        match &first {
            None => first = Some(answer),
            Some(first) => assert_eq!(first, &answer, "through {trigger}: {event}"),
        }
    }
    Ok(())
}

fn echo(request: &Request, body: Vec<u8>) -> std::result::Result<Response, Problem> {
    // An HTTP API decodes the path, so unnecessary encoding is lost.
    let path = percent_decode_str(request.uri().path()).decode_utf8_lossy().into_owned();
    let mut seen = vec![request.method().to_string(), path];
    for name in NAMES {
        seen.push(format!("{name}: {:?}", query(request, name, 100_000)?));
        // A load balancer with single values sends only the last one of a repeated header.
        let value = request.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
        seen.push(format!("{name}: {:?}", value.and_then(|value| Some(value.rsplit(',').next()?.trim().to_owned()))));
    }
    seen.push(format!("{:?} {:?}", request.headers().get(COOKIE), request.body()));
    let mut response = Response::new(if body.is_empty() { Body::Text(seen.join("\n")) } else { Body::Binary(body) });
    *response.status_mut() = StatusCode::IM_A_TEAPOT;
    for (name, value) in [(VARY, "accept"), (VARY, "origin"), (LINK, "</a>"), (LINK, "</b>"), (SET_COOKIE, "a=b, c")] {
        response.headers_mut().append(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "what is read is of no interest")]
struct Thing {
    text: String,
    number: Option<u8>,
    list: Vec<Thing>,
    kind: Kind,
    #[serde(default)]
    more: BTreeMap<String, f32>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "what is read is of no interest")]
enum Kind {
    One,
    Other(bool),
}

/// JSON as text, because a [`Value`] has neither repeated names, nor escapes, nor numbers out of range.
fn body_text(u: &mut Unstructured<'_>, levels: u8, json: &mut String) -> Result<()> {
    const NAMES: [&str; 12] =
        ["text", "number", "list", "kind", "more", "One", "Other", "\\u0074ext", "a/b~c", "7", "\\ud800", "\\u0000 x"];
    const VALUES: [&str; 16] = [
        "null",
        "true",
        "1",
        "-1",
        "1.5",
        "1e400",
        "300",
        "340282366920938463463374607431768211456",
        "\"\"",
        "\"One\"",
        "\"Other\"",
        "\"\\ud800\"",
        "\"\\u0000\"",
        "{\"Other\":true}",
        "[]",
        "{}",
    ];
    let close = match u.int_in_range(0..=if levels == 0 { 0 } else { 3 })? {
        0 => {
            json.push_str(u.choose(&VALUES)?);
            return Ok(());
        }
        1 => ']',
        _ => '}',
    };
    json.push(if close == ']' { '[' } else { '{' });
    for index in 0..u.int_in_range(0..=6)? {
        json.push_str(if index == 0 { "" } else { "," });
        if close == '}' {
            let name = u.choose(&NAMES)?;
            let times = if u.ratio(1, 64)? { 3_000 } else { 1 };
            json.extend(["\"", &name.repeat(times), "\": "]);
        }
        body_text(u, levels - 1, json)?;
    }
    json.push(close);
    Ok(())
}

fn any_body_is_read_or_all_its_faults_are_told(u: &mut Unstructured<'_>) -> Result<()> {
    let mut text = String::new();
    if u.ratio(1, 2)? {
        let inner = json!({ "text": "", "list": [], "kind": { "Other": true }, "more": { "a/b~c": 1.5 } });
        let mut thing = json!({ "text": "a", "number": 7, "list": [inner], "kind": "One" });
        for _ in 0..u.int_in_range(0..=6)? {
            change(u, &mut thing)?;
        }
        text = thing.to_string();
    } else {
        body_text(u, 4, &mut text)?;
        if u.ratio(1, 32)? {
            text = "[".repeat(200) + &text + &"]".repeat(200);
        }
    }
    check_body::<Thing>(&text);
    check_body::<Vec<Thing>>(&text);
    check_body::<Vec<BTreeMap<u32, String>>>(&text);
    check_body::<BTreeMap<String, Option<Kind>>>(&text);
    check_body::<(u128, Value)>(&text);
    Ok(())
}

/// `serde_json` decides what is read, and a refusal tells each fault once, within a bound.
fn check_body<T: DeserializeOwned>(text: &str) {
    let mut request = Request::new(Body::from(text));
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let read = handler::body::<T>(&request, 1 << 20);
    assert_eq!(read.is_ok(), serde_json::from_str::<T>(text).is_ok(), "{text}");
    let Err(problem) = read else { return };
    assert_eq!(problem.status(), StatusCode::UNPROCESSABLE_ENTITY, "{problem}: {text}");
    let event = json!({ "path": "/", "httpMethod": "GET", "requestContext": { "elb": {} } }).to_string();
    let problem = Mutex::new(Some(problem));
    let endpoint = Arc::new(problem);
    let answer = invoke(
        move |_| {
            let problem = endpoint.lock().expect("no panic").take();
            async { Err::<Response, _>(problem.unwrap_or_else(Problem::internal)) }
        },
        event.as_bytes(),
    );
    let answer = HttpAnswer::read(&answer.expect("an answer"), false).expect("an answer");
    assert!(answer.body.len() <= 16 * 1024, "{}: {text}", answer.body.len());
    let told: Value = serde_json::from_str(&answer.body).expect("JSON");
    let errors = told["errors"].as_array().expect("a list");
    let all: BTreeSet<_> = errors.iter().map(Value::to_string).collect();
    assert!(!all.is_empty() && all.len() == errors.len(), "{told}: {text}");
    for error in errors {
        let pointer = error["pointer"].as_str().expect("text");
        assert!(pointer == "#" || pointer.starts_with("#/"), "{told}: {text}");
    }
}

fn posted(content_type: &str, body: Vec<u8>) -> Request {
    let mut request = Request::new(Body::Binary(body));
    request.headers_mut().insert(CONTENT_TYPE, content_type.parse().expect("a header's value"));
    request
}

/// What is encoded is read as it was, and anything else is read or refused as the caller's fault.
fn any_form_is_read_or_refused(u: &mut Unstructured<'_>) -> Result<()> {
    const FORM: &str = "application/x-www-form-urlencoded";
    let (mut body, mut sent) = (String::new(), BTreeMap::<String, Vec<String>>::new());
    for _ in 0..u.int_in_range(0..=5)? {
        let (name, value): (String, String) = (text(u)?, text(u)?);
        let encoded = [&name, &value].map(|text| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string());
        let separator = *u.choose(&["&", "&&"])?;
        body += &(encoded.join("=").replace("%20", u.choose(&["+", "%20"])?) + separator);
        if !value.is_empty() {
            sent.entry(name).or_default().push(value);
        }
    }
    let read = handler::form(&posted(FORM, body.clone().into_bytes()), 1 << 20);
    assert_eq!(read.ok(), Some(sent), "{body}");
    let mut any = [b"text=a&number=", &*body.into_bytes()].concat();
    any.extend(u.arbitrary::<Vec<u8>>()?);
    let told = String::from_utf8_lossy(&any).into_owned();
    if let Err(problem) = handler::form::<Thing>(&posted(FORM, any), 1 << 20) {
        assert!([400, 422].contains(&problem.status().as_u16()), "{problem}: {told}");
        let faults = problem.member("errors").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let all: BTreeSet<_> = faults.iter().map(Value::to_string).collect();
        assert!(all.len() == faults.len() && (problem.status() == 400) == all.is_empty(), "{problem}: {told}");
    }
    Ok(())
}

/// The same for forms with files. A cut body is refused.
fn any_multipart_form_is_read_or_refused(u: &mut Unstructured<'_>) -> Result<()> {
    let boundary = *u.choose(&["x", "----WebKitFormBoundary7MA4YWxkTrZu0gW", "a b"])?;
    let content_type = format!("multipart/form-data; boundary=\"{boundary}\"");
    let (delimiter, mut sent) = (format!("\r\n--{boundary}"), Vec::new());
    let mut body = if u.arbitrary()? { delimiter[2..].to_owned() } else { format!("preamble{delimiter}") }.into_bytes();
    for _ in 0..u.int_in_range(0..=3)? {
        let name = text(u)?.replace(['%', '\\', '\0'], "_");
        let pieces = [&delimiter, "\r\n", "\r\n--", "-", "x", "\n"].map(str::as_bytes);
        let mut content: Vec<u8> = u.arbitrary()?;
        for _ in 0..u.int_in_range(0..=3)? {
            content.extend(*u.choose(&pieces)?);
        }
        let is_cut = [b"\r\n", &*content].concat().windows(delimiter.len()).any(|part| part == delimiter.as_bytes());
        let content = if is_cut { Vec::new() } else { content };
        let written = name.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A");
        body.extend(format!("\r\nContent-Disposition: form-data; name=\"{written}\"\r\n\r\n").bytes());
        body.extend(content.iter().chain(delimiter.as_bytes()));
        sent.push((name, content));
    }
    body.extend(b"--");
    let read = |body: Vec<u8>| {
        let request = posted(&content_type, body);
        let parts = handler::multipart(&request, 1 << 20, |_| 1 << 20);
        parts.map(|parts| parts.iter().map(|part| (part.name.to_string(), part.bytes.to_vec())).collect::<Vec<_>>())
    };
    assert_eq!(read(body.clone()).ok().as_ref(), Some(&sent), "{}", body.escape_ascii());
    let cut = body[..u.choose_index(body.len())?].to_vec();
    assert_eq!(
        read(cut.clone()).err().map(|problem| problem.status()),
        Some(StatusCode::BAD_REQUEST),
        "{}",
        cut.escape_ascii()
    );
    let at = u.choose_index(body.len())?;
    body[at] = u.arbitrary()?;
    if let Err(problem) = read(body.clone()) {
        assert_eq!(problem.status(), StatusCode::BAD_REQUEST, "{}", body.escape_ascii());
    }
    Ok(())
}

/// A request with a random header, in up to three lines.
fn with_header(u: &mut Unstructured<'_>, name: &HeaderName) -> Result<Request> {
    let mut request = Request::default();
    for _ in 0..u.int_in_range(0..=3)? {
        let bytes = if u.ratio(1, 2)? { text(u)?.into_bytes() } else { u.arbitrary()? };
        if let Ok(value) = HeaderValue::from_bytes(&bytes) {
            request.headers_mut().append(name, value);
        }
    }
    Ok(request)
}

fn accept_takes_any_text(u: &mut Unstructured<'_>) -> Result<()> {
    let request = with_header(u, &ACCEPT)?;
    match negotiate(&request, &"hi") {
        Ok(response) => assert!(response.headers()[CONTENT_TYPE].to_str().is_ok_and(|value| !value.is_empty())),
        Err(problem) => assert_eq!(problem.status(), StatusCode::NOT_ACCEPTABLE),
    }
    Ok(())
}

fn traceparent_takes_any_text(u: &mut Unstructured<'_>) -> Result<()> {
    let event = Invocation::get("/", &[("traceparent", &text(u)?)]).payload;
    let endpoint = |_| async {
        if let Some(value) = trace_headers().get("traceparent") {
            assert!(value.len() == 55 && value.as_bytes().starts_with(b"00-"), "{value:?}");
        }
        Ok(Response::default())
    };
    let answer = handler::invoke(endpoint, &event, Context::default());
    let answer = answer.now_or_never().expect("an endpoint that waits for nothing").expect("an answer");
    assert!(!answer.contains("internal"), "{answer}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use testbed::property::check;

    use super::PROPERTIES;

    #[test]
    fn any_event_gets_an_answer_or_a_named_failure() {
        check(&PROPERTIES, "any_event_gets_an_answer_or_a_named_failure", 20_000);
    }

    #[test]
    fn a_request_gets_the_same_answer_through_every_trigger() {
        check(&PROPERTIES, "a_request_gets_the_same_answer_through_every_trigger", 3_000);
    }

    #[test]
    fn any_body_is_read_or_all_its_faults_are_told() {
        check(&PROPERTIES, "any_body_is_read_or_all_its_faults_are_told", 5_000);
    }

    #[test]
    fn a_list_of_faults_that_claims_to_be_complete_is() {
        check(&PROPERTIES, "a_list_of_faults_that_claims_to_be_complete_is", 3_000);
    }

    #[test]
    fn any_form_is_read_or_refused() {
        check(&PROPERTIES, "any_form_is_read_or_refused", 5_000);
    }

    #[test]
    fn any_multipart_form_is_read_or_refused() {
        check(&PROPERTIES, "any_multipart_form_is_read_or_refused", 5_000);
    }

    #[test]
    fn accept_takes_any_text() {
        check(&PROPERTIES, "accept_takes_any_text", 20_000);
    }

    #[test]
    fn traceparent_takes_any_text() {
        check(&PROPERTIES, "traceparent_takes_any_text", 20_000);
    }
}
