//! Lambda's side of a function: its process, and a Runtime API on a bare socket.
//!
//! [`testbed::RuntimeApi`] checks what a function does. This one measures it, so it does as little as possible itself: no
//! HTTP library, no record of the requests, and no thread except the one that reads the log.

use std::{
    cell::RefCell,
    fs, io,
    net::Ipv4Addr,
    process::{Child, Command, Stdio},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use testbed::{Usage, lambda_variables};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
    task::{JoinHandle, JoinSet, spawn_local},
    time::timeout,
};

use crate::{candidate::Candidate, share::Quota};

/// A candidate that takes longer has ended, or will never answer.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running candidate. It is killed when this is dropped.
pub(crate) struct Function {
    process: Child,
    logged: Arc<AtomicU64>,
    api: Rc<Api>,
    server: JoinHandle<()>,
}

/// The state that the connections share.
struct Api {
    payload: Vec<u8>,
    /// What every answer must contain.
    expected: Vec<u8>,
    /// Updated each time the function asks for an invocation.
    polls: watch::Sender<Option<Instant>>,
    more: Notify,
    run: RefCell<Run>,
    answered: Notify,
}

/// The invocations that are under way.
#[derive(Default)]
struct Run {
    to_send: usize,
    sent: Vec<Instant>,
    first: usize,
    to_answer: usize,
    latencies: Vec<Duration>,
}

impl Function {
    /// Starts `candidate` and waits for its first poll. Returns the function, and how long that took.
    pub(crate) async fn start(candidate: &Candidate, env: &[(String, String)]) -> (Self, Duration) {
        Self::run(candidate, env, None).await
    }

    /// The same, in `quota`'s cgroup from exec on. The kernel takes milliseconds to join it. They do not count.
    pub(crate) async fn start_within(
        candidate: &Candidate,
        env: &[(String, String)],
        quota: &Quota,
    ) -> (Self, Duration) {
        Self::run(candidate, env, Some(quota)).await
    }

    async fn run(candidate: &Candidate, env: &[(String, String)], quota: Option<&Quota>) -> (Self, Duration) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free loopback port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let api = Rc::new(Api {
            payload: candidate.payload.clone(),
            expected: candidate.expected.clone().into(),
            polls: watch::Sender::default(),
            more: Notify::default(),
            run: RefCell::default(),
            answered: Notify::default(),
        });
        let mut command = match quota {
            None => Command::new(&candidate.executable),
            Some(quota) => {
                let mut shell = Command::new("sh");
                // The shell joins the cgroup, says so, waits for the clock to start, and becomes the function.
                shell.args(["-c", "echo $$ >\"$1\" && echo >&2 && read -r _ && exec \"$0\""]);
                shell.arg(&candidate.executable).arg(quota.processes()).stderr(Stdio::piped());
                shell
            }
        };
        command
            .env_clear()
            .envs(lambda_variables(address))
            .env("AWS_ACCESS_KEY_ID", "bench")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_SECRET_ACCESS_KEY", "bench")
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stdin(if quota.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped());
        let mut polls = api.polls.subscribe();
        let server = spawn_local(serve(listener, Rc::clone(&api)));
        let mut started = Instant::now();
        let mut process = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", candidate.name));
        if let Some(mut joined) = process.stderr.take() {
            let said = io::Read::read(&mut joined, &mut [0]);
            assert!(matches!(said, Ok(1)), "{} could not join its cgroup", candidate.name);
            let mut go = process.stdin.take().expect("a piped standard input");
            started = Instant::now();
            io::Write::write_all(&mut go, b"\n").expect("a shell that reads");
            // It stays open, so that the function can write to it later.
            process.stderr = Some(joined);
        }
        let polled = timeout(PATIENCE, polls.wait_for(Option::is_some)).await;
        let polled = polled.unwrap_or_else(|_| panic!("{} never polled", candidate.name));
        let polled = *polled.expect("the sender is in `api`");
        let logged = Arc::default();
        read_log(&mut process, &logged);
        (Self { process, logged, api, server }, polled.unwrap_or(started) - started)
    }

    /// Sends it `count` invocations, as many at a time as it asks for. Returns the time of each, from event to answer.
    pub(crate) async fn invoke(&self, count: usize) -> Vec<Duration> {
        {
            let mut run = self.api.run.borrow_mut();
            run.to_send = count;
            run.to_answer = count;
            run.first += run.sent.len();
            run.sent.clear();
        }
        self.api.more.notify_waiters();
        timeout(PATIENCE, self.api.answered.notified()).await.expect("an answer to every event");
        std::mem::take(&mut self.api.run.borrow_mut().latencies)
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage::of(self.process.id())
    }

    /// Moves it into `quota`'s cgroup.
    pub(crate) fn join(&self, quota: &Quota) {
        fs::write(quota.processes(), self.process.id().to_string()).expect("a cgroup that takes processes");
    }

    /// The bytes that it has written to its log.
    pub(crate) fn logged(&self) -> u64 {
        self.logged.load(Ordering::Relaxed)
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        self.server.abort();
        let _ended_already = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Reads the log on a thread, so that the function does not wait for it. Lambda does the same.
fn read_log(process: &mut Child, logged: &Arc<AtomicU64>) {
    let mut log = process.stdout.take().expect("a piped standard output");
    let logged = Arc::clone(logged);
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(count @ 1..) = io::Read::read(&mut log, &mut buffer) {
            logged.fetch_add(count as u64, Ordering::Relaxed);
        }
    });
}

