//! From an invocation's event to an HTTP request, and back.

use std::{
    convert::Infallible,
    future::{Future, ready},
    panic::catch_unwind,
    pin::Pin,
    sync::Arc,
};

use futures_util::FutureExt;
use lambda_http::{
    Adapter, IntoResponse, LambdaEvent, Request, RequestExt, Service, TransformResponse,
    aws_lambda_events::apigw::ApiGatewayV2httpRequest,
    http::{header::HOST, uri::Authority},
    request::LambdaRequest,
    service_fn,
};
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::value::RawValue;
use tower::util::BoxService;

use crate::{
    Response,
    log::{Invocation, Log},
};

/// The event of an HTTP trigger.
///
/// `lambda_http` parses an event as each trigger's in turn, a REST API's first. Here it is an HTTP API's or a function
/// URL's first, which are by far the most frequent and say what they are.
pub(crate) struct Event(LambdaRequest);

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = <&RawValue>::deserialize(deserializer)?.get();
        let event = serde_json::from_str::<ApiGatewayV2httpRequest>(json).ok();
        let event = event.filter(|event| event.version.as_deref() == Some("2.0")).map(LambdaRequest::ApiGatewayV2);
        event.map_or_else(|| serde_json::from_str(json), Ok).map(Self).map_err(Error::custom)
    }
}

/// Marks the request of an event that holds none: it is a trigger's, but a part of it can be in no request.
#[derive(Clone)]
pub(crate) struct Malformed;

/// What Lambda is answered with. `lambda_http` has the type but keeps its name to itself.
type LambdaResponse = <Adapter<'static, Verbatim, BoxService<Request, Verbatim, Infallible>> as Service<
    LambdaEvent<LambdaRequest>,
>>::Response;

/// Gives an HTTP service the events of Lambda's HTTP triggers.
///
/// This is what [`lambda_http::run_concurrent`] does for a service, but for three things: [`Event`] says how one is
/// parsed, one that `lambda_http` panics over reaches the service, as a request marked [`Malformed`], and a body goes out
/// as it is. The request carries its [`Invocation`], for the log.
pub(crate) fn on_events<S>(
    log: Arc<Log>,
    service: S,
) -> impl Service<
    LambdaEvent<Event>,
    Response = LambdaResponse,
    Error = Infallible,
    Future = impl Future<Output = Result<LambdaResponse, Infallible>> + Send + 'static,
> + Clone
+ Send
+ 'static
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    let init = log.age();
    service_fn(move |event: LambdaEvent<Event>| {
        let (Event(payload), context) = event.into_parts();
        let invocation = Invocation::start(&log, init, &payload, &context);
        let origin = payload.request_origin();
        let request = invocation.sync_scope(|| catch_unwind(|| Request::from(payload)).ok().filter(has_valid_host));
        let mut request = request.unwrap_or_else(|| {
            let mut request = Request::default();
            request.extensions_mut().insert(Malformed);
            request
        });
        request.extensions_mut().insert(invocation.clone());
        let response = invocation.scope(service.clone().call(request.with_lambda_context(context)));
        TransformResponse::Request(origin, Box::pin(response.map(|answer| answer.map(Verbatim))))
    })
}

/// `lambda_http` panics over an invalid host, except where it doesn't look: a load balancer's multi-value headers.
fn has_valid_host(request: &Request) -> bool {
    let host = request.headers().get(HOST);
    host.is_none_or(|host| Authority::try_from(host.as_bytes()).is_ok())
}

/// A response whose body `lambda_http` must not touch: it would decode text by the charset of the content type, and
/// send it as UTF-8 under that same content type.
pub(crate) struct Verbatim(Response);

impl IntoResponse for Verbatim {
    fn into_response(self) -> Pin<Box<dyn Future<Output = Response> + Send>> {
        Box::pin(ready(self.0))
    }
}
