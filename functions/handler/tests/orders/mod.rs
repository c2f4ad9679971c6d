//! `/shops/{shop}/orders`: an endpoint with a body, a path parameter, and a caller who must authenticate.

use handler::{
    Problem, Request, Resource, Response, body, claim, get,
    http::{HeaderValue, StatusCode, header::LOCATION},
    json, parameters, path,
};
use serde::{Deserialize, Serialize};

pub(crate) fn orders() -> Resource {
    get(list).post(create).at("/shops/{shop}/orders")
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct NewOrder {
    sku: String,
    quantity: u8,
}

#[derive(Serialize)]
struct Order<'a> {
    shop: &'a str,
    customer: String,
    #[serde(flatten)]
    what: NewOrder,
}

async fn create(request: Request) -> Result<Response, Problem> {
    // This is first, so that a caller without a token learns nothing about the order.
    let customer = claim(&request, "sub").ok_or_else(|| Problem::unauthorized("Bearer", "Orders need a token."))?;
    let what: NewOrder = body(&request, 16 * 1024)?;
    if what.quantity > 3 {
        let detail = format!("There are 3 of {} left.", what.sku);
        return Err(Problem::new("out-of-stock", "Out of stock", StatusCode::CONFLICT, detail).with_member("left", 3));
    }
    let mut response = json(StatusCode::CREATED, &Order { shop: path(&request, "shop")?, customer, what })?;
    response.headers_mut().insert(LOCATION, HeaderValue::from_static("orders/1"));
    Ok(response)
}

#[derive(Deserialize, Serialize)]
struct Page {
    #[serde(default)]
    offset: u32,
    limit: Option<u8>,
}

async fn list(request: Request) -> Result<Response, Problem> {
    let page: Page = parameters(&request)?;
    json(StatusCode::OK, &(path(&request, "shop")?, page))
}
