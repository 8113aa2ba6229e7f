//! What may stand in the kinds of `storage.k8s.io` (`pkg/apis/storage/validation`).

use serde_json::Value;

use super::super::Change;
use super::super::pod_spec::old_label;
use super::super::rule::{Must, Rule, check, keep};
use crate::Document;
use crate::field::{Error, Errors, Path};
use crate::tree::{get, list, text};
use crate::validation::text::{qualified_name, subdomain, subdomain_of_any_case};
use crate::validation::{invalid_each, same};

const STORAGE_CLASS: &[Rule] = &[
    Rule("provisioner", Must::Hold(driver_name)),
    Rule("reclaimPolicy", Must::Pass(reclaim_policy)),
    Rule("volumeBindingMode", Must::Choose(&["Immediate", "WaitForFirstConsumer"])),
    Rule("allowedTopologies[*]", Must::Pass(topology)),
];

/// A `StorageClass`: only what it allows may change.
pub(super) fn storage_class(new: &Document, change: &Change<'_>) -> Errors {
    let mut errors = check(STORAGE_CLASS, new);
    errors.extend(keep(&["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"], false, new, change));
    errors
}

/// Its warnings.
pub(super) fn storage_class_warnings(new: &Document, _: &Change<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    for (i, term) in new.list_at("/allowedTopologies").iter().enumerate() {
        for (j, expression) in list(term, "matchLabelExpressions").iter().enumerate() {
            let path = format!("allowedTopologies[{i}].matchLabelExpressions[{j}].key");
            warnings.extend(old_label(text(expression, "key")).map(|why| format!("{path}: {why}")));
        }
    }
    warnings
}

/// The name of a driver, which upstream checks in lower case.
fn driver_name(name: &Value, path: &Path) -> Errors {
    match name.as_str().unwrap_or_default().to_lowercase() {
        name if name.is_empty() => vec![Error::required(path.clone(), "")],
        name => invalid_each(path, name.as_str(), qualified_name(&name)),
    }
}

fn reclaim_policy(policy: &Value, path: &Path) -> Errors {
    match policy.as_str().unwrap_or_default() {
        "" | "Delete" | "Retain" => Errors::new(),
        other => vec![Error::not_supported(path.clone(), other, &["Delete", "Retain"])],
    }
}

fn topology(term: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let path = path.child("matchLabelExpressions");
    for (i, expression) in list(term, "matchLabelExpressions").iter().enumerate() {
        let path = path.index(i);
        if list(expression, "values").is_empty() {
            errors.push(Error::required(path.child("values"), ""));
        }
        let key = text(expression, "key");
        errors.extend(invalid_each(&path.child("key"), key, qualified_name(key)));
    }
    errors
}

const CSI_DRIVER: &[Rule] = &[
    Rule("spec!.volumeLifecycleModes", Must::Pass(lifecycle_modes)),
    Rule("spec!.fsGroupPolicy", Must::Within(&["File", "None", "ReadWriteOnceWithFSType"])),
];

/// A `CSIDriver`.
pub(super) fn csi_driver(new: &Document, change: &Change<'_>) -> Errors {
    let mut errors = Errors::new();
    let name = new.name();
    if name.len() > 63 {
        errors.push(Error::too_long(Path::new("metadata").child("name"), 63));
    }
    errors.extend(check(CSI_DRIVER, new));
    let mut kept = keep(&["spec.attachRequired", "spec.volumeLifecycleModes"], true, new, change);
    // Upstream's path has a letter more.
    kept.iter_mut().filter(|e| e.path.to_string() == "spec.attachRequired").for_each(|e| {
        e.path = Path::new("spec").child("attachedRequired");
    });
    errors.extend(kept);
    errors
}

fn lifecycle_modes(modes: &Value, path: &Path) -> Errors {
    let allowed = ["Persistent", "Ephemeral"];
    let modes = modes.as_array().map_or(&[][..], Vec::as_slice);
    let bad = modes.iter().filter(|mode| !mode.as_str().is_some_and(|mode| allowed.contains(&mode)));
    bad.map(|mode| Error::not_supported(path.clone(), mode.clone(), &allowed)).collect()
}

/// Warnings about a `CSIDriver` that gives its tokens away.
pub(super) fn csi_driver_warnings(new: &Document, change: &Change<'_>) -> Vec<String> {
    let spec = new.at("/spec").unwrap_or(&Value::Null);
    let requests = "/spec/tokenRequests";
    if change.old.is_some_and(|old| same(old.at(requests), new.at(requests))) {
        return Vec::new();
    }
    let unset = !list(spec, "tokenRequests").is_empty() && get(spec, "serviceAccountTokenInSecrets").is_none();
    let told = "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent \
                possible logging of tokens in volume attributes";
    if unset { vec![told.into()] } else { Vec::new() }
}

const CSI_NODE: &[Rule] = &[
    Rule("spec!.drivers[*].name", Must::Hold(csi_name)),
    Rule("spec!.drivers[*].nodeID", Must::Be("")),
    Rule("spec!.drivers[*].allocatable.count", Must::AtLeast(0, "must be greater than or equal to 0")),
    Rule("spec!.drivers[*]", Must::Pass(topology_keys)),
];

/// A `CSINode`.
pub(super) fn csi_node(new: &Document, change: &Change<'_>) -> Errors {
    let mut errors = check(CSI_NODE, new);
    let drivers = new.list_at("/spec/drivers");
    for old in change.old.map(|old| old.list_at("/spec/drivers")).unwrap_or_default() {
        let now = drivers.iter().find(|d| text(d, "name") == text(old, "name"));
        let kept = |now: &&Value| ["nodeID", "topologyKeys"].iter().any(|f| !same(now.get(f), old.get(f)));
        let changed = now.filter(kept);
        let path = Path::new("spec").child("drivers");
        errors.extend(changed.map(|now| Error::invalid(path, now.clone(), "field is immutable")));
    }
    errors
}

