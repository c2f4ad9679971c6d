//! The log line of an invocation.

use std::{
    borrow::Cow,
    mem,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};

use lambda_http::{
    http::{HeaderValue, StatusCode},
    lambda_runtime::Config,
};
use tokio::time::Instant as Deadline;
use tracing::level_filters::LevelFilter;

use super::{
    Format, Log, Value, chain,
    line::{Fields, Line, free_name},
    metrics::Metrics,
};
use crate::{
    Context, Problem,
    background::{self, Background},
    caught::caught,
    deadline,
    event::Event,
    trace,
};

tokio::task_local! {
    /// The invocation that a task works for.
    static CURRENT: InvocationSpan;
}

/// Adds a field to the log line of the current invocation. A later value for the same name replaces the earlier one.
///
/// `name` is in `snake_case`. If the line has another field or a metric of this name, as it has `status`, `_` is added to
/// `name`. The value must not come from a caller or an upstream, because more people can read the log than may see such
/// data.
///
/// Outside an invocation and the tasks that it [spawned](crate::spawn), this does nothing. It is also lost once the line
/// is written: [`after_response`](crate::after_response) makes the line wait.
///
/// ```
/// handler::record("cache_status", "hit");
/// handler::record("upstream_ms", std::time::Duration::from_micros(1500));
/// ```
pub fn record(name: &'static str, value: impl Into<Value<'static>>) {
    record_with(name, |_| value.into());
}

/// Like [`record`], with a value that `value` makes of the earlier one, if there is one. `value` must not record anything
/// itself: the line is locked meanwhile.
///
/// ```
/// # use handler::Value;
/// handler::record_with("pages", |earlier| match earlier {
///     Some(Value::Number(pages)) => (pages + 1).into(),
///     _ => 1_u64.into(),
/// });
/// ```
pub fn record_with(name: &'static str, value: impl FnOnce(Option<Value<'static>>) -> Value<'static>) {
    InvocationSpan::current(|invocation| invocation.record(name, value));
}

/// Adds `number` to a metric of the current invocation. CloudWatch sums it up for each function.
///
/// `name` is in `PascalCase`. Counting 0 is useful: the metric's average is then a rate. Names and lines are as with
/// [`record`].
///
/// ```
/// handler::count("UpstreamAttempts", 3);
/// handler::count("CacheHits", 0);
/// ```
pub fn count(name: &'static str, number: u64) {
    count_with(name, |earlier| earlier.unwrap_or_default().saturating_add(number));
}

/// Like [`count`], with a number that `number` makes of the earlier one, if there is one. `number` must not count anything
/// itself.
///
/// ```
/// // 1 if all of several reads were hits.
/// handler::count_with("CacheHits", |earlier| earlier.unwrap_or(1).min(0));
/// ```
pub fn count_with(name: &'static str, number: impl FnOnce(Option<u64>) -> u64) {
    InvocationSpan::current(|invocation| {
        let mut recorded = invocation.recorded();
        if let Some((_, count)) = recorded.counts.iter_mut().find(|(counted, _)| counted.given == name) {
            *count = number(Some(*count));
        } else {
            let name = recorded.name(name);
            recorded.counts.push((name, number(None)));
        }
    });
}

/// Whether every invocation's line has, or may have, this name.
fn is_own(name: &str) -> bool {
    matches!(
        name,
        "timestamp"
            | "level"
            | "message"
            | "request_id"
            | "trace_id"
            | "function_version"
            | "trigger"
            | "method"
            | "route"
            | "client_address"
            | "status"
            | "problem"
            | "error"
            | "unsent_problem"
            | "panic"
            | "duration_ms"
            | "remaining_ms"
            | "bytes_out"
            | "stream"
            | "first_byte_ms"
            | "cold_start"
            | "init_ms"
            | "_aws"
            | "FunctionName"
            | "Requests"
            | "ClientErrors"
            | "ServerErrors"
            | "ColdStarts"
            | "Duration"
    )
}

/// Whether a trigger's route is for all paths: `$default`, or such as `/{proxy+}`.
fn is_catch_all(route: &str) -> bool {
    route == "$default" || (route.ends_with("+}") && route.split('/').nth(1).is_some_and(|name| name.ends_with("+}")))
}

/// An invocation from its event to its answer. Clones are the same invocation.
#[derive(Clone)]
pub(crate) struct InvocationSpan(Arc<Inner>);

