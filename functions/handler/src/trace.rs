//! The trace that a request is part of, for the requests that it leads to.

use std::str;

use lambda_http::http::{HeaderMap, HeaderName, HeaderValue};

use crate::{Request, log::InvocationSpan};

const X_AMZN_TRACE_ID: HeaderName = HeaderName::from_static("x-amzn-trace-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The headers that continue the trace of the current invocation. Send them to an upstream.
///
/// `X-Amzn-Trace-Id` is the value that Lambda sent with the invocation. `traceparent`
/// ([W3C Trace Context](https://www.w3.org/TR/trace-context/)) is the caller's if it is valid. Otherwise it names the
/// same trace as `X-Amzn-Trace-Id`. A header without a known value is left out: outside an invocation and the tasks that
/// it [spawned](crate::spawn), there are none.
///
/// ```
/// use handler::{Context, Request, Response, invoke, trace_headers};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), handler::Error> {
/// let event = br#"{"rawPath": "/", "requestContext": {"http": {"method": "GET"}},
///     "headers": {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}"#;
/// let endpoint = |_: Request| async {
///     assert_eq!(trace_headers()["traceparent"], "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
///     Ok(Response::default())
/// };
/// invoke(endpoint, event, Context::default()).await?;
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn trace_headers() -> HeaderMap {
    InvocationSpan::current(|invocation| continuing(invocation.trace(), invocation.traceparent().get().cloned()))
        .unwrap_or_default()
}

/// The headers that continue the trace of an invocation that Lambda sent with `x_ray`, if anything, and its caller with
/// `traceparent`.
fn continuing(x_ray: &str, traceparent: Option<HeaderValue>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(traceparent) = traceparent.or_else(|| HeaderValue::try_from(from_x_ray(x_ray)?).ok()) {
        headers.insert(TRACEPARENT, traceparent);
    }
    if let Some(x_ray) = HeaderValue::try_from(x_ray).ok().filter(|_| root(x_ray).is_some()) {
        headers.insert(X_AMZN_TRACE_ID, x_ray);
    }
    headers
}

/// Keeps the caller's `traceparent` for [`trace_headers`].
pub(crate) fn keep(request: &Request) {
    if let Some(traceparent) = callers(request) {
        InvocationSpan::current(|invocation| invocation.traceparent().set(traceparent));
    }
}

/// The `X-Amzn-Trace-Id` that Lambda sent with the current invocation, for code that has no request at hand. The clients
/// of the crate `aws` send it, which also is how Lambda detects that functions invoke each other without end:
/// <https://docs.aws.amazon.com/lambda/latest/dg/invocation-recursion.html>.
///
/// `None` outside an invocation and the tasks that it [spawned](crate::spawn), and if Lambda sent none.
#[must_use]
pub fn current_trace() -> Option<HeaderValue> {
    let x_ray = InvocationSpan::current(|invocation| HeaderValue::try_from(invocation.trace()).ok());
    x_ray.flatten().filter(|x_ray| !x_ray.is_empty())
}

/// The trace id in an `X-Amzn-Trace-Id`, such as `1-5759e988-bd862e3fe1be46a994272793`.
pub(crate) fn root(x_ray: &str) -> Option<&str> {
    let root = part(x_ray, "Root")?;
    let (time, unique) = root.strip_prefix("1-")?.split_once('-')?;
    (is_id(time, 8) && is_id(unique, 24)).then_some(root)
}

fn part<'a>(x_ray: &'a str, name: &str) -> Option<&'a str> {
    x_ray.split(';').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='))
}

/// The caller's `traceparent`, if there is just one and it is valid.
fn callers(request: &Request) -> Option<HeaderValue> {
    let mut values = request.headers().get_all(TRACEPARENT).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    let text = value.to_str().ok()?;
    let mut parts = text.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let valid = is_hex(version, 2) && version != "ff" && is_id(trace, 32) && is_id(parent, 16) && is_hex(flags, 2);
    match version {
        "00" => (valid && parts.next().is_none()).then(|| value.clone()),
        // A later version may have more parts, but begins with these.
        _ if valid => HeaderValue::try_from(format!("00-{trace}-{parent}-{flags}")).ok(),
        _ => None,
    }
}

