//! Compares the functions with the bare runtime, minimal functions, and other languages: `make bench`.
//!
//! Each candidate runs as on Lambda, as a process with a Runtime API, and is measured from outside. The candidates take
//! turns, in a different order each time, so that other work of the machine affects all of them. `cargo test` runs
//! everything once, without keeping the figures. `cargo bench --bench functions -- hello lean` measures these two.

#![expect(clippy::expect_used, reason = "a bench that cannot go on panics, and says why")]
#![expect(clippy::cast_precision_loss, reason = "counts and bytes are far below 2^52")]

mod candidate;
mod fetch;
mod growth;
mod lambda;
mod report;
mod share;

use std::env;

use futures_util::future::OptionFuture;
use testbed::budget;
use tokio::{runtime::Builder, task::LocalSet};

use candidate::{Candidate, settings, start_upstream};
use lambda::Function;
use report::{Report, Row, Samples};

/// How often each thing is measured.
#[derive(Clone, Copy)]
struct Effort {
    /// Starts of each candidate.
    starts: usize,
    /// Batches of warm invocations, and how many invocations are in one.
    batches: usize,
    batch: usize,
    /// Invocations for one measurement of throughput.
    many: usize,
}

const FULL: Effort = Effort { starts: 60, batches: 100, batch: 100, many: 10_000 };
const ONCE: Effort = Effort { starts: 1, batches: 1, batch: 2, many: 64 };

fn main() {
    let full = env::args().any(|argument| argument == "--bench");
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let local = LocalSet::new();
    if env::args().any(|argument| argument == "growth") {
        return local.block_on(&runtime, growth::print());
    }
    let report = local.block_on(&runtime, measure(full));
    report.print();
    report::draw(&report, full);
}

async fn measure(full: bool) -> Report {
    // Up to 1,769 MB, a Lambda function has at most one core. On one core, the result does not depend on which one wakes up.
    let cores = share::allowed_cores();
    share::keep_to(share::last_core(&cores));
    let effort = if full { FULL } else { ONCE };
    let mut candidates = Candidate::ours();
    if full {
        candidates.extend(Candidate::others());
        let named: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
        candidates.retain(|candidate| named.is_empty() || named.contains(&candidate.name));
    }
    let shared = share::measure(&candidates, effort).await;
    let mut rows = measure_candidates(&candidates, effort).await;
    let fetch = candidates.iter().find(|candidate| candidate.name == "fetch");
    let fetch = OptionFuture::from(fetch.map(|fetch| fetch::measure(fetch, effort, &cores))).await;
    if full {
        for row in rows.iter_mut().filter(|row| row.ours) {
            row.counts = budget::cost(&row.name).await;
        }
    }
    Report { shared, rows, fetch }
}

async fn measure_candidates(candidates: &[Candidate], effort: Effort) -> Vec<Row> {
    // One for each: functions can have other answers of theirs.
    let tls: Vec<_> = candidates.iter().map(|_| start_upstream("no-store", true)).collect();
    let plain: Vec<_> = candidates.iter().map(|_| start_upstream("max-age=3600", false)).collect();
    let mut samples: Vec<Samples> = candidates.iter().map(|_| Samples::default()).collect();
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..effort.starts {
        // The kernel is still clearing away the previous candidate, so each one should follow a different one each time.
        random.shuffle(&mut order);
        for &at in &order {
            let candidate = &candidates[at];
            start(candidate, &settings(&candidate.function, &tls[at]), &mut samples[at]).await;
        }
    }
    let mut functions = Vec::new();
    for (candidate, plain) in candidates.iter().zip(&plain) {
        functions.push((Function::start(candidate, &settings(&candidate.function, plain), None).await.0, 0));
    }
    // The first batch warms up.
    for batch in 0..=effort.batches {
        random.shuffle(&mut order);
        for &at in &order {
            let (function, logged) = &mut functions[at];
            let (cpu, logged_before) = (function.usage().cpu, function.process.logged());
            let times = function.invoke(effort.batch).await;
            let cpu = function.usage().cpu.saturating_sub(cpu).div_f64(effort.batch as f64);
            if batch > 0 {
                samples[at].add_times("warm_us", &times);
                samples[at].add_times("warm_cpu_us", &[cpu]);
                *logged += function.process.logged() - logged_before;
            }
        }
    }
    let row = |((candidate, mut samples), (function, logged)): ((&Candidate, Samples), (Function, u64))| {
        samples.add("logged_bytes", logged as f64 / samples.of("warm_us").len() as f64);
        samples.add("peak_bytes", function.usage().peak as f64);
        samples.add("zip_bytes", candidate.zip_bytes as f64);
        let (name, ours) = (candidate.name.clone(), candidate.ours);
        Row { name, ours, counts: budget::Cost::new(), spreads: samples.spreads() }
    };
    candidates.iter().zip(samples).zip(functions).map(row).collect()
}

/// Measures one start of `candidate`.
async fn start(candidate: &Candidate, env: &[(String, String)], samples: &mut Samples) {
    let (function, first_poll) = Function::start(candidate, env, None).await;
    let polled = function.usage();
    // The time between the first poll and this event is not the function's.
    let answers = function.invoke(1).await;
    let answered = function.usage();
    samples.add_times("first_poll_us", &[first_poll]);
    samples.add_times("first_poll_cpu_us", &[polled.cpu]);
    samples.add_times("first_answer_us", &[first_poll + answers[0]]);
    samples.add_times("first_answer_cpu_us", &[answered.cpu]);
    samples.add("page_faults", (answered.minor_faults + answered.major_faults) as f64);
    samples.add("resident_bytes", polled.resident as f64);
    samples.add("resident_after_answer_bytes", answered.resident as f64);
}
