//! A function whose endpoint panics on request, to check that the process goes on.

use std::process::ExitCode;

use handler::{Problem, Request, Response, negotiate, query};

fn main() -> ExitCode {
    handler::run(panics)
}

async fn panics(request: Request) -> Result<Response, Problem> {
    assert!(query(&request, "name", 100)?.is_none(), "a bug");
    negotiate(&request, &"Still here.")
}
