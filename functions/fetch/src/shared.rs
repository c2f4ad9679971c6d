//! What environments know of the upstream from each other, by a table that they share, if the operator gives them one.
//!
//! An environment asks the table when its own stored response will not do, before it calls the upstream. A later response
//! in the table takes the place of its own. While the upstream is ill, and when a stored response is to be renewed, one
//! environment calls, by a lease; who has none waits for what comes of that, or does as if the circuit breaker were open.
//! Whatever the table does, a request is later by `SHARED_STATE_TIMEOUT_MS` at most: then each environment is on its own
//! again. The first request also makes the client, which takes some milliseconds.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use handler::{record, spawn};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};
use tracing::warn;

use crate::{
    cache::Entry,
    failure::Failure,
    settings::Settings,
    table::{Items, Lease, Table, TableError},
};

/// The table is left alone for so long when it was of no use.
const PAUSE: Duration = Duration::from_secs(5);
/// It is asked no more often than this, whatever the upstream's responses say.
const ASKED_EVERY: Duration = Duration::from_secs(1);
/// A response is written no more often than this.
const RENEWED_EVERY: Duration = Duration::from_secs(10);
/// A response is renewed within this last part of its lifetime, each environment's at another moment.
const EARLY: f64 = 0.1;
/// The first wait for another environment's call. Each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(50);

/// What the environments share, as one of them sees it.
pub(crate) struct Shared {
    table: Table,
    stale_if_error: Duration,
    attempt_timeout: Duration,
    patience: Duration,
    /// This environment's moment within [`EARLY`], from 0 to 1.
    moment: f64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    asked: Option<Instant>,
    /// When it was of no use.
    failed: Option<Instant>,
    /// What was read too late.
    late: Option<Reading>,
}

type Reading = JoinHandle<Result<Items, TableError>>;

/// How the upstream may be called.
pub(crate) enum Leave {
    /// On the environment's own account.
    Call,
    /// As the one environment that does. If it `renews`, it shares a good response; if it is a `probe`, the upstream was ill.
    Lease { lease: Lease, renews: bool, probe: bool },
    /// Not at all: this is what another environment got, and may be used.
    Use(Arc<Entry>),
    /// Not at all, for this reason.
    Fail(Failure),
}

/// What an environment tells the others.
#[derive(Clone)]
pub(crate) struct News {
    pub(crate) lease: Option<Lease>,
    /// The good response, if it is to be shared.
    pub(crate) response: Option<Arc<Entry>>,
    /// The upstream is to be left alone for so long.
    pub(crate) open_for: Option<Duration>,
}

impl Shared {
    /// With the table that `settings` name, if they do.
    pub(crate) fn new(settings: &Settings) -> Option<Self> {
        Some(Self {
            table: Table::new(settings)?,
            stale_if_error: settings.stale_if_error,
            attempt_timeout: settings.attempt_timeout,
            patience: settings.shared_state_timeout,
            moment: fastrand::f64(),
            state: Mutex::default(),
        })
    }

    /// Whether `entry` should be renewed, which is a little before it is stale.
    pub(crate) fn is_due(&self, entry: &Entry, now: SystemTime) -> bool {
        let renewed_long_ago = now.duration_since(entry.received()).is_ok_and(|since| since >= RENEWED_EVERY);
        renewed_long_ago && entry.is_stale_within(EARLY * self.moment, now)
    }

    /// How the upstream may be called, which in this environment's view `is_ill`. What the table has that is later than
    /// `stored` takes its place.
    pub(crate) async fn leave(&self, stored: &mut Option<Arc<Entry>>, is_ill: bool, deadline: Instant) -> Leave {
        if !self.is_to_be_asked(is_ill) {
            return Leave::Call;
        }
        Table::ready().await;
        let mut patience = Instant::now() + self.patience;
        let enough = deadline.min(Instant::now() + self.attempt_timeout);
        let mut wait = FIRST_WAIT;
        let mut waited = false;
        loop {
            let Some(Items { response, agreed }) = self.read(patience).await else { return Leave::Call };
            let now = SystemTime::now();
            let response = response.map(Arc::new);
            let received = stored.as_ref().map(|stored| stored.received());
            if let Some(later) = response.as_ref().filter(|response| received < Some(response.received())) {
                *stored = Some(Arc::clone(later));
                if waited || later.is_fresh(now) || later.may_be_used_while_revalidating(now) {
                    record("shared_state", "hit");
                    return Leave::Use(Arc::clone(later));
                }
            }
            record("shared_state", if response.is_some() { "stale" } else { "miss" });
            if let Some(left) = agreed.open_until.and_then(|until| until.duration_since(now).ok()) {
                return Leave::Fail(Failure::Open(left));
            }
            let probe = agreed.open_until.is_some();
            let renews = probe || response.as_ref().is_none_or(|response| self.is_due(response, now));
            let is_shared =
                response.as_ref().map(|response| response.received()) == stored.as_ref().map(|s| s.received());
            if !probe && !renews && !is_shared || waited && agreed.leased_until.is_none() {
                return Leave::Call;
            }
            if agreed.leased_until.is_none() {
                let ahead = deadline.saturating_duration_since(Instant::now()) + ASKED_EVERY;
                match self.ask(patience, self.table.clone().lease(agreed, ahead)).await {
                    None => return Leave::Call,
                    Some(Some(lease)) => return Leave::Lease { lease, renews, probe },
                    Some(None) => {}
                }
            }
            // Another environment has the lease.
            match stored {
                _ if probe => return Leave::Fail(Failure::Open(ASKED_EVERY)),
                Some(stored) if stored.is_fresh(now) => return Leave::Use(Arc::clone(stored)),
                Some(stored) if is_shared && stored.may_stand_in(self.stale_if_error, now) => {}
                _ => return Leave::Call,
            }
            if Instant::now() + wait > enough {
                return Leave::Fail(Failure::TimedOut);
            }
            // At random, or all who wait would read at once.
            sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            wait *= 2;
            waited = true;
            patience = Instant::now() + self.patience;
        }
    }

