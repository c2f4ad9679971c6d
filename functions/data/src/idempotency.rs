//! Requests that may be sent again: `Idempotency-Key`
//! ([draft-ietf-httpapi-idempotency-key-header](https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/)).
//!
//! A request with a key makes a record in the table, on condition that there is none. Its answer is put into the record.
//! So it costs two writes, or one if [`commit`](crate::commit()) puts the answer there with the endpoint's own writes. A
//! request that is sent again costs one, which fails and returns the record.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use aws_sdk_dynamodb::{
    operation::put_item::PutItemError,
    types::{
        AttributeValue::{B, N, S},
        ReturnValuesOnConditionCheckFailure::AllOld,
        TransactWriteItem, Update,
    },
};
use handler::{
    Body, Endpoint, Problem, Request, Response, after_response, claim, deadline,
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{InvalidHeaderName, RETRY_AFTER},
    },
    is_stream, record,
};
use serde_json::{from_str, to_string};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tracing::error;

use crate::{
    Error, Table,
    attribute::Attributes,
    item::{EXPIRES, number},
    since_1970,
    table::{Name, client, key},
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The attributes of a record, besides its key and `expires`.
const FINGERPRINT: &str = "fingerprint";
const TOKEN: &str = "token";
const LOCKED: &str = "locked";
const ANSWER: &str = "answer";
const BODY: &str = "body";

/// The sort key of records. It has no `#`, so that no item has it.
const RECORD: &str = "idempotency";

/// A request holds its key for so long if it has no deadline, outside of Lambda.
const LOCKED_FOR: Duration = Duration::from_secs(30);
/// [`deadline`] is this long before Lambda's own.
const MARGIN: Duration = Duration::from_millis(100);
/// DynamoDB takes items of 400 kB.
const MOST_ANSWER_BYTES: usize = 350_000;

/// Makes an endpoint idempotent for requests that have an `Idempotency-Key`, with a record in the `table`: the same
/// request of the same caller gets the same answer, with its status and headers, and is done once. A request without the
/// header is done each time, unless a key is [required](Idempotent::required).
///
/// - The record is the caller's, known by the [claim](claim()) `sub`, `userArn` or `principal`, and that of the method and the path.
/// - Another query or body with the key: 422 `idempotency-key-reused`.
/// - The request is under way: 409 `idempotency-key-in-use` with `Retry-After`. If its process dies, the key is free
///   again when the invocation's deadline has passed.
/// - A [`Problem`], a 5xx, a panic or the deadline is not remembered: the next try is done again. What the endpoint wrote
///   before must be one [`commit`](crate::commit()), which writes all, with the answer, or nothing.
/// - The answer is kept for 24 hours, or [`kept_for`](Idempotent::kept_for).
///
/// The function's role needs `dynamodb:PutItem`, `dynamodb:UpdateItem` and `dynamodb:DeleteItem` on the table.
pub fn idempotent<T, E: Endpoint + Sync>(table: &'static Table<T>, endpoint: E) -> Idempotent<E> {
    let (kept_for, most_bytes) = (Duration::from_hours(24), MOST_ANSWER_BYTES);
    Idempotent { table: table.name(), endpoint, is_required: false, kept_for, most_bytes }
}

/// An endpoint that [`idempotent`] made.
#[derive(Clone)]
pub struct Idempotent<E> {
    table: &'static Name,
    endpoint: E,
    is_required: bool,
    kept_for: Duration,
    most_bytes: usize,
}

impl<E> Idempotent<E> {
    /// Refuses a request without a key: 400 [`malformed-request`](Problem::malformed_request).
    #[must_use]
    pub fn required(self) -> Self {
        Self { is_required: true, ..self }
    }

    /// How long an answer is kept. DynamoDB deletes it later, within days; it counts no more from then on.
    #[must_use]
    pub fn kept_for(self, kept_for: Duration) -> Self {
        Self { kept_for, ..self }
    }

    /// How many bytes an answer may have, headers included: at most 350,000, which is what an item can hold, and the
    /// default. With [`commit`](crate::commit()), a larger one is an `internal` problem before anything is written.
    /// Otherwise its work is done, and the next try gets 409 `idempotency-answer-lost`. A stream counts as larger.
    #[must_use]
    pub fn answers_up_to(self, bytes: usize) -> Self {
        Self { most_bytes: bytes.min(MOST_ANSWER_BYTES), ..self }
    }
}

impl<E: Endpoint + Sync> Endpoint for Idempotent<E> {
    const TAKES_ALL: bool = E::TAKES_ALL;

    async fn call(self, mut request: Request) -> Result<Response, Problem> {
        let Some(given) = given(request.headers())? else {
            if self.is_required {
                let detail = "Send an Idempotency-Key: a new one for each request, the same if you send it again.";
                return Err(Problem::malformed_request(detail));
            }
            return self.endpoint.call(request).await;
        };
        let held = Held(Arc::new(Lease::new(&self, &request, &given)?));
        let lease = Arc::clone(&held.0);
        if let Some(answer) = lease.take(&request).await? {
            lease.settle();
            record("idempotency", "repeated");
            return answer;
        }
        record("idempotency", "new");
        lease.is_taken.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(Arc::clone(&lease));
        let answer = self.endpoint.call(request).await;
        match &answer {
            _ if lease.is_settled() => {}
            Ok(response) if !response.status().is_server_error() => lease.complete(response).await,
            _ => lease.release().await,
        }
        answer
    }
}

/// Frees the key of a request whose endpoint panicked, or was ended by the deadline.
struct Held(Arc<Lease>);

impl Drop for Held {
    fn drop(&mut self) {
        let Self(lease) = self;
        if lease.is_taken.load(Ordering::Relaxed) && !lease.is_settled() {
            let lease = Arc::clone(lease);
            after_response(async move { lease.release().await });
        }
    }
}

/// A request's right to be the one that does what its key is for.
pub(crate) struct Lease {
    table: &'static Name,
    key: Attributes,
    token: String,
    kept_for: Duration,
    most_bytes: usize,
    is_taken: AtomicBool,
    /// Whether the record is as it is to stay.
    is_settled: AtomicBool,
}

impl Lease {
    fn new<E>(endpoint: &Idempotent<E>, request: &Request, given: &str) -> Result<Self, Problem> {
        let caller = ["sub", "userArn", "principal"].iter().find_map(|name| claim(request, name));
        // Without one, a caller could read the answer of another by its key.
        let caller =
            caller.ok_or_else(|| Problem::unauthorized("Bearer", "An Idempotency-Key needs a known caller."))?;
        let (method, path) = (request.method().as_str(), request.uri().path());
        let digest = digest(&[&caller, method, path, given].map(str::as_bytes));
        let hex = digest.iter().fold(format!("{RECORD}#"), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        Ok(Self {
            table: endpoint.table,
            key: key(&hex, RECORD.to_owned()),
            token: format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..)),
            kept_for: endpoint.kept_for,
            most_bytes: endpoint.most_bytes,
            is_taken: AtomicBool::new(false),
            is_settled: AtomicBool::new(false),
        })
    }

    /// That of a request, if it has one which is not settled.
    pub(crate) fn of(request: &Request) -> Option<Arc<Self>> {
        request.extensions().get::<Arc<Self>>().filter(|lease| !lease.is_settled()).cloned()
    }

    pub(crate) fn settle(&self) {
        self.is_settled.store(true, Ordering::Relaxed);
    }

    fn is_settled(&self) -> bool {
        self.is_settled.load(Ordering::Relaxed)
    }

    /// Takes the key. If it is not free, returns what the caller gets.
    async fn take(&self, request: &Request) -> Result<Option<Result<Response, Problem>>, Error> {
        let body: &[u8] = match request.body() {
            Body::Text(text) => text.as_bytes(),
            Body::Binary(bytes) => bytes,
            _ => &[],
        };
        let fingerprint = B(digest(&[request.uri().query().unwrap_or_default().as_bytes(), body]).into());
        let now = since_1970(SystemTime::now());
        let left = deadline().map_or(LOCKED_FOR, |deadline| deadline.duration_since(Instant::now()) + MARGIN);
        let put = client().await.put_item().table_name(self.table.get()?);
        let put = put
            .set_item(Some(self.key.clone()))
            .item(FINGERPRINT, fingerprint.clone())
            .item(TOKEN, S(self.token.clone()))
            .item(LOCKED, ms(now + left))
            .item(EXPIRES, number((now + self.kept_for).as_secs()))
            .condition_expression("attribute_not_exists(pk) OR expires < :now OR locked < :ms")
            .expression_attribute_values(":now", number(now.as_secs()))
            .expression_attribute_values(":ms", ms(now))
            .return_values_on_condition_check_failure(AllOld);
        let Err(error) = put.send().await else { return Ok(None) };
        let found = match error.as_service_error() {
            Some(PutItemError::ConditionalCheckFailedException(unmet)) => unmet.item.clone().unwrap_or_default(),
            _ => return Err(self.table.failed(error)),
        };
        let own = S(self.token.clone());
        let is = |name, value| found.get(name) == Some(value);
        Ok(if is(TOKEN, &own) {
            // The SDK sent it twice, because the first answer was lost.
            None
        } else if !is(FINGERPRINT, &fingerprint) {
            let detail = "This Idempotency-Key was sent with another query or body.";
            let title = "Idempotency key reused";
            Some(Err(Problem::new("idempotency-key-reused", title, StatusCode::UNPROCESSABLE_ENTITY, detail)))
        } else if found.contains_key(LOCKED) {
            Some(Err(in_progress()))
        } else {
            Some(restored(&found))
        })
    }

    /// The part of a transaction that puts `response` into the record.
    pub(crate) fn completion(&self, response: &Response) -> Result<TransactWriteItem, Problem> {
        let answer = answer(response).filter(|(answer, body)| answer.len() + body.len() <= self.most_bytes);
        let answer = answer.ok_or_else(|| {
            let cause = format!(
                "an idempotent answer may have {} bytes, and headers in UTF-8, and is no stream",
                self.most_bytes
            );
            Problem::internal().because(cause)
        })?;
        Ok(TransactWriteItem::builder().update(self.update(Some(answer))?).build())
    }

    fn update(&self, answer: Option<(String, Body)>) -> Result<Update, Error> {
        let (answer, body) = answer.unwrap_or_default();
        let body = match body {
            Body::Binary(bytes) => B(bytes.into()),
            Body::Text(text) => S(text),
            _ => S(String::new()),
        };
        let update = Update::builder().table_name(self.table.get()?).set_key(Some(self.key.clone()));
        update
            .update_expression("SET answer = :answer, body = :body REMOVE locked, #token")
            .condition_expression("#token = :token")
            .expression_attribute_names("#token", TOKEN)
            .expression_attribute_values(":answer", S(answer))
            .expression_attribute_values(":body", body)
            .expression_attribute_values(":token", S(self.token.clone()))
            .build()
            .map_err(|_| Error::Invalid("a record has no key"))
    }

    /// Puts `response` into the record. If that fails, the caller gets it nevertheless, because its work is done.
    async fn complete(&self, response: &Response) {
        self.settle();
        let answer = answer(response).filter(|(answer, body)| answer.len() + body.len() <= self.most_bytes);
        if answer.is_none() {
            error!(
                "an idempotent answer has more than {} bytes, or a header not in UTF-8, or is a stream; it is lost",
                self.most_bytes
            );
        }
        let completed = async {
            let update = self.update(answer)?;
            let send = client().await.update_item().table_name(update.table_name).set_key(Some(update.key));
            let send = send
                .update_expression(update.update_expression)
                .set_condition_expression(update.condition_expression)
                .set_expression_attribute_names(update.expression_attribute_names)
                .set_expression_attribute_values(update.expression_attribute_values);
            send.send().await.map_err(|error| self.table.failed(error))?;
            Ok::<_, Error>(())
        };
        if let Err(cause) = completed.await {
            error!(error = &cause as &dyn std::error::Error, "an idempotent answer was not kept");
        }
    }

    /// Frees the key. If that fails, it is free when the deadline has passed.
    async fn release(&self) {
        self.settle();
        let released = async {
            let delete = client().await.delete_item().table_name(self.table.get()?).set_key(Some(self.key.clone()));
            let delete = delete.condition_expression("#token = :token").expression_attribute_names("#token", TOKEN);
            delete
                .expression_attribute_values(":token", S(self.token.clone()))
                .send()
                .await
                .map_err(|error| self.table.failed(error))?;
            Ok::<_, Error>(())
        };
        if let Err(cause) = released.await {
            error!(error = &cause as &dyn std::error::Error, "an idempotency key was not freed");
        }
    }
}

