//! Nodes that nobody runs, pods that wait for a scheduler, and when it has bound them.

use std::collections::BTreeSet;
use std::pin::pin;

use anyhow::{Context, Result, bail};
use client::Client;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use serde_json::{Value, json};

use super::{account, now, object, there};

const HOST: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
/// Nodes lie in so many zones.
const ZONES: usize = 3;
/// The pods that are bound. A watch of them says ADDED when a pod becomes one.
const BOUND: &str = "spec.nodeName!=";

/// Makes Nodes that are ready and have room.
pub(crate) async fn nodes(clients: Vec<Client>, total: usize) -> Result<()> {
    let numbers = stream::iter((0..total).zip(clients.iter().cycle()));
    let made = numbers.map(|(at, client)| async move {
        let (api, name): (Api<Node>, _) = (Api::all(client.clone()), format!("node-{at:05}"));
        there(api.create(&PostParams::default(), &object(node(&name, at % ZONES))?).await)?;
        // Admission takes every new node for one that is not ready yet.
        let ready = Patch::Merge(json!({"spec": {"taints": null}}));
        anyhow::Ok(api.patch(&name, &PatchParams::default(), &ready).await.map(drop)?)
    });
    made.buffer_unordered(clients.len()).try_for_each(|()| async { Ok(()) }).await
}

fn node(name: &str, zone: usize) -> Value {
    let room = json!({"cpu": "4", "memory": "32Gi", "pods": "110"});
    let since = "2026-01-01T00:00:00Z";
    let ready = json!({"type": "Ready", "status": "True", "lastHeartbeatTime": since, "lastTransitionTime": since});
    json!({
        "metadata": {"name": name, "labels": {HOST: name, ZONE: format!("zone-{zone}")}},
        "status": {"capacity": room, "allocatable": room, "conditions": [ready]},
    })
}

/// Makes pods that wait: `plain`, or with the required `affinity` of a zone or `anti-affinity` of a node.
pub(crate) async fn waiting(clients: Vec<Client>, kind: &str, count: usize) -> Result<()> {
    account(clients.first().context("no clients")?).await?;
    let affinity = affinity(kind)?;
    let numbers = stream::iter((0..count).zip(clients.iter().cycle()));
    let made = numbers.map(|(at, client)| {
        let pod = pod(&format!("{kind}-{at:05}"), &affinity);
        let api: Api<Pod> = Api::default_namespaced(client.clone());
        async move { anyhow::Ok(api.create(&PostParams::default(), &object(pod)?).await.map(drop)?) }
    });
    made.buffer_unordered(clients.len()).try_for_each(|()| async { Ok(()) }).await
}

fn affinity(kind: &str) -> Result<Value> {
    let alike = |key: &str| json!([{"topologyKey": key, "labelSelector": {"matchLabels": {"app": "bench"}}}]);
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    Ok(match kind {
        "plain" => Value::Null,
        "affinity" => json!({"podAffinity": {required: alike(ZONE)}}),
        "anti-affinity" => json!({"podAntiAffinity": {required: alike(HOST)}}),
        other => bail!("unknown pods {other:?}"),
    })
}

fn pod(name: &str, affinity: &Value) -> Value {
    let requests = json!({"cpu": "100m", "memory": "200Mi"});
    let container = json!({"name": "c", "image": "none", "resources": {"requests": requests}});
    let spec = json!({"automountServiceAccountToken": false, "containers": [container], "affinity": affinity});
    json!({"metadata": {"name": name, "labels": {"app": "bench"}}, "spec": spec})
}

/// Says that it watches, when it saw the first pod bound and when the last of so many.
pub(crate) async fn bound(client: Client, count: usize) -> Result<()> {
    let api: Api<Pod> = Api::default_namespaced(client);
    let version = api.list_metadata(&ListParams::default().limit(1)).await?.metadata.resource_version;
    let pods = WatchParams::default().fields(BOUND);
    let mut events = pin!(api.watch_metadata(&pods, &version.unwrap_or_default()).await?);
    now("watching")?;
    let mut bound = BTreeSet::new();
    while let Some(event) = events.try_next().await? {
        let WatchEvent::Added(pod) = event else { continue };
        bound.insert(pod.metadata.name);
        match bound.len() {
            1 => now("first")?,
            all if all == count => return now("last"),
            _ => {}
        }
    }
    bail!("the watch ended")
}

/// Deletes all pods, without grace.
pub(crate) async fn emptied(client: Client) -> Result<()> {
    let api: Api<Pod> = Api::default_namespaced(client);
    let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    Ok(api.delete_collection(&at_once, &ListParams::default()).await.map(drop)?)
}
