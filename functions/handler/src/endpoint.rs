//! The interface between a function's own code and this crate.

use std::{future::ready, slice, sync::Arc};

use futures_util::{FutureExt, future::BoxFuture};
use lambda_http::http::{HeaderValue, Method, StatusCode, header::ALLOW};
use tower_layer::Layer;

use crate::{
    Body, EndpointService, Problem, Request, Response, ServiceEndpoint,
    path::{are_equal, find, is_valid},
    service,
};

/// An HTTP resource. Any `async fn(Request) -> Result<Response, Problem>`, or a closure of this form that has state, is
/// an endpoint for `GET` and `HEAD`. A [`Resource`] has an endpoint for each of its [methods](get).
///
/// Lambda calls it for one request at a time, and Lambda Managed Instances for many at once.
pub trait Endpoint: Clone + Send + 'static {
    /// Whether [`call`](Self::call) takes any request, and finds the path and the method itself. Otherwise it gets `GET` and
    /// `HEAD` alone, or the method of a [`Resource`] that it is an endpoint of.
    const TAKES_ALL: bool = false;

    /// Answers a request.
    fn call(self, request: Request) -> impl Future<Output = Result<Response, Problem>> + Send + 'static;

    /// Puts a [tower layer](https://docs.rs/tower) around the endpoint, such as one of tower-http. It sees all requests,
    /// also `OPTIONS` and those that get 404 or 405, and all answers except for 504 `deadline-exceeded`, which comes if the
    /// layers are not done in time, either. A later layer is around an earlier one. Like [`service()`], it also takes a
    /// layer's error.
    ///
    /// This is CORS behind a function URL or a load balancer, where no gateway does it:
    ///
    /// ```
    /// use handler::{Context, Endpoint, Problem, Request, Response, claim, get, http::StatusCode, json};
    /// use tower::filter::FilterLayer;
    /// use tower_http::cors::{Any, CorsLayer};
    ///
    /// async fn list(_: Request) -> Result<Response, Problem> {
    ///     json(StatusCode::OK, &["A-7"])
    /// }
    ///
    /// /// A check that stands before all methods.
    /// fn known(request: Request) -> Result<Request, Problem> {
    ///     match claim(&request, "sub") {
    ///         Some(_) => Ok(request),
    ///         None => Err(Problem::unauthorized("Bearer", "Orders need a token.")),
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), handler::Error> {
    /// let orders = get(list).layer(FilterLayer::new(known)).layer(CorsLayer::new().allow_origin(Any));
    /// let event = br#"{"path": "/", "httpMethod": "GET", "requestContext": {"elb": {}}}"#;
    /// let answer = handler::invoke(orders, event, Context::default()).await?;
    /// assert!(answer.contains("401 Unauthorized") && answer.contains(r#""access-control-allow-origin":"*""#));
    /// # Ok(())
    /// # }
    /// ```
    fn layer<L: Layer<EndpointService<Self>, Service: 'static>>(self, layer: L) -> ServiceEndpoint<L::Service> {
        service(layer.layer(EndpointService(self)))
    }
}

impl<E, F> Endpoint for E
where
    E: Fn(Request) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response, Problem>> + Send + 'static,
{
    // The code of the endpoint before its first await runs inside the future too, and so does a panic in it.
    async fn call(self, request: Request) -> Result<Response, Problem> {
        self(request).await
    }
}

type Answering = BoxFuture<'static, Result<Response, Problem>>;
type Operation = Arc<dyn Fn(Request) -> Answering + Send + Sync>;

/// A resource with an endpoint for each of its methods, and a path if it has parameters. `Allow`, 404, 405 and
/// `OPTIONS` follow from these. If it answers `GET`, it answers `HEAD`, too.
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
    operations: Arc<Vec<(Method, Operation)>>,
    /// Empty if it has none.
    pub(crate) path: Arc<str>,
}

impl Resource {
    fn on(mut self, method: Method, endpoint: impl Endpoint + Sync) -> Self {
        let operation: Operation = Arc::new(move |request| endpoint.clone().call(request).boxed());
        // Nobody shares them before `run`, so this copies nothing.
        Arc::make_mut(&mut self.operations).push((method, operation));
        self
    }

    /// Sets the path, in the form that the template uses: `{name}` is one segment, `{name+}` the rest of the path. API
    /// Gateway sends the parameters. A load balancer, VPC Lattice and a function URL do not, so this crate matches the
    /// path for them, and for API Gateway's routes with another path, such as `/{proxy+}`. What API Gateway puts before
    /// the route, such as the stage and the base path of a custom domain, is no part of the path.
    ///
    /// # Panics
    ///
    /// If `path` is not such a path.
    #[must_use]
    pub fn at(self, path: &str) -> Self {
        assert!(is_valid(path), "{path} is not a valid path");
        Self { path: path.into(), ..self }
    }

