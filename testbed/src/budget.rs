//! Compares what a function costs, counted rather than timed, with what it may cost.
//!
//! Times differ from run to run and from machine to machine by more than any regression that matters. Instructions,
//! allocations, bytes and crates do not, so a gate can rely on them. `functions/NAME/budget.json` holds the counts of the
//! last `make budget`. [`Budget::overruns`] lists the counts that have grown since.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde::{Deserialize, Serialize};

use crate::{Usage, callgrind, outside_of_cargo, packaged, packaged_zip, root};

/// How far a count may be over its budget, in per cent. Counts of the same build differ by a few instructions in ten
/// thousand (the digits of the time, the seeds of the hash maps). The rest is for a compiler that is a patch release
/// newer.
const TOLERANCE: u64 = 3;

/// The same for page faults. How much of a file the kernel maps at a fault depends on how it keeps the file in memory:
/// the same `fetch` had 145 of them, and 163 on a busy machine.
const PAGES_TOLERANCE: u64 = 25;

/// Of the allocations, one in this many may be added: an answer of AWS that arrives in more parts needs one more. A function
/// that calls nobody has far fewer, and one more needs a decision, as one more crate does.
const ALLOCATIONS_TOLERANCE: u64 = 200;

/// The counts, by name:
///
/// | name | what |
/// | --- | --- |
/// | `zip_bytes` | the zip that Lambda takes |
/// | `linked_crates` | the packages that are compiled into it |
/// | `start_instructions` | from exec to the first poll |
/// | `first_instructions` | the first invocation, to the second poll; for `fetch`, with a call over TLS |
/// | `page_faults` | pages that were touched for the first time, from exec to the second poll |
/// | `warm_instructions` | each later invocation; for `fetch`, one that its cache answers |
/// | `warm_allocations` | how often a later invocation allocates or reallocates memory, in the debug build |
pub type Cost = BTreeMap<String, u64>;

/// What a function may cost.
#[derive(Debug, Deserialize, Serialize)]
pub struct Budget {
    /// The version of the compiler for these counts. Another one makes different code from the same source.
    rustc: String,
    #[serde(flatten)]
    cost: Cost,
}

impl Budget {
    /// A budget of `cost`, with the installed compiler.
    pub fn new(cost: Cost) -> Self {
        Self { rustc: rustc(), cost }
    }

    /// The committed budget of `function`. Without one, prints a line that says so.
    pub fn committed(function: &str) -> Option<Self> {
        let file = file(function);
        if !file.exists() {
            println!("skipped: {function}, which has no budget yet; `make budget` writes it");
            return None;
        }
        let json = fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        Some(serde_json::from_slice(&json).expect("a budget as `make budget` writes it"))
    }

    /// Writes this as the committed budget of `function`.
    pub fn write(&self, function: &str) -> io::Result<()> {
        fs::write(file(function), serde_json::to_string_pretty(self)? + "\n")
    }

    /// The counts in `cost` that are more than `function` may cost, in words. Those of another compiler cannot be compared.
    pub fn overruns(&self, function: &str, cost: &Cost) -> Vec<String> {
        let rustc = rustc();
        let comparable = self.rustc == rustc;
        if !comparable {
            println!("skipped: all but the number of crates, as the budget is for {}, and this is {rustc}", self.rustc);
        }
        let over = |(name, count): (&String, &u64)| {
            if !comparable && name != "linked_crates" {
                return None;
            }
            // A new count has no budget yet, and must get one.
            let budget = self.cost.get(name).copied().unwrap_or_default();
            let most = budget
                + match name.as_str() {
                    "linked_crates" => 0,
                    "warm_allocations" => budget / ALLOCATIONS_TOLERANCE,
                    "page_faults" => budget * PAGES_TOLERANCE / 100,
                    _ => budget * TOLERANCE / 100,
                };
            (*count > most)
                .then(|| format!("{function}: {name} is {count}, and may be {most} (the budget is {budget})"))
        };
        cost.iter().filter_map(over).collect()
    }
}

fn rustc() -> String {
    let version = Command::new("rustc").arg("--version").output().expect("a compiler");
    String::from_utf8_lossy(&version.stdout).trim().to_owned()
}

fn file(function: &str) -> PathBuf {
    root().join("functions").join(function).join("budget.json")
}

/// What `function` costs as `make build` packaged it. Without valgrind, or on another processor than the budget's, its
/// instructions, allocations and page faults are not counted, and a line is printed.
pub async fn cost(function: &str) -> Cost {
    let zip = fs::metadata(packaged_zip(function)).unwrap_or_else(|error| panic!("{error}: run `make build`"));
    let package = format!("{function}-function");
    let linked_crates = aside(move || linked(&package).len() as u64).await;
    let mut cost = Cost::from([("zip_bytes".to_owned(), zip.len()), ("linked_crates".to_owned(), linked_crates)]);
    if is_countable() {
        cost.extend(instructions(function, &packaged(function)).await);
        cost.insert("warm_allocations".to_owned(), allocations(function).await);
        cost.insert("page_faults".to_owned(), page_faults(function).await);
    }
    cost
}

