//! ResourceQuota under concurrent writes: never more than there is room for.

use std::sync::Arc;
use std::time::Duration;

use apiserver::{Config, Server};
use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};
use store::Store;
use store::memory::Memory;

use super::services::etcd;
use super::{ask, parts, server, until};

const QUOTAS: &str = "/api/v1/namespaces/a/resourcequotas";
const MAPS: &str = "/api/v1/namespaces/a/configmaps";

/// A quota that has been counted, as the controller would leave it.
async fn quota(server: &Server, name: &str, hard: Value) {
    let path = format!("{QUOTAS}/{name}");
    let (code, made) =
        ask(server, Method::POST, QUOTAS, Some(json!({"metadata": {"name": name}, "spec": {"hard": hard}}))).await;
    assert_eq!(code, 201, "{made}");
    let used: serde_json::Map<String, Value> =
        hard.as_object().expect("a map").keys().map(|name| (name.clone(), "0".into())).collect();
    let status = json!({"status": {"hard": hard, "used": used}});
    let (code, _) = ask(server, Method::PATCH, &format!("{path}/status"), Some(status)).await;
    assert_eq!(code, 200);
    until(server, Method::GET, &format!("{path}?resourceVersion=0"), None, 200).await;
}

async fn used(server: &Server, name: &str) -> Value {
    ask(server, Method::GET, &format!("{QUOTAS}/{name}"), None).await.1["status"]["used"].clone()
}

/// Fifty creates at once, with room for ten.
async fn race(servers: &[Server]) {
    quota(&servers[0], "q", json!({"configmaps": "10", "count/configmaps": "100"})).await;
    // Which each must have seen as it was counted: what is read like that is not older than what the store has.
    for server in servers {
        assert_eq!(used(server, "q").await, json!({"configmaps": "0", "count/configmaps": "0"}));
    }
    let create = |n: usize| {
        let server = &servers[n % servers.len()];
        async move { ask(server, Method::POST, MAPS, Some(json!({"metadata": {"name": format!("c{n}")}}))).await }
    };
    let answers = tokio::time::timeout(Duration::from_secs(60), join_all((0..50).map(create))).await.expect("in time");
    let made = answers.iter().filter(|(code, _)| *code == 201).count();
    let refused = answers.iter().filter(|(code, answer)| {
        let text = answer["message"].as_str().unwrap_or_default();
        *code == 403
            && text.ends_with("exceeded quota: q, requested: configmaps=1, used: configmaps=10, limited: configmaps=10")
    });
    assert_eq!((made, refused.count()), (10, 40), "{:?}", answers.iter().map(|(code, _)| code).collect::<Vec<_>>());
    assert_eq!(used(&servers[0], "q").await, json!({"configmaps": "10", "count/configmaps": "10"}));
    let (_, list) = ask(&servers[0], Method::GET, MAPS, None).await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(10));
}

#[tokio::test]
async fn ten_of_fifty_fit() {
    race(&[server(Memory::new()).await]).await;
}

#[tokio::test]
async fn ten_of_fifty_fit_on_two_servers() {
    let store = Memory::new();
    race(&[server(store.clone()).await, server(store).await]).await;
}

#[tokio::test]
async fn ten_of_fifty_fit_on_two_servers_on_etcd() {
    let Some((_running, etcd)) = etcd().await else { return };
    let store: Arc<dyn Store> = Arc::new(etcd);
    let start = || Server::start(Config::default(), Arc::clone(&store), parts());
    race(&[start().await.expect("a server"), start().await.expect("a server")]).await;
}

#[tokio::test]
async fn only_what_is_written_is_charged() {
    let server = server(Memory::new()).await;
    quota(&server, "q", json!({"services": "2", "services.nodeports": "1"})).await;
    let services = "/api/v1/namespaces/a/services";
    let service =
        |name: &str, kind: &str| json!({"metadata": {"name": name}, "spec": {"type": kind, "ports": [{"port": 80}]}});
    let (code, made) = ask(&server, Method::POST, services, Some(service("s", "ClusterIP"))).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(used(&server, "q").await, json!({"services": "1", "services.nodeports": "0"}));
    let dry = format!("{services}?dryRun=All");
    assert_eq!(ask(&server, Method::POST, &dry, Some(service("t", "NodePort"))).await.0, 201);
    assert_eq!(ask(&server, Method::POST, services, Some(service("s", "ClusterIP"))).await.0, 409, "it is there");
    assert_eq!(used(&server, "q").await, json!({"services": "1", "services.nodeports": "0"}));
    let raise = |kind: &str| json!({"spec": {"type": kind}});
    let (code, _) = ask(&server, Method::PATCH, &format!("{services}/s"), Some(raise("NodePort"))).await;
    assert_eq!((code, used(&server, "q").await), (200, json!({"services": "1", "services.nodeports": "1"})));
    let (code, answer) = ask(&server, Method::POST, services, Some(service("t", "NodePort"))).await;
    let why = r#"services "t" is forbidden: exceeded quota: q, requested: services.nodeports=1, used: services.nodeports=1, limited: services.nodeports=1"#;
    assert_eq!((code, answer["message"].as_str()), (403, Some(why)));
    let (code, _) = ask(&server, Method::PATCH, &format!("{services}/s"), Some(raise("ClusterIP"))).await;
    assert_eq!(
        (code, used(&server, "q").await["services.nodeports"].clone()),
        (200, json!("1")),
        "the controller's recount gives back"
    );
}
