//! A function as a process, the way Lambda runs it.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use flate2::read::DeflateDecoder;
use futures_util::future::join_all;
use rawzip::ZipArchive;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::mpsc::Receiver,
    task::JoinHandle,
    time::sleep,
};

use replay::assert_declared;

use crate::{Invocation, InvocationResult, Piece, RuntimeApi, Usage, root};

/// A running function and the Runtime API it polls. It is killed when this is dropped.
pub struct Function {
    api: RuntimeApi,
    process: Child,
    output: JoinHandle<Vec<String>>,
    /// The bytes of its output so far.
    logged: Arc<AtomicU64>,
    /// How often it will have polled when it has handled all its invocations.
    polls: usize,
}

impl Function {
    /// Starts `executable` with Lambda's environment variables and those in `env`, and no others.
    pub async fn start(executable: &Path, env: &[(&str, &str)]) -> Self {
        Self::run(Command::new(executable), env).await
    }

    /// Like [`Function::start`], for a `command` that has arguments.
    pub async fn run(command: Command, env: &[(&str, &str)]) -> Self {
        Self::with(RuntimeApi::start().await, command, env)
    }

    /// Like [`Function::run`], with an `api` that has been told what to do.
    pub fn with(api: RuntimeApi, mut command: Command, env: &[(&str, &str)]) -> Self {
        command
            .env_clear()
            .envs([
                ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128"),
                ("AWS_LAMBDA_FUNCTION_NAME", "testbed"),
                ("AWS_LAMBDA_FUNCTION_VERSION", "1"),
                ("AWS_LAMBDA_LOG_FORMAT", "JSON"),
                ("AWS_LAMBDA_RUNTIME_API", &api.address().to_string()),
            ])
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut process = loop {
            match command.spawn() {
                // Another test forked while this one unpacked the file, and the child keeps it open until it executes.
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                process => break process.unwrap_or_else(|error| panic!("{command:?}: {error}")),
            }
        };
        let output = process.stdout.take().expect("a piped standard output");
        let logged = Arc::new(AtomicU64::new(0));
        let bytes = Arc::clone(&logged);
        let output = tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            let mut all = Vec::new();
            while let Ok(Some(line)) = lines.next_line().await {
                bytes.fetch_add(line.len() as u64 + 1, Ordering::Relaxed);
                all.push(line);
            }
            all
        });
        let at_a_time = env.iter().find(|(name, _)| *name == "AWS_LAMBDA_MAX_CONCURRENCY");
        let polls = at_a_time.and_then(|(_, value)| value.parse().ok()).unwrap_or(1);
        Self { api, process, output, logged, polls }
    }

    /// The Runtime API that it polls.
    pub fn runtime_api(&self) -> &RuntimeApi {
        &self.api
    }

    /// Gives the function an invocation and waits for the outcome.
    pub async fn invoke(&mut self, invocation: &Invocation) -> InvocationResult {
        let outcome = self.try_invoke(invocation).await;
        outcome.unwrap_or_else(|status| panic!("the function ended before it answered: {status:?}"))
    }

    /// Like [`Function::invoke`], but returns the process's status when it ends first.
    pub async fn try_invoke(&mut self, invocation: &Invocation) -> Result<InvocationResult, ExitStatus> {
        self.polls += 1;
        tokio::select! {
            outcome = self.api.invoke(invocation) => Ok(outcome),
            status = self.process.wait() => Err(status.expect("a child of this process")),
        }
    }

    /// Gives the function an invocation, and returns the pieces of its streamed response as they come.
    pub fn stream(&mut self, invocation: &Invocation) -> Receiver<Piece> {
        self.polls += 1;
        self.api.stream(invocation)
    }

    /// Gives the function all of `invocations` at once. The outcomes are in the same order.
    pub async fn invoke_all(&mut self, invocations: &[Invocation]) -> Vec<InvocationResult> {
        self.polls += invocations.len();
        tokio::select! {
            outcomes = join_all(invocations.iter().map(|invocation| self.api.invoke(invocation))) => outcomes,
            status = self.process.wait() => panic!("the function ended before it answered: {status:?}"),
        }
    }

    /// Waits until the function has polled for the `number`th time.
    pub async fn polled(&mut self, number: usize) {
        tokio::select! {
            () = self.api.polled(number) => {}
            status = self.process.wait() => panic!("the function ended before it polled: {status:?}"),
        }
    }

    /// Waits until the process has nothing to do.
    pub async fn idle(&self) {
        let mut last = None;
        loop {
            let now = Usage::of(self.id());
            if now.sleeps && last == Some(now.cpu) {
                return;
            }
            last = Some(now.cpu);
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// How many bytes it has written to its log.
    pub fn logged(&self) -> u64 {
        self.logged.load(Ordering::Relaxed)
    }

    /// The id of the process.
    pub fn id(&self) -> u32 {
        self.process.id().expect("a running process")
    }

    /// Ends the process as Lambda does, with `SIGTERM` once it polls for the next invocation. Returns the lines of its
    /// log.
    pub async fn terminate(mut self) -> Vec<String> {
        self.polled(self.polls).await;
        let kill = Command::new("kill").arg(self.id().to_string()).status().await;
        assert!(kill.is_ok_and(|status| status.success()), "SIGTERM could not be sent");
        self.end().await.1
    }

    /// Waits for the process to end by itself. Returns its status and the lines of its log.
    pub async fn end(mut self) -> (ExitStatus, Vec<String>) {
        let status = self.process.wait().await.expect("a child of this process");
        (status, self.output.await.expect("its output was read"))
    }
}

/// The executable of an example of this package, which cargo builds along with its tests.
pub fn example(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("the path of this test");
    let profile = this.parent().and_then(Path::parent).expect("a test is in target/<profile>/deps");
    profile.join("examples").join(name)
}

/// Makes `command` build as it does outside a test. Cargo sets variables about the package for a test. A build script
/// that depends on them (`ring`'s does) would run again, once inside the test and once more outside.
pub fn outside_of_cargo(command: &mut std::process::Command) -> &mut std::process::Command {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(name);
        }
    }
    command
}

