//! One question to one name server, as RFC 1035 has it.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use domain::{
    base::{Message, MessageBuilder, Name, Rtype, iana::Rcode, message_builder::StreamTarget},
    dep::octseq::array::Array,
    rdata::{A, Aaaa},
};
use rustls::crypto::ring;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

/// Of a message in a datagram, without EDNS.
const MOST_BYTES: usize = 512;

/// The addresses that a name has in one family, and for how many seconds. A name without any may not exist at all.
#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) ttl: u32,
}

/// `name` in a message. A URL's host is ASCII, but need not be a host name of RFC 952: a label may have any bytes, such
/// as `_` (RFC 2181, section 11). `None` if a label is empty or too long, or the whole is.
pub(super) fn labels(name: &str) -> Option<Name<Vec<u8>>> {
    let mut octets = Vec::with_capacity(name.len() + 2);
    for label in name.split('.') {
        octets.push(u8::try_from(label.len()).ok()?);
        octets.extend(label.as_bytes());
    }
    octets.push(0);
    Name::from_octets(octets).ok()
}

/// Asks `server` for the addresses of `name` that records of this type have. A response that does not fit into a datagram
/// is asked for again over TCP.
///
/// # Errors
///
/// If the server cannot be reached or does not know whether there are any. Without a response, this waits for ever.
pub(super) async fn ask(server: SocketAddr, name: &Name<Vec<u8>>, of: Rtype, over_tcp: bool) -> io::Result<Answer> {
    let query = query(name, of)?;
    if !over_tcp {
        let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        // The kernel takes a port at random, and drops what others than the server send.
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(server).await?;
        socket.send(query.as_dgram_slice()).await?;
        let mut datagram = [0; MOST_BYTES];
        loop {
            let length = socket.recv(&mut datagram).await?;
            // What is no response to this query may be forged: the right one can still come.
            if let Some(response) = response(&datagram[..length], &query) {
                if response.header().tc() {
                    break;
                }
                return read(response, of);
            }
        }
    }
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(query.as_stream_slice()).await?;
    let mut message = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut message).await?;
    read(response(&message, &query).ok_or_else(malformed)?, of)
}

type Query = StreamTarget<Array<MOST_BYTES>>;

fn query(name: &Name<Vec<u8>>, of: Rtype) -> io::Result<Query> {
    let mut id = [0; 2];
    ring::default_provider().secure_random.fill(&mut id).map_err(|_| io::Error::other("no random numbers"))?;
    let mut message =
        MessageBuilder::from_target(Query::new(Array::new()).map_err(io::Error::other)?).map_err(io::Error::other)?;
    message.header_mut().set_id(u16::from_ne_bytes(id));
    message.header_mut().set_rd(true);
    let mut message = message.question();
    message.push((name, of)).map_err(io::Error::other)?;
    Ok(message.finish())
}

/// `message`, if it is a response to `query`: it has its id and its question.
fn response<'a>(message: &'a [u8], query: &Query) -> Option<&'a Message<[u8]>> {
    let message = Message::from_slice(message).ok()?;
    message.is_answer(Message::from_slice(query.as_dgram_slice()).ok()?).then_some(message)
}

fn read(response: &Message<[u8]>, of: Rtype) -> io::Result<Answer> {
    match response.header().rcode() {
        Rcode::NOERROR | Rcode::NXDOMAIN => answer(response, of).ok_or_else(malformed),
        code => Err(io::Error::other(format!("the name server answered {code}"))),
    }
}

/// What `response` says, unless it is malformed.
fn answer(response: &Message<[u8]>, of: Rtype) -> Option<Answer> {
    // Behind the aliases.
    let name = response.canonical_name()?;
    let mut answer = Answer { addresses: Vec::new(), ttl: u32::MAX };
    for record in response.answer().ok()? {
        let record = record.ok()?;
        // An alias counts, too.
        answer.ttl = answer.ttl.min(record.ttl().as_secs());
        if record.owner() != name || record.rtype() != of {
            continue;
        }
        answer.addresses.push(if of == Rtype::A {
            record.to_record::<A>().ok()??.data().addr().into()
        } else {
            record.to_record::<Aaaa>().ok()??.data().addr().into()
        });
    }
    Some(answer)
}

fn malformed() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "the name server's response is malformed")
}
