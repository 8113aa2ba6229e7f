//! Connections: TLS and in-process ones, both speaking to one service; HTTP/1.1 and HTTP/2; a graceful end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::attributes::User;
use crate::core::Core;
use crate::service::handle;

/// A client must have finished its TLS handshake, and later each request's head, within this.
const HANDSHAKE: Duration = Duration::from_secs(10);
const HEAD: Duration = Duration::from_secs(30);
/// hyper's 64 KiB default stalls watches behind each other.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 25 * 1024 * 1024;
const MAX_STREAMS: u32 = 1000;

/// The other end of a connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    /// Whose certificate it showed, or on whose behalf it was made in this process.
    pub user: Option<User>,
    /// Whether it may say whose requests it passes on.
    pub front_proxy: bool,
    /// Its address; none in process.
    pub address: Option<SocketAddr>,
}

/// Accepts connections until the server stops.
pub(crate) async fn accept(
    core: Core,
    listener: TcpListener,
    tls: watch::Receiver<Arc<ServerConfig>>,
) -> Result<(), std::io::Error> {
    let mut stop = core.stop.subscribe();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        };
        match accepted {
            Ok((stream, address)) => {
                let config = Arc::clone(&tls.borrow());
                core.tasks.spawn(secured(core.clone(), stream, address, config));
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                // Out of file descriptors: give the others time to end.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn secured(core: Core, stream: TcpStream, address: SocketAddr, config: Arc<ServerConfig>) {
    let _ = stream.set_nodelay(true);
    let handshake = TlsAcceptor::from(config).accept(stream);
    match tokio::time::timeout(HANDSHAKE, handshake).await {
        Ok(Ok(stream)) => {
            let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let (authenticator, now) = (&core.parts.authenticator, core.now());
            let user = if chain.is_empty() { None } else { authenticator.certificate(chain, now) };
            let front_proxy = !chain.is_empty() && user.is_none() && authenticator.is_front_proxy(chain, now);
            connection(core, stream, Peer { user, front_proxy, address: Some(address) }).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, %address, "TLS handshake failed"),
        Err(_) => tracing::debug!(%address, "TLS handshake took too long"),
    }
}

/// Serves one connection to its end.
pub(crate) async fn connection(core: Core, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, peer: Peer) {
    let peer = Arc::new(peer);
    let mut stop = core.stop.subscribe();
    let service = {
        let core = core.clone();
        service_fn(move |request| {
            let answer = handle(core.clone(), Arc::clone(&peer), request);
            async move { Ok::<_, Infallible>(answer.await) }
        })
    };
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MAX_STREAMS);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let stopped = async { drop(stop.wait_for(|stop| *stop).await) };
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = stopped => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}
