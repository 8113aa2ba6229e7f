//! Reads a tree by a schema: unknown fields found, nulls dropped, scalars checked and made canonical. Errors are those
//! of Go's `encoding/json` (bodies) or of apimachinery's unstructured converter (strategic merge patches).

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::node::{Node, Path, Strict};
use super::{go, scalars};
use crate::schema::{Item, Scalar, Schema, Shape, Type};

/// Whose words type errors use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Words {
    /// `encoding/json`.
    Json,
    /// `runtime.DefaultUnstructuredConverter`.
    Unstructured,
}

/// A tree read by a schema.
pub(crate) struct Outcome {
    pub(crate) value: Map<String, Value>,
    pub(crate) strict: Vec<String>,
}

/// Reads `node` as the schema's root.
pub(crate) fn read(schema: &Schema, node: Node<'_>, words: Words) -> Result<Outcome, String> {
    let mut reader = Reader {
        schema,
        words,
        path: Path::default(),
        fields: Vec::new(),
        holder: "",
        strict: Strict::default(),
        fault: None,
    };
    let mut value = Map::new();
    match node {
        Node::Map(entries) => value = reader.structure(schema.root(), entries, value)?,
        Node::Null => {}
        other => reader.mismatch(other.go_kind(), &go::struct_type(schema.root())),
    }
    match reader.fault {
        Some(fault) => Err(fault),
        None => Ok(Outcome { value, strict: reader.strict.0 }),
    }
}

struct Reader<'s> {
    schema: &'s Schema,
    words: Words,
    path: Path,
    /// The JSON names on the way, as type errors join them.
    fields: Vec<&'s str>,
    /// The struct whose field is being read.
    holder: &'s str,
    strict: Strict,
    /// The first type error. Go reads on after one, since a later fault of another sort comes before it.
    fault: Option<String>,
}

/// `Err` ends the reading at once, as an error of an `UnmarshalJSON` does in Go. `None` is an absent value.
type Reading = Result<Option<Value>, String>;

type Entries<'a> = Vec<(Cow<'a, str>, Node<'a>)>;

impl<'s> Reader<'s> {
    fn structure(
        &mut self,
        of: &'s Type,
        entries: Entries<'_>,
        mut out: Map<String, Value>,
    ) -> Result<Map<String, Value>, String> {
        let mut seen: Vec<&str> = Vec::with_capacity(entries.len());
        let holder = self.holder;
        for (key, node) in entries {
            let Some(field) = of.field(&key) else {
                self.unknown(of, &key, node, &mut out);
                continue;
            };
            if seen.contains(&field.name.as_str()) {
                self.strict.add("duplicate", &self.path, &key);
            }
            seen.push(&field.name);
            let (depth, place) = (self.fields.len(), self.path.key(&key));
            self.fields.extend(go::embedded(of, field));
            self.fields.push(&field.name);
            self.holder = of.go_name();
            let before = out.remove(key.as_ref());
            if let Some(value) = self.item(&field.item, node, before)? {
                out.insert(key.into_owned(), value);
            }
            self.fields.truncate(depth);
            self.path.back(place);
        }
        self.holder = holder;
        Ok(out)
    }

    fn unknown(&mut self, of: &Type, key: &str, node: Node<'_>, out: &mut Map<String, Value>) {
        if of.open {
            let value = self.any_at(key, node);
            out.insert(key.to_owned(), value);
        } else {
            self.strict.add("unknown", &self.path, key);
        }
    }

    fn any_at(&mut self, key: &str, node: Node<'_>) -> Value {
        let place = self.path.key(key);
        let value = self.any(node);
        self.path.back(place);
        value
    }

    fn any(&mut self, node: Node<'_>) -> Value {
        node.plain(&mut self.path, &mut self.strict)
    }

