//! Endpoints that do with an idempotency key what can happen. `tests/test_data.py` sends it requests.

use std::{process::ExitCode, time::Duration};

use data::{Item, Table, commit, idempotent};
use handler::{Problem, Request, Response, Routes, get, http::StatusCode, json, path, post, routes};
use serde::{Deserialize, Serialize};

static NOTES: Table<Note> = Table::new("NOTES_TABLE", "note");
static LATEST: Table<Note> = Table::new("NOTES_TABLE", "note").newest_first();
static COUNTS: Table<Note> = Table::new("NOTES_TABLE", "count");

#[derive(Deserialize, Serialize)]
struct Note {
    text: String,
}

fn main() -> ExitCode {
    handler::run(keys())
}

fn keys() -> Routes {
    let kept = Duration::from_hours(1);
    routes([
        post(idempotent(&NOTES, uncommitted).kept_for(kept)).at("/uncommitted/{what}"),
        post(idempotent(&NOTES, committed).required().answers_up_to(1000)).at("/committed/{bytes}"),
        post(both).at("/both"),
        get(ids).at("/notes"),
        post(move_on).delete(remove).at("/notes/{id}"),
    ])
}

/// Writes a note by itself, and then does what the path says.
async fn uncommitted(request: Request) -> Result<Response, Problem> {
    let what = path(&request, "what")?;
    let note = note(&data::id());
    // Its key is not in this commit, because the request is another one.
    commit(&Request::default(), [NOTES.create(&note)?], Response::default()).await?;
    match what {
        "fails" => Err(Problem::internal()),
        "unavailable" => json(StatusCode::SERVICE_UNAVAILABLE, &note.id),
        #[expect(clippy::panic, reason = "what is tested")]
        "panics" => panic!("as the path says"),
        "large" => json(StatusCode::OK, &"x".repeat(400_000)),
        _ => json(StatusCode::OK, &note.id),
    }
}

async fn committed(request: Request) -> Result<Response, Problem> {
    let bytes = path(&request, "bytes")?.parse().map_err(|_| Problem::not_found("It is a number."))?;
    let note = note(&data::id());
    let response = json(StatusCode::CREATED, &(&note.id, "x".repeat(bytes)))?;
    commit(&request, [NOTES.create(&note)?, COUNTS.create(&note)?], response).await
}

/// Two writes, of which the second fails if it was done before.
async fn both(request: Request) -> Result<Response, Problem> {
    let writes = [NOTES.create(&note(&data::id()))?, COUNTS.create(&note("one"))?];
    commit(&request, writes, Response::default()).await
}

async fn ids(request: Request) -> Result<Response, Problem> {
    let page = LATEST.page(&request, "ada").await?;
    json(StatusCode::OK, &page.items.iter().map(|note| &note.id).collect::<Vec<_>>())
}

/// Creates the note, or replaces it.
async fn move_on(request: Request) -> Result<Response, Problem> {
    let id = path(&request, "id")?;
    let mut found = NOTES.get("ada", id).await?;
    let write = match &mut found {
        Some(note) => NOTES.replace(note)?,
        None => NOTES.create(&note(id))?,
    };
    commit(&request, [write], Response::default()).await
}

async fn remove(request: Request) -> Result<Response, Problem> {
    let note = NOTES.found("ada", path(&request, "id")?).await?;
    commit(&request, [NOTES.delete(&note)], Response::default()).await
}

fn note(id: &str) -> Item<Note> {
    NOTES.item("ada", id, Note { text: "Buy tea.".into() })
}
