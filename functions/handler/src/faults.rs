//! Finds all faults in a caller's input at once.
//!
//! serde stops at the first fault. So the input is read again, with a stand-in for the fault that its type accepts,
//! until the next fault comes or none is left. A stand-in only lets reading continue and is never returned. If no
//! stand-in helps, the faults found so far are reported. Only a request that is refused anyway costs this work. A valid
//! one is read once.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Display},
};

use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeSeed, Error, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor,
        value::MapAccessDeserializer,
    },
    forward_to_deserialize_any,
};
use serde_json::{Number, value::RawValue};

use crate::{event::Object, query::unreadable};

/// Where the fault is, as a JSON pointer (RFC 6901), and what it is, in words that follow the name of the place.
pub(crate) type Fault = (String, String);

/// The most faults that are reported, times that the input is read for them, and bytes that are read in all. A refusal
/// must not cost many times what an answer costs.
const MOST_FAULTS: usize = 20;
const MOST_READINGS: usize = 100;
const MOST_BYTES: usize = 2_000_000;

/// How deep a value may be nested: as deep as `serde_json` allows.
const MOST_LEVELS: usize = 127;

/// The stand-ins that are tried for a fault, as JSON.
const STAND_INS: [&str; 11] = [
    "null",
    "1",
    r#""""#,
    "false",
    "[]",
    "{}",
    r#""1""#,
    r#""1970-01-01T00:00:00Z""#,
    r#""1970-01-01""#,
    r#""00000000-0000-4000-8000-000000000000""#,
    r#""https://example.com/""#,
];

