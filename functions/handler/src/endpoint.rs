//! What a function's own code is to the rest of this crate.

use crate::{Problem, Request, Response};

/// One HTTP resource: any `async fn(Request) -> Result<Response, Problem>`, or a closure with state that is one.
///
/// It is called for `GET` and `HEAD`, one request at a time on Lambda, many at once under Lambda Managed Instances.
pub trait Endpoint: Clone + Send + 'static {
    /// Answers a request.
    fn call(self, request: Request) -> impl Future<Output = Result<Response, Problem>> + Send + 'static;
}

impl<E, F> Endpoint for E
where
    E: Fn(Request) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response, Problem>> + Send + 'static,
{
    // What the endpoint does before its first await is inside the future too, and so is a panic in it.
    async fn call(self, request: Request) -> Result<Response, Problem> {
        self(request).await
    }
}
