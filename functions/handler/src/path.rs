//! Path parameters, the same for every trigger.

use std::borrow::Cow;

use matchit::Router;
use percent_encoding::percent_decode_str;

use crate::{
    Problem, Request,
    event::{FromTrigger, Object, without_stage},
    log::InvocationSpan,
    parameters::unreadable,
};

/// Returns the decoded value of the path parameter `name`, which the path in [`at`](crate::Resource::at) declares.
///
/// # Errors
///
/// Returns [`Problem::invalid_parameter`] if the value contains a control character or is not UTF-8, and an `internal`
/// problem if there is no such parameter.
///
/// ```
/// use handler::{Context, Problem, Request, Response, get, http::StatusCode, json, path};
///
/// async fn shop(request: Request) -> Result<Response, Problem> {
///     json(StatusCode::OK, &path(&request, "shop")?)
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), handler::Error> {
/// let event = br#"{"path": "/shops/caf%C3%A9", "httpMethod": "GET", "requestContext": {"elb": {}}}"#;
/// let answer = handler::invoke(get(shop).at("/shops/{shop}"), event, Context::default()).await?;
/// assert!(answer.contains("café"));
/// # Ok(())
/// # }
/// ```
pub fn path<'a>(request: &'a Request, name: &str) -> Result<&'a str, Problem> {
    let parameters = request.extensions().get().map_or(&[][..], |Parameters(parameters)| parameters);
    let (_, value) = parameters.iter().find(|(parameter, _)| parameter == name).ok_or_else(|| {
        Problem::internal().because(format!("no path has {{{name}}}: declare one with `.at(\"/…/{{{name}}}\")`"))
    })?;
    match unreadable(value) {
        Some(fault) => Err(Problem::invalid_parameter(format!("`{name}` {fault}."))),
        None => Ok(value),
    }
}

#[derive(Clone)]
struct Parameters(Vec<(String, String)>);

/// The paths of one or several resources.
pub(crate) struct Paths {
    /// Finds the index of a path.
    router: Router<usize>,
    all: Vec<Pattern>,
}

/// A path with parameters, as it was declared.
struct Pattern {
    path: String,
    names: Vec<String>,
}

impl Paths {
    pub(crate) fn new<'a>(paths: impl IntoIterator<Item = &'a str>) -> Self {
        let mut new = Self { router: Router::new(), all: Vec::new() };
        paths.into_iter().for_each(|path| new.add(path));
        new
    }

    fn add(&mut self, path: &str) {
        let names = path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
        let names = names.map(|name| name.trim_end_matches('+').to_owned()).collect();
        let route = path.split('/').map(|segment| match segment.strip_suffix("+}") {
            Some(rest) => rest.replacen('{', "{*", 1) + "}",
            None => segment.to_owned(),
        });
        let added = self.router.insert(route.collect::<Vec<_>>().join("/"), self.all.len());
        assert!(path.starts_with('/') && added.is_ok(), "{path} is not a valid path: {added:?}");
        self.all.push(Pattern { path: path.to_owned(), names });
    }

    /// The first path, as it was declared.
    pub(crate) fn first(&self) -> &str {
        self.all.first().map_or("", |pattern| &pattern.path)
    }

    /// Finds the index of the request's path, and adds the parameters to the request: those that the trigger sent for
    /// this path, or otherwise those in the path.
    pub(crate) fn find(&self, request: &mut Request) -> Result<usize, Problem> {
        let mut all = self.all.iter().enumerate();
        let sent = all.find_map(|(index, pattern)| Some((index, pattern.sent_along(request)?)));
        let found = sent.or_else(|| {
            let (path, from) = (request.uri().path(), request.extensions().get());
            let matched = self.router.at(path).ok().or_else(|| {
                let from: &FromTrigger = from?;
                self.router.at(without_stage(path, from.stage.as_deref()?)?).ok()
            })?;
            let parameters = matched.params.iter().map(|(name, value)| (name.to_owned(), decoded(value)));
            Some((*matched.value, parameters.collect()))
        });
        let (index, parameters) = found.ok_or_else(|| Problem::not_found("There is nothing at this path."))?;
        request.extensions_mut().insert(Parameters(parameters));
        if let Some(pattern) = self.all.get(index) {
            InvocationSpan::current(|invocation| invocation.route(&pattern.path));
        }
        Ok(index)
    }
}

impl Pattern {
    /// The parameters, if the trigger sent them for this path.
    fn sent_along(&self, request: &Request) -> Option<Vec<(String, String)>> {
        let from: &FromTrigger = request.extensions().get()?;
        // Another route, such as `/{proxy+}`, can have parameters with the same names.
        from.route.as_ref().filter(|route| **route == self.path)?;
        let sent = Object::read(from.path_parameters.as_deref()?);
        let value = |name: &String| {
            let value = sent.text(name)?;
            Some((name.clone(), if from.has_decoded { value.into_owned() } else { decoded(&value) }))
        };
        self.names.iter().map(value).collect()
    }
}

/// Decodes percent-encoding. Invalid UTF-8 becomes U+FFFD, as when an HTTP API decodes it.
fn decoded(text: &str) -> String {
    let text: Cow<'_, str> = percent_decode_str(text).decode_utf8_lossy();
    text.into_owned()
}
