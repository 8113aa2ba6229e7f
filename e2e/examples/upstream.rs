//! Upstream's own parts on our cluster, unmodified and with their default protobuf (`cargo xtask e2e upstream`):
//! kube-scheduler and kube-controller-manager in the place of ours, kube-apiserver on the same etcd. `PEERS` is the folder
//! of their programs, `PEER` one with an identity for kube-apiserver and the words it is started with.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use e2e::cluster::{Cluster, stories};
use e2e::story::{self, Place};
use serde_json::Value;

/// What kube-apiserver serves and we do not: the aggregator's, and one that no store holds.
const THEIRS_ALONE: [&str; 2] = ["apiservices.apiregistration.k8s.io", "componentstatuses"];
/// What two servers that write the same give different values, besides times.
const GIVEN: [&str; 2] = ["uid", "resourceVersion"];
/// The controllers that a workload needs, and those without which no namespace can have pods.
const CONTROLLERS: &str = "deployment-controller,replicaset-controller,endpointslice-controller,\
     garbage-collector-controller,namespace-controller,serviceaccount-controller";
const OUR_CA: &str = "--root-ca-file $DATA/pki/ca.crt --cluster-signing-cert-file $DATA/pki/ca.crt \
     --cluster-signing-key-file $DATA/pki/ca.key";

