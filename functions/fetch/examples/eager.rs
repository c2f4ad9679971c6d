//! `fetch` as it must not be: it loads AWS's configuration before anybody asks for it. testbed/tests/budget.rs counts that
//! such a start does not go unnoticed.

use std::{env, process::ExitCode};

use tokio::runtime::Builder;

fn main() -> ExitCode {
    let tokio = Builder::new_current_thread().enable_all().build();
    let _config = tokio.map(|tokio| tokio.block_on(aws::config()));
    handler::run(fetch_function::endpoint(|name| env::var(name).ok()))
}
