//! `hello` as davidrs's guide writes a function: problem details, its log, and a line of metrics for each invocation.

use std::{sync::Arc, time::SystemTime};

use davidrs::{
    Context, Invocation, RuntimeError,
    http::{Api, Body, Failure, HeaderValue, HttpResponse, ProblemErrors, Public, Request},
    telemetry::{self, Metrics, Unit},
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Query {
    name: Option<String>,
}

async fn hello(_: Arc<()>, query: Query, _: Context<()>) -> Result<HttpResponse, Failure> {
    let name = query.name.as_deref().unwrap_or("world");
    let mut response = HttpResponse::new(Body::Text(format!("Hello, {name}!")));
    response.headers_mut().insert("content-type", HeaderValue::from_static("text/plain; charset=utf-8"));
    Ok(response)
}

/// Prints the line of an invocation, with what `hello` records, too.
fn measured(invocation: &Invocation, response: &mut HttpResponse) {
    let line = Metrics::new("bench")
        .dimension("Operation", "hello")
        .metric("Latency", invocation.elapsed().as_secs_f64() * 1e3, Unit::Milliseconds)
        .metric("ServerErrors", f64::from(u8::from(response.status().is_server_error())), Unit::Count)
        .property("request_id", &*invocation.request_id)
        .property("status", response.status().as_u16())
        .to_json(SystemTime::now());
    if let Ok(line) = line {
        println!("{line}");
    }
}

#[tokio::main]
async fn main() -> Result<(), RuntimeError> {
    let _telemetry = telemetry::init("hello")?;
    Api::new("hello", Public, ProblemErrors::default())
        .finalize(measured)
        .run(Arc::new(()), |request: &Request<'_>| request.query::<Query>(), hello)
        .await
}