/// The `bootstrap` from the zip that `make build` made for `function`.
pub fn packaged(function: &str) -> PathBuf {
    static UNPACKED: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    // Once per process: another test cannot execute a file that is being written.
    let mut unpacked = UNPACKED.lock().unwrap_or_else(PoisonError::into_inner);
    let unpack = || unpack(function).unwrap_or_else(|error| panic!("{function}: {error}; run `make build`"));
    unpacked.entry(function.to_owned()).or_insert_with(unpack).clone()
}

fn unpack(function: &str) -> io::Result<PathBuf> {
    let zip = fs::read(packaged_zip(function))?;
    let archive = ZipArchive::from_slice(&zip).map_err(io::Error::other)?;
    let bootstrap = archive.entries().next_entry().map_err(io::Error::other)?.ok_or(io::ErrorKind::NotFound)?;
    let bootstrap = archive.get_entry(bootstrap.wayfinder()).map_err(io::Error::other)?;
    let mut bytes = Vec::new();
    bootstrap.verifying_reader(DeflateDecoder::new(bootstrap.data())).read_to_end(&mut bytes)?;
    let executable = root().join("target/tmp/packaged").join(function).join("bootstrap");
    write_executable(&executable, &bytes)?;
    Ok(executable)
}

/// The zip that `make build` makes for `function`.
pub fn packaged_zip(function: &str) -> PathBuf {
    assert_declared(function);
    root().join("target/lambda").join(function).join("bootstrap.zip")
}

/// Writes `bytes` to the file `executable` in one step, and makes it executable. An older version of it may be running.
pub fn write_executable(executable: &Path, bytes: &[u8]) -> io::Result<()> {
    executable.parent().map_or(Ok(()), fs::create_dir_all)?;
    let new = executable.with_extension(format!("{}", std::process::id()));
    fs::write(&new, bytes)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
    fs::rename(new, executable)
}