fn csi_name(name: &Value, path: &Path) -> Errors {
    match name.as_str().unwrap_or_default() {
        "" => vec![Error::required(path.clone(), "")],
        name if name.len() > 63 => vec![Error::too_long(path.clone(), 63)],
        name => invalid_each(path, name, subdomain(&name.to_lowercase())),
    }
}

fn topology_keys(driver: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    for key in list(driver, "topologyKeys").iter().filter_map(Value::as_str) {
        if key.is_empty() {
            errors.push(Error::required(path.clone(), ""));
        }
        errors.extend(invalid_each(path, key, qualified_name(key)));
    }
    errors
}

const CSI_STORAGE_CAPACITY: &[Rule] =
    &[Rule("storageClassName", Must::Hold(class_name)), Rule("nodeTopology", Must::Selector)];

/// A `CSIStorageCapacity`: only the numbers may change.
pub(super) fn csi_storage_capacity(new: &Document, change: &Change<'_>) -> Errors {
    let mut errors = check(CSI_STORAGE_CAPACITY, new);
    errors.extend(keep(&["storageClassName", "nodeTopology"], true, new, change));
    errors
}

fn class_name(name: &Value, path: &Path) -> Errors {
    let name = name.as_str().unwrap_or_default();
    invalid_each(path, name, subdomain(name))
}

const VOLUME_ATTACHMENT: &[Rule] = &[
    Rule("spec!.attacher", Must::Be("")),
    Rule("spec!.source", Must::Hold(source)),
    Rule("spec!.source!.persistentVolumeName", Must::Pass(volume_name)),
    Rule("spec!.nodeName", Must::Hold(class_name)),
];

/// A `VolumeAttachment`: it does not change.
pub(super) fn volume_attachment(new: &Document, change: &Change<'_>) -> Errors {
    let mut errors = check(VOLUME_ATTACHMENT, new);
    let attacher = new.str_at("/spec/attacher");
    let path = Path::new("spec").child("attacher");
    if !attacher.is_empty() && change.old.is_none() {
        errors.extend(invalid_each(&path, attacher, subdomain_of_any_case(attacher)));
    } else if !attacher.is_empty() {
        errors.extend(invalid_each(&path, attacher, subdomain(&attacher.to_lowercase())));
    }
    errors.extend(keep(&["spec"], false, new, change));
    errors
}

fn source(source: &Value, path: &Path) -> Errors {
    match (get(source, "persistentVolumeName"), get(source, "inlineVolumeSpec")) {
        (Some(name), None) if name == "" => {
            let path = path.child("persistentVolumeName");
            vec![Error::required(path, "must specify non empty persistentVolumeName")]
        }
        (Some(_), None) | (None, Some(_)) => Errors::new(),
        _ => {
            let detail = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
            vec![Error::required(path.clone(), detail)]
        }
    }
}

fn volume_name(name: &Value, path: &Path) -> Errors {
    class_name(name, path)
}

const VOLUME_ATTRIBUTES_CLASS: &[Rule] =
    &[Rule("driverName", Must::Hold(driver_name)), Rule("parameters", Must::Hold(some_parameters))];

/// A `VolumeAttributesClass`: it does not change.
pub(super) fn volume_attributes_class(new: &Document, change: &Change<'_>) -> Errors {
    let mut errors = Errors::new();
    for field in ["driverName", "parameters"] {
        let pointer = format!("/{field}");
        if change.old.is_some_and(|old| !same(old.at(&pointer), new.at(&pointer))) {
            errors.push(Error::forbidden(Path::new(field), format!("updates to {field} are forbidden.")));
        }
    }
    errors.extend(check(VOLUME_ATTRIBUTES_CLASS, new));
    errors
}

fn some_parameters(parameters: &Value, path: &Path) -> Errors {
    let some = parameters.as_object().is_some_and(|map| !map.is_empty());
    let detail = "must contain at least one key/value pair";
    if some { Errors::new() } else { vec![Error::required(path.clone(), detail)] }
}

#[cfg(test)]
mod tests {
    use super::super::{STORAGE_CLASS, VOLUME_ATTACHMENT};
    use crate::Document;
    use crate::kinds::tests::{create, update};
    use serde_json::{Value, json};

    fn object(value: Value) -> Document {
        Document::new(value).unwrap_or_default()
    }

    #[test]
    fn a_class_names_its_provisioner_and_keeps_it() {
        let class = |name: &str| object(json!({ "provisioner": name }));
        assert_eq!(create(&STORAGE_CLASS, class("example.com/P")), Vec::<String>::new());
        assert_eq!(create(&STORAGE_CLASS, class("")), ["provisioner: Required value"]);
        let (_, errors) = update(&STORAGE_CLASS, "", class("b.c/d"), class("a.b/c"));
        assert_eq!(errors, ["provisioner: Invalid value: null: field is immutable"]);
    }

    #[test]
    fn an_attachment_has_one_source() {
        let attach = |source: Value| object(json!({"spec": {"attacher": "a", "nodeName": "n", "source": source}}));
        assert_eq!(create(&VOLUME_ATTACHMENT, attach(json!({"persistentVolumeName": "v"}))), Vec::<String>::new());
        let detail = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
        assert_eq!(create(&VOLUME_ATTACHMENT, attach(json!({}))), [format!("spec.source: Required value: {detail}")]);
    }
}
