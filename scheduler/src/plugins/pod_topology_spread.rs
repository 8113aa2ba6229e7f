//! PodTopologySpread: pods that belong together are spread over nodes, zones or whatever a label names.

use std::borrow::Cow;
use std::sync::Arc;

use reconcile::selector;

use super::node_affinity::allows;
use super::taint_toleration::admits;
use crate::snapshot::Domains;
use crate::{
    Candidates, Counts, Event, Footprint, MAX_SCORE, Node, NodeIndex, Plugin, Reason, Snapshot, Spread, Wanted,
};

const TOO_UNEVEN: Reason = Reason::resolvable("node(s) didn't match pod topology spread constraints");
const NO_LABEL: Reason =
    Reason::unresolvable("node(s) didn't match pod topology spread constraints (missing required label)");
const HOSTNAME: &str = "kubernetes.io/hostname";

pub(super) struct PodTopologySpread;

/// One constraint with what there is at this moment.
struct Counted<'a> {
    spread: &'a Spread,
    domains: Arc<Domains>,
    /// Pods per domain; nothing where no node of the domain is eligible.
    pods: Vec<Option<i64>>,
    per_node: Option<Cow<'a, [i64]>>,
}

impl<'a> Counted<'a> {
    fn new(spread: &'a Spread, pod: &Wanted, snapshot: &'a Snapshot, counted: &[bool]) -> Self {
        let domains = snapshot.domains(&spread.key);
        let mut pods = vec![None; domains.count];
        let per_node = spread.counts.as_ref().map(|c| snapshot.matching(&pod.footprint.namespace, c));
        let includes = includes(spread, pod, snapshot);
        for (at, domain) in domains.of.iter().enumerate() {
            let Some(sum) = domain.and_then(|d| pods.get_mut(d)) else { continue };
            if counted.get(at) == Some(&true) && includes(at) {
                let here = per_node.as_ref().and_then(|p| p.get(at)).copied().unwrap_or(0);
                *sum = Some(sum.unwrap_or(0) + here);
            }
        }
        Self { spread, domains, pods, per_node }
    }

    fn domain(&self, node: NodeIndex) -> Option<usize> {
        self.domains.of.get(node).copied().flatten()
    }

    fn pods_near(&self, node: NodeIndex) -> i64 {
        self.domain(node).and_then(|d| self.pods.get(d).copied().flatten()).unwrap_or(0)
    }

    /// The fewest pods of any domain; none if there are too few domains.
    fn fewest(&self) -> i64 {
        let eligible = || self.pods.iter().flatten();
        if eligible().count() < self.spread.min_domains.max(0) as usize {
            0
        } else {
            eligible().min().copied().unwrap_or(i64::from(i32::MAX))
        }
    }
}

/// Whether the constraint's policies let a node count.
fn includes<'a>(spread: &Spread, pod: &'a Wanted, snapshot: &'a Snapshot) -> impl Fn(NodeIndex) -> bool + 'a {
    let choosy = spread.honors_affinity && !(pod.nodes.labels.is_empty() && pod.nodes.required.is_none());
    let admitted = spread.honors_taints.then(|| snapshot.by_taints(|taints| admits(taints, &pod.tolerations)));
    move |at| {
        (!choosy || snapshot.node(at).is_some_and(|n| allows(&pod.nodes, n)))
            && admitted.as_ref().is_none_or(|admitted| admitted(at) == Some(true))
    }
}

/// Which nodes have the labels of all constraints.
fn labelled(spreads: &[&Spread], snapshot: &Snapshot) -> Vec<bool> {
    let domains: Vec<_> = spreads.iter().map(|s| snapshot.domains(&s.key)).collect();
    (0..snapshot.len()).map(|at| domains.iter().all(|d| d.of.get(at).is_some_and(Option::is_some))).collect()
}

