//! Tests what any endpoint logs: one line per invocation, in a known format.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod lines;

use std::{
    collections::BTreeMap,
    future::pending,
    sync::{Arc, Mutex},
};

use futures_util::FutureExt;
use handler::{Context, Endpoint, Problem, Response, count, http::StatusCode, observe, record};
use lines::{has_known_names, read};
use serde_json::Value;
use testbed::{Call, Function, HttpAnswer, Invocation, InvocationResult, TRIGGERS, example};

#[tokio::test]
async fn concurrent_invocations_have_separate_answers_and_lines() {
    let mut process = Function::start(&example("probe"), &[("AWS_LAMBDA_MAX_CONCURRENCY", "64")]).await;
    let mut expected = BTreeMap::new();
    for _ in 0..5 {
        let names: Vec<String> = (1..=64).map(|chars| "a".repeat(chars)).collect();
        let invocations: Vec<_> = names.iter().map(|name| Invocation::get(&format!("/?name={name}"), &[])).collect();
        for (name, outcome) in names.iter().zip(process.invoke_all(&invocations).await) {
            assert_eq!(&HttpAnswer::try_from(outcome).unwrap().body, name);
        }
        let at_a_time = invocations.into_iter().enumerate();
        expected.extend(at_a_time.map(|(at, invocation)| (invocation.request_id, (invocation.trace_id, at + 1))));
    }
    let events = read(&process.terminate().await);
    assert_eq!(events.len(), 5 * 64);
    for event in events {
        let (trace_id, chars) = expected.remove(event["request_id"].as_str().unwrap()).unwrap();
        assert!(trace_id.starts_with(&format!("Root={};", event["trace_id"].as_str().unwrap())), "{event}");
        let counted = (&event["bytes_out"], &event["attempts"], &event["UpstreamAttempts"]);
        assert_eq!(counted, (&chars.into(), &chars.into(), &(chars + 1).into()), "{event}");
        assert_eq!(event["cache_status"], chars.to_string(), "{event}");
    }
}

/// A `GET` request through `trigger`.
fn through(trigger: &str, path: &str) -> Invocation {
    Invocation::new(Call::get(path, &[]).event(trigger, "testbed").unwrap().to_string())
}

/// The log of a request, and of a request that panics.
async fn two_lines(env: &[(&str, &str)]) -> Vec<String> {
    let mut process = Function::start(&example("probe"), env).await;
    process.invoke(&Invocation::get("/probe", &[])).await;
    process.invoke(&through("rest-api", "/probe?panic=a-bug")).await;
    process.terminate().await
}

#[tokio::test]
async fn a_panic_is_logged_in_the_line_of_its_invocation() {
    let events = read(&two_lines(&[]).await);
    events.iter().for_each(has_known_names);
    let [fine, panicked] = &events[..] else { panic!("{events:?}") };
    assert_eq!((&fine["level"], &fine["status"], &fine["route"]), (&"INFO".into(), &200.into(), &"ANY /probe".into()));
    assert_eq!(
        (&panicked["level"], &panicked["status"], &panicked["route"]),
        (&"ERROR".into(), &500.into(), &"/probe".into())
    );
    assert_eq!(panicked["problem"], "internal");
    let panic = panicked["panic"].as_str().unwrap();
    assert!(
        panic.starts_with("panicked at functions/handler/examples/probe.rs:") && panic.ends_with("a bug"),
        "{panic}"
    );
    assert!(panicked["error"].as_str().unwrap().ends_with(": the endpoint panicked"), "{panicked}");
}

/// Whatever the level, and whether the panic comes before the answer, after it, or after the next one.
#[tokio::test]
async fn a_panic_beside_the_endpoint_has_its_own_line() {
    for (level, expected) in [("INFO", "ERROR"), ("WARN", "ERROR"), ("ERROR", "ERROR"), ("FATAL", "FATAL")] {
        let mut process = Function::start(&example("probe"), &[("AWS_LAMBDA_LOG_LEVEL", level)]).await;
        let mut ids = Vec::new();
        for name in ["in-a-task", "after", "leaves-a-task", "ends-the-task", "after"] {
            let invocation = Invocation::get(&format!("/?panic={name}"), &[]);
            assert!(matches!(process.invoke(&invocation).await, InvocationResult::Response(_)));
            ids.push(invocation.request_id);
        }
        let events = read(&process.terminate().await);
        let panics: Vec<[&str; 3]> = events
            .iter()
            .filter(|event| event.get("_aws").is_none())
            .map(|event| ["level", "request_id", "message"].map(|name| event[name].as_str().unwrap()))
            .collect();
        assert_eq!(events.len(), 5 + 4, "{level}: {events:?}");
        let all =
            [(0, "in a task"), (1, "after the response"), (2, "of an earlier request"), (4, "after the response")];
        for (at, message) in all {
            let is_this = |[_, id, text]: &&[&str; 3]| *id == ids[at] && text.ends_with(message);
            let found: Vec<&[&str; 3]> = panics.iter().filter(is_this).collect();
            let [[panic_level, _, text]] = found[..] else { panic!("{level}: {message} in {panics:?}") };
            assert_eq!(*panic_level, expected, "{level}");
            assert!(text.starts_with("panicked at functions/handler/examples/probe.rs:"), "{text}");
        }
    }
}

