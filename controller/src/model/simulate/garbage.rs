//! Any graph of owners: of several kinds, custom ones among them that come and go, in two namespaces and in none, with
//! circles, owners in other namespaces, and names that are used again.

use api::Document;
use reconcile::{Controller, ObjectName, Resource, Target};
use serde_json::{Value, json};

use super::super::cluster::Cluster;
use super::super::server::Server;
use super::Story;
use super::rollout::delete;
use super::writes::{Watcher, reaches};
use crate::gc::GarbageCollector;

pub(super) const STORY: Story =
    Story { name: "garbage", controllers, steps: 1_500, begin: |_| {}, user, end, converged };

const HOLD: &str = "example.com/hold";

fn controllers() -> Vec<Box<dyn Controller>> {
    vec![Box::new(GarbageCollector)]
}

/// Kind, plural, group and whether it is in namespaces.
const KINDS: [(&str, &str, &str, bool); 5] = [
    ("ConfigMap", "configmaps", "", true),
    ("Secret", "secrets", "", true),
    ("Widget", "widgets", "example.com", true),
    ("Gadget", "gadgets", "example.com", false),
    ("PersistentVolume", "persistentvolumes", "", false),
];

fn resource((kind, plural, group, namespaced): (&'static str, &'static str, &'static str, bool)) -> Resource {
    Resource { group: group.into(), version: "v1".into(), kind: kind.into(), plural: plural.into(), namespaced }
}

fn user(cluster: &mut Cluster, watcher: &mut Watcher) {
    match cluster.random(20) {
        0..8 => create(cluster, &[]),
        8..13 => {
            if let Some(target) = any(cluster) {
                delete(cluster, watcher, &target);
            }
        }
        13..16 => relate(cluster),
        16..18 => release(cluster),
        18 => again(cluster, watcher),
        _ => {
            let widgets = resource(KINDS[2]);
            cluster.trace.push("user: no more widgets".into());
            cluster.server.actor = "user";
            cluster.server.withdraw(&widgets);
        }
    }
}

fn any(cluster: &mut Cluster) -> Option<Target> {
    let all: Vec<Target> = cluster.server.all().map(|(r, o)| target(r, o)).collect();
    cluster.pick(all)
}

fn target(resource: &Resource, object: &Document) -> Target {
    let object = ObjectName { namespace: object.namespace().into(), name: object.name().into() };
    Target { resource: resource.clone(), object }
}

/// A new object of any kind, or of a given one and name, with some owners.
fn create(cluster: &mut Cluster, same: &[Target]) {
    let fresh = |cluster: &mut Cluster| {
        let resource = resource(cluster.pick(KINDS).unwrap_or(KINDS[0]));
        let namespace = if resource.namespaced { cluster.pick(["a", "b"]).unwrap_or_default() } else { "" };
        let name = format!("n{}", cluster.random(8));
        Target { resource, object: ObjectName { namespace: namespace.into(), name } }
    };
    let target = same.first().cloned().unwrap_or_else(|| fresh(cluster));
    let Target { resource, object } = &target;
    let count = cluster.random(3);
    let owners: Vec<Value> = (0..count).filter_map(|_| owner(cluster, resource, &object.namespace)).collect();
    let hold = if cluster.random(8) == 0 { json!([HOLD]) } else { json!([]) };
    let meta = json!({
        "name": object.name, "namespace": object.namespace, "ownerReferences": owners, "finalizers": hold,
    });
    let body = json!({"apiVersion": resource.api_version(), "kind": resource.kind, "metadata": meta});
    cluster.trace.push(format!("user: create {body}"));
    cluster.server.actor = "user";
    let created = cluster.server.create(resource, &object.namespace, &body, cluster.now);
    // The name may be taken.
    drop(created);
}

/// A reference to an object that is there, or was; mostly one that may be an owner.
fn owner(cluster: &mut Cluster, of: &Resource, namespace: &str) -> Option<Value> {
    let wild = cluster.random(8) == 0;
    let past = cluster.random(6) == 0;
    let fits = |r: &Resource, o: &Document| wild || !r.namespaced || (of.namespaced && o.namespace() == namespace);
    let server = &cluster.server;
    let candidates: Vec<(Resource, Document)> = match past {
        true => {
            let gone = server.log.iter().filter(|s| s.gone && fits(&s.resource, &s.object));
            gone.map(|s| (s.resource.clone(), s.object.clone())).collect()
        }
        false => {
            let now = server.all().filter(|(r, o)| fits(r, o) && !o.deleting());
            now.map(|(r, o)| (r.clone(), o.clone())).collect()
        }
    };
    let block = [json!(true), json!(false), Value::Null];
    let (resource, object) = cluster.pick(candidates)?;
    let mut reference = json!({
        "apiVersion": resource.api_version(), "kind": resource.kind, "name": object.name(), "uid": object.uid(),
    });
    reference["blockOwnerDeletion"] = cluster.pick(block)?;
    Some(reference)
}

/// An object gets one more owner, which may close a circle.
fn relate(cluster: &mut Cluster) {
    let Some(target) = any(cluster) else { return };
    let Some(owner) = owner(cluster, &target.resource, &target.object.namespace) else { return };
    cluster.trace.push(format!("user: {} {} belongs to {owner}", target.resource, target.object));
    cluster.server.actor = "user";
    cluster.server.edit(&target.resource, &target.object, |object| {
        let mut owners: Vec<Value> = object.list_at("/metadata/ownerReferences").to_vec();
        if owners.iter().all(|o| o["uid"] != owner["uid"]) && owner["uid"] != object.uid() && !object.deleting() {
            owners.push(owner);
        }
        object.set("/metadata/ownerReferences", json!(owners));
    });
}

fn is_held(object: &Document) -> bool {
    object.finalizers().any(|f| f == HOLD)
}

/// Whoever holds an object lets it go.
fn release(cluster: &mut Cluster) {
    let held: Vec<Target> = cluster.server.all().filter(|(_, o)| is_held(o)).map(|(r, o)| target(r, o)).collect();
    if let Some(target) = cluster.pick(held) {
        cluster.trace.push(format!("user: release {} {}", target.resource, target.object));
        cluster.server.actor = "user";
        let_go(&mut cluster.server, &target);
    }
}

fn let_go(server: &mut Server, target: &Target) {
    server.edit(&target.resource, &target.object, |object| {
        let rest: Vec<String> = object.finalizers().filter(|f| *f != HOLD).map(str::to_owned).collect();
        object.set("/metadata/finalizers", json!(rest));
    });
}

/// An object goes, and another of its kind and name comes.
fn again(cluster: &mut Cluster, watcher: &mut Watcher) {
    if let Some(target) = any(cluster) {
        delete(cluster, watcher, &target);
        create(cluster, &[target]);
    }
}

fn end(cluster: &mut Cluster) {
    cluster.server.actor = "user";
    let held: Vec<Target> = cluster.server.all().filter(|(_, o)| is_held(o)).map(|(r, o)| target(r, o)).collect();
    held.iter().for_each(|target| let_go(&mut cluster.server, target));
}

/// What an owner reference comes to in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Solid,
    Absent,
    /// Its kind is not served, or it cannot be an owner at all: nothing happens.
    Open,
}

