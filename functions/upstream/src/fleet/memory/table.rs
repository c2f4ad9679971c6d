//! The DynamoDB table that `SHARED_STATE_TABLE` names: its items, and the requests to it.
//!
//! An item's sort key says what it is. `upstream` is the verdict on the upstream, with the lease to probe it. `response` is
//! the last good response of a URL, which may be large. `lease` is the lease to renew that; it is small and written more
//! often. It also says when the URL was invalidated. For the URL of the settings, `upstream` is that item too, so that an
//! endpoint with one URL has two items. Requests that have headers, or another method than `GET`, have a `response` and a
//! `lease` of their own, with a digest of these in the sort key: the response may vary with them. `BatchGetItem` reads
//! all that a request needs in one round trip.
//!
//! Writes have conditions, so that a late write does not undo a newer one. Only the holder of the lease deletes a
//! response. An impossible time in an item does not block a write either: DynamoDB evaluates a comparison with a missing
//! value, or with one of another type, as false.

use std::{
    collections::HashMap,
    error::Error,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_sdk_dynamodb::{
    Client, Config,
    config::{http::HttpResponse, retry::RetryConfig},
    error::{ProvideErrorMetadata, SdkError},
    operation::{batch_get_item::BatchGetItemError, update_item::builders::UpdateItemFluentBuilder},
    types::{AttributeValue::S, KeysAndAttributes},
};
use tokio::sync::OnceCell;
use tracing::warn;

use super::{
    item::{item, ms, response, seconds, time},
    key::{Key, Keys, Keyspace},
};
use crate::{breaker::HELD_FOR, entry::Entry, settings::Settings};

/// The clocks of environments differ by less than this. A time further in the future is invalid.
pub(super) const SKEW: Duration = Duration::from_mins(1);
/// Lambda's longest timeout, and so the longest lease.
const LEASED_FOR: Duration = Duration::from_mins(15);
/// No response is used for longer, and no item with the time of its invalidation is deleted earlier.
pub(super) const KEPT_FOR: Duration = Duration::from_hours(366 * 24);

/// The items of one upstream.
#[derive(Clone)]
pub(super) struct Table {
    name: String,
    keyspace: Keyspace,
    max_body_bytes: usize,
    /// How long an operation may take. A read that comes too late for its request can still be of use.
    timeout: Duration,
    client: Arc<OnceCell<Client>>,
}

/// What was read for a request.
pub(super) struct Items {
    pub(super) response: Option<Arc<Entry>>,
    /// When the URL was invalidated. A response that was asked for before is not valid.
    pub(super) invalidated: Option<SystemTime>,
    open_until: Option<SystemTime>,
    /// The lease to probe the upstream.
    pub(super) probe: LeaseItem,
    /// The lease to renew the response.
    pub(super) renewal: LeaseItem,
}

/// What the environments agree on about an upstream.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    Healthy,
    /// Nobody calls it for this long.
    Open(Duration),
    /// One environment may call it.
    ProbeDue,
}

/// A lease, as it was read.
pub(super) struct LeaseItem {
    key: Key,
    /// One environment has it, until then at the latest.
    leased_until: Option<SystemTime>,
    /// When it was last given back. Only an environment that has read this may take it next.
    closed: Option<SystemTime>,
}

/// The right to call the upstream as the only environment.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    key: Key,
    id: String,
}

impl Table {
    /// Uses the table that `settings` name. `None` if they name none.
    pub(super) fn new(settings: &Settings) -> Option<Self> {
        Some(Self {
            name: settings.shared_state_table.clone()?,
            keyspace: Keyspace::new(settings),
            max_body_bytes: settings.max_body_bytes,
            timeout: settings.shared_state_timeout.max(aws::TIMEOUT),
            client: Arc::default(),
        })
    }

    /// The keys of its items.
    pub(super) fn keyspace(&self) -> &Keyspace {
        &self.keyspace
    }

    /// The client. The first call takes processor time, but makes no request.
    pub(super) async fn client(&self) -> &Client {
        let new = async || {
            // Two attempts, the second almost at once, because a connection can be dead.
            let retry = RetryConfig::standard().with_max_attempts(2).with_initial_backoff(Duration::from_millis(5));
            let config = Config::from(aws::config().await).to_builder().retry_config(retry);
            Client::from_conf(config.timeout_config(aws::timeouts(self.timeout)).build())
        };
        self.client.get_or_init(new).await
    }

