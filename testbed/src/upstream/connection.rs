//! Accepts connections and treats each as the script says.

use std::io::{ErrorKind, Result};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::select;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet, yield_now};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

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
