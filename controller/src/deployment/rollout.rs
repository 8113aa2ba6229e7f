//! What to do next: how many pods each ReplicaSet shall have.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use reconcile::effect::reference;
use reconcile::{Effect, Failure, Notice, ObjectName, Reason, Timestamp, Told, World, owners, pods, template};
use serde_json::{Value, json};

use super::revision::{self, DESIRED_REPLICAS, MAX_REPLICAS};
use super::sets::{HASH_LABEL, Sets, max_revision};
use super::status;
use crate::percent;

/// The longest name.
const NAME_CHARS: usize = 253;

/// One decision in the making.
pub(super) struct Plan<'a> {
    pub(super) deployment: &'a Deployment,
    pub(super) sets: Sets<'a>,
    /// The status as the server has it.
    pub(super) original: DeploymentStatus,
    /// The status as it shall be.
    pub(super) status: DeploymentStatus,
    /// The Deployment's own revision, as it shall be.
    pub(super) revision: Option<String>,
    /// Creations and deletions of ReplicaSets.
    pub(super) effects: Vec<Effect>,
    pub(super) reasons: Vec<Reason>,
    pub(super) failure: Option<&'a Failure>,
    pub(super) now: Timestamp,
    world: &'a World,
}

/// `spec.replicas`.
pub(super) fn wanted(deployment: &Deployment) -> i32 {
    deployment.spec.replicas.unwrap_or(1)
}

fn strategy(deployment: &Deployment) -> &str {
    let strategy = deployment.spec.strategy.as_ref();
    strategy.and_then(|s| s.type_.as_deref()).unwrap_or("RollingUpdate")
}

/// Surge rounded up and unavailability rounded down; at least one of them lets the rollout move.
fn fenceposts(deployment: &Deployment) -> (i32, i32) {
    let strategy = deployment.spec.strategy.as_ref();
    let rolling = strategy.and_then(|s| s.rolling_update.clone()).unwrap_or_default();
    let of = |v: Option<IntOrString>, up| v.map_or(0, |v| percent::scaled(&v, wanted(deployment), up));
    match (of(rolling.max_surge, true), of(rolling.max_unavailable, false)) {
        (0, 0) => (0, 1),
        both => both,
    }
}

/// How many pods more than wanted there may be.
fn max_surge(deployment: &Deployment) -> i32 {
    if strategy(deployment) == "RollingUpdate" { fenceposts(deployment).0 } else { 0 }
}

/// How many pods less than wanted may be available.
pub(super) fn max_unavailable(deployment: &Deployment) -> i32 {
    if strategy(deployment) != "RollingUpdate" || wanted(deployment) == 0 {
        return 0;
    }
    fenceposts(deployment).1.min(wanted(deployment))
}

impl<'a> Plan<'a> {
    pub(super) fn new(deployment: &'a Deployment, sets: Sets<'a>, world: &'a World, now: Timestamp) -> Self {
        let status = deployment.status.clone().unwrap_or_default();
        Self {
            deployment,
            sets,
            original: status.clone(),
            status,
            revision: None,
            effects: Vec::new(),
            reasons: Vec::new(),
            failure: None,
            now,
            world,
        }
    }

    /// Decides everything.
    pub(super) fn run(&mut self) {
        let paused = self.deployment.spec.paused.unwrap_or_default();
        if self.deployment.metadata.deletion_timestamp.is_some() {
            self.sync_new();
            self.status = status::calculate(self);
            return self.because("Deleting", "the Deployment is being deleted");
        }
        status::note_pause(self.deployment, &mut self.status, self.now);
        self.sync_new();
        // Without a rolling update nothing is shared in proportion: several with pods are on their way to one.
        let shared = strategy(self.deployment) == "RollingUpdate" || self.sets.active().len() < 2;
        if paused || (shared && self.size_changed()) {
            self.scale();
            if paused {
                self.clean_up();
            }
            self.status = status::calculate(self);
            return self.because("Scaling", if paused { "the Deployment is paused" } else { "its size was changed" });
        }
        if strategy(self.deployment) == "Recreate" { self.recreate() } else { self.roll() }
    }

    fn because(&mut self, reason: &'static str, message: impl Into<String>) {
        self.reasons.push(Reason { reason, message: message.into() });
    }

