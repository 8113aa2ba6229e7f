//! Placement written from its definitions, one node and one pod at a time: slow, and not by the same hand movements.

use std::collections::{BTreeMap, BTreeSet};

use api::Quantity;
use k8s_openapi::api::core::v1::{Node, Pod, PodAffinityTerm, TopologySpreadConstraint};
use reconcile::selector;

/// A cluster as the API server shows it: the pods are those that are placed.
#[derive(Clone, Default)]
pub(crate) struct Cluster {
    pub(crate) nodes: BTreeMap<String, Node>,
    pub(crate) pods: BTreeMap<String, Pod>,
}

const HOSTNAME: &str = "kubernetes.io/hostname";

fn label<'a>(node: &'a Node, key: &str) -> Option<&'a String> {
    node.metadata.labels.as_ref().unwrap().get(key)
}

fn labels(pod: &Pod) -> &BTreeMap<String, String> {
    pod.metadata.labels.as_ref().unwrap()
}

fn priority(pod: &Pod) -> i32 {
    pod.spec.as_ref().unwrap().priority.unwrap_or(0)
}

fn request(pod: &Pod, name: &str) -> f64 {
    let requests = pod.spec.as_ref().unwrap().containers[0].resources.as_ref().unwrap().requests.as_ref();
    requests.and_then(|r| r.get(name)).map_or(0.0, |q| Quantity::parse(&q.0).unwrap().approximate())
}

fn has(node: &Node, name: &str) -> f64 {
    let has = node.status.as_ref().unwrap().allocatable.as_ref().unwrap().get(name);
    has.map_or(0.0, |q| Quantity::parse(&q.0).unwrap().approximate())
}

fn ports(pod: &Pod) -> BTreeSet<i32> {
    let ports = pod.spec.as_ref().unwrap().containers[0].ports.iter().flatten();
    ports.filter_map(|p| p.host_port).collect()
}

fn terms(pod: &Pod, anti: bool) -> Vec<PodAffinityTerm> {
    let Some(affinity) = pod.spec.as_ref().unwrap().affinity.clone() else { return Vec::new() };
    let required = match anti {
        true => affinity.pod_anti_affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution),
        false => affinity.pod_affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution),
    };
    required.unwrap_or_default()
}

fn preferences(pod: &Pod) -> Vec<(PodAffinityTerm, i32)> {
    let Some(affinity) = pod.spec.as_ref().unwrap().affinity.clone() else { return Vec::new() };
    let likes = affinity.pod_affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution);
    let dislikes = affinity.pod_anti_affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution);
    let likes = likes.unwrap_or_default().into_iter().map(|w| (w.pod_affinity_term, w.weight));
    likes.chain(dislikes.unwrap_or_default().into_iter().map(|w| (w.pod_affinity_term, -w.weight))).collect()
}

/// All tests live in one namespace.
fn about(term: &PodAffinityTerm, pod: &Pod) -> bool {
    selector::matches(term.label_selector.as_ref().unwrap(), Some(labels(pod)))
}

fn constraints(pod: &Pod, when: &str) -> Vec<TopologySpreadConstraint> {
    let all = pod.spec.as_ref().unwrap().topology_spread_constraints.clone().unwrap_or_default();
    all.into_iter().filter(|c| c.when_unsatisfiable == when).collect()
}

impl Cluster {
    pub(crate) fn on<'a>(&'a self, node: &'a Node) -> impl Iterator<Item = &'a Pod> {
        let name = node.metadata.name.as_deref();
        self.pods.values().filter(move |p| p.spec.as_ref().unwrap().node_name.as_deref() == name)
    }

    fn node_of(&self, pod: &Pod) -> &Node {
        &self.nodes[pod.spec.as_ref().unwrap().node_name.as_ref().unwrap()]
    }

    /// The nodes where a pod may go.
    pub(crate) fn feasible(&self, pod: &Pod) -> BTreeSet<String> {
        let fits = |node: &&Node| {
            tolerates(pod, node)
                && selects(pod, node)
                && self.has_room(pod, node)
                && self.spreads(pod, node)
                && self.near(pod, node)
        };
        self.nodes.values().filter(fits).map(|n| n.metadata.name.clone().unwrap()).collect()
    }

