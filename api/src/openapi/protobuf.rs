//! OpenAPI v2 documents in protobuf: the `openapi.v2.Document` message of gnostic, which kubectl's validation asks for.
//!
//! One table a message says which JSON key has which field number and what stands there
//! (<https://github.com/google/gnostic-models>, `openapiv2/OpenAPIv2.proto`); the JSON document is walked by it.

use serde_json::{Map, Value};

use crate::wire::{put_bytes, put_fixed64, put_varint};

/// A message: fields in the order of their numbers, and where keys go that no field has, by what they begin with.
struct Message {
    fields: &'static [(&'static str, u32, Of)],
    named: &'static [(&'static str, u32, Of)],
}

/// What a JSON value is in protobuf.
#[derive(Clone, Copy)]
enum Of {
    Text,
    Flag,
    Integer,
    Double,
    /// `Any { yaml = 2 }`: whatever it is, as text. JSON is YAML.
    Any,
    One(&'static Message),
    /// A text or a list of texts, as a message `{ value = 1 }`.
    TextList,
    /// A list, an item a field.
    Each(&'static Of),
    /// One alternative of several.
    Choice(Choose),
}

/// Which alternative a value is: the field numbers of the messages on the way to it, and what stands at the last one.
type Choose = fn(&Value) -> (&'static [u32], Of);

const EXTENSION: &str = "x-";
const TEXTS: Of = Of::Each(&Of::Text);
static A_SCHEMA: Of = Of::One(&SCHEMA);
const ANYS: Of = Of::Each(&Of::Any);

static DOCUMENT: Message = Message {
    fields: &[
        ("swagger", 1, Of::Text),
        ("info", 2, Of::One(&INFO)),
        ("host", 3, Of::Text),
        ("basePath", 4, Of::Text),
        ("schemes", 5, TEXTS),
        ("consumes", 6, TEXTS),
        ("produces", 7, TEXTS),
        ("paths", 8, Of::One(&PATHS)),
        ("definitions", 9, Of::One(&DEFINITIONS)),
        ("security", 12, Of::Each(&Of::One(&SECURITY))),
        ("securityDefinitions", 13, Of::One(&SECURITY_DEFINITIONS)),
    ],
    named: &[(EXTENSION, 16, Of::Any)],
};
static INFO: Message = Message {
    fields: &[("title", 1, Of::Text), ("version", 2, Of::Text), ("description", 3, Of::Text)],
    named: &[(EXTENSION, 7, Of::Any)],
};
static PATHS: Message = Message { fields: &[], named: &[(EXTENSION, 1, Of::Any), ("/", 2, Of::One(&PATH))] };
static DEFINITIONS: Message = Message { fields: &[], named: &[("", 1, Of::One(&SCHEMA))] };
static SECURITY: Message = Message { fields: &[], named: &[("", 1, Of::TextList)] };
static SECURITY_DEFINITIONS: Message = Message { fields: &[], named: &[("", 1, Of::Choice(|_| (&[2], API_KEY)))] };
const API_KEY: Of = Of::One(&Message {
    fields: &[("type", 1, Of::Text), ("name", 2, Of::Text), ("in", 3, Of::Text), ("description", 4, Of::Text)],
    named: &[(EXTENSION, 5, Of::Any)],
});
static PATH: Message = Message {
    fields: &[
        ("$ref", 1, Of::Text),
        ("get", 2, Of::One(&OPERATION)),
        ("put", 3, Of::One(&OPERATION)),
        ("post", 4, Of::One(&OPERATION)),
        ("delete", 5, Of::One(&OPERATION)),
        ("options", 6, Of::One(&OPERATION)),
        ("head", 7, Of::One(&OPERATION)),
        ("patch", 8, Of::One(&OPERATION)),
        ("parameters", 9, PARAMETERS),
    ],
    named: &[(EXTENSION, 10, Of::Any)],
};
static OPERATION: Message = Message {
    fields: &[
        ("tags", 1, TEXTS),
        ("summary", 2, Of::Text),
        ("description", 3, Of::Text),
        ("operationId", 5, Of::Text),
        ("produces", 6, TEXTS),
        ("consumes", 7, TEXTS),
        ("parameters", 8, PARAMETERS),
        ("responses", 9, Of::One(&RESPONSES)),
        ("schemes", 10, TEXTS),
        ("deprecated", 11, Of::Flag),
        ("security", 12, Of::Each(&Of::One(&SECURITY))),
    ],
    named: &[(EXTENSION, 13, Of::Any)],
};
static RESPONSES: Message =
    Message { fields: &[], named: &[(EXTENSION, 2, Of::Any), ("", 1, Of::Choice(|_| (&[1], Of::One(&RESPONSE))))] };
static RESPONSE: Message = Message {
    fields: &[("description", 1, Of::Text), ("schema", 2, Of::Choice(|_| (&[1], Of::One(&SCHEMA))))],
    named: &[(EXTENSION, 5, Of::Any)],
};

const PARAMETERS: Of = Of::Each(&Of::Choice(parameter));

fn parameter(value: &Value) -> (&'static [u32], Of) {
    match value.get("in").and_then(Value::as_str) {
        Some("body") => (&[1, 1], Of::One(&BODY)),
        Some("header") => (&[1, 2, 1], Of::One(&UNFLAGGED)),
        Some("formData") => (&[1, 2, 2], Of::One(&FLAGGED)),
        Some("query") => (&[1, 2, 3], Of::One(&FLAGGED)),
        Some("path") => (&[1, 2, 4], Of::One(&UNFLAGGED)),
        _ => (&[2], Of::One(&Message { fields: &[("$ref", 1, Of::Text)], named: &[] })),
    }
}

static BODY: Message = Message {
    fields: &[
        ("description", 1, Of::Text),
        ("name", 2, Of::Text),
        ("in", 3, Of::Text),
        ("required", 4, Of::Flag),
        ("schema", 5, Of::One(&SCHEMA)),
    ],
    named: &[(EXTENSION, 6, Of::Any)],
};
/// Parameters in the query and in forms, which may be there without a value.
static FLAGGED: Message = Message {
    fields: &[
        ("required", 1, Of::Flag),
        ("in", 2, Of::Text),
        ("description", 3, Of::Text),
        ("name", 4, Of::Text),
        ("allowEmptyValue", 5, Of::Flag),
        ("type", 6, Of::Text),
        ("format", 7, Of::Text),
        ("default", 10, Of::Any),
        ("pattern", 17, Of::Text),
        ("uniqueItems", 20, Of::Flag),
        ("enum", 21, ANYS),
    ],
    named: &[(EXTENSION, 23, Of::Any)],
};
/// Parameters in the path and in headers.
static UNFLAGGED: Message = Message {
    fields: &[
        ("required", 1, Of::Flag),
        ("in", 2, Of::Text),
        ("description", 3, Of::Text),
        ("name", 4, Of::Text),
        ("type", 5, Of::Text),
        ("format", 6, Of::Text),
        ("default", 9, Of::Any),
        ("pattern", 16, Of::Text),
        ("uniqueItems", 19, Of::Flag),
        ("enum", 20, ANYS),
    ],
    named: &[(EXTENSION, 22, Of::Any)],
};
static SCHEMA: Message = Message {
    fields: &[
        ("$ref", 1, Of::Text),
        ("format", 2, Of::Text),
        ("title", 3, Of::Text),
        ("description", 4, Of::Text),
        ("default", 5, Of::Any),
        ("multipleOf", 6, Of::Double),
        ("maximum", 7, Of::Double),
        ("exclusiveMaximum", 8, Of::Flag),
        ("minimum", 9, Of::Double),
        ("exclusiveMinimum", 10, Of::Flag),
        ("maxLength", 11, Of::Integer),
        ("minLength", 12, Of::Integer),
        ("pattern", 13, Of::Text),
        ("maxItems", 14, Of::Integer),
        ("minItems", 15, Of::Integer),
        ("uniqueItems", 16, Of::Flag),
        ("maxProperties", 17, Of::Integer),
        ("minProperties", 18, Of::Integer),
        ("required", 19, TEXTS),
        ("enum", 20, ANYS),
        ("additionalProperties", 21, Of::Choice(additional)),
        ("type", 22, Of::TextList),
        ("items", 23, Of::Choice(|_| (&[1], Of::One(&SCHEMA)))),
        ("allOf", 24, Of::Each(&A_SCHEMA)),
        ("properties", 25, Of::One(&DEFINITIONS)),
        ("discriminator", 26, Of::Text),
        ("readOnly", 27, Of::Flag),
        ("example", 30, Of::Any),
    ],
    named: &[(EXTENSION, 31, Of::Any)],
};

fn additional(value: &Value) -> (&'static [u32], Of) {
    if value.is_boolean() { (&[2], Of::Flag) } else { (&[1], Of::One(&SCHEMA)) }
}

/// The message of a v2 document. Keys that gnostic's message has no field for are left out.
pub(super) fn document(v2: &Value) -> Vec<u8> {
    v2.as_object().map(|map| message(&DOCUMENT, map)).unwrap_or_default()
}

fn message(of: &Message, map: &Map<String, Value>) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, number, of) in of.fields {
        if let Some(value) = map.get(*key) {
            put(&mut out, *number, *of, value);
        }
    }
    for (key, value) in map {
        if of.fields.iter().any(|(known, ..)| known == key) {
            continue;
        }
        if let Some((_, number, of)) = of.named.iter().find(|(prefix, ..)| key.starts_with(prefix)) {
            let mut entry = Vec::new();
            put_bytes(&mut entry, 1, key.as_bytes());
            put(&mut entry, 2, *of, value);
            put_bytes(&mut out, *number, &entry);
        }
    }
    out
}

fn put(out: &mut Vec<u8>, number: u32, of: Of, value: &Value) {
    match of {
        Of::Text => put_bytes(out, number, value.as_str().unwrap_or_default().as_bytes()),
        Of::Flag => put_varint(out, number, u64::from(value.as_bool().unwrap_or_default())),
        Of::Integer => put_varint(out, number, value.as_i64().unwrap_or_default().cast_unsigned()),
        Of::Double => put_fixed64(out, number, value.as_f64().unwrap_or_default().to_bits()),
        Of::Any => {
            let mut any = Vec::new();
            put_bytes(&mut any, 2, value.to_string().as_bytes());
            put_bytes(out, number, &any);
        }
        Of::One(of) => {
            let inner = value.as_object().map(|map| message(of, map)).unwrap_or_default();
            put_bytes(out, number, &inner);
        }
        Of::TextList => {
            let mut list = Vec::new();
            let texts = value.as_array().map_or_else(|| std::slice::from_ref(value), Vec::as_slice);
            texts.iter().for_each(|text| put(&mut list, 1, Of::Text, text));
            put_bytes(out, number, &list);
        }
        Of::Each(of) => value.as_array().into_iter().flatten().for_each(|item| put(out, number, *of, item)),
        Of::Choice(choose) => choice(out, number, choose(value), value),
    }
}

fn choice(out: &mut Vec<u8>, number: u32, (way, of): (&'static [u32], Of), value: &Value) {
    let Some((last, outer)) = way.split_last() else { return put(out, number, of, value) };
    let mut inner = Vec::new();
    put(&mut inner, *last, of, value);
    for step in outer.iter().rev() {
        let mut around = Vec::new();
        put_bytes(&mut around, *step, &inner);
        inner = around;
    }
    put_bytes(out, number, &inner);
}

#[cfg(test)]
mod tests {
    use super::document;
    use crate::wire::{Payload, Reader};
    use serde_json::json;

    /// The payload at a way of field numbers, the first of each.
    fn at<'a>(bytes: &'a [u8], way: &[u32]) -> Option<Payload<'a>> {
        let (first, rest) = way.split_first()?;
        let found = Reader::new(bytes).flatten().find(|(number, _)| number == first)?.1;
        match (rest, found) {
            ([], found) => Some(found),
            (rest, Payload::Bytes(inner)) => at(inner, rest),
            _ => None,
        }
    }

