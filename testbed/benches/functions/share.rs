//! The functions with the share of a core that Lambda gives them, by a quota of the kernel.
//!
//! Lambda's documentation says that a function gets processor time in proportion to its memory, and that 1,769 MB are one
//! core: <https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html>. How long a slice is, and whether a start has
//! more than its share, it does not say. Both ends of both are measured.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::id,
    time::Duration,
};

use indicatif::ProgressBar;
use serde::Serialize;

use crate::{Effort, candidate::Candidate, lambda::Function, spread::Spread, upstream::Threaded};

/// One core.
const WHOLE_MB: u64 = 1769;
const MEMORY_MB: [u64; 4] = [128, 256, 512, WHOLE_MB];
/// What was seen of Lambda's slices from within, and what the kernel has by default.
const PERIODS: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(100)];
/// Python and Node.js would take minutes.
const COMPARED: [&str; 6] = ["hello", "time", "fetch", "lean", "bare", "naive"];

/// A cgroup of its own whose processes get a part of a core. It goes when its last process does.
pub(crate) struct Quota {
    folder: PathBuf,
}

impl Quota {
    /// What a function of `memory_mb` gets of each `period`.
    ///
    /// # Errors
    ///
    /// When there is no hierarchy of cgroups that may be written to.
    fn new(memory_mb: u64, period: Duration) -> io::Result<Self> {
        let period = u64::try_from(period.as_micros()).unwrap_or(u64::MAX);
        let quota = period * memory_mb / WHOLE_MB;
        let is_first = Path::new("/sys/fs/cgroup/cpu").is_dir();
        let root = Path::new(if is_first { "/sys/fs/cgroup/cpu" } else { "/sys/fs/cgroup" });
        if !is_first {
            fs::write(root.join("cgroup.subtree_control"), "+cpu")?;
        }
        let folder = root.join(format!("bench-{}-{memory_mb}-{period}", id()));
        fs::create_dir_all(&folder)?;
        let quota_of = Self { folder };
        if is_first {
            fs::write(quota_of.folder.join("cpu.cfs_period_us"), period.to_string())?;
            fs::write(quota_of.folder.join("cpu.cfs_quota_us"), quota.to_string())?;
        } else {
            fs::write(quota_of.folder.join("cpu.max"), format!("{quota} {period}"))?;
        }
        Ok(quota_of)
    }

    /// The file that takes processes.
    pub(crate) fn processes(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }

    /// In how many slices its processes had to wait for the next one.
    fn throttled(&self) -> u64 {
        let stat = fs::read_to_string(self.folder.join("cpu.stat")).unwrap_or_default();
        let line = stat.lines().find_map(|line| line.strip_prefix("nr_throttled "));
        line.and_then(|count| count.parse().ok()).unwrap_or_default()
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        let _has_processes_still = fs::remove_dir(&self.folder);
    }
}

/// A candidate with a share.
#[derive(Serialize)]
pub(crate) struct Shared {
    name: String,
    memory_mb: u64,
    period_ms: u64,
    /// From exec to the answer of the first invocation, all of it with the share.
    first_answer_us: Spread,
    /// Slices in which such a start was throttled.
    throttled: Spread,
    /// From the event to the first answer, where the share begins with the first poll.
    after_init_us: Spread,
    /// From the event to the answer, one after the other without a pause.
    warm_us: Spread,
}

