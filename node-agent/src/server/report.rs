//! What the node knows of its pods: their objects, and what they use.

use std::path::PathBuf;
use std::sync::Arc;

use http::{Response, StatusCode};
use k8s_openapi::api::core::v1::Pod;
use runtime_core::pod::{Shim, Stats};
use serde_json::{Value, json};

use super::{Body, text};
use crate::agent::Agent;
use crate::paths::PodPaths;
use crate::{blocking, chain};

fn json_body(value: &Value) -> Response<Body> {
    let mut response = text(StatusCode::OK, value.to_string());
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

/// `/pods`.
pub(super) fn pods(agent: &Agent) -> Response<Body> {
    let items: Vec<Value> = agent.pods.borrow().values().filter_map(|p| serde_json::to_value(&**p).ok()).collect();
    json_body(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

/// `/stats/summary`, as far as cgroups tell it.
pub(super) async fn summary(agent: &Arc<Agent>) -> Response<Body> {
    let pods: Vec<Arc<Pod>> = agent.pods.borrow().values().cloned().collect();
    let places: Vec<(Arc<Pod>, PathBuf)> =
        pods.into_iter().map(|pod| (pod.clone(), PodPaths::of(&agent.config, &pod).run)).collect();
    let gathered = blocking(move || Ok(places.iter().filter_map(|(pod, run)| of_pod(pod, run)).collect::<Vec<_>>()));
    let pods = gathered.await.unwrap_or_default();
    let now = api::Timestamp::now();
    json_body(&json!({
        "node": {"nodeName": agent.config.node_name, "memory": {"time": now, "availableBytes": available()}},
        "pods": pods,
    }))
}

fn available() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"));
    line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn of_pod(pod: &Pod, run: &std::path::Path) -> Option<Value> {
    let shim = Shim::adopt(run).ok()?;
    let list = shim.containers().ok()?;
    let containers: Vec<Value> = list
        .iter()
        .filter(|c| c.exit.is_none())
        .filter_map(|c| {
            let stats = shim.stats(Some(&c.id)).inspect_err(|e| tracing::debug!(error = chain(e), "stats")).ok()?;
            let name = c.id.rsplit_once('-').map_or(c.id.as_str(), |(name, _)| name);
            Some(merged(json!({"name": name}), &stats))
        })
        .collect();
    let meta = &pod.metadata;
    let whole = json!({
        "podRef": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid},
        "startTime": pod.status.as_ref().and_then(|s| s.start_time.clone()),
        "containers": containers,
    });
    Some(merged(whole, &shim.stats(None).ok()?))
}

fn merged(mut value: Value, stats: &Stats) -> Value {
    let now = api::Timestamp::now();
    if let Value::Object(map) = &mut value {
        map.insert("cpu".into(), json!({"time": now, "usageCoreNanoSeconds": stats.cpu_usage_ns}));
        map.insert(
            "memory".into(),
            json!({"time": now, "usageBytes": stats.memory_usage_bytes, "workingSetBytes": stats.memory_working_set_bytes}),
        );
    }
    value
}

/// `/metrics`: how many pods there are.
pub(super) fn metrics(agent: &Agent) -> Response<Body> {
    let count = agent.pods.borrow().len();
    let lines = format!(
        "# HELP kubelet_desired_pods The number of pods bound to the node\n# TYPE kubelet_desired_pods gauge\nkubelet_desired_pods {count}\n"
    );
    text(StatusCode::OK, lines)
}
