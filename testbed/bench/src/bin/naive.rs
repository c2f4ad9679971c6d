//! The obvious first version of `fetch`: it sets up everything before the first poll, with every crate's defaults.

use std::env;

use aws_config::BehaviorVersion;
use lambda_http::{Body, Error, Request, Response, http::header::CONTENT_TYPE, run, service_fn, tracing};

#[tokio::main]
async fn main() -> Result<(), Error> {
    tracing::init_default_subscriber();

    let config = aws_config::load_defaults(BehaviorVersion::latest()).await;
    let secrets = aws_sdk_secretsmanager::Client::new(&config);
    let client = reqwest::Client::new();
    let url = env::var("UPSTREAM_URL")?;
    let secret_id = env::var("UPSTREAM_SECRET_ID").ok();

    run(service_fn(async |_: Request| {
        let mut request = client.get(&url);
        if let Some(id) = &secret_id {
            let secret = secrets.get_secret_value().secret_id(id).send().await?;
            request = request.bearer_auth(secret.secret_string().unwrap_or_default());
        }
        let upstream = request.send().await?;
        let mut response = Response::builder().status(upstream.status());
        if let Some(content_type) = upstream.headers().get(CONTENT_TYPE) {
            response = response.header(CONTENT_TYPE, content_type);
        }
        let body = upstream.bytes().await?;
        Ok::<_, Error>(response.body(Body::from(body.to_vec()))?)
    }))
    .await
}
