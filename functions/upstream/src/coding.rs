//! Removes the codings of a response's body: those of the content (`Content-Encoding`), and those of the transfer
//! (`Transfer-Encoding`), which a server may add though nobody asked for them.

use std::io::{self, Read};

use flate2::bufread::MultiGzDecoder;
use handler::http::{
    HeaderMap, HeaderName,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, TRANSFER_ENCODING},
};

use crate::error::Failure;

/// The codings of a response, of which each is gzip.
pub(crate) struct Codings(usize);

/// More than one layer is a mistake of the server's. Each one costs time.
const MAX_LAYERS: usize = 4;

impl Codings {
    /// The codings of the response that has `headers`. The HTTP client has already removed a last `chunked`.
    ///
    /// # Errors
    ///
    /// Fails if there is another coding than gzip: it cannot be decoded, and its bytes do not match the content type.
    /// Also fails if it is not clear how long the body is (RFC 9112, section 6.3).
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Failure> {
        let mut transfer = of_transfer(headers)?;
        let mut codings = list(headers, CONTENT_ENCODING);
        codings.append(&mut transfer);
        codings.retain(|coding| !matches!(coding.as_str(), "" | "identity"));
        let known = codings.iter().all(|coding| matches!(coding.as_str(), "gzip" | "x-gzip"));
        if known && codings.len() <= MAX_LAYERS { Ok(Self(codings.len())) } else { Err(unasked()) }
    }

    /// Checks that a body that is passed on as it is has only the codings that `Content-Encoding` tells its reader.
    ///
    /// # Errors
    ///
    /// Fails if the transfer has others, which no reader is told, or if it is not clear how long the body is.
    #[cfg(feature = "stream")]
    pub(crate) fn none_of_the_transfer(headers: &HeaderMap) -> Result<(), Failure> {
        let is_none = of_transfer(headers)?.iter().all(|coding| matches!(coding.as_str(), "" | "identity"));
        is_none.then_some(()).ok_or_else(unasked)
    }

    /// The most bytes that a body of at most `limit` bytes may have before it is decoded. What cannot be compressed
    /// becomes longer, by an eighth at most.
    pub(crate) fn encoded(&self, limit: usize) -> usize {
        if self.0 == 0 { limit } else { limit + limit / 8 + 1024 }
    }

    /// Decodes `body`.
    ///
    /// # Errors
    ///
    /// Fails if a layer is no gzip from its first to its last byte, or if there are more than `limit` bytes.
    pub(crate) fn decode(&self, mut body: Vec<u8>, limit: usize) -> Result<Vec<u8>, Failure> {
        for layer in (0..self.0).rev() {
            // Many servers say that an empty body is in gzip.
            if body.is_empty() {
                break;
            }
            let most = Self(layer).encoded(limit);
            body = gunzip(&body, most).map_err(Failure::unreachable)?.ok_or(Failure::TooLarge(limit))?;
        }
        Ok(body)
    }
}

/// The codings of the transfer, without a last `chunked`.
fn of_transfer(headers: &HeaderMap) -> Result<Vec<String>, Failure> {
    let mut transfer = list(headers, TRANSFER_ENCODING);
    let lasts_to_the_end = !transfer.is_empty() && transfer.pop_if(|coding| coding == "chunked").is_none();
    if lasts_to_the_end && headers.contains_key(CONTENT_LENGTH) {
        return Err(Failure::unusable("the response has a length, and a transfer encoding that ends with it"));
    }
    Ok(transfer)
}

fn unasked() -> Failure {
    Failure::unusable("the response is in an encoding that was not asked for")
}

/// The members of a list in a header, in lower case. The list may have several lines and empty members (RFC 9110,
/// section 5.6.1). Other white space than spaces and tabs is part of a member, as it is for hyper.
fn list(headers: &HeaderMap, name: HeaderName) -> Vec<String> {
    let lines = headers.get_all(name).iter().map(|line| String::from_utf8_lossy(line.as_bytes()).to_ascii_lowercase());
    lines
        .flat_map(|line| line.split(',').map(|member| member.trim_matches([' ', '\t']).to_owned()).collect::<Vec<_>>())
        .collect()
}

