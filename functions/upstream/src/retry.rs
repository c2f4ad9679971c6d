//! Retries, limited in number and speed so that they do not make an outage worse.

use std::{
    mem,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use crate::error::Failure;

/// The longest wait before the first retry. It doubles before each further retry.
const BASE: Duration = Duration::from_millis(50);
/// The longest wait, unless the upstream asks for a longer one.
const CAP: Duration = Duration::from_secs(1);
/// With less time than this, an attempt is of no use: it takes one or two round trips to connect.
const LEAST: Duration = Duration::from_millis(50);

/// A retry takes one token, and a call earns this part of one, so an upstream that always fails gets a fifth more
/// calls.
const EARNED: f64 = 0.2;
const MOST_TOKENS: f64 = 10.0;
/// Enough for the first call of a process.
const FIRST_TOKENS: f64 = 2.0;
/// Each second adds this part of a token up to that, so a process with few calls can always retry one in five seconds.
const REFILLED: f64 = 0.2;
/// What a burst has earned is gone after this time without a call.
const AGED: Duration = Duration::from_secs(10);

/// The retry budget, a token bucket: see "Addressing Cascading Failures" in Google's SRE book, and Finagle's
/// `RetryBudget` for its tokens that expire and its least number of retries a second.
pub(crate) struct RetryBudget(Mutex<Bucket>);

struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self(Mutex::new(Bucket { tokens: FIRST_TOKENS, at: Instant::now() }))
    }
}

impl RetryBudget {
    /// Earns a part of a token, for a request that calls the upstream.
    pub(crate) fn earn(&self) {
        self.change(|tokens| *tokens = (*tokens + EARNED).min(MOST_TOKENS));
    }

    /// Takes a token for a retry, if there is one.
    pub(crate) fn spend(&self) -> bool {
        self.change(|tokens| {
            let enough = *tokens >= 1.0;
            if enough {
                *tokens -= 1.0;
            }
            enough
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut f64) -> T) -> T {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let quiet = now.saturating_duration_since(mem::replace(&mut bucket.at, now));
        if bucket.tokens < FIRST_TOKENS {
            bucket.tokens = (bucket.tokens + REFILLED * quiet.as_secs_f64()).min(FIRST_TOKENS);
        } else if quiet > AGED {
            bucket.tokens = FIRST_TOKENS;
        }
        change(&mut bucket.tokens)
    }
}

/// The least time that must be left for an attempt, which may take `limit`.
pub(crate) fn least(limit: Duration) -> Duration {
    LEAST.min(limit / 10)
}

/// The retries of one request.
pub(crate) struct Retries<'a> {
    budget: &'a RetryBudget,
    /// The last moment at which an attempt may begin.
    until: Instant,
    bound: Duration,
}

impl<'a> Retries<'a> {
    /// Allows attempts that begin before `until`.
    pub(crate) fn new(budget: &'a RetryBudget, until: Instant) -> Self {
        Self { budget, until, bound: BASE }
    }

    /// Waits before the next attempt after `failure`: a random time up to a bound that doubles (exponential backoff
    /// with full jitter, as in <https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/>),
    /// plus the time that the upstream asks for.
    ///
    /// Returns `false` at once if there must be no further attempt: it would fail too, or the time or the budget is used
    /// up.
    pub(crate) async fn wait(&mut self, failure: &Failure) -> bool {
        let jitter = self.bound.mul_f64(fastrand::f64());
        let wait = failure.retry_after().unwrap_or_default().saturating_add(jitter);
        // A large Retry-After can exceed what an instant holds.
        let at = Instant::now().checked_add(wait).filter(|at| *at < self.until);
        let Some(at) = at.filter(|_| failure.is_transient() && self.budget.spend()) else {
            return false;
        };
        sleep_until(at).await;
        self.bound = (self.bound * 2).min(CAP);
        true
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn status(status: u16, retry_after: Option<u64>) -> Failure {
        let status = handler::http::StatusCode::from_u16(status).unwrap();
        Failure::Status { status, retry_after: retry_after.map(Duration::from_secs) }
    }

    /// How many attempts are made, and how long it takes, when the first `failures` of them fail.
    async fn attempts(budget: &RetryBudget, failures: u32, failure: &Failure) -> (u32, Duration) {
        let began = Instant::now();
        budget.earn();
        let mut retries = Retries::new(budget, began + Duration::from_secs(5));
        let mut attempts = 1;
        while attempts <= failures && attempts < 3 && retries.wait(failure).await {
            attempts += 1;
        }
        (attempts, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn retries_transient_failures_within_attempts_and_time() {
        for (failures, failure, expected) in [
            (1, Failure::TimedOut, 2),
            (2, Failure::unreachable("reset"), 3),
            (9, status(503, None), 3),
            (9, status(500, None), 1),
            (9, status(404, None), 1),
            (9, Failure::TooLarge(1), 1),
            (9, Failure::Open(BASE), 1),
            (9, status(429, Some(20)), 1),
            (1, status(429, Some(3)), 2),
            (9, status(503, Some(u64::MAX)), 1),
        ] {
            let (calls, took) = attempts(&RetryBudget::default(), failures, &failure).await;
            assert_eq!(calls, expected, "{failure:?}");
            let waited = failure.retry_after().filter(|_| calls > 1).unwrap_or_default();
            let jitter = took.checked_sub(waited).unwrap();
            assert!(jitter <= BASE * 3 + Duration::from_millis(2), "{failure:?} took {took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn retries_are_spread_out_even_if_retry_after_is_0() {
        let mut waits = std::collections::BTreeSet::new();
        for _ in 0..20 {
            waits.insert(attempts(&RetryBudget::default(), 1, &status(503, Some(0))).await.1);
        }
        assert!(waits.len() > 5, "{waits:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_upstream_that_always_fails_gets_a_fifth_more_calls() {
        let budget = RetryBudget::default();
        let mut calls = 0;
        for _ in 0..1000 {
            calls += attempts(&budget, 9, &Failure::TimedOut).await.0;
        }
        assert!((1195..=1205).contains(&calls), "{calls} calls for 1000");
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_age_and_a_quiet_process_can_retry() {
        let tokens = |budget: &RetryBudget| std::iter::from_fn(|| budget.spend().then_some(())).count();
        let budget = RetryBudget::default();
        for (quiet, expected) in [(0, 2), (4, 0), (1, 1), (5, 1), (10, 2), (3600, 2)] {
            advance(Duration::from_millis(quiet * 1000 + 1)).await;
            assert_eq!(tokens(&budget), expected, "after {quiet} seconds");
        }
        for (quiet, expected) in [(0, 10), (10, 10), (11, 2), (3600, 2)] {
            (0..100).for_each(|_| budget.earn());
            advance(Duration::from_secs(quiet)).await;
            assert_eq!(tokens(&budget), expected, "{quiet} seconds after a burst");
        }
    }
}
