//! PodDisruptionBudget: how many pods may be evicted now (`pkg/controller/disruption`).

use std::collections::BTreeMap;

use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use reconcile::resource::name_of;
use reconcile::{
    Change, Controller, Decider, Effect, Key, Outcome, Timestamp, Watch, World, conditions, merge, owners, pods,
    selector,
};

use crate::{percent, podset};

/// How long an evicted pod may take to be seen as deleted.
const DELETION: SignedDuration = SignedDuration::from_secs(120);
const ALLOWED: &str = "DisruptionAllowed";

/// The disruption controller.
pub struct Disruptions;

impl Controller for Disruptions {
    fn name(&self) -> &'static str {
        "disruption-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::of::<PodDisruptionBudget>(),
            Watch::of::<Pod>(),
            Watch::of::<ReplicaSet>(),
            Watch::of::<Deployment>(),
            Watch::of::<StatefulSet>(),
        ]
    }

    fn touches(&self, change: &Change, world: &World) -> Vec<Key> {
        if let Some(key) = change.key_of::<PodDisruptionBudget>() {
            return vec![key];
        }
        let namespace = change.object().and_then(|o| o.metadata().namespace.clone()).unwrap_or_default();
        let pods: Vec<&Pod> = change.both::<Pod>().collect();
        let scaled = scale_of(change.before.as_deref()) != scale_of(change.after.as_deref());
        let concerned = |pdb: &&PodDisruptionBudget| scaled || pods.iter().any(|p| covers(pdb, p));
        let found = world.in_namespace::<PodDisruptionBudget>(&namespace).filter(concerned);
        found.map(|pdb| Key::of::<PodDisruptionBudget>(name_of(&pdb.metadata))).collect()
    }
}

/// How many pods an object wants, if it is of a kind that wants pods.
fn scale_of(object: Option<&dyn reconcile::Object>) -> Option<i32> {
    let any = object?.as_any();
    let deployment = any.downcast_ref::<Deployment>().and_then(|d| d.spec.replicas);
    let stateful = || any.downcast_ref::<StatefulSet>().and_then(|s| s.spec.replicas);
    let set = || any.downcast_ref::<ReplicaSet>().and_then(|r| r.spec.replicas);
    deployment.or_else(stateful).or_else(set)
}

/// Whether a budget is about a pod. No selector covers none, an empty one all.
fn covers(pdb: &PodDisruptionBudget, pod: &Pod) -> bool {
    let wanted = pdb.spec.as_ref().and_then(|s| s.selector.as_ref());
    wanted.is_some_and(|s| selector::matches(s, pod.metadata.labels.as_ref()))
}

impl Decider for Disruptions {
    type World = World;
    type Key = Key;
    type Effect = Effect;

    fn decide(&self, world: &World, key: &Key, now: Timestamp) -> Outcome<Effect> {
        let Some(pdb) = world.get::<PodDisruptionBudget>(&key.object) else {
            return Outcome::nothing("Gone", "the budget does not exist");
        };
        let covered: Vec<&Pod> = world.in_namespace::<Pod>(&key.object.namespace).filter(|p| covers(pdb, p)).collect();
        let mut outcome = Outcome::nothing("Counted", format!("{} pods are covered", covered.len()));
        let old = pdb.status.clone().unwrap_or_default();
        let status = match expectation(world, pdb, &covered) {
            Ok((expected, desired)) => status(pdb, &covered, expected, desired, now, &mut outcome),
            Err(message) => failed(pdb, &old, message, now),
        };
        let patch = merge::status(pdb.metadata.resource_version.as_deref(), &old, &status);
        outcome.effects.extend(patch.map(|body| Effect::patch_status(pdb, body)));
        outcome
    }
}

/// How many pods there should be, and how many of them healthy.
fn expectation(world: &World, pdb: &PodDisruptionBudget, covered: &[&Pod]) -> Result<(i32, i32), String> {
    let spec = pdb.spec.clone().unwrap_or_default();
    match (spec.max_unavailable, spec.min_available) {
        (Some(most), _) => {
            let expected = scale(world, covered)?;
            Ok((expected, (expected - percent::scaled(&most, expected, true)).max(0)))
        }
        (None, Some(IntOrString::Int(least))) => Ok((podset::count(covered.len()), least)),
        (None, Some(least)) => {
            let expected = scale(world, covered)?;
            Ok((expected, percent::scaled(&least, expected, true)))
        }
        (None, None) => Ok((0, 0)),
    }
}

