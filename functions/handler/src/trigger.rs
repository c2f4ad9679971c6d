//! What sent an event, and what it says of the request besides the request itself.

use lambda_http::{
    http::{HeaderMap, Method},
    request::LambdaRequest,
};

/// The names are those of the payloads in events/.
pub(crate) struct Trigger<'a> {
    pub(crate) name: &'static str,
    pub(crate) method: &'a Method,
    /// The route that matched, as it was configured. Never the path, of which there are as many as callers can think of.
    pub(crate) route: Option<&'a str>,
    pub(crate) client_address: Option<&'a str>,
}

impl<'a> Trigger<'a> {
    pub(crate) fn of(event: &'a LambdaRequest) -> Self {
        match event {
            LambdaRequest::ApiGatewayV2(event) => {
                let context = &event.request_context;
                // A Function URL sends what an HTTP API sends.
                let is_url = context.domain_name.as_ref().is_some_and(|name| name.contains(".lambda-url."));
                Self {
                    name: if is_url { "function-url" } else { "http-api" },
                    method: &context.http.method,
                    route: context.route_key.as_deref(),
                    client_address: context.http.source_ip.as_deref(),
                }
            }
            LambdaRequest::ApiGatewayV1(event) => Self {
                name: "rest-api",
                method: &event.http_method,
                route: event.resource.as_deref(),
                client_address: event.request_context.identity.source_ip.as_deref(),
            },
            LambdaRequest::Alb(event) => Self {
                name: "alb",
                method: &event.http_method,
                route: None,
                client_address: forwarded_for(&event.headers).or_else(|| forwarded_for(&event.multi_value_headers)),
            },
            LambdaRequest::VpcLatticeV2(event) => Self {
                name: "vpc-lattice",
                method: event.method.as_ref().unwrap_or(&Method::GET),
                route: None,
                client_address: forwarded_for(&event.headers),
            },
            // Only the triggers above are compiled in.
            _ => Self { name: "unknown", method: &Method::GET, route: None, client_address: None },
        }
    }

    /// The method, or `_OTHER` for one that a caller made up.
    pub(crate) fn method_name(&self) -> &'a str {
        match *self.method {
            Method::GET
            | Method::HEAD
            | Method::OPTIONS
            | Method::POST
            | Method::PUT
            | Method::DELETE
            | Method::PATCH
            | Method::CONNECT
            | Method::TRACE => self.method.as_str(),
            _ => "_OTHER",
        }
    }
}

/// The address that the load balancer itself saw, which is the last one: those before it are the caller's word.
fn forwarded_for(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get_all("x-forwarded-for").into_iter().next_back()?;
    value.to_str().ok()?.rsplit(',').next().map(str::trim)
}
