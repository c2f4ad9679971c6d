//! Finds all faults of a JSON body at once.
//!
//! serde stops at the first fault. So the fault is mended in a copy of the body, and `serde_json` reads the copy, until
//! it accepts it. `serde_json` alone decides what a fault is. Nothing here reads a value. An example, for an order with a
//! `sku` and an address `to` with a `street`, both strings:
//!
//! | the copy | `serde_json` says | told | mended |
//! | --- | --- | --- | --- |
//! | `{"sku":7,"to":{}}` | ``sku: invalid type: integer `7`, expected a string`` | `/sku must be a string` | `""` stands in for 7 |
//! | `{"sku":"","to":{}}` | ``to: missing field `street` `` | `/to/street is missing` | `null` stands in for it |
//! | `{"sku":"","to":{"street":null}}` | `to.street: invalid type: null, expected a string` | nothing: this place is mended already | `""` stands in |
//! | `{"sku":"","to":{"street":""}}` | nothing | these are all faults | |
//!
//! If no stand-in helps, or one may itself be the cause of what comes next, the list does not claim to be complete. Only
//! a body that is refused anyway costs this work.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde_json::{Number, value::RawValue};
use serde_path_to_error::Segment;

use crate::event::Object;

/// The most faults that are told, and the most bytes that they take. More would not fit into a problem.
const MOST_FAULTS: usize = 20;
const MOST_BYTES: usize = 8 * 1024;

/// The most bytes of a pointer, and of what is wrong there.
const MOST_BYTES_OF_A_FAULT: usize = 1024;

/// How often a body is read: at least the first, at most the second number of times, and in between as often as it fits
/// into the third number of bytes.
const READINGS: (usize, usize, usize) = (4, 100, 256 * 1024);

/// How deep a value may be nested: as deep as `serde_json` allows.
const MOST_LEVELS: usize = 127;
const TOO_DEEP: &str = "recursion limit exceeded";

/// What stands in for a value that has the right type, but is refused. The next one of the same type is tried then.
const STAND_INS: [&[&str]; 4] = [
    &[
        r#""""#,
        r#""1""#,
        r#""1970-01-01T00:00:00Z""#,
        r#""1970-01-01""#,
        r#""00000000-0000-4000-8000-000000000000""#,
        r#""https://example.com/""#,
    ],
    &["1", "0", "20", "1000"],
    &["[]", "[null]"],
    &["{}"],
];

/// The faults that were found.
pub(crate) struct Faults {
    /// Where each is, as a JSON pointer (RFC 6901), and what it is, in words that follow the name of the place.
    pub(crate) list: Vec<(String, String)>,
    /// Whether there are no others.
    pub(crate) are_all: bool,
    bytes: usize,
}

impl Faults {
    pub(crate) fn new() -> Self {
        Self { list: Vec::new(), are_all: true, bytes: 0 }
    }

    /// Returns whether there was room for it.
    pub(crate) fn add(&mut self, place: String, detail: &str) -> bool {
        let detail = &detail[..detail.floor_char_boundary(MOST_BYTES_OF_A_FAULT)];
        if self.list.iter().any(|(other, why)| *other == place && why == detail) {
            return true;
        }
        self.bytes += place.len() + detail.len();
        let has_room = self.list.len() < MOST_FAULTS && self.bytes <= MOST_BYTES;
        if has_room {
            self.list.push((place, detail.to_owned()));
        }
        has_room
    }
}

