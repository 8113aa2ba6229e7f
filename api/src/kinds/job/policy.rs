//! A Job's policies about failed and succeeded pods (`pkg/apis/batch/validation`).

use serde_json::Value;

use crate::field::{Error, Errors, Path};
use crate::tree::{get, list, number, text};
use crate::validation::{non_negative, qualified_name, supported};

const MAX_RULES: usize = 20;
const MAX_CONDITIONS: usize = 20;
const MAX_CODES: usize = 255;
/// A text of indexes is no longer than that.
const MAX_INDEXES: usize = 64 * 1024;

/// `spec.podFailurePolicy`.
pub(super) fn failure(policy: &Value, spec: &Value, path: &Path) -> Errors {
    let rules = list(policy, "rules");
    let path = path.child("rules");
    let mut errors = Errors::new();
    if rules.len() > MAX_RULES {
        errors.push(Error::too_many(path.clone(), rules.len(), MAX_RULES));
    }
    for (i, rule) in rules.iter().enumerate() {
        errors.extend(failure_rule(rule, spec, &path.index(i)));
    }
    errors
}

fn failure_rule(rule: &Value, spec: &Value, path: &Path) -> Errors {
    let mut errors = action(text(rule, "action"), spec, &path.child("action"));
    let (codes, conditions) = (get(rule, "onExitCodes"), list(rule, "onPodConditions"));
    if let Some(codes) = codes {
        errors.extend(exit_codes(codes, spec, &path.child("onExitCodes")));
    }
    errors.extend(pod_conditions(conditions, &path.child("onPodConditions")));
    match (codes, conditions) {
        (Some(_), [_, ..]) => {
            let detail = "specifying both OnExitCodes and OnPodConditions is not supported";
            errors.push(Error::invalid_omitted(path.clone(), detail));
        }
        (None, []) => {
            let detail = "specifying one of OnExitCodes and OnPodConditions is required";
            errors.push(Error::invalid_omitted(path.clone(), detail));
        }
        _ => {}
    }
    errors
}

/// A text that must be there, with the values it may have as Go's `%q` shows them.
fn needed(value: &str, path: &Path, allowed: &[&str]) -> Errors {
    if !value.is_empty() {
        return supported(value, path, allowed);
    }
    let quoted: Vec<String> = allowed.iter().map(|a| format!("{a:?}")).collect();
    vec![Error::required(path.clone(), format!("valid values: [{}]", quoted.join(" ")))]
}

fn action(action: &str, spec: &Value, path: &Path) -> Errors {
    if action == "FailIndex" && get(spec, "backoffLimitPerIndex").is_none() {
        return vec![Error::invalid(path.clone(), action, "requires the backoffLimitPerIndex to be set")];
    }
    needed(action, path, &["Count", "FailIndex", "FailJob", "Ignore"])
}

fn exit_codes(codes: &Value, spec: &Value, path: &Path) -> Errors {
    let operator = text(codes, "operator");
    let mut errors = needed(operator, &path.child("operator"), &["In", "NotIn"]);
    if let Some(name) = get(codes, "containerName").and_then(Value::as_str) {
        let pod = spec.pointer("/template/spec").unwrap_or(&Value::Null);
        let mut containers = list(pod, "containers").iter().chain(list(pod, "initContainers"));
        if !containers.any(|container| text(container, "name") == name) {
            let detail = "must be one of the container or initContainer names in the pod template";
            errors.push(Error::invalid(path.child("containerName"), name, detail));
        }
    }
    let path = path.child("values");
    let values: Vec<i64> = list(codes, "values").iter().filter_map(Value::as_i64).collect();
    let shown = codes.get("values").cloned().unwrap_or_default();
    if values.is_empty() {
        errors.push(Error::invalid(path.clone(), shown.clone(), "at least one value is required"));
    } else if values.len() > MAX_CODES {
        errors.push(Error::too_many(path.clone(), values.len(), MAX_CODES));
    }
    for (i, code) in values.iter().enumerate() {
        if operator == "In" && *code == 0 {
            errors.push(Error::invalid(path.index(i), 0, "must not be 0 for the In operator"));
        }
        if values.iter().take(i).any(|earlier| earlier == code) {
            errors.push(Error::duplicate(path.index(i), *code));
        }
    }
    if !values.is_sorted() {
        errors.push(Error::invalid(path, shown, "must be ordered"));
    }
    errors
}

