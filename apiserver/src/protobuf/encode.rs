//! From JSON to protobuf by the schema table's field numbers.

use api::schema::{Field, Item, Scalar, Shape, Type};
use api::{Document, GroupVersion, Schema, time};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::{PREFIX, alternative};
use api::wire::{put_bytes, put_fixed64, put_varint};

/// The bytes of an object, envelope and all; `None` where its kind has no schema.
pub(crate) fn of(document: &Document) -> Option<Vec<u8>> {
    let version = GroupVersion::parse(document.api_version())?;
    let meta_type = || Schema::of_type(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{}", document.kind()));
    let schema = Schema::of_kind(&version.group, &version.version, document.kind()).or_else(meta_type)?;
    let map = document.value().as_object()?;
    let raw = message(&schema, schema.root(), map, &[]);
    let mut meta = Vec::new();
    put_bytes(&mut meta, 1, document.api_version().as_bytes());
    put_bytes(&mut meta, 2, document.kind().as_bytes());
    let mut out = PREFIX.to_vec();
    put_bytes(&mut out, 1, &meta);
    put_bytes(&mut out, 2, &raw);
    put_bytes(&mut out, 3, b"");
    put_bytes(&mut out, 4, b"");
    Some(out)
}

/// An event of a watch: four bytes of length, then a `WatchEvent { type 1, object 2 { raw 1 } }`.
pub(crate) fn watch_event(event: &str, object: &Document) -> Vec<u8> {
    let mut raw = Vec::new();
    put_bytes(&mut raw, 1, &of(object).unwrap_or_default());
    let mut message = Vec::new();
    put_bytes(&mut message, 1, event.as_bytes());
    put_bytes(&mut message, 2, &raw);
    let length = u32::try_from(message.len()).unwrap_or_default().to_be_bytes();
    [&length[..], &message].concat()
}

/// A message's fields, in the order of their numbers. `path`: as in reading.
pub(super) fn message(schema: &Schema, of: &Type, map: &Map<String, Value>, path: &[u32]) -> Vec<u8> {
    let mut here: Vec<(u32, &Field)> = of
        .fields
        .iter()
        .filter(|field| field.pb.starts_with(path))
        .filter_map(|field| Some((*field.pb.get(path.len())?, field)))
        .collect();
    here.sort_by_key(|(number, _)| *number);
    let mut out = Vec::new();
    let mut embedded = 0;
    for (number, field) in here {
        if field.pb.len() == path.len() + 1 {
            if let Some(value) = map.get(&field.name) {
                if field.name == "verbs" && of.go_name() == "APIResource" {
                    // A list of its own type: a message `{ items = 1 }`.
                    let mut items = Vec::new();
                    put(schema, &field.item, 1, value, &mut items);
                    put_bytes(&mut out, number, &items);
                    continue;
                }
                put(schema, &field.item, number, value, &mut out);
            }
        } else if embedded != number {
            embedded = number;
            let inner = message(schema, of, map, &[path, &[number]].concat());
            if !inner.is_empty() {
                put_bytes(&mut out, number, &inner);
            }
        }
    }
    out
}

fn put(schema: &Schema, item: &Item, number: u32, value: &Value, out: &mut Vec<u8>) {
    match (&item.shape, value) {
        (_, Value::Null) => {}
        (Shape::List { of, .. }, Value::Array(items)) => {
            items.iter().for_each(|item| put(schema, of, number, item, out));
        }
        (Shape::Map { of, .. }, Value::Object(map)) => {
            for (key, value) in map {
                let mut entry = Vec::new();
                put_bytes(&mut entry, 1, key.as_bytes());
                put_entry(schema, of, value, &mut entry);
                put_bytes(out, number, &entry);
            }
        }
        (Shape::Struct { of, .. }, Value::Object(map)) => {
            put_bytes(out, number, &message(schema, schema.resolve(*of), map, &[]));
        }
        (Shape::Any | Shape::Object, value) => {
            if let Some(alternative) = alternative::of(schema, item) {
                return put_bytes(out, number, &alternative.write(value));
            }
            let mut raw = Vec::new();
            put_bytes(&mut raw, 1, go_json(value).as_bytes());
            put_bytes(out, number, &raw);
        }
        (Shape::Scalar(scalar), value) => put_scalar(*scalar, number, value, out),
        _ => {}
    }
}

/// JSON as Go's `json.Marshal` writes it: upstream's controllers compare these bytes with what they would write.
fn go_json(value: &Value) -> String {
    let escaped = ['<', '>', '&', '\u{2028}', '\u{2029}'];
    let mut text = String::new();
    for part in value.to_string().split_inclusive(escaped) {
        match part.char_indices().next_back() {
            Some((at, last)) if escaped.contains(&last) => {
                text.push_str(part.get(..at).unwrap_or_default());
                text.push_str(&format!("\\u{:04x}", u32::from(last)));
            }
            _ => text.push_str(part),
        }
    }
    text
}

/// A list as a map's value is a message `{ items = 1 }`.
fn put_entry(schema: &Schema, item: &Item, value: &Value, entry: &mut Vec<u8>) {
    match item.shape {
        Shape::List { .. } => {
            let mut items = Vec::new();
            put(schema, item, 1, value, &mut items);
            put_bytes(entry, 2, &items);
        }
        _ => put(schema, item, 2, value, entry),
    }
}

fn put_scalar(scalar: Scalar, number: u32, value: &Value, out: &mut Vec<u8>) {
    let text = value.as_str().unwrap_or_default();
    match scalar {
        Scalar::String => put_bytes(out, number, text.as_bytes()),
        Scalar::Bytes => put_bytes(out, number, &STANDARD.decode(text).unwrap_or_default()),
        Scalar::Bool => put_varint(out, number, u64::from(value.as_bool().unwrap_or_default())),
        Scalar::Int32 | Scalar::Int64 => put_varint(out, number, value.as_i64().unwrap_or_default().cast_unsigned()),
        Scalar::Double => put_fixed64(out, number, value.as_f64().unwrap_or_default().to_bits()),
        Scalar::Quantity => {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let mut quantity = Vec::new();
            put_bytes(&mut quantity, 1, text.as_bytes());
            put_bytes(out, number, &quantity);
        }
        Scalar::IntOrString => put_bytes(out, number, &int_or_string(value)),
        Scalar::Time | Scalar::MicroTime => put_bytes(out, number, &instant(text)),
    }
}

fn int_or_string(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, 1, u64::from(value.is_string()));
    put_varint(&mut out, 2, value.as_i64().unwrap_or_default().cast_unsigned());
    put_bytes(&mut out, 3, value.as_str().unwrap_or_default().as_bytes());
    out
}

fn instant(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some(time) = time::parse(text) {
        put_varint(&mut out, 1, time.as_second().cast_unsigned());
        put_varint(&mut out, 2, i64::from(time.subsec_nanosecond()).cast_unsigned());
    }
    out
}
