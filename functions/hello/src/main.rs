//! `GET /hello`: a greeting, for `?name=` or for the world.

use std::{fmt, process::ExitCode};

use handler::{
    Problem, Request, Response,
    http::{HeaderValue, header::CACHE_CONTROL},
    negotiate, query,
};
use serde::Serialize;

const MAX_NAME_CHARS: usize = 100;

fn main() -> ExitCode {
    handler::run(hello)
}

async fn hello(request: Request) -> Result<Response, Problem> {
    let name = query(&request, "name", MAX_NAME_CHARS)?.unwrap_or("world".into());
    let greeting = Greeting { message: format!("Hello, {name}!") };
    let mut response = negotiate(&request, &greeting)?;
    // The greeting does not depend on the caller, so any cache may share it.
    let cache_control = HeaderValue::from_static("public, max-age=60");
    response.headers_mut().insert(CACHE_CONTROL, cache_control);
    Ok(response)
}

/// The response: JSON in this shape, or text from its [`Display`](fmt::Display).
#[derive(Serialize)]
struct Greeting {
    message: String,
}

impl fmt::Display for Greeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn answers_its_events() {
        testbed::replay("hello", super::hello).await;
    }
}
