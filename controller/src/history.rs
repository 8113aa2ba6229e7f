//! Revisions of a template, as ControllerRevisions that `kubectl rollout` reads (`pkg/controller/history`).

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use reconcile::{Effect, Kind, ObjectName, World, owners, template};
use serde_json::{Value, json};

/// The label of DaemonSets' revisions that holds their hash, and of pods that are made from a revision: those of a
/// DaemonSet hold its hash, those of a StatefulSet its name.
pub(crate) const REVISION: &str = "controller-revision-hash";

/// Whose template is kept, and how.
pub(crate) struct Template<'o, O> {
    pub(crate) owner: &'o O,
    pub(crate) template: &'o PodTemplateSpec,
    /// How often a name was found taken.
    pub(crate) collisions: Option<i32>,
    /// The label that holds a revision's hash.
    pub(crate) label: &'static str,
}

/// The revisions there are.
pub(crate) struct History<'w> {
    /// The oldest first.
    pub(crate) revisions: Vec<&'w ControllerRevision>,
    /// That of the template as it is, the newest.
    pub(crate) current: &'w ControllerRevision,
}

/// What a ControllerRevision holds: a strategic merge patch that restores the template.
fn data(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).unwrap_or_default();
    template["$patch"] = json!("replace");
    json!({"spec": {"template": template}})
}

/// The template that a revision restores.
pub(crate) fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    serde_json::from_value(revision.data.0.pointer("/spec/template")?.clone()).ok()
}

/// The revisions of a template, or what makes its revision, or makes it the newest again.
pub(crate) fn of<'w, O: Kind>(world: &'w World, kept: &Template<'_, O>) -> Result<History<'w>, Box<Effect>> {
    let uid = kept.owner.metadata().uid.as_deref().unwrap_or_default();
    let mut revisions: Vec<&ControllerRevision> = world.owned::<ControllerRevision>(uid).collect();
    revisions.sort_by_key(|r| (r.revision, r.metadata.name.clone()));
    let newest = revisions.last().map_or(0, |r| r.revision.unwrap_or_default());
    let data = data(kept.template);
    let Some(current) = revisions.iter().rev().find(|r| r.data.0 == data).copied() else {
        return Err(Box::new(create(world, kept, data, newest + 1)));
    };
    if current.revision.unwrap_or_default() < newest {
        return Err(Box::new(Effect::patch(current, json!({"revision": newest + 1}))));
    }
    Ok(History { revisions, current })
}

fn create<O: Kind>(world: &World, kept: &Template<'_, O>, data: Value, revision: i64) -> Effect {
    let meta = kept.owner.metadata();
    let namespace = meta.namespace.clone().unwrap_or_default();
    let mut collisions = kept.collisions;
    // Another template of the same hash has the name: count on until one is free.
    let (hash, name) = loop {
        let hash = template::hash(&data, collisions);
        let name = format!("{}-{hash}", meta.name.as_deref().unwrap_or_default());
        let taken = ObjectName { namespace: namespace.clone(), name: name.clone() };
        if world.get::<ControllerRevision>(&taken).is_none() {
            break (hash, name);
        }
        collisions = Some(collisions.map_or(1, |c| c.wrapping_add(1)));
    };
    let mut labels = kept.template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    labels.insert(kept.label.into(), hash);
    let object = json!({
        "apiVersion": "apps/v1", "kind": "ControllerRevision",
        "metadata": {
            "name": name, "namespace": namespace, "labels": labels,
            "annotations": meta.annotations.clone().unwrap_or_default(),
            "ownerReferences": [owners::reference(kept.owner)],
        },
        "data": data, "revision": revision,
    });
    Effect::create::<ControllerRevision>(&namespace, object)
}

impl History<'_> {
    /// Deletes revisions beyond the limit, the oldest first; the current one, and those in use, do not count.
    pub(crate) fn surplus(&self, limit: Option<i32>, in_use: impl Fn(&ControllerRevision) -> bool) -> Vec<Effect> {
        let limit = limit.and_then(|l| usize::try_from(l).ok()).unwrap_or(10);
        let is_old = |r: &&&ControllerRevision| r.metadata.name != self.current.metadata.name && !in_use(r);
        let old: Vec<&&ControllerRevision> = self.revisions.iter().filter(is_old).collect();
        let many = old.len().saturating_sub(limit);
        old.into_iter().take(many).map(|r| Effect::delete(*r)).collect()
    }
}
