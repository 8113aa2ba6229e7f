//! Service rules change under load, and no packet is lost by it.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use network::{Frontend, FrontendAddress, Protocol};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use crate::conversation::{exchange, frontend};
use crate::place::within;
use crate::services::Node;

/// Changes of the rules that the clients live through.
const UPDATES: usize = 150;
/// Between two connections of a client: the load is bounded.
const PAUSE: Duration = Duration::from_millis(2);
/// Less than the time after which TCP sends its first packet again: one that was lost shows.
const AT_MOST: Duration = Duration::from_millis(900);

#[test]
fn an_update_loses_no_packet() {
    let node = Node::new("load");
    let at: SocketAddr = "10.96.0.10:80".parse().unwrap();
    let all = [node.endpoint(0), node.endpoint(1), node.endpoint(2)];
    let tcp = |list: &[SocketAddr]| frontend("10.96.0.10:80", list);
    // All three answer all the time: what ends goes on serving for those who came before.
    let both =
        |list: &[SocketAddr]| [tcp(list), Frontend { protocol: Protocol::Udp, serving: all.to_vec(), ..tcp(list) }];
    node.set(&both(&all));
    // Each change looks at the flows that there are.
    node.host.space.run(&["sysctl", "-q", "-w", "net.netfilter.nf_conntrack_udp_timeout=2"]);
    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = [None, Some(10_000..21_000), None, Some(21_000..32_000)]
        .into_iter()
        .map(|ports: Option<Range<u16>>| {
            let (done, from) = (done.clone(), node.pods[2].namespace.clone());
            thread::spawn(move || {
                within(&from, move || match ports {
                    None => count(std::iter::repeat(()), |()| datagram(at), &done),
                    Some(ports) => count(ports, |port| connection(at, port), &done),
                })
            })
        })
        .collect();
    for round in 0..UPDATES {
        let mut list = vec![all[round % 3], all[(round + 1) % 3], all[(round + 2) % 3]];
        list.truncate(1 + (round * 7 + round / 5) % 3);
        let other = Frontend { at: FrontendAddress::NodePort(30000 + (round % 50) as u16), ..tcp(&list) };
        node.set(&[&both(&list)[..], &[other]].concat());
    }
    done.store(true, Ordering::Release);
    let seen: Vec<(usize, Vec<String>)> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    assert!(seen.iter().all(|(good, bad)| *good > 100 && bad.is_empty()), "{seen:?}");
}

/// How many connections were answered, and what became of the others.
fn count<T>(
    tries: impl Iterator<Item = T>,
    one: impl Fn(T) -> io::Result<String>,
    done: &AtomicBool,
) -> (usize, Vec<String>) {
    let (mut good, mut bad) = (0, Vec::new());
    for next in tries.take_while(|_| !done.load(Ordering::Acquire)) {
        let start = Instant::now();
        match one(next) {
            Ok(_) if start.elapsed() < AT_MOST => good += 1,
            other => bad.push(format!("{other:?} after {:?}", start.elapsed())),
        }
        thread::park_timeout(PAUSE);
    }
    (good, bad)
}

/// From a port of its own: a new connection for the kernel.
fn datagram(at: SocketAddr) -> io::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(at)?;
    exchange(&socket, AT_MOST)
}

/// From a port that no other connection has: one that is used again may meet its former self, which waits to be forgotten,
/// and lose a packet that way.
fn connection(at: SocketAddr, port: u16) -> io::Result<String> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(AT_MOST))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(AT_MOST))?;
    bind(&socket, &SocketAddr::from(([0, 0, 0, 0], port)))?;
    connect(&socket, &at)?;
    let mut text = String::new();
    TcpStream::from(socket).read_to_string(&mut text)?;
    Ok(text)
}
