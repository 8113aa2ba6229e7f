//! How a decider tells the driver what it needs: watches, and which keys a change touches.

use std::sync::Arc;

use api::Timestamp;

use crate::effect::Effect;
use crate::outcome::{Decider, Outcome};
use crate::resource::{Key, Kind, Object, Partial, Resource};
use crate::world::{Failure, World};

/// Reads stored bytes as one kind.
pub type Parse = fn(&[u8]) -> Result<Arc<dyn Object>, serde_json::Error>;

/// What to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// One resource, all its objects.
    One(Resource),
    /// Every resource that discovery lists with the verbs list, watch and delete, as metadata only; new ones (custom
    /// resources) join and gone ones leave while it runs.
    Everything {
        /// (group, plural) pairs left out.
        except: &'static [(&'static str, &'static str)],
        /// (group, plural) pairs whose changes mean that discovery may have changed.
        renewed_by: &'static [(&'static str, &'static str)],
    },
}

/// A watch that a decider wants. Deciders of one driver share the watch of a resource: what is kept is the union.
#[derive(Clone)]
pub struct Watch {
    /// What.
    pub selection: Selection,
    /// How an object is read.
    pub parse: Parse,
    /// Whether metadata is enough.
    pub metadata_only: bool,
    /// JSON pointers of fields that this decider does not need. `metadata.managedFields` is never kept.
    pub drops: &'static [&'static str],
    /// Indexes to keep.
    pub indexes: &'static [Index],
}

/// An index over one resource: objects by one string.
#[derive(Clone, Copy, Debug)]
pub struct Index {
    /// Its name, unique within the resource.
    pub name: &'static str,
    /// The string of an object; `None` leaves it out.
    pub of: fn(&dyn Object) -> Option<&str>,
}

fn parse<T: Kind>(bytes: &[u8]) -> Result<Arc<dyn Object>, serde_json::Error> {
    keep(serde_json::from_slice::<T>(bytes)?)
}

fn parse_partial(bytes: &[u8]) -> Result<Arc<dyn Object>, serde_json::Error> {
    keep(serde_json::from_slice::<Partial>(bytes)?)
}

/// An object as it is kept: without `metadata.managedFields`.
pub fn keep<T: Object>(mut object: T) -> Result<Arc<dyn Object>, serde_json::Error> {
    object.metadata_mut().managed_fields = None;
    Ok(Arc::new(object))
}

impl Watch {
    /// All objects of a kind, whole.
    pub const fn of<T: Kind>() -> Self {
        let selection = Selection::One(Resource::of::<T>());
        Self { selection, parse: parse::<T>, metadata_only: false, drops: &[], indexes: &[] }
    }

    /// All objects of a kind, read by a function of the decider's own that leaves out what it does not need. Only for
    /// a kind that no other decider of the same driver reads whole.
    pub const fn parsed<T: Kind>(parse: Parse) -> Self {
        let selection = Selection::One(Resource::of::<T>());
        Self { selection, parse, metadata_only: false, drops: &[], indexes: &[] }
    }

    /// The metadata of all objects of a kind.
    pub const fn metadata<T: Kind>() -> Self {
        let selection = Selection::One(Resource::of::<T>());
        Self { selection, parse: parse_partial, metadata_only: true, drops: &[], indexes: &[] }
    }

    /// The metadata of one resource that has no Rust type.
    pub const fn metadata_of(resource: Resource) -> Self {
        let selection = Selection::One(resource);
        Self { selection, parse: parse_partial, metadata_only: true, drops: &[], indexes: &[] }
    }

    /// The metadata of everything; the (group, plural) pairs are those of `Selection::Everything`.
    pub const fn everything(
        except: &'static [(&'static str, &'static str)],
        renewed_by: &'static [(&'static str, &'static str)],
    ) -> Self {
        let selection = Selection::Everything { except, renewed_by };
        Self { selection, parse: parse_partial, metadata_only: true, drops: &[], indexes: &[] }
    }

