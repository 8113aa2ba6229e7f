//! EndpointSlice: which pods stand behind a Service (`k8s.io/endpointslice`, `pkg/controller/endpointslice`).

mod endpoint;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use reconcile::resource::name_of;
use reconcile::{
    Change, Controller, Decider, Effect, Key, ObjectName, Outcome, Timestamp, Watch, World, merge, owners, selector,
};
use serde_json::{Value, json};

pub(crate) use endpoint::{belongs, port_of};

/// The most endpoints in one slice.
const MOST: usize = 100;
pub(crate) const SERVICE_LABEL: &str = "kubernetes.io/service-name";
pub(crate) const MANAGED_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
const MANAGER: &str = "endpointslice-controller.k8s.io";

/// The EndpointSlice controller.
pub struct EndpointSlices;

impl Controller for EndpointSlices {
    fn name(&self) -> &'static str {
        "endpointslice-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of::<Service>(), Watch::of::<Pod>(), Watch::of::<Node>(), Watch::of::<EndpointSlice>()]
    }

    fn touches(&self, change: &Change, world: &World) -> Vec<Key> {
        let slice = change.both::<EndpointSlice>().filter_map(service_of);
        let mut keys: Vec<Key> = change.key_of::<Service>().into_iter().chain(slice).collect();
        keys.extend(services_of_pod(change, world));
        keys
    }
}

/// The Service of a slice that this controller made.
fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let labels = slice.metadata.labels.as_ref()?;
    (labels.get(MANAGED_LABEL).map(String::as_str) == Some(MANAGER)).then_some(())?;
    let namespace = slice.metadata.namespace.clone().unwrap_or_default();
    Some(Key::of::<Service>(ObjectName { namespace, name: labels.get(SERVICE_LABEL)?.clone() }))
}

/// The Services whose selector matches a pod as it was or is.
pub(crate) fn services_of_pod(change: &Change, world: &World) -> Vec<Key> {
    let mut keys = Vec::new();
    for pod in change.both::<Pod>() {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let chosen = world.in_namespace::<Service>(namespace).filter(|s| selects(s, pod));
        keys.extend(chosen.map(|s| Key::of::<Service>(name_of(&s.metadata))));
    }
    keys
}

/// Whether a Service's selector matches a pod.
pub(crate) fn selects(service: &Service, pod: &Pod) -> bool {
    let chosen = service.spec.as_ref().and_then(|s| s.selector.as_ref());
    chosen.is_some_and(|s| selector::contains(s, pod.metadata.labels.as_ref()))
}

impl Decider for EndpointSlices {
    type World = World;
    type Key = Key;
    type Effect = Effect;

    fn decide(&self, world: &World, key: &Key, _: Timestamp) -> Outcome<Effect> {
        let Some(service) = world.get::<Service>(&key.object) else {
            return Outcome::nothing("Gone", "the Service does not exist");
        };
        let spec = service.spec.clone().unwrap_or_default();
        if spec.selector.is_none_or(|s| s.is_empty()) || spec.type_.as_deref() == Some("ExternalName") {
            return Outcome::nothing("NoSelector", "somebody else says what stands behind the Service");
        }
        if service.metadata.deletion_timestamp.is_some() {
            return Outcome::nothing("Deleting", "the Service is being deleted");
        }
        let namespace = &key.object.namespace;
        let existing: Vec<&EndpointSlice> =
            world.in_namespace::<EndpointSlice>(namespace).filter(|s| service_of(s).as_ref() == Some(key)).collect();
        let pods: Vec<&Pod> = world.in_namespace::<Pod>(namespace).filter(|p| selects(service, p)).collect();
        let mut outcome = Outcome::nothing("Selected", format!("{} pods match the selector", pods.len()));
        let families = families(service);
        for family in &families {
            let wanted = wanted(world, service, &pods, family);
            let of_family: Vec<&EndpointSlice> =
                existing.iter().copied().filter(|s| s.address_type == *family).collect();
            outcome.effects.extend(arrange(service, family, wanted, &of_family));
        }
        let foreign = existing.iter().filter(|s| !families.contains(s.address_type.as_str()));
        outcome.effects.extend(foreign.map(|s| Effect::delete(*s)));
        outcome
    }
}

fn families(service: &Service) -> BTreeSet<&str> {
    let spec = service.spec.as_ref();
    let named: BTreeSet<&str> =
        spec.and_then(|s| s.ip_families.as_ref()).into_iter().flatten().map(String::as_str).collect();
    let address = spec.and_then(|s| s.cluster_ip.as_deref()).unwrap_or_default();
    match (named.is_empty(), address) {
        (false, _) => named,
        (true, "" | "None") => BTreeSet::from(["IPv4", "IPv6"]),
        (true, address) => BTreeSet::from([if address.contains(':') { "IPv6" } else { "IPv4" }]),
    }
}

/// Endpoints that share the same ports.
struct Group {
    ports: Vec<EndpointPort>,
    /// By address and pod, so that an endpoint is found again in its slice.
    endpoints: BTreeMap<String, Endpoint>,
}

