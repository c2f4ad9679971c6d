//! The time limit of a request.

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, timeout_at};

use crate::log::InvocationSpan;

/// The time that is reserved before Lambda's deadline, so that an answer still reaches the caller.
const MARGIN: Duration = Duration::from_millis(100);

/// How long past its deadline an endpoint may run before the request is answered without it.
pub(crate) const GRACE: Duration = Duration::from_millis(50);

/// When the endpoint must be done with the current request: 100 ms before Lambda ends the invocation.
///
/// `None` if there is no deadline: outside an invocation and the tasks that it [spawned](crate::spawn), or if the
/// invocation's deadline had passed before it began, as with `cargo lambda watch`.
#[must_use]
pub fn deadline() -> Option<Instant> {
    InvocationSpan::current(InvocationSpan::deadline).flatten()
}

/// Converts the deadline `lambdas`, minus [`MARGIN`], from the system clock to the monotonic clock.
pub(crate) fn before(lambdas: SystemTime) -> Option<Instant> {
    let left = lambdas.duration_since(SystemTime::now()).ok()?;
    // A distant deadline can be later than an `Instant` can hold.
    Instant::now().checked_add(left.saturating_sub(MARGIN))
}

/// Runs `future` for at most the time until `at`. `None` if that is not enough.
pub(crate) async fn in_time<F: Future>(at: Option<Instant>, future: F) -> Option<F::Output> {
    match at {
        Some(at) => timeout_at(at, future).await.ok(),
        None => Some(future.await),
    }
}
