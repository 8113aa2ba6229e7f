//! EndpointSlice mirroring: Endpoints that somebody writes for a Service without a selector, as slices
//! (`pkg/controller/endpointslicemirroring`).

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use reconcile::effect::reference;
use reconcile::{
    Change, Controller, Decider, Effect, Key, ObjectName, Outcome, Timestamp, Watch, World, merge, owners,
};
use serde_json::{Value, json};

use crate::endpoints::{LEADER, repack};
use crate::endpointslice::{MANAGED_LABEL, SERVICE_LABEL, ports_key};

/// The most addresses of one subset that are mirrored, all of them in one slice.
const MOST: usize = 1000;
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Annotations that say something about the Endpoints themselves.
const OWN: [&str; 2] =
    ["endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration"];

/// The EndpointSlice mirroring controller.
pub struct EndpointSliceMirroring;

impl Controller for EndpointSliceMirroring {
    fn name(&self) -> &'static str {
        "endpointslice-mirroring-controller"
    }

    fn component(&self) -> &'static str {
        "endpoint-slice-mirroring-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of::<Endpoints>(), Watch::of::<EndpointSlice>(), Watch::of::<Service>()]
    }

    fn touches(&self, change: &Change, _: &World) -> Vec<Key> {
        let own = change.key_of::<Endpoints>().filter(|_| change.both::<Endpoints>().any(is_mirrored));
        let theirs = change.key_of::<Service>().map(|k| Key::of::<Endpoints>(k.object));
        let selects = |s: Option<&Service>| s.map(has_selector);
        let theirs = theirs.filter(|_| selects(change.was()) != selects(change.now()));
        own.into_iter().chain(theirs).chain(change.both::<EndpointSlice>().filter_map(endpoints_of)).collect()
    }
}

/// The Endpoints of a slice that this controller made.
fn endpoints_of(slice: &EndpointSlice) -> Option<Key> {
    let labels = slice.metadata.labels.as_ref()?;
    (labels.get(MANAGED_LABEL).map(String::as_str) == Some(MANAGER)).then_some(())?;
    let namespace = slice.metadata.namespace.clone().unwrap_or_default();
    Some(Key::of::<Endpoints>(ObjectName { namespace, name: labels.get(SERVICE_LABEL)?.clone() }))
}

fn has_selector(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.selector.as_ref()).is_some_and(|s| !s.is_empty())
}

fn is_mirrored(endpoints: &Endpoints) -> bool {
    let meta = &endpoints.metadata;
    let skipped = meta.labels.as_ref().and_then(|l| l.get(SKIP)).is_some_and(|v| v == "true");
    !skipped && !meta.annotations.as_ref().is_some_and(|a| a.contains_key(LEADER))
}

impl Decider for EndpointSliceMirroring {
    type World = World;
    type Key = Key;
    type Effect = Effect;

    fn decide(&self, world: &World, key: &Key, _: Timestamp) -> Outcome<Effect> {
        let all = world.in_namespace::<EndpointSlice>(&key.object.namespace);
        let existing: Vec<&EndpointSlice> = all.filter(|s| endpoints_of(s).as_ref() == Some(key)).collect();
        let endpoints = world.get::<Endpoints>(&key.object).filter(|e| is_mirrored(e));
        let alone = world.get::<Service>(&key.object).is_some_and(|s| !has_selector(s));
        let Some(endpoints) = endpoints.filter(|_| alone) else {
            let mut outcome = Outcome::nothing("NotMirrored", "no Endpoints for a Service without a selector");
            outcome.effects = existing.into_iter().map(Effect::delete).collect();
            return outcome;
        };
        let wanted = Wanted::of(endpoints);
        let mut outcome = Outcome::nothing("Mirrored", format!("{} slices", wanted.groups.len()));
        outcome.effects = arrange(endpoints, &wanted, existing);
        if !outcome.effects.is_empty() {
            outcome.effects.extend(wanted.warnings(endpoints));
        }
        outcome
    }
}

/// One slice to be: what tells it apart is its address type and its ports.
#[derive(Default)]
struct Group {
    ports: Vec<EndpointPort>,
    endpoints: BTreeMap<String, Endpoint>,
}

/// All slices to be, and what had to be left out.
#[derive(Default)]
struct Wanted {
    groups: BTreeMap<(&'static str, String), Group>,
    invalid: usize,
    skipped: usize,
}

impl Wanted {
    fn of(endpoints: &Endpoints) -> Self {
        let mut wanted = Self::default();
        for subset in repack(endpoints.subsets.iter().flatten().cloned()) {
            wanted.add(subset);
        }
        wanted
    }

