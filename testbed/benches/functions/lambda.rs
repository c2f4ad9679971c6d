//! Lambda's side of a candidate: its process and its Runtime API, which take the times.

use std::{
    fs::{self, File},
    io::Write,
    process,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use testbed::{Case, InvocationResult, RuntimeApi, Tables, Usage};
use tokio::{
    process::Command,
    time::{sleep, timeout},
};

use crate::{candidate::Candidate, share::Quota};

/// A candidate that takes longer has ended, or will never answer.
const TIMEOUT: Duration = Duration::from_mins(1);

/// A running candidate. It is killed when this is dropped.
pub(crate) struct Function {
    pub(crate) process: testbed::Function,
    case: Case,
    tables: Tables,
    /// What every answer must contain.
    expected: String,
    /// How many invocations it takes at a time.
    at_a_time: usize,
}

impl Function {
    /// Starts `candidate` and waits for its first poll. Returns the function, and how long that took. It is in `quota`'s cgroup from
    /// exec on, if there is one. The kernel takes milliseconds to join it. They do not count.
    pub(crate) async fn start(
        candidate: &Candidate,
        env: &[(String, String)],
        quota: Option<&Quota>,
    ) -> (Self, Duration) {
        let mut command = Command::new(&candidate.executable);
        let go = candidate.executable.with_extension("go");
        if let Some(quota) = quota {
            let _there_already = process::Command::new("mkfifo").arg(&go).stderr(process::Stdio::null()).status();
            command = Command::new("/bin/sh");
            // The shell joins the cgroup, waits for the clock to start, and becomes the function.
            command.args(["-c", r#"echo $$ >"$1"; read -r _ <"$2"; exec "$0""#]);
            command.arg(&candidate.executable).arg(quota.processes()).arg(&go);
        }
        let mut variables =
            vec![("AWS_ACCESS_KEY_ID", "bench"), ("AWS_REGION", "us-east-1"), ("AWS_SECRET_ACCESS_KEY", "bench")];
        variables.extend(env.iter().map(|(name, value)| (&**name, &**value)));
        let at_a_time = env.iter().find(|(name, _)| name == "AWS_LAMBDA_MAX_CONCURRENCY");
        let at_a_time = at_a_time.map_or(1, |(_, value)| value.parse().expect("a number"));
        let api = RuntimeApi::start().await;
        let mut started = Instant::now();
        let mut process = testbed::Function::with(api, command, &variables);
        if let Some(quota) = quota {
            // It can be opened as soon as the shell has joined its cgroup. What the shell used of a slice until then is not the
            // function's, so a new slice begins first.
            let mut go = File::options().write(true).open(&go).expect("a shell that reads");
            sleep(2 * quota.period).await;
            started = Instant::now();
            go.write_all(b"\n").expect("a shell that reads");
        }
        let polled = timeout(TIMEOUT, process.polled(1)).await;
        polled.unwrap_or_else(|_| panic!("{} never polled", candidate.name));
        if let Some(quota) = quota {
            let joined = fs::read_to_string(quota.processes()).unwrap_or_default();
            assert!(joined.lines().any(|id| id == process.id().to_string()), "it could not join its cgroup");
        }
        let polled = process.runtime_api().first_poll().expect("it polled");
        let (case, tables, expected) =
            (Case::measured(&candidate.function), Tables::of(env), candidate.expected.clone());
        (Self { process, case, tables, expected, at_a_time }, polled - started)
    }

    /// Sends it `count` invocations, as many at a time as it takes. Returns the time of each, from event to answer.
    pub(crate) async fn invoke(&self, count: usize) -> Vec<Duration> {
        let invoke = |_| async {
            // The case may be one that cannot be repeated, such as the creation of an item.
            self.case.prepare(&self.tables);
            match self.process.runtime_api().time(&self.case.invocation()).await {
                (InvocationResult::Response(answer), time) if answer.contains(&self.expected) => time,
                (outcome, _) => panic!("{outcome:?} has no {}", self.expected),
            }
        };
        let times = stream::iter(0..count).map(invoke).buffer_unordered(self.at_a_time).collect();
        timeout(TIMEOUT, times).await.expect("an answer to every event")
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage::of(self.process.id())
    }

    /// Moves it into `quota`'s cgroup.
    pub(crate) fn join(&self, quota: &Quota) {
        fs::write(quota.processes(), self.process.id().to_string()).expect("a cgroup that takes processes");
    }
}
