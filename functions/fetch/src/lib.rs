//! `GET /fetch`: the body of the one upstream that the operator configured.
//!
//! The modules, in the order in which a request meets them: `settings` says what is fetched and within what limits.
//! `upstream` handles the request. `cache` holds the last good response, and [`freshness`] decides how it may be used.
//! `retry` and `breaker` decide when the upstream is called. `shared` and `table` exchange this with other
//! environments, if the operator configured a table. `secret` loads the upstream's token, `attempt` makes one call: `client`
//! chooses the `connection`, `tls` says whom it trusts, and `coding` decodes the response. `failure` lists how a call can
//! fail.

mod attempt;
mod breaker;
mod cache;
pub mod cache_control;
mod client;
mod coding;
mod connection;
mod failure;
pub mod freshness;
mod http_date;
mod retry;
mod secret;
mod settings;
mod shared;
mod table;
mod tls;
mod upstream;

use std::sync::Arc;

use handler::Endpoint;

use settings::Settings;
use upstream::Upstream;

/// The endpoint. It reads its settings with `variable`, which returns the value of an environment variable.
pub fn endpoint(variable: impl Fn(&str) -> Option<String>) -> impl Endpoint {
    let upstream = Arc::new(Upstream::new(Settings::read(variable)));
    move |request| {
        let upstream = Arc::clone(&upstream);
        async move { upstream.fetch(&request).await }
    }
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn answers_its_events() {
        testbed::replay("fetch", super::endpoint(|name| std::env::var(name).ok())).await;
    }
}