fn fate(server: &Server, of: &Resource, object: &Document, owner: &Value) -> Fate {
    let text = |field: &str| owner[field].as_str().unwrap_or_default();
    let named = |r: &&Resource| r.api_version() == text("apiVersion") && r.kind == text("kind");
    let Some(kind) = server.served.iter().find(named) else { return Fate::Open };
    if kind.namespaced && !of.namespaced {
        return Fate::Open;
    }
    let namespace = if kind.namespaced { object.namespace() } else { "" };
    let found = server.get(kind, &ObjectName { namespace: namespace.into(), name: text("name").into() });
    if found.is_some_and(|o| o.uid() == text("uid")) { Fate::Solid } else { Fate::Absent }
}

/// Whether an owner waits for a dependent that nobody may collect, since it also names an owner that is none.
fn is_held_open(server: &Server, owner: &Document) -> bool {
    let waits = owner.finalizers().any(|f| f == "foregroundDeletion");
    let blocks = |owners: &[Value]| owners.iter().any(|o| o["uid"] == owner.uid() && o["blockOwnerDeletion"] == true);
    let holds = |(resource, object): (&Resource, &Document)| {
        let owners = object.list_at("/metadata/ownerReferences");
        let open = |o: &Value| fate(server, resource, object, o) == Fate::Open;
        reaches(owner, object) && blocks(owners) && owners.iter().any(open)
    };
    waits && server.all().any(holds)
}

/// Nothing is left that no owner holds, nothing refers to what is gone, and nothing waits to go.
pub(super) fn converged(cluster: &Cluster) -> Result<(), String> {
    for (resource, object) in cluster.server.all() {
        let name = format!("{resource} {}/{}", object.namespace(), object.name());
        if object.deleting() && !is_held_open(&cluster.server, object) {
            return Err(format!("{name} is still being deleted: {}", object.value()));
        }
        let owners = object.list_at("/metadata/ownerReferences").iter();
        let fates: Vec<Fate> = owners.map(|o| fate(&cluster.server, resource, object, o)).collect();
        if fates.is_empty() || fates.contains(&Fate::Open) {
            continue;
        }
        match (fates.contains(&Fate::Solid), fates.contains(&Fate::Absent)) {
            (false, _) => return Err(format!("{name} has no owner and was not collected: {}", object.value())),
            (true, true) => return Err(format!("{name} refers to an owner that is gone: {}", object.value())),
            (true, false) => {}
        }
    }
    Ok(())
}
