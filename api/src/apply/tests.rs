//! Ownership against what kube-apiserver v1.37 answered to the same writes.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::{Writer, apply, update};
use crate::patch::PatchType;
use crate::{Document, GroupVersion, GroupVersionKind, Schema, Status, Timestamp};

/// An object and the writes to it, one a second.
struct Story {
    schema: Schema,
    live: Option<Document>,
    now: Timestamp,
}

fn schema(api_version: &str, kind: &str) -> Schema {
    let kind = GroupVersion::parse(api_version).expect("a version").kind(kind);
    Schema::of_kind(&kind.group, &kind.version, &kind.kind).unwrap_or_else(|| widget(&kind))
}

fn widget(kind: &GroupVersionKind) -> Schema {
    let spec = json!({"size": {"type": "integer"},
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "atomic": {"type": "object", "x-kubernetes-map-type": "atomic",
                   "properties": {"a": {"type": "string"}, "b": {"type": "string"}}},
        "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id", "zone"],
                  "items": {"type": "object", "properties": {"id": {"type": "string"},
                      "zone": {"type": "string", "default": "z1"}, "n": {"type": "integer"}}}}});
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": spec}}});
    Schema::from_crd(&schema, kind)
}

impl Story {
    fn new(api_version: &str, kind: &str) -> Self {
        Self { schema: schema(api_version, kind), live: None, now: Timestamp::UNIX_EPOCH }
    }

    fn writer<'a>(&mut self, manager: &'a str, force: bool) -> Writer<'a> {
        self.now = Timestamp::from_second(self.now.as_second() + 1).expect("in range");
        Writer { manager, subresource: "", now: self.now, force, resets: &["status"] }
    }

    fn object(&self, mut body: Value) -> Document {
        body["apiVersion"] = self.schema.kind().group_version().to_string().into();
        body["kind"] = self.schema.kind().kind.as_str().into();
        body["metadata"]["name"] = "x".into();
        Document::new(body).expect("an object")
    }

    fn try_apply(&mut self, manager: &str, force: bool, config: Value) -> Result<(), Box<Status>> {
        let writer = self.writer(manager, force);
        let config = self.object(config);
        let mut applied = apply(&self.schema, self.live.as_ref(), &config, &writer)?;
        self.schema.default(&mut applied);
        self.live = Some(applied);
        Ok(())
    }

    fn apply(&mut self, manager: &str, config: Value) {
        self.try_apply(manager, false, config).expect("applies");
    }

    fn refused(&mut self, manager: &str, config: Value) -> String {
        let status = self.try_apply(manager, false, config).expect_err("refuses");
        format!("{} {}", status.code, status.message)
    }

    fn create(&mut self, manager: &str, body: Value) {
        let writer = self.writer(manager, false);
        let mut new = self.object(body);
        self.schema.default(&mut new);
        update(&self.schema, None, &mut new, &writer);
        new.set("/metadata/uid", "u");
        self.live = Some(new);
    }

    fn merge(&mut self, manager: &str, patch: Value) {
        let writer = self.writer(manager, false);
        let live = self.live.take().expect("an object");
        let body = patch.to_string();
        let patched = crate::patch::request(&self.schema, PatchType::Merge, &live, body.as_bytes(), Default::default());
        let mut new = patched.expect("patches").document;
        update(&self.schema, Some(&live), &mut new, &writer);
        self.live = Some(new);
    }

    /// Who owns what, one manager a line, and the object without metadata.
    fn check(&self, expected: Expect) {
        let live = self.live.as_ref().expect("an object");
        let mut text = String::new();
        for entry in live.list_at("/metadata/managedFields") {
            let word = |key: &str| entry[key].as_str().unwrap_or_default();
            text +=
                &format!("{} {} {}: {}\n", word("operation"), word("manager"), &word("time")[17..], entry["fieldsV1"]);
        }
        let mut body = live.clone();
        ["/metadata", "/apiVersion", "/kind"].iter().for_each(|key| drop(body.remove(key)));
        expected.assert_eq(&format!("{text}{}\n", body.value()));
    }
}

