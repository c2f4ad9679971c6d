//! Query parameters as a type.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{
    Deserializer,
    de::{
        DeserializeOwned, Error as _, IntoDeserializer, Unexpected, Visitor,
        value::{Error, MapDeserializer},
    },
    forward_to_deserialize_any,
};
use serde_json::{Number, json};
use serde_path_to_error::Segment;

use crate::{
    Problem, Request,
    faults::{Faults, Said, message, placeholder},
    query::{last_values, unreadable},
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
    let values = last_values(request);
    T::deserialize(reader(&values)).map_err(|error| {
        let faults = faults::<T>(values);
        let (name, detail) = faults.list.first().cloned().unwrap_or_default();
        let errors: Vec<_> =
            faults.list.iter().map(|(name, detail)| json!({ "detail": detail, "parameter": name })).collect();
        let detail = if name.is_empty() { error.to_string() } else { format!("`{name}` {detail}.") };
        Problem::invalid_parameter(detail).with_member("errors", errors)
    })
}

type Values<'a> = BTreeMap<Cow<'a, str>, Cow<'a, str>>;

/// Finds all faults, in the way that [`faults`](crate::faults) describes.
fn faults<T: DeserializeOwned>(mut values: Values<'_>) -> Faults {
    let mut faults = Faults::new();
    let mut placeholders: BTreeMap<String, String> = BTreeMap::new();
    // Each fault needs a few readings.
    for _ in 0..100 {
        let Err(error) = serde_path_to_error::deserialize::<_, T>(reader(&values)) else { break };
        let message = error.inner().to_string();
        let said = Said::read(&message);
        let name = match (&said, error.path().iter().next()) {
            (_, Some(Segment::Map { key })) => key.clone(),
            (Said::Missing(name) | Said::Unknown(name, _), _) => (*name).to_owned(),
            // It is about all of them, or a flattened type reads them, from a copy that knows no names.
            _ => String::new(),
        };
        let tried = placeholders.get(&name).cloned();
        if tried.is_none() && !faults.add(name.clone(), &said.detail()) || name.is_empty() {
            break;
        }
        // As in JSON, there text is quoted.
        let next = match (&said, &tried) {
            (Said::Missing(_), None) => Some("1".to_owned()),
            (Said::Missing(_) | Said::Unknown(..), _) => None,
            (_, None) => placeholder(&said, &json!(values.get(&*name)).to_string()),
            (_, Some(tried)) => placeholder(&said, tried),
        };
        match next {
            Some(json) => {
                let text = serde_json::from_str(&json).unwrap_or(json.clone());
                values.insert(name.clone().into(), text.into());
                placeholders.insert(name, json);
            }
            // Without it, at least the others can be read.
            None if values.remove(&*name).is_some() => drop(placeholders.insert(name, String::new())),
            None => break,
        }
    }
    faults
}

fn reader<'a>(values: &'a Values<'_>) -> MapDeserializer<'a, impl Iterator<Item = (&'a str, Text<'a>)>, Error> {
    MapDeserializer::new(values.iter().map(|(name, value)| (&**name, Text(value))))
}

/// The value of a parameter. The type that is expected says how to read it.
struct Text<'a>(&'a str);

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
                if !matches!(self.0, "true" | "false") && self.0.parse::<Number>().is_err() {
                    return Err(Error::invalid_type(Unexpected::Str(self.0), &visitor));
                }
                let mut json = serde_json::Deserializer::from_str(self.0);
                json.$deserialize(visitor).map_err(|error| Error::custom(message(&error)))
            }
        )*
    };
}

impl<'de> Deserializer<'de> for Text<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match unreadable(self.0) {
            Some(fault) => Err(Error::custom(fault)),
            None => visitor.visit_str(self.0),
        }
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
        visitor.visit_enum(self.0.into_deserializer())
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
        char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier
    }
}
