//! One SPDY connection, the server's side: streams as the client opens them, each a lane.

use std::collections::BTreeMap;

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::frame::{self, FIN, Head};
use super::headers::{Deflater, Headers, Inflater};
use crate::Error;
use crate::lane::{self, Lane, Out, QUEUE};

/// Open streams a connection may have; the next one is refused.
const MAX_STREAMS: usize = 1024;
const REFUSED_STREAM: u32 = 3;
const PIECE: usize = 32 * 1024;

/// A stream that the client opened.
pub(crate) struct Stream {
    headers: Headers,
    pub(crate) lane: Lane,
}

impl Stream {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// A connection.
pub(crate) struct Session {
    /// New streams; ends with the connection.
    pub(crate) streams: mpsc::Receiver<Stream>,
}

impl Session {
    /// Starts to serve. `gone` is cancelled when the connection ended; cancelling `close` ends it after what is queued.
    pub(crate) fn start<S>(io: S, gone: CancellationToken, close: CancellationToken) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (reader, writer) = tokio::io::split(io);
        let (queue, frames) = mpsc::channel(QUEUE);
        let (opened, streams) = mpsc::channel(16);
        let incoming = Incoming { reader, inflater: Inflater::new(), inputs: BTreeMap::new(), last: 0, queue, opened };
        tokio::spawn(async move {
            tokio::select! {
                result = incoming.run() => {
                    if let Err(error) = result {
                        tracing::debug!(%error, "a SPDY connection ended");
                    }
                }
                _ = write(writer, frames, close) => {}
            }
            gone.cancel();
        });
        Self { streams }
    }
}

struct Incoming<S> {
    reader: ReadHalf<S>,
    inflater: Inflater,
    /// Where the bytes of open streams go.
    inputs: BTreeMap<u32, DuplexStream>,
    last: u32,
    queue: mpsc::Sender<Out>,
    opened: mpsc::Sender<Stream>,
}

impl<S: AsyncRead> Incoming<S> {
    async fn run(mut self) -> Result<(), Error> {
        loop {
            let mut head = [0; 8];
            if self.reader.read(&mut head[..1]).await? == 0 {
                return Ok(());
            }
            self.reader.read_exact(&mut head[1..]).await?;
            match Head::parse(head).ok_or(Error::Spdy("another version"))? {
                Head::Data { stream, flags, length } => self.data(stream, flags, length).await?,
                Head::Control { length, .. } if length > frame::MAX_CONTROL => {
                    return Err(Error::Spdy("a control frame is too long"));
                }
                Head::Control { kind, flags, length } => {
                    let mut payload = vec![0; usize::try_from(length).unwrap_or_default()];
                    self.reader.read_exact(&mut payload).await?;
                    if self.control(kind, flags, &payload).await? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Whether the connection ends.
    async fn control(&mut self, kind: u16, flags: u8, payload: &[u8]) -> Result<bool, Error> {
        let id = frame::stream_id(payload);
        match kind {
            frame::SYN_STREAM => self.open(flags, payload).await?,
            frame::RST_STREAM => {
                self.inputs.remove(&id.unwrap_or_default());
            }
            // Also where nobody wants them: the next block needs the state of this one.
            frame::HEADERS | frame::SYN_REPLY => {
                self.inflater.read(payload.get(4..).unwrap_or_default())?;
                if flags & FIN != 0 {
                    self.inputs.remove(&id.unwrap_or_default());
                }
            }
            frame::PING => {
                let id = payload.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes)).unwrap_or_default();
                self.send(Out::Ping { id }).await?;
            }
            frame::GOAWAY => return Ok(true),
            _ => {}
        }
        Ok(false)
    }

    async fn open(&mut self, flags: u8, payload: &[u8]) -> Result<(), Error> {
        let id = frame::stream_id(payload).ok_or(Error::Spdy("a short SYN_STREAM"))?;
        let headers = self.inflater.read(payload.get(10..).unwrap_or_default())?;
        if id % 2 == 0 || id <= self.last {
            return Err(Error::Spdy("a stream number stands twice"));
        }
        self.last = id;
        if self.inputs.len() >= MAX_STREAMS {
            return self.send(Out::Reset { lane: id, status: REFUSED_STREAM }).await;
        }
        // Before the lane opens, so that the reply goes before its first byte.
        self.send(Out::Reply { lane: id }).await?;
        let (lane, input) = lane::open(id, self.queue.clone());
        if flags & FIN == 0 {
            self.inputs.insert(id, input);
        }
        // Nobody takes further streams of a session that only waits for its end: the lane then closes at once.
        let _ = self.opened.send(Stream { headers, lane }).await;
        Ok(())
    }

    async fn data(&mut self, stream: u32, flags: u8, length: u32) -> Result<(), Error> {
        let mut left = usize::try_from(length).unwrap_or_default();
        let mut piece = vec![0; left.min(PIECE)];
        while left > 0 {
            let part = piece.get_mut(..left.min(PIECE)).unwrap_or_default();
            self.reader.read_exact(part).await?;
            left -= part.len();
            if let Some(input) = self.inputs.get_mut(&stream)
                && input.write_all(part).await.is_err()
            {
                self.inputs.remove(&stream);
            }
        }
        if flags & FIN != 0 {
            self.inputs.remove(&stream);
        }
        Ok(())
    }

    async fn send(&mut self, out: Out) -> Result<(), Error> {
        self.queue.send(out).await.map_err(|_| Error::Spdy("the connection is closed"))
    }
}

async fn write<S: AsyncWrite>(
    mut writer: WriteHalf<S>,
    mut frames: mpsc::Receiver<Out>,
    close: CancellationToken,
) -> Result<(), Error> {
    let mut deflater = Deflater::new();
    let mut out = BytesMut::new();
    loop {
        let next = tokio::select! {
            biased;
            next = frames.recv() => next,
            () = close.cancelled() => None,
        };
        let Some(next) = next else { break };
        encode(&mut out, &mut deflater, next)?;
        writer.write_all(&out.split()).await?;
        if frames.is_empty() {
            writer.flush().await?;
        }
    }
    frame::control(&mut out, frame::GOAWAY, 0, &[0; 8]);
    writer.write_all(&out.split()).await?;
    writer.shutdown().await?;
    Ok(())
}

fn encode(out: &mut BytesMut, deflater: &mut Deflater, next: Out) -> Result<(), Error> {
    match next {
        Out::Data { lane, bytes } => {
            frame::data(out, lane, 0, bytes.len());
            out.put_slice(&bytes);
        }
        Out::End { lane } => frame::data(out, lane, FIN, 0),
        Out::Reply { lane } => {
            let mut payload = lane.to_be_bytes().to_vec();
            payload.extend(deflater.write(&[])?);
            frame::control(out, frame::SYN_REPLY, 0, &payload);
        }
        Out::Ping { id } => frame::control(out, frame::PING, 0, &id.to_be_bytes()),
        Out::Reset { lane, status } => {
            let payload = [lane.to_be_bytes(), status.to_be_bytes()].concat();
            frame::control(out, frame::RST_STREAM, 0, &payload);
        }
    }
    Ok(())
}
