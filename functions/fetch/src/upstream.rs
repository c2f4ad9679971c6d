//! Answers a request from the stored response if it may be used, else from a call, else from a response that may stand
//! in.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use handler::{
    Problem, Request, Response, after_response, count, deadline,
    http::{HeaderMap, HeaderValue, StatusCode, header::AUTHORIZATION},
    record, spawn, trace_headers,
};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use tracing::{Instrument, info_span, warn};

use crate::{
    attempt::{Client, Fetched},
    breaker::{Breaker, OPEN_FOR},
    cache::{Cache, CacheStatus, Entry, Forwarded},
    failure::Failure,
    retry::{Retries, RetryBudget},
    secret::Secret,
    settings::{InvalidSetting, Settings},
    shared::{Leave, News, Shared},
};

/// The operator's upstream, and what this process knows of it.
pub(crate) struct Upstream {
    settings: Result<Settings, InvalidSetting>,
    secret: Option<Secret>,
    client: Client,
    cache: Cache,
    breaker: Breaker,
    retry_budget: RetryBudget,
    shared: Option<Shared>,
    /// The call that is under way, for all requests that need its outcome.
    call: Mutex<Option<Call>>,
}

/// A call of the upstream, retries included.
#[derive(Clone)]
struct Call {
    /// When it ends at the latest.
    deadline: Instant,
    /// `None` while it is under way. If it panics, the sender is dropped without an outcome.
    outcome: watch::Receiver<Option<Outcome>>,
}

/// The result of a call.
#[derive(Clone)]
struct Outcome {
    response: Result<Arc<Entry>, Failure>,
    /// The status of the upstream's last response, if there was one.
    status: Option<StatusCode>,
    attempts: u32,
    took: Duration,
    /// Whether this opened the circuit breaker.
    opened: bool,
    /// Whether the stored response is now another environment's.
    shared: bool,
    /// What to tell the other environments.
    news: Option<News>,
}

impl Upstream {
    /// Connects to nothing and sets up no TLS. The first request does that.
    pub(crate) fn new(settings: Result<Settings, InvalidSetting>) -> Self {
        let secret = settings.as_ref().ok().and_then(Secret::new);
        let shared = settings.as_ref().ok().and_then(Shared::new);
        Self {
            settings,
            secret,
            shared,
            client: Client::default(),
            cache: Cache::default(),
            breaker: Breaker::default(),
            retry_budget: RetryBudget::default(),
            call: Mutex::default(),
        }
    }

    /// Answers `request` with the upstream's response.
    ///
    /// # Errors
    ///
    /// Returns the caller's problem if there is neither a good response nor one that may stand in.
    pub(crate) async fn fetch(self: Arc<Self>, request: &Request) -> Result<Response, Problem> {
        let settings = self.settings.as_ref().map_err(|invalid| Problem::misconfigured(invalid.clone()))?;
        let budget = Instant::now() + settings.timeout;
        let deadline = deadline(request).map_or(budget, |deadline| deadline.min(budget));
        let now = SystemTime::now();
        let stored = self.cache.get();
        let answer = |entry: &Entry, status: CacheStatus| {
            record("cache_status", status.name());
            count("CacheHits", u64::from(status.is_from_cache()));
            Ok(entry.answer(request.headers(), status, now))
        };

        let while_revalidating =
            |shared| CacheStatus::Stale { forwarded: None, because: "stale-while-revalidate", shared };
        if let Some(entry) = stored.as_ref().filter(|entry| entry.is_fresh(now)) {
            if self.shared.as_ref().is_some_and(|shared| shared.is_due(entry, now)) {
                self.refresh(settings, stored.clone(), trace_headers(request), deadline);
            }
            return answer(entry, CacheStatus::Hit { shared: false });
        }
        if let Some(entry) = stored.as_ref().filter(|entry| entry.may_be_used_while_revalidating(now)) {
            self.refresh(settings, stored.clone(), trace_headers(request), deadline);
            return answer(entry, while_revalidating(false));
        }
        let outcome = self.outcome(settings, stored.as_ref(), request, deadline).await;
        record("breaker_state", self.breaker.state_name());
        let forwarded = Forwarded { stale: stored.is_some(), status: outcome.status };
        let shared = outcome.shared;
        match (outcome.response, self.cache.get()) {
            (Ok(entry), stored) if shared && !entry.is_fresh(now) && entry.may_be_used_while_revalidating(now) => {
                self.refresh(settings, stored, trace_headers(request), deadline);
                answer(&entry, while_revalidating(true))
            }
            (Ok(entry), _) if shared => answer(&entry, CacheStatus::Hit { shared }),
            (Ok(entry), _) => answer(&entry, CacheStatus::Forwarded(forwarded)),
            (Err(failure), Some(entry))
                if failure.may_be_stood_in_for() && entry.may_stand_in(settings.stale_if_error, now) =>
            {
                let status = match failure {
                    Failure::Open(_) => CacheStatus::Stale { forwarded: None, because: "circuit-breaker-open", shared },
                    _ => CacheStatus::Stale { forwarded: Some(forwarded), because: "stale-if-error", shared },
                };
                record("stood_in_for", &failure.into_problem());
                answer(&entry, status)
            }
            (Err(failure), _) => {
                count("CacheHits", 0);
                Err(failure.into_problem())
            }
        }
    }

