//! `GET /fetch`: see the library's documentation.

use std::{env, process::ExitCode};

fn main() -> ExitCode {
    handler::run(fetch_function::endpoint(|name| env::var(name).ok()))
}