    /// What was read too late to decide how the upstream is called, if it has been read by now.
    pub(crate) async fn late(&self) -> Option<Arc<Entry>> {
        let late = self.state().late.take().filter(JoinHandle::is_finished)?;
        let items = late.await.ok()?.ok()?;
        items.response.map(Arc::new)
    }

    /// Tells the other environments. Nobody waits for it but the next invocation.
    pub(crate) async fn tell(&self, News { lease, response, open_for }: News) {
        let told = async {
            match &response {
                Some(response) if response.may_be_stored() => {
                    let until = response.received() + response.of_use_for(self.stale_if_error) + RENEWED_EVERY;
                    if !self.table.put(response, until).await? {
                        record("not_shared", "too-large");
                    }
                }
                Some(_) => self.table.remove().await?,
                None => {}
            }
            match (open_for, lease) {
                (Some(open_for), _) => self.table.open(open_for).await,
                (None, Some(lease)) => self.table.close(lease).await,
                (None, None) => Ok(()),
            }
        };
        if let Err(error) = told.await {
            self.pause(&error);
        }
    }

    async fn read(&self, patience: Instant) -> Option<Items> {
        let mut reading = spawn(self.table.clone().read());
        let Ok(read) = timeout_at(patience, &mut reading).await else {
            // It goes on: the connection that it makes is of use, and so is what it reads, if the upstream fails.
            self.state().late = Some(reading);
            return self.used(Err(TableError::Late));
        };
        self.used(read.ok()?)
    }

    async fn ask<T: Send + 'static>(
        &self,
        patience: Instant,
        asked: impl Future<Output = Result<T, TableError>> + Send + 'static,
    ) -> Option<T> {
        let answer = timeout_at(patience, spawn(asked)).await;
        self.used(answer.map_or_else(|_| Err(TableError::Late), |answer| answer.unwrap_or(Err(TableError::Late))))
    }

    fn used<T>(&self, answer: Result<T, TableError>) -> Option<T> {
        answer.inspect_err(|error| self.pause(error)).ok()
    }

    fn pause(&self, error: &TableError) {
        record("shared_state", "unavailable");
        let error: &dyn std::error::Error = error;
        warn!(error, "the table of SHARED_STATE_TABLE was of no use, and is left alone for a while");
        self.state().failed = Some(Instant::now());
    }

    /// Whether it is time to ask. Before a probe it always is, unless the table was of no use.
    fn is_to_be_asked(&self, is_ill: bool) -> bool {
        let mut state = self.state();
        let lately = |at: Option<Instant>, span| at.is_some_and(|at| at.elapsed() < span);
        let is_time = !lately(state.failed, PAUSE) && (is_ill || !lately(state.asked, ASKED_EVERY));
        if is_time {
            state.asked = Some(Instant::now());
        }
        is_time
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_table_of_no_use_is_left_alone_for_a_while() {
        let variables = [("UPSTREAM_URL", "https://example.com"), ("SHARED_STATE_TABLE", "table")];
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let shared = Shared::new(&Settings::read(variable).unwrap()).expect("a table");
        assert!(shared.is_to_be_asked(false));
        assert!(!shared.is_to_be_asked(false), "just asked");
        assert!(shared.is_to_be_asked(true), "before a probe");
        shared.pause(&TableError::Late);
        advance(PAUSE.saturating_sub(Duration::from_millis(1))).await;
        assert!(!shared.is_to_be_asked(false) && !shared.is_to_be_asked(true));
        advance(Duration::from_millis(1)).await;
        assert!(shared.is_to_be_asked(false));
    }
}
