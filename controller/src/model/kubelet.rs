//! Kubelets and a scheduler in one: pods get nodes and run, and those that shall end do.

use k8s_openapi::api::core::v1::{Node, Pod};
use reconcile::Resource;
use reconcile::resource::name_of;
use serde_json::json;

use super::cluster::Cluster;

impl Cluster {
    /// Every kubelet does all it has to.
    pub fn kubelet(&mut self) {
        for pod in self.server.typed::<Pod>() {
            self.kubelet_of(&pod);
        }
    }

    /// The kubelet does what one pod needs. The annotation `end` says the phase in which a pod ends.
    pub fn kubelet_of(&mut self, pod: &Pod) {
        self.server.actor = "kubelet";
        let name = name_of(&pod.metadata);
        if pod.metadata.deletion_timestamp.is_some() {
            return self.server.ended(&name);
        }
        if reconcile::pods::phase(pod) != "Pending" {
            return;
        }
        let nodes: Vec<Node> = self.server.typed();
        let free = self.pick(nodes).and_then(|n| n.metadata.name).unwrap_or_else(|| "n0".into());
        let node = pinned(pod).unwrap_or(free);
        let at = json!(reconcile::conditions::time(self.now));
        let end = pod.metadata.annotations.as_ref().and_then(|a| a.get("end")).cloned();
        let phase = end.clone().unwrap_or_else(|| "Running".into());
        let ready = if end.is_some() { "False" } else { "True" };
        self.server.edit(&Resource::of::<Pod>(), &name, |pod| {
            pod.set_default("/spec/nodeName", node);
            pod.set("/status/phase", phase);
            pod.set("/status/conditions", json!([{"type": "Ready", "status": ready, "lastTransitionTime": at}]));
        });
    }
}

/// The node that a pod's affinity names.
fn pinned(pod: &Pod) -> Option<String> {
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    required.node_selector_terms.first()?.match_fields.as_ref()?.first()?.values.as_ref()?.first().cloned()
}
