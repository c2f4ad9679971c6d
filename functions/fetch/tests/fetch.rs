//! Tests `fetch`, as `make build` packaged it, against a hostile upstream.

#![expect(clippy::expect_used, reason = "a test that cannot go on panics, and says why")]

mod bed;

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    process::{Command, ExitCode},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bed::{Bed, ENDPOINT, Endpoint, expect};
use flate2::{Compression, write::GzEncoder};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Map, Value};
use testbed::{
    Function, HttpAnswer, Invocation, packaged,
    upstream::{Answer, Behaviour, Certificate, Fault, IdleEnd, Upstream},
};
use tokio::{
    net::UdpSocket,
    time::{sleep, timeout},
};

type Outcome = Result<(), String>;

fn main() -> ExitCode {
    // Before any trial: a file that is being written cannot be executed.
    let _ = packaged("fetch");
    let mut trials = of_fetch();
    trials.extend([Endpoint::Fetch, Endpoint::PairIdle].into_iter().flat_map(of_any_endpoint));
    trials.extend([Endpoint::Fetch, Endpoint::PairFailing].into_iter().flat_map(of_each_fault));
    let mut arguments = Arguments::from_args();
    // They wait most of the time: for a deadline, a retry, a slow upstream.
    arguments.test_threads.get_or_insert(8);
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The trials that take long, or test only how names are resolved: a second upstream makes no difference to them.
fn of_fetch() -> Vec<Trial> {
    vec![
        Trial::test("the_docs_have_the_table_of_faults", || Ok(table()?)),
        test(Endpoint::Fetch, "half_of_all_calls_fail", half_of_all_calls_fail()),
        test(Endpoint::Fetch, "memory_stays_flat", memory_stays_flat()),
        test(Endpoint::Fetch, "names_are_resolved_by_dns", names_are_resolved_by_dns()),
        test(Endpoint::Fetch, "names_are_found_in_etc_hosts", names_are_found_in_etc_hosts()),
        test(Endpoint::Fetch, "a_name_server_may_know_only_one_family", a_name_server_may_know_only_one_family()),
        test(Endpoint::Fetch, "an_ipv4_address_may_come_late", an_ipv4_address_may_come_late()),
        test(Endpoint::Fetch, "a_missing_name_may_appear_later", a_missing_name_may_appear_later()),
    ]
}

fn of_any_endpoint(endpoint: Endpoint) -> Vec<Trial> {
    vec![
        test(endpoint, "the_upstream_goes_down", the_upstream_goes_down()),
        test(endpoint, "many_callers_and_a_cold_cache_make_one_call", many_callers_and_a_cold_cache_make_one_call()),
        test(endpoint, "a_refresh_is_done_before_the_next_invocation", a_refresh_is_done_before_the_next_invocation()),
        test(endpoint, "only_one_worker_waits_for_a_refresh", only_one_worker_waits_for_a_refresh()),
        test(endpoint, "a_refresh_is_in_the_line_of_its_request", a_refresh_is_in_the_line_of_its_request()),
        test(
            endpoint,
            "the_failure_that_opens_the_breaker_is_reported",
            the_failure_that_opens_the_breaker_is_reported(),
        ),
        test(
            endpoint,
            "an_unusable_response_does_not_open_the_breaker",
            an_unusable_response_does_not_open_the_breaker(),
        ),
        test(endpoint, "an_unreachable_secret_is_requested_once", an_unreachable_secret_is_requested_once()),
        test(endpoint, "a_freeze_costs_a_reconnect", a_freeze_costs_a_reconnect()),
        test(
            endpoint,
            "a_connection_that_died_in_a_freeze_costs_nothing",
            a_connection_that_died_in_a_freeze_costs_nothing(),
        ),
        test(endpoint, "a_response_that_began_is_not_asked_for_again", a_response_that_began_is_not_asked_for_again()),
        test(endpoint, "codings_are_removed_or_refused", codings_are_removed_or_refused()),
        test(endpoint, "a_head_may_have_many_lines", a_head_may_have_many_lines()),
        test(endpoint, "a_stored_response_is_validated", a_stored_response_is_validated()),
        test(endpoint, "retry_after_is_waited_for", retry_after_is_waited_for()),
        test(endpoint, "redirects_stay_on_the_origin", redirects_stay_on_the_origin()),
        test(endpoint, "nothing_of_the_caller_reaches_the_upstream", nothing_of_the_caller_reaches_the_upstream()),
        test(endpoint, "only_allowed_headers_reach_the_caller", only_allowed_headers_reach_the_caller()),
        test(endpoint, "lambdas_deadline_counts", lambdas_deadline_counts()),
        test(endpoint, "the_time_limit_of_a_request_counts", the_time_limit_of_a_request_counts()),
        test(endpoint, "a_deadline_in_the_past_is_ignored", a_deadline_in_the_past_is_ignored()),
        test(endpoint, "a_body_is_passed_byte_for_byte", a_body_is_passed_byte_for_byte()),
        test(endpoint, "without_an_upstream_it_is_misconfigured", without_an_upstream_it_is_misconfigured()),
        test(endpoint, "the_host_may_be_a_name", the_host_may_be_a_name()),
        test(endpoint, "an_unusable_ca_file_is_a_misconfiguration", an_unusable_ca_file_is_a_misconfiguration()),
        test(endpoint, "proxies_are_ignored", proxies_are_ignored()),
        test(endpoint, "a_secret_may_take_longer_than_a_request", a_secret_may_take_longer_than_a_request()),
        test(
            endpoint,
            "a_response_that_may_not_be_stored_answers_one_request",
            a_response_that_may_not_be_stored_answers_one(),
        ),
        test(endpoint, "a_response_is_judged_when_it_is_used", a_response_is_judged_when_it_is_used()),
        test(endpoint, "retry_after_without_a_wait_opens_no_breaker", retry_after_without_a_wait_opens_no_breaker()),
        test(
            endpoint,
            "lambdas_deadline_is_no_failure_of_the_upstream",
            lambdas_deadline_is_no_failure_of_the_upstream(),
        ),
        test(endpoint, "an_upstream_that_hangs_opens_the_breaker", an_upstream_that_hangs_opens_the_breaker()),
        test(endpoint, "no_attempt_begins_when_the_time_is_up", no_attempt_begins_when_the_time_is_up()),
        test(endpoint, "a_refused_token_costs_an_attempt", a_refused_token_costs_an_attempt()),
        test(endpoint, "many_callers_with_a_refused_token_all_get_the_new_one", many_callers_with_a_refused_token()),
    ]
}

fn of_each_fault(endpoint: Endpoint) -> Vec<Trial> {
    let mut trials = Vec::new();
    for fault in Fault::all() {
        // If it is there from the start, there can be no stored response.
        let copies = if fault.is_permanent() { &COPIES[..1] } else { &COPIES };
        for copy in copies.iter().copied() {
            let name = format!("fault: {}, {copy:?} copy", fault.name);
            trials.push(test(endpoint, &name, meets(fault.clone(), copy)));
        }
    }
    trials
}

fn test(endpoint: Endpoint, name: &str, test: impl Future<Output = Outcome> + Send + 'static) -> Trial {
    Trial::test(format!("{name}{}", endpoint.suffix()), move || {
        let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        tokio.block_on(ENDPOINT.scope(endpoint, test)).map_err(Failed::from)
    })
}

/// A good answer with this `cache_control`. Its body differs from later ones.
fn first(cache_control: &str) -> Answer {
    Answer::ok("first").cache_control(cache_control)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Copy {
    None,
    Fresh,
    Stale,
}

const COPIES: [Copy; 3] = [Copy::None, Copy::Fresh, Copy::Stale];

/// Sends a request while the upstream has `fault`, and one when it works again.
async fn meets(fault: Fault, copy: Copy) -> Outcome {
    let mut bed = Bed::new(fault.upstream(), &[("UPSTREAM_ATTEMPT_TIMEOUT_MS", fault.attempt_timeout_ms())]).await;
    let stored = match copy {
        Copy::None => None,
        Copy::Fresh => Some("max-age=60"),
        Copy::Stale => Some("max-age=0"),
    };
    if let Some(cache_control) = stored {
        bed.upstream.then(first(cache_control));
        expect("the first answer", &bed.get(&[]).await?.body, &"first".to_owned())?;
    }
    fault.begin(&bed.upstream).await;
    let before = bed.upstream.calls();
    let answer = bed.get(&[]).await?;
    let calls = bed.upstream.calls() - before;
    match copy {
        Copy::Fresh => {
            expect("answer", &(answer.status, answer.body.as_str()), &(200, "first"))?;
            expect("calls", &calls, &0)?;
        }
        Copy::Stale if fault.allows_stale => {
            expect("answer", &(answer.status, answer.body.as_str()), &(200, "first"))?;
            if !answer.header("cache-status").ends_with("detail=stale-if-error") {
                return Err(format!("cache-status: {}", answer.header("cache-status")));
            }
        }
        _ => {
            let problem = answer.problem();
            let problem = if problem.is_empty() { &answer.body } else { &problem };
            expect("answer", &(answer.status, problem.as_str()), &(fault.status, fault.what))?;
            // On a connection that was kept alive after the first answer, a reset counts as a call too.
            if copy == Copy::None {
                expect("calls", &calls, &fault.calls)?;
            }
        }
    }
    bed.upstream.always(Answer::ok("well again"));
    bed.upstream.listen();
    let next = bed.get(&[]).await?;
    let well = match (copy, fault.name) {
        _ if fault.is_permanent() => return expect("next answer", &next.status, &fault.status),
        // A response that is longer than its Content-Length is good up to that length, and is stored.
        (Copy::Fresh, _) | (_, "sends more than its Content-Length") | (Copy::Stale, Fault::ASKS_FOR_A_PAUSE) => {
            "first"
        }
        (Copy::None, Fault::ASKS_FOR_A_PAUSE) => {
            return expect("next answer", &next.problem(), &"upstream-unavailable".to_owned());
        }
        _ => "well again",
    };
    expect("next answer", &(next.status, next.body.as_str()), &(200, well))
}

/// Half of the calls fail, at random. Callers hardly notice, and the upstream gets few additional calls.
async fn half_of_all_calls_fail() -> Outcome {
    const CALLERS: usize = 10_000;
    let mut bed = Bed::new(Upstream::start(), &[]).await;
    let random = Mutex::new(fastrand::Rng::with_seed(7));
    bed.upstream.always(Behaviour::decide(move |_| {
        let fails = random.lock().expect("no panic").bool();
        if fails { Answer::status(503).into() } else { first("max-age=0").into() }
    }));
    let mut good = 0;
    for _ in 0..CALLERS {
        good += usize::from(bed.get(&[]).await?.status == 200);
    }
    let calls = bed.upstream.calls();
    if good * 1000 < CALLERS * 999 || calls * 100 > CALLERS * 125 {
        return Err(format!("{good} good answers of {CALLERS}, {calls} calls"));
    }
    Ok(())
}

/// After one good answer the upstream is gone. Every caller gets that answer, and soon without a call.
async fn the_upstream_goes_down() -> Outcome {
    let mut bed = Bed::new(Upstream::start(), &[]).await;
    bed.upstream.then(first("max-age=0"));
    bed.get(&[]).await?;
    bed.upstream.refuse().await;
    let mut open = 0;
    for caller in 0..3000 {
        let answer = bed.get(&[]).await?;
        expect(&format!("answer {caller}"), &(answer.status, answer.body.as_str()), &(200, "first"))?;
        open += usize::from(answer.header("cache-status").ends_with("detail=circuit-breaker-open"));
    }
    let called = lines(bed).await.iter().filter(|line| line["attempts"].as_u64() > Some(0)).count();
    let soon = open >= 2900 && open + called == 3001;
    soon.then_some(()).ok_or_else(|| format!("{open} answers while the breaker was open, {called} with calls"))
}

async fn many_callers_and_a_cold_cache_make_one_call() -> Outcome {
    let mut bed = Bed::new(Upstream::start(), &[("AWS_LAMBDA_MAX_CONCURRENCY", "64")]).await;
    bed.upstream.always(Behaviour::late(Duration::from_millis(100), first("max-age=60")));
    let invocations: Vec<_> = (0..64).map(|_| Invocation::get("/fetch", &[])).collect();
    for outcome in bed.fetch.invoke_all(&invocations).await {
        expect("answer", &HttpAnswer::try_from(outcome)?.body, &"first".to_owned())?;
    }
    expect("calls", &bed.upstream.calls(), &1)
}

/// Not even those that wait for it. They call at the same time, or the last one would wait for a minute.
async fn a_response_that_may_not_be_stored_answers_one() -> Outcome {
    const CALLERS: usize = 64;
    for (name, value) in [("cache-control", "no-store"), ("cache-control", "private, max-age=60"), ("vary", "*")] {
        let mut bed = Bed::new(Upstream::start(), &[("AWS_LAMBDA_MAX_CONCURRENCY", "64")]).await;
        let number = AtomicUsize::new(0);
        bed.upstream.always(Behaviour::decide(move |_| {
            let body = number.fetch_add(1, Ordering::Relaxed).to_string();
            Behaviour::late(Duration::from_secs(1), Answer::ok(body).header(name, value))
        }));
        let mut bodies = BTreeSet::new();
        // Nobody waits for others any more in the second round.
        for round in 1..=2 {
            let invocation = |_| Invocation::get("/fetch", &[]).with_timeout(Duration::from_secs(40));
            let invocations: Vec<_> = (0..CALLERS).map(invocation).collect();
            for outcome in bed.fetch.invoke_all(&invocations).await {
                let answer = HttpAnswer::try_from(outcome)?;
                expect("status", &answer.status, &200)?;
                bodies.insert(answer.body);
            }
            expect(value, &(bodies.len(), bed.upstream.calls()), &(CALLERS * round, CALLERS * round))?;
        }
        bed.upstream.always(first("max-age=60"));
        bed.get(&[]).await?;
        expect("when it may be stored again", &bed.get(&[]).await?.header("cache-status").contains("hit"), &true)?;
    }
    Ok(())
}

/// An upstream that fails only after more than a second.
async fn a_response_is_judged_when_it_is_used() -> Outcome {
    let late = Behaviour::late(Duration::from_millis(1100), Answer::status(500));
    let mut bed = Bed::new(Upstream::start(), &[]).await;
    bed.upstream.then(first("max-age=0, stale-if-error=60")).always(late.clone());
    bed.get(&[]).await?;
    let answer = bed.get(&[]).await?;
    let age: i32 = answer.header("age").parse().map_err(|error| format!("{error}: {answer:?}"))?;
    expect("at least a second old", &(age >= 1), &true)?;
    expect("cache-status", &answer.header("cache-status").contains(&format!("ttl=-{age};")), &true)?;
    bed.upstream.then(first("max-age=0, stale-if-error=1"));
    bed.get(&[]).await?;
    expect("stale for longer than allowed", &bed.get(&[]).await?.problem(), &"upstream-error".to_owned())
}

/// The next caller may try at once, so it is not kept from it.
async fn retry_after_without_a_wait_opens_no_breaker() -> Outcome {
    for value in ["0", "Sun, 06 Nov 1994 08:49:37 GMT"] {
        let mut bed = Bed::new(Upstream::start(), &[("UPSTREAM_MAX_ATTEMPTS", "1")]).await;
        bed.upstream.always(Answer::status(503).header("retry-after", value));
        for _ in 0..5 {
            expect(value, &bed.get(&[]).await?.problem(), &"upstream-error".to_owned())?;
        }
        expect("calls", &bed.upstream.calls(), &5)?;
    }
    Ok(())
}

/// It came long before the end of the time that an attempt may take.
async fn lambdas_deadline_is_no_failure_of_the_upstream() -> Outcome {
    let mut bed = Bed::new(Upstream::start(), &[]).await;
    bed.upstream.always(Behaviour::Silent);
    for _ in 0..12 {
        let invocation = Invocation::get("/fetch", &[]).with_timeout(Duration::from_millis(500));
        let answer = HttpAnswer::try_from(bed.fetch.invoke(&invocation).await)?;
        expect("problem", &answer.problem(), &"upstream-timeout".to_owned())?;
    }
    bed.upstream.always(Answer::ok("good"));
    expect("after that", &bed.get(&[]).await?.body, &"good".to_owned())
}

/// If a request has less time than an attempt, it is always the request's limit that ends the attempt.
async fn an_upstream_that_hangs_opens_the_breaker() -> Outcome {
    let mut bed = Bed::new(Upstream::start(), &[("UPSTREAM_TIMEOUT_MS", "300")]).await;
    bed.upstream.always(Behaviour::Silent);
    let mut problem = String::new();
    while problem != "upstream-unavailable" {
        problem = bed.get(&[]).await?.problem();
        if bed.upstream.calls() > 20 {
            return Err("the breaker is closed".into());
        }
    }
    Ok(())
}

async fn no_attempt_begins_when_the_time_is_up() -> Outcome {
    let mut bed = Bed::new(Upstream::start(), &[]).await;
    // Less than 50 ms, as 100 ms are reserved for the answer.
    let invocation = Invocation::get("/fetch", &[]).with_timeout(Duration::from_millis(140));
    let answer = HttpAnswer::try_from(bed.fetch.invoke(&invocation).await)?;
    expect("problem", &answer.problem(), &"upstream-timeout".to_owned())?;
    expect("calls", &bed.upstream.calls(), &0)
}

/// Starts `fetch` with a Secrets Manager that has another token for each request: `1`, `2` and so on.
async fn with_tokens(env: &[(&str, &str)]) -> (Bed, Upstream) {
    let secrets_manager = Upstream::start();
    let number = AtomicUsize::new(1);
    secrets_manager.always(Behaviour::decide(move |_| {
        let token = number.fetch_add(1, Ordering::Relaxed);
        Answer::ok(format!(r#"{{"Name":"token","SecretString":"{token}"}}"#)).into()
    }));
    let endpoint = secrets_manager.url("");
    let secret = [
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_ENDPOINT_URL", &endpoint),
        ("AWS_REGION", "us-east-1"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("UPSTREAM_SECRET_ID", "token"),
    ];
    (Bed::new(Upstream::start(), &[&secret, env].concat()).await, secrets_manager)
}

/// Another one with a new token is counted and limited like any other.
async fn a_refused_token_costs_an_attempt() -> Outcome {
    for (max_attempts, attempts) in [("3", 2), ("2", 2), ("1", 1)] {
        let (mut bed, _secrets_manager) = with_tokens(&[("UPSTREAM_MAX_ATTEMPTS", max_attempts)]).await;
        bed.upstream.always(Answer::status(401));
        expect("problem", &bed.get(&[]).await?.problem(), &"upstream-error".to_owned())?;
        let sent: Vec<_> =
            bed.upstream.requests().iter().map(|call| call.header("authorization").map(str::to_owned)).collect();
        let expected: Vec<_> = (1..=attempts).map(|token| Some(format!("Bearer {token}"))).collect();
        expect(max_attempts, &sent, &expected)?;
        bed.upstream.always(Answer::ok("good"));
        expect("the next request", &bed.get(&[]).await?.body, &"good".to_owned())?;
        let lines = lines(bed).await;
        expect(
            "attempts",
            &(&lines[0]["attempts"], &lines[0]["UpstreamAttempts"]),
            &(&attempts.into(), &attempts.into()),
        )?;
    }
    Ok(())
}

/// At the same time, because the responses may not be stored.
async fn many_callers_with_a_refused_token() -> Outcome {
    const CALLERS: usize = 10;
    let (mut bed, secrets_manager) = with_tokens(&[("AWS_LAMBDA_MAX_CONCURRENCY", "10")]).await;
    bed.upstream.always(first("no-store"));
    // These calls earn ten retries.
    for _ in 0..100 {
        bed.get(&[]).await?;
    }
    bed.upstream.always(Behaviour::decide(|call| match call.header("authorization") {
        Some("Bearer 1") => Behaviour::late(Duration::from_millis(300), Answer::status(401)),
        _ => first("no-store").into(),
    }));
    let invocations: Vec<_> = (0..CALLERS).map(|_| Invocation::get("/fetch", &[])).collect();
    for outcome in bed.fetch.invoke_all(&invocations).await {
        expect("status", &HttpAnswer::try_from(outcome)?.status, &200)?;
    }
    expect("loads", &secrets_manager.calls(), &2)
}

/// The caller gets the stale response at once. There is a fresh one by the next invocation, before which Lambda could
/// freeze the process for hours.
async fn a_refresh_is_done_before_the_next_invocation() -> Outcome {
    let mut bed = Bed::new(Upstream::start(), &[]).await;
    bed.upstream.then(first("max-age=0, stale-while-revalidate=60"));
    bed.get(&[]).await?;
    bed.upstream.always(Behaviour::late(Duration::from_millis(150), Answer::ok("second").cache_control("max-age=60")));
    let answer = bed.get(&[]).await?;
    expect("while it is refreshed", &answer.body, &"first".to_owned())?;
    expect("cache-status", &answer.header("cache-status"), &"fetch; hit; ttl=0; detail=stale-while-revalidate")?;
    let answer = bed.get(&[]).await?;
    expect("the next invocation", &answer.body, &"second".to_owned())?;
    expect("calls", &bed.upstream.calls(), &2)
}

/// The name of a field as `fetch` has it: that of another upstream's begins with its name.
fn without_upstream(field: &str) -> String {
    field.strip_prefix("prices_").unwrap_or(field).to_owned()
}

/// The lines that the invocations of `bed` left in the log.
async fn lines(bed: Bed) -> Vec<Value> {
    let lines = bed.fetch.terminate().await;
    lines
        .iter()
        .map(|line| {
            let line: Map<String, Value> = serde_json::from_str(line).expect("a line of JSON");
            line.into_iter().map(|(name, value)| (without_upstream(&name), value)).collect()
        })
        .collect()
}

/// On Lambda Managed Instances, a worker that waits for a refresh answers nobody, so the other workers must not wait.
async fn only_one_worker_waits_for_a_refresh() -> Outcome {
    const WORKERS: usize = 16;
    let mut bed = Bed::new(Upstream::start(), &[("AWS_LAMBDA_MAX_CONCURRENCY", "16")]).await;
    bed.upstream.then(first("max-age=0, stale-while-revalidate=60")).always(Behaviour::Silent);
    bed.get(&[]).await?;
    for _ in 0..5 {
        let invocations: Vec<_> = (1..WORKERS).map(|_| Invocation::get("/fetch", &[])).collect();
        for outcome in bed.fetch.invoke_all(&invocations).await {
            let answer = HttpAnswer::try_from(outcome)?;
            expect("answer", &(answer.status, answer.body.as_str()), &(200, "first"))?;
        }
    }
    expect("calls", &bed.upstream.calls(), &2)
}

/// Also if it fails and if it opens the circuit breaker, because the log must show that.
async fn a_refresh_is_in_the_line_of_its_request() -> Outcome {
    let mut bed = Bed::new(Upstream::start(), &[]).await;
    bed.upstream.then(first("max-age=0, stale-while-revalidate=60")).always(Answer::status(503));
    for _ in 0..12 {
        expect("body", &bed.get(&[]).await?.body, &"first".to_owned())?;
    }
    // As many as the breaker needs to open, the good one included.
    expect("calls", &bed.upstream.calls(), &10)?;
    let lines = lines(bed).await;
    let (invocations, events): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line["message"] == "invocation");
    for (number, line) in invocations.iter().enumerate() {
        let told = (&line["attempts"], &line["BreakerOpens"], &line["UpstreamAttempts"]);
        let attempts: &Value = &i32::from(number < 10).into();
        expect(&format!("line {number}"), &told, &(attempts, &i32::from(number == 9).into(), attempts))?;
    }
    expect("events", &events.len(), &9)?;
    for (event, line) in events.iter().zip(&invocations[1..]) {
        expect("message", &event["message"], &"the stored response could not be refreshed".into())?;
        expect("request id", &event["request_id"], &line["request_id"])?;
    }
    Ok(())
}

/// The caller whose attempt opens the breaker gets that attempt's failure, at once.
async fn the_failure_that_opens_the_breaker_is_reported() -> Outcome {
    let mut bed = Bed::new(Upstream::start(), &[]).await;
    bed.upstream.always(first("no-store"));
    // These calls earn retries for the calls that fail.
    for _ in 0..40 {
        bed.get(&[]).await?;
    }
    bed.upstream.always(Answer::status(503));
    let mut problems = Vec::new();
    while problems.last().is_none_or(|problem| problem == "upstream-error") {
        problems.push(bed.get(&[]).await?.problem());
    }
    expect("problem", &problems.pop(), &Some("upstream-unavailable".to_owned()))?;
    // Ten of the latest twenty failed.
    expect("calls", &bed.upstream.calls(), &50)?;
    let lines = lines(bed).await;
    let attempts: u64 = lines.iter().filter_map(|line| line["attempts"].as_u64()).sum();
    let opened: Vec<_> = lines.iter().filter(|line| line["BreakerOpens"] == 1).map(|line| &line["problem"]).collect();
    expect("attempts", &attempts, &50)?;
    expect("the problem of who opened it", &opened, &vec![&"upstream-error".into()])
}

/// An upstream that sends an encoding that nobody asked for is healthy, so every request calls it again.
async fn an_unusable_response_does_not_open_the_breaker() -> Outcome {
    let mut bed = Bed::new(Upstream::start(), &[]).await;
    bed.upstream.always(Answer::ok("first").header("content-encoding", "br"));
    for _ in 0..20 {
        expect("problem", &bed.get(&[]).await?.problem(), &"upstream-unreachable".to_owned())?;
    }
    expect("calls", &bed.upstream.calls(), &20)
}

/// Secrets Manager does not answer. That takes three seconds, but only once, and the upstream does not count as unhealthy.
async fn an_unreachable_secret_is_requested_once() -> Outcome {
    let secrets_manager = Upstream::start();
    secrets_manager.always(Behaviour::Silent);
    let endpoint = secrets_manager.url("");
    let mut env = aws(&endpoint).to_vec();
    env.push(("UPSTREAM_SECRET_ID", "token"));
    let mut bed = Bed::new(Upstream::start(), &env).await;
    // More requests than it takes to open the circuit breaker.
    for _ in 0..12 {
        let answer = bed.get(&[]).await?;
        expect("answer", &(answer.status, answer.problem().as_str()), &(503, "upstream-unavailable"))?;
    }
    expect("calls of the upstream", &bed.upstream.calls(), &0)?;
    expect("calls of Secrets Manager", &secrets_manager.calls(), &1)?;
    let lines = lines(bed).await;
    let states: Vec<_> = lines.iter().map(|line| (&line["breaker_state"], &line["attempts"])).collect();
    expect("states", &states, &vec![(&"closed".into(), &0.into()); 12])
}

/// The upstream closes idle connections while the process is frozen. The next request succeeds at the first attempt.
async fn a_freeze_costs_a_reconnect() -> Outcome {
    let mut bed = Bed::new(Upstream::start(), &[("UPSTREAM_MAX_ATTEMPTS", "1")]).await;
    bed.upstream.always(first("no-store"));
    for _ in 0..20 {
        bed.get(&[]).await?;
        signal("STOP", &bed.fetch)?;
        expect("connections to close", &bed.upstream.end_idle_connections(IdleEnd::Close).await, &1)?;
        signal("CONT", &bed.fetch)?;
        expect("after the freeze", &bed.get(&[]).await?.status, &200)?;
        bed.upstream.end_idle_connections(IdleEnd::Close).await;
    }
    Ok(())
}

/// However it died. The request goes out again, on a new connection: that is no retry, and no failure of the upstream.
async fn a_connection_that_died_in_a_freeze_costs_nothing() -> Outcome {
    for tls in [false, true] {
        for how in [IdleEnd::Close, IdleEnd::Reset, IdleEnd::TimeOut, IdleEnd::Forget, IdleEnd::Vanish] {
            let upstream = if tls { Upstream::start_tls(Certificate::Valid) } else { Upstream::start() };
            let mut env = vec![("UPSTREAM_MAX_ATTEMPTS", "1")];
            // A quarter of it passes before a silent connection is given up.
            env.extend((how == IdleEnd::Vanish).then_some(("UPSTREAM_ATTEMPT_TIMEOUT_MS", "2000")));
            let mut bed = Bed::new(upstream, &env).await;
            bed.upstream.always(first("no-store"));
            // As many as it takes to open the circuit breaker.
            for number in 1..=10 {
                let answer = bed.get(&[]).await?;
                expect(
                    &format!("answer {number}, {how:?}"),
                    &(answer.status, answer.problem()),
                    &(200, String::new()),
                )?;
                signal("STOP", &bed.fetch)?;
                expect("connections that die", &bed.upstream.end_idle_connections(how).await, &1)?;
                signal("CONT", &bed.fetch)?;
            }
            expect("calls", &(bed.upstream.calls(), bed.upstream.connections()), &(10, 10))?;
            for line in lines(bed).await {
                let told = (&line["attempts"], &line["breaker_state"], &line["BreakerOpens"]);
                expect("line", &told, &(&1.into(), &"closed".into(), &0.into()))?;
            }
        }
    }
    // Some servers answer the request that comes too late.
    let mut bed = Bed::new(Upstream::start(), &[("UPSTREAM_MAX_ATTEMPTS", "1")]).await;
    bed.upstream.then(first("no-store")).then(Answer::status(408)).always(Answer::status(408));
    bed.get(&[]).await?;
    expect("problem", &bed.get(&[]).await?.problem(), &"upstream-error".to_owned())?;
    expect("calls", &(bed.upstream.calls(), bed.upstream.connections()), &(3, 2))
}

/// A kept connection that breaks after the first byte of a response shows that the upstream has failed.
async fn a_response_that_began_is_not_asked_for_again() -> Outcome {
    let mut bed = Bed::new(Upstream::start(), &[("UPSTREAM_MAX_ATTEMPTS", "1")]).await;
    for fault in [Behaviour::ResetMidHeader, Behaviour::MalformedHeaders, Behaviour::Truncate] {
        let before = bed.upstream.calls();
        bed.upstream.then(first("no-store")).then(fault).always(Answer::ok("again"));
        bed.get(&[]).await?;
        expect("problem", &bed.get(&[]).await?.problem(), &"upstream-unreachable".to_owned())?;
        expect("calls", &(bed.upstream.calls() - before), &2)?;
    }
    Ok(())
}

fn gzip(body: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body.as_ref()).expect("memory takes it all");
    encoder.finish().expect("memory takes it all")
}

/// One chunk for each of `parts`.
fn chunked(parts: &[&[u8]]) -> Vec<u8> {
    let chunk = |part: &&[u8]| [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat();
    [parts.iter().map(chunk).collect::<Vec<_>>().concat().as_slice(), b"0\r\n\r\n"].concat()
}

/// Whatever the codings, a caller gets the whole body, or an error that is not stored.
async fn codings_are_removed_or_refused() -> Outcome {
    let (one, two) = (gzip("first, "), gzip("second"));
    let (both, twice) = ([&one[..], &two].concat(), gzip(&two));
    let garbage = [&one[..], b"garbage"].concat();
    let mut bad_sum = one.clone();
    bad_sum[one.len() - 8] ^= 1;
    let mut bad_length = one.clone();
    bad_length[one.len() - 4] ^= 1;
    let head = |fields: &str| format!("HTTP/1.1 200 OK\ncache-control: max-age=60\n{fields}");
    let raw = |fields: &str, body: Vec<u8>| Behaviour::raw(&head(fields), body, true);
    let open = |fields: &str| Behaviour::raw(&head(fields), b"second", false);
    let content = |codings: &str, body: &[u8]| {
        raw(&format!("content-length: {}\ncontent-encoding: {codings}", body.len()), body.to_vec())
    };
    let transfer =
        |codings: &str, body: &[u8]| raw(&format!("transfer-encoding: {codings}, chunked"), chunked(&[body]));
    for (case, behaviour, expected) in [
        ("upper case", content("GZIP", &two), Some("second")),
        ("x-gzip", content("X-Gzip", &two), Some("second")),
        ("identity", content("identity", b"second"), Some("second")),
        ("an empty list", content("", b"second"), Some("second")),
        ("identity in a list", content("identity, gzip,", &two), Some("second")),
        ("two lines", content("gzip\ncontent-encoding: identity", &two), Some("second")),
        ("twice", content("gzip, gzip", &twice), Some("second")),
        ("twice, in two lines", content("gzip\ncontent-encoding: x-gzip", &twice), Some("second")),
        ("said twice", content("gzip, gzip", &two), None),
        ("another one", content("deflate", &two), None),
        ("another one in a list", content("gzip, br", &two), None),
        ("a parameter", content("gzip;q=1", &two), None),
        ("no text", raw("content-length: 6\ncontent-encoding: \u{e9}", b"second".to_vec()), None),
        ("nothing in gzip", content("gzip", b""), Some("")),
        ("two members", content("gzip", &both), Some("first, second")),
        (
            "members in chunks of their own",
            raw("transfer-encoding: chunked\ncontent-encoding: gzip", chunked(&[&one, &two])),
            Some("first, second"),
        ),
        ("garbage after a member", content("gzip", &garbage), None),
        ("zeros after a member", content("gzip", &[&one[..], &[0; 512]].concat()), None),
        ("half a member", content("gzip", &two[..two.len() / 2]), None),
        ("a member without its end", content("gzip", &two[..two.len() - 1]), None),
        ("half of the second member", content("gzip", &both[..one.len() + 15]), None),
        ("half of the second head", content("gzip", &both[..one.len() + 5]), None),
        ("a wrong checksum", content("gzip", &bad_sum), None),
        ("a wrong length", content("gzip", &bad_length), None),
        ("transfer: gzip", transfer("gzip", &two), Some("second")),
        ("transfer: x-gzip, members", transfer("X-GZIP", &both), Some("first, second")),
        ("transfer: cut", transfer("gzip", &two[..two.len() - 1]), None),
        ("transfer: identity", transfer("identity", b"second"), Some("second")),
        ("transfer: chunked twice", transfer("chunked", &chunked(&[b"second"])), None),
        ("transfer: another one", transfer("deflate", &two), None),
        // Only spaces and tabs may stand around a coding. hyper takes these for no chunks.
        ("transfer: a wide space", raw("transfer-encoding: chunked\u{a0}", chunked(&[b"second"])), None),
        ("transfer: a member of a wide space", transfer("\u{2003}", b"second"), None),
        ("a wide space", content("\u{a0}gzip", &two), None),
        ("transfer: until the end", raw("transfer-encoding: gzip", two.clone()), Some("second")),
        ("transfer: chunked is not last", raw("transfer-encoding: chunked, gzip", two.clone()), None),
        (
            "transfer and content",
            raw("content-encoding: gzip\ntransfer-encoding: gzip, chunked", chunked(&[&twice])),
            Some("second"),
        ),
        ("a length, too", raw("transfer-encoding: chunked\ncontent-length: 3", chunked(&[b"second"])), Some("second")),
        ("a length, and no chunks", open("transfer-encoding: identity\ncontent-length: 6"), None),
        ("a length, and no transfer coding", open("transfer-encoding: \ncontent-length: 6"), None),
    ] {
        let mut bed = Bed::new(Upstream::start(), &[("UPSTREAM_MAX_ATTEMPTS", "1")]).await;
        bed.upstream.then(behaviour).always(Answer::ok("nothing was stored"));
        let answer = bed.get(&[]).await?;
        let body = if answer.status == 200 { answer.body.clone() } else { answer.problem() };
        let unusable = (502, "upstream-unreachable");
        expect(case, &(answer.status, body.as_str()), &expected.map_or(unusable, |body| (200, body)))?;
        expect(case, &bed.get(&[]).await?.body.as_str(), &expected.unwrap_or("nothing was stored"))?;
    }
    Ok(())
}

/// Up to a thousand lines, and a quarter of a megabyte.
async fn a_head_may_have_many_lines() -> Outcome {
    let answer = |lines: usize, bytes: usize| {
        (0..lines).fold(first("no-store"), |answer, line| answer.header(&format!("x-{line}"), "x".repeat(bytes)))
    };
    let mut bed = Bed::new(Upstream::start(), &[("UPSTREAM_MAX_ATTEMPTS", "1")]).await;
    for (lines, bytes, status) in [(200, 20, 200), (990, 20, 200), (1001, 20, 502), (200, 1000, 200), (200, 2000, 502)]
    {
        bed.upstream.always(answer(lines, bytes));
        expect(&format!("{lines} lines of {bytes} bytes"), &bed.get(&[]).await?.status, &status)?;
    }
    // Informational responses before it: RFC 9110, section 15.2.
    let hint = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
    let body = "x".repeat(900_000);
    let response = format!("HTTP/1.1 200 OK\r\ncache-control: no-store\r\ncontent-length: 900000\r\n\r\n{body}");
    for (hints, status) in [(1, 200), (1000, 200), (100_000, 502)] {
        let bytes = [hint.repeat(hints), response.clone()].concat().into_bytes().into();
        bed.upstream.always(Behaviour::Raw { bytes, close: false });
        expect(&format!("after {hints} informational responses"), &bed.get(&[]).await?.status, &status)?;
    }
    Ok(())
}

fn signal(name: &str, process: &Function) -> Outcome {
    let kill = Command::new("kill").arg(format!("-{name}")).arg(process.id().to_string()).status();
    kill.is_ok_and(|status| status.success()).then_some(()).ok_or_else(|| format!("SIG{name} could not be sent"))
}

async fn memory_stays_flat() -> Outcome {
    const BODY: usize = 1 << 20;
    let size = BODY.to_string();
    let mut bed = Bed::new(Upstream::start(), &[("UPSTREAM_MAX_BODY_BYTES", &size)]).await;
    bed.upstream.always(Answer::ok("x".repeat(BODY)).cache_control("max-age=0"));
    let mut early = 0;
    for number in 1..=1000 {
        expect("body", &bed.get(&[]).await?.body.len(), &BODY)?;
        if number == 200 {
            early = peak_kib(&bed.fetch);
        }
    }
    let late = peak_kib(&bed.fetch);
    // The allocator adds noise, but keeping one body in a hundred would add more than this: 8 bodies.
    if late > early + 6 * BODY / 1024 {
        Err(format!("{early} KiB after 200 bodies, {late} KiB after 1000"))
    } else {
        Ok(())
    }
}

fn peak_kib(process: &Function) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).expect("a running process");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    peak.trim().trim_end_matches(" kB").parse().expect("a number")
}

async fn a_stored_response_is_validated() -> Outcome {
    let mut bed = Bed::new(Upstream::start(), &[]).await;
    bed.upstream.always(first("max-age=0").etag("\"1\""));
    expect("cache-status", &bed.get(&[]).await?.header("cache-status"), &"fetch; fwd=miss; fwd-status=200")?;
    let answer = bed.get(&[]).await?;
    expect("body", &answer.body, &"first".to_owned())?;
    expect("cache-status", &answer.header("cache-status"), &"fetch; fwd=stale; fwd-status=304")?;
    let answer = bed.get(&[("if-none-match", "\"1\"")]).await?;
    expect("status", &(answer.status, answer.body.as_str()), &(304, ""))?;
    expect("etag", &answer.header("etag"), &"\"1\"")?;
    let sent = bed.upstream.requests();
    expect("the first request's condition", &sent[0].header("if-none-match"), &None)?;
    expect("the second request's condition", &sent[1].header("if-none-match"), &Some("\"1\""))
}

async fn retry_after_is_waited_for() -> Outcome {
    let mut bed = Bed::new(Upstream::start(), &[]).await;
    bed.upstream.then(Answer::status(503).retry_after(1)).always(Answer::ok("good"));
    expect("answer", &bed.get(&[]).await?.body, &"good".to_owned())?;
    let calls = bed.upstream.requests();
    let waited = calls[1].at - calls[0].at;
    (waited >= Duration::from_secs(1)).then_some(()).ok_or_else(|| format!("waited {waited:?}"))
}

async fn redirects_stay_on_the_origin() -> Outcome {
    let mut bed = Bed::new(Upstream::start(), &[]).await;
    let redirects = |upstream: &Upstream, hops: usize| {
        for hop in 0..hops {
            upstream.then(Behaviour::redirect(302, format!("/{hop}")));
        }
    };
    bed.upstream.always(Answer::ok("at the end"));
    redirects(&bed.upstream, 3);
    expect("after three redirects", &bed.get(&[]).await?.body, &"at the end".to_owned())?;
    redirects(&bed.upstream, 4);
    expect("after four", &bed.get(&[]).await?.problem(), &"upstream-error".to_owned())?;

    let other = Upstream::start();
    bed.upstream.always(Behaviour::redirect(302, other.url("/")));
    expect("to another origin", &bed.get(&[]).await?.problem(), &"upstream-error".to_owned())?;
    let before = bed.upstream.calls();
    bed.upstream.always(Behaviour::redirect(302, format!("/{}", "x".repeat(1 << 16))));
    expect("to what is too long", &bed.get(&[]).await?.problem(), &"upstream-error".to_owned())?;
    expect("calls for that", &(bed.upstream.calls() - before), &1)?;
    let mut bed = Bed::new(Upstream::start_tls(Certificate::Valid), &[]).await;
    expect("over TLS", &bed.get(&[]).await?.status, &200)?;
    bed.upstream.always(Behaviour::redirect(302, other.url("/")));
    expect("from https to http", &bed.get(&[]).await?.problem(), &"upstream-error".to_owned())?;
    expect("calls of the other origin", &other.calls(), &0)
}

async fn nothing_of_the_caller_reaches_the_upstream() -> Outcome {
    let mut bed = Bed::new(Upstream::start(), &[]).await;
    let planted = [
        ("authorization", "Bearer planted"),
        ("cookie", "planted=1"),
        ("x-forwarded-for", "192.0.2.77"),
        ("cache-control", "no-cache"),
        ("host", "planted.example.com"),
        ("user-agent", "planted"),
        ("if-none-match", "planted"),
    ];
    bed.get(&planted).await?;
    let request = &bed.upstream.requests()[0];
    expect("target", &request.target.as_str(), &"/")?;
    let mut names: Vec<&str> = request.headers.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    expect(
        "headers",
        &names,
        &vec!["accept", "accept-encoding", "host", "traceparent", "user-agent", "x-amzn-trace-id"],
    )?;
    expect("user agent", &request.header("user-agent"), &Some(concat!("fetch/", env!("CARGO_PKG_VERSION"))))
}

async fn only_allowed_headers_reach_the_caller() -> Outcome {
    let mut bed = Bed::new(Upstream::start(), &[]).await;
    let answer = Answer::ok("good")
        .header("content-type", "text/plain")
        .header("content-language", "en")
        .header("set-cookie", "planted=1")
        .header("server", "planted")
        .header("keep-alive", "timeout=5")
        .header("x-request-id", "planted")
        .header("access-control-allow-origin", "*");
    bed.upstream.always(answer);
    let answer = bed.get(&[]).await?;
    let names: Vec<&str> = answer.headers.keys().map(String::as_str).collect();
    let expected = [
        "age",
        "cache-control",
        "cache-status",
        "content-language",
        "content-type",
        "x-content-type-options",
        "x-request-id",
    ];
    expect("headers", &names, &expected.to_vec())?;
    expect("values with `planted`", &answer.headers.values().filter(|value| value.contains("planted")).count(), &0)
}

/// Lambda's deadline is earlier than the setting's, so a stale response stands in before Lambda ends the invocation.
async fn lambdas_deadline_counts() -> Outcome {
    let mut bed = Bed::new(Upstream::start(), &[]).await;
    bed.upstream.then(first("max-age=0")).always(Behaviour::Silent);
    bed.get(&[]).await?;
    let invocation = Invocation::get("/fetch", &[]).with_timeout(Duration::from_millis(700));
    let answer = HttpAnswer::try_from(bed.fetch.invoke(&invocation).await)?;
    expect("body", &answer.body, &"first".to_owned())
}

/// The setting's limit is earlier than those of an attempt and of Lambda.
async fn the_time_limit_of_a_request_counts() -> Outcome {
    let long = ("UPSTREAM_ATTEMPT_TIMEOUT_MS", "900000");
    let mut bed = Bed::new(Upstream::start(), &[("UPSTREAM_TIMEOUT_MS", "1000"), long]).await;
    bed.upstream.always(Behaviour::Silent);
    let invocation = Invocation::get("/fetch", &[]).with_timeout(Duration::from_mins(15));
    let outcome = timeout(Duration::from_mins(1), bed.fetch.invoke(&invocation)).await;
    let answer = HttpAnswer::try_from(outcome.map_err(|_| "no answer")?)?;
    expect("answer", &(answer.status, answer.problem().as_str()), &(504, "upstream-timeout"))?;
    expect("calls", &bed.upstream.calls(), &1)
}

/// `cargo lambda watch` sends such a deadline: ten minutes after the start of 1970.
async fn a_deadline_in_the_past_is_ignored() -> Outcome {
    let mut bed = Bed::new(Upstream::start(), &[]).await;
    let invocation = Invocation { deadline_ms: 600_000, ..Invocation::get("/fetch", &[]) };
    let answer = HttpAnswer::try_from(bed.fetch.invoke(&invocation).await)?;
    expect("status", &answer.status, &200)
}

/// Text in another charset than UTF-8 is not converted.
async fn a_body_is_passed_byte_for_byte() -> Outcome {
    let mut bed = Bed::new(Upstream::start(), &[]).await;
    for content_type in ["text/plain; charset=iso-8859-1", "application/octet-stream"] {
        bed.upstream.always(Answer::ok(&b"caf\xe9"[..]).header("content-type", content_type));
        let answer = bed.get(&[]).await?;
        expect("content type", &answer.header("content-type"), &content_type)?;
        // The byte is not UTF-8, and must arrive unchanged.
        expect("body", &answer.body, &"caf\u{fffd}".to_owned())?;
    }
    Ok(())
}

async fn without_an_upstream_it_is_misconfigured() -> Outcome {
    let mut bed = Bed::new(Upstream::start(), &[("UPSTREAM_URL", "http://planted.example.com")]).await;
    let answer = bed.get(&[]).await?;
    expect("answer", &(answer.status, answer.problem().as_str()), &(500, "misconfigured"))?;
    let setting = Endpoint::tested().setting("UPSTREAM_URL");
    if answer.body.contains("UPSTREAM") || answer.body.contains(&setting) {
        return Err(format!("the caller was told: {}", answer.body));
    }
    let log = bed.fetch.terminate().await.join("\n");
    if !log.contains(&setting) || log.contains("planted") {
        return Err(format!("the log is {log}"));
    }
    Ok(())
}

async fn the_host_may_be_a_name() -> Outcome {
    let upstream = Upstream::start_tls(Certificate::Valid);
    let url = upstream.url("/").replace("127.0.0.1", "localhost");
    let mut bed = Bed::new(upstream, &[("UPSTREAM_URL", &url)]).await;
    expect("status", &bed.get(&[]).await?.status, &200)
}

/// This must work although the function is linked statically, and so cannot use the machine's C library. The first
/// query is lost, as a datagram may be. A name need not be a host name of RFC 952.
async fn names_are_resolved_by_dns() -> Outcome {
    for (name_server, name, expected) in [
        ("127.77.0.52", "upstream.test", (200, "")),
        ("127.77.0.53", "nobody.test", (502, "upstream-unreachable")),
        ("127.77.0.56", "up_stream.test", (200, "")),
    ] {
        let Some(mut bed) = named(name_server, name, "4000", |number, query| {
            let address = query.is_for_upstream().then_some(LOOPBACK);
            (number > 0).then(|| at_once(dns_response(query, address)))
        })
        .await?
        else {
            return Ok(());
        };
        let answer = bed.get(&[]).await?;
        expect(name, &(answer.status, answer.problem().as_str()), &expected)?;
    }
    Ok(())
}

/// Without a name server: nothing answers at that address.
async fn names_are_found_in_etc_hosts() -> Outcome {
    let Some(command) = with_file("/etc/hosts", "127.0.0.1 a.test UP_stream.test # 127.0.0.2\n")? else {
        return Ok(());
    };
    let upstream = Upstream::start_tls(Certificate::Valid);
    let url = upstream.url("/").replace("127.0.0.1", "up_stream.test");
    let mut bed = Bed::run(command, upstream, &[("UPSTREAM_MAX_ATTEMPTS", "1"), ("UPSTREAM_URL", &url)]).await;
    expect("status", &bed.get(&[]).await?.status, &200)
}

/// If it does not respond for the other family, that must not use up the time. An attempt has less time than it takes
/// to repeat a query, and to wait for the response to that.
async fn a_name_server_may_know_only_one_family() -> Outcome {
    for (name_server, address, attempt_timeout) in [("127.77.0.54", LOOPBACK, "450"), ("127.77.0.57", MAPPED, "900")] {
        if !has_route(address) {
            println!("skipped: {address}, as this machine has no IPv6");
            continue;
        }
        let bed = named(name_server, "upstream.test", attempt_timeout, move |_, query| {
            (query.is_for_v4() == address.is_ipv4()).then(|| at_once(dns_response(query, Some(address))))
        });
        let Some(mut bed) = bed.await? else { return Ok(()) };
        expect(&address.to_string(), &bed.get(&[]).await?.status, &200)?;
    }
    Ok(())
}

/// The IPv6 address comes first, but nobody can be reached there.
async fn an_ipv4_address_may_come_late() -> Outcome {
    let nowhere = IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]);
    for (name_server, v6, requests) in
        [("127.77.0.58", nowhere, 1), ("127.77.0.59", IpAddr::from(Ipv6Addr::LOCALHOST), 8)]
    {
        if requests == 1 && has_route(v6) {
            println!("skipped: {v6}, as this machine has IPv6");
            continue;
        }
        let bed = named(name_server, "upstream.test", "4000", move |_, query| {
            let (delay, address) = if query.is_for_v4() { (400, LOOPBACK) } else { (0, v6) };
            Some((Duration::from_millis(delay), dns_response(query, Some(address))))
        });
        let Some(mut bed) = bed.await? else { return Ok(()) };
        let mut last = 0;
        for _ in 0..requests {
            last = bed.get(&[]).await?.status;
            if last == 200 {
                break;
            }
            sleep(Duration::from_millis(300)).await;
        }
        expect(&v6.to_string(), &last, &200)?;
    }
    Ok(())
}

