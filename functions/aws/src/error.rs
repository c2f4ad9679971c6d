//! What may be told of the error of an AWS client.

use std::{error, fmt, io, iter::successors};

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::{
    client::{orchestrator::HttpResponse, result::SdkError},
    http::Headers,
};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use handler::{
    Problem,
    http::{StatusCode, header::RETRY_AFTER},
};

use crate::ResolveError;

/// The last words of the codes of AWS's errors, such as `ResourceNotFoundException`.
const CODES_END_IN: [&str; 10] = [
    "Denied",
    "Error",
    "Exceeded",
    "Exception",
    "Expired",
    "Failure",
    "Fault",
    "NotFound",
    "Throttling",
    "Unavailable",
];

/// The codes with which AWS's services refuse a request that may be sent again a moment later.
const BUSY: [&str; 8] = [
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ThrottledException",
    "ThrottlingException",
    "TooManyRequestsException",
    "TransactionCanceledException",
    "TransactionConflictException",
    "TransactionInProgressException",
];

/// The codes for a missing permission, for credentials that are not valid, and for a resource that does not exist.
const DENIED: [&str; 8] = [
    "AccessDenied",
    "AccessDeniedException",
    "ExpiredTokenException",
    "IncompleteSignatureException",
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
    "ResourceNotFoundException",
    "UnrecognizedClientException",
];

const LATE: &str = "there was no answer in time";
const UNSENT: &str = "the request could not be sent, or was not answered";

/// Why an operation of an AWS client failed, in words that are safe to log.
///
/// It becomes the [`Problem`] that the caller gets by `?`, with itself as the cause: 503
/// `upstream-unavailable` with `Retry-After` if AWS throttles, fails or is not reached, 504 `upstream-timeout` if it
/// does not answer in time, 500 `misconfigured` if it denies the operation or there is no such resource, and 500
/// `internal` if it refuses the operation for another reason.
///
/// The SDK's own error contains the whole response, and prints it with `{:?}` and with its `DisplayErrorContext`. The
/// response may be a secret, or an item. The service's messages, and those about a response that cannot be read, may
/// repeat parts of it. So this has none of them. It has the kind of failure, the HTTP status, causes in the network and
/// in the search for credentials, and the error's code and the request's id if they have the form of such.
#[derive(Clone, Debug)]
pub struct Error {
    what: &'static str,
    status: Option<u16>,
    code: Option<String>,
    request_id: Option<String>,
    causes: Vec<String>,
}

impl Error {
    /// The HTTP status, if there was a response.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    /// The service's name for the error, such as `AccessDeniedException`.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }
}

impl<E> From<&SdkError<E, HttpResponse>> for Error
where
    E: error::Error + ProvideErrorMetadata + 'static,
{
    fn from(error: &SdkError<E, HttpResponse>) -> Self {
        let response = error.raw_response();
        let what = match error {
            SdkError::ConstructionFailure(_) => "the request could not be made",
            SdkError::TimeoutError(_) => LATE,
            SdkError::DispatchFailure(failure) if failure.is_timeout() => LATE,
            SdkError::DispatchFailure(_) => UNSENT,
            SdkError::ServiceError(failure) if !failure.raw().status().is_success() => {
                "the service answered with an error"
            }
            _ => "the answer could not be read",
        };
        let first = (error as &dyn error::Error).source();
        Self {
            what,
            status: response.map(|response| response.status().as_u16()),
            code: error.code().filter(|code| is_code(code)).map(str::to_owned),
            request_id: response.and_then(|response| request_id(response.headers())),
            causes: successors(first, |error| error.source()).filter_map(cause).collect(),
        }
    }
}

impl<E> From<SdkError<E, HttpResponse>> for Error
where
    E: error::Error + ProvideErrorMetadata + 'static,
{
    fn from(error: SdkError<E, HttpResponse>) -> Self {
        Self::from(&error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)?;
        let status = self.status.map(|status| format!("status {status}"));
        let request_id = self.request_id.as_ref().map(|id| format!("request id {id}"));
        let response: Vec<String> = [status, self.code.clone(), request_id].into_iter().flatten().collect();
        if !response.is_empty() {
            write!(f, " ({})", response.join(", "))?;
        }
        self.causes.iter().try_for_each(|cause| write!(f, ": {cause}"))
    }
}

impl error::Error for Error {}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let is_one_of = |codes: &[&str]| error.code().is_some_and(|code| codes.contains(&code));
        let problem = if error.what == LATE {
            let detail = "The time for this request ran out before its answer was complete.";
            Problem::new("upstream-timeout", "Upstream timeout", StatusCode::GATEWAY_TIMEOUT, detail)
        } else if is_one_of(&BUSY) || error.what == UNSENT || error.status().is_some_and(|status| status >= 500) {
            let detail = "The upstream is unavailable at present.";
            Problem::new("upstream-unavailable", "Upstream unavailable", StatusCode::SERVICE_UNAVAILABLE, detail)
                .with_header(RETRY_AFTER, 1.into())
        } else if is_one_of(&DENIED) {
            return Problem::misconfigured(error);
        } else {
            Problem::internal()
        };
        problem.because(error)
    }
}

