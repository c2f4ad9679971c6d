//! Each behaviour of the hostile upstream does what it says.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::io::{ErrorKind, Read as _};
use std::sync::Once;
use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use testbed::upstream::{Answer, Behaviour, Certificate, IdleEnd, Upstream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::rustls::crypto::ring;

/// A connection on which a `GET /` was sent.
async fn get(upstream: &Upstream) -> TcpStream {
    let address = upstream.url("").replace("http://", "");
    let mut tcp = TcpStream::connect(address).await.unwrap();
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

/// What is received until nothing more comes, while the connection stays open. Needs a paused clock.
async fn read_until_quiet(tcp: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let closed = timeout(Duration::from_mins(10), tcp.read_to_end(&mut bytes)).await;
    assert!(closed.is_err(), "closed: {closed:?}");
    String::from_utf8_lossy(&bytes).into_owned()
}

fn client() -> reqwest::ClientBuilder {
    static RING: Once = Once::new();
    RING.call_once(|| ring::default_provider().install_default().unwrap());
    reqwest::Client::builder().no_proxy()
}

async fn fetch(client: &reqwest::Client, upstream: &Upstream) -> reqwest::Result<String> {
    client.get(upstream.url("/")).send().await?.text().await
}

#[tokio::test]
async fn scripts_come_first_then_the_default() {
    let upstream = Upstream::start();
    upstream.then(Answer::status(503).retry_after(7)).then(Answer::status(404)).always(Answer::ok("good"));
    let client = client().build().unwrap();
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(client.get(upstream.url("/a?b")).header("X-Test", "1").send().await.unwrap().status().as_u16());
    }
    assert_eq!(seen, [503, 404, 200, 200]);
    assert_eq!((upstream.calls(), upstream.connections()), (4, 1), "kept alive");
    let requests = upstream.requests();
    assert_eq!((requests[3].method.as_str(), requests[3].target.as_str()), ("GET", "/a?b"));
    assert_eq!(requests[3].header("x-TEST"), Some("1"));
    assert!(requests[0].at <= requests[3].at);
}

#[tokio::test]
async fn answers_carry_what_they_were_given() {
    let upstream = Upstream::start();
    let epoch = SystemTime::UNIX_EPOCH;
    let answer = Answer::ok("good ".repeat(100)).cache_control("max-age=1").etag("\"1\"").last_modified(epoch).gzip();
    upstream.then(Answer::status(429).retry_after_date(epoch)).always(answer);
    let plain = client().gzip(false).build().unwrap();
    let response = plain.get(upstream.url("/")).send().await.unwrap();
    assert_eq!(response.headers()["retry-after"], "Thu, 01 Jan 1970 00:00:00 GMT");

    let head = plain.head(upstream.url("/")).send().await.unwrap();
    assert_eq!(
        (head.headers()["content-length"].as_bytes(), head.headers().get("vary").is_some()),
        (&b"500"[..], true)
    );
    assert_eq!(fetch(&plain, &upstream).await.unwrap().len(), 500);

    let zipped = plain.get(upstream.url("/")).header("accept-encoding", "br, gzip;q=1").send().await.unwrap();
    assert_eq!(zipped.headers()["content-encoding"], "gzip");
    assert!(zipped.content_length().unwrap() < 100);
    assert_eq!(fetch(&client().build().unwrap(), &upstream).await.unwrap().len(), 500);

    for (name, value, status) in [
        ("if-none-match", "\"0\", W/\"1\"", StatusCode::NOT_MODIFIED),
        ("if-none-match", "*", StatusCode::NOT_MODIFIED),
        ("if-none-match", "\"2\"", StatusCode::OK),
        ("if-modified-since", "Thu, 01 Jan 1970 00:00:00 GMT", StatusCode::NOT_MODIFIED),
        ("if-modified-since", "Thu, 01 Jan 1970 00:00:01 GMT", StatusCode::OK),
    ] {
        let response = plain.get(upstream.url("/")).header(name, value).send().await.unwrap();
        assert_eq!(response.status(), status, "{name}: {value}");
        assert_eq!(
            (&response.headers()["etag"], response.headers().contains_key("date")),
            (&"\"1\"".parse().unwrap(), true)
        );
        assert_eq!(upstream.requests().last().unwrap().header(name), Some(value));
    }
}

#[tokio::test]
async fn resets_are_resets_and_truncation_is_a_clean_end() {
    let upstream = Upstream::start();
    upstream.then(Behaviour::ResetAtConnect).then(Behaviour::ResetMidHeader).then(Behaviour::ResetMidBody);
    upstream.then(Behaviour::Truncate).then(Answer::ok("good")).then(Behaviour::ResetAtConnect);

    assert_eq!(read(&mut get(&upstream).await).await, (String::new(), Err(ErrorKind::ConnectionReset)));
    assert_eq!((upstream.calls(), upstream.connections()), (0, 1), "not a call");
    let (head, end) = read(&mut get(&upstream).await).await;
    assert!(head.starts_with("HTTP/1.1 200") && !head.contains("\r\n\r\n"), "{head}");
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
    for expected in [Err(ErrorKind::ConnectionReset), Ok(())] {
        let (answer, end) = read(&mut get(&upstream).await).await;
        assert!(answer.contains("content-length: 1000\r\n") && answer.ends_with("\r\n\r\nonly the beginning"));
        assert_eq!(end, expected);
    }
    let mut kept = get(&upstream).await;
    upstream.calls_reached(4).await;
    kept.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let (answer, end) = read(&mut kept).await;
    assert!(answer.ends_with("good"));
    assert_eq!((end, upstream.calls()), (Err(ErrorKind::ConnectionReset), 5));
}

#[tokio::test(start_paused = true)]
async fn faults_that_stay_open_send_no_more() {
    let upstream = Upstream::start();
    for (behaviour, last) in [
        (Behaviour::Silent, ""),
        (Behaviour::LengthTooLong, "\r\n\r\nonly the beginning"),
        (
            Behaviour::LengthTooShort,
            "content-length: 5\r\n\r\nfirstHTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 8\r\n\r\nsmuggled",
        ),
        (Behaviour::MalformedChunks, "5\r\nfirst\r\nfive\r\nfifth\r\n0\r\n\r\n"),
        (Behaviour::MalformedHeaders, "\r\nthis is no header\r\ncontent-length: 4\r\n\r\ngood"),
        (Behaviour::BadGzip, "content-length: 16\r\n\r\nthis is not gzip"),
        (Behaviour::ManyHeaders, "\r\nx-99998: 99998\r\nx-99999: 99999\r\n\r\ngood"),
    ] {
        upstream.then(behaviour.clone());
        let answer = read_until_quiet(&mut get(&upstream).await).await;
        assert!(answer.ends_with(last) && answer.is_empty() == last.is_empty(), "{behaviour:?}: {answer}");
    }
    upstream.all_closed().await;
}

#[tokio::test(start_paused = true)]
async fn slow_behaviours_take_their_time() {
    let upstream = Upstream::start();
    upstream.then(Behaviour::late(Duration::from_secs(30), Behaviour::Truncate)).then(Behaviour::Drip);
    upstream.then(Behaviour::late(Duration::from_hours(24), Answer::ok("never")));
    let start = Instant::now();
    assert!(read(&mut get(&upstream).await).await.0.ends_with("only the beginning"));
    assert!(start.elapsed() >= Duration::from_secs(30));

    let mut tcp = get(&upstream).await;
    let start = Instant::now();
    let mut answer = Vec::new();
    while !answer.ends_with(b"only the beginning...") {
        tcp.read_buf(&mut answer).await.unwrap();
    }
    assert!(start.elapsed() >= Duration::from_secs(3));
    drop(tcp);

    let impatient = get(&upstream).await;
    upstream.calls_reached(3).await;
    let start = Instant::now();
    drop(impatient);
    upstream.all_closed().await;
    assert!(start.elapsed() < Duration::from_hours(24), "a client that hangs up is noticed");
}

#[tokio::test]
async fn the_endless_body_ends_with_the_client() {
    let upstream = Upstream::start();
    upstream.always(Behaviour::EndlessBody);
    let client = client().build().unwrap();
    let mut response = client.get(upstream.url("/")).send().await.unwrap();
    let mut read = 0;
    while read < 32 << 20 {
        let chunk = response.chunk().await.unwrap().unwrap();
        assert!(chunk.iter().all(|byte| *byte == 0));
        read += chunk.len();
    }
    drop(response);
    upstream.all_closed().await;
}

#[tokio::test]
async fn the_gzip_bomb_is_gzip() {
    let upstream = Upstream::start();
    upstream.always(Behaviour::GzipBomb);
    let response = client().gzip(false).build().unwrap().get(upstream.url("/")).send().await.unwrap();
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let sent = response.bytes().await.unwrap();
    assert!(sent.len() < 2 << 20, "{} bytes", sent.len());
    assert_eq!(sent[sent.len() - 4..], (1_u32 << 30).to_le_bytes());
    let mut zeros = vec![1; 4 << 20];
    flate2::read::GzDecoder::new(&*sent).read_exact(&mut zeros).unwrap();
    assert!(zeros.iter().all(|byte| *byte == 0));
    if let Some(file) = std::env::var_os("KEEP_GZIP_BOMB") {
        std::fs::write(file, sent).unwrap();
    }
}

#[tokio::test]
async fn an_http_client_sees_faults_as_faults() {
    let upstream = Upstream::start();
    let client = client().timeout(Duration::from_secs(5)).build().unwrap();
    for fault in [
        Behaviour::ResetAtConnect,
        Behaviour::ResetMidHeader,
        Behaviour::ResetMidBody,
        Behaviour::Truncate,
        Behaviour::MalformedChunks,
        Behaviour::MalformedHeaders,
        Behaviour::ManyHeaders,
        Behaviour::BadGzip,
    ] {
        upstream.always(fault.clone());
        let error = fetch(&client, &upstream).await.expect_err(&format!("{fault:?}"));
        assert!(!error.is_timeout(), "{fault:?}: {error:?}");
        upstream.always(Answer::ok("good"));
        assert_eq!(fetch(&client, &upstream).await.unwrap(), "good", "after {fault:?}");
    }
    upstream.then(Behaviour::LengthTooShort);
    assert_eq!(fetch(&client, &upstream).await.unwrap(), "first");
    assert_eq!(fetch(&client, &upstream).await.unwrap(), "good", "not the smuggled one");
}

#[tokio::test]
async fn redirects_go_where_they_say() {
    let (upstream, other) = (Upstream::start(), Upstream::start());
    let client = client().build().unwrap();
    upstream.always(Behaviour::redirects(3, Answer::ok("arrived")));
    assert_eq!(fetch(&client, &upstream).await.unwrap(), "arrived");
    let targets: Vec<_> = upstream.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(targets, ["/", "/hop/1", "/hop/2", "/hop/3"]);

    other.always(Answer::ok("elsewhere"));
    upstream.always(Behaviour::redirect(307, other.url("/")));
    assert_eq!(fetch(&client, &upstream).await.unwrap(), "elsewhere");

    upstream.always(Behaviour::redirect(301, "/"));
    assert!(fetch(&client, &upstream).await.unwrap_err().is_redirect(), "to itself, for ever");
}

#[tokio::test]
async fn decides_by_the_request() {
    let upstream = Upstream::start();
    upstream.always(Behaviour::decide(|request| match request.header("authorization") {
        Some("Bearer new") => Answer::ok("good").into(),
        _ => Answer::status(401).into(),
    }));
    let client = client().build().unwrap();
    for (token, status) in [("old", 401), ("new", 200)] {
        assert_eq!(client.get(upstream.url("/")).bearer_auth(token).send().await.unwrap().status(), status);
    }
}

#[tokio::test]
async fn refuses_and_listens_again_on_the_same_port() {
    let upstream = Upstream::start();
    let client = client().build().unwrap();
    for calls in 1..=5 {
        upstream.then(Answer::ok("good")).then(Behaviour::Silent);
        assert_eq!(fetch(&client, &upstream).await.unwrap(), "good");
        let mut waiting = get(&upstream).await;
        upstream.calls_reached(2 * calls).await;
        upstream.refuse().await;
        upstream.refuse().await;
        assert!(read(&mut waiting).await.0.is_empty(), "dropped");
        let refused = TcpStream::connect(upstream.url("").replace("http://", "")).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        assert!(fetch(&client, &upstream).await.unwrap_err().is_connect());
        upstream.listen();
        upstream.listen();
    }
    assert_eq!(fetch(&client, &upstream).await.unwrap(), "good");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_close_on_command() {
    let upstream = Upstream::start();
    for _ in 0..200 {
        let mut idle = get(&upstream).await;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\ngood") {
            idle.read_buf(&mut answer).await.unwrap();
        }
        assert_eq!(upstream.close_idle_connections().await, 1);
        assert_eq!(read(&mut idle).await, (String::new(), Ok(())));
    }
    upstream.then(Behaviour::Silent);
    let calls = upstream.calls();
    let _busy = get(&upstream).await;
    upstream.calls_reached(calls + 1).await;
    assert_eq!(upstream.close_idle_connections().await, 0, "a busy one is left alone");

    upstream.then(Behaviour::CloseIdle(Answer::ok("bye")));
    let (answer, end) = read(&mut get(&upstream).await).await;
    assert!(answer.ends_with("\r\n\r\nbye") && !answer.to_lowercase().contains("connection:"));
    assert_eq!(end, Ok(()));
}

#[tokio::test]
async fn idle_connections_end_as_they_are_told() {
    let upstream = Upstream::start();
    let reset = Err(ErrorKind::ConnectionReset);
    for (how, received, end) in [
        (IdleEnd::Close, "", Ok(())),
        (IdleEnd::Reset, "", reset),
        (IdleEnd::TimeOut, "HTTP/1.1 408 \r\nconnection: close\r\ncontent-length: 0\r\n\r\n", Ok(())),
        (IdleEnd::Forget, "", reset),
    ] {
        let mut idle = get(&upstream).await;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\ngood") {
            idle.read_buf(&mut answer).await.unwrap();
        }
        assert_eq!(upstream.end_idle_connections(how).await, 1, "{how:?}");
        if how == IdleEnd::Forget {
            assert_eq!(idle.try_read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
            idle.write_all(b"GET").await.unwrap();
        }
        assert_eq!(read(&mut idle).await, (received.to_owned(), end), "{how:?}");
    }
    assert_eq!(upstream.calls(), 4);
}

#[tokio::test(start_paused = true)]
async fn idle_connections_vanish() {
    let upstream = Upstream::start();
    let mut idle = get(&upstream).await;
    assert!(read_until_quiet(&mut idle).await.ends_with("good"));
    assert_eq!(upstream.end_idle_connections(IdleEnd::Vanish).await, 1);
    idle.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    assert_eq!((read_until_quiet(&mut idle).await.as_str(), upstream.calls()), ("", 1));
    drop(idle);
    upstream.all_closed().await;
}

#[tokio::test]
async fn raw_bytes_are_sent_as_they_are() {
    let upstream = Upstream::start();
    upstream.then(Behaviour::raw("HTTP/1.0 200\na: b", b"\xff\0", true));
    assert_eq!(read(&mut get(&upstream).await).await, ("HTTP/1.0 200\r\na: b\r\n\r\n\u{fffd}\0".into(), Ok(())));
}

#[tokio::test]
async fn flaky_is_seeded() {
    async fn run(seed: u64, fault: Behaviour) -> Vec<bool> {
        let upstream = Upstream::start();
        upstream.flaky(seed, 0.5, fault, Answer::ok("good"));
        let client = client().retry(reqwest::retry::never()).build().unwrap();
        let mut good = Vec::new();
        for _ in 0..200 {
            good.push(client.get(upstream.url("/")).send().await.is_ok_and(|response| response.status() == 200));
        }
        good
    }
    let first = run(1, Answer::status(503).into()).await;
    let good = first.iter().filter(|good| **good).count();
    assert!((80..120).contains(&good), "{good} of 200");
    assert_eq!(first, run(1, Behaviour::CloseIdle(Answer::status(500))).await, "whatever the fault");
    assert_ne!(first, run(2, Answer::status(503).into()).await);
}

#[tokio::test]
async fn certificates_are_what_they_say() {
    let ca = |upstream: &Upstream| {
        let pem = std::fs::read(upstream.ca_file().unwrap()).unwrap();
        client().tls_certs_only([reqwest::Certificate::from_pem(&pem).unwrap()]).build().unwrap()
    };
    let upstream = Upstream::start_tls(Certificate::Valid);
    let trusting = ca(&upstream);
    assert_eq!(fetch(&trusting, &upstream).await.unwrap(), "good");
    let by_name = upstream.url("/").replace("127.0.0.1", "localhost");
    assert_eq!(trusting.get(by_name).send().await.unwrap().status(), 200);
    upstream.then(Behaviour::ResetMidBody).then(Behaviour::Truncate);
    for _ in 0..2 {
        assert!(fetch(&trusting, &upstream).await.unwrap_err().is_decode());
    }
    let file = upstream.ca_file().unwrap().to_owned();
    drop(upstream);
    assert!(!file.exists());

    for (certificate, problem) in [(Certificate::WrongName, "NotValidForName"), (Certificate::Expired, "Expired")] {
        let upstream = Upstream::start_tls(certificate);
        let error = fetch(&ca(&upstream), &upstream).await.unwrap_err();
        assert!(format!("{error:?}").contains(problem), "{error:?}");
        assert_eq!((upstream.calls(), upstream.connections()), (0, 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serves_64_at_a_time() {
    let upstream = Upstream::start();
    let client = client().build().unwrap();
    let callers: Vec<_> = (0..64)
        .map(|_| {
            let (client, url) = (client.clone(), upstream.url("/"));
            tokio::spawn(async move {
                for _ in 0..50 {
                    assert_eq!(client.get(&url).send().await.unwrap().text().await.unwrap(), "good");
                }
            })
        })
        .collect();
    let start = Instant::now();
    for caller in callers {
        caller.await.unwrap();
    }
    println!("{:.0} requests a second", 3200.0 / start.elapsed().as_secs_f64());
    assert_eq!((upstream.calls(), upstream.requests().len()), (3200, 3200));
    assert!(upstream.connections() <= 128, "{}", upstream.connections());
}

#[tokio::test]
async fn everything_stops_when_it_is_dropped() {
    let upstream = Upstream::start();
    upstream.always(Behaviour::Silent);
    let address = upstream.url("").replace("http://", "");
    let mut waiting = get(&upstream).await;
    upstream.calls_reached(1).await;
    drop(upstream);
    assert!(read(&mut waiting).await.0.is_empty());
    assert_eq!(TcpStream::connect(address).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}
