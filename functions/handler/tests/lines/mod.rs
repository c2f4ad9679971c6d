//! Lines of the log, and their schema.

#![allow(dead_code, reason = "no test uses all of it")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use jsonschema::Validator;
use serde_json::Value;

fn schema() -> Validator {
    let schema = serde_json::from_str(include_str!("../../log-event.schema.json")).unwrap();
    jsonschema::validator_for(&schema).unwrap()
}

/// Parses the lines. Each must match the schema and have all the metrics that it announces.
pub(crate) fn read(lines: &[String]) -> Vec<Value> {
    let schema = schema();
    let read = |line: &String| {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let errors: Vec<String> =
            schema.iter_errors(&event).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{errors:#?} in {line}");
        for metric in metrics(&event) {
            assert!(event[metric].is_number(), "{metric} in {line}");
        }
        event
    };
    lines.iter().map(read).collect()
}

/// A line has no names that the documentation lacks, except an endpoint's own.
pub(crate) fn has_known_names(event: &Value) {
    let schema: Value = serde_json::from_str(include_str!("../../log-event.schema.json")).unwrap();
    for name in event.as_object().unwrap().keys() {
        let is_known = |part: &str| !schema["$defs"][part]["properties"][name].is_null();
        assert!(["level", "message"].contains(&&**name) || is_known("invocation") || is_known("metrics"), "{name}");
    }
}

fn metrics(event: &Value) -> Vec<&str> {
    let metrics = event["_aws"]["CloudWatchMetrics"][0]["Metrics"].as_array();
    metrics.into_iter().flatten().map(|metric| metric["Name"].as_str().unwrap()).collect()
}
