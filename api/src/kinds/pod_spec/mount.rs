//! Volume mounts and devices of a container, and paths in volumes.

use serde_json::Value;

use super::container::is_privileged;
use crate::field::{Error, Errors, Path};
use crate::tree::{flag, get, list, text};
use crate::validation::supported;

/// The mounts of a container. `volumes` are those of the pod that are sound.
pub(super) fn mounts(container: &Value, volumes: &[&Value], path: &Path) -> Errors {
    let mut errors = Errors::new();
    let mut seen = Vec::new();
    let devices = list(container, "volumeDevices");
    for (i, mount) in list(container, "volumeMounts").iter().enumerate() {
        let item = path.index(i);
        let (name, target) = (text(mount, "name"), text(mount, "mountPath"));
        if name.is_empty() {
            errors.push(Error::required(item.child("name"), ""));
        }
        if !volumes.iter().any(|v| text(v, "name") == name) {
            errors.push(Error::not_found(item.child("name"), name));
        }
        if target.is_empty() {
            errors.push(Error::required(item.child("mountPath"), ""));
        }
        if seen.contains(&target) {
            errors.push(Error::invalid(item.child("mountPath"), target, "must be unique"));
        }
        seen.push(target);
        if devices.iter().any(|d| text(d, "name") == name) {
            errors.push(Error::invalid(item.child("name"), name, "must not already exist in volumeDevices"));
        }
        if devices.iter().any(|d| text(d, "devicePath") == target) {
            let detail = "must not already exist as a path in volumeDevices";
            errors.push(Error::invalid(item.child("mountPath"), target, detail));
        }
        errors.extend(sub_path(mount, &item, path));
        errors.extend(propagation(mount, container, path));
    }
    errors
}

fn sub_path(mount: &Value, item: &Path, path: &Path) -> Errors {
    let (plain, expression) = (text(mount, "subPath"), text(mount, "subPathExpr"));
    let mut errors = Errors::new();
    if !plain.is_empty() {
        errors.extend(descending(plain, &path.child("subPath")));
    }
    if !expression.is_empty() {
        if !plain.is_empty() {
            let detail = "subPathExpr and subPath are mutually exclusive";
            errors.push(Error::invalid(item.child("subPathExpr"), expression, detail));
        }
        errors.extend(descending(expression, &path.child("subPathExpr")));
    }
    errors
}

fn propagation(mount: &Value, container: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let mode = get(mount, "mountPropagation").and_then(Value::as_str);
    if let Some(mode) = mode {
        let path = path.child("mountPropagation");
        errors.extend(supported(mode, &path, &["Bidirectional", "HostToContainer", "None"]));
        if mode == "Bidirectional" && !is_privileged(container) {
            let detail = "Bidirectional mount propagation is available only to privileged containers";
            errors.push(Error::forbidden(path, detail));
        }
    }
    if let Some(recursive) = get(mount, "recursiveReadOnly").and_then(Value::as_str) {
        let path = path.child("recursiveReadOnly");
        errors.extend(supported(recursive, &path, &["Disabled", "Enabled", "IfPossible"]));
        let asks = matches!(recursive, "Enabled" | "IfPossible");
        if asks && !flag(mount, "readOnly") {
            errors.push(Error::forbidden(path.clone(), "may only be specified when readOnly is true"));
        }
        if asks && mode.is_some_and(|mode| mode != "None") {
            let detail = "may only be specified when mountPropagation is None or not specified";
            errors.push(Error::forbidden(path, detail));
        }
    }
    errors
}

/// The block devices of a container.
pub(super) fn devices(container: &Value, volumes: &[&Value], path: &Path) -> Errors {
    let mut errors = Errors::new();
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (i, device) in list(container, "volumeDevices").iter().enumerate() {
        let item = path.index(i);
        let (name, target) = (text(device, "name"), text(device, "devicePath"));
        if name.is_empty() {
            errors.push(Error::required(item.child("name"), ""));
        }
        if seen.iter().any(|(n, _)| *n == name) {
            errors.push(Error::invalid(item.child("name"), name, "must be unique"));
        }
        match volumes.iter().find(|v| text(v, "name") == name) {
            None => errors.push(Error::not_found(item.child("name"), name)),
            Some(v) if get(v, "persistentVolumeClaim").is_none() && get(v, "ephemeral").is_none() => {
                let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.push(Error::invalid(item.child("name"), name, detail));
            }
            Some(_) => {}
        }
        if target.is_empty() {
            errors.push(Error::required(item.child("devicePath"), ""));
        } else if seen.iter().any(|(_, t)| *t == target) {
            errors.push(Error::invalid(item.child("devicePath"), target, "must be unique"));
        } else {
            errors.extend(no_backsteps(target, &item.child("devicePath")));
        }
        seen.push((name, target));
    }
    errors
}

/// A relative path without `..`.
pub(super) fn descending(target: &str, path: &Path) -> Errors {
    let mut errors = Errors::new();
    if target.starts_with('/') {
        errors.push(Error::invalid(path.clone(), target, "must be a relative path"));
    }
    errors.extend(no_backsteps(target, path));
    errors
}

/// A path without `..`.
pub(super) fn no_backsteps(target: &str, path: &Path) -> Errors {
    if target.split('/').any(|part| part == "..") {
        return vec![Error::invalid(path.clone(), target, "must not contain '..'")];
    }
    Errors::new()
}

/// A relative path without `..` that does not start with two dots either: those names are the atomic writer's.
pub(super) fn not_reserved(target: &str, path: &Path) -> Errors {
    let mut errors = descending(target, path);
    if target.starts_with("..") && target != ".." && !target.starts_with("../") {
        errors.push(Error::invalid(path.clone(), target, "must not start with '..'"));
    }
    errors
}
