//! Entity tags: RFC 9110, section 8.8.3.

/// Whether an `If-None-Match` lists `etag`, by weak comparison: RFC 9110, section 13.1.2. If so, the caller already has
/// the content, and the answer is 304 without a body.
///
/// ```
/// use handler::lists_etag;
///
/// assert!(lists_etag(br#""0", W/"1,2""#, br#""1,2""#));
/// assert!(lists_etag(b"*", br#""1,2""#));
/// assert!(!lists_etag(br#""1", "2""#, br#""1,2""#));
/// ```
#[must_use]
pub fn lists_etag(mut etags: &[u8], etag: &[u8]) -> bool {
    loop {
        let start = etags.iter().position(|byte| !b" \t,".contains(byte));
        etags = start.map_or(&[][..], |start| &etags[start..]);
        let tag = opaque(etags);
        // A tag may hold a comma.
        let end = match tag.split_first() {
            None => return false,
            Some((b'"', rest)) => rest.iter().position(|byte| *byte == b'"').map(|end| end + 2),
            Some(_) => tag.iter().position(|byte| b" \t,".contains(byte)),
        };
        let (tag, rest) = tag.split_at(end.unwrap_or(tag.len()));
        if tag == b"*" || tag == opaque(etag) {
            return true;
        }
        etags = rest;
    }
}

/// An entity tag without the prefix of a weak tag: section 8.8.3.2.
fn opaque(etag: &[u8]) -> &[u8] {
    etag.strip_prefix(b"W/").unwrap_or(etag)
}
