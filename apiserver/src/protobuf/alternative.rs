//! The types of `apiextensions.k8s.io` that are one of two things in JSON and a message with a field for each in protobuf
//! (`k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1/marshal.go`).

use api::Schema;
use api::schema::Item;
use api::wire::{Payload, Reader, put_bytes, put_varint};
use serde_json::{Map, Value};

use super::{Read, encode, message, string};

const PROPS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

/// What stands beside a schema.
#[derive(Clone, Copy)]
pub(super) enum Alternative {
    /// `{ schema 1, jSONSchemas 2 }`
    Schemas,
    /// `{ allows 1, schema 2 }`
    Bool,
    /// `{ schema 1, property 2 }`
    Texts,
}

/// The alternative that an item's type is, if it is one.
pub(super) fn of(schema: &Schema, item: &Item) -> Option<Alternative> {
    match schema.resolve(item.named?).go_name() {
        "JSONSchemaPropsOrArray" => Some(Alternative::Schemas),
        "JSONSchemaPropsOrBool" => Some(Alternative::Bool),
        "JSONSchemaPropsOrStringArray" => Some(Alternative::Texts),
        _ => None,
    }
}

impl Alternative {
    /// From protobuf. A list that has items goes before a schema, and a schema before a bool.
    pub(super) fn read(self, bytes: &[u8], depth: usize) -> Read<Value> {
        let (mut schema, mut list, mut allows) = (None, Vec::new(), false);
        for field in Reader::new(bytes) {
            match (self, field?) {
                (Self::Schemas | Self::Texts, (1, Payload::Bytes(bytes)))
                | (Self::Bool, (2, Payload::Bytes(bytes))) => {
                    schema = Some(props(bytes, depth)?);
                }
                (Self::Schemas, (2, Payload::Bytes(bytes))) => list.push(props(bytes, depth)?),
                (Self::Texts, (2, Payload::Bytes(bytes))) => list.push(string(bytes)?.into()),
                (Self::Bool, (1, Payload::Varint(n))) => allows = n != 0,
                _ => {}
            }
        }
        Ok(match (self, schema) {
            _ if !list.is_empty() => Value::Array(list),
            (_, Some(schema)) => schema,
            (Self::Bool, None) => allows.into(),
            _ => Value::Null,
        })
    }

    /// To protobuf.
    pub(super) fn write(self, value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        match (self, value) {
            (Self::Bool, Value::Object(map)) => {
                put_varint(&mut out, 1, 1);
                put_bytes(&mut out, 2, &written(map));
            }
            (Self::Bool, value) => put_varint(&mut out, 1, u64::from(value.as_bool().unwrap_or_default())),
            (_, Value::Object(map)) => put_bytes(&mut out, 1, &written(map)),
            (_, Value::Array(items)) => items.iter().for_each(|item| match item {
                Value::Object(map) => put_bytes(&mut out, 2, &written(map)),
                other => put_bytes(&mut out, 2, other.as_str().unwrap_or_default().as_bytes()),
            }),
            _ => {}
        }
        out
    }
}

fn props(bytes: &[u8], depth: usize) -> Read<Value> {
    let schema = Schema::of_type(PROPS).ok_or("unknown type")?;
    message(&schema, schema.root(), bytes, &[], depth + 1).map(Value::Object)
}

fn written(map: &Map<String, Value>) -> Vec<u8> {
    Schema::of_type(PROPS).map(|schema| encode::message(&schema, schema.root(), map, &[])).unwrap_or_default()
}
