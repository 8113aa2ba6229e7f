//! Deployments, ReplicaSets and the garbage collector under users who apply, roll back, pause, delete and adopt.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use reconcile::resource::name_of;
use reconcile::{Controller, ObjectName, Propagation, Resource, Target, owners, pods};
use serde_json::json;

use super::super::cluster::Cluster;
use super::Story;
use super::writes::Watcher;
use crate::deployment::Deployments;
use crate::gc::GarbageCollector;
use crate::replicaset::ReplicaSets;

const NAMES: [&str; 2] = ["one", "two"];

pub(super) const STORY: Story =
    Story { name: "rollout", controllers, steps: 1_800, begin: |_| {}, user, end, converged };

fn controllers() -> Vec<Box<dyn Controller>> {
    vec![Box::new(Deployments), Box::new(ReplicaSets), Box::new(GarbageCollector)]
}

fn user(cluster: &mut Cluster, watcher: &mut Watcher) {
    let name = cluster.pick(NAMES).unwrap_or_default();
    match cluster.random(10) {
        0..6 => apply(cluster, name),
        6..8 => {
            let object = ObjectName { namespace: "ns".into(), name: name.into() };
            delete(cluster, watcher, &Target { resource: Resource::of::<Deployment>(), object });
        }
        8 => {
            let all: Vec<ReplicaSet> = cluster.server.typed();
            if let Some(set) = cluster.pick(all) {
                delete(cluster, watcher, &Target::of(&set));
            }
        }
        _ => {
            let all: Vec<Pod> = cluster.server.typed();
            if let Some(pod) = cluster.pick(all) {
                delete(cluster, watcher, &Target::of(&pod));
            }
        }
    }
}

fn apply(cluster: &mut Cluster, name: &str) {
    let (replicas, image, paused) = (cluster.random(6), cluster.random(3), cluster.random(8) == 0);
    let labels = json!({ "app": name });
    let rolling = |surge, unavailable| json!({"maxSurge": surge, "maxUnavailable": unavailable});
    let strategy = match cluster.random(4) {
        0 => json!({"type": "Recreate", "rollingUpdate": null}),
        1 => json!({"type": "RollingUpdate", "rollingUpdate": rolling(json!(1), json!(0))}),
        2 => json!({"type": "RollingUpdate", "rollingUpdate": rolling(json!(0), json!(1))}),
        _ => json!({"type": "RollingUpdate", "rollingUpdate": rolling(json!("30%"), json!("30%"))}),
    };
    cluster.trace.push(format!("user: apply {name} replicas {replicas} image {image} paused {paused} {strategy}"));
    let object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "ns"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels}, "strategy": strategy, "paused": paused,
            "revisionHistoryLimit": 2,
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": image.to_string()}]}},
        },
    });
    cluster.apply(&Resource::of::<Deployment>(), &object);
}

/// Somebody deletes an object, in any of the three ways.
pub(super) fn delete(cluster: &mut Cluster, watcher: &mut Watcher, target: &Target) {
    let ways = [Propagation::Foreground, Propagation::Orphan, Propagation::Background];
    let way = cluster.pick(ways).unwrap_or(Propagation::Background);
    cluster.trace.push(format!("user: delete {} {} {way:?}", target.resource, target.object));
    cluster.server.actor = "user";
    let now = cluster.now;
    cluster.server.delete_by_user(target, way, now);
    watcher.deleted(&cluster.server, target, way);
}

/// What is paused goes on.
fn end(cluster: &mut Cluster) {
    for deployment in cluster.server.typed::<Deployment>() {
        let meta = json!({"name": deployment.metadata.name, "namespace": deployment.metadata.namespace});
        cluster.apply(&Resource::of::<Deployment>(), &json!({"metadata": meta, "spec": {"paused": false}}));
    }
}

fn converged(cluster: &Cluster) -> Result<(), String> {
    let (deployments, sets) = (cluster.server.typed::<Deployment>(), cluster.server.typed::<ReplicaSet>());
    let all = cluster.server.typed::<Pod>();
    deployments.iter().try_for_each(|d| rolled_out(d, &sets))?;
    for set in &sets {
        let have = all.iter().filter(|p| pods::is_active(p) && owners::is_controlled_by(&p.metadata, &set.metadata));
        let (have, want) = (have.count(), set.spec.replicas.unwrap_or_default());
        if i32::try_from(have) != Ok(want) {
            return Err(format!("{} has {have} pods of {want}", name_of(&set.metadata)));
        }
    }
    super::garbage::converged(cluster)
}

fn rolled_out(deployment: &Deployment, sets: &[ReplicaSet]) -> Result<(), String> {
    let name = name_of(&deployment.metadata);
    let own = sets.iter().filter(|s| owners::is_controlled_by(&s.metadata, &deployment.metadata));
    let of_image = |s: &&&ReplicaSet| image(s.spec.template.as_ref()) == image(Some(&deployment.spec.template));
    let (new, old): (Vec<&ReplicaSet>, Vec<&ReplicaSet>) = own.partition(|s| of_image(&s));
    let [new] = new.as_slice() else { return Err(format!("{name} has {} new ReplicaSets", new.len())) };
    if new.spec.replicas != deployment.spec.replicas || old.iter().any(|s| s.spec.replicas != Some(0)) {
        return Err(format!("{name} is not rolled out"));
    }
    let status = deployment.status.clone().unwrap_or_default();
    if status.available_replicas.unwrap_or_default() != deployment.spec.replicas.unwrap_or_default() {
        return Err(format!("{name} is not available: {status:?}"));
    }
    if status.observed_generation != deployment.metadata.generation {
        return Err(format!("{name} is at generation {:?}: {status:?}", deployment.metadata.generation));
    }
    let revision = |meta| super::writes::revision(meta).unwrap_or_default();
    let (own, latest) = (revision(&deployment.metadata), revision(&new.metadata));
    if own != latest || old.iter().any(|s| revision(&s.metadata) >= latest) {
        return Err(format!("{name} says revision {own}, its new ReplicaSet {latest}, and the old ones are not below"));
    }
    if old.len() > 2 {
        return Err(format!("{name} keeps {} old ReplicaSets of 2", old.len()));
    }
    Ok(())
}

fn image(template: Option<&PodTemplateSpec>) -> Option<&str> {
    template?.spec.as_ref()?.containers.first()?.image.as_deref()
}
