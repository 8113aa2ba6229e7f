//! A pod, and containers.

use api::{Timestamp, time};
use serde_json::Value;

use super::text::{Text, truth, when};
use super::{Related, volume};
use crate::verbs::value::{list, number_at, text, text_at};

pub(super) fn pod(pod: &Value, _related: &Related, now: Timestamp, out: &mut Text) {
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    let status = pod.get("status").unwrap_or(&Value::Null);
    out.field(0, "Name", text_at(pod, "/metadata/name"));
    out.field(0, "Namespace", text_at(pod, "/metadata/namespace"));
    if let Some(priority) = spec.get("priority").and_then(Value::as_i64) {
        out.field(0, "Priority", priority);
    }
    out.some(0, "Priority Class Name", text(spec, "priorityClassName"));
    out.some(0, "Runtime Class Name", text(spec, "runtimeClassName"));
    out.some(0, "Service Account", text(spec, "serviceAccountName"));
    match text(spec, "nodeName") {
        "" => out.field(0, "Node", "<none>"),
        node => out.field(0, "Node", format!("{node}/{}", text(status, "hostIP"))),
    }
    if !text(status, "startTime").is_empty() {
        out.field(0, "Start Time", when(text(status, "startTime")));
    }
    out.pairs("Labels", pod.pointer("/metadata/labels"));
    out.annotations("Annotations", pod.pointer("/metadata/annotations"));
    phase(pod, now, out);
    addresses(status, out);
    controlled_by(pod, out);
    out.some(0, "NominatedNodeName", text(status, "nominatedNodeName"));
    containers(spec, Some(status), "", out);
    conditions(status, out);
    volume::volumes(list(spec, "volumes"), "", out);
    out.field(0, "QoS Class", text(status, "qosClass"));
    out.pairs("Node-Selectors", spec.get("nodeSelector"));
    out.lines("Tolerations", &tolerations(list(spec, "tolerations")));
}

fn phase(pod: &Value, now: Timestamp, out: &mut Text) {
    let phase = text_at(pod, "/status/phase");
    let deleted = text_at(pod, "/metadata/deletionTimestamp");
    if deleted.is_empty() || matches!(phase, "Failed" | "Succeeded") {
        out.field(0, "Status", phase);
    } else {
        out.field(0, "Status", format!("Terminating (lasts {})", time::since(deleted, now)));
        let grace = number_at(pod, "/metadata/deletionGracePeriodSeconds");
        out.field(0, "Termination Grace Period", format!("{grace}s"));
    }
    out.some(0, "Reason", text_at(pod, "/status/reason"));
    out.some(0, "Message", text_at(pod, "/status/message"));
    out.some(0, "SeccompProfile", text_at(pod, "/spec/securityContext/seccompProfile/type"));
}

fn addresses(status: &Value, out: &mut Text) {
    out.field(0, "IP", text(status, "podIP"));
    let all = list(status, "podIPs");
    if all.is_empty() {
        out.field(0, "IPs", "<none>");
        return;
    }
    out.line(0, "IPs:");
    all.iter().for_each(|ip| out.field(1, "IP", text(ip, "ip")));
}

/// `Controlled By: ReplicaSet/web-5d9`.
pub(super) fn controlled_by(object: &Value, out: &mut Text) {
    let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array).into_iter().flatten();
    if let Some(owner) = owners.into_iter().find(|o| o.get("controller") == Some(&Value::Bool(true))) {
        out.field(0, "Controlled By", format!("{}/{}", text(owner, "kind"), text(owner, "name")));
    }
}

fn conditions(status: &Value, out: &mut Text) {
    let conditions = list(status, "conditions");
    if conditions.is_empty() {
        return;
    }
    out.line(0, "Conditions:");
    out.line(1, "Type\tStatus");
    for condition in conditions {
        out.line(1, &format!("{} \t{} ", text(condition, "type"), text(condition, "status")));
    }
}

/// The three lists of containers; `space` before titles in a template.
pub(super) fn containers(spec: &Value, status: Option<&Value>, space: &str, out: &mut Text) {
    let kinds = [
        ("Init Containers", "initContainers", "initContainerStatuses"),
        ("Containers", "containers", "containerStatuses"),
        ("Ephemeral Containers", "ephemeralContainers", "ephemeralContainerStatuses"),
    ];
    for (title, field, statuses) in kinds {
        let all = list(spec, field);
        if all.is_empty() {
            continue;
        }
        out.line(0, &format!("{space}{title}:"));
        let statuses = status.map_or(&[] as &[Value], |status| list(status, statuses));
        for container in all {
            let status = statuses.iter().find(|s| text(s, "name") == text(container, "name"));
            one(container, status, space, out);
        }
    }
}

