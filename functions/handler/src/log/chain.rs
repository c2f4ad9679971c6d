//! The message of an error.

use std::{error::Error, fmt::Write};

use crate::caught::caught;

/// How many causes a message may have: an error can be its own cause.
const MAX_CAUSES: usize = 32;

/// The message of an error and of its causes, as far as they can be formatted.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut chain = String::new();
    let formatted = caught(|| {
        // Writing to memory does not fail. If the error's own code does, the rest of its message is lost.
        let _ = write!(chain, "{error}");
        let mut cause = error.source();
        for _ in 0..MAX_CAUSES {
            let Some(error) = cause else { break };
            let _ = write!(chain, ": {error}");
            cause = error.source();
        }
    });
    if formatted.is_none() {
        chain.push_str(" (the rest panicked while it was formatted)");
    }
    chain
}
