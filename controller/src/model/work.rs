//! The work of controllers on the model: keys, decisions that take several steps, effects and their answers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use api::Document;
use jiff::SignedDuration;
use reconcile::{Answer, Change, Controller, Effect, Failure, Key, Live, Object, Timestamp, Watch, World};

use super::cluster::{Cluster, Decision};
use super::server::Reply;
use super::show;

/// The most rounds of live questions for one decision.
const ROUNDS: usize = 8;
/// The most keys that one controller decides about at once.
const WIDTH: usize = 3;

/// One controller and its keys.
pub(super) struct Runner {
    controller: Box<dyn Controller>,
    pub(super) watches: Vec<Watch>,
    ready: VecDeque<Key>,
    work: Vec<Work>,
    timers: BTreeMap<Key, Timestamp>,
    failures: BTreeMap<Key, u32>,
}

/// One key being decided and performed.
struct Work {
    key: Key,
    /// The server's revision when it was begun.
    since: u64,
    /// Something changed meanwhile.
    changed: bool,
    rounds: usize,
    /// What is left to do, once it is decided.
    effects: Option<VecDeque<Effect>>,
    wake_at: Option<Timestamp>,
}

impl Runner {
    pub(super) fn new(controller: Box<dyn Controller>) -> Self {
        let watches = controller.watches();
        let (ready, work, timers, failures) = Default::default();
        Self { controller, watches, ready, work, timers, failures }
    }

    pub(super) fn forget(&mut self) {
        (self.ready, self.work, self.timers, self.failures) = Default::default();
    }

    pub(super) fn hear(&mut self, change: &Change, world: &World) {
        if self.watches.iter().any(|w| w.covers(&change.resource)) {
            self.controller.touches(change, world).into_iter().for_each(|key| self.add(key));
        }
    }

    fn add(&mut self, key: Key) {
        if let Some(work) = self.work.iter_mut().find(|w| w.key == key) {
            work.changed = true;
        } else if !self.ready.contains(&key) {
            self.timers.remove(&key);
            self.ready.push_back(key);
        }
    }

    pub(super) fn under_way(&self) -> usize {
        self.work.len()
    }

    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty() && self.work.len() < WIDTH.min(self.controller.workers())
    }

    pub(super) fn next_timer(&self) -> Option<Timestamp> {
        self.timers.values().min().copied()
    }

    pub(super) fn wake(&mut self, now: Timestamp) {
        let over: Vec<Key> = self.timers.iter().filter(|(_, at)| **at <= now).map(|(k, _)| k.clone()).collect();
        over.into_iter().for_each(|key| self.add(key));
    }

    /// A key is done with: again at once if something changed meanwhile, or when it asked for it, or after a failure.
    fn done(&mut self, number: usize, failed: bool, now: Timestamp) -> Key {
        let work = self.work.remove(number);
        self.timers.remove(&work.key);
        if failed {
            let count = self.failures.entry(work.key.clone()).or_default();
            *count = (*count + 1).min(17);
            self.timers.insert(work.key.clone(), now + SignedDuration::from_millis(5 << (*count - 1)));
        } else {
            self.failures.remove(&work.key);
            self.timers.extend(work.wake_at.map(|at| (work.key.clone(), at)));
        }
        if work.changed {
            self.add(work.key.clone());
        }
        work.key
    }
}

impl Cluster {
    /// A controller takes its next key.
    pub(super) fn decide(&mut self, place: usize) {
        let Some(runner) = self.runners.get_mut(place) else { return };
        let Some(key) = runner.ready.pop_front() else { return };
        let since = self.server.revision();
        runner.work.push(Work { key, since, changed: false, rounds: 0, effects: None, wake_at: None });
        let last = runner.work.len() - 1;
        self.work(place, last);
    }

    /// A controller goes on with a key: decides, or performs the next effect.
    pub(super) fn work(&mut self, place: usize, number: usize) {
        let Some(work) = self.runners.get_mut(place).and_then(|r| r.work.get_mut(number)) else { return };
        let since = work.since;
        let effect = match &mut work.effects {
            None => return self.consider(place, number),
            Some(effects) => effects.pop_front(),
        };
        self.server.since = since;
        let result = effect.map_or(Ok(()), |effect| self.perform(place, &effect));
        let left = |r: &Runner| r.work.get(number).is_some_and(|w| w.effects.as_ref().is_some_and(|e| !e.is_empty()));
        if result.is_err() || !self.runners.get(place).is_some_and(left) {
            self.finish(place, number, result.err());
        }
    }

