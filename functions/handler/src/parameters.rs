//! Query parameters, the same for every trigger: one by one, or all as a type.

use std::{borrow::Cow, collections::BTreeMap, slice};

use serde::{
    Deserializer,
    de::{
        DeserializeOwned, Error as _, IntoDeserializer, Unexpected, Visitor,
        value::{Error, MapDeserializer, SeqDeserializer},
    },
    forward_to_deserialize_any,
};
use serde_json::{Number, json};
use serde_path_to_error::Segment;

use crate::{
    Problem, Request,
    faults::{Faults, Said, message, most_mended, placeholder, pointer},
};

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
    check_readable(name, &value)?;
    let chars = value.chars().count();
    if chars > max_chars {
        let detail = format!("`{name}` has {chars} characters; at most {max_chars} are allowed.");
        return Err(Problem::invalid_parameter(detail));
    }
    Ok(Some(value))
}

fn values(request: &Request) -> form_urlencoded::Parse<'_> {
    form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes())
}

/// All parameters with their last values, except those whose last value is empty.
fn last_values(request: &Request) -> BTreeMap<Cow<'_, str>, Cow<'_, str>> {
    let mut last: BTreeMap<_, _> = values(request).collect();
    last.retain(|_, value| !value.is_empty());
    last
}

/// Why the value of a parameter is not readable text, if it is not.
fn unreadable(value: &str) -> Option<&'static str> {
    // The trigger, or the decoding here, replaces bytes that are not UTF-8 by this character.
    if value.contains(char::REPLACEMENT_CHARACTER) {
        Some("is not valid UTF-8")
    } else if value.contains(char::is_control) {
        Some("must not contain control characters")
    } else {
        None
    }
}

/// Refuses a parameter whose value is not readable text.
pub(crate) fn check_readable(name: &str, value: &str) -> Result<(), Problem> {
    match unreadable(value) {
        Some(fault) => Err(Problem::invalid_parameter(format!("`{name}` {fault}."))),
        None => Ok(()),
    }
}

/// Reads the request's query parameters as a `T`, a struct whose fields are text, numbers, booleans, or enums of names.
/// A field that may be absent is an [`Option`] or has a `#[serde(default)]`. An empty parameter counts as absent, and
/// only the last value of a repeated one counts, as with [`query`].
///
/// # Errors
///
/// Returns [`Problem::invalid_parameter`]. Its `errors` lists each parameter that is missing, is not of its type,
/// contains a control character, or is not UTF-8. `detail` says if there may be more.
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
    let values = last_values(request).into_iter().map(|(name, value)| (name, vec![value])).collect();
    read(values, Source::Query).map_err(|(error, faults)| {
        let (name, detail) = faults.list.first().cloned().unwrap_or_default();
        let errors: Vec<_> =
            faults.list.iter().map(|(name, detail)| json!({ "detail": detail, "parameter": name })).collect();
        let mut detail = if name.is_empty() { error.to_string() } else { format!("`{name}` {detail}.") };
        if !faults.are_all && !name.is_empty() {
            detail.push_str(" There may be other faults.");
        }
        Problem::invalid_parameter(detail).with_member("errors", errors)
    })
}

/// Names with their values, in the order in which they came.
pub(crate) type Values<'a> = BTreeMap<Cow<'a, str>, Vec<Cow<'a, str>>>;

/// Where the values came from.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Source {
    /// A value is one line of text. A fault is told with the parameter's name.
    Query,
    /// A value is any text, and a name can have a list of them. A fault is told with a JSON pointer.
    Form,
}

/// Reads the values as a `T`. If that fails, it returns the first error and what it found of the faults.
pub(crate) fn read<T: DeserializeOwned>(values: Values<'_>, from: Source) -> Result<T, (Error, Faults)> {
    T::deserialize(reader(&values, from)).map_err(|error| (error, faults::<T>(values, from)))
}

