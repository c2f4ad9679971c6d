//! An upstream, and what this process knows of it. It answers a request from a stored response if that may be used, else
//! from a call, else from a stale response that may be used after an error.

use std::{
    collections::HashMap,
    env,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::SystemTime,
};

use handler::{Problem, after_response, deadline, http::Method, spawn, trace_headers};
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument, warn};

#[cfg(feature = "stream")]
use {crate::connection::Connection, handler::count};

use crate::{
    Request, Response,
    attempt::Client,
    breaker::Breaker,
    cache::Cache,
    cache_status::{CacheStatus, Forwarded},
    call::{Call, CallResult, Job, last_start},
    entry::Entry,
    error::{Error, Failure, UNNAMED},
    fleet::{Fleet, Report, fleet},
    line::{self, Line},
    request::Prepared,
    retry::RetryBudget,
    secret::Secret,
    settings::{InvalidSetting, Settings},
};

/// A service that an endpoint calls, with its settings, its connections, its circuit breaker and its cache. It is a
/// `static`:
///
/// ```
/// use handler::{Problem, Request, Response, negotiate, path};
/// use upstream::Upstream;
///
/// static PRICES: Upstream = Upstream::new("PRICES");
///
/// async fn quote(request: Request) -> Result<Response, Problem> {
///     let symbol = path(&request, "symbol")?;
///     let price: u64 = PRICES.get("/v1/prices/{}", [symbol]).query("currency", "EUR").json().await?;
///     negotiate(&request, &price)
/// }
/// ```
///
/// Its name begins the names of its settings, which are environment variables: see [the crate](crate). It connects to
/// nothing and reads nothing until the first request.
pub struct Upstream {
    name: &'static str,
    /// What it is called in `User-Agent` and `Cache-Status`.
    known_as: &'static str,
    inner: OnceLock<Result<Arc<Inner>, InvalidSetting>>,
    /// The log's field for errors: here, because `inner` may not exist when there is one.
    error_field: OnceLock<&'static str>,
}

/// What a call needs, which may outlive the request that began it.
pub(crate) struct Inner {
    pub(crate) settings: Settings,
    pub(crate) known_as: &'static str,
    pub(crate) secret: Option<Secret>,
    pub(crate) client: Client,
    pub(crate) cache: Cache,
    pub(crate) breaker: Breaker,
    pub(crate) retry_budget: RetryBudget,
    pub(crate) fleet: Option<Fleet>,
    line: Line,
    /// The calls that are under way, for all requests that need their outcome, by what they ask for.
    calls: Mutex<HashMap<String, Call>>,
}

