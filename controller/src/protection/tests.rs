//! What is used stays, and goes with its last user.

use expect_test::{Expect, expect};

use super::{AttributesClasses, Claims, Volumes};
use crate::model::script::run;

fn check(script: &str, expect: Expect) {
    expect.assert_eq(&run(vec![Box::new(Claims), Box::new(Volumes), Box::new(AttributesClasses)], script));
}

const CLAIM: &str = "apply PersistentVolumeClaim ns/c {metadata: {finalizers: [kubernetes.io/pvc-protection]}, \
                     spec: {accessModes: [ReadWriteOnce]}}\n";

fn pod(node: &str) -> String {
    let volumes = "volumes: [{name: v, persistentVolumeClaim: {claimName: c}}]";
    format!("apply Pod ns/p {{spec: {{nodeName: {node}, containers: [{{name: c, image: i}}], {volumes}}}}}\n")
}

#[test]
fn a_claim_stays_until_its_pod_is_gone() {
    let script = CLAIM.to_owned()
        + &pod("n")
        + "delete PersistentVolumeClaim ns/c\ntrace\nget PersistentVolumeClaim\ndelete Pod ns/p\nuntil-quiet\ntrace\n\
           get PersistentVolumeClaim\nagain";
    check(
        &script,
        expect![[r#"
        --
        c Pending
        --
        persistentvolumeclaim-protection-controller: patch persistentvolumeclaims ns/c {"metadata":{"finalizers":[]}}
        --
        --
    "#]],
    );
}

#[test]
fn a_pod_without_a_node_holds_no_claim() {
    let script = CLAIM.to_owned() + &pod("''") + "delete PersistentVolumeClaim ns/c\nget PersistentVolumeClaim";
    check(
        &script,
        expect![[r#"
        --
    "#]],
    );
}

#[test]
fn a_bound_claim_says_whether_it_is_used() {
    let bound = "apply PersistentVolumeClaim ns/c {metadata: {finalizers: [kubernetes.io/pvc-protection]}, \
                 status: {phase: Bound, conditions: [{type: Resizing, status: 'False'}]}}\n";
    let script = bound.to_owned() + "trace\n" + &pod("''") + "trace\nstatus pods ns/p {phase: Succeeded}\ntrace\nagain";
    check(
        &script,
        expect![[r#"
        persistentvolumeclaim-protection-controller: patch persistentvolumeclaims/status ns/c {"metadata":{},"status":{"conditions":[{"status":"False","type":"Resizing"},{"lastTransitionTime":"2027-01-15T08:00:00Z","message":"No pods are currently referencing this PVC","reason":"NoPodsUsingPVC","status":"True","type":"Unused"}]}}
        --
        persistentvolumeclaim-protection-controller: patch persistentvolumeclaims/status ns/c {"metadata":{},"status":{"conditions":[{"status":"False","type":"Resizing"},{"lastTransitionTime":"2027-01-15T08:00:00Z","message":"A pod is currently referencing this PVC","reason":"PodUsingPVC","status":"False","type":"Unused"}]}}
        --
        persistentvolumeclaim-protection-controller: patch persistentvolumeclaims/status ns/c {"metadata":{},"status":{"conditions":[{"status":"False","type":"Resizing"},{"lastTransitionTime":"2027-01-15T08:00:00Z","message":"No pods are currently referencing this PVC","reason":"NoPodsUsingPVC","status":"True","type":"Unused"}]}}
        --
    "#]],
    );
}

#[test]
fn what_has_no_finalizer_yet_gets_it() {
    check(
        "apply PersistentVolumeClaim ns/c {spec: {accessModes: [ReadWriteOnce]}}
         apply PersistentVolume v {metadata: {finalizers: [x.io/own]}}
         apply VolumeAttributesClass a {driverName: d}
         trace
         again",
        expect![[r#"
            persistentvolumeclaim-protection-controller: patch persistentvolumeclaims ns/c {"metadata":{"finalizers":["kubernetes.io/pvc-protection"]}}
            persistentvolume-protection-controller: patch persistentvolumes v {"metadata":{"finalizers":["x.io/own","kubernetes.io/pv-protection"]}}
            volumeattributesclass-protection-controller: patch volumeattributesclasses.storage.k8s.io a {"metadata":{"finalizers":["kubernetes.io/vac-protection"]}}
            --
        "#]],
    );
}

#[test]
fn a_bound_volume_stays() {
    let volume = |phase: &str| {
        format!(
            "apply PersistentVolume v {{metadata: {{finalizers: [kubernetes.io/pv-protection]}}, status: {{phase: {phase}}}}}\n"
        )
    };
    let script = volume("Bound") + "delete PersistentVolume v\nget PersistentVolume\ntrace";
    check(
        &script,
        expect![[r#"
        v Bound
        --
        --
    "#]],
    );
    let script = volume("Released") + "delete PersistentVolume v\nget PersistentVolume\ntrace";
    check(
        &script,
        expect![[r#"
        --
        persistentvolume-protection-controller: patch persistentvolumes v {"metadata":{"finalizers":[]}}
        --
    "#]],
    );
}

#[test]
fn a_class_stays_until_no_claim_names_it() {
    check(
        "apply VolumeAttributesClass a {metadata: {finalizers: [kubernetes.io/vac-protection]}}
         apply PersistentVolumeClaim ns/c {spec: {volumeAttributesClassName: a}}
         delete VolumeAttributesClass a
         get VolumeAttributesClass
         apply PersistentVolumeClaim ns/c {spec: {volumeAttributesClassName: b}}
         get VolumeAttributesClass
         trace patch volumeattributesclasses",
        expect![[r#"
            a 
            --
            --
            volumeattributesclass-protection-controller: patch volumeattributesclasses.storage.k8s.io a {"metadata":{"finalizers":[]}}
            --
        "#]],
    );
}
