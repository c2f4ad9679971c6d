//! What a function does, counted by valgrind.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::{
    Case, Function, Tables, root, settings,
    upstream::{Answer, Certificate, Upstream},
    upstreams,
};

/// What a function did between exec and an idle poll.
pub(crate) struct Counts {
    /// The instructions of the executable itself. Those of the loader and libc depend on the machine's libc.
    pub(crate) instructions: u64,
    /// Its calls of the functions that allocate memory.
    pub(crate) allocations: u64,
}

/// Runs `executable` as `function`, sends it `invocations` plain requests, and ends it when it polls for more.
pub(crate) async fn count(function: &str, executable: &Path, invocations: usize) -> Counts {
    // Each count has its own file, because tests run in parallel.
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let executable = executable.canonicalize().expect("an executable");
    let name = format!("callgrind.{function}.{}.{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let profile = root().join("target/tmp").join(name);
    let mut valgrind = tokio::process::Command::new("valgrind");
    valgrind
        .args(["--tool=callgrind", "--compress-strings=no", "--compress-pos=no", "--quiet"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(&executable);
    let (process, _upstream) = run(function, valgrind, invocations).await;
    process.terminate().await;
    let counts = read(&fs::read_to_string(&profile).expect("what callgrind wrote"), &executable);
    let _gone_already = fs::remove_file(profile);
    counts
}

/// Runs `command` as `function`, which must answer its plain request correctly, `invocations` times. Returns when it has
/// nothing more to do. Of its upstream, the first answer takes a TLS handshake, and later ones come from the cache.
pub(crate) async fn run(function: &str, command: tokio::process::Command, invocations: usize) -> (Function, Upstream) {
    let upstream = Upstream::start_tls(Certificate::Valid);
    let answer = Answer::ok(r#"{"upstream":"testbed"}"#).header("content-type", "application/json");
    upstream.always(answer.cache_control("max-age=3600"));
    let settings = variables(function, &upstream);
    let tables = Tables::of(&settings);
    let mut settings: Vec<_> = settings.iter().map(|(name, value)| (&**name, &**value)).collect();
    settings.push(("AWS_REGION", "us-east-1"));
    let mut process = Function::run(command, &settings).await;
    let measured = Case::measured(function);
    process.polled(1).await;
    for _ in 0..invocations {
        measured.prepare(&tables);
        let invocation = measured.invocation().with_timeout(Duration::from_mins(5));
        let outcome = process.invoke(&invocation).await;
        measured.check(&invocation, &outcome).unwrap_or_else(|difference| panic!("{}: {difference}", measured.name));
    }
    process.polled(invocations + 1).await;
    process.idle().await;
    (process, upstream)
}

/// The settings of `function`, with the CA of its upstreams, and time for them: under valgrind everything takes fifty times
/// as long.
fn variables(function: &str, upstream: &Upstream) -> Vec<(String, String)> {
    let ca_file = upstream.ca_file().expect("of an upstream with TLS").to_string_lossy();
    let of_each = [("CA_FILE", &*ca_file), ("TIMEOUT_MS", "60000"), ("ATTEMPT_TIMEOUT_MS", "60000")];
    let mut all = settings(function, upstream);
    let own = upstream.url("");
    if all.iter().any(|(name, value)| name.starts_with("AWS_ENDPOINT_URL") && *value == own) {
        all.push(("AWS_CA_BUNDLE".into(), ca_file.clone().into_owned()));
    }
    for name in upstreams(function) {
        all.extend(of_each.map(|(setting, value)| (format!("{name}_{setting}"), value.to_owned())));
    }
    all
}

/// Adds up a profile: <https://valgrind.org/docs/manual/cl-format.html>.
fn read(profile: &str, executable: &Path) -> Counts {
    let executable = executable.to_str().expect("a path in UTF-8");
    let (mut own, mut called, mut is_call) = (false, "", false);
    let mut counts = Counts { instructions: 0, allocations: 0 };
    for line in profile.lines() {
        if let Some(object) = line.strip_prefix("ob=") {
            own = object == executable;
        } else if let Some(function) = line.strip_prefix("cfn=") {
            called = function;
        } else if let Some(calls) = line.strip_prefix("calls=") {
            is_call = true;
            if own && ["calloc", "malloc", "posix_memalign", "realloc"].contains(&called) {
                counts.allocations += number(calls.split(' ').next());
            }
        } else if line.starts_with(|first: char| first.is_ascii_digit()) {
            // The line after a call is the callee's cost, which also has its own lines.
            if own && !is_call {
                counts.instructions += number(line.split(' ').nth(1));
            }
            is_call = false;
        }
    }
    assert!(counts.instructions > 0, "{executable} is not in its own profile");
    counts
}

fn number(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse().ok()).expect("a number in callgrind's profile")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = "\
events: Ir

ob=/bootstrap
fl=???
fn=main
0 100
cob=/libc.so.6
cfn=malloc
calls=3 50
0 900
0 7
cfn=helper
calls=1 60
0 5000

fn=helper
0 20
ob=/libc.so.6
fn=malloc
0 300
cfn=malloc
calls=9 50
0 1
";

    #[test]
    fn counts_what_the_executable_does_itself() {
        let counts = read(PROFILE, Path::new("/bootstrap"));
        assert_eq!((counts.instructions, counts.allocations), (127, 3));
    }
}
