//! Tests the example of docs/upstream.md with services that fail.

#![expect(clippy::expect_used, reason = "a test that cannot go on panics, and says why")]

use futures_util::future::join_all;
use testbed::{
    Function, HttpAnswer, Invocation, Usage, example,
    upstream::{Answer, Fault, Upstream},
};

/// Starts `quotes` with these services, and these settings of `PRICES`.
async fn start(prices: &Upstream, rates: &Upstream, attempt_timeout_ms: &str) -> Function {
    let (prices_url, rates_url) = (prices.url("/"), rates.url("/"));
    let ca_file = prices.ca_file().map(|file| file.to_string_lossy().into_owned());
    let settings = [
        ("PRICES_URL", prices_url.as_str()),
        ("PRICES_CA_FILE", ca_file.as_deref().unwrap_or_default()),
        ("PRICES_TIMEOUT_MS", "60000"),
        ("PRICES_ATTEMPT_TIMEOUT_MS", attempt_timeout_ms),
        ("RATES_URL", rates_url.as_str()),
    ];
    rates.always(Answer::ok(r#"{"dollars": 1.25}"#));
    Function::start(&example("quotes"), &settings).await
}

async fn get(quotes: &mut Function) -> HttpAnswer {
    HttpAnswer::try_from(quotes.invoke(&Invocation::get("/quotes/ACME", &[])).await).expect("an answer")
}

#[tokio::test]
async fn a_quote_comes_from_two_services() {
    let (prices, rates) = (Upstream::start(), Upstream::start());
    let mut quotes = start(&prices, &rates, "60000").await;
    prices.always(Answer::ok(r#"{"euros": 2}"#));
    assert_eq!(get(&mut quotes).await.body, r#"{"symbol":"ACME","dollars":2.5}"#);
    let sent: Vec<_> = [prices, rates].iter().flat_map(Upstream::requests).map(|call| call.target).collect();
    assert_eq!(sent, ["/v1/prices/ACME?currency=EUR", "/rates/EUR"]);
}

/// A part of a buffer keeps all of it.
#[tokio::test]
async fn a_stored_response_keeps_no_buffer_of_its_connection() {
    const URLS: u64 = 1000;
    let (prices, rates) = (Upstream::start(), Upstream::start());
    let mut quotes = start(&prices, &rates, "60000").await;
    prices.always(Answer::ok(r#"{"euros": 2}"#).cache_control("max-age=3600"));
    get(&mut quotes).await;
    let before = Usage::of(quotes.id()).resident;
    for number in 0..URLS {
        let answer = quotes.invoke(&Invocation::get(&format!("/quotes/{number}"), &[])).await;
        assert_eq!(HttpAnswer::try_from(answer).expect("an answer").status, 200);
    }
    let each = (Usage::of(quotes.id()).resident - before) / URLS;
    assert!(each < 4096, "{each} bytes");
}

#[tokio::test]
async fn each_fault_of_a_service_becomes_a_problem() {
    let told = async |fault: Fault| {
        let (prices, rates) = (fault.upstream(), Upstream::start());
        let mut quotes = start(&prices, &rates, fault.attempt_timeout_ms()).await;
        fault.begin(&prices).await;
        let answer = get(&mut quotes).await;
        // A response that is good, but no price.
        let expected =
            if fault.status == 200 { (502, "upstream-response-invalid") } else { (fault.status, fault.what) };
        assert_eq!(
            (answer.status, &*answer.problem(), prices.calls()),
            (expected.0, expected.1, fault.calls),
            "{fault:?}"
        );
    };
    join_all(Fault::all().into_iter().map(told)).await;
}

#[tokio::test]
async fn an_order_is_sent_once() {
    let executable = example("quotes");
    let prices = Upstream::start();
    prices.then(Answer::status(503)).then(Answer::status(409)).always(Answer::ok(r#"{"id": 7}"#));
    let mut quotes = Function::start(&executable, &[("PRICES_URL", &*prices.url("/"))]).await;
    let order = Invocation::with_json("POST", "/quotes/ACME", r#"{"euros": 2}"#);
    let answer = HttpAnswer::try_from(quotes.invoke(&order).await).expect("an answer");
    assert_eq!((answer.status, &*answer.problem(), prices.calls()), (502, "upstream-error", 1));
    for (status, problem) in [(409, "conflict"), (201, "")] {
        let answer = HttpAnswer::try_from(quotes.invoke(&order).await).expect("an answer");
        assert_eq!((answer.status, &*answer.problem()), (status, problem));
    }
}
