//! What a PodSpec says beyond the table, for Pods and for the templates of workloads.

mod container;
mod context;
mod default;
mod field_ref;
mod handler;
mod mount;
mod resources;
mod scheduling;
mod security;
mod validate;
mod volume;
mod warnings;

pub(crate) use default::{claim_spec, pod, pod_spec, resource_list};
pub(crate) use resources::{OF_PODS, container_name, is_extended, is_huge_pages, quantity_value, resource_name};
pub(crate) use scheduling::{taints, tolerations};
pub use validate::host_namespaces;
pub(crate) use validate::{only_in_pod, spec as validate};
pub(crate) use warnings::{old_label, warnings};

use serde_json::Value;

use crate::field::{Error, Errors, Path};
use crate::tree::{get, list};
use crate::validation::{annotations, labels::labels};

/// The three lists of containers.
pub(crate) const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Defaults of a PodTemplateSpec.
pub(crate) fn template(template: &mut Value) {
    if let Some(spec) = template.get_mut("spec") {
        pod_spec(spec);
    }
}

/// What is wrong with a PodTemplateSpec.
pub(crate) fn validate_template(template: &Value, path: &Path) -> Errors {
    let meta = get(template, "metadata").unwrap_or(&Value::Null);
    let mut errors = labels(get(meta, "labels"), &path.child("labels"));
    errors.extend(annotations(get(meta, "annotations"), &path.child("annotations")));
    let spec = get(template, "spec").unwrap_or(&Value::Null);
    errors.extend(validate(spec, &path.child("spec"), false));
    if !list(spec, "ephemeralContainers").is_empty() {
        let path = path.child("spec").child("ephemeralContainers");
        errors.push(Error::forbidden(path, "ephemeral containers not allowed in pod template"));
    }
    errors
}
