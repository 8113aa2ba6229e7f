//! Owner references: who controls an object, and taking or giving up that control
//! (`pkg/controller/controller_ref_manager.go`).

use api::ObjectName;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use serde_json::{Value, json};

use crate::effect::{Effect, PatchKind, Target, Told};
use crate::outcome::{Live, Outcome};
use crate::resource::{Key, Kind, Resource, name_of};
use crate::selector;
use crate::world::{Answer, World};

/// The owner that controls an object.
pub fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|o| o.controller == Some(true))
}

/// Whether an object is controlled by the object of a uid.
pub fn is_controlled_by(meta: &ObjectMeta, owner: &ObjectMeta) -> bool {
    controller(meta).is_some_and(|o| Some(&o.uid) == owner.uid.as_ref())
}

/// A controlling owner reference to an object, as JSON.
pub fn reference<T: Kind>(owner: &T) -> Value {
    let meta = owner.metadata();
    json!({
        "apiVersion": T::API_VERSION, "kind": T::KIND, "name": meta.name, "uid": meta.uid,
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// The key of the controller of an object, if it is of kind `T`.
pub fn controller_key<T: Kind>(meta: &ObjectMeta) -> Option<Key> {
    let owner = controller(meta).filter(|o| o.kind == T::KIND && same_group(&o.api_version, T::GROUP))?;
    let namespace = if Resource::of::<T>().namespaced { meta.namespace.clone() } else { None };
    Some(Key::of::<T>(ObjectName { namespace: namespace.unwrap_or_default(), name: owner.name.clone() }))
}

fn same_group(api_version: &str, group: &str) -> bool {
    api_version.split_once('/').map_or("", |(g, _)| g) == group
}

/// What a controller has: the objects it controls, and the effects that adopt orphans and release those that no
/// longer match. Adopted objects count at once; released ones no longer.
pub struct Claim<'a, T> {
    /// Those it controls, or will after the effects.
    pub objects: Vec<&'a T>,
    /// Adoptions and releases.
    pub effects: Vec<Effect>,
}

/// Claims the objects of kind `T` in the owner's namespace for it, for a decider and the key it decides about.
///
/// Orphans are adopted only after a live look at the owner: one that is gone or going, as the watches do not know yet,
/// must not take back what was orphaned because it goes. Until the answer is there, or when the answer is that it goes,
/// the outcome comes back instead.
pub fn claim<'a, O: Kind, T: Kind>(
    world: &'a World,
    (decider, key): (&'static str, &Key),
    owner: &O,
    selector: &LabelSelector,
) -> Result<Claim<'a, T>, Outcome<Effect>> {
    claim_those(world, (decider, key), owner, |object: &T| {
        selector::matches(selector, object.metadata().labels.as_ref())
    })
}

/// The same, by whatever rule.
pub fn claim_those<'a, O: Kind, T: Kind>(
    world: &'a World,
    (decider, key): (&'static str, &Key),
    owner: &O,
    is_its: impl Fn(&T) -> bool,
) -> Result<Claim<'a, T>, Outcome<Effect>> {
    let meta = owner.metadata();
    let deleting = meta.deletion_timestamp.is_some();
    let mut claim = Claim { objects: Vec::new(), effects: Vec::new() };
    for object in world.in_namespace::<T>(meta.namespace.as_deref().unwrap_or_default()) {
        let theirs = object.metadata();
        let matches = is_its(object);
        match controller(theirs) {
            Some(o) if Some(&o.uid) == meta.uid.as_ref() => match matches || deleting {
                true => claim.objects.push(object),
                false => claim.effects.push(release(object, meta)),
            },
            None if matches && !deleting && theirs.deletion_timestamp.is_none() => {
                may_adopt(world, decider, key, owner)?;
                claim.effects.push(adopt(object, owner));
                claim.objects.push(object);
            }
            _ => {}
        }
    }
    Ok(claim)
}

fn may_adopt<O: Kind>(world: &World, decider: &'static str, key: &Key, owner: &O) -> Result<(), Outcome<Effect>> {
    let question = Live::Object(Resource::of::<O>(), name_of(owner.metadata()));
    let stays = |live: &ObjectMeta| live.uid == owner.metadata().uid && live.deletion_timestamp.is_none();
    match world.live(decider, key, &question) {
        Some(Answer::Object(Some(live))) if stays(live.metadata()) => Ok(()),
        Some(Answer::Object(_)) => {
            Err(Outcome::nothing("OwnerGoing", "the server says that it is gone or being deleted"))
        }
        _ => Err(Outcome { read_live: vec![question], ..Outcome::default() }),
    }
}

/// Adds a controlling owner reference. The uid in the patch makes it fail on another object of the same name.
fn adopt<O: Kind, T: Kind>(object: &T, owner: &O) -> Effect {
    let body = json!({"metadata": {"ownerReferences": [reference(owner)], "uid": object.metadata().uid}});
    strategic(object, body)
}

fn release<T: Kind>(object: &T, owner: &ObjectMeta) -> Effect {
    let drop = json!({"$patch": "delete", "uid": owner.uid});
    strategic(object, json!({"metadata": {"ownerReferences": [drop], "uid": object.metadata().uid}}))
}

fn strategic<T: Kind>(object: &T, body: Value) -> Effect {
    let (target, kind) = (Target::of(object), PatchKind::Strategic);
    Effect::Patch { target, subresource: "", kind, body, told: Told::default() }
}
