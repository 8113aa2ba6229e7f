//! Sets the defaults a schema carries.

use serde_json::{Map, Value};

use super::Schema;
use super::shape::{Item, Shape, Type};
use crate::Document;

pub(super) fn default(schema: &Schema, document: &mut Document) {
    if let Value::Object(map) = document.value_mut() {
        structure(schema, schema.root(), map);
    }
}

fn structure(schema: &Schema, of: &Type, map: &mut Map<String, Value>) {
    for field in &of.fields {
        let absent = map.get(&field.name).is_none_or(|value| value.is_null() && !field.item.nullable);
        if let (true, Some(default)) = (absent, &field.item.default) {
            map.insert(field.name.clone(), default.clone());
        }
        if let Some(value) = map.get_mut(&field.name) {
            item(schema, &field.item, value);
        }
    }
}

fn item(schema: &Schema, of: &Item, value: &mut Value) {
    match (&of.shape, value) {
        (Shape::Struct { of, .. }, Value::Object(map)) => structure(schema, schema.resolve(*of), map),
        (Shape::List { of, .. }, Value::Array(items)) => items.iter_mut().for_each(|value| element(schema, of, value)),
        (Shape::Map { of, .. }, Value::Object(map)) => map.values_mut().for_each(|value| element(schema, of, value)),
        _ => {}
    }
}

fn element(schema: &Schema, of: &Item, value: &mut Value) {
    if let (Value::Null, false, Some(default)) = (&*value, of.nullable, &of.default) {
        *value = default.clone();
    }
    item(schema, of, value);
}
