//! The upstream of those that call one, on its own thread, so that it answers while the Runtime API waits.

use testbed::{
    settings,
    upstream::{Answer, Certificate, Upstream},
};
use tokio::runtime::{Builder, Runtime};

use crate::candidate::UPSTREAM_BODY;

pub(crate) struct Threaded {
    pub(crate) upstream: Upstream,
    /// Drives the upstream. `None` only while it is dropped.
    runtime: Option<Runtime>,
}

impl Threaded {
    /// Starts an upstream whose responses have this `cache_control`, with TLS if `tls` is set.
    pub(crate) fn start(cache_control: &str, tls: bool) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a thread");
        let entered = runtime.enter();
        let upstream = if tls { Upstream::start_tls(Certificate::Valid) } else { Upstream::start() };
        upstream.always(Answer::ok(UPSTREAM_BODY).header("content-type", "text/plain").cache_control(cache_control));
        drop(entered);
        Self { upstream, runtime: Some(runtime) }
    }

    /// The settings of `function`, with this as its upstream.
    pub(crate) fn settings(&self, function: &str) -> Vec<(String, String)> {
        let mut settings = settings(function, &self.upstream);
        if let Some(file) = self.upstream.ca_file() {
            // The second name is for `naive`.
            settings.extend(
                ["UPSTREAM_CA_FILE", "SSL_CERT_FILE"].map(|name| (name.into(), file.to_string_lossy().into_owned())),
            );
        }
        settings
    }
}

impl Drop for Threaded {
    /// A runtime must not wait for its threads while another runtime runs on this thread.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
