//! Endpoints and [tower](https://docs.rs/tower): a service as an endpoint, and layers around an endpoint.

use std::{
    convert::Infallible,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::{FutureExt, future::BoxFuture};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use lambda_http::{
    Error,
    http::{self, header::ACCEPT_ENCODING},
};
use tower_service::Service;

use crate::{
    Body, Endpoint, Problem, Request, Response, caught::caught_async, log::InvocationSpan, respond::dispatch,
    run::INVOKE_MODE, takes_binary,
};

/// Makes an endpoint from a tower service: an axum `Router`, or any other service that answers a request with an
/// [`http_body::Body`]. It gets the requests of all methods, and answers `OPTIONS` itself. Around it are the deadline, the
/// panic boundary, the common headers, and the log.
///
/// With the feature `axum`, the path of a `Router` that matched is the line's `route` where the trigger has none, or one
/// for all paths.
///
/// A body that is not UTF-8 is sent in base64. Behind a REST API, which does not pass on such a body unless it is
/// configured to, the request has no `Accept-Encoding`: no layer compresses the answer. An error of the service is a
/// [`Problem`] if it is one, and otherwise becomes `internal`.
///
/// Each request gets a clone of the service, which is called when it is ready. A service that needs another type of body
/// gets it from a layer: `map_request(|request: Request| request.map(axum::body::Body::new))`.
///
/// ```
/// use handler::{Context, Request, http, service};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), handler::Error> {
/// let echo = tower::service_fn(async |request: Request| {
///     Ok::<_, std::io::Error>(http::Response::new(format!("{} {}", request.method(), request.uri().path())))
/// });
/// let event = br#"{"path": "/a", "httpMethod": "PUT", "requestContext": {"elb": {}}}"#;
/// let answer = handler::invoke(service(echo), event, Context::default()).await?;
/// assert!(answer.contains(r#""body":"PUT /a""#));
/// # Ok(())
/// # }
/// ```
pub fn service<S: 'static>(service: S) -> ServiceEndpoint<S> {
    #[cfg(feature = "axum")]
    let service = crate::axum::with_route(service);
    ServiceEndpoint(service)
}

/// A tower service as an endpoint. [`service`] and [`Endpoint::layer`] make it.
#[derive(Clone, Debug)]
pub struct ServiceEndpoint<S>(S);

impl<S, B> Endpoint for ServiceEndpoint<S>
where
    S: Service<Request, Response = http::Response<B>, Error: Into<Error>, Future: Send + 'static>,
    S: Clone + Send + 'static,
    B: http_body::Body<Data: Send, Error: Into<Error>> + Send + 'static,
{
    const TAKES_ALL: bool = true;

    async fn call(self, mut request: Request) -> Result<Response, Problem> {
        if !takes_binary(&request) {
            request.headers_mut().remove(ACCEPT_ENCODING);
        }
        let Self(mut service) = self;
        poll_fn(|context| service.poll_ready(context)).await.map_err(problem)?;
        let (parts, body) = service.call(request).await.map_err(problem)?.into_parts();
        InvocationSpan::current(|invocation| invocation.answered_with(parts.extensions.get().cloned()));
        #[cfg(feature = "stream")]
        return crate::stream::of_service(parts, body);
        // Base64 and JSON only make it longer.
        #[cfg(not(feature = "stream"))]
        Ok(Response::from_parts(parts, whole(body, crate::trigger::MAX_ANSWER_BYTES).await?))
    }
}

pub(crate) fn problem(error: impl Into<Error>) -> Problem {
    error.into().downcast().map_or_else(|error| Problem::internal().because(error), |problem| *problem)
}

/// All of a body, of at most `most` bytes.
pub(crate) async fn whole(body: impl http_body::Body<Error: Into<Error>>, most: usize) -> Result<Body, Problem> {
    let refused = |error: Error| {
        if !error.is::<LengthLimitError>() {
            return problem(error);
        }
        Problem::internal().because(format!(
            "the body has more than {most} bytes: {INVOKE_MODE} is not RESPONSE_STREAM, or this trigger cannot stream"
        ))
    };
    let body = Limited::new(body, most).collect().await.map_err(refused)?.to_bytes();
    Ok(match String::from_utf8(body.into()) {
        Ok(text) if text.is_empty() => Body::Empty,
        Ok(text) => Body::Text(text),
        Err(binary) => Body::Binary(binary.into_bytes()),
    })
}