    /// Refreshes the stored response before the next invocation, unless a call is under way. No request waits for it,
    /// so it is tried only once: the next request tries again.
    fn refresh(
        self: &Arc<Self>,
        settings: &Settings,
        stored: Option<Arc<Entry>>,
        headers: HeaderMap,
        deadline: Instant,
    ) {
        let deadline = deadline.min(Instant::now() + settings.attempt_timeout);
        let (call, is_own) = self.join_or_call(stored, headers, deadline, 1);
        // If there are many requests at a time, only the one that began the call waits for it.
        if is_own {
            let upstream = Arc::clone(self);
            after_response(async move {
                let outcome = call.outcome().await;
                tell(&outcome);
                record("breaker_state", upstream.breaker.state_name());
                upstream.share(outcome.news).await;
                if let Some(failure) = outcome.response.err().filter(|failure| !matches!(failure, Failure::Open(_))) {
                    let error: &dyn std::error::Error = &failure.into_problem();
                    warn!(error, "the stored response could not be refreshed");
                }
            });
        }
    }

    /// The outcome of the call that is under way, or of the next call if the first was another request's and timed out
    /// earlier.
    async fn outcome(
        self: &Arc<Self>,
        settings: &Settings,
        stored: Option<&Arc<Entry>>,
        request: &Request,
        deadline: Instant,
    ) -> Outcome {
        loop {
            let headers = trace_headers(request);
            let (call, is_own) = self.join_or_call(stored.cloned(), headers, deadline, settings.max_attempts);
            if is_own {
                let mut outcome = call.outcome().await;
                tell(&outcome);
                if let Some(news) = outcome.news.take() {
                    let upstream = Arc::clone(self);
                    after_response(async move { upstream.share(Some(news)).await });
                }
                return outcome;
            }
            let had_less_time = call.deadline < deadline;
            let outcome = timeout_at(deadline, call.outcome()).await.unwrap_or(Err(Failure::DeadlineExceeded).into());
            if !had_less_time || !matches!(outcome.response, Err(Failure::TimedOut | Failure::DeadlineExceeded)) {
                return outcome;
            }
        }
    }

    /// Returns the call that is under way, or a new one, and whether it is new. A call has its own task, so it goes on
    /// if the request that began it is gone.
    fn join_or_call(
        self: &Arc<Self>,
        stored: Option<Arc<Entry>>,
        headers: HeaderMap,
        deadline: Instant,
        max_attempts: u32,
    ) -> (Call, bool) {
        let mut under_way = self.under_way();
        if let Some(call) = under_way.as_ref().filter(|call| call.is_under_way()) {
            return (call.clone(), false);
        }
        let (sender, outcome) = watch::channel(None);
        let upstream = Arc::clone(self);
        let calling = async move {
            let outcome = upstream.call(stored, headers, deadline, max_attempts).await;
            // From here on nobody can join, so nobody can get a response that may not be stored.
            let mut under_way = upstream.under_way();
            sender.send_replace(Some(outcome));
            *under_way = None;
        };
        spawn(calling.in_current_span());
        let call = Call { deadline, outcome };
        *under_way = Some(call.clone());
        (call, true)
    }

    async fn share(&self, news: Option<News>) {
        if let (Some(shared), Some(news)) = (&self.shared, news) {
            shared.tell(news).await;
        }
    }

