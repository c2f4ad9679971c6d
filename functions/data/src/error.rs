//! Why the table did not do what it was asked.

use std::fmt;

use handler::Problem;

/// Why the table did not do what it was asked. With `?`, it is the [`Problem`] that the caller gets.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// There is an item with this key already: 409 [`conflict`](Problem::conflict).
    Exists,
    /// The item is of another version by now, or is gone: 412 [`precondition-failed`](Problem::precondition_failed).
    Changed,
    /// This environment variable does not name a table: 500 [`misconfigured`](Problem::misconfigured).
    NoTable(&'static str),
    /// This environment variable names this table, which is not there: 500 [`misconfigured`](Problem::misconfigured).
    TableNotFound(&'static str, String, Box<aws::Error>),
    /// An item of this kind is not of the type that it is read as: 500 [`internal`](Problem::internal).
    Unreadable(String),
    /// A value cannot be written: 500 [`internal`](Problem::internal). The text does not contain the value.
    Invalid(&'static str),
    /// AWS did not do it: 503, 504 or 500, as [`aws::Error`] says.
    Aws(aws::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists => f.write_str("there is an item with this key already"),
            Self::Changed => f.write_str("the item is of another version by now, or is gone"),
            Self::NoTable(variable) => write!(f, "{variable} does not name a table"),
            Self::TableNotFound(variable, name, _) => {
                write!(f, "{variable} names the table {name}, which is not there")
            }
            Self::Unreadable(kind) => write!(
                f,
                "an item of the kind `{kind}` is not of the type that it is read as: it was written when the type had other \
                 members, or by something else"
            ),
            Self::Invalid(what) => f.write_str(what),
            Self::Aws(_) => f.write_str("DynamoDB did not do it"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Aws(cause) => Some(cause),
            Self::TableNotFound(.., cause) => Some(&**cause),
            _ => None,
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Exists => Problem::conflict("It exists already."),
            Error::Changed => Problem::precondition_failed("The resource has changed."),
            Error::NoTable(_) | Error::TableNotFound(..) => Problem::misconfigured(error),
            Error::Unreadable(_) | Error::Invalid(_) => Problem::internal().because(error),
            Error::Aws(cause) => cause.into(),
        }
    }
}

impl From<aws::Error> for Error {
    fn from(error: aws::Error) -> Self {
        Self::Aws(error)
    }
}
