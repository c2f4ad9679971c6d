//! Lists in pages: parameters, the cursor, and the `Link` to the next page.

use aws_sdk_dynamodb::types::AttributeValue::S;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use form_urlencoded::{Serializer, parse};
use handler::{
    Problem, Request, Response,
    http::{HeaderValue, StatusCode, header::LINK},
    json, query,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Error, Item, Table,
    item::SK,
    table::{client, key},
};

/// The items of a page, if the request does not say it, and at most.
const LIMIT: (usize, usize) = (20, 100);
/// So many items are read for a page, if not all are wanted.
const MOST_READ: usize = 1000;

/// A part of a list, and where the next one begins.
///
/// A cursor is the id of the last item. It is no secret, and need not be signed: a request reads the items of the one
/// owner that the endpoint names, whatever the cursor says.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Page<T> {
    /// The items, in the order of their ids, or in [the other one](Table::newest_first).
    pub items: Vec<Item<T>>,
    /// The target of the `Link` to the next page. `None` if this is the last one. It is only a query, which a
    /// client resolves against the URL that it asked: that of the stage, the custom domain or whatever is in front.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// Adds `Link: <…>; rel="next"` (RFC 8288) to an answer, unless this is the last page.
    #[must_use]
    pub fn linked(&self, mut response: Response) -> Response {
        // The query is percent-encoded, so that a header can hold it.
        let link = self.next.as_ref().and_then(|next| HeaderValue::try_from(format!("<{next}>; rel=\"next\"")).ok());
        if let Some(link) = link {
            response.headers_mut().append(LINK, link);
        }
        response
    }
}

impl<T: Serialize> Page<T> {
    /// Answers with the values as a JSON array, and with the `Link`.
    ///
    /// # Errors
    ///
    /// An `internal` problem if a value cannot be written as JSON.
    pub fn answer(&self) -> Result<Response, Problem> {
        let values: Vec<&T> = self.items.iter().map(|item| &item.value).collect();
        Ok(self.linked(json(StatusCode::OK, &values)?))
    }
}

pub(crate) async fn read<T: DeserializeOwned>(
    request: &Request,
    of: &Table<T>,
    owner: &str,
    is_wanted: impl Fn(&T) -> bool,
) -> Result<Page<T>, Problem> {
    let (table, prefix) = (of.name(), of.prefix());
    let (limit, after) = (limit(request)?, after(request)?);
    let mut start = after.map(|id| key(owner, prefix.clone() + &id));
    let (mut items, mut read) = (Vec::new(), 0);
    let last = loop {
        let query = client()
            .await
            .query()
            .table_name(table.get()?)
            .key_condition_expression("pk = :pk AND begins_with(sk, :sk)");
        let query = query
            .expression_attribute_values(":pk", S(owner.to_owned()))
            .expression_attribute_values(":sk", S(prefix.clone()))
            // One more says whether there is a next page.
            .limit(i32::try_from(limit + 1).unwrap_or(i32::MAX))
            .scan_index_forward(!of.is_reversed())
            .set_exclusive_start_key(start);
        let answer = query.send().await.map_err(|error| table.failed(error))?;
        let found = answer.items.unwrap_or_default();
        read += found.len();
        for item in found {
            let item = Item::read(item, &prefix)?;
            if is_wanted(&item.value) {
                items.push(item);
            }
        }
        start = answer.last_evaluated_key;
        if items.len() > limit {
            items.truncate(limit);
            break items.last().map(|item: &Item<T>| item.id.clone());
        }
        let Some(key) = &start else { break None };
        if read >= MOST_READ {
            let id = |sk: &str| sk.strip_prefix(&prefix).map(str::to_owned);
            let id = key.get(SK).and_then(|sk| sk.as_s().ok()).and_then(|sk| id(sk));
            break Some(id.ok_or(Error::Invalid("the key after which a list goes on is not of the list"))?);
        }
    };
    Ok(Page { items, next: last.map(|id| next(request, &id)) })
}

fn limit(request: &Request) -> Result<usize, Problem> {
    let (default, most) = LIMIT;
    let Some(limit) = query(request, "limit", 20)? else { return Ok(default) };
    let limit = limit.parse().ok().filter(|limit| (1..=most).contains(limit));
    limit.ok_or_else(|| refused("limit", &format!("must be a whole number from 1 to {most}")))
}

/// The id after which the page begins.
fn after(request: &Request) -> Result<Option<String>, Problem> {
    let Some(cursor) = query(request, "cursor", 1024)? else { return Ok(None) };
    let id = BASE64_URL_SAFE_NO_PAD.decode(cursor.as_bytes()).ok().and_then(|id| String::from_utf8(id).ok());
    // With its prefix, DynamoDB takes up to 1024 bytes.
    let id = id.filter(|id| id.len() <= 700);
    id.map(Some).ok_or_else(|| refused("cursor", "must be that of a `Link` of this list"))
}

/// As [`parameters`](handler::parameters()) refuses one.
fn refused(parameter: &str, why: &str) -> Problem {
    let errors = vec![serde_json::json!({ "detail": why, "parameter": parameter })];
    Problem::invalid_parameter(format!("`{parameter}` {why}.")).with_member("errors", errors)
}

/// The request's query, with the cursor of the page after `id`.
fn next(request: &Request, id: &str) -> String {
    let mut query = Serializer::for_suffix("?".to_owned(), 1);
    let own = parse(request.uri().query().unwrap_or_default().as_bytes());
    query.extend_pairs(own.filter(|(name, _)| name != "cursor"));
    query.append_pair("cursor", &BASE64_URL_SAFE_NO_PAD.encode(id)).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(query: &str) -> Request {
        let mut request = Request::default();
        *request.uri_mut() = format!("/parcels?{query}").parse().unwrap();
        request
    }

    #[test]
    fn a_limit_has_bounds() {
        for (query, expected) in [
            ("", Some(20)),
            ("limit=", Some(20)),
            ("limit=1", Some(1)),
            ("limit=100", Some(100)),
            ("limit=101", None),
            ("limit=0", None),
            ("limit=-1", None),
            ("limit=a", None),
        ] {
            assert_eq!(limit(&request(query)).ok(), expected, "{query}");
        }
    }

    #[test]
    fn the_next_page_is_that_of_the_same_query() {
        for (query, id, expected) in [
            ("", "7", "?cursor=Nw"),
            ("limit=2&cursor=Nw&to=Zo%C3%AB+%26", "é>", "?limit=2&to=Zo%C3%AB+%26&cursor=w6k-"),
        ] {
            let next = next(&request(query), id);
            assert_eq!(next, expected);
            assert_eq!(after(&request(&next[1..])).unwrap().as_deref(), Some(id));
        }
    }

    #[test]
    fn a_cursor_is_one_that_a_link_had() {
        for cursor in ["!", "Nw==", "_w", &"Q".repeat(1000)] {
            assert_eq!(after(&request(&format!("cursor={cursor}"))).unwrap_err().status(), 400, "{cursor}");
        }
        assert_eq!(after(&request("cursor=")).unwrap(), None);
    }
}
