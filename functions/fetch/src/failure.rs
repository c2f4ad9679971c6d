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
    /// The time for the attempt ran out.
    TimedOut,
    /// The time for the request ran out, before the attempt had a fair share of it or before an attempt could begin.
    DeadlineExceeded,
    /// The upstream's status is not a success.
    Status { status: StatusCode, retry_after: Option<Duration> },
    /// The upstream's status is 401, and the next attempt can have another token.
    TokenRefused,
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
            Self::Unreachable(_) | Self::TimedOut | Self::TokenRefused => true,
            Self::Status { status, .. } => matches!(status.as_u16(), 429 | 502 | 503 | 504),
            _ => false,
        }
    }

    /// Whether this shows that the upstream is healthy, or that it is not. One that refuses this request is healthy.
    /// `None` if this shows neither.
    pub(crate) fn is_healthy(&self) -> Option<bool> {
        match self {
            Self::Unreachable(_) | Self::TimedOut => Some(false),
            Self::Status { status, .. } => Some(!status.is_server_error() && *status != StatusCode::TOO_MANY_REQUESTS),
            Self::TokenRefused | Self::Unusable(_) | Self::TooLarge(_) => Some(true),
            Self::DeadlineExceeded
            | Self::Open(_)
            | Self::Misconfigured(_)
            | Self::SecretUnavailable(_)
            | Self::Bug => None,
        }
    }

    /// Whether an older response may be used instead. It may not if the upstream answered and refused the request.
    pub(crate) fn may_be_stood_in_for(&self) -> bool {
        match self {
            Self::Status { .. } | Self::TokenRefused => self.is_healthy() == Some(false),
            Self::Misconfigured(_) => false,
            _ => true,
        }
    }

    /// The status that the upstream answered with.
    pub(crate) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Status { status, .. } => Some(*status),
            Self::TokenRefused => Some(StatusCode::UNAUTHORIZED),
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
            Self::TokenRefused => Problem::upstream_error(StatusCode::UNAUTHORIZED),
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
