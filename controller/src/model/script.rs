//! Scenarios as short text, and what came of them.

#![allow(clippy::expect_used, clippy::panic)]

use k8s_openapi::api::core::v1::Pod;
use reconcile::{Controller, ObjectName, Propagation, Resource, Target};
use serde_json::{Value, json};

use super::Cluster;

/// More steps than any scenario needs.
const STEPS: usize = 2_000;

/// Runs a script, a command a line:
///
/// - `apply KIND ns/name {yaml}`: creates an object, or replaces its spec; `{yaml}` is merged into the object
/// - `deployment ns/name REPLICAS IMAGE {yaml}`: a Deployment, `{yaml}` merged into its spec
/// - `node NAME`: a Node that is ready
/// - `kubelet [N]`: the kubelets start and end pods, or only the first N that need it; then all settles
/// - `until-quiet`: kubelets and controllers in turn until nothing changes
/// - `wait SECONDS`: time passes
/// - `delete KIND ns/name [Foreground|Background|Orphan]`
/// - `status pods ns/name-prefix {yaml}`: merged into the status of the first pod whose name begins so
/// - `trace [WORD]`: what was done since the last `trace`, only lines with the word
/// - `get KIND`: the objects of a kind, name and spec.replicas or phase
/// - `again`: every key is decided again; says what was done, which must be nothing
/// - `restart`: the controllers begin anew
pub(crate) fn run(controllers: Vec<Box<dyn Controller>>, script: &str) -> String {
    let mut cluster = Cluster::new(controllers, 1);
    let mut shown = String::new();
    for line in script.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let (words, yaml) = line.split_once('{').map_or((line, ""), |(w, _)| (w, &line[w.len()..]));
        let words: Vec<&str> = words.split_whitespace().collect();
        let extra: Value = if yaml.is_empty() { json!({}) } else { serde_yaml::from_str(yaml).expect(line) };
        match words.as_slice() {
            ["apply", kind, name] => apply(&mut cluster, kind, name, json!({}), &extra),
            ["deployment", name, replicas, image] => deployment(&mut cluster, name, replicas, image, &extra),
            ["node", name] => node(&mut cluster, name),
            ["kubelet"] => cluster.kubelet(),
            ["kubelet", n] => some_kubelets(&mut cluster, n.parse().expect(line)),
            ["until-quiet"] => until_quiet(&mut cluster),
            ["wait", seconds] => assert!(cluster.wait(seconds.parse().expect(line), STEPS), "{line}"),
            ["delete", kind, name, how @ ..] => delete(&mut cluster, kind, name, how),
            ["status", "pods", name] => status(&mut cluster, name, &extra),
            ["trace", word @ ..] => shown += &trace(&mut cluster, word),
            ["get", kind] => shown += &get(&cluster, kind),
            ["again"] => again(&mut cluster),
            ["restart"] => cluster.restart(),
            _ => panic!("unknown command: {line}"),
        }
        assert!(cluster.settle(STEPS), "does not settle after: {line}\n{}", cluster.trace.join("\n"));
    }
    shown
}

fn resource(kind: &str) -> Resource {
    let row = api::schema::resources().iter().find(|r| r.kind == kind && r.group != "extensions");
    let row = row.unwrap_or_else(|| panic!("unknown kind {kind}"));
    Resource {
        group: row.group.clone().into(),
        version: row.version.clone().into(),
        kind: row.kind.clone().into(),
        plural: row.plural.clone().into(),
        namespaced: row.scope == api::schema::Scope::Namespaced,
    }
}

fn object_name(name: &str) -> ObjectName {
    let (namespace, name) = name.split_once('/').unwrap_or(("", name));
    ObjectName { namespace: namespace.into(), name: name.into() }
}

fn apply(cluster: &mut Cluster, kind: &str, name: &str, base: Value, extra: &Value) {
    let (resource, name) = (resource(kind), object_name(name));
    let mut object = api::Document::new(base).unwrap_or_default();
    object.set("/apiVersion", resource.api_version());
    object.set("/kind", kind);
    object.set("/metadata/name", name.name);
    if resource.namespaced {
        object.set("/metadata/namespace", name.namespace);
    }
    cluster.apply(&resource, api::patch::merge(&object, extra).value());
}

