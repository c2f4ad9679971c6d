//! Lookups at name servers of the tests' own. Each answers as its test says.

use domain::{
    base::{Message, MessageBuilder, iana::Rcode, message_builder::AnswerBuilder},
    dep::octseq::{array::Array, builder::Truncate},
    rdata::{A, Aaaa, Cname},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{self, TcpListener},
    sync::mpsc,
};

use super::{query::labels, *};

const FIRST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const SECOND: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

/// What a response has besides the question.
#[derive(Clone)]
enum Part {
    Address(&'static str, u32, IpAddr),
    Alias(&'static str, u32, &'static str),
    Code(Rcode),
    Truncated,
}

use Part::{Address, Alias, Code, Truncated};

type Response = Array<2048>;

fn response(query: &[u8], parts: &[Part]) -> Response {
    let query = Message::from_slice(query).unwrap();
    let message = MessageBuilder::from_target(Response::new()).unwrap();
    let mut message: AnswerBuilder<Response> = message.start_answer(query, Rcode::NOERROR).unwrap();
    for part in parts {
        match *part {
            Address(of, ttl, IpAddr::V4(address)) => message.push((labels(of).unwrap(), ttl, A::new(address))).unwrap(),
            Address(of, ttl, IpAddr::V6(address)) => {
                message.push((labels(of).unwrap(), ttl, Aaaa::new(address))).unwrap();
            }
            Alias(of, ttl, to) => message.push((labels(of).unwrap(), ttl, Cname::new(labels(to).unwrap()))).unwrap(),
            Code(code) => message.header_mut().set_rcode(code),
            Truncated => message.header_mut().set_tc(true),
        }
    }
    message.finish()
}

/// The name in a query, as text.
fn name(query: &[u8]) -> String {
    Message::from_slice(query).unwrap().first_question().unwrap().qname().to_string()
}

/// Starts a name server that sends these responses to its queries, which come from the channel.
async fn server(
    answer: impl Fn(&[u8]) -> Vec<Response> + Send + 'static,
) -> (SocketAddr, mpsc::UnboundedReceiver<Vec<u8>>) {
    server_at(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0), answer).await
}

async fn server_at(
    address: SocketAddr,
    answer: impl Fn(&[u8]) -> Vec<Response> + Send + 'static,
) -> (SocketAddr, mpsc::UnboundedReceiver<Vec<u8>>) {
    let socket = net::UdpSocket::bind(address).await.unwrap();
    let (address, (sender, queries)) = (socket.local_addr().unwrap(), mpsc::unbounded_channel());
    tokio::spawn(async move {
        let mut query = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut query).await {
            let _nobody_counts_them = sender.send(query[..length].to_vec());
            for response in answer(&query[..length]) {
                socket.send_to(response.as_ref(), client).await.unwrap();
            }
        }
    });
    (address, queries)
}

/// A name server with one answer to everything.
async fn always(parts: &'static [Part]) -> (SocketAddr, mpsc::UnboundedReceiver<Vec<u8>>) {
    server(move |query| vec![response(query, parts)]).await
}

fn resolver(system: System) -> Resolver {
    Resolver(Arc::new(Inner { system: OnceLock::from(system), ..Inner::default() }))
}

/// Asks these servers for the IPv4 addresses of `name.test`.
async fn asked(options: &str, servers: &[SocketAddr]) -> (Vec<IpAddr>, u32) {
    let answer = System::with("", options, servers).ask("name.test", Rtype::A).await.unwrap();
    (answer.addresses, answer.ttl)
}

#[tokio::test]
async fn only_a_response_to_the_query_counts() {
    let (forging, _) = server(|query| {
        let right = [Address("name.test", 60, FIRST)];
        let forged = [Address("name.test", 60, SECOND)];
        let mut other_id = query.to_vec();
        other_id[0] ^= 1;
        // The case of letters makes no difference, but others do.
        let mut other_name = query.to_vec();
        other_name[13] ^= 1;
        vec![response(&other_id, &forged), response(&other_name, &forged), response(query, &right)]
    })
    .await;
    assert_eq!(asked("", &[forging]).await, (vec![FIRST], 60));
}

#[tokio::test]
async fn aliases_are_followed_and_nothing_else() {
    const PARTS: &[Part] = &[
        Alias("NAME.test", 60, "alias.example"),
        Alias("alias.example", 20, "last.example"),
        Address("stranger.example", 60, SECOND),
        Address("last.example", 40, FIRST),
        Address("last.example", 40, IpAddr::V6(Ipv6Addr::LOCALHOST)),
    ];
    assert_eq!(asked("", &[always(PARTS).await.0]).await, (vec![FIRST], 20));
}