    fn under_way(&self) -> MutexGuard<'_, Option<Call>> {
        self.call.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls the upstream until there is a good response, which is then stored, or until more attempts would not help.
    /// Before that, asks what other environments know.
    async fn call(
        &self,
        mut stored: Option<Arc<Entry>>,
        headers: HeaderMap,
        deadline: Instant,
        max_attempts: u32,
    ) -> Outcome {
        let own = stored.clone();
        let allowed = match &self.shared {
            Some(shared) if !self.breaker.is_waiting() => {
                shared.leave(&mut stored, self.breaker.is_open(), deadline).await
            }
            _ => Leave::Call,
        };
        let mut shared = stored.as_ref().map(Arc::as_ptr) != own.as_ref().map(Arc::as_ptr);
        if let Some(entry) = stored.as_ref().filter(|_| shared) {
            self.cache.put(entry);
        }
        let (lease, renews) = match allowed {
            Leave::Call => (None, false),
            Leave::Lease { lease, renews, probe } => {
                if probe {
                    self.breaker.hold(Duration::ZERO);
                }
                (Some(lease), renews)
            }
            Leave::Use(entry) => return Outcome { shared, ..Ok(entry).into() },
            Leave::Fail(failure) => {
                if let Failure::Open(left) = failure {
                    self.breaker.hold(left);
                }
                return Outcome { shared, ..Err(failure).into() };
            }
        };
        let began = Instant::now();
        let was_open = self.breaker.is_open();
        let mut outcome = self.retried(stored.clone(), headers, deadline, max_attempts).await;
        outcome.took = began.elapsed();
        outcome.opened = !was_open && self.breaker.is_open();
        match &outcome.response {
            Ok(entry) => {
                self.cache.put(entry);
                shared = false;
            }
            Err(failure) => {
                let stands_in = stored.is_some_and(|stored| self.may_stand_in(&stored));
                // All environments can do without the upstream for a while, so they need not each find out that it is
                // unhealthy.
                if lease.is_some() && stands_in && failure.is_of_health() && !self.breaker.is_open() {
                    self.breaker.hold(OPEN_FOR);
                }
                if let (None, Some(table)) = (self.cache.get(), &self.shared)
                    && let Some(late) = table.late().await
                {
                    self.cache.put(&late);
                    shared = true;
                }
            }
        }
        outcome.shared = shared;
        let response = outcome.response.as_ref().ok().filter(|_| renews).cloned();
        let open_for = self.breaker.open_for().filter(|left| !left.is_zero());
        let is_news = self.shared.is_some() && (lease.is_some() || outcome.opened);
        outcome.news = is_news.then_some(News { lease, response, open_for });
        outcome
    }

    /// Calls the upstream, and retries while that may help.
    async fn retried(
        &self,
        mut stored: Option<Arc<Entry>>,
        headers: HeaderMap,
        deadline: Instant,
        max_attempts: u32,
    ) -> Outcome {
        let Ok(settings) = &self.settings else { return Err(Failure::Bug).into() };
        let mut retries = Retries::new(&self.retry_budget, max_attempts, deadline);
        let mut attempts = 0;
        let mut status;
        let response = loop {
            let attempt = self.attempt(settings, stored.as_deref(), &headers, deadline, &mut attempts);
            let fetched = attempt.instrument(info_span!("attempt")).await;
            status = fetched.as_ref().map_or_else(Failure::status, |fetched| Some(fetched.status));
            match fetched.map(|fetched| entry(stored.as_deref(), fetched)) {
                Ok(Some(entry)) => break Ok(Arc::new(entry)),
                // A 304 about another response than the stored one: RFC 9111, section 4.3.3.
                Ok(None) if stored.take().is_some() => {}
                Ok(None) => break Err(Failure::Status { status: StatusCode::NOT_MODIFIED, retry_after: None }),
                // Once the breaker is open, it is useless to wait for another attempt.
                Err(failure) if !self.breaker.is_open() && retries.wait(&failure).await => {}
                Err(failure) => {
                    if let Some(wait) = failure.retry_after().filter(|_| failure.is_transient()) {
                        self.breaker.hold(wait);
                    }
                    break Err(failure);
                }
            }
        };
        Outcome { status, attempts, ..response.into() }
    }

    fn may_stand_in(&self, stored: &Entry) -> bool {
        let settings = self.settings.as_ref();
        settings.is_ok_and(|settings| stored.may_stand_in(settings.stale_if_error, SystemTime::now()))
    }

