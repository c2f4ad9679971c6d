//! Writes, all of which are done or none.

use aws_sdk_dynamodb::{
    config::http::HttpResponse,
    error::SdkError,
    operation::{delete_item::DeleteItemError, put_item::PutItemError, transact_write_items::TransactWriteItemsError},
    types::{Delete, Put, ReturnValuesOnConditionCheckFailure::AllOld, TransactWriteItem},
};
use handler::{Problem, Request, Response};

use crate::{
    Error,
    attribute::Attributes,
    idempotency::{Lease, in_progress},
    item::{WRITTEN, number},
    table::{Name, client},
};

/// A write that [`commit`] does. [`Table`](crate::Table) makes it.
#[must_use = "`commit` does it"]
pub struct Write {
    table: &'static Name,
    what: What,
}

enum What {
    Create(Attributes),
    Replace(Attributes, u64),
    Delete(Attributes, u64),
}

const IS_NEW: &str = "attribute_not_exists(pk)";
const IS_VERSION: &str = "version = :version";
const IS_VERSION_OR_GONE: &str = "attribute_not_exists(pk) OR version = :version";

impl Write {
    pub(crate) fn create(table: &'static Name, item: Attributes) -> Self {
        Self { table, what: What::Create(item) }
    }

    pub(crate) fn replace(table: &'static Name, item: Attributes, version: u64) -> Self {
        Self { table, what: What::Replace(item, version) }
    }

    pub(crate) fn delete(table: &'static Name, key: Attributes, version: u64) -> Self {
        Self { table, what: What::Delete(key, version) }
    }

    /// Why it was not done, if its condition did not hold, and this is the item. `None` if the item is what this very write
    /// left: then the SDK sent it twice, because the first answer was lost.
    fn unmet(&self, item: Option<&Attributes>) -> Option<Error> {
        let (is_own, error) = match &self.what {
            What::Create(own) => (Some(own), Error::Exists),
            What::Replace(own, _) => (Some(own), Error::Changed),
            What::Delete(..) => (None, Error::Changed),
        };
        let written = |item: &Attributes| item.get(WRITTEN).cloned();
        let is_done = is_own.and_then(written).is_some_and(|own| item.and_then(written) == Some(own));
        (!is_done).then_some(error)
    }

    /// Does it alone.
    async fn run(self) -> Result<(), Error> {
        let (client, name) = (client().await, self.table.get()?);
        let unmet = match &self.what {
            What::Create(item) | What::Replace(item, _) => {
                let put = client.put_item().table_name(name).set_item(Some(item.clone()));
                let put = put.return_values_on_condition_check_failure(AllOld);
                let put = match &self.what {
                    What::Replace(_, version) => {
                        put.condition_expression(IS_VERSION).expression_attribute_values(":version", number(*version))
                    }
                    _ => put.condition_expression(IS_NEW),
                };
                let Err(error) = put.send().await else { return Ok(()) };
                match error.as_service_error() {
                    Some(PutItemError::ConditionalCheckFailedException(unmet)) => unmet.item.clone(),
                    _ => return Err(self.table.failed(error)),
                }
            }
            What::Delete(key, version) => {
                let delete = client.delete_item().table_name(name).set_key(Some(key.clone()));
                let delete = delete
                    .condition_expression(IS_VERSION_OR_GONE)
                    .expression_attribute_values(":version", number(*version));
                let Err(error) = delete.send().await else { return Ok(()) };
                match error.as_service_error() {
                    Some(DeleteItemError::ConditionalCheckFailedException(_)) => None,
                    _ => return Err(self.table.failed(error)),
                }
            }
        };
        self.unmet(unmet.as_ref()).map_or(Ok(()), Err)
    }

    /// The same as a part of a transaction.
    fn part(&self) -> Result<TransactWriteItem, Error> {
        let built = |_| Error::Invalid("a write has no key");
        let name = self.table.get()?;
        let put = |item: &Attributes| Put::builder().table_name(name).set_item(Some(item.clone()));
        let part = TransactWriteItem::builder();
        Ok(match &self.what {
            What::Create(item) => part.put(put(item).condition_expression(IS_NEW).build().map_err(built)?),
            What::Replace(item, version) => {
                let put = put(item).condition_expression(IS_VERSION);
                part.put(put.expression_attribute_values(":version", number(*version)).build().map_err(built)?)
            }
            What::Delete(key, version) => {
                let delete = Delete::builder().table_name(name).set_key(Some(key.clone()));
                let delete = delete.condition_expression(IS_VERSION_OR_GONE);
                part.delete(delete.expression_attribute_values(":version", number(*version)).build().map_err(built)?)
            }
        }
        .build())
    }
}

/// Does all of the writes or, if one fails, none, and returns `response`.
///
/// If the endpoint is [`idempotent`](crate::idempotent()) and the request has a key, the answer to it is remembered in the
/// same transaction: the caller's next try gets `response`, or finds nothing done. DynamoDB takes up to 100 writes, or
/// 99 then, each of another item.
///
/// # Errors
///
/// [`Error::Exists`] and [`Error::Changed`] if a write's condition does not hold. 503 if another transaction has one of the
/// items at that moment, or AWS is not available; 504, 500 as [`aws::Error`] says.
pub async fn commit(
    request: &Request,
    writes: impl IntoIterator<Item = Write>,
    response: Response,
) -> Result<Response, Problem> {
    let mut writes: Vec<Write> = writes.into_iter().collect();
    let lease = Lease::of(request);
    if lease.is_none() && writes.len() == 1 {
        if let Some(write) = writes.pop() {
            write.run().await?;
        }
        return Ok(response);
    }
    let mut parts = writes.iter().map(Write::part).collect::<Result<Vec<_>, _>>()?;
    if let Some(lease) = &lease {
        parts.push(lease.completion(&response)?);
    }
    if !parts.is_empty() {
        // The SDK gives it a token, by which DynamoDB knows it if it is sent twice.
        let sent = client().await.transact_write_items().set_transact_items(Some(parts)).send().await;
        sent.map_err(|error| failed(error, &writes))?;
    }
    if let Some(lease) = lease {
        lease.settle();
    }
    Ok(response)
}

/// Why the transaction of these writes, and of a lease after them, was not done.
fn failed(error: SdkError<TransactWriteItemsError, HttpResponse>, writes: &[Write]) -> Problem {
    let Some(TransactWriteItemsError::TransactionCanceledException(canceled)) = error.as_service_error() else {
        // Which one is not there, AWS does not say.
        let table = writes.first().map(|write| write.table);
        let table = table.filter(|table| writes.iter().all(|write| write.table.is(table)));
        return table.map_or_else(|| aws::Error::from(&error).into(), |table| table.failed(&error).into());
    };
    let codes: Vec<&str> = canceled.cancellation_reasons().iter().filter_map(|reason| reason.code()).collect();
    // Another request has the key by now. What it does is the answer.
    if codes.get(writes.len()) == Some(&"ConditionalCheckFailed") {
        return in_progress();
    }
    let unmet = codes.iter().position(|code| *code == "ConditionalCheckFailed");
    if let Some(unmet) = unmet.and_then(|index| writes.get(index)?.unmet(None)) {
        return unmet.into();
    }
    let is_busy = codes
        .iter()
        .any(|code| ["ProvisionedThroughputExceeded", "ThrottlingError", "TransactionConflict"].contains(code));
    let error = aws::Error::from(error);
    if is_busy { error.into() } else { Problem::internal().because(error) }
}
