//! Real links, rules and packets, in a network namespace of each test's own. Needs root.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use network::{Attachment, Config, Frontend, FrontendAddress, Network, Protocol};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A namespace that plays the host; gone when dropped.
struct Host {
    name: String,
    dir: tempfile::TempDir,
}

impl Host {
    fn new(test: &str) -> Self {
        let name = format!("tt-{test}-{}", std::process::id());
        run("ip", &["netns", "add", &name]);
        run("ip", &["-n", &name, "link", "set", "lo", "up"]);
        Self { name, dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    fn config(&self, instance: &str) -> Config {
        Config {
            instance: instance.into(),
            run_dir: self.dir.path().join(format!("netns-{instance}")),
            data_dir: self.dir.path().join(format!("data-{instance}")),
            pod_cidrs: vec!["10.244.1.0/24".parse().unwrap()],
            cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
            service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
            node_ips: vec!["10.244.1.1".parse().unwrap()],
            mtu: 1500,
        }
    }

    /// Runs async code on a runtime whose threads all live in this namespace.
    fn block_on<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        within(&self.path(), move || {
            tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(work)
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        run("ip", &["netns", "del", &self.name]);
    }
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn within<T: Send + 'static>(namespace: &Path, work: impl FnOnce() -> T + Send + 'static) -> T {
    let file = File::open(namespace).unwrap();
    thread::spawn(move || {
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network)).unwrap();
        work()
    })
    .join()
    .unwrap()
}

/// A server in a pod that answers each connection with `name` and the address it saw.
fn serve(pod: &Attachment, port: u16, name: &'static str) {
    within(&pod.namespace, move || {
        let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let peer = stream.peer_addr().unwrap().ip();
                let _ = write!(stream, "{name} {peer}");
            }
        });
    });
}

fn ask(from: &Path, at: &str) -> std::io::Result<String> {
    let at: SocketAddr = at.parse().unwrap();
    within(from, move || {
        let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(3))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })
}

fn frontend(at: &str, endpoints: &[SocketAddr]) -> Frontend {
    let at = FrontendAddress::Ip(at.parse().unwrap());
    let endpoints = endpoints.to_vec();
    Frontend { at, protocol: Protocol::Tcp, endpoints, affinity_seconds: 0, keep_source: false }
}

fn endpoint(pod: &Attachment, port: u16) -> SocketAddr {
    SocketAddr::new(pod.addresses[0], port)
}

