//! Volumes: names and sources.

use serde_json::Value;

use super::container::pull_policy;
use super::field_ref;
use super::mount::{no_backsteps, not_reserved};
use crate::Quantity;
use crate::field::{Error, Errors, Path};
use crate::tree::{get, list, number, text};
use crate::validation::{dns_label, invalid_each, supported, text as names};

/// The kinds of volumes in the order they are looked at. Storage of particular vendors is only counted.
const SOURCES: [&str; 29] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
];

/// What is wrong with a pod's volumes, and those that are sound.
pub(super) fn volumes<'a>(volumes: &'a [Value], path: &Path) -> (Vec<&'a Value>, Errors) {
    let mut errors = Errors::new();
    let mut sound: Vec<&Value> = Vec::new();
    for (i, volume) in volumes.iter().enumerate() {
        let path = path.index(i);
        let name = text(volume, "name");
        let mut own = source(volume, &path);
        own.extend(match name {
            "" => vec![Error::required(path.child("name"), "")],
            name => dns_label(name, &path.child("name")),
        });
        if sound.iter().any(|v| text(v, "name") == name) {
            own.push(Error::duplicate(path.child("name"), name));
        }
        if own.is_empty() {
            sound.push(volume);
        }
        errors.extend(own);
    }
    (sound, errors)
}

fn source(volume: &Value, path: &Path) -> Errors {
    let kinds = SOURCES.iter().chain(&["image"]);
    let mut present = kinds.filter_map(|kind| Some((*kind, get(volume, kind)?)));
    let Some((kind, first)) = present.next() else {
        return vec![Error::required(path.clone(), "must specify a volume type")];
    };
    let mut errors = one_source(kind, first, &path.child(kind));
    for (kind, _) in present {
        errors.push(Error::forbidden(path.child(kind), "may not specify more than 1 volume type"));
    }
    errors
}

fn one_source(kind: &str, source: &Value, path: &Path) -> Errors {
    match kind {
        "emptyDir" => empty_dir(source, path),
        "hostPath" => host_path(source, path),
        "secret" => keyed(source, "secretName", path),
        "configMap" => keyed(source, "name", path),
        "persistentVolumeClaim" => required(source, "claimName", path),
        "nfs" => nfs(source, path),
        "downwardAPI" => {
            let mut errors = mode(source, "defaultMode", path);
            errors.extend(list(source, "items").iter().flat_map(|file| downward_file(file, path)));
            errors
        }
        "projected" => projected(source, path),
        "csi" => required(source, "driver", path),
        "image" => {
            let mut errors = required(source, "reference", path);
            errors.extend(pull_policy(text(source, "pullPolicy"), &path.child("pullPolicy")));
            errors
        }
        "ephemeral" if get(source, "volumeClaimTemplate").is_none() => {
            vec![Error::required(path.child("volumeClaimTemplate"), "")]
        }
        _ => Errors::new(),
    }
}

fn required(source: &Value, field: &str, path: &Path) -> Errors {
    if text(source, field).is_empty() { vec![Error::required(path.child(field), "")] } else { Errors::new() }
}

fn empty_dir(source: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let limit = get(source, "sizeLimit").and_then(Value::as_str).and_then(|text| Quantity::parse(text).ok());
    if limit.is_some_and(|limit| limit.sign() < 0) {
        let detail = "SizeLimit field must be a valid resource quantity";
        errors.push(Error::forbidden(path.child("sizeLimit"), detail));
    }
    if let Some(mode) = number(source, "mode").filter(|mode| !(0..=0o1777).contains(mode)) {
        let detail = "must be a number between 0 and 01777 (octal), both inclusive";
        errors.push(Error::invalid(path.child("mode"), mode, detail));
    }
    errors
}

const HOST_PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

fn host_path(source: &Value, path: &Path) -> Errors {
    match text(source, "path") {
        "" => vec![Error::required(path.child("path"), "")],
        target => {
            let mut errors = no_backsteps(target, &path.child("path"));
            errors.extend(supported(text(source, "type"), &path.child("type"), &HOST_PATH_TYPES));
            errors
        }
    }
}

fn nfs(source: &Value, path: &Path) -> Errors {
    let mut errors = required(source, "server", path);
    errors.extend(required(source, "path", path));
    let target = text(source, "path");
    if !target.is_empty() && !target.starts_with('/') {
        errors.push(Error::invalid(path.child("path"), target, "must be an absolute path"));
    }
    errors
}

fn mode(value: &Value, field: &str, path: &Path) -> Errors {
    match number(value, field) {
        Some(mode) if !(0..=0o777).contains(&mode) => {
            let detail = "must be a number between 0 and 0777 (octal), both inclusive";
            vec![Error::invalid(path.child(field), mode, detail)]
        }
        _ => Errors::new(),
    }
}

