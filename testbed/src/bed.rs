//! The packaged `fetch` and its upstream.

use std::{process::Command, time::Duration};

use tokio::time::Instant;

use crate::{Function, HttpAnswer, Invocation, Usage, packaged, upstream::Upstream};

/// A running `fetch` and its upstream.
pub struct Bed {
    /// The upstream.
    pub upstream: Upstream,
    /// The function.
    pub fetch: Function,
}

impl Bed {
    /// The time limit of a whole request. It is short, because some faults use up all of it.
    pub const BUDGET: Duration = Duration::from_secs(1);
    /// The time limit of one attempt.
    pub const ATTEMPT: Duration = Duration::from_millis(300);
    /// How much later than its budget an answer may come.
    pub const GRACE: Duration = Duration::from_millis(50);

    /// Starts `fetch` with these environment variables, and [`Bed::BUDGET`] and [`Bed::ATTEMPT`] unless they say
    /// otherwise.
    pub async fn new(upstream: Upstream, env: &[(&str, &str)]) -> Self {
        Self::run(Command::new(packaged("fetch")), upstream, env).await
    }

    /// Like [`Bed::new`], with a `command` that executes `fetch` in the end.
    pub async fn run(command: Command, upstream: Upstream, env: &[(&str, &str)]) -> Self {
        let ca_file = upstream.ca_file().map(|file| file.to_string_lossy().into_owned());
        let url = upstream.url("/");
        let budget = Self::BUDGET.as_millis().to_string();
        let attempt = Self::ATTEMPT.as_millis().to_string();
        let mut all = vec![
            ("UPSTREAM_URL", url.as_str()),
            ("UPSTREAM_TIMEOUT_MS", &budget),
            ("UPSTREAM_ATTEMPT_TIMEOUT_MS", &attempt),
        ];
        all.extend(ca_file.as_deref().map(|file| ("UPSTREAM_CA_FILE", file)));
        all.extend(env);
        let fetch = Function::run(command.into(), &all).await;
        Self { upstream, fetch }
    }

    /// The time for which this test and the function were ready to run, but other processes had the cores.
    #[must_use]
    pub fn run_delay(&self) -> Duration {
        [std::process::id(), self.fetch.id()].map(|id| Usage::of(id).run_delay).iter().sum()
    }

    /// The answer to a `GET` request with `headers`.
    ///
    /// # Errors
    ///
    /// Returns what happened to the invocation instead.
    pub async fn get(&mut self, headers: &[(&str, &str)]) -> Result<HttpAnswer, String> {
        self.fetch.invoke(&Invocation::get("/fetch", headers)).await.try_into()
    }

    /// The answer, which must come within `budget` plus [`Bed::GRACE`].
    ///
    /// # Errors
    ///
    /// Returns what happened to the invocation instead, or how late the answer came.
    pub async fn get_within(&mut self, budget: Duration) -> Result<HttpAnswer, String> {
        let (answer, took) = timed(self.get(&[])).await;
        let answer = answer?;
        if took > budget + Self::GRACE { Err(format!("took {took:?} of {budget:?}: {answer:?}")) } else { Ok(answer) }
    }
}

/// How long `future` takes, without the time for which the whole machine stalled.
pub async fn timed<T>(future: impl Future<Output = T>) -> (T, Duration) {
    let mut future = std::pin::pin!(future);
    let began = Instant::now();
    let mut stalled = Duration::ZERO;
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            done = &mut future => return (done, began.elapsed().saturating_sub(stalled)),
            due = tick.tick() => stalled += due.elapsed().saturating_sub(Duration::from_millis(2)),
        }
    }
}

/// Compares an actual value with the expected one.
///
/// # Errors
///
/// Returns the difference, in words.
pub fn expect<T: PartialEq + std::fmt::Debug>(what: &str, actual: &T, expected: &T) -> Result<(), String> {
    (actual == expected).then_some(()).ok_or_else(|| format!("{what}: expected {expected:?}, got {actual:?}"))
}
