//! PersistentVolumeClaimResize: a claim grows only when it is bound, of a class that lets it.

use api::{Document, Quantity, StatusResult};

use super::{Context, Plugin};

const UNBOUND: &str = "Only bound persistent volume claims can be expanded";
const FIXED: &str =
    "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";

pub(super) struct PersistentVolumeClaimResize;

impl Plugin for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn validate(&self, claim: &Document, context: &Context<'_>) -> StatusResult<()> {
        let (true, Some(old)) = (context.verb() != "delete" && context.is("", "persistentvolumeclaims"), context.old)
        else {
            return Ok(());
        };
        if size(claim) <= size(old) {
            return Ok(());
        }
        if old.str_at("/status/phase") != "Bound" {
            return Err(context.forbidden(claim, UNBOUND));
        }
        let annotated = claim.annotation("volume.beta.kubernetes.io/storage-class");
        let name = annotated.unwrap_or_else(|| claim.str_at("/spec/storageClassName"));
        let class = context.look_up("storage.k8s.io", "storageclasses", "", name);
        match class.is_some_and(|class| class.bool_at("/allowVolumeExpansion")) {
            true => Ok(()),
            false => Err(context.forbidden(claim, FIXED)),
        }
    }
}

fn size(claim: &Document) -> Option<Quantity> {
    Quantity::parse(claim.str_at("/spec/resources/requests/storage")).ok()
}
