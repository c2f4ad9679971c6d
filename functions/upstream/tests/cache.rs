//! The cache of an upstream with many URLs: what a request varies with, what a change of state removes, and who may have
//! what is stored.

use std::sync::atomic::{AtomicUsize, Ordering};

use handler::http::{Method, StatusCode, header::AGE};
use testbed::upstream::{Answer, Behaviour, Upstream as Server};
use upstream::{Request, Upstream};

/// An upstream, and its server, each of whose answers has another number for a body and these headers.
fn start(headers: &[(&str, &str)]) -> (Upstream, Server) {
    let server = Server::start();
    let answer = headers.iter().fold(Answer::ok(""), |answer, (name, value)| answer.header(name, *value));
    let number = AtomicUsize::new(1);
    server.always(Behaviour::decide(move |request| {
        // One with a condition gets a 304 if the answer has the same validator.
        let is_new = request.header("if-none-match").is_none();
        answer.clone().body(number.fetch_add(usize::from(is_new), Ordering::Relaxed).to_string()).into()
    }));
    let url = server.url("/base");
    (Upstream::new("TESTED").with_settings(|name| (name == "TESTED_URL").then(|| url.clone())), server)
}

async fn body(request: Request<'_>) -> String {
    request
        .send()
        .await
        .map_or_else(|error| error.to_string(), |response| String::from_utf8_lossy(response.body()).into())
}

#[tokio::test]
async fn each_url_has_its_own_response() {
    let (upstream, server) = start(&[("cache-control", "max-age=60")]);
    for _ in 0..2 {
        assert_eq!(body(upstream.get("", [])).await, "1");
        assert_eq!(body(upstream.get("/{}", ["a"])).await, "2");
        assert_eq!(body(upstream.get("/{}", ["b"])).await, "3");
        assert_eq!(body(upstream.get("/{}", ["b"]).query("n", 1)).await, "4");
    }
    assert_eq!(server.calls(), 4);
    let (other, _server) = start(&[("cache-control", "max-age=60")]);
    assert_eq!(body(other.get("", [])).await, "1", "of another upstream");
}

#[tokio::test]
async fn a_response_is_for_requests_that_agree_in_what_it_varies_with() {
    let (upstream, server) = start(&[("cache-control", "max-age=60"), ("vary", "Accept-Language, X-Tenant")]);
    let get = |language: &str, tenant: &str| {
        upstream.get("", []).header("accept-language", language).header("x-tenant", tenant).header("x-other", language)
    };
    for (language, tenant, expected) in [
        ("en", "a", "1"),
        ("de", "a", "2"),
        ("en", "b", "3"),
        ("en", "a", "1"),
        ("de", "a", "2"),
        ("en", "b", "3"),
        ("EN", "a", "4"),
    ] {
        assert_eq!(body(get(language, tenant)).await, expected, "{language} {tenant}");
    }
    assert_eq!(body(upstream.get("", [])).await, "5", "without the headers");
    assert_eq!(body(upstream.get("", [])).await, "5", "without the headers, again");
    assert_eq!(server.calls(), 5);
}

#[tokio::test]
async fn what_a_request_may_have_changed_is_asked_for_again() {
    for (method, is_changed) in [
        (Method::POST, true),
        (Method::PUT, true),
        (Method::PATCH, true),
        (Method::DELETE, true),
        (Method::from_bytes(b"PURGE").unwrap(), true),
        (Method::OPTIONS, false),
        (Method::HEAD, false),
    ] {
        let (upstream, server) = start(&[("cache-control", "max-age=60")]);
        assert_eq!(body(upstream.get("/{}", ["a"])).await, "1");
        upstream.request(method.clone(), "/{}", ["a"]).send().await.unwrap();
        let calls = server.calls();
        body(upstream.get("/{}", ["a"])).await;
        assert_eq!(server.calls() - calls, usize::from(is_changed), "{method}");
    }
}

