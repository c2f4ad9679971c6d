//! `/madeconsent`: keeps in two cookies what a visitor agrees to, and redirects to a picture.

use std::process::ExitCode;

use handler::{
    Problem, Request, Resource, Response, body, get,
    http::{
        HeaderValue, StatusCode,
        header::{CONTENT_TYPE, LOCATION, SET_COOKIE},
    },
};
use serde::Deserialize;

/// A GIF of one transparent pixel.
const PIXEL: &[u8] =
    b"GIF89a\x01\0\x01\0\x80\0\0\xff\xff\xff\0\0\0!\xf9\x04\x01\0\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;";

fn main() -> ExitCode {
    handler::run(endpoint())
}

fn endpoint() -> Resource {
    get(read).post(create)
}

/// The JSON body of a request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Consent {
    analytics: bool,
}

async fn read(_request: Request) -> Result<Response, Problem> {
    let mut response = Response::new(PIXEL.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("image/gif"));
    Ok(response)
}

async fn create(request: Request) -> Result<Response, Problem> {
    let Consent { analytics } = body(&request, 16 * 1024)?;
    let analytics = if analytics { "analytics=on; Secure; HttpOnly" } else { "analytics=off; Secure; HttpOnly" };
    let mut response = Response::default();
    *response.status_mut() = StatusCode::SEE_OTHER;
    let headers = response.headers_mut();
    headers.insert(LOCATION, HeaderValue::from_static("/madeconsent"));
    headers.append(SET_COOKIE, HeaderValue::from_static("asked=yes; Secure"));
    headers.append(SET_COOKIE, HeaderValue::from_static(analytics));
    Ok(response)
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn answers_its_events() {
        testbed::replay("madeconsent", super::endpoint()).await;
    }
}
