//! The node's own object and its heartbeat.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use api::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{
    DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};

use node_plan::pressure::Resource;

use crate::Config;
use crate::agent::Agent;

/// The longest time between two heartbeats, and between two looks at the node's status.
const BEAT: Duration = Duration::from_secs(10);
/// A status without changes is sent this often all the same, in seconds.
const REPORT_S: i64 = 300;
/// Wait after a refused request.
const RETRY: Duration = Duration::from_millis(500);

/// What the machine has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Capacity {
    pub(crate) cpus: usize,
    pub(crate) memory_bytes: i64,
    pub(crate) storage_bytes: u64,
}

impl Capacity {
    pub(crate) fn read(config: &Config) -> Self {
        let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"));
        let kib: i64 = line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse().ok()).unwrap_or(0);
        let disk = rustix::fs::statvfs(&config.data_dir).map(|s| s.f_blocks.saturating_mul(s.f_frsize));
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { cpus, memory_bytes: kib.saturating_mul(1024), storage_bytes: disk.unwrap_or(0) }
    }

    /// As quantities.
    pub(crate) fn amounts(&self, config: &Config) -> BTreeMap<String, String> {
        BTreeMap::from([
            ("cpu".into(), self.cpus.to_string()),
            ("ephemeral-storage".into(), format!("{}Ki", self.storage_bytes / 1024)),
            ("memory".into(), format!("{}Ki", self.memory_bytes / 1024)),
            ("pods".into(), config.max_pods.to_string()),
        ])
    }
}

/// Registers the node and keeps its status true.
pub(crate) async fn keep(agent: Arc<Agent>) {
    let (mut network, mut pressure) = (agent.network.clone(), agent.pressure.subscribe());
    agent.recorder.node(false, "Starting", "Starting kubelet.");
    let mut refused = false;
    loop {
        match report(&agent).await {
            Ok(()) => {
                refused = false;
                tokio::select! {
                    () = tokio::time::sleep(BEAT) => {}
                    Ok(()) = pressure.changed() => {}
                    changed = network.changed() => if changed.is_err() {
                        tokio::time::sleep(BEAT).await;
                    },
                }
            }
            Err(error) => {
                // Said once, not twice a second.
                if !std::mem::replace(&mut refused, true) {
                    tracing::warn!(%error, "the node's status was refused; trying again");
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn report(agent: &Agent) -> Result<(), kube::Error> {
    let api: Api<Node> = Api::all(agent.client.clone());
    let mut own = object(agent);
    let found = match api.get_opt(&agent.config.node_name).await? {
        Some(found) => found,
        None => {
            let made = create(&api, &own).await?;
            agent.recorder.node(false, "RegisteredNode", "Node registered itself.");
            made
        }
    };
    relabel(&api, &found, &own).await?;
    let before = found.status.clone().unwrap_or_default();
    let status = own.status.get_or_insert_default();
    keep_times(status, &before);
    *agent.object.write() = Some(found.clone());
    if same(status, &before) {
        return Ok(());
    }
    let patch = serde_json::json!({"status": status});
    let answer = api.patch_status(&agent.config.node_name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
    *agent.object.write() = Some(answer);
    Ok(())
}

async fn create(api: &Api<Node>, own: &Node) -> Result<Node, kube::Error> {
    match api.create(&PostParams::default(), own).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {
            api.get(own.metadata.name.as_deref().unwrap_or_default()).await
        }
        made => made,
    }
}

/// Labels of ours that are missing or differ are set; others are left alone.
async fn relabel(api: &Api<Node>, found: &Node, own: &Node) -> Result<(), kube::Error> {
    let there = found.metadata.labels.clone().unwrap_or_default();
    let wanted = own.metadata.labels.clone().unwrap_or_default();
    if wanted.iter().all(|(key, value)| there.get(key) == Some(value)) {
        return Ok(());
    }
    let patch = serde_json::json!({"metadata": {"labels": wanted}});
    let name = own.metadata.name.as_deref().unwrap_or_default();
    api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
}

/// A condition that has not changed keeps the time of its last change.
fn keep_times(status: &mut NodeStatus, before: &NodeStatus) {
    for condition in status.conditions.iter_mut().flatten() {
        let old = before.conditions.iter().flatten().find(|c| c.type_ == condition.type_);
        if let Some(old) = old.filter(|c| c.status == condition.status) {
            condition.last_transition_time = old.last_transition_time.clone();
        }
    }
}

/// Nothing worth a write: all is as it was, and the last heartbeat is not old.
fn same(next: &NodeStatus, before: &NodeStatus) -> bool {
    let plain = |status: &NodeStatus| {
        let mut status = status.clone();
        status.images = None;
        status.conditions.iter_mut().flatten().for_each(|c| c.last_heartbeat_time = None);
        status.conditions.iter_mut().for_each(|list| list.sort_by(|a, b| a.type_.cmp(&b.type_)));
        (
            status.conditions,
            status.addresses,
            status.capacity,
            status.allocatable,
            status.node_info,
            status.daemon_endpoints,
        )
    };
    let beat =
        before.conditions.iter().flatten().find(|c| c.type_ == "Ready").and_then(|c| c.last_heartbeat_time.clone());
    let fresh = beat.is_some_and(|at| Timestamp::now().duration_since(at.0).as_secs() < REPORT_S);
    fresh && plain(next) == plain(before)
}

/// The node's object as it should be.
pub(crate) fn object(agent: &Agent) -> Node {
    let config = &agent.config;
    let mut labels = config.labels.clone();
    for (key, value) in [("hostname", config.node_name.as_str()), ("os", "linux"), ("arch", architecture())] {
        labels.insert(format!("kubernetes.io/{key}"), value.into());
    }
    Node {
        metadata: ObjectMeta { labels: Some(labels), name: Some(config.node_name.clone()), ..ObjectMeta::default() },
        status: Some(status(agent)),
        ..Node::default()
    }
}

/// The architecture in Go's words.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn status(agent: &Agent) -> NodeStatus {
    let config = &agent.config;
    let amounts: BTreeMap<String, Quantity> =
        agent.allocatable.iter().map(|(k, v)| (k.clone(), Quantity(v.clone()))).collect();
    let mut addresses: Vec<NodeAddress> =
        config.node_ips.iter().map(|ip| NodeAddress { address: ip.to_string(), type_: "InternalIP".into() }).collect();
    addresses.push(NodeAddress { address: config.node_name.clone(), type_: "Hostname".into() });
    NodeStatus {
        addresses: Some(addresses),
        allocatable: Some(amounts.clone()),
        capacity: Some(amounts),
        conditions: Some(conditions(agent.network.borrow().is_some(), &agent.pressure.borrow())),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(config.listen.port()) }),
        }),
        node_info: Some(info(config)),
        ..NodeStatus::default()
    }
}

