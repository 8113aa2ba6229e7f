//! Kinds with nothing but defaults and columns: one row of [`Thin`] each.

mod aggregation;
mod core;
mod devices;
mod flow;
mod limits;
mod networking;
mod storage;

use serde_json::{Value, json};

use super::cell::{NONE, UNSET, age, condition, containers, count, labels, or, row, selector_or_none};
use super::{Change, NameFormat, Rules, workload};
use super::{pod_spec, service::load_balancer};
use crate::field::Errors;
use crate::tree::{fill, fill_number, flag, get, items_mut, list, map, object, text, texts};
use crate::{Document, Timestamp, time};

type Row = fn(&Document, Timestamp) -> Option<Vec<Value>>;

/// Rules that are only these.
pub(super) struct Thin {
    /// Defaults that depend on other fields.
    pub default: fn(&mut Document),
    /// The table row.
    pub cells: Row,
    /// What is wrong with an object.
    pub validate: fn(&Document, &Change<'_>) -> Errors,
    /// What it says that is deprecated.
    pub warnings: fn(&Document, &Change<'_>) -> Vec<String>,
    /// How names are checked.
    pub names: NameFormat,
    /// Fields that selectors may name: their names and where they stand.
    pub selectable: &'static [(&'static str, &'static str)],
    /// Whether changes of the spec are counted.
    pub generation: bool,
    /// Whether an update must name the resourceVersion.
    pub conditional: bool,
    /// Whether an update makes what is not there.
    pub upsert: bool,
}

impl Rules for Thin {
    fn default(&self, object: &mut Document) {
        (self.default)(object);
    }

    fn validate(&self, new: &Document, change: &Change<'_>) -> Errors {
        if change.subresource.is_empty() { (self.validate)(new, change) } else { Errors::new() }
    }

    fn warnings(&self, new: &Document, change: &Change<'_>) -> Vec<String> {
        (self.warnings)(new, change)
    }

    fn selectable(&self, object: &Document) -> Vec<(&'static str, String)> {
        let value = |pointer: &str| match object.at(pointer) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        };
        self.selectable.iter().map(|(name, pointer)| (*name, value(pointer))).collect()
    }

    fn name_format(&self) -> NameFormat {
        self.names
    }

    fn has_generation(&self) -> bool {
        self.generation
    }

    fn unconditional_update(&self) -> bool {
        !self.conditional
    }

    fn create_on_update(&self) -> bool {
        self.upsert
    }

    fn cells(&self, object: &Document, now: Timestamp) -> Option<Vec<Value>> {
        (self.cells)(object, now)
    }
}

const fn plain(cells: Row) -> Thin {
    Thin {
        default: |_| {},
        cells,
        validate: |_, _| Errors::new(),
        warnings: |_, _| Vec::new(),
        names: NameFormat::Subdomain,
        selectable: &[],
        generation: false,
        conditional: false,
        upsert: false,
    }
}

const fn counted(default: fn(&mut Document), cells: Row) -> Thin {
    Thin { default, generation: true, ..plain(cells) }
}

const NO_CELLS: Row = |_, _| None;
const NAME_AND_AGE: Row = |o, now| row![o.name(), age(o, now)];

pub(super) const REPLICATION_CONTROLLER: Thin = Thin {
    validate: core::replication_controller,
    selectable: &[("status.replicas", "/status/replicas")],
    warnings: |new, change| workload::warnings(new, change, "/spec/template", true),
    ..counted(replication_controller, controller_cells)
};
pub(super) const POD_TEMPLATE: Thin = Thin {
    validate: core::pod_template,
    warnings: |new, change| workload::warnings(new, change, "/template", false),
    ..counted(
        |o| pod_spec::template(object(o.value_mut(), "template")),
        |o, _| {
            let (names, images) = containers(o, "/template/spec/containers");
            row![o.name(), names, images, labels(o.at("/template/metadata/labels"))]
        },
    )
};
pub(super) const RESOURCE_QUOTA: Thin =
    Thin { validate: core::resource_quota, default: resource_quota, ..plain(quota_cells) };
pub(super) const LIMIT_RANGE: Thin =
    Thin { validate: limits::limit_range, default: limit_range, upsert: true, ..plain(NO_CELLS) };
pub(super) const CONTROLLER_REVISION: Thin = Thin {
    validate: core::controller_revision,
    ..plain(|o, now| {
        let owner = o.list_at("/metadata/ownerReferences").iter().find(|r| flag(r, "controller"));
        let owner = owner.map_or_else(|| NONE.into(), controller);
        row![o.name(), owner, count(o, "/revision"), age(o, now)]
    })
};
pub(super) const COMPONENT_STATUS: Thin = plain(|o, _| {
    let healthy = o.list_at("/conditions").iter().find(|c| text(c, "type") == "Healthy");
    let (state, message, error) = match healthy {
        Some(c) if text(c, "status") == "True" => ("Healthy", text(c, "message"), text(c, "error")),
        Some(c) => ("Unhealthy", text(c, "message"), text(c, "error")),
        None => ("Unknown", "", ""),
    };
    row![o.name(), state, message, error]
});

pub(super) const INGRESS: Thin = Thin {
    validate: networking::ingress,
    ..counted(
        |_| {},
        |o, now| {
            let ports = if o.list_at("/spec/tls").is_empty() { "80" } else { "80, 443" };
            let address = load_balancer(o.at("/status/loadBalancer").unwrap_or(&Value::Null));
            row![o.name(), or(o.str_at("/spec/ingressClassName"), NONE), hosts(o), address, ports, age(o, now)]
        },
    )
};
pub(super) const INGRESS_CLASS: Thin = Thin {
    validate: networking::ingress_class,
    ..counted(ingress_class, |o, now| {
        let default = o.annotation("ingressclass.kubernetes.io/is-default-class") == Some("true");
        let name = if default { format!("{} (default)", o.name()) } else { o.name().into() };
        row![name, o.str_at("/spec/controller"), parameters(o), age(o, now)]
    })
};
pub(super) const NETWORK_POLICY: Thin = Thin {
    validate: networking::network_policy,
    ..counted(network_policy, |o, now| row![o.name(), selector_or_none(o.at("/spec/podSelector")), age(o, now)])
};
pub(super) const IP_ADDRESS: Thin = Thin {
    names: NameFormat::PathSegment,
    validate: networking::ip_address,
    ..plain(|o, now| row![o.name(), parent(o), age(o, now)])
};
pub(super) const SERVICE_CIDR: Thin = Thin {
    validate: networking::service_cidr,
    ..plain(|o, now| row![o.name(), texts(o.at("/spec").unwrap_or(&Value::Null), "cidrs").join(","), age(o, now)])
};

pub(super) const STORAGE_CLASS: Thin = Thin {
    validate: storage::storage_class,
    warnings: storage::storage_class_warnings,
    default: |o| {
        fill(o.value_mut(), "reclaimPolicy", "Delete");
        fill(o.value_mut(), "volumeBindingMode", "Immediate");
    },
    ..plain(|o, now| {
        let default = o.annotation("storageclass.kubernetes.io/is-default-class") == Some("true");
        let name = if default { format!("{} (default)", o.name()) } else { o.name().into() };
        row![
            name,
            o.str_at("/provisioner"),
            or(o.str_at("/reclaimPolicy"), "Delete"),
            or(o.str_at("/volumeBindingMode"), "Immediate"),
            o.bool_at("/allowVolumeExpansion"),
            age(o, now),
        ]
    })
};
pub(super) const CSI_DRIVER: Thin = Thin {
    validate: storage::csi_driver,
    warnings: storage::csi_driver_warnings,
    default: csi_driver,
    conditional: true,
    ..plain(|o, now| {
        let spec = o.at("/spec").unwrap_or(&Value::Null);
        let modes = texts(spec, "volumeLifecycleModes").join(",");
        let audiences: Vec<&str> = list(spec, "tokenRequests").iter().map(|t| text(t, "audience")).collect();
        let audiences = get(spec, "tokenRequests").map_or_else(|| UNSET.into(), |_| audiences.join(","));
        row![
            o.name(),
            get(spec, "attachRequired").is_none_or(|v| v == true),
            flag(spec, "podInfoOnMount"),
            flag(spec, "storageCapacity"),
            audiences,
            flag(spec, "requiresRepublish"),
            or(&modes, NONE),
            age(o, now),
        ]
    })
};
pub(super) const CSI_NODE: Thin = Thin {
    validate: storage::csi_node,
    conditional: true,
    ..plain(|o, now| row![o.name(), o.list_at("/spec/drivers").len(), age(o, now)])
};
pub(super) const CSI_STORAGE_CAPACITY: Thin =
    Thin { validate: storage::csi_storage_capacity, conditional: true, ..plain(NO_CELLS) };
pub(super) const VOLUME_ATTACHMENT: Thin = Thin {
    validate: storage::volume_attachment,
    conditional: true,
    ..plain(|o, now| {
        let spec = |field: &str| o.str_at(&format!("/spec/{field}")).to_owned();
        let attached = o.bool_at("/status/attached");
        row![o.name(), spec("attacher"), spec("source/persistentVolumeName"), spec("nodeName"), attached, age(o, now)]
    })
};
pub(super) const VOLUME_ATTRIBUTES_CLASS: Thin = Thin {
    validate: storage::volume_attributes_class,
    ..plain(|o, now| row![o.name(), o.str_at("/driverName"), age(o, now)])
};

pub(super) const RUNTIME_CLASS: Thin = Thin {
    validate: core::runtime_class,
    conditional: true,
    upsert: true,
    ..plain(|o, now| row![o.name(), o.str_at("/handler"), age(o, now)])
};

pub(super) const FLOW_SCHEMA: Thin = Thin {
    validate: flow::flow_schema,
    ..counted(
        |o| fill_number(object(o.value_mut(), "spec"), "matchingPrecedence", 1000),
        |o, now| {
            let level = o.str_at("/spec/priorityLevelConfiguration/name");
            let method = or(o.str_at("/spec/distinguisherMethod/type"), NONE);
            let dangling = condition(o, "Dangling").map_or("?", |c| text(c, "status"));
            row![o.name(), level, count(o, "/spec/matchingPrecedence"), method, age(o, now), dangling]
        },
    )
};
pub(super) const PRIORITY_LEVEL: Thin = Thin {
    validate: flow::priority_level,
    ..counted(priority_level, |o, now| {
        let number = |pointer: &str| o.at(pointer).cloned().unwrap_or_else(|| NONE.into());
        let queuing = |field: &str| number(&format!("/spec/limited/limitResponse/queuing/{field}"));
        row![
            o.name(),
            o.str_at("/spec/type"),
            number("/spec/limited/nominalConcurrencyShares"),
            queuing("queues"),
            queuing("handSize"),
            queuing("queueLengthLimit"),
            age(o, now),
        ]
    })
};

pub(super) const DEVICE_CLASS: Thin = Thin { validate: devices::device_class, ..counted(|_| {}, NAME_AND_AGE) };
pub(super) const RESOURCE_CLAIM: Thin = Thin {
    validate: devices::claim,
    default: |o| devices(o, "/spec/devices"),
    ..plain(|o, now| row![o.name(), claim_state(o), age(o, now)])
};
pub(super) const RESOURCE_CLAIM_TEMPLATE: Thin =
    Thin { validate: devices::claim_template, default: |o| devices(o, "/spec/spec/devices"), ..plain(NAME_AND_AGE) };
pub(super) const RESOURCE_SLICE: Thin = Thin {
    validate: devices::slice,
    selectable: &[("spec.driver", "/spec/driver"), ("spec.nodeName", "/spec/nodeName")],
    ..counted(
        |_| {},
        |o, now| {
            let spec = |field: &str| o.str_at(&format!("/spec/{field}")).to_owned();
            row![o.name(), spec("nodeName"), spec("driver"), spec("pool/name"), age(o, now)]
        },
    )
};
pub(super) const DEVICE_TAINT_RULE: Thin = counted(
    |_| {},
    |o, now| {
        let taint = |field: &str| o.str_at(&format!("/spec/taint/{field}")).to_owned();
        let added = taint("timeAdded");
        let added = if added.is_empty() { added } else { time::since(&added, now) };
        row![o.name(), taint("key"), taint("value"), taint("effect"), added, age(o, now)]
    },
);

pub(super) const CLUSTER_TRUST_BUNDLE: Thin = Thin {
    names: NameFormat::PathSegment,
    conditional: true,
    ..plain(|o, _| row![o.name(), or(o.str_at("/spec/signerName"), NONE)])
};
pub(super) const POD_CERTIFICATE_REQUEST: Thin = Thin {
    conditional: true,
    ..plain(|o, _| {
        let spec = |field: &str| o.str_at(&format!("/spec/{field}")).to_owned();
        let known = ["Issued", "Denied", "Failed"];
        let state = known.into_iter().find(|kind| condition(o, kind).is_some()).unwrap_or("Pending");
        let annotations = labels(o.at("/spec/unverifiedUserAnnotations"));
        row![
            o.name(),
            spec("podName"),
            spec("serviceAccountName"),
            spec("nodeName"),
            spec("signerName"),
            state,
            annotations
        ]
    })
};
pub(super) const STORAGE_VERSION_MIGRATION: Thin = Thin {
    conditional: true,
    ..counted(
        |_| {},
        |o, _| {
            let (group, resource) = (o.str_at("/spec/resource/group"), o.str_at("/spec/resource/resource"));
            let shown = if group.is_empty() { resource.into() } else { format!("{resource}.{group}") };
            let known = ["Running", "Failed", "Succeeded"];
            let state = known.into_iter().rfind(|kind| super::cell::is_true(o, kind)).unwrap_or("Unknown");
            row![o.name(), shown, state]
        },
    )
};
pub(super) const API_SERVICE: Thin = Thin {
    validate: aggregation::api_service,
    names: NameFormat::PathSegment,
    ..plain(|o, now| {
        let service = match (o.str_at("/spec/service/namespace"), o.str_at("/spec/service/name")) {
            (_, "") => "Local".into(),
            (namespace, name) => format!("{namespace}/{name}"),
        };
        let available = match condition(o, "Available") {
            Some(c) if text(c, "status") == "True" => "True".into(),
            Some(c) => format!("{} ({})", text(c, "status"), text(c, "reason")),
            None => "Unknown".into(),
        };
        row![o.name(), service, available, age(o, now)]
    })
};

fn controller_cells(o: &Document, now: Timestamp) -> Option<Vec<Value>> {
    let (names, images) = containers(o, "/spec/template/spec/containers");
    row![
        o.name(),
        count(o, "/spec/replicas"),
        count(o, "/status/replicas"),
        count(o, "/status/readyReplicas"),
        age(o, now),
        names,
        images,
        labels(o.at("/spec/selector")),
    ]
}

fn replication_controller(controller: &mut Document) {
    if let Some(labels) = controller.at("/spec/template/metadata/labels").cloned() {
        let empty = |value: Option<&Value>| map(value).next().is_none();
        if empty(controller.at("/spec/selector")) {
            controller.set("/spec/selector", labels.clone());
        }
        if empty(controller.at("/metadata/labels")) {
            controller.set("/metadata/labels", labels);
        }
    }
    // Go leaves this zero out, and the table's default is that zero.
    if controller.i64_at("/spec/minReadySeconds") == Some(0) {
        controller.remove("/spec/minReadySeconds");
    }
    let spec = object(controller.value_mut(), "spec");
    fill(spec, "replicas", 1);
    if let Some(template) = spec.get_mut("template").filter(|t| t.is_object()) {
        pod_spec::template(template);
    }
}

fn resource_quota(quota: &mut Document) {
    if let Some(hard) = quota.at_mut("/spec/hard") {
        pod_spec::resource_list(hard);
    }
}

fn quota_cells(quota: &Document, now: Timestamp) -> Option<Vec<Value>> {
    let used = |name: &str| quota.at("/status/used").map_or("0", |used| or(text(used, name), "0"));
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (name, hard) in map(quota.at("/status/hard")) {
        let shown = format!("{name}: {}/{}", used(name), hard.as_str().unwrap_or_default());
        if name.starts_with("limits.") { limits.push(shown) } else { requests.push(shown) }
    }
    row![quota.name(), requests.join(", "), limits.join(", "), age(quota, now)]
}

/// Defaults follow from the maxima, requests from defaults and minima.
fn limit_range(range: &mut Document) {
    let Some(spec) = range.at_mut("/spec") else { return };
    for item in items_mut(spec, "limits") {
        for (_, list) in item.as_object_mut().into_iter().flatten().filter(|(_, v)| v.is_object()) {
            pod_spec::resource_list(list);
        }
        if text(item, "type") != "Container" {
            continue;
        }
        for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
            let Some(source) = get(item, from).cloned() else { continue };
            let target = object(item, to);
            map(Some(&source)).for_each(|(name, value)| fill(target, name, value.clone()));
        }
    }
}

