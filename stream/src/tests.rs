//! Both protocols over a pipe: what a client sends arrives in the right stream, and the end is told in the right order.

use bytes::{BufMut, BytesMut};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::command::{Exit, RemoteCommand, Size, Wants};
use crate::spdy::{Deflater, Head, control, data};
use crate::{forward, spdy, websocket};

const ALL: Wants = Wants { stdin: true, stdout: true, stderr: false, tty: true };

/// Prints what it reads in capitals until the end, then ends with code 3.
async fn shout(mut command: RemoteCommand) -> Option<Size> {
    let (mut stdin, mut stdout) = (command.stdin.take().unwrap(), command.stdout.take().unwrap());
    let size = command.resize.recv().await;
    let mut text = String::new();
    stdin.read_to_string(&mut text).await.unwrap();
    stdout.write_all(text.to_uppercase().as_bytes()).await.unwrap();
    drop(stdout);
    command.exit.send(Exit::Code(3));
    size
}

async fn socket(io: DuplexStream, role: Role) -> WebSocketStream<DuplexStream> {
    WebSocketStream::from_raw_socket(io, role, Some(websocket::config())).await
}

#[tokio::test]
async fn a_websocket_carries_all_channels_and_closes_after_the_status() {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let command = websocket::remote_command(socket(theirs, Role::Server).await, ALL, true);
    let server = tokio::spawn(shout(command));
    let mut client = socket(ours, Role::Client).await;
    let long = "x".repeat(100_000);
    for message in [&b"\x04{\"Width\":80,\"Height\":24}"[..], b"\x00hello ", b"\x00world ", b"\x00"] {
        client.send(Message::binary(message.to_vec())).await.unwrap();
    }
    client.send(Message::binary(["\0", &long].concat().into_bytes())).await.unwrap();
    client.send(Message::binary(vec![255, 0])).await.unwrap();
    let (mut out, mut status, mut order) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(Ok(Message::Binary(bytes))) = client.next().await {
        let (channel, data) = (bytes[0], &bytes[1..]);
        order.push(channel);
        if channel == 1 { out.extend_from_slice(data) } else { status.extend_from_slice(data) }
    }
    assert_eq!(String::from_utf8(out).unwrap(), format!("HELLO WORLD {}", long.to_uppercase()));
    assert!(String::from_utf8(status).unwrap().contains(r#""reason":"ExitCode","message":"3""#));
    assert!(order.first() == Some(&1) && order.contains(&3), "{order:?}");
    assert_eq!(server.await.unwrap(), Some(Size { columns: 80, rows: 24 }));
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_input_and_is_told() {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let mut command = websocket::remote_command(socket(theirs, Role::Server).await, ALL, true);
    drop(ours);
    let mut text = String::new();
    command.stdin.take().unwrap().read_to_string(&mut text).await.unwrap();
    command.gone.cancelled().await;
}

/// A SPDY client's hand: frames written one after another.
struct Hand {
    io: DuplexStream,
    deflater: Deflater,
}

impl Hand {
    async fn open(&mut self, stream: u32, headers: &[(&str, &str)]) {
        let mut payload = BytesMut::new();
        payload.put_u32(stream);
        payload.put_bytes(0, 6);
        payload.put_slice(&self.deflater.write(headers).unwrap());
        let mut out = BytesMut::new();
        control(&mut out, 1, 0, &payload);
        self.io.write_all(&out).await.unwrap();
    }

    async fn send(&mut self, stream: u32, text: &str, fin: bool) {
        let mut out = BytesMut::new();
        data(&mut out, stream, u8::from(fin), text.len());
        out.put_slice(text.as_bytes());
        self.io.write_all(&out).await.unwrap();
    }

    /// The next frame: kind and stream (0 for data) and its bytes; `None` at the end.
    async fn next(&mut self) -> Option<(u16, u32, bool, Vec<u8>)> {
        let mut head = [0; 8];
        self.io.read_exact(&mut head).await.ok()?;
        let (kind, flags, length) = match Head::parse(head)? {
            Head::Control { kind, flags, length } => (kind, flags, length),
            Head::Data { flags, length, .. } => (0, flags, length),
        };
        let mut bytes = vec![0; length as usize];
        self.io.read_exact(&mut bytes).await.ok()?;
        let id = match kind {
            0 => u32::from_be_bytes([head[0], head[1], head[2], head[3]]),
            _ => u32::from_be_bytes(bytes[..4].try_into().unwrap()),
        };
        Some((kind, id, flags & 1 == 1, bytes))
    }
}

#[tokio::test]
async fn spdy_carries_a_command_and_says_goodbye() {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let server = tokio::spawn(async move { shout(spdy::command::open(theirs, ALL).await.unwrap()).await });
    let mut hand = Hand { io: ours, deflater: Deflater::new() };
    for (stream, name) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "resize")] {
        hand.open(stream, &[("streamtype", name)]).await;
    }
    hand.send(7, "{\"Width\":1,\"Height\":2}\n", false).await;
    hand.send(3, "hello ", false).await;
    hand.send(3, "world", true).await;
    let (mut replies, mut out, mut status, mut ends, mut goodbye) = (vec![], vec![], vec![], vec![], false);
    while let Some((kind, id, fin, bytes)) = hand.next().await {
        match (kind, id) {
            (2, id) => replies.push(id),
            (0, 5) => out.extend(bytes),
            (0, 1) => status.extend(bytes),
            (7, _) => goodbye = true,
            _ => {}
        }
        if kind == 0 && fin {
            ends.push(id);
        }
    }
    assert_eq!(replies, [1, 3, 5, 7]);
    assert_eq!(String::from_utf8(out).unwrap(), "HELLO WORLD");
    assert!(String::from_utf8(status).unwrap().contains("NonZeroExitCode"));
    assert!(ends.contains(&1) && ends.contains(&5) && goodbye, "{ends:?}");
    assert_eq!(server.await.unwrap(), Some(Size { columns: 1, rows: 2 }));
}

#[tokio::test]
async fn port_forward_pairs_streams_and_carries_bytes_both_ways() {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let mut session = forward::open(theirs);
    let mut hand = Hand { io: ours, deflater: Deflater::new() };
    for (stream, kind, id) in [(1, "error", "0"), (3, "error", "1"), (5, "data", "0"), (7, "data", "1")] {
        hand.open(stream, &[("streamtype", kind), ("port", if id == "0" { "80" } else { "81" }), ("requestID", id)])
            .await;
    }
    let (first, second) = (session.next().await.unwrap(), session.next().await.unwrap());
    assert_eq!((first.port, second.port), (80, 81));
    hand.send(5, "ping", true).await;
    let mut data = first.data;
    let mut text = String::new();
    data.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "ping");
    data.write_all(b"pong").await.unwrap();
    data.shutdown().await.unwrap();
    let mut got = Vec::new();
    while let Some((kind, id, fin, bytes)) = hand.next().await {
        if (kind, id) == (0, 5) {
            got.extend(bytes);
            if fin {
                break;
            }
        }
    }
    assert_eq!(got, b"pong");
    drop(hand);
    assert!(session.next().await.is_none());
    session.gone().cancelled().await;
}
