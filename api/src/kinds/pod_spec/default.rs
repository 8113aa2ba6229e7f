//! Defaults of a PodSpec and what stands in it (`pkg/apis/core/v1/defaults.go`).

use serde_json::{Value, json};

use super::CONTAINERS;
use crate::Quantity;
use crate::quantity::QuantityFormat;
use crate::tree::{self, fill, fill_number, get, get_mut, items_mut, text};

/// Defaults of any PodSpec, in a Pod or a template.
pub(crate) fn pod_spec(spec: &mut Value) {
    let account = match text(spec, "serviceAccountName") {
        "" => text(spec, "serviceAccount").to_owned(),
        name => name.to_owned(),
    };
    let account = (!account.is_empty()).then(|| Value::from(account));
    tree::replace(spec, "serviceAccountName", account.clone());
    tree::replace(spec, "serviceAccount", account);
    fill(spec, "dnsPolicy", "ClusterFirst");
    fill(spec, "restartPolicy", "Always");
    fill(spec, "securityContext", json!({}));
    fill(spec, "terminationGracePeriodSeconds", 30);
    fill(spec, "schedulerName", "default-scheduler");
    if let Some(resources) = get_mut(spec, "resources") {
        requirements(resources);
    }
    if let Some(overhead) = get_mut(spec, "overhead") {
        resource_list(overhead);
    }
    CONTAINERS.iter().for_each(|kind| items_mut(spec, kind).for_each(container));
    items_mut(spec, "volumes").for_each(volume);
}

/// Defaults of a Pod's own spec, which templates do not get. [`pod_spec`] comes before it.
pub(crate) fn pod(spec: &mut Value) {
    if tree::number(spec, "terminationGracePeriodSeconds").is_some_and(|n| n < 0) {
        tree::set(spec, "terminationGracePeriodSeconds", 1);
    }
    for kind in ["containers", "initContainers"] {
        items_mut(spec, kind).filter_map(|c| get_mut(c, "resources")).for_each(requests_from_limits);
    }
    fill(spec, "enableServiceLinks", true);
    if tree::flag(spec, "hostNetwork") {
        for kind in ["containers", "initContainers"] {
            items_mut(spec, kind).for_each(host_ports);
        }
    }
}

/// What a `pods/ephemeralcontainers` request may bring.
pub(crate) fn container(container: &mut Value) {
    let policy = pull_policy(text(container, "image"));
    fill(container, "imagePullPolicy", policy);
    fill(container, "terminationMessagePath", "/dev/termination-log");
    fill(container, "terminationMessagePolicy", "File");
    if let Some(resources) = get_mut(container, "resources") {
        requirements(resources);
    }
    items_mut(container, "ports").for_each(|port| fill(port, "protocol", "TCP"));
    for variable in items_mut(container, "env") {
        if let Some(source) = get_mut(variable, "valueFrom") {
            field_ref(source);
            if let Some(file) = get_mut(source, "fileKeyRef") {
                fill(file, "optional", false);
            }
        }
    }
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = get_mut(container, kind) {
            default_probe(probe);
        }
    }
    if let Some(lifecycle) = get_mut(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(handler) = get_mut(lifecycle, hook) {
                http_get(handler);
            }
        }
    }
}

/// `Always` for images without a tag or digest and with the tag `latest`.
pub(crate) fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, false), |(name, _)| (name, true));
    let last = name.rsplit('/').next().unwrap_or_default();
    match last.split_once(':') {
        Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
        // What is no image name at all has no tag either; validation says so later.
        None if digest || image.is_empty() || image.contains(|c: char| c.is_ascii_uppercase()) => "IfNotPresent",
        None => "Always",
    }
}

fn default_probe(probe: &mut Value) {
    fill_number(probe, "timeoutSeconds", 1);
    fill_number(probe, "periodSeconds", 10);
    fill_number(probe, "successThreshold", 1);
    fill_number(probe, "failureThreshold", 3);
    http_get(probe);
    if let Some(grpc) = get_mut(probe, "grpc") {
        fill(grpc, "service", "");
    }
}

fn http_get(handler: &mut Value) {
    if let Some(http) = get_mut(handler, "httpGet") {
        fill(http, "path", "/");
        fill(http, "scheme", "HTTP");
    }
}

/// A reference to a field or a resource of the pod.
fn field_ref(source: &mut Value) {
    if let Some(field) = get_mut(source, "fieldRef") {
        fill(field, "apiVersion", "v1");
    }
    if let Some(resource) = get_mut(source, "resourceFieldRef") {
        fill(resource, "divisor", "0");
    }
}

/// Quantities are rounded up to thousandths.
pub(crate) fn resource_list(list: &mut Value) {
    for value in list.as_object_mut().into_iter().flatten().map(|(_, v)| v) {
        let quantity = value.as_str().and_then(|text| Quantity::parse(text).ok());
        if let Some(quantity) = quantity.filter(finer_than_milli) {
            *value = Quantity::milli(quantity.milli_value(), quantity.format()).to_string().into();
        }
    }
}