struct Inner {
    log: Arc<Log>,
    /// The request's id, and after it the trace as Lambda sent it: together they cost one allocation.
    ids: String,
    request_id_length: usize,
    function: Arc<Config>,
    /// The other fields that are known from the start.
    fields: Fields,
    started: Instant,
    /// When Lambda ends it. `None` if that time had passed before it began, as with `cargo lambda watch`.
    deadline: Option<SystemTime>,
    /// How long the process took to start, if the caller waited for that.
    cold_start: Option<Duration>,
    /// The caller's `traceparent`, if it is valid.
    traceparent: OnceLock<HeaderValue>,
    recorded: Mutex<Recorded>,
    background: Background,
}

/// What an invocation adds to its line.
#[derive(Default)]
struct Recorded {
    /// The route: the trigger's, or the one of the endpoint.
    route: Option<String>,
    fields: Vec<(Name, Value<'static>)>,
    counts: Vec<(Name, u64)>,
    /// The first panic before the answer.
    panic: Option<String>,
    /// The problem in a response that other code passed on.
    problem: Option<Arc<Problem>>,
    /// A problem that could not be sent, and its causes.
    unsent_problem: Option<String>,
    is_answered: bool,
}

/// The name of a field or a metric, as the endpoint gave it, and as it is in the line.
pub(super) struct Name {
    given: &'static str,
    pub(super) written: Cow<'static, str>,
}

impl Recorded {
    /// A name that is not in the line yet, because JSON with two equal names means something else to each reader.
    fn name(&self, given: &'static str) -> Name {
        let names = self.fields.iter().map(|(name, _)| name).chain(self.counts.iter().map(|(name, _)| name));
        let is_taken = |name: &str| is_own(name) || names.clone().any(|taken| taken.written == name);
        Name { given, written: free_name(given, is_taken) }
    }
}

/// An invocation that is answered, and whose line waits for its work.
pub(crate) struct Ended {
    pub(crate) invocation: InvocationSpan,
    /// When its work must be done.
    pub(crate) deadline: Option<Deadline>,
    line: Option<Line>,
    status: StatusCode,
    is_failure: bool,
    now: SystemTime,
    duration: Duration,
}

/// How a stream ended (`complete`, `caller-gone`, `deadline`, `error` or `panic`), and when its first byte was sent.
type EndedStream = (&'static str, Option<Instant>);

impl InvocationSpan {
    /// Starts an invocation from its `event` and `context`. `init` is how long the process took to start.
    pub(crate) fn start(log: &Arc<Log>, init: Duration, event: &mut Event, context: &Context) -> Self {
        let mut fields = Fields::new(log.format);
        if let Some(root) = context.xray_trace_id.as_deref().and_then(trace::root) {
            fields.field("trace_id", root);
        }
        fields.field("function_version", &*context.env_config.version);
        fields.field("trigger", event.trigger.name());
        fields.field("method", event.method);
        if let Some(address) = event.client_address.as_deref() {
            fields.field("client_address", address);
        }
        Self(Arc::new(Inner {
            log: Arc::clone(log),
            ids: [&*context.request_id, context.xray_trace_id.as_deref().unwrap_or_default()].concat(),
            request_id_length: context.request_id.len(),
            function: Arc::clone(&context.env_config),
            fields,
            started: Instant::now(),
            deadline: Some(context.deadline()).filter(|deadline| *deadline > SystemTime::now()),
            cold_start: log.cold.swap(false, Ordering::Relaxed).then_some(init),
            traceparent: OnceLock::new(),
            recorded: Mutex::new(Recorded { route: event.route.take(), ..Recorded::default() }),
            background: Background::default(),
        }))
    }

    /// Runs `future` as part of this invocation: events and panics on its task are logged as this invocation's.
    pub(crate) fn scope<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        CURRENT.scope(self.clone(), future)
    }

    /// Runs `act` as part of this invocation.
    pub(crate) fn sync_scope<T>(&self, act: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self.clone(), act)
    }

    pub(crate) fn request_id(&self) -> &str {
        self.0.ids.get(..self.0.request_id_length).unwrap_or_default()
    }

    /// The trace as Lambda sent it. Empty if there is none.
    pub(crate) fn trace(&self) -> &str {
        self.0.ids.get(self.0.request_id_length..).unwrap_or_default()
    }

