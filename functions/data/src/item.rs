//! An item, and which version of it this is.

use aws_sdk_dynamodb::types::AttributeValue::{self, N, S};
use handler::{
    ETag, Problem, Request, Response,
    http::{HeaderValue, StatusCode, header::LOCATION},
    json, required_precondition,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Error,
    attribute::{Attributes, attributes, value},
};

/// The names of the attributes that are not the type's. DynamoDB deletes an item after the time in `expires`.
pub(crate) const PK: &str = "pk";
pub(crate) const SK: &str = "sk";
pub(crate) const VERSION: &str = "version";
/// A random number of the write, by which one that was sent twice knows its own work.
pub(crate) const WRITTEN: &str = "written";
pub(crate) const EXPIRES: &str = "expires";

/// The characters of an id that a path has percent-encoded.
const NOT_IN_A_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// An item of a [`Table`](crate::Table), as it was read or as it is to be written.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Item<T> {
    /// Whose it is: the text that is the partition key.
    pub owner: String,
    /// Which of the owner's items of this type it is.
    pub id: String,
    /// What it holds.
    pub value: T,
    /// Counts its writes, from 1.
    pub version: u64,
}

impl<T> Item<T> {
    /// The strong tag of its version.
    #[must_use]
    pub fn etag(&self) -> ETag {
        ETag::strong(self.version)
    }

    /// Returns it if the request may change it: the request must name its version with `If-Match`. The [write](crate::commit())
    /// then fails if there is another version by that time.
    ///
    /// # Errors
    ///
    /// 428 [`precondition-required`](Problem::precondition_required) without `If-Match`, and 412
    /// [`precondition-failed`](Problem::precondition_failed) if it names another version.
    pub fn checked(self, request: &Request) -> Result<Self, Problem> {
        required_precondition(request, Some(&self.etag()))?;
        Ok(self)
    }
}

impl<T: Serialize> Item<T> {
    /// Answers with its value as JSON, and with its tag. To a `GET` whose `If-None-Match` has the tag, it answers 304.
    ///
    /// # Errors
    ///
    /// As [`ETag::answer`]. An `internal` problem if the value cannot be written as JSON.
    pub fn answer(&self, request: &Request, status: StatusCode) -> Result<Response, Problem> {
        self.etag().answer(request, json(status, &self.value)?)
    }

    /// Answers 201 like [`answer`](Self::answer), with the item's `Location`: its id below the path of the request, which is
    /// that of the list. It is relative, and so is right behind every trigger.
    ///
    /// # Errors
    ///
    /// The same.
    pub fn answer_created(&self, request: &Request) -> Result<Response, Problem> {
        let mut response = self.answer(request, StatusCode::CREATED)?;
        let list = request.uri().path().rsplit('/').next().unwrap_or_default();
        let location = format!("{list}/{}", utf8_percent_encode(&self.id, NOT_IN_A_PATH));
        let location = HeaderValue::try_from(location.trim_start_matches('/'));
        response.headers_mut().insert(LOCATION, location.map_err(|error| Problem::internal().because(error))?);
        Ok(response)
    }

    /// Its attributes, with those of this write.
    pub(crate) fn attributes(&self, key: Attributes) -> Result<Attributes, Error> {
        let mut all =
            attributes(&self.value).map_err(|_| Error::Invalid("the value is no struct with names in JSON"))?;
        if [PK, SK, VERSION, WRITTEN, EXPIRES].iter().any(|name| all.contains_key(*name)) {
            return Err(Error::Invalid("a member of the value is called pk, sk, version, written or expires"));
        }
        all.extend(key);
        all.insert(VERSION.to_owned(), number(self.version));
        all.insert(WRITTEN.to_owned(), S(format!("{:016x}", fastrand::u64(..))));
        Ok(all)
    }
}

impl<T: DeserializeOwned> Item<T> {
    /// Reads an item whose sort key starts with `prefix`.
    pub(crate) fn read(mut attributes: Attributes, prefix: &str) -> Result<Self, Error> {
        let invalid = || Error::Unreadable(prefix.trim_end_matches('#').to_owned());
        let mut taken = |name| attributes.remove(name).ok_or_else(invalid);
        let (Ok(S(owner)), Ok(S(sk)), Ok(N(version))) = (taken(PK), taken(SK), taken(VERSION)) else {
            return Err(invalid());
        };
        attributes.remove(WRITTEN);
        let id = sk.strip_prefix(prefix).ok_or_else(invalid)?.to_owned();
        let version = version.parse().map_err(|_| invalid())?;
        let value = value(attributes).map_err(|_| invalid())?;
        Ok(Self { owner, id, value, version })
    }
}

pub(crate) fn number(number: impl Into<u64>) -> AttributeValue {
    N(number.into().to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_new_item_is_below_its_list() {
        let at = |path: &str, id: &str| {
            let mut request = Request::default();
            *request.uri_mut() = path.parse().unwrap();
            let item = Item { owner: "ada".into(), id: id.into(), value: 7, version: 1 };
            item.answer_created(&request).unwrap().headers()[LOCATION].to_str().unwrap().to_owned()
        };
        assert_eq!(at("/shop/notes?a=b", "7"), "notes/7");
        assert_eq!(at("https://example.com/prod/notes/", "a/b é"), "a%2Fb%20%C3%A9");
        assert_eq!(at("/", "~7"), "~7");
    }

    #[test]
    fn an_item_of_another_type_is_told_by_its_kind() {
        let parts =
            [(PK, S("ada".into())), (SK, S("note#7".into())), (VERSION, N("1".into())), ("text", S("secret".into()))];
        let attributes = || parts.clone().map(|(name, value)| (name.to_owned(), value)).into();
        assert_eq!(Item::<BTreeMap<String, String>>::read(attributes(), "note#").unwrap().id, "7");
        let error = Item::<BTreeMap<String, u8>>::read(attributes(), "note#").unwrap_err().to_string();
        assert!(
            error.starts_with("an item of the kind `note` is not of the type") && !error.contains("secret"),
            "{error}"
        );
    }
}
