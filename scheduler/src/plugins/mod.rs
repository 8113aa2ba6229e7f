//! The plugins, one file each, in the order in which they are asked. To add one: its file and a line in [`ALL`].

use crate::{Candidates, Event, MAX_SCORE, NodeIndex, Snapshot, Wanted};

mod inter_pod_affinity;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources_balanced_allocation;
mod node_resources_fit;
mod node_unschedulable;
mod pod_topology_spread;
mod taint_toleration;

/// One rule of placement. Names, weights and reasons are upstream's.
pub trait Plugin: Sync {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Refuses the nodes that are not possible for the pod.
    fn filter(&self, _pod: &Wanted, _snapshot: &Snapshot, _nodes: &mut Candidates) {}

    /// How much its scores count; 0 if it gives none.
    fn weight(&self) -> i64 {
        0
    }

    /// Gives each node a score from 0 to [`MAX_SCORE`]; false if it has nothing to say about this pod.
    fn score(&self, _pod: &Wanted, _snapshot: &Snapshot, _nodes: &[NodeIndex], _scores: &mut [i64]) -> bool {
        false
    }

    /// Whether an event may help a pod that this plugin refused a node. When in doubt it does.
    fn wakes_on(&self, _pod: &Wanted, _event: &Event<'_>) -> bool {
        false
    }
}

/// A list of plugins.
pub type Plugins = [&'static dyn Plugin];

/// All plugins, as kube-scheduler's default profile has them.
pub static ALL: &Plugins = &[
    &node_name::NodeName,
    &node_unschedulable::NodeUnschedulable,
    &taint_toleration::TaintToleration,
    &node_affinity::NodeAffinity,
    &node_ports::NodePorts,
    &node_resources_fit::NodeResourcesFit,
    &pod_topology_spread::PodTopologySpread,
    &inter_pod_affinity::InterPodAffinity,
    &node_resources_balanced_allocation::NodeResourcesBalancedAllocation,
];

/// Stretches counts so that the highest becomes [`MAX_SCORE`], or the other way round (`DefaultNormalizeScore`).
fn normalize(scores: &mut [i64], reverse: bool) {
    let highest = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let part = if highest == 0 { 0 } else { MAX_SCORE * *score / highest };
        *score = if reverse { MAX_SCORE - part } else { part };
    }
}