async fn serve(listener: TcpListener, api: Rc<Api>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let api = Rc::clone(&api);
        // An error means that the function has ended or closes the connection.
        connections.spawn_local(async move { converse(stream, &api).await.unwrap_or_default() });
    }
}

async fn converse(stream: TcpStream, api: &Api) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::with_capacity(1 << 16, stream);
    let (mut head, mut body) = (String::new(), Vec::new());
    loop {
        head.clear();
        // Node.js's and Python's clients send their headers in several writes.
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await? == 0 {
                return Ok(());
            }
        }
        let length = header(&head, "content-length").map_or(0, |length| length.parse().expect("a length"));
        body.resize(length, 0);
        stream.read_exact(&mut body).await?;
        let now = Instant::now();
        let path = head.split(' ').nth(1).unwrap_or_default();
        if path.ends_with("/invocation/next") {
            api.polls.send_replace(Some(now));
            let event = api.next().await;
            stream.get_mut().write_all(&event).await?;
        } else {
            api.answer(path, &body, now);
            stream.get_mut().write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await?;
        }
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, v)| v.trim())
}

impl Api {
    /// Waits for the next event. Returns the bytes of the response.
    async fn next(&self) -> Vec<u8> {
        while self.run.borrow().to_send == 0 {
            self.more.notified().await;
        }
        let mut run = self.run.borrow_mut();
        run.to_send -= 1;
        let id = run.first + run.sent.len();
        let deadline =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() + 10_000;
        let mut event = format!(
            "HTTP/1.1 200 OK\r\nlambda-runtime-aws-request-id: 00000000-0000-4000-8000-{id:012}\r\n\
             lambda-runtime-deadline-ms: {deadline}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             lambda-runtime-invoked-function-arn: arn:aws:lambda:us-east-1:123456789012:function:bench\r\n\
             lambda-runtime-trace-id: Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1\r\n\r\n",
            self.payload.len(),
        )
        .into_bytes();
        event.extend_from_slice(&self.payload);
        run.sent.push(Instant::now());
        event
    }

    fn answer(&self, path: &str, body: &[u8], now: Instant) {
        let id = path.strip_suffix("/response").and_then(|path| path.rsplit('-').next()?.parse::<usize>().ok());
        let found = body.windows(self.expected.len()).any(|part| part == self.expected);
        let text = String::from_utf8_lossy(body);
        assert!(found, "{path} got {text}, which has no {}", String::from_utf8_lossy(&self.expected));
        let mut run = self.run.borrow_mut();
        let sent = run.sent[id.expect("the id of an event") - run.first];
        run.latencies.push(now - sent);
        run.to_answer -= 1;
        if run.to_answer == 0 {
            self.answered.notify_one();
        }
    }
}
