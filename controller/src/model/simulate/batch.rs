//! Jobs and DaemonSets, with nodes that come and go.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, Pod};
use reconcile::resource::name_of;
use reconcile::{Controller, ObjectName, Propagation, Resource, Target, conditions, owners, pods};
use serde_json::json;

use super::super::cluster::Cluster;
use super::Story;
use super::rollout::delete;
use super::writes::Watcher;
use crate::daemonset::DaemonSets;
use crate::gc::GarbageCollector;
use crate::job::Jobs;

pub(super) const STORY: Story = Story { name: "batch", controllers, steps: 1_500, begin, user, end, converged };

fn controllers() -> Vec<Box<dyn Controller>> {
    vec![Box::new(Jobs), Box::new(DaemonSets), Box::new(GarbageCollector)]
}

fn begin(cluster: &mut Cluster) {
    ["n1", "n2", "n3"].iter().for_each(|name| node(cluster, name));
}

fn node(cluster: &mut Cluster, name: &str) {
    let status = json!({"conditions": [{"type": "Ready", "status": "True"}]});
    let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": status});
    cluster.apply(&Resource::of::<Node>(), &object);
}

fn user(cluster: &mut Cluster, watcher: &mut Watcher) {
    match cluster.random(10) {
        0..3 => daemon_set(cluster),
        3..6 => job(cluster),
        6 => {
            let all: Vec<Pod> = cluster.server.typed();
            if let Some(pod) = cluster.pick(all) {
                delete(cluster, watcher, &Target::of(&pod));
            }
        }
        7 => {
            let kinds = [(Resource::of::<Job>(), "j"), (Resource::of::<DaemonSet>(), "ds")];
            if let Some((resource, name)) = cluster.pick(kinds) {
                let object = ObjectName { namespace: "ns".into(), name: name.into() };
                delete(cluster, watcher, &Target { resource, object });
            }
        }
        8 => node(cluster, "n4"),
        _ => {
            let object = ObjectName { namespace: String::new(), name: "n4".into() };
            cluster.trace.push("user: n4 goes".into());
            cluster.server.actor = "user";
            let now = cluster.now;
            let target = Target { resource: Resource::of::<Node>(), object };
            cluster.server.delete_by_user(&target, Propagation::Background, now);
            // What was on the node goes with it, as the pod collector would have it.
            let there = |p: &Pod| pods::node(p) == Some("n4");
            for pod in cluster.server.typed::<Pod>().into_iter().filter(there) {
                cluster.server.delete_by_user(&Target::of(&pod), Propagation::Background, now);
                cluster.kubelet_of(&pod);
                cluster.server.ended(&name_of(&pod.metadata));
            }
        }
    }
}

fn daemon_set(cluster: &mut Cluster) {
    let (image, surge) = (cluster.random(3), cluster.random(2));
    cluster.trace.push(format!("user: apply DaemonSet image {image} surge {surge}"));
    let labels = json!({"app": "ds"});
    let rolling = json!({"maxSurge": surge, "maxUnavailable": 1 - surge});
    let object = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "ds", "namespace": "ns"},
        "spec": {
            "selector": {"matchLabels": labels}, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": image.to_string()}]}},
        },
    });
    cluster.apply(&Resource::of::<DaemonSet>(), &object);
}

fn job(cluster: &mut Cluster) {
    let (completions, parallelism) = (cluster.random(4) + 1, cluster.random(3) + 1);
    let (indexed, suspended) = (cluster.random(2) == 0, cluster.random(4) == 0);
    let name = ObjectName { namespace: "ns".into(), name: "j".into() };
    let there = cluster.server.get(&Resource::of::<Job>(), &name).is_some();
    cluster.trace.push(format!("user: apply Job {completions}/{parallelism} {indexed} suspended {suspended}"));
    // Of a Job that is there only this may change.
    let mut spec = json!({"parallelism": parallelism, "suspend": suspended});
    if !there {
        let labels = json!({"job": "j"});
        spec["completions"] = json!(completions);
        spec["completionMode"] = json!(if indexed { "Indexed" } else { "NonIndexed" });
        spec["selector"] = json!({ "matchLabels": labels });
        spec["template"] = json!({
            "metadata": {"labels": labels, "annotations": {"end": "Succeeded"}},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]},
        });
    }
    let meta = json!({"name": "j", "namespace": "ns"});
    let object = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": spec});
    cluster.apply(&Resource::of::<Job>(), &object);
}

fn end(cluster: &mut Cluster) {
    for job in cluster.server.typed::<Job>() {
        let meta = json!({"name": job.metadata.name, "namespace": job.metadata.namespace});
        cluster.apply(&Resource::of::<Job>(), &json!({"metadata": meta, "spec": {"suspend": false}}));
    }
}

fn converged(cluster: &Cluster) -> Result<(), String> {
    let (all, nodes) = (cluster.server.typed::<Pod>(), cluster.server.typed::<Node>());
    for set in cluster.server.typed::<DaemonSet>() {
        let own = |p: &&Pod| pods::is_active(p) && owners::is_controlled_by(&p.metadata, &set.metadata);
        let image = |spec: Option<&k8s_openapi::api::core::v1::PodSpec>| {
            spec.and_then(|s| s.containers.first()).and_then(|c| c.image.clone())
        };
        let wanted = image(set.spec.template.spec.as_ref());
        for node in nodes.iter().filter_map(|n| n.metadata.name.as_deref()) {
            let there: Vec<&Pod> = all.iter().filter(own).filter(|p| pods::node(p) == Some(node)).collect();
            if there.len() != 1 || there.iter().any(|p| image(p.spec.as_ref()) != wanted) {
                return Err(format!("{node} has {} pods of the DaemonSet, or of an old template", there.len()));
            }
        }
        let status = set.status.clone().unwrap_or_default();
        if status.observed_generation != set.metadata.generation {
            return Err(format!("the DaemonSet is at generation {:?}: {status:?}", set.metadata.generation));
        }
    }
    for job in cluster.server.typed::<Job>() {
        let status = job.status.clone().unwrap_or_default();
        if !conditions::is_true(status.conditions.as_ref(), "Complete") {
            return Err(format!("{} is not complete: {status:?}", name_of(&job.metadata)));
        }
        if status.succeeded.unwrap_or_default() < job.spec.as_ref().and_then(|s| s.completions).unwrap_or(1) {
            return Err(format!("{} is complete too early: {status:?}", name_of(&job.metadata)));
        }
    }
    super::garbage::converged(cluster)
}
