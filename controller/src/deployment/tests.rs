//! Scenarios of rollouts.

use expect_test::{Expect, expect};

use crate::deployment::Deployments;
use crate::model::script::run;
use crate::replicaset::ReplicaSets;

fn check(script: &str, expect: Expect) {
    expect.assert_eq(&run(vec![Box::new(Deployments), Box::new(ReplicaSets)], script));
}

#[test]
fn without_unavailability_old_pods_go_only_as_new_ones_are_ready() {
    check(
        "deployment ns/web 3 a {strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}}
         until-quiet
         again
         trace create
         deployment ns/web 3 b
         get ReplicaSet
         kubelet 1
         get ReplicaSet
         kubelet 1
         get ReplicaSet
         until-quiet
         get ReplicaSet
         again",
        expect![[r#"
            deployment-controller: create replicasets.apps ns/web-74cd784884
            replicaset-controller: create pods ns/web-74cd784884-*
            replicaset-controller: create pods ns/web-74cd784884-*
            replicaset-controller: create pods ns/web-74cd784884-*
            --
            web-74cd784884 3 [web]
            web-b46b654f 1 [web]
            --
            web-74cd784884 2 [web]
            web-b46b654f 2 [web]
            --
            web-74cd784884 2 [web]
            web-b46b654f 2 [web]
            --
            web-74cd784884 0 [web]
            web-b46b654f 3 [web]
            --
        "#]],
    );
}

#[test]
fn a_rollback_makes_the_old_replica_set_the_newest_revision() {
    check(
        "deployment ns/web 2 a
         until-quiet
         deployment ns/web 2 b
         until-quiet
         trace nothing
         deployment ns/web 2 a
         until-quiet
         trace revision
         again",
        expect![[r#"
            --
            deployment-controller: patch replicasets.apps ns/web-74cd784884 {"metadata":{"annotations":{"deployment.kubernetes.io/revision":"3","deployment.kubernetes.io/revision-history":"1"}},"spec":{"replicas":1}}
            deployment-controller: patch deployments.apps/status ns/web {"metadata":{"annotations":{"deployment.kubernetes.io/revision":"3"}}}
            --
        "#]],
    );
}

#[test]
fn recreate_waits_for_the_old_pods_to_be_gone() {
    check(
        "deployment ns/web 2 a {strategy: {type: Recreate, rollingUpdate: null}}
         until-quiet
         trace nothing
         deployment ns/web 2 b
         trace replicasets
         kubelet 1
         trace replicasets
         until-quiet
         trace replicasets
         again",
        expect![[r#"
            --
            deployment-controller: patch replicasets.apps ns/web-74cd784884 {"metadata":{},"spec":{"replicas":0}}
            replicaset-controller: patch replicasets.apps/status ns/web-74cd784884 {"metadata":{},"status":{"observedGeneration":2}}
            replicaset-controller: patch replicasets.apps/status ns/web-74cd784884 {"metadata":{},"status":{"availableReplicas":null,"fullyLabeledReplicas":null,"readyReplicas":null,"replicas":0,"terminatingReplicas":2}}
            --
            replicaset-controller: patch replicasets.apps/status ns/web-74cd784884 {"metadata":{},"status":{"terminatingReplicas":1}}
            --
            deployment-controller: create replicasets.apps ns/web-b46b654f
            replicaset-controller: patch replicasets.apps/status ns/web-74cd784884 {"metadata":{},"status":{"terminatingReplicas":0}}
            replicaset-controller: patch replicasets.apps/status ns/web-b46b654f {"metadata":{},"status":{"observedGeneration":1,"terminatingReplicas":0}}
            replicaset-controller: patch replicasets.apps/status ns/web-b46b654f {"metadata":{},"status":{"fullyLabeledReplicas":2,"replicas":2}}
            replicaset-controller: patch replicasets.apps/status ns/web-b46b654f {"metadata":{},"status":{"availableReplicas":2,"readyReplicas":2}}
            --
        "#]],
    );
}

#[test]
fn scaling_in_mid_rollout_is_shared_in_proportion() {
    check(
        "deployment ns/web 10 a {strategy: {rollingUpdate: {maxSurge: 3, maxUnavailable: 2}}}
         until-quiet
         deployment ns/web 10 b
         get ReplicaSet
         deployment ns/web 30 b
         get ReplicaSet
         deployment ns/web 5 b
         get ReplicaSet
         until-quiet
         get ReplicaSet
         again",
        expect![[r#"
            web-74cd784884 8 [web]
            web-b46b654f 5 [web]
            --
            web-74cd784884 20 [web]
            web-b46b654f 13 [web]
            --
            web-74cd784884 3 [web]
            web-b46b654f 5 [web]
            --
            web-74cd784884 0 [web]
            web-b46b654f 5 [web]
            --
        "#]],
    );
}

#[test]
fn a_rollout_that_does_not_move_times_out_once() {
    check(
        "deployment ns/web 1 a {progressDeadlineSeconds: 60}
         wait 30
         trace nothing
         wait 60
         trace deployment
         wait 300
         trace deployment",
        expect![[r#"
            --
            deployment-controller: patch deployments.apps/status ns/web {"metadata":{},"status":{"conditions":[{"lastTransitionTime":"2027-01-15T08:00:00Z","lastUpdateTime":"2027-01-15T08:00:00Z","message":"Deployment does not have minimum availability.","reason":"MinimumReplicasUnavailable","status":"False","type":"Available"},{"lastTransitionTime":"2027-01-15T08:01:01Z","lastUpdateTime":"2027-01-15T08:01:01Z","message":"ReplicaSet \"web-74cd784884\" has timed out progressing.","reason":"ProgressDeadlineExceeded","status":"False","type":"Progressing"}]}}
            --
            --
        "#]],
    );
}

#[test]
fn old_replica_sets_beyond_the_limit_are_deleted_and_a_pause_changes_nothing() {
    check(
        "deployment ns/web 1 a {revisionHistoryLimit: 1}
         until-quiet
         deployment ns/web 1 b
         until-quiet
         deployment ns/web 1 c
         until-quiet
         trace delete replicasets
         deployment ns/web 1 d {paused: true}
         trace deployment
         get ReplicaSet",
        expect![[r#"
            deployment-controller: delete replicasets.apps ns/web-74cd784884 Background
            --
            deployment-controller: delete replicasets.apps ns/web-b46b654f Background
            deployment-controller: patch deployments.apps/status ns/web {"metadata":{},"status":{"conditions":[{"lastTransitionTime":"2027-01-15T08:00:00Z","lastUpdateTime":"2027-01-15T08:00:00Z","message":"Deployment has minimum availability.","reason":"MinimumReplicasAvailable","status":"True","type":"Available"},{"lastTransitionTime":"2027-01-15T08:00:00Z","lastUpdateTime":"2027-01-15T08:00:00Z","message":"Deployment is paused","reason":"DeploymentPaused","status":"Unknown","type":"Progressing"}],"observedGeneration":4,"updatedReplicas":null}}
            --
            web-65b558f59d 1 [web]
            --
        "#]],
    );
}
