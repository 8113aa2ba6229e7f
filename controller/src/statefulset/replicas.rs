//! What there is of a StatefulSet, and the next steps (`pkg/controller/statefulset/stateful_set_control.go`).

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{RollingUpdateStatefulSetStrategy, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;
use reconcile::{Effect, Outcome, Timestamp, World, pods};

use super::claims;
use super::pods::{self as own, Revisions};
use crate::{percent, podset};

/// The most pods created in one go.
const BURST: usize = 500;

/// The pods of a set.
pub(super) struct Replicas<'w> {
    world: &'w World,
    set: &'w StatefulSet,
    revisions: &'w Revisions<'w>,
    /// Those that are asked for, by ordinal.
    there: BTreeMap<i32, &'w Pod>,
    /// Those that are not, the highest ordinal first.
    condemned: Vec<&'w Pod>,
    now: Timestamp,
}

/// How many pods are asked for.
pub(super) fn wanted(set: &StatefulSet) -> i32 {
    set.spec.replicas.unwrap_or(1).max(0)
}

/// Whether a pod of that ordinal is asked for.
pub(super) fn is_wanted(set: &StatefulSet, ordinal: i32) -> bool {
    let first = i64::from(own::start(set));
    (first..first + i64::from(wanted(set))).contains(&i64::from(ordinal))
}

/// Running, and ready.
pub(super) fn is_ready(pod: &Pod) -> bool {
    pods::phase(pod) == "Running" && pods::is_ready(pod)
}

impl<'w> Replicas<'w> {
    pub(super) fn new(
        world: &'w World,
        set: &'w StatefulSet,
        revisions: &'w Revisions<'w>,
        pods: Vec<&'w Pod>,
        now: Timestamp,
    ) -> Self {
        let by_ordinal: BTreeMap<i32, &Pod> =
            pods.into_iter().filter_map(|pod| Some((own::ordinal(pod)?, pod))).collect();
        let (there, beyond): (BTreeMap<i32, &Pod>, BTreeMap<i32, &Pod>) =
            by_ordinal.into_iter().partition(|(ordinal, _)| is_wanted(set, *ordinal));
        Self { world, set, revisions, there, condemned: beyond.into_values().rev().collect(), now }
    }

    /// All of them.
    pub(super) fn pods(&self) -> impl Iterator<Item = &'w Pod> + '_ {
        self.there.values().chain(&self.condemned).copied()
    }

    fn min_ready(&self) -> i32 {
        self.set.spec.min_ready_seconds.unwrap_or_default()
    }

    /// Ready for long enough.
    pub(super) fn is_available(&self, pod: &Pod) -> bool {
        pods::is_available(pod, self.min_ready(), self.now)
    }

    fn is_unavailable(&self, pod: &Pod) -> bool {
        !self.is_available(pod) || pods::is_deleting(pod)
    }

