//! Plugins on a handful of objects: what each changes or says.

use api::{Document, GroupResource, GroupVersion, GroupVersionKind, ObjectName, Timestamp};
use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::{Context, PLUGINS};
use crate::attributes::{Attributes, ResourceAttributes, User};
use crate::view::View;

/// Objects by group and plural.
#[derive(Default)]
struct Objects(Vec<(&'static str, &'static str, Document)>);

impl Objects {
    fn with(mut self, group: &'static str, resource: &'static str, object: Value) -> Self {
        self.0.push((group, resource, Document::new(object).unwrap()));
        self
    }
}

impl View for Objects {
    fn get(&self, resource: &GroupResource, name: &ObjectName) -> Option<Document> {
        self.list(resource, Some(&name.namespace)).into_iter().find(|object| object.name() == name.name)
    }

    fn list(&self, resource: &GroupResource, namespace: Option<&str>) -> Vec<Document> {
        let of = self.0.iter().filter(|(group, plural, _)| *group == resource.group && *plural == resource.resource);
        let all = of.map(|(_, _, object)| object);
        all.filter(|object| namespace.is_none_or(|n| n == object.namespace())).cloned().collect()
    }

    fn revision(&self, _: &GroupResource) -> u64 {
        1
    }
}

fn world() -> Objects {
    Objects::default()
        .with("", "namespaces", json!({"metadata": {"name": "a"}}))
        .with("", "namespaces", json!({"metadata": {"name": "kube-node-lease"}}))
        .with("", "namespaces", json!({"metadata": {"name": "gone"}, "status": {"phase": "Terminating"}}))
        .with("", "serviceaccounts", json!({"metadata": {"name": "default", "namespace": "a"}}))
        .with("", "nodes", json!({"metadata": {"name": "n", "uid": "u"}}))
        .with("", "pods", json!({"metadata": {"name": "own", "namespace": "a", "uid": "1"}, "spec": {"nodeName": "n"}}))
        .with(
            "",
            "pods",
            json!({"metadata": {"name": "other", "namespace": "a", "uid": "2"}, "spec": {"nodeName": "m"}}),
        )
        .with("scheduling.k8s.io", "priorityclasses", json!({"metadata": {"name": "high"}, "value": 7}))
        .with(
            "rbac.authorization.k8s.io",
            "clusterroles",
            json!({"metadata": {"name": "viewer"},
            "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]}),
        )
        .with(
            "rbac.authorization.k8s.io",
            "clusterrolebindings",
            json!({"metadata": {"name": "b"},
            "roleRef": {"kind": "ClusterRole", "name": "viewer"}, "subjects": [{"kind": "User", "name": "jane"}]}),
        )
}

struct Asked {
    user: User,
    verb: &'static str,
    group: &'static str,
    resource: &'static str,
    subresource: &'static str,
    namespace: &'static str,
    name: &'static str,
}

fn asked(verb: &'static str, path: &'static str) -> Asked {
    let (path, subresource) = path.split_once(':').unwrap_or((path, ""));
    let mut parts = path.split('/');
    let mut next = || parts.next().unwrap_or_default();
    let (group, resource, namespace, name) = (next(), next(), next(), next());
    let user = User { name: "jane".into(), ..User::default() };
    Asked { user, verb, group, resource, subresource, namespace, name }
}

fn as_node(mut asked: Asked) -> Asked {
    asked.user = User { name: "system:node:n".into(), groups: vec!["system:nodes".into()], ..User::default() };
    asked
}

/// Runs all plugins; the message of the refusal, or what became of the object.
fn admit(view: &Objects, asked: Asked, object: Value, old: Option<Value>) -> Result<Document, String> {
    let target = ResourceAttributes {
        group_version: GroupVersion { group: asked.group.into(), version: "v1".into() },
        resource: asked.resource.into(),
        subresource: asked.subresource.into(),
        object: ObjectName { namespace: asked.namespace.into(), name: asked.name.into() },
        fields: Vec::new(),
    };
    let attributes =
        Attributes { user: asked.user, verb: asked.verb.into(), resource: Some(target), path: String::new() };
    let kind = GroupVersionKind { group: asked.group.into(), version: "v1".into(), kind: String::new() };
    let old = old.and_then(Document::new);
    let mut object = Document::new(object).unwrap();
    let now = Timestamp::UNIX_EPOCH;
    let context = Context { attributes: &attributes, kind: &kind, old: old.as_ref(), view, now, dry_run: false };
    let told = |status: Box<api::Status>| status.message.clone();
    for plugin in PLUGINS {
        if asked.verb != "delete" {
            plugin.mutate(&mut object, &context).map_err(told)?;
        }
    }
    for plugin in PLUGINS {
        plugin.validate(&object, &context).map_err(told)?;
    }
    Ok(object)
}

fn refusal(asked: Asked, object: Value, old: Option<Value>, expect: Expect) {
    let said = admit(&world(), asked, object, old).err().unwrap_or_else(|| "admitted".into());
    expect.assert_eq(&said);
}

#[test]
fn a_pod_gets_what_it_did_not_say() {
    let pod = json!({"metadata": {"name": "p", "namespace": "a"}, "spec": {
        "priorityClassName": "high", "containers": [{"name": "c"}]}});
    let mut pod = admit(&world(), asked("create", "/pods/a"), pod, None).unwrap();
    let volume = pod.str_at("/spec/volumes/0/name").to_owned();
    assert!(volume.starts_with("kube-api-access-") && volume.len() == 21);
    assert_eq!(pod.str_at("/spec/containers/0/volumeMounts/0/name"), volume);
    pod.remove("/spec/volumes");
    pod.remove("/spec/containers");
    expect![[r#"{"metadata":{"name":"p","namespace":"a"},"spec":{"preemptionPolicy":"PreemptLowerPriority","priority":7,"priorityClassName":"high","serviceAccount":"default","serviceAccountName":"default","tolerations":[{"effect":"NoExecute","key":"node.kubernetes.io/not-ready","operator":"Exists","tolerationSeconds":300},{"effect":"NoExecute","key":"node.kubernetes.io/unreachable","operator":"Exists","tolerationSeconds":300}]}}"#]]
    .assert_eq(&pod.value().to_string());
}

#[test]
fn pods_are_refused_with_upstream_s_words() {
    let pod = |spec: Value| json!({"metadata": {"name": "p"}, "spec": spec});
    refusal(asked("create", "/pods/nowhere"), pod(json!({})), None, expect![[r#"namespaces "nowhere" not found"#]]);
    refusal(
        asked("create", "/pods/gone"),
        pod(json!({})),
        None,
        expect![[
            r#"pods "p" is forbidden: unable to create new content in namespace gone because it is being terminated"#
        ]],
    );
    refusal(
        asked("create", "/pods/a"),
        pod(json!({"serviceAccountName": "x"})),
        None,
        expect![[r#"pods "p" is forbidden: error looking up service account a/x: serviceaccount "x" not found"#]],
    );
    refusal(
        asked("create", "/pods/a"),
        pod(json!({"priorityClassName": "x"})),
        None,
        expect![[r#"pods "p" is forbidden: no PriorityClass with name x was found"#]],
    );
    refusal(
        asked("delete", "/namespaces//default"),
        json!({}),
        Some(json!({"metadata": {"name": "default"}})),
        expect![[r#"namespaces "default" is forbidden: this namespace may not be deleted"#]],
    );
}

#[test]
fn a_node_keeps_to_its_own() {
    let node = |labels: Value| json!({"metadata": {"name": "n", "labels": labels}});
    let update = |name| as_node(asked("update", name));
    refusal(
        update("/nodes//m"),
        json!({"metadata": {"name": "m"}}),
        Some(json!({})),
        expect![[r#"nodes "m" is forbidden: node "n" is not allowed to modify node "m""#]],
    );
    refusal(
        update("/nodes//n"),
        node(json!({"node-role.kubernetes.io/x": "", "kubernetes.io/os": "linux", "a": "b"})),
        Some(node(json!({}))),
        expect![[r#"nodes "n" is forbidden: is not allowed to modify labels: node-role.kubernetes.io/x"#]],
    );
    refusal(
        update("/nodes//n"),
        json!({"metadata": {"name": "n"}, "spec": {"taints": [{"key": "a"}]}}),
        Some(node(json!({}))),
        expect![[r#"nodes "n" is forbidden: node "n" is not allowed to modify taints"#]],
    );
    refusal(
        as_node(asked("delete", "/pods/a/other")),
        json!({}),
        Some(json!({"spec": {"nodeName": "m"}})),
        expect![[r#"pods "other" is forbidden: node "n" can only delete pods with spec.nodeName set to itself"#]],
    );
    let lease = as_node(asked("create", "coordination.k8s.io/leases/kube-node-lease"));
    refusal(
        lease,
        json!({"metadata": {"name": "m"}}),
        None,
        expect![[
            r#"leases.coordination.k8s.io "m" is forbidden: can only access node lease with the same name as the requesting node"#
        ]],
    );
    let token = |pod: &str, uid: &str| json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid}}});
    let ask = || as_node(asked("create", "/serviceaccounts/a/default:token"));
    refusal(
        ask(),
        json!({}),
        None,
        expect![[r#"serviceaccounts "default" is forbidden: node requested token not bound to a pod"#]],
    );
    refusal(
        ask(),
        token("other", "2"),
        None,
        expect![[
            r#"serviceaccounts "default" is forbidden: node requested token bound to a pod scheduled on a different node"#
        ]],
    );
}

#[test]
fn nobody_grants_what_they_do_not_hold() {
    let role = |verbs: Value| json!({"metadata": {"name": "r"}, "rules": [{"verbs": verbs, "apiGroups": [""], "resources": ["pods"]}]});
    let create = || asked("create", "rbac.authorization.k8s.io/roles/a/r");
    refusal(create(), role(json!(["get"])), None, expect!["admitted"]);
    refusal(
        create(),
        role(json!(["get", "list", "delete"])),
        None,
        expect![[r#"
            roles.rbac.authorization.k8s.io "r" is forbidden: user "jane" (groups=[]) is attempting to grant RBAC permissions not currently held:
            {APIGroups:[""], Resources:["pods"], Verbs:["list" "delete"]}"#]],
    );
    let binding = |name: &str| json!({"metadata": {"name": "x"}, "roleRef": {"kind": "ClusterRole", "name": name}});
    let bind = || asked("create", "rbac.authorization.k8s.io/rolebindings/a/x");
    refusal(bind(), binding("viewer"), None, expect!["admitted"]);
    refusal(bind(), binding("nope"), None, expect![[r#"clusterrole.rbac.authorization.k8s.io "nope" not found"#]]);
}

#[test]
fn limit_ranges_fill_in_and_bound() {
    let range = json!({"metadata": {"name": "l", "namespace": "a"}, "spec": {"limits": [{"type": "Container",
        "default": {"cpu": "1"}, "defaultRequest": {"cpu": "500m"}, "max": {"cpu": "2"}}]}});
    let pod = |limits: Value| {
        let resources = json!({"limits": limits});
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "resources": resources}]}})
    };
    let filled =
        admit(&world().with("", "limitranges", range.clone()), asked("create", "/pods/a"), pod(json!({})), None);
    let filled = filled.unwrap();
    assert_eq!(
        filled.at("/spec/containers/0/resources"),
        Some(&json!({"limits": {"cpu": "1"}, "requests": {"cpu": "500m"}}))
    );
    assert_eq!(
        filled.annotation("kubernetes.io/limit-ranger"),
        Some("LimitRanger plugin set: cpu request for container c; cpu limit for container c")
    );
    let refused =
        admit(&world().with("", "limitranges", range), asked("create", "/pods/a"), pod(json!({"cpu": "3"})), None);
    expect![[r#"pods "p" is forbidden: maximum cpu usage per Container is 2, but limit is 3"#]]
        .assert_eq(&refused.unwrap_err());
}