    /// Wanted pods, and the most there may be: what ReplicaSets carry as annotations.
    fn sizes(&self) -> (i32, i32) {
        let wanted = wanted(self.deployment);
        (wanted, wanted + max_surge(self.deployment))
    }

    fn next_revision(&self) -> i64 {
        let old = self.sets.old();
        max_revision(old.iter().map(|i| &self.sets.all[*i])) + 1
    }

    /// Brings the new ReplicaSet's annotations and the Deployment's revision up to date.
    fn sync_new(&mut self) {
        let revision = self.next_revision();
        let min_ready = self.deployment.spec.min_ready_seconds.filter(|n| *n != 0);
        let Some(set) = self.sets.new.and_then(|i| self.sets.all.get_mut(i)) else { return };
        revision::annotate(&mut set.annotations, &self.deployment.metadata, revision);
        set.min_ready_seconds = min_ready;
        self.revision = set.annotations.get(revision::REVISION).cloned();
        let known = reconcile::conditions::find(self.status.conditions.as_ref(), status::PROGRESSING).is_some();
        if status::has_deadline(self.deployment) && !known {
            let message = format!("Found new replica set {:?}", set.name());
            status::set(&mut self.status, status::PROGRESSING, "True", "FoundNewReplicaSet", &message, self.now);
        }
    }

    /// Whether the Deployment's size was changed since the ReplicaSets with pods were last sized.
    fn size_changed(&self) -> bool {
        let wanted = wanted(self.deployment);
        let desired = |i: usize| self.sets.all[i].number(DESIRED_REPLICAS);
        self.sets.active().into_iter().filter_map(desired).any(|n| n != wanted)
    }

    /// Sizes without a rollout: the only active ReplicaSet takes all, several share in proportion.
    fn scale(&mut self) {
        let (wanted, sizes) = (wanted(self.deployment), self.sizes());
        if let Some(place) = self.only_active_or_latest() {
            // Also when the size is right already: what its annotations say is what called for this.
            self.sets.scale(place, wanted, sizes, true);
        } else if self.saturated() {
            for place in self.sets.old().into_iter().filter(|i| self.sets.all[*i].replicas > 0).collect::<Vec<_>>() {
                self.sets.scale(place, 0, sizes, false);
            }
        } else if strategy(self.deployment) == "RollingUpdate" {
            self.scale_in_proportion();
        }
    }

    fn only_active_or_latest(&self) -> Option<usize> {
        match self.sets.active().as_slice() {
            [] => self.sets.new.or_else(|| self.sets.old().last().copied()),
            [one] => Some(*one),
            _ => None,
        }
    }

