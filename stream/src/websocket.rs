//! `v4.channel.k8s.io` and `v5.channel.k8s.io`: each binary message begins with the number of its channel.

use bytes::{BufMut, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode};
use tokio_util::sync::CancellationToken;

use crate::command::{Lanes, RemoteCommand, Wants, session};
use crate::lane::{self, Lane, Out, QUEUE};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// In v5, `[255, channel]` closes a channel.
const CLOSE: u8 = 255;
/// Larger messages end the session; client-go sends at most 32 KiB.
const MAX_MESSAGE: usize = 4 << 20;

/// Limits for every WebSocket here.
pub(crate) fn config() -> WebSocketConfig {
    WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE))
}

/// A session over a WebSocket; `v5` clients may close channels.
pub(crate) fn remote_command<S>(socket: WebSocketStream<S>, wants: Wants, v5: bool) -> RemoteCommand
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (queue, frames) = mpsc::channel(QUEUE);
    // The lowest channel that the client reads tells it with an empty message that the session stands.
    let first = [(wants.stdout, STDOUT), (wants.stderr, STDERR), (true, ERROR)];
    let first = first.into_iter().find(|(wanted, _)| *wanted).map_or(ERROR, |(_, id)| id);
    let _ = queue.try_send(Out::Data { lane: first.into(), bytes: bytes::Bytes::new() });
    let mut inputs: Vec<(u8, DuplexStream)> = Vec::new();
    let mut open = |wanted: bool, id: u8| -> Option<Lane> {
        let (lane, input) = wanted.then(|| lane::open(id.into(), queue.clone()))?;
        inputs.push((id, input));
        Some(lane)
    };
    let lanes = Lanes {
        stdin: open(wants.stdin, STDIN),
        stdout: open(wants.stdout, STDOUT),
        stderr: open(wants.stderr, STDERR),
        error: open(true, ERROR),
        resize: open(wants.tty, RESIZE),
    };
    let (gone, close) = (CancellationToken::new(), CancellationToken::new());
    let (sink, stream) = socket.split();
    tokio::spawn(carry(sink, stream, Carried { frames, inputs, v5, gone: gone.clone(), close: close.clone() }));
    session(lanes, gone, close)
}

struct Carried {
    frames: mpsc::Receiver<Out>,
    inputs: Vec<(u8, DuplexStream)>,
    v5: bool,
    gone: CancellationToken,
    close: CancellationToken,
}

async fn carry<S>(sink: SplitSink<WebSocketStream<S>, Message>, stream: SplitStream<WebSocketStream<S>>, with: Carried)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Carried { frames, inputs, v5, gone, close } = with;
    let reading = gone.clone();
    let reader = tokio::spawn(async move {
        read(stream, inputs, v5).await;
        reading.cancel();
    });
    tokio::select! {
        () = write(sink, frames, close) => {}
        () = gone.cancelled() => {}
    }
    gone.cancel();
    reader.abort();
}

async fn read<S>(mut stream: SplitStream<WebSocketStream<S>>, mut inputs: Vec<(u8, DuplexStream)>, v5: bool)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    while let Some(Ok(message)) = stream.next().await {
        let Message::Binary(bytes) = message else {
            if message.is_close() {
                return;
            }
            continue;
        };
        match bytes.as_ref() {
            [CLOSE, id] if v5 => inputs.retain(|(open, _)| open != id),
            [id, data @ ..] => {
                let Some((_, input)) = inputs.iter_mut().find(|(open, _)| open == id) else { continue };
                // A lane whose user end is dropped takes nothing more; the others go on.
                if input.write_all(data).await.is_err() {
                    inputs.retain(|(open, _)| open != id);
                }
            }
            [] => {}
        }
    }
}

async fn write<S>(
    mut sink: SplitSink<WebSocketStream<S>, Message>,
    mut frames: mpsc::Receiver<Out>,
    close: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    loop {
        let frame = tokio::select! {
            biased;
            frame = frames.recv() => frame,
            () = close.cancelled() => None,
        };
        let Some(frame) = frame else { break };
        let Out::Data { lane, bytes } = frame else { continue };
        let mut message = BytesMut::with_capacity(1 + bytes.len());
        message.put_u8(u8::try_from(lane).unwrap_or(ERROR));
        message.put_slice(&bytes);
        if sink.send(Message::Binary(message.freeze())).await.is_err() {
            return;
        }
    }
    let end = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    let _ = sink.send(Message::Close(Some(end))).await;
    let _ = sink.close().await;
}