/// The zone says that the name is missing for an hour.
async fn a_missing_name_may_appear_later() -> Outcome {
    let exists = Arc::new(AtomicBool::new(false));
    let exists_now = Arc::clone(&exists);
    let responds = move |_, query: &Query| {
        let address = exists_now.load(Ordering::Relaxed).then_some(LOOPBACK);
        Some(at_once(dns_response(query, address)))
    };
    let Some(mut bed) = named("127.77.0.55", "upstream.test", "4000", responds).await? else { return Ok(()) };
    expect("while it is missing", &bed.get(&[]).await?.problem(), &"upstream-unreachable".to_owned())?;
    exists.store(true, Ordering::Relaxed);
    // Few enough attempts that the failures do not open the circuit breaker.
    for _ in 0..8 {
        if bed.get(&[]).await?.status == 200 {
            return Ok(());
        }
        sleep(Duration::from_millis(300)).await;
    }
    Err("it is still missing".into())
}

/// Starts `fetch` with an upstream of this name and a name server at this address. Prints a line and returns `None` if
/// there can be no name server, which takes root's rights.
async fn named(
    name_server: &str,
    name: &str,
    attempt_timeout: &str,
    responds: impl Fn(usize, &Query) -> Option<(Duration, Vec<u8>)> + Send + 'static,
) -> Result<Option<Bed>, String> {
    let Some(command) = with_file("/etc/resolv.conf", &format!("nameserver {name_server}\n"))? else { return Ok(None) };
    let socket = UdpSocket::bind((name_server, 53)).await.map_err(|error| format!("{name_server}: {error}"))?;
    tokio::spawn(async move {
        let mut query = [0; 512];
        let socket = Arc::new(socket);
        for number in 0.. {
            let (length, client) = socket.recv_from(&mut query).await?;
            if let Some((delay, response)) = responds(number, &Query(query[..length].to_vec())) {
                let socket = Arc::clone(&socket);
                tokio::spawn(async move {
                    sleep(delay).await;
                    socket.send_to(&response, client).await
                });
            }
        }
        Ok::<_, std::io::Error>(())
    });
    let upstream = Upstream::start_tls(Certificate::Valid);
    let url = upstream.url("/").replace("127.0.0.1", name);
    let env = [
        ("UPSTREAM_TIMEOUT_MS", "5000"),
        ("UPSTREAM_ATTEMPT_TIMEOUT_MS", attempt_timeout),
        ("UPSTREAM_MAX_ATTEMPTS", "1"),
        ("UPSTREAM_URL", &url),
    ];
    Ok(Some(Bed::run(command, upstream, &env).await))
}

