//! Checks properties that must hold for any input, with random input. `make fuzz` does with a coverage-guided fuzzer. A
//! property panics if it does not hold.

use std::{
    env,
    hash::{BuildHasher, RandomState},
    sync::LazyLock,
};

use arbitrary::{Result, Unstructured};
use proptest::{
    arbitrary::any,
    collection::vec,
    test_runner::{Config, RngSeed, TestRunner},
};
use serde_json::{Value, json};

use replay::{Case, HttpAnswer, InvocationResult, functions};

/// A property. It makes its input from the bytes.
pub type Property = fn(&mut Unstructured<'_>) -> Result<()>;

/// Checks the property with this name, with `cases` random inputs. The environment variable `PROPERTY_SEED` repeats the
/// same inputs.
pub fn check(properties: &[(&str, Property)], name: &str, cases: u32) {
    let (_, property) = properties.iter().find(|(property, _)| *property == name).expect("a property of this name");
    let seed = env::var("PROPERTY_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| RandomState::new().hash_one(name));
    println!("PROPERTY_SEED={seed}");
    let config = Config { cases, failure_persistence: None, rng_seed: RngSeed::Fixed(seed), ..Config::default() };
    let held = TestRunner::new(config).run(&vec(any::<u8>(), 0..1024), |bytes| {
        // If the input ended too soon, the property held up to there.
        let _ended = property(&mut Unstructured::new(&bytes));
        Ok(())
    });
    assert!(held.is_ok(), "{held:?}");
}

/// An event of events/, changed in several places.
pub fn changed_event(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    static EVENTS: LazyLock<Vec<Value>> = LazyLock::new(|| {
        let all = functions().into_iter().flat_map(|function| Case::all(&function));
        all.filter_map(|case| serde_json::from_slice(&case.invocation().payload).ok()).collect()
    });
    let mut event = u.choose(&EVENTS)?.clone();
    for _ in 0..u.int_in_range(1..=6)? {
        change(u, &mut event)?;
    }
    let mut bytes = event.to_string().into_bytes();
    if u.ratio(1, 16)? {
        let at = u.choose_index(bytes.len())?;
        bytes[at] = u.arbitrary()?;
    }
    Ok(bytes)
}

/// Checks the outcome of any event. An HTTP trigger's event gets an answer with one of the `statuses`. Any other event
/// fails with a message that says so.
pub fn check_result(event: &[u8], outcome: &InvocationResult, statuses: &[u16]) {
    let json = serde_json::from_slice::<Value>(event);
    let event = String::from_utf8_lossy(event);
    match outcome {
        InvocationResult::Response(_) | InvocationResult::Stream(_) => {
            let multi_value =
                matches!(outcome, InvocationResult::Response(it) if it.contains(r#""multiValueHeaders""#));
            let answer = HttpAnswer::of(outcome, multi_value).unwrap_or_else(|error| panic!("{error}: {event}"));
            assert!(statuses.contains(&answer.status), "{answer:?} for {event}");
            let is_problem = answer.header("content-type") == "application/problem+json";
            assert!(answer.status < 400 || is_problem || answer.body.is_empty(), "{answer:?} for {event}");
        }
        InvocationResult::Error(error) => {
            assert!(json.is_err() || error.contains("not from an HTTP trigger"), "{error} for {event}");
            assert!(!json.is_ok_and(|json| is_http(&json)), "{error} for {event}");
        }
    }
}

/// Whether an event has the marks of an HTTP trigger, a method and a path.
fn is_http(event: &Value) -> bool {
    let context = &event["requestContext"];
    let text = |value: &Value| value.is_string();
    let v2 = text(&context["http"]["method"]) && text(&event["rawPath"]);
    let marked = context["elb"].is_object() || text(&event["resource"]);
    let v1 = marked && text(&event["httpMethod"]) && text(&event["path"]) && !context["http"].is_object();
    let lattice = text(&context["serviceArn"]) && text(&event["method"]) && text(&event["path"]);
    v2 || v1 || lattice && context.get("http").is_none() && context.get("elb").is_none()
}

/// Changes one member, item or value, wherever it is.
pub fn change(u: &mut Unstructured<'_>, value: &mut Value) -> Result<()> {
    let goes_deeper = u.ratio(3, 4)?;
    match value {
        Value::Object(members) if !members.is_empty() && goes_deeper => {
            let at = u.choose_index(members.len())?;
            let name = members.keys().nth(at).cloned().unwrap_or_default();
            match u.int_in_range(0..=9)? {
                0 => drop(members.remove(&name)),
                1 => {
                    let moved = members.remove(&name).unwrap_or_default();
                    members.insert(text(u)?, moved);
                }
                2 => drop(members.insert(text(u)?, anything(u)?)),
                _ => change(u, &mut members[&name])?,
            }
        }
        Value::Array(items) if !items.is_empty() && goes_deeper => {
            let at = u.choose_index(items.len())?;
            change(u, &mut items[at])?;
        }
        Value::String(old) if goes_deeper => {
            let at = u.int_in_range(0..=old.chars().count())?;
            let at = old.char_indices().nth(at).map_or(old.len(), |(at, _)| at);
            old.insert_str(at, &text(u)?);
        }
        value => *value = anything(u)?,
    }
    Ok(())
}

/// Text with parts that tend to cause trouble.
pub fn text(u: &mut Unstructured<'_>) -> Result<String> {
    const PARTS: [&str; 24] = [
        "", " ", "\t", "\r\n", "\0", "\u{7f}", "\u{80}", "é", "李", "\u{fffd}", "🦀", "%", "%00", "%ff", "%zz", "&",
        "=", "+", "#", "?", "/../", "\"", ",", ";",
    ];
    let mut text = String::new();
    for _ in 0..u.int_in_range(0..=4)? {
        if u.ratio(1, 3)? {
            text.push_str(u.arbitrary()?);
        } else {
            text.push_str(u.choose(&PARTS)?);
        }
    }
    Ok(if u.ratio(1, 64)? { text.repeat(100) } else { text })
}

fn anything(u: &mut Unstructured<'_>) -> Result<Value> {
    Ok(match u.int_in_range(0..=8)? {
        0 => Value::Null,
        1 => json!(u.arbitrary::<bool>()?),
        2 => json!(u.arbitrary::<i64>()?),
        3 => json!(u.arbitrary::<f64>()?),
        4 => json!([]),
        5 => json!({}),
        6 => json!([text(u)?, null, 7, [text(u)?]]),
        7 => json!({ text(u)?: text(u)?, "": null }),
        _ => json!(text(u)?),
    })
}
