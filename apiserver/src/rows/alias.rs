//! Resources that are another one in other words: events in two groups, autoscaling v1 and v2.

use api::Document;
use api::schema::Resource as Facts;
use serde_json::{Map, Value, json};

use crate::row::Convert;

/// What an alias is stored as.
pub(super) struct Alias {
    pub(super) api_version: &'static str,
    pub(super) convert: &'static dyn Convert,
}

/// The alias that a resource of the table is, if it is one.
pub(super) fn of(facts: &Facts) -> Option<Alias> {
    match (facts.group.as_str(), facts.version.as_str(), facts.plural.as_str()) {
        ("events.k8s.io", "v1", "events") => Some(Alias { api_version: "v1", convert: &Events }),
        ("autoscaling", "v1", "horizontalpodautoscalers") => {
            Some(Alias { api_version: "autoscaling/v2", convert: &super::autoscaling::Autoscaling })
        }
        _ => None,
    }
}

/// Core events are the stored form (`k8s.io/kubernetes/pkg/apis/events/v1/conversion.go`).
struct Events;

/// Fields by their names in events.k8s.io/v1 and in v1.
const EVENT_FIELDS: &[(&str, &str)] = &[
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

impl Convert for Events {
    fn to_storage(&self, document: &mut Document) {
        for (new, core) in EVENT_FIELDS {
            rename(document.value_mut(), new, core);
        }
        document.set_default("/involvedObject", json!({}));
        document.set_default("/source", json!({}));
        for key in ["/firstTimestamp", "/lastTimestamp"] {
            document.set_default(key, Value::Null);
        }
        for key in ["/reportingComponent", "/reportingInstance"] {
            document.set_default(key, "");
        }
    }

    fn stored_field(&self, field: &str) -> Option<String> {
        let (first, rest) = field.split_once('.').map_or((field, None), |(first, rest)| (first, Some(rest)));
        let (_, core) = EVENT_FIELDS.iter().find(|(new, _)| *new == first)?;
        Some(rest.map_or_else(|| (*core).to_owned(), |rest| format!("{core}.{rest}")))
    }

    fn unstore(&self, document: &mut Document) {
        for (new, core) in EVENT_FIELDS {
            rename(document.value_mut(), core, new);
        }
        if document.str_at("/reportingController").is_empty() {
            document.remove("/reportingController");
        }
        if document.str_at("/reportingInstance").is_empty() {
            document.remove("/reportingInstance");
        }
    }
}

fn rename(value: &mut Value, from: &str, to: &str) {
    let Some(map): Option<&mut Map<String, Value>> = value.as_object_mut() else { return };
    if let Some(moved) = map.remove(from) {
        map.insert(to.into(), moved);
    }
}

#[cfg(test)]
mod tests {
    use super::{Convert, Events};

    #[test]
    fn selectors_of_the_new_group_mean_stored_fields() {
        let field = |name| Events.stored_field(name);
        assert_eq!(field("regarding.kind").as_deref(), Some("involvedObject.kind"));
        assert_eq!(field("reportingController").as_deref(), Some("reportingComponent"));
        assert_eq!(field("reason"), None);
    }
}
