//! What a definition's status should say: accepted names and conditions
//! (`k8s.io/apiextensions-apiserver/pkg/controller/{status,establish}`). Pure.

use api::{Document, Timestamp, time};
use serde_json::{Value, json};

/// What to do about one definition.
pub(super) struct Decision {
    /// Whether requests for its resource are answered.
    pub(super) serve: bool,
    /// The definition with its new status, where that changes.
    pub(super) document: Option<Document>,
}

/// Decides for one definition among all of them.
pub(super) fn decide(definition: &Document, all: &[Document], now: Timestamp) -> Decision {
    let mut new = definition.clone();
    if definition.deleting() {
        let text = "CustomResource deletion is in progress".to_owned();
        condition(&mut new, "Terminating", ("True", "InstanceDeletionInProgress", text), now);
        return Decision { serve: is_true(definition, "Established"), document: (new != *definition).then_some(new) };
    }
    let conflict = conflict(definition, all);
    let accepted = match &conflict {
        None => ("True", "NoConflicts", "no conflicts found".to_owned()),
        Some((reason, message)) => ("False", *reason, message.clone()),
    };
    condition(&mut new, "NamesAccepted", accepted, now);
    if conflict.is_none() {
        accept_names(&mut new);
    }
    let established = is_true(definition, "Established");
    match (established, conflict.is_none()) {
        (false, true) => {
            let text = "the initial names have been accepted".to_owned();
            condition(&mut new, "Established", ("True", "InitialNamesAccepted", text), now);
        }
        (false, false) => {
            let text = "not all names are accepted".to_owned();
            condition(&mut new, "Established", ("False", "NotAccepted", text), now);
        }
        (true, _) => {}
    }
    stored_versions(&mut new);
    let serve = established || conflict.is_none();
    Decision { serve, document: (new != *definition).then_some(new) }
}

/// Names that another definition of the group was given already.
fn conflict(definition: &Document, all: &[Document]) -> Option<(&'static str, String)> {
    let group = definition.str_at("/spec/group");
    let others = all.iter().filter(|o| o.name() != definition.name() && o.str_at("/spec/group") == group);
    let others: Vec<&Document> = others.filter(|o| is_true(o, "NamesAccepted")).collect();
    let taken = |name: &str, fields: &[&str]| {
        let has = |other: &&&Document| {
            fields.iter().any(|f| other.str_at(&format!("/status/acceptedNames/{f}")) == name)
                || (fields.contains(&"plural")
                    && other.list_at("/status/acceptedNames/shortNames").iter().any(|s| s == name))
        };
        !name.is_empty() && others.iter().any(|other| has(&other))
    };
    let resources = ["plural", "singular"];
    let kinds = ["kind", "listKind"];
    let checks: [(&str, &str, &[&str]); 4] = [
        ("ListKindConflict", "listKind", &kinds),
        ("KindConflict", "kind", &kinds),
        ("SingularConflict", "singular", &resources),
        ("PluralConflict", "plural", &resources),
    ];
    checks.into_iter().find_map(|(reason, field, fields)| {
        let name = definition.str_at(&format!("/spec/names/{field}"));
        taken(name, fields).then(|| (reason, format!("{name:?} is already in use")))
    })
}

fn accept_names(definition: &mut Document) {
    let names = definition.at("/spec/names").cloned().unwrap_or_else(|| json!({}));
    definition.set("/status/acceptedNames", names);
}

/// The storage version has been stored, as far as anyone knows.
fn stored_versions(definition: &mut Document) {
    let storage = definition.list_at("/spec/versions").iter().find(|v| v.get("storage") == Some(&Value::Bool(true)));
    let Some(name) = storage.and_then(|v| v.get("name")).cloned() else { return };
    let mut stored = definition.list_at("/status/storedVersions").to_vec();
    if !stored.contains(&name) {
        stored.push(name);
        definition.set("/status/storedVersions", stored);
    }
}

fn is_true(definition: &Document, kind: &str) -> bool {
    let conditions = definition.list_at("/status/conditions").iter();
    conditions.into_iter().any(|c| c["type"] == kind && c["status"] == "True")
}

/// Sets a condition; its time moves with its status only.
pub(super) fn condition(definition: &mut Document, kind: &str, want: (&str, &str, String), now: Timestamp) {
    let (status, reason, message) = want;
    let mut conditions = definition.list_at("/status/conditions").to_vec();
    let found = conditions.iter_mut().find(|c| c["type"] == kind);
    let since = match &found {
        Some(c) if c["status"] == status => c["lastTransitionTime"].clone(),
        _ => time::rfc3339(now).into(),
    };
    let condition =
        json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since});
    match found {
        Some(found) => *found = condition,
        None => conditions.push(condition),
    }
    definition.set("/status/conditions", conditions);
}

#[cfg(test)]
mod tests {
    use super::decide;
    use api::{Document, Timestamp};
    use serde_json::json;

    fn definition(name: &str, kind: &str) -> Document {
        let names = json!({"plural": name, "singular": name, "kind": kind, "listKind": format!("{kind}List")});
        let versions = json!([{"name": "v1", "storage": true, "served": true}]);
        let spec = json!({"group": "x.io", "names": names, "versions": versions});
        Document::new(json!({"metadata": {"name": format!("{name}.x.io")}, "spec": spec})).expect("an object")
    }

    #[test]
    fn the_first_to_have_a_kind_keeps_it() {
        let now = Timestamp::UNIX_EPOCH;
        let first = definition("as", "A");
        let decided = decide(&first, std::slice::from_ref(&first), now);
        assert!(decided.serve);
        let first = decided.document.expect("conditions are new");
        assert!(decide(&first, std::slice::from_ref(&first), now).document.is_none(), "decided twice, changed twice");
        let second = definition("bs", "A");
        let decided = decide(&second, &[first, second.clone()], now);
        assert!(!decided.serve);
        let text = decided.document.expect("conditions are new").value().to_string();
        assert!(text.contains(r#""AList\" is already in use""#), "{text}");
    }
}
