//! A table, and the items of one type in it.

use std::{env, fmt, marker::PhantomData, sync::OnceLock};

use aws_sdk_dynamodb::{Client, types::AttributeValue::S};
use handler::{Problem, Request, Response, http::StatusCode};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Error, Item, Page, Write,
    attribute::Attributes,
    commit,
    item::{PK, SK},
    page,
};

static CLIENT: aws::Lazy<Client> = aws::Lazy::new(Client::new);

/// The items of the type `T` in a DynamoDB table, whose name is in an environment variable. [The crate](crate) has an
/// example, and says which keys the table must have.
///
/// The variable is read, and the client is made, when a request first needs the table.
pub struct Table<T> {
    name: Name,
    kind: &'static str,
    /// Whether its pages begin with the last id.
    is_reversed: bool,
    holds: PhantomData<fn() -> T>,
}

/// The environment variable that names a table, and its value.
pub(crate) struct Name(&'static str, OnceLock<String>);

impl Name {
    pub(crate) fn get(&self) -> Result<&str, Error> {
        if let Some(name) = self.1.get() {
            return Ok(name);
        }
        let name = env::var(self.0).ok().filter(|name| !name.is_empty()).ok_or(Error::NoTable(self.0))?;
        Ok(self.1.get_or_init(|| name))
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    /// Why an operation on the table failed.
    pub(crate) fn failed(&self, error: impl Into<aws::Error>) -> Error {
        let error = error.into();
        match (error.code(), self.1.get()) {
            (Some("ResourceNotFoundException"), Some(name)) => {
                Error::TableNotFound(self.0, name.clone(), Box::new(error))
            }
            _ => Error::Aws(error),
        }
    }
}

/// The client of all tables.
pub(crate) async fn client() -> &'static Client {
    CLIENT.get().await
}

/// The attributes of a key.
pub(crate) fn key(pk: &str, sk: String) -> Attributes {
    Attributes::from([(PK.to_owned(), S(pk.to_owned())), (SK.to_owned(), S(sk))])
}

impl<T> Table<T> {
    /// The items of the `kind`, such as `parcel`, in the table that `variable` names.
    #[must_use]
    pub const fn new(variable: &'static str, kind: &'static str) -> Self {
        Self { name: Name(variable, OnceLock::new()), kind, is_reversed: false, holds: PhantomData }
    }

    /// With pages that begin with the last id: the newest item, if the ids are those of [`id`](crate::id()).
    ///
    /// ```
    /// use data::Table;
    ///
    /// static MOVES: Table<u32> = Table::new("STOCK_TABLE", "move").newest_first();
    /// ```
    #[must_use]
    pub const fn newest_first(mut self) -> Self {
        self.is_reversed = true;
        self
    }

    /// Makes an item, which is not written yet. `owner` is whose it is, such as the caller's `sub`. With `id`, the owner
    /// finds it again; [`id`](crate::id()) makes one.
    pub fn item(&self, owner: &str, id: &str, value: T) -> Item<T> {
        Item { owner: owner.to_owned(), id: id.to_owned(), value, version: 1 }
    }

    pub(crate) fn name(&self) -> &Name {
        &self.name
    }

    pub(crate) fn is_reversed(&self) -> bool {
        self.is_reversed
    }

    /// What the sort keys of these items start with.
    pub(crate) fn prefix(&self) -> String {
        format!("{}#", self.kind)
    }

    fn key(&self, owner: &str, id: &str) -> Attributes {
        key(owner, self.prefix() + id)
    }
}

impl<T: DeserializeOwned> Table<T> {
    /// Reads an item, as the last write left it. `None` if there is none.
    ///
    /// # Errors
    ///
    /// If it is not a `T`, or the table does not answer.
    pub async fn get(&self, owner: &str, id: &str) -> Result<Option<Item<T>>, Error> {
        // DynamoDB refuses such keys, and has no item with one.
        if owner.is_empty() || owner.len() > 2048 || self.kind.len() + 1 + id.len() > 1024 {
            return Ok(None);
        }
        let get = client().await.get_item().table_name(self.name.get()?).set_key(Some(self.key(owner, id)));
        let read = get.consistent_read(true).send().await.map_err(|error| self.name.failed(error))?;
        read.item.map(|item| Item::read(item, &self.prefix())).transpose()
    }

    /// Reads an item, like [`get`](Self::get).
    ///
    /// # Errors
    ///
    /// 404 [`not-found`](Problem::not_found) if there is none.
    pub async fn found(&self, owner: &str, id: &str) -> Result<Item<T>, Problem> {
        self.get(owner, id).await?.ok_or_else(|| Problem::not_found("There is no such resource."))
    }

    /// Reads the page of the owner's items that the request asks for: the query parameter `limit`, from 1 to 100 (20 if
    /// absent), says how many; `cursor`, which comes with the `Link` of a page, says after which.
    ///
    /// # Errors
    ///
    /// 400 [`invalid-parameter`](Problem::invalid_parameter). If an item is not a `T`, or the table does not answer.
    pub async fn page(&self, request: &Request, owner: &str) -> Result<Page<T>, Problem> {
        self.page_of(request, owner, |_| true).await
    }

    /// Like [`page`](Self::page), of those items that `is_wanted` chooses. A page is full unless it is the last, or 1,000
    /// items were read for it; then it may even be empty, and its `Link` goes on after these.
    ///
    /// # Errors
    ///
    /// The same.
    pub async fn page_of(
        &self,
        request: &Request,
        owner: &str,
        is_wanted: impl Fn(&T) -> bool,
    ) -> Result<Page<T>, Problem> {
        page::read(request, self, owner, is_wanted).await
    }
}

impl<T: Serialize> Table<T> {
    /// The write of an item that does not exist yet. [`commit`](crate::commit()) does it, or fails with
    /// [`Error::Exists`].
    ///
    /// # Errors
    ///
    /// If the value is no struct, or has a member of a name that the table uses.
    pub fn create(&'static self, item: &Item<T>) -> Result<Write, Error> {
        Ok(Write::create(&self.name, item.attributes(self.key(&item.owner, &item.id))?))
    }

    /// The write of an item that was read before, and is of the next version from now on. [`commit`](crate::commit()) does
    /// it, or fails with [`Error::Changed`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn replace(&'static self, item: &mut Item<T>) -> Result<Write, Error> {
        let read = item.version;
        item.version += 1;
        Ok(Write::replace(&self.name, item.attributes(self.key(&item.owner, &item.id))?, read))
    }

    /// Writes an item that does not exist yet, and answers 201 with it: [`create`](Self::create),
    /// [`Item::answer_created`] and [`commit`](crate::commit()) for a request that writes nothing else.
    ///
    /// # Errors
    ///
    /// Theirs.
    pub async fn add(&'static self, request: &Request, item: Item<T>) -> Result<Response, Problem> {
        let response = item.answer_created(request)?;
        commit(request, [self.create(&item)?], response).await
    }

    /// Writes an item that was read before, and answers 200 with its next version: [`replace`](Self::replace),
    /// [`Item::answer`] and [`commit`](crate::commit()) for a request that writes nothing else.
    ///
    /// # Errors
    ///
    /// Theirs.
    pub async fn save(&'static self, request: &Request, mut item: Item<T>) -> Result<Response, Problem> {
        let write = self.replace(&mut item)?;
        let response = item.answer(request, StatusCode::OK)?;
        commit(request, [write], response).await
    }
}

