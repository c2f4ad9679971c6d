//! Lambda's loop: ask for an invocation, answer it, ask for the next one.
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>
//!
//! It works like the loop of `lambda_runtime` (1.5), on the same client, with one difference. `lambda_runtime` puts
//! each invocation's trace id into the process's environment, and glibc never frees the old value. That leaks 144 bytes
//! per invocation, 14 MB in 100,000, as `make soak` shows. Nothing here reads the trace id from the environment.

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

/// Echoed with the result of an invocation, so that a late result is not taken for another invocation's.
const LAMBDA_RUNTIME_INVOCATION_ID: &str = "lambda-runtime-invocation-id";

/// Lambda's Runtime API.
pub(crate) struct Lambda {
    client: PooledClient,
    /// The part that is the same for all invocations.
    context: Context,
}

impl Lambda {
    /// The Runtime API at `address`, for up to `at_a_time` invocations at a time.
    ///
    /// # Errors
    ///
    /// If `address` is not an address.
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

    /// Serves invocations with `answer`, up to `at_a_time` at a time. Returns when the Runtime API is gone, with the
    /// reason.
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

    /// Serves one invocation after the other.
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

    /// Waits for an invocation, and returns its headers and its event. `None` means: keep waiting.
    /// `cargo lambda watch` answers that way.
    async fn next(&self) -> Result<Option<(HeaderMap, Bytes)>, Error> {
        let request = build_request().uri("/2018-06-01/runtime/invocation/next").body(Body::empty())?;
        let (parts, event) = self.client.call(request).await?.into_parts();
        match parts.status {
            StatusCode::OK => Ok(Some((parts.headers, event.collect().await?.to_bytes()))),
            StatusCode::NO_CONTENT => Ok(None),
            status => Err(format!("there is no next invocation: {status}").into()),
        }
    }

    /// Sends the result of an invocation to Lambda.
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
            // The result was too late, or too long. That ends this invocation, but not the function.
            error!("Lambda refused the result of the invocation: {}", response.status());
        }
        Ok(())
    }

    /// The context of an invocation from its headers. A missing or malformed header leaves the default.
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
