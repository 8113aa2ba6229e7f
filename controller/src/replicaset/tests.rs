//! Scenarios of ReplicaSets on their own.

use expect_test::{Expect, expect};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use reconcile::{ObjectName, Propagation, Resource, Target};
use serde_json::json;

use crate::model::script::run;
use crate::model::{Cluster, Step};
use crate::replicaset::ReplicaSets;

fn check(script: &str, expect: Expect) {
    expect.assert_eq(&run(vec![Box::new(ReplicaSets)], script));
}

const SET: &str = "selector: {matchLabels: {a: x}}, template: {metadata: {labels: {a: x}}, spec: {containers: [{name: c, image: i}]}}";

#[test]
fn pods_that_are_least_use_go_first() {
    let script = format!(
        "apply ReplicaSet ns/rs {{spec: {{replicas: 4, {SET}}}}}
         kubelet 3
         apply Pod ns/rs-3 {{metadata: {{annotations: {{controller.kubernetes.io/pod-deletion-cost: '-5'}}}}}}
         trace nothing
         apply ReplicaSet ns/rs {{spec: {{replicas: 3, {SET}}}}}
         trace delete
         apply ReplicaSet ns/rs {{spec: {{replicas: 2, {SET}}}}}
         trace delete
         until-quiet
         again"
    );
    check(
        &script,
        expect![[r#"
        --
        replicaset-controller: delete pods ns/rs-5 Background
        --
        replicaset-controller: delete pods ns/rs-3 Background
        --
    "#]],
    );
}

#[test]
fn orphans_of_its_labels_are_adopted_and_others_pods_let_go() {
    let script = format!(
        "apply Pod ns/orphan {{metadata: {{labels: {{a: x}}}}}}
         apply ReplicaSet ns/rs {{spec: {{replicas: 2, {SET}}}}}
         trace
         apply Pod ns/orphan {{metadata: {{labels: {{a: other}}}}}}
         trace pods
         get Pod
         again"
    );
    check(
        &script,
        expect![[r#"
        replicaset-controller: patch pods ns/orphan {"metadata":{"ownerReferences":[{"apiVersion":"apps/v1","blockOwnerDeletion":true,"controller":true,"kind":"ReplicaSet","name":"rs","uid":"uid-2"}]}}
        replicaset-controller: create pods ns/rs-*
        replicaset-controller: patch replicasets.apps/status ns/rs {"metadata":{},"status":{"fullyLabeledReplicas":1,"observedGeneration":1,"replicas":1,"terminatingReplicas":0}}
        replicaset-controller: patch replicasets.apps/status ns/rs {"metadata":{},"status":{"fullyLabeledReplicas":2,"replicas":2}}
        --
        replicaset-controller: patch pods ns/orphan {"metadata":{"ownerReferences":[{"$patch":"delete","uid":"uid-2"}]}}
        replicaset-controller: create pods ns/rs-*
        --
        orphan Pending []
        rs-3 Pending [rs]
        rs-4 Pending [rs]
        --
    "#]],
    );
}

#[test]
fn a_pod_counts_as_available_only_after_a_while() {
    let script = format!(
        "apply ReplicaSet ns/rs {{spec: {{replicas: 1, minReadySeconds: 30, {SET}}}}}
         kubelet
         wait 29
         trace availableReplicas
         wait 1
         trace availableReplicas
         again"
    );
    check(
        &script,
        expect![[r#"
        --
        replicaset-controller: patch replicasets.apps/status ns/rs {"metadata":{},"status":{"availableReplicas":1}}
        --
    "#]],
    );
}

#[test]
fn a_set_that_is_gone_adopts_nothing_though_the_watch_has_not_told_yet() {
    let (sets, pods) = (Resource::of::<ReplicaSet>(), Resource::of::<Pod>());
    let mut cluster = Cluster::new(vec![Box::new(ReplicaSets)], 1);
    let named = |name: &str| ObjectName { namespace: "ns".into(), name: name.into() };
    let (labels, spec) = (json!({"app": "a"}), json!({"containers": [{"name": "c", "image": "i"}]}));
    let template = json!({"metadata": {"labels": labels}, "spec": spec});
    let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"namespace": "ns", "name": "set"},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}});
    cluster.apply(&sets, &set);
    assert!(cluster.settle(100));

    let now = cluster.now;
    let target = Target { resource: sets, object: named("set") };
    cluster.server.delete_by_user(&target, Propagation::Background, now);
    let silent: Vec<Step> = cluster.steps().into_iter().filter(|s| matches!(s, Step::Watch(_))).collect();
    assert_eq!(silent.len(), 1);
    let meta = json!({"namespace": "ns", "name": "orphan", "labels": labels});
    cluster.apply(&pods, &json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}));
    while let Some(step) = cluster.steps().into_iter().find(|step| !silent.contains(step)) {
        cluster.step(step);
    }
    let orphan = cluster.server.get(&pods, &named("orphan")).expect("nobody deletes it");
    assert_eq!(orphan.at("/metadata/ownerReferences"), None);
}