#[test]
fn the_schema_takes_what_any_endpoint_can_write() {
    let problems = [
        Problem::unauthorized("Bearer", "Who?"),
        Problem::forbidden("No."),
        Problem::not_found("Gone."),
        Problem::conflict("Twice."),
        Problem::precondition_failed("Changed."),
        Problem::content_too_large(1),
        Problem::unsupported_media_type("application/json", "No."),
        Problem::unprocessable_content([("/a", "is odd")]),
        Problem::precondition_required("Say which."),
        Problem::new("out-of-stock-2", "Out of stock", StatusCode::CONFLICT, "3 left."),
        Problem::new("huge", "Huge", StatusCode::CONFLICT, "x".repeat(7 << 20)),
    ];
    for problem in problems {
        let problem = Arc::new(Mutex::new(Some(problem)));
        let endpoint = move |_| {
            let problem = problem.lock().unwrap().take().unwrap();
            async { Err(problem) }
        };
        observed(endpoint).now_or_never().unwrap();
    }
    // No problem, although it is an error, and no status of HTTP's.
    for status in [404, 599, 600] {
        let endpoint = move |_| async move {
            let mut response = Response::default();
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            Ok(response)
        };
        observed(endpoint).now_or_never().unwrap();
    }
    let endpoint = |_| async {
        for name in ["mine", "status", "Duration", "Mine", "_aws"] {
            record(name, f64::NAN);
            count(name, 1);
            record(name, -1_i64);
        }
        Ok(Response::default())
    };
    observed(endpoint).now_or_never().unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_schema_takes_an_exceeded_deadline() {
    assert_eq!(observed(|_| pending()).await["problem"], "deadline-exceeded");
}

/// The line of a request to `endpoint`, which has ten seconds.
async fn observed(endpoint: impl Endpoint) -> Value {
    let invocation = Invocation::get("/", &[]);
    let mut context = Context::default();
    context.request_id = invocation.request_id;
    context.deadline = invocation.deadline_ms;
    Arc::make_mut(&mut context.env_config).function_name = "testbed".into();
    let (_, line) = observe(endpoint, &invocation.payload, context).await.unwrap();
    read(&[line]).remove(0)
}

#[tokio::test]
async fn metrics_go_out_at_every_level() {
    for (level, levels) in [
        ("TRACE", ["INFO", "ERROR"]),
        ("INFO", ["INFO", "ERROR"]),
        ("WARN", ["WARN", "ERROR"]),
        ("ERROR", ["ERROR", "ERROR"]),
        ("FATAL", ["FATAL", "FATAL"]),
    ] {
        let lines = two_lines(&[("AWS_LAMBDA_LOG_LEVEL", level)]).await;
        let events = read(&lines);
        let events: Vec<&Value> = events.iter().filter(|event| event.get("_aws").is_some()).collect();
        let [fine, panicked] = &events[..] else { panic!("{level}: {lines:?}") };
        assert_eq!([&fine["level"], &panicked["level"]], levels, "{level}");
        assert_eq!(fine["message"], if levels[0] == "INFO" { "invocation" } else { "metrics" });
        assert_eq!(panicked["message"], if level == "FATAL" { "metrics" } else { "invocation" });
        assert_eq!((&fine["ServerErrors"], &panicked["ServerErrors"]), (&0.into(), &1.into()));
        assert_eq!((&fine["ColdStarts"], &panicked["ColdStarts"]), (&1.into(), &0.into()));
    }
}

#[tokio::test]
async fn text_format_is_for_people_and_has_no_metrics() {
    let lines = two_lines(&[("AWS_LAMBDA_LOG_FORMAT", "Text")]).await;
    assert!(lines[0].starts_with("INFO invocation request_id=\"00000000-"), "{lines:?}");
    assert!(lines[0].contains(" status=200 ") && !lines[0].contains("_aws"), "{lines:?}");
    assert!(lines[1].starts_with("ERROR invocation ") && lines[1].contains(" panic=\"panicked at "), "{lines:?}");
    assert!(two_lines(&[("AWS_LAMBDA_LOG_FORMAT", "Text"), ("AWS_LAMBDA_LOG_LEVEL", "FATAL")]).await.is_empty());
}

#[tokio::test]
async fn the_operator_decides_whether_addresses_are_logged() {
    let mut process = Function::start(&example("probe"), &[("LOG_CLIENT_ADDRESS", "true")]).await;
    for trigger in TRIGGERS {
        process.invoke(&through(trigger, "/")).await;
    }
    for (trigger, event) in TRIGGERS.iter().zip(read(&process.terminate().await)) {
        let address = event["client_address"].as_str().unwrap_or_default();
        assert!(["192.0.2.10", "2001:db8::10"].contains(&address), "{trigger}: {event}");
    }
}

#[tokio::test]
async fn only_a_start_that_somebody_waited_for_is_cold() {
    for (how, cold) in [("on-demand", true), ("provisioned-concurrency", false), ("lambda-managed-instances", false)] {
        let events = read(&two_lines(&[("AWS_LAMBDA_INITIALIZATION_TYPE", how)]).await);
        assert_eq!((&events[0]["cold_start"], &events[1]["cold_start"]), (&cold.into(), &false.into()), "{how}");
    }
}

#[test]
fn every_name_is_documented() {
    let documentation = include_str!("../../../docs/observability.md");
    let schema: Value = serde_json::from_str(include_str!("../log-event.schema.json")).unwrap();
    for part in [&schema["$defs"]["invocation"], &schema["$defs"]["metrics"]] {
        for name in part["properties"].as_object().unwrap().keys() {
            let documented = documentation.contains(&format!("\n| `{name}` |"));
            assert!(documented || ["_aws", "FunctionName"].contains(&name.as_str()), "{name}");
        }
    }
}
