//! Query parameters, the same through every trigger.

use lambda_http::{Request, RequestExt};

use crate::Problem;

/// The value of the query parameter `name`, percent-decoded; `None` when it is absent or empty.
///
/// Of a repeated parameter the last value counts: a load balancer without multi-value headers passes on no other.
///
/// # Errors
///
/// [`Problem::invalid_parameter`] when the value has more than `max_chars` characters, holds a control character, or is
/// not UTF-8.
pub fn query<'a>(request: &'a Request, name: &str, max_chars: usize) -> Result<Option<&'a str>, Problem> {
    let Some(value) = request
        .query_string_parameters_ref()
        .and_then(|parameters| parameters.all(name)?.pop())
        .filter(|value| !value.is_empty())
    else {
        return Ok(None);
    };
    // The decoders of every trigger put U+FFFD where the bytes are not UTF-8.
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
