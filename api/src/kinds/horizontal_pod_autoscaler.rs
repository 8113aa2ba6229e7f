//! HorizontalPodAutoscaler (`autoscaling/v2`; v1 is another view of it).

mod validate;

use serde_json::{Value, json};

use super::cell::{self, NONE, UNSET, count, row};
use super::{Change, Rules};
use crate::field::{Errors, Path};
use crate::tree::{get, list, number, object, set, text};
use crate::{Document, Timestamp};

/// Rules of `autoscaling/v2 HorizontalPodAutoscaler`.
pub(super) struct HorizontalPodAutoscaler;

impl Rules for HorizontalPodAutoscaler {
    fn default(&self, scaler: &mut Document) {
        let v1 = scaler.api_version() == "autoscaling/v1";
        let spec = object(scaler.value_mut(), "spec");
        if get(spec, "minReplicas").is_none() {
            set(spec, "minReplicas", 1);
        }
        if list(spec, "metrics").is_empty() && !v1 {
            let target = json!({"type": "Utilization", "averageUtilization": 80});
            set(spec, "metrics", json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]));
        }
        if let Some(behavior) = spec.get_mut("behavior").filter(|b| b.is_object()) {
            let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
            let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
            rules(object(behavior, "scaleUp"), Some(0), json!([pods, percent.clone()]));
            rules(object(behavior, "scaleDown"), None, json!([percent]));
        }
    }

    fn validate(&self, new: &Document, change: &Change<'_>) -> Errors {
        let part = |pointer| new.at(pointer).unwrap_or(&Value::Null);
        match change.subresource {
            "status" => validate::status(part("/status"), &Path::new("status")),
            _ => validate::spec(part("/spec"), &Path::new("spec")),
        }
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn cells(&self, scaler: &Document, now: Timestamp) -> Option<Vec<Value>> {
        let target = |field: &str| scaler.str_at(&format!("/spec/scaleTargetRef/{field}"));
        let min = scaler.i64_at("/spec/minReplicas").map_or_else(|| UNSET.into(), |n| n.to_string());
        row![
            scaler.name(),
            format!("{}/{}", target("kind"), target("name")),
            metrics(scaler),
            min,
            count(scaler, "/spec/maxReplicas"),
            count(scaler, "/status/currentReplicas"),
            cell::age(scaler, now),
        ]
    }
}

fn rules(rules: &mut Value, window: Option<i64>, policies: Value) {
    let mut default = |field: &str, value: Value| {
        if get(rules, field).is_none() {
            set(rules, field, value);
        }
    };
    if let Some(window) = window {
        default("stabilizationWindowSeconds", window.into());
    }
    default("selectPolicy", "Max".into());
    default("policies", policies);
}

/// `cpu: 10%/80%, 3/10 + 1 more...`.
fn metrics(scaler: &Document) -> String {
    let specs = scaler.list_at("/spec/metrics");
    let statuses = scaler.list_at("/status/currentMetrics");
    if specs.is_empty() {
        return NONE.into();
    }
    let all: Vec<String> = specs.iter().enumerate().map(|(i, spec)| metric(spec, statuses.get(i))).collect();
    let shown = all.iter().take(2).map(String::as_str).collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(2) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}

fn metric(spec: &Value, status: Option<&Value>) -> String {
    let kind = match text(spec, "type") {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".into(),
    };
    let source = spec.get(kind).unwrap_or(&Value::Null);
    let target = get(source, "target").unwrap_or(&Value::Null);
    let current = status.and_then(|s| get(s, kind)).and_then(|s| get(s, "current"));
    let of = |field: &str| current.and_then(|c| get(c, field)).and_then(Value::as_str).unwrap_or("<unknown>");
    let average = get(target, "averageValue").and_then(Value::as_str);
    match (kind, average) {
        ("resource" | "containerResource", Some(average)) => {
            format!("{}: {}/{average}", text(source, "name"), of("averageValue"))
        }
        ("resource" | "containerResource", None) => {
            let percent = |value: Option<&Value>, instead: &str| {
                let number = value.and_then(|v| number(v, "averageUtilization"));
                number.map_or_else(|| instead.to_owned(), |n| format!("{n}%"))
            };
            let (current, target) = (percent(current, "<unknown>"), percent(Some(target), "<auto>"));
            format!("{}: {current}/{target}", text(source, "name"))
        }
        ("pods", Some(average)) => format!("{}/{average}", of("averageValue")),
        (_, Some(average)) => format!("{}/{average} (avg)", of("averageValue")),
        (_, None) => format!("{}/{}", of("value"), text(target, "value")),
    }
}
