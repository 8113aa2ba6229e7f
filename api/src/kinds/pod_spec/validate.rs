//! What is wrong with a PodSpec (`pkg/apis/core/validation/validation.go`), in upstream's order.

use serde_json::Value;

use super::context::Context;
use super::resources::{Asker, requirements};
use super::{container, scheduling, security, volume};
use crate::field::{Error, Errors, Path};
use crate::tree::{flag, get, list, number, text, texts};
use crate::validation::labels::labels;
use crate::validation::{self, address, dns_label, dns_subdomain, one_of, qualified_name, supported};

/// A PodSpec anywhere; `in_pod` for a pod's own, which is stricter than a template's.
pub(crate) fn spec(spec: &Value, path: &Path, in_pod: bool) -> Errors {
    let (volumes, mut errors) = volume::volumes(list(spec, "volumes"), &path.child("volumes"));
    let context = Context::new(spec, volumes);
    errors.extend(claims(list(spec, "resourceClaims"), &path.child("resourceClaims")));
    errors.extend(container::containers(&context, &path.child("containers")));
    errors.extend(container::init_containers(&context, &path.child("initContainers")));
    errors.extend(container::ephemeral_containers(&context, &path.child("ephemeralContainers")));
    errors.extend(requirements(get(spec, "resources"), &path.child("resources"), Asker::Pod, &context.claims));
    errors.extend(host_network_ports(spec, path, in_pod));
    let policies = ["Always", "OnFailure", "Never"];
    errors.extend(one_of(text(spec, "restartPolicy"), &path.child("restartPolicy"), &policies));
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    errors.extend(one_of(text(spec, "dnsPolicy"), &path.child("dnsPolicy"), &policies));
    errors.extend(labels(get(spec, "nodeSelector"), &path.child("nodeSelector")));
    errors.extend(security::pod(get(spec, "securityContext"), spec, &path.child("securityContext")));
    errors.extend(shared_processes(spec, path));
    if let Some(affinity) = get(spec, "affinity") {
        errors.extend(scheduling::affinity(affinity, &path.child("affinity")));
    }
    errors.extend(dns_config(spec, &path.child("dnsConfig")));
    errors.extend(gates(spec, path));
    let constraints = list(spec, "topologySpreadConstraints");
    errors.extend(scheduling::spread(constraints, &path.child("topologySpreadConstraints")));
    errors.extend(host_users(spec, path));
    errors.extend(names(spec, path));
    errors
}

/// What a pod's own spec must keep besides.
pub(crate) fn only_in_pod(spec: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    if text(spec, "serviceAccountName").is_empty() {
        for (i, volume) in list(spec, "volumes").iter().enumerate() {
            let sources = get(volume, "projected").map_or(&[] as &[Value], |p| list(p, "sources"));
            for (j, _) in sources.iter().enumerate().filter(|(_, s)| get(s, "serviceAccountToken").is_some()) {
                let path = path.child("volumes").index(i).child("projected").child("sources").index(j);
                let detail = "must not be specified when serviceAccountName is not set";
                errors.push(Error::forbidden(path.child("serviceAccountToken"), detail));
            }
        }
    }
    let grace = "terminationGracePeriodSeconds";
    errors.extend(validation::non_negative(number(spec, grace), &path.child(grace)));
    for kind in ["containers", "initContainers"] {
        for (i, container) in list(spec, kind).iter().enumerate() {
            errors.extend(container::untrimmed_image(container, &path.child(kind).index(i)));
        }
    }
    errors
}

fn claims(claims: &[Value], path: &Path) -> Errors {
    let mut errors = Errors::new();
    let mut seen = Vec::new();
    for (i, claim) in claims.iter().enumerate() {
        let path = path.index(i);
        let name = text(claim, "name");
        errors.extend(match name {
            "" => vec![Error::required(path.child("name"), "")],
            name if seen.contains(&name) => vec![Error::duplicate(path.child("name"), name)],
            name => dns_label(name, &path.child("name")),
        });
        seen.push(name);
        let of = |field: &str| get(claim, field).is_some();
        let detail = match (of("resourceClaimName"), of("resourceClaimTemplateName")) {
            (true, true) => "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
            (false, false) => "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            _ => continue,
        };
        errors.push(Error::invalid(path, claim.clone(), detail));
    }
    errors
}

fn host_network_ports(spec: &Value, path: &Path, in_pod: bool) -> Errors {
    let mut errors = Errors::new();
    if !flag(spec, "hostNetwork") {
        return errors;
    }
    for (i, container) in list(spec, "containers").iter().enumerate() {
        for (j, port) in list(container, "ports").iter().enumerate() {
            let host = number(port, "hostPort").unwrap_or_default();
            if (in_pod || host != 0) && host != number(port, "containerPort").unwrap_or_default() {
                let path = path.child("containers").index(i).child("ports").index(j).child("hostPort");
                errors.push(Error::invalid(path, host, "must match `containerPort` when `hostNetwork` is true"));
            }
        }
    }
    errors
}

fn shared_processes(spec: &Value, path: &Path) -> Option<Error> {
    let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
    let both = flag(spec, "hostPID") && flag(spec, "shareProcessNamespace");
    both.then(|| Error::invalid(path.child("shareProcessNamespace"), true, detail))
}

