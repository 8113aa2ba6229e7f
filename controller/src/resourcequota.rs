//! ResourceQuota: counts what is used (`pkg/controller/resourcequota`). Admission charges what is created in the very
//! transaction that creates it; what goes, and a quota that is new, is counted here.

use std::collections::BTreeMap;

use api::quota::{self, Amounts};
use api::{Document, GroupResource, Quantity};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaStatus, Service};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use reconcile::resource::{name_of, revision_of};
use reconcile::{
    Change, Controller, Decider, Effect, Key, Kind, Outcome, Resource, Timestamp, Watch, World, merge, pods,
};
use serde::Serialize;
use serde_json::Value;

use crate::namespace::{RENEWED_BY, UNWATCHED};

/// How often everything is counted even if nothing changes.
const RESYNC: SignedDuration = SignedDuration::from_mins(5);
/// How soon to look again while the watches are behind, and for how long to trust that they are.
const SOON: SignedDuration = SignedDuration::from_millis(200);
const PATIENCE: SignedDuration = SignedDuration::from_secs(10);

type List = BTreeMap<String, Text>;

/// The resource quota controller.
pub struct ResourceQuotas;

impl Controller for ResourceQuotas {
    fn name(&self) -> &'static str {
        "resourcequota-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::of::<ResourceQuota>(),
            Watch::of::<Pod>(),
            Watch::of::<Service>(),
            Watch::of::<PersistentVolumeClaim>(),
            Watch::everything(UNWATCHED, RENEWED_BY),
        ]
    }

    fn touches(&self, change: &Change, world: &World) -> Vec<Key> {
        if let Some(key) = change.key_of::<ResourceQuota>() {
            let hard = |q: Option<&ResourceQuota>| q.map(hard);
            let asked = hard(change.was()) != hard(change.now()) || change.now().is_some_and(is_uncounted);
            return if asked { vec![key] } else { Vec::new() };
        }
        let Some(namespace) = change.object().and_then(|o| o.metadata().namespace.as_deref()) else {
            return Vec::new();
        };
        if !frees(change) {
            return Vec::new();
        }
        let resource = group_resource(&change.resource);
        let concerned = |q: &&ResourceQuota| hard(q).keys().any(|name| quota::counts(&resource, name));
        let found = world.in_namespace::<ResourceQuota>(namespace).filter(concerned);
        found.map(|q| Key::of::<ResourceQuota>(name_of(&q.metadata))).collect()
    }
}

/// Whether less, or something else, may be used after a change. What is created was charged by admission.
fn frees(change: &Change) -> bool {
    if let (Some(was), Some(now)) = (change.was::<Pod>(), change.now::<Pod>()) {
        let deadline = |p: &Pod| p.spec.as_ref().is_some_and(|s| s.active_deadline_seconds.is_some());
        return pods::is_terminal(was) != pods::is_terminal(now)
            || pods::is_deleting(was) != pods::is_deleting(now)
            || deadline(was) != deadline(now)
            || amounts_of(was) != amounts_of(now);
    }
    if let (Some(was), Some(now)) = (change.was::<Service>(), change.now::<Service>()) {
        return was.spec != now.spec;
    }
    if let (Some(was), Some(now)) = (change.was::<PersistentVolumeClaim>(), change.now::<PersistentVolumeClaim>()) {
        return was.spec != now.spec || was.status != now.status;
    }
    change.after.is_none()
}

/// What a resize changes.
fn amounts_of(pod: &Pod) -> Value {
    let spec = pod.spec.iter().flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
    let asked: Vec<_> = spec.map(|c| &c.resources).collect();
    let statuses = pod
        .status
        .iter()
        .flat_map(|s| s.container_statuses.iter().flatten().chain(s.init_container_statuses.iter().flatten()));
    let given: Vec<_> = statuses.map(|s| (&s.resources, &s.allocated_resources)).collect();
    serde_json::to_value((asked, given)).unwrap_or_default()
}

fn group_resource(resource: &Resource) -> GroupResource {
    GroupResource::new(&resource.group, &resource.plural)
}

fn hard(quota: &ResourceQuota) -> List {
    quota.spec.as_ref().and_then(|s| s.hard.clone()).unwrap_or_default()
}

fn is_uncounted(quota: &ResourceQuota) -> bool {
    quota.status.as_ref().is_none_or(|s| s.hard.is_none() || s.used.is_none())
}