/// The command that executes `fetch` where the file at `path` has this `text`. Prints a line and returns `None` if there
/// can be no such file, which takes root's rights.
fn with_file(path: &str, text: &str) -> Result<Option<Command>, String> {
    static FILES: AtomicUsize = AtomicUsize::new(0);
    let unshare = Command::new("unshare").args(["--mount", "true"]).output();
    if !unshare.is_ok_and(|unshare| unshare.status.success()) {
        println!("skipped: a {path} of the test's own, which takes root's rights");
        return Ok(None);
    }
    let number = FILES.fetch_add(1, Ordering::Relaxed);
    let file = std::env::temp_dir().join(format!("fetch-test-{}-{number}", std::process::id()));
    fs::write(&file, text).map_err(|error| error.to_string())?;
    let mut command = Command::new("unshare");
    let replace = r#"mount --bind "$0" "$1" && rm "$0" && exec "$2""#;
    command.args(["--mount", "sh", "-c", replace]).arg(&file).arg(path).arg(Endpoint::tested().executable());
    Ok(Some(command))
}

/// A DNS message with one question (RFC 1035, section 4).
struct Query(Vec<u8>);

impl Query {
    const A: [u8; 4] = [0, 1, 0, 1];

    /// The name, and the type and class of the question.
    fn question(&self) -> (&[u8], &[u8]) {
        let question = &self.0[12..];
        let name = question.iter().position(|byte| *byte == 0).expect("a name ends in an empty label") + 1;
        (&question[..name], &question[name..name + 4])
    }

