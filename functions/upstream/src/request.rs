//! A request to an upstream: what an author says of it, and what is sent.

use std::{fmt, time::SystemTime};

use bytes::Bytes;
use handler::http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{
        AUTHORIZATION, CONTENT_TYPE, COOKIE, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
        RANGE,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use url::Url;

#[cfg(feature = "stream")]
use crate::stream::Arriving;
use crate::{Error, Response, Upstream, cache_control::CacheControl, entry::Entry, error::Failure, target::below};

/// A request that has one of these is for one caller or one purpose, so no stored response answers it.
const BYPASS: [HeaderName; 6] = [AUTHORIZATION, COOKIE, IF_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE];

/// The conditions that the cache has itself. [`Response::pass_on`] judges those of the endpoint's caller.
const CONDITIONS: [HeaderName; 2] = [IF_NONE_MATCH, IF_MODIFIED_SINCE];

/// These describe the connection or the body, and are the client's.
const RESERVED: [&str; 7] =
    ["connection", "content-length", "host", "keep-alive", "te", "transfer-encoding", "upgrade"];

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A request to an [`Upstream`], made by [`Upstream::get`] and the like. Nothing is sent before [`send`](Self::send) or
/// [`json`](Self::json).
#[must_use = "a request is sent by `send` or `json`"]
pub struct Request<'a> {
    pub(crate) upstream: &'a Upstream,
    prepared: Result<Prepared, Failure>,
}

/// What is sent.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) method: Method,
    pub(crate) url: Url,
    /// The author's headers.
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Whether the author lets a stored response answer it.
    uses_cache: bool,
    /// What the author's `Cache-Control` says.
    control: CacheControl,
    /// Where the response goes, if it is passed on as it arrives.
    #[cfg(feature = "stream")]
    pub(crate) arriving: Option<Arriving>,
}

impl<'a> Request<'a> {
    pub(crate) fn new(upstream: &'a Upstream, method: Method, path: &str, parameters: &[&str]) -> Self {
        let url = upstream.settings().and_then(|settings| below(&settings.url, path, parameters));
        Self { upstream, prepared: url.map(|url| Prepared::new(method, url)) }
    }

    /// Adds `name=value` to the query string, percent-encoded.
    pub fn query(self, name: &str, value: impl fmt::Display) -> Self {
        self.with(|prepared| {
            prepared.url.query_pairs_mut().append_pair(name, &value.to_string());
            Ok(())
        })
    }

    /// Adds a header. One that is for the caller alone, such as `Authorization` or `Cookie`, keeps the response from being
    /// stored, and from answering anyone else. `Cache-Control` with `no-store`, `no-cache` or `max-age` is a request to this
    /// cache, too (RFC 9111, section 5.2.1), so don't copy that of a caller, who could then cause calls to the upstream.
    /// `If-None-Match` and `If-Modified-Since` of a request that the cache may answer are left out:
    /// [`pass_on`](Response::pass_on) judges those of the endpoint's caller.
    ///
    /// A name or value that cannot be in a request, or a header that the client sets itself, such as `Host`, is a bug: the
    /// request is not sent, and the caller gets an `internal` problem.
    pub fn header(self, name: impl AsRef<str>, value: impl AsRef<[u8]>) -> Self {
        self.with(|prepared| {
            let name = HeaderName::from_bytes(name.as_ref().as_bytes()).map_err(Failure::bug)?;
            if RESERVED.contains(&name.as_str()) {
                return Err(Failure::bug(format!("the client sets `{name}` itself")));
            }
            let value = HeaderValue::from_bytes(value.as_ref()).map_err(Failure::bug)?;
            prepared.headers.append(name, value);
            Ok(())
        })
    }

    /// Sends `value` as JSON.
    pub fn with_json(self, value: &impl Serialize) -> Self {
        self.encoded("application/json", serde_json::to_vec(value).map_err(Failure::bug))
    }