/// An endpoint as a tower service, which never fails: problems and panics are responses, too. A layer of
/// [`Endpoint::layer`] gets it.
#[derive(Clone, Debug)]
pub struct EndpointService<E>(pub(crate) E);

impl<E: Endpoint> Service<Request> for EndpointService<E> {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let endpoint = self.0.clone();
        async move {
            let outcome = caught_async(dispatch(endpoint, request)).await;
            let outcome = outcome.unwrap_or_else(|| Err(Problem::panicked()));
            Ok(outcome.unwrap_or_else(Problem::into_http))
        }
        .boxed()
    }
}

impl Problem {
    /// The answer, for other code to pass on. It keeps the problem for the log.
    pub(crate) fn into_http(self) -> Response {
        let request_id = InvocationSpan::current(|invocation| invocation.request_id().to_owned());
        let mut response = self.to_response(&request_id.unwrap_or_default());
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use lambda_http::http::{StatusCode, header::LINK};
    use serde_json::{Value, json};
    use tower::{ServiceBuilder, service_fn};
    use tower_http::{compression::CompressionLayer, cors::CorsLayer};

    use super::*;
    use crate::{after_response, get, observe, record};

    const ALB: &str = r#"{"path": "/", "httpMethod": "GET", "requestContext": {"elb": {}}}"#;

    /// The answer and the log line.
    async fn observed(endpoint: impl Endpoint, event: &str) -> (Value, Value) {
        let mut context = crate::Context::default();
        context.request_id = "6b2a".into();
        let at = SystemTime::now() + Duration::from_mins(1);
        context.deadline = at.duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap();
        let (answer, line) = observe(endpoint, event.as_bytes(), context).await.unwrap();
        (serde_json::from_str(&answer).unwrap(), serde_json::from_str(&line).unwrap())
    }

    fn type_of(answer: &Value) -> String {
        let problem: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap_or_default();
        problem["type"].as_str().unwrap_or_default().replace("urn:problem-type:", "")
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_has_the_deadline_the_panic_boundary_the_log_and_work_after_the_response() {
        let endpoint = service(service_fn(async |request: Request| {
            record("method_seen", request.method().to_string());
            after_response(async { record("later", true) });
            match request.headers().get("x-does").map(http::HeaderValue::as_bytes) {
                Some(b"stall") => std::future::pending().await,
                Some(b"panic") => panic!("in the service"),
                Some(b"fail") => Err(Error::from("the cause")),
                Some(b"refuse") => Err(Problem::forbidden("No.").into()),
                _ => Ok(http::Response::new(Body::from("done"))),
            }
        }));
        for (does, status, problem, error) in [
            ("answer", 200, "", Value::Null),
            ("stall", 504, "deadline-exceeded", json!("The time for this request ran out.")),
            ("panic", 500, "internal", json!("the endpoint panicked")),
            ("fail", 500, "internal", json!("the cause")),
            ("refuse", 403, "forbidden", Value::Null),
        ] {
            let event = ALB
                .replace("GET", "BREW")
                .replace("{\"path", &format!(r#"{{"headers": {{"x-does": "{does}"}}, "path"#));
            let (answer, line) = observed(endpoint.clone(), &event).await;
            assert_eq!((&answer["statusCode"], &*type_of(&answer)), (&json!(status), problem), "{line}");
            assert_eq!((&line["method_seen"], &line["later"]), (&json!("BREW"), &json!(true)), "{line}");
            assert_eq!(line["problem"].as_str().unwrap_or_default(), problem, "{line}");
            assert!(line["error"].as_str().unwrap_or_default().ends_with(error.as_str().unwrap_or_default()), "{line}");
            assert_eq!(answer["headers"]["x-request-id"], "6b2a");
            assert_eq!(answer["headers"]["cache-control"], "no-store");
        }
    }

    #[tokio::test]
    async fn a_service_is_called_when_it_is_ready() {
        /// Becomes ready at the second poll.
        #[derive(Clone, Default)]
        struct Slow(usize);

        impl Service<Request> for Slow {
            type Response = Response;
            type Error = Error;
            type Future = std::future::Ready<Result<Response, Error>>;

            fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
                self.0 += 1;
                if self.0 == 2 {
                    return Poll::Ready(Ok(()));
                }
                context.waker().wake_by_ref();
                Poll::Pending
            }

            fn call(&mut self, _: Request) -> Self::Future {
                assert_eq!(self.0, 2);
                std::future::ready(Ok(Response::default()))
            }
        }

        assert_eq!(observed(service(Slow::default()), ALB).await.0["statusCode"], 200);
        // Each request has a clone, but they share the limit.
        let (entered, leave) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
        let (told, waits) = (Arc::clone(&entered), Arc::clone(&leave));
        let limited = service(ServiceBuilder::new().concurrency_limit(1).service_fn(move |_: Request| {
            told.notify_one();
            let waits = Arc::clone(&waits);
            async move {
                waits.notified().await;
                Ok::<_, Infallible>(Response::default())
            }
        }));
        let mut first = Box::pin(observed(limited.clone(), ALB));
        assert!(futures_util::poll!(&mut first).is_pending());
        entered.notified().await;
        let mut second = Box::pin(observed(limited, ALB));
        assert!(futures_util::poll!(&mut second).is_pending());
        assert!(entered.notified().now_or_never().is_none(), "both were called");
        leave.notify_one();
        first.await;
        leave.notify_one();
        assert_eq!(second.await.0["statusCode"], 200);
    }

    #[tokio::test]
    async fn a_layer_sees_all_requests_and_all_answers() {
        let broken = |_| async { Err(Problem::internal().because("the cause")) };
        let panics = |request: Request| async move { panic!("in the endpoint: {}", request.method()) };
        let resource = get(|_| async { Ok(Response::new(Body::from("got"))) }).post(broken).put(panics).at("/a");
        let layered = resource.layer(CorsLayer::new().allow_origin(tower_http::cors::Any));
        for (method, path, status, problem, error) in [
            ("GET", "/a", 200, "", ""),
            ("HEAD", "/a", 200, "", ""),
            ("OPTIONS", "/a", 200, "", ""),
            ("GET", "/b", 404, "not-found", ""),
            ("PATCH", "/a", 405, "method-not-allowed", ""),
            ("POST", "/a", 500, "internal", "the cause"),
            ("PUT", "/a", 500, "internal", "the endpoint panicked"),
        ] {
            let event = ALB.replace("GET", method).replace(r#""/""#, &format!("{path:?}"));
            let (answer, line) = observed(layered.clone(), &event).await;
            assert_eq!(
                (&answer["statusCode"], &*type_of(&answer)),
                (&json!(status), problem),
                "{method} {path}: {line}"
            );
            assert_eq!(answer["headers"]["access-control-allow-origin"], "*", "{method} {path}");
            assert_eq!(line["problem"].as_str().unwrap_or_default(), problem, "{method} {path}: {line}");
            assert!(line["error"].as_str().unwrap_or_default().ends_with(error), "{method} {path}: {line}");
            if problem == "method-not-allowed" {
                assert_eq!(answer["headers"]["allow"], "GET, HEAD, OPTIONS, POST, PUT");
            }
            if !problem.is_empty() {
                assert!(answer["body"].as_str().unwrap().contains("urn:uuid:6b2a"), "{answer}");
            }
        }
    }

    /// Answers with `status` whatever the service answers.
    fn replaced(endpoint: impl Endpoint, status: StatusCode) -> impl Endpoint {
        endpoint.layer(tower::util::MapResponseLayer::new(move |_: Response| {
            let mut response = Response::default();
            *response.status_mut() = status;
            response
        }))
    }

    /// A cause that panics when it is dropped.
    #[derive(Debug)]
    struct Bomb;

    impl std::fmt::Display for Bomb {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("the bomb")
        }
    }

    impl std::error::Error for Bomb {}

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in a drop");
        }
    }

    #[tokio::test]
    async fn the_line_has_the_problem_of_the_answer_and_no_other() {
        let broken = |_: Request| async { Err(Problem::internal().because("the cause")) };
        for status in [StatusCode::OK, StatusCode::BAD_GATEWAY] {
            let (answer, line) = observed(replaced(broken.layer(CorsLayer::new()), status), ALB).await;
            assert_eq!((&answer["statusCode"], &line["status"]), (&json!(status.as_u16()), &json!(status.as_u16())));
            assert!(line.get("problem").is_none() && line.get("error").is_none(), "{line}");
        }
        let bomb = |_: Request| async { Err(Problem::internal().because(Bomb)) };
        let (_, line) = observed(bomb.layer(CorsLayer::new()), ALB).await;
        assert!(line["error"].as_str().unwrap().ends_with("the bomb"), "{line}");
        let not_sent = get(|_: Request| async {
            let bytes = http::HeaderValue::from_bytes(b"\xff").unwrap();
            Err(Problem::not_found("Gone.").with_header(LINK, bytes))
        });
        let (answer, line) = observed(not_sent.layer(CorsLayer::new()), ALB).await;
        assert_eq!((&answer["statusCode"], &line["problem"]), (&json!(500), &json!("internal")), "{line}");
    }

    #[tokio::test]
    async fn a_body_is_text_if_it_is_utf_8_and_compressed_if_the_trigger_takes_that() {
        let bytes = |bytes: &'static [u8]| {
            service(service_fn(move |_: Request| async move {
                Ok::<_, Infallible>(http::Response::new(http_body_util::Full::new(bytes)))
            }))
        };
        for (sent, body, is_base64) in
            [(&b"caf\xc3\xa9"[..], "caf\u{e9}", false), (b"\xff", "/w==", true), (b"", "", false)]
        {
            let (answer, line) = observed(bytes(sent), ALB).await;
            assert_eq!((&answer["body"], &answer["isBase64Encoded"]), (&json!(body), &json!(is_base64)));
            assert_eq!(line["bytes_out"], sent.len());
        }
        let text = "text ".repeat(100);
        let compressed = move |event: &str| {
            let text = text.clone();
            let endpoint = get(move |_| {
                let text = text.clone();
                async { Ok(Response::new(Body::from(text))) }
            });
            let event = event.replacen('{', r#"{"headers": {"accept-encoding": "gzip"}, "#, 1);
            async move { observed(endpoint.layer(CompressionLayer::new()), &event).await.0 }
        };
        assert_eq!(compressed(ALB).await["headers"]["content-encoding"], "gzip");
        let rest = compressed(r#"{"resource": "/", "path": "/", "httpMethod": "GET"}"#).await;
        assert!(rest["body"].as_str().unwrap().starts_with("text "), "{rest}");
    }

    #[tokio::test]
    async fn a_body_that_fails_or_does_not_end_is_an_internal_problem() {
        use futures_util::{StreamExt, stream};
        use http_body::Frame;
        use http_body_util::StreamBody;

        let frame = || Ok(Frame::data(bytes::Bytes::from_static(&[b'x'; 4096])));
        let endless = stream::repeat_with(frame);
        let broken = stream::iter([frame(), Err(Error::from("the connection broke"))]);
        for (stream, error) in [(endless.boxed(), "more than 1048576 bytes"), (broken.boxed(), "the connection broke")]
        {
            let stream = Arc::new(std::sync::Mutex::new(Some(stream)));
            let endpoint = service(service_fn(move |_: Request| {
                let stream = stream.lock().unwrap().take().unwrap();
                async { Ok::<_, Infallible>(http::Response::new(StreamBody::new(stream))) }
            }));
            let (answer, line) = observed(endpoint, ALB).await;
            assert_eq!((&answer["statusCode"], &line["problem"]), (&json!(500), &json!("internal")));
            assert!(line["error"].as_str().unwrap().contains(error), "{line}");
        }
    }
}
