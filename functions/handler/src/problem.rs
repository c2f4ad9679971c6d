//! Problem details: the one shape of every error that a caller sees.

use std::{borrow::Cow, error::Error, fmt, time::Duration};

use lambda_http::http::{
    HeaderValue, Method, StatusCode,
    header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, VARY},
};
use serde::Serialize;

use crate::{Response, negotiate::VARY_ACCEPT};

/// The methods that an endpoint answers, as `Allow` lists them.
pub(crate) const ALLOWED: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

type Cause = Box<dyn Error + Send + Sync>;

/// An error as its caller sees it: [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457) problem details.
///
/// There is one constructor for each problem type. What the caller may know is its `detail`; what only the operator may
/// know is its [cause](Self::because), which goes to the log.
///
/// ```
/// use handler::Problem;
///
/// let cause = "12a".parse::<u8>().unwrap_err();
/// let problem = Problem::invalid_parameter("`number` must be a whole number.").because(cause);
/// assert_eq!(problem.status(), 400);
/// ```
#[derive(Debug)]
pub struct Problem {
    name: &'static str,
    title: &'static str,
    status: StatusCode,
    detail: Cow<'static, str>,
    upstream_status: Option<u16>,
    retry_after: Option<Duration>,
    cause: Option<Cause>,
}

impl Problem {
    fn new(name: &'static str, title: &'static str, status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { name, title, status, detail: detail.into(), upstream_status: None, retry_after: None, cause: None }
    }

    /// 400: a query parameter is malformed, over its length, or means nothing. `detail` says which, and what is allowed.
    pub fn invalid_parameter(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new("invalid-parameter", "Invalid parameter", StatusCode::BAD_REQUEST, detail)
    }

    /// 400: the event holds no HTTP request that makes sense. `detail` says which part of it does not.
    pub(crate) fn malformed_request(detail: &'static str) -> Self {
        Self::new("malformed-request", "Malformed request", StatusCode::BAD_REQUEST, detail)
    }

    /// 405: the endpoint answers `GET`, `HEAD` and `OPTIONS` only.
    pub(crate) fn method_not_allowed(method: &Method) -> Self {
        Self::new(
            "method-not-allowed",
            "Method not allowed",
            StatusCode::METHOD_NOT_ALLOWED,
            format!("{method} is not allowed here; use GET, HEAD or OPTIONS."),
        )
    }

    /// 406: the request's `Accept` allows none of the representations there are.
    pub(crate) fn not_acceptable() -> Self {
        Self::new(
            "not-acceptable",
            "Not acceptable",
            StatusCode::NOT_ACCEPTABLE,
            "This resource is available as text/plain or application/json.",
        )
    }

    /// 504: the endpoint was not done when Lambda's deadline was near.
    pub(crate) fn deadline_exceeded() -> Self {
        Self::new(
            "deadline-exceeded",
            "Deadline exceeded",
            StatusCode::GATEWAY_TIMEOUT,
            "The time for this request ran out.",
        )
    }

