//! The channels of exec, attach and port-forward: WebSocket and SPDY framing, the server's side.
//!
//! A node's server calls [`remote_command`] or [`port_forward`] with the upgrade request. It gets the response to send
//! and a future that ends, once the connection is upgraded, with typed streams: it does not see which of the protocols
//! the client speaks. `kubectl exec` speaks WebSocket (`v5.channel.k8s.io`), `kubectl port-forward` SPDY/3.1 inside a
//! WebSocket, older clients plain SPDY/3.1. An API server in between splices bytes and needs none of this.

mod command;
mod forward;
mod lane;
mod negotiate;
mod spdy;
#[cfg(test)]
mod tests;
mod tunnel;
mod websocket;

pub use command::{Exit, ExitSender, RemoteCommand, Size, Wants};
pub use forward::{Forwarded, PortForward};
pub use negotiate::{Refused, Upgrade, port_forward, remote_command};

/// Why a session ended early.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("the connection was not upgraded")]
    Upgrade(#[from] hyper::Error),
    #[error("the connection broke")]
    Io(#[from] std::io::Error),
    #[error("the peer broke the SPDY protocol: {0}")]
    Spdy(&'static str),
    #[error("the client did not open all streams in time")]
    Streams,
}