    /// The caller's `traceparent`.
    pub(crate) fn traceparent(&self) -> &OnceLock<HeaderValue> {
        &self.0.traceparent
    }

    /// When the endpoint must be done.
    pub(crate) fn deadline(&self) -> Option<Deadline> {
        deadline::before(self.0.deadline?)
    }

    /// Calls `with` for the invocation that this task works for, if there is one.
    pub(crate) fn current<T>(with: impl FnOnce(&Self) -> T) -> Option<T> {
        CURRENT.try_with(with).ok()
    }

    /// The work after the response.
    pub(crate) fn background(&self) -> &Background {
        &self.0.background
    }

    fn record(&self, name: &'static str, value: impl FnOnce(Option<Value<'static>>) -> Value<'static>) {
        let mut recorded = self.recorded();
        if let Some((_, earlier)) = recorded.fields.iter_mut().find(|(recorded, _)| recorded.given == name) {
            *earlier = value(Some(mem::replace(earlier, Value::Flag(false))));
        } else {
            let name = recorded.name(name);
            recorded.fields.push((name, value(None)));
        }
    }

    /// Sets the route if the trigger has none that is for this path.
    pub(crate) fn route(&self, route: &str) {
        let mut recorded = self.recorded();
        if recorded.route.as_deref().is_none_or(is_catch_all) {
            recorded.route = Some(route.to_owned());
        }
    }

    /// Logs a panic. The first one goes into the line, if its answer is an error; any other has a line of its own.
    pub(super) fn panicked(&self, panic: String) {
        let mut recorded = self.recorded();
        if recorded.is_answered || recorded.panic.is_some() {
            drop(recorded);
            self.0.log.panic(Some(self), &panic);
        } else {
            recorded.panic = Some(panic);
        }
    }

    /// Sets the problem that the response, which other code passed on, is made from.
    pub(crate) fn answered_with(&self, problem: Option<Arc<Problem>>) {
        self.recorded().problem = problem;
    }

    /// Keeps a problem that could not be sent for the line.
    pub(crate) fn could_not_send(&self, problem: &Problem) {
        let problem = chain(problem);
        self.recorded().unsent_problem = Some(problem);
    }

    fn recorded(&self) -> MutexGuard<'_, Recorded> {
        self.0.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the invocation with its answer, which `stream` says more about if it was one. Its line is written when the work
    /// after the response is done.
    pub(crate) fn end(
        &self,
        status: StatusCode,
        bytes_out: usize,
        problem: Option<&Problem>,
        stream: Option<EndedStream>,
    ) {
        let (now, duration) = (SystemTime::now(), self.0.started.elapsed());
        let passed_on = self.recorded().problem.take();
        let is_failure = status.is_server_error() || matches!(stream, Some(("deadline" | "error" | "panic", _)));
        let answer = (status, is_failure, bytes_out, stream);
        let line = self.line(answer, problem.or(passed_on.as_deref()), now, duration);
        // Its cause is the endpoint's, whose `drop` may panic.
        caught(|| drop(passed_on));
        let (invocation, deadline) = (self.clone(), self.deadline());
        background::ended(Ended { invocation, deadline, line, status, is_failure, now, duration });
    }

    /// The line without the endpoint's fields. It has the error and its causes if the fault is ours or the upstream's.
    /// `None` if the operator's log level excludes the line.
    fn line(
        &self,
        (status, is_failure, bytes_out, stream): (StatusCode, bool, usize, Option<EndedStream>),
        problem: Option<&Problem>,
        now: SystemTime,
        duration: Duration,
    ) -> Option<Line> {
        let Inner { log, fields, started, deadline, cold_start, .. } = &*self.0;
        let error = problem.filter(|_| is_failure).map(|problem| chain(problem));
        let (panic, unsent, route) = {
            let mut recorded = self.recorded();
            recorded.is_answered = true;
            (recorded.panic.take(), recorded.unsent_problem.take(), recorded.route.take())
        };
        let level = if is_failure { LevelFilter::ERROR } else { LevelFilter::INFO };
        let is_logged = level <= log.level;
        // Nobody who looks for errors reads the line of a success.
        let panic = match panic {
            Some(panic) if !is_logged || !is_failure => {
                log.panic(Some(self), &panic);
                None
            }
            panic => panic,
        };
        if !is_logged {
            return None;
        }
        let mut line = Line::new(log.format, now, level, "invocation");
        line.field("request_id", self.request_id());
        line.fields(fields);
        if let Some(route) = route {
            line.field("route", route);
        }
        line.field("status", status.as_u16());
        if let Some(problem) = problem {
            line.field("problem", problem.name());
        }
        for (name, text) in [("error", error), ("unsent_problem", unsent), ("panic", panic)] {
            if let Some(text) = text {
                line.field(name, text);
            }
        }
        line.field("duration_ms", duration);
        if let Some(deadline) = deadline {
            let remaining = deadline.duration_since(now).unwrap_or_default().as_millis();
            line.field("remaining_ms", u64::try_from(remaining).unwrap_or(u64::MAX));
        }
        line.field("bytes_out", bytes_out);
        if let Some((end, first_byte)) = stream {
            line.field("stream", end);
            if let Some(first_byte) = first_byte {
                line.field("first_byte_ms", first_byte.saturating_duration_since(*started));
            }
        }
        line.field("cold_start", cold_start.is_some());
        if let Some(init) = cold_start {
            line.field("init_ms", *init);
        }
        Some(line)
    }
}