#[tokio::test]
async fn the_next_server_is_asked_after_a_failure_or_half_a_second() {
    let (silent, _) = server(|_| Vec::new()).await;
    let (right, _) = always(&[Address("name.test", 60, FIRST)]).await;
    for failure in [Rcode::SERVFAIL, Rcode::REFUSED, Rcode::NOTIMP, Rcode::FORMERR] {
        let (failing, _) = server(move |query| vec![response(query, &[Code(failure)])]).await;
        assert_eq!(asked("", &[failing, right]).await.0, [FIRST], "{failure}");
    }
    let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(asked("", &[closed, silent, right]).await.0, [FIRST]);
    let (malformed, _) = server(|query| {
        let mut cut = response(query, &[Address("name.test", 60, SECOND)]);
        cut.truncate(cut.as_ref().len() - 1);
        vec![cut]
    })
    .await;
    assert_eq!(asked("", &[malformed, right]).await.0, [FIRST]);
}

#[tokio::test]
async fn a_server_is_asked_as_often_as_the_options_say() {
    let (failing, mut queries) = always(&[Code(Rcode::SERVFAIL)]).await;
    for (options, attempts) in [("", 2), ("options attempts:1", 1), ("options attempts:4", 4)] {
        let error = System::with("", options, &[failing]).ask("name.test", Rtype::A).await.unwrap_err();
        assert_eq!(error.to_string(), "the name server answered SERVFAIL");
        for _ in 0..attempts {
            assert!(queries.try_recv().is_ok());
        }
        assert!(queries.try_recv().is_err(), "{options}");
    }
}

#[tokio::test]
async fn a_response_counts_although_the_query_was_repeated() {
    let socket = net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut query, mut other) = ([0; 512], [0; 512]);
        let (length, client) = socket.recv_from(&mut query).await.unwrap();
        socket.recv_from(&mut other).await.unwrap();
        let response = response(&query[..length], &[Address("name.test", 60, FIRST)]);
        socket.send_to(response.as_ref(), client).await.unwrap();
    });
    assert_eq!(asked("", &[address]).await.0, [FIRST]);
}

#[tokio::test]
async fn what_does_not_fit_into_a_datagram_is_asked_for_over_tcp() {
    // Nobody else has an address there, so the port is free for datagrams, too.
    let tcp = TcpListener::bind("127.77.0.60:0").await.unwrap();
    let cut = [Truncated, Address("name.test", 60, SECOND)];
    let (address, mut queries) = server_at(tcp.local_addr().unwrap(), move |query| vec![response(query, &cut)]).await;
    tokio::spawn(async move {
        while let Ok((mut client, _)) = tcp.accept().await {
            let mut query = vec![0; client.read_u16().await.unwrap().into()];
            client.read_exact(&mut query).await.unwrap();
            let whole = response(&query, &[Address("name.test", 60, FIRST)]);
            client.write_u16(whole.as_ref().len().try_into().unwrap()).await.unwrap();
            client.write_all(whole.as_ref()).await.unwrap();
        }
    });
    assert_eq!(asked("", &[address]).await.0, [FIRST]);
    assert!(queries.try_recv().is_ok());
    assert_eq!(asked("options use-vc", &[address]).await.0, [FIRST]);
    assert!(queries.try_recv().is_err());
}

#[tokio::test]
async fn servers_take_turns_if_the_options_say_so() {
    let (first, _) = always(&[Address("name.test", 60, FIRST)]).await;
    let (second, _) = always(&[Address("name.test", 60, SECOND)]).await;
    for (options, expected) in [("", [FIRST, FIRST, FIRST]), ("options rotate", [FIRST, SECOND, FIRST])] {
        let system = System::with("", options, &[first, second]);
        for expected in expected {
            assert_eq!(system.ask("name.test", Rtype::A).await.unwrap().addresses, [expected], "{options}");
        }
    }
}

const SEARCH: &str = "search example.test corp.test.\noptions attempts:1";

#[tokio::test]
async fn names_are_completed_by_the_search_list() {
    let (address, mut queries) = server(|query| {
        let part = match &*name(query) {
            "a.corp.test" => Address("a.corp.test", 60, FIRST),
            "b.c" => Address("b.c", 60, FIRST),
            "x.corp.test" | "y.z.example.test" => Code(Rcode::SERVFAIL),
            _ => Code(Rcode::NXDOMAIN),
        };
        vec![response(query, &[part])]
    })
    .await;
    for (options, asked_for, names, is_found) in [
        (SEARCH, "a", "a.example.test a.corp.test", true),
        (SEARCH, "a.", "a", false),
        (SEARCH, "b.c", "b.c", true),
        // A zone that fails does not hide the next one.
        (SEARCH, "x", "x.example.test x.corp.test x", false),
        (SEARCH, "y.z", "y.z y.z.example.test y.z.corp.test", false),
        ("search corp.test\noptions ndots:2", "a.b", "a.b.corp.test a.b", false),
        ("search corp.test\ndomain example.test", "a", "a.example.test a", false),
        ("", "a", "a", false),
        ("search .", "a", "a", false),
    ] {
        let found = System::with("", options, &[address]).ask(asked_for, Rtype::A).await;
        assert_eq!(found.is_ok_and(|answer| !answer.addresses.is_empty()), is_found, "{asked_for}");
        for expected in names.split(' ') {
            assert_eq!(queries.try_recv().map(|query| name(&query)).as_deref(), Ok(expected), "{asked_for}");
        }
        assert!(queries.try_recv().is_err(), "{asked_for}");
    }
}

