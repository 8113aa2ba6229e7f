//! Making room for a pod by taking away less important ones (`DefaultPreemption`).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::Timestamp;

use crate::candidates::Refusals;
use crate::decision::{fits, histogram};
use crate::{Footprint, NodeIndex, Plugins, Snapshot, Wanted};

const NO_VICTIMS: &str = "No preemption victims found for incoming pod";
const NOT_HELPFUL: &str = "Preemption is not helpful for scheduling";
/// So many nodes where preemption helps are compared, or a tenth of those where it might, if that is more.
const MIN_COMPARED: usize = 100;

/// What is done for a pod that fits nowhere.
#[derive(Clone, Debug, PartialEq)]
pub enum Preemption {
    /// It may not preempt, or waits for what it preempted: where it is expected stays as it is.
    Waits,
    /// There is nobody whose leaving would help: it is expected nowhere.
    Hopeless,
    /// These leave, and it is expected there.
    Preempts(Victims),
}

/// Pods that leave one node for another pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Victims {
    /// The node's name.
    pub node: Arc<str>,
    /// The most important first; at least one.
    pub pods: Vec<Arc<Footprint>>,
    /// How many of them a disruption budget would keep.
    pub violations: usize,
}

/// Finds the node where the least is lost if pods make room, and says so in upstream's words. The snapshot is as before
/// when this returns.
pub(crate) fn preempt(
    pod: &Wanted,
    snapshot: &mut Snapshot,
    plugins: &Plugins,
    refused: &Refusals,
    seed: u64,
) -> (Preemption, String) {
    if pod.never_preempts {
        return (Preemption::Waits, "not eligible due to preemptionPolicy=Never.".to_owned());
    }
    if waits(pod, snapshot, refused) {
        let why = "not eligible due to a terminating pod on the nominated node.".to_owned();
        return (Preemption::Waits, why);
    }
    let mut possible: Vec<NodeIndex> = refused.resolvable().collect();
    possible.sort_unstable();
    let first = seed % possible.len().max(1) as u64;
    possible.rotate_left(first as usize);
    let (found, why) = compare(pod, snapshot, plugins, &possible);
    match best(found) {
        Some(victims) => {
            let (node, count) = (victims.node.clone(), victims.pods.len());
            let told = format!("found a potential placement for pod on node {node}, preempting {count} victims");
            (Preemption::Preempts(victims), told)
        }
        None => (Preemption::Hopeless, failed(snapshot.len(), possible.len(), &why)),
    }
}

/// Whether pods that it preempted are still leaving.
fn waits(pod: &Wanted, snapshot: &Snapshot, refused: &Refusals) -> bool {
    let Some(node) = snapshot.nomination(&pod.footprint.uid).and_then(|name| snapshot.index_of(name)) else {
        return false;
    };
    let leaving = |p: &Arc<Footprint>| p.preempted && p.priority < pod.footprint.priority;
    !refused.is_hopeless(node) && snapshot.pods_on(node).any(leaving)
}

fn failed(nodes: usize, possible: usize, why: &BTreeMap<String, usize>) -> String {
    let mut reasons: BTreeMap<&str, usize> = why.iter().map(|(text, count)| (text.as_str(), *count)).collect();
    if nodes > possible {
        *reasons.entry(NOT_HELPFUL).or_default() += nodes - possible;
    }
    histogram(nodes, reasons)
}

/// What would be lost on enough nodes to choose from, and why preemption does not help on others.
fn compare(
    pod: &Wanted,
    snapshot: &mut Snapshot,
    plugins: &Plugins,
    possible: &[NodeIndex],
) -> (Vec<Victims>, BTreeMap<String, usize>) {
    let (mut found, mut why) = (Vec::<Victims>::new(), BTreeMap::<String, usize>::new());
    if snapshot.lowest_priority().is_none_or(|lowest| lowest >= pod.footprint.priority) {
        if !possible.is_empty() {
            why.insert(NO_VICTIMS.to_owned(), possible.len());
        }
        return (found, why);
    }
    let enough = (possible.len() / 10).max(MIN_COMPARED);
    let ahead = snapshot.ahead_of(&pod.footprint);
    for node in possible {
        let ahead = ahead.get(node).map_or(&[] as &[_], Vec::as_slice);
        match victims(pod, snapshot, plugins, *node, ahead) {
            Ok(victims) => found.push(victims),
            Err(reasons) => reasons.into_iter().for_each(|text| *why.entry(text).or_default() += 1),
        }
        if found.len() >= enough && found.iter().any(|v| v.violations == 0) {
            break;
        }
    }
    (found, why)
}

