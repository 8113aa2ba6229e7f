//! A pod's quality of service class (`pkg/apis/core/v1/helper/qos`).

use serde_json::Value;

use crate::tree::{get, list, map};
use crate::{Document, Quantity};

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub fn class(pod: &Document) -> &'static str {
    if let Some(resources) = pod.at("/spec/resources").filter(|r| pod_level(r)) {
        return of_resources(resources);
    }
    let spec = pod.at("/spec").unwrap_or(&Value::Null);
    let containers = ["initContainers", "containers"].into_iter().flat_map(|kind| list(spec, kind));
    let classes = containers.map(|c| get(c, "resources").map_or(BEST_EFFORT, of_resources));
    together(classes).unwrap_or(BEST_EFFORT)
}

const BEST_EFFORT: &str = "BestEffort";
const BURSTABLE: &str = "Burstable";

/// Whether resources name something that a pod as a whole can have.
fn pod_level(resources: &Value) -> bool {
    ["requests", "limits"].iter().any(|kind| {
        map(get(resources, kind))
            .any(|(name, _)| matches!(name.as_str(), "cpu" | "memory") || name.starts_with("hugepages-"))
    })
}

fn of_resources(resources: &Value) -> &'static str {
    together(["cpu", "memory"].into_iter().map(|name| of_resource(resources, name))).unwrap_or(BEST_EFFORT)
}

fn of_resource(resources: &Value, name: &str) -> &'static str {
    let quantity = |kind: &str| {
        let text = get(resources, kind).and_then(|list| list.get(name)?.as_str());
        text.and_then(|text| Quantity::parse(text).ok()).unwrap_or_default()
    };
    let (request, limit) = (quantity("requests"), quantity("limits"));
    match (request.is_zero() && limit.is_zero(), request == limit) {
        (true, _) => BEST_EFFORT,
        (false, true) => "Guaranteed",
        (false, false) => BURSTABLE,
    }
}

/// The class that all share; `Burstable` where they differ.
fn together(mut classes: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let first = classes.next()?;
    Some(if classes.all(|class| class == first) { first } else { BURSTABLE })
}

#[cfg(test)]
mod tests {
    use super::class;
    use crate::Document;
    use serde_json::{Value, json};

    #[test]
    fn a_class_follows_from_requests_and_limits_of_all_containers() {
        let full = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1Gi"}});
        let cpu = json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}});
        let cases: [(Vec<Value>, &str); 5] = [
            (vec![json!({})], "BestEffort"),
            (vec![full.clone()], "Guaranteed"),
            (vec![cpu], "Burstable"),
            (vec![full.clone(), json!({})], "Burstable"),
            (vec![full.clone(), full], "Guaranteed"),
        ];
        for (resources, want) in cases {
            let containers: Vec<Value> = resources.iter().map(|r| json!({"resources": r})).collect();
            let pod = Document::new(json!({"spec": {"containers": containers}})).unwrap_or_default();
            assert_eq!(class(&pod), want, "{resources:?}");
        }
    }
}
