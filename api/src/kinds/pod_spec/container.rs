//! Containers: names, images, ports, environment, mounts.

use serde_json::Value;

use super::context::Context;
use super::handler::lifecycle_and_probes;
use super::resources::{Asker, requirements};
use super::{field_ref, mount, security};
use crate::field::{Error, Errors, Path};
use crate::tree::{flag, get, list, number, text};
use crate::validation::{dns_label, dns_subdomain, invalid_each, one_of, protocol, supported, text as names};

/// The regular containers.
pub(super) fn containers(context: &Context<'_>, path: &Path) -> Errors {
    let containers = list(context.spec, "containers");
    if containers.is_empty() {
        return vec![Error::required(path.clone(), "")];
    }
    let mut errors = Errors::new();
    let mut seen = Vec::new();
    for (i, container) in containers.iter().enumerate() {
        let path = path.index(i);
        errors.extend(common(container, context, &path));
        errors.extend(unique(text(container, "name"), &mut seen, &path));
        errors.extend(lifecycle_and_probes(container, context.grace, &path));
        errors.extend(restart_policy(container, &path));
    }
    errors.extend(host_ports(containers.iter().enumerate(), path));
    errors
}

/// The init containers, sidecars among them.
pub(super) fn init_containers(context: &Context<'_>, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let mut seen: Vec<&str> = list(context.spec, "containers").iter().map(|c| text(c, "name")).collect();
    for (i, container) in list(context.spec, "initContainers").iter().enumerate() {
        let item = path.index(i);
        errors.extend(common(container, context, &item));
        errors.extend(restart_policy(container, &item));
        if !text(container, "name").is_empty() {
            errors.extend(unique(text(container, "name"), &mut seen, &item));
        }
        errors.extend(host_ports(std::iter::once((0, container)), path));
        if text(container, "restartPolicy") == "Always" {
            errors.extend(lifecycle_and_probes(container, context.grace, &item));
            continue;
        }
        let without = "may not be set for init containers without restartPolicy=Always";
        for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if get(container, field).is_some() {
                errors.push(Error::forbidden(item.child(field), without));
            }
        }
    }
    errors
}

/// The ephemeral containers: no ports, probes, hooks or resources.
pub(super) fn ephemeral_containers(context: &Context<'_>, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let others = list(context.spec, "containers").iter().chain(list(context.spec, "initContainers"));
    let targets: Vec<&str> = others.map(|c| text(c, "name")).collect();
    let mut seen = targets.clone();
    for (i, container) in list(context.spec, "ephemeralContainers").iter().enumerate() {
        let path = path.index(i);
        errors.extend(common(container, context, &path));
        errors.extend(untrimmed_image(container, &path));
        errors.extend(unique(text(container, "name"), &mut seen, &path));
        let target = text(container, "targetContainerName");
        if !target.is_empty() && !targets.contains(&target) {
            errors.push(Error::not_found(path.child("targetContainerName"), target));
        }
        errors.extend(not_ephemeral(container, &path));
    }
    errors
}

fn not_ephemeral(container: &Value, path: &Path) -> Errors {
    let detail = "cannot be set for an Ephemeral Container";
    let fields = [
        "ports",
        "resources",
        "resizePolicy",
        "restartPolicy",
        "restartPolicyRules",
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
        "lifecycle",
    ];
    let set = |field: &&&str| {
        get(container, field).is_some_and(|v| v != &serde_json::json!({}) && v.as_array().is_none_or(|a| !a.is_empty()))
    };
    let mut errors: Errors =
        fields.iter().filter(set).map(|field| Error::forbidden(path.child(field), detail)).collect();
    for (i, mount) in list(container, "volumeMounts").iter().enumerate() {
        for field in ["subPath", "subPathExpr"] {
            if !text(mount, field).is_empty() {
                errors.push(Error::forbidden(path.child("volumeMounts").index(i).child(field), detail));
            }
        }
    }
    errors
}

fn unique<'a>(name: &'a str, seen: &mut Vec<&'a str>, path: &Path) -> Errors {
    if seen.contains(&name) {
        return vec![Error::duplicate(path.child("name"), name)];
    }
    seen.push(name);
    Errors::new()
}

/// In a pod (not in a template) images have no space around them.
pub(super) fn untrimmed_image(container: &Value, path: &Path) -> Errors {
    let image = text(container, "image");
    if image.trim() == image {
        return Errors::new();
    }
    vec![Error::invalid(path.child("image"), image, "must not have leading or trailing whitespace")]
}

