//! Query parameters, the same through every trigger.

use std::borrow::Cow;

use crate::{Problem, Request};

/// The value of the query parameter `name`, decoded; `None` when it is absent or empty.
///
/// Of a repeated parameter the last value counts: a load balancer without multi-value headers passes on no other.
///
/// # Errors
///
/// [`Problem::invalid_parameter`] when the value has more than `max_chars` characters, holds a control character, or is
/// not UTF-8.
pub fn query<'a>(request: &'a Request, name: &str, max_chars: usize) -> Result<Option<Cow<'a, str>>, Problem> {
    let query = request.uri().query().unwrap_or_default();
    let parameters = form_urlencoded::parse(query.as_bytes());
    let Some((_, value)) =
        parameters.filter(|(parameter, _)| parameter == name).last().filter(|(_, value)| !value.is_empty())
    else {
        return Ok(None);
    };
    // That is what bytes that are not UTF-8 are decoded to, by the trigger or just now.
    if value.contains(char::REPLACEMENT_CHARACTER) {
        return Err(Problem::invalid_parameter(format!("`{name}` is not valid UTF-8.")));
    }
    if value.contains(char::is_control) {
        return Err(Problem::invalid_parameter(format!("`{name}` must not contain control characters.")));
    }
    let chars = value.chars().count();
    if chars > max_chars {
        return Err(Problem::invalid_parameter(format!(
            "`{name}` has {chars} characters; at most {max_chars} are allowed."
        )));
    }
    Ok(Some(value))
}
