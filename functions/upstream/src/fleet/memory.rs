//! One environment's part in the fleet.
//!
//! A slow or broken table delays a request by at most `SHARED_STATE_TIMEOUT_MS`, and by at most half of its time. After
//! that, the environment works without it. The first request also creates the client, which takes some milliseconds.
//!
//! [`table`] reads and writes the items, [`key`] makes their keys, and [`item`] is the format of a response.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use handler::{record, spawn};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};
use tracing::warn;
use url::Url;

mod item;
mod key;
mod table;

use key::{Key, Keys};
pub(crate) use table::Lease;
use table::{Items, Table, TableError, Verdict};

use super::{Answer, Permission, Purpose, Report};
use crate::{entry::Entry, error::Failure, request::Prepared, settings::Settings};

/// How long the table is left alone after it failed.
const PAUSE: Duration = Duration::from_secs(5);
/// The table is asked for a response at most this often, whatever the upstream's responses say.
const ASKED_EVERY: Duration = Duration::from_secs(1);
/// A response is written at most this often.
const RENEWED_EVERY: Duration = Duration::from_secs(10);
/// A response is renewed in this last part of its lifetime, at a different time in each environment.
const EARLY: f64 = 0.1;
/// The first wait for another environment's call. Each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// So many URLs that could not be invalidated in the table are remembered.
const MAX_INVALIDATED: usize = 1000;

/// One environment's view of what all of them share of an upstream.
pub(crate) struct Fleet {
    table: Table,
    stale_if_error: Duration,
    attempt_timeout: Duration,
    timeout: Duration,
    /// This environment's time within [`EARLY`], from 0 to 1.
    jitter: f64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When the table was asked, by the key of the response.
    asked: HashMap<Key, Instant>,
    /// When the table last failed.
    failed: Option<Instant>,
    /// A read that is not finished in time.
    late: Option<(Keys, Reading)>,
    /// When URLs were invalidated of which the table does not know that yet.
    invalidated: HashMap<Key, SystemTime>,
}

