//! Event, in both groups: they share a storage, and each has names of its own for some fields.

use serde_json::Value;

use super::cell::{or, row};
use super::{Change, NameFormat, Operation, Rules};
use crate::field::{Error, Errors, Path};
use crate::tree::{get, number, text};
use crate::validation::{immutable, qualified_name};
use crate::{Document, Timestamp, time};

/// Rules of Event.
pub(super) struct Event {
    /// `events.k8s.io`, whose checks are stricter.
    pub new_group: bool,
}

/// A field of an event by the name in either group.
fn of<'a>(event: &'a Document, core: &str, new: &str) -> Option<&'a Value> {
    get(event.value(), core).or_else(|| get(event.value(), new))
}

fn text_of<'a>(event: &'a Document, core: &str, new: &str) -> &'a str {
    of(event, core, new).and_then(Value::as_str).unwrap_or_default()
}

fn object(event: &Document) -> &Value {
    of(event, "involvedObject", "regarding").unwrap_or(&Value::Null)
}

impl Rules for Event {
    fn validate(&self, new: &Document, change: &Change<'_>) -> Errors {
        let mut errors = legacy(new, self.new_group);
        if !self.new_group {
            return errors;
        }
        match change.old.filter(|_| change.operation == Operation::Update) {
            None => errors.extend(strict(new)),
            Some(old) => errors.extend(unchanged(new, old)),
        }
        errors
    }

