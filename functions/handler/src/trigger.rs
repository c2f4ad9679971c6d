//! The triggers that send events to a function.

use crate::{Request, event::FromTrigger};

/// The most bytes of JSON that Lambda takes from a function:
/// <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>.
pub(crate) const MAX_ANSWER_BYTES: usize = 6_291_556;

/// An HTTP trigger of Lambda. The names match the payloads in events/.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Trigger {
    /// An HTTP API of API Gateway, with payloads of version 2.0.
    HttpApi,
    /// A function URL, whose events have the format of an HTTP API's.
    FunctionUrl,
    /// A REST API of API Gateway, or an HTTP API with payloads of version 1.0.
    RestApi,
    /// An Application Load Balancer. It sends all values of a header or only the last one, as its target group is set.
    Alb { multi_value: bool },
    /// VPC Lattice, with events of version 2.
    VpcLattice,
}

impl Trigger {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::HttpApi => "http-api",
            Self::FunctionUrl => "function-url",
            Self::RestApi => "rest-api",
            Self::Alb { .. } => "alb",
            Self::VpcLattice => "vpc-lattice",
        }
    }

    /// The most bytes of JSON that an answer may have: [Lambda's](MAX_ANSWER_BYTES), or those of a load balancer
    /// (<https://docs.aws.amazon.com/elasticloadbalancing/latest/application/lambda-functions.html>).
    pub(crate) fn max_answer_bytes(self) -> usize {
        if matches!(self, Self::Alb { .. }) { 1 << 20 } else { MAX_ANSWER_BYTES }
    }
}

/// Whether the trigger passes a binary body on to the caller. A REST API does so only if its `binaryMediaTypes` match the
/// request's `Accept`, which the function cannot know: otherwise the caller gets base64. All other triggers do.
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-payload-encodings.html>
///
/// An endpoint that has the choice, such as one that can compress its answer, sends text if this is false.
///
/// ```
/// use handler::{Body, Context, Problem, Request, Response, takes_binary};
///
/// async fn icon(request: Request) -> Result<Response, Problem> {
///     let svg = "<svg xmlns='http://www.w3.org/2000/svg'/>";
///     let body = if takes_binary(&request) { Body::Binary(compressed(svg)) } else { svg.into() };
///     Ok(Response::new(body))
/// }
///
/// # fn compressed(text: &str) -> Vec<u8> { text.as_bytes().to_vec() }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), handler::Error> {
/// let event = br#"{"resource": "/icon", "path": "/icon", "httpMethod": "GET"}"#;
/// let answer = handler::invoke(icon, event, Context::default()).await?;
/// assert!(answer.contains("<svg"));
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn takes_binary(request: &Request) -> bool {
    request.extensions().get().is_none_or(|from: &FromTrigger| from.takes_binary)
}
