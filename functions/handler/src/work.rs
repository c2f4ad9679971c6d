//! Work during and after the response, which is done before Lambda freezes the process.

use std::{cell::RefCell, panic::AssertUnwindSafe};

use futures_util::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tracing::error;

use crate::log::Invocation;

tokio::task_local! {
    static WORK: RefCell<Work>;
}

#[derive(Default)]
struct Work {
    tasks: Vec<BoxFuture<'static, ()>>,
    /// Runs when all tasks are done, or at the deadline.
    last: Option<Box<dyn FnOnce() + Send>>,
    deadline: Option<Instant>,
}

/// Spawns `work` like [`tokio::spawn`], as a part of the current invocation: its events and panics carry the
/// invocation's id, and what it [records](crate::record) and [counts](crate::count) is in the invocation's line.
///
/// Lambda freezes the process between invocations, and the task with it, unless [`after_response`] waits for it.
pub fn spawn<F>(work: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    tokio::spawn(part_of_invocation(work))
}

/// Runs `work` after the response to the current request is sent.
///
/// Lambda freezes a process when it asks for its next invocation. A task that was only spawned then stops, for minutes
/// or forever. So the process asks for the next invocation when the work is done, or when Lambda's deadline is near:
/// <https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html>. Until then the function is billed, and
/// the invocation's line waits for what the work [records](crate::record).
pub fn after_response(work: impl Future<Output = ()> + Send + 'static) {
    let work = AssertUnwindSafe(part_of_invocation(work)).catch_unwind();
    let mut work: Option<BoxFuture<'static, ()>> = Some(work.map(drop).boxed());
    // Outside an invocation there is no freeze, so the work is just spawned.
    let _ = WORK.try_with(|all| all.borrow_mut().tasks.extend(work.take()));
    if let Some(work) = work {
        tokio::spawn(work);
    }
}

fn part_of_invocation<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let invocation = Invocation::current(Clone::clone);
    async {
        match invocation {
            Some(invocation) => invocation.scope(work).await,
            None => work.await,
        }
    }
}

/// Runs `act` when the work after the response is done, or at the `deadline`.
pub(crate) fn last(act: impl FnOnce() + Send + 'static, deadline: Option<Instant>) {
    let _ = WORK.try_with(|all| {
        let mut all = all.borrow_mut();
        all.last = Some(Box::new(act));
        all.deadline = deadline;
    });
}

/// Answers, and then runs the work that [`after_response`] collected meanwhile. Lambda's loop waits for both.
pub(crate) async fn answer_then_work<T>(answer: impl Future<Output = T>) -> T {
    let answer_and_work = async { (answer.await, WORK.with(RefCell::take)) };
    let (answered, Work { tasks, last, deadline }) = WORK.scope(RefCell::default(), answer_and_work).await;
    if !tasks.is_empty() {
        let tasks = join_all(tasks);
        match deadline {
            None => drop(tasks.await),
            Some(deadline) if timeout_at(deadline, tasks).await.is_ok() => {}
            Some(_) => error!("the work after the response was not done when Lambda's deadline was near, and is lost"),
        }
    }
    if let Some(act) = last {
        act();
    }
    answered
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use serde_json::Value;
    use tokio::time::{advance, sleep, sleep_until};

    use super::*;
    use crate::{Body, Context, Endpoint, Request, Response, count, deadline, observe, record};

    const EVENT: &[u8] = br#"{"rawPath": "/", "requestContext": {"http": {"method": "GET"}}}"#;

    /// The answer, and the line in the log, of an invocation that Lambda ends after ten seconds.
    async fn observed(endpoint: impl Endpoint) -> (Value, Value) {
        let mut context = Context::default();
        let deadline = SystemTime::now() + Duration::from_secs(10);
        context.deadline = deadline.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis().try_into().unwrap();
        let (answer, line) = observe(endpoint, EVENT, context).await.unwrap();
        (serde_json::from_str(&answer).unwrap(), serde_json::from_str(&line).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_spawned_task_records_into_the_line_of_its_invocation() {
        let endpoint = |_| async {
            let task = spawn(async {
                sleep(Duration::from_secs(1)).await;
                count("Calls", 2);
            });
            after_response(async {
                let _ = task.await;
                record("refreshed", true);
                count("Calls", 1);
            });
            Ok(Response::new(Body::Empty))
        };
        let (answer, line) = observed(endpoint).await;
        assert_eq!((&answer["statusCode"], &line["status"]), (&200.into(), &200.into()));
        assert_eq!((&line["refreshed"], &line["Calls"]), (&true.into(), &3.into()));
        assert!(line["duration_ms"].as_f64().unwrap() < 1000.0, "the caller did not wait: {line}");
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_panics_or_never_ends_does_not_harm_its_invocation() {
        let endpoint = |_| async {
            record("began", true);
            after_response(async { panic!("of the work") });
            after_response(std::future::pending());
            Ok(Response::new(Body::Empty))
        };
        let (answer, line) = observed(endpoint).await;
        assert_eq!((&answer["statusCode"], &line["began"]), (&200.into(), &true.into()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_never_ends_exceeds_its_deadline() {
        let (answer, line) = observed(|_| std::future::pending()).await;
        assert_eq!((&answer["statusCode"], &line["problem"]), (&504.into(), &"deadline-exceeded".into()));
        assert!(line["error"].as_str().unwrap().starts_with("deadline-exceeded: "), "{line}");
    }

    /// A process that has little of a core can miss both: the endpoint's deadline, and the time at which it is given up.
    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_is_done_at_its_deadline_answers_after_a_stall_too() {
        let endpoint = |request: Request| async move {
            let at = deadline(&request).unwrap();
            let calling = spawn(sleep_until(at));
            spawn(advance(at - Instant::now() + Duration::from_secs(1)));
            calling.await.unwrap();
            Ok(Response::new(Body::Empty))
        };
        let (answer, _) = observed(endpoint).await;
        assert_eq!(answer["statusCode"], 200);
    }
}
