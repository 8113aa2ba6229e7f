//! The machine from request to transaction, on snapshots made by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::decode::Format;
use api::{Document, GroupResource, GroupVersion, ObjectName};
use bytes::Bytes;
use expect_test::{Expect, expect};
use http::HeaderMap;
use serde_json::{Value, json};
use store::Op;

use super::options::{DeleteOptions, Propagation, WriteOptions};
use super::{Ask, Known, Request, Settings, Shown, Snapshot, Step, Verb, Webhooks, step};
use crate::attributes::{Attributes, ResourceAttributes, User};
use crate::call::Call;
use crate::entropy::Entropy;
use crate::hooks::{self, Hooks};
use crate::request::Query;
use crate::rows::{Rows, built_in};
use crate::view::View;

#[derive(Default)]
struct World {
    objects: BTreeMap<String, Document>,
    taken: BTreeSet<String>,
    listed: BTreeMap<String, BTreeSet<String>>,
    /// Whether the store was asked about single keys.
    asked: bool,
    hooks: Hooks,
    rows: Rows,
    replies: Vec<(hooks::Call, hooks::Reply)>,
}

impl View for World {
    fn get(&self, _resource: &GroupResource, _name: &ObjectName) -> Option<Document> {
        None
    }

    fn list(&self, _resource: &GroupResource, _namespace: Option<&str>) -> Vec<Document> {
        Vec::new()
    }

    fn revision(&self, _resource: &GroupResource) -> u64 {
        0
    }
}

impl Snapshot for World {
    fn view(&self) -> &dyn View {
        self
    }

    fn object(&self, key: &str) -> Option<Document> {
        self.objects.get(key).cloned()
    }

    fn key(&self, key: &str) -> Known {
        match (self.taken.contains(key), self.asked) {
            (true, _) => Known::Taken,
            (false, true) => Known::Free,
            (false, false) => Known::Unknown,
        }
    }

    fn keys(&self, prefix: &str) -> Option<&BTreeSet<String>> {
        self.listed.get(prefix)
    }

    fn webhooks(&self) -> Webhooks<'_> {
        Webhooks { hooks: &self.hooks, rows: &self.rows, authorizers: &[], replies: &self.replies }
    }
}

fn request(verb: Verb, group: &str, plural: &str, name: &str, subresource: &str, body: &Value) -> Request {
    let rows = Rows::new(built_in(), 0);
    let row = rows.get(&GroupResource::new(group, plural)).expect("a row").clone();
    let namespace = if row.namespaced() { "ns" } else { "" };
    let target = ResourceAttributes {
        group_version: GroupVersion { group: group.into(), version: row.versions[0].name.clone() },
        resource: plural.into(),
        subresource: subresource.into(),
        object: ObjectName { namespace: namespace.into(), name: name.into() },
        fields: Vec::new(),
    };
    let attributes =
        Attributes { user: User::default(), verb: String::new(), resource: Some(target), path: String::new() };
    let now = api::time::parse("2024-01-31T12:00:00Z").expect("a time");
    let call = Call::new(attributes, row, Query::default(), HeaderMap::new(), now).expect("a served version");
    let settings = Settings {
        service_cidrs: vec!["10.96.0.0/28".parse().expect("a CIDR")],
        node_ports: (30000, 30001),
        own_prefix: "/own/".into(),
        lease: 0,
    };
    let options = WriteOptions { manager: "test".into(), ..WriteOptions::default() };
    Request {
        call,
        verb,
        options,
        body: Bytes::from(body.to_string()),
        format: Format::Json,
        settings,
        internal: false,
        collection: false,
    }
}