/// Whether instructions can be counted here. If not, prints a line that says why.
pub fn is_countable() -> bool {
    let valgrind = Command::new("valgrind").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let is_here = cfg!(target_arch = "x86_64") && valgrind.is_ok_and(|status| status.success());
    if !is_here {
        println!("skipped: instructions and allocations, which are counted by valgrind, and for x86_64");
    }
    is_here
}

/// The instructions of `executable`, which runs as `function`.
async fn instructions(function: &str, executable: &Path) -> Cost {
    let mut counts = Vec::new();
    for invocations in [1, 11, 31] {
        counts.push(callgrind::count(function, executable, invocations).await.instructions);
    }
    let [first, some, more] = counts[..] else { unreachable!("three counts") };
    let mut cost = start(function, executable).await;
    let start: u64 = cost.values().sum();
    cost.extend([("first_instructions".to_owned(), first - start), ("warm_instructions".to_owned(), each(more, some))]);
    cost
}

/// The instructions of a start alone.
pub async fn start(function: &str, executable: &Path) -> Cost {
    let start = callgrind::count(function, executable, 0).await.instructions;
    Cost::from([("start_instructions".to_owned(), start)])
}

/// How often a warm invocation allocates. Counted in the debug build, which `make run` also uses: in a static
/// executable without symbols, calls of `malloc` cannot be recognized. The optimizer removes almost none of them.
async fn allocations(function: &str) -> u64 {
    let executable = aside(|| debug_build(&["--bins"])).await.join(function);
    let some = callgrind::count(function, &executable, 3).await.allocations;
    each(callgrind::count(function, &executable, 23).await.allocations, some)
}

/// Runs `work` on another thread: Cargo waits for other builds, and the upstreams of this thread must still answer.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("work that does not panic")
}

/// Runs `cargo build` with these `arguments`. Returns the folder with the executables.
pub fn debug_build(arguments: &[&str]) -> PathBuf {
    let root = root();
    let mut build = Command::new(env!("CARGO"));
    let build = outside_of_cargo(build.args(["build", "--quiet"]).args(arguments).current_dir(&root)).status();
    assert!(build.is_ok_and(|status| status.success()), "`cargo build` failed");
    root.join("target/debug")
}

/// The lowest count of several starts: other work of the machine can only add to it.
async fn page_faults(function: &str) -> u64 {
    let mut fewest = u64::MAX;
    for _ in 0..5 {
        let (process, _upstream) = callgrind::run(function, Command::new(packaged(function)).into(), 1).await;
        fewest = fewest.min(Usage::of(process.id()).minor_faults);
    }
    fewest
}

/// The cost of one invocation, rounded. The difference between the counts is 20 invocations, without anything that
/// happens only once.
fn each(more: u64, some: u64) -> u64 {
    (more - some + 10) / 20
}

/// The packages that `package` is linked from, itself included, as `name v1.2.3`.
pub fn linked(package: &str) -> BTreeSet<String> {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--edges", "normal", "--prefix", "none", "--format", "{p}", "--no-dedupe"])
        // So that the count is the same on every machine.
        .args(["--target", "x86_64-unknown-linux-gnu", "--package", package])
        .output()
        .expect("cargo");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8_lossy(&tree.stdout).into_owned();
    let lines = tree.lines().filter(|line| !line.contains("(proc-macro)"));
    lines.map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(counts: &[(&str, u64)]) -> Cost {
        counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn a_count_may_be_a_little_over_its_budget_and_a_small_one_not_at_all() {
        let budget = Budget::new(cost(&[("zip_bytes", 1000), ("warm_allocations", 199)]));
        assert!(budget.overruns("orders", &cost(&[("zip_bytes", 1030), ("warm_allocations", 199)])).is_empty());
        assert!(budget.overruns("orders", &cost(&[("zip_bytes", 10)])).is_empty());
        let overruns = budget.overruns("orders", &cost(&[("zip_bytes", 1031), ("warm_allocations", 200)]));
        assert_eq!(overruns.len(), 2, "{overruns:?}");
    }

    #[test]
    fn a_count_without_a_budget_is_over_it() {
        let overruns = Budget::new(Cost::new()).overruns("orders", &cost(&[("zip_bytes", 1)]));
        assert_eq!(overruns, ["orders: zip_bytes is 1, and may be 0 (the budget is 0)"]);
        assert!(Budget::committed("no-such-function").is_none());
    }
}
