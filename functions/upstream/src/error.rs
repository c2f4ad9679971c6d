//! Why there is no good response from an upstream.

use std::{error, fmt, sync::Arc, time::Duration};

use handler::{
    Problem,
    http::{StatusCode, header::RETRY_AFTER},
};

use crate::{client::BoxError, connection::Unanswered};

/// The upstream that the log does not name, because it is its function's only one.
pub(crate) const UNNAMED: &str = "UPSTREAM";

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
        error.failure.into_problem(error.upstream)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed: {}", self.upstream, self.failure.clone().into_problem(self.upstream))
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

    /// The problem that the caller gets. The log gets the name of the `upstream`, and the cause.
    pub(crate) fn into_problem(self, upstream: &'static str) -> Problem {
        let (problem, cause) = match self {
            Self::Unsent(cause) | Self::Unreachable(cause) | Self::Unusable(cause) => {
                let detail = "The upstream gave no complete response.";
                let problem =
                    Problem::new("upstream-unreachable", "Upstream unreachable", StatusCode::BAD_GATEWAY, detail);
                (problem, Some(cause))
            }
            Self::TimedOut | Self::DeadlineExceeded => {
                let detail = "The time for this request ran out before its answer was complete.";
                (Problem::new("upstream-timeout", "Upstream timeout", StatusCode::GATEWAY_TIMEOUT, detail), None)
            }
            Self::Status { status, .. } => (answered(status), None),
            Self::TokenRefused => (answered(StatusCode::UNAUTHORIZED), None),
            Self::TooLarge(limit) => {
                let detail = format!("The upstream's response is larger than the {limit} bytes allowed.");
                let title = "Upstream response too large";
                (Problem::new("upstream-response-too-large", title, StatusCode::BAD_GATEWAY, detail), None)
            }
            Self::Open(left) => (unavailable(left), Some(BoxError::from("the circuit breaker is open").into())),
            Self::Misconfigured(cause) => return Problem::misconfigured(Whose { upstream, cause: Some(cause) }),
            Self::SecretUnavailable(cause) => (unavailable(Duration::from_secs(1)), Some(cause)),
            Self::Invalid(cause) => {
                let detail = "The upstream's response is not what was expected.";
                let title = "Invalid response from the upstream";
                (Problem::new("upstream-response-invalid", title, StatusCode::BAD_GATEWAY, detail), Some(cause))
            }
            Self::Parameter(fault) => (Problem::invalid_parameter(format!("A parameter of the path {fault}.")), None),
            Self::Bug(cause) => (Problem::internal(), Some(cause)),
        };
        if upstream == UNNAMED && cause.is_none() { problem } else { problem.because(Whose { upstream, cause }) }
    }
}

fn answered(status: StatusCode) -> Problem {
    let status = status.as_u16();
    let detail = format!("The upstream answered with status {status}.");
    Problem::new("upstream-error", "Upstream error", StatusCode::BAD_GATEWAY, detail)
        .with_member("upstream_status", status)
}

/// A caller may retry after that, in whole seconds.
fn unavailable(retry_after: Duration) -> Problem {
    // Rounded up: a caller that retries a moment too early would get the same answer.
    let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
    let detail = "The upstream is unavailable at present.";
    Problem::new("upstream-unavailable", "Upstream unavailable", StatusCode::SERVICE_UNAVAILABLE, detail)
        .with_header(RETRY_AFTER, seconds.into())
}

impl From<Unanswered> for Failure {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Unsent(cause) => Self::Unsent(cause.into()),
            Unanswered::WithoutAByte(cause) | Unanswered::Broken(cause) => Self::Unreachable(cause.into()),
        }
    }
}

/// Whose failure it is, and the cause. Of [`UNNAMED`], it is only the cause.
#[derive(Debug)]
struct Whose {
    upstream: &'static str,
    cause: Option<Cause>,
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Some(cause) if self.upstream == UNNAMED => cause.fmt(f),
            _ => f.write_str(self.upstream),
        }
    }
}

impl error::Error for Whose {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        let cause = self.cause.as_ref()?;
        if self.upstream == UNNAMED { cause.source() } else { Some(&**cause) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(problem: &Problem) -> String {
        let mut texts = vec![problem.to_string()];
        let mut cause = error::Error::source(problem);
        while let Some(next) = cause {
            texts.push(next.to_string());
            cause = next.source();
        }
        texts.join(" < ")
    }

    #[test]
    fn the_log_says_whose_failure_it_is() {
        let reset = || Failure::unreachable(std::io::Error::other("reset"));
        for (upstream, failure, expected) in [
            (UNNAMED, reset(), "upstream-unreachable: The upstream gave no complete response. < reset"),
            ("PRICES", reset(), "upstream-unreachable: The upstream gave no complete response. < PRICES < reset"),
            (
                UNNAMED,
                Failure::TooLarge(7),
                "upstream-response-too-large: The upstream's response is larger than the 7 bytes allowed.",
            ),
            ("PRICES", Failure::TokenRefused, "upstream-error: The upstream answered with status 401. < PRICES"),
            (
                "PRICES",
                Failure::misconfigured("A must be B"),
                "misconfigured: The service is not configured correctly. Its log says why. < PRICES < A must be B",
            ),
        ] {
            assert_eq!(logged(&Error { upstream, failure }.into()), expected);
        }
    }

    #[tokio::test]
    async fn retry_after_is_rounded_up_to_whole_seconds() {
        let event = br#"{"httpMethod":"GET","path":"/","requestContext":{"elb":{}},"headers":{}}"#;
        for (after, header) in [(2000, "2"), (2001, "3"), (1, "1")] {
            let endpoint =
                move |_| async move { Err::<handler::Response, _>(unavailable(Duration::from_millis(after))) };
            let answer = handler::invoke(endpoint, event, handler::Context::default()).await.unwrap();
            assert!(answer.contains(&format!(r#""retry-after":"{header}""#)), "{answer}");
        }
    }
}
