//! What a `LimitRange` may say (`pkg/apis/core/validation`, ValidateLimitRange).

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::{Change, pod_spec};
use crate::field::{Error, Errors, Path};
use crate::tree::{get, map, text};
use crate::validation::invalid_each;
use crate::validation::text::qualified_name;
use crate::{Document, Quantity};

const STANDARD: [&str; 3] = ["Pod", "Container", "PersistentVolumeClaim"];
/// The amounts of one limit. A pod has no defaults.
const AMOUNTS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

/// A `LimitRange`.
pub(super) fn limit_range(new: &Document, _: &Change<'_>) -> Errors {
    let path = Path::new("spec").child("limits");
    let mut errors = Errors::new();
    let mut kinds = BTreeSet::new();
    for (at, limit) in new.list_at("/spec/limits").iter().enumerate() {
        let path = path.index(at);
        let kind = text(limit, "type");
        errors.extend(type_name(kind, &path.child("type")));
        if !kinds.insert(kind) {
            errors.push(Error::duplicate(path.child("type"), kind));
        }
        errors.extend(one(limit, kind, &path));
    }
    errors
}

fn type_name(kind: &str, path: &Path) -> Errors {
    let errors = invalid_each(path, kind, qualified_name(kind));
    match errors.is_empty() && !kind.contains('/') && !STANDARD.contains(&kind) {
        true => vec![Error::invalid(path.clone(), kind, "must be a standard limit type or fully qualified")],
        false => errors,
    }
}

fn one(limit: &Value, kind: &str, path: &Path) -> Errors {
    let of_pod = |field: &&str| kind == "Pod" && field.starts_with("default");
    let mut errors = Errors::new();
    for field in AMOUNTS.iter().filter(|field| of_pod(field) && map(get(limit, field)).next().is_some()) {
        errors.push(Error::forbidden(path.child(field), "may not be specified when `type` is 'Pod'"));
    }
    let mut names = BTreeSet::new();
    for field in AMOUNTS.iter().filter(|field| !of_pod(field)) {
        for (name, _) in map(get(limit, field)) {
            let path = path.child(field).key(name);
            errors.extend(match kind {
                "Pod" | "Container" => pod_spec::container_name(name, &path),
                _ => pod_spec::resource_name(name, &path),
            });
            names.insert(name.as_str());
        }
    }
    let storage = |field: &str| get(limit, field).and_then(|amounts| amounts.get("storage"));
    if kind == "PersistentVolumeClaim" && storage("min").is_none() && storage("max").is_none() {
        let detail = "either minimum or maximum storage value is required, but neither was provided";
        errors.push(Error::required(path.child("limits"), detail));
    }
    names.iter().for_each(|name| amounts(limit, kind, name, path, &mut errors));
    errors
}

/// How the amounts of one resource go together.
fn amounts(limit: &Value, kind: &str, name: &str, path: &Path, errors: &mut Errors) {
    let amount = |field: &str| {
        let given = get(limit, field).filter(|_| kind != "Pod" || !field.starts_with("default"))?;
        Quantity::parse(given.get(name)?.as_str()?).ok()
    };
    let (least, most) = (amount("min"), amount("max"));
    let (default, request, ratio) = (amount("default"), amount("defaultRequest"), amount("maxLimitRequestRatio"));
    // The smaller one, the greater one, the field of the error and which of them it shows, and how both are called.
    let pairs = [
        (&least, &most, "min", true, "min value", "max value"),
        (&least, &request, "defaultRequest", false, "min value", "default request value"),
        (&request, &most, "defaultRequest", true, "default request value", "max value"),
        (&request, &default, "defaultRequest", true, "default request value", "default limit value"),
        (&least, &default, "default", true, "min value", "default value"),
        (&default, &most, "default", false, "default value", "max value"),
    ];
    for (small, great, field, shows_small, small_name, great_name) in pairs {
        let (Some(small), Some(great)) = (small, great) else { continue };
        if small > great {
            let value = if shows_small { small } else { great }.to_string();
            let detail = format!("{small_name} {small} is greater than {great_name} {great}");
            errors.push(Error::invalid(path.child(field).key(name), value, detail));
        }
    }
    let Some(ratio) = ratio else { return };
    let at = path.child("maxLimitRequestRatio").key(name);
    if ratio.milli_value() < 1000 {
        errors.push(Error::invalid(at.clone(), ratio.to_string(), format!("ratio {ratio} is less than 1")));
    }
    if let (Some(least), Some(most)) = (&least, &most) {
        let bound = most.milli_value() as f64 / least.milli_value() as f64;
        if ratio.milli_value() as f64 / 1000.0 > bound {
            let detail = format!("ratio {ratio} is greater than max/min = {bound:.6}");
            errors.push(Error::invalid(at, ratio.to_string(), detail));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::Document;
    use crate::kinds::rules;
    use crate::kinds::tests::create;

    fn check(limits: Value) -> Vec<String> {
        let range = Document::new(json!({"spec": {"limits": limits}})).unwrap_or_default();
        create(rules("", "LimitRange"), range)
    }

    #[test]
    fn amounts_go_together() {
        let good = json!([{"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "1m"}, "default": {"cpu": "1"}}]);
        assert_eq!(check(good), Vec::<String>::new());
        let bad = json!([{"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "2"}}, {"type": "Container"}]);
        let errors = check(bad);
        assert!(errors.iter().any(|e| e == "spec.limits[1].type: Duplicate value: \"Container\""), "{errors:?}");
        let least = "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1";
        assert!(errors.iter().any(|e| e == least), "{errors:?}");
        let errors = check(json!([{"type": "Pod", "default": {"cpu": "1"}}, {"type": "Odd"}]));
        assert_eq!(errors.len(), 2, "{errors:?}");
    }
}
