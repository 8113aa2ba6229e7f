//! Security contexts of pods and containers.

use serde_json::Value;

use super::mount::descending;
use crate::field::{Error, Errors, Path};
use crate::tree::{flag, get, list, number, text, texts};
use crate::validation::{invalid_each, one_of, supported, text as names};

/// A container's security context.
pub(super) fn container(context: Option<&Value>, path: &Path) -> Errors {
    let Some(context) = context else { return Errors::new() };
    let mut errors = ids(context, &["runAsUser", "runAsGroup"], path);
    if let Some(mount) = get(context, "procMount").and_then(Value::as_str) {
        errors.extend(supported(mount, &path.child("procMount"), &["Default", "Unmasked"]));
    }
    errors.extend(seccomp(get(context, "seccompProfile"), &path.child("seccompProfile")));
    errors.extend(escalation(context, path));
    errors.extend(app_armor(get(context, "appArmorProfile"), &path.child("appArmorProfile")));
    errors
}

fn escalation(context: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    if get(context, "allowPrivilegeEscalation") != Some(&Value::Bool(false)) {
        return errors;
    }
    if flag(context, "privileged") {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        errors.push(Error::invalid(path.clone(), context.clone(), detail));
    }
    let added = get(context, "capabilities").map(|c| texts(c, "add")).unwrap_or_default();
    if added.contains(&"CAP_SYS_ADMIN") {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
        errors.push(Error::invalid(path.clone(), context.clone(), detail));
    }
    errors
}

/// A pod's security context.
pub(super) fn pod(context: Option<&Value>, spec: &Value, path: &Path) -> Errors {
    let Some(context) = context else { return Errors::new() };
    let mut errors = ids(context, &["fsGroup", "runAsUser", "runAsGroup"], path);
    for (i, id) in list(context, "supplementalGroups").iter().filter_map(Value::as_i64).enumerate() {
        errors.extend(invalid_each(&path.child("supplementalGroups").index(i), id, names::numeric_id(id)));
    }
    errors.extend(sysctls(list(context, "sysctls"), spec, &path.child("sysctls")));
    let choices: [(&str, &[&str]); 3] = [
        ("fsGroupChangePolicy", &["Always", "OnRootMismatch"]),
        ("supplementalGroupsPolicy", &["Merge", "Strict"]),
        ("seLinuxChangePolicy", &["MountOption", "Recursive"]),
    ];
    for (field, allowed) in choices {
        if let Some(value) = get(context, field).and_then(Value::as_str) {
            errors.extend(supported(value, &path.child(field), allowed));
        }
    }
    errors.extend(seccomp(get(context, "seccompProfile"), &path.child("seccompProfile")));
    errors.extend(app_armor(get(context, "appArmorProfile"), &path.child("appArmorProfile")));
    errors
}

fn ids(context: &Value, fields: &[&str], path: &Path) -> Errors {
    let present = fields.iter().filter_map(|field| Some((field, number(context, field)?)));
    present.flat_map(|(field, id)| invalid_each(&path.child(field), id, names::numeric_id(id))).collect()
}

fn sysctls(sysctls: &[Value], spec: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let mut seen = Vec::new();
    for (i, sysctl) in sysctls.iter().enumerate() {
        let path = path.index(i).child("name");
        let name = text(sysctl, "name");
        if name.is_empty() {
            errors.push(Error::required(path.clone(), ""));
        } else if !is_sysctl(name) {
            let regex = r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            let detail = format!("must have at most 253 characters and match regex {regex}");
            errors.push(Error::invalid(path.clone(), name, detail));
        } else if seen.contains(&name) {
            errors.push(Error::duplicate(path.clone(), name));
        }
        errors.extend(of_the_host(name, spec).map(|detail| Error::invalid(path, name, detail)));
        seen.push(name);
    }
    errors
}

fn is_sysctl(name: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    let segment = |s: &str| edge(s.chars().next()) && edge(s.chars().last()) && s.chars().all(inner);
    name.len() <= 253 && name.split(['.', '/']).all(segment)
}

/// Why a sysctl of a namespace that the pod shares with its host may not be set.
fn of_the_host(name: &str, spec: &Value) -> Option<&'static str> {
    let name = name.replace('/', ".");
    let ipc = ["kernel.sem", "kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|p| name.starts_with(p));
    if flag(spec, "hostNetwork") && name.starts_with("net.") {
        Some("may not be specified when 'hostNetwork' is true")
    } else if flag(spec, "hostIPC") && ipc {
        Some("may not be specified when 'hostIPC' is true")
    } else {
        None
    }
}

fn seccomp(profile: Option<&Value>, path: &Path) -> Errors {
    let Some(profile) = profile else { return Errors::new() };
    let kind = text(profile, "type");
    let mut errors = match kind {
        "" => vec![Error::required(path.child("type"), "type is required when seccompProfile is set")],
        _ => supported(kind, &path.child("type"), &["Localhost", "RuntimeDefault", "Unconfined"]),
    };
    let file = get(profile, "localhostProfile").and_then(Value::as_str);
    let file_path = path.child("localhostProfile");
    match (kind, file) {
        ("Localhost", None) => {
            errors.push(Error::required(file_path, "must be set when seccomp type is Localhost"));
        }
        ("Localhost", Some(file)) => errors.extend(descending(file, &file_path)),
        (_, Some(_)) => {
            let detail = "can only be set when seccomp type is Localhost";
            errors.push(Error::invalid(file_path, profile.clone(), detail));
        }
        (_, None) => {}
    }
    errors
}

fn app_armor(profile: Option<&Value>, path: &Path) -> Errors {
    let Some(profile) = profile else { return Errors::new() };
    let name = get(profile, "localhostProfile").and_then(Value::as_str);
    let name_path = path.child("localhostProfile");
    match (text(profile, "type"), name) {
        ("Localhost", None | Some("")) => {
            vec![Error::required(name_path, "must be set when AppArmor type is Localhost")]
        }
        ("Localhost", Some(name)) if name.trim() != name => {
            vec![Error::invalid(name_path, name, "must not be padded with whitespace")]
        }
        ("RuntimeDefault" | "Unconfined", Some(name)) => {
            vec![Error::invalid(name_path, name, "can only be set when AppArmor type is Localhost")]
        }
        ("", _) => vec![Error::required(path.child("type"), "type is required when appArmorProfile is set")],
        (kind, _) => one_of(kind, &path.child("type"), &["Localhost", "RuntimeDefault", "Unconfined"]),
    }
}
