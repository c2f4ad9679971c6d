//! Problem details: the format of every error that a caller sees.

use std::{borrow::Cow, collections::BTreeMap, error::Error, fmt};

use lambda_http::http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{ACCEPT, ALLOW, CONTENT_TYPE, VARY, WWW_AUTHENTICATE},
};
use percent_encoding::{AsciiSet, utf8_percent_encode};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{Response, faults::Faults, file::NOT_IN_A_URI, negotiate::VARY_ACCEPT};

type Cause = Box<dyn Error + Send + Sync>;

/// The most bytes of a problem's JSON.
const MOST_BYTES: usize = 16 * 1024;

/// The characters that must be percent-encoded for a JSON pointer in a URI fragment (RFC 6901, section 6).
const NOT_IN_A_FRAGMENT: &AsciiSet = &NOT_IN_A_URI.add(b'#').add(b'%').add(b'[').add(b']');

/// An error as its caller sees it: [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457) problem details.
///
/// There is one constructor for each problem type, and [`new`](Self::new) for your own types. `detail` is for the
/// caller. The [cause](Self::because) is only for the operator, and goes to the log.
///
/// Its JSON has at most 16 kB. What does not fit is left out: the end of `detail`, items of a list, other members. The
/// member `left_out` then says so.
///
/// ```
/// use handler::{Problem, http::StatusCode};
///
/// let cause = "12a".parse::<u8>().unwrap_err();
/// let problem = Problem::invalid_parameter("`number` must be a whole number.").because(cause);
/// assert_eq!(problem.status(), 400);
///
/// let problem = Problem::new("out-of-stock", "Out of stock", StatusCode::CONFLICT, "There are 3 left.")
///     .with_member("left", 3);
/// assert_eq!(problem.name(), "out-of-stock");
/// ```
#[derive(Debug)]
pub struct Problem {
    name: &'static str,
    title: &'static str,
    status: StatusCode,
    detail: Cow<'static, str>,
    members: BTreeMap<String, Value>,
    headers: Box<HeaderMap>,
    cause: Option<Cause>,
}

impl Problem {
    /// A problem of your own type. Its `type` is `urn:problem-type:` and `name`, which is lower-case words joined by
    /// hyphens. `title` says the same in words, and `detail` says what went wrong this time.
    pub fn new(
        name: &'static str,
        title: &'static str,
        status: StatusCode,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        let (members, headers) = (BTreeMap::new(), Box::default());
        Self { name, title, status, detail: detail.into(), members, headers, cause: None }
    }

    /// Adds a member to the JSON. It cannot replace one of the five that every problem has (RFC 9457, section 3.2).
    #[must_use]
    pub fn with_member(mut self, name: &str, value: impl Into<Value>) -> Self {
        if !["type", "title", "status", "detail", "instance"].contains(&name) {
            self.members.insert(name.to_owned(), value.into());
        }
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    /// 400: a query parameter is malformed, too long, or meaningless. `detail` says which one, and what is allowed.
    pub fn invalid_parameter(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new("invalid-parameter", "Invalid parameter", StatusCode::BAD_REQUEST, detail)
    }

    /// 400: the HTTP request makes no sense, or its body is not JSON. `detail` says which part is malformed.
    pub fn malformed_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new("malformed-request", "Malformed request", StatusCode::BAD_REQUEST, detail)
    }

    /// 401: the caller must authenticate. `challenge` is the `WWW-Authenticate` that says how, such as `Bearer`.
    pub fn unauthorized(challenge: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new("unauthorized", "Unauthorized", StatusCode::UNAUTHORIZED, detail)
            .with_header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
    }

    /// 403: the caller is known, but may not do this.
    pub fn forbidden(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new("forbidden", "Forbidden", StatusCode::FORBIDDEN, detail)
    }

