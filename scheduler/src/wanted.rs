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
use reconcile::selector;

use crate::amounts::{self, Amounts};

/// What a pod takes up on its node, and what others see of it there.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Footprint {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    pub generation: Option<i64>,
    pub labels: BTreeMap<String, String>,
    pub priority: i32,
    /// `status.startTime`.
    pub started: Option<Timestamp>,
    pub terminating: bool,
    /// It is terminating because a scheduler preempts it.
    pub preempted: bool,
    pub requested: Amounts,
    /// Cpu and memory as scores count them.
    pub scored_cpu_milli: i64,
    pub scored_memory_bytes: i64,
    pub ports: Vec<HostPort>,
    /// The PersistentVolumeClaims it uses.
    pub claims: Vec<ObjectName>,
    /// The uid of the ReplicaSet, ReplicationController or StatefulSet it belongs to.
    pub owner: Option<String>,
    /// What it says about being near other pods.
    pub near: Near,
}

impl Footprint {
    /// Whether another pod could notice the difference to what it was before.
    pub fn looks_like(&self, before: &Self) -> bool {
        let undated = |f: &Self| Self { started: None, generation: None, ..f.clone() };
        self == before || undated(self) == undated(before)
    }
}

/// A pod's affinity and anti-affinity to other pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Near {
    /// All that it says.
    pub said: Vec<Arc<Said>>,
    /// The pods that all terms of its required affinity are about, if it has any.
    pub attracting: Option<Arc<Group>>,
}

/// One affinity term of a pod.
#[derive(Clone, Debug)]
pub struct Said {
    /// Tells it from others.
    pub text: Arc<str>,
    /// `topologyKey`.
    pub label: String,
    /// The pods that it is about.
    pub about: Arc<Group>,
    /// How much it matters.
    pub force: Force,
}

impl PartialEq for Said {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// How much an affinity term matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Force {
    /// Required affinity.
    Attracts,
    /// Required anti-affinity.
    Repels,
    /// A preference with its weight, below zero for anti-affinity.
    Prefers(i64),
}

impl Near {
    /// What it says with one force.
    pub fn with(&self, force: Force) -> impl Iterator<Item = &Said> {
        self.said.iter().map(Arc::as_ref).filter(move |said| said.force == force)
    }

    /// What it prefers, with weights; what it dislikes weighs below zero.
    pub fn preferred(&self) -> impl Iterator<Item = (&Said, i64)> {
        let weighed = |said: &Said| if let Force::Prefers(weight) = said.force { Some(weight) } else { None };
        self.said.iter().filter_map(move |said| Some((said.as_ref(), weighed(said)?)))
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
    pub group: Option<Arc<Group>>,
}

/// Which pods are counted together, seen from a pod's namespace.
#[derive(Clone, Debug)]
pub struct Group {
    /// Tells it from others.
    pub text: Arc<str>,
    /// The namespace of the pod that counts.
    pub namespace: String,
    /// Which pods.
    pub counts: Counts,
}

impl PartialEq for Group {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Group {
    /// The pods that `counts` names for a pod in `namespace`.
    pub fn new(namespace: &str, counts: Counts) -> Arc<Self> {
        Arc::new(Self { text: format!("{namespace} {counts:?}").into(), namespace: namespace.to_owned(), counts })
    }

    /// Whether a pod is counted. For spreading, one that is being deleted makes room already, and an empty selector
    /// counts none.
    pub fn has(&self, pod: &Footprint, namespaces: &Namespaces) -> bool {
        let counts = match &self.counts {
            Counts::Labels(labels) => !pod.terminating && !selector::is_empty(labels),
            Counts::Owner(_) => !pod.terminating,
            Counts::Terms(_) => true,
        };
        counts && self.describes(pod, namespaces)
    }

