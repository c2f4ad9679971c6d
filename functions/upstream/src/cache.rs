//! The responses that are stored, by URL and by what they vary with (RFC 9111, section 4.1).
//!
//! It is a shared cache: the bearer token of the settings is the operator's and the same for every caller, so a response
//! to it may be stored like any other. A `private` response may not. A caller's own `Cache-Control` is ignored, so that
//! callers can't cause calls to the upstream.
//!
//! All upstreams of a process share an eighth of the function's memory. When it is full, the responses that are least used
//! go first (S3-FIFO, by `quick_cache`).

use std::{
    env,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use handler::http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONTENT_LOCATION, LOCATION, VARY},
};
use quick_cache::{
    DefaultHashBuilder, Equivalent, OptionsBuilder, Weighter,
    unsync::{self, DefaultLifecycle},
};
use tokio::time::Instant;
use url::Url;

use crate::{entry::Entry, request::Prepared};

/// This part of the function's memory is for stored responses.
const PART_OF_MEMORY: u64 = 8;
/// Lambda's smallest function, in MB.
const LEAST_MEMORY: u64 = 128;
/// A guess, which the cache needs for its own tables.
const TYPICAL_BYTES: u64 = 4096;
/// What a stored response takes beside its body, its headers and its URL.
const OVERHEAD: usize = 512;
/// How many responses of one URL are stored, if they vary.
const MAX_VARIANTS: usize = 16;

/// Of all upstreams.
static STORED: LazyLock<Arc<Mutex<Responses>>> = LazyLock::new(|| {
    let memory = env::var("AWS_LAMBDA_FUNCTION_MEMORY_SIZE").ok().and_then(|memory| memory.parse().ok());
    responses(memory.unwrap_or(LEAST_MEMORY))
});

type Responses = unsync::Cache<Key, Stored, Bytes>;

/// The responses of one upstream.
pub(crate) struct Cache {
    /// Which upstream this is.
    id: u64,
    stored: Arc<Mutex<Responses>>,
}

/// The upstream, whether the request was a `HEAD`, and the URL.
type Key = (u64, bool, String);

/// A [`Key`] that is only looked up.
#[derive(Hash)]
struct Wanted<'a>(u64, bool, &'a str);

/// The good responses of a URL.
#[derive(Clone)]
struct Stored {
    /// The latest one first.
    variants: Vec<Variant>,
    /// Whether the last one may not be stored, and so answers only one request.
    is_for_one: bool,
    /// When the call that got the last response began.
    began: Instant,
}

#[derive(Clone)]
struct Variant {
    entry: Arc<Entry>,
    /// The values that the request had in the headers that `Vary` names.
    selecting: Vec<(HeaderName, Vec<u8>)>,
}

#[derive(Clone)]
struct Bytes;

/// No responses, within the bound of a function with so many MB of `memory`.
fn responses(memory: u64) -> Arc<Mutex<Responses>> {
    let bytes = memory.max(LEAST_MEMORY) * 1024 * 1024 / PART_OF_MEMORY;
    let items = usize::try_from(bytes / TYPICAL_BYTES).unwrap_or_default();
    // The number of shards is for another kind of cache. Unless it is given, the machine's processors are counted, which
    // takes some twenty system calls.
    let options = OptionsBuilder::new().estimated_items_capacity(items).weight_capacity(bytes).shards(1).build();
    let options = options.unwrap_or_else(|error| unreachable!("both capacities are set: {error}"));
    let (hashes, lifecycle) = (DefaultHashBuilder::default(), DefaultLifecycle::default());
    Arc::new(Mutex::new(unsync::Cache::with_options(options, Bytes, hashes, lifecycle)))
}

impl Default for Cache {
    fn default() -> Self {
        static UPSTREAMS: AtomicU64 = AtomicU64::new(0);
        Self { id: UPSTREAMS.fetch_add(1, Ordering::Relaxed), stored: Arc::clone(&STORED) }
    }
}