/// The message of an error whose type has nothing of a response in it.
fn cause(error: &(dyn error::Error + 'static)) -> Option<String> {
    let is_safe = error.is::<io::Error>() || error.is::<ResolveError>() || error.is::<CredentialsError>();
    is_safe.then(|| error.to_string())
}

/// Whether this is the code of an error. The response says what the code is, so it could be anything.
fn is_code(code: &str) -> bool {
    let is_name = code.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'.');
    is_name && code.len() <= 64 && CODES_END_IN.iter().any(|end| code.ends_with(end))
}

/// The id of the request, for AWS's support: a UUID, or 52 letters and digits.
fn request_id(headers: &Headers) -> Option<String> {
    let id = headers.get("x-amzn-requestid").or_else(|| headers.get("x-amz-request-id"))?;
    let is_id = match id.len() {
        36 => id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-'),
        52 => id.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase()),
        _ => false,
    };
    is_id.then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueError;
    use aws_smithy_runtime_api::{client::result::ConnectorError, http::StatusCode};
    use aws_smithy_types::{body::SdkBody, error::ErrorMetadata};

    use super::*;

    fn told(status: u16, code: &str, id: &str) -> String {
        answered(status, code, id).to_string()
    }

    /// What is told of a response with this code and this request id.
    fn answered(status: u16, code: &str, id: &str) -> Error {
        let mut response = HttpResponse::new(StatusCode::try_from(status).unwrap(), SdkBody::from("PLANTED"));
        response.headers_mut().insert("x-amzn-requestid", id.to_owned());
        let error = GetSecretValueError::generic(ErrorMetadata::builder().code(code).message("PLANTED").build());
        Error::from(SdkError::service_error(error, response))
    }

    #[test]
    fn tells_the_code_and_the_id_if_they_look_like_such() {
        let id = "0af76519-16cd-43dd-8448-eb211c80319c";
        for (code, id, expected) in [
            (
                "AccessDeniedException",
                id,
                format!("the service answered with an error (status 400, AccessDeniedException, request id {id})"),
            ),
            (
                "InvalidInstanceID.NotFound",
                "PLANTED",
                "the service answered with an error (status 400, InvalidInstanceID.NotFound)".to_owned(),
            ),
            ("PLANTED", "", "the service answered with an error (status 400)".to_owned()),
            ("PLANTED-Exception", "", "the service answered with an error (status 400)".to_owned()),
            (&("A".repeat(56) + "Exception"), "", "the service answered with an error (status 400)".to_owned()),
        ] {
            assert_eq!(told(400, code, id), expected);
        }
        assert_eq!(told(200, "PLANTED", "P".repeat(53).as_str()), "the answer could not be read (status 200)");
    }

    #[test]
    fn a_failure_becomes_the_problem_that_fits() {
        let late = SdkError::<GetSecretValueError, HttpResponse>::timeout_error("PLANTED");
        let unsent = SdkError::<GetSecretValueError, _>::dispatch_failure(ConnectorError::io("PLANTED".into()));
        for (error, status, name, retry_after) in [
            (answered(400, "ThrottlingException", ""), 503, "upstream-unavailable", Some("1")),
            (answered(500, "InternalServerError", ""), 503, "upstream-unavailable", Some("1")),
            (unsent.into(), 503, "upstream-unavailable", Some("1")),
            (late.into(), 504, "upstream-timeout", None),
            (answered(400, "AccessDeniedException", ""), 500, "misconfigured", None),
            (answered(400, "ResourceNotFoundException", ""), 500, "misconfigured", None),
            (answered(400, "ValidationException", ""), 500, "internal", None),
            (answered(200, "PLANTED", ""), 500, "internal", None),
        ] {
            let cause = error.to_string();
            let problem = Problem::from(error);
            let after = problem.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            assert_eq!((problem.status().as_u16(), problem.name(), after), (status, name, retry_after), "{cause}");
            assert_eq!(error::Error::source(&problem).map(ToString::to_string), Some(cause));
        }
    }

    #[test]
    fn tells_causes_in_the_network_and_no_others() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let error = SdkError::<GetSecretValueError, _>::dispatch_failure(ConnectorError::io(refused.into()));
        let words = "the request could not be sent, or was not answered: connection refused";
        assert_eq!(Error::from(error).to_string(), words);
        let error = SdkError::<GetSecretValueError, _>::construction_failure("PLANTED");
        assert_eq!(Error::from(error).to_string(), "the request could not be made");
    }
}
