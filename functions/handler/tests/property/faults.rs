//! Random types with random faults: a refusal that does not say "at least" lists all of them.

use std::{cell::RefCell, fmt};

use arbitrary::{Result, Unstructured};
use handler::{Body, Problem, Request, http::header::CONTENT_TYPE};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value, from_value, json};

/// A type that is made at run time.
#[derive(Clone, Debug)]
enum Type {
    Leaf(Leaf),
    Maybe(Box<Type>),
    List(Box<Type>, Bound),
    Map(Box<Type>),
    /// Its members are called as in [`NAMES`], and must be there or not.
    Struct {
        members: Vec<(bool, Type)>,
        is_strict: bool,
    },
}

#[derive(Clone, Copy, Debug)]
enum Bound {
    None,
    /// It is checked when the whole list was read.
    NotEmpty,
    /// The third item is not read.
    AtMostTwo,
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// Declares types of values in which no place is told apart, each with a value that it takes.
macro_rules! leaves {
    ($($name:ident: $type:ty = $good:tt;)*) => {
        #[derive(Clone, Copy, Debug)]
        enum Leaf { $($name),* }

        impl Leaf {
            const ALL: &[Self] = &[$(Self::$name),*];

            fn read<'de, D: Deserializer<'de>>(self, from: D) -> std::result::Result<(), D::Error> {
                match self { $(Self::$name => <$type>::deserialize(from).map(drop)),* }
            }

            fn takes(self, value: &Value) -> bool {
                match self { $(Self::$name => from_value::<$type>(value.clone()).is_ok()),* }
            }

            fn good(self) -> Value {
                match self { $(Self::$name => json!($good)),* }
            }
        }
    };
}

// The first ones are also those of forms.
const OF_FORMS: usize = 7;
leaves! {
    Text: String = "x";
    Number: u8 = 7;
    NotZero: std::num::NonZeroI16 = 7;
    Flag: bool = true;
    Bounded: handler::Text<3, 5> = "abcd";
    Kind: Kind = "One";
    Rare: Rare = "rare";
    Address: std::net::IpAddr = "::1";
    Pair: (u8, bool) = [1, true];
    Range: Range = { "from": 1, "to": 2 };
    Tagged: Tagged = { "type": "A", "size": 1 };
    Untagged: Untagged = { "size": 1 };
    Flat: Flat = { "size": 1, "more": { "size": 2 } };
}

#[derive(Deserialize)]
enum Kind {
    One,
    Two,
}

/// Takes only what no placeholder is.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Rare;

impl TryFrom<String> for Rare {
    type Error = &'static str;
    fn try_from(text: String) -> std::result::Result<Self, &'static str> {
        if text == "rare" { Ok(Self) } else { Err("is not rare") }
    }
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "what is read is of no interest")]
struct Sized {
    size: u8,
}

/// Is checked as a whole.
#[derive(Deserialize)]
#[serde(try_from = "Ends")]
struct Range;

#[derive(Deserialize)]
struct Ends {
    from: u8,
    to: u8,
}

impl TryFrom<Ends> for Range {
    type Error = &'static str;
    fn try_from(ends: Ends) -> std::result::Result<Self, &'static str> {
        if ends.from < ends.to { Ok(Self) } else { Err("must end after its begin") }
    }
}

#[derive(Deserialize)]
#[serde(tag = "type")]
#[expect(dead_code, reason = "what is read is of no interest")]
enum Tagged {
    A(Sized),
    B { flag: bool },
}

#[derive(Deserialize)]
#[serde(untagged)]
#[expect(dead_code, reason = "what is read is of no interest")]
enum Untagged {
    A(Sized),
    B(bool),
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "what is read is of no interest")]
struct Flat {
    more: Sized,
    #[serde(flatten)]
    rest: Sized,
}

impl Type {
    fn any(u: &mut Unstructured<'_>, levels: u8) -> Result<Self> {
        let inner = |u: &mut Unstructured<'_>| Self::any(u, levels - 1).map(Box::new);
        Ok(match if levels == 0 { 0 } else { u.int_in_range(0..=9)? } {
            0..=3 => Self::Leaf(*u.choose(Leaf::ALL)?),
            4 => Self::Maybe(inner(u)?),
            5 => Self::List(inner(u)?, *u.choose(&[Bound::None, Bound::NotEmpty, Bound::AtMostTwo])?),
            6 => Self::Map(inner(u)?),
            _ => Self::a_struct(u, |u| Self::any(u, levels - 1))?,
        })
    }

    fn of_a_form(u: &mut Unstructured<'_>) -> Result<Self> {
        Self::a_struct(u, |u| {
            let leaf = Self::Leaf(*u.choose(&Leaf::ALL[..OF_FORMS])?);
            let is_list = u.ratio(1, 3)?;
            Ok(if is_list { Self::List(leaf.into(), *u.choose(&[Bound::None, Bound::NotEmpty])?) } else { leaf })
        })
    }

