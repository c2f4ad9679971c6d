//! One line of the log, as JSON or for a person to read.

use std::{
    borrow::Cow,
    fmt,
    io::Write,
    time::{Duration, SystemTime},
};

use serde::Serialize;
use tracing::level_filters::LevelFilter;

use super::chain;
use crate::Problem;

/// The most bytes of a text in a line. CloudWatch cuts a line that is too long, and then it is no JSON, and its metrics
/// are lost: <https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/cloudwatch_limits_cwl.html>.
const MAX_TEXT: usize = 16 * 1024;

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Format {
    Json,
    Text,
    Colour,
}

/// The value of a log field. [`From`] makes it from an endpoint's own types.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// Text, escaped as in JSON. The line has its first 16 kB.
    Text(Cow<'a, str>),
    /// A whole number.
    Number(u64),
    /// A whole number that may be negative.
    Signed(i64),
    /// A number with decimals. JSON has no infinity and no NaN, so these become text.
    Float(f64),
    /// A duration, written in milliseconds with three decimals. The field's name ends in `_ms`.
    Time(Duration),
    /// Yes or no.
    Flag(bool),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

/// The message of an error and of all its causes.
impl From<&Problem> for Value<'_> {
    fn from(problem: &Problem) -> Self {
        chain(problem).into()
    }
}

macro_rules! values {
    ($($variant:ident: $($value:ty)*;)*) => {
        $($(
            impl From<$value> for Value<'_> {
                fn from(value: $value) -> Self {
                    Self::$variant(value.into())
                }
            }
        )*)*
    };
}

values! {
    Number: u8 u16 u32 u64;
    Signed: i8 i16 i32 i64;
    Float: f32 f64;
    Time: Duration;
    Flag: bool;
}

impl From<usize> for Value<'_> {
    fn from(number: usize) -> Self {
        Self::Number(number as u64)
    }
}

impl From<isize> for Value<'_> {
    fn from(number: isize) -> Self {
        Self::Signed(number as i64)
    }
}

/// A line under construction. Writing to memory does not fail, so results are ignored.
pub(super) struct Line {
    format: Format,
    bytes: Vec<u8>,
}

impl Line {
    /// Begins a line with its time, level and message.
    pub(super) fn new(format: Format, now: SystemTime, level: LevelFilter, message: &str) -> Self {
        // More than an invocation's line takes, so that its memory is allocated once.
        let mut line = Self { format, bytes: Vec::with_capacity(1024) };
        let level_name = match level.into_level() {
            Some(level) => level.as_str(),
            None => "FATAL",
        };
        match format {
            Format::Json => {
                let now = humantime::format_rfc3339_millis(now);
                line.write(format_args!(r#"{{"timestamp":"{now}","level":"{level_name}","message":"#));
                line.text(message);
            }
            Format::Text => line.write(format_args!("{level_name} {}", message.escape_debug())),
            Format::Colour => {
                let colour = match level {
                    LevelFilter::ERROR => 31,
                    LevelFilter::WARN => 33,
                    _ => 32,
                };
                line.write(format_args!("\x1b[{colour}m{level_name}\x1b[0m {}", message.escape_debug()));
            }
        }
        line
    }

    /// Appends fields that [`Fields`] has already formatted.
    pub(super) fn fields(&mut self, fields: &Fields) {
        self.bytes.extend_from_slice(&fields.0.bytes);
    }

    pub(super) fn field<'a>(&mut self, name: &str, value: impl Into<Value<'a>>) {
        self.value(name, &value.into());
    }

    pub(super) fn value(&mut self, name: &str, value: &Value<'_>) {
        // By hand, because `write!` takes three times as long, and this is the hottest code of the log.
        let (before, after) = if self.format == Format::Json { (",\"", "\":") } else { (" ", "=") };
        self.raw(before);
        self.raw(name);
        self.raw(after);
        self.put(value);
    }

    /// Appends a field whose name was chosen elsewhere, and may have any characters.
    pub(super) fn any_name(&mut self, name: &str, value: &Value<'_>) {
        let is_json = self.format == Format::Json;
        self.raw(if is_json { "," } else { " " });
        if !is_json && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)) {
            self.raw(name);
        } else {
            self.json(name);
        }
        self.raw(if is_json { ":" } else { "=" });
        self.put(value);
    }

    fn put(&mut self, value: &Value<'_>) {
        match value {
            Value::Text(text) => self.text(text),
            Value::Number(number) => self.json(number),
            Value::Signed(number) => self.json(number),
            Value::Float(number) if number.is_finite() => self.json(number),
            Value::Float(number) => self.write(format_args!("\"{number}\"")),
            Value::Time(time) => {
                let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
                self.json(&(micros / 1000));
                let decimals = [100, 10, 1].map(|digit| b'0' + u8::try_from(micros / digit % 10).unwrap_or_default());
                self.raw(".");
                self.bytes.extend_from_slice(&decimals);
            }
            Value::Flag(flag) => self.json(flag),
        }
    }

    /// Appends `text` as it is.
    pub(super) fn raw(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn text(&mut self, text: &str) {
        match text.get(..text.floor_char_boundary(MAX_TEXT)) {
            Some(start) if start.len() < text.len() => self.shown(&format!("{start}…")),
            _ => self.shown(text),
        }
    }

    /// Appends `text` as JSON. For a terminal, that includes the control characters that JSON need not escape.
    fn shown(&mut self, text: &str) {
        if self.format == Format::Json || !text.contains(char::is_control) {
            return self.json(text);
        }
        for character in serde_json::to_string(text).unwrap_or_default().chars() {
            if character.is_control() {
                self.write(format_args!("\\u{:04x}", u32::from(character)));
            } else {
                self.write(format_args!("{character}"));
            }
        }
    }

    pub(super) fn json(&mut self, value: &(impl Serialize + ?Sized)) {
        let _ = serde_json::to_writer(&mut self.bytes, value);
    }

    fn write(&mut self, text: fmt::Arguments<'_>) {
        let _ = self.bytes.write_fmt(text);
    }

    /// The whole line, including its line end.
    pub(super) fn end(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(if self.format == Format::Json { b"}\n" } else { b"\n" });
        self.bytes
    }
}

