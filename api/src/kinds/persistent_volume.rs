//! PersistentVolume and PersistentVolumeClaim: thin, since no storage is provisioned here.

use serde_json::{Value, json};

use super::cell::{self, UNSET, or, row};
use super::rule::{Must, Rule, check};
use super::{Change, Operation, Rules, pod_spec};
use crate::field::{Error, Errors, Path};
use crate::tree::{fill, get, list, map, object, text, texts};
use crate::validation::text::subdomain;
use crate::validation::{immutable, invalid_each, same, supported};
use crate::{Document, Timestamp, time};

/// Rules of `v1 PersistentVolume`.
pub(super) struct PersistentVolume;
/// Rules of `v1 PersistentVolumeClaim`.
pub(super) struct PersistentVolumeClaim;

const MODES: [(&str, &str); 4] =
    [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];

/// Where a volume may come from: exactly one of these.
const SOURCES: [&str; 22] = [
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "csi",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "glusterfs",
    "hostPath",
    "iscsi",
    "local",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

const VOLUME: &[Rule] = &[
    Rule("spec!", Must::Hold(one_source)),
    Rule("spec!.volumeMode", Must::Within(&["Block", "Filesystem"])),
    Rule("spec!.storageClassName", Must::Maybe(subdomain)),
    Rule("spec!.csi.driver", Must::Hold(csi_driver)),
    Rule("spec!.csi.volumeHandle", Must::Be("")),
    Rule("spec!.nodeAffinity.required", Must::Be("must specify required node constraints")),
    Rule("spec!.nodeAffinity.required.nodeSelectorTerms", Must::Be("must have at least one node selector term")),
];
const CLAIM: &[Rule] = &[
    Rule("spec!.selector", Must::Selector),
    Rule("spec!.storageClassName", Must::Maybe(subdomain)),
    Rule("spec!.volumeMode", Must::Within(&["Block", "Filesystem"])),
    Rule("spec!.dataSourceRef.name", Must::Be("")),
    Rule("spec!.dataSourceRef.kind", Must::Be("")),
];

fn one_source(spec: &Value, path: &Path) -> Errors {
    let mut found = SOURCES.iter().filter(|source| get(spec, source).is_some());
    if found.next().is_none() {
        return vec![Error::required(path.clone(), "must specify a volume type")];
    }
    found.map(|more| Error::forbidden(path.child(more), "may not specify more than 1 volume type")).collect()
}

fn csi_driver(name: &Value, path: &Path) -> Errors {
    match name.as_str().unwrap_or_default() {
        "" => vec![Error::required(path.clone(), "")],
        name => invalid_each(path, name, subdomain(&name.to_lowercase())),
    }
}

impl Rules for PersistentVolume {
    fn default(&self, volume: &mut Document) {
        let spec = object(volume.value_mut(), "spec");
        fill(spec, "persistentVolumeReclaimPolicy", "Retain");
        fill(spec, "volumeMode", "Filesystem");
        if let Some(capacity) = spec.get_mut("capacity") {
            pod_spec::resource_list(capacity);
        }
        if let Some(host_path) = spec.get_mut("hostPath").filter(|h| h.is_object()) {
            fill(host_path, "type", "");
        }
        fill(object(volume.value_mut(), "status"), "phase", "Pending");
    }

    fn prepare(&self, new: &mut Document, change: &Change<'_>) {
        if change.operation == Operation::Create {
            let now = time::rfc3339(change.now);
            new.set("/status", json!({"phase": "Pending", "lastPhaseTransitionTime": now}));
        }
    }

    fn validate(&self, new: &Document, change: &Change<'_>) -> Errors {
        if change.subresource == "status" {
            return Errors::new();
        }
        let (spec, path) = (new.at("/spec").unwrap_or(&Value::Null), Path::new("spec"));
        let mut errors = access_modes(spec, "", &path);
        let capacity = path.child("capacity");
        let names: Vec<&str> = map(get(spec, "capacity")).map(|(name, _)| name.as_str()).collect();
        if names.is_empty() {
            errors.push(Error::required(capacity.clone(), ""));
        }
        if names != ["storage"] {
            let value = spec.get("capacity").cloned().unwrap_or_default();
            errors.push(Error::not_supported(capacity, value, &["storage"]));
        }
        errors.extend(check(VOLUME, new));
        let policy = text(spec, "persistentVolumeReclaimPolicy");
        let allowed = ["Delete", "Recycle", "Retain"];
        errors.extend(supported(policy, &path.child("persistentVolumeReclaimPolicy"), &allowed));
        if let Some(old) = change.old {
            let before = old.at("/spec").unwrap_or(&Value::Null);
            if SOURCES.iter().any(|source| !same(spec.get(source), before.get(source))) {
                let detail =
                    "spec.persistentvolumesource is immutable after creation\n@@ spec.persistentvolumesource @@";
                errors.push(Error::forbidden(path.child("persistentvolumesource"), detail));
            }
            errors.extend(same_mode(new, old));
            let (affinity, kept) = (spec.get("nodeAffinity"), get(before, "nodeAffinity"));
            if kept.is_some() && !same(affinity, kept) {
                let detail = "field is immutable, except for updating from beta label to GA";
                let value = affinity.cloned().unwrap_or_default();
                errors.push(Error::invalid(Path::new("nodeAffinity"), value, detail));
            }
        }
        errors
    }

    fn selectable(&self, volume: &Document) -> Vec<(&'static str, String)> {
        vec![("name", volume.name().into())]
    }

    fn cells(&self, volume: &Document, now: Timestamp) -> Option<Vec<Value>> {
        let spec = volume.at("/spec").unwrap_or(&Value::Null);
        let claim = get(spec, "claimRef").map(|c| format!("{}/{}", text(c, "namespace"), text(c, "name")));
        row![
            volume.name(),
            or(volume.str_at("/spec/capacity/storage"), "0"),
            modes(list(spec, "accessModes")),
            text(spec, "persistentVolumeReclaimPolicy"),
            phase(volume),
            claim.unwrap_or_default(),
            class(volume),
            or(text(spec, "volumeAttributesClassName"), UNSET),
            volume.str_at("/status/reason"),
            cell::age(volume, now),
            or(text(spec, "volumeMode"), UNSET),
        ]
    }
}

impl Rules for PersistentVolumeClaim {
    fn default(&self, claim: &mut Document) {
        pod_spec::claim_spec(object(claim.value_mut(), "spec"));
        fill(object(claim.value_mut(), "status"), "phase", "Pending");
    }

    fn prepare(&self, new: &mut Document, change: &Change<'_>) {
        if change.operation == Operation::Create {
            new.set("/status", json!({"phase": "Pending"}));
        }
        if let Some(spec) = new.at_mut("/spec") {
            sources(spec);
        }
    }

    fn validate(&self, new: &Document, change: &Change<'_>) -> Errors {
        if change.subresource == "status" {
            return Errors::new();
        }
        let (spec, path) = (new.at("/spec").unwrap_or(&Value::Null), Path::new("spec"));
        let mut errors = access_modes(spec, "at least 1 access mode is required", &path);
        errors.extend(check(CLAIM, new));
        if new.at("/spec/resources/requests/storage").is_none() {
            errors.push(Error::required(path.child("resources").key("storage"), ""));
        }
        if let Some(old) = change.old {
            errors.extend(unchanged(new, old, path));
            errors.extend(same_mode(new, old));
        }
        errors
    }

    fn selectable(&self, claim: &Document) -> Vec<(&'static str, String)> {
        vec![("name", claim.name().into())]
    }

    fn cells(&self, claim: &Document, now: Timestamp) -> Option<Vec<Value>> {
        let spec = claim.at("/spec").unwrap_or(&Value::Null);
        let volume = text(spec, "volumeName");
        let bound = !volume.is_empty();
        let capacity = or(claim.str_at("/status/capacity/storage"), "0");
        row![
            claim.name(),
            phase(claim),
            volume,
            if bound { capacity } else { "" },
            if bound { modes(claim.list_at("/status/accessModes")) } else { String::new() },
            class(claim),
            or(text(spec, "volumeAttributesClassName"), UNSET),
            cell::age(claim, now),
            or(text(spec, "volumeMode"), UNSET),
        ]
    }
}

/// `dataSource` and `dataSourceRef` say the same, unless the latter is in another namespace.
fn sources(spec: &mut Value) {
    match (get(spec, "dataSource").cloned(), get(spec, "dataSourceRef").cloned()) {
        (Some(source), None) => crate::tree::set(spec, "dataSourceRef", source),
        (None, Some(reference)) if text(&reference, "namespace").is_empty() => {
            crate::tree::set(spec, "dataSource", reference);
        }
        _ => {}
    }
}

fn access_modes(spec: &Value, missing: &str, path: &Path) -> Errors {
    let path = path.child("accessModes");
    let modes = texts(spec, "accessModes");
    if modes.is_empty() {
        return vec![Error::required(path, missing)];
    }
    let allowed = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    let mut errors: Errors = modes.iter().flat_map(|mode| supported(mode, &path, &allowed)).collect();
    if modes.len() > 1 && modes.contains(&"ReadWriteOncePod") {
        let detail = "may not use ReadWriteOncePod with other access modes";
        errors.push(Error::forbidden(path, detail));
    }
    errors
}

/// The mode stays. Upstream leaves `spec` out of the path.
fn same_mode(new: &Document, old: &Document) -> Errors {
    let mode = "/spec/volumeMode";
    immutable(new.at(mode), old.at(mode), &Path::new("volumeMode"))
}

/// A claim's spec may only be bound; when it is, ask for another size or class of attributes.
fn unchanged(new: &Document, old: &Document, path: Path) -> Option<Error> {
    let mut munged = new.at("/spec").cloned().unwrap_or_default();
    let before = old.at("/spec").unwrap_or(&Value::Null);
    if new.str_at("/status/phase") == "Bound" {
        for field in ["resources", "volumeAttributesClassName"] {
            crate::tree::replace(&mut munged, field, before.get(field).cloned());
        }
    }
    if text(before, "volumeName").is_empty() {
        crate::tree::replace(&mut munged, "volumeName", before.get("volumeName").cloned());
    }
    if get(before, "storageClassName").is_none() {
        crate::tree::replace(&mut munged, "storageClassName", None);
    }
    let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound \
                  claims\n@@ spec @@";
    (!same(Some(&munged), Some(before))).then(|| Error::forbidden(path, detail))
}

fn modes(modes: &[Value]) -> String {
    let has = |mode: &str| modes.iter().any(|m| m == mode);
    MODES.iter().filter(|(mode, _)| has(mode)).map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

fn phase(object: &Document) -> &str {
    if object.deleting() { "Terminating" } else { object.str_at("/status/phase") }
}

fn class(object: &Document) -> &str {
    let annotated = object.annotation("volume.beta.kubernetes.io/storage-class");
    annotated.unwrap_or_else(|| object.str_at("/spec/storageClassName"))
}
