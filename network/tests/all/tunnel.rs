//! Nodes on one link and nodes behind a router: routes and VXLAN.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use network::{Attachment, Config, Frontend, FrontendAddress, Network, Peer};

use crate::conversation::{PATIENCE, ask, endpoint, exchange, frontend, serve, socket};
use crate::place::{Host, Space, within};

/// A node with one pod.
struct Node {
    host: Host,
    config: Config,
    network: Arc<Network>,
    pod: Attachment,
}

impl Node {
    fn new(name: &'static str, number: u8, ip: &str, place: impl FnOnce(&Host)) -> Self {
        let host = Host::new(name);
        place(&host);
        let config = Config {
            pod_cidrs: vec![format!("10.244.{number}.0/24").parse().unwrap()],
            node_ips: vec![ip.parse().unwrap()],
            ..host.config(name)
        };
        let opened = config.clone();
        let (network, pod) = host.block_on(async move {
            let network = Network::open(opened).await.unwrap();
            let pod = network.attach("pod", None).await.unwrap();
            (Arc::new(network), pod)
        });
        serve(&pod, 8080, name);
        Self { host, config, network, pod }
    }

    fn peer(&self) -> Peer {
        Peer { pod_cidrs: self.config.pod_cidrs.clone(), node_ip: self.config.node_ips[0] }
    }

    fn meet(&self, peers: &[&Node]) {
        let (network, peers) = (self.network.clone(), peers.iter().map(|node| node.peer()).collect::<Vec<_>>());
        self.host.block_on(async move { network.set_peers(&peers).await.unwrap() });
    }

    fn purge(self) {
        let (instance, run_dir) = (self.config.instance.clone(), self.config.run_dir.clone());
        self.host.block_on(async move { Network::purge(&instance, &run_dir).await.unwrap() });
        let left = self.host.space.ip(&["-d", "link"]) + &self.host.space.ip(&["route"]);
        assert!(!left.contains("vxlan") && !left.contains("10.244."), "{left}");
    }
}

/// `near` and `beside` are on one link, `far` behind a router.
fn nodes() -> (Space, Node, Node, Node) {
    let router = Space::new("router");
    router.run(&["sysctl", "-q", "-w", "net.ipv4.ip_forward=1"]);
    router.ip(&["link", "add", "lan", "type", "bridge"]);
    router.ip(&["addr", "add", "10.1.1.1/24", "dev", "lan"]);
    router.ip(&["link", "set", "lan", "up"]);
    let on_link = |link: &'static str, ip: &'static str| {
        let router = &router;
        move |host: &Host| {
            host.space.ip(&["link", "add", "uplink", "type", "veth", "peer", "name", link, "netns", &router.name]);
            host.space.ip(&["addr", "add", &format!("{ip}/24"), "dev", "uplink"]);
            host.space.ip(&["link", "set", "uplink", "up"]);
            router.ip(&["link", "set", link, "master", "lan", "up"]);
            host.space.ip(&["route", "add", "default", "via", "10.1.1.1"]);
        }
    };
    let near = Node::new("near", 1, "10.1.1.2", on_link("p1", "10.1.1.2"));
    let beside = Node::new("beside", 2, "10.1.1.3", on_link("p2", "10.1.1.3"));
    let far = Node::new("far", 3, "10.1.2.2", |host| {
        host.space.link("uplink", "10.1.2.2/24", &router, "10.1.2.1/24");
        host.space.ip(&["route", "add", "default", "via", "10.1.2.1"]);
    });
    (router, near, beside, far)
}

#[test]
fn pods_meet_over_links_and_tunnels() {
    let (_router, near, beside, far) = nodes();
    near.meet(&[&beside, &far]);
    beside.meet(&[&near, &far]);
    far.meet(&[&near, &beside]);
    near.meet(&[&beside, &far]);

    let routes = near.host.space.ip(&["route"]);
    assert!(routes.contains("10.244.2.0/24 via 10.1.1.3 dev uplink"), "on the link: {routes}");
    assert!(routes.contains("10.244.3.0/24 via 10.244.3.1 dev ttnear-vx"), "through the tunnel: {routes}");
    let link = near.host.space.ip(&["-d", "link", "show", "ttnear-vx"]);
    assert!(link.contains("mtu 1450") && link.contains("dstport 4789") && link.contains("nolearning"), "{link}");

    for (from, to) in [(&near, &far), (&far, &near), (&near, &beside), (&beside, &far)] {
        let (at, client) = (endpoint(&to.pod, 8080), from.pod.addresses[0]);
        let said = format!("{} {client}", to.config.instance);
        assert_eq!(ask(&from.pod.namespace, &at.to_string()).unwrap(), said, "pod to pod");
        let udp = socket(&from.pod.namespace, &at.to_string());
        assert_eq!(exchange(&udp, PATIENCE).unwrap(), said, "a datagram");
        assert!(ask(&from.host.path(), &at.to_string()).is_ok(), "node to pod");
    }
    carry(&near.pod.namespace, &far.pod);
    services(&near, &far);

    far.meet(&[&beside]);
    near.meet(&[&beside]);
    let left = near.host.space.ip(&["-d", "link"]) + &near.host.space.ip(&["route"]);
    assert!(!left.contains("vxlan") && !left.contains("10.244.3."), "no far peer, no tunnel: {left}");
    assert!(ask(&near.pod.namespace, &endpoint(&beside.pod, 8080).to_string()).is_ok(), "the link is as it was");
    let fdb = far.host.space.run(&["bridge", "fdb", "show", "dev", "ttfar-vx"]);
    assert!(fdb.contains("dst 10.1.1.3") && !fdb.contains("dst 10.1.1.2"), "{fdb}");
    let neighbours = far.host.space.ip(&["neigh", "show", "dev", "ttfar-vx"]);
    assert!(neighbours.contains("10.244.2.1") && !neighbours.contains("10.244.1.1"), "{neighbours}");
    [near, beside, far].into_iter().for_each(Node::purge);
}

/// More than fits into the tunnel's packets.
fn carry(from: &Path, to: &Attachment) {
    const BYTES: usize = 4 << 20;
    let at = SocketAddr::new(to.addresses[0], 9000);
    let listener = within(&to.namespace, move || TcpListener::bind(("0.0.0.0", 9000)).unwrap());
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes.len()
    });
    within(from, move || TcpStream::connect_timeout(&at, PATIENCE).unwrap().write_all(&vec![7; BYTES]).unwrap());
    assert_eq!(server.join().unwrap(), BYTES);
}

/// An endpoint behind the tunnel, from a pod, from the node, and from a pod of the other node through our node's port.
fn services(near: &Node, far: &Node) {
    let at = endpoint(&far.pod, 8080);
    let cluster = frontend("10.96.0.10:80", &[at]);
    let port = Frontend { at: FrontendAddress::NodePort(30080), ..cluster.clone() };
    let network = near.network.clone();
    near.host.block_on(async move { network.set_frontends(vec![cluster, port]).await.unwrap() });
    let pod = &near.pod;
    assert_eq!(ask(&pod.namespace, "10.96.0.10:80").unwrap(), format!("far {}", pod.addresses[0]));
    assert_eq!(ask(&near.host.path(), "10.96.0.10:80").unwrap(), "far 10.244.1.1", "from the node");
    assert_eq!(ask(&far.pod.namespace, "10.1.1.2:30080").unwrap(), "far 10.244.1.1", "there and back again");
}
