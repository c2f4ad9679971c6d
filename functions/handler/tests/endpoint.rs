//! Tests what an endpoint can do besides `GET`, through every trigger.

#![expect(clippy::expect_used, reason = "what a test relies on")]

use std::collections::BTreeMap;

use futures_util::FutureExt;
use handler::{Context, Endpoint, Problem, Request, http::StatusCode, json, parameters};
use serde_json::{Value, json};
use testbed::{Call, Function, HttpAnswer, Invocation, InvocationResult, TRIGGERS, Usage, example};

mod orders {
    //! `/shops/{shop}/orders`: an endpoint with a body, a path parameter, and a caller who must authenticate.

    use handler::{
        Problem, Request, Resource, Response, body, claim, get,
        http::{HeaderValue, StatusCode, header::LOCATION},
        json, parameters, path,
    };
    use serde::{Deserialize, Serialize};

    pub(crate) fn orders() -> Resource {
        get(list).post(create).at("/shops/{shop}/orders")
    }

    #[derive(Deserialize, Serialize)]
    #[serde(deny_unknown_fields)]
    struct NewOrder {
        sku: String,
        quantity: u8,
    }

    #[derive(Serialize)]
    struct Order<'a> {
        shop: &'a str,
        customer: String,
        #[serde(flatten)]
        what: NewOrder,
    }

    async fn create(request: Request) -> Result<Response, Problem> {
        // This is first, so that a caller without a token learns nothing about the order.
        let customer = claim(&request, "sub").ok_or_else(|| Problem::unauthorized("Bearer", "Orders need a token."))?;
        let what: NewOrder = body(&request, 16 * 1024)?;
        if what.quantity > 3 {
            let detail = format!("There are 3 of {} left.", what.sku);
            return Err(
                Problem::new("out-of-stock", "Out of stock", StatusCode::CONFLICT, detail).with_member("left", 3)
            );
        }
        let mut response = json(StatusCode::CREATED, &Order { shop: path(&request, "shop")?, customer, what })?;
        response.headers_mut().insert(LOCATION, HeaderValue::from_static("orders/1"));
        Ok(response)
    }

    #[derive(Deserialize, Serialize)]
    struct Page {
        #[serde(default)]
        offset: u32,
        limit: Option<u8>,
    }

    async fn list(request: Request) -> Result<Response, Problem> {
        let page: Page = parameters(&request)?;
        json(StatusCode::OK, &(path(&request, "shop")?, page))
    }
}

/// A `POST` of an order, by a known caller.
fn order(body: &str) -> Call {
    Call {
        route: "ANY /shops/{shop}/orders".into(),
        method: "POST".into(),
        path: "/shops/caf%C3%A9%20A%2FS/orders".into(),
        query: String::new(),
        headers: vec![("content-type".into(), "application/json".into())],
        cookies: Vec::new(),
        body: Some((body.into(), false)),
        claims: vec![("sub".into(), "ada".into())],
    }
}

/// The answer through each trigger: the status, the body, and the whole answer.
fn answers(endpoint: &impl Endpoint, call: &Call) -> BTreeMap<&'static str, (u16, String, HttpAnswer)> {
    let answer = |trigger| {
        let event = call.event(trigger, "orders").expect("a call that every trigger lets pass").to_string();
        let answer = handler::invoke(endpoint.clone(), event.as_bytes(), Context::default()).now_or_never();
        let answer = answer.expect("an endpoint that never waits").expect("an HTTP answer");
        let answer = HttpAnswer::read(&answer, ["rest-api", "alb-multi-value"].contains(&trigger)).expect(trigger);
        (trigger, (answer.status, answer.body.clone(), answer))
    };
    TRIGGERS.into_iter().map(answer).collect()
}

