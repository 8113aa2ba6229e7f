//! Stories on clusters of real processes. Needs root, kubectl and helm.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use e2e::cluster::{Cluster, stories};
use e2e::load::Load;
use e2e::{leak, story, writes};

/// One cluster at a time: they share the machine's cores, and what they leave is counted.
static TURN: Mutex<()> = Mutex::new(());

fn with_cluster(name: &str, subnet: u8, store: Option<&str>, test: impl FnOnce(&mut Cluster)) {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let before = leak::traces();
    let mut cluster = Cluster::start(name, subnet, 3, store).unwrap();
    test(&mut cluster);
    cluster.down().unwrap();
    drop(cluster);
    let after = leak::traces();
    assert!(after.is_subset(&before), "left behind: {:#?}", after.difference(&before).collect::<Vec<_>>());
}

fn told(cluster: &Cluster, names: &[&str]) {
    for name in names {
        if let Err(error) = story::tell(cluster, &stories().join(format!("{name}.story"))) {
            panic!("{error:#}\n{}", cluster.logs());
        }
    }
}

/// Waits for what another process does.
fn until(what: &str, longest: Duration, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < longest, "{what}: not within {longest:?}");
        thread::park_timeout(Duration::from_millis(200));
    }
}

#[test]
fn the_embedded_store() {
    with_cluster("emb", 1, None, |cluster| {
        told(cluster, &["basics", "kubectl", "pods", "bad-input"]);
        rolling_update(cluster);
        agent_killed(cluster);
        node_cut_off(cluster);
        server_killed(cluster);
    });
}

#[test]
fn a_real_etcd() {
    with_cluster("etcd", 2, Some("etcd"), |cluster| {
        told(cluster, &["basics", "kubectl", "lease"]);
        server_killed(cluster);
    });
}

/// 200 requests a second through the ClusterIP, each on a new connection without a retry: not one may fail.
fn rolling_update(cluster: &Cluster) {
    let ip = cluster.output("kubectl get service web -o jsonpath='{.spec.clusterIP}'").unwrap();
    let at = format!("{}:80", ip.trim()).parse().unwrap();
    let load = Load::start(&cluster.nodes[1].namespace, at, 200);
    cluster
        .output("kubectl set env deployment/web ROUND=two && kubectl rollout status deployment/web --timeout=90s")
        .unwrap();
    cluster
        .output("kubectl rollout restart deployment/web && kubectl rollout status deployment/web --timeout=90s")
        .unwrap();
    let report = load.stop();
    assert!(report.failures.is_empty(), "{} of {} failed: {:#?}", report.failures.len(), report.sent, report.failures);
    assert!(report.sent > 200, "only {} requests were sent", report.sent);
}

/// Containers keep their pids and counts when the agent dies, and the next agent adopts them.
fn agent_killed(cluster: &mut Cluster) {
    told(cluster, &["settled"]);
    let seen = "kubectl get pods -o jsonpath='{range .items[*]}{.metadata.name}{\" \"}{.status.containerStatuses[*].containerID}{\" \"}{.status.containerStatuses[*].restartCount}{\"\\n\"}{end}' | sort";
    let (before, pids) = (cluster.output(seen).unwrap(), container_pids(cluster));
    cluster.nodes[1].signal("KILL").unwrap();
    assert_eq!(container_pids(cluster), pids, "containers die with the agent");
    cluster.start_agent(1).unwrap();
    told(cluster, &["after-restart"]);
    assert_eq!(cluster.output(seen).unwrap(), before);
    assert_eq!(container_pids(cluster), pids, "containers were started again");
}

/// The pids of all containers' first processes: the shims' children.
fn container_pids(cluster: &Cluster) -> Vec<String> {
    let text = cluster.output("for shim in $(pgrep -f '[t]rimtab shim'); do pgrep -P $shim; done | sort -n").unwrap();
    text.lines().map(str::to_owned).collect()
}

/// NotReady, endpoints removed, pods replaced elsewhere; when it returns, its old containers go within 10 s.
fn node_cut_off(cluster: &Cluster) {
    cluster.cut(2, true).unwrap();
    told(cluster, &["node-cut-off"]);
    cluster.cut(2, false).unwrap();
    told(cluster, &["node-back"]);
}

/// SIGKILL in the middle of 1,000 writes.
fn server_killed(cluster: &mut Cluster) {
    let (namespace, kubeconfig) = (cluster.nodes[0].namespace.clone(), cluster.nodes[0].data.join("admin.kubeconfig"));
    let count = writes::Count::default();
    let counted = count.clone();
    let run = writes::within(&namespace, kubeconfig, move |client| writes::run(client, 1000, counted));
    until("300 writes", Duration::from_secs(60), || count.acknowledged() >= 300 || run.is_finished());
    cluster.nodes[0].signal("KILL").unwrap();
    cluster.start_first().unwrap();
    if let Err(error) = run.join().unwrap() {
        panic!("{error:#}\n{}", cluster.logs());
    }
}
