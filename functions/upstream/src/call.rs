//! A call of an upstream: its attempts, and what they came to.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use handler::http::{HeaderMap, StatusCode, header::AUTHORIZATION};
use tokio::{sync::watch, time::Instant};
use tracing::{Instrument, info_span};
use url::Url;

use crate::{
    attempt::Fetched,
    breaker::OPEN_FOR,
    client::Hedge,
    entry::Entry,
    error::Failure,
    fleet::{Answer, Permission, Purpose, Report},
    request::Prepared,
    retry::{Retries, least},
    settings::Settings,
    upstream::Inner,
};

/// How long an environment leaves the probe to others if its own call showed nothing.
const PROBE_PAUSE: Duration = Duration::from_secs(1);

/// What a call is to do.
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) prepared: Arc<Prepared>,
    /// When it ends at the latest.
    pub(crate) deadline: Instant,
    /// The first attempt included.
    pub(crate) max_attempts: u32,
}

/// A call of the upstream, retries included.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) deadline: Instant,
    pub(crate) max_attempts: u32,
    /// `None` while it is under way. If it panics, the sender is dropped without a result.
    result: watch::Receiver<Option<CallResult>>,
}

/// The result of a call.
#[derive(Clone)]
pub(crate) struct CallResult {
    pub(crate) response: Result<Arc<Entry>, Failure>,
    /// The status of the upstream's last response, if there was one.
    pub(crate) status: Option<StatusCode>,
    pub(crate) tally: Tally,
    pub(crate) took: Duration,
    /// Whether the stored response is another environment's, and new to this one.
    pub(crate) shared: bool,
    /// What to tell the other environments.
    pub(crate) report: Option<Report>,
}

/// What the attempts of a call came to.
#[derive(Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) attempts: u32,
    /// What the last attempt that showed it said of the upstream's health.
    pub(crate) is_healthy: Option<bool>,
    /// Whether this opened the circuit breaker.
    pub(crate) opened: bool,
}

impl Call {
    /// A call that does `job`, and where its result goes.
    pub(crate) fn new(job: &Job) -> (Self, watch::Sender<Option<CallResult>>) {
        let (sender, result) = watch::channel(None);
        (Self { deadline: job.deadline, max_attempts: job.max_attempts, result }, sender)
    }

    pub(crate) fn is_under_way(&self) -> bool {
        self.result.has_changed().is_ok() && self.result.borrow().is_none()
    }

    pub(crate) async fn result(mut self) -> CallResult {
        match self.result.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(result)) => result.clone(),
            _ => Err(Failure::bug("a call of the upstream panicked")).into(),
        }
    }
}

