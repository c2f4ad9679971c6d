//! Measures only `fetch`: the time that it adds to a call of its upstream, and its throughput with many requests at once.

use std::{
    process, thread,
    time::{Duration, Instant},
};

use http_body_util::BodyExt;
use hyper::{
    Request,
    client::conn::http1::{self, SendRequest},
    header::HOST,
};
use hyper_util::rt::TokioIo;
use testbed::{Usage, upstream::Upstream};
use tokio::{net::TcpStream, task::spawn_local};

use crate::{
    Effort,
    candidate::{Candidate, UPSTREAM_BODY, settings, start_upstream},
    lambda::Function,
    report::Spread,
    share::keep_to,
};

/// `AWS_LAMBDA_MAX_CONCURRENCY`.
const CONCURRENCIES: [usize; 3] = [1, 8, 64];
/// How often each of them is measured.
const TURNS: usize = 5;

pub(crate) struct Fetch {
    /// The upstream, called with the HTTP client that `fetch` has.
    pub(crate) direct_us: Spread,
    pub(crate) uncached_us: Spread,
    pub(crate) cached_us: Spread,
    /// Connections that were opened for 10,000 uncached invocations.
    pub(crate) connections_per_10000: f64,
    pub(crate) concurrent: Vec<Concurrent>,
}

/// Answers from the cache.
pub(crate) struct Concurrent {
    pub(crate) in_flight: usize,
    pub(crate) per_second: Spread,
    /// With the measurer's processor time counted off.
    pub(crate) own_per_second: Spread,
    pub(crate) latency_us: Spread,
}

pub(crate) async fn measure(fetch: &Candidate, effort: Effort, cores: &str) -> Fetch {
    let uncached = start_upstream("no-store", false);
    let cached = start_upstream("max-age=3600", false);
    let [direct_us, uncached_us, cached_us] = latencies(fetch, effort, &uncached, &cached).await;
    let connections_per_10000 = connections(fetch, effort, &uncached).await;
    keep_to(cores);
    let concurrent = concurrent(fetch, effort, &cached).await;
    Fetch { direct_us, uncached_us, cached_us, connections_per_10000, concurrent }
}

async fn latencies(fetch: &Candidate, effort: Effort, uncached: &Upstream, cached: &Upstream) -> [Spread; 3] {
    let (misses, _) = Function::start(fetch, &settings(&fetch.function, uncached), None).await;
    let (hits, _) = Function::start(fetch, &settings(&fetch.function, cached), None).await;
    let mut client = direct(uncached).await;
    let request = Request::get("/").header(HOST, "localhost").body(String::new()).expect("a request");
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for batch in 0..=effort.batches {
        let mut direct = Vec::new();
        for _ in 0..effort.batch {
            let start = Instant::now();
            let response = client.send_request(request.clone()).await.expect("an upstream that answers");
            assert_eq!(response.into_body().collect().await.expect("a body").to_bytes(), UPSTREAM_BODY);
            direct.push(start.elapsed());
        }
        let batches = [direct, misses.invoke(effort.batch).await, hits.invoke(effort.batch).await];
        // The first one warms up.
        if batch > 0 {
            times.iter_mut().zip(batches).for_each(|(times, batch)| times.extend(batch));
        }
    }
    times.map(|times| Spread::of_times(&times))
}

/// A connection of the HTTP client that `fetch` has, too.
async fn direct(upstream: &Upstream) -> SendRequest<String> {
    let address = upstream.url("").replace("http://", "");
    let stream = TcpStream::connect(address).await.expect("an upstream that listens");
    let _ = stream.set_nodelay(true);
    let (client, connection) = http1::handshake(TokioIo::new(stream)).await.expect("no handshake of HTTP/1.1 fails");
    spawn_local(connection);
    client
}

async fn connections(fetch: &Candidate, effort: Effort, uncached: &Upstream) -> f64 {
    let (function, _) = Function::start(fetch, &settings(&fetch.function, uncached), None).await;
    let before = uncached.connections();
    function.invoke(effort.many).await;
    (uncached.connections() - before) as f64 * 10_000.0 / effort.many as f64
}

async fn concurrent(fetch: &Candidate, effort: Effort, cached: &Upstream) -> Vec<Concurrent> {
    let mut functions = Vec::new();
    for in_flight in CONCURRENCIES {
        let mut env = settings(&fetch.function, cached);
        env.push(("AWS_LAMBDA_MAX_CONCURRENCY".into(), in_flight.to_string()));
        let (function, _) = Function::start(fetch, &env, None).await;
        function.invoke(effort.many).await;
        functions.push((in_flight, function, [Vec::new(), Vec::new()], Vec::new()));
    }
    let cores = thread::available_parallelism().map_or(1, usize::from);
    for _ in 0..TURNS {
        for (in_flight, function, rates, latencies) in &mut functions {
            let (start, measurer) = (Instant::now(), Usage::of(process::id()).cpu);
            let times = function.invoke(effort.many).await;
            let elapsed = start.elapsed();
            // One in flight waits for all that the measurer does; with many, the measurer keeps the function from a core.
            let measurer = Usage::of(process::id()).cpu.saturating_sub(measurer).div_f64(cores.min(*in_flight) as f64);
            for (rates, time) in rates.iter_mut().zip([elapsed, elapsed.saturating_sub(measurer)]) {
                rates.push(times.len() as f64 / time.as_secs_f64());
            }
            latencies.extend::<Vec<Duration>>(times);
        }
    }
    let concurrent = |(in_flight, _, [all, own], latencies): (usize, _, [Vec<f64>; 2], Vec<Duration>)| Concurrent {
        in_flight,
        per_second: Spread::of(all),
        own_per_second: Spread::of(own),
        latency_us: Spread::of_times(&latencies),
    };
    functions.into_iter().map(concurrent).collect()
}
