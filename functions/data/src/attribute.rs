//! From a type to the attributes of an item, and back, through JSON.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Error, Map, Number, Value, from_value, to_value};

/// The attributes of an item, by their names.
pub(crate) type Attributes = HashMap<String, AttributeValue>;

/// The attributes of a value, which must be a struct or a map with text for keys.
pub(crate) fn attributes(value: &impl Serialize) -> Result<Attributes, Error> {
    let members: Map<String, Value> = from_value(to_value(value)?)?;
    Ok(members.into_iter().map(|(name, value)| (name, attribute(value))).collect())
}

/// The value with these attributes. Sets are read as lists. There is no JSON for binary attributes, which are left out.
pub(crate) fn value<T: DeserializeOwned>(attributes: Attributes) -> Result<T, Error> {
    from_value(object(attributes))
}

fn attribute(value: Value) -> AttributeValue {
    match value {
        Value::Null => AttributeValue::Null(true),
        Value::Bool(bool) => AttributeValue::Bool(bool),
        Value::Number(number) => AttributeValue::N(number.to_string()),
        Value::String(text) => AttributeValue::S(text),
        Value::Array(items) => AttributeValue::L(items.into_iter().map(attribute).collect()),
        Value::Object(members) => {
            AttributeValue::M(members.into_iter().map(|(name, value)| (name, attribute(value))).collect())
        }
    }
}

fn json(attribute: AttributeValue) -> Option<Value> {
    Some(match attribute {
        AttributeValue::Bool(bool) => Value::Bool(bool),
        AttributeValue::L(items) => items.into_iter().filter_map(json).collect(),
        AttributeValue::M(members) => object(members),
        AttributeValue::N(number) => self::number(&number),
        AttributeValue::Ns(numbers) => numbers.iter().map(|number| self::number(number)).collect(),
        AttributeValue::Null(_) => Value::Null,
        AttributeValue::S(text) => Value::String(text),
        AttributeValue::Ss(texts) => texts.into(),
        _ => return None,
    })
}

fn object(attributes: Attributes) -> Value {
    Value::Object(attributes.into_iter().filter_map(|(name, value)| Some((name, json(value)?))).collect())
}

/// DynamoDB's numbers have up to 38 digits. What no integer of 64 bits holds is read as the nearest `f64`.
fn number(text: &str) -> Value {
    let integer = || text.parse().ok().map(|number: i64| number.into());
    let natural = text.parse().ok().map(|number: u64| number.into());
    let number = natural.or_else(integer).or_else(|| Number::from_f64(text.parse().ok()?));
    number.map_or(Value::Null, Value::Number)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq, Serialize)]
    #[serde(rename_all = "snake_case")]
    enum Size {
        Small,
        Of { grams: u32 },
    }

    #[derive(Debug, Deserialize, PartialEq, Serialize)]
    struct Parcel {
        to: String,
        size: Vec<Size>,
        worth: Option<f64>,
        delta: i64,
        most: u64,
        fragile: bool,
        #[serde(flatten)]
        more: HashMap<String, Vec<String>>,
    }

    #[test]
    fn a_type_is_the_same_after_its_attributes() {
        for worth in [None, Some(0.1)] {
            let more = HashMap::from([("tags".to_owned(), vec![String::new(), "é".to_owned()])]);
            let size = vec![Size::Small, Size::Of { grams: 7 }];
            let parcel = Parcel { to: "Ada".into(), size, worth, delta: i64::MIN, most: u64::MAX, fragile: true, more };
            let attributes = attributes(&parcel).unwrap();
            assert_eq!(attributes["most"], AttributeValue::N(u64::MAX.to_string()));
            assert_eq!(value::<Parcel>(attributes).unwrap(), parcel);
        }
        assert!(attributes(&7).is_err() && attributes(&["a"]).is_err());
    }

    #[test]
    fn sets_are_lists_and_numbers_may_be_long() {
        let set = AttributeValue::Ss(vec!["a".into()]);
        let numbers = AttributeValue::Ns(vec!["1".into(), "1E+2".into(), "123456789012345678901".into()]);
        let read = object(HashMap::from([("set".into(), set), ("numbers".into(), numbers)]));
        assert_eq!(read, serde_json::json!({ "set": ["a"], "numbers": [1, 100.0, 123_456_789_012_345_678_901.0] }));
    }
}
