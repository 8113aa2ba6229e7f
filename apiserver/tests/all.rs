//! The server as a whole, over an in-process connection, on the memory store.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod guards;

use std::sync::Arc;
use std::time::Duration;

use apiserver::attributes::Attributes;
use apiserver::authz::{Authorizer, Decision};
use apiserver::parts::Authenticator;
use apiserver::view::View;
use apiserver::{Config, Parts, Server, User};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use store::Store;
use store::memory::Memory;

#[path = "all/conversion.rs"]
mod conversion;
#[path = "all/custom.rs"]
mod custom;
#[path = "all/every_kind.rs"]
mod every_kind;
#[path = "all/front_proxy.rs"]
mod front_proxy;
#[path = "all/policies.rs"]
mod policies;
#[path = "all/protobuf.rs"]
mod protobuf;
#[path = "all/quota.rs"]
mod quota;
#[path = "all/reads.rs"]
mod reads;
#[path = "all/services.rs"]
mod services;
#[path = "all/views.rs"]
mod views;
#[path = "all/webhooks.rs"]
mod webhooks;

struct Nobody;

impl Authenticator for Nobody {
    fn certificate(&self, _chain: &[CertificateDer<'_>], _now: api::Timestamp) -> Option<User> {
        None
    }

    fn token(&self, _token: &str, _view: &dyn View, _now: api::Timestamp) -> Option<User> {
        None
    }
}

struct Masters;

impl Authorizer for Masters {
    fn authorize(&self, attributes: &Attributes, _view: &dyn View) -> Decision {
        match attributes.user.is_in("system:masters") {
            true => Decision::Allow { reason: String::new() },
            false => Decision::NoOpinion { reason: String::new() },
        }
    }
}

fn parts() -> Parts {
    Parts {
        dial: Arc::new(apiserver::proxy::Direct),
        authenticator: Arc::new(Nobody),
        authorizers: vec![Arc::new(Masters)],
        admission: Vec::new(),
        answers: Vec::new(),
        connects: Vec::new(),
        audit: None,
        pages: None,
    }
}

async fn server(store: Memory) -> Server {
    Server::start(Config::default(), Arc::new(store), parts()).await.expect("a server")
}

async fn send(server: &Server, group: &str, method: Method, path: &str, body: Option<Value>) -> Response<Incoming> {
    let user = User { name: "test".into(), groups: vec![group.into()], ..User::default() };
    let io = TokioIo::new(server.local(user));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("HTTP");
    tokio::spawn(connection);
    let media = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let request = Request::builder().method(method).uri(path).header("host", "x").header("content-type", media);
    sender.send_request(request.body(Full::new(Bytes::from(body))).unwrap()).await.expect("an answer")
}

async fn ask(server: &Server, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
    let response = send(server, "system:masters", method, path, body).await;
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap_or_default())
}

async fn line(body: &mut Incoming) -> Value {
    let frame = tokio::time::timeout(Duration::from_secs(5), body.frame()).await.expect("in time");
    let bytes = frame.expect("a frame").expect("no error").into_data().expect("data");
    serde_json::from_slice(&bytes).expect("one event a frame")
}

const MAPS: &str = "/api/v1/namespaces/a/configmaps";

