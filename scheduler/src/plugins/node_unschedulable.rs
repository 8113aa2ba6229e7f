//! NodeUnschedulable: a cordoned node takes no pods but those that tolerate it.

use k8s_openapi::api::core::v1::Taint;

use super::taint_toleration::tolerated;
use crate::{Candidates, Event, Plugin, Reason, Snapshot, Wanted};

const UNSCHEDULABLE: Reason = Reason::unresolvable("node(s) were unschedulable");

pub(super) struct NodeUnschedulable;

fn tolerates(pod: &Wanted) -> bool {
    let key = "node.kubernetes.io/unschedulable".to_owned();
    tolerated(&Taint { key, effect: "NoSchedule".to_owned(), ..Taint::default() }, &pod.tolerations)
}

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn filter(&self, pod: &Wanted, snapshot: &Snapshot, nodes: &mut Candidates) {
        if !tolerates(pod) {
            nodes.refuse(&UNSCHEDULABLE, |at| snapshot.unschedulable.get(at) == Some(&true));
        }
    }

    fn heeds(&self, event: &Event<'_>) -> bool {
        matches!(event, Event::Node { .. })
    }

    fn wakes_on(&self, _: &Wanted, event: &Event<'_>) -> bool {
        matches!(event, Event::Node { was, now } if !now.unschedulable && was.is_none_or(|w| w.unschedulable))
    }
}
