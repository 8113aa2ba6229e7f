//! Endpoints: the older, flat form of what stands behind a Service (`pkg/controller/endpoint`).

mod subsets;

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service,
};
use reconcile::effect::reference;
use reconcile::{
    Change, Controller, Decider, Effect, Key, Notice, Outcome, Timestamp, Told, Watch, World, merge, pods,
};
use serde_json::{Value, json};

pub(crate) use subsets::repack;

use crate::endpointslice::{belongs, port_of, selects, services_of_pod};

const OVER: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const HEADLESS: &str = "service.kubernetes.io/headless";
/// What an old kind of leader election writes: such Endpoints have no Service and stand behind none.
pub(crate) const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

/// The Endpoints controller.
pub struct EndpointsOfServices;

impl Controller for EndpointsOfServices {
    fn name(&self) -> &'static str {
        "endpoints-controller"
    }

    fn component(&self) -> &'static str {
        MANAGER
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of::<Service>(), Watch::of::<Pod>(), Watch::of::<Endpoints>()]
    }

    fn touches(&self, change: &Change, world: &World) -> Vec<Key> {
        let own = change.key_of::<Service>();
        let same_name = change.key_of::<Endpoints>().map(|k| Key::of::<Service>(k.object));
        // Endpoints that somebody made before, or without, their Service are left alone; those of a Service that goes
        // go with it, whoever made them.
        let due = |k: &Key| {
            let gone = change.after.is_none();
            gone || change.both::<Endpoints>().any(is_ours) || world.get::<Service>(&k.object).is_some()
        };
        own.into_iter().chain(same_name.filter(due)).chain(services_of_pod(change, world)).collect()
    }
}

fn is_ours(endpoints: &Endpoints) -> bool {
    endpoints.metadata.labels.as_ref().is_some_and(|l| l.contains_key(MANAGED))
}

impl Decider for EndpointsOfServices {
    type World = World;
    type Key = Key;
    type Effect = Effect;

    fn decide(&self, world: &World, key: &Key, _: Timestamp) -> Outcome<Effect> {
        let existing = world.get::<Endpoints>(&key.object);
        let Some(service) = world.get::<Service>(&key.object) else { return without_service(existing) };
        let spec = service.spec.clone().unwrap_or_default();
        if spec.selector.as_ref().is_none_or(BTreeMap::is_empty) || spec.type_.as_deref() == Some("ExternalName") {
            return Outcome::nothing("NoSelector", "somebody else says what stands behind the Service");
        }
        let publish = spec.publish_not_ready_addresses == Some(true);
        let chosen = world.in_namespace::<Pod>(&key.object.namespace).filter(|p| selects(service, p) && belongs(p));
        let staying = chosen.filter(|p| publish || !pods::is_deleting(p));
        let mut subsets = repack(staying.flat_map(|pod| of_pod(service, pod, publish)));
        let over = subsets::truncate(&mut subsets).then_some("truncated");
        let meta = json!({"labels": labels(service), "annotations": {OVER: over}});
        write(existing, key, &meta, &subsets)
    }
}

/// What stood behind a Service goes with it.
fn without_service(existing: Option<&Endpoints>) -> Outcome<Effect> {
    let mut outcome = Outcome::nothing("Gone", "the Service does not exist");
    let elects = |e: &&Endpoints| e.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(LEADER));
    outcome.effects.extend(existing.filter(|e| !elects(e)).map(Effect::delete));
    outcome
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED.into(), MANAGER.into());
    let address = service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref());
    match address.unwrap_or_default() {
        "" | "None" => labels.insert(HEADLESS.into(), String::new()),
        _ => labels.remove(HEADLESS),
    };
    labels
}

