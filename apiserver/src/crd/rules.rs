//! The rules of a custom resource: its schema, and the cells its printer columns name.

use api::kinds::{Change, Rules};
use api::{Document, Schema, Timestamp, field, time};
use serde_json::{Value, json};

use super::json_path::Path;

/// Made from the stored version of a definition.
pub(super) struct Custom {
    schema: Schema,
    columns: Vec<(String, Path)>,
}

impl Custom {
    pub(super) fn new(schema: Schema, described: &Value) -> Self {
        let text = |column: &Value, key: &str| column.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let listed = described.get("additionalPrinterColumns").and_then(Value::as_array);
        let own = listed.into_iter().flatten().map(|c| (text(c, "type"), Path::parse(&text(c, "jsonPath"))));
        let mut columns: Vec<(String, Path)> = own.collect();
        if columns.is_empty() {
            columns.push(("date".into(), Path::parse(".metadata.creationTimestamp")));
        }
        Self { schema, columns }
    }
}

impl Rules for Custom {
    fn validate(&self, new: &Document, _change: &Change<'_>) -> field::Errors {
        self.schema.check(new)
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn create_on_update(&self) -> bool {
        false
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn cells(&self, object: &Document, now: Timestamp) -> Option<Vec<Value>> {
        let own = self.columns.iter().map(|(kind, path)| cell(kind, &path.values(object.value()), now));
        Some(std::iter::once(json!(object.name())).chain(own).collect())
    }
}

/// A cell by its column's type; null where the path leads nowhere or to another type.
fn cell(kind: &str, values: &[&Value], now: Timestamp) -> Value {
    let Some(first) = values.first() else { return Value::Null };
    match kind {
        "date" => match first.as_str() {
            Some(text) => time::since(text, now).into(),
            None => Value::Null,
        },
        "integer" => first.as_i64().map_or(Value::Null, Value::from),
        "number" => first.as_f64().map_or(Value::Null, Value::from),
        "boolean" => first.as_bool().map_or(Value::Null, Value::from),
        _ => values.iter().map(|v| text(v)).collect::<Vec<_>>().join(",").into(),
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