/// The transaction and the answer in a few lines.
fn check(request: &Request, world: &World, expect: Expect) -> Option<Document> {
    let mut out = String::new();
    let mut document = None;
    match step(request, world, &[], Entropy::new(7)) {
        Step::Ask(Ask::Read(key)) => out.push_str(&format!("ask {key}\n")),
        Step::Ask(Ask::List(prefix)) => out.push_str(&format!("ask all of {prefix}\n")),
        Step::Ask(Ask::Webhooks(calls)) => {
            let names: Vec<&str> = calls.iter().map(|call| call.hook.name.as_str()).collect();
            out.push_str(&format!("ask webhooks {}\n", names.join(" ")));
        }
        Step::Ask(Ask::Convert(question)) => out.push_str(&format!("ask for {}\n", question.wanted)),
        Step::Done(done) => {
            for compare in &done.txn.compare {
                out.push_str(&format!("if {} at {}\n", String::from_utf8_lossy(&compare.key), compare.mod_revision));
            }
            for op in &done.txn.ops {
                let word = if matches!(op, Op::Put { .. }) { "put" } else { "delete" };
                out.push_str(&format!("{word} {}\n", String::from_utf8_lossy(op.key())));
            }
            match done.answer {
                Ok(answer) => {
                    out.push_str(&format!("{}\n", answer.code));
                    if let Shown::Object(shown) = answer.shown {
                        document = Some(shown);
                    }
                }
                Err(status) => out.push_str(&format!("{} {}\n", status.code, status.message)),
            }
        }
    }
    expect.assert_eq(&out);
    document
}

fn config_map(version: &str) -> Document {
    Document::new(json!({
        "kind": "ConfigMap", "apiVersion": "v1", "data": {"a": "1"},
        "metadata": {"name": "c", "namespace": "ns", "uid": "u", "resourceVersion": version,
                     "creationTimestamp": "2024-01-01T00:00:00Z"}
    }))
    .expect("an object")
}

fn with(key: &str, document: Document) -> World {
    World { objects: [(key.to_owned(), document)].into(), ..World::default() }
}

const KEY: &str = "/registry/configmaps/ns/c";