    fn a_struct(u: &mut Unstructured<'_>, any: impl Fn(&mut Unstructured<'_>) -> Result<Self>) -> Result<Self> {
        let mut members = Vec::new();
        for _ in 0..u.int_in_range(1..=NAMES.len())? {
            members.push((u.ratio(3, 4)?, any(u)?));
        }
        Ok(Self::Struct { members, is_strict: u.arbitrary()? })
    }

    /// A value that has faults in some places.
    fn value(&self, u: &mut Unstructured<'_>) -> Result<Value> {
        if u.ratio(1, 8)? {
            return Ok(u.choose(&[json!(null), json!(1000), json!("?"), json!([]), json!(["?"]), json!({})])?.clone());
        }
        Ok(match self {
            Self::Leaf(leaf) => match u.choose(&[leaf.good(), json!("?"), leaf.good()])? {
                Value::Object(good) if u.ratio(1, 4)? => good
                    .iter()
                    .map(|(name, value)| (name.clone(), if *value == 2 { json!(0) } else { value.clone() }))
                    .collect(),
                value => value.clone(),
            },
            Self::Maybe(inner) => inner.value(u)?,
            Self::List(inner, _) => {
                (0..u.int_in_range(0..=4)?).map(|_| inner.value(u)).collect::<Result<Vec<_>>>()?.into()
            }
            Self::Map(inner) => {
                let names = &NAMES[..u.int_in_range(0..=3)?];
                names
                    .iter()
                    .map(|name| Ok(((*name).to_owned(), inner.value(u)?)))
                    .collect::<Result<Map<_, _>>>()?
                    .into()
            }
            Self::Struct { members, .. } => {
                let mut all = Map::new();
                for ((_, member), name) in members.iter().zip(NAMES) {
                    if !u.ratio(1, 6)? {
                        all.insert(name.into(), member.value(u)?);
                    }
                }
                if u.ratio(1, 8)? {
                    all.insert("unknown".into(), json!({}));
                }
                all.into()
            }
        })
    }

    /// Where the value has a fault, as JSON pointers.
    fn faults(&self, value: &Value, place: &str, all: &mut Vec<String>) {
        match (self, value) {
            (Self::Leaf(leaf), _) if leaf.takes(value) => {}
            (Self::Maybe(_), Value::Null) => {}
            (Self::Maybe(inner), _) => inner.faults(value, place, all),
            (Self::List(inner, bound), Value::Array(items)) => {
                let is_wrong = match bound {
                    Bound::None => false,
                    Bound::NotEmpty => items.is_empty(),
                    Bound::AtMostTwo => items.len() > 2,
                };
                all.extend(is_wrong.then(|| place.to_owned()));
                items.iter().enumerate().for_each(|(at, item)| inner.faults(item, &format!("{place}/{at}"), all));
            }
            (Self::Map(inner), Value::Object(members)) => {
                members.iter().for_each(|(name, member)| inner.faults(member, &format!("{place}/{name}"), all));
            }
            (Self::Struct { members, is_strict }, Value::Object(there)) => {
                for ((is_required, member), name) in members.iter().zip(NAMES) {
                    let place = format!("{place}/{name}");
                    match there.get(name) {
                        Some(value) => member.faults(value, &place, all),
                        None => all.extend(is_required.then_some(place)),
                    }
                }
                let unknown = there.keys().filter(|name| !NAMES[..members.len()].contains(&&***name));
                all.extend(unknown.filter(|_| *is_strict).map(|name| format!("{place}/{name}")));
            }
            _ => all.push(place.to_owned()),
        }
    }
}

impl<'de> DeserializeSeed<'de> for &Type {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> std::result::Result<(), D::Error> {
        match self {
            Type::Leaf(leaf) => leaf.read(from),
            Type::Maybe(_) => from.deserialize_option(self),
            Type::List(..) => from.deserialize_seq(self),
            Type::Map(_) => from.deserialize_map(self),
            Type::Struct { members, .. } => from.deserialize_struct("Thing", &NAMES[..members.len()], self),
        }
    }
}

