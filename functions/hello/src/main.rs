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
    // The same URL greets everybody the same way.
    let cache_control = HeaderValue::from_static("public, max-age=60");
    response.headers_mut().insert(CACHE_CONTROL, cache_control);
    Ok(response)
}

/// What is answered: as JSON in this shape, as text by its [`Display`](fmt::Display).
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
