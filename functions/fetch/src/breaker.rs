//! The circuit breaker: an upstream that fails is left alone for a while, and callers don't wait for it.
//!
//! Of the crates for this, `tower-resilience-circuitbreaker` is middleware around a whole request. `failsafe` has a state
//! machine that can be asked, but lets all calls through once it is half open, and knows of no time that the upstream asks
//! for. Here it stands around each attempt, shares its verdict with the cache, and lets one probe through.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How many of the latest calls are looked at.
const WINDOW: u32 = 20;
/// Fewer calls than this prove nothing.
const MIN_CALLS: u32 = 10;
/// Calls that are all older than this prove nothing either.
const MEMORY: Duration = Duration::from_mins(1);
/// How long the upstream is left alone before a probe.
pub(crate) const OPEN_FOR: Duration = Duration::from_secs(5);
/// The longest that it is left alone because it asks for that.
pub(crate) const HELD_FOR: Duration = Duration::from_mins(5);

/// Opens when half of the latest calls failed, lets a single probe through after a while, closes when that succeeds.
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

/// The latest calls, a bit each, the latest the lowest; 1 is a failure.
#[derive(Debug, Default)]
struct Outcomes {
    failures: u32,
    calls: u32,
    latest: Option<Instant>,
}

impl Breaker {
    /// Asks to call the upstream. The permit must be told when the call begins, and how it went.
    ///
    /// # Errors
    ///
    /// How long the breaker stays open.
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
            // The probe is under way. It will have ended after an attempt's time, which is not known here.
            State::Probing => return Err(Duration::from_secs(1)),
        }
        Ok(Permit { breaker: self, outcome: Outcome::None })
    }

    /// Leaves the upstream alone for as long as it asks for (`Retry-After`) or other environments do, within bounds. For no
    /// time at all, what comes next is a probe.
    pub(crate) fn hold(&self, wait: Duration) {
        let asked_for = Instant::now() + wait.min(HELD_FOR);
        let mut state = self.state();
        let until = if let State::Open { until } = *state { until.max(asked_for) } else { asked_for };
        *state = State::Open { until };
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

    /// How long it stays open, if it is.
    pub(crate) fn open_for(&self) -> Option<Duration> {
        match *self.state() {
            State::Open { until } => Some(until.saturating_duration_since(Instant::now())),
            _ => None,
        }
    }

    /// Whether it is open, and for some time.
    pub(crate) fn is_waiting(&self) -> bool {
        self.open_for().is_some_and(|left| !left.is_zero())
    }

    fn record(&self, outcome: Outcome) {
        let mut state = self.state();
        match &mut *state {
            State::Closed(_) if outcome == Outcome::None => {}
            State::Closed(outcomes) => {
                outcomes.record(outcome == Outcome::Failure);
                if outcomes.are_bad() {
                    *state = State::Open { until: Instant::now() + OPEN_FOR };
                }
            }
            State::Probing => {
                *state = match outcome {
                    Outcome::Success => State::default(),
                    Outcome::Failure => State::Open { until: Instant::now() + OPEN_FOR },
                    Outcome::None => State::Open { until: Instant::now() },
                };
            }
            // A call that began before the breaker opened.
            State::Open { .. } => {}
        }
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

/// The leave to make one call. If none is made, nothing is known, and if it was to be the probe, the next one is.
#[derive(Debug)]
pub(crate) struct Permit<'a> {
    breaker: &'a Breaker,
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Success,
    Failure,
    /// No call was made, so nothing is known.
    None,
}

impl Permit<'_> {
    /// The call begins. It counts as a failure unless it is told otherwise, such as when it is abandoned.
    pub(crate) fn called(&mut self) {
        self.outcome = Outcome::Failure;
    }

    /// The call showed the upstream to be well.
    pub(crate) fn succeeded(mut self) {
        self.outcome = Outcome::Success;
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.breaker.record(self.outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(breaker: &Breaker, good: bool) {
        let mut permit = breaker.permit().expect("closed, or time for a probe");
        permit.called();
        if good {
            permit.succeeded();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn opens_probes_and_closes() {
        let breaker = Breaker::default();
        for number in 0..MIN_CALLS {
            assert_eq!(breaker.state_name(), "closed", "before call {number}");
            call(&breaker, number % 2 == 0);
        }
        assert_eq!(breaker.permit().err(), Some(OPEN_FOR));

        tokio::time::advance(OPEN_FOR.saturating_sub(Duration::from_millis(1))).await;
        assert_eq!(breaker.permit().err(), Some(Duration::from_millis(1)));
        tokio::time::advance(Duration::from_millis(1)).await;
        let mut probe = breaker.permit().expect("time for a probe");
        probe.called();
        assert!(breaker.permit().is_err(), "a second probe");
        drop(probe);
        assert_eq!(breaker.permit().err(), Some(OPEN_FOR), "after a probe that failed");

        tokio::time::advance(OPEN_FOR).await;
        drop(breaker.permit().expect("time for a probe"));
        assert_eq!(breaker.state_name(), "open", "after a probe that was none");
        call(&breaker, true);
        assert_eq!(breaker.state_name(), "closed");
        for _ in 0..MIN_CALLS - 1 {
            call(&breaker, false);
        }
        assert_eq!(breaker.state_name(), "closed", "what was before the probe is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn is_open_for_as_long_as_the_upstream_asks_for() {
        let breaker = Breaker::default();
        breaker.hold(Duration::from_mins(1));
        assert_eq!(breaker.permit().err(), Some(Duration::from_mins(1)));
        breaker.hold(Duration::from_secs(1));
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