/// What the controllers of the pods want together. Pods without one are left out, as upstream does.
fn scale(world: &World, covered: &[&Pod]) -> Result<i32, String> {
    let mut scales: BTreeMap<String, i32> = BTreeMap::new();
    for pod in covered.iter().filter(|p| owners::controller(&p.metadata).is_some()) {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let found = controller(world, pod).ok_or_else(|| format!("found no controllers for pod {name:?}"))?;
        scales.insert(found.0, found.1);
    }
    Ok(scales.values().sum())
}

fn controller(world: &World, pod: &Pod) -> Option<(String, i32)> {
    if let Some(key) = owners::controller_key::<StatefulSet>(&pod.metadata) {
        let set = world.get::<StatefulSet>(&key.object)?;
        return Some((set.metadata.uid.clone()?, set.spec.replicas.unwrap_or(1)));
    }
    let set = world.get::<ReplicaSet>(&owners::controller_key::<ReplicaSet>(&pod.metadata)?.object)?;
    match owners::controller_key::<Deployment>(&set.metadata) {
        Some(key) => {
            let deployment = world.get::<Deployment>(&key.object)?;
            Some((deployment.metadata.uid.clone()?, deployment.spec.replicas.unwrap_or(1)))
        }
        None => Some((set.metadata.uid.clone()?, set.spec.replicas.unwrap_or(1))),
    }
}

