//! A function that logs something from each request, after other requests had their turn.

use std::process::ExitCode;

use handler::{Problem, Request, Response, count, negotiate, query, record};

fn main() -> ExitCode {
    handler::run(records)
}

async fn records(request: Request) -> Result<Response, Problem> {
    let name = query(&request, "name", 100)?.unwrap_or_default().into_owned();
    let number = name.chars().count();
    record("attempts", number);
    count("UpstreamAttempts", 1);
    tokio::task::yield_now().await;
    count("UpstreamAttempts", number as u64);
    record("cache_status", format!("{number}"));
    negotiate(&request, &name)
}
