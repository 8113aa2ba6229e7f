//! Pods against levels, in upstream's words.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::checks::{Pod, violations};
use super::level::{Level, LevelVersion, Policy};
use super::{by_reason, details, significant};
use api::Document;

fn document(value: Value) -> Document {
    Document::new(value).expect("an object")
}

fn at(level: Level, version: Option<u32>) -> LevelVersion {
    LevelVersion { level, version }
}

fn check(spec: Value, level: LevelVersion, expect: Expect) {
    let pod = json!({"spec": spec});
    expect.assert_eq(&details(&violations(&Pod::at(&pod).expect("a pod"), level)));
}

const BASELINE: LevelVersion = LevelVersion { level: Level::Baseline, version: None };
const RESTRICTED: LevelVersion = LevelVersion { level: Level::Restricted, version: None };

fn plain() -> Value {
    json!({"containers": [{"name": "a"}, {"name": "b"}]})
}

fn safe() -> Value {
    json!({"securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [{"name": "v", "emptyDir": {}}],
        "containers": [{"name": "a", "securityContext": {"allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}}]})
}

#[test]
fn a_plain_pod_is_baseline_and_a_careful_one_restricted() {
    check(plain(), BASELINE, expect![""]);
    check(safe(), RESTRICTED, expect![""]);
    check(
        plain(),
        RESTRICTED,
        expect![[
            r#"allowPrivilegeEscalation != false (containers "a", "b" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (containers "a", "b" must set securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or containers "a", "b" must set securityContext.runAsNonRoot=true), seccompProfile (pod or containers "a", "b" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#
        ]],
    );
    check(plain(), at(Level::Privileged, None), expect![""]);
}

#[test]
fn every_baseline_check() {
    check(
        json!({"hostNetwork": true, "hostPID": true, "volumes": [{"name": "h", "hostPath": {"path": "/"}}],
            "securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}], "seLinuxOptions": {"type": "x", "user": "u"},
                "seccompProfile": {"type": "Unconfined"}, "appArmorProfile": {"type": "Unconfined"},
                "windowsOptions": {"hostProcess": true}},
            "containers": [{"name": "a", "ports": [{"hostPort": 80}, {"hostPort": 443}],
                "livenessProbe": {"httpGet": {"host": "example.com"}},
                "securityContext": {"privileged": true, "procMount": "Unmasked", "capabilities": {"add": ["NET_ADMIN", "KILL"]}}}]}),
        BASELINE,
        expect![[
            r#"forbidden AppArmor profile (pod must not set AppArmor profile type to "Unconfined"), non-default capabilities (container "a" must not include "NET_ADMIN" in securityContext.capabilities.add), host namespaces (hostNetwork=true, hostPID=true), hostPath volumes (volume "h"), hostPort (container "a" uses hostPorts 443, 80), probe or lifecycle host (container "a" uses probe or lifecycle host "example.com"), privileged (container "a" must not set securityContext.privileged=true), procMount (container "a" must not set securityContext.procMount to "Unmasked"), seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type "x"; user may not be set), seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined"), forbidden sysctls (kernel.msgmax), hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)"#
        ]],
    );
}

#[test]
fn restricted_ones_replace_the_looser() {
    let mut pod = safe();
    pod["volumes"] = json!([{"name": "h", "hostPath": {"path": "/"}}, {"name": "n", "nfs": {"server": "s"}}]);
    pod["containers"][0]["securityContext"]["capabilities"]["add"] = json!(["CHOWN"]);
    pod["securityContext"]["runAsUser"] = json!(0);
    check(
        pod,
        RESTRICTED,
        expect![[
            r#"unrestricted capabilities (container "a" must not include "CHOWN" in securityContext.capabilities.add), restricted volume types (volumes "h", "n" use restricted volume types "hostPath", "nfs"), runAsUser=0 (pod must not set runAsUser=0)"#
        ]],
    );
    let mut users = plain();
    users["hostUsers"] = json!(false);
    users["containers"][0]["securityContext"] = json!({"procMount": "Unmasked"});
    check(users.clone(), BASELINE, expect![""]);
    check(
        users,
        at(Level::Baseline, Some(34)),
        expect![[r#"procMount (container "a" must not set securityContext.procMount to "Unmasked")"#]],
    );
    let sysctl = |name: &str| json!({"securityContext": {"sysctls": [{"name": name}]}, "containers": []});
    check(sysctl("net.ipv4.tcp_rmem"), at(Level::Baseline, Some(32)), expect![""]);
    check(sysctl("net.ipv4.tcp_rmem"), at(Level::Baseline, Some(31)), expect!["forbidden sysctls (net.ipv4.tcp_rmem)"]);
}

#[test]
fn labels_say_what_holds() {
    let policy = |labels: Value| {
        let labels: serde_json::Map<String, Value> = labels
            .as_object()
            .expect("a map")
            .iter()
            .map(|(key, value)| (format!("pod-security.kubernetes.io/{key}"), value.clone()))
            .collect();
        let (policy, errors) = Policy::of(&document(json!({"metadata": {"labels": labels}})));
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        format!("{} {} {} {}", policy.enforce, policy.audit, policy.warn, errors.join("; "))
    };
    for (labels, expect) in [
        (json!({}), expect!["privileged:latest privileged:latest privileged:latest "]),
        (
            json!({"enforce": "baseline", "enforce-version": "v1.30"}),
            expect!["baseline:v1.30 privileged:latest baseline:v1.30 "],
        ),
        (
            json!({"enforce": "baseline", "warn": "privileged"}),
            expect!["baseline:latest privileged:latest privileged:latest "],
        ),
        (
            json!({"audit": "restricted", "warn": "baseline", "warn-version": "latest"}),
            expect!["privileged:latest restricted:latest baseline:latest "],
        ),
        (
            json!({"enforce": "none", "enforce-version": "1.2"}),
            expect![[
                r#"restricted:latest privileged:latest privileged:latest metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "none": must be one of privileged, baseline, restricted; metadata.labels[pod-security.kubernetes.io/enforce-version]: Invalid value: "1.2": must be "latest" or "v1.x""#
            ]],
        ),
    ] {
        expect.assert_eq(&policy(labels));
    }
}

#[test]
fn pods_of_a_namespace_are_told_by_reason() {
    let pod = |name: &str, spec: Value| document(json!({"metadata": {"name": name}, "spec": spec}));
    let host = || json!({"hostNetwork": true, "containers": []});
    let pods = [
        pod("a", host()),
        pod("b", host()),
        pod("c", json!({"hostPID": true, "containers": [{"name": "x", "ports": [{"hostPort": 1}]}]})),
    ];
    assert_eq!(by_reason(&pods, BASELINE), ["a (and 1 other pod): host namespaces", "c: host namespaces, hostPort"]);
    assert!(!significant(&pods[0], &pods[1]));
    let image = document(json!({"spec": {"containers": [{"name": "x", "image": "i"}]}}));
    assert!(significant(&image, &pods[2]));
}