impl Cache {
    /// The stored response to `request`, fresh or stale.
    pub(crate) fn get(&self, request: &Prepared) -> Option<Arc<Entry>> {
        if !request.uses_cache() {
            return None;
        }
        let stored = self.stored();
        let of = |is_head| {
            let variants = &stored.get(&self.key(request, is_head))?.variants;
            variants.iter().find(|variant| variant.is_for(&request.headers)).map(|variant| Arc::clone(&variant.entry))
        };
        // A response to `GET` also answers `HEAD`: RFC 9110, section 9.3.2.
        of(false).or_else(|| if request.is_head() { of(true) } else { None })
    }

    /// Whether the last good response may not be stored, and so answers only one request.
    pub(crate) fn is_for_one(&self, request: &Prepared) -> bool {
        self.stored().peek(&self.key(request, request.is_head())).is_some_and(|stored| stored.is_for_one)
    }

    /// Stores `entry`, the response to `request`, instead of an earlier one, or removes that if `entry` may not be stored.
    /// Does nothing if a call that `began` later has ended before.
    pub(crate) fn put(&self, request: &Prepared, entry: &Arc<Entry>, began: Instant) {
        let mut all = self.stored();
        let earlier = all.peek(&self.key(request, request.is_head())).cloned();
        if earlier.as_ref().is_some_and(|earlier| earlier.began > began) {
            return;
        }
        let mut variants = Vec::new();
        if entry.may_be_stored() {
            variants
                .push(Variant { entry: Arc::clone(entry), selecting: selecting(entry.headers(), &request.headers) });
            let others = earlier.into_iter().flat_map(|earlier| earlier.variants);
            variants.extend(others.filter(|other| !other.is_for(&request.headers)).take(MAX_VARIANTS - 1));
        }
        all.insert(
            (self.id, request.is_head(), request.url.to_string()),
            Stored { variants, is_for_one: !entry.may_be_stored(), began },
        );
    }

    /// Removes what a request that is not safe may have changed: the responses of its URL, and of those that the response's
    /// `Location` and `Content-Location` name (RFC 9111, section 4.4). All that is stored is of the same origin. A call that is under way may
    /// have read the state before, so its response is not stored either. Returns the URLs.
    pub(crate) fn invalidate(&self, request: &Prepared, response: &HeaderMap) -> Vec<Url> {
        let named = [LOCATION, CONTENT_LOCATION]
            .into_iter()
            .filter_map(|name| request.url.join(response.get(name)?.to_str().ok()?).ok());
        let urls: Vec<_> = named.chain([request.url.clone()]).collect();
        let now = Instant::now();
        let mut all = self.stored();
        for url in &urls {
            for is_head in [false, true] {
                all.insert(
                    (self.id, is_head, url.to_string()),
                    Stored { variants: Vec::new(), is_for_one: false, began: now },
                );
            }
        }
        urls
    }

    fn stored(&self) -> MutexGuard<'_, Responses> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key<'a>(&self, request: &'a Prepared, is_head: bool) -> Wanted<'a> {
        Wanted(self.id, is_head, request.url.as_str())
    }
}

impl Equivalent<Key> for Wanted<'_> {
    fn equivalent(&self, (upstream, is_head, url): &Key) -> bool {
        (self.0, self.1, self.2) == (*upstream, *is_head, url.as_str())
    }
}

impl Variant {
    fn is_for(&self, request: &HeaderMap) -> bool {
        self.selecting.iter().all(|(name, value)| joined(request, name) == *value)
    }
}

impl Weighter<Key, Stored> for Bytes {
    fn weight(&self, (_, _, url): &Key, stored: &Stored) -> u64 {
        let variants = stored.variants.iter().map(|variant| variant.entry.bytes() + OVERHEAD).sum::<usize>();
        (url.len() + variants + OVERHEAD) as u64
    }
}

fn selecting(response: &HeaderMap, request: &HeaderMap) -> Vec<(HeaderName, Vec<u8>)> {
    let names = response.get_all(VARY).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let names = names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok());
    names
        .map(|name| {
            let value = joined(request, &name);
            (name, value)
        })
        .collect()
}

