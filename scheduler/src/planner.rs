//! The scheduler as the driver runs it: it follows pods and nodes, keeps the queue, and assumes its own placements until
//! they come back or fail.

use std::collections::HashMap;
use std::sync::Arc;

use api::{ObjectName, Timestamp};
use k8s_openapi::api::core::v1::{Namespace, Node as ApiNode, PersistentVolumeClaim, Pod, PodCondition};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use reconcile::{Change, Effect, Failure, Key, Outcome, Planner, Watch, pods};

use crate::queue::Queue;
use crate::{
    Budget, Decision, Event, Footprint, Node, Preemption, SCHEDULER_NAME, Snapshot, Verdict, Victims, Wanted, effects,
    plugins, schedule, snapshot,
};

/// Places pods on nodes.
#[derive(Debug, Default)]
pub struct Scheduler {
    snapshot: Snapshot,
    queue: Queue,
    /// Pods placed by us whose binding has not come back, by uid.
    assumed: HashMap<String, ObjectName>,
    /// The condition PodScheduled of waiting pods, as the API server has it.
    conditions: HashMap<ObjectName, PodCondition>,
    /// The nominatedNodeName of waiting pods, as the API server has it.
    nominations: HashMap<ObjectName, String>,
    /// The pods that are being taken away for a waiting one, as they were, until the API server has said so.
    evicting: HashMap<ObjectName, Vec<Arc<Footprint>>>,
}

/// Reads a pod without what the scheduler does not look at.
fn parse(bytes: &[u8]) -> Result<Arc<dyn reconcile::Object>, serde_json::Error> {
    let mut pod: Pod = serde_json::from_slice(bytes)?;
    pod.metadata.annotations = None;
    if let Some(status) = &mut pod.status {
        status.container_statuses = None;
        status.init_container_statuses = None;
        status.ephemeral_container_statuses = None;
    }
    reconcile::controller::keep(pod)
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
        schedule(&Wanted::of(pod), &mut self.snapshot.clone(), plugins::ALL, seed)
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
        self.snapshot.denominate(&pod.footprint.uid);
        let footprint = &self.as_evicted(&pod.footprint);
        let ours = self.assumed.remove(&footprint.uid).is_some();
        let known = self.snapshot.footprint(&footprint.uid).cloned();
        if self.snapshot.place_of(&footprint.uid) == Some(node) && known.as_ref() == Some(footprint) {
            return;
        }
        self.snapshot.place(node, footprint.clone());
        if known.as_ref().is_some_and(|known| footprint.looks_like(known)) {
            return;
        }
        // Our own placements have woken others when they were assumed.
        if !ours {
            self.queue.wake(&Event::PodPlaced(footprint), plugins::ALL, now);
        }
        if let Some(known) = known {
            self.queue.wake(&Event::PodLeft(&known), plugins::ALL, now);
        }
    }

    /// A pod that we are taking away is leaving, even if the API server has not said so yet.
    fn as_evicted(&self, pod: &Arc<Footprint>) -> Arc<Footprint> {
        match self.evicting.values().flatten().any(|victim| victim.uid == pod.uid) {
            true => leaving(pod),
            false => pod.clone(),
        }
    }

    fn wait(&mut self, pod: &Pod, wanted: Wanted, now: Timestamp) {
        match effects::scheduled_condition(pod) {
            Some(condition) => self.conditions.insert(wanted.name.clone(), condition.clone()),
            None => self.conditions.remove(&wanted.name),
        };
        self.heed_nomination(pod, &wanted);
        self.queue.set(Arc::new(wanted), now);
    }

    /// Where the API server expects a pod, if that is news: otherwise our own last word counts, which may be under way.
    fn heed_nomination(&mut self, pod: &Pod, wanted: &Wanted) {
        let says = pod.status.as_ref().and_then(|s| s.nominated_node_name.clone()).filter(|n| !n.is_empty());
        let said = match &says {
            Some(node) => self.nominations.insert(wanted.name.clone(), node.clone()),
            None => self.nominations.remove(&wanted.name),
        };
        let expected = self.snapshot.nomination(&wanted.footprint.uid).map(str::to_owned);
        self.snapshot.nominate(&wanted.footprint, if said == says { expected } else { says }.as_deref());
    }

    fn unqueue(&mut self, name: &ObjectName) {
        if let Some(pod) = self.queue.get(name) {
            self.snapshot.denominate(&pod.footprint.uid);
        }
        self.queue.remove(name);
        self.conditions.remove(name);
        self.nominations.remove(name);
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
        let decision = schedule(&pod, &mut self.snapshot, plugins::ALL, seed);
        let mut outcome = Outcome::default();
        match decision.verdict {
            Verdict::Place(placement) => {
                outcome.because("Scheduled", format!("{} scores {}", placement.node, placement.score));
                outcome.effect(effects::bind(&pod, &placement.node));
                self.assume(&pod, &placement.node, now);
            }
            Verdict::Unschedulable { message, preemption } => {
                outcome.effects = self.refused(&pod, &message, preemption, now);
                outcome.because("Unschedulable", message);
                self.queue.park(&pod.name, decision.refused.plugins(), now);
            }
        }
        Some((pod.name.clone(), outcome))
    }

    fn assume(&mut self, pod: &Wanted, node: &str, now: Timestamp) {
        self.snapshot.denominate(&pod.footprint.uid);
        self.snapshot.place(node, pod.footprint.clone());
        self.assumed.insert(pod.footprint.uid.clone(), pod.name.clone());
        self.queue.wake(&Event::PodPlaced(&pod.footprint), plugins::ALL, now);
    }

    /// What to say and do about a pod that fits nowhere.
    fn refused(&mut self, pod: &Wanted, why: &str, preemption: Preemption, now: Timestamp) -> Vec<Effect> {
        let said = self.nominations.get(&pod.name).map(String::as_str);
        let nominated = match &preemption {
            Preemption::Waits => None,
            Preemption::Hopeless => Some(None).filter(|_| said.is_some()),
            Preemption::Preempts(victims) => Some(Some(&*victims.node)).filter(|node| said != *node),
        };
        let mut effects = effects::unschedulable(pod, self.conditions.get(&pod.name), why, nominated, now);
        match preemption {
            Preemption::Waits => {}
            Preemption::Hopeless => self.snapshot.denominate(&pod.footprint.uid),
            Preemption::Preempts(victims) => {
                effects.extend(self.displace_nominated(pod, &victims.node));
                effects.extend(effects::evict(pod, &victims, now));
                self.evict(pod, victims);
            }
        }
        effects
    }

    /// Less important pods that are expected on a node which another one takes have to look elsewhere.
    fn displace_nominated(&mut self, pod: &Wanted, node: &str) -> Vec<Effect> {
        let lower = |p: &&Arc<Footprint>| p.priority < pod.footprint.priority;
        let lower: Vec<Arc<Footprint>> = self.snapshot.nominated_on(node).filter(lower).cloned().collect();
        for pod in &lower {
            self.snapshot.denominate(&pod.uid);
            self.queue.activate(&ObjectName { namespace: pod.namespace.clone(), name: pod.name.clone() });
        }
        lower.iter().map(|pod| effects::denominate(pod)).collect()
    }

    fn evict(&mut self, pod: &Wanted, victims: Victims) {
        self.snapshot.nominate(&pod.footprint, Some(&victims.node));
        for victim in &victims.pods {
            self.snapshot.place(&victims.node, leaving(victim));
        }
        self.evicting.insert(pod.name.clone(), victims.pods);
    }

    /// All effects of a decision are done.
    pub fn done(&mut self, name: &ObjectName) {
        self.evicting.remove(name);
    }

    /// The effects of a decision failed: what was assumed is taken back, and the pod waits for another turn.
    pub fn failed(&mut self, name: &ObjectName, now: Timestamp) {
        let victims = self.evicting.remove(name).unwrap_or_default();
        let evicted = !victims.is_empty();
        for victim in victims {
            if let Some(node) = self.snapshot.place_of(&victim.uid).map(str::to_owned) {
                self.snapshot.place(&node, victim);
            }
        }
        let Some(pod) = self.queue.get(name).cloned() else { return };
        let assumed = self.assumed.remove(&pod.footprint.uid).is_some();
        if assumed || evicted {
            self.queue.retry(name, now);
        }
        if assumed && let Some(left) = self.snapshot.displace(&pod.footprint.uid) {
            self.queue.wake(&Event::PodLeft(&left), plugins::ALL, now);
        }
    }
}

