//! Claims of volumes that one pod at a time may use.

use api::ObjectName;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use super::Snapshot;
use crate::Footprint;

/// Whether a claim is for one pod alone.
pub fn is_exclusive(claim: &PersistentVolumeClaim) -> bool {
    let modes = claim.spec.as_ref().and_then(|s| s.access_modes.as_ref());
    modes.into_iter().flatten().any(|mode| mode == "ReadWriteOncePod")
}

impl Snapshot {
    /// Takes in whether a claim is for one pod alone.
    pub fn set_claim(&mut self, claim: &ObjectName, exclusive: bool) {
        match exclusive {
            true => drop(self.exclusive.insert(claim.clone())),
            false => drop(self.exclusive.remove(claim)),
        }
    }

    /// Whether a placed pod uses a claim that this one needs for itself.
    pub fn is_claimed(&self, pod: &Footprint) -> bool {
        pod.claims.iter().any(|claim| self.exclusive.contains(claim) && self.claimed.contains_key(claim))
    }

    pub(super) fn claim(&mut self, pod: &Footprint) {
        for claim in &pod.claims {
            *self.claimed.entry(claim.clone()).or_default() += 1;
        }
    }

    pub(super) fn unclaim(&mut self, pod: &Footprint) {
        for claim in &pod.claims {
            match self.claimed.get_mut(claim) {
                Some(users) if *users > 1 => *users -= 1,
                _ => drop(self.claimed.remove(claim)),
            }
        }
    }
}
