//! A request, and the event that each trigger makes from it, as AWS documents events and as real ones look.

use std::{collections::BTreeMap, fs, iter};

use base64::{Engine, prelude::BASE64_STANDARD};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::root;

/// A request as its caller sends it, and as the gateway routes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The route of an HTTP API that it matches, such as `ANY /shops/{shop}`.
    pub route: String,
    /// The method.
    pub method: String,
    /// The path, percent-encoded where necessary.
    pub path: String,
    /// The query string, without its question mark.
    pub query: String,
    /// The headers, with names in lower case. Triggers add `host`, `x-forwarded-for` and the like.
    pub headers: Vec<(String, String)>,
    /// The cookies.
    pub cookies: Vec<String>,
    /// The body, and whether it is in base64.
    pub body: Option<(String, bool)>,
    /// The claims in the caller's token, which only API Gateway's authorizers read.
    pub claims: Vec<(String, String)>,
}

/// A request as one writes it by hand: in a case, or for the example `invoke`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    #[serde(default = "get")]
    method: String,
    /// With the query, if there is one.
    path: String,
    /// Besides those that curl sends. `null`: this one is not sent.
    #[serde(default)]
    headers: BTreeMap<String, Option<String>>,
    #[serde(default)]
    cookies: Vec<String>,
    /// Those of the caller's token.
    #[serde(default)]
    claims: BTreeMap<String, String>,
    /// A text, or anything else as JSON.
    body: Option<Value>,
    /// Bytes, instead of `body`.
    body_base64: Option<String>,
}

fn get() -> String {
    "GET".into()
}

impl Request {
    /// The request, and the route of `function` that it matches.
    pub fn call(self, function: &str) -> Call {
        let headers =
            [("accept", "*/*"), ("user-agent", "curl/8.11.0")].map(|(name, value)| (name.into(), Some(value.into())));
        let mut headers = BTreeMap::from(headers);
        let body = match (self.body, self.body_base64) {
            (Some(Value::String(text)), _) => Some((text, false)),
            (Some(json), _) => {
                headers.insert("content-type".into(), Some("application/json".into()));
                Some((json.to_string(), false))
            }
            (None, base64) => base64.map(|base64| (base64, true)),
        };
        headers.extend(self.headers);
        let mut call = Call::get(&self.path, &[]);
        if let Some(route) = routes(function).into_iter().find(|route| parameters(route, &call.path).is_some()) {
            call.route = format!("ANY {route}");
        }
        Call {
            method: self.method,
            headers: headers.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
            cookies: self.cookies,
            claims: self.claims.into_iter().collect(),
            body,
            ..call
        }
    }
}

/// The routes of `function` in CargoLambda.toml or, without one, in Cargo.toml, as API Gateway writes them. Those with the
/// fewest parameters come first.
fn routes(function: &str) -> Vec<String> {
    let read = |file| fs::read_to_string(root().join(file));
    let settings = read("CargoLambda.toml").or_else(|_| read("Cargo.toml")).expect("the workspace's Cargo.toml");
    let lines = settings.lines().skip_while(|line| !line.ends_with("watch.router]"));
    let routes = lines.filter_map(|line| line.split_once(" = ")).filter(|(_, name)| name.trim_matches('"') == function);
    let mut routes: Vec<String> = routes.map(|(route, _)| gateways(route.trim_matches('"'))).collect();
    routes.sort_by_key(|route| route.matches('{').count());
    routes
}

/// `{*name}` of the local router is the gateway's `{name+}`.
fn gateways(route: &str) -> String {
    if route.contains("{*") { route.replace("{*", "{").replace('}', "+}") } else { route.into() }
}

