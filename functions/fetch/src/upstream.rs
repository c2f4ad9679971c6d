//! The upstream as a request sees it: the stored response if that will do, else a call, else what may stand in.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use handler::{
    Problem, Request, Response, after_response, count, deadline,
    http::{HeaderMap, HeaderValue, StatusCode, header::AUTHORIZATION},
    record, trace_headers,
};
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument, info_span, warn};

use crate::{
    attempt::{Client, Fetched},
    breaker::Breaker,
    cache::{Cache, CacheStatus, Entry, Forwarded},
    failure::Failure,
    retry::{Retries, RetryBudget},
    secret::Secret,
    settings::{InvalidSetting, Settings},
};

/// The operator's upstream, and what this process knows of it.
pub(crate) struct Upstream {
    settings: Result<Settings, InvalidSetting>,
    secret: Option<Secret>,
    client: Client,
    cache: Cache,
    breaker: Breaker,
    retry_budget: RetryBudget,
    /// The call that is under way, for all who need its outcome.
    flight: Mutex<Option<Flight>>,
}

#[derive(Clone)]
struct Flight {
    deadline: Instant,
    flown: Shared<BoxFuture<'static, Flown>>,
}

/// What came of a call.
#[derive(Clone)]
struct Flown {
    outcome: Result<Arc<Entry>, Failure>,
    attempts: u32,
    took: Duration,
    /// The status of the upstream's last response, if there was one.
    status: Option<StatusCode>,
    /// Whether this made the circuit breaker open.
    opened: bool,
}

impl Upstream {
    /// Nothing is connected, and no TLS is set up, before the first request.
    pub(crate) fn new(settings: Result<Settings, InvalidSetting>) -> Self {
        let secret = settings.as_ref().ok().and_then(|settings| settings.secret_id.clone()).map(Secret::new);
        Self {
            settings,
            secret,
            client: Client::default(),
            cache: Cache::default(),
            breaker: Breaker::default(),
            retry_budget: RetryBudget::default(),
            flight: Mutex::default(),
        }
    }

    /// Answers `request` with the upstream's response.
    ///
    /// # Errors
    ///
    /// The problem that the caller is told, when there is neither a good response nor one that may stand in.
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