    fn answer(&self, request: Request) -> Answering {
        let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
        match self.operations.iter().find(|(of, _)| of == method) {
            Some((_, operation)) => operation(request),
            None => ready(without_endpoint(request.method(), self.allow())).boxed(),
        }
    }

    fn allow(&self) -> HeaderValue {
        let mut methods: Vec<&str> = self.operations.iter().map(|(method, _)| method.as_str()).collect();
        if methods.contains(&"GET") {
            methods.push("HEAD");
        }
        methods.push("OPTIONS");
        methods.sort_unstable();
        // Methods are tokens, so a header can hold them.
        HeaderValue::try_from(methods.join(", ")).unwrap_or(HeaderValue::from_static(""))
    }
}

/// What there is for a method that has no endpoint.
pub(crate) fn without_endpoint(method: &Method, allow: HeaderValue) -> Result<Response, Problem> {
    if method != Method::OPTIONS {
        return Err(Problem::method_not_allowed(method, allow));
    }
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(ALLOW, allow);
    Ok(response)
}

/// Answers with the resource at the path of the request.
fn answer(resources: &[Resource], mut request: Request) -> Answering {
    match find(resources, &mut request) {
        Ok(resource) => resource.answer(request),
        Err(problem) => ready(Err(problem)).boxed(),
    }
}

impl Endpoint for Resource {
    const TAKES_ALL: bool = true;

    // No `async fn`, whose future would hold the request beside the operation's.
    fn call(self, request: Request) -> impl Future<Output = Result<Response, Problem>> + Send + 'static {
        if self.path.is_empty() { self.answer(request) } else { answer(slice::from_ref(&self), request) }
    }
}

/// Several resources, each at its own path. [`routes`] makes it.
#[derive(Clone)]
pub struct Routes(Arc<[Resource]>);

/// Several resources in one function. 404, 405, `Allow`, `OPTIONS` and the route in the log follow for each. If two paths
/// match, the one with text where the other has a parameter counts.
///
/// ```
/// use handler::{Context, Problem, Request, Response, get, http::StatusCode, json, path, routes};
///
/// async fn list(_: Request) -> Result<Response, Problem> {
///     json(StatusCode::OK, &["7", "8"])
/// }
///
/// async fn one(request: Request) -> Result<Response, Problem> {
///     json(StatusCode::OK, &path(&request, "id")?)
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), handler::Error> {
/// let parcels = routes([get(list).at("/parcels"), get(one).at("/parcels/{id}")]);
/// let event = br#"{"path": "/parcels/7", "httpMethod": "GET", "requestContext": {"elb": {}}}"#;
/// let answer = handler::invoke(parcels, event, Context::default()).await?;
/// assert!(answer.contains(r#""body":"\"7\"""#));
/// # Ok(())
/// # }
/// ```
///
/// # Panics
///
/// If a resource has no path, or two have the same one.
#[must_use]
pub fn routes(resources: impl IntoIterator<Item = Resource>) -> Routes {
    let resources: Arc<[Resource]> = resources.into_iter().collect();
    for (index, Resource { path, .. }) in resources.iter().enumerate() {
        assert!(!path.is_empty(), "a resource among several needs a path: give it one with `.at(\"/…\")`");
        let is_new = !resources[..index].iter().any(|other| are_equal(&other.path, path));
        assert!(is_new, "{path} is not a valid path: another resource has it");
    }
    Routes(resources)
}

impl Endpoint for Routes {
    const TAKES_ALL: bool = true;

    fn call(self, request: Request) -> impl Future<Output = Result<Response, Problem>> + Send + 'static {
        answer(&self.0, request)
    }
}

macro_rules! methods {
    ($($name:ident $method:ident)*) => {
        $(
            #[doc = concat!("A resource that answers `", stringify!($method), "` requests with `endpoint`.")]
            pub fn $name(endpoint: impl Endpoint + Sync) -> Resource {
                Resource { operations: Arc::default(), path: Arc::default() }.$name(endpoint)
            }
        )*

        impl Resource {
            $(
                #[doc = concat!("Answers `", stringify!($method), "` requests with `endpoint`.")]
                #[must_use]
                pub fn $name(self, endpoint: impl Endpoint + Sync) -> Self {
                    self.on(Method::$method, endpoint)
                }
            )*
        }
    };
}

methods! { get GET post POST put PUT patch PATCH delete DELETE }
