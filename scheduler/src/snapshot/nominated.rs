//! Pods that wait for room on a node where others were preempted for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Snapshot;
use crate::{Footprint, NodeIndex};

impl Snapshot {
    /// Expects a waiting pod on a node, or no longer anywhere.
    pub fn nominate(&mut self, pod: &Arc<Footprint>, node: Option<&str>) {
        match node {
            Some(node) => drop(self.nominated.insert(pod.uid.clone(), (node.into(), pod.clone()))),
            None => drop(self.nominated.remove(&pod.uid)),
        }
    }

    /// A waiting pod is placed or gone.
    pub fn denominate(&mut self, uid: &str) {
        self.nominated.remove(uid);
    }

    /// Where a waiting pod is expected.
    pub fn nomination(&self, uid: &str) -> Option<&str> {
        self.nominated.get(uid).map(|(node, _)| &**node)
    }

    /// The pods that are expected on a node.
    pub fn nominated_on(&self, node: &str) -> impl Iterator<Item = &Arc<Footprint>> {
        self.nominated.values().filter(move |(there, _)| **there == *node).map(|(_, pod)| pod)
    }

    /// The pods that another one has to leave room for, by node: those expected there that are as important or more.
    pub fn ahead_of(&self, pod: &Footprint) -> BTreeMap<NodeIndex, Vec<Arc<Footprint>>> {
        let mut ahead: BTreeMap<NodeIndex, Vec<Arc<Footprint>>> = BTreeMap::new();
        for (node, other) in self.nominated.values() {
            if let Some(at) = self.index_of(node)
                && other.priority >= pod.priority
                && other.uid != pod.uid
            {
                ahead.entry(at).or_default().push(other.clone());
            }
        }
        ahead
    }
}
