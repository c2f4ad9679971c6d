//! What the machine says about names: `/etc/hosts` and `/etc/resolv.conf`.

use std::{
    fs, io,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use domain::base::{Name, Rtype};
use futures_util::{StreamExt, stream::FuturesUnordered};
use resolv_conf::Config;
use tokio::time::timeout;

use super::query::{self, Answer};

const DNS_PORT: u16 = 53;
/// A datagram can be lost. The next one must go out while the attempt that waits for the answer has time left, so this
/// stands for the option `timeout`, which counts in seconds.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// After the last query.
const GIVE_UP_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct System {
    hosts: String,
    pub(super) servers: Vec<SocketAddr>,
    search: Vec<String>,
    dots: usize,
    attempts: usize,
    rotates: bool,
    only_tcp: bool,
    only_v4: bool,
    turn: AtomicUsize,
}

impl System {
    /// Reads the files. One that is missing is as good as an empty one.
    pub(super) fn read() -> Self {
        let text = |file| String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned();
        Self::new(text("/etc/hosts"), &text("/etc/resolv.conf"), DNS_PORT)
    }

    /// With these servers instead of those in `resolv_conf`.
    #[cfg(test)]
    pub(super) fn with(hosts: &str, resolv_conf: &str, servers: &[SocketAddr]) -> Self {
        Self { servers: servers.to_vec(), ..Self::new(hosts.to_owned(), resolv_conf, DNS_PORT) }
    }

    /// resolv.conf(5), without the machine's own domain as the default of `search`: no function has one. What cannot be
    /// read is ignored, as in the C library.
    pub(super) fn new(hosts: String, resolv_conf: &str, port: u16) -> Self {
        let (mut config, _ignored) = Config::parse_with_errors(resolv_conf.as_bytes());
        config.glibc_normalize();
        let servers = config.get_nameservers_or_local();
        Self {
            hosts,
            servers: servers.into_iter().map(|server| SocketAddr::new(server.into(), port)).collect(),
            search: config.get_last_search_or_domain().map(|suffix| suffix.trim_end_matches('.').to_owned()).collect(),
            dots: config.ndots.try_into().unwrap_or(usize::MAX),
            attempts: config.attempts.clamp(1, 5).try_into().unwrap_or(1),
            rotates: config.rotate,
            only_tcp: config.use_vc,
            only_v4: config.no_aaaa,
            turn: AtomicUsize::new(0),
        }
    }

    /// The addresses of `name` that need no name server: those in `/etc/hosts`, and those of `localhost` and the names
    /// below it (RFC 6761, section 6.3). An address is its own name.
    pub(super) fn known(&self, name: &str) -> Vec<IpAddr> {
        if let Ok(address) = name.parse() {
            return vec![address];
        }
        let name = name.strip_suffix('.').unwrap_or(name);
        let mut found: Vec<IpAddr> = self.hosts.lines().filter_map(|line| of_line(line, name)).collect();
        let top = name.rsplit('.').next().unwrap_or_default();
        if found.is_empty() && top.eq_ignore_ascii_case("localhost") {
            found.extend([IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)]);
        }
        found
    }

    /// Asks the name servers for the addresses of `name`, and of those that the search list makes of it.
    ///
    /// # Errors
    ///
    /// If no server knows whether there are any.
    pub(super) async fn ask(&self, name: &str, of: Rtype) -> io::Result<Answer> {
        let mut outcome = Ok(Answer { addresses: Vec::new(), ttl: 0 });
        if of == Rtype::AAAA && self.only_v4 {
            return outcome;
        }
        for name in self.candidates(name) {
            match self.ask_all(&name, of).await {
                Ok(answer) if answer.addresses.is_empty() => {}
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    let is_late = error.kind() == ErrorKind::TimedOut;
                    outcome = Err(error);
                    // Nor would there be a response for the next name.
                    if is_late {
                        break;
                    }
                }
            }
        }
        outcome
    }

    /// `name`, and with each suffix of the search list, in the order in which they are asked for.
    fn candidates(&self, name: &str) -> Vec<Name<Vec<u8>>> {
        if let Some(complete) = name.strip_suffix('.') {
            return query::labels(complete).into_iter().collect();
        }
        let mut names: Vec<String> = self.search.iter().map(|suffix| format!("{name}.{suffix}")).collect();
        let is_first = name.matches('.').count() >= self.dots;
        names.insert(if is_first { 0 } else { names.len() }, name.to_owned());
        names.iter().filter_map(|name| query::labels(name)).collect()
    }

    /// Asks one server after the other. A late response counts, also if the next one has been asked.
    async fn ask_all(&self, name: &Name<Vec<u8>>, of: Rtype) -> io::Result<Answer> {
        let first = if self.rotates { self.turn.fetch_add(1, Ordering::Relaxed) } else { 0 };
        let mut turns =
            self.servers.iter().cycle().skip(first % self.servers.len()).take(self.servers.len() * self.attempts);
        let mut next = turns.next();
        let mut asked = FuturesUnordered::new();
        let mut failure = None;
        loop {
            if let Some(server) = next {
                asked.push(query::ask(*server, name, of, self.only_tcp));
            }
            next = turns.next();
            let wait = if next.is_some() { ASK_AGAIN_AFTER } else { GIVE_UP_AFTER };
            match timeout(wait, asked.next()).await {
                Ok(Some(Ok(answer))) => return Ok(answer),
                Ok(Some(Err(error))) => failure = Some(error),
                Ok(None) | Err(_) if next.is_none() => {
                    return Err(failure.unwrap_or_else(|| ErrorKind::TimedOut.into()));
                }
                Ok(None) | Err(_) => {}
            }
        }
    }
}

/// The address in a line of `/etc/hosts`, if the line has this name.
fn of_line(line: &str, name: &str) -> Option<IpAddr> {
    let mut words = line.split('#').next()?.split_ascii_whitespace();
    let address = words.next()?.parse().ok()?;
    words.any(|alias| alias.eq_ignore_ascii_case(name)).then_some(address)
}
