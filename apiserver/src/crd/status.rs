//! What a definition's status should say: accepted names and conditions
//! (`k8s.io/apiextensions-apiserver/pkg/controller/{status,establish}`). Pure.

use std::collections::BTreeSet;

use api::kinds::{Approval, ca_bundle_fault};
use api::{Document, Timestamp, time};
use serde_json::{Value, json};

use super::cleanup::FINALIZER;
use crate::authz::aggregate;

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
        // What comes of it, its cleanup says.
        let begins = matches!(reason(definition, "Terminating"), "" | "InstanceDeletionPending");
        if begins && definition.finalizers().any(|finalizer| finalizer == FINALIZER) {
            let text = "CustomResource deletion is in progress".to_owned();
            condition(&mut new, "Terminating", ("True", "InstanceDeletionInProgress", text), now);
        }
        return Decision { serve: is_true(definition, "Established"), document: (new != *definition).then_some(new) };
    }
    let conflict = accept_names(&mut new, all);
    let accepted = conflict.is_none();
    let (status, reason, message) = match conflict {
        None => ("True", "NoConflicts", "no conflicts found".to_owned()),
        Some((reason, message)) => ("False", reason, message),
    };
    condition(&mut new, "NamesAccepted", (status, reason, message), now);
    let bundle = ca_bundle_fault(definition.str_at("/spec/conversion/webhook/clientConfig/caBundle"));
    let established = is_true(definition, "Established");
    let known = definition.list_at("/status/conditions").iter().any(|c| c["type"] == "Established");
    let says = match (accepted, bundle, known) {
        _ if established => None,
        (true, None, _) => Some(("True", "InitialNamesAccepted", "the initial names have been accepted")),
        (true, Some(_), _) => Some(("False", "InvalidCABundle", "The conversion webhook CABundle is invalid")),
        (false, _, false) => Some(("False", "NotAccepted", "not all names are accepted")),
        (false, _, true) => None,
    };
    if let Some((status, reason, message)) = says {
        condition(&mut new, "Established", (status, reason, message.to_owned()), now);
    }
    if let Some(approval) = Approval::of(definition) {
        condition(&mut new, "KubernetesAPIApprovalPolicyConformant", conforms(approval), now);
    }
    Decision { serve: is_true(&new, "Established"), document: (new != *definition).then_some(new) }
}

/// Whether a definition in one of the community's groups is approved of.
fn conforms(approval: Approval) -> (&'static str, &'static str, String) {
    match approval {
        Approval::Approved(why) => ("True", "ApprovedAnnotation", why),
        Approval::Bypassed(why) => ("False", "UnapprovedAnnotation", why),
        Approval::Missing(why) => ("False", "MissingAnnotation", why),
        Approval::Invalid(why) => ("False", "InvalidAnnotation", why),
    }
}

/// Gives a definition those of its names that no other one of the group has; the last that one has is the conflict.
fn accept_names(definition: &mut Document, all: &[Document]) -> Option<(&'static str, String)> {
    let text = |document: &Document, field: &str| document.str_at(&format!("/status/acceptedNames/{field}")).to_owned();
    let shorts = |document: &Document, place: &str| -> Vec<String> {
        let listed = document.list_at(&format!("/{place}/shortNames")).iter();
        listed.filter_map(|name| name.as_str().map(str::to_owned)).collect()
    };
    let group = definition.str_at("/spec/group");
    let others: Vec<&Document> =
        all.iter().filter(|o| o.name() != definition.name() && o.str_at("/spec/group") == group).collect();
    let of = |fields: [&'static str; 2]| others.iter().flat_map(move |other| fields.map(|field| text(other, field)));
    let mut resources: BTreeSet<String> = of(["plural", "singular"]).collect();
    resources.extend(others.iter().flat_map(|other| shorts(other, "status/acceptedNames")));
    let kinds: BTreeSet<String> = of(["kind", "listKind"]).collect();
    let mut conflict = None;
    let mut names = definition.at("/status/acceptedNames").and_then(Value::as_object).cloned().unwrap_or_default();
    let mut accept = |field: &str, reason: &'static str, taken: &[String]| {
        let wanted = definition.at(&format!("/spec/names/{field}"));
        match (taken, wanted) {
            ([], Some(wanted)) => drop(names.insert(field.into(), wanted.clone())),
            ([], None) => drop(names.remove(field)),
            _ => {
                let used: Vec<String> = taken.iter().map(|name| format!("{name:?} is already in use")).collect();
                conflict = Some((reason, aggregate(&used)));
            }
        }
    };
    let taken = |field: &str, used: &BTreeSet<String>| {
        let wanted = definition.str_at(&format!("/spec/names/{field}")).to_owned();
        let free = wanted == text(definition, field) || !used.contains(&wanted);
        if free { Vec::new() } else { vec![wanted] }
    };
    let mine = shorts(definition, "status/acceptedNames");
    let mut short = shorts(definition, "spec/names");
    short.retain(|name| !mine.contains(name) && resources.contains(name));
    accept("plural", "PluralConflict", &taken("plural", &resources));
    accept("singular", "SingularConflict", &taken("singular", &resources));
    accept("shortNames", "ShortNamesConflict", &short);
    accept("kind", "KindConflict", &taken("kind", &kinds));
    accept("listKind", "ListKindConflict", &taken("listKind", &kinds));
    accept("categories", "", &[]);
    definition.set("/status/acceptedNames", Value::Object(names));
    conflict
}