fn main() -> ExitCode {
    match run() {
        Ok(()) => {
            println!("upstream: passed");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let peers = PathBuf::from(std::env::var_os("PEERS").context("PEERS is not set")?);
    let mut cluster = Cluster::machines("up", 10, 2)?;
    cluster.start_etcd(&peers.join("etcd"))?;
    cluster.start_api_server()?;
    workloads(&mut cluster, &peers)?;
    stored(&mut cluster, &peers)?;
    cluster.down()
}

/// Their scheduler with our controllers, then their controllers with our scheduler.
fn workloads(cluster: &mut Cluster, peers: &std::path::Path) -> Result<()> {
    let theirs = |name: &str| peers.join(name);
    let scheduler = "--kubeconfig $DATA/scheduler.kubeconfig";
    let controllers = "--kubeconfig $DATA/controller-manager.kubeconfig";
    let ours = cluster.start_part("controller", &format!("{controllers} {OUR_CA}"))?;
    told(cluster, "parts-identity")?;
    cluster.start_node_agent(1, "--kubeconfig $WORK/n2.kubeconfig --client-ca-file $DATA/pki/ca.crt")?;

    let their_scheduler = cluster.start_program(&theirs("kube-scheduler"), &format!("{scheduler} --secure-port 0"))?;
    told(cluster, "upstream-scheduler")?;
    cluster.end(their_scheduler)?;
    println!("kube-scheduler bound our pods");

    cluster.end(ours)?;
    let ours = cluster.start_part("scheduler", scheduler)?;
    let words = format!("{controllers} --secure-port 0 --use-service-account-credentials=false");
    let manager = theirs("kube-controller-manager");
    let manager = cluster.start_program(&manager, &format!("{words} --controllers={CONTROLLERS}"))?;
    told(cluster, "upstream-controllers")?;
    cluster.end(manager)?;
    cluster.end(ours)?;
    println!("kube-controller-manager rolled out and cleaned up");
    Ok(())
}

/// Two API servers on one etcd: what either writes both list, each object the same to the byte, and the same as the
/// other's but for what only a server gives.
fn stored(cluster: &mut Cluster, peers: &std::path::Path) -> Result<()> {
    let words = cluster.output("cat $PEER/arguments")?;
    cluster.start_program(&peers.join("kube-apiserver"), words.trim())?;
    told(cluster, "upstream-apiserver")?;
    let (ours, theirs) = (listed(cluster, "$KUBECONFIG")?, listed(cluster, "$PEER/kubeconfig")?);
    let count = |all: &BTreeMap<String, Vec<Value>>| all.values().map(Vec::len).sum::<usize>();
    let names = |all: &BTreeMap<String, Vec<Value>>| all.keys().cloned().collect::<BTreeSet<_>>();
    ensure!(names(&ours) == names(&theirs), "resources: {:?}", names(&ours).symmetric_difference(&names(&theirs)));
    let mut wrong: Vec<String> = Vec::new();
    for (resource, items) in &ours {
        let seen_by_them = theirs.get(resource).map(Vec::as_slice).unwrap_or_default();
        let (items, seen_by_them) = unchanged(items, seen_by_them);
        wrong.extend(different(resource, &items, &seen_by_them));
    }
    let (by_us, by_them) = (written(&ours, "ours"), written(&ours, "theirs"));
    ensure!(by_us.values().map(Vec::len).sum::<usize>() > 50, "we wrote only {by_us:?}");
    for resource in by_us.keys().chain(by_them.keys()).collect::<BTreeSet<_>>() {
        let of = |all: &BTreeMap<String, Vec<Value>>| all.get(resource).cloned().unwrap_or_default();
        wrong.extend(different(resource, &of(&by_us), &of(&by_them)));
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{} objects of {} resources are the same through both API servers", count(&ours), ours.len());
    Ok(())
}

fn told(cluster: &Cluster, name: &str) -> Result<()> {
    story::tell(cluster, &stories().join(format!("{name}.story"))).with_context(|| cluster.logs())
}

/// Every object that a server lists, by resource.
fn listed(cluster: &Cluster, kubeconfig: &str) -> Result<BTreeMap<String, Vec<Value>>> {
    let kubectl = format!("kubectl --kubeconfig {kubeconfig}");
    let names = cluster.output(&format!("{kubectl} api-resources --verbs=list -o name"))?;
    let names = names.lines().filter(|name| !THEIRS_ALONE.contains(name));
    let items = |name: &str| -> Result<Vec<Value>> {
        let list: Value = serde_json::from_str(&cluster.output(&format!("{kubectl} get {name} -A -o json"))?)?;
        Ok(list.get("items").and_then(Value::as_array).cloned().unwrap_or_default())
    };
    names.map(|name| Ok((name.to_owned(), items(name)?))).collect()
}

/// Two lists of a resource, without the heartbeats that came between them.
fn unchanged(ours: &[Value], theirs: &[Value]) -> (Vec<Value>, Vec<Value>) {
    let heartbeat = |item: &Value| item.get("kind").is_some_and(|kind| kind == "Lease" || kind == "Node");
    let version = |item: &Value| item.pointer("/metadata/resourceVersion").cloned();
    let versions = |items: &[Value]| items.iter().filter_map(version).collect::<Vec<_>>();
    let (of_ours, of_theirs) = (versions(ours), versions(theirs));
    let both = |item: &&Value| {
        !heartbeat(item)
            || version(item).is_some_and(|version| of_ours.contains(&version) && of_theirs.contains(&version))
    };
    (ours.iter().filter(both).cloned().collect(), theirs.iter().filter(both).cloned().collect())
}

/// The objects that one of the two wrote for the comparison, by resource, without what it was called and what a server
/// gives. What a server says in an event of its own is not among them.
fn written(all: &BTreeMap<String, Vec<Value>>, who: &str) -> BTreeMap<String, Vec<Value>> {
    let net = if who == "ours" { ".7." } else { ".8." };
    let same = |text: &str| text.replace(who, "WHO").replace(net, ".NET.");
    let of = |item: &&Value| {
        let name = |place: &str| item.pointer(place).and_then(Value::as_str).unwrap_or_default();
        let event = item.get("kind").is_some_and(|kind| kind == "Event") && name("/metadata/name") != "event";
        !event && (name("/metadata/namespace").contains(who) || name("/metadata/name").contains(who))
    };
    let items = |items: &[Value]| items.iter().filter(of).map(|item| told_apart_no_more(item, &same)).collect();
    let of_resource = all.iter().map(|(resource, all)| (same(resource), items(all)));
    of_resource.filter(|(_, items): &(String, Vec<Value>)| !items.is_empty()).collect()
}

fn told_apart_no_more(value: &Value, same: &dyn Fn(&str) -> String) -> Value {
    match value {
        Value::Object(fields) => {
            let time = |key: &str| key == "time" || key.ends_with("Time") || key.ends_with("Timestamp");
            let kept = fields.iter().filter(|(key, _)| !GIVEN.contains(&key.as_str()) && !time(key));
            Value::Object(kept.map(|(key, value)| (same(key), told_apart_no_more(value, same))).collect())
        }
        Value::Array(items) => items.iter().map(|item| told_apart_no_more(item, same)).collect(),
        Value::String(text) => Value::String(same(text)),
        other => other.clone(),
    }
}

/// One line for each place where two lists differ.
fn different(resource: &str, ours: &[Value], theirs: &[Value]) -> Vec<String> {
    let key = |item: &Value| {
        let part = |place: &str| item.pointer(place).and_then(Value::as_str).unwrap_or_default().to_owned();
        (part("/metadata/namespace"), part("/metadata/name"))
    };
    let all = |items: &[Value]| items.iter().map(|item| (key(item), item.clone())).collect::<BTreeMap<_, _>>();
    let (ours, theirs) = (all(ours), all(theirs));
    let keys: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let mut wrong = Vec::new();
    for key in keys {
        let place = format!("{resource} {}/{}", key.0, key.1);
        compare(&place, ours.get(key).unwrap_or(&Value::Null), theirs.get(key).unwrap_or(&Value::Null), &mut wrong);
    }
    wrong
}

fn compare(place: &str, ours: &Value, theirs: &Value, wrong: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                let of = |fields: &serde_json::Map<String, Value>| fields.get(key).cloned().unwrap_or_default();
                compare(&format!("{place}.{key}"), &of(a), &of(b), wrong);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().for_each(|(at, (a, b))| compare(&format!("{place}[{at}]"), a, b, wrong));
        }
        _ if ours == theirs => {}
        _ => wrong.push(format!("{place}: ours {ours}, theirs {theirs}")),
    }
}
