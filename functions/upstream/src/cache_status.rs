//! Where a response came from, as callers and the log are told it.

use std::fmt;

use handler::http::{HeaderValue, StatusCode};

/// Where an answer came from: RFC 9211.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum CacheStatus {
    /// It was stored and fresh.
    Hit { shared: bool },
    /// It was stored and stale. `because` says why it is used.
    Stale { forwarded: Option<Forwarded>, because: &'static str, shared: bool },
    /// It came from the upstream.
    Forwarded(Forwarded),
}

/// A call of the upstream, and its status.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Forwarded {
    /// Whether there was a stored response: `fwd=stale` rather than `fwd=miss`.
    pub(crate) stale: bool,
    pub(crate) status: Option<StatusCode>,
}

impl CacheStatus {
    /// For the log: `hit`, `stale` or `miss`, and `revalidated` for a stored response that the upstream confirmed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hit { .. } => "hit",
            Self::Stale { .. } => "stale",
            Self::Forwarded(Forwarded { status: Some(StatusCode::NOT_MODIFIED), .. }) => "revalidated",
            Self::Forwarded(_) => "miss",
        }
    }

    /// Whether the caller got the stored response without the upstream's confirmation.
    pub(crate) fn is_from_cache(self) -> bool {
        matches!(self, Self::Hit { .. } | Self::Stale { .. })
    }

    /// The field of a cache that is called `name`, for a response that stays fresh for `ttl` seconds.
    pub(crate) fn header(self, name: &str, ttl: i64) -> HeaderValue {
        let text = match self {
            Self::Hit { shared: false } => format!("{name}; hit; ttl={ttl}"),
            Self::Hit { shared: true } => format!("shared; hit; ttl={ttl}, {name}; fwd=miss"),
            Self::Stale { forwarded: None, because, shared: false } => {
                format!("{name}; hit; ttl={ttl}; detail={because}")
            }
            Self::Stale { forwarded: Some(forwarded), because, shared: false } => {
                format!("{name}; {forwarded}; ttl={ttl}; detail={because}")
            }
            Self::Stale { forwarded, because, shared: true } => {
                let forwarded = forwarded.unwrap_or(Forwarded { stale: false, status: None });
                format!("shared; hit; ttl={ttl}; detail={because}, {name}; {forwarded}")
            }
            Self::Forwarded(forwarded) => format!("{name}; {forwarded}"),
        };
        HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("upstream"))
    }
}

impl fmt::Display for Forwarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fwd={}", if self.stale { "stale" } else { "miss" })?;
        self.status.map_or(Ok(()), |status| write!(f, "; fwd-status={}", status.as_u16()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_status_says_where_an_answer_came_from() {
        let forwarded = Forwarded { stale: true, status: Some(StatusCode::BAD_GATEWAY) };
        for (status, header) in [
            (CacheStatus::Hit { shared: false }, "fetch; hit; ttl=-7"),
            (CacheStatus::Hit { shared: true }, "shared; hit; ttl=-7, fetch; fwd=miss"),
            (
                CacheStatus::Stale { forwarded: Some(forwarded), because: "error", shared: true },
                "shared; hit; ttl=-7; detail=error, fetch; fwd=stale; fwd-status=502",
            ),
            (
                CacheStatus::Stale { forwarded: None, because: "revalidating", shared: false },
                "fetch; hit; ttl=-7; detail=revalidating",
            ),
            (
                CacheStatus::Stale { forwarded: Some(forwarded), because: "error", shared: false },
                "fetch; fwd=stale; fwd-status=502; ttl=-7; detail=error",
            ),
            (CacheStatus::Forwarded(Forwarded { stale: false, status: None }), "fetch; fwd=miss"),
        ] {
            assert_eq!(status.header("fetch", -7), header);
        }
    }
}
