//! The life of a function's process.

use std::{
    env,
    pin::pin,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use futures_util::FutureExt;
use lambda_http::{Context, Error};
use tokio::runtime::{Builder, Runtime};
use tracing::error;

use crate::{
    Endpoint,
    background::answer_then_finish,
    caught::caught,
    lambda::{self, Lambda},
    log::{self, AWS_LAMBDA_INITIALIZATION_TYPE, Format, Log},
    respond::respond,
};

/// The address of Lambda's Runtime API. Lambda, `cargo lambda watch` and the tests set it.
const AWS_LAMBDA_RUNTIME_API: &str = "AWS_LAMBDA_RUNTIME_API";

/// How many invocations Lambda sends to one environment at a time: more than 1 only under Lambda Managed Instances.
const AWS_LAMBDA_MAX_CONCURRENCY: &str = "AWS_LAMBDA_MAX_CONCURRENCY";

/// Whether the function's triggers stream its answers, in the words of a function URL: `RESPONSE_STREAM`, or `BUFFERED`,
/// which is the default. template.yaml sets it beside the trigger.
pub(crate) const INVOKE_MODE: &str = "INVOKE_MODE";

/// The initialization type of a process that Lambda starts once, to restore others from its snapshot.
const SNAP_START: &str = "snap-start";

/// Runs `endpoint` as a Lambda function, until Lambda ends the process.
///
/// The endpoint gets the requests that have one of its methods. Every answer gets the common headers. Every error,
/// including a panic, becomes problem details. Every invocation writes a line to the log. Under Lambda Managed
/// Instances, the endpoint is called for many requests at once.
///
/// This returns, with a failure, only if the function cannot continue: Lambda did not start it, it could not start, or
/// Lambda's Runtime API has been gone for ten seconds. `SIGTERM` ends the process at once: there is no buffered data to lose.
#[must_use]
pub fn run(endpoint: impl Endpoint) -> ExitCode {
    let log = log::init();
    let Ok(address) = env::var(AWS_LAMBDA_RUNTIME_API) else {
        #[cfg(feature = "serve")]
        return crate::serve::serve(&log, endpoint);
        #[cfg(not(feature = "serve"))]
        {
            error!("{AWS_LAMBDA_RUNTIME_API} is not set: this is a Lambda function, start it with `make run`");
            return ExitCode::FAILURE;
        }
    };
    let at_a_time = env::var(AWS_LAMBDA_MAX_CONCURRENCY).ok().and_then(|value| value.parse().ok());
    let at_a_time = at_a_time.unwrap_or(1).max(1);
    let streams = cfg!(feature = "stream") && env::var(INVOKE_MODE).is_ok_and(|mode| mode == "RESPONSE_STREAM");
    let init = log.age();
    // Boxed, because it is large and would be moved many times.
    let answer = move |event: Bytes, context| respond(&log, init, &endpoint, event, context, streams).boxed();
    // tokio panics if there can be no more threads.
    let started = caught(|| start(&address, at_a_time)).unwrap_or_else(|| Err("the start panicked".into()));
    let (tokio, lambda) = match started {
        Ok(started) => started,
        Err(error) => {
            error!(error = &*error as &dyn std::error::Error, "the function cannot start");
            lambda::init_failed(&address, &error);
            return ExitCode::FAILURE;
        }
    };
    let end = tokio.block_on(pin!(lambda.serve(answer)));
    error!(error = &*end as &dyn std::error::Error, "the Lambda Runtime API failed");
    ExitCode::FAILURE
}

/// Starts tokio, and waits for Lambda's snapshot of the process, if it takes one.
fn start(address: &str, at_a_time: u32) -> Result<(Runtime, Lambda), Error> {
    // One request at a time needs only one thread. If Lambda sends several, there is one thread per core.
    let mut tokio = if at_a_time > 1 { Builder::new_multi_thread() } else { Builder::new_current_thread() };
    let tokio = tokio.enable_all().build()?;
    let lambda = Lambda::new(address, at_a_time)?;
    if env::var(AWS_LAMBDA_INITIALIZATION_TYPE).is_ok_and(|initialization| initialization == SNAP_START) {
        tokio.block_on(lambda.restored())?;
    }
    Ok((tokio, lambda))
}

/// Answers one event like [`run`], but without Lambda, for tests that replay payloads.
///
/// Returns the JSON that Lambda would pass to the trigger.
///
/// # Errors
///
/// If `event` is not JSON or not from an HTTP trigger. Lambda would report this as the failure of the invocation.
pub async fn invoke(endpoint: impl Endpoint, event: &[u8], context: Context) -> Result<String, Error> {
    invoke_with(Log::silent(), endpoint, event, context).await
}

/// Answers one event like [`invoke`], and also returns the JSON line that it writes to the log. For
/// tests of what an endpoint [records](crate::record).
///
/// The line is written as for the first invocation in a process.
///
/// # Errors
///
/// If `event` is not JSON or not from an HTTP trigger. Lambda would report this as the failure of the invocation.
pub async fn observe(endpoint: impl Endpoint, event: &[u8], context: Context) -> Result<(String, String), Error> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let written = Arc::clone(&lines);
    let log = Log::new(Format::Json, move |line| {
        written.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(line);
    });
    let answer = invoke_with(Arc::new(log), endpoint, event, context).await?;
    let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
    Ok((answer, String::from_utf8_lossy(&lines).into_owned()))
}

async fn invoke_with(log: Arc<Log>, endpoint: impl Endpoint, event: &[u8], context: Context) -> Result<String, Error> {
    let event = Bytes::copy_from_slice(event);
    // Boxed as in `run`, so that a test's future is small whatever the endpoint is.
    answer_then_finish(respond(&log, log.age(), &endpoint, event, context, false).boxed()).await?.json()
}
