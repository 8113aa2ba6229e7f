//! autoscaling/v1 as a view of v2. What v1 has no fields for stands in annotations, so that whoever reads and writes v1
//! loses nothing of v2 (`k8s.io/kubernetes/pkg/apis/autoscaling/v1/conversion.go`).

use api::k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerCondition, MetricSpec, MetricStatus,
};
use api::{Document, Quantity};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::row::Convert;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
/// What v1 shows and never stores; the last two are no longer written by anybody.
const OWN: [&str; 6] = [
    METRICS,
    CURRENT_METRICS,
    CONDITIONS,
    BEHAVIOR,
    "autoscaling.alpha.kubernetes.io/scale-down-tolerance",
    "autoscaling.alpha.kubernetes.io/scale-up-tolerance",
];

/// Percent of the requested CPU that pods are to use where nobody says anything.
const DEFAULT_CPU: u32 = 80;

/// A field of v1, where v2 has it, and what v1 says where v2 has none (nothing: nothing).
type Moved = (&'static str, &'static str, Option<&'static str>);

const METRIC_NAME: Moved = ("metricName", "/metric/name", Some(""));
const RESOURCE_NAME: Moved = ("name", "/name", Some(""));
const CONTAINER: Moved = ("container", "/container", Some(""));

/// The sources of metrics by their fields, in v1's order.
const SOURCES: [(&str, &[Moved]); 5] = [
    (
        "object",
        &[
            ("target", "/describedObject", None),
            METRIC_NAME,
            ("targetValue", "/target/value", Some("0")),
            ("selector", "/metric/selector", None),
            ("averageValue", "/target/averageValue", None),
        ],
    ),
    (
        "pods",
        &[
            METRIC_NAME,
            ("targetAverageValue", "/target/averageValue", Some("0")),
            ("selector", "/metric/selector", None),
        ],
    ),
    (
        "resource",
        &[
            RESOURCE_NAME,
            ("targetAverageUtilization", "/target/averageUtilization", None),
            ("targetAverageValue", "/target/averageValue", None),
        ],
    ),
    (
        "containerResource",
        &[
            RESOURCE_NAME,
            ("targetAverageUtilization", "/target/averageUtilization", None),
            ("targetAverageValue", "/target/averageValue", None),
            CONTAINER,
        ],
    ),
    (
        "external",
        &[
            METRIC_NAME,
            ("metricSelector", "/metric/selector", None),
            ("targetValue", "/target/value", None),
            ("targetAverageValue", "/target/averageValue", None),
        ],
    ),
];

/// What was measured, likewise.
const MEASURED: [(&str, &[Moved]); 5] = [
    (
        "object",
        &[
            ("target", "/describedObject", None),
            METRIC_NAME,
            ("currentValue", "/current/value", Some("0")),
            ("selector", "/metric/selector", None),
            ("averageValue", "/current/averageValue", None),
        ],
    ),
    (
        "pods",
        &[
            METRIC_NAME,
            ("currentAverageValue", "/current/averageValue", Some("0")),
            ("selector", "/metric/selector", None),
        ],
    ),
    (
        "resource",
        &[
            RESOURCE_NAME,
            ("currentAverageUtilization", "/current/averageUtilization", None),
            ("currentAverageValue", "/current/averageValue", Some("0")),
        ],
    ),
    (
        "containerResource",
        &[
            RESOURCE_NAME,
            ("currentAverageUtilization", "/current/averageUtilization", None),
            ("currentAverageValue", "/current/averageValue", Some("0")),
            CONTAINER,
        ],
    ),
    (
        "external",
        &[
            METRIC_NAME,
            ("metricSelector", "/metric/selector", None),
            ("currentValue", "/current/value", Some("0")),
            ("currentAverageValue", "/current/averageValue", None),
        ],
    ),
];

/// The conversion of HorizontalPodAutoscalers.
pub(super) struct Autoscaling;

impl Convert for Autoscaling {
    fn to_storage(&self, scaler: &mut Document) {
        let told = OWN.map(|name| take_annotation(scaler, name));
        let [metrics, current, conditions, behavior, ..] = told.map(|text| serde_json::from_str(&text?).ok());
        let mut all = metrics.and_then(|list| sound::<MetricSpec>(&from_v1(&list, &SOURCES)?)).unwrap_or_default();
        if let Some(percent) = scaler.remove("/spec/targetCPUUtilizationPercentage").filter(|v| !v.is_null()) {
            all.push(cpu_target(percent));
        }
        if all.is_empty() {
            all.push(cpu_target(DEFAULT_CPU.into()));
        }
        scaler.set("/spec/metrics", all);
        if let Some(behavior) =
            behavior.and_then(|value| typed::<HorizontalPodAutoscalerBehavior>(&recased(&value, lower)))
            && behavior != json!({})
        {
            scaler.set("/spec/behavior", behavior);
        }
        if let Some(percent) = scaler.remove("/status/currentCPUUtilizationPercentage").filter(|v| !v.is_null()) {
            let current = json!({"name": "cpu", "current": {"averageUtilization": percent, "averageValue": "0"}});
            scaler.set("/status/currentMetrics", json!([{"type": "Resource", "resource": current}]));
        }
        if let Some(all) = current.and_then(|list| sound::<MetricStatus>(&from_v1(&list, &MEASURED)?)) {
            scaler.set("/status/currentMetrics", all);
        }
        if let Some(all) = conditions.and_then(|list| sound::<HorizontalPodAutoscalerCondition>(&list)) {
            scaler.set("/status/conditions", all);
        }
        scaler.set_default("/status/currentMetrics", Value::Null);
    }

    fn unstore(&self, scaler: &mut Document) {
        for name in OWN {
            take_annotation(scaler, name);
        }
        let (mut told, metrics) = (Vec::new(), taken(scaler, "/spec/metrics"));
        let others: Vec<&Value> = metrics.iter().filter(|metric| cpu(metric, "target").is_none()).collect();
        told.push((METRICS, to_v1(&others, &SOURCES)));
        let current = taken(scaler, "/status/currentMetrics");
        told.push((CURRENT_METRICS, to_v1(&current.iter().collect::<Vec<_>>(), &MEASURED)));
        told.push((CONDITIONS, conditions(&taken(scaler, "/status/conditions"))));
        told.push((BEHAVIOR, scaler.remove("/spec/behavior").filter(Value::is_object).map(|value| behavior(&value))));
        for (name, text) in told {
            if let Some(text) = text {
                scaler.set_default("/metadata/annotations", json!({}));
                let annotations = scaler.at_mut("/metadata/annotations").and_then(Value::as_object_mut);
                annotations.map(|map| map.insert(name.into(), text.into()));
            }
        }
        if let Some(percent) = metrics.iter().find_map(|metric| cpu(metric, "target")) {
            scaler.set("/spec/targetCPUUtilizationPercentage", percent.clone());
        }
        if let Some(percent) = current.iter().rev().find_map(|metric| cpu(metric, "current")) {
            scaler.set("/status/currentCPUUtilizationPercentage", percent.clone());
        }
        scaler.set_default("/status/currentReplicas", 0);
    }
}

fn take_annotation(scaler: &mut Document, name: &str) -> Option<String> {
    let annotations = scaler.at_mut("/metadata/annotations")?.as_object_mut()?;
    let text = annotations.remove(name)?.as_str().map(str::to_owned);
    if annotations.is_empty() {
        scaler.remove("/metadata/annotations");
    }
    text
}

fn taken(scaler: &mut Document, pointer: &str) -> Vec<Value> {
    match scaler.remove(pointer) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

fn cpu_target(percent: Value) -> Value {
    let target = json!({"type": "Utilization", "averageUtilization": percent});
    json!({"type": "Resource", "resource": {"name": "cpu", "target": target}})
}

/// The percentage of a metric that v1 has a field for.
fn cpu<'a>(metric: &'a Value, part: &str) -> Option<&'a Value> {
    let resource = metric.get("resource").filter(|r| metric["type"] == "Resource" && r["name"] == "cpu")?;
    resource.get(part)?.get("averageUtilization").filter(|v| !v.is_null())
}

