//! Metrics within a line of the log, in CloudWatch's embedded metric format.
//!
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>
//!
//! `metrique` (0.1.33) writes this format too; docs/observability.md has the figures that spoke for these lines instead.

use std::time::{Duration, SystemTime};

use lambda_http::http::StatusCode;

use super::line::Line;

/// Where CloudWatch files the metrics. What tells one service from another is the dimension: a function's name.
const NAMESPACE: &str = "HttpFunctions";

/// Those of every invocation; what it counted itself comes after them. Zeros are sent too: they make averages into rates.
const DEFINITIONS: &str = concat!(
    r#"{"Name":"Requests","Unit":"Count"},"#,
    r#"{"Name":"ClientErrors","Unit":"Count"},"#,
    r#"{"Name":"ServerErrors","Unit":"Count"},"#,
    r#"{"Name":"ColdStarts","Unit":"Count"},"#,
    r#"{"Name":"Duration","Unit":"Milliseconds"}"#,
);

pub(super) struct Metrics<'a> {
    pub(super) function_name: &'a str,
    pub(super) status: StatusCode,
    pub(super) cold_start: bool,
    pub(super) duration: Duration,
    /// What the endpoint counted.
    pub(super) counts: &'a [(&'static str, u64)],
}

impl Metrics<'_> {
    /// Puts the metrics, and what defines them, into a line of JSON.
    pub(super) fn write(&self, line: &mut Line, now: SystemTime) {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        line.write(format_args!(
            r#","_aws":{{"Timestamp":{now},"CloudWatchMetrics":[{{"Namespace":"{NAMESPACE}","Dimensions":[["FunctionName"]],"Metrics":[{DEFINITIONS}"#
        ));
        for (name, _) in self.counts {
            line.write(format_args!(r#",{{"Name":"{name}","Unit":"Count"}}"#));
        }
        line.write(format_args!("]}}]}}"));
        line.field("FunctionName", self.function_name);
        line.field("Requests", 1_u64);
        line.field("ClientErrors", u64::from(self.status.is_client_error()));
        line.field("ServerErrors", u64::from(self.status.is_server_error()));
        line.field("ColdStarts", u64::from(self.cold_start));
        line.field("Duration", self.duration);
        for (name, count) in self.counts {
            line.field(name, *count);
        }
    }
}