/// Pods may resolve a named port differently: one group for each set of ports.
fn wanted(world: &World, service: &Service, pods: &[&Pod], family: &str) -> BTreeMap<String, Group> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for pod in pods.iter().filter(|p| belongs(p)) {
        let addresses = endpoint::addresses(pod, family);
        if addresses.is_empty() {
            continue;
        }
        let node = reconcile::pods::node(pod).map(|n| ObjectName { namespace: String::new(), name: n.into() });
        let node = node.and_then(|n| world.get::<Node>(&n));
        let endpoint = endpoint::of(service, pod, node, addresses);
        let ports = endpoint::ports(service, pod);
        let group = groups.entry(ports_key(&ports)).or_insert_with(|| Group { ports, endpoints: BTreeMap::new() });
        group.endpoints.insert(endpoint_key(&endpoint), endpoint);
    }
    groups
}

pub(crate) fn ports_key(ports: &[EndpointPort]) -> String {
    let mut keys: Vec<String> =
        ports.iter().map(|p| format!("{:?} {:?} {:?} {:?}", p.name, p.protocol, p.port, p.app_protocol)).collect();
    keys.sort();
    keys.join(",")
}

fn endpoint_key(endpoint: &Endpoint) -> String {
    let uid = endpoint.target_ref.as_ref().and_then(|t| t.uid.as_deref()).unwrap_or_default();
    format!("{uid} {:?}", endpoint.addresses)
}

/// Keeps endpoints in the slice they are in, fills free places, makes new slices, and drops empty ones. A Service
/// without any endpoint has one empty slice of each family.
fn arrange(
    service: &Service,
    family: &str,
    mut wanted: BTreeMap<String, Group>,
    existing: &[&EndpointSlice],
) -> Vec<Effect> {
    if wanted.is_empty() {
        wanted.insert(String::new(), Group { ports: Vec::new(), endpoints: BTreeMap::new() });
    }
    let mut effects = Vec::new();
    for group in existing.iter().map(|s| slice_key(s)).collect::<BTreeSet<_>>() {
        if !wanted.contains_key(&group) {
            effects.extend(existing.iter().filter(|s| slice_key(s) == group).map(|s| Effect::delete(*s)));
        }
    }
    let mut changes = Vec::new();
    for (key, group) in wanted {
        let slices: Vec<&EndpointSlice> = existing.iter().copied().filter(|s| slice_key(s) == key).collect();
        changes.extend(fill(service, family, group, &slices));
    }
    changes.extend(effects);
    changes
}

fn slice_key(slice: &EndpointSlice) -> String {
    ports_key(slice.ports.as_deref().unwrap_or_default())
}

fn fill(service: &Service, family: &str, mut group: Group, slices: &[&EndpointSlice]) -> Vec<Effect> {
    let placeholder = group.endpoints.is_empty();
    let mut kept: Vec<(&EndpointSlice, Vec<Endpoint>)> = Vec::new();
    for slice in slices {
        let theirs = slice.endpoints.iter().flatten();
        kept.push((slice, theirs.filter_map(|e| group.endpoints.remove(&endpoint_key(e))).collect()));
    }
    let mut rest: Vec<Endpoint> = group.endpoints.into_values().collect();
    // The fullest first, so that slices fill up rather than multiply.
    kept.sort_by_key(|(_, endpoints)| std::cmp::Reverse(endpoints.len()));
    for (_, endpoints) in &mut kept {
        let room = MOST.saturating_sub(endpoints.len()).min(rest.len());
        endpoints.extend(rest.drain(..room));
    }
    let mut effects = Vec::new();
    let mut lone = placeholder;
    for (slice, endpoints) in kept {
        match endpoints.is_empty() && !std::mem::take(&mut lone) {
            true => effects.push(Effect::delete(slice)),
            false => effects.extend(update(service, slice, endpoints)),
        }
    }
    let new: Vec<Value> = match lone {
        true => vec![new_slice(service, family, &group.ports, &[])],
        false => rest.chunks(MOST).map(|chunk| new_slice(service, family, &group.ports, chunk)).collect(),
    };
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    effects.extend(new.into_iter().map(|slice| Effect::create::<EndpointSlice>(namespace, slice)));
    effects
}

fn update(service: &Service, slice: &EndpointSlice, endpoints: Vec<Endpoint>) -> Option<Effect> {
    let was = json!({"metadata": {"labels": slice.metadata.labels}, "endpoints": slice.endpoints.clone().unwrap_or_default()});
    let shall = json!({"metadata": {"labels": labels(service)}, "endpoints": endpoints});
    let mut patch = merge::diff(&was, &shall)?;
    patch["metadata"]["resourceVersion"] = json!(slice.metadata.resource_version);
    Some(Effect::patch(slice, patch))
}

fn new_slice(service: &Service, family: &str, ports: &[EndpointPort], endpoints: &[Endpoint]) -> Value {
    let name = service.metadata.name.as_deref().unwrap_or_default();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "generateName": format!("{name}-"), "namespace": service.metadata.namespace, "labels": labels(service),
            "ownerReferences": [owners::reference(service)],
        },
        "addressType": family, "ports": ports, "endpoints": endpoints,
    })
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let reserved = [SERVICE_LABEL, MANAGED_LABEL, HEADLESS_LABEL];
    let own = service.metadata.labels.iter().flatten().filter(|(k, _)| !reserved.contains(&k.as_str()));
    let mut labels: BTreeMap<String, String> = own.map(|(k, v)| (k.clone(), v.clone())).collect();
    let address = service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()).unwrap_or_default();
    if matches!(address, "" | "None") {
        labels.insert(HEADLESS_LABEL.into(), String::new());
    }
    labels.insert(SERVICE_LABEL.into(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_LABEL.into(), MANAGER.into());
    labels
}

#[cfg(test)]
mod tests;
