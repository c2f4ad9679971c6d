//! Measures the functions with the share of a core that Lambda gives them. The share is a quota of the kernel.
//!
//! Lambda's documentation says that a function gets processor time in proportion to its memory, and that 1,769 MB are one
//! core: <https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html>. It does not say how long a slice is,
//! nor whether a start has more than its share. Both ends of both are measured.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio, id},
    slice,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread::sleep,
    time::Duration,
};

use crate::{
    Effort,
    candidate::{Candidate, settings, start_upstream},
    lambda::Function,
    report::{Samples, Spreads, table},
};

/// One core.
const WHOLE_MB: u64 = 1769;
/// The memory in MB, and the length of a slice in ms: as seen from within a function on Lambda, and, where the share is
/// smallest, the kernel's default.
const SHARES: [(u64, u64); 5] = [(128, 20), (256, 20), (512, 20), (WHOLE_MB, 20), (128, 100)];
/// Dollars for a GB-second and for a million requests: <https://aws.amazon.com/lambda/pricing/>, November 2026.
const GB_SECOND: f64 = 0.000_016_666_7;
const MILLION_REQUESTS: f64 = 0.20;
/// Dollars for a GB that CloudWatch takes in: <https://aws.amazon.com/cloudwatch/pricing/>, November 2026.
const LOG_GB: f64 = 0.50;

/// A cgroup whose processes get a part of a core. Each one is new: what an earlier process has used of a slice counts for all
/// in its cgroup.
pub(crate) struct Quota {
    folder: PathBuf,
    pub(crate) period: Duration,
}

impl Quota {
    /// The share of each `period_ms` that a function of `memory_mb` gets. It needs a hierarchy of cgroups that this process may write to.
    fn new(memory_mb: u64, period_ms: u64) -> io::Result<Self> {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let us = 1000 * period_ms;
        let quota = us * memory_mb / WHOLE_MB;
        let is_first = Path::new("/sys/fs/cgroup/cpu").is_dir();
        let root = Path::new(if is_first { "/sys/fs/cgroup/cpu" } else { "/sys/fs/cgroup" });
        if !is_first {
            fs::write(root.join("cgroup.subtree_control"), "+cpu")?;
        }
        let folder = root.join(format!("bench-{}-{}", id(), MADE.fetch_add(1, Relaxed)));
        fs::create_dir(&folder)?;
        let quota_of = Self { folder, period: Duration::from_millis(period_ms) };
        if is_first {
            fs::write(quota_of.folder.join("cpu.cfs_period_us"), us.to_string())?;
            fs::write(quota_of.folder.join("cpu.cfs_quota_us"), quota.to_string())?;
        } else {
            fs::write(quota_of.folder.join("cpu.max"), format!("{quota} {us}"))?;
        }
        Ok(quota_of)
    }

    /// The file to which a process is written to join.
    pub(crate) fn processes(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }

    /// The number of slices in which its processes had to wait for the next one.
    fn throttled(&self) -> u64 {
        let stat = fs::read_to_string(self.folder.join("cpu.stat")).unwrap_or_default();
        let line = stat.lines().find_map(|line| line.strip_prefix("nr_throttled "));
        line.and_then(|count| count.parse().ok()).unwrap_or_default()
    }
}

impl Drop for Quota {
    /// A killed process leaves its cgroup when its memory is freed.
    fn drop(&mut self) {
        for _ in 0..1000 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            sleep(Duration::from_millis(1));
        }
        eprintln!("{} still has processes", self.folder.display());
    }
}

/// A candidate with a share.
pub(crate) struct QuotaRow {
    pub(crate) name: String,
    pub(crate) ours: bool,
    memory_mb: u64,
    period_ms: u64,
    /// The milliseconds that Lambda bills, on average: for a start, and for a warm invocation.
    billed_start_ms: f64,
    billed_warm_ms: f64,
    /// | name | what |
    /// | --- | --- |
    /// | `first_answer_us` | from exec to the answer of the first invocation, entirely with the share |
    /// | `throttled` | the slices in which such a start was throttled |
    /// | `after_init_us` | from the event to the first answer, if the share begins at the first poll |
    /// | `warm_us` | from the event to the answer, for invocations without a pause between them |
    pub(crate) spreads: Spreads,
}

impl QuotaRow {
    /// Whether it has the smallest share, in the slices that were seen of Lambda.
    pub(crate) fn is_smallest(&self) -> bool {
        (self.memory_mb, self.period_ms) == SHARES[0]
    }

    /// Dollars for the time of a million requests, one of a hundred of which finds no warm environment.
    fn dollars(&self) -> f64 {
        let billed_ms = 0.99 * self.billed_warm_ms + 0.01 * self.billed_start_ms;
        billed_ms * 1e3 * GB_SECOND * self.memory_mb as f64 / 1024.0
    }
}

/// Each millisecond that has begun is billed: <https://aws.amazon.com/lambda/pricing/>.
fn billed_ms(times_us: &[f64]) -> f64 {
    times_us.iter().map(|time| (time / 1e3).ceil()).sum::<f64>() / times_us.len() as f64
}

