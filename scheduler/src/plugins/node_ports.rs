//! NodePorts: two pods on one node cannot have the same port of the host.

use crate::{Candidates, Event, HostPort, Plugin, Reason, Snapshot, Wanted};

const TAKEN: Reason = Reason::resolvable("node(s) didn't have free ports for the requested pod ports");

pub(super) struct NodePorts;

fn conflict(wanted: &[HostPort], taken: &[HostPort]) -> bool {
    wanted.iter().any(|w| taken.iter().any(|t| w.conflicts(t)))
}

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn filter(&self, pod: &Wanted, snapshot: &Snapshot, nodes: &mut Candidates) {
        let wanted = &pod.footprint.ports;
        if !wanted.is_empty() {
            nodes.refuse(&TAKEN, |at| conflict(wanted, snapshot.ports(at)));
        }
    }

    fn heeds(&self, event: &Event<'_>) -> bool {
        matches!(event, Event::Node { .. } | Event::PodLeft(_))
    }

    fn wakes_on(&self, pod: &Wanted, event: &Event<'_>) -> bool {
        match event {
            Event::Node { was, .. } => was.is_none(),
            Event::PodLeft(left) => conflict(&pod.footprint.ports, &left.ports),
            Event::PodPlaced(_) | Event::Namespace => false,
        }
    }
}
