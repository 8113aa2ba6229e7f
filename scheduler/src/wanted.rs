//! What a pod wants of a node, read once when the pod changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{ObjectName, Timestamp};
use k8s_openapi::api::core::v1::{
    NodeSelectorTerm, Pod, PodAffinityTerm, PodSpec, PreferredSchedulingTerm, Toleration, TopologySpreadConstraint,
    WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use reconcile::resource::name_of;

use crate::amounts::{self, Amounts};

/// What a pod takes up on its node, and what others see of it there.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Footprint {
    pub uid: String,
    pub namespace: String,
    pub labels: BTreeMap<String, String>,
    pub priority: i32,
    pub terminating: bool,
    pub requested: Amounts,
    /// Cpu and memory as scores count them.
    pub scored_cpu_milli: i64,
    pub scored_memory_bytes: i64,
    pub ports: Vec<HostPort>,
    /// The uid of the ReplicaSet, ReplicationController or StatefulSet it belongs to.
    pub owner: Option<String>,
    /// What it says about being near other pods.
    pub near: Near,
}

/// A pod's affinity and anti-affinity to other pods.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Near {
    pub attracted: Vec<PodAffinityTerm>,
    pub repelled: Vec<PodAffinityTerm>,
    pub likes: Vec<WeightedPodAffinityTerm>,
    pub dislikes: Vec<WeightedPodAffinityTerm>,
}

impl Near {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.attracted.is_empty() && self.repelled.is_empty() && self.likes.is_empty() && self.dislikes.is_empty()
    }

    /// What it prefers, with weights; what it dislikes weighs below zero.
    pub fn preferred(&self) -> impl Iterator<Item = (&PodAffinityTerm, i64)> {
        let likes = self.likes.iter().map(|w| (&w.pod_affinity_term, i64::from(w.weight)));
        likes.chain(self.dislikes.iter().map(|w| (&w.pod_affinity_term, -i64::from(w.weight))))
    }

    /// All its terms.
    pub fn terms(&self) -> impl Iterator<Item = &PodAffinityTerm> {
        self.attracted.iter().chain(&self.repelled).chain(self.preferred().map(|(term, _)| term))
    }
}

/// A port of the node itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct HostPort {
    /// `0.0.0.0` is every address.
    pub address: String,
    pub protocol: String,
    pub port: i32,
}

impl HostPort {
    /// Whether both cannot be had on one node.
    pub fn conflicts(&self, other: &Self) -> bool {
        let everywhere = |p: &Self| p.address == "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.address == other.address || everywhere(self) || everywhere(other))
    }
}

/// Which nodes a pod may run on and which it likes best.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct NodeChoice {
    pub labels: BTreeMap<String, String>,
    /// One of them must match; none may be given at all.
    pub required: Option<Vec<NodeSelectorTerm>>,
    pub preferred: Vec<PreferredSchedulingTerm>,
}

/// A topology spread constraint.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Spread {
    pub key: String,
    pub max_skew: i32,
    pub min_domains: i32,
    /// DoNotSchedule rather than ScheduleAnyway.
    pub hard: bool,
    pub honors_affinity: bool,
    pub honors_taints: bool,
    /// Which pods are counted; nothing counts none.
    pub counts: Option<Counts>,
}

/// Which pods are counted, seen from a pod's namespace.
#[derive(Clone, Debug, PartialEq)]
pub enum Counts {
    /// For a spread constraint: those of the namespace whose labels match, `matchLabelKeys` included.
    Labels(LabelSelector),
    /// For a spread constraint: those of the same owner, as upstream's default constraints count pods of a workload.
    Owner(String),
    /// Those that an affinity term is about.
    Term(Box<PodAffinityTerm>),
}

/// A pod that is to be placed.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Wanted {
    pub name: ObjectName,
    pub created: Option<Timestamp>,
    pub generation: Option<i64>,
    pub footprint: Arc<Footprint>,
    /// `spec.nodeName`: it is placed.
    pub node: Option<String>,
    pub tolerations: Vec<Toleration>,
    pub nodes: NodeChoice,
    pub spread: Vec<Spread>,
    /// The constraints are not the pod's own but the default ones: nodes without a zone count too.
    pub spread_by_default: bool,
    pub gated: bool,
    pub never_preempts: bool,
}

