//! Sets the defaults a schema carries.

use serde_json::{Map, Value};

use super::Schema;
use super::shape::{Item, Scalar, Shape, Type};
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

/// An object of the root type without any values, as Go's zero value shows it: nested structs that are no pointers, and
/// null for lists and maps that are always written, the zero of scalars. A custom resource has nothing then.
pub(super) fn zero(schema: &Schema) -> Document {
    let mut map = Map::new();
    if !schema.is_custom() {
        zero_structure(schema, schema.root(), &mut map);
    }
    Document::new(Value::Object(map)).unwrap_or_default()
}

fn zero_structure(schema: &Schema, of: &Type, map: &mut Map<String, Value>) {
    for field in &of.fields {
        match (&field.item.default, &field.item.shape) {
            (Some(Value::Object(_)), Shape::Struct { of, .. }) => {
                let mut nested = Map::new();
                zero_structure(schema, schema.resolve(*of), &mut nested);
                map.insert(field.name.clone(), Value::Object(nested));
            }
            (Some(default), _) if is_zero(default) => {
                map.insert(field.name.clone(), default.clone());
            }
            (None, shape) if field.required => {
                map.insert(field.name.clone(), zero_value(shape));
            }
            _ => {}
        }
    }
}

/// What Go writes for a field that must be there and is not set.
fn zero_value(shape: &Shape) -> Value {
    match shape {
        Shape::Scalar(Scalar::String) => "".into(),
        Shape::Scalar(Scalar::Bool) => false.into(),
        Shape::Scalar(Scalar::Int32 | Scalar::Int64) => 0.into(),
        _ => Value::Null,
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}
