//! The boundary that no panic crosses. The panic hook has logged the panic before it gets here.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
};

use futures_util::FutureExt;

/// Runs `act`. `None` if it panics.
pub(crate) fn caught<T>(act: impl FnOnce() -> T) -> Option<T> {
    value(catch_unwind(AssertUnwindSafe(act)))
}

/// Runs `future`, which must be an `async` block or the future of an `async fn`: these drop what they hold before they
/// end, so a panic in a `drop` is caught, too. `None` if it panics.
pub(crate) fn caught_async<F: Future>(future: F) -> impl Future<Output = Option<F::Output>> {
    // No `async fn`, which would hold the future twice.
    AssertUnwindSafe(future).catch_unwind().map(value)
}

fn value<T>(outcome: thread::Result<T>) -> Option<T> {
    let drop_payload = |payload| {
        // A payload's `drop` may panic as well. The payload of that panic is leaked, because its `drop` may, too.
        if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            mem::forget(again);
        }
    };
    outcome.map_err(drop_payload).ok()
}
