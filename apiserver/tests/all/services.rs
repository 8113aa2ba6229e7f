//! Two servers on one store give out cluster addresses and node ports: none twice, none lost.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use apiserver::{Config, Server};
use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};
use store::etcd::{self, Etcd};
use store::memory::Memory;
use store::{Range, Store};

use super::{ask, parts};

const SERVICES: &str = "/api/v1/namespaces/a/services";
/// A /26 has 62 usable addresses.
const ADDRESSES: usize = 62;

async fn pair(store: &Arc<dyn Store>, prefix: &str) -> [Server; 2] {
    let start = || {
        let config = Config {
            service_cidrs: vec!["10.96.0.0/26".parse().expect("a range")],
            node_ports: 30000..=30039,
            own_prefix: prefix.into(),
            ..Config::default()
        };
        let store = Arc::clone(store);
        async move { Server::start(config, store, parts()).await.expect("a server") }
    };
    [start().await, start().await]
}

async fn create(server: &Server, name: String, kind: &str) -> (u16, Value) {
    let service = json!({"metadata": {"name": name}, "spec": {"type": kind, "ports": [{"port": 80}]}});
    ask(server, Method::POST, SERVICES, Some(service)).await
}

async fn delete(server: &Server, name: String) -> (u16, Value) {
    ask(server, Method::DELETE, &format!("{SERVICES}/{name}"), None).await
}

/// What is allocated, by the store, without the prefixes.
async fn allocated(store: &Arc<dyn Store>, prefix: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for (prefix, kind) in [(prefix, "nodeports/"), ("/registry/", "ipaddresses/")] {
        let page = store.range(Range::prefix(format!("{prefix}{kind}").into_bytes())).await.expect("a page");
        let key = |entry: &store::Entry| String::from_utf8_lossy(&entry.key).trim_start_matches(prefix).to_owned();
        all.extend(page.entries.iter().map(key));
    }
    all
}

/// What the services hold.
async fn held(server: &Server) -> BTreeSet<String> {
    let (_, list) = ask(server, Method::GET, SERVICES, None).await;
    let mut all = Vec::new();
    for service in list["items"].as_array().expect("items") {
        all.push(format!("ipaddresses/{}", service["spec"]["clusterIP"].as_str().expect("an address")));
        let ports = service["spec"]["ports"].as_array().into_iter().flatten();
        all.extend(ports.filter_map(|port| Some(format!("nodeports/{}/TCP", port["nodePort"].as_u64()?))));
    }
    let set: BTreeSet<String> = all.iter().cloned().collect();
    assert_eq!(set.len(), all.len(), "nothing twice");
    set
}

async fn scenario(store: Arc<dyn Store>, prefix: &str) {
    let servers = pair(&store, prefix).await;
    let server = |n: usize| &servers[n % 2];
    // More than there is: exactly as many as there is are given out, and the node ports of the first forty.
    let made = join_all((0..ADDRESSES + 10).map(|n| {
        let kind = if n < 40 { "NodePort" } else { "ClusterIP" };
        create(server(n), format!("s{n}"), kind)
    }))
    .await;
    let good: Vec<usize> = (0..made.len()).filter(|n| made[*n].0 == 201).collect();
    assert_eq!(
        good.len(),
        ADDRESSES,
        "{:?}",
        made.iter().map(|(code, answer)| (code, &answer["message"])).collect::<Vec<_>>()
    );
    assert_eq!(held(server(0)).await, allocated(&store, prefix).await, "no leak");
    // Half of them go while others come, on both servers.
    let gone: Vec<usize> = good.iter().copied().step_by(2).collect();
    let deletes = join_all(gone.iter().map(|n| delete(server(n + 1), format!("s{n}"))));
    let creates = join_all((0..gone.len()).map(|n| create(server(n), format!("t{n}"), "NodePort")));
    let (deleted, _) = tokio::join!(deletes, creates);
    assert!(deleted.iter().all(|(code, _)| *code == 200), "{deleted:?}");
    assert_eq!(held(server(1)).await, allocated(&store, prefix).await, "no leak");
    // The same address asked for from both at once: one gets it.
    for service in ask(server(0), Method::GET, SERVICES, None).await.1["items"].as_array().expect("items") {
        delete(server(0), service["metadata"]["name"].as_str().expect("a name").to_owned()).await;
    }
    assert_eq!(allocated(&store, prefix).await, BTreeSet::new());
    let wanted = |n: usize| {
        let service = json!({"metadata": {"name": format!("w{n}")},
            "spec": {"type": "NodePort", "clusterIP": "10.96.0.9", "ports": [{"port": 80, "nodePort": 30007}]}});
        ask(server(n), Method::POST, SERVICES, Some(service))
    };
    let answers = join_all((0..4).map(wanted)).await;
    let codes: Vec<u16> = answers.iter().map(|(code, _)| *code).collect();
    assert_eq!(codes.iter().filter(|code| **code == 201).count(), 1, "{answers:?}");
    assert_eq!(codes.iter().filter(|code| **code == 422).count(), 3, "{answers:?}");
    assert_eq!(held(server(0)).await, allocated(&store, prefix).await);
}

#[tokio::test]
async fn two_servers_share_addresses_and_ports() {
    scenario(Arc::new(Memory::new()), "/own/").await;
}

/// An etcd of its own; it ends with this value.
pub(super) struct Running {
    child: Child,
    _folder: tempfile::TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_url() -> String {
    format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
}

/// Nothing if there is no etcd on this machine.
pub(super) async fn etcd() -> Option<(Running, Etcd)> {
    let (client, peer, folder) = (free_url(), free_url(), tempfile::tempdir().unwrap());
    let started = Command::new("etcd")
        .args(["--data-dir", folder.path().to_str().unwrap(), "--log-level", "error"])
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .args(["--heartbeat-interval", "10", "--election-timeout", "100"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let child = match started {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("SKIPPED: there is no etcd on PATH (Debian: apt-get install etcd-server)");
            return None;
        }
        Err(error) => panic!("starting etcd: {error}"),
    };
    let running = Running { child, _folder: folder };
    let config = etcd::Config { urls: vec![client], ..etcd::Config::default() };
    let etcd = Etcd::connect(config).await.expect("etcd answers");
    Some((running, etcd))
}

#[tokio::test]
async fn two_servers_on_etcd_share_addresses_and_ports() {
    let Some((_running, etcd)) = etcd().await else { return };
    scenario(Arc::new(etcd), "/own/").await;
}