/// Fields that are formatted before their line begins.
pub(super) struct Fields(Line);

impl Fields {
    pub(super) fn new(format: Format) -> Self {
        Self(Line { format, bytes: Vec::with_capacity(256) })
    }

    pub(super) fn field<'a>(&mut self, name: &str, value: impl Into<Value<'a>>) {
        self.0.field(name, value);
    }
}

/// `name`, or if it is taken, `name` with the fewest `_` at its end that make it free.
pub(super) fn free_name(name: &'static str, is_taken: impl Fn(&str) -> bool) -> Cow<'static, str> {
    let mut free = Cow::from(name);
    while is_taken(&free) {
        free.to_mut().push('_');
    }
    free
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(format: Format, level: LevelFilter) -> String {
        let mut line = Line::new(format, SystemTime::UNIX_EPOCH, level, "two\n\"lines\"");
        let mut fields = Fields::new(format);
        fields.field("text", "\u{1b}[31m\n\u{2028}\"é\u{7f}\u{9b}");
        line.fields(&fields);
        line.field("number", u64::MAX);
        line.field("time_ms", Duration::from_nanos(1_000_999));
        line.field("flag", true);
        line.field("signed", i64::MIN);
        line.field("ratio", -0.5);
        line.field("infinite", f64::NEG_INFINITY);
        line.any_name("a \"name\"\n", &f64::NAN.into());
        String::from_utf8(line.end()).unwrap()
    }

    #[test]
    fn is_valid_json_whatever_it_contains() {
        let line = line(Format::Json, LevelFilter::INFO);
        assert_eq!(line.matches('\n').count(), 1);
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&line).unwrap(),
            serde_json::json!({
                "timestamp": "1970-01-01T00:00:00.000Z",
                "level": "INFO",
                "message": "two\n\"lines\"",
                "text": "\u{1b}[31m\n\u{2028}\"é\u{7f}\u{9b}",
                "number": u64::MAX,
                "time_ms": 1.000,
                "flag": true,
                "signed": i64::MIN,
                "ratio": -0.5,
                "infinite": "-inf",
                "a \"name\"\n": "NaN",
            })
        );
        assert!(line.contains(r#""time_ms":1.000,"#), "{line}");
    }

    #[test]
    fn is_one_line_of_text_without_control_characters() {
        let text = line(Format::Text, LevelFilter::WARN);
        assert!(text.starts_with(r#"WARN two\n\"lines\" text="\u001b[31m\n"#), "{text}");
        let end =
            r#" time_ms=1.000 flag=true signed=-9223372036854775808 ratio=-0.5 infinite="-inf" "a \"name\"\n"="NaN""#;
        assert!(text.trim_end().ends_with(end), "{text}");
        assert_eq!(text.trim_end().chars().filter(|c| c.is_control()).count(), 0);
        assert!(line(Format::Colour, LevelFilter::ERROR).starts_with("\x1b[31mERROR\x1b[0m two"));
    }

    #[test]
    fn a_line_above_every_level_is_fatal() {
        assert!(line(Format::Json, LevelFilter::OFF).contains(r#""level":"FATAL""#));
    }
}
