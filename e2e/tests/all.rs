//! Stories on clusters of real processes. Needs root, kubectl and helm.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use e2e::cluster::{Cluster, stories};
use e2e::leak::Instance;
use e2e::load::Load;
use e2e::story::Place;
use e2e::{story, writes};

/// One cluster at a time: the kernel gives the number of a namespace that is gone to the next one, whoever makes it, so
/// what is left of one cluster cannot be told from what another has while both come and go.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn with_cluster(name: &str, subnet: u8, store: Option<&str>, test: impl FnOnce(&mut Cluster)) {
    let _turn = turn();
    let mut cluster = Cluster::start(name, subnet, 3, store).unwrap();
    test(&mut cluster);
    gone(&mut cluster);
}

/// Takes every instance down; nothing of any may be left.
fn gone(cluster: &mut Cluster) {
    for node in cluster.nodes.iter_mut().rev() {
        let mut instance = node.instance().unwrap();
        assert!(!instance.traces().is_empty());
        node.down().unwrap();
        nothing_left(&mut instance);
    }
    assert!(cluster.panics().is_empty(), "{:#?}", cluster.panics());
}

fn nothing_left(instance: &mut Instance) {
    let left = instance.traces();
    assert!(left.is_empty(), "left behind: {left:#?}");
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

/// What people do with kubectl and helm every day.
const EVERY_DAY: &[&str] = &[
    "basics", "apply", "get", "describe", "change", "rollout", "learn", "nodes", "pods", "restarts", "delete", "helm",
];

#[test]
fn every_story_holds_on_the_embedded_store() {
    with_cluster("emb", 1, None, |cluster| {
        told(cluster, EVERY_DAY);
        told(cluster, &["reviews", "tokens", "images", "injection"]);
        bad_input(cluster);
        rolling_update(cluster);
        agent_killed(cluster);
        node_cut_off(cluster);
        server_killed(cluster);
        names_resolved(cluster);
    });
}

#[test]
fn every_story_holds_on_a_real_etcd() {
    with_cluster("etcd", 2, Some("etcd"), |cluster| {
        told(cluster, EVERY_DAY);
        told(cluster, &["lease", "reviews", "injection"]);
        bad_input(cluster);
        rolling_update(cluster);
        agent_killed(cluster);
        node_cut_off(cluster);
        server_killed(cluster);
        names_resolved(cluster);
        told(cluster, &["compacted"]);
    });
}

#[test]
fn parts_that_are_processes_of_their_own_make_a_cluster() {
    let _turn = turn();
    let mut cluster = Cluster::machines("parts", 3, 2).unwrap();
    cluster.start_api_server().unwrap();
    let ca = "--root-ca-file $DATA/pki/ca.crt --cluster-signing-cert-file $DATA/pki/ca.crt \
              --cluster-signing-key-file $DATA/pki/ca.key";
    cluster.start_part("controller", &format!("--kubeconfig $DATA/controller-manager.kubeconfig {ca}")).unwrap();
    cluster.start_part("scheduler", "--kubeconfig $DATA/scheduler.kubeconfig").unwrap();
    cluster.start_part("dns", "--kubeconfig $DATA/admin.kubeconfig --listen 10.89.3.1:5353 --health :8053").unwrap();
    told(&cluster, &["parts-identity"]);
    cluster.start_node_agent(1, "--kubeconfig $WORK/n2.kubeconfig --client-ca-file $DATA/pki/ca.crt").unwrap();
    told(&cluster, &["parts"]);
    gone(&mut cluster);
}

#[test]
fn a_purge_takes_all_of_an_instance_and_nothing_of_the_one_beside_it() {
    let _turn = turn();
    let mut cluster = Cluster::start("two", 4, 1, None).unwrap();
    cluster.start_beside().unwrap();
    told(&cluster, &["beside"]);
    let [first, second] = &mut cluster.nodes[..] else { panic!("two instances") };
    let (mut purged, mut beside) = (first.instance().unwrap(), second.instance().unwrap());
    let (before, kept) = (purged.traces(), beside.traces());
    assert!(before.is_disjoint(&kept), "shared: {:#?}", before.intersection(&kept).collect::<Vec<_>>());
    let ip = cluster
        .output("kubectl --kubeconfig $WORK/beside/admin.kubeconfig get service web -o jsonpath='{.spec.clusterIP}'");
    let load = Load::start(&cluster.nodes[0].namespace, format!("{}:80", ip.unwrap().trim()).parse().unwrap(), 100);
    until("requests", Duration::from_secs(10), || load.sent() > 50);
    cluster.nodes[0].down().unwrap();
    let report = load.stop();
    assert!(report.failures.is_empty(), "beside: {:#?}", report.failures);
    nothing_left(&mut purged);
    assert_eq!(beside.traces(), kept);
    cluster.nodes[1].down().unwrap();
    nothing_left(&mut beside);
}

#[test]
fn two_hundred_pods_leave_nothing_when_they_are_deleted() {
    with_cluster("many", 5, None, |cluster| {
        let mut instances: Vec<Instance> = cluster.nodes.iter().map(|node| node.instance().unwrap()).collect();
        let mut all = || instances.iter_mut().flat_map(Instance::traces).collect::<BTreeSet<_>>();
        let before = all();
        told(cluster, &["many"]);
        // A pod's last files go a moment after its object.
        let began = Instant::now();
        while all() != before {
            let left = all().difference(&before).cloned().collect::<Vec<_>>();
            assert!(began.elapsed() < Duration::from_secs(10), "left of 200 pods: {left:#?}\n{:#?}", cluster.panics());
            thread::park_timeout(Duration::from_millis(200));
        }
    });
}

/// Every kind of it is answered by a Status; nothing is written, and memory has no peak.
fn bad_input(cluster: &Cluster) {
    let before = cluster.nodes[0].peak_kib().unwrap();
    told(cluster, &["bad-input"]);
    let grown = cluster.nodes[0].peak_kib().unwrap() - before;
    assert!(grown < 64 * 1024, "the server's memory rose by {grown} KiB");
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
    let names = resolved(cluster);
    until("names resolve while the agent is down", Duration::from_secs(20), || resolved(cluster) > names + 3);
    cluster.start_agent(1).unwrap();
    told(cluster, &["after-restart"]);
    assert_eq!(cluster.output(seen).unwrap(), before);
    assert_eq!(container_pids(cluster), pids, "containers were started again");
}

/// How often a pod has found a name so far, as its node keeps its log.
fn resolved(cluster: &Cluster) -> usize {
    let lines = cluster.output("cat $WORK/n2/log/pods/default_resolver_*/*/*.log | grep -c resolved").unwrap();
    lines.trim().parse().unwrap()
}

/// Through the deaths of its agent and of the server, a pod never failed to find a name.
fn names_resolved(cluster: &Cluster) {
    assert_eq!(
        cluster.output("cat $WORK/n2/log/pods/default_resolver_*/*/*.log | grep -c failed || :").unwrap(),
        "0\n"
    );
}

/// The pids of all containers' first processes: the shims' children.
fn container_pids(cluster: &Cluster) -> Vec<String> {
    let line = "for node in $WORK/n?; do for shim in $(pgrep -f \"[s]him /run/trimtab/$(cat $node/instance)/\"); do \
                pgrep -P $shim; done; done | sort -n";
    let text = cluster.output(line).unwrap();
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
