//! Usage, scopes and charges on small objects.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::amounts::{read, show};
use super::{Request, charge, count_name, counted, in_scopes, recount, usage};
use crate::{Document, GroupResource, Timestamp, time};

fn document(value: Value) -> Document {
    Document::new(value).expect("an object")
}

fn now() -> Timestamp {
    time::parse("2024-01-31T12:00:00Z").expect("a time")
}

fn core(plural: &str) -> GroupResource {
    GroupResource::new("", plural)
}

fn used(plural: &str, object: Value, expect: Expect) {
    expect.assert_eq(&show(&usage(&core(plural), &document(object), now())));
}

fn container(name: &str, cpu: &str) -> Value {
    json!({"name": name, "resources": {"requests": {"cpu": cpu}, "limits": {"cpu": "2", "memory": "1Gi"}}})
}

#[test]
fn pods_use_what_runs_at_once() {
    used(
        "pods",
        json!({"spec": {"containers": [container("a", "100m"), container("b", "200m")],
            "initContainers": [container("i", "1")], "overhead": {"cpu": "10m"}}}),
        expect!["count/pods=1,cpu=1010m,limits.cpu=4010m,limits.memory=2Gi,pods=1,requests.cpu=1010m"],
    );
    let ended = json!({"spec": {"containers": [container("a", "1")]}, "status": {"phase": "Succeeded"}});
    used("pods", ended, expect!["count/pods=1"]);
    let mut lost = json!({"metadata": {"deletionTimestamp": "2024-01-31T11:00:00Z", "deletionGracePeriodSeconds": 30},
        "spec": {"containers": [container("a", "1")]}});
    used("pods", lost.clone(), expect!["count/pods=1"]);
    lost["metadata"]["deletionGracePeriodSeconds"] = json!(7200);
    used("pods", lost, expect!["count/pods=1,cpu=1,limits.cpu=2,limits.memory=1Gi,pods=1,requests.cpu=1"]);
    used(
        "pods",
        json!({"spec": {"containers": [{"name": "a", "resources": {"requests": {"x.io/gpu": "2", "hugepages-2Mi": "4Mi"}}}]},
            "status": {"containerStatuses": [{"name": "a", "allocatedResources": {"x.io/gpu": "3"}}]}}),
        expect!["count/pods=1,hugepages-2Mi=4Mi,pods=1,requests.hugepages-2Mi=4Mi,requests.x.io/gpu=3"],
    );
}

#[test]
fn services_claims_and_counts() {
    let service = |kind: &str, allocates: bool| {
        json!({"spec": {"type": kind, "allocateLoadBalancerNodePorts": allocates,
            "ports": [{"port": 1}, {"port": 2, "nodePort": 30000}]}})
    };
    let none = expect!["count/services=1,services=1,services.loadbalancers=0,services.nodeports=0"];
    used("services", service("ClusterIP", true), none);
    let two = expect!["count/services=1,services=1,services.loadbalancers=0,services.nodeports=2"];
    used("services", service("NodePort", true), two);
    let given = expect!["count/services=1,services=1,services.loadbalancers=1,services.nodeports=1"];
    used("services", service("LoadBalancer", false), given);
    used(
        "persistentvolumeclaims",
        json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1500m"}}}}),
        expect![["count/persistentvolumeclaims=1,gold.storageclass.storage.k8s.io/persistentvolumeclaims=1,\
             gold.storageclass.storage.k8s.io/requests.storage=2,persistentvolumeclaims=1,requests.storage=2"]],
    );
    used("secrets", json!({}), expect!["count/secrets=1,secrets=1"]);
    assert_eq!(count_name(&GroupResource::new("x.io", "ws")), "count/ws.x.io");
    let names =
        ["count/ws.x.io", "requests.cpu", "services.nodeports", "a.storageclass.storage.k8s.io/requests.storage", "x"];
    let known: Vec<Option<String>> = names.iter().map(|name| Some(counted(name)?.to_string())).collect();
    let text = |name: &str| Some(name.to_owned());
    assert_eq!(known, [text("ws.x.io"), text("pods"), text("services"), text("persistentvolumeclaims"), None]);
}

