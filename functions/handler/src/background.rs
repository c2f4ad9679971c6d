//! Background during and after the response, which is done before Lambda freezes the process.

use std::{
    cell::RefCell,
    future::poll_fn,
    mem,
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{self, Poll, Waker, ready},
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    task::{JoinHandle, coop::consume_budget},
    time::Instant,
};
use tracing::error;

use crate::{
    caught::{caught, caught_async},
    deadline::in_time,
    log::{Ended, InvocationSpan},
};

tokio::task_local! {
    static ENDED: RefCell<Option<Ended>>;
}

type Task = BoxFuture<'static, ()>;

/// The work of one invocation after its response.
#[derive(Default)]
pub(crate) struct Background(Mutex<State>);

#[derive(Default)]
struct State {
    /// What has not begun yet.
    tasks: Vec<Task>,
    /// How many spawned tasks have not run yet. They may add work.
    unpolled: usize,
    /// Whether nobody waits for further work.
    is_over: bool,
    /// Wakes the one who waits.
    waker: Option<Waker>,
}

/// Spawns `work` like [`tokio::spawn`], as a part of the current invocation: its events and panics carry the
/// invocation's id, and what it [records](crate::record) and [counts](crate::count) is in the invocation's line.
///
/// Lambda freezes the process between invocations, and the task with it, unless [`after_response`] waits for it.
pub fn spawn<F>(work: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let mut unpolled = InvocationSpan::current(Unpolled::new);
    // On the heap at once: each of the futures around it would hold it twice, and copy it.
    let work = part_of_invocation(Box::pin(work));
    tokio::spawn(async move {
        let mut work = pin!(work);
        poll_fn(|context| {
            let polled = work.as_mut().poll(context);
            unpolled = None;
            polled
        })
        .await
    })
}

/// A spawned task that has not run yet.
struct Unpolled(InvocationSpan);

impl Unpolled {
    fn new(invocation: &InvocationSpan) -> Self {
        invocation.background().state().unpolled += 1;
        Self(invocation.clone())
    }
}

impl Drop for Unpolled {
    fn drop(&mut self) {
        let mut state = self.0.background().state();
        state.unpolled -= 1;
        state.wake();
    }
}

/// Runs `work` after the response to the current request is sent.
///
/// Lambda freezes a process when it asks for its next invocation. A task that was only spawned then stops, for minutes
/// or forever. So the process asks for the next invocation when the work is done, or when Lambda's deadline is near:
/// <https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html>. Until then the function is billed, and
/// the invocation's line waits for what the work [records](crate::record).
///
/// Such work may itself call this, and so may a task that it or the endpoint [spawned](spawn). That work is waited for,
/// too, unless all work was done before it came. Then, and outside an invocation, it is only spawned.
pub fn after_response(work: impl Future<Output = ()> + Send + 'static) {
    // The block drops the work, as `caught_async` requires.
    let work = async move {
        work.await;
    };
    let mut work: Option<Task> = Some(caught_async(work).map(drop).boxed());
    InvocationSpan::current(|invocation| work = work.take().and_then(|work| invocation.background().add(work)));
    // Nobody waits for it: Lambda may freeze it.
    if let Some(work) = work {
        tokio::spawn(part_of_invocation(work));
    }
}

fn part_of_invocation<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let invocation = InvocationSpan::current(Clone::clone);
    async {
        match invocation {
            Some(invocation) => invocation.scope(work).await,
            None => work.await,
        }
    }
}

/// Has the line of an invocation written when its work is done.
pub(crate) fn ended(invocation: Ended) {
    let _ = ENDED.try_with(|ended| ended.replace(Some(invocation)));
}

/// Answers, and then runs the work that [`after_response`] collects. Lambda's loop waits for both.
pub(crate) async fn answer_then_finish<T>(answer: impl Future<Output = T>) -> T {
    let answer = async { (answer.await, ENDED.with(RefCell::take)) };
    let (answered, ended) = ENDED.scope(RefCell::default(), answer).await;
    if let Some(ended) = ended {
        let work = ended.invocation.background();
        if !work.is_over() {
            // Boxed, because most invocations have none.
            ended.invocation.scope(work.finish(ended.deadline)).boxed().await;
        }
        ended.write();
    }
    answered
}

impl Background {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a task, or returns it if nobody would wait for it.
    fn add(&self, task: Task) -> Option<Task> {
        let mut state = self.state();
        if state.is_over {
            return Some(task);
        }
        state.tasks.push(task);
        state.wake();
        None
    }

    /// Whether all work is done. From then on, [`add`](Self::add) takes none.
    fn is_over(&self) -> bool {
        let mut state = self.state();
        state.is_over = state.tasks.is_empty() && state.unpolled == 0;
        state.is_over
    }

