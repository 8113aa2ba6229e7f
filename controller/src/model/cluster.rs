//! Controllers on the model: a World fed from the server's log, a queue for each, and one step at a time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use api::Document;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Node, Pod};
use reconcile::resource::name_of;
use reconcile::{
    Answer, Change, Controller, Effect, Failure, Key, Live, Object, ObjectName, Resource, Selection, Timestamp, Watch,
    World,
};
use serde_json::{Value, json};

use super::server::{Reply, Server};
use super::show;

/// What may go wrong, in parts of a thousand for each occasion.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct Chaos {
    /// A request is refused with a server error, and not carried out.
    pub refused: u64,
    /// A request is carried out and its answer lost.
    pub answer_lost: u64,
    /// A watch event comes a second time.
    pub doubled: u64,
    /// A watch breaks and begins again with a list.
    pub relist: u64,
    /// The controllers crash and begin with nothing.
    pub crash: u64,
}

/// One step of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Step {
    /// The next event of one watch is delivered.
    Watch(usize),
    /// One controller decides and performs for its next key.
    Decide(usize),
    /// The next timer runs out.
    Timer,
    /// The kubelets do something.
    Kubelet,
}

/// A resource that is watched, and how far its watch has come.
struct Source {
    resource: Resource,
    parse: reconcile::controller::Parse,
    /// The place in the server's log.
    position: usize,
}

struct Runner {
    controller: Box<dyn Controller>,
    watches: Vec<Watch>,
    ready: VecDeque<Key>,
    timers: BTreeMap<Key, Timestamp>,
    failures: BTreeMap<Key, u32>,
}

/// Controllers on a model of the API server.
pub struct Cluster {
    /// The server.
    pub server: Server,
    /// The time of the model.
    pub now: Timestamp,
    /// What was done, a line each.
    pub trace: Vec<String>,
    /// What goes wrong.
    pub chaos: Chaos,
    world: World,
    sources: Vec<Source>,
    runners: Vec<Runner>,
    random: u64,
}

/// The most rounds of live questions for one decision.
const ROUNDS: usize = 8;

impl Cluster {
    /// A cluster without objects; `seed` decides whatever is left to chance.
    pub fn new(controllers: Vec<Box<dyn Controller>>, seed: u64) -> Self {
        let mut cluster = Self {
            server: Server::default(),
            now: Timestamp::from_second(1_800_000_000).unwrap_or_default(),
            trace: Vec::new(),
            chaos: Chaos::default(),
            world: World::default(),
            sources: Vec::new(),
            runners: Vec::new(),
            random: seed.wrapping_mul(2).wrapping_add(1),
        };
        for controller in controllers {
            let watches = controller.watches();
            watches.iter().for_each(|w| cluster.watch(w));
            let (ready, timers, failures) = (VecDeque::new(), BTreeMap::new(), BTreeMap::new());
            cluster.runners.push(Runner { controller, watches, ready, timers, failures });
        }
        cluster.restart();
        cluster
    }

    fn watch(&mut self, watch: &Watch) {
        let Selection::One(resource) = &watch.selection else { return };
        self.world.keep(resource, watch.indexes);
        let known = self.sources.iter_mut().find(|s| s.resource == *resource);
        match known {
            Some(known) if !watch.metadata_only => known.parse = watch.parse,
            Some(_) => {}
            None => self.sources.push(Source { resource: resource.clone(), parse: watch.parse, position: 0 }),
        }
    }

    /// The controllers begin with nothing but lists of what there is.
    pub fn restart(&mut self) {
        self.world = World::default();
        for runner in &mut self.runners {
            (runner.ready, runner.timers, runner.failures) = Default::default();
            for watch in &runner.watches {
                if let Selection::One(resource) = &watch.selection {
                    self.world.keep(resource, watch.indexes);
                }
            }
        }
        self.world.discovered(self.sources.iter().map(|s| s.resource.clone()).collect());
        (0..self.sources.len()).for_each(|source| self.relist(source));
    }