/// Finds all faults, in the way that [`faults`](crate::faults) describes.
fn faults<T: DeserializeOwned>(mut values: Values<'_>, from: Source) -> Faults {
    let mut faults = Faults::new();
    // By the name and, in a list, the index.
    let mut placeholders: BTreeMap<(String, Option<usize>), String> = BTreeMap::new();
    // Each fault needs a few readings.
    for _ in 0..most_mended(values.values().flatten().map(|value| value.len()).sum()) {
        let Err(error) = serde_path_to_error::deserialize::<_, T>(reader(&values, from)) else { return faults };
        let message = error.inner().to_string();
        let said = Said::read(&message);
        let mut path = error.path().iter();
        let place = match (&said, path.next(), path.next()) {
            (_, Some(Segment::Map { key }), Some(Segment::Seq { index })) => (key.clone(), Some(*index)),
            (_, Some(Segment::Map { key }), _) => (key.clone(), None),
            (Said::Missing(name) | Said::Unknown(name, _), ..) => ((*name).to_owned(), None),
            // It is about all of them, or a flattened type reads them, from a copy that knows no names.
            _ => (String::new(), None),
        };
        let (name, index) = &place;
        let tried = placeholders.get(&place).or(placeholders.get(&(name.clone(), None))).cloned();
        let steps = [name.clone()].into_iter().chain(index.map(|index| index.to_string()));
        let steps: Vec<_> = steps.filter(|step| !step.is_empty()).collect();
        let told = if from == Source::Form { pointer(&steps).0 } else { name.clone() };
        if tried.is_none() && !faults.add(told, &said.detail()) || name.is_empty() {
            break;
        }
        let all = values.get_mut(&**name);
        let value = all.and_then(|all| if let Some(index) = index { all.get_mut(*index) } else { all.last_mut() });
        // As in JSON, there text is quoted.
        let next = match (&said, &tried) {
            (Said::Missing(_), None) => Some("1".to_owned()),
            (Said::Missing(_) | Said::Unknown(..), _) => None,
            (_, None) => placeholder(&said, &json!(value).to_string()),
            (_, Some(tried)) => placeholder(&said, tried),
        };
        match (next, value) {
            (Some(json), value) => {
                let text = serde_json::from_str(&json).unwrap_or(json.clone()).into();
                match value {
                    Some(value) => *value = text,
                    None => drop(values.insert(name.clone().into(), vec![text])),
                }
                placeholders.insert(place, json);
            }
            // Without it, at least the others can be read, but not those of the same list.
            (None, Some(_)) => {
                let gone = values.remove(&**name);
                faults.are_all &= index.is_none() || gone.is_none_or(|all| all.len() == 1);
                placeholders.insert((name.clone(), None), String::new());
            }
            (None, None) => break,
        }
    }
    faults.are_all = false;
    faults
}

fn reader<'a>(
    values: &'a Values<'_>,
    from: Source,
) -> MapDeserializer<'a, impl Iterator<Item = (&'a str, Text<'a>)>, Error> {
    MapDeserializer::new(values.iter().map(move |(name, values)| (&**name, Text { values, from })))
}

/// The values of a name. The type that is expected says how to read them: as a list, or the last one as text.
#[derive(Clone, Copy)]
struct Text<'a> {
    values: &'a [Cow<'a, str>],
    from: Source,
}

impl<'a> Text<'a> {
    fn last(&self) -> &'a str {
        self.values.last().map_or("", |value| value)
    }
}

impl<'de> IntoDeserializer<'de, Error> for Text<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// Numbers and booleans are as in JSON.
macro_rules! from_json {
    ($($deserialize:ident)*) => {
        $(
            fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
                let text = self.last();
                if !matches!(text, "true" | "false") && text.parse::<Number>().is_err() {
                    return Err(Error::invalid_type(Unexpected::Str(text), &visitor));
                }
                let mut json = serde_json::Deserializer::from_str(text);
                json.$deserialize(visitor).map_err(|error| Error::custom(message(&error)))
            }
        )*
    };
}

impl<'de> Deserializer<'de> for Text<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match unreadable(self.last()) {
            Some(fault) if self.from == Source::Query => Err(Error::custom(fault)),
            _ => visitor.visit_str(self.last()),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.from == Source::Query {
            return self.deserialize_any(visitor);
        }
        let each = self.values.iter().map(|value| Text { values: slice::from_ref(value), ..self });
        visitor.visit_seq(SeqDeserializer::new(each))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_enum(self.last().into_deserializer())
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    from_json! {
        deserialize_bool
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64
    }

    forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct tuple tuple_struct map struct identifier
    }
}
