//! Pods one after the other, and their claims.

use expect_test::{Expect, expect};

use crate::model::script::run;
use crate::statefulset::StatefulSets;

fn check(script: &str, expect: Expect) {
    expect.assert_eq(&run(vec![Box::new(StatefulSets)], script));
}

/// Applies the set `web`: so many replicas of an image, and more of its spec.
fn set(replicas: u8, image: &str, more: &str) -> String {
    let template = format!("{{metadata: {{labels: {{a: x}}}}, spec: {{containers: [{{name: c, image: {image}}}]}}}}");
    let spec =
        format!("serviceName: s, replicas: {replicas}, selector: {{matchLabels: {{a: x}}}}, template: {template}");
    format!("apply StatefulSet ns/web {{spec: {{{more} {spec}}}}}\n")
}

#[test]
fn pods_come_one_after_the_other_and_go_from_the_last() {
    let script = set(2, "i", "")
        + "trace\nkubelet\ntrace\nkubelet\ntrace\n"
        + &set(0, "i", "")
        + "trace delete\nkubelet\ntrace\nuntil-quiet\nget Pod\nagain";
    check(
        &script,
        expect![[r#"
        statefulset-controller: create controllerrevisions.apps ns/web-96698589f
        statefulset-controller: create pods ns/web-0
        statefulset-controller: patch statefulsets.apps/status ns/web {"metadata":{},"status":{"collisionCount":0,"currentRevision":"web-96698589f","observedGeneration":1,"updateRevision":"web-96698589f"}}
        statefulset-controller: patch statefulsets.apps/status ns/web {"metadata":{},"status":{"currentReplicas":1,"replicas":1,"updatedReplicas":1}}
        --
        statefulset-controller: create pods ns/web-1
        statefulset-controller: patch statefulsets.apps/status ns/web {"metadata":{},"status":{"availableReplicas":1,"readyReplicas":1}}
        statefulset-controller: patch statefulsets.apps/status ns/web {"metadata":{},"status":{"currentReplicas":2,"replicas":2,"updatedReplicas":2}}
        --
        statefulset-controller: patch statefulsets.apps/status ns/web {"metadata":{},"status":{"availableReplicas":2,"readyReplicas":2}}
        --
        statefulset-controller: delete pods ns/web-1 Background
        --
        statefulset-controller: delete pods ns/web-0 Background
        statefulset-controller: patch statefulsets.apps/status ns/web {"metadata":{},"status":{"availableReplicas":1,"readyReplicas":1,"replicas":1}}
        statefulset-controller: patch statefulsets.apps/status ns/web {"metadata":{},"status":{"currentReplicas":null,"updatedReplicas":null}}
        --
        --
    "#]],
    );
}

#[test]
fn an_update_goes_from_the_last_down_to_the_partition() {
    let from = |n: u8| format!("updateStrategy: {{type: RollingUpdate, rollingUpdate: {{partition: {n}}}}},");
    let script = set(3, "i", &from(1))
        + "until-quiet\ntrace nothing\n"
        + &set(3, "j", &from(1))
        + "until-quiet\ntrace pods\n"
        + &set(3, "j", &from(0))
        + "until-quiet\ntrace pods\nagain";
    check(
        &script,
        expect![[r#"
        --
        statefulset-controller: delete pods ns/web-2 Background
        statefulset-controller: create pods ns/web-2
        statefulset-controller: delete pods ns/web-1 Background
        statefulset-controller: create pods ns/web-1
        --
        statefulset-controller: delete pods ns/web-0 Background
        statefulset-controller: create pods ns/web-0
        --
    "#]],
    );
}

#[test]
fn what_does_not_work_is_replaced_first_where_order_does_not_matter() {
    let parallel =
        "podManagementPolicy: Parallel, updateStrategy: {type: RollingUpdate, rollingUpdate: {maxUnavailable: 2}},";
    let script = set(4, "i", parallel)
        + "trace create pods\nkubelet 3\ntrace nothing\n"
        + &set(4, "j", parallel)
        + "trace delete\nuntil-quiet\ntrace delete\nagain";
    check(
        &script,
        expect![[r#"
        statefulset-controller: create pods ns/web-0
        statefulset-controller: create pods ns/web-1
        statefulset-controller: create pods ns/web-2
        statefulset-controller: create pods ns/web-3
        --
        --
        statefulset-controller: delete pods ns/web-3 Background
        statefulset-controller: delete pods ns/web-2 Background
        --
        statefulset-controller: delete pods ns/web-1 Background
        statefulset-controller: delete pods ns/web-0 Background
        --
    "#]],
    );
}

#[test]
fn whoever_deletes_pods_decides_when_they_are_new() {
    let script = set(1, "i", "updateStrategy: {type: OnDelete},")
        + "until-quiet\ntrace nothing\n"
        + &set(1, "j", "updateStrategy: {type: OnDelete},")
        + "trace\ndelete Pod ns/web-0\nuntil-quiet\ntrace";
    check(
        &script,
        expect![[r#"
        --
        statefulset-controller: create controllerrevisions.apps ns/web-994bf4d94
        statefulset-controller: patch statefulsets.apps/status ns/web {"metadata":{},"status":{"observedGeneration":2,"updateRevision":"web-994bf4d94","updatedReplicas":null}}
        --
        statefulset-controller: patch statefulsets.apps/status ns/web {"metadata":{},"status":{"currentReplicas":null}}
        statefulset-controller: create pods ns/web-0
        statefulset-controller: patch statefulsets.apps/status ns/web {"metadata":{},"status":{"availableReplicas":0,"readyReplicas":null,"replicas":0}}
        statefulset-controller: patch statefulsets.apps/status ns/web {"metadata":{},"status":{"replicas":1,"updatedReplicas":1}}
        statefulset-controller: patch statefulsets.apps/status ns/web {"metadata":{},"status":{"availableReplicas":1,"currentReplicas":1,"currentRevision":"web-994bf4d94","readyReplicas":1}}
        --
    "#]],
    );
}

#[test]
fn claims_come_before_their_pod_and_go_with_it() {
    let claims = "persistentVolumeClaimRetentionPolicy: {whenDeleted: Retain, whenScaled: Delete}, \
                  volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce]}}],";
    let script = set(1, "i", claims)
        + "until-quiet\ntrace\nget PersistentVolumeClaim\n"
        + &set(0, "i", claims)
        + "trace\nuntil-quiet\nget Pod\n"
        + &set(1, "i", claims)
        + "trace\ndelete PersistentVolumeClaim ns/data-web-0\nuntil-quiet\ntrace";
    check(
        &script,
        expect![[r#"
        statefulset-controller: create controllerrevisions.apps ns/web-96698589f
        statefulset-controller: create persistentvolumeclaims ns/data-web-0
        statefulset-controller: create pods ns/web-0
        statefulset-controller: patch statefulsets.apps/status ns/web {"metadata":{},"status":{"collisionCount":0,"currentRevision":"web-96698589f","observedGeneration":1,"updateRevision":"web-96698589f"}}
        statefulset-controller: patch statefulsets.apps/status ns/web {"metadata":{},"status":{"currentReplicas":1,"replicas":1,"updatedReplicas":1}}
        statefulset-controller: patch statefulsets.apps/status ns/web {"metadata":{},"status":{"availableReplicas":1,"readyReplicas":1}}
        --
        data-web-0 Pending
        --
        statefulset-controller: patch persistentvolumeclaims ns/data-web-0 {"metadata":{"ownerReferences":[{"apiVersion":"v1","blockOwnerDeletion":true,"controller":true,"kind":"Pod","name":"web-0","uid":"uid-4"}]}}
        statefulset-controller: delete pods ns/web-0 Background
        statefulset-controller: patch statefulsets.apps/status ns/web {"metadata":{},"status":{"observedGeneration":2}}
        statefulset-controller: patch statefulsets.apps/status ns/web {"metadata":{},"status":{"currentReplicas":null,"updatedReplicas":null}}
        --
        --
        statefulset-controller: patch statefulsets.apps/status ns/web {"metadata":{},"status":{"availableReplicas":0,"readyReplicas":null,"replicas":0}}
        statefulset-controller: patch statefulsets.apps/status ns/web {"metadata":{},"status":{"observedGeneration":3}}
        --
        statefulset-controller: create persistentvolumeclaims ns/data-web-0
        statefulset-controller: create pods ns/web-0
        statefulset-controller: patch statefulsets.apps/status ns/web {"metadata":{},"status":{"currentReplicas":1,"replicas":1,"updatedReplicas":1}}
        statefulset-controller: patch statefulsets.apps/status ns/web {"metadata":{},"status":{"availableReplicas":1,"readyReplicas":1}}
        --
    "#]],
    );
}

#[test]
fn a_pod_of_another_name_is_not_taken() {
    let orphan = "apply Pod ns/other-0 {metadata: {labels: {a: x}}, spec: {containers: [{name: c, image: i}]}}\n";
    let script = orphan.to_owned() + &set(0, "i", "") + "trace pods\nget Pod";
    check(
        &script,
        expect![[r#"
        --
        other-0 Pending
        --
    "#]],
    );
}
