//! Tests a function with two upstreams, the example `pair`, as a process.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::{
    pin::pin,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use serde_json::{Value, json};
use testbed::{
    Function, HttpAnswer, Invocation, example,
    upstream::{Answer, Behaviour, IdleEnd, Upstream},
};

/// The function and its upstreams.
struct Pair {
    prices: Upstream,
    rates: Upstream,
    function: Function,
}

impl Pair {
    /// Starts it with limits that no busy machine exceeds, unless `env` has others.
    async fn start(env: &[(&str, &str)]) -> Self {
        let (prices, rates) = (Upstream::start(), Upstream::start());
        let urls = [prices.url("/"), rates.url("/")];
        let mut all = vec![("PRICES_URL", urls[0].as_str()), ("RATES_URL", urls[1].as_str())];
        all.extend(["PRICES_TIMEOUT_MS", "PRICES_ATTEMPT_TIMEOUT_MS"].map(|name| (name, "60000")));
        all.extend(["RATES_TIMEOUT_MS", "RATES_ATTEMPT_TIMEOUT_MS"].map(|name| (name, "60000")));
        all.extend(env);
        Self { prices, rates, function: Function::start(&example("pair"), &all).await }
    }

    async fn call(&mut self, method: &str, path: &str) -> HttpAnswer {
        self.function.invoke(&invocation(method, path)).await.try_into().unwrap()
    }

    /// Ends the function. Returns its lines, which keep to the schema.
    async fn lines(self) -> Vec<Value> {
        let schema = include_str!("../../handler/log-event.schema.json");
        let schema = jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap();
        let lines: Vec<Value> =
            self.function.terminate().await.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        for line in &lines {
            assert!(schema.is_valid(line), "{line}");
        }
        lines
    }
}

fn invocation(method: &str, path: &str) -> Invocation {
    let event = json!({ "httpMethod": method, "path": path, "requestContext": { "elb": {} }, "headers": {} });
    Invocation::new(event.to_string()).with_timeout(Duration::from_mins(2))
}

fn signal(name: &str, process: &Function) {
    let kill = Command::new("kill").arg(format!("-{name}")).arg(process.id().to_string()).status();
    assert!(kill.unwrap().success(), "SIG{name}");
}

#[tokio::test]
async fn a_dead_upstream_gets_few_calls_however_many_urls_are_read() {
    let mut pair = Pair::start(&[]).await;
    pair.prices.always(Answer::status(503));
    for symbol in 0..30 {
        let answer = pair.call("GET", &format!("/{symbol}/-")).await;
        assert!(["upstream-error", "upstream-unavailable"].contains(&answer.problem().as_str()), "{answer:?}");
    }
    assert!((10..=11).contains(&pair.prices.calls()), "{}", pair.prices.calls());
    assert_eq!(pair.call("GET", "/-/usd").await.status, 200, "the other one's breaker is its own");
    let lines = pair.lines().await;
    assert_eq!(
        (&lines[29]["prices_breaker_state"], &lines[30]["rates_breaker_state"]),
        (&"open".into(), &"closed".into())
    );
    assert_eq!(lines.iter().map(|line| line["BreakerOpens"].as_u64().unwrap()).sum::<u64>(), 1);
}

#[tokio::test]
async fn many_urls_one_after_the_other_take_one_connection() {
    let mut pair = Pair::start(&[]).await;
    for symbol in 0..32 {
        assert_eq!(pair.call("GET", &format!("/{symbol},{}/-", symbol + 32)).await.status, 200);
    }
    assert_eq!((pair.prices.calls(), pair.prices.connections()), (64, 1));
}

/// Nothing else ends the calls of the silent one.
#[tokio::test]
async fn an_upstream_answers_while_the_other_one_is_silent() {
    let pair = Pair::start(&[("AWS_LAMBDA_MAX_CONCURRENCY", "64"), ("PRICES_MAX_ATTEMPTS", "1")]).await;
    pair.prices.always(Behaviour::Silent);
    pair.rates.always(Answer::ok("good").cache_control("no-store"));
    let invocations = |of: fn(usize) -> String| (0..32).map(|name| invocation("GET", &of(name))).collect::<Vec<_>>();
    let (down, well) = (invocations(|name| format!("/{name}/-")), invocations(|name| format!("/-/{name}")));
    let api = pair.function.runtime_api();
    let mut down = pin!(join_all(down.iter().map(|invocation| api.invoke(invocation))));
    tokio::select! {
        () = pair.prices.calls_reached(32) => {}
        answers = &mut down => panic!("{answers:?}"),
    }
    for _ in 0..3 {
        tokio::select! {
            answers = join_all(well.iter().map(|invocation| api.invoke(invocation))) => {
                assert!(answers.into_iter().all(|answer| HttpAnswer::try_from(answer).unwrap().status == 200));
            }
            answers = &mut down => panic!("{answers:?}"),
        }
    }
    pair.prices.refuse().await;
    let answers = down.await.into_iter().map(|answer| HttpAnswer::try_from(answer).unwrap().problem());
    assert_eq!(answers.collect::<Vec<_>>(), ["upstream-unreachable"; 32]);
}

#[tokio::test]
async fn a_bad_setting_is_logged_by_its_own_name() {
    let mut pair = Pair::start(&[("PRICES_URL", "ftp://secret.example")]).await;
    assert_eq!(pair.call("GET", "/a/-").await.problem(), "misconfigured");
    assert_eq!(pair.call("GET", "/-/a").await.status, 200);
    let lines = pair.lines().await;
    let error = lines[0]["error"].as_str().unwrap();
    assert!(error.contains("PRICES_URL") && !error.contains("RATES") && !error.contains("secret"), "{error}");
    let of_each = [("prices_error", Some(error)), ("rates_error", None)];
    assert!(of_each.iter().all(|(field, error)| lines[0][field].as_str() == *error), "{}", lines[0]);
}