    /// Reads the items with these `keys`. A response that is not valid is ignored.
    ///
    /// # Errors
    ///
    /// If DynamoDB does not return all that there are.
    pub(super) async fn get(self, keys: Keys) -> Result<Items, TableError> {
        let Keys { upstream, url, lease: of_lease, response: of_response } = keys;
        let mut wanted = vec![&upstream, &url, &of_lease, &of_response];
        wanted.sort();
        // DynamoDB refuses a key that it gets twice.
        wanted.dedup();
        let wanted = wanted.into_iter().map(Key::attributes).collect();
        let wanted = KeysAndAttributes::builder().set_keys(Some(wanted)).build();
        let wanted = wanted.map_err(SdkError::<BatchGetItemError, _>::construction_failure)?;
        let read = self.client().await.batch_get_item().request_items(&self.name, wanted).send().await?;
        if read.unprocessed_keys.is_some_and(|keys| !keys.is_empty()) {
            return Err(TableError::Incomplete);
        }
        let items = read.responses.unwrap_or_default().remove(&self.name).unwrap_or_default();
        let mut items: HashMap<_, _> = items.into_iter().filter_map(|item| Some((Key::of(&item)?, item))).collect();
        let now = SystemTime::now();
        let response = items.remove(&of_response).and_then(|item| {
            let response = response(item, self.max_body_bytes, now);
            if response.is_none() {
                warn!("the response in the table of SHARED_STATE_TABLE is not valid, and is ignored");
            }
            response.map(Arc::new)
        });
        let until = |key: &Key, name, most| time(items.get(key)?, name).filter(|until| *until < now + most + SKEW);
        let lease = |key: Key| LeaseItem {
            leased_until: until(&key, "leased_until", LEASED_FOR).filter(|until| *until > now),
            closed: items.get(&key).and_then(|item| time(item, "closed")),
            key,
        };
        Ok(Items {
            response,
            invalidated: until(&url, "invalidated", Duration::ZERO),
            open_until: until(&upstream, "open_until", HELD_FOR),
            probe: lease(upstream),
            renewal: lease(of_lease),
        })
    }

    /// Takes the lease for the time `ahead`, unless another environment has it, or has had it since it was `seen`: then it
    /// was given back, or the upstream is to be left alone.
    ///
    /// # Errors
    ///
    /// If DynamoDB does not answer.
    pub(super) async fn take(self, seen: LeaseItem, ahead: Duration) -> Result<Option<Lease>, TableError> {
        let id = format!("{:016x}", fastrand::u64(..));
        let now = SystemTime::now();
        let taken = self
            .update(&seen.key)
            .await
            .update_expression("SET leased_until = :until, leased_to = :me, expires = :expires")
            .condition_expression(
                "NOT leased_until BETWEEN :now AND :far AND NOT open_until BETWEEN :now AND :held \
                 AND NOT (closed > :closed AND closed < :soon)",
            )
            .expression_attribute_values(":until", ms(now + ahead))
            .expression_attribute_values(":me", S(id.clone()))
            .expression_attribute_values(":expires", seconds(now + KEPT_FOR))
            .expression_attribute_values(":now", ms(now))
            .expression_attribute_values(":far", ms(now + LEASED_FOR))
            .expression_attribute_values(":held", ms(now + HELD_FOR + SKEW))
            .expression_attribute_values(":closed", ms(seen.closed.unwrap_or(SystemTime::UNIX_EPOCH)))
            .expression_attribute_values(":soon", ms(now + SKEW))
            .send()
            .await;
        Ok(met(taken)?.then_some(Lease { key: seen.key, id }))
    }

    /// Writes `response`, unless there is a later one. Returns `false` if it is too large.
    ///
    /// # Errors
    ///
    /// If DynamoDB does not accept it.
    pub(super) async fn put(&self, keys: &Keys, response: &Entry, until: SystemTime) -> Result<bool, TableError> {
        let Some(mut item) = item(response) else { return Ok(false) };
        item.extend(keys.response.attributes());
        item.insert("expires".to_owned(), seconds(until));
        let put = self.client().await.put_item().table_name(&self.name).set_item(Some(item));
        let put = put
            .condition_expression("NOT received BETWEEN :received AND :soon")
            .expression_attribute_values(":received", ms(response.received()))
            .expression_attribute_values(":soon", ms(SystemTime::now() + SKEW));
        met(put.send().await).map(|_| true)
    }

    /// Deletes the response, because there is a later one that may not be stored.
    ///
    /// # Errors
    ///
    /// If DynamoDB does not delete it.
    pub(super) async fn delete(&self, keys: &Keys) -> Result<(), TableError> {
        let delete = self.client().await.delete_item().table_name(&self.name);
        delete.set_key(Some(keys.response.attributes())).send().await?;
        Ok(())
    }