    fn has_room(&self, pod: &Pod, node: &Node) -> bool {
        // Whole thousandths add up exactly.
        let thousandths = |amount: f64| (amount * 1000.0).round();
        let room = |name: &str| {
            let used: f64 = self.on(node).map(|p| thousandths(request(p, name))).sum();
            request(pod, name) == 0.0 || used + thousandths(request(pod, name)) <= thousandths(has(node, name))
        };
        let taken: BTreeSet<i32> = self.on(node).flat_map(ports).collect();
        ["cpu", "memory", "ephemeral-storage", "example.com/gpu"].into_iter().all(room)
            && (self.on(node).count() as f64) < has(node, "pods")
            && ports(pod).is_disjoint(&taken)
    }

    fn near(&self, pod: &Pod, node: &Node) -> bool {
        let together = |term: &PodAffinityTerm, other: &Pod| {
            let here = label(node, &term.topology_key);
            here.is_some() && here == label(self.node_of(other), &term.topology_key)
        };
        let repels =
            |a: &Pod, b: &Pod, there: &Pod| terms(a, true).iter().any(|term| about(term, b) && together(term, there));
        let attracted = terms(pod, false);
        let wanted: Vec<&Pod> = self.pods.values().filter(|p| attracted.iter().all(|t| about(t, p))).collect();
        let placed = |p: &&Pod| attracted.iter().any(|t| label(self.node_of(p), &t.topology_key).is_some());
        let first = !wanted.iter().any(placed) && attracted.iter().all(|t| about(t, pod));
        let labelled = attracted.iter().all(|t| label(node, &t.topology_key).is_some());
        let joins = attracted.iter().all(|t| wanted.iter().any(|p| together(t, p)));
        self.pods.values().all(|other| !repels(pod, other, other) && !repels(other, pod, other))
            && labelled
            && (joins || first)
    }

    fn counts(&self, node: &Node, pod: &Pod, constraint: &TopologySpreadConstraint) -> bool {
        let affinity = constraint.node_affinity_policy.as_deref() == Some("Ignore") || selects(pod, node);
        let taints = constraint.node_taints_policy.as_deref() != Some("Honor") || tolerates_taints(pod, node);
        affinity && taints
    }

    fn spreads(&self, pod: &Pod, node: &Node) -> bool {
        let constraints = constraints(pod, "DoNotSchedule");
        let labelled = |n: &Node| constraints.iter().all(|c| label(n, &c.topology_key).is_some());
        constraints.iter().all(|c| {
            let mut domains: BTreeMap<&String, i64> = BTreeMap::new();
            for n in self.nodes.values().filter(|n| labelled(n) && self.counts(n, pod, c)) {
                *domains.entry(label(n, &c.topology_key).unwrap()).or_default() += self.matching(n, c);
            }
            let few = (domains.len() as i64) < i64::from(c.min_domains.unwrap_or(1));
            let least = if few { 0 } else { domains.values().min().copied().unwrap_or(i64::from(i32::MAX)) };
            let own = i64::from(selector::matches(c.label_selector.as_ref().unwrap(), Some(labels(pod))));
            let here = label(node, &c.topology_key).map(|value| domains.get(value).copied().unwrap_or(0));
            here.is_some_and(|here| here + own - least <= i64::from(c.max_skew))
        })
    }

    fn matching(&self, node: &Node, constraint: &TopologySpreadConstraint) -> i64 {
        let counted = |p: &&Pod| selector::matches(constraint.label_selector.as_ref().unwrap(), Some(labels(p)));
        self.on(node).filter(counted).count() as i64
    }

    /// The nodes among `feasible` with the highest sum of weighted scores.
    pub(crate) fn best(&self, pod: &Pod, feasible: &BTreeSet<String>) -> BTreeSet<String> {
        let nodes: Vec<&Node> = feasible.iter().map(|name| &self.nodes[name]).collect();
        let scores = [
            (3, reversed(normalized(nodes.iter().map(|n| disliked(pod, n)).collect()))),
            (2, normalized(nodes.iter().map(|n| liked(pod, n)).collect())),
            (1, nodes.iter().map(|n| self.least_allocated(pod, n)).collect()),
            (1, nodes.iter().map(|n| self.balance(pod, n)).collect()),
            (2, self.soft_spread(pod, &nodes)),
            (2, self.soft_near(pod, &nodes)),
        ];
        let total = |at: usize| scores.iter().map(|(weight, scores)| weight * scores[at]).sum::<i64>();
        let most = (0..nodes.len()).map(total).max();
        let best = (0..nodes.len()).filter(|at| Some(total(*at)) == most);
        best.map(|at| nodes[at].metadata.name.clone().unwrap()).collect()
    }