#[test]
fn the_files_are_read_as_the_c_library_does() {
    let hosts =
        "# 192.0.2.9 a.test\n192.0.2.1\tA.test b.test # c.test\nnonsense b.test\n::1 a.test\n\n192.0.2.2 b.test";
    let system = System::with(hosts, "", &[]);
    assert_eq!(system.known("a.TEST"), [FIRST, IpAddr::V6(Ipv6Addr::LOCALHOST)]);
    assert_eq!(system.known("b.test."), [FIRST, SECOND]);
    assert_eq!(system.known("192.0.2.1"), [FIRST]);
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    assert_eq!((system.known("localhost"), system.known("a.LocalHost.")), (loopback.to_vec(), loopback.to_vec()));
    for unknown in ["c.test", "test", "#", "notlocalhost", "localhost.test", ""] {
        assert!(system.known(unknown).is_empty(), "{unknown}");
    }
    let servers = |resolv_conf: &str| -> Vec<String> {
        System::new(String::new(), resolv_conf, 53).servers.iter().map(ToString::to_string).collect()
    };
    let lines = "nameserver 192.0.2.1\nnameserver x\n;nameserver 192.0.2.8\nnonsense\nnameserver 2001:db8::1\nnameserver 192.0.2.3\nnameserver 192.0.2.4";
    assert_eq!(servers(lines), ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.3:53"]);
    assert_eq!(servers("")[0], "127.0.0.1:53");
}

#[tokio::test]
async fn only_one_family_is_asked_for_if_the_options_say_so() {
    let (address, mut queries) = always(&[Address("name.test", 60, FIRST)]).await;
    let resolver = resolver(System::with("", "options no-aaaa", &[address]));
    assert_eq!(resolver.lookup("name.test").await.unwrap(), [FIRST]);
    assert!(queries.try_recv().is_ok() && queries.try_recv().is_err());
}

#[tokio::test]
async fn an_answer_is_cached_for_its_ttl_and_shared_before() {
    for (ttl, queries_for_three) in [(60, 1), (0, 2)] {
        let (address, mut queries) =
            server(move |query| vec![response(query, &[Address("name.test", ttl, FIRST)])]).await;
        let resolver = resolver(System::with("", "options no-aaaa", &[address]));
        let (one, other) = tokio::join!(resolver.lookup("name.test"), resolver.lookup("name.test"));
        let later = resolver.lookup("name.test").await;
        for found in [one, other, later] {
            assert_eq!(found.unwrap(), [FIRST]);
        }
        for _ in 0..queries_for_three {
            assert!(queries.try_recv().is_ok());
        }
        assert!(queries.try_recv().is_err(), "{ttl}");
    }
}

#[tokio::test]
async fn a_lookup_goes_on_if_the_caller_gives_up() {
    let (address, mut queries) = always(&[Address("name.test", 60, FIRST)]).await;
    let resolver = resolver(System::with("", "options no-aaaa", &[address]));
    drop(resolver.start("name.test", Rtype::A, &resolver.0.v4));
    assert!(queries.recv().await.is_some());
    assert_eq!(resolver.lookup("name.test").await.unwrap(), [FIRST]);
    assert!(queries.try_recv().is_err());
}

#[tokio::test]
async fn an_error_says_the_name_and_the_cause() {
    let (missing, _) = always(&[Code(Rcode::NXDOMAIN)]).await;
    let (failing, _) = always(&[Code(Rcode::SERVFAIL)]).await;
    for (server, expected) in [
        (missing, "name.test has no A record"),
        (failing, "name.test could not be resolved: the name server answered SERVFAIL"),
    ] {
        let resolver = resolver(System::with("", "options no-aaaa", &[server]));
        let error = finished(resolver.start("name.test", Rtype::A, &resolver.0.v4)).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_name_is_made_of_any_labels() {
    for name in ["a_b.c_.example", "a-.example", "xn--bcher-kva.example", &"a".repeat(63)] {
        assert_eq!(labels(name).unwrap().to_string(), name);
    }
    let many = ["a.b"; 70].join(".");
    for name in ["", ".", "a..example", &"a".repeat(64), &"a".repeat(200), &"a".repeat(300), &many] {
        assert!(labels(name).is_none(), "{name}");
    }
}