/// The values of the route's parameters in the path, percent-encoded. `None` if the path is not of the route.
fn parameters(route: &str, path: &str) -> Option<Vec<(String, String)>> {
    let (mut found, mut values) = (Vec::new(), path.split('/'));
    for name in route.split('/') {
        let value = values.next()?;
        match name.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            Some(name) if let Some(name) = name.strip_suffix('+') => {
                let rest: Vec<&str> = iter::once(value).chain(values).collect();
                found.push((name.to_owned(), rest.join("/").trim_end_matches('/').to_owned()));
                return Some(found);
            }
            Some(name) if !value.is_empty() => found.push((name.to_owned(), value.to_owned())),
            None if name == value => {}
            _ => return None,
        }
    }
    values.next().is_none().then_some(found)
}

/// The triggers, with their names from the payloads in events/.
pub const TRIGGERS: [&str; 6] = ["http-api", "function-url", "rest-api", "alb", "alb-multi-value", "vpc-lattice"];

/// Those whose events have the cookies in a list of their own.
const HAS_COOKIES: [&str; 2] = ["http-api", "function-url"];

const TRACE_ID: &str = "Root=1-6b02c6db-5f3a9c1e7d2b4a6880c1e2f3";
const URL_ID: &str = "abcdefghijklmnopqrstuvwxyz012345";

/// The headers that a trigger adds. The first one is the `host` of the caller's request.
fn added(trigger: &str) -> Vec<(&'static str, &'static str)> {
    let (host, caller) = match trigger {
        "http-api" => ("api.example.com", "192.0.2.10"),
        "function-url" => ("abcdefghijklmnopqrstuvwxyz012345.lambda-url.us-east-1.on.aws", "2001:db8::10"),
        "rest-api" => ("f6g7h8i9j0.execute-api.us-east-1.amazonaws.com", "192.0.2.10"),
        "vpc-lattice" => return vec![("host", "service.example.com"), ("x-forwarded-for", "192.0.2.10")],
        _ => ("www.example.com", "192.0.2.10"),
    };
    let mut added = vec![("host", host), ("x-forwarded-for", caller), ("x-amzn-trace-id", TRACE_ID)];
    added.extend([("x-forwarded-port", "443"), ("x-forwarded-proto", "https")]);
    if trigger == "function-url" {
        added.extend([("x-amzn-tls-cipher-suite", "TLS_AES_128_GCM_SHA256"), ("x-amzn-tls-version", "TLSv1.3")]);
    }
    added
}

impl Call {
    /// A `GET` request for `path`, which may have a query, with `headers`. Its route is the path.
    pub fn get(path: &str, headers: &[(&str, &str)]) -> Self {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        Self {
            route: format!("ANY {path}"),
            method: "GET".into(),
            path: path.into(),
            query: query.into(),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            cookies: Vec::new(),
            body: None,
            claims: Vec::new(),
        }
    }

    /// The event that `trigger` sends to `function`. `None` if the trigger does not let such a call pass: a REST API, a
    /// load balancer and VPC Lattice send a query as its parameters, so it must not contain control characters or
    /// spaces. A REST API also decodes the parameters, so they must be UTF-8.
    pub fn event(&self, trigger: &str, function: &str) -> Option<Value> {
        let is_whole = !self.query.contains(|c: char| c.is_ascii_control() || c.is_whitespace());
        let is_utf_8 = percent_decode_str(&self.query).decode_utf8().is_ok();
        Some(match trigger {
            "http-api" | "function-url" => self.version_2(trigger),
            _ if !is_whole || trigger == "rest-api" && !is_utf_8 => return None,
            "rest-api" => self.version_1(),
            "alb" => self.load_balancer(function, false),
            "alb-multi-value" => self.load_balancer(function, true),
            "vpc-lattice" => self.lattice(),
            _ => panic!("{trigger} is not one of {TRIGGERS:?}"),
        })
    }