/// What replaces a fault.
#[derive(Clone, Copy, PartialEq)]
enum StandIn {
    /// One of [`STAND_INS`].
    Json(usize),
    /// The name of an enum's variant.
    Variant(&'static str),
    /// Nothing: the member is left out.
    Nothing,
}

impl StandIn {
    /// What to try next where reading stopped, after `tried`.
    fn after(tried: Option<Self>, stop: &Stop) -> Option<Self> {
        match (tried, stop.variant) {
            (Some(Self::Nothing), _) => None,
            (None, _) if stop.is_unknown => Some(Self::Nothing),
            (Some(Self::Variant(_)), _) => Some(Self::Nothing),
            (_, Some(variant)) => Some(Self::Variant(variant)),
            (None, None) => Some(Self::Json(0)),
            (Some(Self::Json(number)), None) if number + 1 < STAND_INS.len() => Some(Self::Json(number + 1)),
            (Some(Self::Json(_)), None) => Some(Self::Nothing),
        }
    }
}

/// Stand-ins by the pointers to their places.
type StandIns = BTreeMap<String, StandIn>;

/// The caller's input.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    Json(&'a RawValue),
    /// Names and values.
    Form(&'a BTreeMap<Cow<'a, str>, Cow<'a, str>>),
    /// A value of a form. The field determines its type.
    Text(&'a str),
}

/// Reads a `T`, or returns all faults that prevent it.
pub(crate) fn read<T: for<'a> Deserialize<'a>>(source: Source<'_>) -> Result<T, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut readings = MOST_READINGS;
    if let Source::Json(json) = source {
        repeated(json, "", &mut faults);
        readings = readings.min(1 + MOST_BYTES / json.get().len());
    }
    let mut stand_ins = StandIns::new();
    for _ in 0..readings {
        let stop = match T::deserialize(At { source, pointer: String::new(), stand_ins: &stand_ins }) {
            Ok(value) if faults.is_empty() => return Ok(value),
            Ok(_) => break,
            Err(stop) => stop,
        };
        let pointer = stop.pointer.clone().unwrap_or_default();
        let is_within = |outer: &str, inner: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'));
        let tried = stand_ins.get(&pointer).copied();
        // A fault in a value that contains a stand-in may be caused by the stand-in, so it is not reported, and reading
        // cannot continue.
        if faults.len() == MOST_FAULTS || stand_ins.keys().any(|place| is_within(&pointer, place)) {
            break;
        }
        let Some(next) = StandIn::after(tried, &stop) else { break };
        // Nor is a fault within a stand-in reported, but the next stand-in may help.
        if tried.is_none() && !stand_ins.keys().any(|place| is_within(place, &pointer)) {
            faults.push((pointer.clone(), stop.detail));
        }
        stand_ins.insert(pointer, next);
    }
    Err(faults)
}

/// Reports the names that an object has twice, because nobody can know which of the values is meant.
fn repeated(json: &RawValue, pointer: &str, faults: &mut Vec<Fault>) {
    if pointer.matches('/').count() == MOST_LEVELS || faults.len() == MOST_FAULTS {
        return;
    }
    let mut names = BTreeSet::new();
    for (name, value) in &Object::read(json).0 {
        let pointer = member(pointer, name);
        if names.insert(name) {
            repeated(value, &pointer, faults);
        } else {
            faults.push((pointer, "appears twice".into()));
        }
    }
    for (index, item) in items(json).into_iter().enumerate() {
        repeated(item, &format!("{pointer}/{index}"), faults);
    }
}

/// The items of a list; nothing for any other value.
fn items(json: &RawValue) -> Vec<&RawValue> {
    if json.get().starts_with('[') { serde_json::from_str(json.get()).unwrap_or_default() } else { Vec::new() }
}

fn member(pointer: &str, name: &str) -> String {
    format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// Why reading stopped.
#[derive(Debug)]
struct Stop {
    /// Where it stopped, if that is known yet.
    pointer: Option<String>,
    /// The member that is missing or unknown, if the fault is about one.
    name: Option<String>,
    is_unknown: bool,
    /// A variant of the enum that the value must be, if it must be one.
    variant: Option<&'static str>,
    detail: String,
}

impl Stop {
    /// Sets the place, unless an inner place is already set.
    fn at(mut self, pointer: &str) -> Self {
        if self.pointer.is_none() {
            self.pointer = Some(self.name.as_ref().map_or(pointer.to_owned(), |name| member(pointer, name)));
        }
        self
    }

    fn about(name: &str, is_unknown: bool, detail: String) -> Self {
        Self { pointer: None, name: Some(name.to_owned()), is_unknown, variant: None, detail }
    }
}

impl Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Stop {}

impl Error for Stop {
    fn custom<T: Display>(detail: T) -> Self {
        Self { pointer: None, name: None, is_unknown: false, variant: None, detail: detail.to_string() }
    }

    fn invalid_type(_unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("must be {}", in_json(&expected.to_string())))
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(unexpected, expected)
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("must be {}, not of length {length}", in_json(&expected.to_string())))
    }

    fn unknown_variant(_variant: &str, expected: &'static [&'static str]) -> Self {
        let stop = Self::custom(format_args!("must be {}", one_of(expected)));
        Self { variant: expected.first().copied(), ..stop }
    }

    fn unknown_field(name: &str, expected: &'static [&'static str]) -> Self {
        Self::about(name, true, format!("is unknown; there is {}", one_of(expected)))
    }

    fn missing_field(name: &'static str) -> Self {
        Self::about(name, false, "is missing".into())
    }
}

fn one_of(names: &[&str]) -> String {
    match names {
        [] => "none".into(),
        [name] => format!("`{name}`"),
        [names @ .., last] => format!("`{}` or `{last}`", names.join("`, `")),
    }
}

/// The JSON name of a Rust type.
fn in_json(expected: &str) -> Cow<'_, str> {
    let integer = |least: String, most: String| Cow::Owned(format!("an integer from {least} to {most}"));
    macro_rules! integers {
        ($($integer:ident)*) => {
            match expected {
                $(
                    stringify!($integer) => integer($integer::MIN.to_string(), $integer::MAX.to_string()),
                    concat!("a nonzero ", stringify!($integer)) => integer("1".into(), $integer::MAX.to_string()),
                )*
                "f32" | "f64" => "a number".into(),
                "a boolean" => "true or false".into(),
                "a sequence" => "an array".into(),
                "a map" => "an object".into(),
                _ if expected.starts_with("struct ") => "an object".into(),
                _ => expected.into(),
            }
        };
    }
    integers!(u8 u16 u32 u64 usize i8 i16 i32 i64 isize)
}

