//! Endpoints: the older, flat form of what stands behind a Service, thin: one subset for each set of ports
//! (`pkg/controller/endpoint`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service,
};
use reconcile::{Change, Controller, Decider, Effect, Key, Outcome, Timestamp, Watch, World, merge, pods};
use serde_json::json;

use crate::endpointslice::{belongs, port_of, selects, services_of_pod};

/// The most addresses; more are left out and an annotation says so.
const MOST: usize = 1000;
const OVER: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED: &str = "endpoints.kubernetes.io/managed-by";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// The Endpoints controller.
pub struct EndpointsOfServices;

impl Controller for EndpointsOfServices {
    fn name(&self) -> &'static str {
        "endpoints-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of::<Service>(), Watch::of::<Pod>(), Watch::of::<Endpoints>()]
    }

    fn touches(&self, change: &Change, world: &World) -> Vec<Key> {
        let own = change.key_of::<Service>();
        let same_name = change.key_of::<Endpoints>().map(|k| Key::of::<Service>(k.object));
        own.into_iter().chain(same_name).chain(services_of_pod(change, world)).collect()
    }
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
        let chosen = world.in_namespace::<Pod>(&key.object.namespace).filter(|p| selects(service, p) && belongs(p));
        let (subsets, over) = subsets(service, chosen.filter(|p| !pods::is_deleting(p)));
        let mut labels = service.metadata.labels.clone().unwrap_or_default();
        labels.insert(MANAGED.into(), "endpoint-controller".into());
        if matches!(spec.cluster_ip.as_deref().unwrap_or_default(), "" | "None") {
            labels.insert(HEADLESS.into(), String::new());
        }
        let over = over.then_some("truncated");
        let meta = json!({"labels": labels, "annotations": {OVER: over}});
        let shall = json!({"metadata": meta, "subsets": subsets});
        write(existing, key, &shall)
    }
}

/// What this controller made for a Service goes with it.
fn without_service(existing: Option<&Endpoints>) -> Outcome<Effect> {
    let mut outcome = Outcome::nothing("Gone", "the Service does not exist");
    let ours = |e: &&Endpoints| e.metadata.labels.as_ref().is_some_and(|l| l.contains_key(MANAGED));
    outcome.effects.extend(existing.filter(ours).map(Effect::delete));
    outcome
}

fn write(existing: Option<&Endpoints>, key: &Key, shall: &serde_json::Value) -> Outcome<Effect> {
    let Some(existing) = existing else {
        let mut object = json!({"apiVersion": "v1", "kind": "Endpoints"});
        object["metadata"] = shall["metadata"].clone();
        object["metadata"]["name"] = json!(key.object.name);
        object["metadata"]["annotations"] = json!({});
        object["subsets"] = shall["subsets"].clone();
        let mut outcome = Outcome::nothing("Missing", "the Endpoints are missing");
        outcome.effect(Effect::create::<Endpoints>(&key.object.namespace, object));
        return outcome;
    };
    let over = existing.metadata.annotations.as_ref().and_then(|a| a.get(OVER));
    let was = json!({
        "metadata": {"labels": existing.metadata.labels, "annotations": {OVER: over}},
        "subsets": existing.subsets.clone().unwrap_or_default(),
    });
    let Some(mut patch) = merge::diff(&was, shall) else {
        return Outcome::nothing("AsDesired", "the Endpoints are as they should be");
    };
    patch["metadata"]["resourceVersion"] = json!(existing.metadata.resource_version);
    let mut outcome = Outcome::nothing("Differs", "the pods behind the Service changed");
    outcome.effect(Effect::patch(existing, patch));
    outcome
}

fn subsets<'a>(service: &Service, chosen: impl Iterator<Item = &'a Pod>) -> (Vec<EndpointSubset>, bool) {
    let spec = service.spec.clone().unwrap_or_default();
    let mut groups: BTreeMap<String, EndpointSubset> = BTreeMap::new();
    let mut count = 0;
    for pod in chosen {
        count += 1;
        if count > MOST {
            return (groups.into_values().collect(), true);
        }
        let ports = ports(service, pod);
        let key = format!("{ports:?}");
        let subset = groups.entry(key).or_insert_with(|| EndpointSubset { ports: Some(ports), ..Default::default() });
        let ready = pods::is_ready(pod) || spec.publish_not_ready_addresses == Some(true);
        let list = if ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        list.get_or_insert_default().push(address(service, pod));
    }
    for subset in groups.values_mut() {
        let sort = |l: &mut Option<Vec<EndpointAddress>>| l.iter_mut().for_each(|l| l.sort_by(|a, b| a.ip.cmp(&b.ip)));
        sort(&mut subset.addresses);
        sort(&mut subset.not_ready_addresses);
        subset.ports = subset.ports.take().filter(|p| !p.is_empty());
    }
    (groups.into_values().collect(), false)
}

fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service.spec.as_ref().and_then(|s| s.ports.as_ref()).into_iter().flatten();
    let found = ports.filter_map(|port| Some((port, port_of(pod, port)?)));
    let port = |(port, number): (&k8s_openapi::api::core::v1::ServicePort, i32)| EndpointPort {
        name: port.name.clone().filter(|n| !n.is_empty()),
        port: number,
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
        app_protocol: port.app_protocol.clone(),
    };
    found.map(port).collect()
}

fn address(service: &Service, pod: &Pod) -> EndpointAddress {
    let spec = pod.spec.as_ref();
    let below = spec.is_some_and(|s| s.subdomain == service.metadata.name);
    EndpointAddress {
        ip: pod.status.as_ref().and_then(|s| s.pod_ip.clone()).unwrap_or_default(),
        hostname: spec.and_then(|s| s.hostname.clone()).filter(|h| below && !h.is_empty()),
        node_name: pods::node(pod).map(str::to_owned),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
    }
}