/// What a text of an annotation says, if it is what upstream would take.
fn sound<T: DeserializeOwned + Serialize>(list: &Value) -> Option<Vec<Value>> {
    let list = list.as_array()?.iter().map(typed::<T>).collect::<Option<Vec<_>>>()?;
    list.iter().all(quantities_are_sound).then_some(list)
}

fn typed<T: DeserializeOwned + Serialize>(value: &Value) -> Option<Value> {
    serde_json::to_value(serde_json::from_value::<T>(value.clone()).ok()?).ok()
}

fn quantities_are_sound(value: &Value) -> bool {
    let Value::Object(map) = value else { return true };
    map.iter().all(|(name, value)| match (name.as_str(), value) {
        ("value" | "averageValue" | "tolerance", Value::String(text)) => Quantity::parse(text).is_ok(),
        _ => quantities_are_sound(value),
    })
}

fn from_v1(list: &Value, fields: &[(&str, &[Moved])]) -> Option<Value> {
    let metric = |old: &Value| {
        let mut new = json!({"type": old.get("type")?});
        for (kind, moved) in fields {
            if let Some(source) = old.get(*kind).filter(|source| source.is_object()) {
                let mut made = Document::new(json!({}))?;
                for (name, pointer, _) in *moved {
                    if let Some(value) = source.get(*name) {
                        made.set(pointer, value.clone());
                    }
                }
                if moved.iter().any(|(_, pointer, _)| pointer.starts_with("/target/")) {
                    target_type(kind, &mut made);
                }
                new[*kind] = made.into_value();
            }
        }
        Some(new)
    };
    list.as_array()?.iter().map(metric).collect::<Option<Vec<_>>>().map(Value::Array)
}

