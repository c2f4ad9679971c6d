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

use crate::{Error, Response, Upstream, cache_control::CacheControl, entry::Entry, error::Failure, target::below};

/// A request that has one of these is for one caller or one purpose, so no stored response answers it.
const BYPASS: [HeaderName; 6] = [AUTHORIZATION, COOKIE, IF_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE];

/// The conditions that the cache has itself. [`Response::pass_on`] judges those of the endpoint's caller.
const CONDITIONS: [HeaderName; 2] = [IF_NONE_MATCH, IF_MODIFIED_SINCE];

/// These describe the connection or the body, and are the client's.
const RESERVED: [&str; 7] =
    ["connection", "content-length", "host", "keep-alive", "te", "transfer-encoding", "upgrade"];

/// A request to an [`Upstream`], made by [`Upstream::get`] and the like. Nothing is sent before [`send`](Self::send) or
/// [`json`](Self::json).
#[must_use = "a request is sent by `send` or `json`"]
pub struct Request<'a> {
    upstream: &'a Upstream,
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
            sent.map_err(|failure| Error { upstream: upstream.name(), failure })
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
        self.send().await?.json()
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

    pub(crate) fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }

    /// Whether two attempts do no more than one (RFC 9110, section 9.2.2), and so may be repeated.
    pub(crate) fn is_idempotent(&self) -> bool {
        self.method.is_idempotent()
    }
}
