//! What a trigger knows about a request and its caller, by name.
//!
//! | | HTTP API | REST API | function URL | load balancer | VPC Lattice |
//! | --- | --- | --- | --- | --- | --- |
//! | [`client_address`] | yes | yes | yes | yes | yes |
//! | [`stage`], [`api_id`] | yes | yes | `$default`, and the id in its domain | | |
//! | [`claims`] | JWT, Lambda authorizer | Cognito, Lambda authorizer | | | |
//! | [`scopes`] | JWT, Lambda authorizer | Cognito, Lambda authorizer | | | |
//! | [`iam_identity`] | yes | yes | yes | | yes |
//! | [`client_certificate`] | yes | yes | | | |
//! | [`request_context`], [`lambda_context`] | yes | yes | yes | yes | yes |

use std::net::{IpAddr, SocketAddr};

use lambda_http::RequestExt;
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    Context, Problem, Request,
    event::{self, FromTrigger, Object},
    faults::faults,
};

/// What a trigger puts beside the IAM identity although the caller may have made it up, or it is secret.
const NO_CLAIMS: [&str; 4] = ["apiKey", "clientCert", "sourceIp", "userAgent"];

/// Returns the claim `name` about the caller. It comes from the token (JWT or Cognito authorizer), from the context that
/// a Lambda authorizer returned, or from the caller's IAM identity. A claim that is not text is returned as JSON.
///
/// An IAM identity has a `userArn` behind an HTTP API, a REST API and a function URL, and a `principal` behind VPC
/// Lattice; each trigger has more, by its own names.
///
/// The trigger puts the claim into the event, so a caller cannot forge it. `None` if there is no such claim, or if nobody
/// authenticated the caller: behind a route or a service without authorization, or behind a load balancer, which tells
/// what it knows about the caller in headers (`x-amzn-oidc-…`, `x-amzn-mtls-clientcert-…`).
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
    let context = Object::of_context(request)?;
    let authorizer = context.object("authorizer");
    let jwt = authorizer.object("jwt");
    let identity = Some(context.object("identity")).filter(|identity| {
        let has = |name: &&str| identity.get(name).is_some();
        !NO_CLAIMS.contains(&name) && ["principal", "userArn"].iter().any(has)
    });
    let places = [
        jwt.object("claims"),
        authorizer.object("lambda"),
        authorizer.object("iam"),
        authorizer.object("claims"),
        // The scopes are beside the claims.
        jwt,
        authorizer,
        identity.unwrap_or_default(),
    ];
    places.iter().find_map(|claims| {
        let claim = claims.text(name).map(Into::into);
        claim.or_else(|| Some(claims.get(name)?.get().to_owned()))
    })
}

/// The certificate by which a caller authenticated itself.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[non_exhaustive]
pub struct ClientCertificate {
    /// The whole certificate, in PEM.
    #[serde(rename = "clientCertPem")]
    pub pem: String,
    /// The distinguished name of its subject, such as `C=US,O=Example,CN=Ada`.
    #[serde(rename = "subjectDN")]
    pub subject: String,
    /// The distinguished name of its issuer.
    #[serde(rename = "issuerDN")]
    pub issuer: String,
    /// Its serial number, as API Gateway writes it.
    #[serde(rename = "serialNumber")]
    pub serial_number: String,
}

