//! The log line of an invocation.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};

use lambda_http::{http::StatusCode, lambda_runtime::Config};
use tracing::level_filters::LevelFilter;

use super::{
    Format, Log, Value,
    chain::chain,
    line::{Fields, Line},
    metrics::Metrics,
};
use crate::{Context, Problem, Response, deadline, event::Event, trace, work};

tokio::task_local! {
    /// The invocation that a task works for.
    static CURRENT: Invocation;
}

/// Adds a field to the log line of the current invocation. A later value for the same name replaces the earlier one.
///
/// `name` is in `snake_case`, and must not be one of the line's own fields. The value must not come from a caller or an
/// upstream, because more people can read the log than may see such data. Outside an invocation and the tasks that it
/// [spawned](crate::spawn), this does nothing.
///
/// ```
/// handler::record("cache_status", "hit");
/// handler::record("upstream_ms", std::time::Duration::from_micros(1500));
/// ```
pub fn record(name: &'static str, value: impl Into<Value<'static>>) {
    Invocation::current(|invocation| invocation.record(name, value.into()));
}

/// Adds `number` to a metric of the current invocation. CloudWatch sums it up for each function.
///
/// `name` is in `PascalCase`. Counting 0 is useful: the metric's average is then a rate.
///
/// ```
/// handler::count("UpstreamAttempts", 3);
/// handler::count("CacheHits", 0);
/// ```
pub fn count(name: &'static str, number: u64) {
    Invocation::current(|invocation| {
        let mut recorded = invocation.recorded();
        match recorded.counts.iter_mut().find(|(counted, _)| *counted == name) {
            Some((_, count)) => *count += number,
            None => recorded.counts.push((name, number)),
        }
    });
}

/// An invocation from its event to its answer. Clones are the same invocation.
#[derive(Clone)]
pub(crate) struct Invocation(Arc<Shared>);

struct Shared {
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
    recorded: Mutex<Recorded>,
}

/// The fields and metrics that the endpoint adds.
#[derive(Default)]
struct Recorded {
    fields: Vec<(&'static str, Value<'static>)>,
    counts: Vec<(&'static str, u64)>,
}

impl Invocation {
    /// Starts an invocation from its `event` and `context`. `init` is how long the process took to start.
    pub(crate) fn start(log: &Arc<Log>, init: Duration, event: &Event, context: &Context) -> Self {
        let mut fields = Fields::new(log.format);
        if let Some(root) = context.xray_trace_id.as_deref().and_then(trace::root) {
            fields.field("trace_id", root);
        }
        fields.field("function_version", &*context.env_config.version);
        fields.field("trigger", event.trigger.name());
        fields.field("method", event.method_name());
        if let Some(route) = &event.route {
            fields.field("route", &**route);
        }
        if let Some(address) = event.client_address.as_deref().filter(|_| log.client_address) {
            fields.field("client_address", address);
        }
        Self(Arc::new(Shared {
            log: Arc::clone(log),
            ids: [&*context.request_id, context.xray_trace_id.as_deref().unwrap_or_default()].concat(),
            request_id_length: context.request_id.len(),
            function: Arc::clone(&context.env_config),
            fields,
            started: Instant::now(),
            deadline: Some(context.deadline()).filter(|deadline| *deadline > SystemTime::now()),
            cold_start: log.cold.swap(false, Ordering::Relaxed).then_some(init),
            recorded: Mutex::default(),
        }))
    }

    /// Runs `future` as part of this invocation: events and panics on its task are logged as this invocation's.
    pub(crate) fn scope<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        CURRENT.scope(self.clone(), future)
    }

    pub(crate) fn request_id(&self) -> &str {
        self.0.ids.get(..self.0.request_id_length).unwrap_or_default()
    }

    /// The trace as Lambda sent it. Empty if there is none.
    pub(crate) fn trace(&self) -> &str {
        self.0.ids.get(self.0.request_id_length..).unwrap_or_default()
    }

    /// Calls `with` for the invocation that this task works for, if there is one.
    pub(crate) fn current<T>(with: impl FnOnce(&Self) -> T) -> Option<T> {
        CURRENT.try_with(with).ok()
    }

    pub(super) fn record(&self, name: &'static str, value: Value<'static>) {
        let mut recorded = self.recorded();
        match recorded.fields.iter_mut().find(|(recorded, _)| *recorded == name) {
            Some((_, earlier)) => *earlier = value,
            None => recorded.fields.push((name, value)),
        }
    }

    fn recorded(&self) -> MutexGuard<'_, Recorded> {
        self.0.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the invocation with its answer. Its line is written when the work after the response is done.
    pub(crate) fn end(&self, response: &Response, problem: Option<&Problem>) {
        let (now, duration, status) = (SystemTime::now(), self.0.started.elapsed(), response.status());
        let line = self.line(response, problem, now, duration);
        let invocation = self.clone();
        work::last(move || invocation.write(line, status, now, duration), self.0.deadline.and_then(deadline::before));
    }