impl Upstream {
    /// The upstream whose settings are the environment variables that begin with `name`, such as `PRICES`.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, known_as: "upstream", inner: OnceLock::new(), error_field: OnceLock::new() }
    }

    /// Calls the function `product` in the `User-Agent` that the upstream gets, and its cache in the `Cache-Status` of
    /// [passed on](Response::pass_on) responses. Without it, both are `upstream`.
    #[must_use]
    pub const fn known_as(mut self, product: &'static str) -> Self {
        self.known_as = product;
        self
    }

    /// The same upstream with settings from `variable`, which returns the value of an environment variable. For tests.
    #[must_use]
    pub fn with_settings(self, variable: impl Fn(&str) -> Option<String>) -> Self {
        let inner = Inner::new(Settings::read(self.name, variable), self.known_as);
        Self { inner: OnceLock::from(inner), ..self }
    }

    /// A `GET` of `path` below the upstream's URL. Each `{}` in `path` takes one of the `parameters`, as one segment of the
    /// path, whatever is in it. An empty `path` is the URL itself.
    ///
    /// A parameter that would lead out of the URL's path, such as `..` or `%2e%2e/`, is the caller's mistake: 400,
    /// `invalid-parameter`.
    pub fn get<const N: usize>(&self, path: &str, parameters: [&str; N]) -> Request<'_> {
        self.request(Method::GET, path, parameters)
    }

    /// A `HEAD`, as [`get`](Self::get).
    pub fn head<const N: usize>(&self, path: &str, parameters: [&str; N]) -> Request<'_> {
        self.request(Method::HEAD, path, parameters)
    }

    /// A `POST`, as [`get`](Self::get).
    pub fn post<const N: usize>(&self, path: &str, parameters: [&str; N]) -> Request<'_> {
        self.request(Method::POST, path, parameters)
    }

    /// A `PUT`, as [`get`](Self::get).
    pub fn put<const N: usize>(&self, path: &str, parameters: [&str; N]) -> Request<'_> {
        self.request(Method::PUT, path, parameters)
    }

    /// A `PATCH`, as [`get`](Self::get).
    pub fn patch<const N: usize>(&self, path: &str, parameters: [&str; N]) -> Request<'_> {
        self.request(Method::PATCH, path, parameters)
    }

    /// A `DELETE`, as [`get`](Self::get).
    pub fn delete<const N: usize>(&self, path: &str, parameters: [&str; N]) -> Request<'_> {
        self.request(Method::DELETE, path, parameters)
    }

    /// A request with any `method`, as [`get`](Self::get).
    pub fn request<const N: usize>(&self, method: Method, path: &str, parameters: [&str; N]) -> Request<'_> {
        Request::new(self, method, path, &parameters)
    }

    /// The error of a request, which is also in the log line: an endpoint may go on without this upstream.
    pub(crate) fn failed(&self, failure: Failure) -> Error {
        let error = Error { upstream: self.name, failure };
        // An endpoint whose only upstream fails answers with the error, which the line has then.
        if self.name != UNNAMED {
            let field = self.error_field.get_or_init(|| line::own(self.name, "error"));
            line::add(field, &Problem::from(error.clone()));
        }
        error
    }

    pub(crate) fn settings(&self) -> Result<&Settings, Failure> {
        self.inner().map(|inner| &inner.settings)
    }

    pub(crate) async fn exchange(&self, prepared: Prepared) -> Result<Response, Failure> {
        Arc::clone(self.inner()?).exchange(Arc::new(prepared)).await
    }

    pub(crate) fn inner(&self) -> Result<&Arc<Inner>, Failure> {
        let from_environment = || Inner::new(Settings::read(self.name, |name| env::var(name).ok()), self.known_as);
        self.inner.get_or_init(from_environment).as_ref().map_err(|invalid| Failure::misconfigured(invalid.clone()))
    }
}

impl Inner {
    fn new(settings: Result<Settings, InvalidSetting>, known_as: &'static str) -> Result<Arc<Self>, InvalidSetting> {
        let settings = settings?;
        Ok(Arc::new(Self {
            secret: Secret::new(&settings),
            fleet: fleet(&settings)?,
            line: Line::new(settings.name),
            settings,
            known_as,
            client: Client::default(),
            cache: Cache::default(),
            breaker: Breaker::default(),
            retry_budget: RetryBudget::default(),
            calls: Mutex::default(),
        }))
    }

    async fn exchange(self: Arc<Self>, prepared: Arc<Prepared>) -> Result<Response, Failure> {
        let settings = &self.settings;
        let budget = Instant::now() + settings.timeout;
        let job = Job {
            prepared: Arc::clone(&prepared),
            deadline: deadline().map_or(budget, |deadline| deadline.min(budget)),
            max_attempts: settings.max_attempts,
        };
        let now = SystemTime::now();
        let stored = self.cache.get(&prepared);
        let answer = |entry: Arc<Entry>, status: CacheStatus, now| {
            self.line.response(Some(status));
            Ok(Response {
                entry,
                status,
                now,
                upstream: settings.name,
                known_as: self.known_as,
                is_head: prepared.is_head(),
            })
        };

        let while_revalidating =
            |shared| CacheStatus::Stale { forwarded: None, because: "stale-while-revalidate", shared };
        let taken = stored.as_ref().filter(|entry| prepared.takes(entry, now));
        if let Some(entry) = taken.filter(|entry| entry.is_fresh(now)) {
            if self.fleet.as_ref().is_some_and(|fleet| fleet.is_due(entry, now)) {
                self.refresh(stored.clone(), &job);
            }
            return answer(Arc::clone(entry), CacheStatus::Hit { shared: false }, now);
        }
        if let Some(entry) = taken.filter(|entry| entry.may_be_used_while_revalidating(now)) {
            self.refresh(stored.clone(), &job);
            return answer(Arc::clone(entry), while_revalidating(false), now);
        }
        let result = self.result(stored.clone(), &job).await;
        // That can have taken seconds.
        let now = SystemTime::now();
        self.line.breaker(&self.breaker);
        let forwarded = Forwarded { stale: stored.is_some(), status: result.status };
        let shared = result.shared;
        match (result.response, self.cache.get(&prepared)) {
            (Ok(entry), stored) if shared && !entry.is_fresh(now) && entry.may_be_used_while_revalidating(now) => {
                self.refresh(stored, &job);
                answer(entry, while_revalidating(true), now)
            }
            (Ok(entry), _) if shared => answer(entry, CacheStatus::Hit { shared }, now),
            (Ok(entry), _) => answer(entry, CacheStatus::Forwarded(forwarded), now),
            (Err(failure), Some(entry))
                if failure.allows_stale()
                    && (entry.is_fresh(now) || entry.may_be_used_if_error(settings.stale_if_error, now)) =>
            {
                let status = match failure {
                    Failure::Open(_) => CacheStatus::Stale { forwarded: None, because: "circuit-breaker-open", shared },
                    _ => CacheStatus::Stale { forwarded: Some(forwarded), because: "stale-if-error", shared },
                };
                self.line.stale_if_error(&failure.into_problem(settings.name));
                answer(entry, status, now)
            }
            (Err(failure), _) => {
                self.line.response(None);
                Err(failure)
            }
        }
    }

