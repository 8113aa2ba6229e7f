//! The plugins, one file each, in the order in which they are asked. To add one: its file and a line in [`ALL`].

use std::collections::BTreeSet;

use crate::{Candidates, Event, MAX_SCORE, NodeIndex, Snapshot, Wanted};

mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources_balanced_allocation;
mod node_resources_fit;
mod node_unschedulable;
mod pod_topology_spread;
mod taint_toleration;
mod volume_restrictions;

/// One rule of placement. Names, weights and reasons are upstream's.
pub trait Plugin: Sync {
    /// Its name.
    fn name(&self) -> &'static str;

    /// What its verdicts depend on.
    fn scope(&self) -> Scope {
        Scope::Node
    }

    /// The names of the only nodes that are possible, where the pod itself names them.
    fn narrow(&self, _pod: &Wanted) -> Option<BTreeSet<String>> {
        None
    }

    /// Refuses the nodes that are not possible for the pod.
    fn filter(&self, _pod: &Wanted, _snapshot: &Snapshot, _nodes: &mut Candidates) {}

    /// How much its scores count; 0 if it gives none.
    fn weight(&self) -> i64 {
        0
    }

    /// Gives each node a score from 0 to [`MAX_SCORE`], once it is normalized; all of them are zero before. False if it
    /// leaves them so.
    fn score(&self, _pod: &Wanted, _snapshot: &Snapshot, _nodes: &[NodeIndex], _scores: &mut [i64]) -> bool {
        false
    }

    /// For a plugin of [`Scope::Node`] whose scores have a meaning only beside those of the other nodes that fit.
    fn normalize(&self) -> Option<fn(&mut [i64])> {
        None
    }

    /// Whether an event of this kind may help any pod that this plugin refused a node.
    fn heeds(&self, _event: &Event<'_>) -> bool {
        false
    }

    /// Whether an event that it heeds may help a pod that this plugin refused a node. When in doubt it does.
    fn wakes_on(&self, _pod: &Wanted, _event: &Event<'_>) -> bool {
        false
    }
}

/// What a plugin looks at besides the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One node and what runs there: its verdicts about other nodes stay when one changes.
    Node,
    /// All nodes and pods. It normalizes its scores itself.
    Cluster,
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
    &volume_restrictions::VolumeRestrictions,
    &pod_topology_spread::PodTopologySpread,
    &inter_pod_affinity::InterPodAffinity,
    &node_resources_balanced_allocation::NodeResourcesBalancedAllocation,
    &image_locality::ImageLocality,
];

/// Stretches counts so that the highest becomes [`MAX_SCORE`] (`DefaultNormalizeScore`).
fn more_is_better(scores: &mut [i64]) {
    let highest = scores.iter().copied().max().unwrap_or(0).max(1);
    scores.iter_mut().for_each(|score| *score = MAX_SCORE * *score / highest);
}

/// The other way round.
fn less_is_better(scores: &mut [i64]) {
    more_is_better(scores);
    scores.iter_mut().for_each(|score| *score = MAX_SCORE - *score);
}
