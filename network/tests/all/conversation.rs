//! Servers in pods that say who they are and whom they saw, and their clients.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::thread;
use std::time::Duration;

use network::{Attachment, Frontend, FrontendAddress, Protocol};

use crate::place::within;

/// For an answer that should come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);
/// For an answer that should not come.
pub(crate) const IMPATIENCE: Duration = Duration::from_millis(300);

/// Answers each TCP connection and each datagram at a port with `name` and the address it saw.
pub(crate) fn serve(pod: &Attachment, port: u16, name: &'static str) {
    within(&pod.namespace, move || {
        let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let peer = stream.peer_addr().unwrap().ip();
                let _ = write!(stream, "{name} {peer}");
            }
        });
        let socket = UdpSocket::bind(("0.0.0.0", port)).unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(format!("{name} {}", peer.ip()).as_bytes(), peer);
            }
        });
    });
}

/// What a TCP server says.
pub(crate) fn ask(from: &Path, at: &str) -> io::Result<String> {
    ask_within(from, at, PATIENCE)
}

/// Why it says nothing.
pub(crate) fn refusal(from: &Path, at: &str) -> ErrorKind {
    ask_within(from, at, IMPATIENCE).unwrap_err().kind()
}

fn ask_within(from: &Path, at: &str, patience: Duration) -> io::Result<String> {
    let at: SocketAddr = at.parse().unwrap();
    within(from, move || {
        let mut stream = TcpStream::connect_timeout(&at, patience)?;
        stream.set_read_timeout(Some(patience))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })
}

/// A UDP socket in a namespace, connected: it keeps its port.
pub(crate) fn socket(from: &Path, at: &str) -> UdpSocket {
    let at: SocketAddr = at.parse().unwrap();
    within(from, move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect(at).unwrap();
        socket
    })
}

/// One datagram there and one back.
pub(crate) fn exchange(socket: &UdpSocket, patience: Duration) -> io::Result<String> {
    socket.set_read_timeout(Some(patience))?;
    socket.send(b"?")?;
    let mut buffer = [0; 64];
    let len = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..len]).into_owned())
}

/// A TCP frontend.
pub(crate) fn frontend(at: &str, endpoints: &[SocketAddr]) -> Frontend {
    let at = FrontendAddress::Ip(at.parse().unwrap());
    Frontend { endpoints: endpoints.to_vec(), ..Frontend::new(at, Protocol::Tcp) }
}

pub(crate) fn endpoint(pod: &Attachment, port: u16) -> SocketAddr {
    SocketAddr::new(pod.addresses[0], port)
}