    /// Refreshes the stored response before the next invocation, unless a call is under way. No request waits for it,
    /// so it is tried only once: the next request tries again.
    pub(crate) fn refresh(self: &Arc<Self>, stored: Option<Arc<Entry>>, job: &Job) {
        let deadline = job.deadline.min(Instant::now() + self.settings.attempt_timeout);
        let (call, is_own) = self.join_or_call(stored, Job { deadline, max_attempts: 1, ..job.clone() }, false);
        // If there are many requests at a time, only the one that began the call waits for it.
        if is_own {
            let upstream = Arc::clone(self);
            after_response(async move {
                let result = call.result().await;
                upstream.line.call(&result);
                upstream.line.breaker(&upstream.breaker);
                upstream.tell_fleet(result.report).await;
                if let Some(failure) = result.response.err().filter(|failure| !matches!(failure, Failure::Open(_))) {
                    let error: &dyn std::error::Error = &failure.into_problem(upstream.settings.name);
                    warn!(error, "the stored response could not be refreshed");
                }
            });
        }
    }

    /// The result of the call that is under way, or of a further call if that was another request's and is of no use to
    /// this one.
    async fn result(self: &Arc<Self>, mut stored: Option<Arc<Entry>>, job: &Job) -> CallResult {
        // If the last response answered only one request, the next one will too, so it is useless to wait for it. A probe
        // is worth waiting for.
        let mut alone = !job.prepared.uses_cache() || self.cache.is_for_one(&job.prepared) && self.breaker.is_closed();
        loop {
            let (call, is_own) = self.join_or_call(stored, job.clone(), alone);
            if is_own {
                let mut result = call.result().await;
                self.line.call(&result);
                if let Some(report) = result.report.take() {
                    let upstream = Arc::clone(self);
                    after_response(async move { upstream.tell_fleet(Some(report)).await });
                }
                return result;
            }
            let had_less_time = call.deadline < job.deadline;
            let had_fewer_attempts = call.max_attempts < job.max_attempts;
            let result = timeout_at(job.deadline, call.result()).await;
            let result = result.unwrap_or(Err(Failure::DeadlineExceeded).into());
            match &result.response {
                // Only a response that may be stored answers more than one request: RFC 9111, section 4. All that waited
                // for this one now call at the same time.
                Ok(entry) if !entry.may_be_stored() => alone = true,
                Err(Failure::TimedOut | Failure::DeadlineExceeded)
                    if had_less_time && Instant::now() < last_start(&self.settings, job.deadline) => {}
                Err(failure) if had_fewer_attempts && failure.is_transient() => {}
                _ => return result,
            }
            stored = self.cache.get(&job.prepared);
        }
    }

