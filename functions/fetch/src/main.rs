//! `GET /fetch`: the body of the one upstream that the operator configured.
//!
//! A request's path through the files: [`settings`] say what is fetched and within what bounds, [`upstream`] holds what
//! outlives a request, [`attempt`] is one call of the upstream.

mod attempt;
mod settings;
mod upstream;

use std::{env, process::ExitCode, sync::Arc};

use settings::Settings;
use upstream::Upstream;

fn main() -> ExitCode {
    let upstream = Arc::new(Upstream::new(Settings::read(|name| env::var(name).ok())));
    handler::run(move |request| {
        let upstream = Arc::clone(&upstream);
        async move { upstream.fetch(&request).await }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_its_events() {
        let server = testbed::upstream::Upstream::start();
        server.always(
            testbed::upstream::Answer::ok(r#"{"upstream":"testbed"}"#).header("content-type", "application/json"),
        );
        let settings = Settings::read(|name| (name == "UPSTREAM_URL").then(|| server.url("/")));
        let upstream = Arc::new(Upstream::new(settings));
        let endpoint = move |request| {
            let upstream = Arc::clone(&upstream);
            async move { upstream.fetch(&request).await }
        };
        testbed::replay("fetch", endpoint).await;
    }
}
