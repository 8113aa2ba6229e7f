//! Admission webhooks against a small TLS server: what they are asked, and what their answers do.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::StatusResult;
use apiserver::attributes::Attributes;
use apiserver::parts::{Body, Connect, full};
use apiserver::proxy::{Dial, Io};
use apiserver::view::View;
use apiserver::{Config, Server};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use expect_test::{Expect, expect};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use store::memory::Memory;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{ask, parts, send, until};

pub(super) type Asked = Arc<Mutex<Vec<(String, Value)>>>;

/// A webhook server, the API server that knows the way to it, and what was asked.
pub(super) struct World {
    pub(super) server: Server,
    pub(super) ca: String,
    pub(super) asked: Asked,
}

/// Everything leads to one port of this machine; port 1 to nowhere.
struct Redirect(u16);

#[async_trait]
impl Dial for Redirect {
    async fn dial(&self, _: &str, port: u16) -> io::Result<Box<dyn Io>> {
        match port {
            1 => Err(io::ErrorKind::ConnectionRefused.into()),
            _ => Ok(Box::new(TcpStream::connect(("127.0.0.1", self.0)).await?)),
        }
    }
}

/// Answers every connect.
struct Connected;

#[async_trait]
impl Connect for Connected {
    async fn connect(&self, request: Request<Incoming>, _: &Attributes, _: &dyn View) -> StatusResult<Response<Body>> {
        Ok(Response::new(full(request.uri().query().unwrap_or_default().to_owned())))
    }
}

pub(super) async fn world() -> World {
    world_with(rcgen::IsCa::NoCa).await
}

/// Its server's certificate is self-signed, and may call itself a CA.
async fn world_with(is_ca: rcgen::IsCa) -> World {
    let names = ["hook.test", "hook.a.svc"].map(str::to_owned);
    let mut wanted = rcgen::CertificateParams::new(names).expect("names");
    wanted.is_ca = is_ca;
    let key = rcgen::KeyPair::generate().expect("a key");
    let made = wanted.self_signed(&key).expect("a certificate");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.der().clone()], key)
        .expect("a configuration");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let asked = Asked::default();
    tokio::spawn(listen(listener, TlsAcceptor::from(Arc::new(config)), Arc::clone(&asked)));
    let mut parts = parts();
    parts.dial = Arc::new(Redirect(port));
    parts.connects = vec![("", "pods/exec", Arc::new(Connected)), ("", "pods/log", Arc::new(Connected))];
    let server = Server::start(Config::default(), Arc::new(Memory::new()), parts).await.expect("a server");
    World { server, ca: made.pem(), asked }
}

async fn listen(listener: TcpListener, acceptor: TlsAcceptor, asked: Asked) {
    while let Ok((tcp, _)) = listener.accept().await {
        let (acceptor, asked) = (acceptor.clone(), Arc::clone(&asked));
        tokio::spawn(async move {
            let Ok(tls) = acceptor.accept(tcp).await else { return };
            let serve = service_fn(|request| answer(request, Arc::clone(&asked)));
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), serve).await;
        });
    }
}

