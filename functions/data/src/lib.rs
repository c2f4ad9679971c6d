//! What an endpoint with a DynamoDB table needs: items of a type, versions, pages, and requests that may be repeated.
//!
//! ```no_run
//! use data::{Table, idempotent};
//! use handler::{Problem, Request, Resource, Response, body, claim, get, http::StatusCode, path};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize, Serialize)]
//! struct Note {
//!     text: String,
//! }
//!
//! static NOTES: Table<Note> = Table::new("NOTES_TABLE", "note");
//!
//! fn notes() -> [Resource; 2] {
//!     [
//!         get(list).post(idempotent(&NOTES, create)).at("/notes"),
//!         get(show).put(replace).at("/notes/{id}"),
//!     ]
//! }
//!
//! async fn create(request: Request) -> Result<Response, Problem> {
//!     let note = NOTES.item(&owner(&request)?, &data::id(), body(&request, 4096)?);
//!     NOTES.add(&request, note).await
//! }
//!
//! async fn list(request: Request) -> Result<Response, Problem> {
//!     NOTES.page(&request, &owner(&request)?).await?.answer()
//! }
//!
//! async fn show(request: Request) -> Result<Response, Problem> {
//!     NOTES.found(&owner(&request)?, path(&request, "id")?).await?.answer(&request, StatusCode::OK)
//! }
//!
//! async fn replace(request: Request) -> Result<Response, Problem> {
//!     let mut note = NOTES.found(&owner(&request)?, path(&request, "id")?).await?.checked(&request)?;
//!     note.value = body(&request, 4096)?;
//!     NOTES.save(&request, note).await
//! }
//!
//! fn owner(request: &Request) -> Result<String, Problem> {
//!     claim(request, "sub").ok_or_else(|| Problem::unauthorized("Bearer", "Notes need a token."))
//! }
//! # fn main() {
//! # let _ = notes();
//! # }
//! ```
//!
//! The table has the keys `pk` and `sk`, both text, and its time to live in `expires`. `pk` is whose the item is, and `sk`
//! is its kind and its id: `note#…`. So one table can hold items of several types, and a caller's items of one type are
//! read together, in the order of their ids. All other attributes are the members of the type, except for `version` and
//! `written`. docs/data.md has the table's block for template.yaml.

mod attribute;
mod commit;
mod error;
mod idempotency;
mod item;
mod page;
mod table;

use std::time::{Duration, SystemTime};

pub use commit::{Write, commit};
pub use error::Error;
pub use idempotency::{Idempotent, idempotent};
pub use item::Item;
pub use page::Page;
pub use table::Table;

/// The code in docs/data.md.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/data.md")]
struct Tasks;

/// Returns a new id: 28 hexadecimal digits, of which the first 12 are the time in milliseconds, and the rest is random. So items are listed
/// in the order in which they were created. It is no secret.
///
/// ```
/// assert_eq!(data::id().len(), 28);
/// ```
#[must_use]
pub fn id() -> String {
    format!("{:012x}{:016x}", since_1970(SystemTime::now()).as_millis(), fastrand::u64(..))
}

fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