/// Finds the faults for which `json`, which must be JSON, is not a `T`.
pub(crate) fn faults<T: DeserializeOwned>(json: &str) -> Faults {
    let mut faults = Faults::new();
    let mut stand_ins: Vec<StandIn> = Vec::new();
    let mut copy = Cow::from(json);
    let (least, most, bytes) = READINGS;
    let mut readings = (bytes / json.len().max(1)).clamp(least, most);
    while readings > 0 {
        readings -= 1;
        let stop = Stop::of::<T>(&copy);
        // Which variant stands in for a wrong one may decide how its neighbours are read.
        let mut depends = |stand_in: &StandIn| {
            stand_in.others.iter().take(readings).any(|other| {
                readings -= 1;
                let place = Place::find(&copy, &stand_in.path, usize::MAX);
                let stop_then = place.and_then(|place| Stop::of::<T>(&place.replaced(&copy, other)?));
                stop_then != stop && !stop_then.is_some_and(|stop| stop.path.starts_with(&stand_in.path))
            })
        };
        let is_near = |stand_in: &&StandIn| {
            let holder = &stand_in.path[..stand_in.path.len().saturating_sub(1)];
            let is_in = |stop: &Stop| stop.path.starts_with(holder) && !stop.path.starts_with(&stand_in.path);
            stop.as_ref().is_none_or(is_in)
        };
        let is_doubtful = stand_ins.iter().filter(is_near).any(&mut depends);
        faults.are_all &= !is_doubtful;
        let Some(stop) = stop else { return faults };
        // To find a place, each level above it is read once more.
        readings = readings.saturating_sub(stop.path.len() / 8);
        let is_mended = !stop.is_twice && stand_ins.iter().any(|stand_in| stop.path.starts_with(&stand_in.path));
        let is_within =
            |stand_in: &StandIn| stand_in.path.len() > stop.path.len() && stand_in.path.starts_with(&stop.path);
        let is_caused = is_doubtful || stand_ins.iter().any(is_within);
        let is_told = is_mended
            || is_caused
            || match pointer(&stop.path) {
                (pointer, true) => faults.add(pointer, &stop.detail),
                (holder, false) => {
                    faults.add(holder, &format!("holds something with a longer pointer that {}", stop.detail))
                }
            };
        if !is_told {
            break;
        }
        faults.are_all &= is_mended || !is_caused && !stop.hides;
        let Some(mended) = stop.mended else { break };
        copy = mended.into();
        match stand_ins.iter_mut().find(|stand_in| stand_in.path == stop.path) {
            // No stand-in helped, nor did it help to leave the member out.
            Some(_) if stop.is_missing => break,
            Some(stand_in) => stand_in.others.extend(stop.others),
            None => stand_ins.push(StandIn { path: stop.path, others: stop.others }),
        }
    }
    faults.are_all = false;
    faults
}

/// A place that is mended, and other variants of its enum, as JSON.
struct StandIn {
    path: Vec<Step>,
    others: Vec<String>,
}

/// A part of a place's path.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Name(String),
    Index(usize),
    /// The member that was read last.
    Last,
}

/// The pointer to a place. If it is too long, the pointer to what the place is in, and `false`.
fn pointer(path: &[Step]) -> (String, bool) {
    let mut pointer = String::new();
    for step in path {
        let step = match step {
            Step::Name(name) => name.replace('~', "~0").replace('/', "~1"),
            Step::Index(index) => index.to_string(),
            Step::Last => String::new(),
        };
        if pointer.len() + step.len() >= MOST_BYTES_OF_A_FAULT {
            return (pointer, false);
        }
        pointer = pointer + "/" + &step;
    }
    (pointer, true)
}

/// Where and why `serde_json` stopped.
struct Stop {
    path: Vec<Step>,
    detail: String,
    is_missing: bool,
    is_twice: bool,
    /// Whether a stand-in hides what is in the place.
    hides: bool,
    others: Vec<String>,
    /// The JSON with a stand-in.
    mended: Option<String>,
}

impl PartialEq for Stop {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path && self.detail == other.detail
    }
}

