//! What `fetch` adds to the line of its invocation.

mod bed;

use bed::Bed;
use serde_json::Value;
use testbed::upstream::{Answer, Behaviour, Upstream};

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
