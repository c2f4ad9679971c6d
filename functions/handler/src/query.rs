//! Query parameters, the same for every trigger.

use std::{borrow::Cow, collections::BTreeMap};

use crate::{Problem, Request};

/// Returns the decoded value of the query parameter `name`, or `None` if it is absent or empty.
///
/// The last value of a repeated parameter counts: a load balancer without multi-value headers passes on only that one.
///
/// # Errors
///
/// Returns [`Problem::invalid_parameter`] if the value has more than `max_chars` characters, contains a control
/// character, or is not UTF-8.
pub fn query<'a>(request: &'a Request, name: &str, max_chars: usize) -> Result<Option<Cow<'a, str>>, Problem> {
    let values = values(request).filter(|(parameter, _)| parameter == name);
    let Some((_, value)) = values.last().filter(|(_, value)| !value.is_empty()) else {
        return Ok(None);
    };
    if let Some(fault) = unreadable(&value) {
        return Err(Problem::invalid_parameter(format!("`{name}` {fault}.")));
    }
    let chars = value.chars().count();
    if chars > max_chars {
        return Err(Problem::invalid_parameter(format!(
            "`{name}` has {chars} characters; at most {max_chars} are allowed."
        )));
    }
    Ok(Some(value))
}

fn values(request: &Request) -> form_urlencoded::Parse<'_> {
    form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes())
}

/// All parameters with their last values, except those whose last value is empty.
pub(crate) fn last_values(request: &Request) -> BTreeMap<Cow<'_, str>, Cow<'_, str>> {
    let mut last: BTreeMap<_, _> = values(request).collect();
    last.retain(|_, value| !value.is_empty());
    last
}

/// Why the value of a parameter is not readable text, if it is not.
pub(crate) fn unreadable(value: &str) -> Option<&'static str> {
    // The trigger, or the decoding here, replaces bytes that are not UTF-8 by this character.
    if value.contains(char::REPLACEMENT_CHARACTER) {
        Some("is not valid UTF-8")
    } else if value.contains(char::is_control) {
        Some("must not contain control characters")
    } else {
        None
    }
}
