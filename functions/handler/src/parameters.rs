//! Query parameters as a type.

use serde::de::DeserializeOwned;
use serde_json::json;

use crate::{
    Problem, Request,
    faults::{Fault, Source, read},
    query::last_values,
};

/// Reads the request's query parameters as a `T`, a struct whose fields are text, numbers, booleans, or enums of names.
/// A field that may be absent is an [`Option`] or has a `#[serde(default)]`. An empty parameter counts as absent, and
/// only the last value of a repeated one counts, as with [`query`](crate::query()).
///
/// # Errors
///
/// Returns [`Problem::invalid_parameter`]. Its `errors` lists each parameter that is missing, is not of its type,
/// contains a control character, or is not UTF-8.
///
/// ```
/// use handler::{Request, parameters};
///
/// #[derive(serde::Deserialize)]
/// struct Page {
///     #[serde(default)]
///     offset: u32,
///     limit: Option<u8>,
/// }
///
/// let mut request = Request::default();
/// *request.uri_mut() = "/orders?limit=20".parse()?;
/// let page: Page = parameters(&request)?;
/// assert_eq!((page.offset, page.limit), (0, Some(20)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn parameters<T: DeserializeOwned>(request: &Request) -> Result<T, Problem> {
    read(Source::Form(&last_values(request))).map_err(|faults: Vec<Fault>| {
        let errors = faults.iter().map(|(pointer, detail)| (pointer.trim_start_matches('/'), detail));
        let detail = errors.clone().next().map(|(name, detail)| format!("`{name}` {detail}.")).unwrap_or_default();
        let errors: Vec<_> = errors.map(|(name, detail)| json!({ "detail": detail, "parameter": name })).collect();
        Problem::invalid_parameter(detail).with_member("errors", errors)
    })
}