impl Stop {
    /// Reads the JSON as a `T`. Returns `None` if it is one.
    fn of<T: DeserializeOwned>(json: &str) -> Option<Self> {
        let error = serde_path_to_error::deserialize::<_, T>(&mut serde_json::Deserializer::from_str(json)).err()?;
        let steps = error.path().iter().map(|segment| match segment {
            Segment::Map { key: name } | Segment::Enum { variant: name } => Step::Name(name.clone()),
            Segment::Seq { index } => Step::Index(*index),
            Segment::Unknown => Step::Last,
        });
        let (mut path, error): (Vec<_>, _) = (steps.collect(), error.inner());
        let lines = json.split_inclusive('\n').map(str::len).take(error.line().saturating_sub(1));
        let before = if error.line() == 0 { json.len() } else { lines.sum::<usize>() + error.column() };
        // What is within text, such as the name of a variant, has no place of its own.
        let mut place = loop {
            match Place::find(json, &path, before) {
                Some(place) => break place,
                None => drop(path.pop()?),
            }
        };
        let message = message(error);
        let said = Said::read(&message);
        let mut detail = said.detail();
        let member = |step| Place::find(json, &[&path[..], &[step]].concat(), before);
        let mended = match &said {
            Said::Missing(name) => {
                let mended = place.with_member(json, name);
                place.path.push(Step::Name((*name).to_owned()));
                mended
            }
            Said::Twice(name) => {
                let named = member(Step::Name((*name).to_owned())).filter(|named| named.times > 1);
                if named.is_none() {
                    detail = "appears twice, under two names".into();
                }
                place = named.or_else(|| member(Step::Last)).unwrap_or(place);
                place.left_out(json)
            }
            Said::Unknown(name, _) => {
                let name = Step::Name((*name).to_owned());
                if path.last() != Some(&name) {
                    place = member(name).unwrap_or(place);
                }
                place.left_out(json)
            }
            _ if place.from.is_some() && before < start(json, place.value) => {
                detail = format!("has a name that {detail}");
                place.left_out(json)
            }
            // serde_json stops like this where text is expected that names a variant, for example.
            _ if !error.is_data() && !place.value.starts_with('"') => {
                let probe = place.replaced(json, r#""""#);
                let stop = probe.as_ref().and_then(|probe| Self::of::<T>(probe)).filter(|stop| stop.path == place.path);
                if let Some(stop) = stop.filter(|_| message != TOO_DEEP) {
                    detail = stop.detail;
                }
                probe
            }
            _ => {
                // serde reads a flattened or tagged type from a copy, in which values have no place.
                let mut found = Vec::new();
                let is_container = place.value.starts_with(['{', '[']) && place.value.len() <= MOST_BYTES;
                if let Some(what) = said.found().filter(|what| is_container && *what != described(place.value)) {
                    place.search(&what, &mut found);
                }
                match (found.pop(), found.is_empty()) {
                    (Some(only), true) => place = only,
                    (Some(_), false) => detail = format!("holds a value that {detail}"),
                    (None, _) => {}
                }
                let stand_in = stand_in(&said, place.value).filter(|_| found.is_empty());
                stand_in.and_then(|stand_in| place.replaced(json, &stand_in)).or_else(|| place.left_out(json))
            }
        };
        let is_container = place.value.starts_with(['{', '[']) && place.value.len() > 2;
        let hides = is_container && matches!(said, Said::Variant(..) | Said::Other(_));
        let others =
            if let Said::Variant(_, names) = said { quoted(names).skip(1).take(2).collect() } else { Vec::new() };
        let (is_missing, is_twice) = (matches!(said, Said::Missing(_)), matches!(said, Said::Twice(_)));
        Some(Self { path: place.path, detail, is_missing, is_twice, hides, others, mended })
    }
}

/// A value in JSON.
struct Place<'a> {
    path: Vec<Step>,
    /// If it is a member, the byte at which the member begins: after the one before it.
    from: Option<usize>,
    value: &'a str,
    /// How many members have this path.
    times: usize,
}

