//! Compares the functions with the bare runtime, minimal functions, and other languages: `make bench`.
//!
//! Each candidate runs as on Lambda, as a process with a Runtime API, and is measured from outside. The candidates take
//! turns, in a different order each time, so that other work of the machine affects all of them. `cargo test` runs
//! everything once, without keeping the figures.

#![expect(clippy::expect_used, reason = "a bench that cannot go on panics, and says why")]
#![expect(clippy::cast_precision_loss, reason = "counts and bytes are far below 2^52")]

mod candidate;
mod cores;
mod fetch;
mod lambda;
mod plot;
mod report;
mod share;
mod spread;
mod upstream;

use std::{env, fs, path::Path, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use testbed::budget;
use tokio::{runtime::Builder, task::LocalSet};

use candidate::Candidate;
use lambda::Function;
use report::{Report, Row};
use spread::Spread;
use upstream::Threaded;

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
    let report = LocalSet::new().block_on(&runtime, measure(full));
    report.print();
    if full {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench");
        let json = serde_json::to_string_pretty(&report).expect("a report has nothing that JSON lacks");
        fs::write(folder.join("results.json"), json + "\n").expect("the folder target/bench");
        println!("\nwritten: target/bench/results.json, performance-light.svg and performance-dark.svg");
    }
    plot::draw(&report, full);
}

async fn measure(full: bool) -> Report {
    // Up to 1,769 MB, a Lambda function has at most one core. On one core, the result does not depend on which one wakes up.
    let cores = cores::allowed();
    cores::keep_to(cores::last(&cores));
    let effort = if full { FULL } else { ONCE };
    let mut candidates = Candidate::ours();
    if full {
        candidates.extend(Candidate::others());
    }
    let shared = share::measure(&candidates, effort, &ProgressBar::hidden()).await;
    let steps = candidates.len() * (effort.starts + effort.batches) + fetch::STEPS;
    let progress = ProgressBar::new(steps as u64);
    progress.set_style(ProgressStyle::with_template("{msg:24} {wide_bar} {eta}").expect("a template"));
    let mut rows = measure_candidates(&candidates, effort, &progress).await;
    let fetch = candidates.iter().find(|candidate| candidate.name == "fetch").expect("a function of this name");
    let fetch = fetch::measure(fetch, effort, &cores, &progress).await;
    progress.finish_and_clear();
    if full {
        for row in rows.iter_mut().filter(|row| row.ours) {
            row.counts = budget::cost(&row.name).await;
        }
    }
    Report { shared, rows, fetch }
}

async fn measure_candidates(candidates: &[Candidate], effort: Effort, progress: &ProgressBar) -> Vec<Row> {
    let tls = Threaded::start("no-store", true);
    let plain = Threaded::start("max-age=3600", false);
    let mut starts: Vec<Starts> = candidates.iter().map(|_| Starts::default()).collect();
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..effort.starts {
        // The kernel is still clearing away the previous candidate, so each one should follow a different one each time.
        random.shuffle(&mut order);
        for &at in &order {
            let candidate = &candidates[at];
            progress.set_message(format!("{}: start", candidate.name));
            let env = tls.settings(&candidate.function);
            starts[at].measure(candidate, &env).await;
            progress.inc(1);
        }
    }
    let mut functions = Vec::new();
    for candidate in candidates {
        let env = plain.settings(&candidate.function);
        functions.push((Function::start(candidate, &env).await.0, Warm::default()));
    }
    // The first batch warms up.
    for batch in 0..=effort.batches {
        random.shuffle(&mut order);
        for &at in &order {
            let (function, warm) = &mut functions[at];
            progress.set_message(format!("{}: warm", candidates[at].name));
            let measured = Warm::measure(function, effort.batch).await;
            if batch > 0 {
                warm.add(measured);
                progress.inc(1);
            }
        }
    }
    let rows = candidates.iter().zip(starts).zip(functions);
    rows.map(|((candidate, starts), (function, warm))| row(candidate, &starts, &warm, &function)).collect()
}

/// A candidate's starts, one value for each start.
#[derive(Default)]
struct Starts {
    first_poll: Vec<Duration>,
    first_poll_cpu: Vec<Duration>,
    first_answer: Vec<Duration>,
    first_answer_cpu: Vec<Duration>,
    faults: Vec<f64>,
    resident: Vec<f64>,
    resident_after_answer: Vec<f64>,
}

impl Starts {
    async fn measure(&mut self, candidate: &Candidate, env: &[(String, String)]) {
        let (function, first_poll) = Function::start(candidate, env).await;
        let polled = function.usage();
        // The time between the first poll and this event is not the function's.
        let answers = function.invoke(1).await;
        let answered = function.usage();
        self.first_poll.push(first_poll);
        self.first_poll_cpu.push(polled.cpu);
        self.first_answer.push(first_poll + answers[0]);
        self.first_answer_cpu.push(answered.cpu);
        self.faults.push((answered.minor_faults + answered.major_faults) as f64);
        self.resident.push(polled.resident as f64);
        self.resident_after_answer.push(answered.resident as f64);
    }
}

/// Warm invocations of a candidate.
#[derive(Default)]
struct Warm {
    latencies: Vec<Duration>,
    /// Per invocation, one mean for each batch.
    cpu: Vec<Duration>,
    logged: u64,
}

impl Warm {
    async fn measure(function: &Function, invocations: usize) -> Self {
        let (cpu, logged) = (function.usage().cpu, function.logged());
        let latencies = function.invoke(invocations).await;
        let cpu = function.usage().cpu.saturating_sub(cpu) / u32::try_from(invocations).unwrap_or(u32::MAX);
        Self { latencies, cpu: vec![cpu], logged: function.logged() - logged }
    }

    fn add(&mut self, more: Self) {
        self.latencies.extend(more.latencies);
        self.cpu.extend(more.cpu);
        self.logged += more.logged;
    }
}

fn row(candidate: &Candidate, starts: &Starts, warm: &Warm, function: &Function) -> Row {
    Row {
        name: candidate.name.clone(),
        ours: candidate.ours,
        binary_bytes: fs::metadata(&candidate.executable).map_or(0, |file| file.len()),
        zip_bytes: candidate.zip_bytes,
        first_poll_us: Spread::of_times(&starts.first_poll),
        first_poll_cpu_us: Spread::of_times(&starts.first_poll_cpu),
        first_answer_us: Spread::of_times(&starts.first_answer),
        first_answer_cpu_us: Spread::of_times(&starts.first_answer_cpu),
        page_faults: Spread::of(starts.faults.iter().copied()),
        resident_bytes: Spread::of(starts.resident.iter().copied()),
        resident_after_answer_bytes: Spread::of(starts.resident_after_answer.iter().copied()),
        peak_bytes: function.usage().peak,
        warm_us: Spread::of_times(&warm.latencies),
        warm_cpu_us: Spread::of_times(&warm.cpu),
        logged_bytes: warm.logged as f64 / warm.latencies.len() as f64,
        counts: budget::Cost::new(),
    }
}
