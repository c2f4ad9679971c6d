//! Finds all faults of a JSON body at once.
//!
//! serde stops at the first fault. So the fault is mended in a copy of the body, and `serde_json` reads the copy, until
//! it accepts it. `serde_json` alone decides what a fault is. Nothing here returns a value. An example, for an order with
//! a `sku` and an address `to` with a `street`, both strings:
//!
//! | the copy | `serde_json` says | told | mended |
//! | --- | --- | --- | --- |
//! | `{"sku":7,"to":{}}` | ``sku: invalid type: integer `7`, expected a string`` | `/sku must be a string` | `""` replaces 7 |
//! | `{"sku":"","to":{}}` | ``to: missing field `street` `` | `/to/street is missing` | `null` is put there |
//! | `{"sku":"","to":{"street":null}}` | `to.street: invalid type: null, expected a string` | nothing: this place is mended already | `""` is put there |
//! | `{"sku":"","to":{"street":""}}` | nothing | these are all faults | |
//!
//! A fault at, above or within a mended place is not told, because the placeholder may be its cause. The search ends where
//! no placeholder is known. Then the list does not claim to be complete. Only a body that is refused costs this work.

mod words;

use std::{borrow::Cow, fmt};

use serde::{
    Deserializer as _,
    de::{DeserializeOwned, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Deserializer, value::RawValue};
use serde_path_to_error::Segment;

pub(crate) use self::words::{Said, message, placeholder};
use self::words::{TAG, TOO_DEEP, count};

/// The most faults that are told, and the most bytes that they take. More would not fit into a problem.
const MOST_FAULTS: usize = 20;
const MOST_BYTES: usize = 8 * 1024;

/// The most bytes of a pointer, and of what is wrong there.
const MOST_BYTES_OF_A_FAULT: usize = 1024;

/// How many faults are mended: at least the first, at most the second number, and in between as many as the body fits
/// into the third number of bytes. Each costs at most two readings.
const MOST_MENDED: (usize, usize, usize) = (4, 100, 256 * 1024);

/// The faults that were found.
pub(crate) struct Faults {
    /// Where each is, as a JSON pointer (RFC 6901), and what it is, in words that follow the name of the place.
    pub(crate) list: Vec<(String, String)>,
    /// Whether there are no others.
    pub(crate) are_all: bool,
}

impl Faults {
    pub(crate) fn new() -> Self {
        Self { list: Vec::new(), are_all: true }
    }

    /// Returns whether there was room for it.
    pub(crate) fn add(&mut self, place: String, detail: &str) -> bool {
        let detail = &detail[..detail.floor_char_boundary(MOST_BYTES_OF_A_FAULT)];
        let fault = (place, detail.to_owned());
        if self.list.contains(&fault) {
            return true;
        }
        self.list.push(fault);
        let bytes: usize = self.list.iter().map(|(place, detail)| place.len() + detail.len()).sum();
        let has_room = self.list.len() <= MOST_FAULTS && bytes <= MOST_BYTES;
        if !has_room {
            self.list.pop();
        }
        has_room
    }
}

/// Finds the faults for which `json`, which must be JSON, is not a `T`.
pub(crate) fn faults<T: DeserializeOwned>(json: &str) -> Faults {
    let mut faults = Faults::new();
    let mut copy = Cow::from(json);
    let mut mended: Vec<Path> = Vec::new();
    // Objects in which a variant is a placeholder. It may be a tag, which decides what the members there must be.
    let mut doubtful: Vec<Path> = Vec::new();
    let mut left = most_mended(json.len());
    while left > 0 {
        let Some(stop) = Stop::of::<T>(&copy, &mended) else { return faults };
        // To find a place, each level above it is read once more.
        left = left.saturating_sub(1 + stop.path.len() / 8);
        let holder = &stop.path[..stop.path.len().saturating_sub(1)];
        if stop.kind == Kind::MissingElsewhere {
            faults.list.pop();
            mended.pop();
        }
        let is_mended = is_in(&stop.path, &mended);
        if !is_mended || stop.kind == Kind::Twice {
            let is_above = mended.iter().any(|place| place.len() > stop.path.len() && place.starts_with(&stop.path));
            let is_doubtful = doubtful
                .iter()
                .any(|object| stop.path.starts_with(object) && !(stop.kind == Kind::Missing && object == holder));
            let (pointer, is_whole) = pointer(&stop.path);
            let further = if is_whole { "" } else { "holds something with a longer pointer that " };
            if is_above || is_doubtful || !faults.add(pointer, &format!("{further}{}", stop.detail)) {
                break;
            }
            faults.are_all &= !stop.hides;
        }
        if stop.kind == Kind::Variant {
            doubtful.push(holder.to_vec());
        }
        let Some(next) = stop.mended else { break };
        copy = next.into();
        if !is_mended {
            mended.push(stop.path);
        }
    }
    faults.are_all = false;
    faults
}

/// How many faults of a body with this many bytes are mended.
pub(crate) fn most_mended(bytes: usize) -> usize {
    let (least, most, read) = MOST_MENDED;
    (read / bytes.max(1)).clamp(least, most)
}

/// The names and indices that lead to a place.
type Path = Vec<String>;

fn is_in(path: &[String], places: &[Path]) -> bool {
    places.iter().any(|place| path.starts_with(place))
}

/// The pointer to a place. If it is too long, the pointer to what the place is in, and `false`.
pub(crate) fn pointer(path: &[String]) -> (String, bool) {
    let mut pointer = String::new();
    for step in path {
        if pointer.len() + step.len() >= MOST_BYTES_OF_A_FAULT {
            return (pointer, false);
        }
        pointer = pointer + "/" + &step.replace('~', "~0").replace('/', "~1");
    }
    (pointer, true)
}

/// Where and why `serde_json` stopped.
struct Stop {
    path: Path,
    detail: String,
    kind: Kind,
    /// Whether what is in the place was not read.
    hides: bool,
    /// The JSON with a placeholder.
    mended: Option<String>,
}

#[derive(PartialEq)]
enum Kind {
    Missing,
    /// The member that was added last is missing somewhere else.
    MissingElsewhere,
    Twice,
    /// A variant is the placeholder for the value of a member.
    Variant,
    Other,
}

impl Stop {
    /// Reads the JSON as a `T`. Returns `None` if it is one.
    fn of<T: DeserializeOwned>(json: &str, mended: &[Path]) -> Option<Self> {
        let error = serde_path_to_error::deserialize::<_, T>(&mut Deserializer::from_str(json)).err()?;
        let (path, error) = (error.path(), error.inner());
        let message = message(error);
        let said = Said::read(&message);
        let lines = json.split_inclusive('\n').map(str::len).take(error.line().saturating_sub(1));
        let at = if error.line() == 0 { json.len() } else { lines.sum::<usize>() + error.column() };
        let mut place = Place { path: Vec::new(), key: None, value: json.trim() };
        // What is within text, such as the name of a variant, has no place of its own.
        while let Some(child) = path.iter().nth(place.path.len()).and_then(|step| place.child(json, step, at)) {
            place = child;
        }
        // A type that reads names by itself refuses one only after the place of its member is left.
        if let Said::Unknown(name, _) = said
            && at < start(json, place.value) + place.value.len()
            && place.path.last().is_none_or(|last| last != name)
            && let Some(member) = place.child(json, &Segment::Map { key: name.to_owned() }, at)
        {
            place = member;
        }
        let start = start(json, place.value);
        let is_container = place.value.starts_with(['{', '[']) && place.value.len() > 2;
        let is_list_too_short = place.value.starts_with('[') && message.starts_with("invalid length ");
        // serde reads a flattened or tagged type from a copy, in which values have no place.
        let is_within = is_container && at >= start + place.value.len() && !is_list_too_short;
        let is_first = !is_in(&place.path, mended);
        let named = |name: &str| place.child(json, &Segment::Map { key: name.to_owned() }, json.len());
        let mut stop = Self {
            path: place.path.clone(),
            detail: said.detail(),
            kind: Kind::Other,
            hides: is_container
                && match said {
                    Said::Variant(_) | Said::Other(_) => true,
                    // Of a list that is too long, the rest may not have been read. An array's items were.
                    Said::Expected(expected) => message.starts_with("invalid length ") && count(expected).is_none(),
                    _ => false,
                },
            mended: None,
        };
        match said {
            Said::Missing(name) if let Some(member) = named(name) => {
                stop.detail = format!("holds an object without `{name}`");
                if member.value == "null" && mended.last() == Some(&member.path) {
                    stop.kind = Kind::MissingElsewhere;
                }
            }
            Said::Missing(name) => {
                stop.kind = Kind::Missing;
                stop.path.push(name.to_owned());
                stop.mended = place.with_member(json, name);
            }
            Said::Twice(_) | Said::Unknown(..) | Said::Variant(_) | Said::Expected(_) if is_within => {
                stop.detail = format!("holds something that {}", stop.detail);
            }
            Said::Twice(name) => {
                stop.kind = Kind::Twice;
                let again = place.child(json, &Segment::Unknown, at)?;
                if again.path.last().is_none_or(|last| last != name) {
                    stop.detail.push_str(", under two names");
                }
                stop.mended = again.left_out(json);
                stop.path = again.path;
            }
            Said::Unknown(..) => stop.mended = place.left_out(json),
            _ if place.key.is_some() && at < start => {
                stop.detail = format!("has a name that {}", stop.detail);
                stop.mended = place.left_out(json);
            }
            // serde_json stops like this where text is expected that names a variant, for example.
            _ if !error.is_data() && !place.value.starts_with('"') => {
                let probe = place.replaced(json, r#""""#)?;
                match Self::of::<T>(&probe, mended).filter(|_| message != TOO_DEEP) {
                    Some(probed) if probed.path == stop.path => return Some(Self { hides: stop.hides, ..probed }),
                    _ => stop.mended = Some(probe),
                }
            }
            // All members beside a tag depend on it.
            Said::Expected(TAG) if !is_first => {}
            // Without this member, the others are read first. Then it is missing, and a variant is put there.
            Said::Variant(_) if is_first && place.key.is_some() => stop.mended = place.left_out(json),
            _ => {
                if place.key.is_some() && matches!(said, Said::Variant(_)) {
                    stop.kind = Kind::Variant;
                }
                let placeholder =
                    placeholder(&said, place.value).and_then(|placeholder| place.replaced(json, &placeholder));
                stop.mended = placeholder.or_else(|| place.left_out(json).filter(|_| is_first));
            }
        }
        Some(stop)
    }
}

/// A value in JSON, and its name if it is a member, with quotes.
struct Place<'a> {
    path: Path,
    key: Option<&'a str>,
    value: &'a str,
}

impl Place<'_> {
    /// What a segment leads to. Of members with this name, it is the last that begins before the byte `at`; for an
    /// unknown segment, of all members.
    fn child(&self, json: &str, segment: &Segment, at: usize) -> Option<Self> {
        let (key, value) = Deserializer::from_str(self.value).deserialize_any(Child { json, segment, at }).ok()??;
        let step = match (segment, key) {
            (Segment::Seq { index }, _) => index.to_string(),
            (_, key) => key.map(|key| serde_json::from_str(key).unwrap_or_else(|_| key.to_owned()))?,
        };
        Some(Self { path: [&self.path[..], &[step]].concat(), key, value })
    }

    fn replaced(&self, json: &str, placeholder: &str) -> Option<String> {
        let start = start(json, self.value);
        Some([json.get(..start)?, placeholder, json.get(start + self.value.len()..)?].concat())
    }

    /// The JSON with another member in this object.
    fn with_member(&self, json: &str, name: &str) -> Option<String> {
        let rest = self.value.strip_prefix('{')?;
        let comma = if rest.trim_start().starts_with('}') { "" } else { "," };
        self.replaced(json, &format!("{{{}:null{comma}{rest}", serde_json::to_string(name).ok()?))
    }

    /// The JSON without this member, and without one comma beside it.
    fn left_out(&self, json: &str) -> Option<String> {
        let before = json.get(..start(json, self.key?))?.trim_end();
        let after = json.get(start(json, self.value) + self.value.len()..)?.trim_start();
        let after = if before.ends_with('{') { after.trim_start_matches(',') } else { after };
        Some([before.trim_end_matches(','), after].concat())
    }
}