impl<'a> Place<'a> {
    /// Finds a value. Of members with the same name, it is the last that begins before the byte `before`.
    fn find(json: &'a str, path: &[Step], before: usize) -> Option<Self> {
        let mut place = Self { path: Vec::new(), from: None, value: json.trim(), times: 0 };
        for step in path {
            let (mut from, mut times, mut found) = (start(json, place.value) + 1, 0, None);
            if let Step::Index(index) = step {
                found = items(place.value).get(*index).map(|item| (step.clone(), None, item.get()));
            }
            for (name, value) in members(place.value) {
                let is_it = match step {
                    Step::Name(wanted) => *wanted == name,
                    Step::Index(_) => false,
                    Step::Last => true,
                };
                if is_it && from < before {
                    found = Some((Step::Name(name.into_owned()), Some(from), value.get()));
                    times += 1;
                }
                from = start(json, value.get()) + value.get().len();
            }
            let (step, from, value) = found?;
            place.path.push(step);
            place = Self { from, value, times, ..place };
        }
        Some(place)
    }

    /// Adds the values in this one that serde describes so.
    fn search(&self, described_as: &str, found: &mut Vec<Self>) {
        let members = members(self.value).into_iter().map(|(name, value)| (Step::Name(name.into_owned()), value));
        let items = items(self.value).into_iter().enumerate().map(|(index, value)| (Step::Index(index), value));
        for (step, value) in members.chain(items).filter(|_| self.path.len() < MOST_LEVELS) {
            let path = [&self.path[..], &[step]].concat();
            let place = Self { path, from: None, value: value.get(), times: 1 };
            if described(place.value) == described_as {
                found.push(place);
            } else {
                place.search(described_as, found);
            }
        }
    }

    fn replaced(&self, json: &str, stand_in: &str) -> Option<String> {
        let start = start(json, self.value);
        Some([json.get(..start)?, stand_in, json.get(start + self.value.len()..)?].concat())
    }

    /// The JSON with another member in this object.
    fn with_member(&self, json: &str, name: &str) -> Option<String> {
        let rest = self.value.strip_prefix('{')?;
        let comma = if rest.trim_start().starts_with('}') { "" } else { "," };
        self.replaced(json, &format!("{{{}:null{comma}{rest}", serde_json::to_string(name).ok()?))
    }

    /// The JSON without this member.
    fn left_out(&self, json: &str) -> Option<String> {
        let (before, after) = (json.get(..self.from?)?, json.get(start(json, self.value) + self.value.len()..)?);
        // The comma before it belongs to the member. The first one has none.
        let after = if before.ends_with('{') { after.trim_start().trim_start_matches(',') } else { after };
        Some([before, after].concat())
    }
}

/// At which byte of `json` a part of it begins.
fn start(json: &str, part: &str) -> usize {
    part.as_ptr().addr().saturating_sub(json.as_ptr().addr())
}

/// The members of an object; none for any other value.
fn members(json: &str) -> Vec<(Cow<'_, str>, &RawValue)> {
    if json.starts_with('{') {
        serde_json::from_str(json).map_or(Vec::new(), |Object(members)| members)
    } else {
        Vec::new()
    }
}

/// The items of a list; none for any other value.
fn items(json: &str) -> Vec<&RawValue> {
    if json.starts_with('[') { serde_json::from_str(json).unwrap_or_default() } else { Vec::new() }
}

/// What serde calls a value that it did not expect.
fn described(json: &str) -> String {
    match json.as_bytes().first() {
        Some(b'{') => "map".into(),
        Some(b'[') => "sequence".into(),
        Some(b'"') => format!("string {:?}", serde_json::from_str::<String>(json).unwrap_or_default()),
        Some(b't' | b'f') => format!("boolean `{json}`"),
        Some(b'n') => json.into(),
        _ => match serde_json::from_str::<Number>(json) {
            Ok(number) if number.is_f64() => format!("floating point `{number}`"),
            _ => format!("integer `{json}`"),
        },
    }
}