/// A secret or config map: a name and some of its keys.
fn keyed(source: &Value, name: &str, path: &Path) -> Errors {
    let mut errors = required(source, name, path);
    errors.extend(mode(source, "defaultMode", path));
    errors.extend(user(source, "defaultUser", path));
    errors.extend(items(source, path));
    errors
}

fn items(source: &Value, path: &Path) -> Errors {
    let items = list(source, "items").iter().enumerate();
    items.flat_map(|(i, item)| key_to_path(item, &path.child("items").index(i))).collect()
}

fn key_to_path(item: &Value, path: &Path) -> Errors {
    let mut errors = required(item, "key", path);
    errors.extend(required(item, "path", path));
    errors.extend(not_reserved(text(item, "path"), &path.child("path")));
    errors.extend(mode(item, "mode", path));
    errors.extend(user(item, "user", path));
    errors
}

fn user(value: &Value, field: &str, path: &Path) -> Errors {
    match number(value, field) {
        Some(id) => invalid_each(&path.child(field), id, names::numeric_id(id)),
        None => Errors::new(),
    }
}

fn downward_file(file: &Value, path: &Path) -> Errors {
    let mut errors = required(file, "path", path);
    errors.extend(not_reserved(text(file, "path"), &path.child("path")));
    match (get(file, "fieldRef"), get(file, "resourceFieldRef")) {
        (Some(field), resource) => {
            errors.extend(field_ref::of_volume(field, &path.child("fieldRef")));
            if resource.is_some() {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(Error::invalid(path.clone(), "resource", detail));
            }
        }
        (None, Some(resource)) => {
            errors.extend(field_ref::resource(resource, &path.child("resourceFieldRef"), true));
        }
        (None, None) => {
            let detail = "one of fieldRef and resourceFieldRef is required";
            errors.push(Error::required(path.clone(), detail));
        }
    }
    errors.extend(mode(file, "mode", path));
    errors
}

fn projected(source: &Value, path: &Path) -> Errors {
    let mut errors = mode(source, "defaultMode", path);
    let mut seen: Vec<&str> = Vec::new();
    for (i, projection) in list(source, "sources").iter().enumerate() {
        let item = path.child("sources").index(i);
        let mut count = 0;
        for kind in
            ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"]
        {
            let Some(value) = get(projection, kind) else { continue };
            count += 1;
            errors.extend(projection_of(kind, value, path, &item.child(kind)));
            errors.extend(conflicting_paths(kind, value, path, &mut seen));
        }
        if count > 1 {
            errors.push(Error::forbidden(item, "may not specify more than 1 volume type per source"));
        }
    }
    errors
}

fn projection_of(kind: &str, value: &Value, volume: &Path, path: &Path) -> Errors {
    match kind {
        "secret" | "configMap" => {
            let mut errors = required(value, "name", path);
            errors.extend(items(value, path));
            errors
        }
        "downwardAPI" => list(value, "items").iter().flat_map(|file| downward_file(file, path)).collect(),
        "serviceAccountToken" => token(value, volume, path),
        "clusterTrustBundle" => {
            let mut errors = required(value, "path", path);
            errors.extend(not_reserved(text(value, "path"), &path.child("path")));
            errors
        }
        _ => Errors::new(),
    }
}

fn token(value: &Value, volume: &Path, path: &Path) -> Errors {
    let expiration = path.child("expirationSeconds");
    let mut errors = match number(value, "expirationSeconds") {
        None => vec![Error::required(expiration, "")],
        Some(n) if n < 600 => {
            vec![Error::invalid(expiration, n, "may not specify a duration less than 10 minutes")]
        }
        Some(n) if n > 1 << 32 => {
            vec![Error::invalid(expiration, n, "may not specify a duration larger than 2^32 seconds")]
        }
        Some(_) => Errors::new(),
    };
    errors.extend(match text(value, "path") {
        "" => vec![Error::required(volume.child("path"), "")],
        target => not_reserved(target, &volume.child("path")),
    });
    errors
}

fn conflicting_paths<'a>(kind: &str, value: &'a Value, path: &Path, seen: &mut Vec<&'a str>) -> Errors {
    let targets: Vec<&str> = match kind {
        "secret" | "configMap" | "downwardAPI" => list(value, "items").iter().map(|i| text(i, "path")).collect(),
        "clusterTrustBundle" => vec![text(value, "path")],
        _ => Vec::new(),
    };
    let mut errors = Errors::new();
    for target in targets.into_iter().filter(|t| !t.is_empty()) {
        if seen.contains(&target) {
            let shown = if matches!(kind, "secret" | "configMap") { text(value, "name") } else { target };
            errors.push(Error::invalid(path.clone(), shown, "conflicting duplicate paths"));
        }
        seen.push(target);
    }
    errors
}
