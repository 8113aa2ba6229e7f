//! The scheduler as the driver runs it: it follows pods and nodes, keeps the queue, and assumes its own placements until
//! they come back or fail.

use std::collections::HashMap;
use std::sync::Arc;

use api::{ObjectName, Timestamp};
use k8s_openapi::api::core::v1::{Namespace, Node as ApiNode, Pod, PodCondition};
use reconcile::{Change, Effect, Failure, Key, Outcome, Planner, Watch, pods};

use crate::queue::Queue;
use crate::{Decision, Event, Node, SCHEDULER_NAME, Snapshot, Verdict, Wanted, effects, plugins, schedule};

/// What the scheduler does not look at.
const POD_DROPS: &[&str] = &[
    "/status/containerStatuses",
    "/status/initContainerStatuses",
    "/status/ephemeralContainerStatuses",
    "/metadata/annotations",
];

/// Places pods on nodes.
#[derive(Debug, Default)]
pub struct Scheduler {
    snapshot: Snapshot,
    queue: Queue,
    /// Pods placed by us whose binding has not come back, by uid.
    assumed: HashMap<String, ObjectName>,
    /// The condition PodScheduled of waiting pods, as the API server has it.
    conditions: HashMap<ObjectName, PodCondition>,
}

impl Scheduler {
    /// A scheduler that knows of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The nodes and what runs on them, placements under way included.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Where a pod would go now, and why not elsewhere. Changes nothing.
    pub fn dry_run(&self, pod: &Pod, seed: u64) -> Decision {
        schedule(&Wanted::of(pod), &self.snapshot, plugins::ALL, seed)
    }

    /// Takes in a node.
    pub fn set_node(&mut self, node: &ApiNode, now: Timestamp) {
        let node = Node::of(node);
        if self.snapshot.named(&node.name).is_some_and(|known| **known == node) {
            return;
        }
        let name = node.name.clone();
        let was = self.snapshot.set_node(node);
        if let Some(node) = self.snapshot.named(&name) {
            self.queue.wake(&Event::Node { was: was.as_deref(), now: node }, plugins::ALL, now);
        }
    }

    /// A node is gone.
    pub fn remove_node(&mut self, name: &str) {
        self.snapshot.remove_node(name);
    }

    /// Takes in a pod.
    pub fn set_pod(&mut self, pod: &Pod, now: Timestamp) {
        let wanted = Wanted::of(pod);
        if pods::is_terminal(pod) {
            self.forget_pod(&wanted.name, &wanted.footprint.uid, now);
        } else if let Some(node) = wanted.node.clone() {
            self.placed(&node, &wanted, now);
        } else if is_ours(pod) && !pods::is_deleting(pod) {
            self.wait(pod, wanted, now);
        } else {
            self.unqueue(&wanted.name);
        }
    }

    fn placed(&mut self, node: &str, pod: &Wanted, now: Timestamp) {
        self.unqueue(&pod.name);
        let footprint = &pod.footprint;
        let ours = self.assumed.remove(&footprint.uid).is_some();
        let known = self.snapshot.footprint(&footprint.uid).cloned();
        if self.snapshot.place_of(&footprint.uid) == Some(node) && known.as_ref() == Some(footprint) {
            return;
        }
        self.snapshot.place(node, footprint.clone());
        // Our own placements have woken others when they were assumed.
        if !ours {
            self.queue.wake(&Event::PodPlaced(footprint), plugins::ALL, now);
        }
        if let Some(known) = known {
            self.queue.wake(&Event::PodLeft(&known), plugins::ALL, now);
        }
    }

    fn wait(&mut self, pod: &Pod, wanted: Wanted, now: Timestamp) {
        match effects::scheduled_condition(pod) {
            Some(condition) => self.conditions.insert(wanted.name.clone(), condition.clone()),
            None => self.conditions.remove(&wanted.name),
        };
        self.queue.set(Arc::new(wanted), now);
    }

    fn unqueue(&mut self, name: &ObjectName) {
        self.queue.remove(name);
        self.conditions.remove(name);
    }

