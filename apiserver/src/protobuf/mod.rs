//! Kubernetes' protobuf (`application/vnd.kubernetes.protobuf`) from and to JSON by the schema table's field numbers.
//!
//! A body is `k8s\0` and a `runtime.Unknown { typeMeta 1 { apiVersion 1, kind 2 }, raw 2 }`. Go writes fields that are no
//! pointers also when they are zero, where JSON omits them.

use api::schema::{Field, Item, Scalar, Shape, Type};
use api::wire::{self, Payload, Reader};
use api::{GroupVersion, Schema, Status, StatusResult, time};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

mod alternative;
mod encode;

use crate::canonical::{is_pointer, is_zero};
pub(crate) use encode::{of, watch_event};

/// What every body begins with.
pub(crate) const PREFIX: &[u8] = b"k8s\0";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
/// Messages stand in one another no deeper than that.
const MAX_DEPTH: usize = 64;
/// Go's zero time, in seconds since 1970.
const ZERO_TIME: i64 = -62_135_596_800;

/// The JSON form of a body; `wanted` is the kind for error texts, `None` where they do without.
pub(crate) fn to_json(body: &[u8], wanted: Option<&str>) -> StatusResult<Vec<u8>> {
    let bad = |why: &str| match wanted {
        None => Status::bad_request(why),
        Some(wanted) => Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {wanted}): {why} ({})",
            shortened(body)
        )),
    };
    match object(body) {
        Ok(object) => Ok(object.to_string().into_bytes()),
        Err(Unreadable::Form(why)) => Err(bad(why)),
        Err(Unreadable::Kind { api_version, kind }) => {
            Err(Status::bad_request(format!("no kind {kind:?} is registered for version {api_version:?}")))
        }
    }
}

/// Why a body is no object.
#[derive(Debug)]
pub(crate) enum Unreadable {
    /// It is not what it should be.
    Form(&'static str),
    /// Nobody knows its kind.
    Kind { api_version: String, kind: String },
}

impl From<&'static str> for Unreadable {
    fn from(why: &'static str) -> Self {
        Self::Form(why)
    }
}

/// The object of a body.
pub(crate) fn object(body: &[u8]) -> Result<Value, Unreadable> {
    if body.is_empty() {
        return Err("empty data".into());
    }
    if body == PREFIX {
        return Err("empty body".into());
    }
    let unknown = body
        .strip_prefix(PREFIX)
        .ok_or("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")?;
    let (api_version, kind, raw) = envelope(unknown)?;
    let version = GroupVersion::parse(&api_version)
        .unwrap_or(GroupVersion { group: String::new(), version: api_version.clone() });
    let schema = match kind.as_str() {
        "DeleteOptions" => Schema::of_type(DELETE_OPTIONS),
        kind => Schema::of_kind(&version.group, &version.version, kind),
    };
    let Some(schema) = schema else { return Err(Unreadable::Kind { api_version, kind }) };
    let mut object = message(&schema, schema.root(), raw, &[], 0)?;
    object.insert("apiVersion".into(), api_version.into());
    object.insert("kind".into(), kind.into());
    Ok(Value::Object(object))
}