/// Whom to take from a node so that the pod fits there: as few and as unimportant ones as possible.
fn victims(
    pod: &Wanted,
    snapshot: &mut Snapshot,
    plugins: &Plugins,
    node: NodeIndex,
    ahead: &[Arc<Footprint>],
) -> Result<Victims, Vec<String>> {
    let lower = |p: &&Arc<Footprint>| p.priority < pod.footprint.priority;
    let mut lower: Vec<Arc<Footprint>> = snapshot.pods_on(node).filter(lower).cloned().collect();
    let name = snapshot.node(node).map(|n| n.name.clone()).unwrap_or_default();
    if lower.is_empty() {
        return Err(vec![NO_VICTIMS.to_owned()]);
    }
    lower.sort_by_key(|p| importance(p));
    let chosen = snapshot.without(node, &lower, |snapshot| choose(pod, snapshot, plugins, node, &lower, ahead));
    let (pods, violations) = chosen?;
    Ok(Victims { node: name, pods, violations })
}

/// The most important first: priority, then who has run longest; who has not started yet comes last.
fn importance(pod: &Footprint) -> (Reverse<i32>, Timestamp, String) {
    (Reverse(pod.priority), pod.started.unwrap_or(Timestamp::MAX), pod.uid.clone())
}

type Chosen = (Vec<Arc<Footprint>>, usize);

/// From a node without all `lower` pods, spares as many of them as leave room for the pod: those first that a
/// disruption budget keeps, and of each kind the most important first.
fn choose(
    pod: &Wanted,
    snapshot: &mut Snapshot,
    plugins: &Plugins,
    node: NodeIndex,
    lower: &[Arc<Footprint>],
    ahead: &[Arc<Footprint>],
) -> Result<Chosen, Vec<String>> {
    let room = |snapshot: &mut Snapshot| {
        let (fits_now, why) = snapshot.with(node, ahead, |snapshot| fits(pod, snapshot, plugins, node));
        if fits_now && !ahead.is_empty() { fits(pod, snapshot, plugins, node) } else { (fits_now, why) }
    };
    let (fits_empty, why) = room(snapshot);
    if !fits_empty {
        return Err(why.texts().into_keys().map(str::to_owned).collect());
    }
    let violates = snapshot.violations(lower.iter().map(Arc::as_ref));
    let name = snapshot.node(node).map(|n| n.name.clone()).unwrap_or_default();
    let (mut gone, mut violations) = (BTreeSet::new(), 0);
    for kept in [true, false] {
        for (victim, _) in lower.iter().zip(&violates).filter(|(_, violates)| **violates == kept) {
            snapshot.place(&name, victim.clone());
            if !room(snapshot).0 {
                snapshot.displace(&victim.uid);
                gone.insert(victim.uid.as_str());
                violations += usize::from(kept);
            }
        }
    }
    let pods: Vec<Arc<Footprint>> = lower.iter().filter(|p| gone.contains(p.uid.as_str())).cloned().collect();
    // A node where nobody has to leave was refused for another reason than its pods.
    if pods.is_empty() { Err(vec![NO_VICTIMS.to_owned()]) } else { Ok((pods, violations)) }
}

/// The least violations, then the least important highest victim, the least sum of priorities, the fewest, and the one
/// whose most important victims have run for the shortest time; then the first.
fn best(found: Vec<Victims>) -> Option<Victims> {
    let loss = |victims: &Victims| {
        let highest = victims.pods.iter().map(|p| p.priority).max();
        let sum: i64 = victims.pods.iter().map(|p| i64::from(p.priority) + i64::from(i32::MAX) + 1).sum();
        let top = victims.pods.iter().filter(|p| Some(p.priority) == highest);
        let earliest = top.map(|p| p.started.unwrap_or(Timestamp::MAX)).min();
        (victims.violations, highest, sum, victims.pods.len(), Reverse(earliest))
    };
    found.into_iter().min_by_key(loss)
}

impl Snapshot {
    /// Does something while pods are on a node that are not there yet.
    pub(crate) fn with<T>(&mut self, node: NodeIndex, pods: &[Arc<Footprint>], work: impl FnOnce(&mut Self) -> T) -> T {
        let name = self.node(node).map(|n| n.name.clone()).unwrap_or_default();
        pods.iter().for_each(|pod| self.place(&name, pod.clone()));
        let result = work(self);
        pods.iter().for_each(|pod| drop(self.displace(&pod.uid)));
        result
    }

    /// Does something while pods of a node are not there; they are there again afterwards.
    fn without<T>(&mut self, node: NodeIndex, pods: &[Arc<Footprint>], work: impl FnOnce(&mut Self) -> T) -> T {
        let name = self.node(node).map(|n| n.name.clone()).unwrap_or_default();
        pods.iter().for_each(|pod| drop(self.displace(&pod.uid)));
        let result = work(self);
        pods.iter().for_each(|pod| self.place(&name, pod.clone()));
        result
    }
}
