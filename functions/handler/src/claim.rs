//! Who the caller is, as the trigger determined before it invoked the function.

use serde::Deserialize;

use crate::{Request, event::Object};

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
