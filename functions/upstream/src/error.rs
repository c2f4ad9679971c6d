//! Why there is no good response from an upstream.

use std::{error, fmt, sync::Arc, time::Duration};

use handler::{Problem, http::StatusCode};

use crate::{client::BoxError, connection::Unanswered};

type Cause = Arc<dyn error::Error + Send + Sync>;

/// Why a request got no good response. `?` makes the [`Problem`] of it that the endpoint's caller gets:
///
/// | problem | status | when |
/// | --- | --- | --- |
/// | `upstream-unreachable` | 502 | DNS, connect or TLS failed, or the response was cut, malformed or incomplete |
/// | `upstream-error` | 502 | the upstream's status was no success; the member `upstream_status` has it |
/// | `upstream-response-too-large` | 502 | the body was over `NAME_MAX_BODY_BYTES` |
/// | `upstream-response-invalid` | 502 | the body was not of the type that [`json`](crate::Request::json) was to read |
/// | `upstream-unavailable` | 503 | the circuit breaker was open, or the secret could not be read |
/// | `upstream-timeout` | 504 | the time ran out |
/// | `invalid-parameter` | 400 | a parameter of the path was empty, or would have led out of it |
/// | `misconfigured` | 500 | a setting is missing or invalid; the log names it |
/// | `internal` | 500 | a bug in the endpoint, such as a path without the `{}` for a parameter |
///
/// An endpoint can decide otherwise:
///
/// ```
/// use handler::{Problem, http::StatusCode};
/// use upstream::Upstream;
///
/// static PRICES: Upstream = Upstream::new("PRICES");
///
/// async fn price(symbol: &str) -> Result<u64, Problem> {
///     match PRICES.get("/v1/prices/{}", [symbol]).json().await {
///         Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => Err(Problem::not_found("There is no such symbol.")),
///         price => Ok(price?),
///     }
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Error {
    /// The upstream's name.
    pub(crate) upstream: &'static str,
    pub(crate) failure: Failure,
}

impl Error {
    /// The status that the upstream answered with, if it answered at all.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        self.failure.status()
    }

    /// How long the upstream asked not to be called again, or how long its circuit breaker stays open.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self.failure {
            Failure::Open(left) => Some(left),
            _ => self.failure.retry_after(),
        }
    }

    /// Whether the time ran out: an attempt's, the request's, or the invocation's.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self.failure, Failure::TimedOut | Failure::DeadlineExceeded)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        error.failure.into_problem()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed: {}", self.upstream, self.failure.clone().into_problem())
    }
}

impl error::Error for Error {}

/// Why one attempt, or several, got no good response.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// DNS, connect or TLS failed, or the connection ended before the request was sent on it.
    Unsent(Cause),
    /// The request was sent, and the response did not come, or was cut or malformed.
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
    /// The body is not of the type that was asked for.
    Invalid(Cause),
    /// A parameter of the path cannot be in it, for this reason.
    Parameter(&'static str),
    /// A panic, or a request that no endpoint may make.
    Bug(Cause),
}

impl Failure {
    pub(crate) fn unreachable(cause: impl Into<BoxError>) -> Self {
        Self::Unreachable(cause.into().into())
    }

    pub(crate) fn unusable(cause: impl Into<BoxError>) -> Self {
        Self::Unusable(cause.into().into())
    }

    pub(crate) fn invalid(cause: impl Into<BoxError>) -> Self {
        Self::Invalid(cause.into().into())
    }

    pub(crate) fn bug(cause: impl Into<BoxError>) -> Self {
        Self::Bug(cause.into().into())
    }

    pub(crate) fn misconfigured(cause: impl Into<BoxError>) -> Self {
        Self::Misconfigured(cause.into().into())
    }

    /// Whether another attempt may succeed.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Unsent(_) | Self::Unreachable(_) | Self::TimedOut | Self::TokenRefused => true,
            Self::Status { status, .. } => matches!(status.as_u16(), 429 | 502 | 503 | 504),
            _ => false,
        }
    }

    /// Whether the upstream has certainly not done what it was asked for: it did not get the request, or says with a 401
    /// that it did not apply it (RFC 9110, section 15.5.2).
    pub(crate) fn is_without_effect(&self) -> bool {
        matches!(self, Self::Unsent(_) | Self::TokenRefused)
    }

    /// Whether this shows that the upstream is healthy, or that it is not. One that refuses this request is healthy.
    /// `None` if this shows neither.
    pub(crate) fn is_healthy(&self) -> Option<bool> {
        match self {
            Self::Unsent(_) | Self::Unreachable(_) | Self::TimedOut => Some(false),
            Self::Status { status, .. } => Some(!status.is_server_error() && *status != StatusCode::TOO_MANY_REQUESTS),
            Self::TokenRefused | Self::Unusable(_) | Self::Invalid(_) | Self::TooLarge(_) => Some(true),
            Self::DeadlineExceeded
            | Self::Open(_)
            | Self::Misconfigured(_)
            | Self::SecretUnavailable(_)
            | Self::Parameter(_)
            | Self::Bug(_) => None,
        }
    }

    /// Whether an older response may be used instead. It may not if the upstream answered and refused the request.
    pub(crate) fn allows_stale(&self) -> bool {
        match self {
            Self::Status { .. } | Self::TokenRefused => self.is_healthy() == Some(false),
            Self::Misconfigured(_) | Self::Parameter(_) => false,
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
            Self::Unsent(cause) | Self::Unreachable(cause) | Self::Unusable(cause) => {
                Problem::upstream_unreachable().because(Chained(cause))
            }
            Self::TimedOut | Self::DeadlineExceeded => Problem::upstream_timeout(),
            Self::Status { status, .. } => Problem::upstream_error(status),
            Self::TokenRefused => Problem::upstream_error(StatusCode::UNAUTHORIZED),
            Self::TooLarge(limit) => Problem::upstream_response_too_large(limit),
            Self::Open(left) => Problem::upstream_unavailable(left).because("the circuit breaker is open"),
            Self::Misconfigured(cause) => Problem::misconfigured(Chained(cause)),
            Self::SecretUnavailable(cause) => {
                Problem::upstream_unavailable(Duration::from_secs(1)).because(Chained(cause))
            }
            Self::Invalid(cause) => {
                let detail = "The upstream's response is not what was expected.";
                let title = "Invalid response from the upstream";
                Problem::new("upstream-response-invalid", title, StatusCode::BAD_GATEWAY, detail)
                    .because(Chained(cause))
            }
            Self::Parameter(fault) => Problem::invalid_parameter(format!("A parameter of the path {fault}.")),
            Self::Bug(cause) => Problem::internal().because(Chained(cause)),
        }
    }
}

impl From<Unanswered> for Failure {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Unsent(cause) => Self::Unsent(cause.into()),
            Unanswered::WithoutAByte(cause) | Unanswered::Broken(cause) => Self::Unreachable(cause.into()),
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

impl error::Error for Chained {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.0.source()
    }
}
