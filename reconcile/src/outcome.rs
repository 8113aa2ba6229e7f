//! What a decision is: effects, when to look again, what to read afresh first, and why.

use api::{ObjectName, Timestamp};

use crate::resource::Resource;

/// The result of one decision, a value before it is a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome<E> {
    /// What to do, in order.
    pub effects: Vec<E>,
    /// When to decide again even if nothing changes.
    pub wake_at: Option<Timestamp>,
    /// Objects that must be fetched from the API server (not a cache) before the effects may be performed; the driver
    /// puts them into the World and decides again.
    pub read_live: Vec<Live>,
    /// Why, also for doing nothing.
    pub reasons: Vec<Reason>,
}

impl<E> Default for Outcome<E> {
    fn default() -> Self {
        Self { effects: Vec::new(), wake_at: None, read_live: Vec::new(), reasons: Vec::new() }
    }
}

/// Something to ask the API server afresh. The answer is put into the World, where `World::live` finds it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Live {
    /// One object, as metadata only.
    Object(Resource, ObjectName),
    /// The metadata of all objects of a resource in a namespace.
    List(Resource, String),
    /// What discovery says the server has now.
    Resources,
    /// Whether somebody may do something (a SubjectAccessReview).
    Access(Access),
}

/// The question of a SubjectAccessReview about a resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct Access {
    pub user: String,
    pub groups: Vec<String>,
    pub verb: &'static str,
    pub group: &'static str,
    pub resource: &'static str,
    pub subresource: &'static str,
}

/// Why a decision is as it is: a word for machines (CamelCase) and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Reason {
    pub reason: &'static str,
    pub message: String,
}

impl<E> Outcome<E> {
    /// Does nothing, for a reason.
    pub fn nothing(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reasons: vec![Reason { reason, message: message.into() }], ..Self::default() }
    }

    /// Adds an effect.
    pub fn effect(&mut self, effect: E) {
        self.effects.push(effect);
    }

    /// Adds a reason.
    pub fn because(&mut self, reason: &'static str, message: impl Into<String>) {
        self.reasons.push(Reason { reason, message: message.into() });
    }

    /// Decides again at `at` or earlier.
    pub fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |before| before.min(at)));
    }
}

/// A pure function from the world to what should happen next.
pub trait Decider: Send + Sync {
    /// What it reads.
    type World;
    /// What it decides about: usually an object's name.
    type Key;
    /// What it may ask for: a closed enum.
    type Effect;

    /// Decides for one key. Called again with the same world it returns the same outcome.
    fn decide(&self, world: &Self::World, key: &Self::Key, now: Timestamp) -> Outcome<Self::Effect>;
}
