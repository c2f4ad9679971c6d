//! The events of `tracing` as lines of the log.

use std::{borrow::Cow, error::Error, fmt, sync::Arc, time::SystemTime};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
};

use super::{
    InvocationSpan, Log, Value, chain,
    line::{Line, free_name},
};

/// A subscriber for events only. Spans cost nothing here. A function that wants them installs its own subscriber before
/// it calls [`run`](crate::run()).
pub(super) struct Events(pub(super) Arc<Log>);

impl Subscriber for Events {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= self.0.level && !may_show_secrets(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.0.level)
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let is_in_invocation = InvocationSpan::current(|_| ()).is_some();
        let mut fields = Fields { is_in_invocation, message: String::new(), others: Vec::new() };
        event.record(&mut fields);
        let level = LevelFilter::from_level(*event.metadata().level());
        let mut line = Line::new(self.0.format, SystemTime::now(), level, &fields.message);
        InvocationSpan::current(|invocation| line.field("request_id", invocation.request_id()));
        line.field("target", event.metadata().target());
        for (name, value) in &fields.others {
            line.any_name(name, value);
        }
        (self.0.write)(&line.end());
    }
}

/// The AWS SDK's events print whole responses, with `Debug`: at TRACE every one, and at WARN one that holds credentials
/// and cannot be read. What is wrong is in the error that the SDK returns. Only its warnings about CA certificates have
/// no response in them.
fn may_show_secrets(metadata: &Metadata<'_>) -> bool {
    let is_about_certificates = metadata.target().starts_with("aws_smithy_http_client::client::tls");
    metadata.target().starts_with("aws_") && !(is_about_certificates && *metadata.level() <= Level::WARN)
}

struct Fields {
    is_in_invocation: bool,
    message: String,
    others: Vec<(Cow<'static, str>, Value<'static>)>,
}

impl Fields {
    /// Adds a field. If the line has one of this name already, `_` is added to the name, because JSON with two equal
    /// names means something else to each reader.
    fn add(&mut self, field: &Field, value: impl Into<Value<'static>>) {
        let is_taken = |name: &str| match name {
            "timestamp" | "level" | "message" | "target" | "_aws" => true,
            "request_id" if self.is_in_invocation => true,
            _ => self.others.iter().any(|(taken, _)| taken == name),
        };
        match value.into() {
            Value::Text(text) if field.name() == "message" && self.message.is_empty() => {
                self.message = text.into_owned();
            }
            value => self.others.push((free_name(field.name(), is_taken), value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.to_owned());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    // Readers of JSON round a number of more than 64 bits, or refuse it, so it is text.
    fn record_u128(&mut self, field: &Field, value: u128) {
        self.add(field, u64::try_from(value).map_or_else(|_| value.to_string().into(), Value::from));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.add(field, i64::try_from(value).map_or_else(|_| value.to_string().into(), Value::from));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.add(field, chain(value));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tracing::{error, info_span};

    use super::*;
    use crate::log::Format;

    /// The lines that `work` writes.
    fn lines(level: LevelFilter, work: impl FnOnce()) -> Vec<serde_json::Value> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&lines);
        let log = Log {
            level,
            ..Log::new(Format::Json, move |line| written.lock().unwrap().push(serde_json::from_slice(line).unwrap()))
        };
        tracing::subscriber::with_default(Events(Arc::new(log)), work);
        std::mem::take(&mut *lines.lock().unwrap())
    }

    #[test]
    fn the_aws_sdk_writes_no_lines_that_may_show_secrets() {
        let lines = lines(LevelFilter::TRACE, || {
            error!(target: "aws_config::meta::credentials::chain", "with a response");
            tracing::trace!(target: "aws_smithy_runtime::client::orchestrator", "with a response");
            tracing::warn!(target: "aws_smithy_http_client::client", "with a part of a response");
            tracing::warn!(target: "aws_smithy_http_client::client::tls", "no certificates");
            error!(target: "aws::resolve", "of the crate `aws`");
        });
        let messages: Vec<_> = lines.iter().map(|line| &line["message"]).collect();
        assert_eq!(messages, ["no certificates", "of the crate `aws`"]);
    }

    #[test]
    fn an_event_is_a_line_with_its_fields_and_causes() {
        let cause = std::io::Error::other("the cause");
        let error = crate::Problem::misconfigured(cause);
        let lines = lines(LevelFilter::INFO, || {
            info_span!("a span", ignored = true).in_scope(|| {
                error!(error = &error as &dyn Error, number = 1_u64, level = "none", ratio = 0.5, "it {}", "failed");
                error!(
                    message = "as a field",
                    a = -1,
                    a = f64::NAN,
                    wide = i128::from(i64::MIN),
                    wider = u128::MAX,
                    request_id = "of another",
                    level = 1,
                    _aws = 2,
                    target = 3,
                );
                tracing::debug!("not wanted");
            });
        });
        let [line, other] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!(line["level"], "ERROR");
        assert_eq!(line["message"], "it failed");
        assert_eq!(line["target"], "handler::log::subscriber::tests");
        assert_eq!((&line["number"], &line["ratio"]), (&1.into(), &0.5.into()));
        assert_eq!(line["level_"], "none");
        assert!(line["error"].as_str().unwrap().ends_with(": the cause"), "{line}");
        let others = serde_json::json!({
            "timestamp": other["timestamp"],
            "level": "ERROR",
            "message": "as a field",
            "target": "handler::log::subscriber::tests",
            "a": -1,
            "a_": "NaN",
            "wide": i64::MIN,
            "wider": u128::MAX.to_string(),
            "request_id": "of another",
            "level_": 1,
            "_aws_": 2,
            "target_": 3,
        });
        assert_eq!(*other, others);
    }
}