    /// A pod is gone or has ended.
    pub fn forget_pod(&mut self, name: &ObjectName, uid: &str, now: Timestamp) {
        if self.queue.get(name).is_some_and(|pod| pod.footprint.uid == uid) {
            self.unqueue(name);
        }
        self.assumed.remove(uid);
        if let Some(left) = self.snapshot.displace(uid) {
            self.queue.wake(&Event::PodLeft(&left), plugins::ALL, now);
        }
    }

    /// Decides for the pod that is next, and counts it as placed if it is.
    pub fn decide(&mut self, now: Timestamp, seed: u64) -> Option<(ObjectName, Outcome<Effect>)> {
        let pod = self.queue.pop(now)?;
        self.snapshot.prepare(&pod);
        let decision = schedule(&pod, &self.snapshot, plugins::ALL, seed);
        let mut outcome = Outcome::default();
        match &decision.verdict {
            Verdict::Place(placement) => {
                outcome.because("Scheduled", format!("{} scores {}", placement.node, placement.score));
                outcome.effect(effects::bind(&pod, &placement.node));
                self.assume(&pod, &placement.node, now);
            }
            Verdict::Unschedulable(why) => {
                outcome.because("Unschedulable", why.clone());
                let was = self.conditions.get(&pod.name);
                outcome.effects = effects::unschedulable(&pod, was, why, now);
                self.queue.park(&pod.name, refusing(&decision), now);
            }
        }
        Some((pod.name.clone(), outcome))
    }

    fn assume(&mut self, pod: &Wanted, node: &str, now: Timestamp) {
        self.snapshot.place(node, pod.footprint.clone());
        self.assumed.insert(pod.footprint.uid.clone(), pod.name.clone());
        self.queue.wake(&Event::PodPlaced(&pod.footprint), plugins::ALL, now);
    }

    /// The effects of a decision failed: what was assumed is taken back, and the pod waits for another turn.
    pub fn failed(&mut self, name: &ObjectName, now: Timestamp) {
        let Some(pod) = self.queue.get(name).cloned() else { return };
        if self.assumed.remove(&pod.footprint.uid).is_some() {
            self.queue.retry(name, now);
            if let Some(left) = self.snapshot.displace(&pod.footprint.uid) {
                self.queue.wake(&Event::PodLeft(&left), plugins::ALL, now);
            }
        }
    }
}

/// The plugins that refused any node, each once.
fn refusing(decision: &Decision) -> Vec<&'static str> {
    let mut plugins: Vec<&'static str> = decision.refused.iter().map(|(_, refusal)| refusal.plugin).collect();
    plugins.sort_unstable();
    plugins.dedup();
    plugins
}

fn is_ours(pod: &Pod) -> bool {
    let name = pod.spec.as_ref().and_then(|s| s.scheduler_name.as_deref()).unwrap_or(SCHEDULER_NAME);
    name == SCHEDULER_NAME
}

impl Planner for Scheduler {
    fn name(&self) -> &'static str {
        SCHEDULER_NAME
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of::<ApiNode>(), Watch::metadata::<Namespace>(), Watch::of::<Pod>().dropping(POD_DROPS)]
    }

    fn observe(&mut self, change: &Change, now: Timestamp) {
        if let Some(pod) = change.now::<Pod>() {
            self.set_pod(pod, now);
        } else if let Some(pod) = change.was::<Pod>() {
            let wanted = Wanted::of(pod);
            self.forget_pod(&wanted.name, &wanted.footprint.uid, now);
        } else if let Some(node) = change.now::<ApiNode>() {
            self.set_node(node, now);
        } else if let Some(node) = change.was::<ApiNode>() {
            self.remove_node(node.metadata.name.as_deref().unwrap_or_default());
        } else if let Some(key) = change.key_of::<Namespace>() {
            let labels = change.after.as_ref().map(|n| n.metadata().labels.clone().unwrap_or_default());
            self.snapshot.set_namespace(&key.object.name, labels);
        }
    }

    fn next(&mut self, now: Timestamp, entropy: u64) -> Option<(Key, Outcome<Effect>)> {
        let (name, outcome) = self.decide(now, entropy)?;
        Some((Key::of::<Pod>(name), outcome))
    }

    fn performed(&mut self, key: &Key, result: Result<(), Failure>, now: Timestamp) {
        if result.is_err() {
            self.failed(&key.object, now);
        }
    }

    fn wake_at(&self) -> Option<Timestamp> {
        self.queue.wake_at()
    }
}
