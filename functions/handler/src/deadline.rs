//! The time there is for a request.

use std::time::{Duration, SystemTime};

use lambda_http::{Request, RequestExt};
use tokio::time::Instant;

/// What is kept back from Lambda's deadline, so that an answer still reaches the caller.
const MARGIN: Duration = Duration::from_millis(100);

/// How far past its deadline an endpoint may be before its answer is given without it.
pub(crate) const GRACE: Duration = Duration::from_millis(50);

#[derive(Clone, Copy)]
struct Deadline(Instant);

/// When the endpoint has to be done with `request`: 100 ms before Lambda would end the invocation.
///
/// `None` where there is no such time: outside Lambda, or when the deadline that came with the invocation had passed
/// before it began, as with `cargo lambda watch`.
#[must_use]
pub fn deadline(request: &Request) -> Option<Instant> {
    request.extensions().get().map(|Deadline(at)| *at)
}

/// Sets the time that [`deadline`] tells.
pub(crate) fn start(request: &mut Request) -> Option<Instant> {
    let at = before(request.lambda_context_ref()?.deadline())?;
    request.extensions_mut().insert(Deadline(at));
    Some(at)
}

/// A while before `lambdas` deadline, from its clock, which is a calendar's, to one that only moves forward.
pub(crate) fn before(lambdas: SystemTime) -> Option<Instant> {
    let left = lambdas.duration_since(SystemTime::now()).ok()?;
    // A far deadline can be beyond what an instant holds.
    Instant::now().checked_add(left.saturating_sub(MARGIN))
}