    /// One after the other.
    fn is_ordered(&self) -> bool {
        self.set.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    /// Looks again when a pod will have been ready for long enough.
    pub(super) fn wake(&self, outcome: &mut Outcome<Effect>) {
        let times = self.pods().filter_map(|pod| pods::available_from(pod, self.min_ready()));
        times.filter(|at| *at > self.now).for_each(|at| outcome.wake(at));
    }

    /// The next steps: first there must be what is asked for, then what is not goes, then old pods are replaced.
    pub(super) fn manage(&self, status: &mut StatefulSetStatus, outcome: &mut Outcome<Effect>) {
        if !self.fill(outcome) {
            return;
        }
        for pod in &self.condemned {
            outcome.effects.extend(claims::own(self.world, self.set, pod));
        }
        if self.shrink(outcome) {
            self.roll(status, outcome);
        }
    }

    /// Whether to go on after something that is not as it shall be.
    fn goes_on(&self, reason: &'static str, message: impl Into<String>, outcome: &mut Outcome<Effect>) -> bool {
        outcome.because(reason, message);
        !self.is_ordered()
    }

    fn fill(&self, outcome: &mut Outcome<Effect>) -> bool {
        let (first, mut made) = (i64::from(own::start(self.set)), 0);
        for ordinal in first..first + i64::from(wanted(self.set)) {
            let Ok(ordinal) = i32::try_from(ordinal) else { return false };
            let goes_on = match self.there.get(&ordinal) {
                Some(pod) => self.keep(pod, outcome),
                None if made == BURST => false,
                None => {
                    made += 1;
                    self.make(ordinal, outcome)
                }
            };
            if !goes_on {
                return false;
            }
        }
        true
    }

    fn make(&self, ordinal: i32, outcome: &mut Outcome<Effect>) -> bool {
        let name = own::name(self.set, ordinal);
        if claims::is_stale(self.world, self.set, ordinal) {
            return self.goes_on("StaleClaim", format!("a claim of {name} still belongs to a pod that was"), outcome);
        }
        match claims::missing(self.world, self.set, ordinal) {
            Ok(claims) => outcome.effects.extend(claims),
            Err(why) => return self.goes_on("ClaimGoing", why, outcome),
        }
        outcome.effects.extend(own::create(self.set, self.revisions, ordinal));
        self.goes_on("Missing", format!("there is no {name}"), outcome)
    }

    /// Sees to a pod that shall be there; whether the next may be looked at.
    fn keep(&self, pod: &Pod, outcome: &mut Outcome<Effect>) -> bool {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        if pods::is_terminal(pod) {
            outcome.effects.extend((!pods::is_deleting(pod)).then(|| own::delete(self.set, pod)));
            return self.goes_on("Ended", format!("{name} has ended"), outcome);
        }
        if let Some(ordinal) = own::ordinal(pod).filter(|_| pods::phase(pod) == "Pending") {
            match claims::missing(self.world, self.set, ordinal) {
                Ok(claims) => outcome.effects.extend(claims),
                Err(why) => return self.goes_on("ClaimGoing", why, outcome),
            }
            outcome.effects.extend(claims::own(self.world, self.set, pod));
        }
        let waits = match pod {
            pod if pods::is_deleting(pod) => Some("to be gone"),
            pod if !is_ready(pod) => Some("to be Running and Ready"),
            pod if !self.is_available(pod) => Some("to be Available"),
            _ => None,
        };
        if let Some(what) = waits {
            outcome.because("Waiting", format!("waiting for {name} {what}"));
            if self.is_ordered() {
                return false;
            }
        }
        outcome.effects.extend(own::name_again(self.set, pod));
        if pods::phase(pod) != "Pending" {
            outcome.effects.extend(claims::own(self.world, self.set, pod));
        }
        true
    }

    /// Deletes what is not asked for; whether an update may go on.
    fn shrink(&self, outcome: &mut Outcome<Effect>) -> bool {
        let lowest = self.condemned.iter().rev().find(|pod| self.is_unavailable(pod));
        for pod in &self.condemned {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            if pods::is_deleting(pod) {
                if self.goes_on("Waiting", format!("waiting for {name} to be gone"), outcome) {
                    continue;
                }
                return false;
            }
            let healthy = is_ready(pod) && self.is_available(pod);
            let is_lowest = lowest.is_some_and(|lowest| lowest.metadata.uid == pod.metadata.uid);
            if self.is_ordered() && !healthy && !is_lowest {
                outcome.because("Waiting", format!("waiting for {name} to be Running, Ready and Available"));
                return false;
            }
            outcome.effect(own::delete(self.set, pod));
            if !self.goes_on("Surplus", format!("{name} is not asked for"), outcome) {
                return false;
            }
        }
        true
    }

    /// Deletes pods that are not of the newest revision, the highest ordinal first, while few enough are unavailable.
    fn roll(&self, status: &mut StatefulSetStatus, outcome: &mut Outcome<Effect>) {
        let strategy = self.set.spec.update_strategy.as_ref();
        if strategy.and_then(|s| s.type_.as_deref()) == Some("OnDelete") {
            return outcome.because("OnDelete", "pods are replaced when somebody deletes them");
        }
        let rolling = strategy.and_then(|s| s.rolling_update.clone()).unwrap_or_default();
        let first = i64::from(own::start(self.set)) + i64::from(rolling.partition.unwrap_or_default());
        let is_old = |pod: &&Pod| own::revision(pod) != self.revisions.update_name() && !pods::is_deleting(pod);
        let updated = self.there.iter().rev().filter(|(ordinal, _)| i64::from(**ordinal) >= first);
        let old: Vec<&Pod> = updated.map(|(_, pod)| *pod).filter(is_old).collect();
        let all = usize::try_from(wanted(self.set)).unwrap_or_default();
        let missing = all.saturating_sub(self.there.len());
        let unavailable = missing + self.there.values().filter(|pod| self.is_unavailable(pod)).count();
        let budget = self.max_unavailable(&rolling).saturating_sub(unavailable);
        let (broken, good): (Vec<&Pod>, Vec<&Pod>) = match self.is_ordered() {
            true => (Vec::new(), old),
            // What does not work anyway is no loss.
            false => old.into_iter().partition(|pod| self.is_unavailable(pod)),
        };
        let going: Vec<&Pod> = broken.into_iter().chain(good.into_iter().take(budget)).collect();
        let left = status.current_replicas.unwrap_or_default().saturating_sub(podset::count(going.len()));
        status.current_replicas = Some(left).filter(|left| *left > 0);
        outcome.effects.extend(going.into_iter().map(|pod| own::delete(self.set, pod)));
        outcome.because("Rolled", format!("{unavailable} of {all} are unavailable"));
    }

    fn max_unavailable(&self, rolling: &RollingUpdateStatefulSetStrategy) -> usize {
        let most = rolling.max_unavailable.as_ref().map_or(1, |n| percent::scaled(n, wanted(self.set), false));
        usize::try_from(most).unwrap_or_default().max(1)
    }
}
