//! Checks that an applied configuration fits the schema, in structured-merge-diff's words.

use std::collections::BTreeSet;

use serde_json::Value;

use super::element::Element;
use super::place::{Atom, Fields, Place, atom, item_element};
use super::set::shown;
use crate::patch::{go_type, go_value};
use crate::schema::{List, Scalar, Schema};

/// What does not fit, as one text.
pub(super) fn validate(schema: &Schema, config: &Value) -> Result<(), String> {
    let mut walk = Walk { schema, path: Vec::new(), errors: Vec::new() };
    walk.value(Place::Root, config);
    match walk.errors.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("errors:\n  {}", many.join("\n  "))),
    }
}

struct Walk<'s> {
    schema: &'s Schema,
    path: Vec<Element>,
    errors: Vec<String>,
}

impl<'s> Walk<'s> {
    fn error(&mut self, what: &str) {
        let path = shown(&self.path);
        self.errors.push(if path.is_empty() { what.to_owned() } else { format!("{path}: {what}") });
    }

    fn value(&mut self, place: Place<'s>, value: &Value) {
        match (atom(self.schema, place, Some(value)), value) {
            (_, Value::Null) => {}
            (Atom::Map { fields, .. }, Value::Object(map)) => self.map(fields, map),
            (Atom::List { of, kind }, Value::Array(items)) => self.list(of, kind, items),
            (Atom::Map { .. }, other) => self.error(&format!("expected map, got &{{{}}}", go_value(other))),
            (Atom::List { .. }, other) => self.error(&format!("expected list, got &{{{}}}", go_value(other))),
            (Atom::Scalar(scalar), value) => {
                if let Some(what) = scalar_fault(scalar, value) {
                    self.error(&what);
                }
            }
        }
    }

    fn map(&mut self, fields: Fields<'s>, map: &serde_json::Map<String, Value>) {
        for (key, value) in map {
            self.path.push(Element::field(key));
            let place = fields.get(key);
            match place {
                Some(place) => self.value(place, value),
                None => self.error("field not declared in schema"),
            }
            self.path.pop();
            // One undeclared field ends a map: what comes after it is not looked at.
            if place.is_none() {
                break;
            }
        }
    }

    fn list(&mut self, of: Place<'s>, kind: &List, items: &[Value]) {
        let mut seen = BTreeSet::new();
        for (at, item) in items.iter().enumerate() {
            let element = match kind {
                List::Atomic | List::Unmarked => Element::Index(at as i64),
                kind => match item_element(self.schema, of, kind, item) {
                    Ok(element) => element,
                    Err(why) => return self.error(&format!("element {at}: {why}")),
                },
            };
            if !seen.insert(element.clone()) {
                self.error(&format!("duplicate entries for key {element}"));
            }
            self.path.push(element);
            self.value(of, item);
            self.path.pop();
        }
    }
}

fn scalar_fault(scalar: Option<Scalar>, value: &Value) -> Option<String> {
    let is_container = value.is_object() || value.is_array();
    match scalar {
        Some(Scalar::Int32 | Scalar::Int64 | Scalar::Double) if !value.is_number() => {
            Some(format!("expected numeric (int or float), got {}", go_type(value)))
        }
        Some(Scalar::Bool) if !value.is_boolean() => Some(format!("expected boolean, got &{{{}}}", go_value(value))),
        Some(Scalar::String | Scalar::Bytes | Scalar::Time | Scalar::MicroTime) if !value.is_string() => {
            Some(format!("expected string, got &value.valueUnstructured{{Value:{value}}}"))
        }
        None | Some(Scalar::Quantity | Scalar::IntOrString) if is_container => {
            Some(format!("expected any scalar, got &{{{}}}", go_value(value)))
        }
        _ => None,
    }
}
