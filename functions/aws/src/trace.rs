//! The trace of the current invocation, in all requests to AWS.

use aws_smithy_runtime_api::client::orchestrator::HttpRequest;

const X_AMZN_TRACE_ID: &str = "x-amzn-trace-id";

/// Adds `X-Amzn-Trace-Id` to a request.
///
/// The SDK reads it from the environment, where there can be only one, and where `handler` puts none. An interceptor
/// would have to be added to each client. This works for all clients of a configuration, because the header is not
/// part of the signature.
pub(crate) fn add_to(request: &mut HttpRequest) {
    let trace = handler::current_trace().and_then(|trace| trace.to_str().ok().map(str::to_owned));
    if let Some(trace) = trace {
        request.headers_mut().insert(X_AMZN_TRACE_ID, trace);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use aws_sdk_secretsmanager::{
        Client,
        config::{BehaviorVersion, Credentials, Region},
    };
    use futures_util::future::join_all;
    use handler::{Context, Problem, Response, spawn};
    use testbed::upstream::{Answer, Behaviour, Upstream};

    use super::*;

    const EVENT: &[u8] = br#"{"rawPath": "/", "requestContext": {"http": {"method": "GET"}}}"#;

    /// As `Lazy` makes it, but with this endpoint and not the environment's.
    async fn client(endpoint: String) -> Client {
        let http = crate::config().await.http_client().expect("an HTTP client");
        let config = aws_sdk_secretsmanager::Config::builder().behavior_version(BehaviorVersion::latest());
        let config = config.credentials_provider(Credentials::new("test", "test", None, None, "test"));
        Client::from_conf(config.region(Region::new("us-east-1")).endpoint_url(endpoint).http_client(http).build())
    }

    /// Calls AWS and says in a header in which trace that should be.
    async fn call(client: &Client, expected: String) {
        let call = client.list_secrets().customize();
        let call = call.mutate_request(move |request| {
            request.headers_mut().insert("x-expected", expected.clone());
        });
        assert!(call.send().await.is_ok());
    }

    #[tokio::test]
    async fn each_request_is_in_the_trace_of_its_invocation() {
        let aws = Upstream::start();
        aws.always(Behaviour::late(std::time::Duration::from_millis(20), Answer::ok("{}")));
        let client = client(aws.url("")).await;
        call(&client, "none".to_owned()).await;
        let invocations = (0..20).map(|number| {
            let trace = format!("Root=1-5759e988-{number:024x};Parent=53995c3f42cd8ad8;Sampled=1;Lineage=1:a87bd80c:1");
            let mut context = Context::default();
            context.xray_trace_id = Some(trace.clone());
            let client = client.clone();
            let endpoint = move |_| {
                let (client, trace) = (client.clone(), trace.clone());
                async move {
                    call(&client, trace.clone()).await;
                    let spawned = spawn(async move { call(&client, trace).await });
                    spawned.await.map_err(|error| Problem::internal().because(error))?;
                    Ok(Response::default())
                }
            };
            handler::invoke(endpoint, EVENT, context)
        });
        for answer in join_all(invocations).await {
            assert!(answer.expect("an answer").contains("\"statusCode\":200"));
        }
        let mut seen = BTreeMap::new();
        for request in aws.requests() {
            let trace = request.header(X_AMZN_TRACE_ID).unwrap_or("none").to_owned();
            assert_eq!(request.header("x-expected"), Some(&*trace));
            *seen.entry(trace).or_insert(0) += 1;
        }
        assert_eq!(seen.remove("none"), Some(1));
        assert_eq!(seen.into_values().collect::<Vec<_>>(), [2; 20]);
    }
}
