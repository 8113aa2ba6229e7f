//! Every built-in resource that is stored, by nothing but its row: checked against its schema, created, read, listed,
//! watched, patched, applied, printed and deleted, in JSON and protobuf.

use std::collections::BTreeSet;
use std::time::Duration;

use apiserver::{Server, User};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use store::memory::Memory;

use super::{ask, send, server};

/// One object of most kinds, as the stories with other people's programs have them, and the rest.
const OBJECTS: [&str; 2] =
    [include_str!("../../../e2e/stories/manifests/every-kind.yaml"), include_str!("every_other_kind.yaml")];

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// A request with its own media types. The answer's are its own.
pub(super) async fn typed(
    server: &Server,
    method: Method,
    path: &str,
    [content, accept]: [&str; 2],
    body: impl Into<Bytes>,
) -> Response<Incoming> {
    let user = User { name: "test".into(), groups: vec!["system:masters".into()], ..User::default() };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(server.local(user))).await.expect("HTTP");
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header("host", "x").header("accept", accept);
    let request = request.header("content-type", content).body(Full::new(body.into())).expect("a request");
    sender.send_request(request).await.expect("an answer")
}

/// The same, read to its end.
pub(super) async fn whole(
    server: &Server,
    method: Method,
    path: &str,
    media: [&str; 2],
    body: impl Into<Bytes>,
) -> (u16, Bytes) {
    let answer = typed(server, method, path, media, body).await;
    (answer.status().as_u16(), answer.into_body().collect().await.expect("a body").to_bytes())
}

async fn told(server: &Server, method: Method, path: &str, media: [&str; 2], body: String) -> (u16, Value) {
    let (code, bytes) = whole(server, method, path, media, body).await;
    (code, serde_json::from_slice(&bytes).unwrap_or_default())
}

/// A watch's events, one after the other, however they came.
struct Events {
    body: Incoming,
    rest: Vec<u8>,
}

impl Events {
    async fn next(&mut self) -> Value {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return serde_json::from_slice(&line).expect("an event");
            }
            let frame = tokio::time::timeout(Duration::from_secs(5), self.body.frame()).await.expect("in time");
            self.rest.extend(frame.expect("a frame").expect("no error").into_data().expect("data"));
        }
    }

    /// The next event but those of older versions is this object's.
    async fn shows(&mut self, object: &Value) {
        let version =
            |object: &Value| object["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse::<u64>().ok());
        let mut seen = self.next().await;
        while version(&seen["object"]) < version(object) {
            seen = self.next().await;
        }
        assert_eq!((&seen["type"], &seen["object"]), (&json!("MODIFIED"), object));
    }
}

/// A resource by its group and version, kind and plural name, and whether its objects are in namespaces.
struct Row {
    api: String,
    kind: String,
    plural: String,
    namespaced: bool,
}

/// What discovery says can be created and watched.
async fn rows(server: &Server) -> Vec<Row> {
    let mut rows = Vec::new();
    let (_, groups) = ask(server, Method::GET, "/apis", None).await;
    let versions =
        groups["groups"].as_array().expect("groups").iter().flat_map(|g| g["versions"].as_array().expect("versions"));
    let apis = versions.map(|v| v["groupVersion"].as_str().expect("a name").to_owned());
    for api in std::iter::once("v1".to_owned()).chain(apis) {
        let (_, found) = ask(server, Method::GET, &root(&api), None).await;
        for resource in found["resources"].as_array().expect("resources") {
            let text = |name: &str| resource[name].as_str().expect("a text").to_owned();
            let can = |verb: &str| resource["verbs"].as_array().expect("verbs").contains(&verb.into());
            if can("create") && can("watch") && !text("name").contains('/') {
                let namespaced = resource["namespaced"] == true;
                rows.push(Row { api: api.clone(), kind: text("kind"), plural: text("name"), namespaced });
            }
        }
    }
    rows
}

fn root(api: &str) -> String {
    if api == "v1" { "/api/v1".into() } else { format!("/apis/{api}") }
}

#[tokio::test]
async fn every_kind_is_a_bare_row() {
    let server = server(Memory::new()).await;
    let rows = rows(&server).await;
    let all = OBJECTS.map(|text| text.replace("WHO", "who").replace("NET", "7")).join("---\n");
    let mut missing: BTreeSet<String> = rows.iter().map(|row| format!("{} {}", row.api, row.kind)).collect();
    for text in all.split("\n---\n") {
        let field =
            |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default();
        let (api, kind) = (field("apiVersion"), field("kind"));
        let row = rows.iter().find(|row| row.api == api && row.kind == kind).unwrap_or_else(|| panic!("{api} {kind}"));
        missing.remove(&format!("{api} {kind}"));
        lives(&server, row, text).await;
    }
    assert_eq!(missing, BTreeSet::new());
}

/// The server itself says of some objects what it thinks of them.
fn is_settled(kind: &str, object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    match kind {
        "CustomResourceDefinition" => conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True"),
        "ValidatingAdmissionPolicy" => object["status"]["observedGeneration"].is_number(),
        _ => true,
    }
}

