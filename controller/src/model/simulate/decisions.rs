//! What must be true of every decision, as far as the controller could know, and of what it creates, as things really
//! are.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use reconcile::{Effect, Kind, Resource, Target, owners, pods, selector};
use serde_json::Value;

use super::super::cluster::Decision;

/// Looks at one decision.
pub(super) fn check(decision: &Decision<'_>) -> Result<(), String> {
    let faults = match decision.controller {
        "deployment-controller" => deployment(decision),
        "replicaset-controller" => replica_set(decision),
        "daemonset-controller" => daemon_set(decision),
        "job-controller" => job(decision),
        "garbage-collector-controller" => foreground(decision),
        _ => Ok(()),
    };
    let about = |wrong| format!("{} {}: {wrong}", decision.controller, decision.key);
    faults.and_then(|()| generation(decision)).map_err(about)
}

/// A status says which generation it is about: the one that was decided on.
fn generation(decision: &Decision<'_>) -> Result<(), String> {
    let Some(object) = decision.world.object(&decision.key.resource, &decision.key.object) else { return Ok(()) };
    let is = object.metadata().generation;
    for effect in &decision.outcome.effects {
        let Effect::Patch { target, subresource: "status", body, .. } = effect else { continue };
        let says = body.pointer("/status/observedGeneration").and_then(Value::as_i64);
        if target.object == decision.key.object && says.is_some() && says != is {
            return Err(format!("generation {says:?} is told of generation {is:?}"));
        }
    }
    Ok(())
}

/// A number of pods or a percentage of them.
fn scaled(value: Option<&IntOrString>, total: i32, up: bool) -> i32 {
    match value {
        None => 0,
        Some(IntOrString::Int(n)) => *n,
        Some(IntOrString::String(text)) => {
            let hundredths = text.trim_end_matches('%').parse::<i32>().unwrap_or_default() * total;
            if up { (hundredths + 99) / 100 } else { hundredths / 100 }
        }
    }
}

/// Wanted pods, how many more there may be, and how many fewer may be available.
fn bounds(deployment: &Deployment) -> (i32, i32, i32) {
    let wanted = deployment.spec.replicas.unwrap_or(1);
    let strategy = deployment.spec.strategy.clone().unwrap_or_default();
    if strategy.type_.as_deref() == Some("Recreate") {
        return (wanted, 0, wanted);
    }
    let rolling = strategy.rolling_update.unwrap_or_default();
    let surge = scaled(rolling.max_surge.as_ref(), wanted, true);
    let unavailable = scaled(rolling.max_unavailable.as_ref(), wanted, false);
    (wanted, surge, if surge == 0 && unavailable == 0 { 1 } else { unavailable })
}

/// A ReplicaSet before and after a decision: how many pods it shall have, and how many of them are available.
struct Size {
    before: i32,
    after: i32,
    available: i32,
    desired: Option<i32>,
}

/// Whether a decision takes a ReplicaSet that nobody controlled.
fn adopted(decision: &Decision<'_>, deployment: &Deployment, rs: &ReplicaSet) -> bool {
    let names = |e: &Value| e["uid"].as_str() == deployment.metadata.uid.as_deref();
    decision.outcome.effects.iter().any(|effect| {
        let Effect::Patch { target, body, .. } = effect else { return false };
        let owners = body.pointer("/metadata/ownerReferences").and_then(Value::as_array);
        *target == Target::of(rs) && owners.into_iter().flatten().any(names)
    })
}

fn sizes(decision: &Decision<'_>, deployment: &Deployment) -> BTreeMap<String, Size> {
    let own = |rs: &&ReplicaSet| {
        owners::is_controlled_by(&rs.metadata, &deployment.metadata) || adopted(decision, deployment, rs)
    };
    let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
    let size = |rs: &ReplicaSet| {
        let before = rs.spec.replicas.unwrap_or(1);
        let annotation =
            rs.metadata.annotations.as_ref().and_then(|a| a.get("deployment.kubernetes.io/desired-replicas"));
        let available = rs.status.as_ref().and_then(|s| s.available_replicas).unwrap_or_default();
        Size { before, after: before, available, desired: annotation.and_then(|a| a.parse().ok()) }
    };
    let sets = decision.world.in_namespace::<ReplicaSet>(namespace).filter(own);
    let mut sizes: BTreeMap<String, Size> =
        sets.map(|rs| (rs.metadata.name.clone().unwrap_or_default(), size(rs))).collect();
    let number = |v: &Value| v.pointer("/spec/replicas").and_then(Value::as_i64).and_then(|n| i32::try_from(n).ok());
    for effect in &decision.outcome.effects {
        match effect {
            Effect::Create { object, .. } => {
                let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                let after = number(object).unwrap_or(1);
                sizes.insert(name, Size { before: 0, after, available: 0, desired: None });
            }
            Effect::Patch { target, body, .. } => {
                let changed = sizes.get_mut(&target.object.name).zip(number(body));
                if let Some((size, after)) = changed.filter(|_| target.resource == Resource::of::<ReplicaSet>()) {
                    size.after = after;
                }
            }
            _ => {}
        }
    }
    sizes
}