/// What serde said. Its messages are the same for every format.
pub(crate) enum Said<'m> {
    Missing(&'m str),
    Twice(&'m str),
    /// The name, and those that are known.
    Unknown(&'m str, &'m str),
    Variant(&'m str, &'m str),
    /// What was found, and what was expected.
    Expected(&'m str, &'m str),
    Other(&'m str),
}

/// What the reader said, without the line and the column.
pub(crate) fn message(error: &serde_json::Error) -> String {
    let mut message = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    message.truncate(message.strip_suffix(&position).map_or(message.len(), str::len));
    message
}

impl<'m> Said<'m> {
    pub(crate) fn read(message: &'m str) -> Self {
        let name = |text: &'m str, what: &str| text.strip_prefix(what)?.strip_suffix('`');
        if let Some(name) = name(message, "missing field `") {
            return Self::Missing(name);
        }
        if let Some(name) = name(message, "duplicate field `") {
            return Self::Twice(name);
        }
        // A caller's text may hold the separator. What is expected is the author's.
        let parts = message.rsplit_once(", expected ").or_else(|| message.rsplit_once(", there are no "));
        let Some((found, expected)) = parts else { return Self::Other(message) };
        if let Some(name) = name(found, "unknown field `") {
            return Self::Unknown(name, expected);
        }
        if let Some(name) = name(found, "unknown variant `") {
            return Self::Variant(name, expected);
        }
        let kinds = ["invalid type: ", "invalid value: ", "invalid length "];
        match kinds.iter().find_map(|kind| found.strip_prefix(kind)) {
            Some(found) => Self::Expected(found, expected),
            None => Self::Other(message),
        }
    }

    /// What serde calls the value that it found.
    fn found(&self) -> Option<String> {
        match self {
            Self::Expected(found, _) => Some((*found).to_owned()),
            Self::Variant(name, _) => Some(format!("string {name:?}")),
            _ => None,
        }
    }

    /// The same in words that follow the name of the place.
    pub(crate) fn detail(&self) -> String {
        match self {
            Self::Missing(_) => "is missing".into(),
            Self::Twice(_) => "appears twice".into(),
            Self::Unknown(_, known) => format!("is unknown; there is {}", one_of(known)),
            Self::Variant(_, names) => format!("must be {}", one_of(names)),
            Self::Expected(_, expected) => format!("must be {}", in_json(expected)),
            Self::Other(TOO_DEEP) => "is nested too deeply".into(),
            // It says no more for an integer of 128 bits.
            Self::Other("invalid number") => "must be an integer".into(),
            Self::Other("number out of range") => "is a number out of range".into(),
            Self::Other("invalid value: expected key to be a number in quotes") => "must be a number".into(),
            Self::Other(message) if message.contains(" hex escape") => "holds half of a surrogate pair".into(),
            Self::Other(message) if message.starts_with("data did not match any variant of untagged enum") => {
                "has none of the forms that are allowed here".into()
            }
            Self::Other(message) => (*message).into(),
        }
    }
}

/// "one of `a`, `b`, `c`" in other words.
fn one_of(names: &str) -> String {
    let names = names.strip_prefix("one of ").unwrap_or(names);
    match names.rsplit_once(", ") {
        Some((most, last)) => format!("{most} or {last}"),
        None if names.starts_with('`') => names.into(),
        None => "none".into(),
    }
}

/// The names in such a list, as JSON.
fn quoted(names: &str) -> impl Iterator<Item = String> {
    names.split('`').skip(1).step_by(2).map(|name| format!("\"{name}\""))
}

/// The JSON name of a Rust type.
fn in_json(expected: &str) -> Cow<'_, str> {
    let integer = |least: String, most: String| Cow::Owned(format!("an integer from {least} to {most}"));
    macro_rules! integers {
        ($($integer:ident)*) => {
            match expected {
                $(
                    stringify!($integer) => integer($integer::MIN.to_string(), $integer::MAX.to_string()),
                    concat!("a nonzero ", stringify!($integer)) if $integer::MIN == 0 => {
                        integer("1".into(), $integer::MAX.to_string())
                    }
                    concat!("a nonzero ", stringify!($integer)) => {
                        integer($integer::MIN.to_string(), format!("{}, and not 0", $integer::MAX))
                    }
                )*
                "f32" | "f64" => "a number".into(),
                "a boolean" => "true or false".into(),
                "unit" => "null".into(),
                "a map" | "newtype variant" | "tuple variant" => "an object".into(),
                "variant identifier" => "a string".into(),
                _ if expected.starts_with("struct ") || expected.contains("tagged enum ") => "an object".into(),
                _ if expected.starts_with("enum ") => "a string or an object".into(),
                _ if expected.starts_with("unit struct ") => "null".into(),
                _ => match count(expected) {
                    Some(items) => format!("an array of {items} items").into(),
                    None if expected == "a sequence" || expected.starts_with("tuple ") => "an array".into(),
                    None => expected.into(),
                },
            }
        };
    }
    integers!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize)
}