fn write(existing: Option<&Endpoints>, key: &Key, meta: &Value, subsets: &[EndpointSubset]) -> Outcome<Effect> {
    let Some(existing) = existing else {
        let mut object = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": meta, "subsets": subsets});
        object["metadata"]["name"] = json!(key.object.name);
        let annotations = object["metadata"]["annotations"].as_object_mut();
        annotations.into_iter().for_each(|a| a.retain(|_, v| !v.is_null()));
        let mut outcome = Outcome::nothing("Missing", "the Endpoints are missing");
        let told = failed(ObjectReference::default(), key, "FailedToCreateEndpoint", "create endpoint for service");
        outcome.effect(Effect::create::<Endpoints>(&key.object.namespace, object).telling(told));
        return outcome;
    };
    let over = existing.metadata.annotations.as_ref().and_then(|a| a.get(OVER));
    let written = existing.subsets.clone().unwrap_or_default();
    // Whoever wrote them may have had another order.
    let written = if repack(written.iter().cloned()) == subsets { subsets.to_vec() } else { written };
    let was =
        json!({"metadata": {"labels": existing.metadata.labels, "annotations": {OVER: over}}, "subsets": written});
    let Some(mut patch) = merge::diff(&was, &json!({"metadata": meta, "subsets": subsets})) else {
        return Outcome::nothing("AsDesired", "the Endpoints are as they should be");
    };
    patch["metadata"]["resourceVersion"] = json!(existing.metadata.resource_version);
    let mut outcome = Outcome::nothing("Differs", "what stands behind the Service changed");
    let told = failed(reference(existing), key, "FailedToUpdateEndpoint", "update endpoint");
    outcome.effect(Effect::patch(existing, patch).telling(told));
    outcome
}

fn failed(known: ObjectReference, key: &Key, reason: &str, what: &str) -> Told {
    let about = ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Endpoints".into()),
        namespace: Some(key.object.namespace.clone()),
        name: Some(key.object.name.clone()),
        ..known
    };
    let message = format!("Failed to {what} {}/{}: {{error}}", key.object.namespace, key.object.name);
    Told { done: None, failed: Some(Notice { about, warning: true, reason: reason.into(), message }) }
}

/// One pod at each of the Service's ports that it has; without ports only behind a headless Service.
fn of_pod(service: &Service, pod: &Pod, publish: bool) -> Vec<EndpointSubset> {
    let Some(address) = address(service, pod) else { return Vec::new() };
    let spec = service.spec.as_ref();
    let subset = |port: Option<EndpointPort>| {
        let (ready, list) = (publish || pods::is_ready(pod), Some(vec![address.clone()]));
        let (addresses, not_ready_addresses) = if ready { (list, None) } else { (None, list) };
        EndpointSubset { addresses, not_ready_addresses, ports: port.map(|p| vec![p]) }
    };
    let ports = spec.and_then(|s| s.ports.as_deref()).unwrap_or_default();
    if ports.is_empty() {
        let headless = spec.is_some_and(|s| s.cluster_ip.as_deref() == Some("None"));
        return if headless { vec![subset(None)] } else { Vec::new() };
    }
    let found = ports.iter().filter_map(|port| Some((port, port_of(pod, port)?)));
    let port = |(port, number): (&k8s_openapi::api::core::v1::ServicePort, i32)| EndpointPort {
        name: port.name.clone().filter(|n| !n.is_empty()),
        port: number,
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
        app_protocol: port.app_protocol.clone(),
    };
    found.map(|found| subset(Some(port(found)))).collect()
}

/// Whether a Service's first family is IPv6; a Service that does not say so follows its own address, or the pod's.
fn wants_v6(service: &Service, pod: &Pod) -> bool {
    let spec = service.spec.as_ref();
    let family = spec.and_then(|s| s.ip_families.as_ref()?.first());
    let own = spec.and_then(|s| s.cluster_ip.as_deref()).filter(|ip| !matches!(*ip, "" | "None"));
    let theirs = pod.status.as_ref().and_then(|s| s.pod_ip.as_deref());
    match family {
        Some(family) => family == "IPv6",
        None => own.or(theirs).is_some_and(|ip| ip.contains(':')),
    }
}

fn address(service: &Service, pod: &Pod) -> Option<EndpointAddress> {
    let v6 = wants_v6(service, pod);
    let ips = pod.status.as_ref()?.pod_ips.iter().flatten();
    let ip = ips.filter_map(|ip| ip.ip.parse::<IpAddr>().ok()).find(|ip| ip.is_ipv6() == v6)?;
    let spec = pod.spec.as_ref();
    let below = spec.is_some_and(|s| s.subdomain == service.metadata.name);
    Some(EndpointAddress {
        ip: ip.to_string(),
        hostname: spec.and_then(|s| s.hostname.clone()).filter(|h| below && !h.is_empty()),
        node_name: pods::node(pod).map(str::to_owned),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
    })
}

#[cfg(test)]
mod tests;
