//! The functions as `make build` packaged them log one line per invocation, in a known format, with nothing of the caller
//! or an upstream.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "../../functions/handler/tests/lines/mod.rs"]
mod lines;

use std::collections::{BTreeMap, BTreeSet};

use lines::read;
use serde_json::{Map, Value, json};
use testbed::{
    Case, Function, Invocation, functions, has_upstream, packaged, settings, steady_upstream,
    upstream::{Answer, Behaviour, Upstream},
};

/// A marker in every place where a caller or an upstream can put something.
const PLANTED: &str = "PLANTED";

/// The callers' addresses in events/.
const ADDRESSES: [&str; 2] = ["192.0.2.10", "2001:db8::10"];

/// The payload of `case`, with [`PLANTED`] wherever a caller can put something.
fn planted(case: &Case) -> Invocation {
    let mut event: Map<String, Value> = serde_json::from_slice(&case.invocation().payload).unwrap();
    for map in ["headers", "multiValueHeaders", "queryStringParameters", "multiValueQueryStringParameters"] {
        if let Some(Value::Object(map)) = event.get_mut(map) {
            let lists = map.values().next().is_some_and(Value::is_array);
            for name in ["authorization", "cookie", "x-api-key", "traceparent", PLANTED] {
                map.insert(name.into(), if lists { json!([PLANTED]) } else { PLANTED.into() });
            }
        }
    }
    if let Some(Value::String(query)) = event.get_mut("rawQueryString") {
        *query = format!("{query}&{PLANTED}={PLANTED}");
        event.insert("cookies".into(), json!([format!("session={PLANTED}")]));
    }
    for path in ["rawPath", "path"] {
        if let Some(Value::String(path)) = event.get_mut(path) {
            *path = format!("{path}/{PLANTED}");
        }
    }
    event.insert("body".into(), PLANTED.into());
    Invocation::new(serde_json::to_vec(&event).unwrap())
}

/// Sends `function` all of its cases and what is none, twice, with [`PLANTED`] in them. Returns its log, which has a line for each, and
/// nothing of what the caller or the upstream sent.
async fn log_of(function: &str, upstream: &Upstream, level: &str) -> Vec<Value> {
    let query = format!("?{PLANTED}={PLANTED}");
    let mut settings = settings(function, upstream);
    let of_upstream = settings.iter_mut().filter(|(_, value)| value.starts_with(&upstream.url("")));
    of_upstream.for_each(|(_, url)| url.push_str(&query));
    settings.push(("AWS_LAMBDA_LOG_LEVEL".into(), level.into()));
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (&**name, &**value)).collect();
    let mut process = Function::start(&packaged(function), &settings).await;
    // The last two are not from an HTTP trigger.
    let mut events: Vec<Invocation> = Case::all(function).iter().map(planted).collect();
    events.extend([PLANTED.to_owned(), json!({ PLANTED: PLANTED }).to_string()].map(Invocation::new));
    let mut sent = BTreeSet::new();
    for event in events.iter().chain(&events) {
        let invocation = Invocation::new(event.payload.clone());
        process.invoke(&invocation).await;
        sent.insert(invocation.request_id);
    }
    let lines = process.terminate().await;
    for secret in [PLANTED, ADDRESSES[0], ADDRESSES[1]] {
        assert!(lines.iter().all(|line| !line.contains(secret)), "{secret} is in {lines:#?}");
    }
    let events = read(&lines);
    let is_line = |event: &&Value| ["invocation", "the invocation failed"].iter().any(|it| event["message"] == *it);
    let lines: Vec<&str> = events.iter().filter(is_line).filter_map(|event| event["request_id"].as_str()).collect();
    assert!(lines.len() == sent.len() && lines.iter().all(|id| sent.contains(*id)), "{function}: {events:#?}");
    events
}

#[tokio::test]
async fn an_invocation_logs_one_line_without_caller_data() {
    let upstream = steady_upstream();
    let mut triggers: BTreeMap<String, usize> = BTreeMap::new();
    let (mut shown, mut traced) = (0, 0);
    for function in functions() {
        let events = log_of(&function, &upstream, "INFO").await;
        assert_eq!(events.iter().filter(|event| event["cold_start"] == true).count(), 1, "{function}");
        for trigger in events.iter().filter_map(|event| event["trigger"].as_str()) {
            *triggers.entry(trigger.to_owned()).or_default() += 1;
        }
        shown += events.len();
        traced += log_of(&function, &upstream, "TRACE").await.len();
    }
    assert!(traced > shown, "nothing was traced, so nothing was searched");
    for trigger in ["http-api", "rest-api", "function-url", "alb", "vpc-lattice"] {
        assert!(triggers.get(trigger).is_some_and(|count| *count > 5), "{triggers:?}");
    }
}

#[tokio::test]
async fn upstream_data_stays_out_of_the_log() {
    let upstream = Upstream::start();
    let good = Answer::ok(PLANTED).header("x-secret", PLANTED).header("set-cookie", PLANTED);
    for behaviour in [
        Some(Behaviour::from(good)),
        Some(Answer::status(503).into()),
        Some(Answer::status(404).into()),
        Some(Behaviour::redirect(302, format!("/{PLANTED}?{PLANTED}"))),
        Some(Behaviour::redirect(302, format!("http://127.0.0.1:1/?{PLANTED}"))),
        Some(Behaviour::redirect(302, format!("not a url {PLANTED}"))),
        Some(Behaviour::ResetMidBody),
        Some(Behaviour::MalformedHeaders),
        Some(Behaviour::Truncate),
        None,
    ] {
        match behaviour {
            Some(behaviour) => drop(upstream.always(behaviour)),
            None => upstream.refuse().await,
        }
        // A new process each time: one that has met a fault may answer from its cache, or because its circuit breaker
        // is open.
        for function in functions().iter().filter(|function| has_upstream(function)) {
            log_of(function, &upstream, "TRACE").await;
        }
    }
}
