//! Patches against what kube-apiserver v1.37 answered to the same ones.

use serde_json::{Value, json};

use super::{PatchType, json as json_patch, merge, request};
use crate::decode::FieldValidation;
use crate::{Document, Schema};

fn doc(value: Value) -> Document {
    Document::new(value).expect("an object")
}

fn deployment() -> Document {
    doc(
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": {"app": "x", "old": "y"}},
        "spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}},
            "template": {"spec": {
                "containers": [{"name": "c", "image": "i", "args": ["a", "b"],
                                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                                "ports": [{"containerPort": 80, "name": "old"}, {"containerPort": 81}]},
                               {"name": "d", "image": "j"}],
                "volumes": [{"name": "e", "emptyDir": {}}, {"name": "u", "emptyDir": {}}],
                "tolerations": [{"key": "k", "operator": "Exists"}]}}}}),
    )
}

fn strategic(patch: Value) -> Result<Value, (u16, String)> {
    let schema = Schema::of_kind("apps", "v1", "Deployment").expect("a kind");
    let merged = schema.strategic_merge(&deployment(), &patch);
    merged.map(Document::into_value).map_err(|status| (status.code, status.message))
}

#[test]
fn strategic_merge_does_what_upstream_does() {
    let pod = |patch: Value| json!({"spec": {"template": {"spec": patch}}});
    let cases = [
        // Patched items come first where the live order does not say otherwise.
        (pod(json!({"containers": [{"name": "n", "image": "k"}]})), "containers/*/name", json!(["n", "c", "d"])),
        (pod(json!({"containers": [{"name": "d", "image": "k"}]})), "containers/*/name", json!(["c", "d"])),
        (pod(json!({"containers": [{"name": "d", "image": "k"}]})), "containers/*/image", json!(["i", "k"])),
        (pod(json!({"containers": [{"name": "d", "$patch": "delete"}]})), "containers/*/name", json!(["c"])),
        (
            pod(json!({"containers": [{"name": "o", "image": "i"}, {"$patch": "replace"}]})),
            "containers/*/name",
            json!(["o"]),
        ),
        (
            pod(json!({"$setElementOrder/containers": [{"name": "d"}, {"name": "c"}]})),
            "containers/*/name",
            json!(["d", "c"]),
        ),
        (
            pod(
                json!({"containers": [{"name": "c", "env": [{"name": "Z", "value": "9"}, {"name": "A", "value": "3"}]}]}),
            ),
            "containers/0/env",
            json!([{"name": "Z", "value": "9"}, {"name": "A", "value": "3"}, {"name": "B", "value": "2"}]),
        ),
        (
            pod(json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "name": "new"}]}]})),
            "containers/0/ports/*/name",
            json!(["new", null]),
        ),
        (pod(json!({"containers": [{"name": "c", "args": ["x"]}]})), "containers/0/args", json!(["x"])),
        (pod(json!({"tolerations": [{"key": "n"}]})), "tolerations/*/key", json!(["n"])),
        (
            pod(json!({"volumes": [{"name": "e", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/p"}}]})),
            "volumes/0",
            json!({"name": "e", "hostPath": {"path": "/p"}}),
        ),
        (pod(json!({"volumes": [{"name": "u", "$patch": "delete"}]})), "volumes/*/name", json!(["e"])),
        (pod(json!({"containers": null})), "containers", Value::Null),
    ];
    for (patch, path, expected) in cases {
        let merged = strategic(patch.clone()).unwrap_or_else(|error| panic!("{patch}: {error:?}"));
        assert_eq!(pick(&merged["spec"]["template"]["spec"], path), expected, "{patch}");
    }
    let whole = |patch: Value| strategic(patch).expect("merges");
    let strategy = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    assert_eq!(whole(strategy)["spec"]["strategy"], json!({"type": "Recreate"}));
    let labels = json!({"metadata": {"labels": {"$patch": "replace", "only": "1"}}});
    assert_eq!(whole(labels)["metadata"]["labels"], json!({"only": "1"}));
    assert_eq!(whole(json!({"metadata": {"labels": {"$patch": "delete"}}}))["metadata"]["labels"], json!({}));
    assert_eq!(whole(json!({"metadata": {"labels": {"old": null}}}))["metadata"]["labels"], json!({"app": "x"}));
}

/// `a/*/b`: the `b` of every item.
fn pick(value: &Value, path: &str) -> Value {
    match path.split_once("/*/") {
        Some((list, field)) => {
            let items = value.pointer(&format!("/{list}")).and_then(Value::as_array).expect("a list");
            items.iter().map(|item| item.get(field).cloned().unwrap_or_default()).collect()
        }
        None => value.pointer(&format!("/{path}")).cloned().unwrap_or_default(),
    }
}

#[test]
fn strategic_merge_fails_as_upstream_does() {
    let pod = |patch: Value| json!({"spec": {"template": {"spec": patch}}});
    let cases = [
        (
            pod(json!({"containers": [{"image": "x"}]})),
            500,
            "map: map[image:x] does not contain declared merge key: name",
        ),
        (
            json!({"spec": {"strategy": {"$retainKeys": ["nope"], "type": "Recreate"}}}),
            400,
            "invalid patch format of retainKeys",
        ),
        (json!({"spec": {"strategy": {"$patch": "nope"}}}), 500, "unknown patch type: nope in map: map[$patch:nope]"),
        (
            pod(json!({"$setElementOrder/containers": [{"name": "d"}], "containers": [{"name": "c", "image": "m"}]})),
            500,
            "The order in patch list:\n[map[image:m name:c]]\n doesn't match $setElementOrder list:\n[map[name:d]]\n",
        ),
    ];
    for (patch, code, message) in cases {
        assert_eq!(strategic(patch.clone()), Err((code, message.to_owned())), "{patch}");
    }
    let (code, message) = strategic(pod(json!({"containers": ["c"]}))).expect_err("mixed items");
    assert!(code == 500 && message.starts_with("list element types are not identical: [[map[args:[a b]"), "{message}");
}

#[test]
fn lists_of_scalars_merge_and_shrink() {
    let schema = Schema::of_kind("", "v1", "Pod").expect("a kind");
    let pod = doc(json!({"metadata": {"finalizers": ["a", "b"]}}));
    let cases = [
        (json!({"finalizers": ["c"]}), json!(["c", "a", "b"])),
        (json!({"$deleteFromPrimitiveList/finalizers": ["a"]}), json!(["b"])),
        (json!({"$setElementOrder/finalizers": ["b", "a"]}), json!(["b", "a"])),
        (
            json!({"$setElementOrder/finalizers": ["c", "b"], "$deleteFromPrimitiveList/finalizers": ["a"],
                   "finalizers": ["c"]}),
            json!(["c", "b"]),
        ),
    ];
    for (patch, expected) in cases {
        let merged = schema.strategic_merge(&pod, &json!({"metadata": patch})).expect("merges");
        assert_eq!(merged.list_at("/metadata/finalizers"), expected.as_array().expect("a list").as_slice(), "{patch}");
    }
}

#[test]
fn operations_apply_as_upstream_s_library_applies_them() {
    let live = doc(json!({"data": {"a": "1", "b": "2"}, "list": ["x", "y"]}));
    let ok = [
        (json!([{"op": "add", "path": "/data/c", "value": "3"}]), "/data/c", json!("3")),
        (json!([{"op": "add", "path": "/list/1", "value": "z"}]), "/list", json!(["x", "z", "y"])),
        (json!([{"op": "add", "path": "/list/-", "value": "z"}]), "/list", json!(["x", "y", "z"])),
        (json!([{"op": "add", "path": "/list/-1", "value": "z"}]), "/list", json!(["x", "y", "z"])),
        (json!([{"op": "remove", "path": "/list/0"}]), "/list", json!(["y"])),
        (json!([{"op": "replace", "path": "/data/none", "value": "z"}]), "/data/none", json!("z")),
        (json!([{"op": "copy", "from": "/data/a", "path": "/data/d"}]), "/data/d", json!("1")),
        (json!([{"op": "move", "from": "/data/a", "path": "/data/d"}]), "/data", json!({"b": "2", "d": "1"})),
        (json!([{"op": "test", "path": "/data/none", "value": null}]), "/data/a", json!("1")),
        (json!([{"op": "replace", "path": "/data/t~0u~1v", "value": "z"}]), "/data/t~0u~1v", json!("z")),
    ];
    for (operations, path, expected) in ok {
        let patched = json_patch(&live, &operations).unwrap_or_else(|error| panic!("{operations}: {error}"));
        assert_eq!(patched.at(path), Some(&expected), "{operations}");
    }
    let refused = [
        json!([{"op": "add", "path": "/none/deep", "value": "3"}]),
        json!([{"op": "add", "path": "/list/9", "value": "3"}]),
        json!([{"op": "add", "path": "/list/one", "value": "3"}]),
        json!([{"op": "remove", "path": "/data/none"}]),
        json!([{"op": "move", "from": "/data/none", "path": "/data/d"}]),
        json!([{"op": "test", "path": "/data/a", "value": "2"}]),
        json!([{"op": "add", "path": "data", "value": "z"}]),
        json!([{"op": "nope", "path": "/data/a"}]),
        json!([{"op": "add", "value": "z"}]),
    ];
    for operations in refused {
        assert_eq!(json_patch(&live, &operations).map_err(|e| e.code), Err(422), "{operations}");
    }
}

#[test]
fn copies_cannot_grow_without_bound() {
    let live = doc(json!({"a": {"b": "x".repeat(1000)}}));
    let wide: Vec<Value> = (0..100).map(|_| json!({"op": "copy", "from": "/a", "path": "/a/c"})).collect();
    assert_eq!(json_patch(&live, &Value::Array(wide)).map(drop).map_err(|e| e.code), Err(422));
    let deep: Vec<Value> = (0..12)
        .map(|n| json!({"op": "copy", "from": "/a", "path": format!("/a{}", "/c".repeat((1 << n) - 1) + "/c")}))
        .collect();
    let live = doc(json!({"a": {}}));
    assert_eq!(json_patch(&live, &Value::Array(deep)).map(drop).map_err(|e| e.code), Err(422));
}

#[test]
fn merge_patches_null_away() {
    let live = doc(json!({"a": {"b": 1, "c": 2}, "l": [1]}));
    let merged = merge(&live, &json!({"a": {"b": null, "n": {"x": null, "y": 1}}, "l": [2, null]}));
    assert_eq!(merged.value(), &json!({"a": {"c": 2, "n": {"y": 1}}, "l": [2, null]}));
}

fn patch(kind: PatchType, body: &str, validation: FieldValidation) -> Result<Vec<String>, (u16, String)> {
    let schema = Schema::of_kind("", "v1", "ConfigMap").expect("a kind");
    let live = doc(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"k": "v"}}));
    let done = request(&schema, kind, &live, body.as_bytes(), validation);
    done.map(|done| done.warnings).map_err(|status| (status.code, status.message))
}

