//! A function for the tests of `handler`: it logs something from each request, panics when it is asked to, and sends a
//! body back.

use std::{
    process::ExitCode,
    sync::{Mutex, PoisonError},
};

use handler::{Problem, Request, Response, after_response, count, get, negotiate, query, record, spawn};
use tokio::sync::oneshot::{Sender, channel};

fn main() -> ExitCode {
    handler::run(get(probe).post(echo))
}

async fn echo(request: Request) -> Result<Response, Problem> {
    Ok(Response::new(request.into_body()))
}

async fn probe(request: Request) -> Result<Response, Problem> {
    /// Ends the task that an earlier request left behind.
    static LEFT: Mutex<Option<Sender<()>>> = Mutex::new(None);
    let left = || LEFT.lock().unwrap_or_else(PoisonError::into_inner);

    match query(&request, "panic", 100)?.as_deref() {
        None => {}
        Some("in-a-task") => drop(spawn(async { panic!("in a task") }).await),
        Some("after") => after_response(async {
            spawn(async { after_response(async { panic!("after the response") }) });
        }),
        Some("leaves-a-task") => {
            let (sender, receiver) = channel();
            left().replace(sender);
            spawn(async {
                let _ = receiver.await;
                panic!("of an earlier request");
            });
        }
        Some("ends-the-task") => drop(left().take()),
        Some(_) => panic!("a bug"),
    }
    let Some(name) = query(&request, "name", 100)? else { return negotiate(&request, &"Still here.") };
    let number = name.chars().count();
    record("attempts", number);
    count("UpstreamAttempts", 1);
    // Other requests have their turn.
    tokio::task::yield_now().await;
    count("UpstreamAttempts", number as u64);
    record("cache_status", format!("{number}"));
    negotiate(&request, &name)
}
