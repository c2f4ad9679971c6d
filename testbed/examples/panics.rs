//! A function whose endpoint panics when it is asked to, to see that the process lives on.

use std::process::ExitCode;

use handler::{Problem, Request, Response, negotiate, query};

fn main() -> ExitCode {
    handler::run(panics)
}

async fn panics(request: Request) -> Result<Response, Problem> {
    assert!(query(&request, "name", 100)?.is_none(), "a bug");
    negotiate(&request, &"Still here.")
}