fn one(container: &Value, status: Option<&Value>, space: &str, out: &mut Text) {
    let indent = if space.is_empty() { "" } else { " " };
    out.line(1, &format!("{indent}{}:", text(container, "name")));
    if let Some(status) = status {
        out.field(2, "Container ID", text(status, "containerID"));
    }
    out.field(2, "Image", text(container, "image"));
    if let Some(status) = status {
        out.field(2, "Image ID", text(status, "imageID"));
    }
    ports(container, out);
    for (title, field) in [("Command", "command"), ("Args", "args")] {
        let words = list(container, field);
        if !words.is_empty() {
            out.line(2, &format!("{title}:"));
            let lines = words.iter().filter_map(Value::as_str).flat_map(|word| word.split('\n'));
            lines.for_each(|line| out.line(3, line));
        }
    }
    if let Some(status) = status {
        state("State", status.get("state"), out);
        if status.pointer("/lastState/terminated").is_some() {
            state("Last State", status.get("lastState"), out);
        }
        out.field(2, "Ready", truth(status.get("ready") == Some(&Value::Bool(true))));
        out.field(2, "Restart Count", number_at(status, "/restartCount"));
    }
    resources(container, out);
    for (title, field) in [("Liveness", "livenessProbe"), ("Readiness", "readinessProbe"), ("Startup", "startupProbe")]
    {
        if let Some(value) = container.get(field).filter(|v| !v.is_null()) {
            out.field(2, title, probe(value));
        }
    }
    environment(container, out);
    mounts(container, out);
}

fn ports(container: &Value, out: &mut Text) {
    let ports = list(container, "ports");
    let join = |field: &str| -> String {
        let shown = ports.iter().map(|port| {
            let number = port.get(field).and_then(Value::as_i64).unwrap_or_default();
            match text(port, "name") {
                "" => format!("{number}/{}", text(port, "protocol")),
                name => format!("{number}/{} ({name})", text(port, "protocol")),
            }
        });
        shown.collect::<Vec<_>>().join(", ")
    };
    for (title, field) in [("Port", "containerPort"), ("Host Port", "hostPort")] {
        let plural = if ports.len() > 1 { "s" } else { "" };
        let shown = join(field);
        out.field(2, &format!("{title}{plural}"), if shown.is_empty() { "<none>" } else { &shown });
    }
}

fn state(title: &str, state: Option<&Value>, out: &mut Text) {
    let of = |kind: &str| state.and_then(|s| s.get(kind)).filter(|v| !v.is_null());
    if let Some(running) = of("running") {
        out.field(2, title, "Running");
        out.field(3, "Started", when(text(running, "startedAt")));
    } else if let Some(end) = of("terminated") {
        out.field(2, title, "Terminated");
        out.some(3, "Reason", text(end, "reason"));
        out.some(3, "Message", text(end, "message"));
        out.field(3, "Exit Code", number_at(end, "/exitCode"));
        if number_at(end, "/signal") > 0 {
            out.field(3, "Signal", number_at(end, "/signal"));
        }
        out.field(3, "Started", when(text(end, "startedAt")));
        out.field(3, "Finished", when(text(end, "finishedAt")));
    } else {
        out.field(2, title, "Waiting");
        out.some(3, "Reason", of("waiting").map_or("", |w| text(w, "reason")));
    }
}

fn resources(container: &Value, out: &mut Text) {
    for (title, field) in [("Limits", "limits"), ("Requests", "requests")] {
        let pointer = format!("/resources/{field}");
        let all: Vec<_> = container.pointer(&pointer).and_then(Value::as_object).into_iter().flatten().collect();
        if !all.is_empty() {
            out.line(2, &format!("{title}:"));
            all.into_iter().for_each(|(name, value)| out.field(3, name, value.as_str().unwrap_or_default()));
        }
    }
}

