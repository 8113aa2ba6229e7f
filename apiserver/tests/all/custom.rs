//! Custom resources of several versions: rules, defaults, columns, and watchers of a definition that changes.

use http::Method;
use serde_json::{Value, json};
use store::memory::Memory;

use super::{ask, line, send, server, until};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const V1: &str = "/apis/x.io/v1/namespaces/a/things";
const V2: &str = "/apis/x.io/v2beta1/namespaces/a/things";

fn definition() -> Value {
    let version = |name: &str, storage: bool, spec: Value, column: &str| {
        json!({"name": name, "served": true, "storage": storage,
            "additionalPrinterColumns": [{"name": column, "type": "integer", "jsonPath": format!(".spec.{column}")}],
            "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}})
    };
    let rules = json!([{"rule": "self.n <= 10", "messageExpression": "'%d is too much'.format([self.n])"}]);
    let first = json!({"type": "object", "x-kubernetes-validations": rules,
        "properties": {"n": {"type": "integer"}, "m": {"type": "integer", "default": 5}}});
    let second = json!({"type": "object", "properties": {"n": {"type": "integer"}, "m": {"type": "integer"}}});
    json!({"metadata": {"name": "things.x.io"}, "spec": {
        "group": "x.io", "scope": "Namespaced",
        "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
        "versions": [version("v2beta1", true, second, "m"), version("v1", false, first, "n")],
    }})
}

fn thing(version: &str, n: i64) -> Value {
    json!({"apiVersion": format!("x.io/{version}"), "kind": "Thing", "metadata": {"name": "t"}, "spec": {"n": n}})
}

#[tokio::test]
async fn each_version_has_its_own_rules_defaults_and_columns() {
    let server = server(Memory::new()).await;
    let (code, made) = ask(&server, Method::POST, DEFINITIONS, Some(definition())).await;
    assert_eq!(code, 201, "{made}");
    until(&server, Method::GET, V1, None, 200).await;
    let (_, group) = ask(&server, Method::GET, "/apis/x.io", None).await;
    assert_eq!(group["preferredVersion"]["version"], "v1", "stable comes before beta");
    let (code, refused) = ask(&server, Method::POST, V1, Some(thing("v1", 11))).await;
    let want = "Thing.x.io \"t\" is invalid: spec: Invalid value: 11 is too much";
    assert_eq!((code, refused["message"].as_str()), (422, Some(want)));
    let (code, made) = ask(&server, Method::POST, V2, Some(thing("v2beta1", 11))).await;
    assert_eq!((code, &made["spec"]["m"]), (201, &Value::Null), "{made}");
    let (_, shown) = ask(&server, Method::GET, &format!("{V1}/t"), None).await;
    assert_eq!((&shown["apiVersion"], &shown["spec"]["m"]), (&json!("x.io/v1"), &json!(5)), "defaulted from the store");
    // What was wrong before may stay while something else changes.
    let patch = json!({"metadata": {"labels": {"a": "b"}}});
    let (code, kept) = ask(&server, Method::PATCH, &format!("{V1}/t"), Some(patch)).await;
    assert_eq!((code, &kept["spec"]), (200, &json!({"m": 5, "n": 11})), "{kept}");
}

#[tokio::test]
async fn a_changed_definition_ends_its_watches() {
    let server = server(Memory::new()).await;
    ask(&server, Method::POST, DEFINITIONS, Some(definition())).await;
    until(&server, Method::GET, V1, None, 200).await;
    let path = format!("{V1}?watch=1&resourceVersion=0");
    let mut watch = send(&server, "system:masters", Method::GET, &path, None).await.into_body();
    ask(&server, Method::POST, V1, Some(thing("v1", 1))).await;
    assert_eq!(line(&mut watch).await["type"], "ADDED");
    let patch = json!({"spec": {"names": {"shortNames": ["th"]}}});
    let (code, _) = ask(&server, Method::PATCH, &format!("{DEFINITIONS}/things.x.io"), Some(patch)).await;
    assert_eq!(code, 200);
    let end = tokio::time::timeout(std::time::Duration::from_secs(5), http_body_util::BodyExt::frame(&mut watch)).await;
    assert!(end.expect("in time").is_none(), "the stream is over");
}
