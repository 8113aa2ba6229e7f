//! What can make a pod that fitted nowhere fit: the events that plugins wake it on.

use crate::{Footprint, Node};

/// Something changed in the cluster.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A node joined, or changed from what it was.
    Node {
        /// As it was; nothing if it is new.
        was: Option<&'a Node>,
        /// As it is.
        now: &'a Node,
    },
    /// A pod was placed, or a placed one changed its labels.
    PodPlaced(&'a Footprint),
    /// A placed pod is gone, ended, or takes up less.
    PodLeft(&'a Footprint),
    /// The labels of a namespace changed.
    Namespace,
}
