//! The smallest JSON merge patch (RFC 7386) from one value to another.

use serde::Serialize;
use serde_json::{Map, Value, json};

/// The patch that turns `from` into `to`; `None` where they are the same.
/// Nulls in `to` mean absence, as they do in a merge patch.
pub fn diff(from: &Value, to: &Value) -> Option<Value> {
    match (from, to) {
        (Value::Object(from), Value::Object(to)) => diff_maps(from, to),
        _ => (from != to).then(|| to.clone()),
    }
}

fn diff_maps(from: &Map<String, Value>, to: &Map<String, Value>) -> Option<Value> {
    let mut patch = Map::new();
    for (key, value) in to.iter().filter(|(_, v)| !v.is_null()) {
        let change = from.get(key).map_or_else(|| Some(value.clone()), |old| diff(old, value));
        patch.extend(change.map(|c| (key.clone(), c)));
    }
    let gone = from.iter().filter(|(key, old)| !old.is_null() && to.get(*key).is_none_or(Value::is_null));
    patch.extend(gone.map(|(key, _)| (key.clone(), Value::Null)));
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// The patch of `status` from one typed status to another, bound to the resourceVersion it was decided on.
pub fn status<S: Serialize>(resource_version: Option<&str>, from: &S, to: &S) -> Option<Value> {
    let (from, to) = (serde_json::to_value(from).ok()?, serde_json::to_value(to).ok()?);
    let patch = diff(&from, &to)?;
    Some(match resource_version {
        Some(version) => json!({"metadata": {"resourceVersion": version}, "status": patch}),
        None => json!({ "status": patch }),
    })
}

#[cfg(test)]
mod tests {
    use super::diff;
    use serde_json::json;

    #[test]
    fn only_differences_and_nulls_for_what_goes() {
        let from = json!({"a": 1, "b": {"c": [1], "d": 2}, "e": 3});
        assert_eq!(diff(&from, &from), None);
        let to = json!({"a": 1, "b": {"c": [1, 2]}, "e": null, "f": {}});
        assert_eq!(diff(&from, &to), Some(json!({"b": {"c": [1, 2], "d": null}, "e": null, "f": {}})));
    }
}