    fn consider(&mut self, place: usize, number: usize) {
        let Some(runner) = self.runners.get(place) else { return };
        let Some(key) = runner.work.get(number).map(|w| w.key.clone()) else { return };
        let name = runner.controller.name();
        let outcome = runner.controller.decide(&self.world, &key, self.now);
        if runner.controller.decide(&self.world, &key, self.now) != outcome {
            self.fault(format!("{name} decides otherwise about {key} when asked again"));
        }
        if !outcome.read_live.is_empty() {
            for question in outcome.read_live {
                let answer = self.answer(&question);
                self.world.answer(name, &key, question, answer);
            }
            let Some(work) = self.runners.get_mut(place).and_then(|r| r.work.get_mut(number)) else { return };
            work.rounds += 1;
            if work.rounds == ROUNDS {
                let message = "asked too often".into();
                self.finish(place, number, Some(Failure { code: 0, reason: "NoDecision".into(), message }));
            }
            return;
        }
        let (world, server) = (&self.world, &self.server);
        let decision = Decision { controller: name, key: &key, world, server, outcome: &outcome };
        if let Some(Err(wrong)) = self.check.map(|check| check(&decision)) {
            self.fault(wrong);
        }
        let idle = outcome.effects.is_empty();
        if let Some(work) = self.runners.get_mut(place).and_then(|r| r.work.get_mut(number)) {
            (work.effects, work.wake_at) = (Some(outcome.effects.into()), outcome.wake_at);
        }
        if idle {
            self.finish(place, number, None);
        }
    }

    /// Notes the first fault.
    pub fn fault(&mut self, wrong: String) {
        self.wrong.get_or_insert(wrong);
    }

    fn finish(&mut self, place: usize, number: usize, failure: Option<Failure>) {
        let Some(runner) = self.runners.get_mut(place) else { return };
        let key = runner.done(number, failure.is_some(), self.now);
        self.world.unanswer(runner.controller.name(), &key);
        self.world.failed(runner.controller.name(), &key, failure);
    }

    fn perform(&mut self, place: usize, effect: &Effect) -> Result<(), Failure> {
        let name = self.runners.get(place).map_or("", |r| r.controller.name());
        if self.happens(self.chaos.refused) {
            self.trace.push(format!("{name}: REFUSED {}", show::effect(effect)));
            return Err(Failure { code: 500, reason: "InternalError".into(), message: "chaos".into() });
        }
        self.server.actor = name;
        let result = self.server.perform(effect, self.now);
        let ended = result.as_ref().map_or_else(|f| format!(" -> {} {}", f.code, f.reason), |_| String::new());
        let lost = self.happens(self.chaos.answer_lost);
        let lost_text = if lost { " (answer lost)" } else { "" };
        self.trace.push(format!("{name}: {}{ended}{lost_text}", show::effect(effect)));
        if lost {
            self.server.doubt(effect);
            return Err(Failure { code: 0, reason: "Unreachable".into(), message: "chaos".into() });
        }
        match result {
            Err(failure) if failure.code == 404 => Ok(()),
            Err(failure) => Err(failure),
            Ok(reply) => {
                self.overlay(reply);
                Ok(())
            }
        }
    }

    fn overlay(&mut self, reply: Reply) {
        let changes = match reply {
            Reply::Object(resource, object) => {
                let object = self.reading(&resource).and_then(|parse| parse(&object.to_bytes()).ok());
                object.map(|object| self.world.wrote(&resource, object, self.now)).unwrap_or_default()
            }
            Reply::Gone(resource, uid) => self.world.wrote_gone(&resource, &uid).into_iter().collect(),
            Reply::Nothing => Vec::new(),
        };
        changes.iter().for_each(|c| self.tell(c));
    }

    fn answer(&mut self, question: &Live) -> Answer {
        if self.happens(self.chaos.refused) {
            return Answer::Failed("chaos".into());
        }
        let meta = |o: &Document| -> Arc<dyn Object> { Arc::new(o.typed::<reconcile::Partial>().unwrap_or_default()) };
        match question {
            Live::Object(resource, name) => Answer::Object(self.server.get(resource, name).map(meta)),
            Live::List(resource, namespace) => {
                let inside = |o: &&Document| namespace.is_empty() || o.namespace() == namespace;
                Answer::List(self.server.list(resource).into_iter().filter(inside).map(meta).collect())
            }
            Live::Resources => {
                let resources = self.discovery();
                self.world.discovered(resources.clone());
                Answer::Resources(resources)
            }
            Live::Access(_) => Answer::Access(true),
        }
    }
}
