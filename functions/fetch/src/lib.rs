//! `GET /fetch`: the body of the one upstream that the operator configured.
//!
//! In the order in which a request meets them: `settings` say what is fetched and within what bounds; `upstream` is
//! the whole way; `cache` holds the last good response, and [`freshness`] says what may be done with it; `retry` and
//! `breaker` say when the upstream is called; `shared` and `table` are what other environments know of that, if they are
//! told to; `secret` is what it is shown; `attempt` calls it;
//! `failure` is what may come of that.

mod attempt;
mod breaker;
mod cache;
pub mod cache_control;
mod failure;
pub mod freshness;
mod http_date;
mod retry;
mod secret;
mod settings;
mod shared;
mod table;
mod upstream;

use std::sync::Arc;

use handler::Endpoint;

use settings::Settings;
use upstream::Upstream;

/// The endpoint, with its settings from `variable`, which gives the value of an environment variable.
pub fn endpoint(variable: impl Fn(&str) -> Option<String>) -> impl Endpoint {
    let upstream = Arc::new(Upstream::new(Settings::read(variable)));
    move |request| {
        let upstream = Arc::clone(&upstream);
        async move { upstream.fetch(&request).await }
    }
}

#[cfg(test)]
mod tests {
    use testbed::upstream::{Answer, Upstream};

    #[tokio::test]
    async fn answers_its_events() {
        let upstream = Upstream::start();
        upstream.always(Answer::ok(r#"{"upstream":"testbed"}"#).header("content-type", "application/json"));
        let url = upstream.url("/");
        let endpoint = super::endpoint(move |name| (name == "UPSTREAM_URL").then(|| url.clone()));
        testbed::replay("fetch", endpoint).await;
    }
}