#[test]
fn pods_reach_services_themselves_and_each_other() {
    let host = Host::new("svc");
    let config = host.config("svc");
    let (network, a, b) = host.block_on(async move {
        let network = Network::open(config).await.unwrap();
        let (a, b) = (network.attach("a", None).await.unwrap(), network.attach("b", None).await.unwrap());
        assert_eq!(network.attach("a", None).await.unwrap(), a, "attach is idempotent");
        (network, a, b)
    });
    serve(&a, 8080, "a");
    serve(&b, 8080, "b");
    let (ea, eb) = (endpoint(&a, 8080), endpoint(&b, 8080));
    let (ip_a, ip_b) = (a.addresses[0], b.addresses[0]);
    let both = frontend("10.96.0.10:80", &[ea, eb]);
    let only_b = frontend("10.96.0.11:80", &[eb]);
    let none = frontend("10.96.0.12:80", &[]);
    let node_port = Frontend { at: FrontendAddress::NodePort(30080), ..only_b.clone() };
    let sticky = Frontend { affinity_seconds: 100, ..frontend("10.96.0.13:80", &[ea, eb]) };
    let all = vec![both, only_b.clone(), none, node_port, sticky];
    let network = host.block_on(async move {
        network.set_frontends(&all).await.unwrap();
        network.set_frontends(&all).await.unwrap();
        network
    });

    assert_eq!(ask(&a.namespace, &eb.to_string()).unwrap(), format!("b {ip_a}"), "pod to pod keeps its address");
    assert_eq!(ask(&a.namespace, "10.96.0.11:80").unwrap(), format!("b {ip_a}"), "through a service too");
    assert_eq!(ask(&b.namespace, "10.96.0.11:80").unwrap(), "b 10.244.1.1", "to itself it is masqueraded");
    assert_eq!(ask(&host.path(), "10.96.0.11:80").unwrap(), "b 10.244.1.1", "from the node");
    assert_eq!(ask(&a.namespace, "10.244.1.1:30080").unwrap(), format!("b {ip_a}"), "node port");
    assert_eq!(ask(&host.path(), "10.244.1.1:30080").unwrap(), "b 10.244.1.1", "node port from the node");
    let refused = ask(&a.namespace, "10.96.0.12:80").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "no endpoints");
    let answers: Vec<_> = (0..40).map(|_| ask(&host.path(), "10.96.0.10:80").unwrap()).collect();
    assert!(answers.iter().any(|t| t.starts_with('a')) && answers.iter().any(|t| t.starts_with('b')), "{answers:?}");
    let first = ask(&a.namespace, "10.96.0.13:80").unwrap();
    assert!((0..20).all(|_| ask(&a.namespace, "10.96.0.13:80").unwrap() == first), "affinity keeps the endpoint");
    let other = if first.starts_with('a') { eb } else { ea };
    let moved = Frontend { affinity_seconds: 100, ..frontend("10.96.0.13:80", &[other]) };
    let network = host.block_on(async move {
        network.set_frontends(&[moved, only_b]).await.unwrap();
        network
    });
    assert_ne!(ask(&a.namespace, "10.96.0.13:80").unwrap(), first, "not when it is gone");
    assert!(ask(&a.namespace, "10.96.0.10:80").is_err(), "a removed service is gone");
    assert_eq!(ask(&a.namespace, "10.96.0.11:80").unwrap(), format!("b {ip_a}"));
    assert_ne!(ip_a, ip_b);
    drop(network);
    let run_dir = host.config("svc").run_dir;
    host.block_on(async move { Network::purge("svc", &run_dir).await.unwrap() });
    assert!(!a.namespace.exists());
}

#[test]
fn a_restart_adopts_and_purge_leaves_nothing_but_the_other_instance() {
    let host = Host::new("own");
    let (first, second) =
        (host.config("one"), Config { pod_cidrs: vec!["10.244.2.0/24".parse().unwrap()], ..host.config("two") });
    let run_dir = first.run_dir.clone();
    let (again, run_two) = (first.clone(), second.run_dir.clone());
    let owned = format!("{}-owned", host.name);
    run("ip", &["netns", "add", &owned]);
    let given = Path::new("/run/netns").join(&owned);
    let kept = host.block_on(async move {
        let network = Network::open(first).await.unwrap();
        let a = network.attach("a", None).await.unwrap();
        network.attach("b", None).await.unwrap();
        network.detach("b").await.unwrap();
        network.detach("b").await.unwrap();
        network.set_frontends(&[frontend("10.96.0.1:443", &[endpoint(&a, 1)])]).await.unwrap();
        drop(network);
        let network = Network::open(again).await.unwrap();
        assert_eq!(network.attachments(), vec![a.clone()]);
        assert_eq!(network.attach("a", None).await.unwrap(), a);
        let other = Network::open(second).await.unwrap();
        let given = || std::fs::File::open(&given).unwrap().into();
        let kept = other.attach("kept", Some(given())).await.unwrap();
        let ino = |fd: std::os::fd::OwnedFd| rustix::fs::fstat(&fd).unwrap().st_ino;
        assert_eq!(ino(std::fs::File::open(&kept.namespace).unwrap().into()), ino(given()), "the given one");
        assert_eq!(other.attach("kept", Some(given())).await.unwrap(), kept, "attach is idempotent");
        other.set_frontends(&[]).await.unwrap();
        Network::purge("one", &run_dir).await.unwrap();
        Network::purge("one", &run_dir).await.unwrap();
        assert!(!run_dir.exists());
        kept
    });
    let links = run("ip", &["-n", &host.name, "-o", "link"]);
    assert!(!links.contains("ttone") && links.contains("tttwo-br"), "{links}");
    let tables = run("ip", &["netns", "exec", &host.name, "nft", "list", "tables"]);
    assert!(!tables.contains("trimtab-one") && tables.contains("trimtab-two"), "{tables}");
    assert!(kept.namespace.exists());
    host.block_on(async move { Network::purge("two", &run_two).await.unwrap() });
}

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
