//! Bytes in pieces, so that a large answer needs no buffer of its size.
//!
//! glibc keeps a large buffer in the heap when it is free, and often finds no place in it for the next one, which is of
//! another size. A piece has a place wherever something was freed, and is freed itself as soon as it is sent.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io::{self, Write},
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use lambda_http::Error;
use lambda_runtime_api_client::body::Body as Sent;

/// Below the size from which glibc maps each allocation by itself.
pub(crate) const MOST: usize = 64 * 1024;

/// What was written to it, as the body of a request.
#[derive(Default)]
pub(crate) struct Pieces {
    /// Each of `MOST` bytes.
    full: VecDeque<Vec<u8>>,
    last: Vec<u8>,
}

impl Pieces {
    /// How many bytes there are.
    pub(crate) fn len(&self) -> usize {
        self.full.len() * MOST + self.last.len()
    }

    /// All of it as one text.
    ///
    /// # Errors
    ///
    /// If it is not UTF-8.
    pub(crate) fn into_text(mut self) -> Result<String, Error> {
        let mut text = Vec::with_capacity(self.len());
        self.full.iter().for_each(|piece| text.extend_from_slice(piece));
        text.append(&mut self.last);
        Ok(String::from_utf8(text)?)
    }
}

impl<T: Into<Vec<u8>>> From<T> for Pieces {
    /// In one piece, whatever its size.
    fn from(bytes: T) -> Self {
        Self { full: VecDeque::new(), last: bytes.into() }
    }
}

impl From<Pieces> for Sent {
    fn from(pieces: Pieces) -> Self {
        if pieces.full.is_empty() { Self::from(pieces.last) } else { Self::new(pieces) }
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.last.len() >= MOST {
            self.full.push_back(mem::replace(&mut self.last, Vec::with_capacity(MOST)));
        }
        let (now, _) = bytes.split_at(bytes.len().min(MOST - self.last.len()));
        self.last.extend_from_slice(now);
        Ok(now.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.full.pop_front().or_else(|| Some(mem::take(&mut self.last)).filter(|last| !last.is_empty()));
        Poll::Ready(next.map(|piece| Ok(Frame::data(piece.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.full.is_empty() && self.last.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http_body_util::BodyExt;

    use super::*;

    #[test]
    fn what_is_written_is_read_in_pieces_of_a_known_size() {
        for size in [0, 1, MOST - 1, MOST, MOST + 1, 3 * MOST, 3 * MOST + 7] {
            let all: Vec<u8> = (0..size).map(|at| b'a' + u8::try_from(at % 26).unwrap()).collect();
            let written = || {
                let mut pieces = Pieces::default();
                for part in all.chunks(1000) {
                    pieces.write_all(part).unwrap();
                }
                pieces
            };
            let mut pieces = written();
            assert_eq!((pieces.len(), pieces.size_hint().exact()), (size, Some(size as u64)));
            let mut read = Vec::new();
            while let Some(frame) = pieces.frame().now_or_never().unwrap() {
                let piece = frame.unwrap().into_data().unwrap();
                assert!((1..=MOST).contains(&piece.len()));
                read.extend_from_slice(&piece);
                assert_eq!(pieces.size_hint().exact(), Some((size - read.len()) as u64));
            }
            assert!(read == all && pieces.is_end_stream(), "{size}");
            assert_eq!(written().into_text().unwrap().as_bytes(), all);
        }
        assert_eq!(Pieces::from("é".to_owned()).into_text().unwrap(), "é");
    }
}
