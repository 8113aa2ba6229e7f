//! One connection: TCP, TLS over TCP, or a pipe inside the process.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::resolve;

/// How long one address may take to answer.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Makes one connection inside the process.
pub(crate) type Connect = Arc<dyn Fn() -> DuplexStream + Send + Sync>;

/// Makes connections for hyper.
#[derive(Clone)]
pub(crate) enum Connector {
    /// Over the network; TLS for https.
    Network { tls: Option<Arc<ClientConfig>>, server_name: Option<String> },
    /// Inside the process; HTTP/2 by prior knowledge or HTTP/1.1.
    Local { connect: Connect, h2: bool },
}

/// Anything that carries bytes both ways.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection as hyper wants it.
pub(crate) struct Link {
    io: TokioIo<Box<dyn Io>>,
    h2: bool,
}

impl Link {
    fn new(io: impl Io + 'static, h2: bool) -> Self {
        Self { io: TokioIo::new(Box::new(io)), h2 }
    }
}

impl tower::Service<Uri> for Connector {
    type Response = Link;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Link>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect(&uri).await })
    }
}

impl Connector {
    async fn connect(self, uri: &Uri) -> io::Result<Link> {
        let (tls, server_name) = match self {
            Self::Local { connect, h2 } => return Ok(Link::new(connect(), h2)),
            Self::Network { tls, server_name } => (tls, server_name),
        };
        let host = uri.host().unwrap_or_default();
        let secure = uri.scheme_str() == Some("https");
        let tcp = dial(host, uri.port_u16().unwrap_or(if secure { 443 } else { 80 })).await?;
        let Some(tls) = tls.filter(|_| secure) else { return Ok(Link::new(tcp, false)) };
        let name = server_name.unwrap_or_else(|| host.trim_matches(['[', ']']).to_owned());
        let name = ServerName::try_from(name).map_err(io::Error::other)?;
        let stream = TlsConnector::from(tls).connect(name, tcp).await?;
        let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Link::new(stream, h2))
    }
}

/// A TCP connection to a host (a literal or a name) and port; the host's addresses are tried in order, ten seconds each.
pub async fn dial(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
    for address in resolve::addresses(host).await? {
        match tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect((address, port))).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("{address}:{port} does not answer")),
        }
    }
    Err(last)
}

impl Connection for Link {
    fn connected(&self) -> Connected {
        let connected = Connected::new();
        if self.h2 { connected.negotiated_h2() } else { connected }
    }
}

impl Read for Link {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}
