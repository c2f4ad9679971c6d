//! `fetch` with a mistake: it loads AWS's configuration before a request needs it. testbed/tests/budget.rs checks that
//! the budget catches such a start.

use std::{env, process::ExitCode};

use tokio::runtime::Builder;

fn main() -> ExitCode {
    let tokio = Builder::new_current_thread().enable_all().build();
    let _config = tokio.map(|tokio| tokio.block_on(aws::config()));
    handler::run(fetch_function::endpoint(|name| env::var(name).ok()))
}
