//! Which nodes shall have a pod, and which have one.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, Toleration,
};
use reconcile::effect::reference;
use reconcile::resource::name_of;
use reconcile::{Effect, Outcome, Timestamp, World, pods};
use serde_json::{Value, json};

use super::update;
use crate::history::REVISION;
use crate::{placement, podset};

/// How long a failed pod stays before another takes its place.
const FAILED_STAYS: SignedDuration = SignedDuration::from_secs(10);

/// One node and the pods of the set on it, the oldest first.
pub(super) struct Place<'a> {
    pub(super) name: &'a str,
    pub(super) should_run: bool,
    pub(super) may_stay: bool,
    pub(super) pods: Vec<&'a Pod>,
}

/// All nodes, and the pods that belong to none.
pub(super) struct Places<'a> {
    pub(super) nodes: Vec<Place<'a>>,
    lost: Vec<&'a Pod>,
    world: &'a World,
}

impl<'a> Places<'a> {
    pub(super) fn new(world: &'a World, ds: &DaemonSet, pods: Vec<&'a Pod>) -> Self {
        let mut by_node: BTreeMap<String, Vec<&'a Pod>> = BTreeMap::new();
        let mut lost = Vec::new();
        for pod in pods.into_iter().filter(|p| !(pods::is_deleting(p) && pods::is_terminal(p))) {
            match node_of(pod) {
                Some(node) => by_node.entry(node.into()).or_default().push(pod),
                None => lost.push(pod),
            }
        }
        let mut nodes: Vec<Place<'a>> = world.list::<Node>().map(|n| place(ds, n, &mut by_node)).collect();
        nodes.sort_by_key(|p| p.name);
        // A pod that is bound to a node that is gone is the pod collector's; one that never was bound is ours.
        lost.extend(by_node.into_values().flatten().filter(|p| pods::node(p).is_none()));
        Self { nodes, lost, world }
    }
}

fn place<'a>(ds: &DaemonSet, node: &'a Node, by_node: &mut BTreeMap<String, Vec<&'a Pod>>) -> Place<'a> {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let mut pods = by_node.remove(name).unwrap_or_default();
    pods.sort_by_key(|p| {
        (pods::node(p).is_none(), p.metadata.creation_timestamp.clone().map(|t| t.0), p.metadata.name.clone())
    });
    let (should_run, may_stay) = fits(ds, node);
    Place { name, should_run, may_stay, pods }
}

/// Whether a new pod belongs on a node, and whether one that is there may stay.
fn fits(ds: &DaemonSet, node: &Node) -> (bool, bool) {
    let Some(spec) = ds.spec.template.spec.as_ref() else { return (false, false) };
    if !placement::chooses(spec, node) {
        return (false, false);
    }
    let tolerations = tolerations(ds);
    let refused = |effect: &str| {
        placement::taints(node).iter().any(|t| t.effect == effect && !placement::tolerated(&tolerations, t))
    };
    (!refused("NoSchedule") && !refused("NoExecute"), !refused("NoExecute"))
}

/// The node that a pod is on, or is made for.
fn node_of(pod: &Pod) -> Option<&str> {
    pods::node(pod).or_else(|| {
        let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
        let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
        let mut fields = required.node_selector_terms.iter().flat_map(|t| t.match_fields.iter().flatten());
        fields.find(|f| f.key == "metadata.name")?.values.as_ref()?.first().map(String::as_str)
    })
}

fn tolerations(ds: &DaemonSet) -> Vec<Toleration> {
    let spec = ds.spec.template.spec.as_ref();
    let mut list = spec.and_then(|s| s.tolerations.clone()).unwrap_or_default();
    let host = spec.and_then(|s| s.host_network) == Some(true);
    let extra = [
        ("node.kubernetes.io/not-ready", "NoExecute", true),
        ("node.kubernetes.io/unreachable", "NoExecute", true),
        ("node.kubernetes.io/disk-pressure", "NoSchedule", true),
        ("node.kubernetes.io/memory-pressure", "NoSchedule", true),
        ("node.kubernetes.io/pid-pressure", "NoSchedule", true),
        ("node.kubernetes.io/unschedulable", "NoSchedule", true),
        ("node.kubernetes.io/network-unavailable", "NoSchedule", host),
    ];
    for (key, effect, _) in extra.into_iter().filter(|(_, _, always)| *always) {
        let new = Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            effect: Some(effect.into()),
            ..Toleration::default()
        };
        if !list.contains(&new) {
            list.push(new);
        }
    }
    list
}

