//! VolumeRestrictions: a claim with the access mode ReadWriteOncePod is for one pod at a time.

use super::Scope;
use crate::{Candidates, Event, Plugin, Reason, Snapshot, Wanted};

const IN_USE: Reason = Reason::resolvable(
    "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod",
);

pub(super) struct VolumeRestrictions;

impl Plugin for VolumeRestrictions {
    fn name(&self) -> &'static str {
        "VolumeRestrictions"
    }

    fn scope(&self) -> Scope {
        Scope::Cluster
    }

    fn filter(&self, pod: &Wanted, snapshot: &Snapshot, nodes: &mut Candidates) {
        if snapshot.is_claimed(&pod.footprint) {
            nodes.refuse(&IN_USE, |_| true);
        }
    }

    fn heeds(&self, event: &Event<'_>) -> bool {
        matches!(event, Event::PodLeft(_))
    }

    fn wakes_on(&self, pod: &Wanted, event: &Event<'_>) -> bool {
        let shares = |other: &crate::Footprint| other.claims.iter().any(|claim| pod.footprint.claims.contains(claim));
        matches!(event, Event::PodLeft(other) if shares(other))
    }
}
