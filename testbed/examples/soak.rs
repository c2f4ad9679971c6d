//! `make soak`: many mixed invocations through the packaged functions. Every answer is checked, and memory and open
//! files must not grow.
//!
//! The argument is the number of invocations (default: 200,000). `SOAK_SEED` repeats the same invocations.

#![expect(clippy::expect_used, reason = "a tool that cannot go on panics, and says why")]

use std::{
    env,
    process::{Command, ExitCode},
    time::Duration,
};

use arbitrary::Unstructured;
use fastrand::Rng;
use testbed::{
    Case, Function, Invocation, InvocationResult, Usage, functions, has_items, has_upstream, packaged,
    property::{changed_event, check_result},
    settings,
    upstream::{Answer, Behaviour, IdleEnd, Upstream},
    upstreams,
};

/// How often a process is measured.
const SAMPLES: usize = 10;

/// The status of a bug, which no answer may have.
const BUG: u16 = 500;

#[tokio::main]
async fn main() -> ExitCode {
    let invocations: usize =
        env::args().nth(1).map_or(200_000, |number| number.parse().expect("a number of invocations"));
    let seed = env::var("SOAK_SEED").ok().map_or_else(|| fastrand::u64(..), |seed| seed.parse().expect("a number"));
    println!("SOAK_SEED={seed}\n");
    let mut random = Rng::with_seed(seed);
    let mut grown = false;
    // Most can go wrong with an upstream.
    let weight = |function: &String| if has_upstream(function) { 2 } else { 1 };
    let functions = functions();
    let all: usize = functions.iter().map(weight).sum();
    for function in &functions {
        for at_a_time in [1, 16] {
            grown |= soak(function, at_a_time, invocations * weight(function) / all / 2, &mut random).await;
        }
    }
    if grown { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Sends a function this many invocations. Returns whether it has grown.
async fn soak(function: &str, at_a_time: usize, invocations: usize, random: &mut Rng) -> bool {
    let upstream = Upstream::start();
    let mut settings = settings(function, &upstream);
    for name in upstreams(function) {
        let of_each = [("ATTEMPT_TIMEOUT_MS", "50"), ("TIMEOUT_MS", "200")];
        settings.extend(of_each.map(|(setting, value)| (format!("{name}_{setting}"), value.to_owned())));
    }
    let concurrency = at_a_time.to_string();
    let mut variables: Vec<_> = settings.iter().map(|(name, value)| (&**name, &**value)).collect();
    if at_a_time > 1 {
        variables.push(("AWS_LAMBDA_MAX_CONCURRENCY", &concurrency));
    }
    let mut process = Function::start(&packaged(function), &variables).await;
    let cases = Case::all(function);
    println!("{function}, {at_a_time} at a time\n\n| invocations | answers | failures | resident, MB | open files |");
    println!("| ---: | ---: | ---: | ---: | ---: |");
    let statuses: Vec<u16> = (200..600).filter(|status| *status != BUG).collect();
    let (mut answers, mut failures) = (0, 0);
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        for _ in 0..invocations / SAMPLES / at_a_time {
            upstream.always(weather(random));
            let batch: Vec<(Option<&Case>, Invocation)> = (0..at_a_time).map(|_| made_up(&cases, random)).collect();
            let events: Vec<Invocation> = batch.iter().map(|(_, invocation)| invocation.clone()).collect();
            for ((case, invocation), outcome) in batch.iter().zip(process.invoke_all(&events).await) {
                match outcome {
                    InvocationResult::Response(_) | InvocationResult::Stream(_) => answers += 1,
                    InvocationResult::Error(_) => failures += 1,
                }
                // With an upstream, the answer depends on the weather, and with tables, on what came before.
                match case.filter(|_| !has_upstream(function) && !has_items(function)) {
                    Some(case) => {
                        let checked = case.check(invocation, &outcome);
                        checked.unwrap_or_else(|difference| panic!("{}: {difference}", case.name));
                    }
                    None => check_result(&invocation.payload, &outcome, &statuses),
                }
            }
            if random.u8(..) == 0 {
                freeze(&process, &upstream).await;
            }
        }
        let usage = Usage::of(process.id());
        #[expect(clippy::cast_precision_loss, reason = "megabytes")]
        let resident = usage.resident as f64 / 1e6;
        println!("| {} | {answers} | {failures} | {resident:.2} | {} |", answers + failures, usage.open_files);
        samples.push(usage);
    }
    println!();
    // By then, everything that is allocated only once exists, such as the buffers for the longest bodies.
    let (early, late) = (&samples[SAMPLES / 2 - 1], &samples[SAMPLES - 1]);
    let grown = late.resident > early.resident + early.resident / 10 || late.open_files > early.open_files + 2;
    if grown {
        println!("{function} has grown: {early:?}, then {late:?}\n");
    }
    process.terminate().await;
    grown
}

/// A case of events/, a changed one, or text that is not an event at all.
fn made_up<'a>(cases: &'a [Case], random: &mut Rng) -> (Option<&'a Case>, Invocation) {
    if random.bool() {
        let case = &cases[random.usize(..cases.len())];
        return (Some(case), case.invocation());
    }
    let bytes: Vec<u8> = (0..random.usize(..512)).map(|_| random.u8(..)).collect();
    let event = changed_event(&mut Unstructured::new(&bytes));
    (None, Invocation::new(event.unwrap_or(bytes)))
}

/// What the upstream does next: mostly a good answer, sometimes a fault.
fn weather(random: &mut Rng) -> Behaviour {
    let good = Answer::ok("x".repeat(random.usize(..10_000))).etag("\"1\"");
    match random.u8(..40) {
        0 => Answer::status(503).into(),
        1 => Answer::status(503).retry_after(0).into(),
        2 => Answer::status(404).into(),
        3 => Behaviour::ResetMidBody,
        4 => Behaviour::ResetAtConnect,
        5 => Behaviour::Truncate,
        6 => Behaviour::MalformedHeaders,
        7 => Behaviour::CloseIdle(good),
        8 if random.u8(..20) == 0 => Behaviour::Silent,
        9..20 => good.cache_control("max-age=0").into(),
        20..30 => good.cache_control("no-store").into(),
        30..35 => good.cache_control("max-age=0, stale-while-revalidate=60").into(),
        _ => good.cache_control("max-age=1").into(),
    }
}

/// Stops the process, as Lambda does between invocations, closes the connections that it kept open, and lets it go on.
async fn freeze(process: &Function, upstream: &Upstream) {
    let signal = |name: &str| {
        let kill = Command::new("kill").arg(format!("-{name}")).arg(process.id().to_string()).status();
        assert!(kill.is_ok_and(|status| status.success()), "SIG{name} could not be sent");
    };
    signal("STOP");
    upstream.end_idle_connections(IdleEnd::Close).await;
    tokio::time::sleep(Duration::from_millis(2)).await;
    signal("CONT");
}
