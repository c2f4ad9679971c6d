//! What environments tell each other about the upstream, through a table, if the operator configured one.
//!
//! If an environment's own stored response cannot be used, it asks the table before it calls the upstream. A later
//! response in the table replaces its own. While the upstream is unhealthy, and when a stored response must be renewed,
//! only the environment with the lease calls. The others wait for its result, or behave as if the circuit breaker were
//! open. A slow or broken table delays a request by at most `SHARED_STATE_TIMEOUT_MS`, and by at most half of its time.
//! After that, the environment works without it. The first request also creates the client, which takes some
//! milliseconds.

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

use crate::{entry::Entry, error::Failure, settings::Settings};

mod table;

use table::{Items, Lease, Table, TableError};

/// How long the table is left alone after it failed.
const PAUSE: Duration = Duration::from_secs(5);
/// The table is asked at most this often, whatever the upstream's responses say.
const ASKED_EVERY: Duration = Duration::from_secs(1);
/// A response is written at most this often.
const RENEWED_EVERY: Duration = Duration::from_secs(10);
/// A response is renewed in this last part of its lifetime, at a different moment in each environment.
const EARLY: f64 = 0.1;
/// The first wait for another environment's call. Each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(50);

/// One environment's view of what all of them share.
pub(crate) struct Fleet {
    table: Table,
    stale_if_error: Duration,
    attempt_timeout: Duration,
    timeout: Duration,
    /// This environment's moment within [`EARLY`], from 0 to 1.
    jitter: f64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    asked: Option<Instant>,
    /// When the table last failed.
    failed: Option<Instant>,
    /// A read that is not finished in time.
    late: Option<Reading>,
}

type Reading = JoinHandle<Result<Items, TableError>>;

/// What the other environments know.
pub(crate) struct Answer {
    pub(crate) permission: Permission,
    /// Another environment's response, if that is later than the stored one.
    pub(crate) later: Option<Arc<Entry>>,
}

/// How the upstream may be called.
pub(crate) enum Permission {
    /// Independently of other environments.
    Call,
    /// As the only environment that calls. If it `renews`, it shares a good response. If it is a `probe`, the upstream
    /// was unhealthy.
    Lease { lease: Lease, renews: bool, probe: bool },
    /// Not at all: this response may be used. Usually another environment got it.
    Use(Arc<Entry>),
    /// Not at all, for this reason.
    Fail(Failure),
}

/// What an environment tells the others.
#[derive(Clone)]
pub(crate) struct Report {
    pub(crate) lease: Option<Lease>,
    /// The good response, if it should be shared.
    pub(crate) response: Option<Arc<Entry>>,
    /// Whether the upstream was found healthy.
    pub(crate) is_healthy: bool,
    /// How long the upstream should be left alone.
    pub(crate) open_for: Option<Duration>,
}

impl Fleet {
    /// Uses the table that `settings` name. `None` if they name none.
    pub(crate) fn new(settings: &Settings) -> Option<Self> {
        Some(Self {
            table: Table::new(settings)?,
            stale_if_error: settings.stale_if_error,
            attempt_timeout: settings.attempt_timeout,
            timeout: settings.shared_state_timeout,
            jitter: fastrand::f64(),
            state: Mutex::default(),
        })
    }

    /// Whether `entry` should be renewed: a little before it becomes stale.
    pub(crate) fn is_due(&self, entry: &Entry, now: SystemTime) -> bool {
        let renewed_long_ago = now.duration_since(entry.received()).is_ok_and(|since| since >= RENEWED_EVERY);
        renewed_long_ago && entry.is_stale_within(EARLY * self.jitter, now)
    }

    /// Asks the others. `stored` is this environment's own response, and `is_unhealthy` its own view of the upstream.
    pub(crate) async fn ask(&self, stored: Option<Arc<Entry>>, is_unhealthy: bool, deadline: Instant) -> Answer {
        let mut later = None;
        let permission = self.permission(stored, &mut later, is_unhealthy, deadline).await;
        Answer { permission, later }
    }

