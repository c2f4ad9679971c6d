//! `GET /fetch`: see the library's documentation.

use std::{env, process::ExitCode};

fn main() -> ExitCode {
    #[cfg(feature = "eager-aws-config")]
    fetch_function::configure_eagerly();
    handler::run(fetch_function::endpoint(|name| env::var(name).ok()))
}