/// v1 does not say which of a target's values counts.
fn target_type(kind: &str, source: &mut Document) {
    let has = |field: &str| source.at(&format!("/target/{field}")).is_some_and(|v| !v.is_null());
    let (value, average, percent) = (has("value"), has("averageValue"), has("averageUtilization"));
    let word = match kind {
        "resource" | "containerResource" if percent => "Utilization",
        "object" if !average => "Value",
        "external" if value => "Value",
        _ => "AverageValue",
    };
    if kind == "object" && average && Quantity::parse(source.str_at("/target/value")).is_ok_and(|q| q.is_zero()) {
        source.remove("/target/value");
    }
    source.set("/target/type", word);
}

fn to_v1(list: &[&Value], fields: &[(&str, &[Moved])]) -> Option<String> {
    let metric = |new: &&Value| {
        let mut parts = vec![("type", Some(new["type"].to_string()))];
        for (kind, moved) in fields {
            let source = new.get(*kind).filter(|source| source.is_object());
            parts.push((kind, source.map(|source| in_order(moved.iter().map(|field| shown(source, field)).collect()))));
        }
        in_order(parts)
    };
    (!list.is_empty()).then(|| format!("[{}]", list.iter().map(metric).collect::<Vec<_>>().join(",")))
}

fn shown(source: &Value, (name, pointer, absent): &Moved) -> (&'static str, Option<String>) {
    let text = match source.pointer(pointer).filter(|v| !v.is_null()) {
        Some(object) if *name == "target" => {
            let part = |name: &'static str| (name, object.get(name).map(Value::to_string));
            Some(in_order(vec![part("kind"), part("name"), part("apiVersion")]))
        }
        Some(value) => Some(value.to_string()),
        None => absent.map(|text| json!(text).to_string()),
    };
    (name, text)
}

fn conditions(list: &[Value]) -> Option<String> {
    const FIELDS: [&str; 6] = ["type", "status", "lastTransitionTime", "reason", "message", "observedGeneration"];
    let one = |condition: &Value| {
        let part = |name: &'static str| (name, condition.get(name).map(Value::to_string));
        in_order(FIELDS.map(part).to_vec())
    };
    (!list.is_empty()).then(|| format!("[{}]", list.iter().map(one).collect::<Vec<_>>().join(",")))
}

/// Upstream writes its inner type here: Go's names of fields, and null where there is nothing.
fn behavior(value: &Value) -> String {
    let field = |of: &Value, name: &str| of.get(name).map_or_else(|| "null".to_owned(), Value::to_string);
    let policy = |policy: &Value| {
        let part = |go: &'static str, name: &str| (go, Some(field(policy, name)));
        in_order(vec![part("Type", "type"), part("Value", "value"), part("PeriodSeconds", "periodSeconds")])
    };
    let rules = |name: &str| {
        let Some(rules) = value.get(name).filter(|rules| rules.is_object()) else { return "null".to_owned() };
        let policies = rules.get("policies").and_then(Value::as_array);
        let policies = policies.map(|list| list.iter().map(policy).collect::<Vec<_>>().join(","));
        in_order(vec![
            ("StabilizationWindowSeconds", Some(field(rules, "stabilizationWindowSeconds"))),
            ("SelectPolicy", Some(field(rules, "selectPolicy"))),
            ("Policies", Some(policies.map_or_else(|| "null".to_owned(), |list| format!("[{list}]")))),
            ("Tolerance", Some(field(rules, "tolerance"))),
        ])
    };
    in_order(vec![("ScaleUp", Some(rules("scaleUp"))), ("ScaleDown", Some(rules("scaleDown")))])
}

/// An object's text with its fields in this order, as Go writes them.
fn in_order(fields: Vec<(&str, Option<String>)>) -> String {
    let told = fields.into_iter().filter_map(|(name, text)| Some(format!("\"{name}\":{}", text?)));
    format!("{{{}}}", told.collect::<Vec<_>>().join(","))
}

/// The same with other names of fields, without what is null.
fn recased(value: &Value, case: fn(&str) -> String) -> Value {
    match value {
        Value::Object(map) => {
            let there = map.iter().filter(|(_, value)| !value.is_null());
            Value::Object(there.map(|(name, value)| (case(name), recased(value, case))).collect::<Map<_, _>>())
        }
        Value::Array(list) => list.iter().map(|value| recased(value, case)).collect(),
        other => other.clone(),
    }
}

/// `ScaleUp` -> `scaleUp`.
fn lower(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}