/// Returns the caller's certificate, if the request came through a domain of an HTTP API or a REST API with mutual TLS.
/// API Gateway has checked that the caller has its key, that it is valid now, and that an issuer in the domain's truststore
/// signed it. It has not checked whether it was revoked.
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-mutual-tls.html>
///
/// `None` behind other triggers. A load balancer with mutual TLS sends the certificate in the headers
/// `x-amzn-mtls-clientcert-…`; without mutual TLS, a caller can send such headers, too.
///
/// ```
/// use handler::{Context, Problem, Request, Response, client_certificate, http::StatusCode, json};
///
/// async fn me(request: Request) -> Result<Response, Problem> {
///     let certificate = client_certificate(&request).ok_or_else(|| Problem::forbidden("A certificate is needed."))?;
///     json(StatusCode::OK, &certificate.subject)
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), handler::Error> {
/// let event = br#"{"rawPath": "/me", "requestContext": {"http": {"method": "GET"}, "authentication": {"clientCert": {
///     "clientCertPem": "-----BEGIN CERTIFICATE-----", "subjectDN": "CN=Ada", "issuerDN": "CN=CA", "serialNumber": "1"}}}}"#;
/// let answer = handler::invoke(me, event, Context::default()).await?;
/// assert!(answer.contains("CN=Ada"));
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn client_certificate(request: &Request) -> Option<ClientCertificate> {
    let context = Object::of_context(request)?;
    let certificate =
        context.object("authentication").get("clientCert").or(context.object("identity").get("clientCert"));
    serde_json::from_str(certificate?.get()).ok()
}

/// Returns the caller's address, as the trigger saw it: of a proxy, if the request came through one, such as a content delivery network.
/// Behind a load balancer and VPC Lattice, it is the last address in `X-Forwarded-For`, which the trigger appends; a caller
/// can make up those before it. It is what a caller cannot forge, but it is not who the caller is. It is personal data.
///
/// ```
/// use handler::{Context, Problem, Request, Response, client_address, http::StatusCode, json};
///
/// async fn me(request: Request) -> Result<Response, Problem> {
///     json(StatusCode::OK, &client_address(&request))
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), handler::Error> {
/// let event = br#"{"rawPath": "/", "requestContext": {"http": {"method": "GET", "sourceIp": "192.0.2.10"}}}"#;
/// assert!(handler::invoke(me, event, Context::default()).await?.contains("192.0.2.10"));
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn client_address(request: &Request) -> Option<IpAddr> {
    let from: &FromTrigger = request.extensions().get()?;
    let context = Object::of_context(request)?;
    let address = event::client_address(from.trigger, &context, &context.object("http"), request.headers())?;
    // A load balancer that preserves the client's port appends it.
    address.parse().ok().or_else(|| address.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

/// Returns the stage of the HTTP API or the REST API, such as `prod`. An HTTP API's default stage, and that of a function
/// URL, is `$default`.
#[must_use]
pub fn stage(request: &Request) -> Option<String> {
    Some(Object::of_context(request)?.text("stage")?.into_owned())
}

/// Returns the id of the HTTP API, the REST API or the function URL.
#[must_use]
pub fn api_id(request: &Request) -> Option<String> {
    Some(Object::of_context(request)?.text("apiId")?.into_owned())
}

/// Returns what Lambda tells about the invocation, such as the ARN of the function.
#[must_use]
pub fn lambda_context(request: &Request) -> Option<&Context> {
    request.lambda_context_ref()
}

/// Reads the `requestContext` of the trigger's event as a `T`, for what has no function of its own here. Each trigger has
/// its own: [HTTP API](https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html),
/// [REST API](https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html),
/// [function URL](https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html),
/// [load balancer](https://docs.aws.amazon.com/elasticloadbalancing/latest/application/lambda-functions.html),
/// [VPC Lattice](https://docs.aws.amazon.com/vpc-lattice/latest/ug/lambda-functions.html).
///
/// # Errors
///
/// Returns an `internal` problem if it is no `T`: the function has another trigger than it was written for.
///
/// ```
/// use handler::{Problem, Request, request_context};
///
/// #[derive(serde::Deserialize)]
/// #[serde(rename_all = "camelCase")]
/// struct OfHttpApi {
///     time_epoch: u64,
/// }
///
/// fn received(request: &Request) -> Result<u64, Problem> {
///     Ok(request_context::<OfHttpApi>(request)?.time_epoch)
/// }
/// ```
pub fn request_context<T: DeserializeOwned>(request: &Request) -> Result<T, Problem> {
    let context = request.extensions().get().map_or("null", FromTrigger::context);
    read(context)
        .map_err(|faults| Problem::internal().because(format!("the requestContext is of another type: {faults}")))
}

/// Reads all claims about the caller as a `T`: those of the token (JWT or Cognito authorizer), or the context that a
/// Lambda authorizer returned. `None` if neither authenticated the caller. [`claim`](crate::claim()) reads one, and
/// [`iam_identity`] what IAM knows.
///
/// API Gateway turns most claims into text: numbers and times behind both kinds of API, and lists behind an HTTP API
/// (`[a b]`). A REST API does so with the context of a Lambda authorizer, too, and adds its `principalId`.
///
/// # Errors
///
/// 403 [`forbidden`](Problem::forbidden) if they are no `T`. Its `detail` names the claims at fault, without their values.
///
/// ```
/// use handler::{Context, Problem, Request, Response, claims, http::StatusCode, json};
///
/// #[derive(serde::Deserialize)]
/// struct Caller {
///     sub: String,
///     email: Option<String>,
/// }
///
/// async fn me(request: Request) -> Result<Response, Problem> {
///     let caller: Option<Caller> = claims(&request)?;
///     let caller = caller.ok_or_else(|| Problem::unauthorized("Bearer", "A token is needed."))?;
///     json(StatusCode::OK, &(caller.sub, caller.email))
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), handler::Error> {
/// let event = br#"{"rawPath": "/me", "requestContext": {
///     "http": {"method": "GET"}, "authorizer": {"jwt": {"claims": {"sub": "ada"}}}}}"#;
/// assert!(handler::invoke(me, event, Context::default()).await?.contains("ada"));
/// # Ok(())
/// # }
/// ```
pub fn claims<T: DeserializeOwned>(request: &Request) -> Result<Option<T>, Problem> {
    let context = Object::of_context(request).unwrap_or_default();
    let authorizer = context.object("authorizer");
    let object = |name: &str| authorizer.get(name).filter(|json| json.get().starts_with('{'));
    let is_in_a_member = ["jwt", "lambda", "iam"].iter().any(|name| object(name).is_some());
    let jwt = authorizer.object("jwt");
    let all = jwt.get("claims").or(object("lambda")).or(object("claims")).or_else(|| {
        // A REST API puts what its Lambda authorizer returned right here.
        let is_context = authorizer.0.iter().any(|(_, value)| value.get() != "null");
        context.get("authorizer").filter(|_| is_context && !is_in_a_member)
    });
    let Some(all) = all else { return Ok(None) };
    let refused =
        |faults| Problem::forbidden(format!("The caller's claims are not those that are needed here: {faults}."));
    read(all.get()).map(Some).map_err(refused)
}

/// Returns the OAuth scopes of the caller's token: its claim `scope` or `scp`, or what API Gateway says beside its claims.
/// API Gateway itself checks those that are configured for a route.
///
/// ```
/// use handler::{Problem, Request, scopes};
///
/// fn check(request: &Request) -> Result<(), Problem> {
///     let may = scopes(request).iter().any(|scope| scope == "orders:write");
///     if may { Ok(()) } else { Err(Problem::forbidden("The scope `orders:write` is needed.")) }
/// }
/// ```
#[must_use]
pub fn scopes(request: &Request) -> Vec<String> {
    let text = ["scope", "scp", "scopes"].iter().find_map(|name| claim(request, name)).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_else(|_| {
        // An HTTP API writes a list as `[a b]`.
        let list = text.trim_matches(['[', ']']).split([' ', ',']);
        list.filter(|scope| !scope.is_empty()).map(Into::into).collect()
    })
}

/// Who signed a request with AWS credentials.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct IamIdentity {
    /// The ARN of the user or of the role's session.
    pub arn: String,
    /// The id of its account.
    pub account: Option<String>,
    /// The id of the organization of its account.
    pub organization: Option<String>,
}

/// Returns who signed the request, if the trigger asks for that: `AWS_IAM` as the authorization of a route, a method, a
/// function URL or a service of VPC Lattice. The trigger has checked the signature and the caller's permission.
///
/// ```
/// use handler::{Problem, Request, iam_identity};
///
/// fn caller(request: &Request) -> Result<String, Problem> {
///     let identity = iam_identity(request).ok_or_else(|| Problem::forbidden("A signature is needed."))?;
///     Ok(identity.arn)
/// }
/// ```
#[must_use]
pub fn iam_identity(request: &Request) -> Option<IamIdentity> {
    let context = Object::of_context(request)?;
    let iam = context.object("authorizer").object("iam");
    let identity = if iam.0.is_empty() { context.object("identity") } else { iam };
    let text = |name, or| Some(identity.text(name).or(identity.text(or))?.into_owned());
    let arn = text("userArn", "principal")?;
    let account = text("accountId", "").or_else(|| arn.split(':').nth(4).map(Into::into));
    Some(IamIdentity { account, organization: text("principalOrgId", "principalOrgID"), arn })
}

/// Reads JSON as a `T`, or tells the faults, without values: they may be personal.
fn read<T: DeserializeOwned>(json: &str) -> Result<T, String> {
    serde_json::from_str(json).map_err(|_| {
        let told = faults::<T>(json).list.into_iter().map(|(pointer, detail)| format!("{pointer} {detail}"));
        told.collect::<Vec<_>>().join(", ")
    })
}