impl<T> Table<T> {
    /// The deletion of an item that was read before. [`commit`](crate::commit()) does it, or fails with [`Error::Changed`]. It
    /// is no failure if the item is gone.
    pub fn delete(&'static self, item: &Item<T>) -> Write {
        Write::delete(&self.name, self.key(&item.owner, &item.id), item.version)
    }

    /// Deletes an item that was read before, and answers 204: [`delete`](Self::delete) and [`commit`](crate::commit()) for a
    /// request that writes nothing else.
    ///
    /// # Errors
    ///
    /// Theirs.
    pub async fn erase(&'static self, request: &Request, item: Item<T>) -> Result<Response, Problem> {
        let mut response = Response::default();
        *response.status_mut() = StatusCode::NO_CONTENT;
        commit(request, [self.delete(&item)], response).await
    }
}

impl<T> fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("variable", &self.name.0).field("kind", &self.kind).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::{
        config::http::HttpResponse,
        error::{ErrorMetadata, SdkError},
        operation::get_item::GetItemError,
    };

    use super::*;

    #[test]
    fn a_table_that_is_not_there_is_named_with_its_variable() {
        let name = Name("NOTES_TABLE", OnceLock::from("notes-prod".to_owned()));
        let told = |code: &str| {
            let error = GetItemError::generic(ErrorMetadata::builder().code(code).build());
            let response = HttpResponse::new(400.try_into().unwrap(), "".into());
            name.failed(SdkError::service_error(error, response)).to_string()
        };
        assert_eq!(told("ResourceNotFoundException"), "NOTES_TABLE names the table notes-prod, which is not there");
        assert_eq!(told("AccessDeniedException"), "DynamoDB did not do it");
    }
}