    fn name_format(&self) -> NameFormat {
        NameFormat::PathSegment
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn selectable(&self, event: &Document) -> Vec<(&'static str, String)> {
        let names = if self.new_group { NEW_FIELDS } else { FIELDS };
        let fields = ["kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"];
        let object = object(event);
        let mut all: Vec<(&'static str, String)> =
            names.into_iter().zip(fields).map(|(name, field)| (name, text(object, field).into())).collect();
        let component = event.str_at("/source/component");
        let controller = text_of(event, "reportingComponent", "reportingController");
        all.push((if self.new_group { "reportingController" } else { "reportingComponent" }, controller.into()));
        all.push(("reason", event.str_at("/reason").into()));
        all.push(("source", or(component, controller).into()));
        all.push(("type", event.str_at("/type").into()));
        all
    }

    fn cells(&self, event: &Document, now: Timestamp) -> Option<Vec<Value>> {
        let (first, last, count) = seen(event, now);
        row![
            last,
            event.str_at("/type"),
            event.str_at("/reason"),
            target(event),
            text(object(event), "fieldPath"),
            source(event),
            text_of(event, "message", "note").trim(),
            first,
            count,
            event.name(),
        ]
    }
}

const FIELDS: [&str; 7] = [
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
];
const NEW_FIELDS: [&str; 7] = [
    "regarding.kind",
    "regarding.namespace",
    "regarding.name",
    "regarding.uid",
    "regarding.apiVersion",
    "regarding.resourceVersion",
    "regarding.fieldPath",
];

/// When it was first and last seen, and how often.
fn seen(event: &Document, now: Timestamp) -> (String, String, i64) {
    let or_since = |text: &str, instead: String| if text.is_empty() { instead } else { time::since(text, now) };
    let first_text = text_of(event, "firstTimestamp", "deprecatedFirstTimestamp");
    let first = or_since(first_text, time::since(event.str_at("/eventTime"), now));
    if let Some(series) = get(event.value(), "series") {
        let last = time::since(text(series, "lastObservedTime"), now);
        return (first, last, number(series, "count").unwrap_or_default());
    }
    let last = or_since(text_of(event, "lastTimestamp", "deprecatedLastTimestamp"), first.clone());
    let count = of(event, "count", "deprecatedCount").and_then(Value::as_i64).unwrap_or_default();
    // Single events of the new group have no count.
    (first, last, count.max(1))
}

fn target(event: &Document) -> String {
    let object = object(event);
    let kind = text(object, "kind").to_lowercase();
    match text(object, "name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    }
}

fn source(event: &Document) -> String {
    let source = of(event, "source", "deprecatedSource").unwrap_or(&Value::Null);
    let controller = text_of(event, "reportingComponent", "reportingController");
    let component = or(text(source, "component"), controller);
    match or(text(source, "host"), event.str_at("/reportingInstance")) {
        "" => component.into(),
        instance => format!("{component}, {instance}"),
    }
}

fn legacy(event: &Document, new_group: bool) -> Errors {
    let path = Path::new("involvedObject").child("namespace");
    let (own, of_object) = (event.namespace(), text(object(event), "namespace"));
    let mismatch = || Error::invalid(path.clone(), of_object, "does not match event.namespace");
    if event.str_at("/eventTime").is_empty() {
        let fits = own == of_object || (of_object.is_empty() && matches!(own, "" | "default"));
        return if fits { Errors::new() } else { vec![mismatch()] };
    }
    let mut errors = Errors::new();
    if of_object.is_empty() && !matches!(own, "default" | "kube-system") {
        errors.push(mismatch());
    }
    let field = Path::new(if new_group { "reportingController" } else { "reportingComponent" });
    let controller = text_of(event, "reportingComponent", "reportingController");
    if controller.is_empty() {
        errors.push(Error::required(field.clone(), ""));
    }
    errors.extend(qualified_name(controller, &field));
    for (name, max) in [("reportingInstance", 128), ("action", 128), ("reason", 128)] {
        match event.str_at(&format!("/{name}")) {
            "" => errors.push(Error::required(Path::new(name), "")),
            long if long.len() > max => {
                errors.push(Error::invalid(Path::new(name), "", format!("can have at most {max} characters")));
            }
            _ => {}
        }
    }
    if text_of(event, "message", "note").len() > 1024 {
        errors.push(Error::invalid(Path::new("message"), "", "can have at most 1024 characters"));
    }
    errors
}

fn strict(event: &Document) -> Errors {
    let mut errors = series(event);
    if event.str_at("/eventTime").is_empty() {
        errors.push(Error::required(Path::new("eventTime"), ""));
    }
    let kind = event.str_at("/type");
    if !matches!(kind, "Normal" | "Warning") {
        errors.push(Error::invalid(Path::new("type"), "", format!("has invalid value: {kind}")));
    }
    for (core, new) in [("firstTimestamp", "deprecatedFirstTimestamp"), ("lastTimestamp", "deprecatedLastTimestamp")] {
        if !text_of(event, core, new).is_empty() {
            errors.push(Error::invalid(Path::new(core), "", "needs to be unset"));
        }
    }
    if of(event, "count", "deprecatedCount").is_some_and(|n| n != 0) {
        errors.push(Error::invalid(Path::new("count"), "", "needs to be unset"));
    }
    let source = of(event, "source", "deprecatedSource").unwrap_or(&Value::Null);
    if !text(source, "component").is_empty() || !text(source, "host").is_empty() {
        errors.push(Error::invalid(Path::new("source"), "", "needs to be unset"));
    }
    errors
}

fn series(event: &Document) -> Errors {
    let mut errors = Errors::new();
    if let Some(series) = get(event.value(), "series") {
        if number(series, "count").unwrap_or_default() < 2 {
            errors.push(Error::invalid(Path::new("series.count"), "", "should be at least 2"));
        }
        if text(series, "lastObservedTime").is_empty() {
            errors.push(Error::required(Path::new("series.lastObservedTime"), ""));
        }
    }
    errors
}

fn unchanged(new: &Document, old: &Document) -> Errors {
    let fields = [
        ("involvedObject", "regarding"),
        ("reason", "reason"),
        ("message", "note"),
        ("source", "deprecatedSource"),
        ("firstTimestamp", "deprecatedFirstTimestamp"),
        ("lastTimestamp", "deprecatedLastTimestamp"),
        ("count", "deprecatedCount"),
        ("type", "type"),
        ("eventTime", "eventTime"),
        ("action", "action"),
        ("related", "related"),
        ("reportingController", "reportingController"),
        ("reportingInstance", "reportingInstance"),
    ];
    let changed_series = get(new.value(), "series") != get(old.value(), "series");
    let mut errors = if changed_series { series(new) } else { Errors::new() };
    for (core, name) in fields {
        errors.extend(immutable(of(new, core, name), of(old, core, name), &Path::new(core)));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::Event;
    use crate::kinds::tests::cells;
    use serde_json::json;

    #[test]
    fn a_row_counts_and_names_either_form() {
        let old = json!({"metadata": {"name": "e"}, "type": "Normal", "reason": "R", "message": " m ", "count": 3,
            "involvedObject": {"kind": "Pod", "name": "p"}, "source": {"component": "c", "host": "h"},
            "lastTimestamp": "1969-12-31T23:59:00Z", "firstTimestamp": "1969-12-31T23:50:00Z"});
        let new = json!({"metadata": {"name": "e"}, "type": "Warning", "reason": "R", "note": "m",
            "regarding": {"kind": "Node", "name": "n"}, "reportingController": "c", "reportingInstance": "i",
            "eventTime": "1969-12-31T23:59:00.000000Z"});
        assert_eq!(cells(&Event { new_group: false }, old).join("|"), "60s|Normal|R|pod/p||c, h|m|10m|3|e");
        assert_eq!(cells(&Event { new_group: true }, new).join("|"), "60s|Warning|R|node/n||c, i|m|60s|1|e");
    }
}