fn finer_than_milli(quantity: &Quantity) -> bool {
    let rounded = Quantity::milli(quantity.milli_value(), QuantityFormat::DecimalSi);
    // Beyond what thousandths can count nothing is finer than them.
    quantity.milli_value().abs() != i64::MAX && rounded != *quantity
}

fn requirements(resources: &mut Value) {
    for kind in ["limits", "requests"] {
        if let Some(list) = get_mut(resources, kind) {
            resource_list(list);
        }
    }
}

fn requests_from_limits(resources: &mut Value) {
    let Some(limits) = get(resources, "limits").cloned() else { return };
    let requests = tree::object(resources, "requests");
    for (name, limit) in tree::map(Some(&limits)) {
        if get(requests, name).is_none() {
            tree::set(requests, name, limit.clone());
        }
    }
    if requests.as_object().is_some_and(serde_json::Map::is_empty) {
        tree::replace(resources, "requests", None);
    }
}

fn host_ports(container: &mut Value) {
    for port in items_mut(container, "ports") {
        if let Some(number) = tree::number(port, "containerPort") {
            fill_number(port, "hostPort", number);
        }
    }
}

const MODE: i64 = 0o644;

fn volume(volume: &mut Value) {
    let named_only = volume.as_object().is_none_or(|v| v.iter().all(|(key, value)| key == "name" || value.is_null()));
    if named_only {
        tree::set(volume, "emptyDir", json!({}));
    }
    for kind in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = get_mut(volume, kind) {
            fill(source, "defaultMode", MODE);
            items_mut(source, "items").for_each(field_ref);
        }
    }
    if let Some(projected) = get_mut(volume, "projected") {
        items_mut(projected, "sources").for_each(projection);
    }
    if let Some(host_path) = get_mut(volume, "hostPath") {
        fill(host_path, "type", "");
    }
    if let Some(image) = get_mut(volume, "image") {
        let policy = pull_policy(text(image, "reference"));
        fill(image, "pullPolicy", policy);
    }
    if let Some(claim) = volume.pointer_mut("/ephemeral/volumeClaimTemplate/spec") {
        claim_spec(claim);
    }
}

fn projection(source: &mut Value) {
    if let Some(downward) = get_mut(source, "downwardAPI") {
        items_mut(downward, "items").for_each(field_ref);
    }
    if let Some(token) = get_mut(source, "serviceAccountToken") {
        fill(token, "expirationSeconds", 3600);
    }
}

/// Defaults of a PersistentVolumeClaimSpec.
pub(crate) fn claim_spec(spec: &mut Value) {
    fill(spec, "volumeMode", "Filesystem");
    if let Some(resources) = get_mut(spec, "resources") {
        requirements(resources);
    }
}

#[cfg(test)]
mod tests {
    use super::{pod, pod_spec, pull_policy};
    use serde_json::json;

    #[test]
    fn images_without_a_fixed_tag_are_always_pulled() {
        let always = ["i", "a/b", "h:5000/i", "i:latest", "i:latest@sha256:0"];
        let once = ["i:1", "h:5000/i:1", "i@sha256:0"];
        always.iter().for_each(|i| assert_eq!(pull_policy(i), "Always", "{i}"));
        once.iter().for_each(|i| assert_eq!(pull_policy(i), "IfNotPresent", "{i}"));
    }

    #[test]
    fn a_pod_gets_requests_from_limits_and_host_ports() {
        let mut spec = json!({
            "hostNetwork": true,
            "containers": [{
                "name": "c", "image": "i", "ports": [{"containerPort": 80}],
                "resources": {"limits": {"cpu": "1.0001", "memory": "1Gi"}, "requests": {"memory": "1Mi"}},
                "readinessProbe": {"httpGet": {"port": 80}},
            }],
            "volumes": [{"name": "v"}, {"name": "h", "hostPath": {"path": "/"}}],
        });
        pod_spec(&mut spec);
        pod(&mut spec);
        let at = |pointer: &str| spec.pointer(pointer).cloned().unwrap_or_default();
        assert_eq!(at("/containers/0/resources/requests"), json!({"cpu": "1001m", "memory": "1Mi"}));
        assert_eq!(at("/containers/0/ports/0"), json!({"containerPort": 80, "hostPort": 80, "protocol": "TCP"}));
        assert_eq!(at("/containers/0/readinessProbe/httpGet"), json!({"port": 80, "path": "/", "scheme": "HTTP"}));
        assert_eq!(
            at("/volumes"),
            json!([{"name": "v", "emptyDir": {}}, {"name": "h", "hostPath": {"path": "/", "type": ""}}])
        );
        assert_eq!(at("/dnsPolicy"), json!("ClusterFirst"));
    }
}
