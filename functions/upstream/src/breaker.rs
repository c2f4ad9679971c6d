//! The circuit breaker: it stops the calls of a failing upstream for a while, so that callers don't wait for it.
//!
//! Two crates were not suitable. `tower-resilience-circuitbreaker` is middleware around a whole request. `failsafe` has
//! a state machine that can be queried, but lets all calls through once it is half open, and cannot stay open for as
//! long as `Retry-After` says. This breaker works around each attempt, tells the cache its state, and lets one probe
//! through.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How many of the latest calls count.
const WINDOW: u32 = 20;
/// Fewer calls than this prove nothing.
const MIN_CALLS: u32 = 10;
/// Calls that are all older than this prove nothing either.
const MEMORY: Duration = Duration::from_mins(1);
/// How long the upstream is left alone before a probe.
pub(crate) const OPEN_FOR: Duration = Duration::from_secs(5);
/// The longest that it is left alone if it asks for that.
pub(crate) const HELD_FOR: Duration = Duration::from_mins(5);

/// Opens when half of the latest calls failed, lets a single probe through after a while, and closes when the probe
/// succeeds.
#[derive(Debug, Default)]
pub(crate) struct Breaker(Mutex<State>);

#[derive(Debug)]
enum State {
    Closed(Outcomes),
    Open { until: Instant },
    Probing,
}

impl Default for State {
    fn default() -> Self {
        Self::Closed(Outcomes::default())
    }
}

/// The latest calls, one bit each. The lowest bit is the latest call. 1 is a failure.
#[derive(Debug, Default)]
struct Outcomes {
    failures: u32,
    calls: u32,
    latest: Option<Instant>,
}

impl Breaker {
    /// Asks for permission to call the upstream. Tell the permit what the call showed.
    ///
    /// # Errors
    ///
    /// Returns how long to wait, if the breaker does not let the call through.
    pub(crate) fn permit(&self) -> Result<Permit<'_>, Duration> {
        let mut state = self.state();
        match *state {
            State::Closed(_) => {}
            State::Open { until } => {
                let left = until.saturating_duration_since(Instant::now());
                if !left.is_zero() {
                    return Err(left);
                }
                *state = State::Probing;
            }
            // The probe is under way. It ends within an attempt's time, which is not known here.
            State::Probing => return Err(Duration::from_secs(1)),
        }
        Ok(Permit(Some(self)))
    }

    /// Opens for `wait`, at most [`HELD_FOR`], such as when the upstream (`Retry-After`) or other environments ask for
    /// it. If `wait` is zero, the next call is a probe. Returns whether this opened it.
    pub(crate) fn hold(&self, wait: Duration) -> bool {
        let asked_for = Instant::now() + wait.min(HELD_FOR);
        let mut state = self.state();
        let opens = matches!(*state, State::Closed(_));
        let until = if let State::Open { until } = *state { until.max(asked_for) } else { asked_for };
        *state = State::Open { until };
        opens
    }

    /// For the log: `closed`, `open` or `half-open`.
    pub(crate) fn state_name(&self) -> &'static str {
        match *self.state() {
            State::Closed(_) => "closed",
            State::Open { .. } => "open",
            State::Probing => "half-open",
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open_for().is_some()
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(*self.state(), State::Closed(_))
    }

    /// How long it stays open, if it is open.
    pub(crate) fn open_for(&self) -> Option<Duration> {
        match *self.state() {
            State::Open { until } => Some(until.saturating_duration_since(Instant::now())),
            _ => None,
        }
    }

    /// Whether it is open, and not yet ready for a probe.
    pub(crate) fn is_waiting(&self) -> bool {
        self.open_for().is_some_and(|left| !left.is_zero())
    }

    /// Returns whether this opened it.
    pub(crate) fn record(&self, is_healthy: Option<bool>) -> bool {
        let mut state = self.state();
        match (&mut *state, is_healthy) {
            (State::Closed(outcomes), Some(is_healthy)) => {
                outcomes.record(!is_healthy);
                let opens = outcomes.are_bad();
                if opens {
                    *state = State::Open { until: Instant::now() + OPEN_FOR };
                }
                return opens;
            }
            (State::Probing, Some(true)) => *state = State::default(),
            (State::Probing, Some(false)) => *state = State::Open { until: Instant::now() + OPEN_FOR },
            (State::Probing, None) => *state = State::Open { until: Instant::now() },
            // The latter is a call that began before the breaker opened.
            (State::Closed(_), None) | (State::Open { .. }, _) => {}
        }
        false
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outcomes {
    fn record(&mut self, failed: bool) {
        let now = Instant::now();
        if self.latest.replace(now).is_some_and(|latest| now - latest > MEMORY) {
            *self = Self { latest: Some(now), ..Self::default() };
        }
        self.failures = ((self.failures << 1) | u32::from(failed)) & ((1 << WINDOW) - 1);
        self.calls = (self.calls + 1).min(WINDOW);
    }

    fn are_bad(&self) -> bool {
        self.calls >= MIN_CALLS && self.failures.count_ones() * 2 >= self.calls
    }
}

/// Permission to make one call. If it is dropped, because no call was made or the call panicked, nothing is recorded. If
/// it was the probe, the next permit is the probe.
#[derive(Debug)]
pub(crate) struct Permit<'a>(Option<&'a Breaker>);