/// The same trace as a `traceparent`. X-Ray's trace id has the same 32 digits, split in two.
fn from_x_ray(x_ray: &str) -> Option<String> {
    let (time, unique) = root(x_ray)?.strip_prefix("1-")?.split_once('-')?;
    let parent = part(x_ray, "Parent").filter(|parent| is_id(parent, 16))?;
    let flags = if part(x_ray, "Sampled") == Some("1") { "01" } else { "00" };
    Some(format!("00-{time}{unique}-{parent}-{flags}"))
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// An id of all zeros means that there is no id.
fn is_id(text: &str, digits: usize) -> bool {
    is_hex(text, digits) && text.bytes().any(|byte| byte != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Context;

    const X_RAY: &str = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";
    const CALLERS: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn sent(x_ray: Option<&str>, traceparents: &[&str]) -> (Option<String>, Option<String>) {
        let mut request = Request::default();
        for value in traceparents {
            request.headers_mut().append(TRACEPARENT, HeaderValue::from_str(value).unwrap());
        }
        let headers = continuing(x_ray.unwrap_or_default(), callers(&request));
        let value = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        (value(X_AMZN_TRACE_ID), value(TRACEPARENT))
    }

    #[test]
    fn lambdas_trace_is_sent_on_in_both_forms() {
        for (sampled, flags) in [(";Sampled=1", "01"), (";Sampled=0", "00"), (";Sampled=?", "00"), ("", "00")] {
            let x_ray = X_RAY.replace(";Sampled=1", sampled) + ";Lineage=1:a87bd80c:1";
            let (amzn, traceparent) = sent(Some(&x_ray), &[]);
            assert_eq!(amzn, Some(x_ray));
            assert_eq!(traceparent, Some(format!("00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-{flags}")));
        }
        assert_eq!(root(X_RAY), Some("1-5759e988-bd862e3fe1be46a994272793"));
    }

    #[tokio::test]
    async fn the_current_trace_is_the_invocations_if_it_can_be_a_header() {
        const EVENT: &[u8] = br#"{"rawPath": "/", "requestContext": {"http": {"method": "GET"}}}"#;
        for (x_ray, expected) in [(Some(X_RAY), Some(X_RAY)), (Some("a\r\nb: c"), None), (Some(""), None), (None, None)]
        {
            let mut context = Context::default();
            context.request_id = "6b2a".into();
            context.xray_trace_id = x_ray.map(str::to_owned);
            let endpoint = move |_| async move {
                let spawned = crate::spawn(async { current_trace() }).await.ok().flatten();
                assert_eq!((current_trace(), spawned), (expected.map(HeaderValue::from_static), current_trace()));
                Ok(crate::Response::default())
            };
            let answer = crate::invoke(endpoint, EVENT, context).await.unwrap();
            assert!(answer.contains("\"statusCode\":200"), "{answer}");
        }
        assert_eq!(current_trace(), None);
    }

    #[test]
    fn an_invalid_trace_id_is_not_sent_on() {
        for (x_ray, amzn, traceparent) in [
            ("", false, false),
            ("Root=1-5759e988-bd862e3fe1be46a994272793", true, false),
            ("Root=1-5759e988-bd862e3fe1be46a994272793;Parent=0000000000000000", true, false),
            ("Root=1-5759e988-bd862e3fe1be46a99427279;Parent=53995c3f42cd8ad8", false, false),
            ("Root=1-00000000-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8", false, false),
            ("Root=2-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8", false, false),
            ("Parent=53995c3f42cd8ad8;Sampled=1", false, false),
            ("Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8\r\nx: y", false, false),
        ] {
            let headers = sent(Some(x_ray), &[]);
            assert_eq!((headers.0.is_some(), headers.1.is_some()), (amzn, traceparent), "{x_ray}");
        }
        assert_eq!(sent(None, &[]), (None, None));
    }

    #[test]
    fn a_valid_traceparent_from_the_caller_comes_first() {
        let derived = sent(Some(X_RAY), &[]).1;
        for (traceparents, expected) in [
            (&[CALLERS][..], Some(CALLERS)),
            (&["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"], None),
            (&["cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"], Some(CALLERS)),
            (&["cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-will-be"], Some(CALLERS)),
        ] {
            let expected = expected.unwrap_or(traceparents[0]);
            assert_eq!(sent(Some(X_RAY), traceparents).1.as_deref(), Some(expected));
        }
        for traceparents in [
            &[CALLERS, CALLERS][..],
            &[""],
            &["secret"],
            &["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"],
            &["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more"],
            &["00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01"],
            &["00-00000000000000000000000000000000-b7ad6b7169203331-01"],
            &["00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01"],
            &["00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333-01"],
            &["ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
            &["0-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
            &["00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01"],
        ] {
            assert_eq!(sent(Some(X_RAY), traceparents).1, derived, "{traceparents:?}");
        }
    }
}
