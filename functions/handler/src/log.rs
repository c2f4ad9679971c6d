//! One line for each event of `tracing`: JSON where Lambda's logging configuration says so, text elsewhere.

use std::{
    env,
    error::Error,
    fmt::{self, Write as _},
    io::{IsTerminal, Write as _, stdout},
    panic,
    time::SystemTime,
};

use serde_json::{Map, Value};
use tracing::{
    Event, Level, Metadata, Subscriber, error,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
};

/// Lambda's own settings: <https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-advanced.html>.
const AWS_LAMBDA_LOG_FORMAT: &str = "AWS_LAMBDA_LOG_FORMAT";
const AWS_LAMBDA_LOG_LEVEL: &str = "AWS_LAMBDA_LOG_LEVEL";

/// Sends the process's events and panics to its standard output.
pub(crate) fn init() {
    let level = env::var(AWS_LAMBDA_LOG_LEVEL).unwrap_or_default();
    let format = env::var(AWS_LAMBDA_LOG_FORMAT).unwrap_or_default();
    let log = Log {
        level: level_filter(&level),
        format: if format.eq_ignore_ascii_case("json") {
            Format::Json
        } else if stdout().is_terminal() {
            Format::Colour
        } else {
            Format::Text
        },
    };
    // Only a second call in one process can fail, and then the first one holds.
    if tracing::subscriber::set_global_default(log).is_ok() {
        panic::set_hook(Box::new(|panic| error!("{panic}")));
    }
}

fn level_filter(name: &str) -> LevelFilter {
    match name.to_ascii_lowercase().as_str() {
        "trace" => LevelFilter::TRACE,
        "debug" => LevelFilter::DEBUG,
        "warn" => LevelFilter::WARN,
        "error" | "fatal" => LevelFilter::ERROR,
        _ => LevelFilter::INFO,
    }
}

/// A subscriber of events only. Spans cost nothing here; a function that wants them installs its own subscriber.
struct Log {
    level: LevelFilter,
    format: Format,
}

#[derive(Clone, Copy)]
enum Format {
    Json,
    Text,
    Colour,
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= self.level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let line = line(self.format, event);
        // A log that cannot be written must not fail the invocation, and there is nowhere left to say so.
        let _ = stdout().write_all(line.as_bytes());
    }
}

fn line(format: Format, event: &Event<'_>) -> String {
    let level = *event.metadata().level();
    let mut fields = Fields::default();
    event.record(&mut fields);
    let mut line = String::with_capacity(256);
    let written = match format {
        Format::Json => json(&mut line, level, fields),
        Format::Text => text(&mut line, level.as_str(), &fields),
        Format::Colour => {
            let colour = match level {
                Level::ERROR => 31,
                Level::WARN => 33,
                _ => 32,
            };
            text(&mut line, &format!("\x1b[{colour}m{level}\x1b[0m"), &fields)
        }
    };
    debug_assert!(written.is_ok(), "a string takes whatever is written to it");
    line
}

fn json(line: &mut String, level: Level, fields: Fields) -> fmt::Result {
    let mut object = Map::new();
    let now = humantime::format_rfc3339_millis(SystemTime::now());
    object.insert("timestamp".into(), now.to_string().into());
    object.insert("level".into(), level.as_str().into());
    object.insert("message".into(), fields.message.into());
    object.extend(fields.others.into_iter().map(|(name, value)| (name.into(), value)));
    writeln!(line, "{}", Value::Object(object))
}

fn text(line: &mut String, level: &str, fields: &Fields) -> fmt::Result {
    write!(line, "{level} {}", fields.message.escape_debug())?;
    for (name, value) in &fields.others {
        write!(line, " {name}={value}")?;
    }
    line.write_char('\n')
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.others.push((field.name(), format!("{value:?}").into()));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.others.push((field.name(), value.into()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.others.push((field.name(), value.into()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.others.push((field.name(), value.into()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.others.push((field.name(), value.into()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.others.push((field.name(), value.into()));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut chain = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            let _ = write!(chain, ": {error}");
            cause = error.source();
        }
        self.others.push((field.name(), chain.into()));
    }
}