/// Measures all candidates with all shares, in turns. Without a quota it prints a line and returns nothing.
pub(crate) async fn measure(candidates: &[Candidate], effort: Effort) -> Vec<QuotaRow> {
    let shares = if effort.starts > 1 { &SHARES[..] } else { &SHARES[..1] };
    if let Err(error) = Quota::new(WHOLE_MB, 20) {
        println!("skipped: the share of a core, as no cgroup may be made here ({error})");
        return Vec::new();
    }
    // Other builds of a function, such as `hello-opt-3`, are compared on a whole core only.
    let candidates: Vec<&Candidate> = candidates.iter().filter(|candidate| !candidate.name.contains('-')).collect();
    // One for each: functions can have other answers of theirs.
    let tls: Vec<_> = candidates.iter().map(|_| start_upstream("no-store", true)).collect();
    let plain: Vec<_> = candidates.iter().map(|_| start_upstream("max-age=3600", false)).collect();
    let mut random = fastrand::Rng::with_seed(2);
    let mut all = Vec::new();
    for &(memory_mb, period_ms) in shares {
        let mut measured: Vec<Samples> = candidates.iter().map(|_| Samples::default()).collect();
        let mut order: Vec<usize> = (0..candidates.len()).collect();
        for _ in 0..effort.starts {
            random.shuffle(&mut order);
            for &at in &order {
                let candidate = candidates[at];
                let new_quota = || Quota::new(memory_mb, period_ms).expect("another cgroup");
                let samples = &mut measured[at];
                let env = settings(&candidate.function, &tls[at]);
                let quota = new_quota();
                let (function, first_poll) = Function::start(candidate, &env, Some(&quota)).await;
                samples.add_times("first_answer_us", &[first_poll + function.invoke(1).await[0]]);
                samples.add("throttled", quota.throttled() as f64);
                drop(function);
                let quota = new_quota();
                let (function, _) = Function::start(candidate, &env, None).await;
                function.join(&quota);
                samples.add_times("after_init_us", &function.invoke(1).await);
                drop(function);
                let quota = new_quota();
                let (function, _) = Function::start(candidate, &settings(&candidate.function, &plain[at]), None).await;
                function.invoke(1).await;
                function.join(&quota);
                samples.add_times("warm_us", &function.invoke(effort.batch).await);
            }
        }
        all.extend(candidates.iter().zip(measured).map(|(candidate, samples)| QuotaRow {
            name: candidate.name.clone(),
            ours: candidate.ours,
            memory_mb,
            period_ms,
            billed_start_ms: billed_ms(samples.of("first_answer_us")),
            billed_warm_ms: billed_ms(samples.of("warm_us")),
            spreads: samples.spreads(),
        }));
    }
    all
}

/// Prints a table in Markdown.
pub(crate) fn print(all: &[QuotaRow]) {
    let row = |shared: &QuotaRow| {
        let ms = |us: f64| format!("{:.1}", us / 1e3);
        let [first, after, warm] = ["first_answer_us", "after_init_us", "warm_us"].map(|name| shared.spreads[name]);
        let throttled = format!("{:.0}", shared.spreads["throttled"].median);
        let [memory, period] = [shared.memory_mb, shared.period_ms].map(|number| number.to_string());
        let first = [first.minimum, first.median, first.p95].map(ms);
        let after = [ms(after.median), ms(after.p95), format!("{:.2}", warm.median / 1e3), ms(warm.p99)];
        [&[shared.name.clone(), memory, period], &first[..], &[throttled], &after].concat()
    };
    table(
        "With Lambda's share of a core, ms",
        "MB | slice of | exec to first answer: minimum | median | p95 | throttled slices | event to first answer: median | p95 | warm: median | p99",
        all.iter().map(row),
    );
}

/// Prints what requests cost with the smallest share. `logged_bytes` returns the bytes that an invocation of a candidate
/// logs.
pub(crate) fn print_bill(all: &[QuotaRow], logged_bytes: impl Fn(&str) -> f64) {
    let row = |shared: &QuotaRow| {
        let (time, log) = (shared.dollars(), logged_bytes(&shared.name) / 1e3 * LOG_GB);
        let billed = [format!("{:.1}", shared.billed_warm_ms), format!("{:.0}", shared.billed_start_ms)];
        let time = [format!("{time:.3}"), format!("{:.2}", time * 100.0)];
        let log = [format!("{log:.2}"), format!("{:.0}", log * 100.0)];
        [slice::from_ref(&shared.name), &billed[..], &time, &log].concat()
    };
    table(
        &format!("The bill at {} MB, dollars, besides {MILLION_REQUESTS:.2} for a million requests", SHARES[0].0),
        "billed ms, warm | first answer | 1 M: time | 100 M: time | 1 M: log lines | 100 M: log lines",
        all.iter().filter(|shared| shared.is_smallest()).map(row),
    );
}

/// The machine's cores that this process may use now, in the notation of `/proc`: `0-1,3`.
pub(crate) fn allowed_cores() -> String {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.expect("a list of cores").trim().to_owned()
}

/// The last one of `cores`: the first one serves interrupts.
pub(crate) fn last_core(cores: &str) -> &str {
    cores.rsplit([',', '-']).next().unwrap_or(cores)
}

/// Moves the main thread to `cores`; what it starts from then on, threads and processes, stays there, too. All threads
/// cannot be moved: one that ends meanwhile makes `taskset` fail.
pub(crate) fn keep_to(cores: &str) {
    let mut taskset = Command::new("taskset");
    taskset.args(["--cpu-list", "--pid", cores]).arg(id().to_string()).stdout(Stdio::null());
    assert!(taskset.status().is_ok_and(|status| status.success()), "`taskset` of util-linux could not do its work");
}
