//! Accepts connections and treats each as the script says.

use std::io::{ErrorKind, Result};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::select;
use tokio::task::{JoinHandle, JoinSet, yield_now};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::behaviour::{End, Wire};
use super::{Request, State, lock};

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
    let mut close_idle = state.close_idle.subscribe();
    loop {
        let request = select! {
            biased;
            closing = close_idle.recv() => {
                drop((stream, close_idle));
                drop(closing);
                return Ok(());
            }
            request = Request::read(&mut stream, &mut buffer) => request?,
        };
        drop(close_idle);
        let Some(request) = request else { return Ok(()) };
        let Wire(wait, bytes, end) = state.arrived(&request).wire(&request);
        pause(&mut stream, wait).await?;
        // From here on, the client may have its answer and consider the connection idle.
        close_idle = state.close_idle.subscribe();
        send(&mut stream, &bytes).await?;
        match end {
            End::KeepAlive => {}
            End::Close => return stream.shutdown().await,
            End::Reset => return tcp(&stream).set_zero_linger(),
            End::Repeat(bytes, wait) => {
                drop(close_idle);
                loop {
                    pause(&mut stream, wait).await?;
                    send(&mut stream, bytes).await?;
                }
            }
        }
    }
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
