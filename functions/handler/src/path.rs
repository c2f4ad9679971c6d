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
    let sent = resources.iter().find_map(|resource| Some((resource, sent_along(resource.declared(), from?)?)));
    let found = sent.or_else(|| {
        let path = request.uri().path();
        matching(resources, path).or_else(|| matching(resources, without_stage(path, from?.stage.as_deref()?)?))
    });
    let (resource, parameters) = found.ok_or_else(|| Problem::not_found("There is nothing at this path."))?;
    request.extensions_mut().insert(parameters);
    InvocationSpan::current(|invocation| invocation.route(resource.declared()));
    Ok(resource)
}

/// The resource whose path `path` matches, and the parameters. Of several, the one with text where the others have a
/// parameter.
fn matching<'a>(resources: &'a [Resource], path: &str) -> Option<(&'a Resource, Parameters)> {
    let matching = resources.iter().filter_map(|resource| Some((resource, matched(resource.declared(), path)?)));
    let ranks = |resource: &'a Resource| parts(resource.declared()).map(Part::rank);
    matching.min_by(|(one, _), (other, _)| ranks(one).cmp(ranks(other)))
}

/// Whether two declared paths match the same paths.
pub(crate) fn are_equal(one: &str, other: &str) -> bool {
    parts(one).map(Part::place).eq(parts(other).map(Part::place))
}

/// What stands between the slashes of a declared path.
#[derive(Clone, Copy)]
enum Part<'a> {
    Text(&'a str),
    Parameter(&'a str),
    /// `{name+}`.
    Rest(&'a str),
}

impl<'a> Part<'a> {
    fn name(self) -> Option<&'a str> {
        if let Self::Parameter(name) | Self::Rest(name) = self { Some(name) } else { None }
    }

    /// Lower is more exact.
    fn rank(self) -> u8 {
        match self {
            Self::Text(_) => 0,
            Self::Parameter(_) => 1,
            Self::Rest(_) => 2,
        }
    }

    /// Equal for parts that match the same.
    fn place(self) -> (u8, &'a str) {
        (self.rank(), if let Self::Text(text) = self { text } else { "" })
    }
}

fn parts(declared: &str) -> impl Iterator<Item = Part<'_>> {
    declared.split('/').skip(1).map(|part| {
        let name = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
        let rest = name.and_then(|name| name.strip_suffix('+'));
        rest.map(Part::Rest).or(name.map(Part::Parameter)).unwrap_or(Part::Text(part))
    })
}

/// Whether the path can be declared.
pub(crate) fn is_valid(declared: &str) -> bool {
    let is_part = |part: Part<'_>| {
        let (Part::Text(text) | Part::Parameter(text) | Part::Rest(text)) = part;
        !text.bytes().any(|byte| matches!(byte, b'{' | b'}' | b'+' | b'*')) && part.name() != Some("")
    };
    declared.starts_with('/') && !declared.contains("+}/") && parts(declared).all(is_part)
}

/// The parameters in `path`, decoded, if it matches.
fn matched(declared: &str, path: &str) -> Option<Parameters> {
    let (mut left, mut parameters) = (path.strip_prefix('/'), Vec::new());
    for part in parts(declared) {
        let (segment, after) = match (part, left?) {
            (Part::Rest(_), all) => (all, None),
            (_, all) => all.split_once('/').map_or((all, None), |(segment, after)| (segment, Some(after))),
        };
        left = after;
        match part.name() {
            Some(name) if !segment.is_empty() => parameters.push((name.to_owned(), decoded(segment))),
            None if matches!(part, Part::Text(text) if text == segment) => {}
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
    let value = |name: &str| {
        let value = sent.text(name)?;
        Some((name.to_owned(), if from.has_decoded { value.into_owned() } else { decoded(&value) }))
    };
    parts(declared).filter_map(Part::name).map(value).collect::<Option<_>>().map(Parameters)
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
                let declared = resource.declared().to_owned();
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