fn controller(owner: &Value) -> String {
    let group = text(owner, "apiVersion").split_once('/').map_or("", |(group, _)| group);
    let kind = match group {
        "" => text(owner, "kind").to_lowercase(),
        group => format!("{}.{group}", text(owner, "kind").to_lowercase()),
    };
    format!("{kind}/{}", text(owner, "name"))
}

fn hosts(ingress: &Document) -> String {
    let rules = ingress.list_at("/spec/rules");
    let mut shown: Vec<&str> = Vec::new();
    let mut more = false;
    for rule in rules {
        more |= shown.len() == 3;
        if !more && !text(rule, "host").is_empty() {
            shown.push(text(rule, "host"));
        }
    }
    let shown = or(&shown.join(","), "*").to_owned();
    if more { format!("{shown} + {} more...", rules.len().saturating_sub(3)) } else { shown }
}

fn ingress_class(class: &mut Document) {
    if let Some(parameters) = class.at_mut("/spec/parameters").filter(|p| p.is_object()) {
        fill(parameters, "scope", "Cluster");
    }
}

fn parameters(class: &Document) -> String {
    let Some(parameters) = class.at("/spec/parameters").filter(|p| !p.is_null()) else { return NONE.into() };
    let group = get(parameters, "apiGroup").map(|g| format!(".{}", g.as_str().unwrap_or_default()));
    format!("{}{}/{}", text(parameters, "kind"), group.unwrap_or_default(), text(parameters, "name"))
}