        if let Some(entry) = stored.as_ref().filter(|entry| entry.is_fresh(now)) {
            return answer(entry, CacheStatus::Hit);
        }
        let (flight, own) = self.join_or_start(stored.clone(), trace_headers(request), deadline);
        if let Some(entry) = stored.as_ref().filter(|entry| entry.may_be_used_while_revalidating(now)) {
            after_response(flight.flown.map(warn_of_failure));
            return answer(entry, CacheStatus::Stale { forwarded: None, because: "stale-while-revalidate" });
        }
        let flown = self.wait_for(flight, stored.as_ref(), request, deadline).await;
        record("breaker_state", self.breaker.name());
        if own {
            record("attempts", flown.attempts);
            record("upstream_ms", flown.took);
            count("UpstreamAttempts", flown.attempts.into());
            count("BreakerOpens", flown.opened.into());
        }
        let forwarded = Forwarded { stale: stored.is_some(), status: flown.status };
        match (flown.outcome, stored) {
            (Ok(entry), _) => answer(&entry, CacheStatus::Forwarded(forwarded)),
            (Err(failure), Some(entry))
                if failure.may_be_stood_in_for() && entry.may_stand_in(settings.stale_if_error, now) =>
            {
                let status = match failure {
                    Failure::Open(_) => CacheStatus::Stale { forwarded: None, because: "circuit-breaker-open" },
                    _ => CacheStatus::Stale { forwarded: Some(forwarded), because: "stale-if-error" },
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

    /// What comes of `flight`, or of the next one if this was another request's and had less time.
    async fn wait_for(
        self: &Arc<Self>,
        mut flight: Flight,
        stored: Option<&Arc<Entry>>,
        request: &Request,
        deadline: Instant,
    ) -> Flown {
        loop {
            let flown = timeout_at(deadline, flight.flown).await.unwrap_or(Flown::from(Failure::TimedOut));
            if flight.deadline >= deadline || !matches!(flown.outcome, Err(Failure::TimedOut)) {
                return flown;
            }
            flight = self.join_or_start(stored.cloned(), trace_headers(request), deadline).0;
        }
    }

    /// The call that is under way, or a new one, in a task of its own: it goes on when the request that began it is gone.
    /// Also whether it is a new one.
    fn join_or_start(
        self: &Arc<Self>,
        stored: Option<Arc<Entry>>,
        headers: HeaderMap,
        deadline: Instant,
    ) -> (Flight, bool) {
        let mut flight = self.flight.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flight.as_ref().filter(|flight| flight.flown.peek().is_none()) {
            return (flight.clone(), false);
        }
        let upstream = Arc::clone(self);
        let flying = async move { upstream.fly(stored, headers, deadline).await };
        let task = tokio::spawn(flying.in_current_span());
        let flown = task.map(|flown| flown.unwrap_or(Flown::from(Failure::Bug)));
        let new = Flight { deadline, flown: flown.boxed().shared() };
        *flight = Some(new.clone());
        (new, true)
    }

    /// Calls the upstream until there is a good response, which is then stored, or no more hope of one.
    async fn fly(&self, stored: Option<Arc<Entry>>, headers: HeaderMap, deadline: Instant) -> Flown {
        let Ok(settings) = &self.settings else { return Flown::from(Failure::Bug) };
        let began = Instant::now();
        let was_open = self.breaker.is_open();
        let mut retries = Retries::new(&self.retry_budget, settings.max_attempts, deadline);
        let mut attempts = 0;
        let mut status;
        let fetched = loop {
            // The attempt keeps its own time; this is for what it does besides, such as loading the secret.
            let attempt = self.attempt(settings, stored.as_deref(), &headers, deadline);
            let attempt = attempt.instrument(info_span!("attempt", number = attempts + 1));
            let fetched = timeout_at(deadline, attempt).await.unwrap_or(Err(Failure::TimedOut));
            attempts += u32::from(!matches!(fetched, Err(Failure::Open(_))));
            status = fetched.as_ref().map_or_else(Failure::status, |fetched| Some(fetched.status));
            match fetched {
                Err(failure) if retries.wait(&failure).await => {}
                done => break done,
            }
        };
        let outcome = fetched.and_then(|fetched| entry(settings, stored.as_deref(), fetched)).map(Arc::new);
        if let Ok(entry) = &outcome {
            self.cache.put(entry);
        }
        let opened = !was_open && self.breaker.is_open();
        Flown { outcome, attempts, took: began.elapsed(), status, opened }
    }

    /// One attempt, if the circuit breaker lets it through.
    async fn attempt(
        &self,
        settings: &Settings,
        stored: Option<&Entry>,
        headers: &HeaderMap,
        deadline: Instant,
    ) -> Result<Fetched, Failure> {
        let permit = self.breaker.permit().map_err(Failure::Open)?;
        let authorization = match &self.secret {
            None => None,
            Some(secret) => match secret.authorization().await {
                Ok(authorization) => Some((secret, authorization)),
                Err(failure) => {
                    permit.unused();
                    return Err(failure);
                }
            },
        };
        let mut headers = headers.clone();
        headers.extend(stored.map(|entry| entry.validators(&settings.url, SystemTime::now())).unwrap_or_default());
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
        headers.insert(AUTHORIZATION, secret.authorization().await?);
        self.client.attempt(settings, headers, deadline).await
    }
}

/// Nothing came of it, and no response.
impl From<Failure> for Flown {
    fn from(failure: Failure) -> Self {
        Self { outcome: Err(failure), attempts: 0, took: Duration::ZERO, status: None, opened: false }
    }
}

/// A refresh that failed after its request was answered is in no request's line.
fn warn_of_failure(flown: Flown) {
    if let Err(failure) = flown.outcome {
        let error: &dyn std::error::Error = &failure.into_problem();
        warn!(error, attempts = flown.attempts, "the stored response could not be refreshed");
    }
}

/// The good response that `fetched` is, or makes of the stored one.
fn entry(settings: &Settings, stored: Option<&Entry>, fetched: Fetched) -> Result<Entry, Failure> {
    let now = SystemTime::now();
    if fetched.status != StatusCode::NOT_MODIFIED {
        return Ok(Entry::new(&settings.url, fetched, now));
    }
    let validated = stored.and_then(|entry| entry.validated(&settings.url, fetched.headers, now));
    validated.ok_or(Failure::Status { status: StatusCode::NOT_MODIFIED, retry_after: None })
}
