//! `/letters`: an axum router with three routes and two layers.

use std::process::ExitCode;

use axum::{
    Json, Router,
    http::{HeaderValue, StatusCode, header::CACHE_CONTROL},
    routing::get,
};
use handler::{
    Problem,
    axum::{Body, Claims, Parameters, Path},
};
use serde::{Deserialize, Serialize};
use tower_http::{
    cors::{Any, CorsLayer},
    set_header::SetResponseHeaderLayer,
};

fn main() -> ExitCode {
    handler::run(handler::service(letters()))
}

pub(crate) fn letters() -> Router {
    Router::new()
        .route("/letters", get(list).post(send))
        .route("/letters/{id}", get(one))
        .route("/letters/{id}/sender", get(sender))
        .layer(SetResponseHeaderLayer::if_not_present(CACHE_CONTROL, HeaderValue::from_static("private")))
        .layer(CorsLayer::new().allow_origin(Any))
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewLetter {
    to: String,
    grams: u16,
}

#[derive(Deserialize, Serialize)]
struct Page {
    limit: Option<u8>,
}

async fn list(Parameters(page): Parameters<Page>) -> Json<Page> {
    Json(page)
}

async fn send(Body(letter): Body<NewLetter>) -> Result<(StatusCode, Json<NewLetter>), Problem> {
    if letter.grams > 31_500 {
        return Err(Problem::new("too-heavy", "Too heavy", StatusCode::CONFLICT, "A letter may have 31,500 grams."));
    }
    Ok((StatusCode::CREATED, Json(letter)))
}

async fn one(Path(id): Path<u32>) -> String {
    format!("letter {id}")
}

async fn sender(Path(id): Path<u32>, claims: Claims) -> Result<String, Problem> {
    let sender = claims.get("sub").ok_or_else(|| Problem::unauthorized("Bearer", "The sender needs a token."))?;
    Ok(format!("letter {id} is from {sender}"))
}
