//! The set of all fields that a value has, and a set completed by the schema.

use std::collections::BTreeMap;

use serde_json::Value;

use super::element::Element;
use super::place::{Atom, Place, atom, item_element};
use super::set::Set;
use crate::schema::{List, Schema};

/// The fields of an object.
pub(super) fn of(schema: &Schema, object: &Value) -> Set {
    let mut walk = Walk { schema, path: Vec::new(), set: Set::default() };
    walk.value(Place::Root, object);
    walk.set
}

struct Walk<'s> {
    schema: &'s Schema,
    path: Vec<Element>,
    set: Set,
}

impl<'s> Walk<'s> {
    fn value(&mut self, place: Place<'s>, value: &Value) {
        match (atom(self.schema, place, Some(value)), value) {
            (Atom::Map { fields, atomic: false }, Value::Object(map)) => {
                for (key, value) in map {
                    self.path.push(Element::field(key));
                    self.value(fields.get(key).unwrap_or(Place::Deduced), value);
                    let is_bare = value.is_null() || value.as_object().is_some_and(|map| map.is_empty());
                    if is_bare || fields.declared(key).is_none() {
                        self.set.insert(&self.path);
                    }
                    self.path.pop();
                }
            }
            (Atom::List { of, kind: kind @ (List::Map(_) | List::Set) }, Value::Array(items)) => {
                self.items(of, kind, items);
            }
            (Atom::Map { atomic: false, .. } | Atom::List { kind: List::Map(_) | List::Set, .. }, Value::Null) => {}
            _ => self.set.insert(&self.path),
        }
    }

    fn items(&mut self, of: Place<'s>, kind: &List, items: &[Value]) {
        let elements: Vec<Option<Element>> =
            items.iter().map(|item| item_element(self.schema, of, kind, item).ok()).collect();
        let mut count: BTreeMap<&Element, usize> = BTreeMap::new();
        elements.iter().flatten().for_each(|element| *count.entry(element).or_default() += 1);
        for (element, item) in elements.iter().zip(items) {
            let Some(element) = element else { continue };
            self.path.push(element.clone());
            // Duplicates are owned as a whole.
            if count.get(element) == Some(&1) {
                self.value(of, item);
            }
            self.set.insert(&self.path);
            self.path.pop();
        }
    }
}

/// Makes members of all named fields that have members below them.
pub(super) fn with_named_fields(schema: &Schema, place: Place<'_>, set: &Set) -> Set {
    let (members, children) = set.parts();
    let mut out = Set::default();
    members.iter().for_each(|member| out.add(member.clone()));
    let as_map = atom(schema, place, Some(&Value::Object(serde_json::Map::new())));
    let as_list = atom(schema, place, Some(&Value::Array(Vec::new())));
    for (element, below) in children {
        let next = match (element, as_map, as_list) {
            (Element::Field(name), Atom::Map { fields, .. }, _) => {
                if fields.declared(name).is_some() {
                    out.add(element.clone());
                }
                fields.get(name)
            }
            (Element::Key(_), _, Atom::List { of, .. }) => Some(of),
            _ => None,
        };
        let below = next.map_or_else(|| below.clone(), |next| with_named_fields(schema, next, below));
        out.add_below(element.clone(), below);
    }
    out
}
