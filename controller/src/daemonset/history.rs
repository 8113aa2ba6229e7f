//! Revisions of a DaemonSet's template, as ControllerRevisions that `kubectl rollout` reads.

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::Pod;
use reconcile::{Effect, ObjectName, World, owners, template};
use serde_json::{Value, json};

use super::HASH_LABEL;

/// The current revision, and what to do about revisions.
pub(super) struct History {
    /// The hash that updated pods carry.
    pub(super) hash: String,
    /// Makes the current revision, or makes it the newest again.
    pub(super) effect: Option<Effect>,
    /// Deletes old revisions beyond the limit that no pod is of.
    pub(super) surplus: Vec<Effect>,
}

/// What a ControllerRevision holds: a strategic merge patch that restores the template.
fn data(ds: &DaemonSet) -> Value {
    let mut template = serde_json::to_value(&ds.spec.template).unwrap_or_default();
    template["$patch"] = json!("replace");
    json!({"spec": {"template": template}})
}

fn hash_of(revision: &ControllerRevision) -> Option<&String> {
    revision.metadata.labels.as_ref()?.get(HASH_LABEL)
}

pub(super) fn of(world: &World, ds: &DaemonSet) -> History {
    let uid = ds.metadata.uid.as_deref().unwrap_or_default();
    let mut revisions: Vec<&ControllerRevision> = world.owned::<ControllerRevision>(uid).collect();
    revisions.sort_by_key(|r| (r.revision, r.metadata.name.clone()));
    let newest = revisions.last().map_or(0, |r| r.revision.unwrap_or_default());
    let data = data(ds);
    let current = revisions.iter().rev().find(|r| r.data.0 == data).copied();
    let Some(current) = current else { return create(world, ds, data, newest + 1) };
    let behind = current.revision.unwrap_or_default() < newest;
    let bump = || Effect::patch(current, json!({"revision": newest + 1}));
    History {
        hash: hash_of(current).cloned().unwrap_or_default(),
        effect: behind.then(bump),
        surplus: surplus(world, ds, &revisions, current),
    }
}

fn create(world: &World, ds: &DaemonSet, data: Value, revision: i64) -> History {
    let namespace = ds.metadata.namespace.clone().unwrap_or_default();
    let mut collisions = ds.status.as_ref().and_then(|s| s.collision_count);
    // Another template of the same hash has the name: count on until one is free.
    let (hash, name) = loop {
        let hash = template::hash(&data, collisions);
        let name = format!("{}-{hash}", ds.metadata.name.as_deref().unwrap_or_default());
        let taken = ObjectName { namespace: namespace.clone(), name: name.clone() };
        if world.get::<ControllerRevision>(&taken).is_none() {
            break (hash, name);
        }
        collisions = Some(collisions.map_or(1, |c| c.wrapping_add(1)));
    };
    let mut labels = ds.spec.template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    labels.insert(HASH_LABEL.into(), hash.clone());
    let object = json!({
        "apiVersion": "apps/v1", "kind": "ControllerRevision",
        "metadata": {
            "name": name, "namespace": namespace, "labels": labels,
            "annotations": ds.metadata.annotations.clone().unwrap_or_default(),
            "ownerReferences": [owners::reference(ds)],
        },
        "data": data, "revision": revision,
    });
    let effect = Some(Effect::create::<ControllerRevision>(&namespace, object));
    History { hash, effect, surplus: Vec::new() }
}

fn surplus(
    world: &World,
    ds: &DaemonSet,
    revisions: &[&ControllerRevision],
    current: &ControllerRevision,
) -> Vec<Effect> {
    let limit = ds.spec.revision_history_limit.and_then(|l| usize::try_from(l).ok()).unwrap_or(10);
    let uid = ds.metadata.uid.as_deref().unwrap_or_default();
    let label = |p: &&Pod| p.metadata.labels.as_ref().and_then(|l| l.get(HASH_LABEL)).cloned();
    let live: Vec<String> = world.owned::<Pod>(uid).filter_map(|p| label(&p)).collect();
    let is_old = |r: &&&ControllerRevision| {
        r.metadata.name != current.metadata.name && !hash_of(r).is_some_and(|h| live.contains(h))
    };
    let old: Vec<&&ControllerRevision> = revisions.iter().filter(is_old).collect();
    let many = old.len().saturating_sub(limit);
    old.into_iter().take(many).map(|r| Effect::delete(*r)).collect()
}