impl Ended {
    /// Writes the line with the endpoint's fields. Without a line, the metrics are still sent.
    pub(crate) fn write(self) {
        let Self { invocation, line, status, is_failure, now, duration, .. } = self;
        let Inner { log, function, cold_start, .. } = &*invocation.0;
        let recorded = invocation.recorded();
        let mut line = if let Some(mut line) = line {
            for (name, value) in &recorded.fields {
                line.any_name(&name.written, value);
            }
            line
        } else if log.format == Format::Json {
            // Lambda drops lines below its level, and takes a line without a level as INFO.
            let mut line = Line::new(log.format, now, log.level, "metrics");
            line.field("request_id", invocation.request_id());
            line
        } else {
            return;
        };
        if log.format == Format::Json {
            let (function_name, cold_start) = (&function.function_name, cold_start.is_some());
            let counts = &recorded.counts;
            Metrics { function_name, status, is_failure, cold_start, duration, counts }.write(&mut line, now);
        } else {
            for (name, count) in &recorded.counts {
                line.any_name(&name.written, &(*count).into());
            }
        }
        (log.write)(&line.end());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use futures_util::FutureExt;
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::{Body, Response, background::answer_then_finish};

    const EVENT: &str = r#"{
        "httpMethod": "GET",
        "path": "/hello",
        "requestContext": {"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/a/b"}},
        "headers": {"host": "example.com", "x-forwarded-for": "10.0.0.1, 192.0.2.1"}
    }"#;

    /// Serves the event with `endpoint`, which ends with this response and problem.
    fn serve(log: &Arc<Log>, endpoint: impl FnOnce(), response: &Response, problem: Option<&Problem>) {
        let mut context = Context::default();
        context.request_id = "6b2a".into();
        context.xray_trace_id = Some("Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=0".into());
        let mut event = Event::read(EVENT.into(), false, log.client_address).unwrap();
        let invocation = InvocationSpan::start(log, Duration::from_millis(2), &mut event, &context);
        let served = async {
            endpoint();
            invocation.end(response.status(), response.body().len(), problem, None);
        };
        answer_then_finish(invocation.scope(served)).now_or_never().unwrap();
    }

    /// The lines that `work` writes. Each line is one write.
    fn lines(log: impl FnOnce(&mut Log), work: impl FnOnce(&Arc<Log>)) -> Vec<Json> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&lines);
        let mut new = Log::new(Format::Json, move |line| {
            assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
            let text = str::from_utf8(line).unwrap();
            let json: Json = serde_json::from_str(text).unwrap();
            // A map has only the last one of equal names.
            let names = serde_json::from_str::<crate::event::Object<'_>>(text).unwrap().0.len();
            assert_eq!(names, json.as_object().unwrap().len(), "{text}");
            written.lock().unwrap().push(json);
        });
        log(&mut new);
        work(&Arc::new(new));
        std::mem::take(&mut *lines.lock().unwrap())
    }

    /// CloudWatch takes no metric of a line that defines more than 100.
    #[test]
    fn a_line_defines_at_most_a_hundred_metrics_and_has_all_counts() {
        let lines = lines(
            |_| {},
            |log| {
                let count_all = || (0..200).for_each(|number| count(format!("Count{number}").leak(), number));
                serve(log, count_all, &Response::new(Body::Empty), None);
            },
        );
        assert_eq!(lines[0]["_aws"]["CloudWatchMetrics"][0]["Metrics"].as_array().unwrap().len(), 100);
        assert_eq!(lines[0]["Count199"], 199);
    }

    #[test]
    fn the_line_has_the_fields_and_metrics_of_the_endpoint() {
        let lines = lines(
            |_| {},
            |log| {
                let endpoint = || {
                    record("cache_status", "miss");
                    record("upstream_ms", Duration::from_micros(1500));
                    record("cache_status", "stale".to_owned());
                    count("CacheHits", 0);
                    count("UpstreamAttempts", 2);
                    background::after_response(async { count("UpstreamAttempts", 1) });
                };
                serve(log, endpoint, &Response::new(Body::from("four")), None);
            },
        );
        let [line] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!((&line["cache_status"], &line["upstream_ms"]), (&"stale".into(), &json!(1.5)));
        assert_eq!((&line["CacheHits"], &line["UpstreamAttempts"]), (&0.into(), &3.into()));
        assert_eq!((&line["bytes_out"], &line["trigger"], &line["init_ms"]), (&4.into(), &"alb".into(), &json!(2.0)));
        assert_eq!(
            (&line["request_id"], &line["trace_id"]),
            (&"6b2a".into(), &"1-5759e988-bd862e3fe1be46a994272793".into())
        );
        let metrics = line["_aws"]["CloudWatchMetrics"][0]["Metrics"].as_array().unwrap();
        let names: Vec<&Json> = metrics.iter().map(|metric| &metric["Name"]).collect();
        assert_eq!(
            names,
            ["Requests", "ClientErrors", "ServerErrors", "ColdStarts", "Duration", "CacheHits", "UpstreamAttempts"]
        );
    }

    #[test]
    fn no_name_is_twice_in_a_line_and_no_value_is_lost() {
        let lines = lines(
            |_| {},
            |log| {
                let endpoint = || {
                    for name in ["status", "status", "status_", "_aws", "Requests", "panic", "Calls", "a \"name\""] {
                        record(name, name);
                    }
                    for name in ["Duration", "Calls", "Calls", "status", "a \"name\"", "a \"metric\""] {
                        count(name, u64::MAX);
                    }
                };
                serve(log, endpoint, &Response::default(), None);
            },
        );
        let [line] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!((&line["status"], &line["Requests"]), (&200.into(), &1.into()));
        assert!(line["_aws"].is_object() && line["Duration"].is_f64());
        for (name, value) in [
            ("status_", "status"),
            ("status__", "status_"),
            ("_aws_", "_aws"),
            ("Requests_", "Requests"),
            ("panic_", "panic"),
            ("Calls", "Calls"),
            ("a \"name\"", "a \"name\""),
        ] {
            assert_eq!(line[name], value);
        }
        let metrics = line["_aws"]["CloudWatchMetrics"][0]["Metrics"].as_array().unwrap();
        let counted: Vec<&str> = metrics[5..].iter().map(|metric| metric["Name"].as_str().unwrap()).collect();
        assert_eq!(counted, ["Duration_", "Calls_", "status___", "a \"name\"_", "a \"metric\""]);
        assert!(counted.iter().all(|name| line[*name] == u64::MAX), "{line}");
    }

    fn panic(text: &str) {
        InvocationSpan::current(|invocation| invocation.panicked(text.into()));
    }

    #[test]
    fn a_panic_is_always_in_a_line_with_the_id() {
        for (level, status, expected) in [
            (LevelFilter::INFO, StatusCode::OK, [("ERROR", "first"), ("INFO", "invocation")]),
            (LevelFilter::WARN, StatusCode::OK, [("ERROR", "first"), ("WARN", "metrics")]),
            (LevelFilter::OFF, StatusCode::BAD_GATEWAY, [("FATAL", "first"), ("FATAL", "metrics")]),
        ] {
            let lines = lines(
                |log| log.level = level,
                |log| {
                    let mut response = Response::default();
                    *response.status_mut() = status;
                    serve(log, || panic("first"), &response, None);
                },
            );
            assert_eq!(lines.iter().map(|line| &line["request_id"]).collect::<Vec<_>>(), ["6b2a"; 2]);
            for (line, (level, message)) in lines.iter().zip(expected) {
                assert_eq!((&line["level"], &line["message"]), (&level.into(), &message.into()), "{line}");
            }
        }
        let lines = lines(
            |_| {},
            |log| {
                let endpoint = || {
                    panic("first");
                    panic("second");
                    background::after_response(async move { panic("third") });
                };
                let mut response = Response::default();
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                serve(log, endpoint, &response, None);
            },
        );
        let panics: Vec<&Json> = lines.iter().map(|line| line.get("panic").unwrap_or(&line["message"])).collect();
        assert_eq!(panics, ["second", "third", "first"]);
    }

    #[test]
    fn an_errors_message_is_bounded_and_may_panic() {
        #[derive(Debug)]
        struct Circular;
        impl std::error::Error for Circular {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                Some(self)
            }
        }
        impl std::fmt::Display for Circular {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&"é".repeat(1000))
            }
        }
        #[derive(Debug)]
        struct Bomb;
        impl std::error::Error for Bomb {}
        impl std::fmt::Display for Bomb {
            fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                panic!("while it was formatted")
            }
        }
        let lines = lines(
            |_| {},
            |log| {
                let mut response = Response::default();
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                serve(log, || {}, &response, Some(&Problem::internal().because(Circular)));
                serve(log, || {}, &response, Some(&Problem::internal().because(Bomb)));
            },
        );
        let [long, bomb] = [&lines[0], &lines[1]].map(|line| line["error"].as_str().unwrap());
        assert!((16_000..17_000).contains(&long.len()) && long.ends_with("é…"), "{}", long.len());
        assert!(bomb.starts_with("internal: ") && bomb.ends_with("panicked while it was formatted)"), "{bomb}");
    }

    #[test]
    fn a_server_error_is_logged_with_its_causes_and_a_client_error_without() {
        let lines = lines(
            |_| {},
            |log| {
                for (status, problem) in [
                    (StatusCode::INTERNAL_SERVER_ERROR, Problem::misconfigured(std::io::Error::other("missing"))),
                    (StatusCode::BAD_REQUEST, Problem::invalid_parameter("`n` is odd.").because("of 3")),
                ] {
                    let mut response = Response::default();
                    *response.status_mut() = status;
                    serve(log, || {}, &response, Some(&problem));
                }
            },
        );
        let [ours, callers] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!((&ours["level"], &ours["problem"]), (&"ERROR".into(), &"misconfigured".into()));
        assert_eq!(ours["error"], "misconfigured: The service is not configured correctly. Its log says why.: missing");
        assert_eq!((&callers["level"], &callers["problem"]), (&"INFO".into(), &"invalid-parameter".into()));
        assert_eq!((callers.get("error"), &callers["ClientErrors"]), (None, &1.into()));
    }

    #[test]
    fn the_client_address_is_logged_only_if_enabled_and_is_what_the_load_balancer_saw() {
        for (client_address, expected) in [(false, None), (true, Some(&"192.0.2.1".into()))] {
            let lines =
                lines(|log| log.client_address = client_address, |log| serve(log, || {}, &Response::default(), None));
            assert_eq!(lines[0].get("client_address"), expected);
        }
    }

    /// The four: the invocation, its ids, the fields known from the start, and the line.
    #[test]
    fn a_line_costs_four_allocations() {
        static BYTES: AtomicUsize = AtomicUsize::new(0);
        let log = Arc::new(Log::new(Format::Json, |line| {
            BYTES.store(line.len(), Ordering::Relaxed);
        }));
        let (mut event, response) = (Event::read(EVENT.into(), false, false).unwrap(), Response::default());
        let mut context = Context::default();
        context.request_id = "6b2a".into();
        context.xray_trace_id = Some("Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1".into());
        let used = allocation_counter::measure(|| {
            let invocation = InvocationSpan::start(&log, Duration::ZERO, &mut event, &context);
            answer_then_finish(invocation.scope(async { invocation.end(response.status(), 0, None, None) }))
                .now_or_never();
        });
        println!("{used:?} for {} bytes", BYTES.load(Ordering::Relaxed));
        assert!(BYTES.load(Ordering::Relaxed) > 0 && used.count_total <= 4, "{used:?}");
    }
}