/// Decodes all members of a gzip file (RFC 1952, section 2.2). Whatever follows them is an error, zeros too. `None` if
/// there are more than `limit` bytes.
fn gunzip(body: &[u8], limit: usize) -> io::Result<Option<Vec<u8>>> {
    let mut decoded = Vec::new();
    // One byte more shows that there are too many. It also makes the decoder check the end.
    MultiGzDecoder::new(body).take(limit as u64 + 1).read_to_end(&mut decoded)?;
    Ok((decoded.len() <= limit).then_some(decoded))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, GzBuilder, write::GzEncoder};

    use super::*;

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn the_limit_counts_decoded_bytes_of_all_members() {
        let body = [0; 1000];
        let members = [gzip(&body[..600]), gzip(&[]), gzip(&body[600..])].concat();
        for (codings, encoded) in [(0, body.to_vec()), (1, gzip(&body)), (1, members.clone()), (2, gzip(&members))] {
            let codings = Codings(codings);
            assert_eq!(codings.decode(encoded.clone(), 1000).unwrap(), body);
            let fails = codings.decode(encoded, 999);
            assert!(codings.0 == 0 || matches!(fails, Err(Failure::TooLarge(999))));
        }
    }

    #[test]
    fn no_layer_may_be_much_larger_than_the_limit() {
        // Empty members: nothing remains of them, but only after a million bytes in between.
        let nothing = gzip(&[]);
        let bomb = gzip(&nothing.repeat(1_000_000 / nothing.len()));
        assert!(bomb.len() < 100_000);
        assert!(matches!(Codings(2).decode(bomb.clone(), 100_000), Err(Failure::TooLarge(100_000))));
        assert_eq!(Codings(2).decode(bomb, 1_000_000).unwrap(), b"");
    }

    #[test]
    fn what_cannot_be_compressed_may_be_as_long_as_the_limit() {
        let mut random = fastrand::Rng::with_seed(7);
        let body: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(100_000).collect();
        for level in [Compression::none(), Compression::fast(), Compression::best()] {
            let mut encoder = GzEncoder::new(Vec::new(), level);
            encoder.write_all(&body).unwrap();
            let longer = encoder.finish().unwrap();
            assert!(longer.len() > body.len() && longer.len() <= Codings(1).encoded(body.len()));
            assert_eq!(Codings(1).decode(longer, body.len()).unwrap(), body);
        }
    }

    #[test]
    fn a_member_that_ends_early_is_refused_wherever_it_ends() {
        for level in [Compression::none(), Compression::best()] {
            let header = GzBuilder::new().extra([7; 5]).filename("name").comment("comment");
            let mut encoder = header.write(Vec::new(), level);
            encoder.write_all(b"second, second, second").unwrap();
            let (first, second) = (gzip(b"first, "), encoder.finish().unwrap());
            let both = [&first[..], &second].concat();
            assert_eq!(Codings(1).decode(both.clone(), 100).unwrap(), b"first, second, second, second");
            for end in (1..both.len()).filter(|end| *end != first.len()) {
                assert!(Codings(1).decode(both[..end].to_vec(), 100).is_err(), "{end} of {} bytes", both.len());
            }
            for more in 0..=u8::MAX {
                assert!(Codings(1).decode([&both[..], &[more]].concat(), 100).is_err(), "{more} after the end");
            }
        }
    }

    #[test]
    fn many_layers_are_refused() {
        let codings = |value: &str| Codings::of(&HeaderMap::from_iter([(CONTENT_ENCODING, value.parse().unwrap())]));
        assert!(codings("gzip, gzip, gzip, gzip").is_ok());
        assert!(codings("gzip, gzip, gzip, gzip, gzip").is_err());
    }
}