/// A pod as it is once a scheduler has preempted it.
fn leaving(pod: &Arc<Footprint>) -> Arc<Footprint> {
    Arc::new(Footprint { terminating: true, preempted: true, ..Footprint::clone(pod) })
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
        vec![
            Watch::of::<ApiNode>(),
            Watch::metadata::<Namespace>(),
            Watch::of::<PodDisruptionBudget>(),
            Watch::of::<PersistentVolumeClaim>(),
            Watch::parsed::<Pod>(parse),
        ]
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
            if self.snapshot.set_namespace(&key.object.name, labels) {
                self.queue.wake(&Event::Namespace, plugins::ALL, now);
            }
        } else if let Some(key) = change.key_of::<PersistentVolumeClaim>() {
            let exclusive = change.now::<PersistentVolumeClaim>().is_some_and(snapshot::is_exclusive);
            self.snapshot.set_claim(&key.object, exclusive);
        } else if let Some(key) = change.key_of::<PodDisruptionBudget>() {
            self.snapshot.set_budget(&key.object, change.now::<PodDisruptionBudget>().map(Budget::of));
        }
    }

    fn next(&mut self, now: Timestamp, entropy: u64) -> Option<(Key, Outcome<Effect>)> {
        let (name, outcome) = self.decide(now, entropy)?;
        Some((Key::of::<Pod>(name), outcome))
    }

    fn performed(&mut self, key: &Key, result: Result<(), Failure>, now: Timestamp) {
        match result {
            Ok(()) => self.done(&key.object),
            Err(_) => self.failed(&key.object, now),
        }
    }

    fn wake_at(&self) -> Option<Timestamp> {
        self.queue.wake_at()
    }
}
