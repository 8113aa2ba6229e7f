//! Who owns what after a write (`sigs.k8s.io/structured-merge-diff/merge`).

use std::sync::LazyLock;

use serde_json::Value;

use super::compare::{Comparison, compare};
use super::conflict::{Conflicts, status};
use super::fieldset::{self, with_named_fields};
use super::managers::{Manager, Managers, Owned};
use super::merge::merge;
use super::place::Place;
use super::remove::remove;
use super::set::Set;
use super::{Document, Writer};
use crate::Status;
use crate::schema::Schema;

/// Why an apply is refused.
pub(super) enum Fault {
    /// Others own what would change.
    Conflicts(Conflicts),
    /// The configuration does not fit the schema.
    Typed(String),
}

impl Fault {
    pub(super) fn status(self, schema: &Schema, config: &Document) -> Box<Status> {
        match self {
            Self::Conflicts(conflicts) => status(&conflicts),
            Self::Typed(why) => {
                let object = described(schema, config);
                Status::failure(500, "", format!("failed to create typed patch object ({object}): {why}"))
            }
        }
    }
}

/// `namespace/name; apps/v1, Kind=Deployment`.
pub(super) fn described(schema: &Schema, config: &Document) -> String {
    let kind = schema.kind();
    let (group, version, kind) = (&kind.group, &kind.version, &kind.kind);
    format!("{}/{}; {group}/{version}, Kind={kind}", config.namespace(), config.name())
}

/// Where owners are kept.
static OWNERS: LazyLock<Set> = LazyLock::new(|| Set::of_names(&["metadata.managedFields"]));

/// Metadata that nobody owns.
static UNOWNED: LazyLock<Set> = LazyLock::new(|| {
    let metadata = [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    ];
    let paths: Vec<String> = metadata.iter().map(|field| format!("metadata.{field}")).collect();
    let mut all: Vec<&str> = vec!["apiVersion", "kind", "metadata"];
    all.extend(paths.iter().map(String::as_str));
    Set::of_names(&all)
});

/// Takes from all managers but one what changed. Without `force`, what others own and would change is a conflict.
fn take(
    managers: &mut Managers,
    workflow: Option<&Manager>,
    compared: &Comparison,
    force: bool,
) -> Result<(), Conflicts> {
    let touched = compared.touched();
    if !force {
        let others =
            managers.0.iter().filter(|(manager, owned)| Some(*manager) != workflow && owned.set.meets(&touched));
        let conflict =
            |(manager, owned): (&Manager, &Owned)| (manager.clone(), owned.clone(), owned.set.intersection(&touched));
        let conflicts: Conflicts = others.map(conflict).collect();
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
    }
    for (manager, owned) in &mut managers.0 {
        if Some(manager) != workflow {
            owned.set.subtract(&touched);
            owned.set.subtract(&compared.removed);
        }
    }
    managers.0.retain(|_, owned| !owned.set.is_empty());
    Ok(())
}

/// What a plain write changed; the others no longer own it.
pub(super) fn update(schema: &Schema, before: &Value, after: &Value, managers: &mut Managers, resets: &[&str]) -> Set {
    let compared = compare(schema, before, after).without(&OWNERS).without(&Set::of_names(resets));
    // A forced take has no conflicts.
    let _ = take(managers, None, &compared, true);
    compared.touched().difference(&UNOWNED)
}

/// The merged object, and who then owns what.
pub(super) fn apply(
    schema: &Schema,
    live: &Document,
    config: &Document,
    managers: &Managers,
    manager: &Manager,
    writer: &Writer<'_>,
) -> Result<(Value, Managers), Fault> {
    let resets = Set::of_names(writer.resets);
    let merged = merge(schema, live.value(), config.value());
    let last = managers.0.get(manager).cloned();
    let set = fieldset::of(schema, config.value()).recursive_difference(&resets);
    let mut managers = managers.clone();
    let owned = Owned {
        set,
        api_version: schema.kind().group_version().to_string(),
        time: last.as_ref().and_then(|last| last.time),
    };
    managers.0.insert(manager.clone(), owned);
    let merged = prune(schema, merged, &managers, last.map(|last| last.set));
    let compared = compare(schema, live.value(), &merged).without(&resets);
    take(&mut managers, Some(manager), &compared, writer.force).map_err(Fault::Conflicts)?;
    if let Some(owned) = managers.0.get_mut(manager) {
        owned.set.subtract(&UNOWNED);
    }
    managers.0.retain(|_, owned| !owned.set.is_empty());
    Ok((merged, managers))
}

/// Takes out what the manager applied last time, does not apply now, and nobody else owns.
fn prune(schema: &Schema, merged: Value, managers: &Managers, last: Option<Set>) -> Value {
    let Some(last) = last.filter(|last| !last.is_empty()) else { return merged };
    let named = |set: &Set| with_named_fields(schema, Place::Root, set);
    let fields = |value: &Value| named(&fieldset::of(schema, value));
    let last = named(&last);
    let all = fields(&merged);
    let pruned = remove(schema, &merged, &last);
    // What others own comes back ...
    let gone = all.clone().difference(&fields(&pruned).union(&named(&managers.all())));
    let pruned = remove(schema, &merged, &gone);
    // ... and what the manager never owned itself.
    let gone = all.difference(&fields(&pruned)).intersection(&last);
    remove(schema, &merged, &gone)
}