impl Decider for ResourceQuotas {
    type World = World;
    type Key = Key;
    type Effect = Effect;

    fn decide(&self, world: &World, key: &Key, now: Timestamp) -> Outcome<Effect> {
        let Some(quota) = world.get::<ResourceQuota>(&key.object) else {
            return Outcome::nothing("Gone", "the quota does not exist");
        };
        let hard = hard(quota);
        let counted: Vec<&Resource> = world.resources().iter().filter(|r| is_counted(r, &hard)).collect();
        if world.resources().is_empty() || counted.iter().any(|r| !world.synced(r)) {
            return later("NotListed", "what it counts is not listed yet", now + SOON);
        }
        let old = quota.status.clone().unwrap_or_default();
        let was = read(old.used.as_ref());
        let used = with_counts(was.clone(), world, quota, &counted, now);
        let revision = revision_of(&quota.metadata);
        let changed = world.changed_at(&key.resource, &key.object).unwrap_or(now);
        // What admission charged and the watches do not show yet must not be forgotten.
        let falls = |r: &Resource| {
            let named = group_resource(r);
            used.iter().any(|(name, n)| quota::counts(&named, name) && was.get(name).is_some_and(|old| n < old))
        };
        let behind = counted.iter().any(|r| world.watched(r) < revision && falls(r));
        if behind && now < changed + PATIENCE {
            return later("Behind", "what was charged last is not seen yet", now + SOON);
        }
        let mut outcome = Outcome::nothing("Counted", format!("{} names", used.len()));
        outcome.wake(now + RESYNC);
        let used = written(used, &hard, old.used.as_ref());
        let status = ResourceQuotaStatus { hard: Some(hard), used: Some(used) };
        let patch = merge::status(quota.metadata.resource_version.as_deref(), &old, &status);
        outcome.effects.extend(patch.map(|body| Effect::patch_status(quota, body)));
        outcome
    }
}

fn later(reason: &'static str, message: &str, at: Timestamp) -> Outcome<Effect> {
    let mut outcome = Outcome::nothing(reason, message);
    outcome.wake(at);
    outcome
}

fn is_counted(resource: &Resource, hard: &List) -> bool {
    let named = group_resource(resource);
    resource.namespaced && hard.keys().any(|name| quota::counts(&named, name))
}

fn read(list: Option<&List>) -> Amounts {
    let parse = |text: &Text| Quantity::parse(&text.0).unwrap_or_default();
    list.into_iter().flatten().map(|(name, text)| (name.clone(), parse(text))).collect()
}

/// The amounts that are written: those with a limit, in the old words where they say the same.
fn written(used: Amounts, hard: &List, old: Option<&List>) -> List {
    let limited = used.into_iter().filter(|(name, _)| hard.contains_key(name));
    let text = |name: &str, n: &Quantity| {
        let same = old.and_then(|o| o.get(name)).filter(|t| Quantity::parse(&t.0).is_ok_and(|o| o == *n));
        same.cloned().unwrap_or_else(|| Text(n.to_string()))
    };
    limited.map(|(name, n)| (name.clone(), text(&name, &n))).collect()
}

/// `used` with every name that can be counted counted anew.
fn with_counts(
    mut used: Amounts,
    world: &World,
    quota: &ResourceQuota,
    counted: &[&Resource],
    now: Timestamp,
) -> Amounts {
    let namespace = quota.metadata.namespace.as_deref().unwrap_or_default();
    let served = |named: &GroupResource| counted.iter().copied().find(|r| group_resource(r) == *named);
    let objects = |named: &GroupResource| served(named).map(|r| objects(world, r, namespace)).unwrap_or_default();
    let document = Document::of(quota).unwrap_or_default();
    let recounted = quota::recount(&document, objects, now).into_iter();
    used.extend(recounted.filter(|(name, _)| quota::counted(name).is_some_and(|named| served(&named).is_some())));
    used
}

/// The objects of a resource in a namespace; of most of them nothing but their number counts.
fn objects(world: &World, resource: &Resource, namespace: &str) -> Vec<Document> {
    match (resource.group.as_ref(), resource.plural.as_ref()) {
        ("", "pods") => whole::<Pod>(world, namespace),
        ("", "services") => whole::<Service>(world, namespace),
        ("", "persistentvolumeclaims") => whole::<PersistentVolumeClaim>(world, namespace),
        _ => world.objects_in(resource, namespace).map(|_| Document::default()).collect(),
    }
}