fn matches(spread: &Spread, pod: &Footprint) -> bool {
    match &spread.counts {
        Some(Counts::Labels(labels)) => selector::matches(labels, Some(&pod.labels)),
        Some(Counts::Owner(uid)) => pod.owner.as_ref() == Some(uid),
        Some(Counts::Term(_)) | None => false,
    }
}

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn filter(&self, pod: &Wanted, snapshot: &Snapshot, nodes: &mut Candidates) {
        let hard: Vec<&Spread> = pod.spread.iter().filter(|s| s.hard).collect();
        if hard.is_empty() {
            return;
        }
        let labelled = labelled(&hard, snapshot);
        let constraints: Vec<_> = hard
            .into_iter()
            .map(|spread| {
                let counted = Counted::new(spread, pod, snapshot, &labelled);
                let room = i64::from(spread.max_skew) + counted.fewest() - i64::from(matches(spread, &pod.footprint));
                (counted, room)
            })
            .collect();
        nodes.refuse(|at| {
            constraints.iter().find_map(|(counted, room)| match counted.domain(at) {
                None => Some(NO_LABEL),
                Some(_) => (counted.pods_near(at) > *room).then_some(TOO_UNEVEN),
            })
        });
    }

    fn weight(&self) -> i64 {
        2
    }

    fn score(&self, pod: &Wanted, snapshot: &Snapshot, nodes: &[NodeIndex], scores: &mut [i64]) -> bool {
        let soft: Vec<&Spread> = pod.spread.iter().filter(|s| !s.hard).collect();
        if soft.is_empty() {
            return false;
        }
        let counted = if pod.spread_by_default { vec![true; snapshot.len()] } else { labelled(&soft, snapshot) };
        let scored = |at: &NodeIndex| counted.get(*at) == Some(&true);
        let constraints: Vec<_> = soft
            .into_iter()
            .map(|spread| {
                let counted = Counted::new(spread, pod, snapshot, &counted);
                let weight = weight(&counted, nodes, scored);
                (counted, weight)
            })
            .collect();
        for (score, at) in scores.iter_mut().zip(nodes).filter(|(_, at)| scored(at)) {
            *score = crowd(&constraints, *at);
        }
        let within = || scores.iter().zip(nodes).filter(|(_, at)| scored(at)).map(|(s, _)| *s);
        let (most, least) = (within().max().unwrap_or(0), within().min().unwrap_or(0));
        for (score, at) in scores.iter_mut().zip(nodes) {
            *score = match (scored(at), most) {
                (false, _) => 0,
                (true, 0) => MAX_SCORE,
                (true, most) => MAX_SCORE * (most + least - *score) / most,
            };
        }
        true
    }

    fn wakes_on(&self, pod: &Wanted, event: &Event<'_>) -> bool {
        match event {
            Event::PodPlaced(other) | Event::PodLeft(other) => {
                other.namespace == pod.footprint.namespace && pod.spread.iter().any(|s| matches(s, other))
            }
            Event::Node { was, now } => {
                let values = |n: &Node| pod.spread.iter().map(|s| n.labels.get(&s.key).cloned()).collect::<Vec<_>>();
                was.is_none_or(|w| values(w) != values(now) || w.taints != now.taints)
            }
        }
    }
}

/// How many pods are near a node, each constraint by its weight.
fn crowd(constraints: &[(Counted<'_>, f64)], at: NodeIndex) -> i64 {
    let one = |(counted, weight): &(Counted<'_>, f64)| {
        counted.domain(at)?;
        let pods = match counted.spread.key.as_str() {
            HOSTNAME => counted.per_node.as_ref().and_then(|p| p.get(at)).copied().unwrap_or(0),
            _ => counted.pods_near(at),
        };
        Some(pods as f64 * weight + f64::from(counted.spread.max_skew - 1))
    };
    constraints.iter().filter_map(one).sum::<f64>().round() as i64
}

/// Makes constraints with many domains count as much as those with few.
fn weight(counted: &Counted<'_>, nodes: &[NodeIndex], scored: impl Fn(&NodeIndex) -> bool) -> f64 {
    let here = || nodes.iter().filter(|at| scored(at));
    let size = match counted.spread.key.as_str() {
        HOSTNAME => here().count(),
        _ => {
            // Nodes without the label are a domain too.
            let mut seen = vec![false; counted.domains.count + 1];
            for at in here() {
                if let Some(seen) = seen.get_mut(counted.domain(*at).map_or(0, |d| d + 1)) {
                    *seen = true;
                }
            }
            seen.into_iter().filter(|s| *s).count()
        }
    };
    ((size + 2) as f64).ln()
}