    /// Returns the call that is under way, or a new one, and whether it is new. One for a request that is `alone` is
    /// new, and no other request joins it. A call has its own task, so it goes on if the request that began it is gone.
    fn join_or_call(self: &Arc<Self>, stored: Option<Arc<Entry>>, job: Job, alone: bool) -> (Call, bool) {
        let asked = job.prepared.identity();
        let mut calls = self.calls();
        if let Some(call) = calls.get(&asked).filter(|call| !alone && call.is_under_way()) {
            return (call.clone(), false);
        }
        let (call, sender) = Call::new(&job);
        if !alone {
            calls.insert(asked.clone(), call.clone());
        }
        let (upstream, trace) = (Arc::clone(self), trace_headers());
        let calling = async move {
            let result = upstream.call(stored, &job, trace).await;
            // From here on nobody can join.
            sender.send_replace(Some(result));
            let mut calls = upstream.calls();
            if calls.get(&asked).is_some_and(|call| !call.is_under_way()) {
                calls.remove(&asked);
            }
        };
        spawn(calling.in_current_span());
        (call, true)
    }

    /// Records what a body that was passed on as it arrived has shown, and keeps its connection, if it can be used again.
    #[cfg(feature = "stream")]
    pub(crate) fn streamed(self: &Arc<Self>, is_healthy: bool, connection: Option<Connection>) {
        // If it is not closed, other calls decide: this one began before.
        if self.breaker.is_closed() && self.breaker.record(Some(is_healthy)) {
            count("BreakerOpens", 1);
            let report = Report { open_for: self.breaker.open_for(), ..Report::default() };
            let upstream = Arc::clone(self);
            after_response(async move { upstream.tell_fleet(Some(report)).await });
        }
        self.line.breaker(&self.breaker);
        self.client.keep(connection);
    }

    async fn tell_fleet(&self, report: Option<Report>) {
        if let (Some(fleet), Some(report)) = (&self.fleet, report) {
            fleet.report(report).await;
        }
    }

    pub(crate) fn calls(&self) -> MutexGuard<'_, HashMap<String, Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use futures_util::future::join_all;
    use handler::{Problem, http::HeaderMap};
    use testbed::upstream::{Answer, Behaviour, IdleEnd};

    use super::*;

    /// The code under test, and the server that it calls.
    fn start() -> (Arc<Inner>, testbed::upstream::Upstream) {
        start_with(&[])
    }

    fn start_with(more: &[(&str, &str)]) -> (Arc<Inner>, testbed::upstream::Upstream) {
        let server = testbed::upstream::Upstream::start();
        let url = server.url("/");
        let all = [more, &[("UPSTREAM_URL", url.as_str())]].concat();
        let variable = |name: &str| all.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        (Inner::new(Settings::read("UPSTREAM", variable), "fetch").unwrap(), server)
    }

    fn job(upstream: &Inner, ms: u64, max_attempts: u32) -> Job {
        let prepared = Arc::new(Prepared::new(Method::GET, upstream.settings.url.clone()));
        let deadline = Instant::now() + Duration::from_millis(ms);
        Job { prepared, deadline, max_attempts }
    }

    async fn fetch(upstream: &Arc<Inner>) -> Result<Response, Problem> {
        let exchanged = Arc::clone(upstream).exchange(job(upstream, 0, 0).prepared).await;
        exchanged.map_err(|failure| failure.into_problem(upstream.settings.name))
    }

    fn text(response: &Response) -> String {
        String::from_utf8_lossy(response.body()).into_owned()
    }

