//! What a function costs, counted rather than timed, against what it may cost.
//!
//! Times differ from run to run and from machine to machine by more than any regression that matters. Instructions,
//! allocations, bytes and crates do not, so a gate can stand on them. `budget.json` holds what was counted when `make
//! budget` last ran; [`Budget::overruns`] is what has become of it since.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use serde::{Deserialize, Serialize};

use crate::{Case, Function, Usage, callgrind, outside_of_cargo, packaged, packaged_zip};

/// In per cent: how far a count may be over its budget. The same build gives the same counts to a few instructions in ten
/// thousand (the digits of the time, the seeds of the hash maps); the rest is for a compiler that is a patch release newer.
const TOLERANCE: u64 = 3;

/// The same of page faults, which are a few more where the kernel keeps files in memory in other portions.
const PAGES_TOLERANCE: u64 = 10;

/// These are small whole numbers: one more is a decision.
const EXACT: [&str; 2] = ["linked_crates", "warm_allocations"];

/// What was counted, by name:
///
/// | name | what |
/// | --- | --- |
/// | `zip_bytes` | the zip that Lambda takes |
/// | `linked_crates` | the packages that are compiled into it |
/// | `start_instructions` | from exec to the first poll |
/// | `first_instructions` | the first invocation, to the second poll; for `fetch` with a call over TLS |
/// | `page_faults` | from exec to the second poll: pages that were touched for the first time |
/// | `warm_instructions` | every later one; for `fetch` one that its cache answers |
/// | `warm_allocations` | how often that one asks for memory, or for more of it, in the debug build |
pub type Cost = BTreeMap<String, u64>;

/// What each function may cost.
#[derive(Debug, Deserialize, Serialize)]
pub struct Budget {
    /// The compiler that these were counted with, as it names itself. Another one makes other code of the same source.
    rustc: String,
    functions: BTreeMap<String, Cost>,
}

impl Default for Budget {
    /// No budget for any function, with the compiler that is there.
    fn default() -> Self {
        Self { rustc: rustc(), functions: BTreeMap::new() }
    }
}

impl Budget {
    /// The committed one.
    ///
    /// # Panics
    ///
    /// When there is none that can be read.
    #[must_use]
    pub fn committed() -> Self {
        let json = fs::read(file()).expect("testbed/budget.json, which `make budget` writes");
        serde_json::from_slice(&json).expect("a budget as `make budget` writes it")
    }

    /// Sets what `function` may cost.
    pub fn set(&mut self, function: &str, cost: Cost) {
        self.functions.insert(function.to_owned(), cost);
    }

    /// Makes this the committed one.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn write(&self) -> io::Result<()> {
        fs::write(file(), serde_json::to_string_pretty(self)? + "\n")
    }

    /// Whether the compiler is the one that the budget was counted with. If it isn't, a line says so.
    #[must_use]
    pub fn is_comparable(&self) -> bool {
        let rustc = rustc();
        if self.rustc != rustc {
            println!("skipped: all but the number of crates, as the budget is for {}, and this is {rustc}", self.rustc);
        }
        self.rustc == rustc
    }

    /// All in `cost` that is more than `function` may cost, in words.
    #[must_use]
    pub fn overruns(&self, function: &str, cost: &Cost) -> Vec<String> {
        let comparable = self.is_comparable();
        let over = |(name, count): (&String, &u64)| {
            if !comparable && name != "linked_crates" {
                return None;
            }
            // What is new has no budget yet, and must get one.
            let budget = self.functions.get(function).and_then(|budget| budget.get(name)).copied().unwrap_or_default();
            let tolerance = match name.as_str() {
                name if EXACT.contains(&name) => 0,
                "page_faults" => PAGES_TOLERANCE,
                _ => TOLERANCE,
            };
            let most = budget + budget * tolerance / 100;
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

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("budget.json")
}

/// What `function` costs as `make build` packaged it. Without valgrind, or on another processor than the budget's, nothing
/// is known of its instructions and allocations, and a line says so.
///
/// # Panics
///
/// When it cannot be counted.
#[must_use]
pub async fn cost(function: &str) -> Cost {
    let zip = fs::metadata(packaged_zip(function)).unwrap_or_else(|error| panic!("{error}: run `make build`"));
    let of_tree = function.to_owned();
    let linked_crates = aside(move || linked_crates(&of_tree)).await;
    let mut cost = Cost::from([("zip_bytes".to_owned(), zip.len()), ("linked_crates".to_owned(), linked_crates)]);
    if is_countable() {
        cost.extend(instructions(function, &packaged(function)).await);
        cost.insert("warm_allocations".to_owned(), allocations(function).await);
        cost.insert("page_faults".to_owned(), page_faults(function).await);
    }
    cost
}

/// Whether instructions can be counted here. If not, a line says why.
#[must_use]
pub fn is_countable() -> bool {
    if !cfg!(target_arch = "x86_64") {
        println!("skipped: instructions and allocations, whose budget is for x86_64");
    } else if !callgrind::is_there() {
        println!("skipped: instructions and allocations, as there is no valgrind");
    } else {
        return true;
    }
    false
}

/// The instructions of `executable` in the place of `function`.
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
///
/// # Panics
///
/// When `executable` ends before it polls.
#[must_use]
pub async fn start(function: &str, executable: &Path) -> Cost {
    let start = callgrind::count(function, executable, 0).await.instructions;
    Cost::from([("start_instructions".to_owned(), start)])
}

/// How often a warm invocation allocates. Counted in the debug build, which `make run` serves too: a static executable
/// without symbols does not tell which of its calls are those of `malloc`, and the optimizer removes next to none of them.
async fn allocations(function: &str) -> u64 {
    let executable = aside(|| debug_build(&[])).await.join(function);
    let some = callgrind::count(function, &executable, 3).await.allocations;
    each(callgrind::count(function, &executable, 23).await.allocations, some)
}

/// Cargo waits for other builds. On another thread, the upstreams of this one answer meanwhile.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("work that does not panic")
}

