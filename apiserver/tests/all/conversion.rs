//! Conversion webhooks: objects in another version than the stored one, on every path that leads to them.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use expect_test::expect;
use http::{Method, Response};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use super::webhooks::{World, rule, said, world};
use super::{ask, line, send, until};

const DEFINITION: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.x.io";
const V1: &str = "/apis/x.io/v1/namespaces/a/things";
const V2: &str = "/apis/x.io/v2/namespaces/a/things";

/// Of v1, `spec.n` is what `spec.count` is of v2; the label says who converted. The path says what goes wrong.
pub(super) fn answer(path: &str, review: &Value) -> Response<Full<Bytes>> {
    let request = &review["request"];
    let wanted = request["desiredAPIVersion"].as_str().unwrap_or_default();
    let converted = |object: &Value| {
        let mut object = object.clone();
        let (from, to) = if wanted == "x.io/v2" { ("n", "count") } else { ("count", "n") };
        if let Some(number) = object["spec"].as_object_mut().and_then(|spec| spec.remove(from)) {
            object["spec"][to] = number;
        }
        object["metadata"]["labels"]["shown"] = wanted.split('/').next_back().unwrap_or_default().into();
        object["apiVersion"] = wanted.into();
        if path == "/renames" {
            object["metadata"]["name"] = "other".into();
        }
        object
    };
    let objects = request["objects"].as_array().cloned().unwrap_or_default();
    let mut objects: Vec<Value> = objects.iter().map(converted).collect();
    let mut code = 200;
    let mut result = json!({"status": "Success"});
    match path {
        "/broken" => code = 500,
        "/refuses" => result = json!({"status": "Failure", "message": "not this one"}),
        "/forgets" => objects.clear(),
        _ => {}
    }
    let response = json!({"uid": request["uid"], "result": result, "convertedObjects": objects});
    let review = json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1", "response": response});
    let body = if code == 200 { review.to_string() } else { "oh".into() };
    Response::builder().status(code).body(Full::new(body.into())).expect("a response")
}

fn client(world: &World, path: &str) -> Value {
    json!({"url": format!("https://hook.test/{path}"), "caBundle": STANDARD.encode(&world.ca)})
}