/// A value, and where it is.
#[derive(Clone)]
struct At<'a> {
    source: Source<'a>,
    pointer: String,
    stand_ins: &'a StandIns,
}

impl<'a> At<'a> {
    /// The value, or what stands in for it.
    fn source(&self) -> Result<Source<'a>, Stop> {
        match self.stand_ins.get(&self.pointer) {
            Some(StandIn::Json(number)) => {
                serde_json::from_str(STAND_INS[*number]).map(Source::Json).map_err(Stop::custom)
            }
            Some(StandIn::Variant(name)) => Ok(Source::Text(name)),
            _ if self.pointer.matches('/').count() > MOST_LEVELS => Err(Stop::custom("is nested too deeply")),
            _ => Ok(self.source),
        }
    }

    fn is_null(&self) -> bool {
        matches!(self.source(), Ok(Source::Json(json)) if json.get() == "null")
    }

    fn visit<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, Stop> {
        let json = match self.source()? {
            Source::Json(json) => json,
            Source::Form(values) => {
                let values = values.iter().map(|(name, value)| (name.clone(), Source::Text(value)));
                return visitor.visit_map(Members::new(self, values.collect()));
            }
            Source::Text(text) => match unreadable(text) {
                Some(fault) => return Err(Stop::custom(fault)),
                None => return visitor.visit_str(text),
            },
        };
        let read = |error: serde_json::Error| Stop::custom(error);
        match json.get().as_bytes().first() {
            Some(b'{') => {
                let values = Object::read(json).0.into_iter().map(|(name, value)| (name, Source::Json(value)));
                visitor.visit_map(Members::new(self, values.collect()))
            }
            Some(b'[') => visitor.visit_seq(Items { all: self, left: items(json).into_iter().enumerate() }),
            Some(b'"') => visitor.visit_string(serde_json::from_str(json.get()).map_err(read)?),
            Some(b't' | b'f') => visitor.visit_bool(json.get() == "true"),
            Some(b'n') => visitor.visit_unit(),
            _ => visit_number(&serde_json::from_str(json.get()).map_err(read)?, visitor),
        }
    }
}

fn visit_number<'de, V: Visitor<'de>>(number: &Number, visitor: V) -> Result<V::Value, Stop> {
    match (number.as_u64(), number.as_i64(), number.as_f64()) {
        (Some(number), _, _) => visitor.visit_u64(number),
        (_, Some(number), _) => visitor.visit_i64(number),
        (_, _, number) => visitor.visit_f64(number.unwrap_or_default()),
    }
}

/// A form has only text, so the expected type says how to parse it.
macro_rules! from_text {
    ($($deserialize:ident $type:ident $visit:expr;)*) => {
        $(
            fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
                match self.source()? {
                    Source::Text(text) => match text.parse::<$type>() {
                        Ok(value) => $visit(value, visitor),
                        Err(_) => Err(Stop::invalid_type(Unexpected::Str(text), &visitor)),
                    },
                    _ => self.visit(visitor),
                }
                .map_err(|stop| stop.at(&self.pointer))
            }
        )*
    };
}

macro_rules! numbers_from_text {
    ($($deserialize:ident)*) => {
        from_text! { $($deserialize Number |number, visitor| visit_number(&number, visitor);)* }
    };
}

impl<'de> Deserializer<'de> for At<'_> {
    type Error = Stop;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.visit(visitor).map_err(|stop| stop.at(&self.pointer))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        if self.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Stop> {
        let pointer = self.pointer.clone();
        visitor.visit_newtype_struct(self).map_err(|stop| stop.at(&pointer))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let read = match self.source()? {
            Source::Text(text) => visitor.visit_enum(text.into_deserializer()),
            Source::Json(json) if json.get().starts_with('"') => {
                let variant: String = serde_json::from_str(json.get()).map_err(Stop::custom)?;
                visitor.visit_enum(variant.into_deserializer())
            }
            Source::Json(json) if json.get().starts_with('{') => {
                let values = Object::read(json).0.into_iter().map(|(name, value)| (name, Source::Json(value)));
                visitor.visit_enum(MapAccessDeserializer::new(Members::new(&self, values.collect())))
            }
            _ => Err(Stop::unknown_variant("", variants)),
        };
        read.map_err(|stop| stop.at(&self.pointer))
    }

    // serde would also accept a list of the struct's fields.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        match self.source()? {
            Source::Json(json) if json.get().starts_with('[') => Err(Stop::invalid_type(Unexpected::Seq, &visitor)),
            _ => self.visit(visitor),
        }
        .map_err(|stop| stop.at(&self.pointer))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_unit()
    }

    from_text! { deserialize_bool bool |value, visitor: V| visitor.visit_bool(value); }

    numbers_from_text! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64
    }

    forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map identifier
    }
}

