//! How to get a connection to somewhere.

use std::io;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

/// Anything that carries bytes both ways.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Makes connections. A tunnel to agents behind NAT would be another one.
#[async_trait]
pub trait Dial: Send + Sync {
    /// A connection to a host (an address or a name) and port.
    async fn dial(&self, host: &str, port: u16) -> io::Result<Box<dyn Io>>;
}

/// Straight over TCP.
pub struct Direct;

#[async_trait]
impl Dial for Direct {
    async fn dial(&self, host: &str, port: u16) -> io::Result<Box<dyn Io>> {
        Ok(Box::new(client::dial(host, port).await?))
    }
}
