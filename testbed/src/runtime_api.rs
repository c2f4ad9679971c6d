//! Lambda's Runtime API, as far as a function sees it.
//!
//! The crate `lambda-simulator` (0.2) was considered first. It stores an invocation's payload as a `serde_json::Value`,
//! so it cannot send text that is not JSON, or the unchanged bytes of a file. It also gives every invocation a deadline
//! in the future. All three must be tested here.
//!
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::HeaderValue,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use replay::{Invocation, InvocationResult, Streamed};
use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::{Mutex as AsyncMutex, mpsc, oneshot, watch},
    task::JoinHandle,
};

/// What the Runtime API does instead of answering a request.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// It sends this status only. A result in that request is still taken.
    Status(StatusCode),
    /// It closes the connection, and does not take the result.
    Close,
}

/// A request that the function sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Its path, after the version of the Runtime API.
    pub path: String,
    /// Its headers.
    pub headers: BTreeMap<String, String>,
    /// Its body.
    pub body: String,
}

/// How many requests are kept to be looked at.
const KEPT: usize = 100;

/// A part of a streamed response.
#[derive(Clone, Debug)]
pub enum Piece {
    /// Some bytes: those of one chunk, or of a part of it.
    Data(Bytes),
    /// The trailers.
    Trailers(BTreeMap<String, String>),
    /// The connection failed before the end.
    Broken,
}

/// All of a streamed response.
async fn all_of(mut body: Incoming) -> Streamed {
    let (mut all, mut streamed) = (Vec::new(), Streamed::default());
    while let Some(piece) = next_piece(&mut body).await {
        match piece {
            Piece::Data(data) => all.extend_from_slice(&data),
            Piece::Trailers(trailers) => streamed.trailers = trailers,
            Piece::Broken => streamed.is_broken = true,
        }
    }
    let end = all.windows(8).position(|bytes| bytes == [0; 8]).expect("a prelude, and eight NULs after it");
    streamed.body = all.split_off(end + 8);
    streamed.prelude = String::from_utf8_lossy(&all[..end]).into_owned();
    streamed
}

async fn next_piece(body: &mut Incoming) -> Option<Piece> {
    Some(match body.frame().await? {
        Err(_) => Piece::Broken,
        Ok(frame) => match frame.into_data() {
            Ok(data) => Piece::Data(data),
            Err(frame) => Piece::Trailers(texts(&frame.into_trailers().unwrap_or_default())),
        },
    })
}

/// A Runtime API on its own loopback port. It runs until it is dropped.
pub struct RuntimeApi {
    address: SocketAddr,
    state: Arc<State>,
    server: JoinHandle<()>,
}

/// Whom the outcome is for.
enum Caller {
    /// It takes the outcome as a whole.
    Waits(oneshot::Sender<(InvocationResult, Duration)>),
    /// It takes a piece when it is ready for one.
    Reads(mpsc::Sender<Piece>),
}

struct State {
    events: mpsc::UnboundedSender<Invocation>,
    next: AsyncMutex<mpsc::UnboundedReceiver<Invocation>>,
    /// The invocations that have no outcome yet, and when the function got them.
    waiting: Mutex<HashMap<String, (Caller, Instant)>>,
    polls: watch::Sender<usize>,
    first_poll: OnceLock<Instant>,
    /// What to do, instead of the usual, at the next requests whose paths end like this.
    faults: Mutex<Vec<(&'static str, Fault)>>,
    sent: Mutex<Vec<Sent>>,
}

impl RuntimeApi {
    /// Starts to listen.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free loopback port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let (events, next) = mpsc::unbounded_channel();
        let state = Arc::new(State {
            events,
            next: AsyncMutex::new(next),
            waiting: Mutex::default(),
            polls: watch::Sender::default(),
            first_poll: OnceLock::new(),
            faults: Mutex::default(),
            sent: Mutex::default(),
        });
        let server = tokio::spawn(serve(listener, Arc::clone(&state)));
        Self { address, state, server }
    }

    /// The value for `AWS_LAMBDA_RUNTIME_API`.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the function has polled for the `number`th time.
    pub async fn polled(&self, number: usize) {
        // This cannot fail, because `self` holds the sender.
        let _ = self.state.polls.subscribe().wait_for(|polls| *polls >= number).await;
    }

    /// When the function polled for the first time.
    pub fn first_poll(&self) -> Option<Instant> {
        self.state.first_poll.get().copied()
    }

    /// Has a request whose path ends in `end` fail: the next one, or the one after those that fail already.
    pub fn fail(&self, end: &'static str, fault: Fault) {
        lock(&self.state.faults).push((end, fault));
    }

    /// The first requests that the function sent.
    pub fn sent(&self) -> Vec<Sent> {
        lock(&self.state.sent).clone()
    }

    /// Hands `invocation` to the next poll, and waits for the outcome.
    pub async fn invoke(&self, invocation: &Invocation) -> InvocationResult {
        self.time(invocation).await.0
    }

    /// The same, with the time from the event to the outcome.
    pub async fn time(&self, invocation: &Invocation) -> (InvocationResult, Duration) {
        let (answered, outcome) = oneshot::channel();
        self.send(invocation, Caller::Waits(answered));
        outcome.await.expect("the Runtime API serves")
    }

    /// Hands `invocation` to the next poll, and returns the pieces of its streamed response as they come. The function
    /// can send another one only when the earlier one was taken. A caller that goes drops the receiver: the connection is
    /// then closed.
    pub fn stream(&self, invocation: &Invocation) -> mpsc::Receiver<Piece> {
        let (pieces, receiver) = mpsc::channel(1);
        self.send(invocation, Caller::Reads(pieces));
        receiver
    }

