//! What a function's own code is to the rest of this crate.

use std::sync::Arc;

use futures_util::{FutureExt, future::BoxFuture};
use lambda_http::http::{HeaderValue, Method};

use crate::{Problem, Request, Response, path::Pattern};

/// One HTTP resource: any `async fn(Request) -> Result<Response, Problem>`, or a closure with state that is one, for `GET`
/// and `HEAD`; or several of these, each for its [method](get).
///
/// It is called for one request at a time on Lambda, many at once under Lambda Managed Instances.
pub trait Endpoint: Clone + Send + 'static {
    /// Answers a request, of one of its methods.
    fn call(self, request: Request) -> impl Future<Output = Result<Response, Problem>> + Send + 'static;

    /// Whether it answers requests of this method. `OPTIONS` is answered for it.
    fn answers(&self, method: &Method) -> bool {
        matches!(*method, Method::GET | Method::HEAD)
    }

    /// The methods, as `Allow` lists them.
    fn allow(&self) -> HeaderValue {
        HeaderValue::from_static("GET, HEAD, OPTIONS")
    }

    /// Finds the [parameters](crate::path()) in the request's path.
    ///
    /// # Errors
    ///
    /// When there is nothing at this path.
    fn find(&self, _request: &mut Request) -> Result<(), Problem> {
        Ok(())
    }
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

type Operation = Arc<dyn Fn(Request) -> BoxFuture<'static, Result<Response, Problem>> + Send + Sync>;

/// A resource with an endpoint for each of its methods, and a path if it has parameters. `Allow`, 404, 405 and `OPTIONS`
/// follow from it; `HEAD` is answered where `GET` is.
///
/// ```
/// use handler::{Problem, Request, Response, get, http::StatusCode, json, path};
///
/// let orders = get(list).post(create).at("/shops/{shop}/orders");
///
/// async fn list(request: Request) -> Result<Response, Problem> {
///     json(StatusCode::OK, &[path(&request, "shop")?])
/// }
///
/// async fn create(request: Request) -> Result<Response, Problem> {
///     json(StatusCode::CREATED, &path(&request, "shop")?)
/// }
/// # let _ = || handler::run(orders);
/// ```
#[derive(Clone)]
pub struct Resource {
    operations: Arc<[(Method, Operation)]>,
    pattern: Option<Arc<Pattern>>,
}

impl Resource {
    fn on(self, method: Method, endpoint: impl Endpoint + Sync) -> Self {
        let operation: Operation = Arc::new(move |request| endpoint.clone().call(request).boxed());
        let operations = self.operations.iter().cloned().chain([(method, operation)]).collect();
        Self { operations, ..self }
    }

    /// Says where it is, as the template says it: `{name}` is one segment of the path, `{name+}` the rest of it. API
    /// Gateway sends the parameters along; behind a load balancer, VPC Lattice and a function URL, which know of none, the
    /// path is matched here.
    ///
    /// # Panics
    ///
    /// When that is no such path.
    #[must_use]
    pub fn at(self, path: &str) -> Self {
        Self { pattern: Some(Arc::new(Pattern::new(path))), ..self }
    }

    fn operation(&self, method: &Method) -> Option<&Operation> {
        let method = if method == Method::HEAD { &Method::GET } else { method };
        self.operations.iter().find(|(of, _)| of == method).map(|(_, operation)| operation)
    }
}

impl Endpoint for Resource {
    async fn call(self, request: Request) -> Result<Response, Problem> {
        match self.operation(request.method()) {
            Some(operation) => operation(request).await,
            None => Err(Problem::method_not_allowed(request.method(), self.allow())),
        }
    }

    fn answers(&self, method: &Method) -> bool {
        self.operation(method).is_some()
    }

    fn allow(&self) -> HeaderValue {
        let mut methods: Vec<&str> = self.operations.iter().map(|(method, _)| method.as_str()).collect();
        if methods.contains(&"GET") {
            methods.push("HEAD");
        }
        methods.push("OPTIONS");
        methods.sort_unstable();
        // Methods are tokens, which a header can hold.
        HeaderValue::try_from(methods.join(", ")).unwrap_or(HeaderValue::from_static(""))
    }

    fn find(&self, request: &mut Request) -> Result<(), Problem> {
        self.pattern.as_ref().map_or(Ok(()), |pattern| pattern.find(request))
    }
}

macro_rules! methods {
    ($($name:ident $method:ident)*) => {
        $(
            #[doc = concat!("A resource whose `", stringify!($method), "` requests `endpoint` answers.")]
            pub fn $name(endpoint: impl Endpoint + Sync) -> Resource {
                Resource { operations: Arc::new([]), pattern: None }.$name(endpoint)
            }
        )*

        impl Resource {
            $(
                #[doc = concat!("Has `endpoint` answer `", stringify!($method), "` requests.")]
                #[must_use]
                pub fn $name(self, endpoint: impl Endpoint + Sync) -> Self {
                    self.on(Method::$method, endpoint)
                }
            )*
        }
    };
}

methods! { get GET post POST put PUT patch PATCH delete DELETE }
