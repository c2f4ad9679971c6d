//! Compares the schemas of openapi.yaml with the types of an endpoint.
//!
//! serde itself says what a type is, so that nothing is written for it: values at the bounds of the schema, beyond them, and
//! of other types are read as the type. It must take those that the schema takes.

use std::{collections::BTreeSet, fs};

use jsonschema::Validator;
use proptest::{
    strategy::{Strategy, ValueTree},
    string::string_regex,
    test_runner::TestRunner,
};
use serde::{
    Deserializer, Serialize,
    de::{DeserializeOwned, Error as _, Visitor, value::Error},
    forward_to_deserialize_any,
};
use serde_json::{Map, Value, from_value, json, to_value};

use crate::root;

/// How deep a schema may refer to others.
const MOST_LEVELS: usize = 8;

/// Text of each format, as <https://spec.openapis.org/registry/format/> lists them.
const FORMATS: [(&str, &str); 6] = [
    ("date", "2026-11-22"),
    ("date-time", "2026-11-22T10:41:31Z"),
    ("email", "ada@example.com"),
    ("time", "10:41:31Z"),
    ("uri", "https://example.com/a"),
    ("uuid", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
];

/// Checks that the schema `name` of openapi.yaml is that of `T`, the body of a request: it has the same members, and takes
/// the same values. Otherwise panics with the values that differ, and what the type says of them.
pub fn of_request<T: DeserializeOwned>(name: &str) {
    assert_same(name, request_differences::<T>);
}

/// Checks that the schema `name` of openapi.yaml is that of `T`, the body of an answer: what the type writes is what the
/// schema takes. A pattern or format is not compared, because a type of answers seldom has one. Otherwise as [`of_request`].
pub fn of_answer<T: DeserializeOwned + Serialize>(name: &str) {
    assert_same(name, answer_differences::<T>);
}

fn assert_same(name: &str, differences: fn(&Value) -> Vec<String>) {
    let differences = differences(&component(name));
    assert!(differences.is_empty(), "openapi.yaml: schemas: {name}:\n{}", differences.join("\n"));
}

fn request_differences<T: DeserializeOwned>(schema: &Value) -> Vec<String> {
    let validator = validator(schema);
    let values = all_read::<T>(schema).into_iter().filter_map(|(value, read)| match read {
        Ok(_) if !validator.is_valid(&value) => Some(told("refuses", &value, "the type reads it")),
        Err(error) if validator.is_valid(&value) => Some(told("takes", &value, &format!("the type does not: {error}"))),
        _ => None,
    });
    let names = name_differences::<T>(schema);
    // With another name, no value is read.
    if names.is_empty() { values.collect() } else { names }
}

/// None if the type is no struct.
fn name_differences<T: DeserializeOwned>(schema: &Value) -> Vec<String> {
    let of_type = BTreeSet::from_iter(members_of::<T>());
    let of_contract = schema["properties"].as_object().into_iter().flatten();
    let of_contract: BTreeSet<_> = of_contract.map(|(name, _)| &**name).filter(|_| !of_type.is_empty()).collect();
    let lacks =
        of_type.difference(&of_contract).map(|name| format!("the contract has no `{name}`, and the type reads it"));
    let has = of_contract
        .difference(&of_type)
        .map(|name| format!("the contract has `{name}`, and the type does not read it"));
    lacks.chain(has).collect()
}

fn answer_differences<T: DeserializeOwned + Serialize>(schema: &Value) -> Vec<String> {
    let [validator, of_written] = [schema, &without_patterns(schema)].map(validator);
    let values = all_read::<T>(schema).into_iter().filter_map(|(value, read)| match read.map(to_value) {
        Ok(Ok(written)) if of_written.is_valid(&written) => None,
        Ok(Ok(written)) => Some(told("refuses", &written, "the type writes it")),
        Ok(Err(error)) => Some(told("takes", &value, &format!("the type does not write it: {error}"))),
        Err(error) if validator.is_valid(&value) => Some(told("takes", &value, &format!("the type does not: {error}"))),
        Err(_) => None,
    });
    values.collect()
}

/// The samples, and what the type says of each. The type tells the names of an enum if it gets `?` for one of them. They
/// are samples, too.
fn all_read<T: DeserializeOwned>(schema: &Value) -> Vec<(Value, Result<T, serde_json::Error>)> {
    let (mut values, mut all) = (samples(schema), Vec::new());
    while let Some(value) = values.pop() {
        let read = from_value::<T>(value.clone());
        let error = read.as_ref().err().map(ToString::to_string).unwrap_or_default();
        let names = error.split_once("unknown variant `?`, expected ").map_or("", |(_, names)| names);
        let with = |name: &str| value.to_string().replace("\"?\"", &json!(name).to_string()).parse();
        values.extend(names.split('`').skip(1).step_by(2).filter_map(|name| with(name).ok()));
        all.push((value, read));
    }
    all
}

fn told(verb: &str, value: &Value, what: &str) -> String {
    format!("the contract {verb} {}, and {what}", shortened(value))
}

/// The value with shorter text and lists.
fn shortened(value: &Value) -> Value {
    match value {
        Value::String(text) if text.len() > 40 => format!("{:.4}… ({} characters)", text, text.chars().count()).into(),
        Value::Array(items) if items.len() > 3 => json!([shortened(&items[0]), format!("… ({} items)", items.len())]),
        other => each(other, shortened),
    }
}

/// The value with what `change` makes of its members or items.
fn each(value: &Value, change: impl Fn(&Value) -> Value) -> Value {
    match value {
        Value::Object(members) => members.iter().map(|(name, member)| (name.clone(), change(member))).collect(),
        Value::Array(items) => items.iter().map(change).collect(),
        other => other.clone(),
    }
}

fn validator(schema: &Value) -> Validator {
    jsonschema::options().should_validate_formats(true).build(schema).expect("a JSON schema")
}

/// The schema of openapi.yaml, with those to which it refers in their places.
fn component(name: &str) -> Value {
    let file = fs::read_to_string(root().join("openapi.yaml")).expect("openapi.yaml");
    let openapi: Value = serde_saphyr::from_str(&file).expect("openapi.yaml to be YAML");
    let schema = openapi.pointer(&format!("/components/schemas/{name}"));
    resolved(schema.unwrap_or_else(|| panic!("openapi.yaml has no {name} under schemas")), &openapi, MOST_LEVELS)
}

fn resolved(schema: &Value, openapi: &Value, levels: usize) -> Value {
    assert!(levels > 0, "a schema refers to itself, or to more than {MOST_LEVELS} others in turn");
    match schema {
        Value::Object(members) if let Some(Value::String(reference)) = members.get("$ref") => {
            let there = reference.strip_prefix('#').and_then(|pointer| openapi.pointer(pointer));
            resolved(there.unwrap_or_else(|| panic!("openapi.yaml has no {reference}")), openapi, levels - 1)
        }
        other => each(other, |within| resolved(within, openapi, levels)),
    }
}

fn without_patterns(schema: &Value) -> Value {
    let mut rest = each(schema, without_patterns);
    if let Value::Object(members) = &mut rest {
        members.retain(|name, value| !["format", "pattern"].contains(&name.as_str()) || !value.is_string());
    }
    rest
}

/// Values of which the schema takes some and refuses others: each differs in one place from one that it takes.
fn samples(schema: &Value) -> Vec<Value> {
    let number = |name: &str| schema[name].as_i64();
    let length = |name: &str| number(name).and_then(|length| usize::try_from(length).ok());
    let around = |least: Option<usize>, most: Option<usize>| {
        let (least, most) = (least.unwrap_or(0), most.unwrap_or(4096));
        [least.saturating_sub(1), least, most, most + 1]
    };
    // Of each type, for which the schema may have no bounds.
    let every = json!([null, true, false, 0, -1, i64::MIN, i64::MAX, 0.5, 1.5, "", "?", [], {}]);
    let mut all = every.as_array().cloned().unwrap_or_default();
    all.extend(["example", "const", "default"].iter().filter_map(|name| schema.get(name).cloned()));
    all.extend(["examples", "enum"].iter().filter_map(|name| schema[name].as_array()).flatten().cloned());
    all.extend(
        ["oneOf", "anyOf", "allOf"].iter().filter_map(|name| schema[name].as_array()).flatten().flat_map(samples),
    );
    for bound in ["minimum", "maximum"].into_iter().filter_map(number) {
        all.extend([bound.saturating_add(1), bound, bound.saturating_sub(1)].map(Value::from));
    }
    let format = FORMATS.iter().find(|(format, _)| schema["format"] == **format);
    all.extend(format.map(|(_, text)| json!(text)));
    all.extend(schema["pattern"].as_str().into_iter().flat_map(texts));
    all.extend(around(length("minLength"), length("maxLength")).map(|length| json!("a".repeat(length))));
    if let Some(items) = schema.get("items") {
        let each = samples(items);
        let good = accepted(items, &each);
        all.extend(around(length("minItems"), length("maxItems")).map(|length| json!(vec![&good; length.min(4097)])));
        let rest = vec![good; length("minItems").unwrap_or(0).saturating_sub(1)];
        all.extend(each.into_iter().map(|item| [&[item], &rest[..]].concat().into()));
    }
    if let Some(members) = schema["properties"].as_object() {
        let each: Vec<_> = members.iter().map(|(name, member)| (name, samples(member))).collect();
        let full: Map<_, _> =
            each.iter().map(|(name, all)| ((*name).clone(), accepted(&members[*name], all))).collect();
        for (name, values) in each {
            let mut without = full.clone();
            without.remove(name);
            all.push(without.into());
            all.extend(values.into_iter().map(|value| {
                let mut changed = full.clone();
                changed.insert(name.clone(), value);
                changed.into()
            }));
        }
        let mut more = full.clone();
        more.insert("unknown".into(), json!(null));
        all.extend([full, more].map(Value::from));
    }
    all
}

/// The one of the samples that the schema takes.
fn accepted(schema: &Value, samples: &[Value]) -> Value {
    let validator = validator(schema);
    let found = samples.iter().rev().find(|sample| !sample.is_null() && validator.is_valid(sample));
    found.unwrap_or_else(|| panic!("give the schema {schema} an `example`")).clone()
}

/// A few texts that match the pattern, if it is one for which they can be made.
fn texts(pattern: &str) -> Vec<Value> {
    let pattern = pattern.strip_prefix('^').unwrap_or(pattern);
    let Ok(texts) = string_regex(pattern.strip_suffix('$').unwrap_or(pattern)) else { return Vec::new() };
    let mut runner = TestRunner::deterministic();
    (0..4).filter_map(|_| Some(json!(texts.new_tree(&mut runner).ok()?.current()))).collect()
}

/// The names of the members that a struct reads. None if it is no struct, or is flattened.
fn members_of<T: DeserializeOwned>() -> Vec<&'static str> {
    let mut members = Vec::new();
    let _read_nothing = T::deserialize(Members(&mut members));
    members
}