/// All candidates with all shares, in turns. Empty, with a line, where there can be no quota.
pub(crate) async fn measure(candidates: &[Candidate], effort: Effort, progress: &ProgressBar) -> Vec<Shared> {
    let full = effort.starts > 1;
    let shares: Vec<(u64, Duration)> =
        MEMORY_MB.iter().flat_map(|memory| PERIODS.map(|period| (*memory, period))).collect();
    let shares = if full { &shares[..] } else { &shares[..1] };
    if let Err(error) = Quota::new(WHOLE_MB, PERIODS[0]) {
        println!("skipped: the share of a core, as no cgroup may be made here ({error})");
        return Vec::new();
    }
    let compared: Vec<&Candidate> =
        candidates.iter().filter(|candidate| COMPARED.contains(&candidate.name.as_str())).collect();
    let tls = Threaded::start("no-store", true);
    let plain = Threaded::start("max-age=3600", false);
    let mut random = fastrand::Rng::with_seed(2);
    let mut all = Vec::new();
    for (memory_mb, period) in shares.iter().copied() {
        let mut measured: Vec<[Vec<f64>; 4]> = compared.iter().map(|_| Default::default()).collect();
        let mut order: Vec<usize> = (0..compared.len()).collect();
        for _ in 0..effort.starts {
            random.shuffle(&mut order);
            for &at in &order {
                let candidate = compared[at];
                progress.set_message(format!("{}: {memory_mb} MB", candidate.name));
                let quota = Quota::new(memory_mb, period).expect("another cgroup");
                let [first, throttled, after_init, warm] = &mut measured[at];
                let env = if candidate.fetches() { tls.settings() } else { Vec::new() };
                let (function, first_poll) = Function::start_within(candidate, &env, &quota).await;
                first.push((first_poll + function.invoke(1).await[0]).as_secs_f64() * 1e6);
                throttled.push(quota.throttled() as f64);
                drop(function);
                let (function, _) = Function::start(candidate, &env).await;
                function.join(&quota);
                after_init.push(function.invoke(1).await[0].as_secs_f64() * 1e6);
                drop(function);
                let env = if candidate.fetches() { plain.settings() } else { Vec::new() };
                let (function, _) = Function::start(candidate, &env).await;
                function.invoke(1).await;
                function.join(&quota);
                warm.extend(function.invoke(effort.batch).await.iter().map(|time| time.as_secs_f64() * 1e6));
            }
        }
        all.extend(compared.iter().zip(measured).map(|(candidate, [first, throttled, after_init, warm])| Shared {
            name: candidate.name.clone(),
            memory_mb,
            period_ms: u64::try_from(period.as_millis()).unwrap_or(u64::MAX),
            first_answer_us: Spread::of(first),
            throttled: Spread::of(throttled),
            after_init_us: Spread::of(after_init),
            warm_us: Spread::of(warm),
        }));
    }
    all
}

/// A table in Markdown, and what a million requests cost by it.
pub(crate) fn print(all: &[Shared]) {
    if all.is_empty() {
        return;
    }
    println!("\nWith Lambda's share of a core, ms:\n");
    println!(
        "| MB | slice of | | exec to first answer: minimum | median | p95 | throttled slices | event to first answer: median | p95 | warm: median | p99 | $ a million |"
    );
    println!("| ---: | ---: | --- |{}", " ---: |".repeat(9));
    for shared in all {
        let Shared { name, memory_mb, period_ms, first_answer_us: first, throttled, after_init_us, warm_us } = shared;
        // A millisecond at least: https://aws.amazon.com/lambda/pricing/
        let billed_ms = (warm_us.median / 1e3).ceil();
        let dollars = 0.20 + billed_ms * 1e3 * 0.000_016_666_7 * *memory_mb as f64 / 1024.0;
        let [minimum, median, p95] = [first.minimum, first.median, first.p95].map(|value| value / 1e3);
        let [after, after_p95] = [after_init_us.median, after_init_us.p95].map(|value| value / 1e3);
        let [warm, warm_p99] = [warm_us.median, warm_us.p99].map(|value| value / 1e3);
        println!(
            "| {memory_mb} | {period_ms} | {name} | {minimum:.1} | {median:.1} | {p95:.1} | {:.0} | {after:.1} | {after_p95:.1} | {warm:.2} | {warm_p99:.1} | {dollars:.2} |",
            throttled.median
        );
    }
}