fn deployment(cluster: &mut Cluster, name: &str, replicas: &str, image: &str, extra: &Value) {
    let app = object_name(name).name;
    let labels = json!({"app": app});
    let spec = json!({"spec": {
        "replicas": replicas.parse::<i32>().expect("replicas"), "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": image}]}},
    }});
    let patch = if extra == &json!({}) { json!({}) } else { json!({ "spec": extra }) };
    apply(cluster, "Deployment", name, spec, &patch);
}

fn node(cluster: &mut Cluster, name: &str) {
    let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    apply(cluster, "Node", name, status, &json!({}));
}

fn some_kubelets(cluster: &mut Cluster, most: usize) {
    let waits = |p: &Pod| p.metadata.deletion_timestamp.is_some() || reconcile::pods::phase(p) == "Pending";
    let pods: Vec<Pod> = cluster.server.typed::<Pod>().into_iter().filter(waits).take(most).collect();
    pods.iter().for_each(|p| cluster.kubelet_of(p));
}

fn until_quiet(cluster: &mut Cluster) {
    for _ in 0..100 {
        let before = cluster.server.revision();
        cluster.kubelet();
        assert!(cluster.settle(STEPS), "does not settle");
        if cluster.server.revision() == before {
            return;
        }
    }
    panic!("never quiet");
}

fn delete(cluster: &mut Cluster, kind: &str, name: &str, how: &[&str]) {
    let propagation = match how {
        ["Foreground"] => Propagation::Foreground,
        ["Orphan"] => Propagation::Orphan,
        _ => Propagation::Background,
    };
    let target = Target { resource: resource(kind), object: object_name(name) };
    let now = cluster.now;
    cluster.server.delete_by_user(&target, propagation, now);
}

fn status(cluster: &mut Cluster, prefix: &str, extra: &Value) {
    let prefix = object_name(prefix);
    let pods: Vec<Pod> = cluster.server.typed();
    let named = |p: &&Pod| p.metadata.name.as_ref().is_some_and(|n| n.starts_with(&prefix.name));
    let pod = pods.iter().find(named).expect("a pod of that name");
    let name = reconcile::resource::name_of(&pod.metadata);
    let patch = json!({ "status": extra });
    cluster.server.edit(&Resource::of::<Pod>(), &name, |pod| *pod = api::patch::merge(pod, &patch));
}

fn trace(cluster: &mut Cluster, words: &[&str]) -> String {
    let lines = std::mem::take(&mut cluster.trace);
    let wanted = lines.into_iter().filter(|l| words.iter().all(|w| l.contains(w)));
    wanted.map(|l| format!("{l}\n")).collect::<String>() + "--\n"
}

fn get(cluster: &Cluster, kind: &str) -> String {
    let line = |d: &&api::Document| {
        let shown = [
            "/spec/replicas",
            "/status/phase",
            "/spec/nodeName",
            "/spec/taints",
            "/endpoints",
            "/metadata/ownerReferences",
        ];
        let values: Vec<String> = shown.iter().filter_map(|p| d.at(p)).map(short).collect();
        let subsets = d.at("/subsets").map(|s| format!(" {s}")).unwrap_or_default();
        format!("{} {}{subsets}\n", d.name(), values.join(" "))
    };
    cluster.server.list(&resource(kind)).iter().map(line).collect::<String>() + "--\n"
}

fn short(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(short).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let keys = ["key", "effect", "name", "addresses", "conditions"];
            let ready = map.get("conditions").and_then(|c| c.get("ready")).map(|r| format!("ready={r}"));
            let parts = keys.iter().filter(|k| **k != "conditions").filter_map(|k| map.get(*k)).map(short);
            parts.chain(ready).collect::<Vec<_>>().join(":")
        }
        other => other.to_string(),
    }
}

fn again(cluster: &mut Cluster) {
    let before = (cluster.server.revision(), cluster.trace.len());
    cluster.restart();
    assert!(cluster.settle(STEPS), "does not settle");
    let done = &cluster.trace[before.1..];
    assert!(done.is_empty() && cluster.server.revision() == before.0, "decided anew, it did\n{}", done.join("\n"));
}
