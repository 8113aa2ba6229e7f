//! Takes a set of fields out of an object.

use serde_json::{Map, Value};

use super::element::Element;
use super::place::{Atom, Place, atom, item_element};
use super::set::Set;
use crate::schema::{List, Schema};

/// The object without the fields of `gone`. What is left empty by that becomes null.
pub(super) fn remove(schema: &Schema, object: &Value, gone: &Set) -> Value {
    value(schema, Place::Root, object, gone)
}

fn value(schema: &Schema, place: Place<'_>, of: &Value, gone: &Set) -> Value {
    match (atom(schema, place, Some(of)), of) {
        (Atom::Map { fields, atomic: false }, Value::Object(map)) => {
            let kept = map.iter().filter_map(|(key, value)| {
                let element = Element::field(key);
                let place = fields.get(key).unwrap_or(Place::Deduced);
                Some((key.clone(), child(schema, place, value, gone, &element)?))
            });
            let kept: Map<String, Value> = kept.collect();
            if kept.is_empty() { Value::Null } else { Value::Object(kept) }
        }
        (Atom::List { of, kind: kind @ (List::Map(_) | List::Set) }, Value::Array(items)) => {
            let kept = items.iter().filter_map(|item| match item_element(schema, of, kind, item) {
                Ok(element) => child(schema, of, item, gone, &element),
                Err(_) => Some(item.clone()),
            });
            let kept: Vec<Value> = kept.collect();
            if kept.is_empty() { Value::Null } else { Value::Array(kept) }
        }
        (Atom::Scalar(_), scalar) => scalar.clone(),
        _ => Value::Null,
    }
}

fn child(schema: &Schema, place: Place<'_>, of: &Value, gone: &Set, element: &Element) -> Option<Value> {
    if gone.has(element) {
        return None;
    }
    Some(match gone.below(element) {
        Some(below) => value(schema, place, of, below),
        None => of.clone(),
    })
}
