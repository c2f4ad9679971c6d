//! Why the table could not be used.

use std::{error::Error, fmt};

use aws_sdk_dynamodb::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};

/// Why the table could not be used.
#[derive(Debug)]
pub(super) enum TableError {
    /// An operation failed.
    Failed(aws::Error),
    /// A part of the table gets more requests than it allows.
    Incomplete,
    /// There was no answer within a request's time for it.
    Late,
}

impl<E> From<SdkError<E, HttpResponse>> for TableError
where
    E: Error + ProvideErrorMetadata + 'static,
{
    fn from(error: SdkError<E, HttpResponse>) -> Self {
        Self::Failed(error.into())
    }
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Failed(_) => "DynamoDB refused or was not reached",
            Self::Incomplete => "DynamoDB did not return all items",
            Self::Late => "DynamoDB took too long",
        })
    }
}

impl Error for TableError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Failed(cause) => Some(cause),
            Self::Incomplete | Self::Late => None,
        }
    }
}
