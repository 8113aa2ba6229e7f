//! What differs between two objects, as sets of fields.

use std::collections::BTreeMap;

use serde_json::Value;

use super::element::Element;
use super::place::{Atom, Fields, Place, atom, item_element};
use super::set::Set;
use crate::patch::same;
use crate::schema::{List, Schema};

/// Fields that were removed, changed, added. No field is in two of them.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub(super) removed: Set,
    pub(super) modified: Set,
    pub(super) added: Set,
}

impl Comparison {
    /// Without some fields and all below them.
    pub(super) fn without(self, fields: &Set) -> Self {
        Self {
            removed: self.removed.recursive_difference(fields),
            modified: self.modified.recursive_difference(fields),
            added: self.added.recursive_difference(fields),
        }
    }

    /// What was changed or added.
    pub(super) fn touched(&self) -> Set {
        self.modified.union(&self.added)
    }
}

/// Compares two objects of the schema's root type.
pub(super) fn compare(schema: &Schema, before: &Value, after: &Value) -> Comparison {
    let mut walk = Walk { schema, path: Vec::new(), found: Comparison::default() };
    walk.value(Place::Root, Some(before), Some(after));
    walk.found
}

struct Walk<'s> {
    schema: &'s Schema,
    path: Vec<Element>,
    found: Comparison,
}

type Side<'v> = Option<&'v Value>;

/// What a side has under a key.
fn below<'v>(side: Side<'v>, key: &str) -> Side<'v> {
    side?.get(key)
}

impl<'s> Walk<'s> {
    fn value(&mut self, place: Place<'s>, before: Side<'_>, after: Side<'_>) {
        let (left, right) = (atom(self.schema, place, before), atom(self.schema, place, after));
        let same_atom = std::mem::discriminant(&left) == std::mem::discriminant(&right);
        let is_leaf = match (before, after) {
            (_, None) => self.atom(left, before, after),
            (None, _) => self.atom(right, before, after),
            _ if same_atom => self.atom(right, before, after),
            _ => {
                self.atom(left, before, after);
                self.atom(right, before, after)
            }
        };
        if !is_leaf {
            match (before, after) {
                (None, _) => self.found.added.insert(&self.path),
                (_, None) => self.found.removed.insert(&self.path),
                _ => {}
            }
        }
    }

    /// Compares as an atom says; whether that is a leaf.
    fn atom(&mut self, atom: Atom<'s>, before: Side<'_>, after: Side<'_>) -> bool {
        let bare = |side: Side<'_>| {
            side.is_none_or(|value| match value {
                Value::Object(map) => map.is_empty(),
                Value::Array(items) => items.is_empty(),
                _ => true,
            })
        };
        match atom {
            Atom::Map { fields, atomic: false } if !(bare(before) && bare(after)) => {
                self.map(fields, before, after);
                false
            }
            Atom::List { of, kind: kind @ (List::Map(_) | List::Set) } if !(bare(before) && bare(after)) => {
                self.list(of, kind, before, after);
                false
            }
            _ => {
                self.leaf(before, after);
                true
            }
        }
    }

    fn leaf(&mut self, before: Side<'_>, after: Side<'_>) {
        match (before, after) {
            (None, _) => self.found.added.insert(&self.path),
            (_, None) => self.found.removed.insert(&self.path),
            (Some(before), Some(after)) if !same(before, after) => self.found.modified.insert(&self.path),
            _ => {}
        }
    }

    fn map(&mut self, fields: Fields<'s>, before: Side<'_>, after: Side<'_>) {
        let mut keys: Vec<&String> =
            [before, after].into_iter().flatten().filter_map(Value::as_object).flat_map(|map| map.keys()).collect();
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            let (before, after) = (below(before, key), below(after, key));
            if before == after {
                continue;
            }
            self.path.push(Element::field(key));
            self.value(fields.get(key).unwrap_or(Place::Deduced), before, after);
            self.path.pop();
        }
    }

    fn list(&mut self, of: Place<'s>, kind: &List, before: Side<'_>, after: Side<'_>) {
        let (before, after) = (self.index(of, kind, before), self.index(of, kind, after));
        let mut elements: Vec<&Element> = before.keys().chain(after.keys()).collect();
        elements.sort_unstable();
        elements.dedup();
        let none = Vec::new();
        for element in elements {
            self.path.push(element.clone());
            let (before, after) = (before.get(element).unwrap_or(&none), after.get(element).unwrap_or(&none));
            self.items(of, before, after);
            self.path.pop();
        }
    }

    /// Compares the items of one identity; more than one are owned as a whole.
    fn items(&mut self, of: Place<'s>, before: &[&Value], after: &[&Value]) {
        match (before, after) {
            ([] | [_], [] | [_]) => self.value(of, before.first().copied(), after.first().copied()),
            ([_, _, ..], [_, _, ..]) => {
                let equal = before.len() == after.len() && before.iter().zip(after).all(|(a, b)| same(a, b));
                if !equal {
                    self.found.modified.insert(&self.path);
                }
            }
            ([_, _, ..], _) => {
                if let [only] = after {
                    self.value(of, None, Some(only));
                }
                self.found.removed.insert(&self.path);
            }
            (_, _) => {
                if let [only] = before {
                    self.value(of, Some(only), None);
                }
                self.found.added.insert(&self.path);
            }
        }
    }

    fn index<'v>(&self, of: Place<'_>, kind: &List, side: Side<'v>) -> BTreeMap<Element, Vec<&'v Value>> {
        let mut index: BTreeMap<Element, Vec<&Value>> = BTreeMap::new();
        for item in side.and_then(Value::as_array).into_iter().flatten() {
            if let Ok(element) = item_element(self.schema, of, kind, item) {
                index.entry(element).or_default().push(item);
            }
        }
        index
    }
}