    /// The bodies or problems that eight requests at a time get, and how many calls that takes.
    async fn fetch_at_once(upstream: &Arc<Inner>, server: &testbed::upstream::Upstream) -> (Vec<String>, usize) {
        let before = server.calls();
        // All are under way before the runtime gets to the first one's call.
        let answers = join_all((0..8).map(|_| fetch(upstream))).await;
        let told = |answer: Result<Response, Problem>| match answer {
            Ok(response) => text(&response),
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

    /// How many calls and connections a `POST` costs the server that does this, and the headers of these calls. Before
    /// that, the server has had one call, if the connection `is_kept`.
    async fn post(does: &Behaviour, is_kept: bool, key: Option<&str>) -> (usize, Vec<Option<String>>) {
        let (upstream, server) = start_with(&[("UPSTREAM_ATTEMPT_TIMEOUT_MS", "1000")]);
        if is_kept {
            fetch(&upstream).await.unwrap();
        }
        let before = (server.calls(), server.connections());
        server.always(does.clone());
        let mut prepared = Prepared::new(Method::POST, upstream.settings.url.clone());
        if let Some(key) = key {
            prepared.headers.insert("idempotency-key", key.parse().unwrap());
        }
        let answer = Arc::clone(&upstream).exchange(Arc::new(prepared)).await;
        assert!(answer.is_err(), "{does:?}");
        // A connection that is reset at once is no call.
        let made = (server.calls() - before.0).max(server.connections() - before.1);
        let requests = server.requests().split_off(before.0);
        (made, requests.iter().map(|request| request.header("idempotency-key").map(str::to_owned)).collect())
    }

    #[tokio::test]
    async fn a_post_is_sent_twice_only_with_a_key() {
        let early_hints = "HTTP/1.1 103 \r\n\r\n";
        for (does, with_a_key) in [
            (Behaviour::ResetAtConnect, 3),
            (Behaviour::ResetMidHeader, 3),
            (Behaviour::ResetMidBody, 3),
            (Behaviour::Truncate, 3),
            (Behaviour::LengthTooLong, 3),
            (Behaviour::MalformedHeaders, 3),
            (Behaviour::MalformedChunks, 3),
            (Behaviour::Raw { bytes: Arc::from(early_hints.as_bytes()), close: true }, 3),
            (Behaviour::Silent, 3),
            (Answer::status(503).retry_after(0).into(), 3),
            (Answer::status(429).into(), 3),
            (Answer::status(502).into(), 3),
            (Answer::status(504).into(), 3),
            (Answer::status(408).into(), 1),
            (Answer::status(401).into(), 1),
            (Answer::status(500).into(), 1),
            (Answer::status(304).into(), 1),
            (Behaviour::redirect(307, "/elsewhere"), 1),
            (Behaviour::redirect(308, "/elsewhere"), 1),
        ] {
            for is_kept in [false, true] {
                let (made, keys) = post(&does, is_kept, None).await;
                assert!(made == 1 && keys.iter().all(Option::is_none), "{does:?}, kept: {is_kept}: {made}, {keys:?}");
            }
            let (made, keys) = post(&does, false, Some("1")).await;
            assert_eq!(made, with_a_key, "{does:?}");
            assert!(keys.iter().all(|key| key.as_deref() == Some("1")), "{does:?}: {keys:?}");
        }
    }

    #[tokio::test]
    async fn a_post_that_was_not_sent_is_tried_again() {
        let (upstream, server) = start();
        server.refuse().await;
        let mut job = job(&upstream, 5000, 3);
        job.prepared = Arc::new(Prepared::new(Method::POST, upstream.settings.url.clone()));
        let result = upstream.call(None, &job, HeaderMap::new()).await;
        assert!(matches!(result.response, Err(Failure::Unsent(_))));
        assert_eq!(result.tally.attempts, 3);
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
        upstream.refresh(None, &job(&upstream, 5000, 3));
        assert_eq!(fetch(&upstream).await.ok().as_ref().map(text).as_deref(), Some("good"));
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
        let outcome = upstream.call(None, &job(&upstream, 200, 1), HeaderMap::new()).await;
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
        let outcome = upstream.call(None, &job(&upstream, 500, 3), HeaderMap::new()).await;
        assert!(matches!(outcome.response, Err(Failure::DeadlineExceeded)));
        assert_eq!((outcome.tally.is_healthy, outcome.tally.attempts), (Some(false), 2));
    }

    /// The tokens that are left in the retry budget.
    fn tokens(upstream: &Inner) -> usize {
        std::iter::from_fn(|| upstream.retry_budget.spend().then_some(())).count()
    }

    #[tokio::test]
    async fn a_hedge_gets_past_a_silent_response_and_a_silent_connection() {
        for is_kept in [false, true] {
            let settings = [("UPSTREAM_HEDGE_AFTER_MS", "50"), ("UPSTREAM_ATTEMPT_TIMEOUT_MS", "60000")];
            let (upstream, server) = start_with(&settings);
            if is_kept {
                server.then(Answer::ok("first").cache_control("no-store"));
                fetch(&upstream).await.unwrap();
                assert_eq!(server.end_idle_connections(IdleEnd::Vanish).await, 1);
            } else {
                server.then(Behaviour::Silent);
            }
            let result = upstream.call(None, &job(&upstream, 60_000, 3), HeaderMap::new()).await;
            assert!(result.response.is_ok());
            assert_eq!((result.tally.attempts, result.tally.is_healthy), (2, Some(true)));
            assert_eq!((server.calls(), server.connections(), tokens(&upstream)), (2, 2, 1), "kept: {is_kept}");
            server.end_idle_connections(IdleEnd::Close).await;
            tokio::time::timeout(Duration::from_mins(1), server.all_closed()).await.expect("the loser is closed");
        }
    }

    #[tokio::test]
    async fn there_is_no_hedge_that_must_not_be() {
        let silent = |method, max_attempts, tokens, is_probe: bool| async move {
            let is_hedged = method == Method::GET && max_attempts > 1 && tokens > 0 && !is_probe;
            let timeout = if is_hedged { "60000" } else { "500" };
            let settings = [("UPSTREAM_HEDGE_AFTER_MS", "1"), ("UPSTREAM_ATTEMPT_TIMEOUT_MS", timeout)];
            let (upstream, server) = start_with(&settings);
            server.then(Behaviour::Silent).always(Answer::ok("good"));
            (tokens..2).for_each(|_| assert!(upstream.retry_budget.spend()));
            if is_probe {
                upstream.breaker.hold(Duration::ZERO);
            }
            let mut job = job(&upstream, 60_000, max_attempts);
            job.prepared = Arc::new(Prepared::new(method, upstream.settings.url.clone()));
            let result = upstream.call(None, &job, HeaderMap::new()).await;
            assert_eq!(result.tally.attempts as usize, server.calls());
            (server.calls(), result.response.is_ok())
        };
        assert_eq!(silent(Method::GET, 3, 2, false).await, (2, true));
        assert_eq!(silent(Method::POST, 3, 2, false).await, (1, false), "it may not be repeated");
        assert_eq!(silent(Method::GET, 1, 2, false).await, (1, false), "it has no attempt left");
        assert_eq!(silent(Method::GET, 3, 0, false).await, (1, false), "the budget is empty");
        assert_eq!(silent(Method::GET, 3, 2, true).await, (1, false), "it is the probe");
    }

    #[tokio::test]
    async fn slow_calls_open_the_breaker_if_a_setting_says_from_when() {
        for (setting, state) in [(None, "closed"), (Some("60000"), "closed"), (Some("20"), "open")] {
            let slow = setting.map(|ms| ("UPSTREAM_SLOW_CALL_MS", ms));
            let (upstream, server) = start_with(slow.as_slice());
            for status in [200, 404] {
                let slow = Behaviour::late(Duration::from_millis(25), Answer::status(status).cache_control("no-store"));
                server.always(slow);
                let job = job(&upstream, 60_000, 1);
                join_all((0..5).map(|_| upstream.call(None, &job, HeaderMap::new()))).await;
            }
            assert_eq!(upstream.breaker.state_name(), state, "{setting:?}");
        }
    }

    #[tokio::test]
    async fn only_one_of_many_calls_opens_the_breaker() {
        let (upstream, server) = start();
        server.then(Answer::ok("good").cache_control("no-store")).always(Answer::status(500));
        fetch(&upstream).await.unwrap();
        let job = job(&upstream, 5000, 1);
        let outcomes = join_all((0..20).map(|_| upstream.call(None, &job, HeaderMap::new()))).await;
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
        let call = upstream.calls().values().next().cloned().expect("a call under way");
        server.refuse().await;
        assert!(matches!(call.result().await.response, Err(Failure::Unsent(_))));
        server.listen();
        assert_eq!(fetch(&upstream).await.ok().as_ref().map(text).as_deref(), Some("good"));
    }

    #[tokio::test]
    async fn a_request_that_makes_no_call_earns_no_retries() {
        let (upstream, _server) = start();
        upstream.breaker.hold(Duration::from_mins(1));
        for _ in 0..100 {
            assert_eq!(fetch(&upstream).await.err().map(|problem| problem.name()), Some("upstream-unavailable"));
        }
        assert_eq!(tokens(&upstream), 2, "those of a new process");
    }
}