#[test]
fn whole_requests_are_read_with_upstream_s_words() {
    use FieldValidation::{Ignore, Strict, Warn};
    use PatchType::{Json, Merge, Strategic};
    let warned = |texts: &[&str]| Ok(texts.iter().map(|t| (*t).to_owned()).collect());
    let refused = |code, text: &str| Err((code, text.to_owned()));
    let array = "json: cannot unmarshal array into Go value of type map[string]interface {}";
    let cases = [
        (
            Json,
            "{}",
            Warn,
            refused(
                400,
                "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
            ),
        ),
        (
            Json,
            "[1]",
            Warn,
            refused(
                400,
                "error decoding patch: json: cannot unmarshal number into Go value of type handlers.jsonPatchOp",
            ),
        ),
        (Json, "[", Warn, refused(400, "invalid JSON patch")),
        (Json, "null", Warn, warned(&[])),
        (Merge, "[]", Warn, refused(400, &format!("error decoding patch: {array}"))),
        (Merge, "null", Warn, refused(400, "Invalid JSON Patch")),
        (Strategic, "[]", Warn, refused(400, array)),
        (Strategic, "null", Warn, warned(&[])),
        (Strategic, "a: b", Warn, refused(400, "invalid JSON patch")),
        (
            Merge,
            r#"{"data":{"k":"v","k":"w"},"nope":1}"#,
            Warn,
            warned(&[r#"duplicate field "data.k""#, r#"unknown field "nope""#]),
        ),
        (Merge, r#"{"data":{"k":"v","k":"w"},"nope":1}"#, Ignore, warned(&[])),
        (
            Merge,
            r#"{"nope":1}"#,
            Strict,
            refused(
                422,
                r#" "" is invalid: patch: Invalid value: "{\"apiVersion\":\"v1\",\"data\":{\"k\":\"v\"},\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"m\"},\"nope\":1}": strict decoding error: unknown field "nope""#,
            ),
        ),
        (
            Strategic,
            r#"{"metadata":{"labels":["a"]}}"#,
            Warn,
            refused(
                422,
                r#" "" is invalid: patch: Invalid value: "map[metadata:map[labels:[a]]]": cannot restore map from slice"#,
            ),
        ),
        (
            Json,
            r#"[{"op":"add","op":"add","path":"/data","value":{"a":"b","a":"c"}, "nope":1}]"#,
            Warn,
            warned(&[
                r#"json patch duplicate field "[0].op""#,
                r#"json patch duplicate field "[0].value.a""#,
                r#"json patch unknown field "[0].nope""#,
                r#"duplicate field "data.a""#,
            ]),
        ),
    ];
    for (kind, body, validation, expected) in cases {
        assert_eq!(patch(kind, body, validation), expected, "{body}");
    }
}
