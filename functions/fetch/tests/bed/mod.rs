//! The packaged `fetch` and its upstream.

#![allow(dead_code, reason = "no test uses all of it")]

use std::process::Command;

use testbed::{Function, HttpAnswer, Invocation, packaged, upstream::Upstream};

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
        Self::run(Command::new(packaged("fetch")), upstream, env).await
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
