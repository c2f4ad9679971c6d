//! The minimum with `lambda_http`: one thread, no log, and nothing that `handler` does around an endpoint.

use lambda_http::{Body, Error, Request, RequestExt, Response, run, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    run(service_fn(async |request: Request| {
        let query = request.query_string_parameters_ref();
        let name = query.and_then(|query| query.first("name")).unwrap_or("world");
        let answer = Response::builder().header("content-type", "text/plain; charset=utf-8");
        Ok::<_, Error>(answer.body(Body::from(format!("Hello, {name}!")))?)
    }))
    .await
}
