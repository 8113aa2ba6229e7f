//! A seeded run of Deployments, ReplicaSets and the garbage collector: first a storm of refused requests, lost
//! answers, late and doubled events, lists anew, crashes, impatient users and dying pods; then a calm in which all
//! must come to what was asked for.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use reconcile::resource::name_of;
use reconcile::{Controller, ObjectName, Propagation, Resource, Target, owners, pods};
use serde_json::json;

use super::cluster::{Chaos, Cluster, Step};
use crate::deployment::Deployments;
use crate::gc::GarbageCollector;
use crate::replicaset::ReplicaSets;

/// Steps of the storm, and the most of the calm between two waits.
const STORM: usize = 600;
const CALM: usize = 5_000;
const NAMES: [&str; 2] = ["one", "two"];

/// Runs one seed. The error says what was wrong and how it came to that.
pub fn run(seed: u64) -> Result<(), String> {
    let controllers: Vec<Box<dyn Controller>> =
        vec![Box::new(Deployments), Box::new(ReplicaSets), Box::new(GarbageCollector)];
    let mut cluster = Cluster::new(controllers, seed);
    cluster.chaos = Chaos { refused: 30, answer_lost: 30, doubled: 100, relist: 20, crash: 3 };
    let checked = storm(&mut cluster).and_then(|()| calm(&mut cluster));
    checked.map_err(|wrong| {
        let tail = cluster.trace.len().saturating_sub(60);
        let objects: Vec<String> = cluster.server.all().map(|(_, o)| o.value().to_string()).collect();
        format!("seed {seed}: {wrong}\n{}\n{}", cluster.trace[tail..].join("\n"), objects.join("\n"))
    })
}

fn storm(cluster: &mut Cluster) -> Result<(), String> {
    for _ in 0..STORM {
        let seen = cluster.server.log.len();
        match cluster.random(100) {
            0..4 => user(cluster),
            4..12 => one_kubelet(cluster),
            12..14 => cluster.step(Step::Timer),
            _ => any_step(cluster),
        }
        if cluster.crashes() {
            cluster.restart();
        }
        no_set_goes_from_under_its_owner(cluster, seen)?;
    }
    Ok(())
}

fn any_step(cluster: &mut Cluster) {
    let steps = cluster.steps();
    let picked = cluster.random(steps.len().try_into().unwrap_or(1));
    if let Some(step) = usize::try_from(picked).ok().and_then(|i| steps.get(i)) {
        cluster.step(*step);
    }
}

fn pick<T>(cluster: &mut Cluster, list: Vec<T>) -> Option<T> {
    let picked = cluster.random(list.len().try_into().unwrap_or(1));
    list.into_iter().nth(usize::try_from(picked).unwrap_or_default())
}

fn one_kubelet(cluster: &mut Cluster) {
    let all = cluster.server.typed::<Pod>();
    if let Some(pod) = pick(cluster, all) {
        cluster.kubelet_of(&pod);
    }
}

/// Somebody applies a Deployment, deletes one, or kills a pod.
fn user(cluster: &mut Cluster) {
    let name = if cluster.random(2) == 0 { NAMES[0] } else { NAMES[1] };
    match cluster.random(10) {
        0..6 => apply(cluster, name),
        6..8 => delete(cluster, name),
        _ => {
            let all = cluster.server.typed::<Pod>();
            let now = cluster.now;
            if let Some(pod) = pick(cluster, all) {
                cluster.server.delete_by_user(&Target::of(&pod), Propagation::Background, now);
            }
        }
    }
}

fn apply(cluster: &mut Cluster, name: &str) {
    let (replicas, image) = (cluster.random(6), cluster.random(3));
    let labels = json!({ "app": name });
    let strategy = match cluster.random(3) {
        0 => json!({"type": "Recreate", "rollingUpdate": null}),
        1 => json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}),
        _ => json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}),
    };
    let object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "ns"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels}, "strategy": strategy,
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": image.to_string()}]}},
        },
    });
    cluster.apply(&Resource::of::<Deployment>(), &object);
}

