//! From an invocation's event to an HTTP request.
//!
//! `lambda_http` does this, too, but it refuses some events for a part that nobody reads, panics on others, keeps one
//! value of a repeated header, and takes a percent-encoded `&` in a load balancer's query for a separator. The tests
//! show each fault. Here an event comes from an HTTP trigger if it has that trigger's marks, a method and a
//! path. A part that no request can hold is left out. If the request makes no sense without it, it is [`Malformed`].

use std::{borrow::Cow, fmt, ops::Range};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use form_urlencoded::Serializer;
use lambda_http::{
    Error,
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, Uri,
        header::{COOKIE, HOST},
        uri::{self, Authority, PathAndQuery, Scheme},
    },
};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{Body, Request, trigger::Trigger};

/// Characters that a path can hold only in percent-encoding (RFC 3986, section 3.3).
const NOT_IN_A_PATH: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>').add(b'?').add(b'`');
const NOT_IN_A_DECODED_PATH: &AsciiSet = &NOT_IN_A_PATH.add(b'%');

/// Characters that callers send unencoded in a query, although a URI cannot hold them (RFC 3986, section 3.4).
const NOT_IN_A_QUERY: &AsciiSet = &AsciiSet::EMPTY.add(b'"').add(b'<').add(b'>');

/// The largest event that is kept while the endpoint runs, in bytes.
const MOST_KEPT: usize = 64 * 1024;

/// An event of an HTTP trigger.
pub(crate) struct Event {
    pub(crate) trigger: Trigger,
    /// The route that matched, as it was configured. Never the path, because callers can invent any number of paths.
    pub(crate) route: Option<String>,
    /// The caller's address as the trigger saw it, if it was asked for.
    pub(crate) client_address: Option<String>,
    /// The method, or `_OTHER` for one that a caller made up, even if the request is malformed.
    pub(crate) method: &'static str,
    /// Whether the answer has no body, even if the request is malformed.
    pub(crate) is_head: bool,
    /// Whether the trigger streams the answer.
    pub(crate) streams: bool,
    pub(crate) request: Result<Request, Malformed>,
}

/// What a trigger adds to a request, unparsed, because most endpoints do not use it.
#[derive(Clone)]
pub(crate) struct FromTrigger {
    pub(crate) trigger: Trigger,
    /// The event, and where its `requestContext` is in it. Only of a large event it is a copy, which costs an allocation.
    event: Bytes,
    context: Range<usize>,
    pub(crate) path_parameters: Option<Box<RawValue>>,
    /// The path of the route that has these parameters, as it was configured.
    pub(crate) route: Option<String>,
    /// Whether the trigger has decoded the parameters.
    pub(crate) has_decoded: bool,
    /// The stage, if nothing tells whether it is part of the path.
    pub(crate) stage: Option<String>,
    pub(crate) takes_binary: bool,
}

impl FromTrigger {
    /// The `requestContext`, as JSON.
    pub(crate) fn context(&self) -> &str {
        self.event.get(self.context.clone()).and_then(|context| str::from_utf8(context).ok()).unwrap_or_default()
    }
}

/// Why a request is malformed, in a sentence for the caller.
#[derive(Clone, Copy)]
pub(crate) struct Malformed(pub(crate) &'static str);

impl Event {
    /// Reads the event of an invocation, also the caller's address if `with_address`. `streams` says whether triggers that
    /// can stream do.
    ///
    /// # Errors
    ///
    /// If it is not from an HTTP trigger.
    pub(crate) fn read(event: Bytes, streams: bool, with_address: bool) -> Result<Self, Error> {
        let json = str::from_utf8(&event)?;
        let read = match serde_json::from_str(json) {
            Ok(object) => Self::of(&object, json, streams, with_address),
            Err(other) if other.is_data() => None,
            Err(error) => return Err(format!("the event is not JSON: {error}").into()),
        };
        let mut read = read.ok_or(
            "the event is not from an HTTP trigger: it must come from an HTTP API, a function URL, a REST API, an \
             Application Load Balancer or VPC Lattice (event version 2), and have a method and a path",
        )?;
        let request = read.request.as_mut().ok();
        if let Some(from) = request.and_then(|request| request.extensions_mut().get_mut::<FromTrigger>()) {
            // A large event is not kept beside its body.
            if event.len() > MOST_KEPT {
                let context = event.get(from.context.clone()).map(Bytes::copy_from_slice).unwrap_or_default();
                (from.context, from.event) = (0..context.len(), context);
            } else {
                from.event = event;
            }
        }
        Ok(read)
    }

    fn of(event: &Object<'_>, json: &str, streams: bool, with_address: bool) -> Option<Self> {
        let context = event.object("requestContext");
        let http = context.object("http");
        let domain_name = context.text("domainName");
        let (trigger, method, path) = if !http.0.is_empty() {
            let is_url = domain_name.as_ref().is_some_and(|name| name.contains(".lambda-url."));
            let path = event.text("rawPath").or_else(|| http.text("path"))?;
            (if is_url { Trigger::FunctionUrl } else { Trigger::HttpApi }, http.text("method")?, path)
        } else if context.get("elb").is_some() {
            let multi_value = event.get("multiValueHeaders").is_some();
            (Trigger::Alb { multi_value }, event.text("httpMethod")?, event.text("path")?)
        } else if ["serviceNetworkArn", "serviceArn", "targetGroupArn"].iter().any(|arn| context.get(arn).is_some()) {
            (Trigger::VpcLattice, event.text("method")?, event.text("path")?)
        } else if event.get("resource").is_some()
            || ["apiId", "resourcePath"].iter().any(|mark| context.get(mark).is_some())
        {
            (Trigger::RestApi, event.text("httpMethod")?, event.text("path")?)
        } else {
            return None;
        };
        let (headers, fit) = headers(event);
        let address = || client_address(trigger, &context, &http, &headers).map(Cow::into_owned);
        let client_address = with_address.then(address).flatten();
        // Only an HTTP API's events have a version and an API id. It decodes the path and its parameters, in both payload
        // versions. Other triggers do not, nor does `cargo lambda watch`, which sends an HTTP API's events without an id.
        let is_http_api =
            trigger != Trigger::FunctionUrl && event.get("version").is_some() && context.get("apiId").is_some();
        let route = match trigger {
            Trigger::HttpApi | Trigger::FunctionUrl => event.text("routeKey"),
            Trigger::RestApi => event.text("resource"),
            Trigger::Alb { .. } | Trigger::VpcLattice => None,
        };
        let base = route.as_deref().and_then(|route| base(&path, route, event));
        // Without a route, what looks like the stage may be the caller's own, but not at the API's own domain.
        let may_have_stage = base.is_none() && (trigger == Trigger::HttpApi || is_http_api);
        let stage = may_have_stage.then(|| context.text("stage")).flatten();
        let stage = stage.filter(|stage| stage != "$default" && without_stage(&path, stage).is_some());
        let (stage, unclear) = match &domain_name {
            Some(name) if !name.contains(".execute-api.") => (None, stage),
            _ => (stage, None),
        };
        let path = without(path, base.or(stage.map(|stage| stage.len() + 1)).unwrap_or_default());
        let (name, is_head) = (method_name(&method), method == Method::HEAD.as_str());
        // A function URL and a REST API can. `cargo lambda watch` sends an HTTP API's events, and can, too.
        let streams = streams && !is_http_api && !matches!(trigger, Trigger::Alb { .. } | Trigger::VpcLattice);
        let request = Method::from_bytes(method.as_bytes()).map_err(|_| Malformed("The method is not a token."));
        let request = request.and_then(|method| {
            fit?;
            let mut request = Request::new(body(event)?);
            let path = utf8_percent_encode(
                if path.is_empty() { "/" } else { &path },
                if is_http_api { NOT_IN_A_DECODED_PATH } else { NOT_IN_A_PATH },
            );
            *request.uri_mut() = uri(&Cow::from(path), query(event, trigger), &headers, domain_name.as_deref())?;
            *request.method_mut() = method;
            *request.headers_mut() = headers;
            let path_parameters = event.get("pathParameters").map(ToOwned::to_owned);
            let route = route.as_deref().filter(|_| path_parameters.is_some());
            let context = event.get("requestContext").map_or("", RawValue::get);
            let start = context.as_ptr().addr().saturating_sub(json.as_ptr().addr());
            request.extensions_mut().insert(FromTrigger {
                trigger,
                event: Bytes::new(),
                context: start..start + context.len(),
                path_parameters,
                route: route.and_then(|route| route.get(route.find('/')?..)).map(Into::into),
                has_decoded: is_http_api,
                stage: unclear.map(Cow::into_owned),
                takes_binary: streams || trigger != Trigger::RestApi || is_http_api,
            });
            Ok(request)
        });
        let route = route.map(Cow::into_owned);
        Some(Self { trigger, route, client_address, method: name, is_head, streams, request })
    }
}

/// The caller's address as the trigger saw it. `http` is in `context`.
pub(crate) fn client_address<'a>(
    trigger: Trigger,
    context: &Object<'a>,
    http: &Object<'a>,
    headers: &'a HeaderMap,
) -> Option<Cow<'a, str>> {
    match trigger {
        Trigger::HttpApi | Trigger::FunctionUrl => http.text("sourceIp"),
        Trigger::RestApi => context.object("identity").text("sourceIp"),
        // The load balancer appends the address that it saw. The caller can make up the addresses before it.
        Trigger::Alb { .. } | Trigger::VpcLattice => headers
            .get("x-forwarded-for")
            .and_then(|addresses| addresses.to_str().ok()?.rsplit(',').next())
            .map(|address| address.trim().into()),
    }
}

fn method_name(method: &str) -> &'static str {
    const STANDARD: [&str; 9] = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PATCH", "CONNECT", "TRACE"];
    STANDARD.into_iter().find(|standard| *standard == method).unwrap_or("_OTHER")
}

/// The length of what comes in `path` before the path that `route` matched: the base path of a custom domain, or the
/// stage. API Gateway puts them there depending on the kind of API, the payload's version and the domain, and tells none
/// of that, but the path always ends with the route. `None` if it does not, or if the route is `$default`.
fn base(path: &str, route: &str, event: &Object<'_>) -> Option<usize> {
    let (_, route) = route.split_once('/')?;
    // API Gateway ignores a slash at the end.
    let mut rest = path.trim_end_matches('/');
    let segments = route.rsplit('/').filter(|segment| !segment.is_empty());
    if !route.ends_with("+}") && rest.matches('/').count() <= segments.clone().count() {
        return Some(0);
    }
    let parameters = event.object("pathParameters");
    for segment in segments {
        let parameter = segment.strip_prefix('{').and_then(|name| name.strip_suffix('}'));
        let value = match parameter {
            Some(name) => parameters.text(name.trim_end_matches('+'))?,
            None => segment.into(),
        };
        rest = rest.strip_suffix(value.trim_end_matches('/'))?.strip_suffix('/')?;
    }
    (rest.is_empty() || rest.starts_with('/')).then_some(rest.len())
}

/// What follows the stage in `path`, if `path` begins with it.
pub(crate) fn without_stage<'a>(path: &'a str, stage: &str) -> Option<&'a str> {
    let rest = path.strip_prefix('/')?.strip_prefix(stage).filter(|_| !stage.is_empty())?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

/// `text` without its first `length` bytes.
fn without(text: Cow<'_, str>, length: usize) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => text.get(length..).unwrap_or(text).into(),
        Cow::Owned(text) => text.get(length..).unwrap_or(&text).to_owned().into(),
    }
}

/// Reads the headers. Repeated headers are joined into one value, as an HTTP API does (RFC 9110, section 5.3). Also returns
/// whether all of them fit into a [`HeaderMap`], which holds 24,576 names.
fn headers(event: &Object<'_>) -> (HeaderMap, Result<(), Malformed>) {
    let (mut headers, mut fit) = (HeaderMap::with_capacity(16), Ok(()));
    let mut add = |name: &str, value: &str| {
        let name = HeaderName::from_bytes(name.as_bytes());
        let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.as_bytes())) else { return };
        if headers.try_append(name, value).is_err() {
            fit = Err(Malformed("The request has too many headers."));
        }
    };
    let multi_value = event.object("multiValueHeaders");
    // A REST API sends both. `headers` has only the last value of each name.
    let all = if multi_value.0.is_empty() { event.object("headers") } else { multi_value };
    // An HTTP API sends cookies apart from the headers.
    let cookies = event.get("cookies");
    all.pairs(|name, value| {
        if cookies.is_none() || !name.eq_ignore_ascii_case(COOKIE.as_str()) {
            add(name, value);
        }
    });
    each_text(cookies, |cookie| add(COOKIE.as_str(), cookie));
    if headers.len() > headers.keys_len() {
        headers = headers.keys().map(|name| (name.clone(), joined(&headers, name))).collect();
    }
    (headers, fit)
}

/// All values of a header as one.
fn joined(headers: &HeaderMap, name: &HeaderName) -> HeaderValue {
    let values: Vec<_> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    let separator: &[u8] = if name == COOKIE { b"; " } else { b", " };
    // Valid values joined are a valid value.
    HeaderValue::try_from(values.join(separator)).unwrap_or(HeaderValue::from_static(""))
}

/// The query in percent-encoding.
fn query<'a>(event: &Object<'a>, trigger: Trigger) -> Option<Cow<'a, str>> {
    if matches!(trigger, Trigger::HttpApi | Trigger::FunctionUrl) {
        return event.text("rawQueryString").filter(|query| !query.is_empty());
    }
    let multi_value = event.object("multiValueQueryStringParameters");
    let all = if multi_value.0.is_empty() { event.object("queryStringParameters") } else { multi_value };
    let mut query = String::new();
    if trigger == Trigger::RestApi {
        // A REST API is the only trigger that decodes the query.
        let mut encoder = Serializer::new(&mut query);
        all.pairs(|name, value| {
            encoder.append_pair(name, value);
        });
    } else {
        all.pairs(|name, value| {
            let separator = if query.is_empty() { "" } else { "&" };
            query.extend([separator, name, "=", value]);
        });
    }
    (!query.is_empty()).then_some(query.into())
}

/// The URL that the caller requested. It is absolute if the host name is known.
fn uri(
    path: &str,
    query: Option<Cow<'_, str>>,
    headers: &HeaderMap,
    domain_name: Option<&str>,
) -> Result<Uri, Malformed> {
    let mut parts = uri::Parts::default();
    parts.authority = match headers.get(HOST) {
        Some(host) => {
            let host = Authority::try_from(host.as_bytes());
            Some(host.map_err(|_| Malformed("The Host header is not the name of a host."))?)
        }
        None => domain_name.and_then(|name| name.parse().ok()),
    };
    if parts.authority.is_some() {
        let http = headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "http");
        parts.scheme = Some(if http { Scheme::HTTP } else { Scheme::HTTPS });
    }
    parts.path_and_query = Some(match query {
        None => PathAndQuery::try_from(path).map_err(|_| Malformed("The path is malformed."))?,
        Some(query) => {
            let query: Cow<'_, str> = utf8_percent_encode(&query, NOT_IN_A_QUERY).into();
            PathAndQuery::try_from([path, "?", &query].concat())
                .map_err(|_| Malformed("The query string is malformed."))?
        }
    });
    Uri::from_parts(parts).map_err(|_| Malformed("The path is malformed."))
}

fn body(event: &Object<'_>) -> Result<Body, Malformed> {
    let Some(body) = event.get("body") else { return Ok(Body::Empty) };
    let body = unescaped(body.get()).ok_or(Malformed("The body is not text."))?;
    if event.get("isBase64Encoded").is_some_and(|flag| flag.get() == "true") {
        let bytes = BASE64_STANDARD.decode(&*body).map_err(|_| Malformed("The body is not valid base64."))?;
        Ok(Body::Binary(bytes))
    } else if body.is_empty() {
        Ok(Body::Empty)
    } else {
        Ok(Body::Text(body.into_owned()))
    }
}

/// The text that valid `json` is. `None` if it is something else, or holds half a character. `serde_json` would hold a text with
/// escapes twice: it decodes it into a buffer of its own, and copies that.
fn unescaped(json: &str) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    let mut parts = inner.split('\\').peekable();
    let first = parts.next()?;
    if parts.peek().is_none() {
        return Some(first.into());
    }
    let mut text = String::with_capacity(inner.len());
    text.push_str(first);
    while let Some(mut part) = parts.next() {
        let mut chars = part.chars();
        match chars.next() {
            // What follows this backslash is another one.
            None => text.extend(["\\", parts.next()?]),
            Some('u') => {
                let unit = |part: &str| u16::from_str_radix(part.get(1..5)?, 16).ok();
                let mut units = vec![unit(part)?];
                // Two of them may be one character.
                while part.len() == 5
                    && let Some(next) = parts.next_if(|next| next.starts_with('u'))
                {
                    units.push(unit(next)?);
                    part = next;
                }
                text.extend([&*String::from_utf16(&units).ok()?, part.get(5..)?]);
            }
            Some(name) => {
                text.push(match name {
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    other => other,
                });
                text.push_str(chars.as_str());
            }
        }
    }
    Some(text.into())
}

/// A JSON object that parses a value only when it is read, so that unread values may hold anything. Any JSON value that
/// is not an object counts as an empty object, and a member that is `null` as absent.
#[derive(Default)]
pub(crate) struct Object<'a>(pub(crate) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Object<'a> {
    /// The `requestContext` of the request's event.
    pub(crate) fn of_context(request: &'a Request) -> Option<Self> {
        let from: &FromTrigger = request.extensions().get()?;
        serde_json::from_str(from.context()).ok()
    }

    pub(crate) fn read(json: &'a RawValue) -> Self {
        // If it cannot be read, it counts as empty.
        serde_json::from_str(json.get()).unwrap_or_default()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&'a RawValue> {
        let (_, value) = self.0.iter().find(|(member, value)| member == name && value.get() != "null")?;
        Some(value)
    }

    pub(crate) fn object(&self, name: &str) -> Self {
        self.get(name).map(Self::read).unwrap_or_default()
    }

    pub(crate) fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        text(self.get(name)?)
    }

    /// Calls `each` for every name with its value, or with each value of a list.
    fn pairs(&self, mut each: impl FnMut(&str, &str)) {
        for (name, value) in &self.0 {
            match text(value) {
                Some(value) => each(name, &value),
                None => each_text(Some(value), |value| each(name, value)),
            }
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut members = Vec::with_capacity(16);
                while let Some((Text(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(Object(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// Text that is borrowed if possible.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn text(json: &RawValue) -> Option<Cow<'_, str>> {
    let json = Some(json.get()).filter(|json| json.starts_with('"'))?;
    serde_json::from_str(json).map(|Text(text)| text).ok()
}

/// Calls `each` for every text in a list.
fn each_text(json: Option<&RawValue>, mut each: impl FnMut(&str)) {
    let list = json.and_then(|json| serde_json::from_str::<Vec<&RawValue>>(json.get()).ok());
    for text in list.into_iter().flatten().filter_map(text) {
        each(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_unescaped_as_serde_json_does() {
        let parts = [
            "", "a", "é😀", r"\\", r#"\""#, r"\/", r"\b\f", r"\n", r"\r\t", r"\u0000", r"\u00E9", r"\ud83d", r"\uDE00",
            "\u{7f}",
        ];
        for one in parts {
            for two in parts {
                for three in parts {
                    let json = format!("\"{one}{two}{three}\"");
                    assert_eq!(
                        unescaped(&json).as_deref(),
                        serde_json::from_str::<String>(&json).ok().as_deref(),
                        "{json}"
                    );
                }
            }
        }
        for json in ["null", "7", "{}", "[\"a\"]", "\""] {
            assert_eq!(unescaped(json), None, "{json}");
        }
    }
}