#[test]
fn scopes_choose_pods() {
    let best = document(json!({"spec": {"containers": [{"name": "a"}], "priorityClassName": "high"}}));
    let ending = document(json!({"spec": {"activeDeadlineSeconds": 5, "containers": [container("a", "1")],
        "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"namespaces": ["x"]}]}}}}));
    let scoped = |scope: &str| document(json!({"spec": {"scopes": [scope]}}));
    for (scope, first, second) in [
        ("BestEffort", true, false),
        ("NotBestEffort", false, true),
        ("Terminating", false, true),
        ("NotTerminating", true, false),
        ("PriorityClass", true, false),
        ("CrossNamespacePodAffinity", false, true),
        ("Unknown", false, false),
    ] {
        let got = [&best, &ending].map(|pod| in_scopes(&scoped(scope), &core("pods"), pod));
        assert_eq!(got, [first, second], "{scope}");
    }
    for (operator, values, first, second) in
        [("In", vec!["high"], true, false), ("NotIn", vec!["high"], false, true), ("DoesNotExist", vec![], false, true)]
    {
        let selector =
            json!({"matchExpressions": [{"scopeName": "PriorityClass", "operator": operator, "values": values}]});
        let quota = document(json!({"spec": {"scopeSelector": selector}}));
        let got = [&best, &ending].map(|pod| in_scopes(&quota, &core("pods"), pod));
        assert_eq!(got, [first, second], "{operator}");
    }
    assert!(!in_scopes(&scoped("BestEffort"), &core("secrets"), &best), "only pods have that scope");
}

fn quota(name: &str, hard: Value, used: Value) -> Document {
    document(json!({"metadata": {"name": name}, "spec": {"hard": hard}, "status": {"hard": hard, "used": used}}))
}

fn charged(quotas: &[Document], plural: &str, object: &Document, old: Option<&Document>, expect: Expect) {
    let resource = core(plural);
    let request = Request { resource: &resource, subresource: "", object, old, now: now() };
    let text = match charge(quotas, &request) {
        Ok(all) => all.iter().map(|c| format!("{}: {}\n", quotas[c.index].name(), show(&c.used))).collect(),
        Err(why) => why,
    };
    expect.assert_eq(&text);
}

#[test]
fn a_quota_is_charged_until_it_is_full() {
    let pod = document(json!({"spec": {"containers": [container("a", "1")]}}));
    let open = quota("q", json!({"pods": "2", "requests.cpu": "3"}), json!({"pods": "1", "requests.cpu": "1500m"}));
    let other = quota("other", json!({"secrets": "1"}), json!({"secrets": "1"}));
    charged(
        &[other, open],
        "pods",
        &pod,
        None,
        expect![[r#"
        q: pods=2,requests.cpu=2500m
    "#]],
    );
    let full = quota("q", json!({"pods": "2", "requests.cpu": "1"}), json!({"pods": "2", "requests.cpu": "500m"}));
    let why = expect![
        "exceeded quota: q, requested: pods=1,requests.cpu=1, used: pods=2,requests.cpu=500m, limited: pods=2,requests.cpu=1"
    ];
    charged(std::slice::from_ref(&full), "pods", &pod, None, why);
    let bare = document(json!({"spec": {"containers": [{"name": "b"}, {"name": "a"}]}}));
    let why = expect!["failed quota: q: must specify requests.cpu for: a,b"];
    charged(std::slice::from_ref(&full), "pods", &bare, None, why);
    let unknown = quota("q", json!({"pods": "2"}), json!({}));
    charged(&[unknown], "pods", &pod, None, expect!["status unknown for quota: q, resources: pods"]);
}

#[test]
fn an_update_pays_the_difference() {
    let service = |kind: &str| document(json!({"spec": {"type": kind, "ports": [{"port": 1}]}}));
    let q = quota("q", json!({"services.nodeports": "1"}), json!({"services.nodeports": "0"}));
    let quotas = std::slice::from_ref(&q);
    charged(
        quotas,
        "services",
        &service("NodePort"),
        Some(&service("ClusterIP")),
        expect![[r#"
        q: services.nodeports=1
    "#]],
    );
    charged(quotas, "services", &service("ClusterIP"), Some(&service("NodePort")), expect![""]);
    let map = document(json!({}));
    let maps = quota("q", json!({"configmaps": "1"}), json!({"configmaps": "1"}));
    charged(&[maps], "configmaps", &map, Some(&map), expect![""]);
}

#[test]
fn a_recount_counts_what_the_quota_names() {
    let q = document(
        json!({"spec": {"hard": {"pods": "5", "count/secrets": "5", "nope": "1"}, "scopes": ["NotBestEffort"]}}),
    );
    let pods =
        [json!({"spec": {"containers": [container("a", "1")]}}), json!({"spec": {"containers": [{"name": "b"}]}})];
    let objects = |resource: &GroupResource| match resource.resource.as_str() {
        "pods" => pods.iter().map(|pod| document(pod.clone())).collect(),
        _ => vec![document(json!({}))],
    };
    assert_eq!(show(&recount(&q, objects, now())), "count/secrets=0,pods=1");
    assert_eq!(show(&read(Some(&json!({"cpu": "0.5", "x": 1})))), "cpu=500m,x=1");
}