fn delete(cluster: &mut Cluster, name: &str) {
    let propagation = match cluster.random(3) {
        0 => Propagation::Foreground,
        1 => Propagation::Orphan,
        _ => Propagation::Background,
    };
    let object = ObjectName { namespace: "ns".into(), name: name.into() };
    let now = cluster.now;
    cluster.server.delete_by_user(&Target { resource: Resource::of::<Deployment>(), object }, propagation, now);
}

/// A ReplicaSet that shall have pods is never deleted while the Deployment that controls it is there to stay.
fn no_set_goes_from_under_its_owner(cluster: &Cluster, seen: usize) -> Result<(), String> {
    let deployments = cluster.server.typed::<Deployment>();
    let sets = cluster.server.log.iter().skip(seen).filter(|e| e.resource == Resource::of::<ReplicaSet>());
    for said in sets.filter(|e| e.gone || e.object.deleting()) {
        let Ok(set) = said.object.typed::<ReplicaSet>() else { continue };
        let owner = deployments.iter().find(|d| owners::is_controlled_by(&set.metadata, &d.metadata));
        let stays = owner.is_some_and(|d| d.metadata.deletion_timestamp.is_none());
        if stays && set.spec.replicas != Some(0) {
            return Err(format!("{} was deleted under its owner", name_of(&set.metadata)));
        }
    }
    Ok(())
}

fn calm(cluster: &mut Cluster) -> Result<(), String> {
    cluster.chaos = Chaos::default();
    for _ in 0..200 {
        let before = cluster.server.revision();
        if !cluster.settle(CALM) {
            return Err("it does not settle".into());
        }
        cluster.kubelet();
        if !cluster.wait(20, CALM) {
            return Err("it does not settle while time passes".into());
        }
        if cluster.server.revision() == before {
            return converged(cluster);
        }
    }
    Err("it never comes to rest".into())
}

fn converged(cluster: &Cluster) -> Result<(), String> {
    let (deployments, sets) = (cluster.server.typed::<Deployment>(), cluster.server.typed::<ReplicaSet>());
    let all = cluster.server.typed::<Pod>();
    for deployment in &deployments {
        let name = name_of(&deployment.metadata);
        if deployment.metadata.deletion_timestamp.is_some() {
            return Err(format!("{name} is still being deleted"));
        }
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
    }
    for set in &sets {
        let have = all.iter().filter(|p| pods::is_active(p) && owners::is_controlled_by(&p.metadata, &set.metadata));
        let (have, want) = (have.count(), set.spec.replicas.unwrap_or_default());
        if i32::try_from(have) != Ok(want) {
            return Err(format!("{} has {have} pods of {want}", name_of(&set.metadata)));
        }
    }
    no_dangling_owner(cluster)
}

fn image(template: Option<&k8s_openapi::api::core::v1::PodTemplateSpec>) -> Option<&str> {
    template?.spec.as_ref()?.containers.first()?.image.as_deref()
}

/// Nothing is left whose controller is gone.
fn no_dangling_owner(cluster: &Cluster) -> Result<(), String> {
    let uids: Vec<&str> = cluster.server.all().map(|(_, o)| o.uid()).collect();
    for (resource, object) in cluster.server.all() {
        let owners = object.list_at("/metadata/ownerReferences");
        if let Some(owner) = owners.iter().find(|o| !uids.contains(&o["uid"].as_str().unwrap_or_default())) {
            return Err(format!("{resource} {} has an owner that is gone: {}", object.name(), owner["name"]));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn after_every_storm_all_comes_to_what_was_asked_for() {
        for seed in 0..20 {
            super::run(seed).unwrap_or_else(|wrong| panic!("{wrong}"));
        }
    }
}
