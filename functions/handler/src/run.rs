//! The life of a function's process.

use std::{env, process::ExitCode, sync::Arc};

use futures_util::FutureExt;
use lambda_http::{
    Context, Error, LambdaEvent,
    lambda_runtime::{Runtime, layers::TracingLayer},
    service_fn,
};
use tokio::runtime::{self, Builder};
use tower::util::MapFutureLayer;
use tracing::error;

use crate::{
    Endpoint,
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
    if env::var_os(AWS_LAMBDA_RUNTIME_API).is_none() {
        error!("{AWS_LAMBDA_RUNTIME_API} is not set: this is a Lambda function, start it with `make run`");
        return ExitCode::FAILURE;
    }
    let outcome = tokio_runtime().map_err(Error::from).and_then(|tokio| {
        let init = log.age();
        // Boxed, or the layers of the runtime would move all of it from one to the next.
        let serve = move |event| respond(Arc::clone(&log), init, endpoint.clone(), event).boxed();
        let lambda = Runtime::new(service_fn(serve));
        let lambda = lambda.layer(TracingLayer::new()).layer(MapFutureLayer::new(answer_then_work));
        tokio.block_on(lambda.run_concurrent())
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = &*error as &dyn std::error::Error, "the Lambda Runtime API failed");
            ExitCode::FAILURE
        }
    }
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
    let event = LambdaEvent::new(serde_json::from_slice(event)?, context);
    let answer = answer_then_work(respond(Arc::clone(&log), log.age(), endpoint, event)).await?;
    Ok(Box::<str>::from(answer).into_string())
}

/// One thread, as one request at a time needs; a thread a core where Lambda sends several.
fn tokio_runtime() -> std::io::Result<runtime::Runtime> {
    let concurrency = env::var(AWS_LAMBDA_MAX_CONCURRENCY).ok().and_then(|value| value.parse::<u32>().ok());
    let mut builder = if concurrency > Some(1) { Builder::new_multi_thread() } else { Builder::new_current_thread() };
    builder.enable_all().build()
}