    /// 500: a bug.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(
            "internal",
            "Internal error",
            StatusCode::INTERNAL_SERVER_ERROR,
            "The request failed for a reason of our own; it has been logged.",
        )
    }

    /// 500: a setting is missing or invalid. `cause` names it, and goes to the log alone.
    pub fn misconfigured(cause: impl Into<Cause>) -> Self {
        Self::new(
            "misconfigured",
            "Misconfigured",
            StatusCode::INTERNAL_SERVER_ERROR,
            "The service is not set up correctly; its operator finds the reason in the log.",
        )
        .because(cause)
    }

    /// 502: no response was had from the upstream: DNS, connect or TLS failed, or the response was cut or malformed.
    #[must_use]
    pub fn upstream_unreachable() -> Self {
        Self::new(
            "upstream-unreachable",
            "Upstream unreachable",
            StatusCode::BAD_GATEWAY,
            "The upstream gave no complete response.",
        )
    }

    /// 502: the upstream answered with `status`, which is no success. The member `upstream_status` tells it.
    #[must_use]
    pub fn upstream_error(status: StatusCode) -> Self {
        let problem = Self::new(
            "upstream-error",
            "Upstream error",
            StatusCode::BAD_GATEWAY,
            format!("The upstream answered with status {}.", status.as_u16()),
        );
        Self { upstream_status: Some(status.as_u16()), ..problem }
    }

    /// 502: the upstream's body is over `limit` bytes, counted after decompression.
    #[must_use]
    pub fn upstream_response_too_large(limit: usize) -> Self {
        Self::new(
            "upstream-response-too-large",
            "Upstream response too large",
            StatusCode::BAD_GATEWAY,
            format!("The upstream's response is larger than the {limit} bytes allowed."),
        )
    }

    /// 503: the upstream is not asked at present. A caller may come back after `retry_after`, in whole seconds.
    #[must_use]
    pub fn upstream_unavailable(retry_after: Duration) -> Self {
        let problem = Self::new(
            "upstream-unavailable",
            "Upstream unavailable",
            StatusCode::SERVICE_UNAVAILABLE,
            "The upstream cannot be asked at present.",
        );
        Self { retry_after: Some(retry_after), ..problem }
    }

    /// 504: the time there was for the upstream has run out.
    #[must_use]
    pub fn upstream_timeout() -> Self {
        Self::new(
            "upstream-timeout",
            "Upstream timeout",
            StatusCode::GATEWAY_TIMEOUT,
            "The time for this request ran out before its answer was complete.",
        )
    }

    /// Keeps what led to the problem, for the log.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Cause>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// The HTTP status that the caller gets.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The last part of the problem's `type`, such as `invalid-parameter`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The answer to the invocation `request_id`.
    pub(crate) fn to_response(&self, request_id: &str) -> Response {
        let members = Members {
            r#type: format_args!("urn:problem-type:{}", self.name),
            title: self.title,
            status: self.status.as_u16(),
            detail: &self.detail,
            instance: format_args!("urn:uuid:{request_id}"),
            upstream_status: self.upstream_status,
        };
        // Strings and numbers always serialize; an empty body would still carry the status.
        let body = serde_json::to_string(&members).unwrap_or_default();
        let mut response = Response::new(body.into());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match self.status {
            StatusCode::METHOD_NOT_ALLOWED => drop(headers.insert(ALLOW, ALLOWED)),
            StatusCode::NOT_ACCEPTABLE => drop(headers.insert(VARY, VARY_ACCEPT)),
            _ => {}
        }
        if let Some(after) = self.retry_after {
            // Rounded up: a caller that comes back a moment early would meet the same answer.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.detail)
    }
}

impl Error for Problem {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

#[derive(Serialize)]
struct Members<'a> {
    r#type: fmt::Arguments<'a>,
    title: &'static str,
    status: u16,
    detail: &'a str,
    instance: fmt::Arguments<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_status: Option<u16>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Body;

    fn body(response: &Response) -> serde_json::Value {
        match response.body() {
            Body::Text(text) => serde_json::from_str(text).unwrap_or_default(),
            _ => serde_json::Value::Null,
        }
    }

    #[test]
    fn has_the_members_of_rfc_9457_and_no_cause() {
        let problem = Problem::upstream_error(StatusCode::IM_A_TEAPOT).because("10.0.0.7 said so");
        let response = problem.to_response("6b2a");
        assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
        assert_eq!(
            body(&response),
            serde_json::json!({
                "type": "urn:problem-type:upstream-error",
                "title": "Upstream error",
                "status": 502,
                "detail": "The upstream answered with status 418.",
                "instance": "urn:uuid:6b2a",
                "upstream_status": 418,
            })
        );
    }

    #[test]
    fn retry_after_is_rounded_up_to_whole_seconds() {
        for (after, header) in [(2000, "2"), (2001, "3"), (1, "1")] {
            let problem = Problem::upstream_unavailable(Duration::from_millis(after));
            assert_eq!(problem.to_response("").headers()[RETRY_AFTER], header);
        }
    }
}
