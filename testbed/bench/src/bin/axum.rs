//! `hello` as an axum router on `lambda_http`, with the layers of tower-http that a service usually has.

use std::time::Duration;

use axum::{Router, extract::Query, routing::get};
use lambda_http::{Error, http::StatusCode, run};
use serde::Deserialize;
use tower::ServiceBuilder;
use tower_http::{
    catch_panic::CatchPanicLayer,
    request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer},
    timeout::TimeoutLayer,
    trace::{DefaultMakeSpan, DefaultOnResponse, TraceLayer},
};
use tracing::Level;

#[derive(Deserialize)]
struct Name {
    name: Option<String>,
}

async fn hello(Query(Name { name }): Query<Name>) -> String {
    format!("Hello, {}!", name.as_deref().unwrap_or("world"))
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    tracing_subscriber::fmt().json().with_target(false).init();
    let trace = TraceLayer::new_for_http()
        .make_span_with(DefaultMakeSpan::new().level(Level::INFO))
        .on_response(DefaultOnResponse::new().level(Level::INFO));
    let layers = ServiceBuilder::new()
        .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
        .layer(trace)
        .layer(PropagateRequestIdLayer::x_request_id())
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, Duration::from_secs(10)))
        .layer(CatchPanicLayer::new());
    run(Router::new().route("/hello", get(hello)).layer(layers)).await
}
