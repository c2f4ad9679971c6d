//! What `probe` does, on AWS's own loop: `functions/handler/tests/lambda_runtime.rs` compares the two loops.

use lambda_http::{Body, Error, Request, RequestExt, Response, run_concurrent, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    run_concurrent(service_fn(probe)).await
}

async fn probe(request: Request) -> Result<Response<Body>, Error> {
    assert!(request.query_string_parameters().first("panic").is_none(), "a bug");
    Ok(Response::new("Still here.".into()))
}
