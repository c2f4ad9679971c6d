//! The message of an error.

use std::{error::Error, fmt::Write};

/// The message of an error and of all its causes.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut chain = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to memory does not fail.
        let _ = write!(chain, ": {error}");
        cause = error.source();
    }
    chain
}