    fn is_for_upstream(&self) -> bool {
        let name = self.question().0.to_ascii_lowercase();
        [&b"\x08upstream\x04test\0"[..], b"\x09up_stream\x04test\0"].contains(&&*name)
    }

    fn is_for_v4(&self) -> bool {
        self.question().1 == Self::A
    }
}

/// Where the upstream listens.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// The same place, reached by IPv6.
const MAPPED: IpAddr = IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped());

fn has_route(address: IpAddr) -> bool {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    std::net::UdpSocket::bind((any, 0)).and_then(|socket| socket.connect((address, 443))).is_ok()
}

fn at_once(response: Vec<u8>) -> (Duration, Vec<u8>) {
    (Duration::ZERO, response)
}

/// If the name exists, this is its address. It has no address of the other family.
fn dns_response(query: &Query, address: Option<IpAddr>) -> Vec<u8> {
    let (name, kind) = query.question();
    let (id, no_such_name) = (&query.0[..2], if address.is_some() { 0x80 } else { 0x83 });
    let data = address.filter(|address| address.is_ipv4() == query.is_for_v4()).map(|address| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    });
    let counts = [0, 1, 0, data.is_some().into(), 0, data.is_none().into(), 0, 0];
    let mut response = [id, &[0x81, no_such_name], &counts, name, kind].concat();
    if let Some(data) = data {
        let length = u8::try_from(data.len()).expect("4 or 16");
        response.extend([&[0xc0, 12], kind, &[0, 0, 0, 60, 0, length], &*data].concat());
    } else {
        // The zone's own record (SOA): nothing else is here, for an hour.
        let (soa, hour) = ([0, 6, 0, 1], [0, 0, 14, 16]);
        let data = [&[0, 0][..], &[0; 16], &hour].concat();
        response.extend([&[0xc0, 12], &soa[..], &hour, &[0, 22], &data].concat());
    }
    response
}

