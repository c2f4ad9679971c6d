//! ROUTES: a caller's own messages, in a table. Say here what it is for.

use std::process::ExitCode;

USES

/// The table's name is in the environment variable. A message's partition key is the caller whose it is, and its sort key
/// begins with `message#`.
static MESSAGES: Table<Message> = Table::new("VARIABLE", "message");

fn main() -> ExitCode {
    handler::run(endpoint())
}

fn endpoint() -> Routes {
    routes([RESOURCES])
}

/// The JSON body of a request that makes a message, or replaces it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewMessage {
    message: Text<1, 1000>,
}

/// What of a message can be changed. A member that is absent stays as it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    message: Option<Text<1, 1000>>,
}

/// A message in an answer, and in the table.
#[derive(Deserialize, Serialize)]
struct Message {
    id: String,
    message: Text<1, 1000>,
}

async fn list(request: Request) -> Result<Response, Problem> {
    MESSAGES.page(&request, &owner(&request)?).await?.answer()
}

async fn create(request: Request) -> Result<Response, Problem> {
    // This is first, so that a caller without a token learns nothing.
    let owner = owner(&request)?;
    let NewMessage { message } = body(&request, 16 * 1024)?;
    let id = data::id();
    let item = MESSAGES.item(&owner, &id, Message { id: id.clone(), message });
    // Writes the message, and the answer to the request's `Idempotency-Key`: both or neither.
    MESSAGES.add(&request, item).await
}

async fn show(request: Request) -> Result<Response, Problem> {
    found(&request).await?.answer(&request, StatusCode::OK)
}

async fn replace(request: Request) -> Result<Response, Problem> {
    let mut item = found(&request).await?.checked(&request)?;
    let NewMessage { message } = body(&request, 16 * 1024)?;
    item.value.message = message;
    MESSAGES.save(&request, item).await
}

async fn change(request: Request) -> Result<Response, Problem> {
    let mut item = found(&request).await?.checked(&request)?;
    let Change { message } = body(&request, 16 * 1024)?;
    item.value.message = message.unwrap_or(item.value.message);
    MESSAGES.save(&request, item).await
}

async fn remove(request: Request) -> Result<Response, Problem> {
    let item = found(&request).await?.checked(&request)?;
    MESSAGES.erase(&request, item).await
}

/// The message at the request's path. Another caller's is not found.
async fn found(request: &Request) -> Result<Item<Message>, Problem> {
    MESSAGES.found(&owner(request)?, path(request, "PARAMETER")?).await
}

fn owner(request: &Request) -> Result<String, Problem> {
    claim(request, "sub").ok_or_else(|| Problem::unauthorized("Bearer", "This needs a token."))
}

#[cfg(test)]
mod tests {
    use testbed::contract;

    use super::*;

    #[tokio::test]
    async fn answers_its_events() {
        testbed::replay("NAME", endpoint()).await;
    }

    #[test]
    fn its_types_are_those_of_the_contract() {
        contract::of_request::<NewMessage>("TABLENew");
        contract::of_request::<Change>("TABLEChange");
        contract::of_answer::<Message>("TABLEItem");
    }
}
