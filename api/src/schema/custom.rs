//! Makes types from a CustomResourceDefinition's structural schema.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::load::table;
use super::shape::{Field, Item, List, Scalar, Shape, Type, TypeRef};
use super::{Schema, prune};
use crate::Document;

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// The types of a schema, and which of them is the root.
pub(super) fn types(schema: &Value) -> (Arc<[Type]>, TypeRef) {
    let mut builder = Builder { types: Vec::new() };
    let empty = Map::new();
    let root = builder.structure(schema.as_object().unwrap_or(&empty), true);
    (builder.types.into(), root)
}

struct Builder {
    types: Vec<Type>,
}

impl Builder {
    fn item(&mut self, node: &Value) -> Item {
        let empty = Map::new();
        let node = node.as_object().unwrap_or(&empty);
        let default = node.get("default").filter(|value| !value.is_null()).cloned();
        Item { nullable: flag(node, "nullable"), default, ..Item::of(self.shape(node)) }
    }

    fn shape(&mut self, node: &Map<String, Value>) -> Shape {
        if flag(node, "x-kubernetes-int-or-string") {
            return Shape::Scalar(Scalar::IntOrString);
        }
        let atomic = text(node, "x-kubernetes-map-type") == "atomic";
        match text(node, "type") {
            "object" => match node.get("additionalProperties") {
                Some(of) if of.is_object() => Shape::Map { of: Box::new(self.item(of)), atomic },
                Some(Value::Bool(true)) => Shape::Map { of: Box::new(Item::of(Shape::Any)), atomic },
                _ => Shape::Struct { of: self.structure(node, false), atomic },
            },
            "array" => {
                let of = node.get("items").map_or(Item::of(Shape::Any), |items| self.item(items));
                Shape::List { of: Box::new(of), kind: list_kind(node) }
            }
            "string" => Shape::Scalar(Scalar::String),
            "integer" => Shape::Scalar(Scalar::Int64),
            "number" => Shape::Scalar(Scalar::Double),
            "boolean" => Shape::Scalar(Scalar::Bool),
            _ => Shape::Any,
        }
    }

    fn structure(&mut self, node: &Map<String, Value>, root: bool) -> TypeRef {
        let embedded = root || flag(node, "x-kubernetes-embedded-resource");
        let empty = Map::new();
        let properties = node.get("properties").and_then(Value::as_object).unwrap_or(&empty);
        let required: Vec<&str> =
            node.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let own = properties.iter().filter(|(name, _)| !(embedded && is_meta(name)));
        let mut fields: Vec<Field> =
            own.map(|(name, of)| field(name, self.item(of), required.contains(&name.as_str()))).collect();
        if embedded {
            fields.extend(meta_fields());
        }
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        let open = flag(node, "x-kubernetes-preserve-unknown-fields");
        self.types.push(Type { fields, open, embedded, ..Type::default() });
        TypeRef::Own(u32::try_from(self.types.len() - 1).unwrap_or(u32::MAX))
    }
}

fn is_meta(name: &str) -> bool {
    matches!(name, "apiVersion" | "kind" | "metadata")
}

fn meta_fields() -> Vec<Field> {
    let meta = table().type_named(OBJECT_META).map_or(Shape::Any, |of| {
        let of = TypeRef::BuiltIn(of);
        Shape::Struct { of, atomic: false }
    });
    let string = || Item::of(Shape::Scalar(Scalar::String));
    vec![field("apiVersion", string(), false), field("kind", string(), false), field("metadata", Item::of(meta), false)]
}

fn field(name: &str, item: Item, required: bool) -> Field {
    Field {
        name: name.to_owned(),
        item,
        pb: Vec::new(),
        required,
        allowed: Vec::new(),
        patch_strategy: String::new(),
        merge_key: String::new(),
    }
}

fn list_kind(node: &Map<String, Value>) -> List {
    match text(node, "x-kubernetes-list-type") {
        "set" => List::Set,
        "map" => {
            let keys = node.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            List::Map(keys.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect())
        }
        _ => List::Atomic,
    }
}

fn flag(node: &Map<String, Value>, name: &str) -> bool {
    node.get(name).and_then(Value::as_bool).unwrap_or_default()
}

fn text<'a>(node: &'a Map<String, Value>, name: &str) -> &'a str {
    node.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Reads a custom resource: its metadata by the built-in type, the rest pruned. Returns the paths of unknown fields.
/// The error is Go's text.
pub(crate) fn tree(schema: &Schema, value: Value) -> Result<(Document, Vec<String>), String> {
    let Some(mut document) = Document::new(value) else { return Ok((Document::default(), Vec::new())) };
    let mut unknown = metadata(&mut document)?;
    unknown.extend(prune::prune(schema, &mut document));
    Ok((document, unknown))
}

fn metadata(document: &mut Document) -> Result<Vec<String>, String> {
    let (Some(meta), Some(schema)) = (document.remove("/metadata"), Schema::of_type(OBJECT_META)) else {
        return Ok(Vec::new());
    };
    let read = schema.read(meta)?;
    document.set("/metadata", read.document.into_value());
    let path = |fault: String| fault.split('"').nth(1).map(|field| format!("metadata.{field}"));
    Ok(read.unknown.into_iter().filter_map(path).collect())
}
