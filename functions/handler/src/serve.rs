//! HTTP without Lambda, for development: the feature `serve`, which no release has.
//!
//! Each request becomes an event like those of `cargo lambda watch`, so it takes the same way as on Lambda. There is no
//! deadline.

use std::{env, net::Ipv4Addr, process::ExitCode, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use lambda_http::{
    Body, Context, Error,
    aws_lambda_events::apigw::ApiGatewayV2httpResponse,
    http::{Request, Response, StatusCode, header::SET_COOKIE},
};
use serde_json::{Map, json};
use tokio::{net::TcpListener, runtime::Builder, sync::oneshot};
use tracing::{error, info};

use crate::{Endpoint, background::answer_then_finish, log::Log, respond::respond};

/// The port on localhost. Without it, 9000.
const PORT: &str = "PORT";

/// Serves until the process is ended.
pub(crate) fn serve(log: &Arc<Log>, endpoint: impl Endpoint) -> ExitCode {
    let tokio = Builder::new_current_thread().enable_all().build().map_err(Error::from);
    if let Err(error) = tokio.and_then(|tokio| tokio.block_on(accept(log, endpoint))) {
        error!(error = &*error as &dyn std::error::Error, "HTTP cannot be served: is {PORT} a free port?");
    }
    ExitCode::FAILURE
}

async fn accept(log: &Arc<Log>, endpoint: impl Endpoint) -> Result<(), Error> {
    let port = env::var(PORT).unwrap_or("9000".into()).parse()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    info!("ready: http://localhost:{}, without Lambda", listener.local_addr()?.port());
    loop {
        let (stream, _) = listener.accept().await?;
        let (log, endpoint) = (Arc::clone(log), endpoint.clone());
        let service = service_fn(move |request| answer(Arc::clone(&log), endpoint.clone(), request));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(log: Arc<Log>, endpoint: impl Endpoint, request: Request<Incoming>) -> Result<Response<Body>, Error> {
    let (parts, body) = request.into_parts();
    let values = |name| parts.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let headers = parts.headers.keys().map(|name| (name.to_string(), values(name).collect()));
    let event = json!({
        "routeKey": "$default",
        "rawPath": parts.uri.path(),
        "rawQueryString": parts.uri.query().unwrap_or_default(),
        "multiValueHeaders": headers.collect::<Map<_, _>>(),
        "requestContext": { "http": { "method": parts.method.as_str(), "sourceIp": Ipv4Addr::LOCALHOST } },
        "body": BASE64_STANDARD.encode(body.collect().await?.to_bytes()),
        "isBase64Encoded": true,
    });
    let mut context = Context::default();
    context.request_id = format!("00000000-0000-4000-8000-{:012x}", log.age().as_micros());
    let responds = respond(&log, log.age(), &endpoint, event.to_string().into(), context, false);
    // The work after the response may outlast it.
    let (sends, sent) = oneshot::channel();
    tokio::spawn(answer_then_finish(async { sends.send(responds.await).ok() }));
    let answer: ApiGatewayV2httpResponse = serde_json::from_str(&sent.await??.json()?)?;
    let mut response = Response::new(match answer.body {
        Some(Body::Text(base64)) if answer.is_base64_encoded => BASE64_STANDARD.decode(base64)?.into(),
        body => body.unwrap_or_default(),
    });
    *response.status_mut() = StatusCode::from_u16(answer.status_code.try_into()?)?;
    *response.headers_mut() = answer.headers;
    for cookie in answer.cookies {
        response.headers_mut().append(SET_COOKIE, cookie.try_into()?);
    }
    Ok(response)
}
