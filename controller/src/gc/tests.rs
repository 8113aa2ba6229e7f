//! What goes with its owner, and what stays.

use api::Document;
use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use reconcile::{ObjectName, Propagation, Resource, Target};
use serde_json::{Value, json};

use crate::deployment::Deployments;
use crate::gc::GarbageCollector;
use crate::model::script::run;
use crate::model::{Cluster, Step};
use crate::replicaset::ReplicaSets;

fn check(script: &str, expect: Expect) {
    let controllers: Vec<Box<dyn reconcile::Controller>> =
        vec![Box::new(Deployments), Box::new(ReplicaSets), Box::new(GarbageCollector)];
    expect.assert_eq(&run(controllers, script));
}

#[test]
fn in_the_background_the_owner_goes_first() {
    check(
        "deployment ns/web 2 a
         until-quiet
         trace garbage
         delete Deployment ns/web
         trace garbage
         until-quiet
         get ReplicaSet
         get Pod",
        expect![[r#"
            --
            garbage-collector-controller: delete replicasets.apps ns/web-74cd784884 Background
            garbage-collector-controller: delete pods ns/web-74cd784884-3 Background
            garbage-collector-controller: delete pods ns/web-74cd784884-4 Background
            --
            --
            --
        "#]],
    );
}

#[test]
fn in_the_foreground_the_owner_waits_for_the_last_dependent() {
    check(
        "deployment ns/web 1 a
         until-quiet
         trace garbage
         delete Deployment ns/web Foreground
         trace garbage
         get Deployment
         until-quiet
         trace garbage
         get Deployment",
        expect![[r#"
            --
            garbage-collector-controller: delete replicasets.apps ns/web-74cd784884 Foreground
            garbage-collector-controller: delete pods ns/web-74cd784884-3 Background
            --
            web 1
            --
            garbage-collector-controller: patch replicasets.apps ns/web-74cd784884 {"metadata":{"finalizers":[]}}
            garbage-collector-controller: patch deployments.apps ns/web {"metadata":{"finalizers":[]}}
            --
            --
        "#]],
    );
}

#[test]
fn orphans_stay_and_are_adopted_by_the_next_of_the_same_template() {
    check(
        "deployment ns/web 1 a
         until-quiet
         trace garbage
         delete Deployment ns/web Orphan
         trace garbage
         get ReplicaSet
         deployment ns/web 1 a
         trace deployment-controller: patch replicasets
         get ReplicaSet
         again",
        expect![[r#"
            --
            garbage-collector-controller: patch replicasets.apps ns/web-74cd784884 {"metadata":{"ownerReferences":[]}}
            garbage-collector-controller: patch deployments.apps ns/web {"metadata":{"finalizers":[]}}
            --
            web-74cd784884 1 []
            --
            deployment-controller: patch replicasets.apps ns/web-74cd784884 {"metadata":{"ownerReferences":[{"apiVersion":"apps/v1","blockOwnerDeletion":true,"controller":true,"kind":"Deployment","name":"web","uid":"uid-4"}]}}
            --
            web-74cd784884 1 [web]
            --
        "#]],
    );
}

#[test]
fn one_of_two_owners_is_enough() {
    check(
        "apply ReplicaSet ns/one {spec: {replicas: 0, selector: {matchLabels: {a: x}}}}
         apply Pod ns/p {metadata: {ownerReferences: [
           {apiVersion: apps/v1, kind: ReplicaSet, name: one, uid: uid-1},
           {apiVersion: apps/v1, kind: ReplicaSet, name: two, uid: uid-9}]}}
         trace garbage
         get Pod
         delete ReplicaSet ns/one
         trace garbage
         get Pod"
            .replace("[\n           ", "[")
            .replace("},\n           ", "}, ")
            .as_str(),
        expect![[r#"
            garbage-collector-controller: patch pods ns/p {"metadata":{"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"one","uid":"uid-1"}]}}
            --
            p Pending [one]
            --
            garbage-collector-controller: delete pods ns/p Background
            --
            --
        "#]],
    );
}

fn map(name: &str, owner: &str) -> String {
    let owners = match owner.split_once('@') {
        Some((owner, uid)) => format!(
            "ownerReferences: [{{apiVersion: v1, kind: ConfigMap, name: {owner}, uid: {uid}, blockOwnerDeletion: true}}]"
        ),
        None => String::new(),
    };
    format!("apply ConfigMap {name} {{metadata: {{{owners}}}}}\n")
}

#[test]
fn a_circle_of_owners_does_not_hold_itself() {
    let script = [
        map("ns/a", ""),
        map("ns/b", "a@uid-1"),
        map("ns/c", "b@uid-2"),
        map("ns/a", "c@uid-3"),
        "trace\nget ConfigMap\ndelete ConfigMap ns/a Foreground\ntrace\nget ConfigMap".into(),
    ];
    check(
        &script.concat(),
        expect![[r#"
        --
        a [c]
        b [a]
        c [b]
        --
        garbage-collector-controller: delete configmaps ns/b Foreground
        garbage-collector-controller: patch configmaps ns/c {"metadata":{"ownerReferences":[{"apiVersion":"v1","blockOwnerDeletion":false,"kind":"ConfigMap","name":"b","uid":"uid-2"}]}}
        garbage-collector-controller: patch configmaps ns/b {"metadata":{"finalizers":[]}}
        garbage-collector-controller: delete configmaps ns/c Background
        garbage-collector-controller: patch configmaps ns/a {"metadata":{"finalizers":[]}}
        --
        --
    "#]],
    );
}

#[test]
fn an_owner_in_another_namespace_is_none_and_one_in_a_namespace_is_none_of_the_clusters_business() {
    let owned = "ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: o, uid: uid-1}]";
    let script = format!(
        "{}{}apply PersistentVolume pv {{metadata: {{{owned}}}}}\ntrace\nget ConfigMap\nget PersistentVolume",
        map("other/o", ""),
        map("ns/child", "o@uid-1")
    );
    check(
        &script,
        expect![[r#"
        garbage-collector-controller: delete configmaps ns/child Background
        --
        o 
        --
        pv Pending [o]
        --
    "#]],
    );
}

fn steps_while(cluster: &mut Cluster, wanted: fn(&Step) -> bool) {
    while let Some(step) = cluster.steps().into_iter().find(wanted) {
        cluster.step(step);
    }
}

/// Three objects own one another in a row: `a` owns `b`, which owns `c`. The first is deleted in the foreground; then,
/// which the watch does not say yet, one of them with its dependents to stay. Who is left, and their owners.
fn told_to_orphan_while_the_watch_is_behind(told: &str) -> Vec<String> {
    let maps = Resource::of::<ConfigMap>();
    let target = |name: &str| Target {
        resource: maps.clone(),
        object: ObjectName { namespace: "ns".into(), name: name.into() },
    };
    let mut cluster = Cluster::new(vec![Box::new(GarbageCollector)], 1);
    for (name, owner) in [("a", ""), ("b", "a"), ("c", "b")] {
        let uid = cluster.server.get(&maps, &target(owner).object).map(|o| o.uid().to_owned());
        let reference =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": uid, "blockOwnerDeletion": true});
        let owners: Vec<Value> = uid.map(|_| reference).into_iter().collect();
        let meta = json!({"namespace": "ns", "name": name, "ownerReferences": owners});
        cluster.apply(&maps, &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta}));
    }
    assert!(cluster.settle(100));

    let now = cluster.now;
    cluster.server.delete_by_user(&target("a"), Propagation::Foreground, now);
    steps_while(&mut cluster, |s| matches!(s, Step::Watch(_)));
    cluster.server.delete_by_user(&target(told), Propagation::Orphan, now);
    steps_while(&mut cluster, |s| matches!(s, Step::Work(..) | Step::Decide(_)));
    assert!(cluster.settle(100) && cluster.wait(1, 100));

    let owners = |o: &Document| -> Vec<String> {
        o.list_at("/metadata/ownerReferences").iter().map(|o| o["name"].to_string()).collect()
    };
    let line = |o: &&Document| format!("{} [{}]", o.name(), owners(o).join(" "));
    cluster.server.list(&maps).iter().map(line).collect()
}

#[test]
fn what_is_told_to_orphan_after_all_keeps_its_dependents_though_the_watch_is_behind() {
    assert_eq!(told_to_orphan_while_the_watch_is_behind("a"), ["b []", r#"c ["b"]"#]);
    assert_eq!(told_to_orphan_while_the_watch_is_behind("b"), ["c []"]);
}

fn object(kind: &str, name: &str, owners: &Value) -> Value {
    let meta = json!({"namespace": "ns", "name": name, "ownerReferences": owners});
    json!({"apiVersion": "v1", "kind": kind, "metadata": meta})
}

#[test]
fn an_owner_that_the_watch_has_not_told_of_yet_is_there() {
    let (maps, secrets) = (Resource::of::<ConfigMap>(), Resource::of::<Secret>());
    let mut cluster = Cluster::new(vec![Box::new(GarbageCollector)], 1);
    let named = |name: &str| ObjectName { namespace: "ns".into(), name: name.into() };
    cluster.apply(&secrets, &object("Secret", "first", &json!([])));
    cluster.apply(&maps, &object("ConfigMap", "first", &json!([])));
    assert!(cluster.settle(100));

    cluster.apply(&secrets, &object("Secret", "owner", &json!([])));
    let silent: Vec<Step> = cluster.steps().into_iter().filter(|s| matches!(s, Step::Watch(_))).collect();
    let uid = cluster.server.get(&secrets, &named("owner")).map(|o| o.uid().to_owned());
    let owner = json!({"apiVersion": "v1", "kind": "Secret", "name": "owner", "uid": uid});
    cluster.apply(&maps, &object("ConfigMap", "owned", &json!([owner])));
    while let Some(step) = cluster.steps().into_iter().find(|step| !silent.contains(step)) {
        cluster.step(step);
    }
    assert!(cluster.server.get(&maps, &named("owned")).is_some());
    assert!(cluster.settle(100) && cluster.server.get(&maps, &named("owned")).is_some());
}

#[test]
fn orphans_that_the_watch_has_not_told_of_yet_stay() {
    let (maps, secrets) = (Resource::of::<ConfigMap>(), Resource::of::<Secret>());
    let mut cluster = Cluster::new(vec![Box::new(GarbageCollector)], 1);
    let named = |name: &str| ObjectName { namespace: "ns".into(), name: name.into() };
    cluster.apply(&secrets, &object("Secret", "first", &json!([])));
    cluster.apply(&maps, &object("ConfigMap", "owner", &json!([])));
    assert!(cluster.settle(100));

    let uid = cluster.server.get(&maps, &named("owner")).map(|o| o.uid().to_owned());
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid});
    cluster.apply(&secrets, &object("Secret", "owned", &json!([owner])));
    let silent: Vec<Step> = cluster.steps().into_iter().filter(|s| matches!(s, Step::Watch(_))).collect();
    let now = cluster.now;
    cluster.server.delete_by_user(&Target { resource: maps.clone(), object: named("owner") }, Propagation::Orphan, now);
    while let Some(step) = cluster.steps().into_iter().find(|step| !silent.contains(step)) {
        cluster.step(step);
    }
    assert!(cluster.settle(100) && cluster.wait(1, 100));
    assert!(cluster.server.get(&maps, &named("owner")).is_none());
    assert!(cluster.server.get(&secrets, &named("owned")).is_some());
}