    /// Sends `fields` as `application/x-www-form-urlencoded`.
    pub fn with_form<N: AsRef<str>, V: AsRef<str>>(self, fields: impl IntoIterator<Item = (N, V)>) -> Self {
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.with_body("application/x-www-form-urlencoded", form)
    }

    /// Sends `body` as it is. `content_type` is its media type.
    pub fn with_body(self, content_type: &str, body: impl Into<Bytes>) -> Self {
        self.encoded(content_type, Ok(body.into()))
    }

    /// Sends an `Idempotency-Key` that no other request has, so that a `POST` or a `PATCH` may be repeated: the upstream
    /// must do only once what it is asked for several times with one key. All attempts have the same key. It is a string as
    /// [the IETF's draft](https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-idempotency-key-header) has it.
    ///
    /// ```
    /// # use handler::Problem;
    /// # use upstream::Upstream;
    /// static PAYMENTS: Upstream = Upstream::new("PAYMENTS");
    ///
    /// async fn pay(cents: u64) -> Result<u64, Problem> {
    ///     Ok(PAYMENTS.post("/payments", []).with_json(&cents).idempotent().json().await?)
    /// }
    /// ```
    ///
    /// Without a key, a `POST` or a `PATCH` is repeated only if the upstream cannot have got it, or has refused the token of
    /// `NAME_SECRET_ID` with a 401 and there is another one.
    pub fn idempotent(self) -> Self {
        let mut key = [0; 16];
        // Not by `fastrand`: environments that begin as copies of one snapshot would make equal keys.
        let random = rustls::crypto::ring::default_provider().secure_random.fill(&mut key);
        let key = random.map(|()| format!("\"{:032x}\"", u128::from_be_bytes(key)));
        let key = key.map_err(|_| Failure::bug("there is no randomness for an idempotency key"));
        self.keyed(key)
    }

    /// The same with the author's own `key`, which is sent as it is.
    pub fn idempotency_key(self, key: &str) -> Self {
        self.keyed(Ok(key))
    }

    /// Lets no stored response answer this request, and stores none.
    pub fn without_cache(self) -> Self {
        self.with(|prepared| {
            prepared.uses_cache = false;
            Ok(())
        })
    }

    /// Sends the request, and reads the whole response. It takes at most the time that the invocation has left and
    /// `NAME_TIMEOUT_MS` allows, retries included.
    ///
    /// # Errors
    ///
    /// If there is no good response (a status from 200 to 299), and no stored one may be used instead. `?` makes the
    /// problem of it that tells the caller what was wrong; see [`Error`].
    pub fn send(self) -> impl Future<Output = Result<Response, Error>> + Send + use<'a> {
        let Self { upstream, prepared } = self;
        let sent = async move {
            let sent = match prepared.map(Prepared::for_the_cache) {
                Ok(prepared) => upstream.exchange(prepared).await,
                Err(failure) => Err(failure),
            };
            sent.map_err(|failure| upstream.failed(failure))
        };
        // On the heap, because an endpoint can have several of them under way.
        Box::pin(sent)
    }

    /// Sends the request, and reads the response's body as JSON.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send). A body that is not a `T` is a 502, `upstream-response-invalid`.
    pub async fn json<T: DeserializeOwned>(self) -> Result<T, Error> {
        let upstream = self.upstream;
        self.send().await?.json().map_err(|error| upstream.failed(error.failure))
    }

    /// Leaves the response there, to be read as it arrives.
    #[cfg(feature = "stream")]
    pub(crate) fn arriving(self, arriving: Arriving) -> Self {
        self.without_cache().with(|prepared| {
            prepared.arriving = Some(arriving);
            Ok(())
        })
    }

    fn keyed(self, key: Result<impl AsRef<str>, Failure>) -> Self {
        self.with(|prepared| {
            prepared.headers.insert(IDEMPOTENCY_KEY, HeaderValue::from_str(key?.as_ref()).map_err(Failure::bug)?);
            Ok(())
        })
    }

    fn encoded(self, content_type: &str, body: Result<impl Into<Bytes>, Failure>) -> Self {
        let content_type = HeaderValue::from_str(content_type).map_err(Failure::bug);
        self.with(|prepared| {
            prepared.headers.insert(CONTENT_TYPE, content_type?);
            prepared.body = body?.into();
            Ok(())
        })
    }

    fn with(mut self, change: impl FnOnce(&mut Prepared) -> Result<(), Failure>) -> Self {
        let changed = self.prepared.as_mut().ok().and_then(|prepared| change(prepared).err());
        if let Some(failure) = changed {
            self.prepared = Err(failure);
        }
        self
    }
}

