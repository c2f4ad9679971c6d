//! From an HTTP response to the JSON that Lambda passes to the trigger.
//!
//! `lambda_http` sends only the first of repeated headers behind an HTTP API, a function URL and VPC Lattice, and ends
//! the process if a header is not UTF-8. Here repeated headers are joined, and a response that cannot be sent becomes a
//! problem.

use std::{borrow::Cow, collections::BTreeMap, str};

use base64::{display::Base64Display, prelude::BASE64_STANDARD};
use lambda_http::http::{HeaderName, header::SET_COOKIE};
use serde::{Serialize, Serializer};

use crate::{
    Body, Problem, Response,
    pieces::{self, Pieces},
    trigger::Trigger,
};

/// The JSON that [a REST API](https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html#api-gateway-simple-proxy-for-lambda-output-format),
/// [an HTTP API](https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html),
/// [a load balancer](https://docs.aws.amazon.com/elasticloadbalancing/latest/application/lambda-functions.html) and
/// [VPC Lattice](https://docs.aws.amazon.com/vpc-lattice/latest/ug/lambda-functions.html) expect.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    status_code: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_description: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<&'a str, Cow<'a, str>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    multi_value_headers: BTreeMap<&'a str, Vec<&'a str>>,
    // Present even if it is empty, because `cargo lambda watch` requires it.
    #[serde(skip_serializing_if = "Option::is_none")]
    cookies: Option<Vec<&'a str>>,
    // Apart in a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Content<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_base64_encoded: Option<bool>,
}

/// Makes the answer for `trigger`.
///
/// # Errors
///
/// Returns an `internal` problem if the trigger or Lambda would not accept the answer.
pub(crate) fn answer(trigger: Trigger, response: &Response) -> Result<Pieces, Problem> {
    let mut answer = head(trigger, response)?;
    // Unchanged: lambda_http would decode text by the charset of its content type, and send it as UTF-8.
    answer.body = Some(Content(response.body()));
    answer.is_base64_encoded = Some(matches!(response.body(), Body::Binary(_)));
    let json = in_json(&answer, response.body().len()).map_err(|error| Problem::internal().because(error))?;
    let (bytes, most) = (json.len(), trigger.max_answer_bytes());
    if bytes > most {
        let cause = format!("the answer takes {bytes} bytes of JSON, but {} takes at most {most}", trigger.name());
        return Err(Problem::internal().because(cause));
    }
    Ok(json)
}

/// The answer without its body.
fn head(trigger: Trigger, response: &Response) -> Result<Answer<'_>, Problem> {
    let is_described = matches!(trigger, Trigger::Alb { .. } | Trigger::VpcLattice);
    let mut answer = Answer {
        status_code: response.status().as_u16(),
        status_description: is_described.then(|| response.status().to_string()),
        headers: BTreeMap::new(),
        multi_value_headers: BTreeMap::new(),
        cookies: matches!(trigger, Trigger::HttpApi | Trigger::FunctionUrl).then(Vec::new),
        body: None,
        is_base64_encoded: None,
    };
    for (name, value) in response.headers() {
        let value = str::from_utf8(value.as_bytes())
            .map_err(|_| Problem::internal().because(format!("the header {name} is not UTF-8")))?;
        match trigger {
            Trigger::RestApi | Trigger::Alb { multi_value: true } => {
                answer.multi_value_headers.entry(name.as_str()).or_default().push(value);
            }
            _ => match &mut answer.cookies {
                Some(cookies) if name == SET_COOKIE => cookies.push(value),
                _ => join(&mut answer.headers, name, value)?,
            },
        }
    }
    Ok(answer)
}

fn in_json(answer: &Answer<'_>, body_bytes: usize) -> serde_json::Result<Pieces> {
    // Mostly enough, so that an answer is not copied while it grows.
    let bytes = 512 + body_bytes / 3 * 4;
    // Many small writes are quicker into one buffer.
    if bytes <= pieces::MOST {
        let mut json = Vec::with_capacity(bytes);
        serde_json::to_writer(&mut json, answer)?;
        return Ok(json.into());
    }
    let mut json = Pieces::default();
    serde_json::to_writer(&mut json, answer)?;
    Ok(json)
}

/// Makes the prelude of a streamed answer, which is the same for each trigger that streams:
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/response-transfer-mode-lambda.html>.
///
/// # Errors
///
/// Returns an `internal` problem if the trigger would not accept it.
#[cfg(feature = "stream")]
pub(crate) fn prelude(response: &Response) -> Result<String, Problem> {
    const MOST: usize = 16 * 1024;
    let head = head(Trigger::FunctionUrl, response)?;
    let prelude = serde_json::to_string(&head).map_err(|error| Problem::internal().because(error))?;
    if prelude.len() > MOST {
        return Err(Problem::internal().because("the head of a stream takes more than 16 kB of JSON"));
    }
    Ok(prelude)
}

/// Adds a header, or adds a value to a header that is already there (RFC 9110, section 5.3).
fn join<'a>(
    headers: &mut BTreeMap<&'a str, Cow<'a, str>>,
    name: &'a HeaderName,
    value: &'a str,
) -> Result<(), Problem> {
    match headers.get_mut(name.as_str()) {
        None => drop(headers.insert(name.as_str(), value.into())),
        Some(_) if name == SET_COOKIE => {
            return Err(Problem::internal().because(
                "two Set-Cookie headers cannot be joined, and VPC Lattice takes one, as does a load balancer whose target \
                 group has multi-value headers off",
            ));
        }
        Some(values) => values.to_mut().extend([", ", value]),
    }
    Ok(())
}

