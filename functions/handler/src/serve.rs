//! HTTP without Lambda, for development: the feature `serve`, which no release has.
//!
//! Each request becomes an event like those of `cargo lambda watch`, so it takes the same way as on Lambda. There is no
//! deadline.

use std::{collections::BTreeMap, convert::Infallible, env, io, net::Ipv4Addr, process::ExitCode, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use lambda_http::{
    Context, Error,
    http::{Request, Response, header::COOKIE},
};
use serde::Deserialize;
use serde_json::json;
use tokio::{
    net::TcpListener,
    runtime::Builder,
    sync::oneshot,
    task::{LocalSet, spawn_local},
};
use tracing::{error, info};

use crate::{Endpoint, background::answer_then_finish, log::Log, respond::respond};

/// The port on localhost. Without it, 9000.
const PORT: &str = "PORT";

/// What a function returns for a trigger like the one of these events.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    status_code: u16,
    headers: BTreeMap<String, String>,
    cookies: Vec<String>,
    body: String,
    is_base64_encoded: bool,
}

/// Serves until the process is ended.
pub(crate) fn serve(log: &Arc<Log>, endpoint: impl Endpoint) -> ExitCode {
    let served = Builder::new_current_thread().enable_all().build().map_err(Error::from).and_then(|tokio| {
        let port = env::var(PORT).unwrap_or("9000".into()).parse()?;
        LocalSet::new().block_on(&tokio, accept(log, endpoint, port)).map_err(Error::from)
    });
    if let Err(error) = served {
        error!(error = &*error as &dyn std::error::Error, "HTTP cannot be served: is {PORT} a free port?");
    }
    ExitCode::FAILURE
}

async fn accept<E: Endpoint>(log: &Arc<Log>, endpoint: E, port: u16) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    info!("ready: http://localhost:{}, without Lambda", listener.local_addr()?.port());
    // Both are needed until the process ends.
    let (log, endpoint): &'static _ = Box::leak(Box::new((Arc::clone(log), endpoint)));
    loop {
        let (stream, client) = listener.accept().await?;
        let service = service_fn(move |request| async move {
            let answered = answer(log, endpoint, request, client.ip().to_string()).await;
            Ok::<_, Infallible>(answered.unwrap_or_else(|error| {
                error!(error = &*error as &dyn std::error::Error, "a request has no answer");
                let mut response = Response::default();
                *response.status_mut() = hyper::StatusCode::BAD_GATEWAY;
                response
            }))
        });
        spawn_local(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer<E: Endpoint>(
    log: &Arc<Log>,
    endpoint: &E,
    request: Request<Incoming>,
    client: String,
) -> Result<Response<Full<bytes::Bytes>>, Error> {
    let (parts, body) = request.into_parts();
    let mut headers: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in &parts.headers {
        let separator = if name == COOKIE { "; " } else { ", " };
        let value = String::from_utf8_lossy(value.as_bytes());
        let values = headers.entry(name.as_str()).and_modify(|values| values.push_str(separator)).or_default();
        values.push_str(&value);
    }
    let event = json!({
        "routeKey": "$default",
        "rawPath": parts.uri.path(),
        "rawQueryString": parts.uri.query().unwrap_or_default(),
        "headers": headers,
        "requestContext": { "http": { "method": parts.method.as_str(), "sourceIp": client } },
        "body": BASE64_STANDARD.encode(body.collect().await?.to_bytes()),
        "isBase64Encoded": true,
    });
    let mut context = Context::default();
    context.request_id = format!("00000000-0000-4000-8000-{:012x}", log.age().as_micros());
    let responds = respond(log, log.age(), endpoint, event.to_string().into(), context, false);
    // The work after the response may outlast it.
    let (sends, sent) = oneshot::channel();
    spawn_local(answer_then_finish(async { sends.send(responds.await).ok() }));
    let answer: Answer = serde_json::from_str(&sent.await??.json()?)?;
    let body = if answer.is_base64_encoded { BASE64_STANDARD.decode(answer.body)? } else { answer.body.into_bytes() };
    let mut response = Response::builder().status(answer.status_code);
    let cookies = answer.cookies.into_iter().map(|cookie| ("set-cookie".to_owned(), cookie));
    for (name, value) in answer.headers.into_iter().chain(cookies) {
        response = response.header(name, value);
    }
    Ok(response.body(Full::from(body))?)
}
