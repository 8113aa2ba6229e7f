//! ImageLocality: nodes that have a pod's images already are better, the more so the larger the images are.

use std::sync::Arc;

use crate::{MAX_SCORE, NodeIndex, Plugin, Snapshot, Wanted};

/// Below this images do not matter.
const LEAST_BYTES: i64 = 23 << 20;
/// Beyond this, for each image of the pod, more does not matter.
const MOST_BYTES: i64 = 1000 << 20;

pub(super) struct ImageLocality;

/// How many bytes of the pod's images a node has. One that few nodes have counts less, or all pods of a workload would
/// go to the first node that pulled it.
fn present(pod: &Wanted, snapshot: &Snapshot, has: &[(Arc<str>, i64)]) -> i64 {
    let spread = |image: &str| snapshot.nodes_with_image(image) as f64 / snapshot.len() as f64;
    let bytes = |image: &String| {
        let (_, bytes) = has.iter().find(|(name, _)| **name == **image)?;
        Some((*bytes as f64 * spread(image)) as i64)
    };
    pod.images.iter().filter_map(bytes).sum()
}

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn weight(&self) -> i64 {
        1
    }

    fn score(&self, pod: &Wanted, snapshot: &Snapshot, nodes: &[NodeIndex], scores: &mut [i64]) -> bool {
        if pod.images.iter().all(|image| snapshot.nodes_with_image(image) == 0) {
            return false;
        }
        let most = MOST_BYTES * pod.images.len() as i64;
        for (score, node) in scores.iter_mut().zip(nodes) {
            let bytes = snapshot.node(*node).map_or(0, |n| present(pod, snapshot, &n.images));
            *score = MAX_SCORE * (bytes.clamp(LEAST_BYTES, most) - LEAST_BYTES) / (most - LEAST_BYTES);
        }
        true
    }
}