type Reading = JoinHandle<Result<Items, TableError>>;

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

    /// Asks the others before a call for `request`. `stored` is this environment's own response, and `is_unhealthy` its own
    /// view of the upstream. A request that no stored response may answer learns only whether the upstream may be called.
    pub(crate) async fn ask(
        &self,
        request: &Prepared,
        stored: Option<Arc<Entry>>,
        is_unhealthy: bool,
        deadline: Instant,
    ) -> Answer {
        let keys = self.table.keyspace().keys(request);
        let mut answer = Answer { permission: Permission::Call, later: None };
        if self.is_to_be_asked(&keys, is_unhealthy) {
            answer.permission = self.permission(&keys, request.uses_cache(), stored, &mut answer.later, deadline).await;
        }
        answer
    }

    /// Decides how the upstream may be called, and finds a `later` response than the `stored` one.
    async fn permission(
        &self,
        keys: &Keys,
        uses_cache: bool,
        mut stored: Option<Arc<Entry>>,
        later: &mut Option<Arc<Entry>>,
        deadline: Instant,
    ) -> Permission {
        // Not a part of the time that the table may take: it is this process that makes the client.
        self.table.client().await;
        let mut give_up_at = self.give_up_at(deadline);
        let enough = deadline.min(Instant::now() + self.attempt_timeout);
        let mut wait = FIRST_WAIT;
        let mut waited = false;
        loop {
            let Some(items) = self.read(keys, give_up_at).await else { return Permission::Call };
            let now = SystemTime::now();
            let verdict = items.verdict(now);
            if !uses_cache && verdict == Verdict::Healthy {
                return Permission::Call;
            }
            let response = self.valid_response(keys, &items).filter(|_| uses_cache);
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
            let is_shared =
                response.as_ref().map(|response| response.received()) == stored.as_ref().map(|s| s.received());
            let is_due = response.is_none_or(|response| self.is_due(&response, now));
            let (lease, purpose) = match verdict {
                Verdict::Open(left) => return Permission::Fail(Failure::Open(left)),
                Verdict::ProbeDue => (items.probe, Purpose::Probe),
                Verdict::Healthy if is_due => (items.renewal, Purpose::Renew),
                Verdict::Healthy if is_shared => (items.renewal, Purpose::Validate),
                Verdict::Healthy => return Permission::Call,
            };
            if lease.is_free() {
                if waited {
                    // The one that had it got no response.
                    return Permission::Call;
                }
                let ahead = deadline.saturating_duration_since(Instant::now()) + ASKED_EVERY;
                match self.within(give_up_at, self.table.clone().take(lease, ahead)).await {
                    None => return Permission::Call,
                    Some(Some(lease)) => return Permission::Lease(lease, purpose),
                    Some(None) => {}
                }
            }
            // Another environment has the lease.
            match &stored {
                _ if purpose == Purpose::Probe => return Permission::Fail(Failure::Open(ASKED_EVERY)),
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

    /// The response to `request` from a read that came too late for [`ask`](Self::ask), if it has finished by now.
    pub(crate) async fn late_response(&self, request: &Prepared) -> Option<Arc<Entry>> {
        let keys = self.table.keyspace().keys(request);
        let (_, late) = self.state().late.take_if(|(of, late)| *of == keys && late.is_finished())?;
        let items = late.await.ok()?.ok()?;
        self.valid_response(&keys, &items)
    }

    /// Uses no shared response of these URLs any more that was asked for before these times. [`report`](Self::report) tells
    /// the others, too.
    pub(crate) fn invalidate(&self, urls: &[(Url, SystemTime)]) {
        let invalidated = &mut self.state().invalidated;
        if invalidated.len() > MAX_INVALIDATED {
            invalidated.clear();
        }
        invalidated.extend(urls.iter().map(|(url, at)| (self.table.keyspace().url(url), *at)));
    }

    /// Tells the other environments. Only the next invocation waits for this.
    pub(crate) async fn report(&self, Report { lease, response, is_healthy, open_for, invalidated }: Report) {
        let reported = async {
            for (url, at) in &invalidated {
                let url = self.table.keyspace().url(url);
                self.table.invalidate(&url, *at).await?;
                self.state().invalidated.retain(|key, later| *key != url || *later > *at);
            }
            if let Some((request, response)) = &response {
                let keys = self.table.keyspace().keys(request);
                if response.may_be_stored() {
                    let until = response.received() + response.of_use_for(self.stale_if_error) + RENEWED_EVERY;
                    if !self.table.put(&keys, response, until).await? {
                        record("not_shared", "too-large");
                    }
                } else {
                    self.table.delete(&keys).await?;
                }
            }
            if let Some(open_for) = open_for {
                // This gives back the lease that is in the same item.
                self.table.open(open_for).await?;
            }
            match lease.filter(|lease| open_for.is_none() || !self.table.is_of_upstream(lease)) {
                Some(lease) => self.table.give_back(lease, is_healthy).await,
                None => Ok(()),
            }
        };
        if let Err(error) = reported.await {
            self.pause(&error);
        }
    }

    /// The response in `items`, unless it was asked for before its URL was invalidated.
    fn valid_response(&self, keys: &Keys, items: &Items) -> Option<Arc<Entry>> {
        let invalidated = items.invalidated.max(self.state().invalidated.get(&keys.url).copied());
        items.response.clone().filter(|response| invalidated < Some(response.requested()))
    }

    /// When a request with this `deadline` goes on without the table. Half of its time is left for the upstream.
    fn give_up_at(&self, deadline: Instant) -> Instant {
        let now = Instant::now();
        now + self.timeout.min(deadline.saturating_duration_since(now) / 2)
    }

    async fn read(&self, keys: &Keys, give_up_at: Instant) -> Option<Items> {
        let mut reading = spawn(self.table.clone().get(keys.clone()));
        let Ok(read) = timeout_at(give_up_at, &mut reading).await else {
            // The read goes on: its connection can be reused, and its result can be used if the upstream fails.
            self.state().late = Some((keys.clone(), reading));
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
    fn is_to_be_asked(&self, keys: &Keys, is_unhealthy: bool) -> bool {
        let mut state = self.state();
        state.asked.retain(|_, asked| asked.elapsed() < ASKED_EVERY);
        let has_failed = state.failed.is_some_and(|failed| failed.elapsed() < PAUSE);
        let is_time = !has_failed && (is_unhealthy || !state.asked.contains_key(&keys.response));
        if is_time {
            state.asked.insert(keys.response.clone(), Instant::now());
        }
        is_time
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use handler::http::Method;
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_table_that_failed_is_left_alone_for_a_while() {
        let variables = [("UPSTREAM_URL", "https://example.com"), ("SHARED_STATE_TABLE", "table")];
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let fleet = Fleet::new(&Settings::read("UPSTREAM", variable).unwrap()).expect("a table");
        let request = |url: &str| Prepared::new(Method::GET, url.parse().unwrap());
        let [keys, other] =
            ["https://example.com", "https://example.com/other"].map(|url| fleet.table.keyspace().keys(&request(url)));
        assert!(fleet.is_to_be_asked(&keys, false));
        assert!(!fleet.is_to_be_asked(&keys, false), "just asked");
        assert!(fleet.is_to_be_asked(&other, false), "another URL");
        assert!(fleet.is_to_be_asked(&keys, true), "before a probe");
        fleet.pause(&TableError::Late);
        advance(PAUSE.saturating_sub(Duration::from_millis(1))).await;
        assert!(!fleet.is_to_be_asked(&keys, false) && !fleet.is_to_be_asked(&keys, true));
        advance(Duration::from_millis(1)).await;
        assert!(fleet.is_to_be_asked(&keys, false));
    }
}
