//! What a PodSpec says beyond the table, for Pods and for the templates of workloads.

mod default;

pub(crate) use default::{claim_spec, container, pod, pod_spec, resource_list};

use serde_json::Value;

/// The three lists of containers.
pub(crate) const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Defaults of a PodTemplateSpec.
pub(crate) fn template(template: &mut Value) {
    if let Some(spec) = template.get_mut("spec") {
        pod_spec(spec);
    }
}