#[test]
fn appliers_share_conflict_force_and_give_up() {
    let mut story = Story::new("v1", "ConfigMap");
    story.apply("one", json!({"data": {"a": "1", "b": "2"}}));
    story.apply("two", json!({"data": {"a": "1", "c": "3"}}));
    let refused = story.refused("two", json!({"data": {"a": "9"}}));
    assert_eq!(refused, r#"409 Apply failed with 1 conflict: conflict with "one": .data.a"#);
    story.try_apply("two", true, json!({"data": {"a": "9"}})).expect("forces");
    story.check(expect![[r#"
        Apply one 01Z: {"f:data":{"f:b":{}}}
        Apply two 04Z: {"f:data":{"f:a":{}}}
        {"data":{"a":"9","b":"2"}}
    "#]]);
    story.merge("kubectl-edit", json!({"data": {"b": "5", "z": "1"}}));
    let refused = story.refused("one", json!({"data": {"b": "2", "z": "2", "a": "0"}}));
    assert_eq!(
        refused,
        "409 Apply failed with 3 conflicts: conflicts with \"kubectl-edit\" using v1:\n- .data.b\n- .data.z\n\
         conflicts with \"two\":\n- .data.a"
    );
    story.apply("two", json!({}));
    story.check(expect![[r#"
        Update kubectl-edit 05Z: {"f:data":{"f:b":{},"f:z":{}}}
        {"data":{"b":"5","z":"1"}}
    "#]]);
}

#[test]
fn an_apply_without_change_leaves_the_time_alone() {
    let mut story = Story::new("v1", "ConfigMap");
    story.apply("one", json!({"data": {"a": "1"}}));
    story.apply("one", json!({"data": {"a": "1"}}));
    story.check(expect![[r#"
        Apply one 01Z: {"f:data":{"f:a":{}}}
        {"data":{"a":"1"}}
    "#]]);
}

#[test]
fn an_object_without_managers_was_before_the_first_apply() {
    let mut story = Story::new("v1", "ConfigMap");
    story.create("creator", json!({"data": {"a": "1"}}));
    story.merge("eraser", json!({"metadata": {"managedFields": []}}));
    story.merge("other", json!({"data": {"k": "1"}}));
    story.apply("one", json!({"data": {"a": "1", "b": "1"}}));
    story.check(expect![[r#"
        Apply one 04Z: {"f:data":{"f:a":{},"f:b":{}}}
        Update before-first-apply 04Z: {"f:data":{".":{},"f:a":{},"f:k":{}}}
        {"data":{"a":"1","b":"1","k":"1"}}
    "#]]);
}

#[test]
fn kubectl_takes_over_what_it_applied_from_the_client() {
    let last = r#"{"apiVersion":"v1","data":{"a":"1","b":"2"},"kind":"ConfigMap","metadata":{"name":"x"}}"#;
    let mut story = Story::new("v1", "ConfigMap");
    story.create(
        "kubectl-client-side-apply",
        json!({"metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": last}},
               "data": {"a": "1", "b": "2", "c": "3"}}),
    );
    story.apply("kubectl", json!({"data": {"a": "5"}}));
    let live = story.live.as_ref().expect("an object");
    let annotation = live.annotation("kubectl.kubernetes.io/last-applied-configuration");
    let now = "{\"apiVersion\":\"v1\",\"data\":{\"a\":\"5\"},\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"x\"}}\n";
    assert_eq!(annotation, Some(now));
    let refused = story.refused("kubectl", json!({"data": {"a": "5", "c": "9"}}));
    let conflict = r#"conflict with "kubectl-client-side-apply" using v1: .data.c"#;
    assert_eq!(refused, format!("409 Apply failed with 1 conflict: {conflict}"));
}

#[test]
fn list_items_are_owned_by_key_with_defaulted_keys() {
    let containers = |containers: Value| json!({"spec": {"template": {"spec": {"containers": containers}}}});
    let mut story = Story::new("apps/v1", "Deployment");
    story.apply(
        "one",
        containers(json!([{"name": "c", "image": "i", "ports": [{"containerPort": 80}, {"containerPort": 80, "protocol": "UDP"}]}])),
    );
    story.apply("two", containers(json!([{"name": "d", "image": "j"}, {"name": "c", "tty": true}])));
    let refused = story.refused("three", containers(json!([{"name": "c", "image": "k"}])));
    let path = r#".spec.template.spec.containers[name="c"].image"#;
    assert_eq!(refused, format!("409 Apply failed with 1 conflict: conflict with \"one\": {path}"));
    story.apply("one", containers(json!([{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}])));
    story.check(expect![[r#"
        Apply two 02Z: {"f:spec":{"f:template":{"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:name":{},"f:tty":{}},"k:{\"name\":\"d\"}":{".":{},"f:image":{},"f:name":{}}}}}}}
        Apply one 04Z: {"f:spec":{"f:template":{"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:image":{},"f:name":{},"f:ports":{"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{}}}}}}}}}
        {"spec":{"strategy":{},"template":{"metadata":{},"spec":{"containers":[{"image":"j","name":"d","resources":{}},{"image":"i","name":"c","ports":[{"containerPort":80,"protocol":"TCP"}],"resources":{},"tty":true}]}}},"status":{}}
    "#]]);
}

#[test]
fn created_objects_are_owned_as_go_s_zero_values_show() {
    let mut story = Story::new("apps/v1", "Deployment");
    let template = json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i",
        "env": [{"name": "A", "value": "1"}]}], "volumes": [{"name": "v", "emptyDir": {}}]}});
    story.create("creator", json!({"spec": {"selector": {"matchLabels": {"app": "x"}}, "template": template}}));
    story.check(expect![[r#"
        Update creator 01Z: {"f:spec":{"f:selector":{},"f:template":{"f:metadata":{"f:labels":{".":{},"f:app":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:env":{".":{},"k:{\"name\":\"A\"}":{".":{},"f:name":{},"f:value":{}}},"f:image":{},"f:name":{},"f:resources":{}}},"f:volumes":{".":{},"k:{\"name\":\"v\"}":{".":{},"f:emptyDir":{},"f:name":{}}}}}}}
        {"spec":{"selector":{"matchLabels":{"app":"x"}},"strategy":{},"template":{"metadata":{"labels":{"app":"x"}},"spec":{"containers":[{"env":[{"name":"A","value":"1"}],"image":"i","name":"c","resources":{}}],"volumes":[{"emptyDir":{},"name":"v"}]}}},"status":{}}
    "#]]);
}

#[test]
fn custom_resources_merge_by_their_own_schema() {
    let mut story = Story::new("example.com/v1", "Widget");
    story.apply(
        "one",
        json!({"spec": {"size": 1, "tags": ["b", "a"], "free": {"p": {"q": [1, 2]}}, "atomic": {"a": "1"},
                        "parts": [{"id": "a", "n": 1}, {"id": "a", "zone": "z2"}]}}),
    );
    story.apply(
        "two",
        json!({"spec": {"tags": ["c", "a"], "free": {"p": {"t": "u"}}, "parts": [{"id": "b"}, {"id": "a", "zone": "z2", "n": 5}]}}),
    );
    story.apply("one", json!({"spec": {"tags": ["a"], "parts": [{"id": "a", "n": 1}]}}));
    story.check(expect![[r#"
        Apply two 02Z: {"f:spec":{"f:free":{"f:p":{".":{},"f:t":{}}},"f:parts":{"k:{\"id\":\"a\",\"zone\":\"z2\"}":{".":{},"f:id":{},"f:n":{},"f:zone":{}},"k:{\"id\":\"b\",\"zone\":\"z1\"}":{".":{},"f:id":{}}},"f:tags":{"v:\"a\"":{},"v:\"c\"":{}}}}
        Apply one 03Z: {"f:spec":{"f:parts":{"k:{\"id\":\"a\",\"zone\":\"z1\"}":{".":{},"f:id":{},"f:n":{}}},"f:tags":{"v:\"a\"":{}}}}
        {"spec":{"free":{"p":{"t":"u"}},"parts":[{"id":"a","n":1,"zone":"z1"},{"id":"b","zone":"z1"},{"id":"a","n":5,"zone":"z2"}],"tags":["c","a"]}}
    "#]]);
}

#[test]
fn configurations_that_do_not_fit_are_refused_in_upstream_s_words() {
    let mut story = Story::new("v1", "ConfigMap");
    let typed = |why: &str| format!("500 failed to create typed patch object (/x; /v1, Kind=ConfigMap): {why}");
    let cases = [
        (json!({"nope": 1}), typed(".nope: field not declared in schema")),
        (json!({"data": {"a": 5}}), typed(".data.a: expected string, got &value.valueUnstructured{Value:5}")),
        (json!({"data": ["a"]}), typed(".data: expected map, got &{[a]}")),
        (json!({"immutable": "x"}), typed(".immutable: expected boolean, got &{x}")),
        (json!({"metadata": {"managedFields": []}}), "400 metadata.managedFields must be nil".into()),
    ];
    for (config, expected) in cases {
        assert_eq!(story.refused("one", config.clone()), expected, "{config}");
    }
    let mut story = Story::new("apps/v1", "Deployment");
    let port = json!({"containerPort": 81});
    let twice = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "ports": [port, port]}]}}}});
    let place = r#".spec.template.spec.containers[name="c"].ports: "#;
    let why = r#"duplicate entries for key [containerPort=81,protocol="TCP"]"#;
    let prefix = "500 failed to create typed patch object (/x; apps/v1, Kind=Deployment): ";
    assert_eq!(story.refused("one", twice), format!("{prefix}{place}{why}"));
}

#[test]
fn more_than_ten_updaters_become_ancient_changes() {
    let mut story = Story::new("v1", "ConfigMap");
    story.create("m00", json!({"data": {"z": "0"}}));
    for n in 1..=11 {
        story.merge(&format!("m{n:02}"), json!({"data": {format!("k{n:02}"): "0"}}));
    }
    let live = story.live.expect("an object");
    let entries = live.list_at("/metadata/managedFields");
    let names: Vec<&str> = entries.iter().filter_map(|entry| entry["manager"].as_str()).collect();
    assert_eq!(names, ["ancient-changes", "m03", "m04", "m05", "m06", "m07", "m08", "m09", "m10", "m11"]);
    assert_eq!(entries[0]["fieldsV1"], json!({"f:data": {".": {}, "f:k01": {}, "f:k02": {}, "f:z": {}}}));
}

#[test]
fn a_subresource_has_entries_of_its_own_and_leaves_the_rest_alone() {
    let schema = schema("apps/v1", "Deployment");
    let mut story = Story::new("apps/v1", "Deployment");
    story.create("creator", json!({"spec": {"replicas": 1}}));
    let live = story.live.expect("an object");
    let mut new = live.clone();
    new.set("/status/replicas", 1);
    new.set("/spec/replicas", 9);
    let writer =
        Writer { manager: "ctl", subresource: "status", now: Timestamp::UNIX_EPOCH, force: false, resets: &["spec"] };
    update(&schema, Some(&live), &mut new, &writer);
    let entries = new.list_at("/metadata/managedFields");
    let ours = entries.iter().find(|entry| entry["manager"] == "ctl").expect("an entry");
    assert_eq!((&ours["subresource"], &ours["fieldsV1"]), (&json!("status"), &json!({"f:status": {"f:replicas": {}}})));
    assert!(entries.iter().any(|entry| entry["fieldsV1"]["f:spec"]["f:replicas"].is_object()));
}