    fn scored(&self, pod: &Pod, name: &str) -> f64 {
        let none = if name == "cpu" { 0.1 } else { 200.0 * 1024.0 * 1024.0 };
        let requests = pod.spec.as_ref().unwrap().containers[0].resources.as_ref().unwrap().requests.as_ref();
        if requests.is_some_and(|r| r.contains_key(name)) { request(pod, name) } else { none }
    }

    fn least_allocated(&self, pod: &Pod, node: &Node) -> i64 {
        let names = ["cpu", "memory"].into_iter().filter(|name| has(node, name) > 0.0);
        let part = |name: &str| {
            let unit = if name == "cpu" { 1000.0 } else { 1.0 };
            let whole = |amount: f64| (amount * unit).round() as i64;
            let used: i64 = self.on(node).map(|p| whole(self.scored(p, name))).sum();
            let (used, all) = (used + whole(self.scored(pod, name)), whole(has(node, name)));
            if used > all { 0 } else { (all - used) * 100 / all }
        };
        let parts: Vec<i64> = names.map(part).collect();
        if parts.is_empty() { 0 } else { parts.iter().sum::<i64>() / parts.len() as i64 }
    }

    fn balance(&self, pod: &Pod, node: &Node) -> i64 {
        if request(pod, "cpu") == 0.0 && request(pod, "memory") == 0.0 {
            return 0;
        }
        let score = |with: bool| {
            let part = |name: &str| {
                let unit = if name == "cpu" { 1000.0 } else { 1.0 };
                let used: f64 = self.on(node).map(|p| (request(p, name) * unit).round()).sum();
                let more = if with { (request(pod, name) * unit).round() } else { 0.0 };
                ((used + more) / (has(node, name) * unit).round()).min(1.0)
            };
            let parts: Vec<f64> = ["cpu", "memory"].into_iter().filter(|n| has(node, n) > 0.0).map(part).collect();
            let deviation = if let [a, b] = parts.as_slice() { ((a - b) / 2.0).abs() } else { 0.0 };
            ((1.0 - deviation) * 100.0) as i64
        };
        50 + (50 + score(true) - score(false)) / 2
    }

    fn soft_spread(&self, pod: &Pod, nodes: &[&Node]) -> Vec<i64> {
        let constraints = constraints(pod, "ScheduleAnyway");
        if constraints.is_empty() {
            return vec![0; nodes.len()];
        }
        let labelled = |n: &Node| constraints.iter().all(|c| label(n, &c.topology_key).is_some());
        let crowd = |node: &Node| -> f64 {
            let one = |c: &TopologySpreadConstraint| {
                let values: BTreeSet<_> =
                    nodes.iter().filter(|n| labelled(n)).map(|n| label(n, &c.topology_key)).collect();
                let counted = self.nodes.values().filter(|n| labelled(n) && self.counts(n, pod, c));
                let near = counted.filter(|n| label(n, &c.topology_key) == label(node, &c.topology_key));
                let (count, size) = match c.topology_key.as_str() {
                    HOSTNAME => (self.matching(node, c), nodes.iter().filter(|n| labelled(n)).count()),
                    _ => (near.map(|n| self.matching(n, c)).sum(), values.len()),
                };
                count as f64 * ((size + 2) as f64).ln() + f64::from(c.max_skew - 1)
            };
            constraints.iter().map(one).sum()
        };
        let raw: Vec<Option<i64>> = nodes.iter().map(|n| labelled(n).then(|| crowd(n).round() as i64)).collect();
        let (most, least) = (raw.iter().flatten().max().copied(), raw.iter().flatten().min().copied());
        let score = |raw: &Option<i64>| match (raw, most, least) {
            (Some(_), Some(0), _) => 100,
            (Some(raw), Some(most), Some(least)) => 100 * (most + least - raw) / most,
            _ => 0,
        };
        raw.iter().map(score).collect()
    }

