//! The format of a response in the table.

use std::{
    collections::HashMap,
    io::{Read, Write},
    time::{Duration, SystemTime},
};

use aws_sdk_dynamodb::{
    primitives::Blob,
    types::AttributeValue::{self, B, M, N, S},
};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use handler::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::table::{KEPT_FOR, SKEW};
use crate::entry::Entry;

/// DynamoDB takes 400 kB, names of attributes included. The headers, some hundred bytes, count too.
const MOST_BYTES: usize = 390_000;
/// DynamoDB bills one unit for a smaller body, compressed or not.
const COMPRESSED_FROM: usize = 1_000;

/// The attributes of an item, by their names.
pub(super) type Item = HashMap<String, AttributeValue>;

/// `response` as an item. `None` if it is too large for one.
pub(super) fn item(response: &Entry) -> Option<Item> {
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
pub(super) fn response(mut item: Item, max_body_bytes: usize, now: SystemTime) -> Option<Entry> {
    let status = StatusCode::from_u16(item.get("status")?.as_n().ok()?.parse().ok()?).ok()?;
    let received = time(&item, "received").filter(|received| *received < now + SKEW && now < *received + KEPT_FOR)?;
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

pub(super) fn ms(time: SystemTime) -> AttributeValue {
    N(since_1970(time).to_string())
}

pub(super) fn seconds(time: SystemTime) -> AttributeValue {
    N((since_1970(time) / 1000).to_string())
}

pub(super) fn time(item: &Item, name: &str) -> Option<SystemTime> {
    let ms = item.get(name)?.as_n().ok()?.parse().ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms))
}