impl Wanted {
    /// Reads a pod.
    pub fn of(pod: &Pod) -> Self {
        let none = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&none);
        let footprint = footprint(pod, spec);
        let own: Vec<Spread> = spec.topology_spread_constraints.iter().flatten().map(|c| spread(c, pod)).collect();
        let spread_by_default = own.is_empty();
        Self {
            name: name_of(&pod.metadata),
            created: pod.metadata.creation_timestamp.as_ref().map(|t| t.0),
            generation: pod.metadata.generation,
            node: spec.node_name.clone().filter(|n| !n.is_empty()),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            nodes: node_choice(spec),
            spread: if spread_by_default { default_spread(footprint.owner.as_ref()) } else { own },
            spread_by_default,
            gated: spec.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty()),
            never_preempts: spec.preemption_policy.as_deref() == Some("Never"),
            footprint: Arc::new(footprint),
        }
    }
}

fn footprint(pod: &Pod, spec: &PodSpec) -> Footprint {
    let meta = &pod.metadata;
    let scored = amounts::scored(spec);
    Footprint {
        uid: meta.uid.clone().unwrap_or_default(),
        namespace: meta.namespace.clone().unwrap_or_default(),
        labels: meta.labels.clone().unwrap_or_default(),
        priority: spec.priority.unwrap_or(0),
        terminating: meta.deletion_timestamp.is_some(),
        requested: amounts::requested(spec),
        scored_cpu_milli: scored.cpu_milli,
        scored_memory_bytes: scored.memory_bytes,
        ports: host_ports(spec),
        owner: owner(pod),
        near: near(spec),
    }
}

fn owner(pod: &Pod) -> Option<String> {
    let counted = |kind: &str| matches!(kind, "ReplicaSet" | "ReplicationController" | "StatefulSet");
    let owners = pod.metadata.owner_references.iter().flatten();
    owners.filter(|o| o.controller == Some(true) && counted(&o.kind)).map(|o| o.uid.clone()).next()
}

fn near(spec: &PodSpec) -> Near {
    let affinity = spec.affinity.clone().unwrap_or_default();
    let to = affinity.pod_affinity.unwrap_or_default();
    let anti = affinity.pod_anti_affinity.unwrap_or_default();
    Near {
        attracted: to.required_during_scheduling_ignored_during_execution.unwrap_or_default(),
        repelled: anti.required_during_scheduling_ignored_during_execution.unwrap_or_default(),
        likes: to.preferred_during_scheduling_ignored_during_execution.unwrap_or_default(),
        dislikes: anti.preferred_during_scheduling_ignored_during_execution.unwrap_or_default(),
    }
}

/// The constraints of pods that have none of their own (`systemDefaultConstraints`): soft, over nodes and zones.
fn default_spread(owner: Option<&String>) -> Vec<Spread> {
    let constraint = |key: &str, max_skew| Spread {
        key: key.to_owned(),
        max_skew,
        min_domains: 1,
        hard: false,
        honors_affinity: true,
        honors_taints: false,
        counts: owner.cloned().map(Counts::Owner),
    };
    match owner {
        Some(_) => vec![constraint("kubernetes.io/hostname", 3), constraint("topology.kubernetes.io/zone", 5)],
        None => Vec::new(),
    }
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    let taken = ports.filter_map(|p| {
        let port = p.host_port.filter(|port| *port > 0)?;
        let address = p.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".to_owned());
        Some(HostPort { address, protocol: p.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), port })
    });
    taken.collect()
}

fn node_choice(spec: &PodSpec) -> NodeChoice {
    let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.clone()).unwrap_or_default();
    let required = affinity.required_during_scheduling_ignored_during_execution;
    NodeChoice {
        labels: spec.node_selector.clone().unwrap_or_default(),
        required: required.map(|r| r.node_selector_terms),
        preferred: affinity.preferred_during_scheduling_ignored_during_execution.unwrap_or_default(),
    }
}

fn spread(constraint: &TopologySpreadConstraint, pod: &Pod) -> Spread {
    Spread {
        key: constraint.topology_key.clone(),
        max_skew: constraint.max_skew,
        min_domains: constraint.min_domains.unwrap_or(1),
        hard: constraint.when_unsatisfiable == "DoNotSchedule",
        honors_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
        honors_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        counts: with_label_keys(constraint.label_selector.as_ref(), constraint.match_label_keys.as_deref(), pod)
            .map(Counts::Labels),
    }
}

/// Adds the pod's own values of `keys` to a selector.
fn with_label_keys(selector: Option<&LabelSelector>, keys: Option<&[String]>, pod: &Pod) -> Option<LabelSelector> {
    let mut selector = selector?.clone();
    let labels = pod.metadata.labels.as_ref();
    for key in keys.into_iter().flatten() {
        if let Some(value) = labels.and_then(|l| l.get(key)) {
            let (key, operator, values) = (key.clone(), "In".to_owned(), Some(vec![value.clone()]));
            let requirement = LabelSelectorRequirement { key, operator, values };
            selector.match_expressions.get_or_insert_default().push(requirement);
        }
    }
    Some(selector)
}
