use lambda_http::{Body, Error, Request, RequestExt, Response};

/// Answers like `hello`. The template itself answers "Hello Ada, this is an AWS Lambda HTTP request", as HTML.
pub(crate) async fn function_handler(event: Request) -> Result<Response<Body>, Error> {
    let who = event.query_string_parameters_ref().and_then(|params| params.first("name")).unwrap_or("world");
    let message = format!("Hello, {who}!");

    let resp = Response::builder()
        .status(200)
        .header("content-type", "text/plain; charset=utf-8")
        .body(message.into())
        .map_err(Box::new)?;
    Ok(resp)
}