    fn add(&mut self, subset: EndpointSubset) {
        let ports: Vec<EndpointPort> = subset.ports.into_iter().flatten().map(port).collect();
        let key = ports_key(&ports);
        let mut room = MOST;
        let ready = subset.addresses.into_iter().flatten().map(|a| (a, true));
        for (address, ready) in ready.chain(subset.not_ready_addresses.into_iter().flatten().map(|a| (a, false))) {
            if room == 0 {
                self.skipped += 1;
                continue;
            }
            let Some((family, endpoint)) = endpoint(address, ready) else {
                self.invalid += 1;
                continue;
            };
            room -= 1;
            let group = self.groups.entry((family, key.clone())).or_default();
            group.ports.clone_from(&ports);
            group.endpoints.insert(endpoint_key(&endpoint), endpoint);
        }
    }

    fn warnings(&self, endpoints: &Endpoints) -> Vec<Effect> {
        let mut warnings = Vec::new();
        if self.invalid > 0 {
            let message = format!("Skipped {} invalid IP addresses when mirroring to EndpointSlices", self.invalid);
            warnings.push(Effect::warning(reference(endpoints), "InvalidIPAddress", message));
        }
        if self.skipped > 0 {
            let skipped = self.skipped + self.invalid;
            let message = format!(
                "A max of {MOST} addresses can be mirrored to EndpointSlices per Endpoints subset. {skipped} addresses were skipped"
            );
            warnings.push(Effect::warning(reference(endpoints), "TooManyAddressesToMirror", message));
        }
        warnings
    }
}

fn port(port: k8s_openapi::api::core::v1::EndpointPort) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(port.protocol.unwrap_or_else(|| "TCP".into())),
        app_protocol: port.app_protocol,
    }
}

fn endpoint(address: EndpointAddress, ready: bool) -> Option<(&'static str, Endpoint)> {
    let ip: IpAddr = address.ip.parse().ok()?;
    let family = if ip.is_ipv6() { "IPv6" } else { "IPv4" };
    let endpoint = Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.filter(|h| !h.is_empty()),
        node_name: address.node_name,
        target_ref: address.target_ref,
        ..Endpoint::default()
    };
    Some((family, endpoint))
}

fn endpoint_key(endpoint: &Endpoint) -> String {
    let uid = endpoint.target_ref.as_ref().and_then(|t| t.uid.as_deref()).unwrap_or_default();
    format!("{:?} {uid} {:?}", endpoint.addresses, endpoint.hostname)
}

/// One slice a group: the one that is there, or one that would go, or a new one.
fn arrange(endpoints: &Endpoints, wanted: &Wanted, existing: Vec<&EndpointSlice>) -> Vec<Effect> {
    let mut spare: BTreeMap<&str, VecDeque<&EndpointSlice>> = BTreeMap::new();
    let mut there: BTreeMap<(&str, String), &EndpointSlice> = BTreeMap::new();
    for slice in existing {
        let key = (slice.address_type.as_str(), ports_key(slice.ports.as_deref().unwrap_or_default()));
        let taken = there.contains_key(&key) || !wanted.groups.keys().any(|(t, p)| *t == key.0 && *p == key.1);
        match taken {
            true => spare.entry(key.0).or_default().push_back(slice),
            false => drop(there.insert(key, slice)),
        }
    }
    let mut effects = Vec::new();
    for ((family, ports), group) in &wanted.groups {
        let slice = there.get(&(*family, ports.clone())).copied();
        match slice.or_else(|| spare.get_mut(family)?.pop_front()) {
            Some(slice) => effects.extend(update(endpoints, slice, group)),
            None if endpoints.metadata.deletion_timestamp.is_some() => {}
            None => effects.push(create(endpoints, family, group)),
        }
    }
    effects.extend(spare.into_values().flatten().map(Effect::delete));
    effects
}

fn metadata(endpoints: &Endpoints) -> Value {
    let meta = &endpoints.metadata;
    let mut labels = meta.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_LABEL.into(), meta.name.clone().unwrap_or_default());
    labels.insert(MANAGED_LABEL.into(), MANAGER.into());
    let mut annotations = meta.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| !OWN.contains(&key.as_str()));
    json!({"labels": labels, "annotations": annotations, "ownerReferences": [owners::reference(endpoints)]})
}

