//! Who the caller is, as an authorizer determined before the function was invoked.

use crate::{
    Request,
    event::{FromTrigger, Object},
};

/// Returns the claim `name` about the caller, from the authorizer of an HTTP API or a REST API. It comes from the token
/// (JWT or Cognito authorizer), from the context that a Lambda authorizer returned, or from the caller's IAM identity,
/// such as `userArn`. A claim that is not text is returned as JSON.
///
/// API Gateway puts the claim into the event, so a caller cannot forge it. `None` if there is no such claim, or if no
/// authorizer ran: behind a load balancer, VPC Lattice, or a route without one.
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-access-control.html>
///
/// ```
/// use handler::{Context, Problem, Request, Response, claim, http::StatusCode, json};
///
/// async fn me(request: Request) -> Result<Response, Problem> {
///     let caller = claim(&request, "sub").ok_or_else(|| Problem::unauthorized("Bearer", "A token is needed."))?;
///     json(StatusCode::OK, &caller)
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), handler::Error> {
/// let event = br#"{"rawPath": "/me", "requestContext": {
///     "http": {"method": "GET"}, "authorizer": {"jwt": {"claims": {"sub": "ada"}}}}}"#;
/// let answer = handler::invoke(me, event, Context::default()).await?;
/// assert!(answer.contains("ada"));
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn claim(request: &Request, name: &str) -> Option<String> {
    let from: &FromTrigger = request.extensions().get()?;
    let authorizer = Object::read(from.authorizer.as_deref()?);
    let places = [
        authorizer.object("jwt").object("claims"),
        authorizer.object("lambda"),
        authorizer.object("iam"),
        authorizer.object("claims"),
        authorizer,
    ];
    places.iter().find_map(|claims| {
        let claim = claims.text(name).map(Into::into);
        claim.or_else(|| Some(claims.get(name)?.get().to_owned()))
    })
}