/// A pod for one node: pinned there by affinity, so that the scheduler still has its say about resources.
pub(super) fn pod(ds: &DaemonSet, node: &str, hash: &str) -> Value {
    let mut template = ds.spec.template.clone();
    let spec = template.spec.get_or_insert_default();
    spec.tolerations = Some(tolerations(ds));
    let pin =
        NodeSelectorRequirement { key: "metadata.name".into(), operator: "In".into(), values: Some(vec![node.into()]) };
    let term = NodeSelectorTerm { match_fields: Some(vec![pin]), match_expressions: None };
    let affinity = spec.affinity.get_or_insert_with(Affinity::default);
    let required = NodeSelector { node_selector_terms: vec![term] };
    let node_affinity = affinity.node_affinity.get_or_insert_with(NodeAffinity::default);
    node_affinity.required_during_scheduling_ignored_during_execution = Some(required);
    let mut pod = podset::from_template(ds, ds.metadata.name.as_deref().unwrap_or_default(), &template);
    pod["metadata"]["labels"][REVISION] = json!(hash);
    let generation = ds.metadata.annotations.as_ref().and_then(|a| a.get("deprecated.daemonset.template.generation"));
    if let Some(generation) = generation {
        pod["metadata"]["labels"]["pod-template-generation"] = json!(generation);
    }
    pod
}

/// Brings every node to one pod where one belongs and none where not.
pub(super) fn manage(
    ds: &DaemonSet,
    places: &Places<'_>,
    hash: &str,
    now: Timestamp,
    outcome: &mut Outcome<Effect>,
) -> Vec<Effect> {
    let (mut create, mut delete) = (Vec::new(), Vec::new());
    for place in &places.nodes {
        if place.should_run && place.pods.is_empty() {
            create.push(podset::create(ds, pod(ds, place.name, hash)));
        } else if place.may_stay {
            let running = living(ds, places, place, now, &mut delete, outcome);
            if place.should_run && running.is_empty() && update::max_surge(ds, places) > 0 {
                create.push(podset::create(ds, pod(ds, place.name, hash)));
            }
            delete.extend(update::excess(ds, places, running, hash, now).into_iter().map(|p| podset::delete(ds, p)));
        } else {
            let there = place.pods.iter().filter(|p| !pods::is_deleting(p));
            delete.extend(there.map(|p| podset::delete(ds, p)));
        }
    }
    let lost = places.lost.iter().filter(|p| !pods::is_deleting(p));
    delete.extend(lost.map(|p| podset::delete(ds, p)));
    create.extend(delete);
    create
}

/// The pods of a node that run or will; ended ones are deleted.
fn living<'a>(
    ds: &DaemonSet,
    places: &Places<'a>,
    place: &Place<'a>,
    now: Timestamp,
    delete: &mut Vec<Effect>,
    outcome: &mut Outcome<Effect>,
) -> Vec<&'a Pod> {
    let mut running = Vec::new();
    for pod in place.pods.iter().copied().filter(|p| !pods::is_deleting(p)) {
        let name = name_of(&pod.metadata);
        let changed = places.world.changed_at(&reconcile::Resource::of::<Pod>(), &name).unwrap_or(now);
        let due = changed.saturating_add(FAILED_STAYS).unwrap_or(now);
        match pods::phase(pod) {
            "Failed" if due > now => outcome.wake(due),
            "Failed" => {
                let message = format!("Found failed daemon pod {name} on node {}, will try to kill it", place.name);
                outcome.effect(Effect::warning(reference(ds), "FailedDaemonPod", message));
                delete.push(podset::delete(ds, pod));
            }
            "Succeeded" => {
                let message =
                    format!("Found succeeded daemon pod {name} on node {}, will try to delete it", place.name);
                outcome.effect(Effect::normal(reference(ds), "SucceededDaemonPod", message));
                delete.push(podset::delete(ds, pod));
            }
            _ => running.push(pod),
        }
    }
    running
}