    /// The line without the endpoint's fields. It has the error and its causes if the fault is ours or the upstream's.
    /// `None` if the operator's log level excludes the line.
    fn line(
        &self,
        response: &Response,
        problem: Option<&Problem>,
        now: SystemTime,
        duration: Duration,
    ) -> Option<Line> {
        let Shared { log, fields, deadline, cold_start, .. } = &*self.0;
        let status = response.status();
        let level = if status.is_server_error() { LevelFilter::ERROR } else { LevelFilter::INFO };
        if level > log.level {
            return None;
        }
        let mut line = Line::new(log.format, now, level, "invocation");
        line.field("request_id", self.request_id());
        line.fields(fields);
        line.field("status", status.as_u16());
        if let Some(problem) = problem {
            line.field("problem", problem.name());
            if status.is_server_error() {
                line.field("error", chain(problem));
            }
        }
        line.field("duration_ms", duration);
        if let Some(deadline) = deadline {
            let remaining = deadline.duration_since(now).unwrap_or_default().as_millis();
            line.field("remaining_ms", u64::try_from(remaining).unwrap_or(u64::MAX));
        }
        line.field("bytes_out", response.body().len());
        line.field("cold_start", cold_start.is_some());
        if let Some(init) = cold_start {
            line.field("init_ms", *init);
        }
        Some(line)
    }

    /// Writes the line with the endpoint's fields. Without a line, the metrics are still sent.
    fn write(&self, line: Option<Line>, status: StatusCode, now: SystemTime, duration: Duration) {
        let Shared { log, function, cold_start, .. } = &*self.0;
        let recorded = self.recorded();
        let mut line = if let Some(mut line) = line {
            for (name, value) in &recorded.fields {
                line.value(name, value);
            }
            line
        } else if log.format == Format::Json {
            // Lambda drops lines below its level, and takes a line without a level as INFO.
            let mut line = Line::new(log.format, now, log.level, "metrics");
            line.field("request_id", self.request_id());
            line
        } else {
            return;
        };
        if log.format == Format::Json {
            let (function_name, cold_start) = (&function.function_name, cold_start.is_some());
            Metrics { function_name, status, cold_start, duration, counts: &recorded.counts }.write(&mut line, now);
        } else {
            for (name, count) in &recorded.counts {
                line.field(name, *count);
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
    use crate::{Body, work::answer_then_work};

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
        let event = Event::read(EVENT.as_bytes()).unwrap();
        let invocation = Invocation::start(log, Duration::from_millis(2), &event, &context);
        let served = async {
            endpoint();
            invocation.end(response, problem);
        };
        answer_then_work(invocation.scope(served)).now_or_never().unwrap();
    }

    /// The lines that `work` writes. Each line is one write.
    fn lines(log: impl FnOnce(&mut Log), work: impl FnOnce(&Arc<Log>)) -> Vec<Json> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&lines);
        let mut new = Log::new(Format::Json, move |line| {
            assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
            written.lock().unwrap().push(serde_json::from_slice(line).unwrap());
        });
        log(&mut new);
        work(&Arc::new(new));
        std::mem::take(&mut *lines.lock().unwrap())
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
                    work::after_response(async { count("UpstreamAttempts", 1) });
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
    fn a_server_error_is_logged_with_its_causes_and_a_client_error_without() {
        let lines = lines(
            |_| {},
            |log| {
                for (status, problem) in [
                    (StatusCode::BAD_GATEWAY, Problem::upstream_unreachable().because(std::io::Error::other("reset"))),
                    (StatusCode::BAD_REQUEST, Problem::invalid_parameter("`n` is odd.").because("of 3")),
                ] {
                    let mut response = Response::default();
                    *response.status_mut() = status;
                    serve(log, || {}, &response, Some(&problem));
                }
            },
        );
        let [ours, callers] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!((&ours["level"], &ours["problem"]), (&"ERROR".into(), &"upstream-unreachable".into()));
        assert_eq!(ours["error"], "upstream-unreachable: The upstream gave no complete response.: reset");
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

    /// The five: the invocation, its ids, the fields known from the start, the line, and the closure that writes it.
    #[test]
    fn a_line_costs_five_allocations() {
        static BYTES: AtomicUsize = AtomicUsize::new(0);
        let log = Arc::new(Log::new(Format::Json, |line| {
            BYTES.store(line.len(), Ordering::Relaxed);
        }));
        let (event, response) = (Event::read(EVENT.as_bytes()).unwrap(), Response::default());
        let mut context = Context::default();
        context.request_id = "6b2a".into();
        context.xray_trace_id = Some("Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1".into());
        let used = allocation_counter::measure(|| {
            let invocation = Invocation::start(&log, Duration::ZERO, &event, &context);
            answer_then_work(invocation.scope(async { invocation.end(&response, None) })).now_or_never();
        });
        println!("{used:?} for {} bytes", BYTES.load(Ordering::Relaxed));
        assert!(BYTES.load(Ordering::Relaxed) > 0 && used.count_total <= 5, "{used:?}");
    }
}
