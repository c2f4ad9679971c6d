//! Work that may go on after the answer, and must be done before Lambda freezes the process.

use std::cell::RefCell;

use futures_util::future::{BoxFuture, join_all};

tokio::task_local! {
    static WORK: RefCell<Vec<BoxFuture<'static, ()>>>;
}

/// Goes on with `work` once the answer to the present request is on its way to the caller.
///
/// Lambda freezes a process when it asks for its next invocation, and a task that was merely spawned stops there, for
/// minutes or for ever. So the next invocation is asked for when the work is done:
/// <https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html>. Until then the function is billed, and
/// Lambda's deadline holds: give the work an end of its own.
pub fn after_response(work: impl Future<Output = ()> + Send + 'static) {
    let mut work: Option<BoxFuture<'static, ()>> = Some(Box::pin(work));
    // Outside of an invocation there is no freeze to wait for.
    let _ = WORK.try_with(|all| all.borrow_mut().extend(work.take()));
    if let Some(work) = work {
        tokio::spawn(work);
    }
}

/// Answers, and then does what [`after_response`] was given meanwhile. The loop is not done with an invocation before.
pub(crate) async fn answer_then_work<T>(answer: impl Future<Output = T>) -> T {
    let answer_and_work = async { (answer.await, WORK.with(RefCell::take)) };
    let (answered, work) = WORK.scope(RefCell::default(), answer_and_work).await;
    join_all(work).await;
    answered
}
