//! `/madeseats/{seat}`: the caller's reservation, whose meal can be changed.

use std::{env, process::ExitCode};

use aws_sdk_dynamodb::{Client, operation::update_item::UpdateItemError, types::AttributeValue};
use handler::{
    Problem, Request, Resource, Response, body, claim, get,
    http::{
        HeaderValue, StatusCode,
        header::{ETAG, IF_MATCH},
    },
    json, path,
};
use serde::{Deserialize, Serialize};

static DYNAMODB: aws::Lazy<Client> = aws::Lazy::new(Client::new);

fn main() -> ExitCode {
    handler::run(endpoint())
}

fn endpoint() -> Resource {
    get(read).put(replace).at("/madeseats/{seat}")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    meal: String,
}

#[derive(Serialize)]
struct Reservation {
    seat: u16,
    meal: String,
}

async fn read(request: Request) -> Result<Response, Problem> {
    let (seat, passenger) = asked(&request)?;
    let item = DYNAMODB.get().await.get_item().table_name(table()?).key("seat", number(seat)).send().await;
    let item = item.map_err(|error| Problem::internal().because(aws::Error::from(error)))?.item.unwrap_or_default();
    let member = |name: &str| item.get(name).and_then(|value| value.as_s().or(value.as_n()).ok()).cloned();
    match (member("passenger"), member("meal"), member("version")) {
        (Some(of), Some(meal), Some(version)) if of == passenger => answer(seat, meal, &version),
        _ => Err(Problem::not_found("The caller has no such seat.")),
    }
}

async fn replace(request: Request) -> Result<Response, Problem> {
    let (seat, passenger) = asked(&request)?;
    let Some(version) = request.headers().get(IF_MATCH) else {
        return Err(Problem::precondition_required("If-Match must name the ETag of the reservation to change."));
    };
    let changed = || Problem::precondition_failed("The reservation is another one by now.");
    let version =
        version.to_str().ok().and_then(|etag| etag.trim_matches('"').parse::<u32>().ok()).ok_or_else(changed)?;
    let Change { meal } = body(&request, 16 * 1024)?;
    let update = DYNAMODB.get().await.update_item().table_name(table()?).key("seat", number(seat));
    let update = update
        .update_expression("SET meal = :meal, version = :next")
        .condition_expression("passenger = :passenger AND version = :version")
        .expression_attribute_values(":meal", AttributeValue::S(meal.clone()))
        .expression_attribute_values(":passenger", AttributeValue::S(passenger))
        .expression_attribute_values(":version", number(version))
        .expression_attribute_values(":next", number(u64::from(version) + 1));
    match update.send().await {
        Ok(_) => answer(seat, meal, &(u64::from(version) + 1).to_string()),
        Err(error) if error.as_service_error().is_some_and(UpdateItemError::is_conditional_check_failed_exception) => {
            Err(changed())
        }
        Err(error) => Err(Problem::internal().because(aws::Error::from(error))),
    }
}

/// The seat, and the caller who asks for it.
fn asked(request: &Request) -> Result<(u16, String), Problem> {
    let passenger = claim(request, "sub").ok_or_else(|| Problem::unauthorized("Bearer", "Seats need a token."))?;
    let seat = path(request, "seat")?.parse().map_err(|_| Problem::not_found("A seat is a number."))?;
    Ok((seat, passenger))
}

fn table() -> Result<String, Problem> {
    env::var("SEATS_TABLE").map_err(Problem::misconfigured)
}

fn number(number: impl Into<u64>) -> AttributeValue {
    AttributeValue::N(number.into().to_string())
}

fn answer(seat: u16, meal: String, version: &str) -> Result<Response, Problem> {
    let mut response = json(StatusCode::OK, &Reservation { seat, meal })?;
    let etag = HeaderValue::from_str(&format!("\"{version}\"")).map_err(|error| Problem::internal().because(error))?;
    response.headers_mut().insert(ETAG, etag);
    Ok(response)
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn answers_its_events() {
        testbed::replay("madeseat", super::endpoint()).await;
    }
}
