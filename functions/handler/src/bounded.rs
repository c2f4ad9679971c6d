//! Text and integers with bounds, for the members of a body.

use std::{fmt, ops::Deref};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, Unexpected, Visitor},
};

/// Text of `MIN` to `MAX` characters. As a member of a [`body`](crate::body()), other text is a fault like each other one:
/// `must be a string of 1 to 100 characters`.
///
/// ```
/// use handler::{Body, Int, Request, Text, body, http::header::CONTENT_TYPE};
///
/// #[derive(serde::Deserialize)]
/// struct NewOrder {
///     sku: Text<1, 20>,
///     quantity: Int<1, 12>,
/// }
///
/// let mut request = Request::new(Body::from(r#"{"sku": "A-7", "quantity": 2}"#));
/// request.headers_mut().insert(CONTENT_TYPE, "application/json".parse()?);
/// let order: NewOrder = body(&request, 1024)?;
/// assert_eq!((&*order.sku, order.quantity.get()), ("A-7", 2));
///
/// *request.body_mut() = Body::from(r#"{"sku": "", "quantity": 13}"#);
/// let problem = body::<NewOrder>(&request, 1024).err().ok_or("a problem")?;
/// let errors = problem.member("errors").ok_or("a list")?;
/// assert_eq!(errors[0]["detail"], "must be a string of 1 to 20 characters");
/// assert_eq!(errors[1]["detail"], "must be an integer from 1 to 12");
///
/// // From a value of the code's own.
/// assert_eq!(Int::<1, 12>::try_from(order.quantity.get() + 11).unwrap_err().to_string(), "must be an integer from 1 to 12");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Text<const MIN: usize, const MAX: usize>(String);

impl<const MIN: usize, const MAX: usize> Deref for Text<MIN, MAX> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<const MIN: usize, const MAX: usize> From<Text<MIN, MAX>> for String {
    fn from(text: Text<MIN, MAX>) -> Self {
        text.0
    }
}

impl<const MIN: usize, const MAX: usize> TryFrom<String> for Text<MIN, MAX> {
    type Error = OutOfBounds;

    fn try_from(text: String) -> Result<Self, OutOfBounds> {
        let is_within = (MIN..=MAX).contains(&text.chars().count());
        if is_within {
            Ok(Self(text))
        } else {
            Err(OutOfBounds(format!("must be a string of {MIN} to {MAX} characters")))
        }
    }
}

impl<const MIN: usize, const MAX: usize> Serialize for Text<MIN, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl<'de, const MIN: usize, const MAX: usize> Deserialize<'de> for Text<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounds<const MIN: usize, const MAX: usize>;

        impl<const MIN: usize, const MAX: usize> Visitor<'_> for Bounds<MIN, MAX> {
            type Value = Text<MIN, MAX>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "a string of {MIN} to {MAX} characters")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                text.to_owned().try_into().map_err(|_| E::invalid_length(text.chars().count(), &self))
            }
        }

        deserializer.deserialize_str(Bounds::<MIN, MAX>)
    }
}

/// An integer from `MIN` to `MAX`. As a member of a [`body`](crate::body()), another number is a fault: `must be an
/// integer from 1 to 12`. [`Text`] has an example.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Int<const MIN: i64, const MAX: i64>(i64);

impl<const MIN: i64, const MAX: i64> Int<MIN, MAX> {
    /// The integer.
    #[must_use]
    pub fn get(self) -> i64 {
        self.0
    }
}

impl<const MIN: i64, const MAX: i64> TryFrom<i64> for Int<MIN, MAX> {
    type Error = OutOfBounds;

    fn try_from(number: i64) -> Result<Self, OutOfBounds> {
        let is_within = (MIN..=MAX).contains(&number);
        if is_within { Ok(Self(number)) } else { Err(OutOfBounds(format!("must be an integer from {MIN} to {MAX}"))) }
    }
}

impl<const MIN: i64, const MAX: i64> Serialize for Int<MIN, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(self.0)
    }
}

impl<'de, const MIN: i64, const MAX: i64> Deserialize<'de> for Int<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounds<const MIN: i64, const MAX: i64>;

        impl<const MIN: i64, const MAX: i64> Visitor<'_> for Bounds<MIN, MAX> {
            type Value = Int<MIN, MAX>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "an integer from {MIN} to {MAX}")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
                number.try_into().map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
                let signed = number.try_into().map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self));
                self.visit_i64(signed?)
            }
        }

        deserializer.deserialize_i64(Bounds::<MIN, MAX>)
    }
}

/// What a [`Text`] or an [`Int`] cannot hold. Its message says the bounds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OutOfBounds(String);

impl fmt::Display for OutOfBounds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for OutOfBounds {}

#[cfg(test)]
mod tests {
    use serde_json::{from_str, to_string};

    use super::*;
    use crate::{body, body::tests::request};

    #[test]
    fn what_is_within_the_bounds_is_read_and_written() {
        for text in ["aé", "aéb"] {
            let json = to_string(text).unwrap();
            assert_eq!(to_string(&from_str::<Text<2, 3>>(&json).unwrap()).unwrap(), json);
        }
        for number in [-1, 0, 3] {
            let json = number.to_string();
            assert_eq!(to_string(&from_str::<Int<-1, 3>>(&json).unwrap()).unwrap(), json);
        }
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "it is only read")]
    struct Parcel {
        to: Text<2, 70>,
        code: Text<6, 6>,
        grams: Int<50, 30_000>,
        delta: Int<-9, -3>,
        fragile: bool,
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let (to, code) = ("must be a string of 2 to 70 characters", "must be a string of 6 to 6 characters");
        let (grams, delta) = ("must be an integer from 50 to 30000", "must be an integer from -9 to -3");
        let long = format!(r#"{{"to": "{}", "code": "1234567", "grams": 30001, "delta": -2}}"#, "é".repeat(71));
        for (sent, expected) in [
            ("{}", ["is missing"; 4]),
            (r#"{"to": "a", "code": "12345", "grams": 49, "delta": -10}"#, [to, code, grams, delta]),
            (&long, [to, code, grams, delta]),
            (r#"{"to": 7, "code": null, "grams": "50", "delta": 18446744073709551615}"#, [to, code, grams, delta]),
            (r#"{"to": ["aa"], "code": {}, "grams": 50.5, "delta": true}"#, [to, code, grams, delta]),
        ] {
            let problem = body::<Parcel>(&request(Some("application/json"), sent), 1024).unwrap_err();
            let told: Vec<&str> = problem
                .member("errors")
                .unwrap()
                .as_array()
                .unwrap()
                .iter()
                .filter_map(|fault| fault["detail"].as_str())
                .collect();
            assert_eq!(told, [&expected[..], &["is missing"]].concat(), "{sent}");
            assert_eq!(problem.detail(), "The body has 5 faults, which `errors` lists.", "{sent}");
        }
    }
}
