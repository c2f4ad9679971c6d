//! Measures streams, side by side: ours, those of `lambda_http`, and our answer as a whole.
//!
//! ```text
//! cargo lambda build --release --examples --features stream --package lambda-endpoint-handler
//! cargo run --example streams target/lambda/stream_probe/bootstrap target/lambda/official_stream/bootstrap
//! ```

#![expect(clippy::cast_precision_loss, clippy::expect_used, reason = "a measurement that cannot go on panics")]

use std::{env, path::Path, time::Instant};

use testbed::{Call, Function, Invocation, Piece};

const STREAMS: &[(&str, &str)] = &[("INVOKE_MODE", "RESPONSE_STREAM")];
const ROUNDS: usize = 30;
const BYTES: usize = 200_000_000;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let executables: Vec<String> = env::args().skip(1).collect();
    let [ours, official] = &executables[..] else { panic!("two executables: ours, and lambda_http's") };
    let mut ours_whole = Function::start(Path::new(ours), &[]).await;
    let mut ours = Function::start(Path::new(ours), STREAMS).await;
    let mut official = Function::start(Path::new(official), &[]).await;
    let mut figures: [Vec<f64>; 5] = Default::default();
    for _ in 0..ROUNDS {
        for _ in 0..20 {
            let small = call("/?bytes=100");
            figures[0].push(first_byte(&mut ours, &small).await);
            figures[1].push(first_byte(&mut official, &small).await);
            let began = Instant::now();
            ours_whole.invoke(&small).await;
            figures[2].push(micros(began));
        }
        let large = call(&format!("/?bytes={BYTES}"));
        figures[3].push(all(&mut ours, &large).await);
        figures[4].push(all(&mut official, &large).await);
    }
    let [first, official_first, whole, all, official_all] = figures.map(median);
    println!("first byte: {first:.0} µs; lambda_http: {official_first:.0} µs; an answer as a whole: {whole:.0} µs");
    println!("MB/s: {:.0}; lambda_http: {:.0}", BYTES as f64 / all, BYTES as f64 / official_all);
}

fn call(path: &str) -> Invocation {
    let event = Call::get(path, &[]).event("function-url", "probe").expect("a call that this trigger lets pass");
    Invocation::new(event.to_string())
}

/// How long the first byte of the body takes, in microseconds.
async fn first_byte(function: &mut Function, invocation: &Invocation) -> f64 {
    let began = Instant::now();
    let (mut pieces, mut taken) = (function.stream(invocation), None);
    while let Some(piece) = pieces.recv().await {
        let Piece::Data(piece) = piece else { panic!("{piece:?}") };
        if piece.starts_with(b"x") {
            taken.get_or_insert_with(|| micros(began));
        }
    }
    taken.expect("a body")
}

/// How long all of it takes, in microseconds.
async fn all(function: &mut Function, invocation: &Invocation) -> f64 {
    let (began, mut bytes) = (Instant::now(), 0);
    let mut pieces = function.stream(invocation);
    while let Some(piece) = pieces.recv().await {
        let Piece::Data(piece) = piece else { panic!("{piece:?}") };
        bytes += piece.len();
    }
    assert!(bytes >= BYTES, "{bytes}");
    micros(began)
}

fn micros(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e6
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