/// Never more pods than wanted and surge allow, nor fewer available than unavailability allows, but for those that
/// were so before. Where the size or, in a pause, the surge was changed, only the first holds: what is too many is taken
/// from all ReplicaSets in proportion (`scale` in `pkg/controller/deployment/sync.go`).
fn deployment(decision: &Decision<'_>) -> Result<(), String> {
    let Some(deployment) = decision.world.get::<Deployment>(&decision.key.object) else { return Ok(()) };
    let sizes = sizes(decision, deployment);
    let (wanted, surge, unavailable) = bounds(deployment);
    let sum = |of: fn(&Size) -> i32| sizes.values().map(of).sum::<i32>();
    let (before, after) = (sum(|s| s.before), sum(|s| s.after));
    if after > before && after > wanted + surge {
        return Err(format!("{after} pods of {wanted} and {surge} more"));
    }
    let (had, keeps) = (sum(|s| s.available.min(s.before)), sum(|s| s.available.min(s.after)));
    let resized = sizes.values().any(|s| s.before > 0 && s.desired != Some(wanted));
    let narrowed = deployment.spec.paused == Some(true) && before > wanted + surge;
    if keeps < had && keeps < wanted - unavailable && !resized && !narrowed {
        return Err(format!("{keeps} of {had} stay available, of {wanted} but {unavailable}"));
    }
    recreates(decision, deployment, &sizes)
}

/// A strategy of Recreate grows the new ReplicaSet only when no old pod is left.
fn recreates(decision: &Decision<'_>, deployment: &Deployment, sizes: &BTreeMap<String, Size>) -> Result<(), String> {
    let strategy = deployment.spec.strategy.as_ref().and_then(|s| s.type_.as_deref());
    let grown = sizes.iter().find(|(_, s)| s.after > s.before && s.before == 0);
    let Some((grown, _)) = grown.filter(|_| strategy == Some("Recreate") && deployment.spec.paused != Some(true))
    else {
        return Ok(());
    };
    let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
    let others = decision.world.in_namespace::<ReplicaSet>(namespace).filter(|rs| {
        owners::is_controlled_by(&rs.metadata, &deployment.metadata) && rs.metadata.name.as_ref() != Some(grown)
    });
    for other in others {
        let running = |p: &&Pod| !pods::is_terminal(p) && owners::is_controlled_by(&p.metadata, &other.metadata);
        if let Some(pod) = decision.world.in_namespace::<Pod>(namespace).find(running) {
            return Err(format!("{grown} begins while {:?} is there", pod.metadata.name));
        }
    }
    Ok(())
}

fn created(decision: &Decision<'_>) -> usize {
    let pods = Resource::of::<Pod>();
    let is_pod = |e: &&Effect| matches!(e, Effect::Create { resource, .. } if *resource == pods);
    decision.outcome.effects.iter().filter(is_pod).count()
}

/// The pods that an object really controls.
fn real<'a>(all: &'a [Pod], owner: &'a ObjectMeta) -> impl Iterator<Item = &'a Pod> {
    all.iter().filter(|p| owners::is_controlled_by(&p.metadata, owner))
}

/// Whether a controller could not know all that it created for an owner.
fn doubtful(decision: &Decision<'_>, owner: &ObjectMeta) -> bool {
    owner.uid.as_ref().is_some_and(|uid| decision.server.doubtful.contains(uid))
}

