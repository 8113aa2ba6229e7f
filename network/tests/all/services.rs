//! Service rules, shown by packets.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use network::{Attachment, Config, Frontend, FrontendAddress, Network, Protocol};

use crate::conversation::{IMPATIENCE, PATIENCE, ask, endpoint, exchange, frontend, refusal, serve, socket};
use crate::place::{Host, Space};

/// A node with three pods that serve at port 8080, and a machine outside of the cluster that routes through it.
pub(crate) struct Node {
    pub(crate) host: Host,
    pub(crate) outside: Space,
    config: Config,
    pub(crate) network: Arc<Network>,
    pub(crate) pods: Vec<Attachment>,
}

impl Node {
    pub(crate) fn new(test: &str) -> Self {
        let (host, outside) = (Host::new(test), Space::new(&format!("{test}-out")));
        host.space.link("uplink", "192.168.7.1/24", &outside, "192.168.7.2/24");
        outside.ip(&["route", "add", "default", "via", "192.168.7.1"]);
        for words in ["link add world type bridge", "addr add 203.0.113.1/24 dev world", "link set world up"] {
            host.space.ip(&words.split(' ').collect::<Vec<_>>());
        }
        host.space.ip(&["route", "add", "default", "via", "203.0.113.2"]);
        let config = Config { node_ips: vec!["192.168.7.1".parse().unwrap()], ..host.config(test) };
        let opened = config.clone();
        let (network, pods) = host.block_on(async move {
            let network = Network::open(opened).await.unwrap();
            let mut pods = Vec::new();
            for name in ["a", "b", "c"] {
                pods.push(network.attach(name, None).await.unwrap());
            }
            (Arc::new(network), pods)
        });
        for (pod, name) in pods.iter().zip(["a", "b", "c"]) {
            serve(pod, 8080, name);
        }
        Self { host, outside, config, network, pods }
    }

    pub(crate) fn set(&self, frontends: &[Frontend]) {
        let (network, frontends) = (self.network.clone(), frontends.to_vec());
        self.host.block_on(async move { network.set_frontends(frontends).await.unwrap() });
    }

    fn change(&self, frontend: Frontend) {
        let network = self.network.clone();
        self.host.block_on(async move { network.change_frontends(vec![frontend], Vec::new()).await.unwrap() });
    }

    pub(crate) fn endpoint(&self, pod: usize) -> SocketAddr {
        endpoint(&self.pods[pod], 8080)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let (instance, run_dir) = (self.config.instance.clone(), self.config.run_dir.clone());
        if !thread::panicking() {
            self.host.block_on(async move { Network::purge(&instance, &run_dir).await.unwrap() });
        }
    }
}

#[test]
fn pods_reach_services_themselves_and_each_other() {
    let node = Node::new("svc");
    let (a, b) = (&node.pods[0], &node.pods[1]);
    let (ea, eb) = (node.endpoint(0), node.endpoint(1));
    let (ip_a, host) = (a.addresses[0], node.host.path());
    let both = frontend("10.96.0.10:80", &[ea, eb]);
    let only_b = frontend("10.96.0.11:80", &[eb]);
    let node_port = Frontend { at: FrontendAddress::NodePort(30080), ..only_b.clone() };
    node.set(&[both.clone(), only_b.clone(), node_port.clone()]);
    node.set(&[both, only_b.clone(), node_port]);

    assert_eq!(ask(&a.namespace, &eb.to_string()).unwrap(), format!("b {ip_a}"), "pod to pod keeps its address");
    assert_eq!(ask(&a.namespace, "10.96.0.11:80").unwrap(), format!("b {ip_a}"), "through a service too");
    assert_eq!(ask(&b.namespace, "10.96.0.11:80").unwrap(), "b 10.244.1.1", "to itself it is masqueraded");
    assert_eq!(ask(&host, "10.96.0.11:80").unwrap(), "b 10.244.1.1", "from the node");
    assert_eq!(ask(&a.namespace, "192.168.7.1:30080").unwrap(), format!("b {ip_a}"), "node port");
    assert_eq!(ask(&host, "192.168.7.1:30080").unwrap(), "b 10.244.1.1", "node port from the node");
    assert_eq!(ask(&node.outside.path(), "192.168.7.1:30080").unwrap(), "b 10.244.1.1", "node port from outside");
    let answers: Vec<_> = (0..40).map(|_| ask(&host, "10.96.0.10:80").unwrap()).collect();
    assert!(answers.iter().any(|t| t.starts_with('a')) && answers.iter().any(|t| t.starts_with('b')), "{answers:?}");
    node.set(&[only_b]);
    assert_eq!(ask(&a.namespace, "10.96.0.11:80").unwrap(), format!("b {ip_a}"));
    assert_eq!(refusal(&a.namespace, "10.96.0.10:80"), ErrorKind::TimedOut, "an address of no service is silent");
}