    fn saturated(&self) -> bool {
        let wanted = wanted(self.deployment);
        let full = |s: &super::sets::Set<'_>| {
            s.replicas == wanted && s.number(DESIRED_REPLICAS) == Some(wanted) && s.available() == wanted
        };
        self.sets.new_set().is_some_and(full)
    }

    fn scale_in_proportion(&mut self) {
        let sizes = self.sizes();
        let allowed = if sizes.0 > 0 { sizes.1 } else { 0 };
        let missing = allowed - self.sets.replicas();
        let mut places = self.sets.active();
        // The largest first; of equals the newer when growing, the older when shrinking.
        if missing >= 0 {
            places.reverse();
        }
        places.sort_by_key(|i| std::cmp::Reverse(self.sets.all[*i].replicas));
        let mut given = 0;
        let mut targets: Vec<(usize, i32)> = Vec::new();
        for place in places {
            let share = self.share(place, missing, given);
            given += share;
            targets.push((place, self.sets.all[place].replicas + share));
        }
        if let Some((_, largest)) = targets.first_mut() {
            *largest = (*largest + missing - given).max(0);
        }
        for (place, replicas) in targets {
            self.sets.scale(place, replicas, sizes, true);
        }
    }

    /// What of `missing` pods falls to one ReplicaSet, when `given` are given out already.
    fn share(&self, place: usize, missing: i32, given: i32) -> i32 {
        let set = &self.sets.all[place];
        if missing == given {
            return 0;
        }
        let (wanted, most) = self.sizes();
        let before = set.number(MAX_REPLICAS).filter(|n| *n != 0).or(self.status.replicas).unwrap_or_default();
        let share = match (wanted, before) {
            (0, _) => -set.replicas,
            (_, 0) => 0,
            _ => percent::rounded(i64::from(set.replicas) * i64::from(most), before.into()) - set.replicas,
        };
        let left = missing - given;
        if missing > 0 { share.min(left) } else { share.max(left) }
    }

    fn roll(&mut self) {
        if self.sets.new.is_none() {
            return self.create();
        }
        let moved = self.grow_new() || self.shrink_old();
        if !moved && status::complete(self.deployment, &self.status) {
            self.clean_up();
        }
        self.status = status::rollout(self);
        self.because(if moved { "Rolling" } else { "Waiting" }, self.summary());
    }

    fn summary(&self) -> String {
        let available = self.sets.sum(|s| s.available_replicas.unwrap_or_default());
        let new = self.sets.new_set().map_or(0, |s| s.replicas);
        let (wanted, most) = self.sizes();
        let least = wanted - max_unavailable(self.deployment);
        format!(
            "{new} of {wanted} are of the new template, {available} are available; between {least} and {most} may be"
        )
    }

    /// How many pods the new ReplicaSet may have now, if it has `current`.
    fn room(&self, current: i32) -> i32 {
        let (wanted, most) = self.sizes();
        if strategy(self.deployment) == "Recreate" {
            return wanted;
        }
        let free = (most - self.sets.replicas()).max(0);
        current + free.min(wanted - current)
    }

    fn grow_new(&mut self) -> bool {
        let Some((place, current)) = self.sets.new.zip(self.sets.new_set().map(|s| s.replicas)) else { return false };
        let wanted = wanted(self.deployment);
        let target = if current >= wanted { wanted } else { self.room(current) };
        self.sets.scale(place, target, self.sizes(), false)
    }

    fn shrink_old(&mut self) -> bool {
        let old: Vec<usize> = self.sets.old().into_iter().filter(|i| self.sets.all[*i].replicas > 0).collect();
        let least = wanted(self.deployment) - max_unavailable(self.deployment);
        let unavailable = self.sets.new_set().map_or(0, |s| s.replicas - s.available());
        let most = self.sets.replicas() - least - unavailable;
        if old.is_empty() || most <= 0 {
            return false;
        }
        let unhealthy = self.shrink(&old, most, |s| s.replicas - s.available());
        let spare = self.sets.available() - least;
        let healthy = self.shrink(&old, spare, |s| s.replicas);
        unhealthy + healthy > 0
    }

    /// Takes up to `most` pods away, the oldest ReplicaSets first, from each what `may_go` says.
    fn shrink(&mut self, old: &[usize], most: i32, may_go: impl Fn(&super::sets::Set<'_>) -> i32) -> i32 {
        let mut taken = 0;
        for place in old {
            let set = &self.sets.all[*place];
            let take = may_go(set).min(most - taken).min(set.replicas);
            if take > 0 {
                let target = set.replicas - take;
                self.sets.scale(*place, target, self.sizes(), false);
                taken += take;
            }
        }
        taken
    }

    fn recreate(&mut self) {
        let (wanted, sizes) = (wanted(self.deployment), self.sizes());
        let mut shrunk = false;
        for place in self.sets.old() {
            shrunk |= self.sets.all[place].replicas > 0 && self.sets.scale(place, 0, sizes, false);
        }
        if shrunk || self.old_pods_running() {
            self.status = status::rollout(self);
            return self.because("Waiting", "old pods are still there");
        }
        let Some(place) = self.sets.new else { return self.create() };
        self.sets.scale(place, wanted, sizes, false);
        if status::complete(self.deployment, &self.status) {
            self.clean_up();
        }
        self.status = status::rollout(self);
        self.because("Recreating", self.summary());
    }

    fn old_pods_running(&self) -> bool {
        self.sets.old().into_iter().any(|place| {
            let rs = self.sets.all[place].rs;
            let counted = rs.status.as_ref().is_some_and(|s| s.replicas > 0);
            let uid = rs.metadata.uid.as_deref().unwrap_or_default();
            counted || self.world.owned::<Pod>(uid).any(|p| !pods::is_terminal(p))
        })
    }

    /// Creates the new ReplicaSet. Its name is made from the template, so that a second attempt cannot make a second
    /// one; another template of the same hash is told apart by counting collisions.
    fn create(&mut self) {
        let spec = &self.deployment.spec;
        let hash = template::hash(&spec.template, self.status.collision_count);
        let meta = &self.deployment.metadata;
        let mut base = meta.name.clone().unwrap_or_default();
        base.truncate(NAME_CHARS - 1 - hash.len());
        let name = format!("{base}-{hash}");
        let namespace = meta.namespace.clone().unwrap_or_default();
        let taken = ObjectName { namespace: namespace.clone(), name: name.clone() };
        if self.world.get::<ReplicaSet>(&taken).is_some() {
            self.status.collision_count = Some(self.status.collision_count.unwrap_or_default() + 1);
            return self.because("Collision", format!("{name} exists and is another's"));
        }
        self.note_creation(&name);
        let replicas = self.room(0);
        let body = self.new_set(&spec.template, &name, &hash, replicas);
        let told = self.told(&name, replicas);
        self.effects.push(Effect::create::<ReplicaSet>(&namespace, body).telling(told));
        self.because("NewReplicaSet", format!("{name} of {replicas} pods"));
    }

    fn note_creation(&mut self, name: &str) {
        if !status::has_deadline(self.deployment) {
            return;
        }
        let (is, reason, message) = match self.failure.filter(|f| f.code != 409 && f.code != 0) {
            Some(f) => {
                let message = format!("Failed to create new replica set {name:?}: {}", f.message);
                ("False", "ReplicaSetCreateError", message)
            }
            None => ("True", "NewReplicaSetCreated", format!("Created new replica set {name:?}")),
        };
        status::set(&mut self.status, status::PROGRESSING, is, reason, &message, self.now);
    }

    fn new_set(&self, template: &PodTemplateSpec, name: &str, hash: &str, replicas: i32) -> Value {
        let mut annotations = std::collections::BTreeMap::new();
        revision::annotate(&mut annotations, &self.deployment.metadata, self.next_revision());
        let (desired, most) = self.sizes();
        annotations.insert(DESIRED_REPLICAS.into(), desired.to_string());
        annotations.insert(MAX_REPLICAS.into(), most.to_string());
        let mut template = template.clone();
        let meta = template.metadata.get_or_insert_default();
        meta.labels.get_or_insert_default().insert(HASH_LABEL.into(), hash.into());
        let labels = meta.labels.clone();
        let spec = &self.deployment.spec;
        let mut selector = spec.selector.clone();
        selector.match_labels.get_or_insert_default().insert(HASH_LABEL.into(), hash.into());
        json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {
                "name": name, "namespace": self.deployment.metadata.namespace, "labels": labels,
                "annotations": annotations, "ownerReferences": [owners::reference(self.deployment)],
            },
            "spec": {
                "replicas": replicas, "minReadySeconds": spec.min_ready_seconds.unwrap_or_default(),
                "selector": selector, "template": template,
            },
        })
    }

    fn told(&self, name: &str, replicas: i32) -> Told {
        let about = reference(self.deployment);
        let notice =
            |warning, reason: &str, message| Notice { about: about.clone(), warning, reason: reason.into(), message };
        let scaled = format!("Scaled up replica set {name} from 0 to {replicas}");
        let failed = format!("Failed to create new replica set {name:?}: {{error}}");
        Told {
            done: (replicas > 0).then(|| notice(false, "ScalingReplicaSet", scaled)),
            failed: Some(notice(true, "ReplicaSetCreateError", failed)),
        }
    }

    /// Deletes the oldest ReplicaSets beyond the history limit that have no pods.
    fn clean_up(&mut self) {
        let limit = self.deployment.spec.revision_history_limit.filter(|l| *l != i32::MAX);
        let Some(limit) = limit.and_then(|l| usize::try_from(l).ok()) else { return };
        let mut old: Vec<&ReplicaSet> = self.sets.old().into_iter().map(|i| self.sets.all[i].rs).collect();
        old.retain(|rs| rs.metadata.deletion_timestamp.is_none());
        old.sort_by_key(|rs| revision::of(&rs.metadata).and_then(|r| r.parse::<i64>().ok()).unwrap_or_default());
        let surplus = old.len().saturating_sub(limit);
        let gone = old.into_iter().take(surplus).filter(|rs| is_idle(rs)).map(Effect::delete);
        self.effects.extend(gone);
    }
}

fn is_idle(rs: &ReplicaSet) -> bool {
    let status = rs.status.clone().unwrap_or_default();
    status.replicas == 0
        && rs.spec.replicas == Some(0)
        && rs.metadata.generation.unwrap_or_default() <= status.observed_generation.unwrap_or_default()
}