    fn soft_near(&self, pod: &Pod, nodes: &[&Node]) -> Vec<i64> {
        let raw = |node: &Node| -> i64 {
            let together = |term: &PodAffinityTerm, other: &Pod| {
                let here = label(node, &term.topology_key);
                here.is_some() && here == label(self.node_of(other), &term.topology_key)
            };
            let one = |other: &Pod| -> i64 {
                let mine = preferences(pod).into_iter().filter(|(t, _)| about(t, other) && together(t, other));
                let theirs = preferences(other).into_iter().filter(|(t, _)| about(t, pod) && together(t, other));
                let hard = terms(other, false).into_iter().filter(|t| about(t, pod) && together(t, other)).count();
                mine.chain(theirs).map(|(_, weight)| i64::from(weight)).sum::<i64>() + hard as i64
            };
            self.pods.values().map(one).sum()
        };
        let raw: Vec<i64> = nodes.iter().map(|n| raw(n)).collect();
        let (most, least) = (raw.iter().max().copied().unwrap_or(0), raw.iter().min().copied().unwrap_or(0));
        let part = |raw: &i64| if most > least { (raw - least) as f64 / (most - least) as f64 } else { 0.0 };
        raw.iter().map(|raw| (100.0 * part(raw)) as i64).collect()
    }

    /// Whether all required anti-affinity is kept.
    pub(crate) fn keeps_apart(&self) -> bool {
        self.pods.iter().all(|(name, pod)| {
            let mut others = self.clone();
            others.pods.remove(name);
            let node = self.node_of(pod);
            others.pods.values().all(|other| {
                let clash = |a: &Pod, b: &Pod| {
                    terms(a, true).iter().any(|t| {
                        let value = label(node, &t.topology_key);
                        about(t, b) && value.is_some() && value == label(self.node_of(other), &t.topology_key)
                    })
                };
                !clash(pod, other)
            })
        })
    }

    /// The placed pods that are less important.
    pub(crate) fn lower(&self, pod: &Pod) -> BTreeSet<String> {
        self.pods.iter().filter(|(_, p)| priority(p) < priority(pod)).map(|(name, _)| name.clone()).collect()
    }
}

fn normalized(raw: Vec<i64>) -> Vec<i64> {
    let most = raw.iter().max().copied().unwrap_or(0);
    raw.iter().map(|r| if most == 0 { 0 } else { 100 * r / most }).collect()
}

fn reversed(scores: Vec<i64>) -> Vec<i64> {
    scores.into_iter().map(|s| 100 - s).collect()
}

fn taints(pod: &Pod, node: &Node, effect: &str) -> i64 {
    let tolerations = pod.spec.as_ref().unwrap().tolerations.clone().unwrap_or_default();
    let taints = node.spec.as_ref().unwrap().taints.clone().unwrap_or_default();
    let tolerated = |key: &str, value: &str| {
        tolerations.iter().any(|t| {
            let exists = t.operator.as_deref() == Some("Exists");
            t.key.as_deref() == Some(key) && (exists || t.value.as_deref().unwrap_or("") == value)
        })
    };
    let left = taints.iter().filter(|t| t.effect == effect);
    left.filter(|t| !tolerated(&t.key, t.value.as_deref().unwrap_or(""))).count() as i64
}

fn tolerates_taints(pod: &Pod, node: &Node) -> bool {
    taints(pod, node, "NoSchedule") == 0 && taints(pod, node, "NoExecute") == 0
}

fn tolerates(pod: &Pod, node: &Node) -> bool {
    tolerates_taints(pod, node) && node.spec.as_ref().unwrap().unschedulable != Some(true)
}

fn disliked(pod: &Pod, node: &Node) -> i64 {
    taints(pod, node, "PreferNoSchedule")
}

fn selects(pod: &Pod, node: &Node) -> bool {
    let wanted = pod.spec.as_ref().unwrap().node_selector.clone().unwrap_or_default();
    wanted.iter().all(|(key, value)| label(node, key) == Some(value))
}

fn liked(pod: &Pod, node: &Node) -> i64 {
    let affinity = pod.spec.as_ref().unwrap().affinity.clone().and_then(|a| a.node_affinity);
    let terms = affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution).unwrap_or_default();
    let holds = |t: &k8s_openapi::api::core::v1::PreferredSchedulingTerm| {
        let all = t.preference.match_expressions.clone().unwrap();
        all.iter().all(|r| label(node, &r.key).is_some_and(|v| r.values.as_ref().unwrap().contains(v)))
    };
    terms.iter().filter(|t| holds(t)).map(|t| i64::from(t.weight)).sum()
}