    /// 404: the resource does not exist, or the caller must not know of it.
    pub fn not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new("not-found", "Not found", StatusCode::NOT_FOUND, detail)
    }

    /// 405: the endpoint does not answer this method. `allow` lists those that it answers.
    pub(crate) fn method_not_allowed(method: &Method, allow: HeaderValue) -> Self {
        let detail = format!("{method} is not allowed here. Allowed: {}.", allow.to_str().unwrap_or_default());
        Self::new("method-not-allowed", "Method not allowed", StatusCode::METHOD_NOT_ALLOWED, detail)
            .with_header(ALLOW, allow)
    }

    /// 406: the request's `Accept` allows none of the available representations.
    pub(crate) fn not_acceptable() -> Self {
        let detail = "This resource is available as text/plain or application/json.";
        Self::new("not-acceptable", "Not acceptable", StatusCode::NOT_ACCEPTABLE, detail).with_header(VARY, VARY_ACCEPT)
    }

    /// 409: the request conflicts with the current state, such as creating a resource that already exists.
    pub fn conflict(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new("conflict", "Conflict", StatusCode::CONFLICT, detail)
    }

    /// 412: an `If-Match` or `If-Unmodified-Since` of the request is false: the resource has changed meanwhile.
    pub fn precondition_failed(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new("precondition-failed", "Precondition failed", StatusCode::PRECONDITION_FAILED, detail)
    }

    /// 413: the body has more than `max_bytes`.
    #[must_use]
    pub fn content_too_large(max_bytes: usize) -> Self {
        Self::too_large("The body", max_bytes)
    }

    pub(crate) fn too_large(what: &str, max_bytes: usize) -> Self {
        let detail = format!("{what} may have at most {max_bytes} bytes.");
        Self::new("content-too-large", "Content too large", StatusCode::PAYLOAD_TOO_LARGE, detail)
    }

    /// 415: the body is in an unsupported format, charset or content encoding. `accept` is the supported media type.
    pub fn unsupported_media_type(accept: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new("unsupported-media-type", "Unsupported media type", StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
            .with_header(ACCEPT, HeaderValue::from_static(accept))
    }

    /// 422: the body is JSON, but not of the required type. Each fault is a JSON pointer (RFC 6901) and what is wrong
    /// there. The member `errors` lists them.
    ///
    /// ```
    /// # use handler::Problem;
    /// let problem = Problem::unprocessable_content([("/quantity", "must be at most the 3 that are left")]);
    /// assert_eq!(problem.status(), 422);
    /// ```
    pub fn unprocessable_content<P: AsRef<str>, D: Into<String>>(faults: impl IntoIterator<Item = (P, D)>) -> Self {
        let errors: Vec<Value> = faults
            .into_iter()
            .map(|(pointer, detail)| {
                let pointer = utf8_percent_encode(pointer.as_ref(), NOT_IN_A_FRAGMENT);
                json!({ "detail": detail.into(), "pointer": format!("#{pointer}") })
            })
            .collect();
        let detail = match errors.len() {
            1 => "The body has 1 fault, which `errors` lists.".into(),
            faults => format!("The body has {faults} faults, which `errors` lists."),
        };
        Self::new("unprocessable-content", "Unprocessable content", StatusCode::UNPROCESSABLE_ENTITY, detail)
            .with_member("errors", errors)
    }

    /// The same for faults that were found, which may not be all.
    pub(crate) fn unprocessable(faults: Faults) -> Self {
        let mut problem = Self::unprocessable_content(faults.list);
        if !faults.are_all {
            problem.detail = problem.detail.replacen("has", "has at least", 1).into();
        }
        problem
    }

    /// 428: the request must say, with `If-Match`, which state it wants to change.
    pub fn precondition_required(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new("precondition-required", "Precondition required", StatusCode::PRECONDITION_REQUIRED, detail)
    }

    /// 504: the endpoint was not done when Lambda's deadline was near.
    pub(crate) fn deadline_exceeded() -> Self {
        let detail = "The time for this request ran out.";
        Self::new("deadline-exceeded", "Deadline exceeded", StatusCode::GATEWAY_TIMEOUT, detail)
    }

    /// 500: a bug.
    #[must_use]
    pub fn internal() -> Self {
        let detail = "The request failed because of an internal error, which has been logged.";
        Self::new("internal", "Internal error", StatusCode::INTERNAL_SERVER_ERROR, detail)
    }

    /// 500: the endpoint panicked. The panic hook has recorded the panic's message.
    pub(crate) fn panicked() -> Self {
        Self::internal().because("the endpoint panicked")
    }

    /// 500: a setting is missing or invalid. `cause` names it, and goes only to the log.
    pub fn misconfigured(cause: impl Into<Cause>) -> Self {
        let detail = "The service is not configured correctly. Its log says why.";
        Self::new("misconfigured", "Misconfigured", StatusCode::INTERNAL_SERVER_ERROR, detail).because(cause)
    }

    /// Keeps the cause of the problem, for the log.
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

    /// What went wrong, for the caller.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// A further member of the JSON, such as `errors`.
    ///
    /// ```
    /// # use handler::Problem;
    /// let problem = Problem::unprocessable_content([("/quantity", "is missing")]);
    /// assert_eq!(problem.member("errors").map(|errors| &errors[0]["pointer"]), Some(&"#/quantity".into()));
    /// ```
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Value> {
        self.members.get(name)
    }

    /// The headers that the answer gets besides the common ones.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The answer to the invocation `request_id`.
    pub(crate) fn to_response(&self, request_id: &str) -> Response {
        let mut members = Members {
            r#type: format_args!("urn:problem-type:{}", self.name),
            title: self.title,
            status: self.status.as_u16(),
            detail: &self.detail,
            instance: format_args!("urn:uuid:{request_id}"),
            more: &self.members,
        };
        let shortened;
        let mut body = limited(&members, MOST_BYTES);
        if body.is_none() {
            (members.detail, shortened) = self.shortened();
            members.more = &shortened;
            body = limited(&members, MOST_BYTES);
        }
        // Even an empty body would still carry the status.
        let mut response = Response::new(body.unwrap_or_default().into());
        *response.status_mut() = self.status;
        response.headers_mut().clone_from(&self.headers);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }

    /// The beginning of `detail`, and as many of the further members as fit into half of the limit.
    fn shortened(&self) -> (&str, BTreeMap<String, Value>) {
        let (detail, cut) = self.detail.split_at(self.detail.floor_char_boundary(MOST_BYTES / 16));
        let (mut room, mut items_out, mut members_out) = (MOST_BYTES / 2, 0, 0);
        let mut fits = |value: &Value| {
            let bytes = limited(value, room).map(|json| json.len() + 1);
            room -= bytes.unwrap_or(0).min(room);
            bytes.is_some()
        };
        let mut shortened = BTreeMap::new();
        for (name, value) in &self.members {
            let fitting = match value {
                _ if name.len() > MOST_BYTES || !fits(&json!(name)) => None,
                Value::Array(items) => {
                    let fitting: Vec<_> = items.iter().filter(|item| fits(item)).cloned().collect();
                    items_out += items.len() - fitting.len();
                    Some(fitting.into())
                }
                value => fits(value).then(|| value.clone()),
            };
            match fitting {
                Some(fitting) => drop(shortened.insert(name.clone(), fitting)),
                None => members_out += 1,
            }
        }
        let left_out = format!(
            "A problem has at most {MOST_BYTES} bytes. Left out: {items_out} items of lists, {members_out} other members, \
             and {} bytes of `detail`.",
            cut.len()
        );
        shortened.insert("left_out".into(), left_out.into());
        (detail, shortened)
    }
}

