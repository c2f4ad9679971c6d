//! An endpoint that passes a file on as it arrives: the example of docs/streams.md. `tests/stream.rs` tests it with a
//! service that fails.

use std::process::ExitCode;

use handler::{
    Problem, Request, Resource, Response, get,
    http::header::{ACCEPT_ENCODING, RANGE},
    path,
};
use upstream::Upstream;

static REPORTS: Upstream = Upstream::new("REPORTS");

fn main() -> ExitCode {
    handler::run(reports())
}

fn reports() -> Resource {
    get(report).at("/reports/{id}")
}

async fn report(request: Request) -> Result<Response, Problem> {
    let mut report = REPORTS.get("/files/{}", [path(&request, "id")?]);
    // So that a download can be resumed, and is compressed for a caller that takes that.
    for name in [RANGE, ACCEPT_ENCODING] {
        if let Some(value) = request.headers().get(&name) {
            report = report.header(name, value);
        }
    }
    let report = report.stream().await?.at_most(1 << 30)?;
    Ok(report.pass_on(&request))
}
