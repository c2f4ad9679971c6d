//! An invocation as its operator sees it, for tests.

use std::sync::{Arc, Mutex, PoisonError};

use lambda_http::{LambdaEvent, Service};

use crate::{
    Context, Endpoint, Error,
    after::answer_then_work,
    event::on_events,
    log::{Format, Log},
    respond::http_service,
};

/// Answers one event as [`invoke`](crate::invoke) does, and also gives the line of JSON that this leaves in the log: for
/// tests of what an endpoint [records](crate::record).
///
/// The line is that of the first invocation in a process.
///
/// # Errors
///
/// What Lambda would report as the failure of the invocation: `event` is not JSON, or no HTTP trigger's.
pub async fn observe(endpoint: impl Endpoint, event: &[u8], context: Context) -> Result<(String, String), Error> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let written = Arc::clone(&lines);
    let log = Log::new(Format::Json, move |line| {
        written.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(line);
    });
    let event = LambdaEvent::new(serde_json::from_slice(event)?, context);
    let answer = answer_then_work(on_events(Arc::new(log), http_service(endpoint)).call(event)).await?;
    let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
    Ok((serde_json::to_string(&answer)?, String::from_utf8_lossy(&lines).into_owned()))
}