fn dns_config(spec: &Value, path: &Path) -> Errors {
    let none = text(spec, "dnsPolicy") == "None";
    let Some(config) = get(spec, "dnsConfig") else {
        let detail = "must provide `dnsConfig` when `dnsPolicy` is None";
        return if none { vec![Error::required(path.clone(), detail)] } else { Errors::new() };
    };
    let servers = texts(config, "nameservers");
    let searches = texts(config, "searches");
    if none && servers.is_empty() {
        let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        return vec![Error::required(path.child("nameservers"), detail)];
    }
    let mut errors = Errors::new();
    let mut limit = |broken: bool, field: &str, detail: &str| {
        if broken {
            errors.push(Error::invalid(path.child(field), config.get(field).cloned().unwrap_or_default(), detail));
        }
    };
    limit(servers.len() > 3, "nameservers", "must not have more than 3 nameservers");
    limit(searches.len() > 32, "searches", "must not have more than 32 search paths");
    let long = "must not have more than 2048 characters (including spaces) in the search list";
    limit(searches.join(" ").len() > 2048, "searches", long);
    for (i, server) in servers.iter().enumerate() {
        errors.extend(address::ip(server, &path.child("nameservers").index(i)));
    }
    for (i, search) in searches.iter().enumerate().filter(|(_, s)| **s != ".") {
        let plain = search.strip_suffix('.').unwrap_or(search);
        // Underscores are allowed here and nowhere else.
        errors.extend(dns_subdomain(&plain.replace('_', "x"), &path.child("searches").index(i)));
    }
    for (i, option) in list(config, "options").iter().enumerate() {
        if text(option, "name").is_empty() {
            errors.push(Error::required(path.child("options").index(i), "must not be empty"));
        }
    }
    errors
}

fn gates(spec: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    for (i, gate) in list(spec, "readinessGates").iter().enumerate() {
        let path = path.child("readinessGates").index(i).child("conditionType");
        errors.extend(qualified_name(text(gate, "conditionType"), &path));
    }
    let mut seen = Vec::new();
    for (i, gate) in list(spec, "schedulingGates").iter().enumerate() {
        let path = path.child("schedulingGates").index(i);
        let name = text(gate, "name");
        errors.extend(qualified_name(name, &path));
        if seen.contains(&name) {
            errors.push(Error::duplicate(path, name));
        }
        seen.push(name);
    }
    errors
}

fn host_users(spec: &Value, path: &Path) -> Errors {
    if get(spec, "hostUsers") != Some(&Value::Bool(false)) {
        return Errors::new();
    }
    let shown = |field| match field {
        "hostPID" => "HostPID",
        "hostIPC" => "HostIPC",
        other => other,
    };
    let shared = host_namespaces(spec).map(|field| path.child(shown(field)));
    shared.map(|path| Error::forbidden(path, "when `hostUsers` is false")).collect()
}

/// The fields of a PodSpec by which it shares namespaces of its host.
pub fn host_namespaces(spec: &Value) -> impl Iterator<Item = &'static str> {
    ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|field| flag(spec, field))
}

/// The many fields that name something.
fn names(spec: &Value, path: &Path) -> Errors {
    type Rule = fn(&str, &Path) -> Errors;
    let check = |fields: &[(&str, Rule)]| -> Errors {
        let present = fields.iter().filter(|(field, _)| !text(spec, field).is_empty());
        present.flat_map(|(field, rule)| rule(text(spec, field), &path.child(field))).collect()
    };
    let mut errors = check(&[("serviceAccountName", dns_subdomain), ("nodeName", dns_subdomain)]);
    let max = i64::from(i32::MAX);
    if let Some(seconds) = number(spec, "activeDeadlineSeconds").filter(|n| !(1..=max).contains(n)) {
        let detail = validation::text::between(1, max);
        errors.push(Error::invalid(path.child("activeDeadlineSeconds"), seconds, detail));
    }
    errors.extend(check(&[("hostname", dns_label), ("subdomain", dns_label)]));
    errors.extend(scheduling::tolerations(list(spec, "tolerations"), &path.child("tolerations")));
    errors.extend(host_aliases(list(spec, "hostAliases"), &path.child("hostAliases")));
    errors.extend(check(&[
        ("priorityClassName", dns_subdomain),
        ("runtimeClassName", dns_subdomain),
        ("preemptionPolicy", |value, path| supported(value, path, &["PreemptLowerPriority", "Never"])),
    ]));
    if let Some(os) = get(spec, "os") {
        errors.extend(operating_system(os, &path.child("os")));
    }
    errors
}

fn operating_system(os: &Value, path: &Path) -> Errors {
    match text(os, "name") {
        "" => vec![Error::required(path.child("name"), "")],
        name => supported(name, path, &["linux", "windows"]),
    }
}

fn host_aliases(aliases: &[Value], path: &Path) -> Errors {
    let mut errors = Errors::new();
    for (i, alias) in aliases.iter().enumerate() {
        let path = path.index(i);
        errors.extend(address::ip(text(alias, "ip"), &path.child("ip")));
        for (j, name) in texts(alias, "hostnames").iter().enumerate() {
            errors.extend(dns_subdomain(name, &path.child("hostnames").index(j)));
        }
    }
    errors
}
