//! Rolling update: replaces pods of older templates without more than so many nodes going without.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use reconcile::{Effect, Timestamp, pods};

use super::nodes::{self, Place, Places};
use crate::history::REVISION;
use crate::{percent, podset};

/// Whether a pod is of the current template.
pub(super) fn is_updated(pod: &Pod, hash: &str) -> bool {
    pod.metadata.labels.as_ref().and_then(|l| l.get(REVISION)).is_some_and(|h| h == hash)
}

fn is_rolling(ds: &DaemonSet) -> bool {
    ds.spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref()).unwrap_or("RollingUpdate") == "RollingUpdate"
}

fn bound(ds: &DaemonSet, places: &Places<'_>, pick: impl Fn(&DaemonSet) -> Option<IntOrString>) -> usize {
    let desired = podset::count(places.nodes.iter().filter(|p| p.should_run).count());
    let n = pick(ds).map_or(0, |v| percent::scaled(&v, desired, true));
    if is_rolling(ds) { usize::try_from(n).unwrap_or_default() } else { 0 }
}

/// How many nodes may have a new pod beside the old one.
pub(super) fn max_surge(ds: &DaemonSet, places: &Places<'_>) -> usize {
    let rolling = |ds: &DaemonSet| ds.spec.update_strategy.as_ref()?.rolling_update.clone()?.max_surge;
    bound(ds, places, rolling)
}

fn max_unavailable(ds: &DaemonSet, places: &Places<'_>) -> usize {
    let rolling = |ds: &DaemonSet| ds.spec.update_strategy.as_ref()?.rolling_update.clone()?.max_unavailable;
    match (bound(ds, places, rolling), max_surge(ds, places)) {
        (0, 0) => 1,
        (unavailable, _) => unavailable,
    }
}

/// The pods of a node that are too many: all but the oldest, or with surge all but one old and one new that is not
/// yet available.
pub(super) fn excess<'a>(
    ds: &DaemonSet,
    places: &Places<'_>,
    running: Vec<&'a Pod>,
    hash: &str,
    now: Timestamp,
) -> Vec<&'a Pod> {
    if max_surge(ds, places) == 0 {
        return running.into_iter().skip(1).collect();
    }
    let (new, old): (Vec<&Pod>, Vec<&Pod>) = running.into_iter().partition(|p| is_updated(p, hash));
    let min_ready = ds.spec.min_ready_seconds.unwrap_or_default();
    let replaced = match (new.first(), old.first()) {
        (Some(new), Some(old)) => !pods::is_ready(old) || pods::is_available(new, min_ready, now),
        _ => false,
    };
    let mut excess: Vec<&Pod> = new.into_iter().skip(1).collect();
    excess.extend(old.into_iter().skip(if replaced { 0 } else { 1 }));
    excess
}

/// The next steps of an update, when every node has what it should.
pub(super) fn roll(ds: &DaemonSet, places: &Places<'_>, hash: &str, now: Timestamp) -> Vec<Effect> {
    if !is_rolling(ds) {
        return Vec::new();
    }
    match max_surge(ds, places) {
        0 => replace(ds, places, hash, now),
        surge => add(ds, places, hash, now, surge),
    }
}

fn living<'a>(place: &Place<'a>) -> Vec<&'a Pod> {
    place.pods.iter().copied().filter(|p| !pods::is_deleting(p)).collect()
}

/// Deletes old pods: those that are not available at once, others while few enough nodes are without.
fn replace(ds: &DaemonSet, places: &Places<'_>, hash: &str, now: Timestamp) -> Vec<Effect> {
    let min_ready = ds.spec.min_ready_seconds.unwrap_or_default();
    let (mut unavailable, mut allowed, mut candidates) = (0, Vec::new(), Vec::new());
    for place in places.nodes.iter().filter(|p| p.should_run || !p.pods.is_empty()) {
        match living(place).as_slice() {
            [pod] if is_updated(pod, hash) => unavailable += usize::from(!pods::is_available(pod, min_ready, now)),
            [pod] if pods::is_available(pod, min_ready, now) => candidates.push(*pod),
            [pod] => {
                allowed.push(*pod);
                unavailable += 1;
            }
            _ => unavailable += 1,
        }
    }
    let more = max_unavailable(ds, places).saturating_sub(unavailable);
    allowed.extend(candidates.into_iter().take(more));
    allowed.into_iter().map(|p| podset::delete(ds, p)).collect()
}

/// Creates new pods beside old ones: at once where the old one is not available, else while few enough are beside.
fn add(ds: &DaemonSet, places: &Places<'_>, hash: &str, now: Timestamp, surge: usize) -> Vec<Effect> {
    let min_ready = ds.spec.min_ready_seconds.unwrap_or_default();
    let (mut beside, mut allowed, mut candidates) = (0, Vec::new(), Vec::new());
    for place in places.nodes.iter().filter(|p| p.should_run) {
        match living(place).as_slice() {
            [pod] if is_updated(pod, hash) => {}
            [pod] if pods::is_available(pod, min_ready, now) => candidates.push(place.name),
            [_] => allowed.push(place.name),
            _ => beside += 1,
        }
    }
    let more = surge.saturating_sub(beside);
    allowed.extend(candidates.into_iter().take(more));
    allowed.into_iter().map(|node| podset::create(ds, nodes::pod(ds, node, hash))).collect()
}
