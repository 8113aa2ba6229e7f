//! Controllers on the model: a World fed from the server's log, a queue for each, and one step at a time.

use api::Document;
use jiff::SignedDuration;
use reconcile::{Controller, Effect, Key, ObjectName, Outcome, Resource, Timestamp, World};
use serde_json::Value;

use super::server::Server;
use super::watch::Source;
use super::work::Runner;

/// What may go wrong, in parts of a thousand for each occasion.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct Chaos {
    /// A request is refused with a server error, and not carried out.
    pub refused: u64,
    /// A request is carried out and its answer lost.
    pub answer_lost: u64,
    /// A watch event comes a second time, at once or after later ones.
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
    /// One controller goes on with a decision: asks again with the answers it got, or performs its next effect.
    Work(usize, usize),
    /// Discovery is read.
    Discover,
    /// The next event of one watch is delivered.
    Watch(usize),
    /// One controller takes its next key and decides.
    Decide(usize),
    /// The next timer runs out.
    Timer,
    /// The kubelets do something.
    Kubelet,
}

/// A decision, what it was made on, and how things really are.
#[allow(missing_docs)]
pub struct Decision<'a> {
    pub controller: &'a str,
    pub key: &'a Key,
    pub world: &'a World,
    pub server: &'a Server,
    pub outcome: &'a Outcome<Effect>,
}

/// Looks at a decision; an error is a fault of the controller.
pub type Check = fn(&Decision<'_>) -> Result<(), String>;

/// Controllers on a model of the API server.
pub struct Cluster {
    /// The server.
    pub server: Server,
    /// The time of the model.
    pub now: Timestamp,
    /// What controllers did, a line each.
    pub trace: Vec<String>,
    /// What goes wrong.
    pub chaos: Chaos,
    /// Looks at every decision.
    pub check: Option<Check>,
    /// The first fault that a check found.
    pub wrong: Option<String>,
    pub(super) world: World,
    pub(super) sources: Vec<Source>,
    pub(super) runners: Vec<Runner>,
    random: u64,
}

impl Cluster {
    /// A cluster without objects; `seed` decides whatever is left to chance.
    pub fn new(controllers: Vec<Box<dyn Controller>>, seed: u64) -> Self {
        let mut cluster = Self {
            server: Server::default(),
            now: Timestamp::from_second(1_800_000_000).unwrap_or_default(),
            trace: Vec::new(),
            chaos: Chaos::default(),
            check: None,
            wrong: None,
            world: World::default(),
            sources: Vec::new(),
            runners: controllers.into_iter().map(Runner::new).collect(),
            // Neighbouring seeds must not begin alike (splitmix64).
            random: seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        };
        cluster.watch_named();
        cluster.restart();
        cluster
    }

    /// The controllers begin with nothing but lists of what there is.
    pub fn restart(&mut self) {
        self.world = World::default();
        self.runners.iter_mut().for_each(Runner::forget);
        self.rewatch();
    }

    /// A number below `bound`, by the seed (xorshift64*).
    pub fn random(&mut self, bound: u64) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % bound.max(1)
    }

    /// One of a list, by the seed.
    pub fn pick<T>(&mut self, list: impl IntoIterator<Item = T>) -> Option<T> {
        let list: Vec<T> = list.into_iter().collect();
        let picked = self.random(list.len().try_into().unwrap_or(1));
        list.into_iter().nth(usize::try_from(picked).unwrap_or_default())
    }

    pub(super) fn happens(&mut self, per_mille: u64) -> bool {
        per_mille > 0 && self.random(1000) < per_mille
    }

    /// Whether the controllers crash now.
    pub fn crashes(&mut self) -> bool {
        self.happens(self.chaos.crash)
    }

    /// The steps that are possible now; the first is what a quiet cluster would do.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (place, runner) in self.runners.iter().enumerate() {
            steps.extend((0..runner.under_way()).map(|n| Step::Work(place, n)));
        }
        if self.undiscovered() {
            steps.push(Step::Discover);
        }
        let behind = self.sources.iter().enumerate().filter(|(_, s)| s.position < self.server.said(&s.resource));
        steps.extend(behind.map(|(place, _)| Step::Watch(place)));
        let ready = self.runners.iter().enumerate().filter(|(_, r)| r.is_ready());
        steps.extend(ready.map(|(place, _)| Step::Decide(place)));
        steps
    }

    /// Makes one step.
    pub fn step(&mut self, step: Step) {
        match step {
            Step::Work(runner, number) => self.work(runner, number),
            Step::Discover => self.discover(),
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

    /// Lets time pass, and settles. False if that takes too long, as it does where a timer is set again and again.
    pub fn wait(&mut self, seconds: i64, most: usize) -> bool {
        let end = self.now + SignedDuration::from_secs(seconds);
        let mut left = most;
        while let Some(due) = self.next_timer().filter(|due| *due <= end) {
            left -= 1;
            self.now = self.now.max(due);
            self.timer();
            if left == 0 || !self.settle(most) {
                return false;
            }
        }
        self.now = end;
        self.settle(most)
    }

    fn next_timer(&self) -> Option<Timestamp> {
        self.runners.iter().filter_map(Runner::next_timer).min()
    }

    fn timer(&mut self) {
        let Some(due) = self.next_timer() else { return };
        self.now = self.now.max(due);
        let now = self.now;
        self.runners.iter_mut().for_each(|r| r.wake(now));
    }

    /// Creates an object, or merges into one, as somebody who is no controller.
    pub fn apply(&mut self, resource: &Resource, object: &Value) {
        self.server.actor = "user";
        let document = Document::new(object.clone()).unwrap_or_default();
        let name = ObjectName { namespace: document.namespace().into(), name: document.name().into() };
        if self.server.get(resource, &name).is_none() {
            let created = self.server.create(resource, &name.namespace, object, self.now);
            // Nothing else has the name.
            return drop(created);
        }
        self.server.edit(resource, &name, |old| *old = api::patch::merge(old, object));
    }
}
