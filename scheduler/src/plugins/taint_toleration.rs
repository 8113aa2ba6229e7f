//! TaintToleration: a tainted node takes only pods that tolerate its taints, and likes those best that tolerate all.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use super::less_is_better;
use crate::{Candidates, Event, Node, NodeIndex, Plugin, Reason, Snapshot, Wanted};

const UNTOLERATED: Reason = Reason::unresolvable("node(s) had untolerated taint(s)");

pub(super) struct TaintToleration;

/// Whether one of the tolerations is for this taint (`Toleration.ToleratesTaint`).
pub(super) fn tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|t| tolerates(t, taint))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let given = |field: &Option<String>| field.clone().filter(|f| !f.is_empty());
    let fits = |field: &Option<String>, value: &str| given(field).is_none_or(|f| f == value);
    if !fits(&toleration.effect, &taint.effect) || !fits(&toleration.key, &taint.key) {
        return false;
    }
    match given(&toleration.operator).as_deref() {
        None | Some("Equal") => toleration.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or(""),
        Some("Exists") => true,
        _ => false,
    }
}

/// Whether no taint of a node keeps the pod from being placed there.
pub(super) fn admits(taints: &[Taint], tolerations: &[Toleration]) -> bool {
    let forbids = |t: &&Taint| matches!(t.effect.as_str(), "NoSchedule" | "NoExecute");
    taints.iter().filter(forbids).all(|t| tolerated(t, tolerations))
}

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn filter(&self, pod: &Wanted, snapshot: &Snapshot, nodes: &mut Candidates) {
        let admitted = snapshot.by_taints(|taints| admits(taints, &pod.tolerations));
        nodes.refuse(&UNTOLERATED, |at| admitted(at) != Some(true));
    }

    fn weight(&self) -> i64 {
        3
    }

    fn score(&self, pod: &Wanted, snapshot: &Snapshot, nodes: &[NodeIndex], scores: &mut [i64]) -> bool {
        let soft = |t: &Toleration| matches!(t.effect.as_deref(), None | Some("" | "PreferNoSchedule"));
        let tolerations: Vec<Toleration> = pod.tolerations.iter().filter(|t| soft(t)).cloned().collect();
        let disliked = |t: &&Taint| t.effect == "PreferNoSchedule" && !tolerated(t, &tolerations);
        let disliked = |taints: &[Taint]| taints.iter().filter(disliked).count() as i64;
        if snapshot.taint_sets.iter().all(|taints| disliked(taints) == 0) {
            return false;
        }
        let disliked = snapshot.by_taints(disliked);
        for (score, node) in scores.iter_mut().zip(nodes) {
            *score = disliked(*node).unwrap_or(0);
        }
        true
    }

    fn normalize(&self) -> Option<fn(&mut [i64])> {
        Some(less_is_better)
    }

    fn heeds(&self, event: &Event<'_>) -> bool {
        matches!(event, Event::Node { .. })
    }

    fn wakes_on(&self, pod: &Wanted, event: &Event<'_>) -> bool {
        let admits = |n: &Node| admits(&n.taints, &pod.tolerations);
        matches!(event, Event::Node { was, now } if admits(now) && was.is_none_or(|w| !admits(w)))
    }
}