fn whole<T: Kind + Serialize>(world: &World, namespace: &str) -> Vec<Document> {
    world.in_namespace::<T>(namespace).filter_map(|o| Document::of(o).ok()).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::ResourceQuotas;
    use crate::model::script::run;

    fn check(script: &str, expect: Expect) {
        expect.assert_eq(&run(vec![Box::new(ResourceQuotas)], script));
    }

    const QUOTA: &str = "apply ResourceQuota ns/q {spec: {hard: {pods: 2, requests.cpu: '1', count/configmaps: 5, services.nodeports: 3, count/nothing.here: 1}}}\n";
    const POD: &str =
        "apply Pod ns/p {spec: {containers: [{name: c, image: i, resources: {requests: {cpu: 300m}}}]}}\n";

    #[test]
    fn a_new_quota_is_counted_and_what_goes_is_given_back() {
        let script = format!(
            "{POD}apply Pod other/p {{}}
             apply Service ns/s {{spec: {{type: NodePort, ports: [{{port: 1}}, {{port: 2}}]}}}}
             apply ConfigMap ns/c {{}}
             {QUOTA}trace
             again
             delete Pod ns/p
             delete Service ns/s
             delete ConfigMap ns/c
             trace
             apply ResourceQuota ns/q {{spec: {{hard: {{pods: 4, requests.cpu: null}}}}}}
             trace
             again"
        );
        check(
            &script,
            expect![[r#"
            resourcequota-controller: patch resourcequotas/status ns/q {"metadata":{},"status":{"hard":{"count/configmaps":"5","count/nothing.here":"1","pods":"2","requests.cpu":"1","services.nodeports":"3"},"used":{"count/configmaps":"1","pods":"1","requests.cpu":"300m","services.nodeports":"2"}}}
            --
            resourcequota-controller: patch resourcequotas/status ns/q {"metadata":{},"status":{"used":{"pods":"0","requests.cpu":"0"}}}
            resourcequota-controller: patch resourcequotas/status ns/q {"metadata":{},"status":{"used":{"services.nodeports":"0"}}}
            resourcequota-controller: patch resourcequotas/status ns/q {"metadata":{},"status":{"used":{"count/configmaps":"0"}}}
            --
            resourcequota-controller: patch resourcequotas/status ns/q {"metadata":{},"status":{"hard":{"pods":"4"}}}
            --
        "#]],
        );
    }

    #[test]
    fn a_charge_that_the_watches_do_not_show_yet_is_kept() {
        let script = format!(
            "{QUOTA}trace status
             apply ResourceQuota ns/q {{status: {{used: {{pods: 1}}}}, spec: {{hard: {{pods: 3}}}}}}
             trace
             wait 9
             trace
             wait 2
             trace"
        );
        check(
            &script,
            expect![[r#"
            resourcequota-controller: patch resourcequotas/status ns/q {"metadata":{},"status":{"hard":{"count/configmaps":"5","count/nothing.here":"1","pods":"2","requests.cpu":"1","services.nodeports":"3"},"used":{"pods":"0","requests.cpu":"0","services.nodeports":"0"}}}
            --
            --
            --
            resourcequota-controller: patch resourcequotas/status ns/q {"metadata":{},"status":{"hard":{"pods":"3"},"used":{"pods":"0"}}}
            --
        "#]],
        );
    }

    #[test]
    fn a_pod_at_its_end_is_given_back() {
        let script = format!(
            "{POD}{QUOTA}trace status
             status pods ns/p {{phase: Running}}
             trace
             status pods ns/p {{phase: Succeeded}}
             trace"
        );
        check(
            &script,
            expect![[r#"
            resourcequota-controller: patch resourcequotas/status ns/q {"metadata":{},"status":{"hard":{"count/configmaps":"5","count/nothing.here":"1","pods":"2","requests.cpu":"1","services.nodeports":"3"},"used":{"pods":"1","requests.cpu":"300m","services.nodeports":"0"}}}
            --
            --
            resourcequota-controller: patch resourcequotas/status ns/q {"metadata":{},"status":{"used":{"pods":"0","requests.cpu":"0"}}}
            --
        "#]],
        );
    }
}