struct Members<'a> {
    all: &'a At<'a>,
    left: std::vec::IntoIter<(Cow<'a, str>, Source<'a>)>,
    next: Option<At<'a>>,
}

impl<'a> Members<'a> {
    fn new(all: &'a At<'a>, members: Vec<(Cow<'a, str>, Source<'a>)>) -> Self {
        let mut names = BTreeSet::new();
        let left_out = |pointer: &str| all.stand_ins.get(pointer) == Some(&StandIn::Nothing);
        let mut members = members;
        members.retain(|(name, _)| names.insert(name.clone()) && !left_out(&member(&all.pointer, name)));
        // Adds the members that are missing and have a stand-in.
        let beneath = format!("{}/", all.pointer);
        for (pointer, _) in
            all.stand_ins.range(beneath.clone()..).take_while(|(pointer, _)| pointer.starts_with(&beneath))
        {
            let name = pointer[beneath.len()..].replace("~1", "/").replace("~0", "~");
            if member(&all.pointer, &name) == *pointer && !left_out(pointer) && names.insert(name.clone().into()) {
                members.push((name.into(), all.source));
            }
        }
        Self { all, left: members.into_iter(), next: None }
    }
}

impl<'de> MapAccess<'de> for Members<'_> {
    type Error = Stop;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Stop> {
        let Some((name, source)) = self.left.next() else { return Ok(None) };
        let pointer = member(&self.all.pointer, &name);
        let name =
            seed.deserialize(name.into_owned().into_deserializer()).map_err(|stop: Stop| stop.at(&self.all.pointer))?;
        self.next = Some(At { source, pointer, stand_ins: self.all.stand_ins });
        Ok(Some(name))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Stop> {
        let at = self.next.take().ok_or_else(|| Stop::custom("a value without a name"))?;
        let pointer = at.pointer.clone();
        seed.deserialize(at).map_err(|stop| stop.at(&pointer))
    }
}