#[test]
fn what_nobody_serves_is_refused_or_dropped() {
    let node = Node::new("none");
    let (pod, host, outside) = (&node.pods[0].namespace, node.host.path(), node.outside.path());
    let none = frontend("10.96.0.12:80", &[]);
    let udp = Frontend { protocol: Protocol::Udp, ..none.clone() };
    let port = Frontend { at: FrontendAddress::NodePort(30081), ..none.clone() };
    let elsewhere = Frontend { elsewhere: true, ..frontend("10.96.0.13:80", &[]) };
    node.set(&[none, udp, port, elsewhere]);
    for from in [pod, &host] {
        assert_eq!(refusal(from, "10.96.0.12:80"), ErrorKind::ConnectionRefused, "no endpoints");
        assert_eq!(refusal(from, "10.96.0.12:81"), ErrorKind::ConnectionRefused, "another port of a service");
        assert_eq!(refusal(from, "10.96.0.13:80"), ErrorKind::TimedOut, "endpoints elsewhere");
        assert_eq!(refusal(from, "10.96.0.14:80"), ErrorKind::TimedOut, "no service");
    }
    let asked = exchange(&socket(pod, "10.96.0.12:80"), PATIENCE);
    assert_eq!(asked.unwrap_err().kind(), ErrorKind::ConnectionRefused, "UDP");
    assert_eq!(refusal(&outside, "192.168.7.1:30081"), ErrorKind::ConnectionRefused, "a node port");
    node.change(frontend("10.96.0.12:80", &[node.endpoint(1)]));
    assert_eq!(ask(&host, "10.96.0.12:80").unwrap(), "b 10.244.1.1", "until there is an endpoint");
}

#[test]
fn clients_outside_may_be_led_elsewhere_and_keep_their_address() {
    let node = Node::new("etp");
    let (pod, host, outside) = (&node.pods[2], node.host.path(), node.outside.path());
    let local = |at, local: &[SocketAddr]| Frontend {
        at,
        outside: Some(local.to_vec()),
        ..frontend("5.6.7.8:80", &[node.endpoint(1)])
    };
    let (balancer, port) = (FrontendAddress::Ip("5.6.7.8:80".parse().unwrap()), FrontendAddress::NodePort(30080));
    let both = |list: &[SocketAddr]| [local(balancer, list), local(port, list)];
    node.set(&both(&[node.endpoint(0)]));
    for at in ["5.6.7.8:80", "192.168.7.1:30080"] {
        assert_eq!(ask(&outside, at).unwrap(), "a 192.168.7.2", "from outside to {at}");
        assert_eq!(ask(&pod.namespace, at).unwrap(), format!("b {}", pod.addresses[0]), "from a pod to {at}");
        assert_eq!(ask(&host, at).unwrap(), "b 10.244.1.1", "from the node to {at}");
    }
    node.set(&both(&[]));
    for at in ["5.6.7.8:80", "192.168.7.1:30080"] {
        assert_eq!(refusal(&outside, at), ErrorKind::TimedOut, "nothing here for {at}");
        assert_eq!(ask(&host, at).unwrap(), "b 10.244.1.1", "but for the node");
    }
    let nobody = Frontend { endpoints: Vec::new(), ..local(balancer, &[]) };
    node.set(&[nobody, frontend("5.6.7.9:80", &[node.endpoint(1)])]);
    assert_eq!(refusal(&outside, "5.6.7.8:80"), ErrorKind::ConnectionRefused, "nothing anywhere");
    assert_eq!(ask(&outside, "5.6.7.9:80").unwrap(), "b 10.244.1.1", "without the policy it is masqueraded");
}

#[test]
fn source_ranges_say_who_may_connect() {
    let node = Node::new("src");
    let (pod, outside) = (&node.pods[2].namespace, node.outside.path());
    let ranges = |list: &[&str]| Frontend {
        sources: list.iter().map(|net| net.parse().unwrap()).collect(),
        ..frontend("5.6.7.8:80", &[node.endpoint(1)])
    };
    let other = frontend("5.6.7.9:80", &[node.endpoint(1)]);
    node.set(&[ranges(&["192.168.9.0/24", "10.244.0.0/16", "fd00::/8"]), other]);
    assert_eq!(refusal(&outside, "5.6.7.8:80"), ErrorKind::TimedOut);
    assert!(ask(pod, "5.6.7.8:80").is_ok());
    assert!(ask(&outside, "5.6.7.9:80").is_ok(), "others are not touched");
    node.change(ranges(&["192.168.7.0/24", "192.168.7.2/32", "192.168.6.0/24"]));
    assert!(ask(&outside, "5.6.7.8:80").is_ok(), "ranges may overlap");
    assert_eq!(refusal(pod, "5.6.7.8:80"), ErrorKind::TimedOut);
    node.change(ranges(&["192.168.7.2/32"]));
    assert!(ask(&outside, "5.6.7.8:80").is_ok());
    node.change(ranges(&["192.168.7.3/32"]));
    assert_eq!(refusal(&outside, "5.6.7.8:80"), ErrorKind::TimedOut);
    node.change(ranges(&["fd00::/8"]));
    assert!(ask(&outside, "5.6.7.8:80").is_ok(), "ranges of another family are no ranges");
}