/// The JSON of `value`, if it has at most `most` bytes.
fn limited(value: &impl Serialize, most: usize) -> Option<String> {
    serde_json::to_string(value).ok().filter(|json| json.len() <= most)
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
    #[serde(flatten)]
    more: &'a BTreeMap<String, Value>,
}

#[cfg(test)]
mod tests {
    use lambda_http::http::header::RETRY_AFTER;

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
        let response = Problem::misconfigured("10.0.0.7 said so").to_response("6b2a");
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(
            body(&response),
            json!({
                "type": "urn:problem-type:misconfigured",
                "title": "Misconfigured",
                "status": 500,
                "detail": "The service is not configured correctly. Its log says why.",
                "instance": "urn:uuid:6b2a",
            })
        );
    }

    #[test]
    fn a_custom_problem_has_members_and_headers() {
        let problem = Problem::new("out-of-stock", "Out of stock", StatusCode::CONFLICT, "There are 3 left.")
            .with_member("left", 3)
            .with_member("status", 200)
            .with_header(RETRY_AFTER, 60.into());
        assert_eq!((problem.member("left"), problem.member("status")), (Some(&json!(3)), None));
        let response = problem.to_response("6b2a");
        assert_eq!(
            (response.status(), &response.headers()[RETRY_AFTER]),
            (StatusCode::CONFLICT, &"60".parse().unwrap())
        );
        assert_eq!(
            body(&response),
            json!({
                "type": "urn:problem-type:out-of-stock",
                "title": "Out of stock",
                "status": 409,
                "detail": "There are 3 left.",
                "instance": "urn:uuid:6b2a",
                "left": 3,
            })
        );
        let challenged = Problem::unauthorized("Bearer", "Who are you?");
        assert_eq!(challenged.to_response("").headers()[WWW_AUTHENTICATE], "Bearer");
        assert_eq!(
            (challenged.detail(), &challenged.headers()[WWW_AUTHENTICATE]),
            ("Who are you?", &"Bearer".parse().unwrap())
        );
    }

    #[test]
    fn a_problem_has_a_bound() {
        let long = "\u{1}\"é".repeat(1 << 20);
        let of = |problem: Problem| {
            let response = problem.to_response("6b2a");
            let Body::Text(text) = response.body() else { panic!("{response:?}") };
            assert!(text.len() <= MOST_BYTES, "{}", text.len());
            let json = body(&response);
            for member in ["type", "title", "status", "detail", "instance"] {
                assert!(json.get(member).is_some(), "{member}: {text}");
            }
            json
        };
        let new = |detail: &str| Problem::new("a", "A", StatusCode::CONFLICT, detail.to_owned());
        assert!(of(new("short")).get("left_out").is_none());
        let json = of(new(&long));
        assert!(long.starts_with(json["detail"].as_str().unwrap()), "{json}");
        assert!(json["left_out"].as_str().unwrap().contains("bytes of `detail`"), "{json}");
        let json = of(new("a").with_member("left", 3).with_member("why", long.clone()).with_member(&long, 1));
        assert_eq!((&json["left"], json.get("why")), (&json!(3), None));
        assert!(json["left_out"].as_str().unwrap().contains("2 other members"), "{json}");
        let faults = |count| (0..count).map(|index| (format!("/{index}"), "is wrong"));
        assert_eq!(of(Problem::unprocessable_content(faults(100)))["errors"].as_array().unwrap().len(), 100);
        let json = of(Problem::unprocessable_content(faults(10_000).chain([(long.clone(), "is wrong")])));
        let told = json["errors"].as_array().unwrap().len();
        assert!(
            told > 50 && json["left_out"].as_str().unwrap().contains(&format!("{} items", 10_001 - told)),
            "{json}"
        );
        let many = (0..10_000).fold(new("a"), |problem, index| problem.with_member(&index.to_string(), index));
        assert!(of(many)["left_out"].is_string());
    }
}
