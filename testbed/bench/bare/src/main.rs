//! The project that `cargo lambda new --http` creates.

use lambda_http::{Error, run, service_fn, tracing};

mod http_handler;

use http_handler::function_handler;

#[tokio::main]
async fn main() -> Result<(), Error> {
    tracing::init_default_subscriber();

    run(service_fn(function_handler)).await
}