struct Items<'a> {
    all: &'a At<'a>,
    left: std::iter::Enumerate<std::vec::IntoIter<&'a RawValue>>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Stop;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Stop> {
        let Some((index, item)) = self.left.next() else { return Ok(None) };
        let pointer = format!("{}/{index}", self.all.pointer);
        let at = At { source: Source::Json(item), pointer: pointer.clone(), stand_ins: self.all.stand_ins };
        seed.deserialize(at).map_err(|stop| stop.at(&pointer)).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU8;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Order {
        id: Option<i64>,
        sku: String,
        quantity: NonZeroU8,
        #[serde(default)]
        gift: bool,
        ship: Ship,
        to: Address,
        #[serde(default)]
        notes: Vec<Note>,
        when: Option<Day>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "snake_case")]
    enum Ship {
        Slow,
        SameDay,
        On(Day),
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Address {
        street: String,
        number: f32,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Note {
        text: String,
    }

    /// Like a date or an identifier: parsed from text, which may fail.
    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(try_from = "String")]
    struct Day(String);

    impl TryFrom<String> for Day {
        type Error = &'static str;
        fn try_from(day: String) -> Result<Self, &'static str> {
            if day.len() == 10 { Ok(Self(day)) } else { Err("must be a date such as 2026-11-22") }
        }
    }

    const GOOD: &str = r#"{"sku":"A","quantity":2,"ship":"slow","to":{"street":"S","number":1}}"#;

    fn faults(json: &str) -> Vec<String> {
        match read::<Order>(Source::Json(serde_json::from_str(json).unwrap())) {
            Ok(_) => Vec::new(),
            Err(faults) => faults.into_iter().map(|(pointer, detail)| format!("{pointer} {detail}")).collect(),
        }
    }

    #[test]
    fn every_fault_is_reported_with_its_place() {
        assert_eq!(faults(GOOD), [""; 0]);
        for (json, expected) in [
            ("[]", &[" must be an object"][..]),
            ("7", &[" must be an object"]),
            ("{}", &["/sku is missing", "/quantity is missing", "/ship is missing", "/to is missing"]),
            (
                r#"{"sku":7,"quantity":0,"ship":"fast","to":[],"notes":[{},{"text":"a"},{"text":null}],"colour":1}"#,
                &[
                    "/sku must be a string",
                    "/quantity must be an integer from 1 to 255",
                    "/ship must be `slow`, `same_day` or `on`",
                    "/to must be an object",
                    "/notes/0/text is missing",
                    "/notes/2/text must be a string",
                    "/colour is unknown; there is `id`, `sku`, `quantity`, `gift`, `ship`, `to`, `notes` or `when`",
                ],
            ),
            (
                r#"{"id":1e3,"sku":"A","sku":"B","quantity":256,"gift":"yes","ship":{"on":"today"},"to":{"street":[],"number":"1","number":1},"when":"soon"}"#,
                &[
                    "/sku appears twice",
                    "/to/number appears twice",
                    "/id must be an integer from -9223372036854775808 to 9223372036854775807",
                    "/quantity must be an integer from 1 to 255",
                    "/gift must be true or false",
                    "/ship/on must be a date such as 2026-11-22",
                    "/to/street must be a string",
                    "/to/number must be a number",
                    "/when must be a date such as 2026-11-22",
                ],
            ),
            (
                r#"{"a/b~c":1,"sku":"A","quantity":1,"ship":"same_day","to":{"street":"S","number":1}}"#,
                &["/a~1b~0c is unknown; there is `id`, `sku`, `quantity`, `gift`, `ship`, `to`, `notes` or `when`"],
            ),
        ] {
            assert_eq!(faults(json), expected, "{json}");
        }
    }

    /// A type that accepts no value.
    #[derive(Debug)]
    struct Never;
    impl<'de> Deserialize<'de> for Never {
        fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            Err(D::Error::custom("is never right"))
        }
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "it is never made")]
    struct Deep(Vec<Deep>, Option<Never>);

    /// A type that is checked as a whole.
    #[derive(Debug, Deserialize)]
    #[serde(try_from = "(u8, u8)")]
    struct Range;

    impl TryFrom<(u8, u8)> for Range {
        type Error = &'static str;
        fn try_from((from, to): (u8, u8)) -> Result<Self, &'static str> {
            if from < to { Ok(Self) } else { Err("must end after its begin") }
        }
    }

    #[test]
    fn a_fault_that_a_stand_in_causes_is_not_reported() {
        for (json, pointer) in [(r#"["x", 1]"#, "/0"), ("[2, 1]", ""), ("[2]", "")] {
            let faults = read::<Range>(Source::Json(serde_json::from_str(json).unwrap())).unwrap_err();
            assert_eq!(faults.iter().map(|(pointer, _)| &**pointer).collect::<Vec<_>>(), [pointer], "{json}");
        }
    }

    #[test]
    fn faults_readings_and_levels_are_limited() {
        let many = format!("[{}]", vec!["{}"; 10_000].join(","));
        let Err(faults) = read::<Vec<Order>>(Source::Json(serde_json::from_str(&many).unwrap())) else { panic!() };
        assert!((10..=MOST_FAULTS).contains(&faults.len()), "{faults:?}");
        let faults = read::<Never>(Source::Json(serde_json::from_str("{}").unwrap())).unwrap_err();
        assert_eq!(faults, [(String::new(), "is never right".to_owned())]);
        let deep = "[".repeat(1_000) + &"]".repeat(1_000);
        let faults = read::<Deep>(Source::Json(serde_json::from_str(&deep).unwrap())).unwrap_err();
        assert_eq!(faults[0].1, "is nested too deeply");
    }
}