/// The status and the body. They must be the same through all triggers or, if there are claims, through those with an
/// authorizer.
fn answer(call: &Call) -> (u16, Value) {
    let mut answers = answers(&orders::orders(), call);
    if !call.claims.is_empty() {
        answers.retain(|trigger, (status, _, answer)| {
            let has_authorizer = ["http-api", "rest-api"].contains(trigger);
            assert!(has_authorizer || (*status, answer.header("www-authenticate")) == (401, "Bearer"), "{trigger}");
            has_authorizer
        });
    }
    let (status, body, _) = &answers["http-api"];
    assert!(answers.values().all(|answer| (answer.0, &answer.1) == (*status, body)), "{answers:?}");
    (*status, serde_json::from_str(body).unwrap_or_default())
}

#[test]
fn a_post_has_a_body_a_path_parameter_and_a_caller() {
    let call = order(r#"{"sku": "A-7", "quantity": 2}"#);
    let ordered = json!({ "shop": "café A/S", "customer": "ada", "sku": "A-7", "quantity": 2 });
    assert_eq!(answer(&call), (201, ordered.clone()));
    let in_base64 = Call { body: Some(("eyJza3UiOiAiQS03IiwgInF1YW50aXR5IjogMn0=".into(), true)), ..call };
    assert_eq!(answer(&in_base64), (201, ordered));
}

#[test]
fn all_faults_of_a_body_are_reported() {
    let (status, problem) = answer(&order(r#"{"sku": 7, "quantity": 300, "colour": "red"}"#));
    assert_eq!((status, &problem["type"]), (422, &json!("urn:problem-type:unprocessable-content")));
    let fault = |pointer, detail| json!({ "detail": detail, "pointer": pointer });
    let unknown = fault("#/colour", "is unknown; there is `sku` or `quantity`");
    let (sku, quantity) = ("must be a string", "must be an integer from 0 to 255");
    assert_eq!(problem["errors"], json!([fault("#/sku", sku), fault("#/quantity", quantity), unknown]));
}

#[test]
fn neither_bodies_nor_claims_are_logged() {
    for body in [r#"{"sku": "secret-7", "quantity": 2}"#, r#"{"sku": "secret-7", "quantity": "secret-8"}"#, "secret-9"]
    {
        let call = Call { claims: vec![("sub".into(), "secret-ada".into())], ..order(body) };
        let event = call.event("http-api", "orders").expect("an event").to_string();
        let observed = handler::observe(orders::orders(), event.as_bytes(), Context::default()).now_or_never();
        let (_, line) = observed.expect("an endpoint that never waits").expect("an HTTP answer");
        assert!(line.contains("/shops/{shop}/orders") && !line.contains("secret"), "{line}");
    }
}

#[test]
fn an_endpoint_can_return_its_own_problem() {
    let (status, problem) = answer(&order(r#"{"sku": "A-7", "quantity": 4}"#));
    assert_eq!((status, &problem["type"], &problem["left"]), (409, &json!("urn:problem-type:out-of-stock"), &json!(3)));
}

#[test]
fn methods_and_paths_follow_from_what_is_declared() {
    let call = Call { claims: Vec::new(), body: None, headers: Vec::new(), ..order("") };
    let with = |method: &str, path: &str, query: &str| Call {
        method: method.into(),
        path: path.into(),
        query: query.into(),
        ..call.clone()
    };
    let orders = "/shops/b%252Fc/orders";
    assert_eq!(
        answer(&with("GET", orders, "limit=20&limit=30&other")),
        (200, json!(["b%2Fc", { "offset": 0, "limit": 30 }]))
    );
    let (status, problem) = answer(&with("GET", orders, "limit=300&offset=-1"));
    assert_eq!((status, &problem["detail"]), (400, &json!("`limit` must be an integer from 0 to 255.")));
    let errors = json!([
        { "parameter": "limit", "detail": "must be an integer from 0 to 255" },
        { "parameter": "offset", "detail": "must be an integer from 0 to 4294967295" },
    ]);
    assert_eq!(problem["errors"], errors);
    for (method, status, allow) in
        [("HEAD", 200, ""), ("OPTIONS", 204, "GET, HEAD, OPTIONS, POST"), ("PUT", 405, "GET, HEAD, OPTIONS, POST")]
    {
        for (trigger, (actual, _, answer)) in answers(&orders::orders(), &with(method, orders, "")) {
            assert_eq!((actual, answer.header("allow")), (status, allow), "{method} through {trigger}");
        }
    }
    assert_eq!(answer(&with("GET", "/shops/%ff/orders", "")).0, 400);
    assert_eq!(answer(&with("GET", "/shops/%00/orders", "")).0, 400);
    // API Gateway sends it such a path only if it is configured to send all paths.
    for path in ["/", "/shops", "/shops//orders", "/shops/a/b/orders", "/shops/a/orders/", "/Shops/a/orders"] {
        let call = Call { route: "ANY /{proxy+}".into(), ..with("GET", path, "") };
        let (status, problem) = answer(&call);
        assert_eq!((status, &problem["type"]), (404, &json!("urn:problem-type:not-found")), "{path}");
    }
}

#[test]
fn the_rest_of_a_path_can_be_a_parameter() {
    async fn file(request: Request) -> Result<handler::Response, Problem> {
        json(StatusCode::OK, &handler::path(&request, "name")?)
    }
    let call = Call { route: "ANY /{proxy+}".into(), method: "GET".into(), path: "/files/a/b%20c".into(), ..order("") };
    for (trigger, (_, body, _)) in answers(&handler::get(file).at("/files/{name+}"), &call) {
        assert_eq!(body, r#""a/b c""#, "{trigger}");
    }
}

/// The answer to an event of any kind.
fn invoke(endpoint: impl Endpoint, event: &Value) -> Value {
    let answer = handler::invoke(endpoint, event.to_string().as_bytes(), Context::default()).now_or_never();
    let answer = answer.expect("an endpoint that never waits").expect("an HTTP answer");
    serde_json::from_str(&answer).expect("JSON")
}

#[test]
fn a_path_begins_where_its_route_does() {
    async fn shop(request: Request) -> Result<handler::Response, Problem> {
        json(StatusCode::OK, &(request.uri().path(), handler::path(&request, "shop")?))
    }
    let shops = || handler::get(shop).at("/shops/{shop}");
    let own = "a1b2c3d4e5.execute-api.us-east-1.amazonaws.com";
    let v2 = |domain: &str, stage: &str, route: &str, path: &str, parameters: Value| {
        let http = json!({ "method": "GET", "path": path });
        json!({ "version": "2.0", "routeKey": route, "rawPath": path, "pathParameters": parameters,
            "requestContext": { "apiId": "a1b2c3d4e5", "domainName": domain, "stage": stage, "http": http } })
    };
    let v1 = |domain: &str, stage: &str, route: &str, path: &str, parameters: Value| {
        json!({ "resource": route, "path": path, "httpMethod": "GET", "pathParameters": parameters,
            "requestContext": { "apiId": "a1b2c3d4e5", "domainName": domain, "stage": stage, "resourcePath": route } })
    };
    let with_version = |mut event: Value| {
        event["version"] = json!("1.0");
        event
    };
    let (own_shop, proxy) = (json!({ "shop": "a" }), json!({ "proxy": "shops/a" }));
    // <https://github.com/aws-powertools/powertools-lambda-python/pull/579> has such events.
    for event in [
        // A REST API has the base path of a custom domain in the path, but not in the parameters.
        v1("api.example.com", "prod", "/{proxy+}", "/base/shops/a", proxy.clone()),
        v1("api.example.com", "prod", "/{proxy+}", "/base/path/shops/a", proxy.clone()),
        v1("api.example.com", "prod", "/shops/{shop}", "/base/shops/a", own_shop.clone()),
        v1("api.example.com", "prod", "/shops/{proxy+}", "/shops/shops/a", json!({ "proxy": "a" })),
        // A mapping without a stage takes it from the path.
        v1("api.example.com", "prod", "/{proxy+}", "/base/prod/shops/a", proxy.clone()),
        v1(own, "prod", "/{proxy+}", "/shops/a", proxy.clone()),
        // An HTTP API has the stage in the path.
        with_version(v1(own, "prod", "/{proxy+}", "/prod/shops/a", proxy.clone())),
        with_version(v1(own, "prod", "$default", "/prod/shops/a", Value::Null)),
        v2(own, "prod", "ANY /{proxy+}", "/prod/shops/a", proxy.clone()),
        v2(own, "prod", "GET /shops/{shop}", "/prod/shops/a", own_shop.clone()),
        v2(own, "prod", "$default", "/prod/shops/a", Value::Null),
        v2("api.example.com", "prod", "ANY /{proxy+}", "/prod/shops/a", proxy.clone()),
        v2("api.example.com", "prod", "ANY /{proxy+}", "/base/shops/a", proxy.clone()),
        // The stage can have the name of a segment.
        v2(own, "shops", "$default", "/shops/shops/a", Value::Null),
        v2(own, "shops", "ANY /{proxy+}", "/shops/shops/a", proxy.clone()),
        v2("api.example.com", "shops", "ANY /{proxy+}", "/shops/a", proxy.clone()),
        v2("api.example.com", "shops", "ANY /shops/{shop}", "/shops/a", own_shop.clone()),
        v2("api.example.com", "shops", "$default", "/shops/a", Value::Null),
        v2("api.example.com", "$default", "$default", "/shops/a", Value::Null),
    ] {
        assert_eq!(invoke(shops(), &event)["body"], r#"["/shops/a","a"]"#, "{event}");
    }
    // Behind a custom domain, the default route does not tell whose the first segment is.
    let event = v2("api.example.com", "prod", "$default", "/prod/shops/a", Value::Null);
    assert_eq!(invoke(shops(), &event)["body"], r#"["/prod/shops/a","a"]"#);
    // A decoded parameter can hold slashes.
    let event = v2("api.example.com", "prod", "ANY /shops/{shop}", "/base/shops/a/b", json!({ "shop": "a/b" }));
    assert_eq!(invoke(shops(), &event)["body"], r#"["/shops/a/b","a/b"]"#);
    for (path, base) in [("/", ""), ("/base", ""), ("/base/", "/"), ("/base//", "//")] {
        let root = invoke(
            |request: Request| async move { json(StatusCode::OK, &request.uri().path()) },
            &v1("api.example.com", "prod", "/", path, Value::Null),
        );
        assert_eq!(root["body"], json!(if base.is_empty() { "/" } else { base }).to_string(), "{path}");
    }
    // Nobody else puts anything before the path.
    let mut call = Call { method: "GET".into(), body: None, path: "/base/shops/a".into(), ..order("") };
    call.route = "ANY /{proxy+}".into();
    for (trigger, (status, ..)) in answers(&shops(), &call) {
        assert_eq!(status, 404, "{trigger}");
    }
}

#[test]
fn a_route_with_a_parameter_of_the_same_name_is_not_the_resource() {
    async fn found(request: Request) -> Result<handler::Response, Problem> {
        json(StatusCode::OK, &["proxy", "id"].map(|name| handler::path(&request, name).ok().map(str::to_owned)))
    }
    for (at, route, path, parameters) in [
        ("/files/{proxy+}", "ANY /{proxy+}", "/files/a/b%20c", Some([Some("a/b c"), None])),
        ("/files/{proxy+}", "ANY /{proxy+}", "/other/a", None),
        ("/files/{proxy+}", "ANY /files/{proxy+}", "/files/a/b", Some([Some("a/b"), None])),
        ("/shops/{id}", "ANY /{id}/{proxy+}", "/shops/7", Some([None, Some("7")])),
        ("/shops/{id}", "ANY /{shops}/{id}", "/other/7", None),
        ("/shops/{id}", "ANY /{country}/shops/{id}", "/fr/shops/7", None),
        ("/health", "ANY /{proxy+}", "/health", Some([None, None])),
        ("/health", "ANY /{proxy+}", "/other", None),
        ("/health", "ANY /{proxy+}", "/other/health", None),
        ("/health", "ANY /{proxy+}", "/health/", None),
        ("/", "ANY /{proxy+}", "/other", None),
    ] {
        let call = Call {
            route: route.into(),
            method: "GET".into(),
            path: path.into(),
            body: None,
            claims: Vec::new(),
            ..order("")
        };
        for (trigger, (status, body, _)) in answers(&handler::get(found).at(at), &call) {
            let expected = parameters.map_or(404, |_| 200);
            assert_eq!(status, expected, "{at} behind {route}, {path} through {trigger}");
            if let Some(parameters) = parameters {
                assert_eq!(body, json!(parameters).to_string(), "{at} behind {route}, {path} through {trigger}");
            }
        }
    }
}

#[test]
fn events_without_a_caller_are_requests() {
    async fn shop(request: Request) -> Result<handler::Response, Problem> {
        json(StatusCode::OK, &(request.uri().to_string(), handler::claim(&request, "sub")))
    }
    let health_check = json!({ "requestContext": { "elb": { "targetGroupArn": "arn" } }, "httpMethod": "GET", "path": "/",
        "queryStringParameters": {}, "headers": { "user-agent": "ELB-HealthChecker/2.0" }, "body": "", "isBase64Encoded": false });
    assert_eq!(invoke(shop, &health_check)["body"], r#"["/",null]"#);
    // API Gateway's console, and `aws apigateway test-invoke-method`.
    let tested = json!({ "resource": "/{proxy+}", "path": "/a", "httpMethod": "GET", "headers": null, "multiValueHeaders": null,
        "queryStringParameters": null, "multiValueQueryStringParameters": null, "pathParameters": { "proxy": "a" },
        "stageVariables": null, "body": null, "isBase64Encoded": false, "requestContext": { "apiId": "a1b2c3d4e5",
        "path": "/a", "resourcePath": "/{proxy+}", "stage": "test-invoke-stage", "domainName": "testPrefix.testDomainName",
        "identity": { "sourceIp": "test-invoke-source-ip", "userArn": "arn:aws:iam::123456789012:user/ada" } } });
    assert_eq!(invoke(shop, &tested)["body"], r#"["https://testPrefix.testDomainName/a",null]"#);
}

#[test]
fn every_authorizer_tells_who_the_caller_is() {
    async fn claims(request: Request) -> Result<handler::Response, Problem> {
        json(StatusCode::OK, &["sub", "level", "none"].map(|name| handler::claim(&request, name)))
    }
    let events = |authorizer: Value| {
        let v2 = json!({ "rawPath": "/", "requestContext": { "http": { "method": "GET" }, "authorizer": authorizer } });
        let v1 = json!({ "resource": "/", "path": "/", "httpMethod": "GET", "requestContext": { "authorizer": authorizer } });
        [v2, v1]
    };
    for authorizer in [
        json!({ "jwt": { "claims": { "sub": "ada", "level": "7", "none": null } } }),
        json!({ "lambda": { "sub": "ada", "level": 7 } }),
        json!({ "iam": { "sub": "ada", "level": 7 } }),
        json!({ "claims": { "sub": "ada", "level": "7" } }),
        json!({ "principalId": "user", "sub": "ada", "level": "7" }),
    ] {
        for event in events(authorizer.clone()) {
            let answer = handler::invoke(claims, event.to_string().as_bytes(), Context::default()).now_or_never();
            let answer = answer.expect("an endpoint that never waits").expect("an HTTP answer");
            let answer: Value = serde_json::from_str(&answer).unwrap();
            assert_eq!(answer["body"], r#"["ada","7",null]"#, "{event}");
        }
    }
}

#[test]
fn the_scopes_of_a_token_are_beside_its_claims() {
    async fn scopes(request: Request) -> Result<handler::Response, Problem> {
        json(StatusCode::OK, &["scope", "scopes"].map(|name| handler::claim(&request, name)))
    }
    let jwt = json!({ "claims": { "scope": "read write" }, "scopes": ["read"] });
    let v2 = json!({ "rawPath": "/", "requestContext": { "http": { "method": "GET" }, "authorizer": { "jwt": jwt } } });
    let v1 = json!({ "resource": "/", "path": "/", "httpMethod": "GET", "requestContext": { "authorizer": jwt } });
    for event in [v1, v2] {
        assert_eq!(invoke(scopes, &event)["body"], json!(["read write", r#"["read"]"#]).to_string(), "{event}");
    }
}

#[test]
fn iam_tells_who_the_caller_is_through_every_trigger_that_has_it() {
    async fn claims(request: Request) -> Result<handler::Response, Problem> {
        let names = ["userArn", "principal", "accountId", "sourceIp", "userAgent", "apiKey", "clientCert"];
        json(StatusCode::OK, &names.map(|name| handler::claim(&request, name)))
    }
    let call = Call { claims: Vec::new(), body: None, method: "GET".into(), ..order("") };
    let event = |trigger: &str| call.event(trigger, "orders").expect("an event");
    let arn = "arn:aws:iam::123456789012:user/ada";
    for trigger in ["http-api", "function-url"] {
        let mut event = event(trigger);
        event["requestContext"]["authorizer"] = json!({ "iam": { "userArn": arn, "accountId": "7" } });
        assert_eq!(
            invoke(claims, &event)["body"],
            json!([arn, null, "7", null, null, null, null]).to_string(),
            "{event}"
        );
    }
    let (mut rest, mut lattice) = (event("rest-api"), event("vpc-lattice"));
    assert_eq!(invoke(claims, &rest)["body"], json!([null, null, null, null, null, null, null]).to_string(), "{rest}");
    let identity = &mut rest["requestContext"]["identity"];
    identity["userArn"] = json!(arn);
    identity["accountId"] = json!("7");
    // These are not who the caller is.
    identity["userAgent"] = json!("curl");
    identity["apiKey"] = json!("secret");
    identity["clientCert"] = json!({ "subjectDN": "CN=ada" });
    assert_eq!(invoke(claims, &rest)["body"], json!([arn, null, "7", null, null, null, null]).to_string(), "{rest}");
    let identity = &mut lattice["requestContext"]["identity"];
    identity["type"] = json!("AWS_IAM");
    identity["principal"] = json!(arn);
    assert_eq!(
        invoke(claims, &lattice)["body"],
        json!([null, arn, null, null, null, null, null]).to_string(),
        "{lattice}"
    );
}

#[test]
fn a_certificate_tells_who_the_caller_is() {
    async fn certificate(request: Request) -> Result<handler::Response, Problem> {
        let certificate = handler::client_certificate(&request);
        json(StatusCode::OK, &certificate.map(|it| [it.pem, it.subject, it.issuer, it.serial_number]))
    }
    let call = Call { claims: Vec::new(), body: None, method: "GET".into(), ..order("") };
    let sent = json!({ "clientCertPem": "-----BEGIN CERTIFICATE-----", "subjectDN": "CN=Ada", "issuerDN": "CN=CA",
        "serialNumber": "a1:b2", "validity": { "notBefore": "May 28 12:30:02 2019 GMT", "notAfter": "Aug  5 09:36:04 2041 GMT" } });
    for trigger in TRIGGERS {
        let mut event = call.event(trigger, "orders").expect("an event");
        assert_eq!(invoke(certificate, &event)["body"], "null", "{event}");
        match trigger {
            "http-api" => event["requestContext"]["authentication"] = json!({ "clientCert": sent }),
            "rest-api" => event["requestContext"]["identity"]["clientCert"] = sent.clone(),
            _ => continue,
        }
        let read = json!(["-----BEGIN CERTIFICATE-----", "CN=Ada", "CN=CA", "a1:b2"]).to_string();
        assert_eq!(invoke(certificate, &event)["body"], read, "{event}");
    }
}

#[test]
fn only_a_rest_api_takes_no_binary_body_unasked() {
    async fn takes_binary(request: Request) -> Result<handler::Response, Problem> {
        json(StatusCode::OK, &handler::takes_binary(&request))
    }
    let call = Call {
        claims: Vec::new(),
        body: None,
        method: "GET".into(),
        route: "ANY /".into(),
        path: "/".into(),
        ..order("")
    };
    for trigger in TRIGGERS {
        let mut event = call.event(trigger, "orders").expect("an event");
        assert_eq!(invoke(takes_binary, &event)["body"], json!(trigger != "rest-api").to_string(), "{event}");
        // The same payload, but an HTTP API's.
        event["version"] = json!("1.0");
        assert_eq!(invoke(takes_binary, &event)["body"], "true", "{event}");
    }
}

#[test]
fn parameters_are_parsed_into_a_type() {
    #[derive(serde::Deserialize, serde::Serialize)]
    struct Search {
        text: String,
        sort: Option<Sort>,
        #[serde(default)]
        deep: bool,
        near: Option<f32>,
    }
    #[derive(serde::Deserialize, serde::Serialize)]
    #[serde(rename_all = "kebab-case")]
    enum Sort {
        ByDate,
        ByName,
    }
    let read = |query: &str| {
        let mut request = Request::default();
        *request.uri_mut() = format!("/?{query}").parse().unwrap();
        parameters::<Search>(&request)
            .map(|search| serde_json::to_value(search).unwrap())
            .map_err(|problem| problem.to_string())
    };
    let refused = |detail: &str| Err(format!("invalid-parameter: {detail}"));
    let found = json!({ "text": "7", "sort": "by-name", "deep": true, "near": 0.5 });
    assert_eq!(read("text=7&sort=by-name&deep=true&near=0.5&unread=%00"), Ok(found));
    assert_eq!(read("text=a&sort="), Ok(json!({ "text": "a", "sort": null, "deep": false, "near": null })));
    for (query, detail) in [
        ("", "`text` is missing."),
        ("text=", "`text` is missing."),
        ("text=%00", "`text` must not contain control characters."),
        ("text=%ff", "`text` is not valid UTF-8."),
        ("text=a&sort=by-size", "`sort` must be `by-date` or `by-name`."),
        ("text=a&deep=yes", "`deep` must be true or false."),
        ("text=a&near=NaN", "`near` must be a number."),
    ] {
        assert_eq!(read(query), refused(detail), "{query}");
    }
}

#[test]
fn a_missing_parameter_without_a_placeholder_may_hide_others() {
    #[derive(Debug, serde::Deserialize)]
    #[expect(dead_code, reason = "it is never made")]
    struct Source {
        ip: std::net::IpAddr,
    }
    let problem = parameters::<Source>(&Request::default()).unwrap_err();
    assert_eq!(problem.detail(), "`ip` is missing. There may be other faults.");
}

/// An endpoint that answers with `name` and its parameter.
fn named(name: &'static str) -> impl Endpoint + Sync {
    move |request| async move { json(StatusCode::OK, &(name, handler::path(&request, "id").ok())) }
}

/// A call through API Gateway's route for all paths.
fn through_proxy(method: &str, path: &str) -> Call {
    let (method, path) = (method.into(), path.into());
    Call { route: "ANY /{proxy+}".into(), method, path, body: None, claims: Vec::new(), ..order("") }
}

#[test]
fn one_function_can_have_several_routes() {
    let parcels = || {
        handler::routes([
            handler::get(named("all")).post(named("new")).at("/parcels"),
            handler::get(named("one")).delete(named("gone")).at("/parcels/{id}"),
            handler::get(named("count")).at("/parcels/count"),
        ])
    };
    for (method, path, expected) in [
        ("GET", "/parcels", Ok(json!(["all", null]))),
        ("POST", "/parcels", Ok(json!(["new", null]))),
        ("GET", "/parcels/a%20b", Ok(json!(["one", "a b"]))),
        ("DELETE", "/parcels/7", Ok(json!(["gone", "7"]))),
        ("GET", "/parcels/count", Ok(json!(["count", null]))),
        ("OPTIONS", "/parcels", Err((204, "GET, HEAD, OPTIONS, POST"))),
        ("OPTIONS", "/parcels/7", Err((204, "DELETE, GET, HEAD, OPTIONS"))),
        ("DELETE", "/parcels", Err((405, "GET, HEAD, OPTIONS, POST"))),
        ("POST", "/parcels/7", Err((405, "DELETE, GET, HEAD, OPTIONS"))),
        ("GET", "/parcels/7/8", Err((404, ""))),
        ("OPTIONS", "/", Err((404, ""))),
    ] {
        for (trigger, (status, body, answer)) in answers(&parcels(), &through_proxy(method, path)) {
            match &expected {
                Ok(json) => {
                    assert_eq!((status, body), (200, json.to_string()), "{method} {path} through {trigger}");
                }
                Err(expected) => {
                    assert_eq!((status, answer.header("allow")), *expected, "{method} {path} through {trigger}");
                }
            }
        }
    }
    // API Gateway sends the parameters of its own route.
    let call = Call { route: "ANY /parcels/{id}".into(), ..through_proxy("GET", "/parcels/7") };
    for (trigger, (_, body, _)) in answers(&parcels(), &call) {
        assert_eq!(body, json!(["one", "7"]).to_string(), "{trigger}");
    }
}

#[test]
#[should_panic(expected = "give it one with `.at")]
fn a_resource_among_several_needs_a_path() {
    let _ = handler::routes([handler::get(named("all"))]);
}

#[test]
#[should_panic(expected = "/{b} is not a valid path")]
fn resources_cannot_have_the_same_path() {
    let at = |path| handler::get(named("one")).at(path);
    let _ = handler::routes([at("/{a}"), at("/{b}")]);
}

#[test]
fn the_logged_route_is_the_resources_if_the_triggers_is_for_all_paths() {
    let parcels = handler::routes([handler::get(named("one")).at("/parcels/{id}")]);
    let logged = |call: &Call, trigger: &str| {
        let event = call.event(trigger, "parcels").expect("an event").to_string();
        let observed = handler::observe(parcels.clone(), event.as_bytes(), Context::default()).now_or_never();
        let (_, line) = observed.expect("an endpoint that never waits").expect("an HTTP answer");
        serde_json::from_str::<Value>(&line).expect("JSON")["route"].clone()
    };
    for trigger in TRIGGERS {
        let call = through_proxy("GET", "/parcels/7");
        assert_eq!(logged(&call, trigger), "/parcels/{id}", "{trigger}");
        let general = match trigger {
            "http-api" => json!("ANY /{proxy+}"),
            "function-url" => json!("$default"),
            "rest-api" => json!("/{proxy+}"),
            _ => Value::Null,
        };
        assert_eq!(logged(&Call { path: "/other".into(), ..call.clone() }, trigger), general, "{trigger}");
        let own = match trigger {
            "http-api" => "ANY /parcels/{id}",
            _ => "/parcels/{id}",
        };
        assert_eq!(logged(&Call { route: "ANY /parcels/{id}".into(), ..call }, trigger), own, "{trigger}");
    }
}

/// Each time: glibc reuses what it has freed, or not.
#[tokio::test]
async fn a_large_body_that_is_sent_back_takes_at_most_two_and_a_half_times_the_memory_of_its_event() {
    let text = "0123456789abcdef".repeat(4 << 16);
    let escaped = "\"name\":\"Ada\",\n".repeat(4 << 16);
    for (body, is_binary) in [(&text, false), (&escaped, false), (&text, true)] {
        let call = Call { claims: Vec::new(), body: Some((body.clone(), is_binary)), ..order("") };
        let invocation = Invocation::new(call.event("http-api", "orders").expect("an event").to_string());
        let mut function = Function::start(&example("probe"), &[]).await;
        function.polled(1).await;
        let before = Usage::of(function.id()).resident;
        for number in 1..=4 {
            let answer = function.invoke(&invocation).await;
            let InvocationResult::Response(answer) = answer else { panic!("{answer:?}") };
            assert!(answer.len() > body.len() && answer.contains("\"statusCode\":200"));
            let (most, peak) = (invocation.payload.len() * 5 / 2, Usage::of(function.id()).peak - before);
            println!("{number}: {peak} bytes for an event of {}", invocation.payload.len());
            assert!(peak <= most as u64, "{peak} bytes at invocation {number}, and at most {most}: {}", &body[..20]);
        }
    }
}