#[tokio::test]
async fn a_change_that_failed_removes_nothing_and_a_redirect_does() {
    for (status, is_changed) in [(400, false), (404, false), (500, false), (503, false), (201, true), (303, true)] {
        let server = Server::start();
        let url = server.url("/");
        let upstream = Upstream::new("TESTED").with_settings(|name| (name == "TESTED_URL").then(|| url.clone()));
        server
            .then(Answer::ok("old").cache_control("max-age=60"))
            .then(Answer::status(status))
            .always(Answer::ok("new"));
        body(upstream.get("", [])).await;
        let _outcome = upstream.post("", []).send().await;
        assert_eq!(body(upstream.get("", [])).await, if is_changed { "new" } else { "old" }, "{status}");
    }
}

#[tokio::test]
async fn what_a_change_names_is_asked_for_again_on_the_same_origin_alone() {
    for (name, value, is_changed) in [
        ("location", "/base/a", true),
        ("content-location", "a", true),
        ("location", "https://other.example/base/a", false),
        ("x-location", "/base/a", false),
    ] {
        let (upstream, server) = start(&[("cache-control", "max-age=60"), (name, value)]);
        body(upstream.get("/{}", ["a"])).await;
        upstream.post("/", []).send().await.unwrap();
        let calls = server.calls();
        body(upstream.get("/{}", ["a"])).await;
        assert_eq!(server.calls() - calls, usize::from(is_changed), "{name}: {value}");
    }
}

/// The call that is under way may have read what was there before the change.
#[tokio::test]
async fn a_request_after_a_change_waits_for_no_call_from_before() {
    let server = Server::start();
    let url = server.url("/");
    let upstream = Upstream::new("TESTED").with_settings(|name| match name {
        "TESTED_URL" => Some(url.clone()),
        "TESTED_TIMEOUT_MS" | "TESTED_ATTEMPT_TIMEOUT_MS" => Some("60000".to_owned()),
        _ => None,
    });
    server.then(Behaviour::Silent).then(Answer::status(204)).always(Answer::ok("new"));
    let after = async {
        server.calls_reached(1).await;
        upstream.put("", []).send().await.unwrap();
        body(upstream.get("", [])).await
    };
    tokio::select! {
        old = body(upstream.get("", [])) => panic!("the first one was answered: {old}"),
        new = after => assert_eq!(new, "new"),
    }
}

#[tokio::test]
async fn a_response_to_one_callers_token_is_nobody_elses() {
    for header in ["authorization", "cookie"] {
        for control in ["max-age=60", "public, max-age=60", "s-maxage=60"] {
            let (upstream, server) = start(&[("cache-control", control)]);
            let get = |token: &str| upstream.get("", []).header(header, token);
            assert_eq!(body(get("ada")).await, "1");
            assert_eq!(body(get("bob")).await, "2");
            assert_eq!(body(upstream.get("", [])).await, "3", "without a token");
            assert_eq!(body(get("ada")).await, "4", "nor is one without a token that of a caller");
            assert_eq!(server.calls(), 4);
        }
    }
    // Not at the same time either.
    let (upstream, server) = start(&[("cache-control", "max-age=60")]);
    let gets = ["ada", "bob", "ada"].map(|token| body(upstream.get("", []).header("authorization", token)));
    let mut bodies = futures_util::future::join_all(gets).await;
    bodies.sort();
    assert_eq!((bodies, server.calls()), (vec!["1".to_owned(), "2".to_owned(), "3".to_owned()], 3));
}

