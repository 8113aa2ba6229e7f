//! DaemonSet.

use serde_json::Value;

use super::cell::{self, containers, count, row};
use super::workload::{amount, counts, lasting_template, selected, selector};
use super::{Change, Operation, Rules, pod_spec, workload};
use crate::field::{Error, Errors, Path};
use crate::tree::{fill, get, object, text};
use crate::validation::{at_most_100_percent, immutable, int_or_percent, same};
use crate::{Document, Timestamp};

/// Rules of `apps/v1 DaemonSet`.
pub(super) struct DaemonSet;

/// Internally the template's generation is a field of its own; on the wire it is this annotation.
const TEMPLATE_GENERATION: &str = "/metadata/annotations/deprecated.daemonset.template.generation";

impl Rules for DaemonSet {
    fn default(&self, set: &mut Document) {
        let spec = object(set.value_mut(), "spec");
        let strategy = object(spec, "updateStrategy");
        fill(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate" {
            let rolling = object(strategy, "rollingUpdate");
            fill(rolling, "maxUnavailable", 1);
            fill(rolling, "maxSurge", 0);
        }
        fill(spec, "revisionHistoryLimit", 10);
        pod_spec::template(object(spec, "template"));
    }

    fn prepare(&self, new: &mut Document, change: &Change<'_>) {
        let generation = |doc: &Document| doc.str_at(TEMPLATE_GENERATION).parse::<i64>().unwrap_or_default();
        match (change.operation, change.old) {
            (Operation::Update, Some(old)) => {
                let changed =
                    change.subresource.is_empty() && !same(new.at("/spec/template"), old.at("/spec/template"));
                let generation = generation(old) + i64::from(changed);
                new.set(TEMPLATE_GENERATION, generation.to_string());
            }
            _ => {
                let generation = generation(new).max(1);
                new.set(TEMPLATE_GENERATION, generation.to_string());
            }
        }
    }

    fn validate(&self, new: &Document, change: &Change<'_>) -> Errors {
        let nothing = Value::Null;
        if change.subresource == "status" {
            return validate_status(new.at("/status").unwrap_or(&nothing));
        }
        let (spec, path) = (new.at("/spec").unwrap_or(&nothing), Path::new("spec"));
        let mut errors = Errors::new();
        if let Some(old) = change.old {
            let path = path.child("selector");
            errors.extend(immutable(new.at("/spec/selector"), old.at("/spec/selector"), &path));
        }
        errors.extend(selected(spec, &path, true));
        errors.extend(selector(spec, &path, false, "daemonset"));
        errors.extend(lasting_template(spec, &path, "DaemonSet"));
        errors.extend(counts(spec, &["minReadySeconds"], &path));
        let strategy = get(spec, "updateStrategy").unwrap_or(&nothing);
        errors.extend(update_strategy(strategy, &path.child("updateStrategy")));
        errors.extend(counts(spec, &["revisionHistoryLimit"], &path));
        errors
    }

    fn warnings(&self, new: &Document, change: &Change<'_>) -> Vec<String> {
        workload::warnings(new, change, "/spec/template", false)
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn cells(&self, set: &Document, now: Timestamp) -> Option<Vec<Value>> {
        let (names, images) = containers(set, "/spec/template/spec/containers");
        row![
            set.name(),
            count(set, "/status/desiredNumberScheduled"),
            count(set, "/status/currentNumberScheduled"),
            count(set, "/status/numberReady"),
            count(set, "/status/updatedNumberScheduled"),
            count(set, "/status/numberAvailable"),
            cell::labels(set.at("/spec/template/spec/nodeSelector")),
            cell::age(set, now),
            names,
            images,
            cell::selector_or_none(set.at("/spec/selector")),
        ]
    }
}

fn update_strategy(strategy: &Value, path: &Path) -> Errors {
    match (text(strategy, "type"), get(strategy, "rollingUpdate")) {
        ("OnDelete", _) => Errors::new(),
        ("RollingUpdate", None) => vec![Error::required(path.child("rollingUpdate"), "")],
        ("RollingUpdate", Some(rolling)) => rolling_update(rolling, &path.child("rollingUpdate")),
        _ => vec![Error::not_supported(path.clone(), strategy.clone(), &["RollingUpdate", "OnDelete"])],
    }
}

fn rolling_update(rolling: &Value, path: &Path) -> Errors {
    let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
    let (unavailable_path, surge_path) = (path.child("maxUnavailable"), path.child("maxSurge"));
    let mut errors = int_or_percent(unavailable, &unavailable_path);
    errors.extend(int_or_percent(surge, &surge_path));
    errors.extend(at_most_100_percent(unavailable, &unavailable_path));
    errors.extend(at_most_100_percent(surge, &surge_path));
    match (amount(unavailable) != 0, amount(surge) != 0) {
        (true, true) => {
            let value = surge.cloned().unwrap_or_default();
            errors.push(Error::invalid(surge_path, value, "may not be set when maxUnavailable is non-zero"));
        }
        (false, false) => errors.push(Error::required(unavailable_path, "cannot be 0 when maxSurge is 0")),
        _ => {}
    }
    errors
}

fn validate_status(status: &Value) -> Errors {
    let fields = [
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
        "collisionCount",
    ];
    counts(status, &fields, &Path::new("status"))
}
