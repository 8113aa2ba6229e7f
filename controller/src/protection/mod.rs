//! Claims, volumes and attribute classes stay while somebody uses them: their finalizers
//! (`pkg/controller/volume/{pvcprotection,pvprotection,vacprotection}`).

mod claim;
#[cfg(test)]
mod tests;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use reconcile::{Change, Controller, Decider, Effect, Key, Kind, ObjectName, Outcome, Timestamp, Watch, World};
use serde_json::json;

pub use claim::Claims;

/// What a protecting finalizer asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    Nothing,
    /// The object was made before admission gave it the finalizer.
    Add,
    /// The object is to go; the finalizer does, once nobody uses it.
    Remove,
}

fn need(meta: &ObjectMeta, finalizer: &str) -> Need {
    let has = meta.finalizers.iter().flatten().any(|own| own == finalizer);
    match (meta.deletion_timestamp.is_some(), has) {
        (true, true) => Need::Remove,
        (false, false) => Need::Add,
        _ => Need::Nothing,
    }
}

/// With the finalizer or without it, as it is needed.
fn written<T: Kind>(object: &T, finalizer: &str, need: Need) -> Effect {
    let meta = object.metadata();
    let own = meta.finalizers.iter().flatten().map(String::as_str).filter(|own| *own != finalizer);
    let all: Vec<&str> = own.chain((need == Need::Add).then_some(finalizer)).collect();
    Effect::patch(object, json!({"metadata": {"resourceVersion": meta.resource_version, "finalizers": all}}))
}

/// Adds the finalizer, or takes it off an object that is to go and that nobody uses.
fn decide<T: Kind>(object: &T, finalizer: &str, used: impl FnOnce() -> bool) -> Outcome<Effect> {
    let need = need(object.metadata(), finalizer);
    let mut outcome = match need {
        Need::Nothing => return Outcome::nothing("AsDesired", "the finalizer is as it should be"),
        Need::Remove if used() => return Outcome::nothing("InUse", "somebody still uses it"),
        Need::Add => Outcome::nothing("Unprotected", "it has no finalizer yet"),
        Need::Remove => Outcome::nothing("Unused", "nobody uses it any more"),
    };
    outcome.effect(written(object, finalizer, need));
    outcome
}

/// The controller of volumes' protection.
pub struct Volumes;

const VOLUME: &str = "kubernetes.io/pv-protection";

impl Controller for Volumes {
    fn name(&self) -> &'static str {
        "persistentvolume-protection-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of::<PersistentVolume>()]
    }

    fn touches(&self, change: &Change, _: &World) -> Vec<Key> {
        let wants = change.now::<PersistentVolume>().is_some_and(|v| need(&v.metadata, VOLUME) != Need::Nothing);
        change.key().filter(|_| wants).into_iter().collect()
    }
}

impl Decider for Volumes {
    type World = World;
    type Key = Key;
    type Effect = Effect;

    fn decide(&self, world: &World, key: &Key, _: Timestamp) -> Outcome<Effect> {
        let Some(volume) = world.get::<PersistentVolume>(&key.object) else {
            return Outcome::nothing("Gone", "the volume does not exist");
        };
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        decide(volume, VOLUME, || phase == Some("Bound"))
    }
}

/// The controller of VolumeAttributesClasses' protection.
pub struct AttributesClasses;

const CLASS: &str = "kubernetes.io/vac-protection";

impl Controller for AttributesClasses {
    fn name(&self) -> &'static str {
        "volumeattributesclass-protection-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::of::<VolumeAttributesClass>(),
            Watch::of::<PersistentVolumeClaim>(),
            Watch::of::<PersistentVolume>(),
        ]
    }

    /// A class itself, and those that a claim or a volume names no longer.
    fn touches(&self, change: &Change, _: &World) -> Vec<Key> {
        let wants = change.now::<VolumeAttributesClass>().is_some_and(|c| need(&c.metadata, CLASS) != Need::Nothing);
        let mut keys: Vec<Key> = change.key().filter(|_| wants).into_iter().collect();
        let before = change.was::<PersistentVolumeClaim>().map(of_claim);
        let before = before.or_else(|| change.was::<PersistentVolume>().map(of_volume)).unwrap_or_default();
        let after = change.now::<PersistentVolumeClaim>().map(of_claim);
        let after = after.or_else(|| change.now::<PersistentVolume>().map(of_volume)).unwrap_or_default();
        let left = before.into_iter().filter(|name| !after.contains(name));
        keys.extend(left.map(|name| {
            Key::of::<VolumeAttributesClass>(ObjectName { namespace: String::new(), name: name.to_owned() })
        }));
        keys
    }
}

/// The classes that a claim has, wants, or is on its way to.
fn of_claim(claim: &PersistentVolumeClaim) -> Vec<&str> {
    let status = claim.status.as_ref();
    let names = [
        claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref()),
        status.and_then(|status| status.current_volume_attributes_class_name.as_deref()),
        status.and_then(|s| s.modify_volume_status.as_ref()?.target_volume_attributes_class_name.as_deref()),
    ];
    names.into_iter().flatten().filter(|name| !name.is_empty()).collect()
}

fn of_volume(volume: &PersistentVolume) -> Vec<&str> {
    let name = volume.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    name.into_iter().filter(|name| !name.is_empty()).collect()
}

impl Decider for AttributesClasses {
    type World = World;
    type Key = Key;
    type Effect = Effect;

    fn decide(&self, world: &World, key: &Key, _: Timestamp) -> Outcome<Effect> {
        let Some(class) = world.get::<VolumeAttributesClass>(&key.object) else {
            return Outcome::nothing("Gone", "the class does not exist");
        };
        let name = key.object.name.as_str();
        decide(class, CLASS, || {
            world.list::<PersistentVolume>().any(|volume| of_volume(volume).contains(&name))
                || world.list::<PersistentVolumeClaim>().any(|claim| of_claim(claim).contains(&name))
        })
    }
}