#[tokio::test]
async fn an_author_can_ask_for_less_of_the_cache() {
    let (upstream, server) = start(&[("cache-control", "max-age=60"), ("age", "30"), ("etag", "\"1\"")]);
    assert_eq!(body(upstream.get("", [])).await, "1");
    for (control, expected, calls) in [
        ("max-age=40", "1", 0),
        // It is validated.
        ("max-age=20", "1", 1),
        ("no-cache", "1", 1),
        ("no-store", "2", 1),
    ] {
        let before = server.calls();
        assert_eq!(body(upstream.get("", []).header("cache-control", control)).await, expected, "{control}");
        assert_eq!(server.calls() - before, calls, "{control}");
    }
    assert_eq!(body(upstream.get("", []).without_cache()).await, "3");
    assert_eq!(body(upstream.get("", [])).await, "1", "what was asked for without the cache is not stored");
}

#[tokio::test]
async fn a_response_to_get_answers_head() {
    let (upstream, server) = start(&[("cache-control", "max-age=60"), ("etag", "\"1\"")]);
    let head = upstream.head("", []).send().await.unwrap();
    assert_eq!((head.body(), server.calls()), (&b""[..], 1));
    body(upstream.get("", [])).await;
    assert_eq!(server.calls(), 2, "a response to HEAD has no body, so it can't answer GET");
    let head = upstream.head("", []).send().await.unwrap();
    assert_eq!((head.status(), head.body(), server.calls()), (StatusCode::OK, &b""[..], 2));
    assert!(head.is_from_cache() && head.headers()["etag"] == "\"1\"");
}

#[tokio::test]
async fn an_author_gets_the_headers_that_are_about_the_content() {
    let (upstream, _server) = start(&[
        ("cache-control", "max-age=60"),
        ("age", "30"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("link", "</a>; rel=\"next\""),
        ("link", "</b>; rel=\"last\""),
        ("x-total", "7"),
    ]);
    let response = upstream.get("", []).send().await.unwrap();
    let headers = response.headers();
    for name in ["connection", "x-hop", "keep-alive", "content-length", "transfer-encoding"] {
        assert!(!headers.contains_key(name), "{name}");
    }
    assert_eq!((headers.get_all("link").iter().count(), &headers["x-total"]), (2, &"7".parse().unwrap()));
    assert!(headers[AGE].to_str().unwrap().parse::<u64>().unwrap() >= 30);
}

/// The conditions are the cache's. What the endpoint's own caller has is judged when the response is passed on.
#[tokio::test]
async fn conditions_of_the_caller_do_not_reach_the_upstream() {
    let (upstream, server) = start(&[("cache-control", "max-age=60"), ("etag", "\"1\"")]);
    let get = || upstream.get("", []).header("if-none-match", "\"1\"");
    for _ in 0..2 {
        let response = get().send().await.unwrap();
        assert_eq!((response.status(), response.body()), (StatusCode::OK, &b"1"[..]));
        let mut request = handler::Request::default();
        request.headers_mut().insert("if-none-match", "\"1\"".parse().unwrap());
        assert_eq!(response.pass_on(&request).status(), StatusCode::NOT_MODIFIED);
    }
    assert_eq!(server.calls(), 1);
    assert_eq!(get().without_cache().send().await.unwrap_err().status(), Some(StatusCode::NOT_MODIFIED));
}

/// RFC 9111, section 3.2.
#[tokio::test]
async fn a_304_updates_the_headers_but_not_what_they_say_of_the_body() {
    let server = Server::start();
    let url = server.url("/");
    let upstream = Upstream::new("TESTED").with_settings(|name| (name == "TESTED_URL").then(|| url.clone()));
    let names = ["x-new", "link", "content-md5", "content-range", "content-digest"];
    let with = |answer: Answer, value: &str| names.iter().fold(answer, |answer, name| answer.header(name, value));
    let answer = |status, value| with(Answer::status(status).cache_control("max-age=0").etag("\"1\""), value);
    server.then(answer(200, "old").body("body")).then(answer(304, "new"));
    upstream.get("", []).send().await.unwrap();
    let headers = upstream.get("", []).send().await.unwrap().headers();
    assert_eq!(names.map(|name| headers[name].to_str().unwrap()), ["new", "new", "old", "old", "old"]);
}