fn conditions(network: bool, short: &[Resource]) -> Vec<NodeCondition> {
    let now = Some(Time(Timestamp::now()));
    let condition = |kind: &str, status: bool, reason: &str, message: &str| NodeCondition {
        last_heartbeat_time: now.clone(),
        last_transition_time: now.clone(),
        message: Some(message.into()),
        reason: Some(reason.into()),
        status: if status { "True" } else { "False" }.into(),
        type_: kind.into(),
    };
    let no_network = "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:the node has no pod range yet";
    vec![
        match short.contains(&Resource::Memory) {
            false => condition(
                "MemoryPressure",
                false,
                "KubeletHasSufficientMemory",
                "kubelet has sufficient memory available",
            ),
            true => condition(
                "MemoryPressure",
                true,
                "KubeletHasInsufficientMemory",
                "kubelet has insufficient memory available",
            ),
        },
        match short.contains(&Resource::Disk) {
            false => condition("DiskPressure", false, "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            true => condition("DiskPressure", true, "KubeletHasDiskPressure", "kubelet has disk pressure"),
        },
        condition("PIDPressure", false, "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        match network {
            true => condition("Ready", true, "KubeletReady", "kubelet is posting ready status"),
            false => condition("Ready", false, "KubeletNotReady", no_network),
        },
    ]
}

fn info(config: &Config) -> NodeSystemInfo {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let release = read("/etc/os-release");
    let name = release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).map(|n| n.trim_matches('"').to_owned());
    NodeSystemInfo {
        architecture: architecture().into(),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: format!("trimtab://{}", env!("CARGO_PKG_VERSION")),
        kernel_version: read("/proc/sys/kernel/osrelease"),
        kube_proxy_version: String::new(),
        kubelet_version: config.version.clone(),
        machine_id: read("/etc/machine-id"),
        operating_system: "linux".into(),
        os_image: name.unwrap_or_else(|| "Linux".into()),
        system_uuid: read("/sys/class/dmi/id/product_uuid"),
        ..NodeSystemInfo::default()
    }
}

/// Renews the node's lease: late beats make the control plane think that the node is dead, so nothing else is done here.
pub(crate) async fn heartbeat(agent: Arc<Agent>) {
    let api: Api<Lease> = Api::namespaced(agent.client.clone(), "kube-node-lease");
    let quarter = Duration::from_millis(agent.config.grace_seconds.saturating_mul(250));
    let period = quarter.clamp(Duration::from_secs(1), BEAT);
    let mut timer = tokio::time::interval(period);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        while let Err(error) = tokio::time::timeout(period, beat(&agent, &api)).await.unwrap_or(Ok(())) {
            tracing::debug!(%error, "the heartbeat was refused");
            tokio::time::sleep(RETRY).await;
        }
    }
}

async fn beat(agent: &Agent, api: &Api<Lease>) -> Result<(), kube::Error> {
    let name = &agent.config.node_name;
    let seconds = i32::try_from(agent.config.grace_seconds).unwrap_or(40);
    let spec = LeaseSpec {
        holder_identity: Some(name.clone()),
        lease_duration_seconds: Some(seconds),
        renew_time: Some(MicroTime(Timestamp::now())),
        ..LeaseSpec::default()
    };
    let patch = serde_json::json!({"spec": spec});
    match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let metadata = ObjectMeta {
                name: Some(name.clone()),
                namespace: Some("kube-node-lease".into()),
                owner_references: owner(agent).map(|o| vec![o]),
                ..ObjectMeta::default()
            };
            api.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) }).await.map(drop)
        }
        answer => answer.map(drop),
    }
}

fn owner(agent: &Agent) -> Option<OwnerReference> {
    let uid = agent.object.read().as_ref()?.metadata.uid.clone()?;
    let name = agent.config.node_name.clone();
    Some(OwnerReference { api_version: "v1".into(), kind: "Node".into(), name, uid, ..OwnerReference::default() })
}
