//! A hostile upstream on loopback: an HTTP/1.1 server that answers well or breaks the protocol, on command.
//!
//! ```
//! use replay::upstream::{Answer, Behaviour, Upstream};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let upstream = Upstream::start();
//! upstream.then(Behaviour::ResetMidBody).then(Answer::status(503).retry_after(1)).always(Answer::ok("good"));
//! // Give `upstream.url("/")` to the client under test, then count what it did:
//! assert_eq!(upstream.calls(), 0);
//! # }
//! ```
//!
//! Each call takes the next [`Behaviour`] of the script, or the default once the script is empty. A call never reaches
//! a closed port, so that is not a behaviour but a switch: [`Upstream::refuse`] and [`Upstream::listen`].
//!
//! The server runs on the tokio runtime that started it (do not block that runtime) and ends when it is dropped. It
//! panics if it cannot set something up.

mod behaviour;
mod connection;
mod message;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::TcpSocket;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;

pub use behaviour::{Behaviour, Decision};
pub use connection::Certificate;
pub use message::{Answer, Request};

use behaviour::Script;
use connection::{Tls, accept};

/// How many requests [`Upstream::requests`] remembers; a long bench must not fill the memory.
const REMEMBERED: usize = 20_000;

/// The running server. See the [module's documentation](self).
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    /// Bound, but never listening: it reserves the port while nothing listens on it, after [`Upstream::refuse`].
    _port: TcpSocket,
    server: Mutex<Option<JoinHandle<()>>>,
    state: Arc<State>,
}

/// What the connections share.
#[derive(Debug)]
struct State {
    script: Mutex<Script>,
    requests: Mutex<VecDeque<Request>>,
    counts: watch::Sender<Counts>,
    /// Each connection holds a receiver for as long as it is open.
    open: watch::Sender<()>,
    /// Reaches the connections that wait for a request. Each drops the sender that it receives once it has ended.
    end_idle: broadcast::Sender<(IdleEnd, mpsc::Sender<()>)>,
    tls: Option<Tls>,
}

/// How a connection ends while it waits for a request. A request that it then gets is not a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum IdleEnd {
    /// With a clean end (FIN).
    Close,
    /// With a RST.
    Reset,
    /// With a `408`, which nobody asked for, and a clean end.
    TimeOut,
    /// With a RST as soon as something arrives, like a NAT gateway that has forgotten the connection.
    Forget,
    /// Not at all: what arrives gets no response, as if packets vanished.
    Vanish,
}

#[derive(Debug, Default)]
struct Counts {
    calls: usize,
    connections: usize,
}

impl Upstream {
    /// Starts an `http` upstream on a free port of 127.0.0.1. It answers `200` until it is told otherwise.
    pub fn start() -> Self {
        Self::start_with(None)
    }

    /// Starts an `https` upstream. Its certificate is signed by the CA of [`Upstream::ca_file`].
    pub fn start_tls(certificate: Certificate) -> Self {
        Self::start_with(Some(certificate))
    }

    fn start_with(certificate: Option<Certificate>) -> Self {
        let port = bind((Ipv4Addr::LOCALHOST, 0).into());
        let address = port.local_addr().expect("a bound socket has an address");
        let state = State {
            script: Mutex::new(Script { queue: VecDeque::new(), otherwise: Answer::ok("good").into() }),
            requests: Mutex::default(),
            counts: watch::Sender::default(),
            open: watch::Sender::default(),
            end_idle: broadcast::Sender::new(16),
            tls: certificate.map(|certificate| Tls::new(certificate, address.port())),
        };
        let upstream = Self { address, _port: port, server: Mutex::default(), state: Arc::new(state) };
        upstream.listen();
        upstream
    }

    /// The URL of `path`, which begins with a slash. The host is 127.0.0.1, so that no test waits for DNS.
    pub fn url(&self, path: &str) -> String {
        let scheme = if self.state.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.address)
    }

    /// The PEM file of the CA that signed the certificate, for `UPSTREAM_CA_FILE`; `None` without TLS. It is deleted
    /// with the upstream. All upstreams of a process have the same CA.
    pub fn ca_file(&self) -> Option<&Path> {
        self.state.tls.as_ref().map(|tls| &*tls.ca_file)
    }

    /// Adds the behaviour for the next call, after all that were added before.
    pub fn then(&self, behaviour: impl Into<Behaviour>) -> &Self {
        lock(&self.state.script).queue.push_back(behaviour.into());
        self
    }

    /// Sets the behaviour for every call once those that [`Upstream::then`] added are used up.
    pub fn always(&self, behaviour: impl Into<Behaviour>) -> &Self {
        lock(&self.state.script).otherwise = behaviour.into();
        self
    }

    /// Closes the port and drops every connection, whatever it is doing. Returns when all of this is done.
    pub async fn refuse(&self) {
        let server = lock(&self.server).take();
        if let Some(server) = server {
            server.abort();
            let _cancelled = server.await;
            self.all_closed().await;
        }
    }

    /// Listens again, on the same port, after [`Upstream::refuse`].
    pub fn listen(&self) {
        lock(&self.server).get_or_insert_with(|| accept(bind(self.address), Arc::clone(&self.state)));
    }

    /// Ends every connection that waits for a request, and returns how many there were, when all of them have ended.
    /// A connection whose answer has reached the client counts as waiting.
    pub async fn end_idle_connections(&self, how: IdleEnd) -> usize {
        let (ending, mut ended) = mpsc::channel(1);
        let idle = self.state.end_idle.send((how, ending)).unwrap_or(0);
        let _all_let_go = ended.recv().await;
        idle
    }

    /// How many requests have arrived (their heads, to the empty line).
    pub fn calls(&self) -> usize {
        self.state.counts.borrow().calls
    }

    /// How many connections were accepted, those that were reset at once included.
    pub fn connections(&self) -> usize {
        self.state.counts.borrow().connections
    }

    /// The requests in their order of arrival: the last 20,000.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.state.requests).iter().cloned().collect()
    }

    /// Waits until [`Upstream::calls`] is at least `calls`.
    pub async fn calls_reached(&self, calls: usize) {
        // This cannot fail, because `self` holds the sender.
        let _ = self.state.counts.subscribe().wait_for(|counts| counts.calls >= calls).await;
    }

    /// Waits until no connection is open: whoever called has hung up.
    pub async fn all_closed(&self) {
        self.state.open.closed().await;
    }
}