    #[test]
    fn each_part_stands_at_gnostics_field_numbers() {
        let parameters = json!([{"name": "body", "in": "body", "required": true, "schema": {"$ref": "#/definitions/a.A"}},
            {"name": "limit", "in": "query", "type": "integer", "uniqueItems": true}]);
        let post = json!({"operationId": "make", "parameters": parameters, "x-kubernetes-action": "post",
            "responses": {"200": {"description": "OK", "schema": {"$ref": "#/definitions/a.A"}}}});
        let bytes = document(&json!({"swagger": "2.0", "paths": {"/a": {"post": post}}, "definitions": {"a.A": {
            "type": "object", "properties": {"m": {"type": "object", "additionalProperties": {"type": "string"}}},
            "x-kubernetes-group-version-kind": [{"group": "", "kind": "A", "version": "v1"}]}}}));
        let text = |way: &[u32]| match at(&bytes, way) {
            Some(Payload::Bytes(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
            other => format!("{other:?}"),
        };
        assert_eq!(text(&[1]), "2.0");
        let post = |way: &[u32]| text(&[&[8, 2, 2, 4], way].concat());
        assert_eq!((text(&[8, 2, 1]), post(&[5])), ("/a".into(), "make".into()));
        assert_eq!(post(&[8, 1, 1, 2]), "body");
        assert_eq!(post(&[9, 1, 1]), "200");
        assert_eq!(post(&[9, 1, 2, 1, 2, 1, 1]), "#/definitions/a.A");
        assert_eq!(post(&[13, 2, 2]), "\"post\"");
        let schema = |way: &[u32]| text(&[&[9, 1, 2], way].concat());
        assert_eq!((text(&[9, 1, 1]), schema(&[22, 1])), ("a.A".into(), "object".into()));
        assert_eq!(schema(&[25, 1, 2, 21, 1, 22, 1]), "string");
        assert_eq!(schema(&[31, 2, 2]), r#"[{"group":"","kind":"A","version":"v1"}]"#);
    }
}