fn update(endpoints: &Endpoints, slice: &EndpointSlice, group: &Group) -> Option<Effect> {
    let meta = &slice.metadata;
    let theirs: BTreeMap<String, &Endpoint> = slice.endpoints.iter().flatten().map(|e| (endpoint_key(e), e)).collect();
    let same = theirs.iter().map(|(k, e)| (k, *e)).eq(group.endpoints.iter());
    let list: Vec<&Endpoint> = group.endpoints.values().collect();
    let written = if same { json!(list) } else { json!(slice.endpoints) };
    let was = json!({
        "metadata": {
            "labels": meta.labels.clone().unwrap_or_default(),
            "annotations": meta.annotations.clone().unwrap_or_default(),
            "ownerReferences": meta.owner_references,
        },
        "ports": slice.ports.clone().unwrap_or_default(), "endpoints": written,
    });
    let shall = json!({"metadata": metadata(endpoints), "ports": group.ports, "endpoints": list});
    let mut patch = merge::diff(&was, &shall)?;
    patch["metadata"]["resourceVersion"] = json!(meta.resource_version);
    Some(Effect::patch(slice, patch))
}

fn create(endpoints: &Endpoints, family: &str, group: &Group) -> Effect {
    let (namespace, name) = (endpoints.metadata.namespace.clone(), endpoints.metadata.name.as_deref());
    let mut meta = metadata(endpoints);
    meta["generateName"] = json!(format!("{}-", name.unwrap_or_default()));
    meta["namespace"] = json!(namespace);
    let list: Vec<&Endpoint> = group.endpoints.values().collect();
    let object = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta,
        "addressType": family, "ports": group.ports, "endpoints": list,
    });
    Effect::create::<EndpointSlice>(namespace.as_deref().unwrap_or_default(), object)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::EndpointSliceMirroring;
    use crate::model::script::run;

    fn check(script: &str, expect: Expect) {
        expect.assert_eq(&run(vec![Box::new(EndpointSliceMirroring)], script));
    }

    const SERVICE: &str = "apply Service ns/db {spec: {clusterIP: 10.0.0.1, ports: [{port: 80}]}}\n";
    const ENDPOINTS: &str = "apply Endpoints ns/db {metadata: {labels: {l: v}, annotations: {a: b}}, subsets: [{addresses: [{ip: 1.2.3.4}, {ip: 'fd00::0001'}], notReadyAddresses: [{ip: 1.2.3.5}], ports: [{port: 80}]}]}\n";

    #[test]
    fn a_custom_endpoints_is_mirrored_through_its_life() {
        let script = format!(
            "{ENDPOINTS}trace
             {SERVICE}trace create
             get EndpointSlice
             again
             apply Endpoints ns/db {{subsets: [{{addresses: [{{ip: 1.2.3.9}}], ports: [{{port: 81}}]}}]}}
             trace
             again
             delete Endpoints ns/db
             trace
             get EndpointSlice"
        );
        check(
            &script,
            expect![[r#"
            --
            endpointslice-mirroring-controller: create endpointslices.discovery.k8s.io ns/db-*
            endpointslice-mirroring-controller: create endpointslices.discovery.k8s.io ns/db-*
            --
            db-3 [[1.2.3.4]:ready=true [1.2.3.5]:ready=false] [db]
            db-4 [[fd00::1]:ready=true] [db]
            --
            endpointslice-mirroring-controller: patch endpointslices.discovery.k8s.io ns/db-3 {"endpoints":[{"addresses":["1.2.3.9"],"conditions":{"ready":true}}],"metadata":{},"ports":[{"name":"","port":81,"protocol":"TCP"}]}
            endpointslice-mirroring-controller: delete endpointslices.discovery.k8s.io ns/db-4 Background
            --
            endpointslice-mirroring-controller: delete endpointslices.discovery.k8s.io ns/db-3 Background
            --
            --
        "#]],
        );
    }

    #[test]
    fn a_label_or_a_selector_ends_it() {
        let script = format!(
            "{SERVICE}{ENDPOINTS}trace nothing
             apply Endpoints ns/db {{metadata: {{labels: {{endpointslice.kubernetes.io/skip-mirror: 'true'}}}}}}
             trace
             apply Endpoints ns/db {{metadata: {{labels: {{endpointslice.kubernetes.io/skip-mirror: 'false'}}}}}}
             get EndpointSlice
             apply Service ns/db {{spec: {{selector: {{a: b}}}}}}
             trace delete
             again"
        );
        check(
            &script,
            expect![[r#"
            --
            endpointslice-mirroring-controller: delete endpointslices.discovery.k8s.io ns/db-3 Background
            endpointslice-mirroring-controller: delete endpointslices.discovery.k8s.io ns/db-4 Background
            --
            db-5 [[1.2.3.4]:ready=true [1.2.3.5]:ready=false] [db]
            db-6 [[fd00::1]:ready=true] [db]
            --
            endpointslice-mirroring-controller: delete endpointslices.discovery.k8s.io ns/db-5 Background
            endpointslice-mirroring-controller: delete endpointslices.discovery.k8s.io ns/db-6 Background
            --
        "#]],
        );
    }
}
