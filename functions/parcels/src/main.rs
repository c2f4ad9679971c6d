//! `/parcels` and `/parcels/{id}`: a caller's own parcels, in a table. The example of an endpoint with a table and a caller.

use std::process::ExitCode;

use data::{Item, Table, idempotent};
use handler::{Int, Problem, Request, Response, Routes, Text, body, claim, get, http::StatusCode, path, query, routes};
use serde::{Deserialize, Serialize};

/// The table's name is in the environment variable. A parcel's partition key is the caller who sent it.
static PARCELS: Table<Parcel> = Table::new("PARCELS_TABLE", "parcel");

const MOST_BYTES: usize = 16 * 1024;

fn main() -> ExitCode {
    handler::run(parcels())
}

fn parcels() -> Routes {
    routes([
        get(list).post(idempotent(&PARCELS, create)).at("/parcels"),
        get(show).patch(change).delete(remove).at("/parcels/{id}"),
    ])
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewParcel {
    to: Text<1, 200>,
    grams: Int<1, 30_000>,
    note: Option<Text<0, 500>>,
}

/// What of a parcel can be changed. A member that is absent stays as it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    to: Option<Text<1, 200>>,
    note: Option<Text<0, 500>>,
    state: Option<State>,
}

/// A parcel in an answer, and in the table.
#[derive(Deserialize, Serialize)]
struct Parcel {
    id: String,
    to: Text<1, 200>,
    grams: Int<1, 30_000>,
    note: Option<Text<0, 500>>,
    state: State,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Announced,
    Sent,
    Delivered,
}

async fn create(request: Request) -> Result<Response, Problem> {
    // This is first, so that a caller without a token learns nothing.
    let owner = owner(&request)?;
    let NewParcel { to, grams, note } = body(&request, MOST_BYTES)?;
    let id = data::id();
    let parcel = Parcel { id: id.clone(), to, grams, note, state: State::Announced };
    // Writes the parcel, and the answer to the request's `Idempotency-Key`: both or neither.
    PARCELS.add(&request, PARCELS.item(&owner, &id, parcel)).await
}

async fn list(request: Request) -> Result<Response, Problem> {
    let owner = owner(&request)?;
    let state = match query(&request, "state", 20)?.as_deref() {
        None => None,
        Some("announced") => Some(State::Announced),
        Some("sent") => Some(State::Sent),
        Some("delivered") => Some(State::Delivered),
        Some(_) => return Err(Problem::invalid_parameter("`state` must be announced, sent or delivered.")),
    };
    PARCELS.page_of(&request, &owner, |parcel| state.is_none_or(|state| parcel.state == state)).await?.answer()
}

async fn show(request: Request) -> Result<Response, Problem> {
    found(&request).await?.answer(&request, StatusCode::OK)
}

async fn change(request: Request) -> Result<Response, Problem> {
    let mut parcel = found(&request).await?.checked(&request)?;
    let Change { to, note, state } = body(&request, MOST_BYTES)?;
    parcel.value.to = to.unwrap_or(parcel.value.to);
    parcel.value.note = note.or(parcel.value.note);
    parcel.value.state = state.unwrap_or(parcel.value.state);
    PARCELS.save(&request, parcel).await
}

async fn remove(request: Request) -> Result<Response, Problem> {
    let parcel = found(&request).await?.checked(&request)?;
    PARCELS.erase(&request, parcel).await
}

/// The parcel at the request's path. Another caller's is not found.
async fn found(request: &Request) -> Result<Item<Parcel>, Problem> {
    PARCELS.found(&owner(request)?, path(request, "id")?).await
}

fn owner(request: &Request) -> Result<String, Problem> {
    claim(request, "sub").ok_or_else(|| Problem::unauthorized("Bearer", "Parcels need a token."))
}

#[cfg(test)]
mod tests {
    use testbed::contract;

    use super::*;

    #[tokio::test]
    async fn answers_its_events() {
        testbed::replay("parcels", parcels()).await;
    }

    #[test]
    fn its_types_are_those_of_the_contract() {
        contract::of_request::<NewParcel>("NewParcel");
        contract::of_request::<Change>("ParcelChange");
        contract::of_answer::<Parcel>("Parcel");
    }
}
