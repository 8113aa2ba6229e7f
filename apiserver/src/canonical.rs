//! Go's `omitempty`: what a round trip through upstream's types leaves out. A zero scalar is dropped unless its field is a
//! pointer, an empty list or map unless its field must be there (then an empty list becomes null). Custom resources keep
//! everything.

use std::collections::HashMap;
use std::sync::LazyLock;

use api::schema::{Field, Scalar, Shape, Type};
use api::{Document, Schema};
use serde_json::Value;

/// The scalar fields that are pointers in Go, so that their zero is a value: by type name.
static POINTERS: LazyLock<HashMap<&'static str, Vec<&'static str>>> = LazyLock::new(|| {
    let lines = include_str!("pointers.txt").lines();
    let split = |line: &'static str| {
        let mut words = line.split(' ');
        Some((words.next()?, words.collect()))
    };
    lines.filter_map(split).collect()
});

/// Whether a scalar field is a pointer in Go.
pub(crate) fn is_pointer(of: &Type, field: &str) -> bool {
    POINTERS.get(of.name.as_str()).is_some_and(|names| names.contains(&field))
}

/// Whether a value is its type's zero.
pub(crate) fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// Drops from a built-in object what Go would not write.
pub(crate) fn omit_empty(schema: &Schema, document: &mut Document) {
    if !schema.is_custom() {
        of_type(schema, schema.root(), document.value_mut());
    }
}

fn of_type(schema: &Schema, of: &Type, value: &mut Value) {
    let Value::Object(map) = value else { return };
    map.retain(|name, value| {
        let Some(field) = of.field(name) else { return true };
        of_shape(schema, &field.item.shape, value);
        if (field.required || field.item.default == Some(Value::Null))
            && matches!(value, Value::Array(items) if items.is_empty())
        {
            // Upstream stores protobuf, which knows no empty list.
            *value = Value::Null;
        }
        !omitted(of, field, value)
    });
}

fn omitted(of: &Type, field: &Field, value: &Value) -> bool {
    let kept = field.required || field.item.default.is_some() || !is_zero(value);
    match field.item.shape {
        // A struct in Go: never empty, and 0 is a value (a rolling update's maxUnavailable).
        Shape::Scalar(Scalar::IntOrString) => false,
        Shape::Scalar(_) => !kept && !value.is_null() && !is_pointer(of, &field.name),
        Shape::List { .. } | Shape::Map { .. } => !kept,
        Shape::Struct { .. } | Shape::Any | Shape::Object => false,
    }
}

fn of_shape(schema: &Schema, shape: &Shape, value: &mut Value) {
    match (shape, value) {
        (Shape::Struct { of, .. }, value) => of_type(schema, schema.resolve(*of), value),
        (Shape::List { of, .. }, Value::Array(items)) => {
            items.iter_mut().for_each(|item| of_shape(schema, &of.shape, item));
        }
        (Shape::Map { of, .. }, Value::Object(map)) => {
            map.values_mut().for_each(|item| of_shape(schema, &of.shape, item));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::omit_empty;
    use api::{Document, Schema};
    use serde_json::json;

    #[test]
    fn zeroes_go_where_go_has_no_pointer() {
        let schema = Schema::of_kind("apps", "v1", "Deployment").expect("a kind");
        let mut object = Document::new(json!({
            "metadata": {"name": "", "labels": {}},
            "spec": {"replicas": 0, "paused": false, "minReadySeconds": 0,
                "strategy": {"rollingUpdate": {"maxUnavailable": 0}}, "template": {"spec": {
                "containers": [], "hostNetwork": false, "enableServiceLinks": false, "volumes": [{"name": "v", "emptyDir": {}}]
            }}}
        }))
        .expect("an object");
        omit_empty(&schema, &mut object);
        let strategy = json!({"rollingUpdate": {"maxUnavailable": 0}});
        let spec = json!({"replicas": 0, "strategy": strategy, "template": {"spec": {
            "containers": null, "enableServiceLinks": false, "volumes": [{"name": "v", "emptyDir": {}}]
        }}});
        assert_eq!(object.value(), &json!({"metadata": {}, "spec": spec}));
    }
}
