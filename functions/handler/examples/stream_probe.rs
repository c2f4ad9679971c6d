//! A function for the tests of streams: it streams as many bytes as it is asked to, and then does what it is asked to.

use std::{future::pending, process::ExitCode};

use bytes::Bytes;
use handler::{
    Problem, Request, Response, after_response, http::StatusCode, json, parameters, record, stream, stream_body,
};
use http_body_util::Full;
use serde::Deserialize;

fn main() -> ExitCode {
    handler::run(probe)
}

#[derive(Deserialize)]
struct Wanted {
    /// How many bytes, in pieces of at most 64 kB.
    #[serde(default)]
    bytes: usize,
    /// What it does then.
    #[serde(default)]
    then: String,
    /// The status of the answer.
    status: Option<u16>,
}

/// What a caller must not see.
const SECRET: &str = "the cause, which is internal";

async fn probe(request: Request) -> Result<Response, Problem> {
    let Wanted { bytes, then, status } = parameters(&request)?;
    match &*then {
        "refuse" => return Err(Problem::not_found("Gone.")),
        "whole" => return json(StatusCode::OK, &bytes),
        "pass-on" => return Ok(stream_body(Full::new(Bytes::from(vec![b'x'; bytes])))),
        _ => {}
    }
    let mut response = stream("application/octet-stream", move |pieces| async move {
        let piece = Bytes::from(vec![b'x'; 64 * 1024]);
        let mut left = bytes;
        while left > 0 {
            let length = left.min(piece.len());
            pieces.send(piece.slice(..length)).await?;
            left -= length;
        }
        record("sent", bytes);
        after_response(async { record("later", true) });
        match &*then {
            "fail" => Err(SECRET.into()),
            "problem" => Err(Problem::misconfigured(SECRET).into()),
            "panic" => panic!("{SECRET}"),
            "stall" => pending().await,
            // Opening a pipe blocks the thread until somebody opens the other end.
            "block" => Ok(std::fs::File::open(std::env::var("PIPE")?).map(drop)?),
            "flood" => loop {
                pieces.send(piece.clone()).await?;
            },
            _ => Ok(()),
        }
    });
    if let Some(status) = status.and_then(|status| StatusCode::from_u16(status).ok()) {
        *response.status_mut() = status;
    }
    Ok(response)
}