impl<'de> Visitor<'de> for &Type {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Type::Leaf(_) => "a value",
            Type::Maybe(_) => "option",
            Type::List(_, Bound::AtMostTwo) => "a list of at most 2 items",
            Type::List(..) => "a sequence",
            Type::Map(_) => "a map",
            Type::Struct { .. } => "struct Thing",
        })
    }

    fn visit_unit<E: Error>(self) -> std::result::Result<(), E> {
        if matches!(self, Type::Maybe(_)) { Ok(()) } else { Err(E::invalid_type(serde::de::Unexpected::Unit, &self)) }
    }

    fn visit_none<E: Error>(self) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> std::result::Result<(), D::Error> {
        let Type::Maybe(inner) = self else { return Ok(()) };
        inner.deserialize(from)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<(), A::Error> {
        let Type::List(inner, bound) = self else {
            return Err(A::Error::invalid_type(serde::de::Unexpected::Seq, &self));
        };
        let mut read = 0;
        loop {
            if read == 2 && matches!(bound, Bound::AtMostTwo) {
                let is_longer = items.next_element::<IgnoredAny>()?.is_some();
                return if is_longer { Err(A::Error::invalid_length(3, &self)) } else { Ok(()) };
            }
            if items.next_element_seed(&**inner)?.is_none() {
                let is_empty = read == 0 && matches!(bound, Bound::NotEmpty);
                return if is_empty { Err(A::Error::custom("must not be empty")) } else { Ok(()) };
            }
            read += 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut there: A) -> std::result::Result<(), A::Error> {
        match self {
            Type::Map(inner) => {
                while there.next_key::<String>()?.is_some() {
                    there.next_value_seed(&**inner)?;
                }
            }
            Type::Struct { members, is_strict } => {
                let mut read = [false; NAMES.len()];
                while let Some(name) = there.next_key::<String>()? {
                    match NAMES[..members.len()].iter().position(|known| *known == name) {
                        Some(at) => {
                            there.next_value_seed(&members[at].1)?;
                            read[at] = true;
                        }
                        None if *is_strict => {
                            return Err(A::Error::unknown_field(&name, &NAMES[..members.len()]));
                        }
                        None => drop(there.next_value::<IgnoredAny>()?),
                    }
                }
                let missing = members.iter().zip(NAMES).zip(read).find(|(((required, _), _), read)| *required && !read);
                if let Some(((_, name), _)) = missing {
                    return Err(A::Error::missing_field(name));
                }
            }
            _ => return Err(A::Error::invalid_type(serde::de::Unexpected::Map, &self)),
        }
        Ok(())
    }
}

thread_local! {
    static TYPE: RefCell<Type> = const { RefCell::new(Type::Leaf(Leaf::Text)) };
}

/// A value of the [`TYPE`].
struct Any;

impl<'de> Deserialize<'de> for Any {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let r#type = TYPE.with_borrow(Clone::clone);
        r#type.deserialize(from).map(|()| Self)
    }
}

pub(super) fn a_list_of_faults_that_claims_to_be_complete_is(u: &mut Unstructured<'_>) -> Result<()> {
    let of_json = Type::any(u, 3)?;
    let value = of_json.value(u)?;
    check("application/json", &of_json, &value, &value.to_string(), handler::body::<Any>);
    let of_form = Type::of_a_form(u)?;
    let (Value::Object(value), Type::Struct { members, .. }) = (of_form.value(u)?, &of_form) else { return Ok(()) };
    let (mut pairs, mut read) = (Vec::new(), Map::new());
    for (name, value) in &value {
        let member = NAMES.iter().position(|known| known == name).and_then(|at| members.get(at));
        let (leaf, is_list) = match member {
            Some((_, Type::List(inner, _))) if let Type::Leaf(leaf) = **inner => (leaf, true),
            Some((_, Type::Leaf(leaf))) => (*leaf, false),
            _ => (Leaf::Text, false),
        };
        let values = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
        let texts: Vec<String> = values.iter().map(|value| value.to_string().replace('"', "")).collect();
        pairs.extend(texts.iter().map(|text| format!("{name}={text}")));
        // A number's text is read as text, too.
        let number = |text: &String| text.parse().ok().filter(|_| !leaf.takes(&json!(text)));
        let values: Vec<Value> = texts.iter().map(|text| number(text).unwrap_or(json!(text))).collect();
        if let Some(last) = values.last() {
            read.insert(name.clone(), if is_list { values.clone().into() } else { last.clone() });
        }
    }
    check("application/x-www-form-urlencoded", &of_form, &read.into(), &pairs.join("&"), handler::form::<Any>);
    Ok(())
}

fn check(
    media: &'static str,
    r#type: &Type,
    value: &Value,
    body: &str,
    read: fn(&Request, usize) -> std::result::Result<Any, Problem>,
) {
    TYPE.set(r#type.clone());
    let mut request = Request::new(Body::from(body));
    request.headers_mut().insert(CONTENT_TYPE, media.parse().expect("a media type"));
    let mut faults = Vec::new();
    r#type.faults(value, "#", &mut faults);
    let Err(problem) = read(&request, 1 << 16) else {
        return assert!(
            faults.is_empty() || media.ends_with("urlencoded"),
            "{faults:?} are not told of {body}: {type:?}"
        );
    };
    let told = problem.member("errors").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let told: Vec<&str> = told.iter().filter_map(|fault| fault["pointer"].as_str()).collect();
    let is_in = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let is_told = |fault: &String| told.iter().any(|told| is_in(told, fault));
    let claims_all = !problem.detail().contains("at least");
    assert!(!claims_all || faults.iter().all(is_told), "{faults:?}, of which {told:?} are told, of {body}: {type:?}");
    let is_true = |told: &&str| faults.iter().any(|fault| is_in(told, fault) || is_in(fault, told));
    assert!(media.ends_with("urlencoded") || told.iter().all(is_true), "{told:?} of {faults:?} in {body}: {type:?}");
}
