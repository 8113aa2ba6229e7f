//! Custom resources of several versions: rules, defaults, columns, and watchers of a definition that changes.

use std::time::{Duration, Instant};

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
    let rules = json!([{"rule": "self <= 10", "messageExpression": "'%d is too much'.format([self])"}]);
    let first = json!({"type": "object", "properties": {
        "n": {"type": "integer", "x-kubernetes-validations": rules}, "m": {"type": "integer", "default": 5}}});
    let second = json!({"type": "object", "properties": {"n": {"type": "integer"}, "m": {"type": "integer"}}});
    json!({"metadata": {"name": "things.x.io"}, "spec": {
        "group": "x.io", "scope": "Namespaced",
        "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
        "versions": [version("v2beta1", true, second, "m"), version("v1", false, first, "n")],
    }})
}

#[tokio::test]
async fn paths_of_nobody_and_verbs_of_nothing_are_told_apart() {
    let server = server(Memory::new()).await;
    let (code, made) = ask(&server, Method::POST, DEFINITIONS, Some(definition())).await;
    assert_eq!(code, 201, "{made}");
    until(&server, Method::GET, V1, None, 200).await;
    // What no part of the server has is no JSON, what a resource does not have is a Status.
    let cases = [
        (Method::GET, "/apis/none.io/v1/things", 404, Value::Null),
        (Method::GET, "/apis/x.io/v9/namespaces/a/things", 404, Value::Null),
        (Method::GET, "/apis/x.io/v1/namespaces/a/others", 404, Value::Null),
        (Method::GET, "/apis/apps/v9/deployments", 404, json!("the server could not find the requested resource")),
        (Method::GET, "/apis/x.io/v1/namespaces/a/things/t/none", 404, json!("things.x.io \"t\" not found")),
        (
            Method::DELETE,
            "/apis/x.io/v1/namespaces/a/things/t/status",
            405,
            json!("delete is not supported on resources of kind \"things.x.io\""),
        ),
    ];
    for (method, path, code, message) in cases {
        let (got, body) = ask(&server, method, path, None).await;
        assert_eq!((got, &body["message"]), (code, &message), "{path}: {body}");
    }
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
    let want = "Thing.x.io \"t\" is invalid: spec.n: Invalid value: 11: 11 is too much";
    assert_eq!((code, refused["message"].as_str()), (422, Some(want)));
    let (code, made) = ask(&server, Method::POST, V2, Some(thing("v2beta1", 11))).await;
    assert_eq!((code, &made["spec"]["m"]), (201, &Value::Null), "{made}");
    let (_, shown) = ask(&server, Method::GET, &format!("{V1}/t"), None).await;
    assert_eq!(
        (&shown["apiVersion"], &shown["spec"]["m"]),
        (&json!("x.io/v1"), &Value::Null),
        "the version it is stored in has no default"
    );
    let table = format!("{V1}?includeObject=None");
    let columns = |path: String| {
        let server = server.clone();
        async move {
            let table = table_of(&server, &path).await;
            (table["columnDefinitions"][1]["name"].clone(), table["rows"][0]["cells"].clone())
        }
    };
    assert_eq!(columns(table).await, (json!("n"), json!(["t", 11])), "each version shows its own columns");
    assert_eq!(columns(V2.to_owned()).await, (json!("m"), json!(["t", null])));
    // What was wrong before may stay while something else changes.
    let patch = json!({"metadata": {"labels": {"a": "b"}}});
    let (code, kept) = ask(&server, Method::PATCH, &format!("{V1}/t"), Some(patch)).await;
    assert_eq!((code, &kept["spec"]), (200, &json!({"m": 5, "n": 11})), "{kept}");
}

async fn table_of(server: &apiserver::Server, path: &str) -> Value {
    let user = apiserver::User { name: "test".into(), groups: vec!["system:masters".into()], ..Default::default() };
    let io = hyper_util::rt::TokioIo::new(server.local(user));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("HTTP");
    tokio::spawn(connection);
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let request = http::Request::get(path).header("host", "x").header("accept", accept);
    let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).expect("a request");
    let answer = sender.send_request(request).await.expect("an answer").into_body();
    let bytes = http_body_util::BodyExt::collect(answer).await.expect("a body").to_bytes();
    serde_json::from_slice(&bytes).expect("JSON")
}

