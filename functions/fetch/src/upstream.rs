//! Answers a request from the stored response if it may be used, else from a call, else from a response that may stand
//! in.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use handler::{
    Problem, Request, Response, after_response, count, deadline,
    http::{HeaderMap, StatusCode, header::AUTHORIZATION},
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
    retry::{Retries, RetryBudget, least},
    secret::Secret,
    settings::{InvalidSetting, Settings},
    shared::{Leave, News, Shared},
};

/// How long an environment leaves the probe to others if its own call showed nothing.
const PROBE_PAUSE: Duration = Duration::from_secs(1);

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
    max_attempts: u32,
    /// `None` while it is under way. If it panics, the sender is dropped without an outcome.
    outcome: watch::Receiver<Option<Outcome>>,
}

/// The result of a call.
#[derive(Clone)]
struct Outcome {
    response: Result<Arc<Entry>, Failure>,
    /// The status of the upstream's last response, if there was one.
    status: Option<StatusCode>,
    tally: Tally,
    took: Duration,
    /// Whether the stored response is now another environment's.
    shared: bool,
    /// What to tell the other environments.
    news: Option<News>,
}

/// What the attempts of a call came to.
#[derive(Clone, Copy, Default)]
struct Tally {
    attempts: u32,
    /// What the last attempt that showed it said of the upstream's health.
    is_healthy: Option<bool>,
    /// Whether this opened the circuit breaker.
    opened: bool,
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
        let answer = |entry: &Entry, status: CacheStatus, now| {
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
            return answer(entry, CacheStatus::Hit { shared: false }, now);
        }
        if let Some(entry) = stored.as_ref().filter(|entry| entry.may_be_used_while_revalidating(now)) {
            self.refresh(settings, stored.clone(), trace_headers(request), deadline);
            return answer(entry, while_revalidating(false), now);
        }
        let outcome = self.outcome(settings, stored.clone(), request, deadline).await;
        // That can have taken seconds.
        let now = SystemTime::now();
        record("breaker_state", self.breaker.state_name());
        let forwarded = Forwarded { stale: stored.is_some(), status: outcome.status };
        let shared = outcome.shared;
        match (outcome.response, self.cache.get()) {
            (Ok(entry), stored) if shared && !entry.is_fresh(now) && entry.may_be_used_while_revalidating(now) => {
                self.refresh(settings, stored, trace_headers(request), deadline);
                answer(&entry, while_revalidating(true), now)
            }
            (Ok(entry), _) if shared => answer(&entry, CacheStatus::Hit { shared }, now),
            (Ok(entry), _) => answer(&entry, CacheStatus::Forwarded(forwarded), now),
            (Err(failure), Some(entry))
                if failure.may_be_stood_in_for()
                    && (entry.is_fresh(now) || entry.may_stand_in(settings.stale_if_error, now)) =>
            {
                let status = match failure {
                    Failure::Open(_) => CacheStatus::Stale { forwarded: None, because: "circuit-breaker-open", shared },
                    _ => CacheStatus::Stale { forwarded: Some(forwarded), because: "stale-if-error", shared },
                };
                record("stood_in_for", &failure.into_problem());
                answer(&entry, status, now)
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
        let (call, is_own) = self.join_or_call(stored, headers, deadline, 1, false);
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

    /// The outcome of the call that is under way, or of a further call if that was another request's and is of no use to
    /// this one.
    async fn outcome(
        self: &Arc<Self>,
        settings: &Settings,
        mut stored: Option<Arc<Entry>>,
        request: &Request,
        deadline: Instant,
    ) -> Outcome {
        // If the last response answered only one request, the next one will too, so it is useless to wait for it. A probe
        // is worth waiting for.
        let mut alone = self.cache.is_for_one() && self.breaker.is_closed();
        loop {
            let headers = trace_headers(request);
            let (call, is_own) = self.join_or_call(stored, headers, deadline, settings.max_attempts, alone);
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
            let had_fewer_attempts = call.max_attempts < settings.max_attempts;
            let outcome = timeout_at(deadline, call.outcome()).await.unwrap_or(Err(Failure::DeadlineExceeded).into());
            match &outcome.response {
                // Only a response that may be stored answers more than one request: RFC 9111, section 4. All that waited
                // for this one now call at the same time.
                Ok(entry) if !entry.may_be_stored() => alone = true,
                Err(Failure::TimedOut | Failure::DeadlineExceeded)
                    if had_less_time && Instant::now() < last_start(settings, deadline) => {}
                Err(failure) if had_fewer_attempts && failure.is_transient() => {}
                _ => return outcome,
            }
            stored = self.cache.get();
        }
    }

    /// Returns the call that is under way, or a new one, and whether it is new. One for a request that is `alone` is
    /// new, and no other request joins it. A call has its own task, so it goes on if the request that began it is gone.
    fn join_or_call(
        self: &Arc<Self>,
        stored: Option<Arc<Entry>>,
        headers: HeaderMap,
        deadline: Instant,
        max_attempts: u32,
        alone: bool,
    ) -> (Call, bool) {
        let mut under_way = self.under_way();
        if let Some(call) = under_way.as_ref().filter(|call| !alone && call.is_under_way()) {
            return (call.clone(), false);
        }
        let (sender, outcome) = watch::channel(None);
        let upstream = Arc::clone(self);
        let calling = async move {
            let outcome = upstream.call(stored, headers, deadline, max_attempts).await;
            // From here on nobody can join.
            sender.send_replace(Some(outcome));
            upstream.under_way().take_if(|call| !call.is_under_way());
        };
        spawn(calling.in_current_span());
        let call = Call { deadline, max_attempts, outcome };
        if !alone {
            *under_way = Some(call.clone());
        }
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
        let began = Instant::now();
        let own = stored.clone();
        let allowed = match &self.shared {
            Some(shared) if !self.breaker.is_waiting() => {
                shared.leave(&mut stored, self.breaker.is_open(), deadline).await
            }
            _ => Leave::Call,
        };
        let mut shared = stored.as_ref().map(Arc::as_ptr) != own.as_ref().map(Arc::as_ptr);
        if let Some(entry) = stored.as_ref().filter(|_| shared) {
            self.cache.put(entry, began);
        }
        let (lease, renews, probe) = match allowed {
            Leave::Call => (None, false, false),
            Leave::Lease { lease, renews, probe } => {
                if probe {
                    self.breaker.hold(Duration::ZERO);
                }
                (Some(lease), renews, probe)
            }
            Leave::Use(entry) => return Outcome { shared, ..Ok(entry).into() },
            Leave::Fail(failure) => {
                if let Failure::Open(left) = failure {
                    self.breaker.hold(left);
                }
                return Outcome { shared, ..Err(failure).into() };
            }
        };
        let attempts_began = Instant::now();
        let mut outcome = self.retried(stored.clone(), headers, deadline, max_attempts).await;
        outcome.took = attempts_began.elapsed();
        let is_healthy = outcome.tally.is_healthy;
        if let Ok(entry) = &outcome.response {
            self.cache.put(entry, began);
            shared = false;
        } else {
            let stands_in = stored.is_some_and(|stored| self.may_stand_in(&stored));
            // All environments can do without the upstream for a while, so they need not each find out that it is
            // unhealthy.
            if lease.is_some() && stands_in && is_healthy == Some(false) && !self.breaker.is_open() {
                outcome.tally.opened |= self.breaker.hold(OPEN_FOR);
            }
            if let (None, Some(table)) = (self.cache.get(), &self.shared)
                && let Some(late) = table.late().await
            {
                self.cache.put(&late, began);
                shared = true;
            }
        }
        outcome.shared = shared;
        let response = outcome.response.as_ref().ok().filter(|_| renews).cloned();
        let open_for = self.breaker.open_for().filter(|left| !left.is_zero());
        let is_news = self.shared.is_some() && (lease.is_some() || outcome.tally.opened);
        outcome.news = is_news.then_some(News { lease, response, is_healthy: is_healthy == Some(true), open_for });
        if probe && is_healthy.is_none() {
            // Another environment may be able to make the call.
            self.breaker.hold(PROBE_PAUSE);
        }
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
        let mut retries = Retries::new(&self.retry_budget, max_attempts, last_start(settings, deadline));
        let mut tally = Tally::default();
        let mut status;
        let response = loop {
            let attempt = self.attempt(settings, stored.as_deref(), &headers, deadline, &mut tally);
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
                    let wait = failure.retry_after().filter(|wait| failure.is_transient() && !wait.is_zero());
                    tally.opened |= wait.is_some_and(|wait| self.breaker.hold(wait));
                    break Err(failure);
                }
            }
        };
        Outcome { status, tally, ..response.into() }
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
        tally: &mut Tally,
    ) -> Result<Fetched, Failure> {
        let permit = self.breaker.permit().map_err(Failure::Open)?;
        let authorization = match &self.secret {
            None => None,
            Some(secret) => Some((secret, secret.authorization(deadline).await?)),
        };
        let began = Instant::now();
        if began > last_start(settings, deadline) {
            return Err(Failure::DeadlineExceeded);
        }
        if tally.attempts == 0 {
            self.retry_budget.earn();
        }
        tally.attempts += 1;
        let mut headers = headers.clone();
        headers.extend(stored.map(Entry::validators).unwrap_or_default());
        headers.extend(authorization.as_ref().map(|(_, authorization)| (AUTHORIZATION, authorization.clone())));
        let mut fetched = self.client.attempt(settings, headers, deadline).await;
        if matches!(fetched, Err(Failure::DeadlineExceeded)) && began.elapsed() >= limit(settings) / 2 {
            // The upstream had a fair share of the time, and is to blame. Else no upstream that hangs would open the
            // breaker if requests have less time than an attempt.
            fetched = Err(Failure::TimedOut);
        }
        let is_healthy = fetched.as_ref().map_or_else(Failure::is_healthy, |_| Some(true));
        tally.is_healthy = is_healthy.or(tally.is_healthy);
        tally.opened |= permit.end(is_healthy);
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
fn last_start(settings: &Settings, deadline: Instant) -> Instant {
    deadline.checked_sub(least(limit(settings))).unwrap_or(deadline)
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
    record("attempts", outcome.tally.attempts);
    record("upstream_ms", outcome.took);
    count("UpstreamAttempts", outcome.tally.attempts.into());
    count("BreakerOpens", outcome.tally.opened.into());
}

/// An outcome without a call.
impl From<Result<Arc<Entry>, Failure>> for Outcome {
    fn from(response: Result<Arc<Entry>, Failure>) -> Self {
        Self { response, status: None, tally: Tally::default(), took: Duration::ZERO, shared: false, news: None }
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
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;
    use testbed::upstream::{Answer, Behaviour};

    use super::*;

    /// The code under test, and the server that it calls.
    fn start() -> (Arc<Upstream>, testbed::upstream::Upstream) {
        start_with(&[])
    }

    fn start_with(more: &[(&str, &str)]) -> (Arc<Upstream>, testbed::upstream::Upstream) {
        let server = testbed::upstream::Upstream::start();
        let url = server.url("/");
        let all = [more, &[("UPSTREAM_URL", url.as_str())]].concat();
        let variable = |name: &str| all.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        (Arc::new(Upstream::new(Settings::read(variable))), server)
    }

    async fn fetch(upstream: &Arc<Upstream>) -> Result<Response, Problem> {
        Arc::clone(upstream).fetch(&Request::default()).await
    }

    /// The bodies or problems that eight requests at a time get, and how many calls that takes.
    async fn fetch_at_once(upstream: &Arc<Upstream>, server: &testbed::upstream::Upstream) -> (Vec<String>, usize) {
        let before = server.calls();
        // All are under way before the runtime gets to the first one's call.
        let answers = join_all((0..8).map(|_| fetch(upstream))).await;
        let told = |answer: Result<Response, Problem>| match answer {
            Ok(response) => String::from_utf8_lossy(response.body()).into_owned(),
            Err(problem) => problem.name().to_owned(),
        };
        let mut told: Vec<_> = answers.into_iter().map(told).collect();
        told.sort();
        told.dedup();
        (told, server.calls() - before)
    }

    /// Each call of it gets another body.
    fn numbered(answer: Answer) -> Behaviour {
        let number = AtomicUsize::new(0);
        Behaviour::decide(move |_| answer.clone().body(number.fetch_add(1, Ordering::Relaxed).to_string()).into())
    }

    #[tokio::test]
    async fn one_response_answers_all_that_waited_for_it_if_it_may_be_stored() {
        for (control, calls) in [
            ("max-age=60", 1),
            ("max-age=0", 1),
            ("no-cache", 1),
            ("no-store", 8),
            ("private, max-age=60", 8),
            ("no-store, must-understand", 1),
        ] {
            let (upstream, server) = start();
            server.always(numbered(Answer::status(200).cache_control(control)));
            let (bodies, made) = fetch_at_once(&upstream, &server).await;
            assert_eq!((bodies.len(), made), (calls, calls), "{control}");
        }
    }

    #[tokio::test]
    async fn one_failure_answers_all_that_waited_for_it() {
        for status in [302, 401, 404, 500] {
            let (upstream, server) = start();
            server.always(Answer::status(status).cache_control("no-store"));
            assert_eq!(fetch_at_once(&upstream, &server).await, (vec!["upstream-error".to_owned()], 1), "{status}");
        }
    }

    /// The others have no stored response any more that they could validate.
    #[tokio::test]
    async fn a_304_with_no_store_answers_one_request() {
        let (upstream, server) = start();
        server.then(Answer::ok("first").cache_control("max-age=0").etag("\"1\""));
        fetch(&upstream).await.unwrap();
        let last = numbered(Answer::status(200).cache_control("no-store"));
        server.then(Answer::status(304).cache_control("no-store")).always(last);
        let (bodies, calls) = fetch_at_once(&upstream, &server).await;
        assert_eq!((bodies.len(), calls), (8, 8), "{bodies:?}");
        let conditional = server.requests().iter().filter(|call| call.header("if-none-match").is_some()).count();
        assert_eq!(conditional, 1);
    }

    /// A refresh makes one attempt. A request that waits for it may make more.
    #[tokio::test]
    async fn a_refresh_that_fails_is_not_the_end_for_a_request_that_joined_it() {
        let (upstream, server) = start();
        server.then(Answer::status(503)).then(Answer::status(503)).always(Answer::ok("good"));
        let settings = upstream.settings.as_ref().unwrap();
        let deadline = Instant::now() + settings.timeout;
        upstream.refresh(settings, None, HeaderMap::new(), deadline);
        assert_eq!(fetch(&upstream).await.map(|response| response.body().clone()).ok(), Some("good".into()));
        assert_eq!(server.calls(), 3);
    }

    #[tokio::test]
    async fn a_probe_that_shows_nothing_leaves_the_breaker_open() {
        // The CA file is absent, so that there is no call.
        let (upstream, server) =
            start_with(&[("UPSTREAM_URL", "https://localhost"), ("UPSTREAM_CA_FILE", "/absent.pem")]);
        upstream.breaker.hold(Duration::ZERO);
        assert_eq!(fetch(&upstream).await.err().map(|problem| problem.name()), Some("misconfigured"));
        assert_eq!((upstream.breaker.state_name(), server.calls()), ("open", 0));

        // The request has so little time that its end says nothing of the upstream.
        let (upstream, server) = start();
        server.always(Behaviour::Silent);
        upstream.breaker.hold(Duration::ZERO);
        let outcome = upstream.call(None, HeaderMap::new(), Instant::now() + Duration::from_millis(200), 1).await;
        assert!(matches!(outcome.response, Err(Failure::DeadlineExceeded)));
        assert_eq!((upstream.breaker.state_name(), outcome.tally.is_healthy, server.calls()), ("open", None, 1));
        server.always(Answer::ok("good"));
        assert!(fetch(&upstream).await.is_ok(), "the next call is the probe");
        assert_eq!(upstream.breaker.state_name(), "closed");
    }

    /// Its environment has the lease, so the others must hear of the failure, although the last attempt showed nothing.
    #[tokio::test]
    async fn the_attempts_before_one_that_was_cut_off_count() {
        let (upstream, server) = start();
        server.then(Answer::status(503)).always(Behaviour::Silent);
        let outcome = upstream.call(None, HeaderMap::new(), Instant::now() + Duration::from_millis(500), 3).await;
        assert!(matches!(outcome.response, Err(Failure::DeadlineExceeded)));
        assert_eq!((outcome.tally.is_healthy, outcome.tally.attempts), (Some(false), 2));
    }

    #[tokio::test]
    async fn only_one_of_many_calls_opens_the_breaker() {
        let (upstream, server) = start();
        server.then(Answer::ok("good").cache_control("no-store")).always(Answer::status(500));
        fetch(&upstream).await.unwrap();
        let call = || upstream.call(None, HeaderMap::new(), Instant::now() + Duration::from_secs(5), 1);
        let outcomes = join_all((0..20).map(|_| call())).await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.tally.opened).count(), 1);
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
