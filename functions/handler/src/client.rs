//! HTTP to Lambda's Runtime API, one request at a time on each connection.
//!
//! The client of `lambda_runtime` looks the host up in a pool for each request, and builds the URI twice. Two requests are
//! the largest part of a warm invocation, so this uses hyper's connections directly: docs/performance.md has the figures.

use std::{
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use futures_util::FutureExt;
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use lambda_http::{
    Error,
    http::{
        HeaderValue, Request, Response, Uri,
        header::{HOST, USER_AGENT},
        uri::Authority,
    },
};
use lambda_runtime_api_client::{body::Body, build_request};
use tokio::net::TcpStream;

/// For reading, and for writing. No head of Lambda's comes near it. `lambda_runtime` has 1 MB, which a large event takes besides
/// its own memory.
const MAX_BUFFER: usize = 1 << 17;

pub(crate) struct Client {
    address: SocketAddr,
    /// What comes before each path. `cargo lambda watch` has the function's name in it.
    base: String,
    host: HeaderValue,
    user_agent: HeaderValue,
    /// The connections that wait for a request.
    idle: Mutex<Vec<SendRequest<Body>>>,
}

impl Client {
    /// # Errors
    ///
    /// If `api` is not an address.
    pub(crate) fn new(api: &str) -> Result<Self, Error> {
        let uri: Uri = api.parse()?;
        let address = address(&uri)?;
        // That of Lambda's own runtime for Rust.
        let user_agent = build_request().headers_ref().and_then(|headers| headers.get(USER_AGENT)).cloned();
        Ok(Self {
            address,
            base: uri.path().trim_end_matches('/').to_owned(),
            host: HeaderValue::try_from(uri.authority().map_or("", Authority::as_str))?,
            user_agent: user_agent.unwrap_or(HeaderValue::from_static("aws-lambda-rust")),
            idle: Mutex::default(),
        })
    }

    /// Sends a request whose URI is a path, and returns the whole answer.
    ///
    /// # Errors
    ///
    /// If there is no connection, or it fails. The request may have been sent nevertheless.
    pub(crate) async fn call(&self, mut request: Request<Body>) -> Result<Response<Bytes>, Error> {
        if !self.base.is_empty() {
            *request.uri_mut() = format!("{}{}", self.base, request.uri()).parse()?;
        }
        request.headers_mut().insert(USER_AGENT, self.user_agent.clone());
        request.headers_mut().insert(HOST, self.host.clone());
        loop {
            let idle = self.idle().pop();
            let was_idle = idle.is_some();
            let mut connection = match idle {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            match connection.ready().await {
                Ok(()) => {}
                Err(_closed) if was_idle => continue,
                Err(error) => return Err(error.into()),
            }
            match connection.try_send_request(request).await {
                Ok(response) => {
                    let (parts, mut body) = response.into_parts();
                    // The size is known, so a large event is held once: its parts are dropped as they come.
                    let size = usize::try_from(body.size_hint().lower()).unwrap_or_default();
                    let mut whole = Vec::with_capacity(size);
                    while let Some(frame) = body.frame().await {
                        whole.extend_from_slice(&frame?.into_data().unwrap_or_default());
                    }
                    self.idle().push(connection);
                    return Ok(Response::from_parts(parts, whole.into()));
                }
                Err(mut failed) => match failed.take_message() {
                    // It was closed while it was idle.
                    Some(unsent) if was_idle => request = unsent,
                    _ => return Err(failed.into_error().into()),
                },
            }
        }
    }

    async fn connect(&self) -> Result<SendRequest<Body>, Error> {
        let stream = TcpStream::connect(self.address).await?;
        // A small piece of a stream must not wait until Lambda has acknowledged the one before it.
        #[cfg(feature = "stream")]
        stream.set_nodelay(true)?;
        let handshake = http1::Builder::new().max_buf_size(MAX_BUFFER).handshake(TokioIo::new(stream));
        let (connection, driver) = handshake.await?;
        // The request that fails has the error, too.
        tokio::spawn(driver.map(drop));
        Ok(connection)
    }

    /// Forgets the connections: those of a snapshot are dead.
    pub(crate) fn reset(&self) {
        self.idle().clear();
    }

    fn idle(&self) -> MutexGuard<'_, Vec<SendRequest<Body>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the Runtime API at `uri` listens. Lambda and its proxies give an IP address. Of names, there is only `localhost`: for
/// others, `getaddrinfo` would be linked, which is 64 kB of each zip, and which a static executable cannot rely on.
///
/// # Errors
///
/// If the host is something else.
pub(crate) fn address(uri: &Uri) -> Result<SocketAddr, Error> {
    let authority = uri.authority().map_or("", Authority::as_str);
    let host = uri.host().unwrap_or_default();
    let host = if host.eq_ignore_ascii_case("localhost") { "127.0.0.1" } else { host };
    // The first is what Lambda gives.
    let address = authority.parse().or_else(|_| format!("{host}:{}", uri.port_u16().unwrap_or(80)).parse());
    address.map_err(|_| format!("`{uri}` is not the IP address of a Runtime API").into())
}

#[cfg(test)]
mod tests {
    use std::{io::ErrorKind, time::Duration};

    use tokio::{
        io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
        net::TcpListener,
        time::timeout,
    };

    use super::*;

    const KEPT: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    const LAST: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";

    /// Takes one connection, and answers each of its requests. Returns the heads of the requests, and the connection.
    async fn serve(listener: &TcpListener, answers: &[&str]) -> (Vec<String>, BufReader<TcpStream>) {
        let (stream, _) = listener.accept().await.unwrap();
        let (mut stream, mut heads) = (BufReader::new(stream), Vec::new());
        for answer in answers {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                assert!(stream.read_line(&mut head).await.unwrap() > 0, "{head:?}");
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            heads.push(head);
        }
        (heads, stream)
    }

    async fn call(client: &Client) -> Result<Bytes, Error> {
        let request = Request::builder().uri("/next").body(Body::empty())?;
        Ok(timeout(Duration::from_secs(10), client.call(request)).await??.into_body())
    }

    #[tokio::test]
    async fn a_connection_is_used_again_until_the_runtime_api_closes_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = Client::new(&format!("http://{address}/.rt/hello/")).unwrap();
        let called = async || call(&client).await.unwrap();
        let twice = async { (called().await, called().await) };
        let ((heads, open), bodies) = tokio::join!(serve(&listener, &[KEPT, KEPT]), twice);
        let agent = client.user_agent.to_str().unwrap();
        assert!(agent.starts_with("aws-lambda-rust/"), "{agent}");
        let head = format!("GET /.rt/hello/next HTTP/1.1\r\nuser-agent: {agent}\r\nhost: {address}\r\n\r\n");
        assert_eq!((heads, bodies), (vec![head.clone(), head.clone()], ("ok".into(), "ok".into())));
        drop(open);
        // When this connection is there, it is also known that the one before was closed.
        let _later = tokio::join!(TcpStream::connect(address), listener.accept());
        let ((heads, _), body) = tokio::join!(serve(&listener, &[LAST]), called());
        assert_eq!((heads, body), (vec![head.clone()], "ok".into()));
        let ((heads, _open), body) = tokio::join!(serve(&listener, &[KEPT]), called());
        assert_eq!((heads, body), (vec![head], "ok".into()));
    }

    #[tokio::test]
    async fn a_request_that_may_have_been_sent_is_not_sent_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::new(&listener.local_addr().unwrap().to_string()).unwrap();
        let cut = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok";
        for answers in [[KEPT, ""], [KEPT, cut]] {
            let closed = async { drop(serve(&listener, &answers).await) };
            let twice = async {
                call(&client).await.unwrap();
                call(&client).await
            };
            let ((), answer) = tokio::join!(closed, twice);
            assert!(answer.unwrap_err().is::<hyper::Error>());
        }
        drop(listener);
        let error = call(&client).await.unwrap_err();
        assert_eq!(error.downcast_ref().map(std::io::Error::kind), Some(ErrorKind::ConnectionRefused));
        for not in ["", "/next", "a b", "example.com:9001"] {
            assert!(Client::new(not).is_err(), "{not}");
        }
    }

    #[test]
    fn the_runtime_api_is_at_an_ip_address_or_localhost() {
        for (api, expected) in [
            ("127.0.0.1:9001", "127.0.0.1:9001"),
            ("169.254.100.1", "169.254.100.1:80"),
            ("http://[::1]:9000/.rt/hello", "[::1]:9000"),
            ("localhost:9009", "127.0.0.1:9009"),
        ] {
            assert_eq!(Client::new(api).unwrap().address.to_string(), expected);
        }
    }
}