/// How many items a tuple has.
fn count(expected: &str) -> Option<usize> {
    let named = || expected.strip_prefix("tuple ")?.rsplit_once(" with ")?.1.split(' ').next();
    let unnamed = ["a tuple of size ", "an array of length "].iter().find_map(|what| expected.strip_prefix(what));
    unnamed.or_else(named)?.parse().ok()
}

/// JSON that may be accepted instead of `value`, of which the reader said that.
pub(crate) fn stand_in(said: &Said<'_>, value: &str) -> Option<String> {
    let typed = match said {
        Said::Variant(_, names) => quoted(names).next(),
        Said::Other("invalid number") => Some("1".into()),
        Said::Expected(_, "newtype variant" | "tuple variant" | "struct variant") => Some(format!("{{{value}:null}}")),
        Said::Expected(_, expected) => {
            let holds = |words: &[&str]| words.iter().any(|word| in_json(expected).contains(word));
            Some(match count(expected) {
                Some(items) => format!("[{}]", vec!["null"; items.min(64)].join(",")),
                None if holds(&["string"]) => r#""""#.into(),
                None if holds(&["character"]) => r#""a""#.into(),
                None if holds(&["integer", "number"]) => "1".into(),
                None if holds(&["true"]) => "false".into(),
                None if holds(&["array", "list", "sequence"]) => "[]".into(),
                None if holds(&["object", "map"]) => "{}".into(),
                None => "null".into(),
            })
        }
        _ => None,
    };
    typed.filter(|typed| typed != value).or_else(|| {
        let kind = |json: &str| {
            json.bytes().next().map(|first| if first == b'-' || first.is_ascii_digit() { b'1' } else { first })
        };
        let is_same = |stand_ins: &&&[&str]| stand_ins.first().is_some_and(|first| kind(first) == kind(value));
        let same = STAND_INS.iter().find(is_same)?;
        let tried = same.iter().position(|stand_in| *stand_in == value);
        same.get(tried.map_or(0, |tried| tried + 1)).map(|stand_in| (*stand_in).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, num::NonZeroU8};

    use serde::{Deserialize, Deserializer, de::Error};

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

    /// The faults in words, and "…" if there may be others.
    fn told<T: DeserializeOwned>(json: &str) -> Vec<String> {
        let faults = faults::<T>(json);
        let told = faults.list.into_iter().map(|(pointer, detail)| format!("{pointer} {detail}"));
        told.chain((!faults.are_all).then(|| "…".to_owned())).collect()
    }

    #[test]
    fn every_fault_is_told_with_its_place() {
        let known = "`id`, `sku`, `quantity`, `gift`, `ship`, `to`, `notes` or `when`";
        let unknown = |name| format!("/{name} is unknown; there is {known}");
        assert_eq!(told::<Order>(GOOD), [""; 0]);
        for (json, expected) in [
            ("[]", &[" must be an object"][..]),
            ("7", &[" must be an object"]),
            ("{}", &["/sku is missing", "/quantity is missing", "/ship is missing", "/to is missing"]),
            (
                r#"{"sku":7,"quantity":0,"ship":"fast","to":"S","notes":[{},{"text":"a"},{"text":null}],"colour":1}"#,
                &[
                    "/sku must be a string",
                    "/quantity must be an integer from 1 to 255",
                    "/ship must be `slow`, `same_day` or `on`",
                    "/to must be an object",
                    "/notes/0/text is missing",
                    "/notes/2/text must be a string",
                    &unknown("colour"),
                ],
            ),
            (
                r#"{"id":1e3,"sku":"A","sku":"B","quantity":256,"gift":"yes","ship":{"on":"today"},"to":{"street":[],"number":"1","number":1},"when":"soon"}"#,
                &[
                    "/id must be an integer from -9223372036854775808 to 9223372036854775807",
                    "/sku appears twice",
                    "/quantity must be an integer from 1 to 255",
                    "/gift must be true or false",
                    "/ship/on must be a date such as 2026-11-22",
                    "/to/street must be a string",
                    "/to/number must be a number",
                    "/to/number appears twice",
                    "/when must be a date such as 2026-11-22",
                ],
            ),
            (
                r#"{"a/b~c":1,"sku":"A","quantity":1,"ship":"same_day","to":{"street":"S","number":1}}"#,
                &[&unknown("a~1b~0c")],
            ),
            (
                r#"{"sku":"A","quantity":1,"ship":7,"to":["S","1"]}"#,
                &["/ship must be `slow`, `same_day` or `on`", "/to/1 must be a number"],
            ),
            (
                r#"{"\u0073ku":"A","sku":"B","quantity":1,"ship":"slow","to":{"street":"S","number":1}}"#,
                &["/sku appears twice"],
            ),
        ] {
            assert_eq!(told::<Order>(json), expected, "{json}");
        }
    }

    #[test]
    fn names_and_kinds_are_told_where_they_are() {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        #[expect(dead_code, reason = "what is read is of no interest")]
        enum Kind {
            One,
            Other(bool),
            Pair(u8, char),
            Named { a: u128 },
        }
        #[derive(Deserialize)]
        #[serde(tag = "type", rename_all = "lowercase")]
        #[expect(dead_code, reason = "what is read is of no interest")]
        enum Shape {
            Circle { radius: u8 },
            Square { side: u8 },
        }
        #[derive(Deserialize)]
        #[expect(dead_code, reason = "what is read is of no interest")]
        struct Page {
            limit: u8,
            #[serde(alias = "from")]
            offset: Option<i16>,
        }
        #[derive(Deserialize)]
        #[expect(dead_code, reason = "what is read is of no interest")]
        struct All {
            #[serde(default)]
            kinds: Vec<Kind>,
            #[serde(default)]
            shapes: Vec<Shape>,
            #[serde(default)]
            by_number: Vec<BTreeMap<u8, String>>,
            #[serde(flatten)]
            page: Page,
        }
        for (json, expected) in [
            (r#"{"limit":1,"by_number":[{"7":"a"}]}"#, &[][..]),
            (
                r#"{"limit":1,"by_number":[{"7":"a","x":"b","300":"c","8":1}]}"#,
                &[
                    "/by_number/0/x has a name that must be a number",
                    "/by_number/0/300 has a name that must be an integer from 0 to 255",
                    "/by_number/0/8 must be a string",
                ],
            ),
            (
                r#"{"limit":"x","from":1e9,"kinds":["one","two"]}"#,
                &[
                    "/kinds/1 must be `one`, `other`, `pair` or `named`",
                    "/limit must be an integer from 0 to 255",
                    "/from must be an integer from -32768 to 32767",
                ],
            ),
            (
                r#"{"kinds":[{"one":null,"other":true},{"pair":[1]},{"pair":[1,"ab"]},{"named":{}},"other"]}"#,
                &[
                    "/kinds/0 must be `one`, `other`, `pair` or `named`",
                    "/kinds/1/pair must be an array of 2 items",
                    "/kinds/2/pair/1 must be a character",
                    "/kinds/3/named/a is missing",
                    "/kinds/4 must be an object",
                    "/limit is missing",
                    "…",
                ],
            ),
            (
                r#"{"limit":1,"shapes":[{"type":"circle","radius":"1"},{"type":"oval","side":1},{"radius":1}]}"#,
                &[
                    "/shapes/0/radius must be an integer from 0 to 255",
                    "/shapes/1/type must be `circle` or `square`",
                    "/shapes/2/type is missing",
                    "…",
                ],
            ),
            (
                r#"{"limit":1,"limit":2,"offset":1,"from":2}"#,
                &["/limit appears twice", "/from appears twice, under two names"],
            ),
        ] {
            assert_eq!(told::<All>(json), expected, "{json}");
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
    fn a_list_that_may_not_be_complete_says_so() {
        /// A type for which there is no stand-in.
        #[derive(Deserialize)]
        #[serde(try_from = "String")]
        struct Rare;
        impl TryFrom<String> for Rare {
            type Error = &'static str;
            fn try_from(_: String) -> Result<Self, &'static str> {
                Err("is not rare")
            }
        }
        #[derive(Deserialize)]
        #[expect(dead_code, reason = "what is read is of no interest")]
        struct Parcel {
            rare: Rare,
            weight: u8,
        }
        assert_eq!(
            told::<Parcel>(r#"{"weight":"1"}"#),
            ["/weight must be an integer from 0 to 255", "/rare is missing", "…"]
        );
        assert_eq!(told::<Parcel>("{}"), ["/rare is missing", "…"]);
        // A fault that the stand-in for another one may cause is not told.
        assert_eq!(told::<Range>(r#"["x",1]"#), ["/0 must be an integer from 0 to 255", "…"]);
        assert_eq!(told::<Range>("[2,1]"), [" must end after its begin", "…"]);
        assert_eq!(told::<Range>("[2]"), [" must be an array of 2 items", "…"]);
        assert_eq!(told::<Never>("{}"), [" is never right", "…"]);
        let deep = "[".repeat(1_000) + &"]".repeat(1_000);
        let (pointer, rest) =
            told::<Deep>(&deep).join("\n").split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        assert!(pointer.len() == 254 && rest.starts_with("is nested too deeply"), "{pointer} {rest}");
    }

    #[test]
    fn a_refusal_costs_a_few_times_the_body() {
        let spaces = " ".repeat(8_000);
        let repeated = r#""a":1,"#.repeat(1_300);
        for json in [
            format!(r#"[{{"{spaces}":{{{repeated}"a":1}}}}]"#),
            format!("[{}7]", "{},".repeat(5_000)),
            format!("[{}7]", r#"{"sku":7,"sku":8},"#.repeat(1_000)),
            format!(r#"[{{"sku":"{}"}}]"#, "\u{1}".repeat(3_000).escape_default()),
            format!(r#"[{{"to":{}1{}}}]"#, "[".repeat(100), format!(",{}]", "1,1".repeat(30)).repeat(100)),
            "[".repeat(16_000) + &"]".repeat(16_000),
            format!(r#"[{{"to":"{}","ship":"{}"}}]"#, "x".repeat(500_000), "y".repeat(500_000)),
        ] {
            let mut bytes = 0;
            let used = allocation_counter::measure(|| {
                let faults = faults::<Vec<Order>>(&json);
                bytes = faults.list.iter().map(|(pointer, detail)| pointer.len() + detail.len()).sum();
                assert!(!faults.list.is_empty(), "{json:.100}");
            });
            assert!(bytes <= 8 * 1024, "{bytes}: {json:.100}");
            let length = json.len() as u64;
            assert!(used.bytes_max <= 20 * length + 100_000, "{length} bytes: {used:?}: {json:.100}");
            assert!(used.bytes_total <= 100 * length + 10_000_000, "{length} bytes: {used:?}: {json:.100}");
        }
    }
}