    /// One attempt, if the circuit breaker lets it through.
    async fn attempt(
        &self,
        settings: &Settings,
        stored: Option<&Entry>,
        headers: &HeaderMap,
        deadline: Instant,
        attempts: &mut u32,
    ) -> Result<Fetched, Failure> {
        let mut permit = self.breaker.permit().map_err(Failure::Open)?;
        let authorization = match &self.secret {
            None => None,
            Some(secret) => Some((secret, secret.authorization(deadline).await?)),
        };
        if *attempts == 0 {
            self.retry_budget.earn();
        }
        *attempts += 1;
        permit.called();
        let mut headers = headers.clone();
        headers.extend(stored.map(Entry::validators).unwrap_or_default());
        let fetched = match authorization {
            None => self.client.attempt(settings, headers, deadline).await,
            Some((secret, authorization)) => self.authorized(settings, headers, deadline, secret, authorization).await,
        };
        if !fetched.as_ref().is_err_and(Failure::is_of_health) {
            permit.succeeded();
        }
        fetched
    }

    /// One call, and a second one with another token if the upstream refuses this one.
    async fn authorized(
        &self,
        settings: &Settings,
        mut headers: HeaderMap,
        deadline: Instant,
        secret: &Secret,
        authorization: HeaderValue,
    ) -> Result<Fetched, Failure> {
        headers.insert(AUTHORIZATION, authorization.clone());
        let fetched = self.client.attempt(settings, headers.clone(), deadline).await;
        let refused = matches!(fetched, Err(Failure::Status { status: StatusCode::UNAUTHORIZED, .. }));
        if !refused || !secret.refuse(&authorization).await {
            return fetched;
        }
        headers.insert(AUTHORIZATION, secret.authorization(deadline).await?);
        self.client.attempt(settings, headers, deadline).await
    }
}

impl Call {
    fn is_under_way(&self) -> bool {
        self.outcome.has_changed().is_ok() && self.outcome.borrow().is_none()
    }

    async fn outcome(mut self) -> Outcome {
        match self.outcome.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            _ => Err(Failure::Bug).into(),
        }
    }
}

/// Adds the cost of a call to the log line of the invocation that began it.
fn tell(outcome: &Outcome) {
    record("attempts", outcome.attempts);
    record("upstream_ms", outcome.took);
    count("UpstreamAttempts", outcome.attempts.into());
    count("BreakerOpens", outcome.opened.into());
}

/// An outcome without a call.
impl From<Result<Arc<Entry>, Failure>> for Outcome {
    fn from(response: Result<Arc<Entry>, Failure>) -> Self {
        Self { response, status: None, attempts: 0, took: Duration::ZERO, opened: false, shared: false, news: None }
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

#[cfg(test)]
mod tests {
    use testbed::upstream::{Answer, Behaviour};

    use super::*;

    /// The code under test, and the server that it calls.
    fn start() -> (Arc<Upstream>, testbed::upstream::Upstream) {
        let server = testbed::upstream::Upstream::start();
        let url = server.url("/");
        let settings = Settings::read(|name| (name == "UPSTREAM_URL").then(|| url.clone()));
        (Arc::new(Upstream::new(settings)), server)
    }

    async fn fetch(upstream: &Arc<Upstream>) -> Result<Response, Problem> {
        Arc::clone(upstream).fetch(&Request::default()).await
    }

    #[tokio::test]
    async fn a_call_goes_on_when_its_request_is_gone_and_nobody_gets_its_outcome_later() {
        let (upstream, server) = start();
        server.then(Behaviour::Silent).always(Answer::ok("good"));
        tokio::select! {
            biased;
            () = server.calls_reached(1) => {}
            answer = fetch(&upstream) => panic!("answered: {answer:?}"),
        }
        let call = upstream.under_way().clone().expect("a call under way");
        server.refuse().await;
        assert!(matches!(call.outcome().await.response, Err(Failure::Unreachable(_))));
        server.listen();
        assert_eq!(fetch(&upstream).await.map(|response| response.body().clone()).ok(), Some("good".into()));
    }

    #[tokio::test]
    async fn a_request_that_makes_no_call_earns_no_retries() {
        let (upstream, _server) = start();
        upstream.breaker.hold(Duration::from_mins(1));
        for _ in 0..100 {
            assert_eq!(fetch(&upstream).await.err().map(|problem| problem.name()), Some("upstream-unavailable"));
        }
        let tokens = std::iter::from_fn(|| upstream.retry_budget.spend().then_some(())).count();
        assert_eq!(tokens, 2, "those of a new process");
    }
}
