//! What calls add to the log line of their invocation.

use handler::{Problem, Value, count, count_with, record, record_with};

use crate::{breaker::Breaker, cache_status::CacheStatus, call::CallResult, error::UNNAMED};

/// The names of an upstream's fields: those of `PRICES` begin with `prices_`, and those of [`UNNAMED`] with nothing. The
/// fields without a prefix that can be summed up are of all upstreams, as metrics are.
pub(crate) struct Line {
    is_unnamed: bool,
    attempts: &'static str,
    upstream_ms: &'static str,
    cache_status: &'static str,
    breaker_state: &'static str,
    stale_if_error: &'static str,
}

impl Line {
    pub(crate) fn new(upstream: &'static str) -> Self {
        let is_unnamed = upstream == UNNAMED;
        let own = |field: &'static str| if is_unnamed { field } else { own(upstream, field) };
        Self {
            is_unnamed,
            attempts: own("attempts"),
            upstream_ms: own("upstream_ms"),
            cache_status: own("cache_status"),
            breaker_state: own("breaker_state"),
            stale_if_error: own("stale_if_error"),
        }
    }

    /// Adds the cost of a call to the line of the invocation that began it.
    pub(crate) fn call(&self, result: &CallResult) {
        let attempts = result.tally.attempts;
        add("attempts", attempts);
        add("upstream_ms", result.took);
        if !self.is_unnamed {
            add(self.attempts, attempts);
            add(self.upstream_ms, result.took);
        }
        count("UpstreamAttempts", attempts.into());
        count("BreakerOpens", result.tally.opened.into());
    }

    /// Says where the response to a request came from, or that there is none.
    pub(crate) fn response(&self, status: Option<CacheStatus>) {
        if let Some(status) = status {
            add(self.cache_status, status.name());
        }
        let is_hit = status.is_some_and(CacheStatus::is_from_cache);
        count_with("CacheHits", |earlier| earlier.unwrap_or(1).min(is_hit.into()));
    }

    pub(crate) fn stale_if_error(&self, problem: &Problem) {
        add(self.stale_if_error, problem);
    }

    pub(crate) fn breaker(&self, breaker: &Breaker) {
        record(self.breaker_state, breaker.state_name());
    }
}

/// The name of a field of this upstream alone. Once for each, because it lives as long as the process.
pub(crate) fn own(upstream: &str, field: &str) -> &'static str {
    format!("{}_{field}", upstream.to_lowercase()).leak()
}

/// Sums up the values that several calls have for a field. Of texts, the line has each once.
pub(crate) fn add(name: &'static str, value: impl Into<Value<'static>>) {
    record_with(name, |earlier| match (earlier, value.into()) {
        (Some(Value::Number(earlier)), Value::Number(value)) => Value::Number(earlier.saturating_add(value)),
        (Some(Value::Time(earlier)), Value::Time(value)) => Value::Time(earlier.saturating_add(value)),
        (Some(Value::Text(earlier)), Value::Text(value)) if earlier.contains(&*value) => Value::Text(earlier),
        (Some(Value::Text(earlier)), Value::Text(value)) => Value::Text(format!("{earlier}, {value}").into()),
        (_, value) => value,
    });
}
