//! Accepts connections, with TLS or without, and treats each as the script says.

use std::fs;
use std::io::{ErrorKind, Result};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::select;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet, yield_now};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{ServerConfig, crypto::ring, pki_types::PrivatePkcs8KeyDer};

use super::behaviour::{End, Wire};
use super::{IdleEnd, Request, State, lock};

/// Listens at once, and serves until it is aborted. Its connections end with it.
pub(super) fn accept(socket: TcpSocket, state: Arc<State>) -> JoinHandle<()> {
    let listener = socket.listen(1024).expect("the port is ours");
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            select! {
                Ok((tcp, _)) = listener.accept() => {
                    let (state, open) = (Arc::clone(&state), state.open.subscribe());
                    state.counts.send_modify(|counts| counts.connections += 1);
                    // The order matters: `tcp` is closed before `open` is dropped.
                    connections.spawn(async move {
                        let _hung_up = connection(tcp, &state).await;
                        drop(open);
                    });
                }
                Some(_) = connections.join_next() => {}
                else => yield_now().await,
            }
        }
    })
}

/// Serves one connection. An error means that the client has hung up, which is allowed.
async fn connection(tcp: TcpStream, state: &State) -> Result<()> {
    if lock(&state.script).resets_connection() {
        return tcp.set_zero_linger();
    }
    tcp.set_nodelay(true)?;
    match &state.tls {
        Some(tls) => {
            let stream = TlsAcceptor::from(Arc::clone(&tls.config)).accept(tcp).await?;
            serve(stream, |stream| stream.get_ref().0, state).await
        }
        None => serve(tcp, |tcp| tcp, state).await,
    }
}

/// Serves the requests that come over `stream`.
async fn serve<S>(mut stream: S, tcp: fn(&S) -> &TcpStream, state: &State) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut buffer = Vec::with_capacity(4096);
    let mut end_idle = state.end_idle.subscribe();
    loop {
        let request = select! {
            biased;
            Ok((how, ending)) = end_idle.recv() => {
                drop(end_idle);
                return end(stream, tcp, how, ending).await;
            }
            request = Request::read(&mut stream, &mut buffer) => request?,
        };
        drop(end_idle);
        let Some(request) = request else { return Ok(()) };
        let Wire(wait, bytes, end) = state.arrived(&request).wire(&request);
        pause(&mut stream, wait).await?;
        // From here on, the client may have its answer and consider the connection idle.
        end_idle = state.end_idle.subscribe();
        send(&mut stream, &bytes).await?;
        match end {
            End::KeepAlive => {}
            End::Close => return stream.shutdown().await,
            End::Reset => return tcp(&stream).set_zero_linger(),
            End::Repeat(bytes, wait) => {
                drop(end_idle);
                loop {
                    pause(&mut stream, wait).await?;
                    send(&mut stream, bytes).await?;
                }
            }
        }
    }
}

/// Ends a connection that waits for a request. Drops `ending` when that is done, or has only to wait for a request.
async fn end<S>(mut stream: S, tcp: fn(&S) -> &TcpStream, how: IdleEnd, ending: mpsc::Sender<()>) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match how {
        IdleEnd::Close => {}
        IdleEnd::Reset => tcp(&stream).set_zero_linger()?,
        IdleEnd::TimeOut => {
            send(&mut stream, b"HTTP/1.1 408 \r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await?;
        }
        IdleEnd::Forget => {
            drop(ending);
            let _end_or_byte = stream.read_u8().await;
            return tcp(&stream).set_zero_linger();
        }
        IdleEnd::Vanish => {
            drop(ending);
            return pause(&mut stream, Duration::MAX).await;
        }
    }
    drop(stream);
    drop(ending);
    Ok(())
}

/// Sends all of it. Without a flush, TLS would keep some back.
async fn send(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// Waits, unless the client hangs up first.
async fn pause(stream: &mut (impl AsyncRead + Unpin), wait: Duration) -> Result<()> {
    let hung_up = async { while stream.read(&mut [0; 1024]).await.is_ok_and(|bytes| bytes > 0) {} };
    if wait > Duration::ZERO && timeout(wait, hung_up).await.is_ok() {
        return Err(ErrorKind::ConnectionAborted.into());
    }
    Ok(())
}

/// The certificate that an upstream presents. All are signed by the CA that the client trusts, so nothing else is
/// wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Certificate {
    /// A good one, for `localhost`, `upstream.test`, `up_stream.test` and 127.0.0.1.
    Valid,
    /// One for another host.
    WrongName,
    /// One that was good until 2021.
    Expired,
}

/// The TLS side of an upstream.
#[derive(Debug)]
pub(super) struct Tls {
    pub(super) config: Arc<ServerConfig>,
    pub(super) ca_file: PathBuf,
}

impl Tls {
    /// `port` keeps the files of several upstreams apart.
    pub(super) fn new(certificate: Certificate, port: u16) -> Self {
        let ca_file = std::env::temp_dir().join(format!("upstream-ca-{}-{port}.pem", std::process::id()));
        fs::write(&ca_file, CA.pem()).expect("the temporary directory is writable");
        Self { config: Arc::new(server_config(certificate).expect("a certificate that we made")), ca_file }
    }
}

static CA: LazyLock<CertifiedIssuer<'static, KeyPair>> = LazyLock::new(|| {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "the CA of a test");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().expect("a key");
    CertifiedIssuer::self_signed(params, key).expect("a certificate of our own making")
});

fn server_config(certificate: Certificate) -> std::result::Result<ServerConfig, Box<dyn std::error::Error>> {
    let (names, last_year) = match certificate {
        Certificate::Valid => (vec!["localhost", "upstream.test", "up_stream.test", "127.0.0.1"], 2120),
        Certificate::WrongName => (vec!["wrong.example", "127.0.0.2"], 2120),
        Certificate::Expired => (vec!["localhost", "127.0.0.1"], 2020),
    };
    let mut params = CertificateParams::new(names.into_iter().map(String::from).collect::<Vec<_>>())?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(last_year, 12, 31);
    let key = KeyPair::generate()?;
    let signed = params.signed_by(&key, &CA)?;

    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![signed.into()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
