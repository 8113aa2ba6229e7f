//! NodeResourcesFit: a node has what the pod requests; the less of it is in use, the better (LeastAllocated).

use std::borrow::Cow;

use crate::snapshot::Column;
use crate::{Candidates, Event, MAX_REASONS, MAX_SCORE, Node, NodeIndex, Plugin, Reason, Snapshot, Wanted};

const TOO_MANY_PODS: Reason = Reason::resolvable("Too many pods");

pub(super) struct NodeResourcesFit;

/// One resource that is asked for: its amount, its column if any node has it, and what is said if there is too little.
struct Ask<'a> {
    amount: i64,
    column: Option<&'a Column>,
    text: Cow<'static, str>,
}

impl Ask<'_> {
    /// Nothing if there is enough, 1 if other pods have it, 2 if the node never had so much.
    fn lacking(&self, node: NodeIndex) -> u64 {
        let (free, all) = self.column.map_or((0, 0), |c| (c.free(node), c.allocatable(node)));
        match self.amount > free {
            true => 1 + u64::from(self.amount > all),
            false => 0,
        }
    }
}

/// The resources that are asked for at all; one of which nothing is asked may be overdrawn.
fn asks<'a>(pod: &Wanted, snapshot: &'a Snapshot) -> Vec<Ask<'a>> {
    let wanted = &pod.footprint.requested;
    let basic = [
        (wanted.cpu_milli, &snapshot.cpu, "Insufficient cpu"),
        (wanted.memory_bytes, &snapshot.memory, "Insufficient memory"),
        (wanted.storage_bytes, &snapshot.storage, "Insufficient ephemeral-storage"),
    ];
    let basic = basic.into_iter().map(|(amount, column, text)| Ask { amount, column: Some(column), text: text.into() });
    let others = wanted.others.iter().map(|(name, amount)| Ask {
        amount: *amount,
        column: snapshot.others.get(name),
        text: format!("Insufficient {name}").into(),
    });
    basic.chain(others).filter(|ask| ask.amount > 0).collect()
}

/// Whether a node that ran nothing else could run the pod.
fn holds(node: &Node, pod: &Wanted) -> bool {
    let (wanted, has) = (&pod.footprint.requested, &node.allocatable);
    node.pods > 0
        && wanted.cpu_milli <= has.cpu_milli
        && wanted.memory_bytes <= has.memory_bytes
        && wanted.storage_bytes <= has.storage_bytes
        && wanted.others.iter().all(|(name, amount)| *amount <= has.others.get(name).copied().unwrap_or(0))
}

fn grew(was: &Node, now: &Node) -> bool {
    let (a, b) = (&was.allocatable, &now.allocatable);
    now.pods > was.pods
        || b.cpu_milli > a.cpu_milli
        || b.memory_bytes > a.memory_bytes
        || b.storage_bytes > a.storage_bytes
        || b.others.iter().any(|(name, amount)| *amount > a.others.get(name).copied().unwrap_or(0))
}

fn least_allocated(used: i64, all: i64) -> i64 {
    if used > all { 0 } else { (all - used) * MAX_SCORE / all }
}

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn filter(&self, pod: &Wanted, snapshot: &Snapshot, nodes: &mut Candidates) {
        let asks = asks(pod, snapshot);
        let reason = |ask: &Ask<'_>, unresolvable| Reason { text: ask.text.clone(), unresolvable };
        let reasons = asks.iter().flat_map(|ask| [reason(ask, false), reason(ask, true)]);
        let reasons: Vec<Reason> = [TOO_MANY_PODS].into_iter().chain(reasons).collect();
        // A pod that asks for more resources than can be told apart is told the last of them for all beyond.
        let shift = |nth: usize| 1 + 2 * nth.min(MAX_REASONS / 2 - 1);
        nodes.refuse_for(&reasons, |at| {
            let full = u64::from(snapshot.pods.free(at) < 1);
            asks.iter().enumerate().fold(full, |bits, (nth, ask)| bits | ask.lacking(at) << shift(nth))
        });
    }

    fn weight(&self) -> i64 {
        1
    }

    fn score(&self, pod: &Wanted, snapshot: &Snapshot, nodes: &[NodeIndex], scores: &mut [i64]) -> bool {
        let resources = [
            (&snapshot.cpu, &snapshot.scored_cpu, pod.footprint.scored_cpu_milli),
            (&snapshot.memory, &snapshot.scored_memory, pod.footprint.scored_memory_bytes),
        ];
        for (score, node) in scores.iter_mut().zip(nodes) {
            let (mut sum, mut weights) = (0, 0);
            for (column, used, more) in resources {
                let all = column.allocatable(*node);
                if all > 0 {
                    sum += least_allocated(used.get(*node).copied().unwrap_or(0) + more, all);
                    weights += 1;
                }
            }
            *score = if weights == 0 { 0 } else { sum / weights };
        }
        true
    }

    fn heeds(&self, event: &Event<'_>) -> bool {
        matches!(event, Event::Node { .. } | Event::PodLeft(_))
    }

    fn wakes_on(&self, pod: &Wanted, event: &Event<'_>) -> bool {
        match event {
            Event::Node { was, now } => holds(now, pod) && was.is_none_or(|w| grew(w, now)),
            Event::PodLeft(_) => true,
            Event::PodPlaced(_) | Event::Namespace => false,
        }
    }
}