/// A definition that is deleted while one of its objects cannot go yet.
#[tokio::test]
async fn nothing_is_created_while_a_definition_goes() {
    let server = server(Memory::new()).await;
    ask(&server, Method::POST, DEFINITIONS, Some(definition())).await;
    until(&server, Method::GET, V1, None, 200).await;
    let mut held = thing("v1", 1);
    held["metadata"]["finalizers"] = json!(["x.io/held"]);
    let (code, made) = ask(&server, Method::POST, V1, Some(held)).await;
    assert_eq!(code, 201, "{made}");
    let path = format!("{DEFINITIONS}/things.x.io");
    ask(&server, Method::DELETE, &path, None).await;
    let mut other = thing("v1", 1);
    other["metadata"]["name"] = "s".into();
    let refused = until(&server, Method::POST, V1, Some(other), 403).await;
    let want = "things.x.io \"s\" is forbidden: create not allowed while custom resource definition is terminating";
    assert_eq!(refused["message"], want);
    let (_, going) = ask(&server, Method::GET, &path, None).await;
    let conditions = going["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let terminating = conditions.iter().find(|c| c["type"] == "Terminating").expect("a condition");
    assert_eq!(terminating["reason"], "InstanceDeletionInProgress");
    let patch = Some(json!({"metadata": {"finalizers": []}}));
    let (code, _) = ask(&server, Method::PATCH, &format!("{V1}/t"), patch).await;
    assert_eq!(code, 200, "what is there may still be written");
    until(&server, Method::GET, &path, None, 404).await;
}

/// Its objects are reached by the version they are stored in, whether that is served or not.
#[tokio::test]
async fn a_definition_that_serves_nothing_takes_its_objects_along() {
    let store = Memory::new();
    let server = server(store.clone()).await;
    ask(&server, Method::POST, DEFINITIONS, Some(definition())).await;
    until(&server, Method::GET, V1, None, 200).await;
    ask(&server, Method::POST, V1, Some(thing("v1", 1))).await;
    let path = format!("{DEFINITIONS}/things.x.io");
    let mut versions = definition()["spec"]["versions"].clone();
    for version in versions.as_array_mut().expect("versions") {
        version["served"] = json!(false);
    }
    let (code, answer) = ask(&server, Method::PATCH, &path, Some(json!({"spec": {"versions": versions}}))).await;
    assert_eq!(code, 200, "{answer}");
    until(&server, Method::GET, V1, None, 404).await;
    ask(&server, Method::DELETE, &path, None).await;
    until(&server, Method::GET, &path, None, 404).await;
    let left = store::Store::range(&store, store::Range::prefix("/registry/x.io/".as_bytes().to_vec())).await;
    assert!(left.expect("a page").entries.is_empty());
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

/// A scale in both versions (strategy None), and everything that tells of a definition: there within a second, and gone
/// with it.
#[tokio::test]
async fn a_definition_is_scaled_published_and_gone() {
    let server = server(Memory::new()).await;
    let mut scaled = definition();
    let (counts, spec) =
        (json!({"type": "integer"}), json!({"type": "object", "properties": {"n": {"type": "integer"}}}));
    let status = json!({"type": "object", "properties": {"n": counts, "labels": {"type": "string"}}});
    for version in scaled["spec"]["versions"].as_array_mut().expect("versions") {
        version["schema"]["openAPIV3Schema"]["properties"] = json!({"spec": spec, "status": status});
        version["subresources"]["scale"] = json!({"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n",
            "labelSelectorPath": ".status.labels"});
    }
    let began = Instant::now();
    let (code, made) = ask(&server, Method::POST, DEFINITIONS, Some(scaled)).await;
    assert_eq!(code, 201, "{made}");
    until(&server, Method::GET, V1, None, 200).await;
    until(&server, Method::GET, V2, None, 200).await;
    assert!(began.elapsed() < Duration::from_secs(1), "served after {:?}", began.elapsed());

    let (_, found) = ask(&server, Method::GET, "/apis/x.io/v1", None).await;
    let mut names: Vec<&str> =
        found["resources"].as_array().expect("a list").iter().filter_map(|r| r["name"].as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["things", "things/scale", "things/status"]);
    let told = |server: apiserver::Server| async move {
        let (_, groups) = ask(&server, Method::GET, "/apis", None).await;
        let group = groups["groups"].as_array().expect("groups").iter().any(|group| group["name"] == "x.io");
        let (_, index) = ask(&server, Method::GET, "/openapi/v3", None).await;
        let third = index["paths"].get("apis/x.io/v1").is_some();
        let (code, document) = ask(&server, Method::GET, "/openapi/v3/apis/x.io/v1", None).await;
        let path = document["paths"].get("/apis/x.io/v1/namespaces/{namespace}/things/{name}/scale").is_some();
        let (_, second) = ask(&server, Method::GET, "/openapi/v2", None).await;
        let definition = second["definitions"].get("io.x.v1.Thing").is_some();
        [group, third, code == 200, path, definition]
    };
    assert_eq!(told(server.clone()).await, [true; 5]);

    let (code, made) = ask(&server, Method::POST, V1, Some(thing("v1", 3))).await;
    assert_eq!(code, 201, "{made}");
    let seen = json!({"status": {"n": 2, "labels": "a=b"}});
    assert_eq!(ask(&server, Method::PATCH, &format!("{V2}/t/status"), Some(seen)).await.0, 200);
    for path in [V1, V2] {
        let (code, mut scale) = ask(&server, Method::GET, &format!("{path}/t/scale"), None).await;
        assert_eq!((code, &scale["kind"], &scale["apiVersion"]), (200, &json!("Scale"), &json!("autoscaling/v1")));
        assert_eq!(scale["status"], json!({"replicas": 2, "selector": "a=b"}));
        let more = scale["spec"]["replicas"].as_i64().expect("a number") + 1;
        scale["spec"]["replicas"] = more.into();
        let (code, put) = ask(&server, Method::PUT, &format!("{path}/t/scale"), Some(scale.clone())).await;
        assert_eq!((code, &put["spec"]["replicas"]), (200, &json!(more)), "{put}");
        let (code, _) = ask(&server, Method::PUT, &format!("{path}/t/scale"), Some(scale)).await;
        assert_eq!(code, 409, "an old version");
        let less = json!({"spec": {"replicas": -1}});
        assert_eq!(ask(&server, Method::PATCH, &format!("{path}/t/scale"), Some(less)).await.0, 422);
        assert_eq!(ask(&server, Method::GET, &format!("{V1}/t"), None).await.1["spec"]["n"], more);
    }

    ask(&server, Method::DELETE, &format!("{DEFINITIONS}/things.x.io"), None).await;
    until(&server, Method::GET, &format!("{DEFINITIONS}/things.x.io"), None, 404).await;
    for path in [V1, &format!("{V1}/t/scale"), "/apis/x.io", "/apis/x.io/v1"] {
        until(&server, Method::GET, path, None, 404).await;
    }
    assert_eq!(told(server.clone()).await, [false; 5]);
}
