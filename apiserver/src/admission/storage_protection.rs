//! StorageObjectInUseProtection: claims and volumes stay until nobody uses them.

use api::{Document, StatusResult};

use super::{Context, Plugin, push};

/// Group, resource, finalizer.
const PROTECTED: &[(&str, &str, &str)] = &[
    ("", "persistentvolumeclaims", "kubernetes.io/pvc-protection"),
    ("", "persistentvolumes", "kubernetes.io/pv-protection"),
    ("storage.k8s.io", "volumeattributesclasses", "kubernetes.io/vac-protection"),
];

pub(super) struct StorageObjectInUseProtection;

impl Plugin for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn mutate(&self, object: &mut Document, context: &Context<'_>) -> StatusResult<()> {
        let found = PROTECTED.iter().find(|(group, resource, _)| context.is(group, resource));
        if let (Some((_, _, finalizer)), "create") = (found, context.verb())
            && !object.finalizers().any(|own| own == *finalizer)
        {
            push(object, "/metadata/finalizers", (*finalizer).into());
        }
        Ok(())
    }
}
