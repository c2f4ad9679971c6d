//! The log: JSON lines if Lambda's logging configuration says so, otherwise text.
//!
//! Each invocation writes one line, its [`InvocationSpan`]. CloudWatch reads the metrics from that line, too. The only
//! other lines are `tracing` events from libraries or an endpoint, and panics that no invocation's line can have.
//! docs/observability.md lists the fields.

mod invocation;
mod line;
mod metrics;
mod subscriber;

use std::{
    env,
    error::Error,
    fmt::Write as _,
    io::{IsTerminal, Write as _, stdout},
    panic,
    sync::{Arc, Once, atomic::AtomicBool},
    time::{Duration, Instant, SystemTime},
};

use tracing::level_filters::LevelFilter;

pub(crate) use invocation::{Ended, InvocationSpan};
pub use invocation::{count, count_with, record, record_with};
pub(crate) use line::Format;
pub use line::Value;

use crate::caught::caught;

/// Lambda's own settings: <https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-advanced.html>.
const AWS_LAMBDA_LOG_FORMAT: &str = "AWS_LAMBDA_LOG_FORMAT";
const AWS_LAMBDA_LOG_LEVEL: &str = "AWS_LAMBDA_LOG_LEVEL";

/// Why Lambda started this process. Lambda sets it itself.
pub(crate) const AWS_LAMBDA_INITIALIZATION_TYPE: &str = "AWS_LAMBDA_INITIALIZATION_TYPE";

/// `true` puts the callers' addresses into the log. They are personal data, so the operator decides.
const LOG_CLIENT_ADDRESS: &str = "LOG_CLIENT_ADDRESS";

/// What a process logs, in which format, and where to.
pub(crate) struct Log {
    level: LevelFilter,
    format: Format,
    /// Whether lines have the callers' addresses.
    pub(crate) client_address: bool,
    /// When the process began, as far as this crate can tell.
    started: Instant,
    /// Whether the next invocation is the first, and its caller waited for the process to start.
    cold: AtomicBool,
    write: Write,
}

/// Takes one line, including its line end.
type Write = Box<dyn Fn(&[u8]) + Send + Sync>;

impl Log {
    /// A log at the default level that passes every line to `write`.
    pub(crate) fn new(format: Format, write: impl Fn(&[u8]) + Send + Sync + 'static) -> Self {
        Self {
            level: LevelFilter::INFO,
            format,
            client_address: false,
            started: Instant::now(),
            cold: AtomicBool::new(true),
            write: Box::new(write),
        }
    }

    /// A log that drops its lines, for callers that only need the answer.
    pub(crate) fn silent() -> Arc<Self> {
        Arc::new(Self::new(Format::Text, |_| {}))
    }

    /// How long the process has been running.
    pub(crate) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Writes a line for a panic. Like the metrics, it goes out at every level.
    fn panic(&self, invocation: Option<&InvocationSpan>, panic: &str) {
        let level = self.level.min(LevelFilter::ERROR);
        if level == LevelFilter::OFF && self.format != Format::Json {
            return;
        }
        let mut line = line::Line::new(self.format, SystemTime::now(), level, panic);
        if let Some(invocation) = invocation {
            line.field("request_id", invocation.request_id());
        }
        line.field("target", module_path!());
        (self.write)(&line.end());
    }

    /// A log as the operator configured it, to the process's standard output.
    fn from_env() -> Self {
        let variable = |name| env::var(name).unwrap_or_default();
        let format = if variable(AWS_LAMBDA_LOG_FORMAT).eq_ignore_ascii_case("json") {
            Format::Json
        } else if stdout().is_terminal() {
            Format::Colour
        } else {
            Format::Text
        };
        // Lambda starts these processes before any caller waits for them.
        let initialization = variable(AWS_LAMBDA_INITIALIZATION_TYPE);
        let warmed =
            ["provisioned-concurrency", "lambda-managed-instances", "snap-start"].contains(&initialization.as_str());
        Self {
            level: level(&variable(AWS_LAMBDA_LOG_LEVEL)),
            client_address: variable(LOG_CLIENT_ADDRESS).eq_ignore_ascii_case("true"),
            cold: AtomicBool::new(!warmed),
            ..Self::new(format, |line| {
                // A whole line is a single write. If it fails, the invocation must not fail, and there is nowhere left
                // to report it.
                let _ = stdout().write_all(line);
            })
        }
    }
}

/// Sends the process's invocations, events and panics to its standard output.
pub(crate) fn init() -> Arc<Log> {
    static HOOK: Once = Once::new();
    let log = Arc::new(Log::from_env());
    // This fails if the function has installed a subscriber of its own.
    let _ = tracing::subscriber::set_global_default(subscriber::Events(Arc::clone(&log)));
    let hooked = Arc::clone(&log);
    HOOK.call_once(|| {
        panic::set_hook(Box::new(move |panic| {
            let panic = panic.to_string();
            if InvocationSpan::current(|invocation| invocation.panicked(panic.clone())).is_none() {
                hooked.panic(None, &panic);
            }
        }));
    });
    log
}

fn level(name: &str) -> LevelFilter {
    match name.to_ascii_lowercase().as_str() {
        // Libraries trace what they read and send. That must not be logged.
        "trace" | "debug" => LevelFilter::DEBUG,
        "warn" => LevelFilter::WARN,
        "error" => LevelFilter::ERROR,
        // Lambda drops everything below fatal. Only metrics and panics are still written.
        "fatal" => LevelFilter::OFF,
        _ => LevelFilter::INFO,
    }
}

/// How many causes a message may have: an error can be its own cause.
const MAX_CAUSES: usize = 32;

/// The message of an error and of its causes, as far as they can be formatted.
fn chain(error: &dyn Error) -> String {
    let mut chain = String::new();
    let formatted = caught(|| {
        // Writing to memory does not fail. If the error's own code does, the rest of its message is lost.
        let _ = write!(chain, "{error}");
        let mut cause = error.source();
        for _ in 0..MAX_CAUSES {
            let Some(error) = cause else { break };
            let _ = write!(chain, ": {error}");
            cause = error.source();
        }
    });
    if formatted.is_none() {
        chain.push_str(" (the rest panicked while it was formatted)");
    }
    chain
}
