//! The project that `cargo lambda new --http` creates, in one file.

use lambda_http::{Body, Error, Request, RequestExt, Response, run, service_fn, tracing};

/// Answers like `hello`. The template itself answers "Hello Ada, this is an AWS Lambda HTTP request", as HTML.
async fn function_handler(event: Request) -> Result<Response<Body>, Error> {
    let who = event.query_string_parameters_ref().and_then(|params| params.first("name")).unwrap_or("world");
    let message = format!("Hello, {who}!");

    let resp = Response::builder()
        .status(200)
        .header("content-type", "text/plain; charset=utf-8")
        .body(message.into())
        .map_err(Box::new)?;
    Ok(resp)
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    tracing::init_default_subscriber();

    run(service_fn(function_handler)).await
}