/// Never more pods than wanted, as things really are: what was created before counts, seen or not.
fn no_more_than<T: Kind>(decision: &Decision<'_>, owner: &T, most: usize) -> Result<(), String> {
    let (all, meta) = (decision.server.typed::<Pod>(), owner.metadata());
    let (new, there) = (created(decision), real(&all, meta).filter(|p| pods::is_active(p)).count());
    match new > 0 && there + new > most && !doubtful(decision, meta) {
        true => Err(format!("{new} pods more than the {there} there, of {most}")),
        false => Ok(()),
    }
}

fn replica_set(decision: &Decision<'_>) -> Result<(), String> {
    let Some(set) = decision.world.get::<ReplicaSet>(&decision.key.object) else { return Ok(()) };
    let want = usize::try_from(set.spec.replicas.unwrap_or(1)).unwrap_or_default();
    let takes = |p: &Pod| {
        owners::controller(&p.metadata).is_none() && selector::matches(&set.spec.selector, p.metadata.labels.as_ref())
    };
    let own = |p: &&Pod| owners::is_controlled_by(&p.metadata, &set.metadata) || takes(p);
    let have = decision.world.list::<Pod>().filter(own).filter(|p| pods::is_active(p)).count();
    let deleted = decision.outcome.effects.iter().filter(|e| matches!(e, Effect::Delete { .. })).count();
    if deleted > 0 && have < want + deleted {
        return Err(format!("{deleted} of {have} pods go, {want} are wanted"));
    }
    no_more_than(decision, set, want)
}

/// Never a second pod on a node, but for the one that takes over.
fn daemon_set(decision: &Decision<'_>) -> Result<(), String> {
    let Some(set) = decision.world.get::<DaemonSet>(&decision.key.object) else { return Ok(()) };
    let rolling = set.spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
    let surge = scaled(rolling.and_then(|r| r.max_surge.as_ref()), 1, true);
    if surge > 0 || doubtful(decision, &set.metadata) {
        return Ok(());
    }
    let all: Vec<Pod> = decision.server.typed();
    let on = |pod: &Value| pod.pointer(NODE).and_then(Value::as_str).unwrap_or_default().to_owned();
    for effect in &decision.outcome.effects {
        let Effect::Create { object, .. } = effect else { continue };
        let node = on(object);
        let there = |p: &&Pod| {
            !pods::is_terminal(p) && serde_json::to_value(p).is_ok_and(|p| on(&p) == node && !node.is_empty())
        };
        if let Some(pod) = real(&all, &set.metadata).find(there) {
            return Err(format!("a pod for {node}, where {:?} is", pod.metadata.name));
        }
    }
    Ok(())
}

/// Where a DaemonSet's pod says for which node it is.
const NODE: &str = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchFields/0/values/0";

fn job(decision: &Decision<'_>) -> Result<(), String> {
    let Some(job) = decision.world.get::<Job>(&decision.key.object) else { return Ok(()) };
    let most = job.spec.as_ref().and_then(|s| s.parallelism).unwrap_or(1);
    no_more_than(decision, job, usize::try_from(most).unwrap_or_default())
}

/// An owner that waits for its dependents does not go while one that is known holds it.
fn foreground(decision: &Decision<'_>) -> Result<(), String> {
    let Some(object) = decision.world.object(&decision.key.resource, &decision.key.object) else { return Ok(()) };
    let meta = object.metadata();
    let waits = meta.finalizers.iter().flatten().any(|f| f == "foregroundDeletion");
    let kept = |body: &Value| {
        let list = body.pointer("/metadata/finalizers").and_then(Value::as_array);
        list.is_none_or(|l| l.iter().any(|f| f == "foregroundDeletion"))
    };
    let freed = |e: &Effect| {
        matches!(e, Effect::Patch { target, body, .. }
            if target.object == decision.key.object && target.resource == decision.key.resource && !kept(body))
    };
    let uid = meta.uid.as_deref().unwrap_or_default();
    let holds = |m: &ObjectMeta| {
        let reaches = meta.namespace.is_none() || m.namespace == meta.namespace;
        reaches && m.owner_references.iter().flatten().any(|o| o.uid == uid && o.block_owner_deletion == Some(true))
    };
    let held = decision.world.dependents(uid).iter().any(|(_, o)| holds(o.metadata()));
    match waits && held && decision.outcome.effects.iter().any(freed) {
        true => Err("it goes before its dependents".into()),
        false => Ok(()),
    }
}
