//! The DNS server over real sockets.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

#[test]
fn dns_answers_its_zones_and_refuses_the_rest_without_upstreams() {
    use network::dns::{Data, Records, Zones, serve};
    let zones = Zones::default();
    let name = "web.default.svc.cluster.local".to_owned();
    let names = [(name, vec![Data::Address(IpAddr::from([10, 96, 0, 9]))])].into();
    zones.replace(Records { zones: vec!["cluster.local".into()], names, ttl_seconds: 5 });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let at = runtime.block_on(async {
        let udp = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = udp.local_addr().unwrap();
        tokio::spawn(async move {
            let end = async {
                let _ = stopped.await;
            };
            serve(zones, udp, tcp, &[], end).await.unwrap();
        });
        at
    });
    let code = |name: &str, kind: u8| {
        let reply = query(at, name, kind);
        (reply[3] & 0xf, u16::from_be_bytes([reply[6], reply[7]]))
    };
    assert_eq!(code("web.default.svc.cluster.local", 1), (0, 1));
    assert_eq!(code("WEB.default.svc.cluster.local", 1), (0, 1), "names have no case");
    assert_eq!(code("web.default.svc.cluster.local", 28), (0, 0), "no AAAA, but the name is there");
    assert_eq!(code("default.svc.cluster.local", 1), (0, 0), "an empty non-terminal");
    assert_eq!(code("nope.default.svc.cluster.local", 1), (3, 0));
    assert_eq!(code("example.com", 1), (5, 0));
    let _ = stop.send(());
}

/// Sends one question and returns the reply's bytes.
fn query(at: SocketAddr, name: &str, kind: u8) -> Vec<u8> {
    let mut message = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, kind, 0, 1]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket.send_to(&message, at).unwrap();
    let mut buffer = [0; 512];
    let len = socket.recv(&mut buffer).unwrap();
    buffer[..len].to_vec()
}