fn common(container: &Value, context: &Context<'_>, path: &Path) -> Errors {
    let mut errors = match text(container, "name") {
        "" => vec![Error::required(path.child("name"), "")],
        name => dns_label(name, &path.child("name")),
    };
    if text(container, "image").is_empty() {
        errors.push(Error::required(path.child("image"), ""));
    }
    let policies = ["File", "FallbackToLogsOnError"];
    let policy = text(container, "terminationMessagePolicy");
    errors.extend(one_of(policy, &path.child("terminationMessagePolicy"), &policies));
    errors.extend(ports(list(container, "ports"), &path.child("ports")));
    errors.extend(environment(list(container, "env"), &path.child("env")));
    errors.extend(environment_from(list(container, "envFrom"), &path.child("envFrom")));
    errors.extend(mount::mounts(container, &context.volumes, &path.child("volumeMounts")));
    errors.extend(mount::devices(container, &context.volumes, &path.child("volumeDevices")));
    errors.extend(pull_policy(text(container, "imagePullPolicy"), &path.child("imagePullPolicy")));
    let claims = &context.claims;
    errors.extend(requirements(get(container, "resources"), &path.child("resources"), Asker::Container, claims));
    errors.extend(resize_policy(container, text(context.spec, "restartPolicy"), &path.child("resizePolicy")));
    errors.extend(security::container(get(container, "securityContext"), &path.child("securityContext")));
    errors
}

/// When an image is pulled.
pub(super) fn pull_policy(policy: &str, path: &Path) -> Errors {
    one_of(policy, path, &["Always", "IfNotPresent", "Never"])
}

fn ports(ports: &[Value], path: &Path) -> Errors {
    let mut errors = Errors::new();
    let mut seen = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        let name = text(port, "name");
        let messages = if name.is_empty() { Vec::new() } else { names::port_name(name) };
        if !messages.is_empty() {
            errors.extend(invalid_each(&path.child("name"), name, messages));
        } else if !name.is_empty() {
            errors.extend(unique(name, &mut seen, &path));
        }
        match number(port, "containerPort").unwrap_or_default() {
            0 => errors.push(Error::required(path.child("containerPort"), "")),
            n => errors.extend(invalid_each(&path.child("containerPort"), n, names::port_number(n))),
        }
        if let Some(n) = number(port, "hostPort").filter(|n| *n != 0) {
            errors.extend(invalid_each(&path.child("hostPort"), n, names::port_number(n)));
        }
        errors.extend(protocol(text(port, "protocol"), &path.child("protocol")));
    }
    errors
}

fn host_ports<'a>(containers: impl Iterator<Item = (usize, &'a Value)>, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let mut seen = Vec::new();
    for (i, container) in containers {
        for (j, port) in list(container, "ports").iter().enumerate() {
            let Some(number) = number(port, "hostPort").filter(|n| *n != 0) else { continue };
            let key = format!("{}/{}/{number}", text(port, "protocol"), text(port, "hostIP"));
            if seen.contains(&key) {
                let path = path.index(i).child("ports").index(j).child("hostPort");
                errors.push(Error::duplicate(path, key));
            } else {
                seen.push(key);
            }
        }
    }
    errors
}

fn environment(variables: &[Value], path: &Path) -> Errors {
    let mut errors = Errors::new();
    for (i, variable) in variables.iter().enumerate() {
        let path = path.index(i);
        match text(variable, "name") {
            "" => errors.push(Error::required(path.child("name"), "")),
            name => errors.extend(invalid_each(&path.child("name"), name, names::env_name(name))),
        }
        if let Some(source) = get(variable, "valueFrom") {
            errors.extend(value_from(source, text(variable, "value"), &path.child("valueFrom")));
        }
    }
    errors
}

const SOURCES: [&str; 5] = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];

fn value_from(source: &Value, value: &str, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let mut count = 0;
    for (kind, reference) in SOURCES.iter().filter_map(|kind| Some((*kind, get(source, kind)?))) {
        count += 1;
        let path = path.child(kind);
        errors.extend(match kind {
            "fieldRef" => field_ref::of_environment(reference, &path),
            "resourceFieldRef" => field_ref::resource(reference, &path, false),
            "fileKeyRef" => file_key(reference, &path),
            _ => key_selector(reference, &path),
        });
    }
    let detail = match count {
        0 => "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        _ if !value.is_empty() => "may not be specified when `value` is not empty",
        1 => return errors,
        _ => "may not have more than one field specified at a time",
    };
    errors.push(Error::invalid(path.clone(), "", detail));
    errors
}

