//! What the scheduler knows of a node.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node as ApiNode, Taint};

use crate::amounts::Amounts;

/// A node, as far as placement depends on it. Heartbeats do not change it.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Node {
    pub name: Arc<str>,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Amounts,
    /// How many pods it may run.
    pub pods: i64,
    /// Its images by all their names, with their sizes in bytes.
    pub images: Vec<(Arc<str>, i64)>,
}

impl Node {
    /// Reads a node object.
    pub fn of(node: &ApiNode) -> Self {
        let allocatable = node.status.as_ref().and_then(|s| s.allocatable.as_ref());
        let pods = allocatable.and_then(|a| a.get("pods")).and_then(|q| api::Quantity::parse(&q.0).ok());
        let spec = node.spec.as_ref();
        Self {
            name: node.metadata.name.as_deref().unwrap_or_default().into(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints: spec.and_then(|s| s.taints.clone()).unwrap_or_default(),
            unschedulable: spec.and_then(|s| s.unschedulable).unwrap_or(false),
            allocatable: Amounts::of(allocatable),
            pods: pods.map_or(0, |p| p.value()),
            images: images(node),
        }
    }
}

fn images(node: &ApiNode) -> Vec<(Arc<str>, i64)> {
    let images = node.status.iter().flat_map(|s| s.images.iter().flatten());
    let named = images.flat_map(|i| i.names.iter().flatten().map(|n| (n.as_str().into(), i.size_bytes.unwrap_or(0))));
    named.collect()
}