    /// A number below `bound`, by the seed (xorshift64*).
    pub fn random(&mut self, bound: u64) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound.max(1)
    }

    fn happens(&mut self, per_mille: u64) -> bool {
        per_mille > 0 && self.random(1000) < per_mille
    }

    /// Whether the controllers crash now.
    pub fn crashes(&mut self) -> bool {
        self.happens(self.chaos.crash)
    }

    fn relist(&mut self, source: usize) {
        let Some(Source { resource, parse, .. }) = self.sources.get(source) else { return };
        let (resource, parse) = (resource.clone(), *parse);
        let objects = self.server.list(&resource).into_iter().filter_map(|o| parse(&o.to_bytes()).ok()).collect();
        let changes = self.world.listed(&resource, objects, self.server.revision(), self.now);
        if let Some(source) = self.sources.get_mut(source) {
            source.position = self.server.log.len();
        }
        changes.iter().for_each(|c| self.tell(c));
    }

    fn tell(&mut self, change: &Change) {
        for runner in &mut self.runners {
            if runner.watches.iter().any(|w| w.covers(&change.resource)) {
                let keys = runner.controller.touches(change, &self.world);
                keys.into_iter().for_each(|key| runner.add(key));
            }
        }
    }

    /// The steps that are possible now.
    pub fn steps(&self) -> Vec<Step> {
        let behind = |s: &Source| self.server.log.iter().skip(s.position).any(|e| e.resource == s.resource);
        let watches = self.sources.iter().enumerate().filter(|(_, s)| behind(s)).map(|(i, _)| Step::Watch(i));
        let ready = self.runners.iter().enumerate().filter(|(_, r)| !r.ready.is_empty());
        watches.chain(ready.map(|(i, _)| Step::Decide(i))).collect()
    }

    /// Makes one step.
    pub fn step(&mut self, step: Step) {
        match step {
            Step::Watch(source) => self.deliver(source),
            Step::Decide(runner) => self.decide(runner),
            Step::Timer => self.timer(),
            Step::Kubelet => self.kubelet(),
        }
    }

    /// Runs without any failure until nothing is left to do but to wait. False if that takes too long.
    pub fn settle(&mut self, most: usize) -> bool {
        for _ in 0..most {
            match self.steps().first() {
                Some(step) => self.step(*step),
                None => return true,
            }
        }
        false
    }

    /// Lets time pass, and settles.
    pub fn wait(&mut self, seconds: i64, most: usize) -> bool {
        let end = self.now + SignedDuration::from_secs(seconds);
        while let Some(due) = self.next_timer().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.timer();
            if !self.settle(most) {
                return false;
            }
        }
        self.now = end;
        self.settle(most)
    }

    fn next_timer(&self) -> Option<Timestamp> {
        self.runners.iter().flat_map(|r| r.timers.values()).min().copied()
    }

    fn timer(&mut self) {
        let Some(due) = self.next_timer() else { return };
        self.now = self.now.max(due);
        for runner in &mut self.runners {
            let over: Vec<Key> =
                runner.timers.iter().filter(|(_, at)| **at <= self.now).map(|(k, _)| k.clone()).collect();
            over.into_iter().for_each(|key| runner.add(key));
        }
    }

    fn deliver(&mut self, place: usize) {
        if self.happens(self.chaos.relist) {
            return self.relist(place);
        }
        let doubled = self.happens(self.chaos.doubled);
        let Some(source) = self.sources.get_mut(place) else { return };
        let next =
            self.server.log.iter().enumerate().skip(source.position).find(|(_, e)| e.resource == source.resource);
        let Some((position, event)) = next else { return };
        source.position = position + 1;
        let Ok(object) = (source.parse)(&event.object.to_bytes()) else { return };
        let (resource, gone) = (source.resource.clone(), event.gone);
        for _ in 0..=u8::from(doubled) {
            let change = match gone {
                true => self.world.said_gone(&resource, object.as_ref()),
                false => self.world.said(&resource, object.clone(), self.now),
            };
            change.iter().for_each(|c| self.tell(c));
        }
    }

    fn decide(&mut self, place: usize) {
        let Some(key) = self.runners.get_mut(place).and_then(|r| r.ready.pop_front()) else { return };
        let result = self.perform_all(place, &key);
        let now = self.now;
        let Some(runner) = self.runners.get_mut(place) else { return };
        let name = runner.controller.name();
        match result {
            Ok(wake_at) => {
                runner.failures.remove(&key);
                runner.timers.remove(&key);
                runner.timers.extend(wake_at.map(|at| (key.clone(), at)));
                self.world.failed(name, &key, None);
            }
            Err(failure) => {
                let count = runner.failures.entry(key.clone()).or_default();
                *count = (*count + 1).min(17);
                let wait = SignedDuration::from_millis(5 << (*count - 1));
                runner.timers.insert(key.clone(), now + wait);
                self.world.failed(name, &key, Some(failure));
            }
        }
    }

    /// Decides with live answers and performs; the first failure ends it.
    fn perform_all(&mut self, place: usize, key: &Key) -> Result<Option<Timestamp>, Failure> {
        let mut asked: Vec<Live> = Vec::new();
        for _ in 0..ROUNDS {
            let Some(runner) = self.runners.get(place) else { return Ok(None) };
            let outcome = runner.controller.decide(&self.world, key, self.now);
            let name = runner.controller.name();
            if outcome.read_live.is_empty() {
                asked.iter().for_each(|q| self.world.unanswer(q));
                for effect in outcome.effects {
                    self.perform(name, &effect)?;
                }
                return Ok(outcome.wake_at);
            }
            for question in outcome.read_live {
                let answer = self.answer(&question);
                self.world.answer(question.clone(), answer);
                asked.push(question);
            }
        }
        Err(Failure { code: 0, reason: "NoDecision".into(), message: "asked too often".into() })
    }

    fn perform(&mut self, name: &str, effect: &Effect) -> Result<(), Failure> {
        if self.happens(self.chaos.refused) {
            self.trace.push(format!("{name}: REFUSED {}", show::effect(effect)));
            return Err(Failure { code: 500, reason: "InternalError".into(), message: "chaos".into() });
        }
        let result = self.server.perform(effect, self.now);
        let ended = result.as_ref().map_or_else(|f| format!(" -> {} {}", f.code, f.reason), |_| String::new());
        self.trace.push(format!("{name}: {}{ended}", show::effect(effect)));
        let reply = match result {
            Err(failure) if failure.code == 404 => return Ok(()),
            other => other?,
        };
        if self.happens(self.chaos.answer_lost) {
            return Err(Failure { code: 0, reason: "Unreachable".into(), message: "chaos".into() });
        }
        self.overlay(reply);
        Ok(())
    }

    fn overlay(&mut self, reply: Reply) {
        let change = match reply {
            Reply::Object(resource, object) => {
                let parse = self.sources.iter().find(|s| s.resource == resource).map(|s| s.parse);
                let object = parse.and_then(|parse| parse(&object.to_bytes()).ok());
                object.and_then(|object| self.world.wrote(&resource, object, self.now))
            }
            Reply::Gone(resource, uid) => self.world.wrote_gone(&resource, &uid),
            Reply::Nothing => None,
        };
        change.iter().for_each(|c| self.tell(c));
    }

    fn answer(&self, question: &Live) -> Answer {
        let meta = |o: &Document| -> Arc<dyn Object> { Arc::new(o.typed::<reconcile::Partial>().unwrap_or_default()) };
        match question {
            Live::Object(resource, name) => Answer::Object(self.server.get(resource, name).map(meta)),
            Live::List(resource, namespace) => {
                let inside = self.server.list(resource).into_iter().filter(|o| o.namespace() == namespace);
                Answer::List(inside.map(meta).collect())
            }
            Live::Resources => Answer::Resources(self.world.resources().to_vec()),
            Live::Access(_) => Answer::Access(true),
        }
    }

    /// Every kubelet does all it has to: pods get nodes and run, those that shall end do.
    pub fn kubelet(&mut self) {
        for pod in self.server.typed::<Pod>() {
            self.kubelet_of(&pod);
        }
    }

    /// The kubelet does what one pod needs.
    pub fn kubelet_of(&mut self, pod: &Pod) {
        let name = name_of(&pod.metadata);
        if pod.metadata.deletion_timestamp.is_some() {
            return self.server.ended(&name);
        }
        if reconcile::pods::phase(pod) != "Pending" {
            return;
        }
        let nodes: Vec<Node> = self.server.typed();
        let picked = usize::try_from(self.random(nodes.len().try_into().unwrap_or(1))).unwrap_or_default();
        let free = || nodes.get(picked).and_then(|n| n.metadata.name.clone()).unwrap_or_else(|| "n0".into());
        let node = pinned(pod).unwrap_or_else(free);
        let at = json!(reconcile::conditions::time(self.now));
        let end = pod.metadata.annotations.as_ref().and_then(|a| a.get("end")).cloned();
        let phase = end.clone().unwrap_or_else(|| "Running".into());
        let ready = if end.is_some() { "False" } else { "True" };
        self.server.edit(&Resource::of::<Pod>(), &name, |pod| {
            pod.set_default("/spec/nodeName", node);
            pod.set("/status/phase", phase);
            pod.set("/status/conditions", json!([{"type": "Ready", "status": ready, "lastTransitionTime": at}]));
        });
    }

    /// Creates or replaces the spec of objects, as `kubectl apply` does with YAML documents already read.
    pub fn apply(&mut self, resource: &Resource, object: &Value) {
        let document = Document::new(object.clone()).unwrap_or_default();
        let name = ObjectName { namespace: document.namespace().into(), name: document.name().into() };
        if self.server.get(resource, &name).is_none() {
            let created = self.server.create(resource, &name.namespace, object, self.now);
            // Nothing else has the name.
            return drop(created);
        }
        self.server.edit(resource, &name, |old| {
            *old = api::patch::merge(old, &json!({"metadata": object["metadata"], "spec": object["spec"]}));
        });
    }
}

/// The node that a pod's affinity names.
fn pinned(pod: &Pod) -> Option<String> {
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    required.node_selector_terms.first()?.match_fields.as_ref()?.first()?.values.as_ref()?.first().cloned()
}

impl Runner {
    fn add(&mut self, key: Key) {
        if !self.ready.contains(&key) {
            self.timers.remove(&key);
            self.ready.push_back(key);
        }
    }
}
