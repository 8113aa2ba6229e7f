//! Nodes that fall silent.

use std::time::Duration;

use expect_test::{Expect, expect};

use crate::model::script::run;
use crate::node_lifecycle::NodeLifecycle;

fn check(script: &str, expect: Expect) {
    expect.assert_eq(&run(vec![Box::new(NodeLifecycle { grace: Duration::from_secs(40) })], script));
}

#[test]
fn silence_taints_the_node_and_evicts_pods_when_their_tolerance_is_over() {
    check(
        "node n1
         apply Lease kube-node-lease/n1 {}
         apply Pod ns/stays {spec: {nodeName: n1, tolerations: [{operator: Exists}]}}
         apply Pod ns/later {spec: {nodeName: n1, tolerations: [{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 5}]}}
         apply Pod ns/soon {spec: {nodeName: n1}}
         kubelet
         wait 39
         apply Lease kube-node-lease/n1 {spec: {holderIdentity: n1}}
         wait 39
         trace
         wait 2
         get Node
         trace pods
         wait 2
         trace
         wait 2
         trace pods
         until-quiet
         get Pod
         again",
        expect![[r#"
            --
            n1 [node.kubernetes.io/unreachable:NoSchedule node.kubernetes.io/unreachable:NoExecute]
            --
            node-lifecycle-controller: patch pods/status ns/later {"status":{"conditions":[{"lastTransitionTime":"2027-01-15T08:01:19Z","status":"False","type":"Ready"}]}}
            node-lifecycle-controller: patch pods/status ns/soon {"status":{"conditions":[{"lastTransitionTime":"2027-01-15T08:01:19Z","status":"False","type":"Ready"}]}}
            node-lifecycle-controller: patch pods/status ns/stays {"status":{"conditions":[{"lastTransitionTime":"2027-01-15T08:01:19Z","status":"False","type":"Ready"}]}}
            node-lifecycle-controller: patch pods/status ns/soon {"metadata":{},"status":{"conditions":[{"lastTransitionTime":"2027-01-15T08:01:19Z","message":"Taint manager: deleting due to NoExecute taint","reason":"DeletionByTaintManager","status":"True","type":"DisruptionTarget"}]}}
            node-lifecycle-controller: delete pods ns/soon Background
            --
            --
            node-lifecycle-controller: patch pods/status ns/later {"metadata":{},"status":{"conditions":[{"lastTransitionTime":"2027-01-15T08:01:24Z","message":"Taint manager: deleting due to NoExecute taint","reason":"DeletionByTaintManager","status":"True","type":"DisruptionTarget"}]}}
            node-lifecycle-controller: delete pods ns/later Background
            --
            stays Running n1
            --
        "#]],
    );
}

#[test]
fn a_cordon_is_a_taint_and_others_taints_stay() {
    check(
        "node n1
         apply Node n1 {spec: {unschedulable: true, taints: [{key: mine, effect: NoSchedule}]}}
         get Node
         apply Node n1 {spec: {unschedulable: false}}
         get Node",
        expect![[r#"
            n1 [mine:NoSchedule node.kubernetes.io/unschedulable:NoSchedule]
            --
            n1 [mine:NoSchedule]
            --
        "#]],
    );
}