    fn send(&self, invocation: &Invocation, answered: Caller) {
        lock(&self.state.waiting).insert(invocation.request_id.clone(), (answered, Instant::now()));
        self.state.events.send(invocation.clone()).expect("the Runtime API serves");
    }
}

impl Drop for RuntimeApi {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl State {
    fn fault(&self, path: &str) -> Option<Fault> {
        let mut faults = lock(&self.faults);
        let next = faults.iter().position(|(end, _)| path.ends_with(end))?;
        Some(faults.remove(next).1)
    }

    fn keep(&self, path: &str, headers: &HeaderMap, body: &str) {
        let mut sent = lock(&self.sent);
        if sent.len() < KEPT {
            sent.push(Sent { path: path.to_owned(), headers: texts(headers), body: body.to_owned() });
        }
    }
}

/// A test that panicked elsewhere does not matter here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let state = Arc::clone(&state);
        let service = service_fn(move |request| handle(Arc::clone(&state), request));
        // The connection of a killed function ends with an error. The end of the function is noticed elsewhere.
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

/// An error closes the connection.
async fn handle(state: Arc<State>, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
    let now = Instant::now();
    let (request, body) = request.into_parts();
    let path = request.uri.path().trim_start_matches("/2018-06-01/runtime").to_owned();
    if request.headers.get("lambda-runtime-function-response-mode").is_some_and(|mode| mode == "streaming") {
        state.keep(&path, &request.headers, "");
        return streamed(&state, &path, body, now).await;
    }
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let body = String::from_utf8_lossy(&body).into_owned();
    state.keep(&path, &request.headers, &body);
    let instead = match state.fault(&path) {
        None => None,
        Some(Fault::Status(said)) => Some(status(said)),
        Some(Fault::Close) => return Err(io::ErrorKind::ConnectionAborted.into()),
    };
    if path.ends_with("/next")
        && let Some(said) = instead
    {
        return Ok(said);
    }
    let path: Vec<&str> = path.split('/').collect();
    let response = match (&request.method, path.as_slice()) {
        (&Method::GET, ["", "invocation", "next"]) => {
            state.first_poll.get_or_init(|| now);
            state.polls.send_modify(|polls| *polls += 1);
            let invocation = state.next.lock().await.recv().await;
            let response = invocation.as_ref().map_or_else(|| status(StatusCode::GONE), next);
            if let Some(invocation) = invocation {
                lock(&state.waiting).entry(invocation.request_id).and_modify(|(_, sent)| *sent = Instant::now());
            }
            response
        }
        (&Method::POST, ["", "invocation", request_id, kind @ ("response" | "error")]) => {
            let outcome = if *kind == "response" {
                InvocationResult::Response(body)
            } else {
                let error: Value = serde_json::from_str(&body).unwrap_or_default();
                InvocationResult::Error(error["errorMessage"].as_str().unwrap_or(&body).to_owned())
            };
            let send = |(answered, sent): (Caller, Instant)| match answered {
                Caller::Waits(answered) => answered.send((outcome, now.saturating_duration_since(sent))).is_ok(),
                // Not a stream, so there are no pieces.
                Caller::Reads(_) => true,
            };
            match lock(&state.waiting).remove(*request_id).map(send) {
                Some(true) => status(StatusCode::ACCEPTED),
                // Answered twice, or never sent.
                _ => status(StatusCode::BAD_REQUEST),
            }
        }
        (&Method::GET, ["", "restore", "next"]) => status(StatusCode::OK),
        (&Method::POST, ["", "init" | "restore", "error"]) => status(StatusCode::ACCEPTED),
        _ => status(StatusCode::NOT_FOUND),
    };
    Ok(instead.unwrap_or(response))
}

async fn streamed(state: &State, path: &str, mut body: Incoming, now: Instant) -> io::Result<Response<Full<Bytes>>> {
    let request_id = path.split('/').nth(2).unwrap_or_default();
    let Some((answered, sent)) = lock(&state.waiting).remove(request_id) else {
        return Ok(status(StatusCode::BAD_REQUEST));
    };
    match answered {
        Caller::Waits(answered) => {
            let outcome = InvocationResult::Stream(all_of(body).await);
            let _ = answered.send((outcome, now.saturating_duration_since(sent)));
        }
        Caller::Reads(pieces) => {
            while let Some(piece) = next_piece(&mut body).await {
                pieces.send(piece).await.map_err(|_| io::ErrorKind::ConnectionAborted)?;
            }
        }
    }
    Ok(status(StatusCode::ACCEPTED))
}

fn next(invocation: &Invocation) -> Response<Full<Bytes>> {
    let mut headers = HashMap::from([
        // AWS's client in C, which those for Python and Node.js have, does not survive its absence.
        ("content-type", "application/json".to_owned()),
        ("lambda-runtime-aws-request-id", invocation.request_id.clone()),
        ("lambda-runtime-deadline-ms", invocation.deadline_ms.to_string()),
        ("lambda-runtime-invoked-function-arn", "arn:aws:lambda:us-east-1:123456789012:function:testbed".to_owned()),
        ("lambda-runtime-trace-id", invocation.trace_id.clone()),
    ]);
    for (name, value) in &invocation.headers {
        match value {
            Some(value) => headers.insert(name, (*value).to_owned()),
            None => headers.remove(name),
        };
    }
    let response =
        headers.into_iter().fold(Response::builder(), |response, (name, value)| response.header(name, value));
    response.body(invocation.payload.clone().into()).expect("valid headers")
}

fn texts(headers: &HeaderMap) -> BTreeMap<String, String> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

fn status(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::default();
    *response.status_mut() = status;
    response
}
