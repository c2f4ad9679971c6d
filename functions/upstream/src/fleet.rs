//! What environments tell each other about an upstream, through a table, if the operator configured one.
//!
//! If an environment's own stored response cannot be used, it [asks](Fleet::ask) before it calls the upstream. A later
//! response in the table replaces its own. While the upstream is unhealthy, and when a stored response must be renewed,
//! only the environment with the lease calls. The others wait for its result, or behave as if the circuit breaker were
//! open. docs/upstream.md draws how the verdict on the upstream, the leases and the circuit breakers interact.
//!
//! [`memory`] decides by that drawing, [`table`] reads and writes the items, [`key`] makes their keys, and [`item`] is the
//! format of a response.

mod error;
mod item;
mod key;
mod memory;
mod table;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use url::Url;

pub(crate) use memory::Fleet;
use table::Lease;

use crate::{entry::Entry, error::Failure, request::Prepared};

/// What the other environments know.
pub(crate) struct Answer {
    pub(crate) permission: Permission,
    /// Another environment's response, if that is later than the stored one.
    pub(crate) later: Option<Arc<Entry>>,
}

/// How the upstream may be called.
pub(crate) enum Permission {
    /// Independently of other environments.
    Call,
    /// As the only environment that calls for this purpose.
    Lease(Lease, Purpose),
    /// Not at all: this response may be used. Usually another environment got it.
    Use(Arc<Entry>),
    /// Not at all, for this reason.
    Fail(Failure),
}

/// What a lease was taken for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Purpose {
    /// The upstream was unhealthy. A good response is shared, too.
    Probe,
    /// To get a good response, and to share it.
    Renew,
    /// To validate a response that was shared a moment ago. It is not written again.
    Validate,
}

impl Purpose {
    /// Whether a good response is shared.
    pub(crate) fn renews(self) -> bool {
        self != Self::Validate
    }
}

/// What an environment tells the others.
#[derive(Clone)]
pub(crate) struct Report {
    pub(crate) request: Arc<Prepared>,
    pub(crate) lease: Option<Lease>,
    /// The good response, if it should be shared.
    pub(crate) response: Option<Arc<Entry>>,
    /// Whether the upstream was found healthy.
    pub(crate) is_healthy: bool,
    /// How long the upstream should be left alone.
    pub(crate) open_for: Option<Duration>,
    /// What the request may have changed, and when.
    pub(crate) invalidated: Vec<(Url, SystemTime)>,
}

impl Report {
    /// Whether there is nothing to tell.
    pub(crate) fn is_empty(&self) -> bool {
        self.lease.is_none() && self.response.is_none() && self.open_for.is_none() && self.invalidated.is_empty()
    }
}