    /// Makes no response of the URL with this [key](Keyspace::url) valid that was asked for before `at`.
    ///
    /// # Errors
    ///
    /// If DynamoDB does not accept it.
    pub(super) async fn invalidate(&self, url: &Key, at: SystemTime) -> Result<(), TableError> {
        let invalidated = self
            .update(url)
            .await
            .update_expression("SET invalidated = :at, expires = :expires")
            .condition_expression("NOT invalidated BETWEEN :at AND :soon")
            .expression_attribute_values(":at", ms(at))
            .expression_attribute_values(":soon", ms(at + SKEW))
            .expression_attribute_values(":expires", seconds(at + KEPT_FOR))
            .send()
            .await;
        met(invalidated).map(|_| ())
    }

    /// Makes all environments leave the upstream alone for `open_for`, unless they already do so for longer.
    ///
    /// # Errors
    ///
    /// If DynamoDB does not accept it.
    pub(super) async fn open(&self, open_for: Duration) -> Result<(), TableError> {
        let now = SystemTime::now();
        let opened = self
            .update(self.keyspace.upstream())
            .await
            .update_expression("SET open_until = :until, expires = :expires REMOVE leased_until, leased_to")
            .condition_expression("NOT open_until BETWEEN :until AND :far")
            .expression_attribute_values(":until", ms(now + open_for))
            .expression_attribute_values(":far", ms(now + HELD_FOR + SKEW))
            .expression_attribute_values(":expires", seconds(now + KEPT_FOR))
            .send()
            .await;
        met(opened).map(|_| ())
    }

    /// Gives `lease` back, unless it has ended, and records whether the upstream was found healthy.
    ///
    /// # Errors
    ///
    /// If DynamoDB does not accept it.
    pub(super) async fn give_back(&self, lease: Lease, is_healthy: bool) -> Result<(), TableError> {
        let verdict = if is_healthy { ", open_until" } else { "" };
        let update = format!("SET closed = :now REMOVE leased_until, leased_to{verdict}");
        let update = self.update(&lease.key).await.update_expression(update);
        let update = update.condition_expression("leased_to = :me").expression_attribute_values(":me", S(lease.id));
        let closed = update.expression_attribute_values(":now", ms(SystemTime::now())).send().await;
        met(closed).map(|_| ())
    }

    /// Whether `lease` is in the item of the verdict, which [`open`](Self::open) writes.
    pub(super) fn is_of_upstream(&self, lease: &Lease) -> bool {
        lease.key == *self.keyspace.upstream()
    }

    async fn update(&self, key: &Key) -> UpdateItemFluentBuilder {
        self.client().await.update_item().table_name(&self.name).set_key(Some(key.attributes()))
    }
}

impl Items {
    pub(super) fn verdict(&self, now: SystemTime) -> Verdict {
        match self.open_until.map(|until| until.duration_since(now)) {
            None => Verdict::Healthy,
            Some(Ok(left)) => Verdict::Open(left),
            Some(Err(_)) => Verdict::ProbeDue,
        }
    }
}

impl LeaseItem {
    pub(super) fn is_free(&self) -> bool {
        self.leased_until.is_none()
    }
}

/// Whether the write's condition was met.
fn met<T, E>(written: Result<T, SdkError<E, HttpResponse>>) -> Result<bool, TableError>
where
    E: Error + ProvideErrorMetadata + 'static,
{
    match written {
        Ok(_) => Ok(true),
        Err(error) if error.code() == Some("ConditionalCheckFailedException") => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Why the table could not be used.
#[derive(Debug)]
pub(super) enum TableError {
    /// An operation failed.
    Failed(aws::Error),
    /// A part of the table gets more requests than it allows.
    Incomplete,
    /// There was no answer within a request's time for it.
    Late,
}

impl<E> From<SdkError<E, HttpResponse>> for TableError
where
    E: Error + ProvideErrorMetadata + 'static,
{
    fn from(error: SdkError<E, HttpResponse>) -> Self {
        Self::Failed(error.into())
    }
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Failed(_) => "DynamoDB refused or was not reached",
            Self::Incomplete => "DynamoDB did not return all items",
            Self::Late => "DynamoDB took too long",
        })
    }
}

impl Error for TableError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Failed(cause) => Some(cause),
            Self::Incomplete | Self::Late => None,
        }
    }
}