impl Inner {
    /// Calls the upstream until there is a good response, which is then stored, or until more attempts would not help.
    /// Before that, asks what other environments know. `trace` continues the trace of the request.
    pub(crate) async fn call(&self, mut stored: Option<Arc<Entry>>, job: &Job, trace: HeaderMap) -> CallResult {
        let Job { prepared, deadline, .. } = job;
        let uses_cache = prepared.uses_cache();
        let fleet = self.fleet.as_ref().filter(|_| uses_cache || prepared.is_streamed());
        let began = Instant::now();
        let Answer { permission, later } = match fleet {
            Some(fleet) if !self.breaker.is_waiting() => {
                // Boxed, because most calls ask nobody.
                Box::pin(fleet.ask(prepared, stored.clone(), self.breaker.is_open(), *deadline)).await
            }
            _ => Answer { permission: Permission::Call, later: None },
        };
        let mut shared = later.is_some();
        if let Some(later) = later {
            self.cache.put(prepared, &later, began);
            stored = Some(later);
        }
        let (lease, purpose) = match permission {
            Permission::Call => (None, None),
            Permission::Lease(lease, purpose) => {
                if purpose == Purpose::Probe {
                    self.breaker.hold(Duration::ZERO);
                }
                (Some(lease), Some(purpose))
            }
            Permission::Use(entry) => return CallResult { shared, ..Ok(entry).into() },
            Permission::Fail(failure) => {
                // A probe for another URL that this process has under way decides by itself.
                let is_probing = !self.breaker.is_open() && !self.breaker.is_closed();
                if let Failure::Open(left) = failure
                    && !is_probing
                {
                    self.breaker.hold(left);
                }
                return CallResult { shared, ..Err(failure).into() };
            }
        };
        let attempts_began = Instant::now();
        let mut result = self.retried(stored.clone(), job, &trace).await;
        result.took = attempts_began.elapsed();
        let is_healthy = result.tally.is_healthy;
        let mut invalidated = Vec::new();
        if let Ok(entry) = &result.response {
            if uses_cache {
                self.cache.put(prepared, entry, began);
            } else {
                invalidated = self.invalidate(prepared, entry.headers());
            }
            shared = false;
        } else {
            // A redirect is no error: RFC 9111, section 4.4.
            if result.status.is_some_and(|status| status.is_redirection()) {
                invalidated = self.invalidate(prepared, &HeaderMap::new());
            }
            let is_of_use = stored.is_some_and(|stored| self.may_be_used_if_error(&stored));
            // All environments can do without the upstream for a while, so they need not each find out that it is
            // unhealthy.
            if lease.is_some() && is_of_use && is_healthy == Some(false) && !self.breaker.is_open() {
                result.tally.opened |= self.breaker.hold(OPEN_FOR);
            }
            if let (true, None, Some(fleet)) = (uses_cache, self.cache.get(prepared), fleet)
                && let Some(late) = fleet.late_response(prepared).await
            {
                self.cache.put(prepared, &late, began);
                shared = true;
            }
        }
        result.shared = shared;
        let response = result.response.as_ref().ok().filter(|_| uses_cache && purpose.is_some_and(Purpose::renews));
        let response = response.map(|response| (Arc::clone(prepared), Arc::clone(response)));
        let is_verdict = lease.is_some() || result.tally.opened;
        let open_for = self.breaker.open_for().filter(|left| is_verdict && !left.is_zero());
        let report = Report { lease, response, is_healthy: is_healthy == Some(true), open_for, invalidated };
        result.report = Some(report).filter(|report| self.fleet.is_some() && !report.is_empty());
        if purpose == Some(Purpose::Probe) && is_healthy.is_none() {
            // Another environment may be able to make the call.
            self.breaker.hold(PROBE_PAUSE);
        }
        result
    }

    /// Forgets what a request that is not safe may have changed. Returns the URLs, and when.
    fn invalidate(&self, prepared: &Prepared, response: &HeaderMap) -> Vec<(Url, SystemTime)> {
        if prepared.method.is_safe() {
            return Vec::new();
        }
        let urls = self.cache.invalidate(prepared, response);
        // A request from now on must not get what a call that began before has read.
        self.calls().retain(|asked, _| {
            !urls.iter().any(|url| asked.lines().next().is_some_and(|line| line.ends_with(&format!(" {url}"))))
        });
        let now = SystemTime::now();
        let invalidated = urls.into_iter().map(|url| (url, now)).collect::<Vec<_>>();
        if let Some(fleet) = &self.fleet {
            fleet.invalidate(&invalidated);
        }
        invalidated
    }

    /// Calls the upstream, and retries while that may help.
    async fn retried(&self, mut stored: Option<Arc<Entry>>, job: &Job, trace: &HeaderMap) -> CallResult {
        let last_start = last_start(&self.settings, job.deadline);
        let mut retries = Retries::new(&self.retry_budget, last_start);
        let mut tally = Tally::default();
        let mut status;
        let response = loop {
            let attempt = self.attempt(stored.as_deref(), job, trace, &mut tally);
            let fetched = attempt.instrument(info_span!("attempt")).await;
            status = fetched.as_ref().map_or_else(Failure::status, |fetched| Some(fetched.status));
            match fetched.map(|fetched| entry(stored.as_deref(), fetched)) {
                Ok(Some(entry)) => break Ok(Arc::new(entry)),
                // A 304 about another response than the stored one: RFC 9111, section 4.3.3.
                Ok(None) if stored.take().is_some() => {}
                Ok(None) => break Err(Failure::Status { status: StatusCode::NOT_MODIFIED, retry_after: None }),
                // Once the breaker is open, it is useless to wait for another attempt.
                Err(failure)
                    if (job.prepared.is_repeatable() || failure.is_without_effect())
                        && tally.attempts < job.max_attempts
                        && !self.breaker.is_open()
                        && retries.wait(&failure).await => {}
                Err(failure) => {
                    let wait = failure.retry_after().filter(|wait| failure.is_transient() && !wait.is_zero());
                    tally.opened |= wait.is_some_and(|wait| self.breaker.hold(wait));
                    break Err(failure);
                }
            }
        };
        CallResult { status, tally, ..response.into() }
    }

