//! Path parameters, the same for every trigger.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::{
    Problem, Request, Resource,
    event::{FromTrigger, Object, without_stage},
    log::InvocationSpan,
    parameters::check_readable,
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
    check_readable(name, value).map(|()| &**value)
}

#[derive(Clone)]
struct Parameters(Vec<(String, String)>);

/// Finds the resource at the request's path, and adds the parameters to the request: those that the trigger sent for this
/// path, or otherwise those in the path.
pub(crate) fn find<'a>(resources: &'a [Resource], request: &mut Request) -> Result<&'a Resource, Problem> {
    let from: Option<&FromTrigger> = request.extensions().get();
    let sent = resources.iter().find_map(|resource| Some((resource, sent_along(&resource.path, from?)?)));
    let found = sent.or_else(|| {
        let path = request.uri().path();
        matching(resources, path).or_else(|| matching(resources, without_stage(path, from?.stage.as_deref()?)?))
    });
    let (resource, parameters) = found.ok_or_else(|| Problem::not_found("There is nothing at this path."))?;
    request.extensions_mut().insert(parameters);
    InvocationSpan::current(|invocation| invocation.route(&resource.path));
    Ok(resource)
}

/// The resource whose path `path` matches, and the parameters. Of several, the one with text where the others have a
/// parameter.
fn matching<'a>(resources: &'a [Resource], path: &str) -> Option<(&'a Resource, Parameters)> {
    let matching = resources.iter().filter_map(|resource| Some((resource, matched(&resource.path, path)?)));
    let kinds = |resource: &'a Resource| parts(&resource.path).map(|(kind, _)| kind);
    matching.min_by(|(one, _), (other, _)| kinds(one).cmp(kinds(other)))
}

/// Whether two declared paths match the same paths.
pub(crate) fn are_equal(one: &str, other: &str) -> bool {
    let places = |declared| parts(declared).map(|(kind, text)| (kind, if kind == Kind::Text { text } else { "" }));
    places(one).eq(places(other))
}

/// What can stand between the slashes of a declared path. The first kind is the most exact one.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
enum Kind {
    Text,
    Parameter,
    /// `{name+}`.
    Rest,
}

/// What stands between the slashes: text, or the names of parameters.
fn parts(declared: &str) -> impl Iterator<Item = (Kind, &str)> {
    declared.split('/').skip(1).map(|part| {
        let Some(name) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) else {
            return (Kind::Text, part);
        };
        name.strip_suffix('+').map_or((Kind::Parameter, name), |name| (Kind::Rest, name))
    })
}

/// Whether the path can be declared.
pub(crate) fn is_valid(declared: &str) -> bool {
    let is_part = |(kind, text): (Kind, &str)| {
        !text.bytes().any(|byte| matches!(byte, b'{' | b'}' | b'+' | b'*')) && (kind == Kind::Text || !text.is_empty())
    };
    declared.starts_with('/') && !declared.contains("+}/") && parts(declared).all(is_part)
}

/// The parameters in `path`, decoded, if it matches.
fn matched(declared: &str, path: &str) -> Option<Parameters> {
    let (mut left, mut parameters) = (path.strip_prefix('/'), Vec::new());
    for (kind, text) in parts(declared) {
        let (segment, after) = match left? {
            all if kind == Kind::Rest => (all, None),
            all => all.split_once('/').map_or((all, None), |(segment, after)| (segment, Some(after))),
        };
        left = after;
        match kind {
            Kind::Text if segment == text => {}
            Kind::Parameter | Kind::Rest if !segment.is_empty() => {
                parameters.push((text.to_owned(), decoded(segment)));
            }
            _ => return None,
        }
    }
    left.is_none().then_some(Parameters(parameters))
}

/// The parameters, if the trigger sent them for this path.
fn sent_along(declared: &str, from: &FromTrigger) -> Option<Parameters> {
    // Another route, such as `/{proxy+}`, can have parameters with the same names.
    from.route.as_ref().filter(|route| *route == declared)?;
    let sent = Object::read(from.path_parameters.as_deref()?);
    let value = |(_, name): (Kind, &str)| {
        let value = sent.text(name)?;
        Some((name.to_owned(), if from.has_decoded { value.into_owned() } else { decoded(&value) }))
    };
    parts(declared).filter(|(kind, _)| *kind != Kind::Text).map(value).collect::<Option<_>>().map(Parameters)
}

/// Decodes percent-encoding. Invalid UTF-8 becomes U+FFFD, as when an HTTP API decodes it.
fn decoded(text: &str) -> String {
    let text: Cow<'_, str> = percent_decode_str(text).decode_utf8_lossy();
    text.into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Response, get};

    #[test]
    fn the_most_exact_path_counts() {
        let paths = ["/", "/a", "/a/{b}", "/a/c", "/{a}/c/d", "/a/{b}/{c}", "/a/c/{d+}", "/{all+}"];
        let resources = paths.map(|path| get(|_| async { Ok(Response::default()) }).at(path));
        for (path, expected) in [
            ("/", "/"),
            ("/a", "/a"),
            ("/a/", "/{all+} all=a/"),
            ("/a/b", "/a/{b} b=b"),
            ("/a/c", "/a/c"),
            ("/a/c/d", "/a/c/{d+} d=d"),
            ("/a/c/d/", "/a/c/{d+} d=d/"),
            ("/a/c/", "/{all+} all=a/c/"),
            ("/a/%C3%A9/%2F", "/a/{b}/{c} b=é c=/"),
            ("/b/c/d", "/{a}/c/d a=b"),
            ("/b/c/d/e", "/{all+} all=b/c/d/e"),
            ("//c/d", "/{all+} all=/c/d"),
            ("", "none"),
            ("a", "none"),
        ] {
            let found = matching(&resources, path).map(|(resource, Parameters(parameters))| {
                let declared = resource.path.to_string();
                parameters.iter().fold(declared, |all, (name, value)| format!("{all} {name}={value}"))
            });
            assert_eq!(found.as_deref().unwrap_or("none"), expected, "{path}");
        }
    }

    #[test]
    fn a_path_is_declared_as_the_template_does() {
        for path in ["/", "/a/", "/{a}/b/{c+}", "/.well-known/a.json"] {
            assert!(is_valid(path), "{path}");
        }
        assert!(are_equal("/a/{b}", "/a/{c}") && !are_equal("/a/{b}", "/a/b") && !are_equal("/a/{b}", "/a/{b+}"));
        for path in ["", "a", "/{}", "/{+}", "/{a", "/a}", "/{a}.json", "/{*a}", "/{a+}/b", "/{{a}}"] {
            assert!(!is_valid(path), "{path}");
        }
    }
}