    /// Whether what it says is true of a pod.
    pub fn describes(&self, pod: &Footprint, namespaces: &Namespaces) -> bool {
        match &self.counts {
            Counts::Labels(labels) => pod.namespace == self.namespace && selector::matches(labels, Some(&pod.labels)),
            Counts::Owner(uid) => pod.owner.as_ref() == Some(uid),
            Counts::Terms(terms) => terms.iter().all(|term| is_about(term, &self.namespace, pod, namespaces)),
        }
    }
}

/// The labels of namespaces.
pub type Namespaces = BTreeMap<String, BTreeMap<String, String>>;

/// Whether an affinity term of a pod in `namespace` is about another pod: its namespaces are those it names and those
/// its selector finds, or its own if it says nothing.
fn is_about(term: &PodAffinityTerm, namespace: &str, pod: &Footprint, namespaces: &Namespaces) -> bool {
    let named = term.namespaces.as_deref().unwrap_or_default();
    let there = named.contains(&pod.namespace)
        || match &term.namespace_selector {
            None => named.is_empty() && pod.namespace == namespace,
            Some(found) => selector::is_empty(found) || selector::matches(found, namespaces.get(&pod.namespace)),
        };
    there && term.label_selector.as_ref().is_some_and(|s| selector::matches(s, Some(&pod.labels)))
}

/// Which pods are counted.
#[derive(Clone, Debug, PartialEq)]
pub enum Counts {
    /// For a spread constraint: those of the namespace whose labels match, `matchLabelKeys` included.
    Labels(LabelSelector),
    /// For a spread constraint: those of the same owner, as upstream's default constraints count pods of a workload.
    Owner(String),
    /// Those that all these affinity terms are about.
    Terms(Vec<PodAffinityTerm>),
}

/// A pod that is to be placed.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Wanted {
    pub name: ObjectName,
    pub created: Option<Timestamp>,
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
    /// `spec.schedulerName`.
    pub scheduler: String,
    /// The images it runs, as nodes name them.
    pub images: Vec<String>,
    /// All of it that plugins with [`Scope::Node`](crate::plugins::Scope) look at: pods of one shape fit the same nodes.
    pub shape: Arc<str>,
}

impl Wanted {
    /// Reads a pod.
    pub fn of(pod: &Pod) -> Self {
        let none = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&none);
        let footprint = footprint(pod, spec);
        let own: Vec<Spread> = spec.topology_spread_constraints.iter().flatten().map(|c| spread(c, pod)).collect();
        let spread_by_default = own.is_empty();
        let mut wanted = Self {
            name: name_of(&pod.metadata),
            created: pod.metadata.creation_timestamp.as_ref().map(|t| t.0),
            node: spec.node_name.clone().filter(|n| !n.is_empty()),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            nodes: node_choice(spec),
            spread: if spread_by_default { default_spread(&footprint) } else { own },
            spread_by_default,
            gated: spec.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty()),
            never_preempts: spec.preemption_policy.as_deref() == Some("Never"),
            scheduler: spec.scheduler_name.clone().unwrap_or_else(|| crate::SCHEDULER_NAME.to_owned()),
            images: images(spec),
            shape: "".into(),
            footprint: Arc::new(footprint),
        };
        wanted.shape = wanted.shape().into();
        wanted
    }

    fn shape(&self) -> String {
        let Footprint { requested, scored_cpu_milli, scored_memory_bytes, ports, .. } = &*self.footprint;
        let (node, tolerations, nodes, images) = (&self.node, &self.tolerations, &self.nodes, &self.images);
        format!(
            "{requested:?} {scored_cpu_milli} {scored_memory_bytes} {ports:?} {node:?} {tolerations:?} {nodes:?} {images:?}"
        )
    }
}

/// The images of all containers and image volumes, each as often as it is used.
fn images(spec: &PodSpec) -> Vec<String> {
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let volumes = spec.volumes.iter().flatten().filter_map(|v| v.image.as_ref()?.reference.as_deref());
    containers.map(|c| c.image.as_deref().unwrap_or_default()).chain(volumes).map(image_name).collect()
}

/// The name of an image, with the tag that it has when it names none.
fn image_name(image: &str) -> String {
    match image.rfind(':') <= image.rfind('/') {
        true => format!("{image}:latest"),
        false => image.to_owned(),
    }
}

fn footprint(pod: &Pod, spec: &PodSpec) -> Footprint {
    let meta = &pod.metadata;
    let scored = amounts::scored(spec);
    Footprint {
        uid: meta.uid.clone().unwrap_or_default(),
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        generation: meta.generation,
        labels: meta.labels.clone().unwrap_or_default(),
        priority: spec.priority.unwrap_or(0),
        started: pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0),
        terminating: meta.deletion_timestamp.is_some(),
        preempted: meta.deletion_timestamp.is_some() && is_preempted(pod),
        requested: amounts::requested(spec),
        scored_cpu_milli: scored.cpu_milli,
        scored_memory_bytes: scored.memory_bytes,
        ports: host_ports(spec),
        claims: claims(pod, spec),
        owner: owner(pod),
        near: near(spec, meta.namespace.as_deref().unwrap_or_default()),
    }
}