struct Members<'a>(&'a mut Vec<&'static str>);

impl<'de> Deserializer<'de> for Members<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("no struct"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &str,
        members: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        self.0.extend(members);
        Err(Error::custom("a struct"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use handler::{Int, Text};
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize, Serialize)]
    #[serde(deny_unknown_fields)]
    struct Parcel {
        to: Text<1, 200>,
        grams: Int<1, 30_000>,
        note: Option<Text<0, 500>>,
        day: Option<Day>,
        state: State,
        #[serde(default)]
        tags: Vec<Tag>,
    }

    #[derive(Deserialize, Serialize)]
    #[serde(rename_all = "lowercase")]
    enum State {
        Announced,
        Sent,
    }

    #[derive(Deserialize, Serialize)]
    #[serde(deny_unknown_fields)]
    struct Tag {
        name: String,
    }

    #[derive(Deserialize, Serialize)]
    #[serde(try_from = "String")]
    struct Day(String);

    impl TryFrom<String> for Day {
        type Error = &'static str;
        fn try_from(day: String) -> Result<Self, &'static str> {
            if day.len() == 10 && day.contains('-') { Ok(Self(day)) } else { Err("must be a date") }
        }
    }

    #[test]
    fn each_change_of_a_schema_is_a_difference() {
        let tag = json!({ "type": "object", "required": ["name"], "properties": { "name": { "type": "string" } }, "additionalProperties": false });
        let schema = json!({
            "type": "object",
            "required": ["to", "grams", "state"],
            "additionalProperties": false,
            "properties": {
                "to": { "type": "string", "minLength": 1, "maxLength": 200 },
                "grams": { "type": "integer", "minimum": 1, "maximum": 30_000 },
                "note": { "type": ["string", "null"], "maxLength": 500 },
                "day": { "type": ["string", "null"], "format": "date" },
                "state": { "enum": ["announced", "sent"] },
                "tags": { "type": "array", "items": tag },
            },
        });
        assert_eq!(request_differences::<Parcel>(&schema), [""; 0]);
        assert_eq!(answer_differences::<Parcel>(&schema), [""; 0]);
        for (place, changed) in [
            ("/required", json!(["to", "grams"])),
            ("/required", json!(["to", "grams", "state", "note"])),
            ("/additionalProperties", json!(true)),
            ("/properties/to/minLength", json!(0)),
            ("/properties/to/minLength", json!(2)),
            ("/properties/to/maxLength", json!(199)),
            ("/properties/to/maxLength", json!(201)),
            ("/properties/to/maxLength", json!(null)),
            ("/properties/to/type", json!(["string", "null"])),
            ("/properties/grams/minimum", json!(0)),
            ("/properties/grams/minimum", json!(2)),
            ("/properties/grams/maximum", json!(29_999)),
            ("/properties/grams/maximum", json!(30_001)),
            ("/properties/grams/type", json!("number")),
            ("/properties/grams/type", json!("string")),
            ("/properties/note/type", json!("string")),
            ("/properties/note", json!(null)),
            ("/properties/weight", json!({ "type": "integer", "minimum": 1, "maximum": 2 })),
            ("/properties/day/format", json!(null)),
            ("/properties/state/enum", json!(["announced"])),
            ("/properties/state/enum", json!(["announced", "sent", "lost"])),
            ("/properties/tags/items/required", json!([])),
            ("/properties/tags/items/properties/name/maxLength", json!(10)),
            ("/properties/tags/minItems", json!(1)),
            ("/properties/tags/maxItems", json!(10)),
        ] {
            let mut schema = schema.clone();
            let (holder, name) = place.rsplit_once('/').unwrap();
            let holder = schema.pointer_mut(holder).unwrap().as_object_mut().unwrap();
            holder.insert(name.into(), changed.clone());
            holder.retain(|_, member| !member.is_null());
            assert_ne!(request_differences::<Parcel>(&schema), [""; 0], "{place}: {changed}");
        }
        for (old, new) in [("note", "notes"), ("grams", "weight")] {
            let schema = schema.to_string().replace(old, new).parse().unwrap();
            let names = [
                format!("the contract has no `{old}`, and the type reads it"),
                format!("the contract has `{new}`, and the type does not read it"),
            ];
            assert_eq!(request_differences::<Parcel>(&schema), names);
            assert_ne!(answer_differences::<Parcel>(&schema), [""; 0], "{old}");
        }
    }
}