    /// Reads a value; `before` is what an earlier field of the same name had left, which objects are merged into.
    fn item(&mut self, item: &'s Item, node: Node<'_>, before: Option<Value>) -> Reading {
        match (&item.shape, node) {
            (Shape::Any, node) => Ok(Some(self.any(node))),
            (_, Node::Null) if item.nullable => Ok(Some(Value::Null)),
            (_, Node::Null) => Ok(None),
            (Shape::Object, node) => Ok(Some(self.any(node))),
            (Shape::Scalar(scalar), node) => self.scalar(*scalar, item, node),
            (Shape::Struct { of, .. }, Node::Map(entries)) => {
                let of = self.schema.resolve(*of);
                self.structure(of, entries, object(before)).map(|map| Some(Value::Object(map)))
            }
            (Shape::List { of, .. }, Node::List(items)) => self.list(of, items),
            (Shape::Map { of, .. }, Node::Map(entries)) => self.map(of, entries, object(before)),
            (_, node) => {
                self.mismatch_shape(item, &node);
                Ok(None)
            }
        }
    }

    fn list(&mut self, of: &'s Item, items: Vec<Node<'_>>) -> Reading {
        let mut out = Vec::with_capacity(items.len());
        for (at, node) in items.into_iter().enumerate() {
            let place = self.path.index(at);
            out.push(self.item(of, node, None)?.unwrap_or_else(|| zero(of)));
            self.path.back(place);
        }
        Ok(Some(Value::Array(out)))
    }

    fn map(&mut self, of: &'s Item, entries: Entries<'_>, mut out: Map<String, Value>) -> Reading {
        let mut seen: Vec<String> = Vec::new();
        for (key, node) in entries {
            let is_duplicate = out.contains_key(key.as_ref()) && seen.iter().any(|s| *s == key);
            if is_duplicate {
                self.strict.add("duplicate", &self.path, &key);
            }
            let place = self.path.key(&key);
            let value = self.item(of, node, None)?.unwrap_or_else(|| zero(of));
            self.path.back(place);
            if let Some(_before) = out.insert(key.clone().into_owned(), value) {
                continue;
            }
            seen.push(key.into_owned());
        }
        Ok(Some(Value::Object(out)))
    }

    fn scalar(&mut self, scalar: Scalar, item: &Item, node: Node<'_>) -> Reading {
        match scalars::read(scalar, &node) {
            Ok(value) => Ok(Some(value)),
            Err(scalars::Fault::Fatal(text)) => Err(text),
            Err(scalars::Fault::Other(found, wanted)) if self.words == Words::Unstructured => {
                Err(format!("json: cannot unmarshal {found} into Go value of type {wanted}"))
            }
            Err(scalars::Fault::Other(found, wanted)) => Err(self.unlike(&found, wanted)),
            Err(scalars::Fault::Saved(text)) => {
                self.fault.get_or_insert(text);
                Ok(None)
            }
            Err(scalars::Fault::Type) => {
                self.mismatch_shape(item, &node);
                Ok(None)
            }
        }
    }

    fn mismatch_shape(&mut self, item: &Item, node: &Node<'_>) {
        if self.words == Words::Unstructured {
            self.fault.get_or_insert(scalars::unstructured(&item.shape, node));
            return;
        }
        let found = match (node, &item.shape) {
            (Node::Number(text), Shape::Scalar(Scalar::Int32 | Scalar::Int64)) => format!("number {text}"),
            _ => node.go_kind().to_owned(),
        };
        self.mismatch(&found, &go::type_name(self.schema, &item.shape));
    }

    fn mismatch(&mut self, found: &str, wanted: &str) {
        let fault = self.unlike(found, wanted);
        self.fault.get_or_insert(fault);
    }

    /// Go's words for a value of another type than wanted, here.
    fn unlike(&self, found: &str, wanted: &str) -> String {
        let (holder, fields) = (self.holder, self.fields.join("."));
        match fields.as_str() {
            "" => format!("json: cannot unmarshal {found} into Go value of type {wanted}"),
            _ => format!("json: cannot unmarshal {found} into Go struct field {holder}.{fields} of type {wanted}"),
        }
    }
}

fn object(value: Option<Value>) -> Map<String, Value> {
    match value {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// What null is in a list or map: Go's zero value.
fn zero(of: &Item) -> Value {
    match &of.shape {
        Shape::Struct { .. } => Value::Object(Map::new()),
        Shape::Scalar(Scalar::String) => "".into(),
        Shape::Scalar(Scalar::Bool) => false.into(),
        Shape::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::Double | Scalar::IntOrString) => 0.into(),
        Shape::Scalar(Scalar::Quantity) => "0".into(),
        _ => Value::Null,
    }
}