fn status(
    pdb: &PodDisruptionBudget,
    covered: &[&Pod],
    expected: i32,
    desired: i32,
    now: Timestamp,
    outcome: &mut Outcome<Effect>,
) -> PodDisruptionBudgetStatus {
    let old = pdb.status.clone().unwrap_or_default();
    let disrupted = disrupted(&old, covered, now, outcome);
    let counts = |p: &&&Pod| {
        let named = p.metadata.name.as_ref().is_some_and(|n| disrupted.contains_key(n));
        !pods::is_deleting(p) && !named && pods::is_ready(p)
    };
    let healthy = podset::count(covered.iter().filter(counts).count());
    let allowed = if expected <= 0 { 0 } else { (healthy - desired).max(0) };
    let (is, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let generation = pdb.metadata.generation.filter(|g| *g != 0);
    PodDisruptionBudgetStatus {
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        expected_pods: Some(expected),
        disruptions_allowed: Some(allowed),
        disrupted_pods: Some(disrupted).filter(|d| !d.is_empty()),
        observed_generation: generation,
        conditions: Some(with(old.conditions, is, reason, String::new(), generation, now)),
    }
}

/// Pods whose eviction was allowed and whose deletion is not seen yet: they count as gone for a while.
fn disrupted(
    old: &PodDisruptionBudgetStatus,
    covered: &[&Pod],
    now: Timestamp,
    outcome: &mut Outcome<Effect>,
) -> BTreeMap<String, Time> {
    let mut kept = BTreeMap::new();
    for pod in covered.iter().filter(|p| !pods::is_deleting(p)) {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let Some(at) = old.disrupted_pods.as_ref().and_then(|d| d.get(&name)) else { continue };
        let due = at.0.saturating_add(DELETION).unwrap_or(at.0);
        if due > now {
            outcome.wake(due);
            kept.insert(name, at.clone());
        }
    }
    kept
}

/// When the pods cannot be counted, none may be evicted.
fn failed(
    pdb: &PodDisruptionBudget,
    old: &PodDisruptionBudgetStatus,
    message: String,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let generation = old.observed_generation.or(pdb.metadata.generation);
    let conditions = with(old.conditions.clone(), "False", "SyncFailed", message, generation, now);
    PodDisruptionBudgetStatus { disruptions_allowed: Some(0), conditions: Some(conditions), ..old.clone() }
}

fn with(
    list: Option<Vec<Condition>>,
    is: &str,
    reason: &str,
    message: String,
    observed_generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let mut list = list.unwrap_or_default();
    let same = list.iter().find(|c| c.type_ == ALLOWED && c.status == is);
    let last_transition_time = same.map_or_else(|| conditions::time(now), |c| c.last_transition_time.clone());
    let new = Condition {
        type_: ALLOWED.into(),
        status: is.into(),
        reason: reason.into(),
        message,
        observed_generation,
        last_transition_time,
    };
    match list.iter_mut().find(|c| c.type_ == ALLOWED) {
        Some(old) => *old = new,
        None => list.push(new),
    }
    list
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::Disruptions;
    use crate::model::script::run;
    use crate::replicaset::ReplicaSets;

    fn check(script: &str, expect: Expect) {
        expect.assert_eq(&run(vec![Box::new(Disruptions), Box::new(ReplicaSets)], script));
    }

    const SET: &str = "apply ReplicaSet ns/rs {spec: {replicas: 3, selector: {matchLabels: {a: x}}, template: {metadata: {labels: {a: x}}, spec: {containers: [{name: c, image: i}]}}}}\n";

    fn budget(spec: &str) -> String {
        format!("apply PodDisruptionBudget ns/b {{spec: {{{spec}, selector: {{matchLabels: {{a: x}}}}}}}}\n")
    }

    #[test]
    fn only_what_is_healthy_beyond_the_least_may_go() {
        let least = budget("minAvailable: 2");
        let script = format!(
            "{SET}{least}kubelet 2\ntrace disruption\nkubelet\ntrace disruption\ndelete Pod ns/rs-2\ntrace disruption\nagain"
        );
        check(
            &script,
            expect![[r#"
            disruption-controller: patch poddisruptionbudgets.policy/status ns/b {"metadata":{},"status":{"conditions":[{"lastTransitionTime":"2027-01-15T08:00:00Z","message":"","observedGeneration":1,"reason":"InsufficientPods","status":"False","type":"DisruptionAllowed"}],"desiredHealthy":2,"expectedPods":3,"observedGeneration":1}}
            disruption-controller: patch poddisruptionbudgets.policy/status ns/b {"metadata":{},"status":{"currentHealthy":2}}
            --
            disruption-controller: patch poddisruptionbudgets.policy/status ns/b {"metadata":{},"status":{"conditions":[{"lastTransitionTime":"2027-01-15T08:00:00Z","message":"","observedGeneration":1,"reason":"SufficientPods","status":"True","type":"DisruptionAllowed"}],"currentHealthy":3,"disruptionsAllowed":1}}
            --
            disruption-controller: patch poddisruptionbudgets.policy/status ns/b {"metadata":{},"status":{"conditions":[{"lastTransitionTime":"2027-01-15T08:00:00Z","message":"","observedGeneration":1,"reason":"InsufficientPods","status":"False","type":"DisruptionAllowed"}],"currentHealthy":2,"disruptionsAllowed":0}}
            disruption-controller: patch poddisruptionbudgets.policy/status ns/b {"metadata":{},"status":{"expectedPods":4}}
            --
        "#]],
        );
    }

    #[test]
    fn percentages_are_of_what_the_controllers_want() {
        let most = budget("maxUnavailable: 50%");
        check(
            &format!("{SET}kubelet\ntrace nothing\n{most}trace disruption\nagain"),
            expect![[r#"
            --
            disruption-controller: patch poddisruptionbudgets.policy/status ns/b {"metadata":{},"status":{"conditions":[{"lastTransitionTime":"2027-01-15T08:00:00Z","message":"","observedGeneration":1,"reason":"SufficientPods","status":"True","type":"DisruptionAllowed"}],"currentHealthy":3,"desiredHealthy":1,"disruptionsAllowed":2,"expectedPods":3,"observedGeneration":1}}
            --
        "#]],
        );
    }

    #[test]
    fn an_eviction_that_is_not_seen_yet_counts_for_a_while() {
        let least = budget("minAvailable: 2");
        let evicted = "apply PodDisruptionBudget ns/b {status: {disruptedPods: {rs-2: '2027-01-15T08:00:00Z'}}}";
        let script = format!(
            "{SET}kubelet\n{least}trace nothing\n{evicted}\ntrace disruption\nwait 119\ntrace disruption\nwait 2\ntrace disruption"
        );
        check(
            &script,
            expect![[r#"
            --
            disruption-controller: patch poddisruptionbudgets.policy/status ns/b {"metadata":{},"status":{"conditions":[{"lastTransitionTime":"2027-01-15T08:00:00Z","message":"","observedGeneration":1,"reason":"InsufficientPods","status":"False","type":"DisruptionAllowed"}],"currentHealthy":2,"disruptionsAllowed":0}}
            --
            --
            disruption-controller: patch poddisruptionbudgets.policy/status ns/b {"metadata":{},"status":{"conditions":[{"lastTransitionTime":"2027-01-15T08:02:00Z","message":"","observedGeneration":1,"reason":"SufficientPods","status":"True","type":"DisruptionAllowed"}],"currentHealthy":3,"disruptedPods":null,"disruptionsAllowed":1}}
            --
        "#]],
        );
    }
}
