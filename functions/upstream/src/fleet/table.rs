//! The DynamoDB table that `SHARED_STATE_TABLE` names: its items, and the requests to it.
//!
//! Two items have the upstream's key. `response` is the last good response, which may be large. `upstream` is what the
//! environments agree on. It is small and written more often. One query reads both. Writes have conditions, so that a
//! late write does not undo a newer one. Only the holder of the lease removes a response. An impossible time in an item
//! does not block a write either: DynamoDB evaluates a comparison with a missing value, or with one of another type, as
//! false.

use std::{
    collections::HashMap,
    error::Error,
    fmt,
    io::{Read, Write},
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_sdk_dynamodb::{
    Client, Config,
    config::{http::HttpResponse, retry::RetryConfig},
    error::{ProvideErrorMetadata, SdkError},
    operation::update_item::builders::UpdateItemFluentBuilder,
    primitives::Blob,
    types::AttributeValue::{self, B, M, N, S},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use handler::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;
use tracing::warn;

use crate::{breaker::HELD_FOR, entry::Entry, settings::Settings};

/// The items' attributes. `key` and `part` are the table's key, and `expires` is its time to live.
const KEY: &str = "key";
const PART: &str = "part";
const RESPONSE: &str = "response";
const UPSTREAM: &str = "upstream";

/// Part of the key. It changes with the format of the items, so that no version of this program reads another format.
const VERSION: &str = "1";

/// DynamoDB takes 400 kB, names of attributes included. The headers, some hundred bytes, count too.
const MOST_BYTES: usize = 390_000;
/// DynamoDB bills one unit for a smaller body, compressed or not.
const COMPRESSED_FROM: usize = 1_000;
/// The clocks of environments differ by less than this. A time further in the future is invalid.
const SKEW: Duration = Duration::from_mins(1);
/// Lambda's longest timeout, and so the longest lease.
const LEASED_FOR: Duration = Duration::from_mins(15);
/// The item is needed for minutes only. It is kept longer for people who look at the table.
const KEPT_FOR: Duration = Duration::from_hours(24);

/// The items of one upstream.
#[derive(Clone)]
pub(crate) struct Table {
    name: String,
    key: String,
    max_body_bytes: usize,
    /// How long an operation may take. A read that comes too late for its request can still be of use.
    timeout: Duration,
    client: Arc<OnceCell<Client>>,
}

/// Both items, as read.
#[derive(Default)]
pub(crate) struct Items {
    pub(crate) response: Option<Entry>,
    pub(crate) agreed: Agreed,
}

/// What the environments agree on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Agreed {
    /// The upstream is left alone until then. If that has passed, the upstream is unhealthy, and one environment may
    /// probe it.
    pub(crate) open_until: Option<SystemTime>,
    /// One environment has the lease to call the upstream, until then at the latest.
    pub(crate) leased_until: Option<SystemTime>,
    /// When the last lease was given back. Only an environment that has read this may take the next one.
    closed: Option<SystemTime>,
}

/// The right to call the upstream as the only environment.
#[derive(Clone, Debug)]
pub(crate) struct Lease(String);

impl Table {
    /// Uses the table that `settings` name. `None` if they name none. The key is a digest of everything that decides
    /// the response, because a URL can hold a secret.
    pub(crate) fn new(settings: &Settings) -> Option<Self> {
        let name = settings.shared_state_table.clone()?;
        let secret_id = settings.secret_id.as_deref().unwrap_or_default();
        let parts = [VERSION, settings.url.as_str(), secret_id].into_iter().chain(settings.secret_json_key.as_deref());
        let digest = Sha256::digest(parts.collect::<Vec<_>>().join("\n"));
        let key = URL_SAFE_NO_PAD.encode(digest);
        let timeout = settings.shared_state_timeout.max(aws::TIMEOUT);
        Some(Self { name, key, max_body_bytes: settings.max_body_bytes, timeout, client: Arc::default() })
    }

    /// The client. The first call takes processor time, but makes no request.
    pub(crate) async fn client(&self) -> &Client {
        let new = async || {
            // Two attempts, the second almost at once, because a connection can be dead.
            let retry = RetryConfig::standard().with_max_attempts(2).with_initial_backoff(Duration::from_millis(5));
            let config = Config::from(aws::config().await).to_builder().retry_config(retry);
            Client::from_conf(config.timeout_config(aws::timeouts(self.timeout)).build())
        };
        self.client.get_or_init(new).await
    }

    /// Reads both items. A response that is not valid is ignored.
    ///
    /// # Errors
    ///
    /// If DynamoDB does not return them.
    pub(crate) async fn read(self) -> Result<Items, TableError> {
        let query = self.client().await.query().table_name(&self.name);
        let query = query.key_condition_expression("#key = :key").expression_attribute_names("#key", KEY);
        let read = query.expression_attribute_values(":key", S(self.key)).send().await?;
        let mut items = Items::default();
        let now = SystemTime::now();
        for mut item in read.items.unwrap_or_default() {
            match item.remove(PART) {
                Some(S(part)) if part == UPSTREAM => items.agreed = agreed(&item, now),
                Some(S(part)) if part == RESPONSE => {
                    items.response = response(item, self.max_body_bytes, now);
                    if items.response.is_none() {
                        warn!("the response in the table of SHARED_STATE_TABLE is not valid, and is ignored");
                    }
                }
                _ => {}
            }
        }
        Ok(items)
    }

    /// Takes the lease for the time `ahead`, unless another environment has it, or has had it since `seen`: then it was
    /// given back, or the upstream is to be left alone.
    ///
    /// # Errors
    ///
    /// If DynamoDB does not answer.
    pub(crate) async fn lease(self, seen: Agreed, ahead: Duration) -> Result<Option<Lease>, TableError> {
        let id = format!("{:016x}", fastrand::u64(..));
        let now = SystemTime::now();
        let leased = self
            .update()
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
        Ok(met(leased)?.then_some(Lease(id)))
    }

    /// Writes `response`, unless there is a later one. Returns `false` if it is too large.
    ///
    /// # Errors
    ///
    /// If DynamoDB does not accept it.
    pub(crate) async fn put(&self, response: &Entry, until: SystemTime) -> Result<bool, TableError> {
        let Some(mut item) = item(response) else { return Ok(false) };
        item.extend([
            (KEY.to_owned(), S(self.key.clone())),
            (PART.to_owned(), S(RESPONSE.to_owned())),
            ("expires".to_owned(), seconds(until)),
        ]);
        let put = self.client().await.put_item().table_name(&self.name).set_item(Some(item));
        let put = put
            .condition_expression("NOT received BETWEEN :received AND :soon")
            .expression_attribute_values(":received", ms(response.received()))
            .expression_attribute_values(":soon", ms(SystemTime::now() + SKEW));
        met(put.send().await).map(|_| true)
    }

    /// Removes the response, because there is a later one that may not be stored.
    ///
    /// # Errors
    ///
    /// If DynamoDB does not remove it.
    pub(crate) async fn remove(&self) -> Result<(), TableError> {
        let delete = self.client().await.delete_item().table_name(&self.name);
        delete.key(KEY, S(self.key.clone())).key(PART, S(RESPONSE.to_owned())).send().await?;
        Ok(())
    }

    /// Makes all environments leave the upstream alone for `open_for`, unless they already do so for longer.
    ///
    /// # Errors
    ///
    /// If DynamoDB does not accept it.
    pub(crate) async fn open(&self, open_for: Duration) -> Result<(), TableError> {
        let now = SystemTime::now();
        let opened = self
            .update()
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
    pub(crate) async fn close(&self, Lease(id): Lease, is_healthy: bool) -> Result<(), TableError> {
        let verdict = if is_healthy { ", open_until" } else { "" };
        let update = format!("SET closed = :now REMOVE leased_until, leased_to{verdict}");
        let update = self.update().await.update_expression(update);
        let update = update.condition_expression("leased_to = :me").expression_attribute_values(":me", S(id));
        let closed = update.expression_attribute_values(":now", ms(SystemTime::now())).send().await;
        met(closed).map(|_| ())
    }

    /// An update of the item `upstream`.
    async fn update(&self) -> UpdateItemFluentBuilder {
        let update = self.client().await.update_item().table_name(&self.name);
        update.key(KEY, S(self.key.clone())).key(PART, S(UPSTREAM.to_owned()))
    }
}

/// `response` as an item. `None` if it is too large for one.
fn item(response: &Entry) -> Option<HashMap<String, AttributeValue>> {
    let headers = response.needed_headers();
    let headers: HashMap<_, _> =
        headers.map(|(name, value)| (name.to_string(), B(Blob::new(value.as_bytes())))).collect();
    let body = response.body();
    let gzipped =
        (body.len() >= COMPRESSED_FROM).then(|| gzip(body)).flatten().filter(|gzipped| gzipped.len() < body.len());
    let mut item = HashMap::from([
        ("status".to_owned(), N(response.status().as_u16().to_string())),
        ("headers".to_owned(), M(headers)),
        ("requested".to_owned(), ms(response.requested())),
        ("received".to_owned(), ms(response.received())),
    ]);
    if gzipped.is_some() {
        item.insert("encoding".to_owned(), S("gzip".to_owned()));
    }
    let headers: usize = response.needed_headers().map(|(name, value)| name.as_str().len() + value.len()).sum();
    let body = gzipped.unwrap_or_else(|| body.to_vec());
    let fits = headers + body.len() <= MOST_BYTES;
    item.insert("body".to_owned(), B(Blob::new(body)));
    fits.then_some(item)
}

/// The response in `item`. `None` if it is not valid.
fn response(mut item: HashMap<String, AttributeValue>, max_body_bytes: usize, now: SystemTime) -> Option<Entry> {
    let status = StatusCode::from_u16(item.get("status")?.as_n().ok()?.parse().ok()?).ok()?;
    let received = time(&item, "received").filter(|received| *received < now + SKEW)?;
    let requested = time(&item, "requested").filter(|requested| *requested <= received)?;
    let mut headers = HeaderMap::new();
    for (name, value) in item.get("headers")?.as_m().ok()? {
        let value = HeaderValue::from_bytes(value.as_b().ok()?.as_ref()).ok()?;
        headers.insert(HeaderName::try_from(name).ok()?, value);
    }
    let B(body) = item.remove("body")? else { return None };
    let body = match item.get("encoding") {
        None => body.into_inner(),
        Some(S(gzip)) if gzip == "gzip" => gunzip(body.as_ref(), max_body_bytes)?,
        Some(_) => return None,
    };
    let entry = Entry::restored(status, &headers, body, requested, received);
    (status.is_success() && entry.may_be_stored()).then_some(entry)
}

fn agreed(item: &HashMap<String, AttributeValue>, now: SystemTime) -> Agreed {
    let until = |name, most| time(item, name).filter(|until| *until < now + most + SKEW);
    Agreed {
        open_until: until("open_until", HELD_FOR),
        leased_until: until("leased_until", LEASED_FOR).filter(|until| *until > now),
        closed: time(item, "closed"),
    }
}

fn gzip(body: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).and_then(|()| encoder.finish()).ok()
}

fn gunzip(gzipped: &[u8], max_bytes: usize) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    let read = GzDecoder::new(gzipped).take(max_bytes as u64 + 1).read_to_end(&mut body).ok()?;
    (read <= max_bytes).then_some(body)
}

fn since_1970(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(u64::MAX)
}

fn ms(time: SystemTime) -> AttributeValue {
    N(since_1970(time).to_string())
}

fn seconds(time: SystemTime) -> AttributeValue {
    N((since_1970(time) / 1000).to_string())
}

fn time(item: &HashMap<String, AttributeValue>, name: &str) -> Option<SystemTime> {
    let ms = item.get(name)?.as_n().ok()?.parse().ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms))
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
pub(crate) enum TableError {
    /// An operation failed.
    Failed(aws::Error),
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
            Self::Late => "DynamoDB took too long",
        })
    }
}

impl Error for TableError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Failed(cause) => Some(cause),
            Self::Late => None,
        }
    }
}
