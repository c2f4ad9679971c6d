//! The minimum on Lambda: a process that sends a fixed answer to every invocation, over a plain socket. It parses no
//! event, so no useful function can be quicker.

use std::{
    env,
    error::Error,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
};

const ANSWER: &str = concat!(
    r#"{"statusCode":200,"headers":{"content-type":"text/plain; charset=utf-8"},"#,
    r#""body":"Hello, world!","isBase64Encoded":false}"#
);

fn main() -> Result<(), Box<dyn Error>> {
    let api: SocketAddr = env::var("AWS_LAMBDA_RUNTIME_API")?.parse()?;
    let connection = TcpStream::connect(api)?;
    // Each request is one write. Nagle's algorithm would only delay it.
    connection.set_nodelay(true)?;
    let mut connection = BufReader::new(connection);
    let next = format!("GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nhost: {api}\r\n\r\n");
    loop {
        let id = call(&mut connection, &next)?;
        let response = format!(
            "POST /2018-06-01/runtime/invocation/{id}/response HTTP/1.1\r\n\
             host: {api}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{ANSWER}",
            ANSWER.len()
        );
        call(&mut connection, &response)?;
    }
}

/// Sends `request`, reads the whole response, and returns its request id.
fn call(connection: &mut BufReader<TcpStream>, request: &str) -> io::Result<String> {
    connection.get_mut().write_all(request.as_bytes())?;
    let mut id = String::new();
    let mut length = 0;
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        if connection.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (name, value) = line.trim_end().split_once(": ").unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().map_err(io::Error::other)?,
            "lambda-runtime-aws-request-id" => value.clone_into(&mut id),
            _ => {}
        }
    }
    io::copy(&mut connection.take(length), &mut io::sink())?;
    Ok(id)
}