#[test]
fn a_create_compares_the_key_with_nothing() {
    let body = json!({"metadata": {"name": "c"}, "data": {"a": "1"}});
    let create = request(Verb::Create, "", "configmaps", "", "", &body);
    let made = check(
        &create,
        &World::default(),
        expect![[r#"
            if /registry/configmaps/ns/c at 0
            put /registry/configmaps/ns/c
            201
        "#]],
    );
    let made = made.expect("an object");
    assert_eq!((made.namespace(), made.str_at("/metadata/creationTimestamp")), ("ns", "2024-01-31T12:00:00Z"));
    check(
        &create,
        &with(KEY, config_map("5")),
        expect![[r#"
        409 configmaps "c" already exists
    "#]],
    );
    let elsewhere = json!({"metadata": {"name": "c", "namespace": "other"}});
    check(
        &request(Verb::Create, "", "configmaps", "", "", &elsewhere),
        &World::default(),
        expect![[r#"
        400 the namespace of the provided object does not match the namespace sent on the request
    "#]],
    );
}

#[test]
fn an_update_holds_to_the_version_it_was_made_from() {
    let put = |version: &str, value: &str| {
        let body = json!({"metadata": {"name": "c", "resourceVersion": version}, "data": {"a": value}});
        request(Verb::Update, "", "configmaps", "c", "", &body)
    };
    let world = with(KEY, config_map("5"));
    check(
        &put("5", "2"),
        &world,
        expect![[r#"
        if /registry/configmaps/ns/c at 5
        put /registry/configmaps/ns/c
        200
    "#]],
    );
    check(
        &put("", "2"),
        &world,
        expect![[r#"
        if /registry/configmaps/ns/c at 5
        put /registry/configmaps/ns/c
        200
    "#]],
    );
    check(
        &put("4", "2"),
        &world,
        expect![[r#"
        409 Operation cannot be fulfilled on configmaps "c": the object has been modified; please apply your changes to the latest version and try again
    "#]],
    );
    check(
        &put("5", "2"),
        &World::default(),
        expect![[r#"
        404 configmaps "c" not found
    "#]],
    );
}

#[test]
fn a_patch_that_changes_nothing_writes_nothing() {
    let patch = |body: Value| request(Verb::Patch(api::patch::PatchType::Merge), "", "configmaps", "c", "", &body);
    let world = with(KEY, config_map("5"));
    let same = check(
        &patch(json!({"data": {"a": "1"}})),
        &world,
        expect![[r#"
        200
    "#]],
    );
    assert_eq!(same.expect("an object").resource_version(), "5");
    check(
        &patch(json!({"data": {"b": "1"}})),
        &world,
        expect![[r#"
        if /registry/configmaps/ns/c at 5
        put /registry/configmaps/ns/c
        200
    "#]],
    );
}

#[test]
fn a_delete_waits_for_finalizers_and_the_last_one_ends_it() {
    let delete = |propagation| {
        let options = DeleteOptions { propagation, ..DeleteOptions::default() };
        request(Verb::Delete(options), "", "configmaps", "c", "", &Value::Null)
    };
    let world = with(KEY, config_map("5"));
    check(
        &delete(None),
        &world,
        expect![[r#"
        if /registry/configmaps/ns/c at 5
        delete /registry/configmaps/ns/c
        200
    "#]],
    );
    let marked = check(
        &delete(Some(Propagation::Foreground)),
        &world,
        expect![[r#"
        if /registry/configmaps/ns/c at 5
        put /registry/configmaps/ns/c
        200
    "#]],
    );
    let marked = marked.expect("an object");
    assert!(marked.deleting());
    let free = json!({"metadata": {"finalizers": null}});
    check(
        &request(Verb::Patch(api::patch::PatchType::Merge), "", "configmaps", "c", "", &free),
        &with(KEY, marked),
        expect![[r#"
            if /registry/configmaps/ns/c at 5
            delete /registry/configmaps/ns/c
            200
        "#]],
    );
}

fn pod(node: &str) -> Document {
    Document::new(json!({
        "kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p", "namespace": "ns", "uid": "u", "resourceVersion": "5"},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 30}, "status": {"phase": "Running"}
    }))
    .expect("an object")
}

#[test]
fn a_pod_that_runs_is_given_its_grace() {
    let delete = |seconds| {
        let options = DeleteOptions { grace_seconds: seconds, ..DeleteOptions::default() };
        request(Verb::Delete(options), "", "pods", "p", "", &Value::Null)
    };
    let key = "/registry/pods/ns/p";
    let marked = check(
        &delete(None),
        &with(key, pod("n")),
        expect![[r#"
        if /registry/pods/ns/p at 5
        put /registry/pods/ns/p
        200
    "#]],
    );
    let marked = marked.expect("an object");
    assert_eq!(marked.str_at("/metadata/deletionTimestamp"), "2024-01-31T12:00:30Z");
    check(
        &delete(Some(60)),
        &with(key, marked.clone()),
        expect![[r#"
        200
    "#]],
    );
    check(
        &delete(Some(0)),
        &with(key, marked),
        expect![[r#"
        if /registry/pods/ns/p at 5
        delete /registry/pods/ns/p
        200
    "#]],
    );
    // Nobody runs it: it is marked, and goes in the next step.
    let marked = check(
        &delete(None),
        &with(key, pod("")),
        expect![[r#"
        if /registry/pods/ns/p at 5
        put /registry/pods/ns/p
        200
    "#]],
    );
    let marked = marked.expect("an object");
    assert_eq!(marked.i64_at("/metadata/deletionGracePeriodSeconds"), Some(0));
    check(
        &delete(None),
        &with(key, marked),
        expect![[r#"
        if /registry/pods/ns/p at 5
        delete /registry/pods/ns/p
        200
    "#]],
    );
}

#[test]
fn an_address_and_a_port_are_claimed_in_the_commit_that_needs_them() {
    let service = |spec: Value| {
        let body = json!({"metadata": {"name": "s"}, "spec": spec});
        request(Verb::Create, "", "services", "", "", &body)
    };
    let ports = json!([{"port": 80, "nodePort": 30001}]);
    let wanted = service(json!({"type": "NodePort", "clusterIP": "10.96.0.9", "ports": ports}));
    check(
        &wanted,
        &World::default(),
        expect![[r#"
        ask /own/nodeports/30001/TCP
    "#]],
    );
    let asked = World { asked: true, ..World::default() };
    let made = check(
        &wanted,
        &asked,
        expect![[r#"
        if /registry/services/specs/ns/s at 0
        if /own/nodeports/30001/TCP at 0
        if /registry/ipaddresses/10.96.0.9 at 0
        put /own/nodeports/30001/TCP
        put /registry/ipaddresses/10.96.0.9
        put /registry/services/specs/ns/s
        201
    "#]],
    );
    let taken = with("/registry/ipaddresses/10.96.0.9", Document::default());
    check(
        &wanted,
        &taken,
        expect![[r#"
            422 Service "s" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.9"]: failed to allocate IP 10.96.0.9: provided IP is already allocated
        "#]],
    );
    let delete = request(Verb::Delete(DeleteOptions::default()), "", "services", "s", "", &Value::Null);
    let mut made = made.expect("an object");
    made.set("/metadata/resourceVersion", "9");
    check(
        &delete,
        &with("/registry/services/specs/ns/s", made),
        expect![[r#"
        if /registry/services/specs/ns/s at 9
        delete /registry/services/specs/ns/s
        delete /own/nodeports/30001/TCP
        delete /registry/ipaddresses/10.96.0.9
        200
    "#]],
    );
}

#[test]
fn a_full_range_is_refused() {
    let body = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    let create = request(Verb::Create, "", "services", "", "", &body);
    let mut world = World::default();
    for n in 0..16 {
        world.objects.insert(format!("/registry/ipaddresses/10.96.0.{n}"), Document::default());
    }
    check(
        &create,
        &world,
        expect![[r#"
        500 Internal error occurred: failed to allocate a serviceIP: range is full
    "#]],
    );
}

#[test]
fn a_dry_run_commits_nothing() {
    let body = json!({"metadata": {"name": "c"}});
    let mut create = request(Verb::Create, "", "configmaps", "", "", &body);
    create.options.dry_run = true;
    check(
        &create,
        &World::default(),
        expect![[r#"
        201
    "#]],
    );
}

/// A world with one webhook, that was asked or not.
fn hooked(mutating: bool, more: Value) -> World {
    let mut hook = json!({"name": "h.x.io", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]});
    for (key, value) in more.as_object().expect("fields") {
        hook[key] = value.clone();
    }
    let all = vec![Arc::new(hooks::compile("c", &hook))];
    let hooks = match mutating {
        true => Hooks { mutating: all, validating: Vec::new() },
        false => Hooks { mutating: Vec::new(), validating: all },
    };
    World { hooks, ..World::default() }
}

#[test]
fn a_webhook_is_asked_before_anything_is_decided() {
    let create = request(Verb::Create, "", "configmaps", "", "", &json!({"metadata": {"name": "c"}}));
    let mut dry = create.clone();
    dry.options.dry_run = true;
    for mutating in [true, false] {
        check(&create, &hooked(mutating, json!({})), expect!["ask webhooks h.x.io\n"]);
        let some = hooked(mutating, json!({"sideEffects": "Some"}));
        check(&create, &some, expect!["ask webhooks h.x.io\n"]);
        check(
            &dry,
            &some,
            expect![[r#"400 admission webhook "h.x.io" does not support dry run
"#]],
        );
        let unknown = json!({"admissionReviewVersions": ["v9"]});
        check(
            &create,
            &hooked(mutating, unknown.clone()),
            expect![[
                r#"500 Internal error occurred: failed calling webhook "h.x.io": could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)
"#
            ]],
        );
        let mut open = unknown;
        open["failurePolicy"] = "Ignore".into();
        check(
            &create,
            &hooked(mutating, open),
            expect![[r#"
            if /registry/configmaps/ns/c at 0
            put /registry/configmaps/ns/c
            201
        "#]],
        );
        let mut internal = create.clone();
        internal.internal = true;
        check(
            &internal,
            &hooked(mutating, json!({})),
            expect![[r#"
            if /registry/configmaps/ns/c at 0
            put /registry/configmaps/ns/c
            201
        "#]],
        );
    }
}

#[test]
fn an_answer_is_for_one_question_only() {
    let create = request(Verb::Create, "", "configmaps", "", "", &json!({"metadata": {"name": "c"}}));
    let mut world = hooked(false, json!({}));
    let Step::Ask(Ask::Webhooks(calls)) = step(&create, &world, &[], Entropy::new(7)) else { panic!("it asks") };
    let review = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "response": {"uid": "u", "allowed": false, "status": {"reason": "Because"}}});
    let replies = calls.into_iter().map(|call| (call, hooks::Reply { uid: "u".into(), review: Ok(review.clone()) }));
    world.replies = replies.collect();
    check(
        &create,
        &world,
        expect![[r#"400 admission webhook "h.x.io" denied the request: Because
"#]],
    );
    let other = request(Verb::Create, "", "configmaps", "", "", &json!({"metadata": {"name": "d"}}));
    check(&other, &world, expect!["ask webhooks h.x.io\n"]);
}
