//! What grows with the size of a body, with requests in flight and with the number of URLs, and what a stream takes: `make growth`.
//!
//! It measures examples: one that sends a body back, one that calls an upstream with the URL that its caller names, and two that
//! stream, ours and that of `lambda_http`.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use testbed::{Call, Function, Invocation, InvocationResult, Piece, Usage, example, upstream::Answer};

use crate::{
    candidate::start_upstream,
    report::{Spread, table},
};

/// Of the body in the event, which may have 6 MB.
const BODY_BYTES: [usize; 6] = [1_000, 10_000, 100_000, 1_000_000, 3_000_000, 6_000_000];
/// Invocations for each size.
const TURNS: usize = 30;
const IN_FLIGHT: [usize; 3] = [1, 8, 64];
const URLS: [usize; 3] = [1, 100, 10_000];
/// Invocations for each number of requests in flight and URLs, after one for each URL.
const MANY: usize = 10_000;
/// A stream, and how many short ones are for each such.
const STREAM_BYTES: usize = 200_000_000;
const SHORT: usize = 20;

pub(crate) async fn print() {
    let mut rows = Vec::new();
    for (kind, part, is_base64) in [("JSON", r#"{"name":"Ada"},"#, false), ("base64", "YmFzZTY0", true)] {
        for bytes in BODY_BYTES {
            // Each quote has a backslash there.
            let text = part.repeat(bytes / (part.len() + part.matches('"').count()));
            rows.push(body(kind, text, is_base64).await);
        }
    }
    let columns = "bytes | event, bytes | median, ms | p99, ms | peak, MB over a start's | of the event";
    table("A body that is sent back", columns, rows.into_iter());
    let mut rows = Vec::new();
    for in_flight in IN_FLIGHT {
        for urls in URLS {
            rows.push(calls(in_flight, urls).await);
        }
    }
    let columns =
        "URLs | first call of each: median, µs | after that: median, µs | p99, µs | from the cache | resident, MB";
    table("Requests in flight, each with two calls of an upstream", columns, rows.into_iter());
    let columns = "first byte of 100 bytes: median, µs | 200 MB: median, MB/s";
    table("Streams, and an answer as a whole", columns, streams().await.into_iter());
}

/// Sends a body to a function that sends it back.
async fn body(kind: &str, text: String, is_base64: bool) -> Vec<String> {
    let bytes = if is_base64 { text.len() / 4 * 3 } else { text.len() };
    let call = Call::get("/", &[]);
    let call = Call { method: "POST".into(), body: Some((text, is_base64)), ..call };
    let invocation = Invocation::new(call.event("http-api", "growth").expect("an event").to_string());
    let mut function = Function::start(&example("probe"), &[]).await;
    function.polled(1).await;
    let before = Usage::of(function.id()).resident;
    let times = invoke(&function, (0..TURNS).map(|_| Invocation::new(&*invocation.payload)), 1).await;
    let peak = (Usage::of(function.id()).peak - before) as f64;
    let (event, times) = (invocation.payload.len(), Spread::of_times(&times));
    let cells = [kind.to_owned(), bytes.to_string(), event.to_string()];
    let ms = [times.median, times.p99].map(|us| format!("{:.2}", us / 1e3));
    let memory = [peak / 1e6, peak / event as f64].map(|number| format!("{number:.1}"));
    [&cells[..], &ms, &memory].concat()
}

/// Sends requests for `urls` URLs, all in turn.
async fn calls(in_flight: usize, urls: usize) -> Vec<String> {
    let service = start_upstream("max-age=3600", false);
    service.always(Answer::ok(r#"{"euros": 2, "dollars": 1.25}"#).cache_control("max-age=3600"));
    let (url, at_a_time) = (service.url("/"), in_flight.to_string());
    let settings = [("PRICES_URL", &*url), ("RATES_URL", &url), ("AWS_LAMBDA_MAX_CONCURRENCY", &at_a_time)];
    let mut function = Function::start(&example("quotes"), &settings).await;
    function.polled(in_flight).await;
    let of = |number: usize| Invocation::get(&format!("/quotes/{number}"), &[]);
    let first = invoke(&function, (0..urls).map(of), in_flight).await;
    let asked = service.calls();
    let later = invoke(&function, (0..MANY).map(|number| of(number % urls)), in_flight).await;
    let cached = 1.0 - (service.calls() - asked) as f64 / (2 * MANY) as f64;
    let (first, later) = (Spread::of_times(&first), Spread::of_times(&later));
    let times = [first.median, later.median, later.p99].map(|us| format!("{us:.0}"));
    let memory = format!("{:.1}", Usage::of(function.id()).resident as f64 / 1e6);
    let [in_flight, urls] = [in_flight, urls].map(|number| number.to_string());
    [&[in_flight, urls], &times[..], &[format!("{:.0} %", cached * 100.0), memory]].concat()
}

async fn streams() -> Vec<Vec<String>> {
    let mut ours = Function::start(&example("stream_probe"), &[("INVOKE_MODE", "RESPONSE_STREAM")]).await;
    let mut official = Function::start(&example("official_stream"), &[]).await;
    let whole = Function::start(&example("stream_probe"), &[]).await;
    let (mut first, mut all) = ([const { Vec::new() }; 3], [const { Vec::new() }; 2]);
    for _ in 0..TURNS {
        for _ in 0..SHORT {
            first[0].push(stream_of(&mut ours, 100).await.0);
            first[1].push(stream_of(&mut official, 100).await.0);
            first[2].extend(invoke(&whole, [probe(100)].into_iter(), 1).await);
        }
        all[0].push(stream_of(&mut ours, STREAM_BYTES).await.1);
        all[1].push(stream_of(&mut official, STREAM_BYTES).await.1);
    }
    let first = first.map(|times| format!("{:.0}", Spread::of_times(&times).median));
    let rates = all.map(|times| format!("{:.0}", STREAM_BYTES as f64 / Spread::of_times(&times).median));
    let names = ["`stream`", "`lambda_http`", "as a whole"].map(str::to_owned);
    let rates = rates.into_iter().chain([String::new()]);
    names.into_iter().zip(first).zip(rates).map(|((name, first), rate)| vec![name, first, rate]).collect()
}

fn probe(bytes: usize) -> Invocation {
    let call = Call::get(&format!("/?bytes={bytes}"), &[]);
    Invocation::new(call.event("function-url", "probe").expect("an event").to_string())
}

/// How long the first byte of a body takes, and all of it.
async fn stream_of(function: &mut Function, bytes: usize) -> (Duration, Duration) {
    let (began, mut first) = (Instant::now(), None);
    let mut pieces = function.stream(&probe(bytes));
    while let Some(piece) = pieces.recv().await {
        let Piece::Data(piece) = piece else { panic!("{piece:?}") };
        if piece.starts_with(b"x") {
            first.get_or_insert_with(|| began.elapsed());
        }
    }
    (first.expect("a body"), began.elapsed())
}

/// Sends `invocations`, `at_a_time`. Returns how long each took.
async fn invoke(function: &Function, invocations: impl Iterator<Item = Invocation>, at_a_time: usize) -> Vec<Duration> {
    let invoke = async |invocation: Invocation| match function.runtime_api().time(&invocation).await {
        (InvocationResult::Response(answer), time) if answer.contains("\"statusCode\":200") => time,
        (outcome, _) => panic!("{outcome:?}"),
    };
    stream::iter(invocations).map(invoke).buffer_unordered(at_a_time).collect().await
}
