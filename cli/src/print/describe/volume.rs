//! Volumes.

use serde_json::Value;

use super::text::Text;
use crate::verbs::value::{list, text};

pub(super) fn volumes(volumes: &[Value], space: &str, out: &mut Text) {
    if volumes.is_empty() {
        out.line(0, &format!("{space}Volumes:\t<none>"));
        return;
    }
    out.line(0, &format!("{space}Volumes:"));
    for volume in volumes {
        let indent = if space.is_empty() { "" } else { " " };
        out.line(1, &format!("{indent}{}:", text(volume, "name")));
        source(volume, out);
    }
}

fn source(volume: &Value, out: &mut Text) {
    let of = |kind: &str| volume.get(kind).filter(|v| !v.is_null());
    let optional = |source: &Value| source.get("optional") == Some(&Value::Bool(true));
    if let Some(host_path) = of("hostPath") {
        out.field(2, "Type", "HostPath (bare host directory volume)");
        out.field(2, "Path", text(host_path, "path"));
        out.field(2, "HostPathType", text(host_path, "type"));
    } else if let Some(empty_dir) = of("emptyDir") {
        out.field(2, "Type", "EmptyDir (a temporary directory that shares a pod's lifetime)");
        out.field(2, "Medium", text(empty_dir, "medium"));
        let limit = text(empty_dir, "sizeLimit");
        out.field(2, "SizeLimit", if limit.is_empty() { "<unset>" } else { limit });
    } else if let Some(secret) = of("secret") {
        out.field(2, "Type", "Secret (a volume populated by a Secret)");
        out.field(2, "SecretName", text(secret, "secretName"));
        out.field(2, "Optional", optional(secret));
    } else if let Some(map) = of("configMap") {
        out.field(2, "Type", "ConfigMap (a volume populated by a ConfigMap)");
        out.field(2, "Name", text(map, "name"));
        out.field(2, "Optional", optional(map));
    } else if let Some(claim) = of("persistentVolumeClaim") {
        out.field(2, "Type", "PersistentVolumeClaim (a reference to a PersistentVolumeClaim in the same namespace)");
        out.field(2, "ClaimName", text(claim, "claimName"));
        out.field(2, "ReadOnly", claim.get("readOnly") == Some(&Value::Bool(true)));
    } else if let Some(downward) = of("downwardAPI") {
        out.field(2, "Type", "DownwardAPI (a volume populated by information about the pod)");
        out.line(2, "Items:");
        for item in list(downward, "items") {
            let from = item.pointer("/fieldRef/fieldPath").or_else(|| item.pointer("/resourceFieldRef/resource"));
            out.line(3, &format!("{} -> {}", from.and_then(Value::as_str).unwrap_or_default(), text(item, "path")));
        }
    } else if let Some(projected) = of("projected") {
        out.field(2, "Type", "Projected (a volume that contains injected data from multiple sources)");
        list(projected, "sources").iter().for_each(|source| projection(source, out));
    } else {
        let kind = volume.as_object().and_then(|v| v.keys().find(|key| *key != "name"));
        out.field(2, "Type", kind.map_or("<unknown>", String::as_str));
    }
}

fn projection(source: &Value, out: &mut Text) {
    let optional = |source: &Value| source.get("optional") == Some(&Value::Bool(true));
    if let Some(secret) = source.get("secret") {
        out.field(2, "SecretName", text(secret, "name"));
        out.field(2, "Optional", optional(secret));
    } else if source.get("downwardAPI").is_some() {
        out.field(2, "DownwardAPI", true);
    } else if let Some(map) = source.get("configMap") {
        out.field(2, "ConfigMapName", text(map, "name"));
        out.field(2, "Optional", optional(map));
    } else if let Some(token) = source.get("serviceAccountToken") {
        let seconds = token.get("expirationSeconds").and_then(Value::as_i64).unwrap_or_default();
        out.field(2, "TokenExpirationSeconds", seconds);
    }
}