fn version(name: &str, field: &str, storage: bool) -> Value {
    let count = |field: &str| json!({"type": "object", "properties": {field: {"type": "integer"}}});
    json!({"name": name, "served": true, "storage": storage,
        "selectableFields": [{"jsonPath": format!(".spec.{field}")}],
        "additionalPrinterColumns": [{"name": field, "type": "integer", "jsonPath": format!(".spec.{field}")}],
        "subresources": {"status": {}, "scale": {"specReplicasPath": format!(".spec.{field}"), "statusReplicasPath": ".status.n"}},
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": count(field), "status": count("n")}}}})
}

/// The definition, with `storage` as the stored version.
fn definition(world: &World, storage: &str) -> Value {
    let webhook = json!({"conversionReviewVersions": ["v9", "v1"], "clientConfig": client(world, "convert")});
    json!({"metadata": {"name": "things.x.io"}, "spec": {
        "group": "x.io", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
        "conversion": {"strategy": "Webhook", "webhook": webhook},
        "versions": [version("v1", "n", storage == "v1"), version("v2", "count", storage == "v2")],
    }})
}

async fn defined(world: &World) {
    let path = DEFINITION.trim_end_matches("/things.x.io");
    let (code, made) = ask(&world.server, Method::POST, path, Some(definition(world, "v1"))).await;
    assert_eq!(code, 201, "{made}");
    until(&world.server, Method::GET, V1, None, 200).await;
}

/// Patches the definition and waits until the server has taken that over: its watches end then.
async fn redefined(world: &World, patch: Value) {
    let path = format!("{V1}?watch=1");
    let mut watch = send(&world.server, "system:masters", Method::GET, &path, None).await.into_body();
    let (code, answer) = ask(&world.server, Method::PATCH, DEFINITION, Some(patch)).await;
    assert_eq!(code, 200, "{answer}");
    let end = async { while watch.frame().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(5), end).await.expect("the watch ends");
}

fn thing(version: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": format!("x.io/{version}"), "kind": "Thing", "metadata": {"name": name}, "spec": spec})
}

async fn made(world: &World, path: &str, object: Value) -> Value {
    let (code, made) = ask(&world.server, Method::POST, path, Some(object)).await;
    assert_eq!(code, 201, "{made}");
    made
}

#[tokio::test]
async fn reads_are_in_the_version_asked_for() {
    let world = world().await;
    defined(&world).await;
    made(&world, V1, thing("v1", "t", json!({"n": 1}))).await;
    made(&world, V1, thing("v1", "s", json!({"n": 2}))).await;
    assert!(world.asked("").is_empty(), "the stored version is nobody's business");
    let (code, shown) = ask(&world.server, Method::GET, &format!("{V2}/t"), None).await;
    assert_eq!((code, &shown["apiVersion"], &shown["spec"]), (200, &json!("x.io/v2"), &json!({"count": 1})), "{shown}");
    assert_eq!(shown["metadata"]["labels"], json!({"shown": "v2"}));
    assert_eq!(world.asked("/desiredAPIVersion"), ["/convert x.io/v2"]);
    let listed = |query: &str| {
        let path = format!("{V2}?{query}");
        let server = world.server.clone();
        async move {
            let (_, list) = ask(&server, Method::GET, &path, None).await;
            let items = list["items"].as_array().cloned().unwrap_or_default();
            items.iter().map(|item| format!("{} {}", item["metadata"]["name"], item["spec"])).collect::<Vec<_>>()
        }
    };
    assert_eq!(listed("").await, [r#""s" {"count":2}"#, r#""t" {"count":1}"#]);
    assert_eq!(world.asked("/objects/0/metadata/name"), ["/convert s"], "what was converted once is remembered");
    assert_eq!(listed("limit=1").await, [r#""s" {"count":2}"#]);
    assert_eq!(listed("fieldSelector=spec.count%3D1").await, [r#""t" {"count":1}"#], "of the version");
    assert_eq!(listed("labelSelector=shown%3Dv2").await.len(), 2, "a selector sees what the webhook makes of it");
    let other = ask(&world.server, Method::GET, &format!("{V2}?fieldSelector=spec.n%3D1"), None).await;
    said(other, expect!["400 field label not supported: spec.n"]);
    let (_, scale) = ask(&world.server, Method::GET, &format!("{V2}/t/scale"), None).await;
    assert_eq!(scale["spec"], json!({"replicas": 1}));
    assert!(world.asked("").is_empty());
}

#[tokio::test]
async fn watches_are_in_the_version_asked_for() {
    let world = world().await;
    defined(&world).await;
    let path = format!("{V2}?watch=1&fieldSelector=spec.count%3D1");
    let mut watch = send(&world.server, "system:masters", Method::GET, &path, None).await.into_body();
    made(&world, V1, thing("v1", "t", json!({"n": 1}))).await;
    let seen = line(&mut watch).await;
    assert_eq!((&seen["type"], &seen["object"]["spec"]), (&json!("ADDED"), &json!({"count": 1})), "{seen}");
    ask(&world.server, Method::PATCH, &format!("{V1}/t"), Some(json!({"spec": {"n": 2}}))).await;
    let seen = line(&mut watch).await;
    assert_eq!((&seen["type"], &seen["object"]["spec"]), (&json!("DELETED"), &json!({"count": 1})), "{seen}");
    let list = format!("{V2}?watch=1&resourceVersion=0");
    let mut watch = send(&world.server, "system:masters", Method::GET, &list, None).await.into_body();
    let seen = line(&mut watch).await;
    assert_eq!((&seen["type"], &seen["object"]["spec"]), (&json!("ADDED"), &json!({"count": 2})), "{seen}");
}

#[tokio::test]
async fn writes_are_stored_in_the_storage_version() {
    let world = world().await;
    defined(&world).await;
    let object = made(&world, V2, thing("v2", "t", json!({"count": 1}))).await;
    assert_eq!((&object["apiVersion"], &object["spec"]), (&json!("x.io/v2"), &json!({"count": 1})));
    let now = |path: &'static str| {
        let server = world.server.clone();
        async move { ask(&server, Method::GET, &format!("{path}/t"), None).await.1 }
    };
    let stored = now(V1).await;
    assert_eq!((&stored["spec"], &stored["metadata"]["uid"]), (&json!({"n": 1}), &object["metadata"]["uid"]));
    let (code, patched) =
        ask(&world.server, Method::PATCH, &format!("{V2}/t"), Some(json!({"spec": {"count": 2}}))).await;
    assert_eq!((code, &patched["spec"], &now(V1).await["spec"]), (200, &json!({"count": 2}), &json!({"n": 2})));
    let mut wanted = patched;
    wanted["spec"]["count"] = json!(3);
    let (code, put) = ask(&world.server, Method::PUT, &format!("{V2}/t"), Some(wanted)).await;
    assert_eq!(
        (code, &put["metadata"]["generation"], &now(V1).await["spec"]),
        (200, &json!(3), &json!({"n": 3})),
        "{put}"
    );
    let status = json!({"status": {"n": 7}, "spec": {"count": 9}});
    let (code, put) = ask(&world.server, Method::PATCH, &format!("{V2}/t/status"), Some(status)).await;
    assert_eq!((code, &put["status"], &put["spec"]), (200, &json!({"n": 7}), &json!({"count": 3})), "{put}");
    let (code, scale) =
        ask(&world.server, Method::PATCH, &format!("{V2}/t/scale"), Some(json!({"spec": {"replicas": 4}}))).await;
    assert_eq!(
        (code, &scale["status"], &now(V1).await["spec"]),
        (200, &json!({"replicas": 7}), &json!({"n": 4})),
        "{scale}"
    );
    let dry =
        ask(&world.server, Method::PATCH, &format!("{V2}/t?dryRun=All"), Some(json!({"spec": {"count": 5}}))).await;
    assert_eq!((dry.0, &dry.1["spec"], &now(V1).await["spec"]), (200, &json!({"count": 5}), &json!({"n": 4})));
    let wrong = json!({"spec": {"count": "x"}});
    let refused = ask(&world.server, Method::PATCH, &format!("{V2}/t"), Some(wrong)).await;
    let want = expect![[
        r#"422 Thing.x.io "t" is invalid: spec.count: Invalid value: "string": spec.count in body must be of type integer: "string""#
    ]];
    said(refused, want);
    let (code, _) = ask(&world.server, Method::DELETE, &format!("{V2}/t"), None).await;
    assert_eq!((code, &now(V1).await["code"]), (200, &json!(404)));
}

#[tokio::test]
async fn admission_sees_the_version_that_it_names() {
    let world = world().await;
    defined(&world).await;
    let patch = world.hook("m.x.io", "a", rule(&["CREATE"], "x.io", "v2", "things"), json!({}));
    world.configure("mutating", "m", vec![patch]).await;
    let look = world.hook("v.x.io", "look", rule(&["*"], "x.io", "v2", "things"), json!({}));
    world.configure("validating", "v", vec![look]).await;
    let made = made(&world, V1, thing("v1", "t", json!({"n": 1}))).await;
    assert_eq!((&made["spec"], &made["metadata"]["labels"]["a"]), (&json!({"n": 1}), &json!("x")), "{made}");
    ask(&world.server, Method::PATCH, &format!("{V1}/t"), Some(json!({"spec": {"n": 2}}))).await;
    let asked = std::mem::take(&mut *world.asked.lock().unwrap());
    let looks = asked.iter().filter(|(path, _)| path != "/convert");
    let seen: Vec<String> =
        looks.map(|(path, r)| format!("{path} {} {}", r["object"]["spec"], r["oldObject"]["spec"])).collect();
    assert_eq!(seen, [r#"/a {"count":1} null"#, r#"/look {"count":1} null"#, r#"/look {"count":2} {"count":1}"#]);
}

#[tokio::test]
async fn what_is_stored_in_an_old_version_is_converted_until_it_is_written_again() {
    let world = world().await;
    defined(&world).await;
    for name in ["a", "b", "c"] {
        made(&world, V1, thing("v1", name, json!({"n": 1}))).await;
    }
    let versions = definition(&world, "v2")["spec"]["versions"].clone();
    redefined(&world, json!({"spec": {"versions": versions}})).await;
    let (_, list) = ask(&world.server, Method::GET, V2, None).await;
    assert_eq!(list["items"][2]["spec"], json!({"count": 1}), "{list}");
    assert_eq!(world.asked("/objects/2/metadata/name"), ["/convert c"], "all in one review");
    // An update that changes nothing stores it anew.
    let (_, object) = ask(&world.server, Method::GET, &format!("{V2}/a"), None).await;
    let (code, put) = ask(&world.server, Method::PUT, &format!("{V2}/a"), Some(object.clone())).await;
    assert_eq!(code, 200, "{put}");
    assert_ne!(put["metadata"]["resourceVersion"], object["metadata"]["resourceVersion"]);
    redefined(&world, json!({"spec": {"conversion": {"webhook": {"clientConfig": client(&world, "broken")}}}})).await;
    let (code, shown) = ask(&world.server, Method::GET, &format!("{V2}/a"), None).await;
    assert_eq!((code, &shown["spec"]), (200, &json!({"count": 1})), "nobody is asked");
    let (code, _) = ask(&world.server, Method::GET, &format!("{V2}/b"), None).await;
    assert_eq!(code, 500, "what another webhook said is forgotten");
}

#[tokio::test]
async fn failures_are_told_in_upstreams_words() {
    let world = world().await;
    defined(&world).await;
    made(&world, V1, thing("v1", "t", json!({"n": 1}))).await;
    let about = "500 conversion webhook for x.io/v1, Kind=Thing";
    let cases = [
        ("broken", r#"failed: an error on the server ("oh") has prevented the request from succeeding"#),
        ("refuses", "failed: not this one"),
        ("forgets", "returned 0 objects, expected 1"),
        ("renames", "returned invalid object: must have the same name: t != other"),
    ];
    let text = |(code, answer): (u16, Value)| format!("{code} {}", answer["message"].as_str().unwrap_or_default());
    for (path, why) in cases {
        redefined(&world, json!({"spec": {"conversion": {"webhook": {"clientConfig": client(&world, path)}}}})).await;
        let want = format!("{about} {why}");
        assert_eq!(text(ask(&world.server, Method::GET, &format!("{V2}/t"), None).await), want);
        assert_eq!(text(ask(&world.server, Method::GET, V2, None).await), want);
        let patch = || Some(json!({"spec": {"count": 2}}));
        assert_eq!(text(ask(&world.server, Method::PATCH, &format!("{V2}/t"), patch()).await), want);
        assert_eq!(text(ask(&world.server, Method::DELETE, &format!("{V2}/t"), None).await), want);
        let list = format!("{V2}?watch=1&resourceVersion=0");
        let mut watch = send(&world.server, "system:masters", Method::GET, &list, None).await.into_body();
        let seen = line(&mut watch).await;
        let said = format!("{} {}", seen["object"]["code"], seen["object"]["message"].as_str().unwrap_or_default());
        assert_eq!((&seen["type"], said), (&json!("ERROR"), want));
        let (code, _) = ask(&world.server, Method::GET, &format!("{V1}/t"), None).await;
        assert_eq!(code, 200, "the stored version needs nobody");
    }
    let nowhere = json!({"url": "https://hook.test:1/x"});
    redefined(&world, json!({"spec": {"conversion": {"webhook": {"clientConfig": nowhere}}}})).await;
    let want = format!(
        "{about} failed: Post \"https://hook.test:1/x?timeout=30s\": dial tcp hook.test:1: connect: connection refused"
    );
    assert_eq!(text(ask(&world.server, Method::GET, &format!("{V2}/t"), None).await), want);
    let create = ask(&world.server, Method::POST, V2, Some(thing("v2", "s", json!({})))).await;
    assert_eq!(text(create), want.replace("x.io/v1,", "x.io/v2,"));
}

#[tokio::test]
async fn a_policy_is_given_its_parameters_in_the_version_that_it_names() {
    let world = world().await;
    defined(&world).await;
    made(&world, V1, thing("v1", "p", json!({"n": 3}))).await;
    let group = "/apis/admissionregistration.k8s.io/v1";
    let rules =
        json!([{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]);
    let policy = json!({"metadata": {"name": "p"}, "spec": {"paramKind": {"apiVersion": "x.io/v2", "kind": "Thing"},
        "matchConstraints": {"resourceRules": rules},
        "validations": [{"expression": "size(object.data) < params.spec.count"}]}});
    made(&world, &format!("{group}/validatingadmissionpolicies"), policy).await;
    let reference = json!({"name": "p", "namespace": "a", "parameterNotFoundAction": "Deny"});
    let binding = json!({"metadata": {"name": "b"},
        "spec": {"policyName": "p", "paramRef": reference, "validationActions": ["Deny"]}});
    made(&world, &format!("{group}/validatingadmissionpolicybindings"), binding).await;
    let binding = format!("{group}/validatingadmissionpolicybindings/b?resourceVersion=0");
    until(&world.server, Method::GET, &binding, None, 200).await;
    let map = |name: &str, data: Value| Some(json!({"metadata": {"name": name}, "data": data}));
    let maps = "/api/v1/namespaces/a/configmaps";
    let large = map("l", json!({"a": "", "b": "", "c": ""}));
    let refused = ask(&world.server, Method::POST, maps, large).await;
    let want = expect![[
        r#"422 configmaps "l" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: failed expression: size(object.data) < params.spec.count"#
    ]];
    said(refused, want);
    let (code, answer) = ask(&world.server, Method::POST, maps, map("s", json!({"a": ""}))).await;
    assert_eq!(code, 201, "{answer}");
}
