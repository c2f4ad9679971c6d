//! The life of a function's process.

use std::{env, process::ExitCode, sync::Arc};

use bytes::Bytes;
use futures_util::FutureExt;
use lambda_http::{Context, Error};
use tokio::runtime::Builder;
use tracing::error;

use crate::{
    Endpoint,
    lambda::Lambda,
    log::{self, Log},
    respond::respond,
    work::answer_then_work,
};

/// Where Lambda's Runtime API listens: Lambda sets it, and so do `cargo lambda watch` and the tests.
const AWS_LAMBDA_RUNTIME_API: &str = "AWS_LAMBDA_RUNTIME_API";

/// How many invocations one environment is sent at a time: above 1 under Lambda Managed Instances only.
const AWS_LAMBDA_MAX_CONCURRENCY: &str = "AWS_LAMBDA_MAX_CONCURRENCY";

/// Runs `endpoint` as a Lambda function, until Lambda ends the process.
///
/// `GET` and `HEAD` requests reach the endpoint; every answer gets its common headers, every error becomes problem
/// details, a panic included, and every invocation leaves a line in the log. Under Lambda Managed Instances the endpoint
/// is called for many requests at once.
///
/// The function ends, with a failure, only when it cannot go on: it was not started by Lambda, or Lambda's Runtime API is
/// gone. `SIGTERM` ends it at once: nothing is kept back that could be lost.
#[must_use]
pub fn run(endpoint: impl Endpoint) -> ExitCode {
    let log = log::init();
    let Ok(address) = env::var(AWS_LAMBDA_RUNTIME_API) else {
        error!("{AWS_LAMBDA_RUNTIME_API} is not set: this is a Lambda function, start it with `make run`");
        return ExitCode::FAILURE;
    };
    let at_a_time = env::var(AWS_LAMBDA_MAX_CONCURRENCY).ok().and_then(|value| value.parse().ok());
    let at_a_time = at_a_time.unwrap_or(1).max(1);
    let init = log.age();
    // Boxed, as it is large, and would be moved again and again.
    let answer = move |event, context| respond(Arc::clone(&log), init, endpoint.clone(), event, context).boxed();
    // One thread, as one request at a time needs; a thread a core where Lambda sends several.
    let mut tokio = if at_a_time > 1 { Builder::new_multi_thread() } else { Builder::new_current_thread() };
    let tokio = tokio.enable_all().build().map_err(Error::from);
    let end = match tokio.and_then(|tokio| Ok((tokio, Lambda::new(address, at_a_time)?))) {
        Ok((tokio, lambda)) => tokio.block_on(lambda.serve(at_a_time, answer)),
        Err(error) => error,
    };
    error!(error = &*end as &dyn std::error::Error, "the Lambda Runtime API failed");
    ExitCode::FAILURE
}

/// Answers one event as [`run`] does, without Lambda: for tests that replay payloads.
///
/// The answer is the JSON that Lambda would give to the trigger.
///
/// # Errors
///
/// What Lambda would report as the failure of the invocation: `event` is not JSON, or no HTTP trigger's.
pub async fn invoke(endpoint: impl Endpoint, event: &[u8], context: Context) -> Result<String, Error> {
    invoke_with(Log::silent(), endpoint, event, context).await
}

pub(crate) async fn invoke_with(
    log: Arc<Log>,
    endpoint: impl Endpoint,
    event: &[u8],
    context: Context,
) -> Result<String, Error> {
    let event = Bytes::copy_from_slice(event);
    answer_then_work(respond(Arc::clone(&log), log.age(), endpoint, event, context)).await
}