#[tokio::test]
async fn a_write_is_read_at_once_and_watched_in_order() {
    let server = server(Memory::new()).await;
    let (_, list) = ask(&server, Method::GET, MAPS, None).await;
    let version = list["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    let path = format!("{MAPS}?watch=1&labelSelector=x%3D1&resourceVersion={version}");
    let mut watch = send(&server, "system:masters", Method::GET, &path, None).await.into_body();
    let (code, made) =
        ask(&server, Method::POST, MAPS, Some(json!({"metadata": {"name": "c", "labels": {"x": "1"}}}))).await;
    assert_eq!(code, 201, "{made}");
    let (code, got) = ask(&server, Method::GET, &format!("{MAPS}/c"), None).await;
    assert_eq!((code, &got["metadata"]["resourceVersion"]), (200, &made["metadata"]["resourceVersion"]));
    ask(&server, Method::PATCH, &format!("{MAPS}/c"), Some(json!({"data": {"k": "v"}}))).await;
    ask(&server, Method::PATCH, &format!("{MAPS}/c"), Some(json!({"metadata": {"labels": {"x": "2"}}}))).await;
    let seen = [line(&mut watch).await, line(&mut watch).await, line(&mut watch).await];
    let types: Vec<&str> = seen.iter().filter_map(|event| event["type"].as_str()).collect();
    assert_eq!(types, ["ADDED", "MODIFIED", "DELETED"]);
    assert_eq!(seen[2]["object"]["metadata"]["labels"]["x"], "1", "the last selected state");
}

#[tokio::test]
async fn pages_are_of_one_revision() {
    let server = server(Memory::new()).await;
    for name in ["a", "b", "c"] {
        ask(&server, Method::POST, MAPS, Some(json!({"metadata": {"name": name}}))).await;
    }
    let (_, first) = ask(&server, Method::GET, &format!("{MAPS}?limit=2"), None).await;
    assert_eq!(first["metadata"]["remainingItemCount"], 1);
    ask(&server, Method::DELETE, &format!("{MAPS}/c"), None).await;
    let token = first["metadata"]["continue"].as_str().expect("a token");
    let (_, second) = ask(&server, Method::GET, &format!("{MAPS}?limit=2&continue={token}"), None).await;
    assert_eq!(second["items"][0]["metadata"]["name"], "c", "as it was at the first page");
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
}

/// Even where nothing of the kind has changed: what is left can be had at another revision.
#[tokio::test]
async fn what_is_to_be_continued_expires_with_its_revision() {
    let store = Memory::new();
    let server = server(store.clone()).await;
    for name in ["one", "two"] {
        ask(&server, Method::POST, MAPS, Some(json!({"metadata": {"name": name}}))).await;
    }
    let (_, first) = ask(&server, Method::GET, &format!("{MAPS}?limit=1"), None).await;
    let next = |page: &Value| format!("{MAPS}?limit=1&continue={}", page["metadata"]["continue"].as_str().unwrap());
    assert_eq!(ask(&server, Method::GET, &next(&first), None).await.0, 200);
    let secret = json!({"metadata": {"name": "s"}});
    ask(&server, Method::POST, "/api/v1/namespaces/a/secrets", Some(secret)).await;
    store.compact(store.revision().await.unwrap()).await.unwrap();
    let (code, expired) = ask(&server, Method::GET, &next(&first), None).await;
    assert_eq!((code, expired["reason"].as_str()), (410, Some("Expired")));
    let (code, rest) = ask(&server, Method::GET, &next(&expired), None).await;
    assert_eq!((code, rest["items"][0]["metadata"]["name"].as_str()), (200, Some("two")));
}

#[tokio::test]
async fn a_definition_is_served_and_its_end_takes_its_objects_along() {
    let server = server(Memory::new()).await;
    let names = json!({"plural": "ws", "singular": "w", "kind": "W", "listKind": "WList"});
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "size": {"type": "integer", "default": 3}}}}}});
    let definition = json!({"metadata": {"name": "ws.x.io"}, "spec": {"group": "x.io", "scope": "Namespaced", "names": names,
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}});
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let (code, answer) = ask(&server, Method::POST, definitions, Some(definition)).await;
    assert_eq!(code, 201, "{answer}");
    let objects = "/apis/x.io/v1/namespaces/a/ws";
    let object = json!({"apiVersion": "x.io/v1", "kind": "W", "metadata": {"name": "w"}, "spec": {"nope": 1}});
    let made = until(&server, Method::POST, objects, Some(object), 201).await;
    assert_eq!(made["spec"], json!({"size": 3}), "defaulted and pruned");
    ask(&server, Method::DELETE, &format!("{definitions}/ws.x.io"), None).await;
    until(&server, Method::GET, &format!("{definitions}/ws.x.io"), None, 404).await;
    until(&server, Method::GET, objects, None, 404).await;
}

/// Asks again until the code is as wanted, for two seconds at most.
async fn until(server: &Server, method: Method, path: &str, body: Option<Value>, wanted: u16) -> Value {
    let mut last = (0, Value::Null);
    for _ in 0..200 {
        last = ask(server, method.clone(), path, body.clone()).await;
        if last.0 == wanted {
            return last.1;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{method} {path}: {last:?}");
}

#[tokio::test]
async fn what_was_stored_is_there_after_a_restart() {
    let store = Memory::new();
    let first = server(store.clone()).await;
    ask(&first, Method::POST, MAPS, Some(json!({"metadata": {"name": "c"}}))).await;
    first.shutdown(Duration::from_secs(2)).await;
    let (code, _) = ask(&server(store).await, Method::GET, &format!("{MAPS}/c"), None).await;
    assert_eq!(code, 200);
}

#[tokio::test]
async fn who_may_not_is_told_so_and_too_much_is_refused() {
    let server = server(Memory::new()).await;
    let refused = send(&server, "others", Method::GET, MAPS, None).await;
    assert_eq!(refused.status(), 403);
    let status: Value = serde_json::from_slice(&refused.into_body().collect().await.unwrap().to_bytes()).unwrap();
    let why = r#"configmaps is forbidden: User "test" cannot list resource "configmaps" in API group "" in the namespace "a""#;
    assert_eq!(status["message"], why);
    let large = json!({"metadata": {"name": "c"}, "data": {"x": "y".repeat(3 << 20)}});
    let (code, status) = ask(&server, Method::POST, MAPS, Some(large)).await;
    assert_eq!((code, &status["reason"]), (413, &json!("RequestEntityTooLarge")));
}