/// As upstream quotes a body in errors.
fn shortened(body: &[u8]) -> String {
    let head = body.get(..30).unwrap_or(body);
    let shown = match head.first() {
        None => "<empty>".into(),
        Some(b'{') => String::from_utf8_lossy(head).into_owned(),
        _ => head.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    if head.len() < body.len() { format!("{shown} ...") } else { shown }
}

type Read<T> = Result<T, &'static str>;

fn envelope(bytes: &[u8]) -> Read<(String, String, &[u8])> {
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in Reader::new(bytes) {
        match field? {
            (1, Payload::Bytes(meta)) => {
                for field in Reader::new(meta) {
                    match field? {
                        (1, Payload::Bytes(text)) => api_version = string(text)?,
                        (2, Payload::Bytes(text)) => kind = string(text)?,
                        _ => {}
                    }
                }
            }
            (2, Payload::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    Ok((api_version, kind, raw))
}

fn string(bytes: &[u8]) -> Read<String> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| "string field contains invalid UTF-8")
}

/// A message of a type. `path`: the way of field numbers into embedded messages, whose fields JSON shows inline.
fn message(schema: &Schema, of: &Type, bytes: &[u8], path: &[u32], depth: usize) -> Read<Map<String, Value>> {
    if depth > MAX_DEPTH {
        return Err("exceeded max depth");
    }
    let mut object = Map::new();
    for field in Reader::new(bytes) {
        let (number, payload) = field?;
        let here = [path, &[number]].concat();
        match of.fields.iter().find(|field| field.pb == here) {
            Some(field) => put(schema, of, field, payload, &mut object, depth)?,
            None if of.fields.iter().any(|field| field.pb.starts_with(&here)) => {
                let Payload::Bytes(inner) = payload else { return Err("wrong wire type") };
                object.extend(message(schema, of, inner, &here, depth + 1)?);
            }
            None => {}
        }
    }
    Ok(object)
}

fn put(
    schema: &Schema,
    of: &Type,
    field: &Field,
    payload: Payload<'_>,
    object: &mut Map<String, Value>,
    depth: usize,
) -> Read<()> {
    match &field.item.shape {
        Shape::List { of: item, .. } => {
            let values = items(schema, item, payload, depth)?;
            let list = object.entry(field.name.as_str()).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(list) = list {
                list.extend(values);
            }
        }
        Shape::Map { of: item, .. } => {
            let (key, entry) = entry(schema, item, payload, depth)?;
            let map = object.entry(field.name.as_str()).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(map) = map {
                map.insert(key, entry);
            }
        }
        shape => {
            let value = value(schema, &field.item, payload, depth)?;
            let scalar = matches!(shape, Shape::Scalar(_));
            let omitted = scalar && !is_pointer(of, &field.name) && is_zero(&value);
            if !omitted && !value.is_null() {
                object.insert(field.name.clone(), value);
            }
        }
    }
    Ok(())
}

/// Numbers may come packed.
fn items(schema: &Schema, item: &Item, payload: Payload<'_>, depth: usize) -> Read<Vec<Value>> {
    if let (Shape::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::Bool), Payload::Bytes(packed)) =
        (&item.shape, payload)
    {
        let numbers: Read<Vec<u64>> = wire::varints(packed).collect();
        return numbers?.into_iter().map(|n| value(schema, item, Payload::Varint(n), depth)).collect();
    }
    Ok(vec![value(schema, item, payload, depth)?])
}

fn entry(schema: &Schema, item: &Item, payload: Payload<'_>, depth: usize) -> Read<(String, Value)> {
    let Payload::Bytes(bytes) = payload else { return Err("wrong wire type") };
    let (mut key, mut found) = (String::new(), None);
    for field in Reader::new(bytes) {
        match field? {
            (1, Payload::Bytes(text)) => key = string(text)?,
            (2, payload) => found = Some(value_of_entry(schema, item, payload, depth)?),
            _ => {}
        }
    }
    Ok((key, found.unwrap_or_else(|| Value::String(String::new()))))
}

/// A list as a map's value is a message `{ items = 1 }`.
fn value_of_entry(schema: &Schema, item: &Item, payload: Payload<'_>, depth: usize) -> Read<Value> {
    let (Shape::List { of, .. }, Payload::Bytes(bytes)) = (&item.shape, payload) else {
        return value(schema, item, payload, depth + 1);
    };
    let mut list = Vec::new();
    for field in Reader::new(bytes) {
        if let (1, payload) = field? {
            list.push(value(schema, of, payload, depth + 1)?);
        }
    }
    Ok(Value::Array(list))
}

fn value(schema: &Schema, item: &Item, payload: Payload<'_>, depth: usize) -> Read<Value> {
    match (&item.shape, payload) {
        (Shape::Scalar(scalar), payload) => self::scalar(*scalar, payload),
        (Shape::Struct { of, .. }, Payload::Bytes(bytes)) => {
            message(schema, schema.resolve(*of), bytes, &[], depth + 1).map(Value::Object)
        }
        (Shape::Any | Shape::Object, Payload::Bytes(bytes)) => match alternative::of(schema, item) {
            Some(alternative) => alternative.read(bytes, depth),
            None => raw(bytes),
        },
        _ => Err("wrong wire type"),
    }
}

/// A RawExtension, JSON or FieldsV1: bytes of JSON in field 1.
fn raw(bytes: &[u8]) -> Read<Value> {
    let mut json = Value::Null;
    for field in Reader::new(bytes) {
        if let (1, Payload::Bytes(bytes)) = field? {
            json = serde_json::from_slice(bytes).map_err(|_| "raw bytes are no JSON")?;
        }
    }
    Ok(json)
}

fn scalar(scalar: Scalar, payload: Payload<'_>) -> Read<Value> {
    Ok(match (scalar, payload) {
        (Scalar::String, Payload::Bytes(bytes)) => string(bytes)?.into(),
        (Scalar::Bytes, Payload::Bytes(bytes)) => STANDARD.encode(bytes).into(),
        (Scalar::Bool, Payload::Varint(n)) => (n != 0).into(),
        (Scalar::Int32 | Scalar::Int64, Payload::Varint(n)) => n.cast_signed().into(),
        (Scalar::Double, Payload::Fixed64(bits)) => f64::from_bits(bits).into(),
        (Scalar::Quantity, Payload::Bytes(bytes)) => first_string(bytes)?.into(),
        (Scalar::IntOrString, Payload::Bytes(bytes)) => int_or_string(bytes)?,
        (Scalar::Time, Payload::Bytes(bytes)) => instant(bytes, time::rfc3339)?,
        (Scalar::MicroTime, Payload::Bytes(bytes)) => instant(bytes, time::rfc3339_micro)?,
        _ => return Err("wrong wire type"),
    })
}

fn first_string(bytes: &[u8]) -> Read<String> {
    for field in Reader::new(bytes) {
        if let (1, Payload::Bytes(text)) = field? {
            return string(text);
        }
    }
    Ok(String::new())
}

fn int_or_string(bytes: &[u8]) -> Read<Value> {
    let (mut is_text, mut number, mut text) = (false, 0, String::new());
    for field in Reader::new(bytes) {
        match field? {
            (1, Payload::Varint(kind)) => is_text = kind == 1,
            (2, Payload::Varint(n)) => number = n.cast_signed(),
            (3, Payload::Bytes(bytes)) => text = string(bytes)?,
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}

fn instant(bytes: &[u8], write: fn(api::Timestamp) -> String) -> Read<Value> {
    let (mut seconds, mut nanos) = (0_i64, 0_i64);
    let mut any = false;
    for field in Reader::new(bytes) {
        match field? {
            (1, Payload::Varint(n)) => (seconds, any) = (n.cast_signed(), true),
            (2, Payload::Varint(n)) => (nanos, any) = (n.cast_signed(), true),
            _ => {}
        }
    }
    if !any || seconds == ZERO_TIME {
        return Ok(Value::Null);
    }
    let nanos = i32::try_from(nanos).map_err(|_| "time out of range")?;
    api::Timestamp::new(seconds, nanos).map(|t| write(t).into()).map_err(|_| "time out of range")
}

#[cfg(test)]
mod tests {
    use super::to_json;
    use serde_json::{Value, json};

    #[test]
    fn what_is_written_is_read_back() {
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "labels": {"a": "b"}, "creationTimestamp": "2024-01-31T12:00:00Z"},
            "spec": {
                "containers": [{"name": "c", "resources": {"limits": {"cpu": "1"}}, "livenessProbe": {"httpGet": {"port": "x"}}}],
                "ephemeralContainers": [{"name": "e", "targetContainerName": "c", "resources": {}}],
                "terminationGracePeriodSeconds": 0
            },
            "status": {}
        });
        let bytes = super::of(&api::Document::new(object.clone()).expect("an object")).expect("a kind");
        let back: Value = serde_json::from_slice(&to_json(&bytes, Some("Pod")).expect("readable")).expect("JSON");
        assert_eq!(back, object);
    }

    #[test]
    fn raw_json_is_what_go_would_write() {
        let revision = json!({
            "apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": "r"},
            "data": {"b": "x && y > é\u{2028}<", "a": 1}, "revision": 1
        });
        let bytes = super::of(&api::Document::new(revision.clone()).expect("an object")).expect("a kind");
        let raw = r#"{"a":1,"b":"x \u0026\u0026 y \u003e é\u2028\u003c"}"#.as_bytes();
        assert!(bytes.windows(raw.len()).any(|part| part == raw));
        let back: Value =
            serde_json::from_slice(&to_json(&bytes, Some("ControllerRevision")).expect("readable")).expect("JSON");
        assert_eq!(back, revision);
    }

    #[test]
    fn a_definition_keeps_what_is_one_thing_or_another() {
        let schema = json!({"type": "object", "properties": {
            "list": {"type": "array", "items": {"type": "string", "default": "x"}},
            "map": {"type": "object", "additionalProperties": {"type": "integer"}},
            "open": {"type": "object", "additionalProperties": true}
        }});
        let version = json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}});
        let object = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "a.b"},
            "spec": {"group": "b", "names": {"plural": "a", "kind": "A"}, "scope": "Cluster", "versions": [version]},
            "status": {}
        });
        let bytes = super::of(&api::Document::new(object.clone()).expect("an object")).expect("a kind");
        let back = to_json(&bytes, Some("CustomResourceDefinition")).expect("readable");
        assert_eq!(serde_json::from_slice::<Value>(&back).expect("JSON"), object);
    }

    #[test]
    fn zeroes_that_are_no_pointers_are_left_out() {
        // Deployment { metadata { name: "d", creationTimestamp: {} }, spec { replicas: 0, minReadySeconds: 0 } }
        let spec = [8, 0, 40, 0];
        let metadata = [10, 1, b'd', 66, 0];
        let raw = [&[10, 5][..], &metadata, &[18, 4], &spec].concat();
        let meta = [&[10, 7][..], b"apps/v1", &[18, 10], b"Deployment"].concat();
        let body = [b"k8s\0", &[10, 21][..], &meta, &[18, 13], &raw].concat();
        let got: Value = serde_json::from_slice(&to_json(&body, Some("Deployment")).expect("readable")).expect("JSON");
        let want =
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 0}});
        assert_eq!(got, want);
        let refused = to_json(b"{}", Some("ConfigMap")).expect_err("no protobuf");
        assert!(refused.message.ends_with("expected prefix [107 56 115 0] ({})"), "{}", refused.message);
    }
}