impl Prepared {
    pub(crate) fn new(method: Method, url: Url) -> Self {
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            uses_cache: true,
            control: CacheControl::default(),
            #[cfg(feature = "stream")]
            arriving: None,
        }
    }

    /// Reads what the headers say to the cache, and takes out its own conditions.
    fn for_the_cache(mut self) -> Self {
        self.control = CacheControl::of(&self.headers);
        if self.uses_cache() {
            for name in CONDITIONS {
                self.headers.remove(name);
            }
        }
        self
    }

    /// Whether the author takes `entry` without asking the upstream: RFC 9111, section 5.2.1.
    pub(crate) fn takes(&self, entry: &Entry, now: SystemTime) -> bool {
        !self.control.no_cache && self.control.max_age.is_none_or(|most| entry.age(now) <= most)
    }

    /// Whether a stored response may answer it, and its response may be stored.
    pub(crate) fn uses_cache(&self) -> bool {
        let is_safe = matches!(self.method, Method::GET | Method::HEAD);
        let is_for_all = !BYPASS.iter().any(|name| self.headers.contains_key(name));
        self.uses_cache && !self.control.no_store && is_safe && is_for_all && self.body.is_empty()
    }

    /// What it asks for. Requests that are equal in it can have one response.
    pub(crate) fn identity(&self) -> String {
        let mut identity = [self.method.as_str(), " ", self.url.as_str()].concat();
        for (name, value) in &self.headers {
            identity.extend(["\n", name.as_str(), ": ", &String::from_utf8_lossy(value.as_bytes())]);
        }
        identity
    }

    /// Whether its response is passed on as it arrives.
    pub(crate) fn is_streamed(&self) -> bool {
        #[cfg(feature = "stream")]
        return self.arriving.is_some();
        #[cfg(not(feature = "stream"))]
        false
    }

    pub(crate) fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }

    /// Whether sending it twice does no more than sending it once: by its method (RFC 9110, section 9.2.2), or because the
    /// upstream knows it by its key.
    pub(crate) fn is_repeatable(&self) -> bool {
        self.method.is_idempotent() || self.headers.contains_key(IDEMPOTENCY_KEY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_repeatable_by_its_method_or_its_key() {
        let upstream =
            Upstream::new("A").with_settings(|name| (name == "A_URL").then(|| "https://a.example".to_owned()));
        let of = |request: Request<'_>| request.prepared.unwrap();
        for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "POST", "PATCH", "ADD"] {
            let request = || upstream.request(method.parse().unwrap(), "/", []);
            let is_idempotent = !matches!(method, "POST" | "PATCH" | "ADD");
            assert_eq!(of(request()).is_repeatable(), is_idempotent, "{method}");
            assert!(of(request().idempotency_key("a")).is_repeatable(), "{method}");
            assert!(of(request().header("Idempotency-Key", "a")).is_repeatable(), "{method}");
        }
        let key = |request| of(request).headers[IDEMPOTENCY_KEY].to_str().unwrap().to_owned();
        let keys = [(); 2].map(|()| key(upstream.post("/", []).idempotent()));
        assert!(keys[0] != keys[1] && keys[0].len() == 34 && keys[0].starts_with('"'), "{keys:?}");
        assert_eq!(key(upstream.post("/", []).idempotency_key("order 7")), "order 7");
        assert!(matches!(upstream.post("/", []).idempotency_key("\n").prepared, Err(Failure::Bug(_))));
    }
}