    /// The headers, those that the trigger adds, and the cookies in one header if it has no other place for them: sorted by name.
    /// Headers with the same name keep their order.
    fn headers(&self, trigger: &str) -> Vec<(String, String)> {
        let mut headers = self.headers.clone();
        // As the caller's client adds it.
        let length = self.body.as_ref().map(|(body, is_base64)| {
            let bytes = if *is_base64 { BASE64_STANDARD.decode(body).ok() } else { None };
            ("content-length", bytes.map_or(body.len(), |bytes| bytes.len()).to_string())
        });
        let added = added(trigger).into_iter().map(|(name, value)| (name, value.to_owned()));
        for (name, value) in added.chain(length) {
            if !headers.iter().any(|(own, _)| own == name) {
                headers.push((name.to_owned(), value));
            }
        }
        if !self.cookies.is_empty() && !HAS_COOKIES.contains(&trigger) {
            headers.push(("cookie".into(), self.cookies.join("; ")));
        }
        headers.sort_by(|(a, _), (b, _)| a.cmp(b));
        headers
    }

    fn parameters(&self) -> Vec<(String, String)> {
        let pairs = self.query.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn decoded_parameters(&self) -> Vec<(String, String)> {
        let decoded = |text: &str| decode(&text.replace('+', " "));
        self.parameters().iter().map(|(name, value)| (decoded(name), decoded(value))).collect()
    }

    /// The route without its method.
    fn resource(&self) -> &str {
        self.route.split_once(' ').map_or("/", |(_, path)| path)
    }

    fn path_parameters(&self) -> Vec<(String, String)> {
        parameters(self.resource(), &self.path).unwrap_or_default()
    }

    fn user_agent(&self) -> Option<&String> {
        self.headers.iter().find(|(name, _)| name == "user-agent").map(|(_, value)| value)
    }

    fn version_2(&self, trigger: &str) -> Value {
        let url = trigger == "function-url";
        let route = if url { "$default" } else { &self.route };
        let domain = added(trigger)[0].1;
        let path = if url { self.path.clone() } else { decode(&self.path) };
        let path_parameters = self.path_parameters().into_iter().map(|(name, value)| (name, decode(&value))).collect();
        let mut event = json!({
            "version": "2.0",
            "routeKey": route,
            "rawPath": path,
            "rawQueryString": self.query,
            "cookies": self.cookies,
            "headers": joined_values(self.headers(trigger)),
            "queryStringParameters": joined_values(self.decoded_parameters()),
            "requestContext": {
                "accountId": if url { "anonymous" } else { "123456789012" },
                "apiId": if url { URL_ID } else { "a1b2c3d4e5" },
                "domainName": domain,
                "domainPrefix": if url { URL_ID } else { "api" },
                "http": {
                    "method": self.method,
                    "path": path,
                    "protocol": "HTTP/1.1",
                    "sourceIp": if url { "2001:db8::10" } else { "192.0.2.10" },
                    "userAgent": self.user_agent(),
                },
                "requestId": if url { "5d1f6c52-9a3e-4c0b-8d27-3b1f0e6a7c94" } else { "JKJaXmPLvHcESHA=" },
                "routeKey": route,
                "stage": "$default",
                "time": "22/Nov/2026:10:41:31 +0000",
                "timeEpoch": 1_795_344_091_123_u64,
            },
            "pathParameters": last_values(if url { Vec::new() } else { path_parameters }),
        });
        if !url && !self.claims.is_empty() {
            let claims = last_values(self.claims.clone());
            event["requestContext"]["authorizer"] = json!({ "jwt": { "claims": claims, "scopes": null } });
        }
        let is_empty = |value: &Value| value == &json!([]) || value == &json!({});
        event.as_object_mut().expect("an object").retain(|_, value| !is_empty(value));
        self.with_body(event, None)
    }

    fn version_1(&self) -> Value {
        let mut headers = self.headers("rest-api");
        headers.retain(|(name, _)| name != "content-length");
        let headers: Vec<_> = headers.into_iter().map(|(name, value)| (title_case(&name), value)).collect();
        let parameters = self.decoded_parameters();
        let domain = added("rest-api")[0].1;
        let some = |value: Value| if parameters.is_empty() { Value::Null } else { value };
        let path_parameters = Some(self.path_parameters()).filter(|parameters| !parameters.is_empty());
        let mut event = json!({
            "resource": self.resource(),
            "path": self.path,
            "httpMethod": self.method,
            "headers": last_values(headers.clone()),
            "multiValueHeaders": lists(headers),
            "queryStringParameters": some(last_values(parameters.clone())),
            "multiValueQueryStringParameters": some(lists(parameters.clone())),
            "pathParameters": path_parameters.map(last_values),
            "stageVariables": null,
            "requestContext": {
                "resourceId": "k1l2m3",
                "resourcePath": self.resource(),
                "httpMethod": self.method,
                "extendedRequestId": "JKJbYnQMwIdFTIB=",
                "requestTime": "22/Nov/2026:10:41:31 +0000",
                "path": format!("/prod{}", self.path),
                "accountId": "123456789012",
                "protocol": "HTTP/1.1",
                "stage": "prod",
                "domainPrefix": domain.split('.').next(),
                "requestTimeEpoch": 1_795_344_091_123_u64,
                "requestId": "c6af9ac6-7b61-4e6a-9d3f-2f0c1b8e5a47",
                "identity": {
                    "cognitoIdentityPoolId": null,
                    "accountId": null,
                    "cognitoIdentityId": null,
                    "caller": null,
                    "sourceIp": "192.0.2.10",
                    "principalOrgId": null,
                    "accessKey": null,
                    "cognitoAuthenticationType": null,
                    "cognitoAuthenticationProvider": null,
                    "userArn": null,
                    "userAgent": self.user_agent(),
                    "user": null,
                },
                "domainName": domain,
                "deploymentId": "n4o5p6",
                "apiId": domain.split('.').next(),
            },
        });
        if !self.claims.is_empty() {
            event["requestContext"]["authorizer"] = json!({ "claims": last_values(self.claims.clone()) });
        }
        self.with_body(event, Some(Value::Null))
    }

    fn load_balancer(&self, function: &str, multi_value: bool) -> Value {
        let headers = self.headers("alb");
        let (parameters, arn) = (self.parameters(), "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup");
        let mut event = json!({
            "requestContext": { "elb": { "targetGroupArn": format!("{arn}/{function}/6d0ecf831eec9f09") } },
            "httpMethod": self.method,
            "path": self.path,
        });
        if multi_value {
            event["multiValueQueryStringParameters"] = lists(parameters);
            event["multiValueHeaders"] = lists(headers);
        } else {
            event["queryStringParameters"] = last_values(parameters);
            event["headers"] = last_values(headers);
        }
        self.with_body(event, Some("".into()))
    }

    fn lattice(&self) -> Value {
        let arn = |kind: &str| format!("arn:aws:vpc-lattice:us-east-1:123456789012:{kind}");
        let event = json!({
            "version": "2.0",
            "path": self.path,
            "method": self.method,
            "headers": lists(self.headers("vpc-lattice")),
            "queryStringParameters": lists(self.parameters()),
            "requestContext": {
                "serviceNetworkArn": arn("servicenetwork/sn-0bf3f2882e9cc805a"),
                "serviceArn": arn("service/svc-0a40eebed65f8d69c"),
                "targetGroupArn": arn("targetgroup/tg-6d0ecf831eec9f09"),
                "identity": { "sourceVpcArn": "arn:aws:ec2:us-east-1:123456789012:vpc/vpc-0b8276c84697e7339" },
                "region": "us-east-1",
                "timeEpoch": "1795344091123456",
            },
        });
        self.with_body(event, None)
    }

    /// The event with the body, or with `none`, which the trigger sends if there is no body.
    fn with_body(&self, mut event: Value, none: Option<Value>) -> Value {
        let body = self.body.as_ref().map(|(body, _)| body.clone().into());
        if let Some(body) = body.or(none) {
            event["body"] = body;
        }
        event["isBase64Encoded"] = self.body.as_ref().is_some_and(|(_, is_base64)| *is_base64).into();
        event
    }
}

fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn joined_values(pairs: Vec<(String, String)>) -> Value {
    let mut joined = Map::new();
    for (name, value) in pairs {
        match joined.get_mut(&name) {
            Some(Value::String(values)) => values.extend([",", &value]),
            _ => drop(joined.insert(name, value.into())),
        }
    }
    joined.into()
}

fn last_values(pairs: Vec<(String, String)>) -> Value {
    pairs.into_iter().map(|(name, value)| (name, value.into())).collect::<Map<_, _>>().into()
}

fn lists(pairs: Vec<(String, String)>) -> Value {
    let mut lists = Map::new();
    for (name, value) in pairs {
        if let Some(list) = lists.entry(name).or_insert_with(|| json!([])).as_array_mut() {
            list.push(value.into());
        }
    }
    lists.into()
}

/// A header's name as a REST API writes it.
fn title_case(name: &str) -> String {
    let words = name.split('-').map(|word| {
        let mut chars = word.chars();
        chars.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(chars).collect::<String>()
    });
    words.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_that_of_curl_unless_it_says_otherwise() {
        let call = |request: Value| serde_json::from_value::<Request>(request).expect("a request").call("any");
        let plain = call(json!({ "path": "/a?b=c" }));
        assert_eq!((&*plain.method, &*plain.path, &*plain.query, &*plain.route), ("GET", "/a", "b=c", "ANY /a"));
        let sent =
            |call: &Call| call.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>();
        assert_eq!(sent(&plain), ["accept: */*", "user-agent: curl/8.11.0"]);
        let json = call(json!({ "path": "/", "body": [1], "headers": { "accept": null, "user-agent": "me" } }));
        assert_eq!(
            (sent(&json), json.body),
            (vec!["content-type: application/json".into(), "user-agent: me".into()], Some(("[1]".into(), false)))
        );
        let text = call(json!({ "path": "/", "body": "[1]", "cookies": ["a=b"], "claims": { "sub": "ada" } }));
        assert_eq!((text.headers.len(), text.body), (2, Some(("[1]".into(), false))));
        assert_eq!((text.cookies, text.claims), (vec!["a=b".to_owned()], vec![("sub".to_owned(), "ada".to_owned())]));
        assert_eq!(call(json!({ "path": "/", "body_base64": "AA==" })).body, Some(("AA==".into(), true)));
        assert!(serde_json::from_value::<Request>(json!({ "path": "/", "querry": "" })).is_err());
    }

    #[test]
    fn the_length_of_a_body_is_known_but_behind_a_rest_api() {
        let lengths = |body: Option<(&str, bool)>, headers: &[(&str, &str)]| {
            let body = body.map(|(body, is_base64)| (body.to_owned(), is_base64));
            let call = Call { body, ..Call::get("/", headers) };
            TRIGGERS.map(|trigger| {
                let event = call.event(trigger, "").unwrap();
                let headers =
                    [&event["headers"], &event["multiValueHeaders"]].map(|headers| headers["content-length"].clone());
                headers.into_iter().find(|length| !length.is_null()).unwrap_or_default()
            })
        };
        let told =
            |length: &str| [json!(length), json!(length), Value::Null, json!(length), json!([length]), json!([length])];
        assert_eq!(lengths(Some(("é", false)), &[]), told("2"));
        assert_eq!(lengths(Some(("AA==", true)), &[]), told("1"));
        assert_eq!(lengths(Some(("é", false)), &[("content-length", "7")]), told("7"));
        assert_eq!(lengths(None, &[]), [const { Value::Null }; 6]);
    }

    #[test]
    fn a_request_has_the_route_that_it_matches() {
        for (route, matched, others) in [
            ("/a/{b}", "/a/1", ["/a/", "/a/1/2"]),
            (&*gateways("/a/{*b}"), "/a/1/2", ["/a", "/b/1"]),
            ("/a", "/a", ["/a/", "/"]),
        ] {
            let matches = |path| parameters(route, path).is_some();
            assert!(matches(matched) && !others.into_iter().any(matches), "{route}");
        }
    }
}
