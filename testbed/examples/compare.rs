//! Compares executables that answer Lambda invocations: what a start costs, and what a warm invocation does.
//!
//! ```sh
//! cargo run --release -p testbed --example compare -- one/bootstrap another/bootstrap
//! ```
//!
//! They take turns, in one run, so that what the machine does besides meets them all. The Runtime API is a bare socket
//! here, to add as little as can be to what is measured.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a comparison that cannot go on panics")]
#![expect(clippy::cast_precision_loss, reason = "microseconds are far below 2^52")]

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime},
};

use testbed::Case;

const STARTS: usize = 60;
const BATCHES: usize = 60;
const BATCH: u32 = 100;

fn main() {
    let executables: Vec<String> = env::args().skip(1).collect();
    let mut candidates: Vec<Candidate> = executables.iter().map(|path| Candidate::new(path)).collect();
    for _ in 0..STARTS {
        for candidate in &mut candidates {
            candidate.start();
        }
    }
    let mut functions: Vec<Function> = executables.iter().map(|path| Function::start(path).0).collect();
    for batch in 0..=BATCHES {
        for (candidate, function) in candidates.iter_mut().zip(&mut functions) {
            let cpu = function.cpu();
            let warm: Vec<Duration> = (0..BATCH).map(|_| function.invoke()).collect();
            // The first one warms up.
            if batch > 0 {
                candidate.cpu.push(function.cpu().saturating_sub(cpu) / BATCH);
                candidate.warm.extend(warm);
            }
        }
    }
    println!(
        "| executable | bytes | start min | start p50 | first answer CPU p50 | warm p50 | warm p99 | warm CPU p50 |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for Candidate { name, size, mut starts, mut first_cpu, mut warm, mut cpu } in candidates {
        let mut row = vec![name, size.to_string()];
        row.extend([quantile(&mut starts, 0.0), quantile(&mut starts, 0.5), quantile(&mut first_cpu, 0.5)]);
        row.extend([quantile(&mut warm, 0.5), quantile(&mut warm, 0.99), quantile(&mut cpu, 0.5)]);
        println!("| {} |", row.join(" | "));
    }
}

struct Candidate {
    name: String,
    size: u64,
    starts: Vec<Duration>,
    first_cpu: Vec<Duration>,
    warm: Vec<Duration>,
    cpu: Vec<Duration>,
}

impl Candidate {
    fn new(path: &str) -> Self {
        let size = fs::metadata(path).unwrap_or_else(|error| panic!("{path}: {error}")).len();
        Self { name: path.into(), size, starts: vec![], first_cpu: vec![], warm: vec![], cpu: vec![] }
    }

    fn start(&mut self) {
        let (mut function, start) = Function::start(&self.name);
        self.starts.push(start);
        function.invoke();
        self.first_cpu.push(function.cpu());
    }
}

/// In microseconds.
fn quantile(times: &mut [Duration], quantile: f64) -> String {
    times.sort_unstable();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
    let at = ((times.len() - 1) as f64 * quantile) as usize;
    format!("{:.1} µs", times[at].as_secs_f64() * 1e6)
}

struct Function {
    process: Child,
    connection: BufReader<TcpStream>,
    payload: Vec<u8>,
    invocations: u64,
}

impl Function {
    /// The function, and how long it took from its start to its first poll.
    fn start(path: &str) -> (Self, Duration) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut command = Command::new(path);
        command
            .env_clear()
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
            .env("AWS_LAMBDA_FUNCTION_NAME", "testbed")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
            .env("AWS_LAMBDA_LOG_FORMAT", "JSON")
            .env("AWS_LAMBDA_RUNTIME_API", listener.local_addr().unwrap().to_string())
            .stdin(Stdio::null())
            .stdout(if std::env::var_os("DEVNULL").is_some() { Stdio::null() } else { Stdio::piped() });
        let start = Instant::now();
        let mut process = command.spawn().unwrap_or_else(|error| panic!("{path}: {error}"));
        let (stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        let mut connection = BufReader::new(stream);
        read(&mut connection);
        let start = start.elapsed();
        let log = process.stdout.take();
        thread::spawn(move || log.map(|mut log| std::io::copy(&mut log, &mut std::io::sink())));
        let cases = Case::all("hello");
        let case = cases.iter().find(|case| case.name == "hello/name.http-api").expect("a case");
        (Self { process, connection, payload: case.invocation().payload, invocations: 0 }, start)
    }

    /// How long one invocation takes, from its event to its answer. The function polls again before the next.
    fn invoke(&mut self) -> Duration {
        self.invocations += 1;
        let deadline = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() + 10_000;
        let mut event = format!(
            "HTTP/1.1 200 OK\r\nlambda-runtime-aws-request-id: 00000000-0000-4000-8000-{:012}\r\n\
             lambda-runtime-deadline-ms: {deadline}\r\ncontent-length: {}\r\n\
             lambda-runtime-invoked-function-arn: arn:aws:lambda:us-east-1:123456789012:function:testbed\r\n\
             lambda-runtime-trace-id: Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1\r\n\r\n",
            self.invocations,
            self.payload.len(),
        )
        .into_bytes();
        event.extend_from_slice(&self.payload);
        let start = Instant::now();
        self.connection.get_mut().write_all(&event).unwrap();
        read(&mut self.connection);
        let took = start.elapsed();
        self.connection.get_mut().write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").unwrap();
        read(&mut self.connection);
        took
    }

    fn cpu(&self) -> Duration {
        let schedule = fs::read_to_string(format!("/proc/{}/schedstat", self.process.id())).unwrap();
        Duration::from_nanos(schedule.split(' ').next().unwrap().parse().unwrap())
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Reads a whole request.
fn read(connection: &mut BufReader<TcpStream>) {
    let mut length = 0;
    let mut line = String::new();
    loop {
        line.clear();
        assert!(connection.read_line(&mut line).unwrap() > 0, "the function ended");
        let header = line.trim_end().to_ascii_lowercase();
        if let Some(value) = header.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        }
        assert!(!header.starts_with("transfer-encoding"), "an answer of unknown length");
        if header.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body).unwrap();
}
