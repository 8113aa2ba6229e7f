//! One stream among several on a connection: a pipe, and the task that turns what is written to it into frames.

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, DuplexStream};
use tokio::sync::{mpsc, oneshot};

/// What may wait in a lane that its reader does not read.
const BUFFER: usize = 64 * 1024;
/// The largest frame that is made; client-go reads with buffers of this size.
const FRAME: usize = 32 * 1024;
/// Frames that may wait for the socket.
pub(crate) const QUEUE: usize = 8;

/// The user's ends. Each pipe carries one direction, so that dropping an end is seen at the other.
pub(crate) struct Lane {
    /// What the peer sent.
    pub(crate) read: DuplexStream,
    /// What goes to the peer.
    pub(crate) write: DuplexStream,
    /// Told when all that was written stands in the queue to the socket.
    pub(crate) sent: oneshot::Receiver<()>,
}

impl Lane {
    /// The writing half alone.
    pub(crate) fn writer(self) -> (DuplexStream, oneshot::Receiver<()>) {
        (self.write, self.sent)
    }
}

/// A frame on its way to the socket.
#[derive(Debug)]
pub(crate) enum Out {
    /// Bytes of a lane.
    Data { lane: u32, bytes: Bytes },
    /// A lane's end.
    End { lane: u32 },
    /// The acknowledgement of a new stream (SPDY).
    Reply { lane: u32 },
    /// An answer to a ping (SPDY).
    Ping { id: u32 },
    /// A stream that is refused or over (SPDY).
    Reset { lane: u32, status: u32 },
}

/// Opens a lane: the user's ends, and where bytes from the socket go; dropping that is the end of them.
pub(crate) fn open(lane: u32, queue: mpsc::Sender<Out>) -> (Lane, DuplexStream) {
    let (read, incoming) = tokio::io::duplex(BUFFER);
    let (write, outgoing) = tokio::io::duplex(BUFFER);
    let (done, sent) = oneshot::channel();
    tokio::spawn(async move {
        pump(lane, outgoing, queue).await;
        let _ = done.send(());
    });
    (Lane { read, write, sent }, incoming)
}

async fn pump(lane: u32, mut from: DuplexStream, queue: mpsc::Sender<Out>) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(FRAME);
        match from.read_buf(&mut (&mut buffer).limit(FRAME)).await {
            Ok(1..) => {
                let frame = Out::Data { lane, bytes: buffer.split().freeze() };
                if queue.send(frame).await.is_err() {
                    return;
                }
            }
            Ok(0) | Err(_) => break,
        }
    }
    let _ = queue.send(Out::End { lane }).await;
}