#[tokio::test]
async fn the_line_tells_the_upstreams_apart_and_sums_up() {
    let mut pair = Pair::start(&[]).await;
    let fresh = || Answer::ok("good").cache_control("max-age=60");
    pair.prices.then(Answer::status(503)).always(fresh());
    pair.rates.always(fresh());
    pair.call("GET", "/a,b/c").await;
    pair.call("GET", "/a,b/c").await;
    pair.call("GET", "/a,d/c").await;
    pair.call("GET", "/-/c").await;
    pair.rates.refuse().await;
    pair.call("GET", "/a/e").await;
    let lines = pair.lines().await;
    let told = |line: &Value, names: &[&str]| names.iter().map(|name| line[name].clone()).collect::<Vec<_>>();
    let attempts = ["attempts", "UpstreamAttempts", "prices_attempts", "rates_attempts"];
    let states =
        ["CacheHits", "prices_cache_status", "rates_cache_status", "prices_breaker_state", "rates_breaker_state"];
    for (at, expected_attempts, expected_states) in [
        (0, json!([4, 4, 3, 1]), json!([0, "miss", "miss", "closed", "closed"])),
        (1, json!([null, null, null, null]), json!([1, "hit", "hit", null, null])),
        (2, json!([1, 1, 1, null]), json!([0, "hit, miss", "hit", "closed", null])),
        (3, json!([null, null, null, null]), json!([1, null, "hit", null, null])),
        (4, json!([3, 3, null, 3]), json!([0, "hit", null, null, "closed"])),
    ] {
        let line = &lines[at];
        assert_eq!(json!(told(line, &attempts)), expected_attempts, "{at}: {line}");
        assert_eq!(json!(told(line, &states)), expected_states, "{at}: {line}");
    }
    let ms = |name: &str| lines[0][name].as_f64().unwrap();
    assert!((ms("upstream_ms") - ms("prices_upstream_ms") - ms("rates_upstream_ms")).abs() < 0.01, "{}", lines[0]);
    let error = lines[4]["error"].as_str().unwrap();
    assert!(error.starts_with("upstream-unreachable: The upstream gave no complete response.: RATES: "), "{error}");
    // Also if the endpoint goes on without it.
    assert_eq!((&lines[4]["rates_error"], &lines[4]["prices_error"]), (&error.into(), &Value::Null));
}

/// A `POST` is sent once, whatever has become of its connection in a freeze.
#[tokio::test]
async fn a_freeze_costs_a_post_a_reconnect_and_no_second_call() {
    for how in [IdleEnd::Close, IdleEnd::Reset, IdleEnd::TimeOut, IdleEnd::Forget, IdleEnd::Vanish] {
        let mut pair = Pair::start(&[]).await;
        assert_eq!(pair.call("POST", "/a/-").await.status, 201);
        signal("STOP", &pair.function);
        assert_eq!(pair.prices.end_idle_connections(how).await, 1);
        if matches!(how, IdleEnd::Forget | IdleEnd::Vanish) {
            // Longer than a connection is trusted that has died without a sign.
            tokio::time::sleep(Duration::from_millis(1100)).await;
        }
        signal("CONT", &pair.function);
        assert_eq!(pair.call("POST", "/a/-").await.status, 201, "{how:?}");
        assert_eq!((pair.prices.calls(), pair.prices.connections()), (2, 2), "{how:?}");
        assert_eq!(pair.call("POST", "/a/-").await.status, 201);
        assert_eq!(pair.prices.connections(), 2, "one that was used a moment ago is used again");
    }
}

#[tokio::test]
async fn a_post_is_repeated_with_one_key() {
    let mut pair = Pair::start(&[]).await;
    pair.prices.then(Behaviour::ResetMidBody).then(Answer::status(503));
    assert_eq!(pair.call("POST", "/a/key").await.status, 201);
    assert_eq!(pair.call("POST", "/a/key").await.status, 201);
    let requests = pair.prices.requests();
    let keys: Vec<_> = requests.iter().map(|request| request.header("idempotency-key").unwrap()).collect();
    assert!(keys.len() == 4 && keys[0] == keys[1] && keys[0] == keys[2] && keys[0] != keys[3], "{keys:?}");
}

/// A 401 says that nothing was done.
#[tokio::test]
async fn a_post_is_sent_again_with_another_token() {
    let secrets_manager = Upstream::start();
    let number = AtomicUsize::new(1);
    secrets_manager.always(Behaviour::decide(move |_| {
        Answer::ok(format!(r#"{{"SecretString":"{}"}}"#, number.fetch_add(1, Ordering::Relaxed))).into()
    }));
    let endpoint = secrets_manager.url("");
    let mut pair = Pair::start(&[
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_ENDPOINT_URL", &endpoint),
        ("AWS_REGION", "us-east-1"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("PRICES_SECRET_ID", "token"),
    ])
    .await;
    pair.prices.always(Answer::status(401));
    assert_eq!(pair.call("POST", "/a/-").await.problem(), "upstream-error");
    let requests = pair.prices.requests();
    let tokens: Vec<_> = requests.iter().map(|request| request.header("authorization").unwrap()).collect();
    assert_eq!(tokens, ["Bearer 1", "Bearer 2"]);
}
