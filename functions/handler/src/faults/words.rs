//! What serde says, in the words of JSON.

use std::borrow::Cow;

pub(super) const TOO_DEEP: &str = "recursion limit exceeded";

/// What serde expects for the tag of an internally tagged enum.
pub(super) const TAG: &str = "variant identifier";

/// The placeholders for a value that has the right type, but is refused. The next one of the same type is tried then.
const PLACEHOLDERS: [&str; 4] = [
    r#""" "1" "1970-01-01T00:00:00Z" "1970-01-01" "00000000-0000-4000-8000-000000000000" "https://example.com/""#,
    "1 0 20 1000",
    "[] [null]",
    "{}",
];

/// What serde said. Its messages are the same for every format.
pub(crate) enum Said<'m> {
    Missing(&'m str),
    Twice(&'m str),
    /// The name, and those that are known.
    Unknown(&'m str, &'m str),
    /// The names that are known.
    Variant(&'m str),
    /// What was expected.
    Expected(&'m str),
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
        let kinds = ["invalid type: ", "invalid value: ", "invalid length "];
        match parts {
            Some((found, known)) if let Some(name) = name(found, "unknown field `") => Self::Unknown(name, known),
            Some((found, known)) if found.starts_with("unknown variant `") => Self::Variant(known),
            Some((found, expected)) if kinds.iter().any(|kind| found.starts_with(kind)) => Self::Expected(expected),
            _ => Self::Other(message),
        }
    }

    /// The same in words that follow the name of the place.
    pub(crate) fn detail(&self) -> String {
        match self {
            Self::Missing(_) => "is missing".into(),
            Self::Twice(_) => "appears twice".into(),
            Self::Unknown(_, known) => format!("is unknown; there is {}", one_of(known)),
            Self::Variant(names) => format!("must be {}", one_of(names)),
            Self::Expected(expected) => format!("must be {}", in_json(expected)),
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
pub(super) fn count(expected: &str) -> Option<usize> {
    let named = || expected.strip_prefix("tuple ")?.rsplit_once(" with ")?.1.split(' ').next();
    let unnamed = ["a tuple of size ", "an array of length "].iter().find_map(|what| expected.strip_prefix(what));
    unnamed.or_else(named)?.parse().ok()
}

/// The least that a bounded type accepts.
fn least(expected: &str) -> Option<String> {
    let after = |what| expected.strip_prefix(what)?.split(' ').next()?.parse().ok();
    let characters = after("a string of ")
        .map(|least: i64| format!("\"{}\"", "a".repeat(usize::try_from(least.min(4096)).unwrap_or(0))));
    characters.or_else(|| after("an integer from ").map(|least| least.to_string()))
}

/// JSON that may be accepted instead of `value`, of which the reader said that.
pub(crate) fn placeholder(said: &Said<'_>, value: &str) -> Option<String> {
    let typed = match said {
        Said::Variant(names) => names.split('`').nth(1).map(|name| format!("\"{name}\"")),
        Said::Other("invalid number") => Some("1".into()),
        Said::Expected("newtype variant" | "tuple variant" | "struct variant") => Some(format!("{{{value}:null}}")),
        Said::Expected(expected) => {
            let holds = |words: &[&str]| words.iter().any(|word| in_json(expected).contains(word));
            Some(match count(expected) {
                Some(items) => format!("[{}]", vec!["null"; items.min(64)].join(",")),
                None if let Some(least) = least(expected) => least,
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
        let kind =
            |json: &str| json.bytes().next().map(|byte| if b"-0123456789".contains(&byte) { b'1' } else { byte });
        let mut same = PLACEHOLDERS.iter().find(|same| kind(same) == kind(value))?.split(' ');
        let untried = same.clone().skip_while(|placeholder| *placeholder != value).nth(1);
        let is_tried = same.clone().any(|placeholder| placeholder == value);
        if is_tried { untried } else { same.next() }.map(str::to_owned)
    })
}