/// The path says how to answer.
async fn answer(request: Request<Incoming>, asked: Asked) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let path = request.uri().path().to_owned();
    let bytes = request.into_body().collect().await?.to_bytes();
    let review: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    asked.lock().unwrap().push((path.clone(), review["request"].clone()));
    if review["kind"] == "ConversionReview" {
        return Ok(super::conversion::answer(&path, &review));
    }
    let patch = |operations: Value| json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(operations.to_string())});
    let label = |name: &str| patch(json!([{"op": "add", "path": format!("/metadata/labels/{name}"), "value": "x"}]));
    let mut response = match path.trim_start_matches('/') {
        "deny" => json!({"allowed": false, "status": {"message": "not today", "code": 418, "reason": "Teapot"}}),
        "mute" => json!({"allowed": false}),
        "warn" => json!({"allowed": true, "warnings": ["careful"]}),
        "wrong" => json!({"allowed": true, "uid": "other"}),
        "a" | "b" => label(&path[1..]),
        "bad-patch" => patch(json!([{"op": "remove", "path": "/spec/nope"}])),
        "sidecar" => patch(json!([
            {"op": "add", "path": "/spec/containers/-", "value": {"name": "side", "image": "side:1", "nope": 1}}
        ])),
        "command" => patch(json!([{"op": "replace", "path": "/command/0", "value": "true"}])),
        "slow" => std::future::pending().await,
        "broken" => {
            let mut broken = Response::new(Full::new("oh".into()));
            *broken.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
            return Ok(broken);
        }
        _ => json!({"allowed": true}),
    };
    if response.get("uid").is_none() {
        response["uid"] = review["request"]["uid"].clone();
    }
    let review = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response});
    Ok(Response::new(Full::new(review.to_string().into())))
}

pub(super) fn rule(operations: &[&str], group: &str, version: &str, resource: &str) -> Value {
    json!([{"operations": operations, "apiGroups": [group], "apiVersions": [version], "resources": [resource]}])
}

impl World {
    /// A webhook at a path of the server, with other fields as given.
    pub(super) fn hook(&self, name: &str, path: &str, rules: Value, more: Value) -> Value {
        let ca = STANDARD.encode(&self.ca);
        let mut hook = json!({"name": name, "rules": rules, "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": format!("https://hook.test/{path}"), "caBundle": ca}});
        for (key, value) in more.as_object().expect("fields") {
            hook[key] = value.clone();
        }
        hook
    }

    /// Stores a configuration and waits until the server's cache has it.
    pub(super) async fn configure(&self, kind: &str, name: &str, hooks: Vec<Value>) {
        let path = format!("/apis/admissionregistration.k8s.io/v1/{kind}webhookconfigurations");
        let (code, made) =
            ask(&self.server, Method::POST, &path, Some(json!({"metadata": {"name": name}, "webhooks": hooks}))).await;
        assert_eq!(code, 201, "{made}");
        until(&self.server, Method::GET, &format!("{path}/{name}?resourceVersion=0"), None, 200).await;
    }

    async fn create(&self, path: &str, object: Value) -> (u16, Value) {
        ask(&self.server, Method::POST, path, Some(object)).await
    }

    /// The paths asked since the last time, each with a part of its review.
    pub(super) fn asked(&self, pointer: &str) -> Vec<String> {
        let show = |(path, review): (String, Value)| match review.pointer(pointer) {
            Some(Value::String(text)) => format!("{path} {text}"),
            other => format!("{path} {}", other.cloned().unwrap_or_default()),
        };
        std::mem::take(&mut *self.asked.lock().unwrap()).into_iter().map(show).collect()
    }
}

const MAPS: &str = "/api/v1/namespaces/a/configmaps";
const PODS: &str = "/api/v1/namespaces/a/pods";

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"l": "1"}}})
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

pub(super) fn said((code, answer): (u16, Value), expect: Expect) {
    expect.assert_eq(&format!("{code} {}", answer["message"].as_str().unwrap_or_default()));
}

