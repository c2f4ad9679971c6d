//! Lambda's loop: ask for an invocation, answer it, ask for the next one.
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>
//!
//! It is that of `lambda_runtime` (1.5), on the same client, but for one thing: there each invocation's trace id is put
//! into the process's environment, and glibc never frees what was there before. That is 144 bytes for each invocation, 14
//! MB in 100,000, as `make soak` shows, and nothing here reads it from there.

use std::{env, sync::Arc};

use bytes::Bytes;
use http_body_util::BodyExt;
use lambda_http::{
    Context, Error,
    http::{HeaderMap, HeaderValue, Method, StatusCode},
    lambda_runtime::{Config, layers::trace::request_span},
};
use lambda_runtime_api_client::{PooledClient, body::Body, build_request};
use serde_json::json;
use tokio::task::JoinSet;
use tracing::{Instrument, error};

use crate::work::answer_then_work;

/// Echoed with what came of an invocation, so that one that is late is not taken for another invocation's.
const LAMBDA_RUNTIME_INVOCATION_ID: &str = "lambda-runtime-invocation-id";

/// Lambda's Runtime API.
pub(crate) struct Lambda {
    client: PooledClient,
    /// What is the same for all invocations.
    context: Context,
}

impl Lambda {
    /// The Runtime API at `address`, for so many invocations at a time.
    ///
    /// # Errors
    ///
    /// When that is no address.
    pub(crate) fn new(address: String, at_a_time: usize) -> Result<Self, Error> {
        let variable = |name| env::var(name).unwrap_or_default();
        let function = Config {
            function_name: variable("AWS_LAMBDA_FUNCTION_NAME"),
            memory: variable("AWS_LAMBDA_FUNCTION_MEMORY_SIZE").parse().unwrap_or_default(),
            version: variable("AWS_LAMBDA_FUNCTION_VERSION"),
            log_group: variable("AWS_LAMBDA_LOG_GROUP_NAME"),
            log_stream: variable("AWS_LAMBDA_LOG_STREAM_NAME"),
        };
        let mut context = Context::default();
        context.env_config = Arc::new(function);
        let client = PooledClient::builder().with_endpoint(address.try_into()?).with_pool_size(at_a_time);
        Ok(Self { client: client.build(), context })
    }

    /// Has `answer` serve invocations, so many at a time, until the Runtime API is gone: the reason is what is returned.
    pub(crate) async fn serve<A, F>(self, at_a_time: usize, answer: A) -> Error
    where
        A: Fn(Bytes, Context) -> F + Clone + Send + 'static,
        F: Future<Output = Result<String, Error>> + Send + 'static,
    {
        let lambda = Arc::new(self);
        if at_a_time == 1 {
            return lambda.work(answer).await;
        }
        let mut workers = JoinSet::new();
        for _ in 0..at_a_time {
            let (lambda, answer) = (Arc::clone(&lambda), answer.clone());
            workers.spawn(async move { lambda.work(answer).await });
        }
        let mut last = Error::from("there is no worker");
        while let Some(ended) = workers.join_next().await {
            last = ended.unwrap_or_else(Error::from);
            error!(error = &*last as &dyn std::error::Error, left = workers.len() as u64, "a worker has ended");
        }
        last
    }

    /// One invocation after the other.
    async fn work<A, F>(&self, answer: A) -> Error
    where
        A: Fn(Bytes, Context) -> F,
        F: Future<Output = Result<String, Error>>,
    {
        loop {
            let done = match self.next().await {
                Ok(Some((headers, event))) => {
                    let context = self.context(&headers);
                    let span = request_span(&context);
                    let path = format!("/2018-06-01/runtime/invocation/{}", context.request_id);
                    let answer = answer(event, context);
                    answer_then_work(self.end(path, &headers, answer)).instrument(span).await
                }
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = done {
                return error;
            }
        }
    }

    /// Waits for an invocation: what Lambda says of it, and its event. `None` is what `cargo lambda watch` says to keep a
    /// function waiting.
    async fn next(&self) -> Result<Option<(HeaderMap, Bytes)>, Error> {
        let request = build_request().uri("/2018-06-01/runtime/invocation/next").body(Body::empty())?;
        let (parts, event) = self.client.call(request).await?.into_parts();
        match parts.status {
            StatusCode::OK => Ok(Some((parts.headers, event.collect().await?.to_bytes()))),
            StatusCode::NO_CONTENT => Ok(None),
            status => Err(format!("there is no next invocation: {status}").into()),
        }
    }

    /// Tells what came of an invocation.
    async fn end(
        &self,
        path: String,
        headers: &HeaderMap,
        answer: impl Future<Output = Result<String, Error>>,
    ) -> Result<(), Error> {
        let (kind, body) = match answer.await {
            Ok(answer) => ("/response", answer),
            Err(cause) => {
                error!(error = &*cause as &dyn std::error::Error, "the invocation failed");
                let failure = json!({ "errorType": "UnknownEvent", "errorMessage": cause.to_string() });
                ("/error", failure.to_string())
            }
        };
        let mut request = build_request().method(Method::POST).uri(path + kind);
        if let Some(id) = headers.get(LAMBDA_RUNTIME_INVOCATION_ID) {
            request = request.header(LAMBDA_RUNTIME_INVOCATION_ID, id);
        }
        let response = self.client.call(request.body(body.into())?).await?;
        if !response.status().is_success() {
            // It was too late, or too long. That is this invocation's end, and not the function's.
            error!("Lambda refused what came of the invocation: {}", response.status());
        }
        Ok(())
    }

    /// What Lambda says of an invocation. What it leaves out, or gives in another form, is left at its default.
    fn context(&self, headers: &HeaderMap) -> Context {
        let header = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let mut context = self.context.clone();
        context.request_id = header("lambda-runtime-aws-request-id").unwrap_or_default().into();
        context.deadline = header("lambda-runtime-deadline-ms").and_then(|ms| ms.parse().ok()).unwrap_or_default();
        context.invoked_function_arn = header("lambda-runtime-invoked-function-arn").unwrap_or_default().into();
        context.xray_trace_id = header("lambda-runtime-trace-id").map(str::to_owned);
        context.tenant_id = header("lambda-runtime-aws-tenant-id").map(str::to_owned);
        context
    }
}
