//! A good response, as an author reads it.

use std::{fmt, sync::Arc, time::SystemTime};

use handler::http::{HeaderMap, HeaderName, StatusCode, header::AGE};
use serde::de::DeserializeOwned;

use crate::{Error, cache_status::CacheStatus, entry::Entry, error::Failure};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// An upstream's good response: its status is from 200 to 299. It may come from the cache.
#[derive(Clone)]
pub struct Response {
    pub(crate) entry: Arc<Entry>,
    pub(crate) status: CacheStatus,
    pub(crate) now: SystemTime,
    pub(crate) upstream: &'static str,
    pub(crate) known_as: &'static str,
    pub(crate) is_head: bool,
}

/// Without the values of headers and the body, which may be secret.
impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<_> = self.entry.headers().keys().collect();
        f.debug_struct("Response")
            .field("status", &self.status())
            .field("headers", &headers)
            .field("bytes", &self.body().len())
            .field("cache_status", &self.status.name())
            .finish_non_exhaustive()
    }
}

impl Response {
    /// The upstream's status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.entry.status()
    }

    /// The upstream's headers, without those that are about the connection or how the body was sent. `Age` is what it is
    /// now.
    #[must_use]
    pub fn headers(&self) -> HeaderMap {
        let mut headers = self.entry.headers().clone();
        headers.insert(AGE, self.entry.age(self.now).as_secs().into());
        headers
    }

    /// The whole body, decompressed. That of a response to `HEAD` is empty.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        if self.is_head { &[] } else { self.entry.body() }
    }

    /// Whether it was stored, and the upstream was not asked for it or could not confirm it.
    #[must_use]
    pub fn is_from_cache(&self) -> bool {
        self.status.is_from_cache()
    }

    /// Reads the body as JSON.
    ///
    /// # Errors
    ///
    /// If it is not a `T`: a 502, `upstream-response-invalid`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        // The text of serde_json's error can contain a part of the body, which the log must not have.
        serde_json::from_slice(self.body()).map_err(|error| Error {
            upstream: self.upstream,
            failure: Failure::invalid(format!(
                "the body is not the expected JSON: {:?} at line {} column {}",
                error.classify(),
                error.line(),
                error.column()
            )),
        })
    }

    /// The answer to the endpoint's own caller: this response, byte for byte, with its content type, language, validators
    /// and what it says about caches; 304 if `request` has a condition that says that the caller already has it (RFC 9110,
    /// section 13). `Cache-Status` says where it came from (RFC 9211).
    ///
    /// ```
    /// # use handler::{Problem, Request, Response};
    /// # use upstream::Upstream;
    /// # static PRICES: Upstream = Upstream::new("PRICES");
    /// async fn latest(request: Request) -> Result<Response, Problem> {
    ///     let response = PRICES.get("/latest", []).send().await?;
    ///     Ok(response.pass_on(&request))
    /// }
    /// ```
    #[must_use]
    pub fn pass_on(&self, request: &handler::Request) -> handler::Response {
        let mut answer = self.entry.answer(request.headers(), self.now);
        answer.headers_mut().insert(CACHE_STATUS, self.status.header(self.known_as, self.entry.ttl(self.now)));
        answer
    }
}
