//! Port-forward: SPDY streams in pairs, a data stream and an error stream with the same request id.

use std::collections::BTreeMap;

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, Join};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::lane::Lane;
use crate::spdy::{Session, Stream};

/// Streams that may wait for their other half.
const MAX_HALVES: usize = 64;

/// A port-forward session: connections as the user makes them. Dropping it closes the session.
pub struct PortForward {
    session: Session,
    halves: BTreeMap<String, Stream>,
    gone: CancellationToken,
    _close: DropGuard,
}

/// One forwarded connection.
pub struct Forwarded {
    /// The port in the pod.
    pub port: u16,
    /// The connection's bytes; shut its writing side down when the pod's end did.
    pub data: Join<DuplexStream, DuplexStream>,
    /// Write here why the port cannot be reached, if so; drop it at the end.
    pub error: DuplexStream,
}

pub(crate) fn open<S>(io: S) -> PortForward
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (gone, close) = (CancellationToken::new(), CancellationToken::new());
    let session = Session::start(io, gone.clone(), close.clone());
    PortForward { session, halves: BTreeMap::new(), gone, _close: close.drop_guard() }
}

impl PortForward {
    /// The next connection; `None` when the user is gone.
    pub async fn next(&mut self) -> Option<Forwarded> {
        loop {
            let stream = self.session.streams.recv().await?;
            let (Some(id), Some(_)) = (stream.header("requestid").map(str::to_owned), port(&stream)) else { continue };
            match self.halves.remove(&id) {
                Some(other) => {
                    if let Some(forwarded) = pair(other, stream) {
                        return Some(forwarded);
                    }
                }
                None if self.halves.len() < MAX_HALVES => {
                    self.halves.insert(id, stream);
                }
                None => {}
            }
        }
    }

    /// Cancelled when the connection is gone.
    pub fn gone(&self) -> CancellationToken {
        self.gone.clone()
    }
}

fn port(stream: &Stream) -> Option<u16> {
    stream.header("port")?.parse().ok().filter(|port| *port != 0)
}

fn pair(a: Stream, b: Stream) -> Option<Forwarded> {
    let (data, error) = match (a.header("streamtype"), b.header("streamtype")) {
        (Some("data"), Some("error")) => (a, b),
        (Some("error"), Some("data")) => (b, a),
        _ => return None,
    };
    let port = port(&data)?;
    let Lane { read, write, .. } = data.lane;
    Some(Forwarded { port, data: tokio::io::join(read, write), error: error.lane.write })
}
