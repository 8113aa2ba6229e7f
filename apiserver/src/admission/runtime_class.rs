//! RuntimeClass: a pod's class is there, and the pod gets its overhead, its nodes and its tolerations.

use api::{Document, StatusResult};
use serde_json::Value;

use super::{Context, Plugin};

const UNLIKE: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
const ALONE: &str = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";

pub(super) struct RuntimeClass;

impl Plugin for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn mutate(&self, pod: &mut Document, context: &Context<'_>) -> StatusResult<()> {
        let Some(class) = class(pod, context)? else { return Ok(()) };
        if let Some(overhead) = class.at("/overhead/podFixed") {
            let said = pod.at("/spec/overhead").filter(|said| !is_empty(said));
            if said.is_some_and(|said| said != overhead) {
                return Err(context.forbidden(pod, UNLIKE));
            }
            pod.set("/spec/overhead", overhead.clone());
        }
        if class.at("/scheduling").is_some() {
            node_selector(pod, &class, context)?;
            let merged = merged(pod.list_at("/spec/tolerations"), class.list_at("/scheduling/tolerations"));
            if !merged.is_empty() {
                pod.set("/spec/tolerations", merged);
            }
        }
        Ok(())
    }

    fn validate(&self, pod: &Document, context: &Context<'_>) -> StatusResult<()> {
        if !created(context) {
            return Ok(());
        }
        let class = class(pod, context)?;
        let defined = class.as_ref().filter(|class| class.at("/overhead").is_some());
        match (defined, pod.at("/spec/overhead")) {
            (Some(class), said) if class.at("/overhead/podFixed") != said => Err(context.forbidden(pod, UNLIKE)),
            (None, Some(_)) => Err(context.forbidden(pod, ALONE)),
            _ => Ok(()),
        }
    }
}

fn created(context: &Context<'_>) -> bool {
    context.verb() == "create" && context.is("", "pods")
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_none_or(serde_json::Map::is_empty)
}

/// The class that a new pod names.
fn class(pod: &Document, context: &Context<'_>) -> StatusResult<Option<Document>> {
    let named = pod.at("/spec/runtimeClassName").and_then(Value::as_str).filter(|_| created(context));
    let Some(name) = named else { return Ok(None) };
    let found = context.look_up("node.k8s.io", "runtimeclasses", "", name);
    let missing = || context.forbidden(pod, format!("pod rejected: RuntimeClass {name:?} not found"));
    found.map(Some).ok_or_else(missing)
}

fn node_selector(pod: &mut Document, class: &Document, context: &Context<'_>) -> StatusResult<()> {
    let wanted = class.at("/scheduling/nodeSelector").and_then(Value::as_object).into_iter().flatten();
    let mut selector = pod.at("/spec/nodeSelector").and_then(Value::as_object).cloned().unwrap_or_default();
    for (key, value) in wanted {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if let Some(said) = selector.get(key).filter(|said| *said != value) {
            let (value, said) = (text(value), text(said));
            let why = format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {said}"
            );
            return Err(context.forbidden(pod, why));
        }
        selector.insert(key.clone(), value.clone());
    }
    if !selector.is_empty() {
        pod.set("/spec/nodeSelector", Value::Object(selector));
    }
    Ok(())
}

/// Both lists without what another toleration covers (`pkg/util/tolerations`).
fn merged(first: &[Value], second: &[Value]) -> Vec<Value> {
    let all: Vec<&Value> = first.iter().chain(second).collect();
    let mut merged: Vec<Value> = Vec::new();
    for (at, toleration) in all.iter().enumerate() {
        let later = all.iter().skip(at + 1).any(|other| other != toleration && covers(other, toleration));
        if !later && !merged.iter().any(|other| covers(other, toleration)) {
            merged.push((*toleration).clone());
        }
    }
    merged
}

/// Whether everything that `other` tolerates is tolerated by `toleration`.
fn covers(toleration: &Value, other: &Value) -> bool {
    if toleration == other {
        return true;
    }
    let text = |of: &Value, field: &str| of.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let seconds = |of: &Value| of.get("tolerationSeconds").and_then(Value::as_i64);
    let exists = text(toleration, "operator") == "Exists";
    let key = text(toleration, "key");
    let effect = text(toleration, "effect");
    let same_key = key == text(other, "key") || (key.is_empty() && exists);
    let same_effect = effect.is_empty() || effect == text(other, "effect");
    let long_enough = effect != "NoExecute"
        || seconds(toleration).is_none_or(|most| seconds(other).is_some_and(|wanted| wanted <= most));
    let equal = !matches!(&*text(other, "operator"), "Exists") && text(toleration, "value") == text(other, "value");
    same_key && same_effect && long_enough && (exists || equal)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::merged;

    #[test]
    fn a_toleration_that_another_covers_goes() {
        let all = json!([{"key": "a", "operator": "Equal", "value": "b"}, {"key": "c", "operator": "Exists"}]);
        let more = json!([{"key": "a", "operator": "Exists"}, {"key": "c", "operator": "Exists"}]);
        let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
        let got = merged(&list(&all), &list(&more));
        assert_eq!(json!(got), json!([{"key": "c", "operator": "Exists"}, {"key": "a", "operator": "Exists"}]));
    }
}
