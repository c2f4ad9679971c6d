//! Why there is no good response from the upstream.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use handler::{Problem, http::StatusCode};

type Cause = Arc<dyn Error + Send + Sync>;

/// Why one attempt, or several, got no good response.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// DNS, connect or TLS failed, or the response was cut or malformed.
    Unreachable(Cause),
    /// The response is complete, but cannot be used.
    Unusable(Cause),
    /// The attempt took longer than one attempt may.
    TimedOut,
    /// The request's own time ran out during the attempt, which says nothing about the upstream.
    DeadlineExceeded,
    /// The upstream's status is not a success.
    Status { status: StatusCode, retry_after: Option<Duration> },
    /// The body is larger than this many bytes.
    TooLarge(usize),
    /// The circuit breaker is open for this long.
    Open(Duration),
    /// The secret or the CA file cannot be read or used, and the operator must correct that.
    Misconfigured(Cause),
    /// The secret could not be read this time.
    SecretUnavailable(Cause),
    /// A panic.
    Bug,
}

impl Failure {
    pub(crate) fn unreachable(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unreachable(cause.into().into())
    }

    pub(crate) fn unusable(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unusable(cause.into().into())
    }

    pub(crate) fn misconfigured(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Misconfigured(cause.into().into())
    }

    /// Whether another attempt may succeed.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::TimedOut => true,
            Self::Status { status, .. } => matches!(status.as_u16(), 429 | 502 | 503 | 504),
            _ => false,
        }
    }

    /// Whether this shows that the upstream is unhealthy, and not only that it refuses this request.
    pub(crate) fn is_of_health(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::TimedOut => true,
            Self::Status { status, .. } => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            _ => false,
        }
    }

    /// Whether an older response may be used instead. It may not if the upstream answered and refused the request.
    pub(crate) fn may_be_stood_in_for(&self) -> bool {
        match self {
            Self::Status { .. } => self.is_of_health(),
            Self::Misconfigured(_) => false,
            _ => true,
        }
    }

    /// The status that the upstream answered with.
    pub(crate) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// How long the upstream asks not to be called again.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The problem that the caller gets.
    pub(crate) fn into_problem(self) -> Problem {
        match self {
            Self::Unreachable(cause) | Self::Unusable(cause) => Problem::upstream_unreachable().because(Chained(cause)),
            Self::TimedOut | Self::DeadlineExceeded => Problem::upstream_timeout(),
            Self::Status { status, .. } => Problem::upstream_error(status),
            Self::TooLarge(limit) => Problem::upstream_response_too_large(limit),
            Self::Open(left) => Problem::upstream_unavailable(left).because("the circuit breaker is open"),
            Self::Misconfigured(cause) => Problem::misconfigured(Chained(cause)),
            Self::SecretUnavailable(cause) => {
                Problem::upstream_unavailable(Duration::from_secs(1)).because(Chained(cause))
            }
            Self::Bug => Problem::internal().because("a call of the upstream panicked"),
        }
    }
}

/// Makes a shared error an `Error`, which `Arc<dyn Error>` does not implement.
#[derive(Debug)]
struct Chained(Cause);

impl fmt::Display for Chained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Chained {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}