fn key_selector(reference: &Value, path: &Path) -> Errors {
    let mut errors = dns_subdomain(text(reference, "name"), &path.child("name"));
    match text(reference, "key") {
        "" => errors.push(Error::required(path.child("key"), "")),
        key => errors.extend(invalid_each(&path.child("key"), key, names::config_key(key))),
    }
    errors
}

fn file_key(reference: &Value, path: &Path) -> Errors {
    let mut errors = match text(reference, "key") {
        "" => vec![Error::required(path.child("key"), "")],
        key => invalid_each(&path.child("key"), key, names::env_name(key)),
    };
    errors.extend(match text(reference, "volumeName") {
        "" => vec![Error::required(path.child("volumeName"), "")],
        name => dns_label(name, &path.child("volumeName")),
    });
    errors.extend(match text(reference, "path") {
        "" => vec![Error::required(path.child("path"), "")],
        file => mount::no_backsteps(file, &path.child("path")),
    });
    errors
}

fn environment_from(sources: &[Value], path: &Path) -> Errors {
    let mut errors = Errors::new();
    for (i, source) in sources.iter().enumerate() {
        let item = path.index(i);
        let prefix = text(source, "prefix");
        if !prefix.is_empty() {
            errors.extend(invalid_each(&item.child("prefix"), prefix, names::env_name(prefix)));
        }
        let present: Vec<(&str, &Value)> =
            ["configMapRef", "secretRef"].into_iter().filter_map(|kind| Some((kind, get(source, kind)?))).collect();
        for (kind, reference) in &present {
            let path = item.child(kind).child("name");
            errors.extend(match text(reference, "name") {
                "" => vec![Error::required(path, "")],
                name => dns_subdomain(name, &path),
            });
        }
        let detail = match present.len() {
            0 => "must specify one of: `configMapRef` or `secretRef`",
            1 => continue,
            _ => "may not have more than one field specified at a time",
        };
        errors.push(Error::invalid(path.clone(), "", detail));
    }
    errors
}

fn resize_policy(container: &Value, pod_policy: &str, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let mut seen = Vec::new();
    for (i, policy) in list(container, "resizePolicy").iter().enumerate() {
        let (resource, restart) = (text(policy, "resourceName"), text(policy, "restartPolicy"));
        if seen.contains(&resource) {
            errors.push(Error::duplicate(path.index(i), resource));
        }
        seen.push(resource);
        errors.extend(one_of(resource, path, &["cpu", "memory"]));
        errors.extend(one_of(restart, path, &["NotRequired", "RestartContainer"]));
        if pod_policy == "Never" && restart != "NotRequired" {
            let detail = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            errors.push(Error::invalid(path.clone(), restart, detail));
        }
    }
    errors
}

fn restart_policy(container: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let rules = list(container, "restartPolicyRules");
    match get(container, "restartPolicy").and_then(Value::as_str) {
        None if rules.is_empty() => return errors,
        None => {
            let detail = "must specify restartPolicy when restart rules are used";
            errors.push(Error::required(path.child("restartPolicy"), detail));
        }
        Some(policy) => {
            errors.extend(supported(policy, &path.child("restartPolicy"), &["Always", "Never", "OnFailure"]));
        }
    }
    let rules_path = path.child("restartPolicyRules");
    if rules.len() > 20 {
        errors.push(Error::too_many(rules_path.clone(), rules.len(), 20));
    }
    for (i, rule) in rules.iter().enumerate() {
        let path = rules_path.index(i);
        errors.extend(supported(text(rule, "action"), &path.child("action"), &["Restart", "RestartAllContainers"]));
        match get(rule, "exitCodes") {
            None => errors.push(Error::required(path.child("exitCodes"), "must be specified")),
            Some(codes) => {
                let operator = text(codes, "operator");
                errors.extend(supported(operator, &path.child("exitCodes").child("operator"), &["In", "NotIn"]));
            }
        }
    }
    errors
}

/// Whether a container may do what it likes to the host.
pub(super) fn is_privileged(container: &Value) -> bool {
    get(container, "securityContext").is_some_and(|c| flag(c, "privileged"))
}