/// 409: the request is under way.
pub(crate) fn in_progress() -> Problem {
    let detail = "A request with this Idempotency-Key is under way.";
    Problem::new("idempotency-key-in-use", "Idempotency key in use", StatusCode::CONFLICT, detail)
        .with_header(RETRY_AFTER, 1.into())
}

/// The request's key: a string of structured fields (RFC 9651), or what most clients send, the same without quotes.
fn given(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut lines = headers.get_all(IDEMPOTENCY_KEY).into_iter();
    let Some(line) = lines.next() else { return Ok(None) };
    let key = line.to_str().ok().map(str::trim);
    let is_quoted = |key: &&str| key.len() > 2 && key.starts_with('"') && key.ends_with('"');
    let key = key.map(|key| Some(key).filter(is_quoted).map_or(key, |key| &key[1..key.len() - 1]));
    let is_key =
        |key: &&str| (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
    let key = key.filter(is_key).filter(|_| lines.next().is_none()).map(str::to_owned);
    let detail = "Idempotency-Key must be one text of 1 to 255 visible ASCII characters without quotes.";
    key.map(Some).ok_or_else(|| Problem::malformed_request(detail))
}

/// A digest of all of the parts, which are apart in it.
fn digest(parts: &[&[u8]]) -> Vec<u8> {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().to_vec()
}

fn ms(time: Duration) -> aws_sdk_dynamodb::types::AttributeValue {
    N(time.as_millis().to_string())
}

/// A status and headers.
type Head = (u16, Vec<(String, String)>);

/// An answer as the record has it: its head in JSON, and its body. `None` if a header is not UTF-8, or if it is a stream.
fn answer(response: &Response) -> Option<(String, Body)> {
    if is_stream(response) {
        return None;
    }
    let header = |(name, value): (&HeaderName, &HeaderValue)| {
        Some((name.as_str().to_owned(), str::from_utf8(value.as_bytes()).ok()?.to_owned()))
    };
    let headers = response.headers().iter().map(header).collect::<Option<_>>()?;
    let head: Head = (response.status().as_u16(), headers);
    let body = match response.body() {
        Body::Text(text) => Body::Text(text.clone()),
        Body::Binary(bytes) => Body::Binary(bytes.clone()),
        _ => Body::Empty,
    };
    Some((to_string(&head).ok()?, body))
}

/// The answer in a record.
fn restored(found: &Attributes) -> Result<Response, Problem> {
    let text = found.get(ANSWER).and_then(|answer| answer.as_s().ok());
    if text.is_none_or(String::is_empty) {
        let detail = "The request was carried out, but its answer could not be kept.";
        return Err(Problem::new("idempotency-answer-lost", "Answer lost", StatusCode::CONFLICT, detail));
    }
    let invalid = || Problem::from(Error::Invalid("the record of an idempotent request is not valid"));
    let (status, headers): Head = text.and_then(|text| from_str(text).ok()).ok_or_else(invalid)?;
    let body = match found.get(BODY) {
        Some(S(text)) if !text.is_empty() => Body::Text(text.clone()),
        Some(B(bytes)) => Body::Binary(bytes.as_ref().to_vec()),
        _ => Body::Empty,
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).map_err(|_| invalid())?;
    for (name, value) in headers {
        let name: Result<HeaderName, InvalidHeaderName> = name.parse();
        let value = HeaderValue::from_bytes(value.as_bytes());
        response.headers_mut().append(name.map_err(|_| invalid())?, value.map_err(|_| invalid())?);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use handler::{Context, http::Method, observe, post, stream};

    /// Its repetition would get an empty body.
    #[test]
    fn a_stream_is_no_answer_that_can_be_kept() {
        assert!(answer(&Response::default()).is_some());
        assert!(answer(&stream("text/plain", |_| async { Ok(()) })).is_none());
    }

    #[tokio::test]
    async fn an_idempotent_resource_has_the_methods_of_the_resource() {
        static NOTES: Table<()> = Table::new("NOTES_TABLE", "note");
        for (method, status) in [(Method::POST, "201"), (Method::OPTIONS, "204"), (Method::GET, "405")] {
            let create = post(|_| async { handler::json(StatusCode::CREATED, &()) });
            let event = format!(r#"{{"rawPath": "/", "requestContext": {{"http": {{"method": "{method}"}}}}}}"#);
            let (answer, _) = observe(idempotent(&NOTES, create), event.as_bytes(), Context::default()).await.unwrap();
            assert!(answer.starts_with(&format!(r#"{{"statusCode":{status}"#)), "{answer}");
        }
    }
}