fn reason<'d>(definition: &'d Document, kind: &str) -> &'d str {
    let found = definition.list_at("/status/conditions").iter().find(|c| c["type"] == kind);
    found.and_then(|c| c.get("reason")?.as_str()).unwrap_or_default()
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
    use super::{FINALIZER, decide};
    use api::{Document, Timestamp};
    use serde_json::{Value, json};

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
        let second = decided.document.expect("conditions are new");
        let names = second.at("/status/acceptedNames").expect("names");
        assert_eq!(names, &json!({"plural": "bs", "singular": "bs"}), "what is free is its own already");
        let said = conditions(&second);
        assert_eq!(
            said,
            [
                r#"NamesAccepted False ListKindConflict "AList" is already in use"#,
                "Established False NotAccepted not all names are accepted"
            ]
        );
    }

    fn conditions(definition: &Document) -> Vec<String> {
        let text = |c: &Value, key: &str| c[key].as_str().unwrap_or_default().to_owned();
        let said = |c: &Value| ["type", "status", "reason", "message"].map(|key| text(c, key)).join(" ");
        definition.list_at("/status/conditions").iter().map(said).collect()
    }

    #[test]
    fn short_names_are_nobody_elses() {
        let now = Timestamp::UNIX_EPOCH;
        let mut first = definition("as", "A");
        first.set("/spec/names/shortNames", json!(["x"]));
        let first = decide(&first, &[], now).document.expect("conditions are new");
        let mut second = definition("bs", "B");
        second.set("/spec/names/shortNames", json!(["as", "x", "y"]));
        let decided = decide(&second, std::slice::from_ref(&first), now).document.expect("conditions are new");
        let want = r#"NamesAccepted False ShortNamesConflict ["as" is already in use, "x" is already in use]"#;
        assert_eq!(conditions(&decided)[0], want);
        assert_eq!(decided.at("/status/acceptedNames/shortNames"), None);
    }

    #[test]
    fn a_definition_with_a_bundle_that_is_none_is_not_established() {
        let mut broken = definition("as", "A");
        broken.set("/spec/conversion/webhook/clientConfig/caBundle", "bm8=");
        let decided = decide(&broken, &[], Timestamp::UNIX_EPOCH);
        assert!(!decided.serve);
        let said = conditions(&decided.document.expect("conditions are new"));
        assert_eq!(said[1], "Established False InvalidCABundle The conversion webhook CABundle is invalid");
    }

    #[test]
    fn groups_of_the_community_need_their_approval() {
        let said = |annotation: &str| {
            let mut definition = definition("as", "A");
            definition.set("/spec/group", "x.k8s.io");
            definition.set("/metadata/annotations", json!({"api-approved.kubernetes.io": annotation}));
            let decided = decide(&definition, &[], Timestamp::UNIX_EPOCH);
            conditions(&decided.document.expect("conditions are new"))[2].clone()
        };
        let conformant = "KubernetesAPIApprovalPolicyConformant";
        assert_eq!(said("https://x/y"), format!("{conformant} True ApprovedAnnotation approved in https://x/y"));
        let unapproved = format!("{conformant} False UnapprovedAnnotation not approved: \"unapproved, try\"");
        assert_eq!(said("unapproved, try"), unapproved);
    }

    #[test]
    fn a_deleted_definition_says_so_once() {
        let mut deleted = definition("as", "A");
        deleted.set("/metadata/deletionTimestamp", "1970-01-01T00:00:00Z");
        deleted.set("/metadata/finalizers", json!([FINALIZER]));
        let decided = decide(&deleted, &[], Timestamp::UNIX_EPOCH).document.expect("conditions are new");
        let want = ["Terminating True InstanceDeletionInProgress CustomResource deletion is in progress"];
        assert_eq!(conditions(&decided), want);
        let mut failed = decided;
        let failure = ("True", "InstanceDeletionFailed", "no".to_owned());
        super::condition(&mut failed, "Terminating", failure, Timestamp::UNIX_EPOCH);
        assert!(decide(&failed, &[], Timestamp::UNIX_EPOCH).document.is_none(), "what came of it stays");
    }
}