impl Drop for Upstream {
    /// The accepting task owns the tasks of the connections, so they end with it.
    fn drop(&mut self) {
        if let Some(server) = lock(&self.server).take() {
            server.abort();
        }
        if let Some(file) = self.ca_file() {
            let _gone_already = std::fs::remove_file(file);
        }
    }
}

impl State {
    /// Records a request and returns the behaviour for it.
    fn arrived(&self, request: &Request) -> Behaviour {
        let mut requests = lock(&self.requests);
        if requests.len() == REMEMBERED {
            requests.pop_front();
        }
        requests.push_back(request.clone());
        let behaviour = lock(&self.script).next();
        drop(requests);
        self.counts.send_modify(|counts| counts.calls += 1);
        behaviour
    }
}

/// A socket that shares its port with the socket that reserves it.
fn bind(address: SocketAddr) -> TcpSocket {
    let bound = TcpSocket::new_v4().and_then(|socket| {
        socket.set_reuseport(true)?;
        socket.bind(address)?;
        Ok(socket)
    });
    bound.expect("a port on loopback")
}

/// A test that panicked elsewhere does not matter here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The tests of an endpoint show what a client makes of each behaviour. These are what it cannot tell apart.
#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::time::timeout;

    use super::*;

    /// A connection on which a `GET /` was sent.
    async fn get(upstream: &Upstream) -> TcpStream {
        let mut tcp = TcpStream::connect(upstream.address).await.unwrap();
        // Fails if the connection is reset first. The next read shows that.
        let _reset = tcp.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        tcp
    }

    /// What is received until the connection ends, and whether it ends cleanly (`Ok`).
    async fn read(tcp: &mut TcpStream) -> (String, Result<(), ErrorKind>) {
        let mut bytes = Vec::new();
        let end = tcp.read_to_end(&mut bytes).await;
        (String::from_utf8_lossy(&bytes).into_owned(), end.map(drop).map_err(|error| error.kind()))
    }

    #[tokio::test]
    async fn resets_are_resets_and_truncation_is_a_clean_end() {
        let upstream = Upstream::start();
        let reset = Err(ErrorKind::ConnectionReset);
        for (behaviour, last, end) in [
            (Behaviour::ResetAtConnect, "", reset),
            (Behaviour::ResetMidHeader, "\r\ncontent-type", reset),
            (Behaviour::ResetMidBody, "\r\n\r\nonly the beginning", reset),
            (Behaviour::Truncate, "\r\n\r\nonly the beginning", Ok(())),
            (Behaviour::CloseIdle(Answer::ok("bye")), "\r\n\r\nbye", Ok(())),
        ] {
            upstream.then(behaviour.clone());
            let (answer, ended) = read(&mut get(&upstream).await).await;
            assert!(answer.ends_with(last) && answer.is_empty() == last.is_empty(), "{behaviour:?}: {answer}");
            assert_eq!(ended, end, "{behaviour:?}");
        }
        assert_eq!((upstream.calls(), upstream.connections()), (4, 5));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn idle_connections_end_as_they_are_told_and_busy_ones_do_not() {
        let upstream = Upstream::start();
        let reset = Err(ErrorKind::ConnectionReset);
        for (how, received, end) in [
            (IdleEnd::Close, "", Ok(())),
            (IdleEnd::Reset, "", reset),
            (IdleEnd::TimeOut, "HTTP/1.1 408 \r\nconnection: close\r\ncontent-length: 0\r\n\r\n", Ok(())),
            (IdleEnd::Forget, "", reset),
            (IdleEnd::Vanish, "", Ok(())),
        ] {
            // Idle as soon as the client has its answer, however quick that is.
            for _ in 0..40 {
                let mut idle = get(&upstream).await;
                let mut answer = Vec::new();
                while !answer.ends_with(b"\r\n\r\ngood") {
                    idle.read_buf(&mut answer).await.unwrap();
                }
                assert_eq!(upstream.end_idle_connections(how).await, 1, "{how:?}");
                if matches!(how, IdleEnd::Forget | IdleEnd::Vanish) {
                    assert_eq!(idle.try_read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
                    idle.write_all(b"GET").await.unwrap();
                }
                if how == IdleEnd::Vanish {
                    assert!(timeout(Duration::from_millis(1), read(&mut idle)).await.is_err(), "it answered");
                    continue;
                }
                assert_eq!(read(&mut idle).await, (received.to_owned(), end), "{how:?}");
            }
        }
        upstream.then(Behaviour::Silent);
        let calls = upstream.calls();
        let _busy = get(&upstream).await;
        upstream.calls_reached(calls + 1).await;
        assert_eq!(upstream.end_idle_connections(IdleEnd::Close).await, 0);
    }
}