/// The claims that a pod names, and those that are made for it.
fn claims(pod: &Pod, spec: &PodSpec) -> Vec<ObjectName> {
    let meta = &pod.metadata;
    let made = |volume: &str| format!("{}-{volume}", meta.name.as_deref().unwrap_or_default());
    let names = spec.volumes.iter().flatten().filter_map(|volume| match &volume.persistent_volume_claim {
        Some(claim) => Some(claim.claim_name.clone()),
        None => volume.ephemeral.as_ref().map(|_| made(&volume.name)),
    });
    let namespace = meta.namespace.clone().unwrap_or_default();
    names.map(|name| ObjectName { namespace: namespace.clone(), name }).collect()
}

fn owner(pod: &Pod) -> Option<String> {
    let counted = |kind: &str| matches!(kind, "ReplicaSet" | "ReplicationController" | "StatefulSet");
    let owners = pod.metadata.owner_references.iter().flatten();
    owners.filter(|o| o.controller == Some(true) && counted(&o.kind)).map(|o| o.uid.clone()).next()
}

/// A scheduler preempts it, and has said so on the pod.
fn is_preempted(pod: &Pod) -> bool {
    let condition = reconcile::pods::condition(pod, "DisruptionTarget");
    condition.is_some_and(|c| c.status == "True" && c.reason.as_deref() == Some("PreemptionByScheduler"))
}

fn near(spec: &PodSpec, namespace: &str) -> Near {
    let affinity = spec.affinity.clone().unwrap_or_default();
    let to = affinity.pod_affinity.unwrap_or_default();
    let anti = affinity.pod_anti_affinity.unwrap_or_default();
    let attracted = to.required_during_scheduling_ignored_during_execution.unwrap_or_default();
    let attracting = (!attracted.is_empty()).then(|| Group::new(namespace, Counts::Terms(attracted.clone())));
    let required = |terms: Vec<PodAffinityTerm>, force| terms.into_iter().map(move |term| (term, force));
    let weighed = |terms: Option<Vec<WeightedPodAffinityTerm>>, sign: i64| {
        let one = move |w: WeightedPodAffinityTerm| (w.pod_affinity_term, Force::Prefers(sign * i64::from(w.weight)));
        terms.unwrap_or_default().into_iter().map(one)
    };
    let repelled = anti.required_during_scheduling_ignored_during_execution.unwrap_or_default();
    let said = required(attracted, Force::Attracts)
        .chain(required(repelled, Force::Repels))
        .chain(weighed(to.preferred_during_scheduling_ignored_during_execution, 1))
        .chain(weighed(anti.preferred_during_scheduling_ignored_during_execution, -1));
    Near { said: said.map(|(term, force)| say(namespace, term, force)).collect(), attracting }
}

fn say(namespace: &str, term: PodAffinityTerm, force: Force) -> Arc<Said> {
    let label = term.topology_key.clone();
    let about = Group::new(namespace, Counts::Terms(vec![term]));
    Arc::new(Said { text: format!("{force:?} {}", about.text).into(), label, about, force })
}

/// The constraints of pods that have none of their own (`systemDefaultConstraints`): soft, over nodes and zones.
fn default_spread(pod: &Footprint) -> Vec<Spread> {
    let Some(owner) = &pod.owner else { return Vec::new() };
    let group = Group::new(&pod.namespace, Counts::Owner(owner.clone()));
    let constraint = |key: &str, max_skew| Spread {
        key: key.to_owned(),
        max_skew,
        min_domains: 1,
        hard: false,
        honors_affinity: true,
        honors_taints: false,
        group: Some(group.clone()),
    };
    vec![constraint("kubernetes.io/hostname", 3), constraint("topology.kubernetes.io/zone", 5)]
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
        group: with_label_keys(constraint.label_selector.as_ref(), constraint.match_label_keys.as_deref(), pod)
            .map(|labels| Group::new(pod.metadata.namespace.as_deref().unwrap_or_default(), Counts::Labels(labels))),
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