/// A body as text, or in base64.
struct Content<'a>(&'a Body);

impl Serialize for Content<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Body::Text(text) => serializer.serialize_str(text),
            Body::Binary(bytes) => serializer.collect_str(&Base64Display::new(bytes, &BASE64_STANDARD)),
            _ => serializer.serialize_str(""),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use lambda_http::http::{HeaderValue, header::LINK};
    use serde_json::{Value, json};

    use super::*;
    use crate::{Context, observe};

    const HTTP_API: &str = r#"{"rawPath": "/", "requestContext": {"http": {"method": "GET"}}}"#;
    const REST_API: &str = r#"{"resource": "/", "path": "/", "httpMethod": "GET"}"#;
    const ALB: &str = r#"{"path": "/", "httpMethod": "GET", "requestContext": {"elb": {}}}"#;
    const LATTICE: &str = r#"{"path": "/", "method": "GET", "requestContext": {"serviceArn": "arn"}}"#;

    /// The answer and the log line.
    fn observed(event: &str, response: Response) -> (Value, Value) {
        let endpoint = move |_| {
            let response = response.clone();
            async { Ok(response) }
        };
        let observed = observe(endpoint, event.as_bytes(), Context::default()).now_or_never().unwrap().unwrap();
        (serde_json::from_str(&observed.0).unwrap(), serde_json::from_str(&observed.1).unwrap())
    }

    fn with_headers(headers: &[(HeaderName, &[u8])]) -> Response {
        let mut response = Response::default();
        for (name, value) in headers {
            response.headers_mut().append(name, HeaderValue::from_bytes(value).unwrap());
        }
        response
    }

    fn is_refused((answer, line): &(Value, Value), cause: &str) -> bool {
        answer["statusCode"] == 500
            && answer["body"].as_str().unwrap().contains("urn:problem-type:internal")
            && line["status"] == 500
            && line["error"].as_str().unwrap().contains(cause)
    }

    #[test]
    fn a_problem_that_cannot_be_sent_is_an_internal_one() {
        let headed =
            |value: &[u8]| Problem::not_found("Gone.").with_header(LINK, HeaderValue::from_bytes(value).unwrap());
        let large = || headed(&vec![b'x'; 7 << 20]).because("the cause");
        let binary = || headed(b"</\xff>");
        for (problem, cause) in [(&large as &dyn Fn() -> Problem, "bytes of JSON"), (&binary, "UTF-8")] {
            for event in [HTTP_API, REST_API, ALB, LATTICE] {
                let problem = problem();
                let problem = std::sync::Arc::new(std::sync::Mutex::new(Some(problem)));
                let endpoint = move |_| {
                    let problem = problem.lock().unwrap().take().unwrap();
                    async { Err(problem) }
                };
                let observed = observe(endpoint, event.as_bytes(), Context::default()).now_or_never().unwrap().unwrap();
                let observed = (serde_json::from_str(&observed.0).unwrap(), serde_json::from_str(&observed.1).unwrap());
                assert!(is_refused(&observed, cause), "{event}: {}", observed.1);
                let (_, line) = observed;
                assert_eq!((&line["problem"], &line["ServerErrors"]), (&"internal".into(), &1.into()));
                assert!(line["unsent_problem"].as_str().unwrap().starts_with("not-found: "), "{line}");
            }
        }
    }

    #[test]
    fn repeated_headers_are_joined_if_the_trigger_takes_one_value() {
        let response = with_headers(&[(LINK, b"</a>"), (LINK, b"</b>"), (SET_COOKIE, b"a=1"), (SET_COOKIE, b"b=2")]);
        let (answer, _) = observed(HTTP_API, response.clone());
        assert_eq!((&answer["headers"]["link"], &answer["cookies"]), (&json!("</a>, </b>"), &json!(["a=1", "b=2"])));
        assert!(answer["headers"].get("set-cookie").is_none() && answer.get("multiValueHeaders").is_none(), "{answer}");
        let (answer, _) = observed(REST_API, response.clone());
        assert_eq!(answer["multiValueHeaders"]["set-cookie"], json!(["a=1", "b=2"]));
        assert!(answer.get("headers").is_none() && answer.get("cookies").is_none(), "{answer}");
        for event in [ALB, LATTICE] {
            assert!(
                is_refused(&observed(event, response.clone()), "two Set-Cookie headers cannot be joined"),
                "{event}"
            );
            let (answer, _) = observed(event, with_headers(&[(SET_COOKIE, b"a=1")]));
            assert_eq!(answer["headers"]["set-cookie"], "a=1");
        }
    }

    #[test]
    fn a_header_that_is_not_utf_8_is_refused() {
        for event in [HTTP_API, REST_API, ALB, LATTICE] {
            assert!(is_refused(&observed(event, with_headers(&[(LINK, b"</\xff>")])), "link is not UTF-8"), "{event}");
            let (answer, _) = observed(event, with_headers(&[(LINK, "</é>".as_bytes())]));
            assert_eq!(answer["statusCode"], 200, "{event}");
        }
    }

    #[test]
    fn an_answer_larger_than_lambda_or_a_load_balancer_takes_is_refused() {
        for (event, most) in [(HTTP_API, 6_291_556), (REST_API, 6_291_556), (ALB, 1 << 20), (LATTICE, 6_291_556)] {
            let of = |bytes| observed(event, Response::new(Body::from("x".repeat(bytes))));
            // The size of the answer without its body.
            let rest = of(0).0.to_string().len();
            assert_eq!(of(most - rest).0["statusCode"], 200, "{event}");
            assert!(is_refused(&of(most - rest + 1), "bytes of JSON"), "{event}");
        }
    }
}
