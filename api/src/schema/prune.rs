//! Drops the fields a schema does not know, and nulls where null is no value.

use serde_json::{Map, Value};

use super::Schema;
use super::shape::{Item, Shape, Type};
use crate::Document;
use crate::decode::node::Path;

/// Prunes in place; returns the paths of what was unknown, sorted.
pub(super) fn prune(schema: &Schema, document: &mut Document) -> Vec<String> {
    let mut pruner = Pruner { schema, path: Path::default(), unknown: Vec::new() };
    if let Value::Object(map) = document.value_mut() {
        pruner.structure(schema.root(), map);
    }
    pruner.unknown.sort();
    pruner.unknown
}

/// Prunes a value by a part of a schema: where the schema has properties, what they do not name is dropped.
pub(super) fn value(schema: &Value, value: &mut Value) {
    let is_open = |s: &Value| s.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    match value {
        Value::Array(items) => {
            if let Some(of) = schema.get("items") {
                items.iter_mut().for_each(|item| self::value(of, item));
            }
        }
        Value::Object(map) => {
            let properties = schema.get("properties").and_then(Value::as_object);
            let others = schema.get("additionalProperties").filter(|a| a.is_object() || **a == Value::Bool(true));
            let meta = schema.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true));
            map.retain(|key, value| {
                if let Some(of) = properties.and_then(|p| p.get(key)).or(others) {
                    self::value(of, value);
                    return true;
                }
                is_open(schema) || (meta && matches!(key.as_str(), "apiVersion" | "kind" | "metadata"))
            });
        }
        _ => {}
    }
}

struct Pruner<'s> {
    schema: &'s Schema,
    path: Path,
    unknown: Vec<String>,
}

impl Pruner<'_> {
    fn structure(&mut self, of: &Type, map: &mut Map<String, Value>) {
        let at_root = self.path.is_root();
        map.retain(|key, value| match of.field(key) {
            Some(field) => {
                // Metadata was read by its own type; a body's apiVersion and kind are the caller's.
                let kept = !value.is_null() || field.item.nullable || self.keeps_null(&field.item);
                if kept && !(at_root && matches!(key.as_str(), "apiVersion" | "kind")) {
                    let place = self.path.key(key);
                    self.item(&field.item, value);
                    self.path.back(place);
                }
                kept
            }
            None => {
                if !of.open {
                    let place = self.path.key(key);
                    self.unknown.push(self.path.to_string());
                    self.path.back(place);
                }
                of.open
            }
        });
    }

    /// A custom resource's null that a default will take the place of.
    fn keeps_null(&self, item: &Item) -> bool {
        self.schema.is_custom() && item.default.is_some()
    }

    fn item(&mut self, item: &Item, value: &mut Value) {
        match (&item.shape, value) {
            (Shape::Struct { of, .. }, Value::Object(map)) => {
                let schema = self.schema;
                self.structure(schema.resolve(*of), map);
            }
            (Shape::Map { of, .. }, Value::Object(map)) => {
                if self.schema.is_custom() {
                    map.retain(|_, value| !value.is_null() || of.nullable || of.default.is_some() || is_any(of));
                }
                for (key, value) in map {
                    let place = self.path.key(key);
                    self.item(of, value);
                    self.path.back(place);
                }
            }
            (Shape::List { of, .. }, Value::Array(items)) => {
                for (at, value) in items.iter_mut().enumerate() {
                    let place = self.path.index(at);
                    self.item(of, value);
                    self.path.back(place);
                }
            }
            _ => {}
        }
    }
}

fn is_any(item: &Item) -> bool {
    matches!(item.shape, Shape::Any)
}
