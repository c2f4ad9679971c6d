//! The keys of the table's items. They are digests of everything that decides a response, because a URL can hold a secret.

use aws_sdk_dynamodb::types::AttributeValue::S;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use handler::http::Method;
use sha2::{Digest, Sha256};
use url::Url;

use super::item::Item;
use crate::{request::Prepared, settings::Settings};

/// The table's partition key and sort key. `expires` is its time to live.
const PARTITION: &str = "key";
const SORT: &str = "part";

const UPSTREAM: &str = "upstream";
const LEASE: &str = "lease";
const RESPONSE: &str = "response";

/// Part of the keys. It changes with the format of the items, so that no version of this program reads another format.
const VERSION: &str = "2";

/// Makes the keys of an upstream's items.
#[derive(Clone)]
pub(super) struct Keyspace {
    /// The URL of the settings.
    base: Url,
    upstream: Key,
}

/// The primary key of an item.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    partition: String,
    sort: String,
}

/// The primary keys of the items that a request needs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Keys {
    pub(super) upstream: Key,
    /// Says when the URL was invalidated.
    pub(super) url: Key,
    pub(super) lease: Key,
    pub(super) response: Key,
}

impl Keyspace {
    pub(super) fn new(settings: &Settings) -> Self {
        let secret_id = settings.secret_id.as_deref().unwrap_or_default();
        let parts = [VERSION, settings.url.as_str(), secret_id].into_iter().chain(settings.secret_json_key.as_deref());
        let upstream = Key { partition: digest(parts), sort: UPSTREAM.to_owned() };
        Self { base: settings.url.clone(), upstream }
    }

    /// The key of the item that has the verdict.
    pub(super) fn upstream(&self) -> &Key {
        &self.upstream
    }

    /// The keys of the items for `request`.
    pub(super) fn keys(&self, request: &Prepared) -> Keys {
        let url = self.url(&request.url);
        let own = |sort: &str| Key { sort: [sort, &variant(request)].concat(), ..url.clone() };
        let (lease, response) = (own(LEASE), own(RESPONSE));
        let lease = if lease.sort == LEASE { url.clone() } else { lease };
        Keys { upstream: self.upstream.clone(), url, lease, response }
    }

    /// The key of the item that says when `url` was invalidated.
    pub(super) fn url(&self, url: &Url) -> Key {
        if *url == self.base {
            return self.upstream.clone();
        }
        Key { partition: digest([&self.upstream.partition, url.as_str()]), sort: LEASE.to_owned() }
    }
}

impl Key {
    pub(super) fn of(item: &Item) -> Option<Self> {
        let text = |name| item.get(name)?.as_s().ok().cloned();
        Some(Self { partition: text(PARTITION)?, sort: text(SORT)? })
    }

    pub(super) fn attributes(&self) -> Item {
        [(PARTITION, &self.partition), (SORT, &self.sort)].map(|(name, key)| (name.to_owned(), S(key.clone()))).into()
    }
}

/// What sets the items of `request` apart from those of a `GET` without headers of the author's.
fn variant(request: &Prepared) -> String {
    if request.method == Method::GET && request.headers.is_empty() {
        return String::new();
    }
    let mut headers: Vec<_> = request.headers.iter().collect();
    // The order of the lines of one header counts, and stays.
    headers.sort_by_key(|(name, _)| name.as_str());
    let headers = headers.into_iter().flat_map(|(name, value)| [name.as_str().as_bytes(), value.as_bytes()]);
    format!(" {}", digest([request.method.as_str().as_bytes()].into_iter().chain(headers)))
}

fn digest(parts: impl IntoIterator<Item = impl AsRef<[u8]>>) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part);
        // No part has it.
        digest.update("\n");
    }
    URL_SAFE_NO_PAD.encode(digest.finalize())
}
