//! The packaged `fetch` and its upstream, or the endpoint with two upstreams from `examples/fetch_beside_another.rs` in its place.

#![allow(dead_code, reason = "no test uses all of it")]

use std::{path::PathBuf, process::Command};

use testbed::{Function, HttpAnswer, Invocation, example, packaged, upstream::Upstream};

/// What a trial tests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Endpoint {
    /// `fetch`, as `make build` packaged it.
    Fetch,
    /// The one with two upstreams, of which the second one is never called.
    PairIdle,
    /// The same, and the second one is called by each request, and refuses connections.
    PairFailing,
}

tokio::task_local! {
    /// What the running trial tests.
    pub(crate) static ENDPOINT: Endpoint;
}

impl Endpoint {
    /// The running trial's, or `fetch` outside of a trial.
    pub(crate) fn tested() -> Self {
        ENDPOINT.try_get().unwrap_or(Self::Fetch)
    }

    pub(crate) fn executable(self) -> PathBuf {
        if self == Self::Fetch { packaged("fetch") } else { example("fetch_beside_another") }
    }

    /// The name that a setting of `fetch` has here.
    pub(crate) fn setting(self, name: &str) -> String {
        if self == Self::Fetch { name.to_owned() } else { name.replace("UPSTREAM_", "PRICES_") }
    }

    /// What is appended to the name of a trial.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Fetch => "",
            Self::PairIdle => " (two upstreams)",
            Self::PairFailing => " (two upstreams, one down)",
        }
    }
}

/// A running `fetch` and its upstream.
pub(crate) struct Bed {
    /// The upstream.
    pub(crate) upstream: Upstream,
    /// The function.
    pub(crate) fetch: Function,
}

impl Bed {
    /// Starts `fetch` with these environment variables. Unless they say otherwise, its time limits are a minute, which
    /// no busy machine exceeds.
    pub(crate) async fn new(upstream: Upstream, env: &[(&str, &str)]) -> Self {
        Self::run(Command::new(Endpoint::tested().executable()), upstream, env).await
    }

    /// Like [`Bed::new`], with a `command` that executes `fetch` in the end.
    pub(crate) async fn run(command: Command, upstream: Upstream, env: &[(&str, &str)]) -> Self {
        let ca_file = upstream.ca_file().map(|file| file.to_string_lossy().into_owned());
        let url = upstream.url("/");
        let mut all = vec![
            ("UPSTREAM_URL", url.as_str()),
            ("UPSTREAM_TIMEOUT_MS", "60000"),
            ("UPSTREAM_ATTEMPT_TIMEOUT_MS", "60000"),
        ];
        all.extend(ca_file.as_deref().map(|file| ("UPSTREAM_CA_FILE", file)));
        all.extend(env);
        let endpoint = Endpoint::tested();
        if endpoint == Endpoint::PairFailing {
            // Nothing listens on this port.
            all.extend([("RATES_URL", "http://127.0.0.1:1"), ("RATES_MAX_ATTEMPTS", "1")]);
        }
        let all: Vec<_> = all.into_iter().map(|(name, value)| (endpoint.setting(name), value)).collect();
        let all: Vec<_> = all.iter().map(|(name, value)| (&**name, *value)).collect();
        let fetch = Function::run(command.into(), &all).await;
        Self { upstream, fetch }
    }

    /// The answer to a `GET` request with `headers`.
    ///
    /// # Errors
    ///
    /// Returns what happened to the invocation instead.
    pub(crate) async fn get(&mut self, headers: &[(&str, &str)]) -> Result<HttpAnswer, String> {
        self.fetch.invoke(&Invocation::get("/fetch", headers)).await.try_into()
    }
}

/// Compares an actual value with the expected one.
///
/// # Errors
///
/// Returns the difference, in words.
pub(crate) fn expect<T: PartialEq + std::fmt::Debug>(what: &str, actual: &T, expected: &T) -> Result<(), String> {
    (actual == expected).then_some(()).ok_or_else(|| format!("{what}: expected {expected:?}, got {actual:?}"))
}