/// At which byte of `json` a part of it begins.
fn start(json: &str, part: &str) -> usize {
    part.as_ptr().addr().saturating_sub(json.as_ptr().addr())
}

/// Walks through a value to a child of it, and keeps nothing else.
struct Child<'s> {
    json: &'s str,
    segment: &'s Segment,
    at: usize,
}

impl<'de> Visitor<'de> for Child<'_> {
    type Value = Option<(Option<&'de str>, &'de str)>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object or an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let (mut found, mut at) = (None, 0);
        while let Some(item) = items.next_element::<&RawValue>()? {
            if matches!(self.segment, Segment::Seq { index } if *index == at) {
                found = Some((None, item.get()));
            }
            at += 1;
        }
        Ok(found)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some((key, value)) = members.next_entry::<&RawValue, &RawValue>()? {
            let is_it = match self.segment {
                Segment::Map { key: name } | Segment::Enum { variant: name } => is_name(key.get(), name),
                Segment::Seq { .. } => false,
                Segment::Unknown => true,
            };
            if is_it && start(self.json, key.get()) < self.at {
                found = Some((Some(key.get()), value.get()));
            }
        }
        Ok(found)
    }
}

/// Whether a key, with quotes and escapes, is this name.
fn is_name(key: &str, name: &str) -> bool {
    key.get(1..key.len() - 1) == Some(name)
        || key.contains('\\') && serde_json::from_str::<String>(key).is_ok_and(|key| key == name)
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
            // A variant that is wrong hides nothing beside it.
            (
                r#"{"sku":"A","quantity":1,"ship":"fast"}"#,
                &["/ship must be `slow`, `same_day` or `on`", "/to is missing"],
            ),
            (
                r#"{"\u0073ku":"A","sku":"B","quantity":1,"ship":"slow","to":{"street":"S","number":1}}"#,
                &["/sku appears twice"],
            ),
        ] {
            assert_eq!(told::<Order>(json), expected, "{json}");
        }
    }

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "what is read is of no interest")]
    struct Inner {
        size: u8,
    }

    #[derive(Deserialize)]
    #[serde(tag = "t", content = "c")]
    #[expect(dead_code, reason = "what is read is of no interest")]
    enum Adjacent {
        One(bool),
        Other(bool),
        Pair(u8, char),
        Named { a: u128 },
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
            #[serde(rename = "in")]
            again: Option<Box<Page>>,
            inner: Option<Inner>,
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
            #[serde(default)]
            adjacent: Vec<Adjacent>,
            #[serde(default)]
            pages: Vec<Page>,
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
                r#"{"limit":"x","from":1e9,"kinds":["one"]}"#,
                &[" holds something that must be an integer from 0 to 255", "…"],
            ),
            (r#"{"limit":"x","kinds":["one","two"]}"#, &["/kinds/1 must be `one`, `other`, `pair` or `named`", "…"]),
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
                r#"{"limit":1,"shapes":[{"type":"circle","radius":"1"},{"type":"oval","side":1}]}"#,
                &["/shapes/0 holds something that must be an integer from 0 to 255", "…"],
            ),
            // What is beside a tag that is wrong was not read.
            (
                r#"{"limit":1,"shapes":[{"type":"oval"},{"radius":1}]}"#,
                &["/shapes/0/type must be `circle` or `square`", "…"],
            ),
            (r#"{"limit":1,"shapes":[{"radius":1}]}"#, &["/shapes/0/type is missing", "…"]),
            (
                r#"{"limit":1,"adjacent":[{"t":"one","c":"x"}]}"#,
                &["/adjacent/0/t must be `One`, `Other`, `Pair` or `Named`", "…"],
            ),
            (r#"{"limit":1,"kinds":[{"two":[]}]}"#, &["/kinds/0 must be `one`, `other`, `pair` or `named`", "…"]),
            (r#"{"limit":1,"in":{}}"#, &[" holds an object without `limit`", "…"]),
            (r#"{"limit":1,"inner":{}}"#, &[" holds an object without `size`", "…"]),
            (r#"{"limit":1,"limit":2}"#, &[" holds something that appears twice", "…"]),
            (
                r#"{"limit":1,"pages":[{"limit":1,"offset":1,"from":2}]}"#,
                &["/pages/0/from appears twice, under two names"],
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
        /// A type for which there is no placeholder.
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
        // A fault that the placeholder for another one may cause is not told.
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
            assert!(used.bytes_max <= 6 * length + 10_000, "{length} bytes: {used:?}: {json:.100}");
            assert!(used.bytes_total <= 30 * length + 10_000, "{length} bytes: {used:?}: {json:.100}");
        }
    }
}