#[tokio::test]
async fn a_patch_is_defaulted_and_pruned() {
    let world = world().await;
    let hook = world.hook("s.x.io", "sidecar", rule(&["CREATE"], "", "v1", "pods"), json!({}));
    world.configure("mutating", "m", vec![hook]).await;
    let (code, made) = world.create(PODS, pod("p")).await;
    assert_eq!(code, 201, "{made}");
    let side = &made["spec"]["containers"][1];
    assert_eq!(
        (&side["image"], &side["imagePullPolicy"], &side["nope"]),
        (&json!("side:1"), &json!("IfNotPresent"), &Value::Null)
    );
    let (_, review) = world.asked.lock().unwrap().pop().expect("asked");
    assert_eq!(review["object"]["metadata"]["namespace"], "a");
    assert_eq!(review["object"]["spec"]["containers"][0]["imagePullPolicy"], "Always");
    assert_eq!(
        (&review["oldObject"], &review["dryRun"], &review["userInfo"]["username"]),
        (&Value::Null, &json!(false), &json!("test"))
    );
    assert_eq!(review["options"], json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"}));
    assert_eq!(review["requestKind"], json!({"group": "", "version": "v1", "kind": "Pod"}));
}

#[tokio::test]
async fn refusals_and_failures_in_upstreams_words() {
    let world = world().await;
    let cases: [(&str, Value, Expect); 11] = [
        ("deny", json!({}), expect![[r#"418 admission webhook "h.x.io" denied the request: not today"#]]),
        ("mute", json!({}), expect![[r#"400 admission webhook "h.x.io" denied the request without explanation"#]]),
        (
            "deny",
            json!({"failurePolicy": "Ignore"}),
            expect![[r#"418 admission webhook "h.x.io" denied the request: not today"#]],
        ),
        (
            "broken",
            json!({}),
            expect![[
                r#"500 Internal error occurred: failed calling webhook "h.x.io": failed to call webhook: an error on the server ("oh") has prevented the request from succeeding"#
            ]],
        ),
        ("broken", json!({"failurePolicy": "Ignore"}), expect!["201 "]),
        ("wrong", json!({}), expect![""]),
        (
            "bad-patch",
            json!({}),
            expect![[
                r#"500 Internal error occurred: remove operation does not apply: doc is missing path: "/spec/nope": missing value"#
            ]],
        ),
        (
            "slow",
            json!({"timeoutSeconds": 1}),
            expect![[
                r#"500 Internal error occurred: failed calling webhook "h.x.io": failed to call webhook: Post "https://hook.test/slow?timeout=1s": context deadline exceeded"#
            ]],
        ),
        (
            "x",
            json!({"clientConfig": {"url": "https://hook.test:1/x"}}),
            expect![[
                r#"500 Internal error occurred: failed calling webhook "h.x.io": failed to call webhook: Post "https://hook.test:1/x?timeout=10s": dial tcp hook.test:1: connect: connection refused"#
            ]],
        ),
        (
            "x",
            json!({"clientConfig": {"url": "https://other.test/x", "caBundle": STANDARD.encode(&world.ca)}}),
            expect![[
                r#"500 Internal error occurred: failed calling webhook "h.x.io": failed to call webhook: Post "https://other.test/x?timeout=10s": tls: failed to verify certificate: x509: certificate is valid for hook.test, hook.a.svc, not other.test"#
            ]],
        ),
        (
            "x",
            json!({"clientConfig": {"service": {"namespace": "a", "name": "hook"}}}),
            expect![[
                r#"500 Internal error occurred: failed calling webhook "h.x.io": failed to call webhook: Post "https://hook.a.svc:443/?timeout=10s": service "hook" not found"#
            ]],
        ),
    ];
    for (n, (path, more, expect)) in cases.into_iter().enumerate() {
        let hook = world.hook("h.x.io", path, rule(&["CREATE"], "", "v1", "configmaps"), more);
        let name = format!("m{n}");
        world.configure("mutating", &name, vec![hook]).await;
        let (code, answer) = world.create(MAPS, map(&name)).await;
        let text = answer["message"].as_str().unwrap_or_default();
        match path {
            "wrong" => assert!(text.contains(r#"received invalid webhook response: expected response.uid="#), "{text}"),
            _ => said((code, answer), expect),
        }
        let config = format!("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{name}");
        ask(&world.server, Method::DELETE, &config, None).await;
        until(&world.server, Method::GET, &config, None, 404).await;
    }
    let slow =
        world.hook("h.x.io", "slow", rule(&["CREATE"], "", "v1", "configmaps"), json!({"failurePolicy": "Ignore"}));
    world.configure("validating", "v", vec![slow]).await;
    let late = expect!["504 Timeout: request did not complete within requested timeout - context deadline exceeded"];
    said(world.create(&format!("{MAPS}?timeout=100ms"), map("late")).await, late);
}

#[tokio::test]
async fn who_is_asked() {
    let world = world().await;
    for (name, label) in [("a", "yes"), ("b", "no")] {
        let labels = json!({"metadata": {"name": name, "labels": {"hooks": label}}});
        world.create("/api/v1/namespaces", labels).await;
        until(&world.server, Method::GET, &format!("/api/v1/namespaces/{name}?resourceVersion=0"), None, 200).await;
    }
    let create = ["CREATE"];
    let maps = rule(&create, "", "v1", "configmaps");
    let scoped = |scope: &str, resource: &str| {
        let mut rules = rule(&create, "*", "*", resource);
        rules[0]["scope"] = scope.into();
        rules
    };
    let hooks = vec![
        world.hook("ns.x.io", "ns", maps.clone(), json!({"namespaceSelector": {"matchLabels": {"hooks": "yes"}}})),
        world.hook("no.x.io", "no", maps.clone(), json!({"namespaceSelector": {"matchLabels": {"hooks": "no"}}})),
        world.hook("object.x.io", "object", maps.clone(), json!({"objectSelector": {"matchLabels": {"l": "1"}}})),
        world.hook("unlabelled.x.io", "unlabelled", maps, json!({"objectSelector": {"matchLabels": {"l": "2"}}})),
        world.hook("cluster.x.io", "cluster", scoped("Cluster", "*"), json!({})),
        world.hook("namespaced.x.io", "namespaced", scoped("Namespaced", "*"), json!({})),
        world.hook("update.x.io", "update", rule(&["UPDATE"], "", "v1", "*"), json!({})),
        world.hook("old.x.io", "old", rule(&create, "", "v2", "configmaps"), json!({"matchPolicy": "Exact"})),
        world.hook("status.x.io", "status", rule(&["*"], "", "*", "*/status"), json!({})),
    ];
    world.configure("mutating", "m", hooks).await;
    world.asked("");
    world.create(MAPS, map("c")).await;
    assert_eq!(world.asked("/name"), ["/ns c", "/object c", "/namespaced c"]);
    world.create("/api/v1/namespaces", json!({"metadata": {"name": "c"}})).await;
    assert_eq!(world.asked("/namespace"), ["/cluster c"]);
    world
        .create("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies", json!({"metadata": {"name": "p"}}))
        .await;
    let review = json!({"spec": {"resourceAttributes": {"verb": "get"}}});
    world.create("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review).await;
    assert!(world.asked("").is_empty(), "neither admission's own objects nor questions of authorization");
    ask(&world.server, Method::PATCH, &format!("{MAPS}/c"), Some(json!({"data": {"k": "v"}}))).await;
    assert_eq!(world.asked("/oldObject/metadata/name"), ["/update c"]);
    world.create(PODS, pod("p")).await;
    world.asked("");
    ask(&world.server, Method::PATCH, &format!("{PODS}/p/status"), Some(json!({"status": {"phase": "Running"}}))).await;
    assert_eq!(world.asked("/subResource"), ["/status status"]);
    world.create(MAPS, json!({"metadata": {"generateName": "g-"}})).await;
    assert_eq!(world.asked("/name"), ["/ns null", "/namespaced null"]);
}

#[tokio::test]
async fn every_verb_and_subresource() {
    let world = world().await;
    let hook = world.hook("v.x.io", "all", rule(&["*"], "*", "*", "*/*"), json!({}));
    world.configure("validating", "v", vec![hook]).await;
    world.create(PODS, pod("p")).await;
    assert_eq!(world.asked("/operation"), ["/all CREATE"]);
    let exec = format!("{PODS}/p/exec?command=sh&command=-c&stdin=true&container=c");
    let response = send(&world.server, "system:masters", Method::POST, &exec, None).await;
    assert_eq!(response.status(), 200);
    let options =
        json!({"kind": "PodExecOptions", "apiVersion": "v1", "stdin": true, "container": "c", "command": ["sh", "-c"]});
    assert_eq!(world.asked("/object"), [format!("/all {options}")]);
    send(&world.server, "system:masters", Method::GET, &format!("{PODS}/p/log"), None).await;
    assert!(world.asked("").is_empty(), "a log is read");
    let binding = json!({"target": {"kind": "Node", "name": "n"}});
    world.create(&format!("{PODS}/p/binding"), json!({"metadata": {"name": "p"}, "target": binding["target"]})).await;
    assert_eq!(world.asked("/kind/kind"), ["/all Binding"]);
    world
        .create(
            &format!("{PODS}/p/eviction"),
            json!({"metadata": {"name": "p"}, "apiVersion": "policy/v1", "kind": "Eviction"}),
        )
        .await;
    assert_eq!(world.asked("/kind/kind"), ["/all Eviction"]);
    let replicas = json!({"metadata": {"name": "r"}, "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod("x")["spec"]}}});
    let sets = "/apis/apps/v1/namespaces/a/replicasets";
    let (code, made) = world.create(sets, replicas).await;
    assert_eq!(code, 201, "{made}");
    world.asked("");
    ask(&world.server, Method::PATCH, &format!("{sets}/r/scale"), Some(json!({"spec": {"replicas": 3}}))).await;
    assert_eq!(world.asked("/oldObject/spec/replicas"), ["/all 1"]);
    for name in ["c", "d"] {
        world.create(MAPS, map(name)).await;
    }
    world.asked("");
    ask(&world.server, Method::DELETE, &format!("{MAPS}/c?gracePeriodSeconds=5"), None).await;
    let (_, review) = world.asked.lock().unwrap().pop().expect("asked");
    assert_eq!((&review["object"], &review["oldObject"]["metadata"]["name"]), (&Value::Null, &json!("c")));
    assert_eq!(review["options"]["gracePeriodSeconds"], 5);
    ask(&world.server, Method::DELETE, MAPS, None).await;
    let (_, review) = world.asked.lock().unwrap().pop().expect("asked");
    assert_eq!((&review["name"], &review["oldObject"]["metadata"]["name"]), (&Value::Null, &json!("d")));
    let dry = format!("{MAPS}?dryRun=All&fieldManager=me");
    world.create(&dry, map("dry")).await;
    let (_, review) = world.asked.lock().unwrap().pop().expect("asked");
    assert_eq!((&review["dryRun"], &review["options"]["fieldManager"]), (&json!(true), &json!("me")));
}

#[tokio::test]
async fn options_of_exec_may_be_changed_and_a_delete_not() {
    let world = world().await;
    let connect = world.hook("c.x.io", "command", rule(&["CONNECT"], "", "v1", "pods/exec"), json!({}));
    let delete = world.hook("d.x.io", "a", rule(&["DELETE"], "", "v1", "configmaps"), json!({}));
    world.configure("mutating", "m", vec![connect, delete]).await;
    let response =
        send(&world.server, "system:masters", Method::POST, &format!("{PODS}/p/exec?command=sh&tty=1"), None).await;
    let query = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(query, "stdin=false&stdout=false&stderr=false&tty=true&command=true");
    world.create(MAPS, map("c")).await;
    let why = expect![[
        r#"500 Internal error occurred: admission webhook "d.x.io" attempted to modify the object, which is not supported for this operation"#
    ]];
    said(ask(&world.server, Method::DELETE, &format!("{MAPS}/c"), None).await, why);
}

#[tokio::test]
async fn later_changes_lead_to_a_second_look() {
    let world = world().await;
    let maps = || rule(&["CREATE"], "", "v1", "configmaps");
    let again = json!({"reinvocationPolicy": "IfNeeded"});
    let hooks = vec![
        world.hook("a.x.io", "a", maps(), again.clone()),
        world.hook("once.x.io", "once", maps(), json!({})),
        world.hook("b.x.io", "b", maps(), again),
    ];
    world.configure("mutating", "m", hooks).await;
    let (_, made) = world.create(MAPS, map("c")).await;
    assert_eq!(made["metadata"]["labels"], json!({"l": "1", "a": "x", "b": "x"}));
    assert_eq!(world.asked("/object/metadata/labels/b"), ["/a null", "/once null", "/b null", "/a x"]);
}

#[tokio::test]
async fn validating_ones_see_the_final_object_and_warn() {
    let world = world().await;
    let maps = || rule(&["CREATE"], "", "v1", "configmaps");
    world.configure("mutating", "m", vec![world.hook("a.x.io", "a", maps(), json!({}))]).await;
    let warns = world.hook("w.x.io", "warn", maps(), json!({}));
    let strict = world.hook("s.x.io", "strict", maps(), json!({}));
    world.configure("validating", "v", vec![warns, strict]).await;
    let response = send(&world.server, "system:masters", Method::POST, MAPS, Some(map("c"))).await;
    assert_eq!(response.headers().get("warning").and_then(|w| w.to_str().ok()), Some("299 - \"careful\""));
    let mut asked = world.asked("/object/metadata/labels/a");
    asked.sort();
    assert_eq!(asked, ["/a null", "/strict x", "/warn x"]);
}

#[tokio::test]
async fn equivalent_versions_and_services() {
    let world = world().await;
    let scalers = rule(&["CREATE"], "autoscaling", "v1", "horizontalpodautoscalers");
    let service = json!({"clientConfig": {"service": {"namespace": "a", "name": "hook", "path": "/v1", "port": 443},
        "caBundle": STANDARD.encode(&world.ca)}});
    world
        .create(
            "/api/v1/namespaces/a/services",
            json!({"metadata": {"name": "hook"}, "spec": {"ports": [{"port": 443, "name": "tls"}]}}),
        )
        .await;
    let slice = json!({"metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}}, "addressType": "IPv4",
        "ports": [{"name": "tls", "port": 8443}], "endpoints": [{"addresses": ["10.9.9.9"], "conditions": {"ready": true}}]});
    let (code, made) = world.create("/apis/discovery.k8s.io/v1/namespaces/a/endpointslices", slice).await;
    assert_eq!(code, 201, "{made}");
    world.configure("validating", "v", vec![world.hook("v.x.io", "", scalers, service)]).await;
    let scaler = json!({"metadata": {"name": "s"}, "spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 7}}}]}});
    let (code, made) = world.create("/apis/autoscaling/v2/namespaces/a/horizontalpodautoscalers", scaler).await;
    assert_eq!(code, 201, "{made}");
    let (path, review) = world.asked.lock().unwrap().pop().expect("asked");
    assert_eq!(path, "/v1");
    assert_eq!((&review["kind"]["version"], &review["requestKind"]["version"]), (&json!("v1"), &json!("v2")));
    assert_eq!(review["object"]["spec"]["targetCPUUtilizationPercentage"], 7);
}

#[tokio::test]
async fn custom_resources_are_admitted_and_connections_kept() {
    let world = world().await;
    let names = json!({"plural": "ws", "singular": "w", "kind": "W", "listKind": "WList"});
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "containers": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"},
            "image": {"type": "string"}, "size": {"type": "integer", "default": 3}}}}}}}}});
    let definition = json!({"metadata": {"name": "ws.x.io"}, "spec": {"group": "x.io", "scope": "Namespaced", "names": names,
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}});
    world.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await;
    let hook = world.hook("s.x.io", "sidecar", rule(&["CREATE"], "x.io", "*", "ws"), json!({}));
    world.configure("mutating", "m", vec![hook]).await;
    let object = json!({"apiVersion": "x.io/v1", "kind": "W", "metadata": {"name": "w"}, "spec": {"containers": []}});
    let made = until(&world.server, Method::POST, "/apis/x.io/v1/namespaces/a/ws", Some(object), 201).await;
    assert_eq!(
        made["spec"]["containers"],
        json!([{"name": "side", "image": "side:1", "size": 3}]),
        "defaulted and pruned"
    );
}

#[tokio::test]
async fn two_servers_agree() {
    let store = Memory::new();
    let [first, second] = [super::server(store.clone()).await, super::server(store).await];
    let hook = json!({"name": "h.x.io", "rules": rule(&["CREATE"], "", "v1", "configmaps"), "sideEffects": "None",
        "admissionReviewVersions": ["v1"], "clientConfig": {"url": "https://127.0.0.1:1/x"}, "failurePolicy": "Fail"});
    let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
    ask(&first, Method::POST, path, Some(json!({"metadata": {"name": "m"}, "webhooks": [hook]}))).await;
    tokio::time::timeout(Duration::from_secs(5), async {
        let mut n = 0;
        while ask(&second, Method::POST, MAPS, Some(map(&format!("c{n}")))).await.0 != 500 {
            n += 1;
        }
    })
    .await
    .expect("the other server asks, too");
}

#[tokio::test]
async fn match_conditions_choose_requests() {
    let world = world().await;
    let on = |name: &str, expression: &str, policy: &str| {
        let more = json!({"matchConditions": [{"name": "c", "expression": expression}], "failurePolicy": policy});
        world.hook(&format!("{name}.x.io"), name, rule(&["CREATE"], "", "v1", "configmaps"), more)
    };
    let hooks = vec![
        on("named", "object.metadata.name == 'c' && oldObject == null", "Fail"),
        on("other", "object.metadata.name == 'd'", "Fail"),
        on("me", "request.userInfo.username == 'test' && request.operation == 'CREATE'", "Fail"),
        on("may", "authorizer.group('').resource('secrets').namespace('a').check('delete').allowed()", "Fail"),
        on("open", "object.data.nope == 'x'", "Ignore"),
    ];
    world.configure("validating", "v", hooks).await;
    let (code, made) = world.create(MAPS, map("c")).await;
    assert_eq!(code, 201, "{made}");
    let mut asked = world.asked("/name");
    asked.sort();
    assert_eq!(asked, ["/may c", "/me c", "/named c"]);
    world.configure("mutating", "m", vec![on("closed", "object.data.nope == 'x'", "Fail")]).await;
    said(
        world.create(MAPS, map("e")).await,
        expect![[
            r#"403 configmaps "e" is forbidden: expression 'object.data.nope == 'x'' resulted in error: no such key: data"#
        ]],
    );
}

#[tokio::test]
async fn a_certificate_in_the_bundle_is_trusted_though_it_calls_itself_a_ca() {
    let world = world_with(rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained)).await;
    let maps = || rule(&["CREATE"], "", "v1", "configmaps");
    world.configure("validating", "v", vec![world.hook("h.x.io", "allow", maps(), json!({}))]).await;
    let (code, made) = world.create(MAPS, map("c")).await;
    assert_eq!(code, 201, "{made}");
    let other = rcgen::generate_simple_self_signed(["hook.test".to_owned()]).expect("a certificate").cert.pem();
    let other = json!({"clientConfig": {"url": "https://hook.test/x", "caBundle": STANDARD.encode(other)}});
    world.configure("validating", "w", vec![world.hook("o.x.io", "x", maps(), other)]).await;
    said(
        world.create(MAPS, map("d")).await,
        expect![[
            r#"500 Internal error occurred: failed calling webhook "o.x.io": failed to call webhook: Post "https://hook.test/x?timeout=10s": tls: failed to verify certificate: x509: certificate signed by unknown authority"#
        ]],
    );
}
