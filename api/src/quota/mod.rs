//! What a ResourceQuota counts, and what a request may still take (`k8s.io/apiserver/pkg/quota/v1`,
//! `pkg/quota/v1/evaluator/core`). Pure: the API server charges with it, the quota controller recounts with it.

pub mod amounts;
mod charge;
mod pod;
#[cfg(test)]
mod tests;

use serde_json::Value;

pub use amounts::Amounts;
pub use charge::{Charged, Request, charge};
pub use pod::of_spec as pod_total;

use crate::quantity::QuantityFormat;
use crate::{Document, GroupResource, LabelSelector, Quantity, Timestamp};

/// Core resources whose plain name counts as well as `count/...`: plural, name.
const ALIASES: &[(&str, &str)] = &[
    ("configmaps", "configmaps"),
    ("replicationcontrollers", "replicationcontrollers"),
    ("resourcequotas", "resourcequotas"),
    ("secrets", "secrets"),
];

/// Resources that quotas never count: nothing of theirs is stored in a namespace, or counting them would bar the way
/// (`pkg/quota/v1/install/registry.go`).
const IGNORED: &[(&str, &str)] = &[
    ("", "bindings"),
    ("", "componentstatuses"),
    ("", "events"),
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
    ("events.k8s.io", "events"),
];

const BY_CLASS: &str = ".storageclass.storage.k8s.io/";

/// One whole object.
fn one() -> Quantity {
    Quantity::new(1, QuantityFormat::DecimalSi)
}

fn count(number: usize) -> Quantity {
    Quantity::new(i64::try_from(number).unwrap_or(i64::MAX), QuantityFormat::DecimalSi)
}

/// `count/deployments.apps`, the name under which any resource's objects are counted.
pub fn count_name(resource: &GroupResource) -> String {
    match resource.group.as_str() {
        "" => format!("count/{}", resource.resource),
        group => format!("count/{}.{group}", resource.resource),
    }
}

/// Whether a quota's resource name concerns objects of a resource.
pub fn counts(resource: &GroupResource, name: &str) -> bool {
    match (resource.group.as_str(), resource.resource.as_str()) {
        _ if is_ignored(resource) => false,
        ("", "pods") => pod::counts(name),
        ("", "services") => {
            matches!(name, "count/services" | "services" | "services.nodeports" | "services.loadbalancers")
        }
        ("", "persistentvolumeclaims") => {
            let kind = name.split_once(BY_CLASS).map_or(name, |(_, kind)| kind);
            name == "count/persistentvolumeclaims" || matches!(kind, "persistentvolumeclaims" | "requests.storage")
        }
        _ => name == count_name(resource) || alias(resource) == Some(name),
    }
}

fn is_ignored(resource: &GroupResource) -> bool {
    IGNORED.contains(&(resource.group.as_str(), resource.resource.as_str()))
}

fn alias(resource: &GroupResource) -> Option<&'static str> {
    let of = |(plural, name): &(&str, &'static str)| (*plural == resource.resource).then_some(*name);
    ALIASES.iter().find_map(of).filter(|_| resource.group.is_empty())
}

/// The resource whose objects a quota's resource name counts; `None` where the name says nothing that is known.
pub fn counted(name: &str) -> Option<GroupResource> {
    if let Some(path) = name.strip_prefix("count/") {
        let (plural, group) = path.split_once('.').unwrap_or((path, ""));
        return Some(GroupResource::new(group, plural));
    }
    let fixed = ["pods", "services", "persistentvolumeclaims"].into_iter();
    let mut known = fixed.chain(ALIASES.iter().map(|(plural, _)| *plural)).map(|plural| GroupResource::new("", plural));
    known.find(|resource| counts(resource, name))
}

/// What one object uses, by all names under which it is counted.
pub fn usage(resource: &GroupResource, object: &Document, now: Timestamp) -> Amounts {
    match (resource.group.as_str(), resource.resource.as_str()) {
        ("", "pods") => pod::usage(object, now),
        ("", "services") => service(object),
        ("", "persistentvolumeclaims") => claim(object),
        _ => {
            let names = [Some(count_name(resource)), alias(resource).map(str::to_owned)];
            names.into_iter().flatten().map(|name| (name, one())).collect()
        }
    }
}

fn service(service: &Document) -> Amounts {
    let ports = service.list_at("/spec/ports");
    let given = |port: &&Value| port.get("nodePort").and_then(Value::as_u64).is_some_and(|number| number != 0);
    let allocates = service.at("/spec/allocateLoadBalancerNodePorts").and_then(Value::as_bool) != Some(false);
    let (node_ports, balancers) = match service.str_at("/spec/type") {
        "NodePort" => (ports.len(), 0),
        "LoadBalancer" if allocates => (ports.len(), 1),
        "LoadBalancer" => (ports.iter().filter(given).count(), 1),
        _ => (0, 0),
    };
    let all = [
        ("count/services", 1),
        ("services", 1),
        ("services.loadbalancers", balancers),
        ("services.nodeports", node_ports),
    ];
    all.into_iter().map(|(name, number)| (name.to_owned(), count(number))).collect()
}