#[test]
fn a_client_stays_with_its_endpoint() {
    let node = Node::new("stay");
    let pod = &node.pods[0].namespace;
    let sticky = |endpoints: &[SocketAddr]| Frontend { affinity_seconds: 100, ..frontend("10.96.0.13:80", endpoints) };
    let all = [node.endpoint(0), node.endpoint(1), node.endpoint(2)];
    node.set(&[sticky(&all)]);
    let first = ask(pod, "10.96.0.13:80").unwrap();
    assert!((0..20).all(|_| ask(pod, "10.96.0.13:80").unwrap() == first), "the same endpoint");
    thread::park_timeout(Duration::from_millis(1100));
    ask(pod, "10.96.0.13:80").unwrap();
    let map = node.host.space.run(&["nft", "list", "map", "ip", "trimtab-stay", "affinity"]);
    assert!(map.contains("expires 1m39s"), "the time begins anew with each connection: {map}");
    let rest: Vec<SocketAddr> =
        all.into_iter().zip(["a", "b", "c"]).filter(|(_, n)| !first.starts_with(n)).map(|(e, _)| e).collect();
    node.change(sticky(&rest));
    let second = ask(pod, "10.96.0.13:80").unwrap();
    assert_ne!(second, first, "not when it is gone");
    assert!((0..20).all(|_| ask(pod, "10.96.0.13:80").unwrap() == second), "and then with the next");
    let local = Frontend { outside: Some(vec![rest[0]]), ..sticky(&rest) };
    node.set(&[Frontend { at: FrontendAddress::NodePort(30080), ..local }]);
    let outside = node.outside.path();
    let kept = ask(&outside, "192.168.7.1:30080").unwrap();
    assert!(kept.ends_with(" 192.168.7.2") && (0..8).all(|_| ask(&outside, "192.168.7.1:30080").unwrap() == kept));
}

#[test]
fn a_udp_client_is_not_led_to_an_endpoint_that_is_gone() {
    let node = Node::new("udp");
    let udp =
        |at, endpoints: &[SocketAddr]| Frontend { at, protocol: Protocol::Udp, ..frontend("10.96.0.10:53", endpoints) };
    let (cluster, port) = (FrontendAddress::Ip("10.96.0.10:53".parse().unwrap()), FrontendAddress::NodePort(30053));
    let both = |pod: usize| [udp(cluster, &[node.endpoint(pod)]), udp(port, &[node.endpoint(pod)])];
    node.set(&both(0));
    let clients = [socket(&node.pods[2].namespace, "10.96.0.10:53"), socket(&node.outside.path(), "192.168.7.1:30053")];
    let ask = |client: &std::net::UdpSocket| exchange(client, PATIENCE).unwrap();
    let seen = ["10.244.1.4", "10.244.1.1"];
    for (client, seen) in clients.iter().zip(seen) {
        assert_eq!(ask(client), format!("a {seen}"));
    }
    let kept = both(1).map(|f| Frontend { serving: vec![node.endpoint(0)], ..f });
    node.set(&kept);
    for (client, seen) in clients.iter().zip(seen) {
        assert_eq!(ask(client), format!("a {seen}"), "one that still serves keeps its clients");
    }
    node.set(&both(1));
    for (client, seen) in clients.iter().zip(seen) {
        assert_eq!(ask(client), format!("b {seen}"), "one that is gone does not");
    }
    node.set(&[]);
    for client in &clients {
        assert!(exchange(client, IMPATIENCE).is_err(), "nor does a service that is gone");
    }
}

#[test]
fn rules_of_ipv6_are_taken_too() {
    let node = Node::new("six");
    let at = |text: &str| text.parse::<SocketAddr>().unwrap();
    let endpoints = [at("[fd00::1]:80"), at("[fd00::2]:80")];
    let all = Frontend {
        outside: Some(endpoints[..1].to_vec()),
        affinity_seconds: 60,
        sources: vec!["fd00::/8".parse().unwrap()],
        ..frontend("[fd00:96::1]:80", &endpoints)
    };
    node.set(std::slice::from_ref(&all));
    let table = node.host.space.run(&["nft", "list", "set", "ip6", "trimtab-six", "alive"]);
    assert!(table.matches("0x").count() == 3, "{table}");
    node.set(&[Frontend { endpoints: endpoints[1..].to_vec(), outside: None, ..all }]);
    let table = node.host.space.run(&["nft", "list", "set", "ip6", "trimtab-six", "alive"]);
    assert!(table.matches("0x").count() == 1, "{table}");
}