    fn may_be_used_if_error(&self, stored: &Entry) -> bool {
        stored.may_be_used_if_error(self.settings.stale_if_error, SystemTime::now())
    }

    /// One attempt, if the circuit breaker lets it through.
    async fn attempt(
        &self,
        stored: Option<&Entry>,
        job: &Job,
        trace: &HeaderMap,
        tally: &mut Tally,
    ) -> Result<Fetched, Failure> {
        let settings = &self.settings;
        let permit = self.breaker.permit().map_err(Failure::Open)?;
        // The author's own token comes first.
        let secret = self.secret.as_ref().filter(|_| !job.prepared.headers.contains_key(AUTHORIZATION));
        let authorization = match secret {
            None => None,
            Some(secret) => Some((secret, secret.authorization(job.deadline).await?)),
        };
        let began = Instant::now();
        if began > last_start(settings, job.deadline) {
            return Err(Failure::DeadlineExceeded);
        }
        if tally.attempts == 0 {
            self.retry_budget.earn();
        }
        tally.attempts += 1;
        let mut headers = trace.clone();
        headers.extend(job.prepared.headers.clone());
        headers.extend(stored.map(Entry::validators).unwrap_or_default());
        headers.extend(authorization.as_ref().map(|(_, authorization)| (AUTHORIZATION, authorization.clone())));
        let (hedges, left) = (AtomicU32::new(0), job.max_attempts.saturating_sub(tally.attempts));
        let pay = || {
            let may = hedges.load(Ordering::Relaxed) < left && self.retry_budget.spend();
            hedges.fetch_add(may.into(), Ordering::Relaxed);
            may
        };
        // There is only one probe at a time.
        let hedge = settings.hedge_after.filter(|_| self.breaker.is_closed());
        let hedge = hedge.map(|after| Hedge { after, pay: &pay });
        let attempt = self.client.attempt(settings, self.known_as, &job.prepared, headers, hedge, job.deadline);
        let mut fetched = attempt.await;
        tally.attempts += hedges.into_inner();
        if matches!(fetched, Err(Failure::DeadlineExceeded)) && began.elapsed() >= limit(settings) / 2 {
            // The upstream had a fair share of the time, and is to blame. Else no upstream that hangs would open the
            // breaker if requests have less time than an attempt.
            fetched = Err(Failure::TimedOut);
        }
        let is_slow = settings.slow_call.is_some_and(|slow| began.elapsed() >= slow);
        let is_healthy = fetched.as_ref().map_or_else(Failure::is_healthy, |_| Some(true));
        let is_healthy = is_healthy.map(|is_healthy| is_healthy && !is_slow);
        tally.is_healthy = is_healthy.or(tally.is_healthy);
        // A stream shows more when it ends. A probe does not wait for that.
        let is_over = !job.prepared.is_streamed() || fetched.is_err() || !self.breaker.is_closed();
        tally.opened |= permit.end(is_healthy.filter(|is_healthy| is_over || !is_healthy));
        match (&fetched, authorization) {
            (Err(Failure::Status { status: StatusCode::UNAUTHORIZED, .. }), Some((secret, authorization)))
                if secret.refuse(&authorization).await =>
            {
                Err(Failure::TokenRefused)
            }
            _ => fetched,
        }
    }
}

/// The most time that an attempt can have.
fn limit(settings: &Settings) -> Duration {
    settings.attempt_timeout.min(settings.timeout)
}

/// The last moment at which it is of use to begin an attempt that ends by `deadline`.
pub(crate) fn last_start(settings: &Settings, deadline: Instant) -> Instant {
    deadline.checked_sub(least(limit(settings))).unwrap_or(deadline)
}

/// A result without a call.
impl From<Result<Arc<Entry>, Failure>> for CallResult {
    fn from(response: Result<Arc<Entry>, Failure>) -> Self {
        Self { response, status: None, tally: Tally::default(), took: Duration::ZERO, shared: false, report: None }
    }
}

/// The good response: `fetched` itself, or the stored one if `fetched` is a 304. `None` if the 304 does not match it.
fn entry(stored: Option<&Entry>, fetched: Fetched) -> Option<Entry> {
    let now = SystemTime::now();
    if fetched.status == StatusCode::NOT_MODIFIED {
        stored?.validated(&fetched, now)
    } else {
        Some(Entry::new(fetched, now))
    }
}
