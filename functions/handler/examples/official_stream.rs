//! What `stream_probe` does with `bytes`, by AWS's own crate: `make growth` compares the two.

use std::convert::Infallible;

use futures_util::stream;
use http_body_util::StreamBody;
use lambda_http::{Error, Request, RequestExt, Response, run_with_streaming_response, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    run_with_streaming_response(service_fn(probe)).await
}

type Piece = Result<http_body::Frame<bytes::Bytes>, Infallible>;

async fn probe(
    request: Request,
) -> Result<Response<StreamBody<impl stream::Stream<Item = Piece> + Send + 'static>>, Error> {
    let bytes: usize = request.query_string_parameters().first("bytes").unwrap_or_default().parse()?;
    let piece = bytes::Bytes::from(vec![b'x'; 64 * 1024]);
    let pieces = (0..bytes).step_by(piece.len()).map(move |sent| {
        let length = piece.len().min(bytes - sent);
        Ok(http_body::Frame::data(piece.slice(..length)))
    });
    Ok(Response::new(StreamBody::new(stream::iter(pieces))))
}
