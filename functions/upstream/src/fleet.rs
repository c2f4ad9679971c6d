//! What environments tell each other about an upstream, through a table, if the operator configured one.
//!
//! If an environment's own stored response cannot be used, it [asks](Fleet::ask) before it calls the upstream. A later
//! response in the table replaces its own. While the upstream is unhealthy, and when a stored response must be renewed,
//! only the environment with the lease calls. The others wait for its result, or behave as if the circuit breaker were
//! open. docs/upstream.md draws how the verdict on the upstream, the leases and the circuit breakers interact.
//!
//! Here is what the rest of this crate needs of it. The part that decides by that drawing, `memory`, is linked only with the
//! feature `fleet`.

#[cfg_attr(not(feature = "fleet"), path = "fleet/unlinked.rs")]
mod memory;
#[cfg(all(test, feature = "fleet"))]
mod unlinked;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use url::Url;

pub(crate) use memory::{Fleet, Lease};

use crate::{
    entry::Entry,
    error::Failure,
    request::Prepared,
    settings::{InvalidSetting, SHARED_STATE_TABLE, Settings},
};

/// One environment's part in the fleet that has the table that `settings` name. `None` if they name none.
///
/// # Errors
///
/// If they name one, and this function links nothing that could use it.
pub(crate) fn fleet(settings: &Settings) -> Result<Option<Fleet>, InvalidSetting> {
    is_usable(settings, cfg!(feature = "fleet"))?;
    Ok(Fleet::new(settings))
}

fn is_usable(settings: &Settings, is_linked: bool) -> Result<(), InvalidSetting> {
    if is_linked || settings.shared_state_table.is_none() {
        return Ok(());
    }
    Err(InvalidSetting::new(
        SHARED_STATE_TABLE,
        "must be unset, or the function's Cargo.toml must have `upstream = { workspace = true, features = [\"fleet\"] }`",
    ))
}

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
#[derive(Clone, Default)]
pub(crate) struct Report {
    pub(crate) lease: Option<Lease>,
    /// A request and its good response, if that should be shared.
    pub(crate) response: Option<(Arc<Prepared>, Arc<Entry>)>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_for_a_function_that_links_no_fleet_is_a_misconfiguration_that_says_what_to_do() {
        for (table, is_linked, is_ok) in [("", false, true), ("table", true, true), ("table", false, false)] {
            let variable = |name: &str| match name {
                "UPSTREAM_URL" => Some("https://example.com".to_owned()),
                "SHARED_STATE_TABLE" => Some(table.to_owned()),
                _ => None,
            };
            let settings = Settings::read("UPSTREAM", variable).unwrap();
            let usable = is_usable(&settings, is_linked).map_err(|invalid| invalid.to_string());
            assert_eq!(usable.is_ok(), is_ok, "{table} {is_linked}");
            if let Err(error) = usable {
                assert!(error.contains("SHARED_STATE_TABLE") && error.contains("features = [\"fleet\"]"), "{error}");
            }
        }
    }
}