/// The folder of what `cargo build` makes, with these `arguments`.
///
/// # Panics
///
/// When it fails.
#[must_use]
pub fn debug_build(arguments: &[&str]) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut build = Command::new(env!("CARGO"));
    let build = outside_of_cargo(build.args(["build", "--quiet"]).args(arguments).current_dir(&root)).status();
    assert!(build.is_ok_and(|status| status.success()), "`cargo build` failed");
    root.join("target/debug")
}

/// The fewest of some starts: what the machine does besides can only add to them.
async fn page_faults(function: &str) -> u64 {
    let mut fewest = u64::MAX;
    for _ in 0..5 {
        let (upstream, ca_file) = callgrind::upstream();
        let variables = [("UPSTREAM_CA_FILE", &*ca_file), ("UPSTREAM_URL", &upstream.url("/"))];
        let mut process = Function::start(&packaged(function), &variables).await;
        callgrind::invoke(&mut process, &Case::plain(function)).await;
        process.polled(2).await;
        process.idle().await;
        fewest = fewest.min(Usage::of(process.id()).minor_faults);
    }
    fewest
}

/// What 20 invocations add is free of all that happens once; half an invocation's share rounds to the nearest.
fn each(more: u64, some: u64) -> u64 {
    (more - some + 10) / 20
}

/// How many packages `function` is compiled from, itself included.
fn linked_crates(function: &str) -> u64 {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--edges", "normal", "--prefix", "none", "--format", "{p}", "--no-dedupe"])
        // The same on every machine.
        .args(["--target", "x86_64-unknown-linux-gnu", "--package"])
        .arg(format!("{function}-function"))
        .output()
        .expect("cargo");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8_lossy(&tree.stdout).into_owned();
    let crates: std::collections::BTreeSet<&str> = tree.lines().filter(|line| !line.contains("(proc-macro)")).collect();
    crates.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(counts: &[(&str, u64)]) -> Cost {
        counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn a_count_may_be_a_little_over_its_budget_and_a_small_one_not_at_all() {
        let mut budget = Budget::default();
        budget.set("hello", cost(&[("zip_bytes", 1000), ("warm_allocations", 100)]));
        assert!(budget.overruns("hello", &cost(&[("zip_bytes", 1030), ("warm_allocations", 100)])).is_empty());
        assert!(budget.overruns("hello", &cost(&[("zip_bytes", 10)])).is_empty());
        let overruns = budget.overruns("hello", &cost(&[("zip_bytes", 1031), ("warm_allocations", 101)]));
        assert_eq!(overruns.len(), 2, "{overruns:?}");
    }

    #[test]
    fn what_has_no_budget_is_over_it() {
        let overruns = Budget::default().overruns("hello", &cost(&[("zip_bytes", 1)]));
        assert_eq!(overruns, ["hello: zip_bytes is 1, and may be 0 (the budget is 0)"]);
    }
}
