//! `/madeseats`: reserves a seat for the caller.

use std::{env, process::ExitCode};

use aws_sdk_dynamodb::{Client, operation::put_item::PutItemError, types::AttributeValue};
use handler::{
    Problem, Request, Resource, Response, body, claim,
    http::{HeaderValue, StatusCode, header::LOCATION},
    json, post,
};
use serde::{Deserialize, Serialize};

static DYNAMODB: aws::Lazy<Client> = aws::Lazy::new(Client::new);

fn main() -> ExitCode {
    handler::run(endpoint())
}

fn endpoint() -> Resource {
    post(create)
}

/// The JSON body of a request and an answer.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Reservation {
    seat: u16,
    meal: String,
}

async fn create(request: Request) -> Result<Response, Problem> {
    let passenger = claim(&request, "sub").ok_or_else(|| Problem::unauthorized("Bearer", "Seats need a token."))?;
    let wanted: Reservation = body(&request, 16 * 1024)?;
    if wanted.seat > 300 {
        let detail = "The last seat is 300.";
        return Err(
            Problem::new("no-such-seat", "No such seat", StatusCode::CONFLICT, detail).with_member("seats", 300)
        );
    }
    let table = env::var("SEATS_TABLE").map_err(Problem::misconfigured)?;
    let put = DYNAMODB.get().await.put_item().table_name(table);
    let put = put
        .item("seat", AttributeValue::N(wanted.seat.to_string()))
        .item("passenger", AttributeValue::S(passenger))
        .item("meal", AttributeValue::S(wanted.meal.clone()))
        .item("version", AttributeValue::N("1".into()))
        .condition_expression("attribute_not_exists(seat)");
    if let Err(error) = put.send().await {
        let is_taken = error.as_service_error().is_some_and(PutItemError::is_conditional_check_failed_exception);
        return Err(if is_taken {
            Problem::conflict("The seat is taken.")
        } else {
            Problem::internal().because(aws::Error::from(error))
        });
    }
    let mut response = json(StatusCode::CREATED, &wanted)?;
    let location = HeaderValue::from_str(&format!("/madeseats/{}", wanted.seat));
    response.headers_mut().insert(LOCATION, location.map_err(|error| Problem::internal().because(error))?);
    Ok(response)
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn answers_its_events() {
        testbed::replay("madeseats", super::endpoint()).await;
    }
}