/// The line names the file and what is wrong with it.
async fn an_unusable_ca_file_is_a_misconfiguration() -> Outcome {
    for setting in ["UPSTREAM_CA_FILE", "SSL_CERT_FILE"] {
        let env = [("UPSTREAM_CA_FILE", ""), (setting, "/missing.pem"), ("UPSTREAM_URL", "https://127.0.0.1")];
        let mut bed = Bed::new(Upstream::start(), &env).await;
        let answer = bed.get(&[]).await?;
        expect(setting, &(answer.status, answer.problem().as_str()), &(500, "misconfigured"))?;
        let lines = lines(bed).await;
        let error = lines[0]["error"].as_str().unwrap_or_default();
        let setting = Endpoint::tested().setting(setting);
        if !error.contains(&format!("the file of {setting} (/missing.pem) cannot be read: No such file")) {
            return Err(error.to_owned());
        }
    }
    Ok(())
}

/// The AWS clients, too. The functions' way out is the VPC's.
async fn proxies_are_ignored() -> Outcome {
    let secrets_manager = Upstream::start_tls(Certificate::Valid);
    secrets_manager.always(Answer::ok(r#"{"SecretString":"tok"}"#));
    let (endpoint, ca_file) = (secrets_manager.url(""), secrets_manager.ca_file().expect("TLS").to_string_lossy());
    let proxy = "http://127.0.0.1:1";
    let mut env = aws(&endpoint).to_vec();
    env.extend([("UPSTREAM_SECRET_ID", "token"), ("SSL_CERT_FILE", &*ca_file)]);
    env.extend(
        ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"].map(|name| (name, proxy)),
    );
    let mut bed = Bed::new(Upstream::start_tls(Certificate::Valid), &env).await;
    expect("status", &bed.get(&[]).await?.status, &200)?;
    expect("token", &bed.upstream.requests()[0].header("authorization"), &Some("Bearer tok"))
}

/// It is loaded once, and the load goes on when its request has ended.
async fn a_secret_may_take_longer_than_a_request() -> Outcome {
    let secrets_manager = Upstream::start();
    secrets_manager.always(Behaviour::late(Duration::from_millis(800), Answer::ok(r#"{"SecretString":"tok"}"#)));
    let endpoint = secrets_manager.url("");
    let mut env = aws(&endpoint).to_vec();
    env.extend([("UPSTREAM_SECRET_ID", "token"), ("UPSTREAM_TIMEOUT_MS", "250")]);
    let mut bed = Bed::new(Upstream::start(), &env).await;
    let mut statuses = Vec::new();
    while statuses.len() < 6 && statuses.last() != Some(&200) {
        statuses.push(bed.get(&[]).await?.status);
    }
    expect("the last answer", &statuses.last(), &Some(&200))?;
    expect("loads", &secrets_manager.calls(), &1)?;
    expect("token", &bed.upstream.requests()[0].header("authorization"), &Some("Bearer tok"))
}

/// The settings for AWS clients that call this endpoint.
fn aws(endpoint: &str) -> [(&str, &str); 4] {
    [
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_REGION", "us-east-1"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
    ]
}

/// Checks that the table in the docs matches these faults.
fn table() -> Outcome {
    let mut table = String::from(
        "| the upstream … | nothing stored | stale response stored | calls |\n| --- | --- | --- | --- |\n",
    );
    for Fault { name, status, what, calls, allows_stale, .. } in Fault::all() {
        let answer = if status == 200 { "200, its body".to_owned() } else { format!("{status} `{what}`") };
        let stale = if allows_stale { "200, the stored response" } else { "the same" };
        writeln!(table, "| {name} | {answer} | {stale} | {calls} |").expect("a string takes it");
    }
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/upstream.md");
    let text = fs::read_to_string(&docs).map_err(|error| error.to_string())?;
    text.contains(&table).then_some(()).ok_or_else(|| format!("docs/upstream.md must have this table:\n\n{table}"))
}
