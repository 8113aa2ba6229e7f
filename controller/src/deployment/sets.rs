//! A Deployment's ReplicaSets as they are and as they shall be.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use reconcile::effect::reference;
use reconcile::{Effect, Notice, Told, merge};
use serde_json::{Value, json};

use super::revision::{self, DESIRED_REPLICAS, MAX_REPLICAS};

/// The label that tells the ReplicaSets and pods of one template from those of another.
pub(super) const HASH_LABEL: &str = "pod-template-hash";

/// One ReplicaSet and what it shall become.
pub(super) struct Set<'a> {
    pub(super) rs: &'a ReplicaSet,
    pub(super) replicas: i32,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) min_ready_seconds: Option<i32>,
}

/// All ReplicaSets of a Deployment, the oldest first.
pub(super) struct Sets<'a> {
    pub(super) all: Vec<Set<'a>>,
    /// The one of the current template.
    pub(super) new: Option<usize>,
}

impl<'a> Sets<'a> {
    pub(super) fn new(deployment: &Deployment, mut sets: Vec<&'a ReplicaSet>) -> Self {
        sets.sort_by_key(|rs| (rs.metadata.creation_timestamp.clone().map(|t| t.0), rs.metadata.name.clone()));
        let template = without_hash(&deployment.spec.template);
        let same = |rs: &&ReplicaSet| {
            let theirs = rs.spec.template.as_ref();
            theirs.is_some_and(|t| template == without_hash(t))
        };
        let new = sets.iter().position(same);
        Self { all: sets.into_iter().map(Set::new).collect(), new }
    }

    pub(super) fn new_set(&self) -> Option<&Set<'a>> {
        self.all.get(self.new?)
    }

    /// The places of the old ones, the oldest first.
    pub(super) fn old(&self) -> Vec<usize> {
        (0..self.all.len()).filter(|i| Some(*i) != self.new).collect()
    }

    /// The places of those that shall have pods.
    pub(super) fn active(&self) -> Vec<usize> {
        (0..self.all.len()).filter(|i| self.all[*i].replicas > 0).collect()
    }

    /// How many pods all of them shall have.
    pub(super) fn replicas(&self) -> i32 {
        self.all.iter().map(|s| s.replicas).sum()
    }

    /// How many pods of all of them are available and will stay.
    pub(super) fn available(&self) -> i32 {
        self.all.iter().map(Set::available).sum()
    }

    /// A sum over their statuses.
    pub(super) fn sum(&self, of: impl Fn(&ReplicaSetStatus) -> i32) -> i32 {
        self.all.iter().filter_map(|s| s.rs.status.as_ref()).map(of).sum()
    }

    /// Sets a size. Only says whether it changed; `force` also renews the annotations about sizes.
    pub(super) fn scale(&mut self, place: usize, replicas: i32, sizes: (i32, i32), force: bool) -> bool {
        let Some(set) = self.all.get_mut(place) else { return false };
        if !force && set.replicas == replicas {
            return false;
        }
        let scaled = set.replicas != replicas;
        set.replicas = replicas;
        set.set_sizes(sizes);
        scaled
    }

    /// Patches of those that shall change, the new one's first.
    pub(super) fn effects(&self, deployment: &Deployment) -> Vec<Effect> {
        let mut places = self.old();
        places.extend(self.new);
        places.reverse();
        places.into_iter().filter_map(|i| self.all[i].effect(deployment)).collect()
    }
}

impl<'a> Set<'a> {
    fn new(rs: &'a ReplicaSet) -> Self {
        let spec = &rs.spec;
        Self {
            rs,
            replicas: spec.replicas.unwrap_or(1),
            annotations: rs.metadata.annotations.clone().unwrap_or_default(),
            min_ready_seconds: spec.min_ready_seconds.filter(|n| *n != 0),
        }
    }

    pub(super) fn name(&self) -> &str {
        self.rs.metadata.name.as_deref().unwrap_or_default()
    }

    /// How many pods are available and will stay: a status that is behind the size counts pods that are on their way
    /// out, and what was decided on them would take away too many.
    pub(super) fn available(&self) -> i32 {
        let counted = self.rs.status.as_ref().and_then(|s| s.available_replicas).unwrap_or_default();
        counted.min(self.replicas)
    }

    /// How many pods it was told to have.
    fn was(&self) -> i32 {
        self.rs.spec.replicas.unwrap_or(1)
    }

    /// A whole number in an annotation.
    pub(super) fn number(&self, annotation: &str) -> Option<i32> {
        self.annotations.get(annotation)?.parse().ok().filter(|n| *n >= 0)
    }

    /// Says in annotations how many pods the Deployment wants and may have.
    pub(super) fn set_sizes(&mut self, (desired, max): (i32, i32)) {
        self.annotations.insert(DESIRED_REPLICAS.into(), desired.to_string());
        self.annotations.insert(MAX_REPLICAS.into(), max.to_string());
    }

    fn effect(&self, deployment: &Deployment) -> Option<Effect> {
        let body = self.patch()?;
        let told = Told { done: self.scaled(deployment), failed: None };
        Some(Effect::patch(self.rs, body).telling(told))
    }

    fn patch(&self) -> Option<Value> {
        let meta = &self.rs.metadata;
        let spec = &self.rs.spec;
        let was = json!({
            "metadata": {"annotations": meta.annotations.clone().unwrap_or_default()},
            "spec": {"replicas": self.was(), "minReadySeconds": spec.min_ready_seconds.filter(|n| *n != 0)},
        });
        let shall = json!({
            "metadata": {"annotations": self.annotations},
            "spec": {"replicas": self.replicas, "minReadySeconds": self.min_ready_seconds},
        });
        let mut patch = merge::diff(&was, &shall)?;
        patch["metadata"]["resourceVersion"] = json!(meta.resource_version);
        Some(patch)
    }

    fn scaled(&self, deployment: &Deployment) -> Option<Notice> {
        let (from, to, name) = (self.was(), self.replicas, self.name());
        let direction = if from < to { "up" } else { "down" };
        let message = format!("Scaled {direction} replica set {name} from {from} to {to}");
        let about = reference(deployment);
        (from != to).then(|| Notice { about, warning: false, reason: "ScalingReplicaSet".into(), message })
    }
}

/// A template without the label that only ReplicaSets' templates have.
fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(meta) = &mut template.metadata {
        if let Some(labels) = &mut meta.labels {
            labels.remove(HASH_LABEL);
        }
        meta.creation_timestamp = None;
    }
    template
}

/// The highest revision among ReplicaSets.
pub(super) fn max_revision<'b, 'a: 'b>(sets: impl Iterator<Item = &'b Set<'a>>) -> i64 {
    sets.filter_map(|s| revision::of(&s.rs.metadata)?.parse().ok()).max().unwrap_or_default()
}
