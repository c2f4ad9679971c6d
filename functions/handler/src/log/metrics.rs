//! Metrics within a line of the log, in CloudWatch's embedded metric format.
//!
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>
//!
//! `metrique` (0.1.33) writes this format, too. docs/observability.md has the figures that led to this code instead.

use std::time::{Duration, SystemTime};

use lambda_http::http::StatusCode;

use super::{invocation::Name, line::Line};

/// The namespace of the metrics: `METRICS_NAMESPACE` when this is compiled, which `.cargo/config.toml` sets.
///
/// The dimension, not the namespace, tells services apart: a function's name begins with its stack's name.
const NAMESPACE: &str = match option_env!("METRICS_NAMESPACE") {
    Some(namespace) => namespace,
    None => "HttpFunctions",
};

/// The definition of the metrics that every invocation has. The metrics that the endpoint counted follow it.
const DIRECTIVE: &str = concat!(
    r#"","Dimensions":[["FunctionName"]],"Metrics":["#,
    r#"{"Name":"Requests","Unit":"Count"},"#,
    r#"{"Name":"ClientErrors","Unit":"Count"},"#,
    r#"{"Name":"ServerErrors","Unit":"Count"},"#,
    r#"{"Name":"ColdStarts","Unit":"Count"},"#,
    r#"{"Name":"Duration","Unit":"Milliseconds"}"#,
);

/// How many metrics may follow: a line defines at most 100, or CloudWatch takes none of them.
const MAX_COUNTS: usize = 95;

pub(super) struct Metrics<'a> {
    pub(super) function_name: &'a str,
    pub(super) status: StatusCode,
    /// Whether the answer is a 5xx, or a stream that failed.
    pub(super) is_failure: bool,
    pub(super) cold_start: bool,
    pub(super) duration: Duration,
    /// What the endpoint counted.
    pub(super) counts: &'a [(Name, u64)],
}

impl Metrics<'_> {
    /// Adds the metrics and their definition to a line of JSON, including zeros, so that an average is a rate.
    pub(super) fn write(&self, line: &mut Line, now: SystemTime) {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        line.raw(r#","_aws":{"Timestamp":"#);
        line.json(&u64::try_from(now).unwrap_or(u64::MAX));
        line.raw(r#","CloudWatchMetrics":[{"Namespace":""#);
        line.raw(NAMESPACE);
        line.raw(DIRECTIVE);
        for (name, _) in self.counts.iter().take(MAX_COUNTS) {
            line.raw(r#",{"Name":"#);
            line.json(&name.written);
            line.raw(r#","Unit":"Count"}"#);
        }
        line.raw("]}]}");
        line.field("FunctionName", self.function_name);
        line.field("Requests", 1_u64);
        line.field("ClientErrors", u64::from(self.status.is_client_error()));
        line.field("ServerErrors", u64::from(self.is_failure));
        line.field("ColdStarts", u64::from(self.cold_start));
        line.field("Duration", self.duration);
        for (name, count) in self.counts {
            line.any_name(&name.written, &(*count).into());
        }
    }
}