    /// Leaves fields out of what is kept.
    pub const fn dropping(mut self, drops: &'static [&'static str]) -> Self {
        self.drops = drops;
        self
    }

    /// Keeps indexes.
    pub const fn indexed(mut self, indexes: &'static [Index]) -> Self {
        self.indexes = indexes;
        self
    }

    /// Whether an object of `resource` comes from this watch.
    pub fn covers(&self, resource: &Resource) -> bool {
        match &self.selection {
            Selection::One(one) => one == resource,
            Selection::Everything { except, .. } => !names(except, resource),
        }
    }
}

/// Whether (group, plural) pairs name a resource.
pub fn names(pairs: &[(&str, &str)], resource: &Resource) -> bool {
    pairs.iter().any(|(group, plural)| *group == resource.group && *plural == resource.plural)
}

/// One object before and after; `None` where it was or is not there.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Change {
    pub resource: Resource,
    pub before: Option<Arc<dyn Object>>,
    pub after: Option<Arc<dyn Object>>,
}

impl Change {
    /// The object as it is, or as it last was.
    pub fn object(&self) -> Option<&dyn Object> {
        self.after.as_deref().or(self.before.as_deref())
    }

    /// Its key.
    pub fn key(&self) -> Option<Key> {
        let object = crate::resource::name_of(self.object()?.metadata());
        Some(Key { resource: self.resource.clone(), object })
    }

    /// Its key if it is of a kind.
    pub fn key_of<T: Kind>(&self) -> Option<Key> {
        (self.resource == Resource::of::<T>()).then(|| self.key()).flatten()
    }

    /// Before and after, those that are there and of a type.
    pub fn both<T: 'static>(&self) -> impl Iterator<Item = &T> {
        [&self.before, &self.after].into_iter().flatten().filter_map(|o| o.as_any().downcast_ref())
    }

    /// After, if it is of a type.
    pub fn now<T: 'static>(&self) -> Option<&T> {
        self.after.as_ref()?.as_any().downcast_ref()
    }

    /// Before, if it is of a type.
    pub fn was<T: 'static>(&self) -> Option<&T> {
        self.before.as_ref()?.as_any().downcast_ref()
    }
}

/// A decider that the driver can run: it reads the shared World, and its effects are requests to the API server.
pub trait Controller: Decider<World = World, Key = Key, Effect = Effect> {
    /// Its name, as upstream's flag `--controllers` has it.
    fn name(&self) -> &'static str;

    /// What it reads.
    fn watches(&self) -> Vec<Watch>;

    /// The keys that must be decided again after a change. Duplicates are welcome.
    fn touches(&self, change: &Change, world: &World) -> Vec<Key>;

    /// The `source.component` of its Events.
    fn component(&self) -> &'static str {
        self.name()
    }

    /// How many keys are decided and performed at once.
    fn workers(&self) -> usize {
        5
    }
}

/// A decider that keeps a world and a queue of its own (the scheduler): the driver tells it every change in order,
/// asks for the next decision, performs it, and says how that went.
pub trait Planner: Send {
    /// Its name, and the `source.component` of its Events.
    fn name(&self) -> &'static str;

    /// What it reads.
    fn watches(&self) -> Vec<Watch>;

    /// An object changed. Not called with what this planner's own effects wrote before they come back as a change.
    fn observe(&mut self, change: &Change, now: Timestamp);

    /// The next decision and what it is about, if there is one to make now. `entropy` breaks ties.
    /// The planner must already count its effects as done (assume them) until `performed` says otherwise.
    fn next(&mut self, now: Timestamp, entropy: u64) -> Option<(Key, Outcome<Effect>)>;

    /// All effects of a decision were performed, or one failed and those after it were left out.
    fn performed(&mut self, key: &Key, result: Result<(), Failure>, now: Timestamp);

    /// When `next` should be called even if nothing changes.
    fn wake_at(&self) -> Option<Timestamp>;

    /// How many decisions may be performed at once.
    fn parallel(&self) -> usize {
        16
    }
}
