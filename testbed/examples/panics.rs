//! A function whose endpoint panics on request, to check that the process goes on and that each panic is logged.

use std::process::ExitCode;

use handler::{Problem, Request, Response, after_response, negotiate, query, spawn};
use tokio::sync::oneshot::{Sender, channel};

fn main() -> ExitCode {
    handler::run(panics)
}

async fn panics(request: Request) -> Result<Response, Problem> {
    /// Ends the task that an earlier request left behind.
    static LEFT: std::sync::Mutex<Option<Sender<()>>> = std::sync::Mutex::new(None);
    let left = || LEFT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);

    match query(&request, "name", 100)?.as_deref() {
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
    negotiate(&request, &"Still here.")
}
