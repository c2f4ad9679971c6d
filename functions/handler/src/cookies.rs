//! Cookies, with the feature `cookie`.

use cookie::{Cookie, CookieJar};
use lambda_http::http::{
    HeaderValue,
    header::{COOKIE, SET_COOKIE},
};

use crate::{Problem, Request, Response};

/// Returns the cookies of the request, with their values decoded. What is no cookie is left out. Of several with the same
/// name, the first one counts, because browsers begin with the most specific path (RFC 6265, section 5.4). Anybody can
/// send any cookie: a session's id must be one that cannot be guessed.
///
/// ```
/// use handler::{Problem, Request, Response, cookie::{Cookie, SameSite}, cookies, set_cookies};
///
/// async fn visit(request: Request) -> Result<Response, Problem> {
///     let mut jar = cookies(&request);
///     let visits = jar.get("visits").and_then(|cookie| cookie.value().parse().ok()).unwrap_or(0_u32);
///     let visits = (visits + 1).to_string();
///     jar.add(Cookie::build(("visits", visits)).path("/").secure(true).http_only(true).same_site(SameSite::Lax));
///     let mut response = Response::default();
///     set_cookies(&mut response, &jar)?;
///     Ok(response)
/// }
/// # let mut request = Request::default();
/// # request.headers_mut().insert("cookie", "visits=6".parse()?);
/// # let response = futures_util::FutureExt::now_or_never(visit(request)).unwrap()?;
/// # assert_eq!(response.headers()["set-cookie"], "visits=7; HttpOnly; SameSite=Lax; Secure; Path=/");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn cookies(request: &Request) -> CookieJar {
    let mut jar = CookieJar::new();
    for line in request.headers().get_all(COOKIE).iter().filter_map(|line| line.to_str().ok()) {
        for cookie in Cookie::split_parse_encoded(line.to_owned()).flatten() {
            if jar.get(cookie.name()).is_none() {
                jar.add_original(cookie);
            }
        }
    }
    jar
}

/// Adds a `Set-Cookie` to the response for each cookie that was added to the jar or removed from it, in the order of their names,
/// percent-encoded. To be removed, a cookie needs the path and the domain with which it was set.
///
/// Two such headers cannot be joined. VPC Lattice, and a load balancer whose target group has multi-value headers off,
/// take one. Behind these, an answer with two cookies becomes an `internal` problem, and the log says why: set one cookie
/// that holds both values, or turn `lambda.multi_value_headers.enabled` on
/// (<https://docs.aws.amazon.com/elasticloadbalancing/latest/application/lambda-functions.html>).
///
/// # Errors
///
/// Returns an `internal` problem if a path or a domain is no text that a header can hold.
pub fn set_cookies(response: &mut Response, jar: &CookieJar) -> Result<(), Problem> {
    // The jar has no order, and a case is compared with the whole text.
    let mut changed: Vec<_> = jar.delta().collect();
    changed.sort_by(|one, other| one.name().cmp(other.name()));
    for cookie in changed {
        let value = HeaderValue::try_from(cookie.encoded().to_string());
        let value = value.map_err(|error| Problem::internal().because(error))?;
        response.headers_mut().append(SET_COOKIE, value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_read_as_browsers_send_them() {
        let mut request = Request::default();
        for line in ["a=1; b=x%20%3B; ;c; d=\"q\"; a=2;e=", "f=f=f; b=other"] {
            request.headers_mut().append(COOKIE, line.parse().unwrap());
        }
        let jar = cookies(&request);
        for (name, value) in [
            ("a", Some("1")),
            ("b", Some("x ;")),
            ("c", None),
            ("d", Some("\"q\"")),
            ("e", Some("")),
            ("f", Some("f=f")),
        ] {
            assert_eq!(jar.get(name).map(Cookie::value), value, "{name}");
        }
        let mut response = Response::default();
        set_cookies(&mut response, &jar).unwrap();
        assert!(response.headers().is_empty());
    }

    #[test]
    fn cookies_are_set_in_the_order_of_their_names() {
        let mut jar = CookieJar::new();
        for name in ["h", "c", "f", "a", "g", "b", "e", "d"] {
            jar.add((name, ""));
        }
        let mut response = Response::default();
        set_cookies(&mut response, &jar).unwrap();
        let set: Vec<_> = response.headers().get_all(SET_COOKIE).iter().map(|set| set.to_str().unwrap()).collect();
        assert_eq!(set.concat(), "a=b=c=d=e=f=g=h=");
    }

    #[test]
    fn a_value_cannot_add_an_attribute_or_a_header() {
        let mut jar = CookieJar::new();
        jar.add(("a;b", "x; Domain=example.com\r\nset-cookie: y"));
        let mut response = Response::default();
        set_cookies(&mut response, &jar).unwrap();
        let sent = response.headers()[SET_COOKIE].to_str().unwrap();
        assert!(!sent.contains(';') && !sent.contains(' '), "{sent}");
        jar.add(Cookie::build(("c", "1")).path("/\r\n"));
        assert_eq!(set_cookies(&mut response, &jar).unwrap_err().status(), 500);
    }
}