fn network_policy(policy: &mut Document) {
    let spec = object(policy.value_mut(), "spec");
    if list(spec, "policyTypes").is_empty() {
        let egress = !list(spec, "egress").is_empty();
        let types = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
        crate::tree::set(spec, "policyTypes", types);
    }
    for direction in ["ingress", "egress"] {
        for rule in items_mut(spec, direction) {
            items_mut(rule, "ports").for_each(|port| fill(port, "protocol", "TCP"));
        }
    }
}

fn parent(address: &Document) -> String {
    let Some(parent) = address.at("/spec/parentRef").filter(|p| !p.is_null()) else { return NONE.into() };
    let group = if text(parent, "group").is_empty() { String::new() } else { format!(".{}", text(parent, "group")) };
    let mut shown = format!("{}{group}", text(parent, "resource")).to_lowercase();
    for field in ["namespace", "name"] {
        if field == "name" || !text(parent, field).is_empty() {
            shown = format!("{shown}/{}", text(parent, field));
        }
    }
    shown
}

fn csi_driver(driver: &mut Document) {
    let spec = object(driver.value_mut(), "spec");
    fill(spec, "attachRequired", true);
    let off =
        ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount", "preventPodSchedulingIfMissing"];
    off.iter().for_each(|field| fill(spec, field, false));
    fill(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    if list(spec, "volumeLifecycleModes").is_empty() {
        crate::tree::set(spec, "volumeLifecycleModes", json!(["Persistent"]));
    }
}

pub(super) fn match_resources(resources: &mut Value) {
    fill(resources, "matchPolicy", "Equivalent");
    fill(resources, "namespaceSelector", json!({}));
    fill(resources, "objectSelector", json!({}));
}

fn priority_level(level: &mut Document) {
    let spec = object(level.value_mut(), "spec");
    if let Some(exempt) = spec.get_mut("exempt").filter(|e| e.is_object()) {
        fill(exempt, "nominalConcurrencyShares", 0);
        fill(exempt, "lendablePercent", 0);
    }
    let Some(limited) = spec.get_mut("limited").filter(|l| l.is_object()) else { return };
    fill(limited, "nominalConcurrencyShares", 30);
    fill(limited, "lendablePercent", 0);
    if let Some(queuing) = limited.pointer_mut("/limitResponse/queuing").filter(|q| q.is_object()) {
        fill_number(queuing, "handSize", 8);
        fill_number(queuing, "queues", 64);
        fill_number(queuing, "queueLengthLimit", 50);
    }
}

fn devices(claim: &mut Document, pointer: &str) {
    let Some(devices) = claim.at_mut(pointer) else { return };
    let request = |request: &mut Value| {
        fill(request, "allocationMode", "ExactCount");
        if text(request, "allocationMode") == "ExactCount" {
            fill_number(request, "count", 1);
        }
    };
    for each in items_mut(devices, "requests") {
        if let Some(exactly) = each.get_mut("exactly").filter(|e| e.is_object()) {
            request(exactly);
        }
        items_mut(each, "firstAvailable").for_each(request);
    }
}

fn claim_state(claim: &Document) -> String {
    let allocated = claim.at("/status/allocation").is_some_and(|a| !a.is_null());
    let reserved = allocated && !claim.list_at("/status/reservedFor").is_empty();
    let states = [
        (claim.deleting(), "deleted"),
        (!allocated && !claim.deleting(), "pending"),
        (allocated, "allocated"),
        (reserved, "reserved"),
    ];
    states.iter().filter(|(is, _)| *is).map(|(_, state)| *state).collect::<Vec<_>>().join(",")
}
