//! Work that may go on after the answer, and must be done before Lambda freezes the process.

use std::{
    cell::RefCell,
    task::{Context, Poll},
};

use futures_util::future::{BoxFuture, join_all};
use lambda_http::{Error, Service, lambda_runtime::LambdaInvocation};

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

/// Answers, and then does what [`after_response`] was given meanwhile.
pub(crate) async fn answer_then_work<T>(answer: impl Future<Output = T>) -> T {
    let answer_and_work = async { (answer.await, WORK.with(RefCell::take)) };
    let (answered, work) = WORK.scope(RefCell::default(), answer_and_work).await;
    join_all(work).await;
    answered
}

/// Keeps the loop from asking for the next invocation while there is work from this one.
#[derive(Clone)]
pub(crate) struct AfterResponse<S>(pub(crate) S);

impl<S> Service<LambdaInvocation> for AfterResponse<S>
where
    S: Service<LambdaInvocation, Response = (), Error = Error>,
    S::Future: Send + 'static,
{
    type Response = ();
    type Error = Error;
    type Future = BoxFuture<'static, Result<(), Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, invocation: LambdaInvocation) -> Self::Future {
        Box::pin(answer_then_work(self.0.call(invocation)))
    }
}