async fn lives(server: &Server, row: &Row, text: &str) {
    let what = format!("{} {}", row.api, row.kind);
    let folder = if row.namespaced { "/namespaces/who" } else { "" };
    let path = format!("{}{folder}/{}", root(&row.api), row.plural);
    let json = ["application/yaml", "application/json"];
    let (_, list) = ask(server, Method::GET, &path, None).await;
    let before = list["items"].as_array().unwrap_or_else(|| panic!("{what}: {list}")).len();
    let from = list["metadata"]["resourceVersion"].as_str().expect("a version");
    let watch = format!("{path}?watch=1&resourceVersion={from}");
    let body = send(server, "system:masters", Method::GET, &watch, None).await.into_body();
    let mut watch = Events { body, rest: Vec::new() };

    // What the schema does not know, or knows otherwise.
    let strict = format!("{path}?fieldValidation=Strict");
    let (code, refused) = told(server, Method::POST, &strict, json, format!("{text}\nnobody: knows")).await;
    let message = refused["message"].as_str().unwrap_or_default();
    assert!(code == 400 && message.ends_with("strict decoding error: unknown field \"nobody\""), "{what}: {refused}");
    let wrong = text.replacen("metadata: {", "metadata: {generation: \"one\", ", 1);
    let (code, refused) = told(server, Method::POST, &path, json, wrong).await;
    assert_eq!(code, 400, "{what}: {refused}");

    let (code, made) = told(server, Method::POST, &path, json, text.to_owned()).await;
    assert_eq!(code, 201, "{what}: {made}");
    let name = made["metadata"]["name"].as_str().expect("a name");
    let own = format!("{path}/{name}");
    let seen = watch.next().await;
    assert_eq!((&seen["type"], &seen["object"]), (&json!("ADDED"), &made), "{what}");
    while !is_settled(&row.kind, &ask(server, Method::GET, &own, None).await.1) {
        assert_eq!(watch.next().await["type"], "MODIFIED", "{what}");
    }

    let patch = json!({"metadata": {"labels": {"patched": "yes"}}});
    let (code, patched) = ask(server, Method::PATCH, &own, Some(patch)).await;
    assert_eq!((code, &patched["metadata"]["labels"]["patched"]), (200, &json!("yes")), "{what}: {patched}");
    watch.shows(&patched).await;
    let apply =
        json!({"apiVersion": row.api, "kind": row.kind, "metadata": {"name": name, "labels": {"applied": "yes"}}});
    let media = ["application/apply-patch+yaml", "application/json"];
    let (code, applied) =
        told(server, Method::PATCH, &format!("{own}?fieldManager=me"), media, apply.to_string()).await;
    assert_eq!((code, &applied["metadata"]["labels"]["applied"]), (200, &json!("yes")), "{what}: {applied}");
    let managers = applied["metadata"]["managedFields"].as_array().expect("managers");
    assert!(managers.iter().any(|m| m["manager"] == "me" && m["operation"] == "Apply"), "{what}: {managers:?}");
    watch.shows(&applied).await;

    // Read alone, in a list, as a table's row, and in protobuf, which comes back as it went out.
    let (code, read) = ask(server, Method::GET, &own, None).await;
    assert_eq!((code, &read), (200, &applied), "{what}");
    let (_, list) = ask(server, Method::GET, &path, None).await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(before + 1), "{what}");
    assert_eq!(list["kind"], format!("{}List", row.kind));
    let table = ["", "application/json;as=Table;v=v1;g=meta.k8s.io"];
    let (code, table) = told(server, Method::GET, &own, table, String::new()).await;
    let columns = table["columnDefinitions"].as_array().map_or(0, Vec::len);
    // An IPAddress has a cell without a column, as upstream prints it.
    let cells = columns + usize::from(row.kind == "IPAddress");
    assert_eq!((code, table["rows"][0]["cells"].as_array().map(Vec::len)), (200, Some(cells)), "{what}: {table}");
    assert_ne!(columns, 0, "{what}");
    let (code, bytes) = whole(server, Method::GET, &own, ["", PROTOBUF], "").await;
    assert!(code == 200 && bytes.starts_with(b"k8s\0"), "{what}: {code}");
    if row.kind != "ControllerRevision" {
        // (Its raw value loses its blanks: docs/differences.md.)
        let (code, put) = whole(server, Method::PUT, &own, [PROTOBUF, "application/json"], bytes).await;
        let put: Value = serde_json::from_slice(&put).expect("JSON");
        assert_eq!((code, &put), (200, &read), "{what}");
    }

    let (code, gone) =
        ask(server, Method::DELETE, &format!("{own}?gracePeriodSeconds=0&propagationPolicy=Background"), None).await;
    assert_eq!(code, 200, "{what}: {gone}");
    // A pod is marked first; a namespace and a definition take what is in them along before they go.
    let marked = ["Pod", "Namespace", "CustomResourceDefinition"].contains(&row.kind.as_str());
    let stays = row.kind == "Namespace";
    let types = [("MODIFIED", marked), ("DELETED", !stays)].into_iter().filter_map(|(kind, told)| told.then_some(kind));
    for wanted in types {
        let mut seen = watch.next().await;
        while wanted == "DELETED" && seen["type"] == "MODIFIED" && marked {
            seen = watch.next().await;
        }
        assert_eq!(
            (&seen["type"], &seen["object"]["metadata"]["uid"]),
            (&json!(wanted), &made["metadata"]["uid"]),
            "{what}"
        );
    }
}