impl Permit<'_> {
    /// Ends the call. It showed whether the upstream is healthy, or nothing. Returns whether this opened the breaker.
    pub(crate) fn end(mut self, is_healthy: Option<bool>) -> bool {
        self.0.take().is_some_and(|breaker| breaker.record(is_healthy))
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if let Some(breaker) = self.0 {
            breaker.record(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(breaker: &Breaker, good: bool) -> bool {
        breaker.permit().expect("closed, or time for a probe").end(Some(good))
    }

    #[tokio::test(start_paused = true)]
    async fn opens_probes_and_closes() {
        let breaker = Breaker::default();
        for number in 0..MIN_CALLS {
            assert_eq!(breaker.state_name(), "closed", "before call {number}");
            assert_eq!(call(&breaker, number % 2 == 0), number == MIN_CALLS - 1, "call {number} opens it");
        }
        assert_eq!(breaker.permit().err(), Some(OPEN_FOR));

        tokio::time::advance(OPEN_FOR.saturating_sub(Duration::from_millis(1))).await;
        assert_eq!(breaker.permit().err(), Some(Duration::from_millis(1)));
        tokio::time::advance(Duration::from_millis(1)).await;
        let probe = breaker.permit().expect("time for a probe");
        assert!(breaker.permit().is_err(), "a second probe");
        assert!(!probe.end(Some(false)), "it was open before");
        assert_eq!(breaker.permit().err(), Some(OPEN_FOR), "after a probe that failed");

        tokio::time::advance(OPEN_FOR).await;
        drop(breaker.permit().expect("time for a probe"));
        assert_eq!(breaker.state_name(), "open", "after a probe without a call");
        breaker.permit().expect("time for a probe").end(None);
        assert_eq!(breaker.state_name(), "open", "after a probe that showed nothing");
        call(&breaker, true);
        assert_eq!(breaker.state_name(), "closed");
        for _ in 0..MIN_CALLS - 1 {
            call(&breaker, false);
        }
        assert_eq!(breaker.state_name(), "closed", "calls before the probe do not count");
    }

    #[tokio::test(start_paused = true)]
    async fn is_open_for_as_long_as_the_upstream_asks_for() {
        let breaker = Breaker::default();
        assert!(breaker.hold(Duration::from_mins(1)));
        assert_eq!(breaker.permit().err(), Some(Duration::from_mins(1)));
        assert!(!breaker.hold(Duration::from_secs(1)), "it was open before");
        assert_eq!(breaker.permit().err(), Some(Duration::from_mins(1)), "the longer of two");
        breaker.hold(Duration::MAX);
        assert_eq!(breaker.permit().err(), Some(HELD_FOR));
        tokio::time::advance(HELD_FOR).await;
        call(&breaker, true);
        assert_eq!(breaker.state_name(), "closed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_permit_that_is_not_used_proves_nothing() {
        let breaker = Breaker::default();
        for _ in 0..100 {
            drop(breaker.permit().expect("closed"));
            assert!(!breaker.permit().expect("closed").end(None));
        }
        assert_eq!(breaker.state_name(), "closed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_failures_or_old_ones_prove_nothing() {
        let breaker = Breaker::default();
        for _ in 0..5 {
            for _ in 0..MIN_CALLS - 1 {
                call(&breaker, false);
            }
            tokio::time::advance(MEMORY + Duration::from_secs(1)).await;
        }
        assert_eq!(breaker.state_name(), "closed");
        for number in 0..100 {
            call(&breaker, number % 5 < 3);
        }
        assert_eq!(breaker.state_name(), "closed", "at two failures in five");
    }
}