fn pod_conditions(conditions: &[Value], path: &Path) -> Errors {
    let mut errors = Errors::new();
    if conditions.len() > MAX_CONDITIONS {
        errors.push(Error::too_many(path.clone(), conditions.len(), MAX_CONDITIONS));
    }
    for (i, condition) in conditions.iter().enumerate() {
        let path = path.index(i);
        errors.extend(qualified_name(text(condition, "type"), &path.child("type")));
        errors.extend(needed(text(condition, "status"), &path.child("status"), &["False", "True", "Unknown"]));
    }
    errors
}

/// `spec.successPolicy` of an indexed job.
pub(super) fn success(policy: &Value, completions: i64, path: &Path) -> Errors {
    let rules = list(policy, "rules");
    let path = path.child("rules");
    let mut errors = Errors::new();
    if rules.is_empty() {
        let detail = "at least one rules must be specified when the successPolicy is specified";
        errors.push(Error::required(path.clone(), detail));
    }
    if rules.len() > MAX_RULES {
        errors.push(Error::too_many(path.clone(), rules.len(), MAX_RULES));
    }
    for (i, rule) in rules.iter().enumerate() {
        errors.extend(success_rule(rule, completions, &path.index(i)));
    }
    errors
}

fn success_rule(rule: &Value, completions: i64, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let (indexes, count) = (get(rule, "succeededIndexes").and_then(Value::as_str), number(rule, "succeededCount"));
    if indexes.is_none() && count.is_none() {
        let detail = "at least one of succeededCount or succeededIndexes must be specified";
        errors.push(Error::required(path.clone(), detail));
    }
    let mut total = 0;
    if let Some(indexes) = indexes {
        let path = path.child("succeededIndexes");
        if indexes.len() > MAX_INDEXES {
            errors.push(Error::too_long(path.clone(), MAX_INDEXES));
        }
        match total_of(indexes, completions) {
            Ok(found) => total = found,
            Err(why) => {
                errors.push(Error::invalid(path, indexes, format!("error parsing succeededIndexes: {why}")));
            }
        }
    }
    let Some(count) = count else { return errors };
    let path = path.child("succeededCount");
    errors.extend(non_negative(Some(count), &path));
    let mut most = |limit: i64, what: &str| {
        if count > limit {
            errors.push(Error::invalid(path.clone(), count, format!("must be less than or equal to {limit} ({what})")));
        }
    };
    most(completions, "the number of specified completions");
    if indexes.is_some() {
        most(total, "the number of indexes in the specified succeededIndexes field");
    }
    errors
}

/// How many indexes a text such as `0,2-4` names: rising, and below `completions`.
fn total_of(indexes: &str, completions: i64) -> Result<i64, String> {
    let (mut total, mut last) = (0, None::<i64>);
    if indexes.is_empty() {
        return Ok(0);
    }
    for part in indexes.split(',') {
        let number = |text: &str| {
            text.parse::<i64>().map_err(|_| format!("cannot convert string to integer for index: {text:?}"))
        };
        let ends: Vec<&str> = part.split('-').collect();
        let (from, to) = match ends.as_slice() {
            [one] => (number(one)?, number(one)?),
            [from, to] => (number(from)?, number(to)?),
            _ => {
                return Err(format!(
                    "the fragment {part:?} violates the requirement that an index interval can have at most two parts separated by '-'"
                ));
            }
        };
        for (n, text) in [(from, ends.first()), (to, ends.last())] {
            if n >= completions {
                return Err(format!("too large index: {:?}", text.copied().unwrap_or_default()));
            }
        }
        if from > to {
            return Err(format!("non-increasing order, previous: {from}, current: {to}"));
        }
        if let Some(last) = last.filter(|last| *last >= from) {
            return Err(format!("non-increasing order, previous: {last}, current: {from}"));
        }
        (total, last) = (total + to - from + 1, Some(to));
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::total_of;

    #[test]
    fn indexes_rise_and_are_counted() {
        assert_eq!(total_of("0,2-4,7", 8), Ok(5));
        assert_eq!(total_of("", 8), Ok(0));
        assert_eq!(total_of("8", 8), Err("too large index: \"8\"".into()));
        assert_eq!(total_of("3,3", 8), Err("non-increasing order, previous: 3, current: 3".into()));
        assert_eq!(total_of("a", 8), Err("cannot convert string to integer for index: \"a\"".into()));
    }
}
