//! An invocation as the operator sees it, for tests.

use std::sync::{Arc, Mutex, PoisonError};

use crate::{
    Context, Endpoint, Error,
    log::{Format, Log},
    run::invoke_with,
};

/// Answers one event like [`invoke`](crate::invoke), and also returns the JSON line that it writes to the log. For
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