fn claim(claim: &Document) -> Amounts {
    let mut used = Amounts::new();
    let mut say = |name: &str, class: &str, amount: Quantity| {
        if !class.is_empty() {
            used.insert(format!("{class}{BY_CLASS}{name}"), amount.clone());
        }
        used.insert(name.to_owned(), amount);
    };
    let beta = claim.annotation("volume.beta.kubernetes.io/storage-class").unwrap_or_default();
    let class = if beta.is_empty() { claim.str_at("/spec/storageClassName") } else { beta };
    say("persistentvolumeclaims", class, one());
    say("count/persistentvolumeclaims", "", one());
    let storage = |pointer: &str| amounts::read(claim.at(pointer)).remove("storage");
    if let Some(wanted) = storage("/spec/resources/requests") {
        let given = storage("/status/allocatedResources").filter(|given| *given > wanted);
        say("requests.storage", class, whole(given.unwrap_or(wanted)));
    }
    used
}

/// Rounded up to whole bytes.
fn whole(amount: Quantity) -> Quantity {
    let whole = Quantity::new(amount.value(), amount.format());
    if whole == amount { amount } else { whole }
}

/// One scope of a quota, or one expression of its scopeSelector.
pub(crate) struct Scope<'a> {
    name: &'a str,
    operator: &'a str,
    values: Option<&'a Value>,
}

impl Scope<'_> {
    /// Whether a class (of priority, of volume attributes) is meant; `None`: the object has none.
    fn matches(&self, class: Option<&str>) -> bool {
        if self.operator == "Exists" {
            return class.is_some();
        }
        let expression = serde_json::json!({"key": self.name, "operator": self.operator,
            "values": self.values.cloned().unwrap_or_default()});
        let selector = serde_json::json!({"matchExpressions": [expression]});
        let selector = LabelSelector::from_object(Some(&selector));
        selector.is_ok_and(|selector| selector.matches(|key| class.filter(|_| key == self.name)))
    }
}

fn scopes(quota: &Document) -> Vec<Scope<'_>> {
    let plain = quota.list_at("/spec/scopes").iter().filter_map(Value::as_str);
    let plain = plain.map(|name| Scope { name, operator: "Exists", values: None });
    let selected = quota.list_at("/spec/scopeSelector/matchExpressions").iter().filter_map(|expression| {
        let text = |key: &str| expression.get(key).and_then(Value::as_str);
        Some(Scope { name: text("scopeName")?, operator: text("operator")?, values: expression.get("values") })
    });
    plain.chain(selected).collect()
}

/// Whether an object is in all scopes of a quota. Resources without scopes are in none.
pub fn in_scopes(quota: &Document, resource: &GroupResource, object: &Document) -> bool {
    let inside = |scope: &Scope<'_>| match (resource.group.as_str(), resource.resource.as_str()) {
        ("", "pods") => pod::in_scope(scope, object),
        ("", "persistentvolumeclaims") if scope.name == "VolumeAttributesClass" => attributes(scope, object),
        _ => false,
    };
    scopes(quota).iter().all(inside)
}

/// A claim has up to three classes of volume attributes while one is exchanged for another.
fn attributes(scope: &Scope<'_>, claim: &Document) -> bool {
    let fields = [
        "/spec/volumeAttributesClassName",
        "/status/currentVolumeAttributesClassName",
        "/status/modifyVolumeStatus/targetVolumeAttributesClassName",
    ];
    let classes: Vec<&str> = fields.iter().map(|field| claim.str_at(field)).filter(|class| !class.is_empty()).collect();
    match classes.is_empty() {
        true => scope.matches(None),
        false => classes.iter().any(|class| scope.matches(Some(class))),
    }
}

/// A quota's `status.used` from all objects of its namespace; `objects` gives those of one resource.
pub fn recount(quota: &Document, objects: impl Fn(&GroupResource) -> Vec<Document>, now: Timestamp) -> Amounts {
    let hard = amounts::read(quota.at("/spec/hard"));
    let mut resources: Vec<GroupResource> = Vec::new();
    for resource in hard.keys().filter_map(|name| counted(name)) {
        if !resources.contains(&resource) {
            resources.push(resource);
        }
    }
    let known = |name: &str| resources.iter().any(|resource| counts(resource, name));
    let mut used: Amounts = hard.keys().filter(|name| known(name)).map(|name| (name.clone(), count(0))).collect();
    for resource in &resources {
        for object in objects(resource).iter().filter(|object| in_scopes(quota, resource, object)) {
            let charged = usage(resource, object, now);
            amounts::add(&mut used, &amounts::mask(&charged, |name| hard.contains_key(name)));
        }
    }
    used
}