    /// Decides how the upstream may be called, and finds a `later` response than `stored`.
    async fn permission(
        &self,
        mut stored: Option<Arc<Entry>>,
        later: &mut Option<Arc<Entry>>,
        is_unhealthy: bool,
        deadline: Instant,
    ) -> Permission {
        if !self.is_to_be_asked(is_unhealthy) {
            return Permission::Call;
        }
        // Not a part of the time that the table may take: it is this process that makes the client.
        self.table.client().await;
        let mut give_up_at = self.give_up_at(deadline);
        let enough = deadline.min(Instant::now() + self.attempt_timeout);
        let mut wait = FIRST_WAIT;
        let mut waited = false;
        loop {
            let Some(Items { response, agreed }) = self.read(give_up_at).await else { return Permission::Call };
            let now = SystemTime::now();
            let response = response.map(Arc::new);
            let received = stored.as_ref().map(|stored| stored.received());
            if let Some(response) = response.as_ref().filter(|response| received < Some(response.received())) {
                stored = Some(Arc::clone(response));
                later.clone_from(&stored);
                if waited || response.is_fresh(now) || response.may_be_used_while_revalidating(now) {
                    record("shared_state", "hit");
                    return Permission::Use(Arc::clone(response));
                }
            }
            record("shared_state", if response.is_some() { "stale" } else { "miss" });
            if let Some(left) = agreed.open_until.and_then(|until| until.duration_since(now).ok()) {
                return Permission::Fail(Failure::Open(left));
            }
            let probe = agreed.open_until.is_some();
            let renews = probe || response.as_ref().is_none_or(|response| self.is_due(response, now));
            let is_shared =
                response.as_ref().map(|response| response.received()) == stored.as_ref().map(|s| s.received());
            if !probe && !renews && !is_shared || waited && agreed.leased_until.is_none() {
                return Permission::Call;
            }
            if agreed.leased_until.is_none() {
                let ahead = deadline.saturating_duration_since(Instant::now()) + ASKED_EVERY;
                match self.within(give_up_at, self.table.clone().lease(agreed, ahead)).await {
                    None => return Permission::Call,
                    Some(Some(lease)) => return Permission::Lease { lease, renews, probe },
                    Some(None) => {}
                }
            }
            // Another environment has the lease.
            match &stored {
                _ if probe => return Permission::Fail(Failure::Open(ASKED_EVERY)),
                Some(stored) if stored.is_fresh(now) => return Permission::Use(Arc::clone(stored)),
                Some(stored) if is_shared && stored.may_be_used_if_error(self.stale_if_error, now) => {}
                _ => return Permission::Call,
            }
            if Instant::now() + wait > enough {
                return Permission::Fail(Failure::TimedOut);
            }
            // Random, so that the waiting environments do not all read at once.
            sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            wait *= 2;
            waited = true;
            give_up_at = self.give_up_at(deadline);
        }
    }

    /// The response from a read that came too late for [`permission`](Self::ask), if the read has finished by now.
    pub(crate) async fn late_response(&self) -> Option<Arc<Entry>> {
        let late = self.state().late.take().filter(JoinHandle::is_finished)?;
        let items = late.await.ok()?.ok()?;
        items.response.map(Arc::new)
    }

    /// Tells the other environments. Only the next invocation waits for this.
    pub(crate) async fn report(&self, Report { lease, response, is_healthy, open_for }: Report) {
        let reported = async {
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
                (None, Some(lease)) => self.table.close(lease, is_healthy).await,
                (None, None) => Ok(()),
            }
        };
        if let Err(error) = reported.await {
            self.pause(&error);
        }
    }

    /// When a request with this `deadline` goes on without the table. Half of its time is left for the upstream.
    fn give_up_at(&self, deadline: Instant) -> Instant {
        let now = Instant::now();
        now + self.timeout.min(deadline.saturating_duration_since(now) / 2)
    }

    async fn read(&self, give_up_at: Instant) -> Option<Items> {
        let mut reading = spawn(self.table.clone().read());
        let Ok(read) = timeout_at(give_up_at, &mut reading).await else {
            // The read goes on: its connection can be reused, and its result can be used if the upstream fails.
            self.state().late = Some(reading);
            return self.used(Err(TableError::Late));
        };
        self.used(read.ok()?)
    }

    async fn within<T: Send + 'static>(
        &self,
        give_up_at: Instant,
        asked: impl Future<Output = Result<T, TableError>> + Send + 'static,
    ) -> Option<T> {
        let answer = timeout_at(give_up_at, spawn(asked)).await;
        self.used(answer.map_or_else(|_| Err(TableError::Late), |answer| answer.unwrap_or(Err(TableError::Late))))
    }

    fn used<T>(&self, answer: Result<T, TableError>) -> Option<T> {
        answer.inspect_err(|error| self.pause(error)).ok()
    }

    fn pause(&self, error: &TableError) {
        record("shared_state", "unavailable");
        let error: &dyn std::error::Error = error;
        warn!(error, "the table of SHARED_STATE_TABLE failed, and is not used for a while");
        self.state().failed = Some(Instant::now());
    }

    /// Whether it is time to ask the table. Before a probe it always is, unless the table failed a moment ago.
    fn is_to_be_asked(&self, is_unhealthy: bool) -> bool {
        let mut state = self.state();
        let lately = |at: Option<Instant>, span| at.is_some_and(|at| at.elapsed() < span);
        let is_time = !lately(state.failed, PAUSE) && (is_unhealthy || !lately(state.asked, ASKED_EVERY));
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
    async fn a_table_that_failed_is_left_alone_for_a_while() {
        let variables = [("UPSTREAM_URL", "https://example.com"), ("SHARED_STATE_TABLE", "table")];
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let fleet = Fleet::new(&Settings::read("UPSTREAM", variable).unwrap()).expect("a table");
        assert!(fleet.is_to_be_asked(false));
        assert!(!fleet.is_to_be_asked(false), "just asked");
        assert!(fleet.is_to_be_asked(true), "before a probe");
        fleet.pause(&TableError::Late);
        advance(PAUSE.saturating_sub(Duration::from_millis(1))).await;
        assert!(!fleet.is_to_be_asked(false) && !fleet.is_to_be_asked(true));
        advance(Duration::from_millis(1)).await;
        assert!(fleet.is_to_be_asked(false));
    }
}
