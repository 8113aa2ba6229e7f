//! NodeResourcesBalancedAllocation: cpu and memory of a node shall be used up alike.

use crate::{MAX_SCORE, NodeIndex, Plugin, Snapshot, Wanted};

pub(super) struct NodeResourcesBalancedAllocation;

/// How close the used parts of two resources are to each other.
fn balance(used: [i64; 2], all: [i64; 2]) -> i64 {
    let part = |used: i64, all: i64| (used as f64 / all as f64).min(1.0);
    let deviation = match (used, all) {
        (_, [0, _] | [_, 0]) => 0.0,
        ([a, b], [all_a, all_b]) => ((part(a, all_a) - part(b, all_b)) / 2.0).abs(),
    };
    ((1.0 - deviation) * MAX_SCORE as f64) as i64
}

impl Plugin for NodeResourcesBalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn weight(&self) -> i64 {
        1
    }

    fn score(&self, pod: &Wanted, snapshot: &Snapshot, nodes: &[NodeIndex], scores: &mut [i64]) -> bool {
        let wanted = &pod.footprint.requested;
        if wanted.cpu_milli == 0 && wanted.memory_bytes == 0 {
            return false;
        }
        for (score, node) in scores.iter_mut().zip(nodes) {
            let all = [snapshot.cpu.allocatable(*node), snapshot.memory.allocatable(*node)];
            let [cpu, memory] = [snapshot.cpu.used(*node), snapshot.memory.used(*node)];
            let without = balance([cpu, memory], all);
            let with = balance([cpu + wanted.cpu_milli, memory + wanted.memory_bytes], all);
            *score = MAX_SCORE / 2 + (MAX_SCORE / 2 + with - without) / 2;
        }
        true
    }
}
