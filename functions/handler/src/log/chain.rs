//! An error in words.

use std::{error::Error, fmt::Write};

/// An error and all that led to it.
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