fn probe(probe: &Value) -> String {
    let of = |field: &str| number_at(probe, &format!("/{field}"));
    let times = format!(
        "delay={}s timeout={}s period={}s successThreshold={} failureThreshold={}",
        of("initialDelaySeconds"),
        of("timeoutSeconds"),
        of("periodSeconds"),
        of("successThreshold"),
        of("failureThreshold")
    );
    let port = |action: &Value| match action.get("port") {
        Some(Value::String(name)) => name.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    let action = if let Some(exec) = probe.get("exec") {
        let words: Vec<&str> = list(exec, "command").iter().filter_map(Value::as_str).collect();
        format!("exec [{}]", words.join(" "))
    } else if let Some(http) = probe.get("httpGet") {
        let scheme = text(http, "scheme").to_lowercase();
        format!("http-get {scheme}://{}:{}{}", text(http, "host"), port(http), text(http, "path"))
    } else if let Some(tcp) = probe.get("tcpSocket") {
        format!("tcp-socket {}:{}", text(tcp, "host"), port(tcp))
    } else if let Some(grpc) = probe.get("grpc") {
        format!("grpc <pod>:{} {}", port(grpc), text(grpc, "service"))
    } else {
        "unknown".into()
    };
    format!("{action} {times}")
}

fn environment(container: &Value, out: &mut Text) {
    let sources = list(container, "envFrom");
    if !sources.is_empty() {
        out.line(2, "Environment Variables from:");
        for source in sources {
            let (kind, reference) = match source.get("configMapRef") {
                Some(reference) => ("ConfigMap", reference),
                None => ("Secret", source.get("secretRef").unwrap_or(&Value::Null)),
            };
            let optional = reference.get("optional") == Some(&Value::Bool(true));
            out.line(3, &format!("{}\t{kind}\tOptional: {optional}", text(reference, "name")));
        }
    }
    let variables = list(container, "env");
    out.line(2, if variables.is_empty() { "Environment:\t<none>" } else { "Environment:" });
    for variable in variables {
        let name = text(variable, "name");
        match variable.get("valueFrom") {
            None => {
                let mut lines = text(variable, "value").split('\n');
                out.field(3, name, lines.next().unwrap_or_default());
                lines.for_each(|line| out.line(3, &format!("\t{line}")));
            }
            Some(from) => out.field(3, name, value_from(from)),
        }
    }
}

fn value_from(from: &Value) -> String {
    let optional = |reference: &Value| reference.get("optional") == Some(&Value::Bool(true));
    if let Some(field) = from.get("fieldRef") {
        format!(" ({}:{})", text(field, "apiVersion"), text(field, "fieldPath"))
    } else if let Some(resource) = from.get("resourceFieldRef") {
        format!(" ({})", text(resource, "resource"))
    } else if let Some(secret) = from.get("secretKeyRef") {
        let (key, name) = (text(secret, "key"), text(secret, "name"));
        format!("<set to the key '{key}' in secret '{name}'>\tOptional: {}", optional(secret))
    } else if let Some(map) = from.get("configMapKeyRef") {
        let (key, name) = (text(map, "key"), text(map, "name"));
        format!("<set to the key '{key}' of config map '{name}'>\tOptional: {}", optional(map))
    } else {
        String::new()
    }
}

fn mounts(container: &Value, out: &mut Text) {
    let mut mounts: Vec<&Value> = list(container, "volumeMounts").iter().collect();
    mounts.sort_by_key(|m| text(m, "mountPath"));
    out.line(2, if mounts.is_empty() { "Mounts:\t<none>" } else { "Mounts:" });
    for mount in mounts {
        let mode = if mount.get("readOnly") == Some(&Value::Bool(true)) { "ro" } else { "rw" };
        let sub_path = match text(mount, "subPath") {
            "" => String::new(),
            path => format!(",path={path:?}"),
        };
        out.line(3, &format!("{} from {} ({mode}{sub_path})", text(mount, "mountPath"), text(mount, "name")));
    }
}

/// Each toleration on a line.
pub(super) fn tolerations(tolerations: &[Value]) -> Vec<String> {
    let mut sorted: Vec<&Value> = tolerations.iter().collect();
    sorted.sort_by_key(|t| text(t, "key"));
    sorted.into_iter().map(toleration).collect()
}

fn toleration(toleration: &Value) -> String {
    let mut shown = text(toleration, "key").to_owned();
    for (sign, field) in [("=", "value"), (":", "effect")] {
        let value = text(toleration, field);
        if !value.is_empty() {
            shown.push_str(&format!("{sign}{value}"));
        }
    }
    if text(toleration, "operator") == "Exists" && text(toleration, "value").is_empty() {
        shown.push_str(if shown.is_empty() { "op=Exists" } else { " op=Exists" });
    }
    if let Some(seconds) = toleration.get("tolerationSeconds").and_then(Value::as_i64) {
        shown.push_str(&format!(" for {seconds}s"));
    }
    shown
}