    /// Runs all work, also what is added meanwhile, until the `deadline`.
    async fn finish(&self, deadline: Option<Instant>) {
        let mut running = FuturesUnordered::new();
        let all = poll_fn(|context| self.poll(&mut running, context));
        if in_time(deadline, all).await.is_none() {
            error!("the work after the response was not done when Lambda's deadline was near, and is lost");
            let waiting = {
                let mut state = self.state();
                state.is_over = true;
                mem::take(&mut state.tasks)
            };
            for lost in running.into_iter().chain(waiting) {
                caught(|| drop(lost));
            }
        }
    }

    /// Polls the work that is `running`, and what was added, until all is done.
    fn poll(&self, running: &mut FuturesUnordered<Task>, context: &mut task::Context<'_>) -> Poll<()> {
        loop {
            {
                let mut state = self.state();
                running.extend(state.tasks.drain(..));
                state.waker = Some(context.waker().clone());
            }
            match running.poll_next_unpin(context) {
                // Background may put off work for ever, so the deadline must have its turn.
                Poll::Ready(Some(())) => ready!(pin!(consume_budget()).poll(context)),
                Poll::Ready(None) if self.is_over() => return Poll::Ready(()),
                // Whoever adds a task, or lets one run, wakes this.
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl State {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use serde_json::Value;
    use tokio::time::{advance, sleep, sleep_until};

    use super::*;
    use crate::{Body, Context, Endpoint, Response, count, deadline, observe, record};

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
    async fn work_of_work_is_waited_for() {
        /// Counts once more after a second.
        fn later(depth: u8) {
            after_response(async move {
                sleep(Duration::from_secs(1)).await;
                count("Done", 1);
                if depth > 0 {
                    later(depth - 1);
                    spawn(async move { later(depth - 1) });
                }
            });
        }
        let endpoint = |_| async {
            spawn(async { later(1) });
            spawn(async { later(2) }).await.unwrap();
            Ok(Response::new(Body::Empty))
        };
        let (_, line) = observed(endpoint).await;
        assert_eq!(line["Done"], 3 + 7, "{line}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn work_of_a_task_on_another_thread_is_waited_for() {
        let endpoint = |_| async {
            spawn(async {
                after_response(async {
                    spawn(async { after_response(async { count("Done", 1) }) });
                });
            });
            Ok(Response::new(Body::Empty))
        };
        for _ in 0..100 {
            let (_, line) = observed(endpoint).await;
            assert_eq!(line["Done"], 1, "{line}");
        }
    }

    /// The first work ends only if the second one, which comes later, runs beside it.
    #[tokio::test(start_paused = true)]
    async fn work_that_comes_while_other_work_runs_begins_at_once() {
        let endpoint = |_| async {
            let (send, receive) = futures_util::future::abortable(std::future::pending::<()>());
            after_response(async move {
                let _aborted = send.await;
                count("Done", 1);
            });
            spawn(async move {
                sleep(Duration::from_secs(1)).await;
                after_response(async move {
                    receive.abort();
                    count("Done", 1);
                });
            });
            Ok(Response::new(Body::Empty))
        };
        let began = Instant::now();
        let (_, line) = observed(endpoint).await;
        assert_eq!((&line["Done"], began.elapsed().as_secs()), (&2.into(), 1), "{line}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_ends_all_work_whatever_its_drop_does() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("in a drop");
            }
        }
        fn never(bombs: u8) {
            after_response(async move {
                let _bomb = Bomb;
                if bombs > 0 {
                    never(bombs - 1);
                }
                record("began", true);
                std::future::pending::<()>().await;
            });
        }
        let endpoint = |_| async {
            never(2);
            Ok(Response::new(Body::Empty))
        };
        let began = Instant::now();
        let (answer, line) = observed(endpoint).await;
        assert_eq!((&answer["statusCode"], &line["began"]), (&200.into(), &true.into()));
        assert!((9..11).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    }

    /// Each work is done at once, and puts off another one. The clock runs: while it is paused, it moves only if all wait.
    #[tokio::test]
    async fn the_deadline_ends_work_that_puts_off_work_for_ever() {
        fn again() {
            count("Done", 1);
            after_response(async { again() });
        }
        let mut context = Context::default();
        let deadline = SystemTime::now() + Duration::from_millis(300);
        context.deadline = deadline.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis().try_into().unwrap();
        let endpoint = |_| async {
            again();
            Ok(Response::new(Body::Empty))
        };
        let (answer, line) = observe(endpoint, EVENT, context).await.unwrap();
        assert!(answer.contains("200") && line.contains("\"Done\":"), "{line}");
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
        let endpoint = |_| async {
            let at = deadline().unwrap();
            let calling = spawn(sleep_until(at));
            spawn(advance(at - Instant::now() + Duration::from_secs(1)));
            calling.await.unwrap();
            Ok(Response::new(Body::Empty))
        };
        let (answer, _) = observed(endpoint).await;
        assert_eq!(answer["statusCode"], 200);
    }
}