/// All lines of a header, as one.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Vec<u8> {
    headers.get_all(name).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b", "[..])
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use handler::http::{Method, StatusCode, header::CACHE_CONTROL};

    use super::*;
    use crate::attempt::Fetched;

    fn entry(cache_control: &str) -> Arc<Entry> {
        of(HeaderMap::from_iter([(CACHE_CONTROL, cache_control.parse().unwrap())]), 4)
    }

    fn of(headers: HeaderMap, bytes: usize) -> Arc<Entry> {
        let now = SystemTime::UNIX_EPOCH;
        Arc::new(Entry::new(Fetched { status: StatusCode::OK, headers, body: vec![b'a'; bytes], requested: now }, now))
    }

    #[test]
    fn keeps_the_last_response_that_may_be_stored() {
        let cache = Cache::default();
        let request = Prepared::new(Method::GET, "https://a.example/".parse().unwrap());
        assert!(!cache.is_for_one(&request), "before the first response");
        let earlier = Instant::now();
        let began = earlier + Duration::from_secs(1);
        for (control, stored) in [("max-age=60", true), ("no-store", false), ("no-cache", true), ("private", false)] {
            cache.put(&request, &entry(control), began);
            assert_eq!((cache.get(&request).is_some(), cache.is_for_one(&request)), (stored, !stored), "{control}");
            for late in ["max-age=60", "no-store"] {
                cache.put(&request, &entry(late), earlier);
                assert_eq!(
                    cache.get(&request).is_some(),
                    stored,
                    "{late} of a call that began before the one with {control}"
                );
            }
        }
    }

    #[test]
    fn a_response_from_before_a_change_is_not_stored() {
        let cache = Cache::default();
        let request = Prepared::new(Method::GET, "https://a.example/".parse().unwrap());
        let before = Instant::now();
        cache.invalidate(&request, &HeaderMap::new());
        cache.put(&request, &entry("max-age=60"), before);
        assert!(cache.get(&request).is_none() && !cache.is_for_one(&request));
        cache.put(&request, &entry("max-age=60"), Instant::now());
        assert!(cache.get(&request).is_some());
    }

    #[test]
    fn a_url_has_a_bounded_number_of_responses() {
        let cache = Cache::default();
        let mut request = Prepared::new(Method::GET, "https://a.example/".parse().unwrap());
        for tenant in 0..100 {
            request.headers.insert("x-tenant", tenant.into());
            let varying = [(CACHE_CONTROL, "max-age=60".parse().unwrap()), (VARY, "x-tenant".parse().unwrap())];
            cache.put(&request, &of(HeaderMap::from_iter(varying), 4), Instant::now());
            assert!(cache.get(&request).is_some(), "the latest one");
        }
        assert_eq!(cache.stored().peek(&cache.key(&request, false)).unwrap().variants.len(), MAX_VARIANTS);
    }

    /// 10,000 URLs, of which a hundred are hot, in a function of 128 MB: a megabyte for every hundred of them.
    #[test]
    fn what_is_used_most_stays_within_the_bound() {
        let cache = Cache { stored: responses(128), ..Cache::default() };
        let bound = cache.stored().capacity();
        assert_eq!(bound, 16 * 1024 * 1024);
        let (mut hits, mut hot) = (0, 0);
        let mut random = fastrand::Rng::with_seed(1);
        for number in 0..50_000 {
            let hottest = number % 2 == 0;
            let url = if hottest { random.u32(..100) } else { random.u32(100..10_000) };
            let request = Prepared::new(Method::GET, format!("https://a.example/{url}").parse().unwrap());
            let is_hit = cache.get(&request).is_some();
            // Before, the cache has not seen enough of them.
            if hottest && number > 10_000 {
                hot += 1;
                hits += u32::from(is_hit);
            }
            if !is_hit {
                let headers = HeaderMap::from_iter([(CACHE_CONTROL, "max-age=60".parse().unwrap())]);
                cache.put(&request, &of(headers, 10_000), Instant::now());
            }
            assert!(cache.stored().weight() <= bound);
        }
        assert!(hits * 100 >= hot * 99, "{hits} of {hot}");
        let request = Prepared::new(Method::GET, "https://a.example/large".parse().unwrap());
        cache.put(&request, &of(HeaderMap::new(), 17 * 1024 * 1024), Instant::now());
        assert!(cache.stored().weight() <= bound && cache.get(&request).is_none(), "one that is over the bound");
    }
}
