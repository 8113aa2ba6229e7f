//! The same document as OpenAPI v2, which cannot say all that v3 can.

use serde_json::{Map, Value, json};

const PRODUCES: [&str; 2] = ["application/json", "application/yaml"];

/// Converts a v3 document.
pub(super) fn convert(mut v3: Value) -> Value {
    let definitions = match v3.pointer_mut("/components/schemas").map(Value::take) {
        Some(Value::Object(schemas)) => schemas.into_iter().map(|(name, of)| (name, definition(of))).collect(),
        _ => Map::new(),
    };
    let paths: Map<String, Value> = match v3.get_mut("paths").map(Value::take) {
        Some(Value::Object(paths)) => paths.into_iter().map(|(at, path)| (at, convert_path(path))).collect(),
        _ => Map::new(),
    };
    let bearer = json!({"description": "Bearer Token authentication", "type": "apiKey", "name": "authorization",
        "in": "header"});
    json!({"swagger": "2.0", "info": v3["info"], "paths": paths, "definitions": definitions, "parameters": {},
        "securityDefinitions": {"BearerToken": bearer}, "security": [{"BearerToken": []}]})
}

fn take(map: &mut Map<String, Value>, key: &str) -> Option<Map<String, Value>> {
    match map.remove(key) {
        Some(Value::Object(map)) => Some(map),
        _ => None,
    }
}

/// A schema: references stand alone, and there are no defaults, alternatives or nulls.
fn definition(schema: Value) -> Value {
    let Value::Object(mut map) = schema else { return schema };
    let kinds = "x-kubernetes-group-version-kind";
    if map.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true)) {
        // Of a whole resource not even that is told: kubectl would take the rest for all there is.
        if let Some(kinds_of) = map.remove(kinds) {
            return json!({"type": "object", kinds: kinds_of});
        }
        map.retain(|key, _| matches!(key.as_str(), "x-kubernetes-preserve-unknown-fields" | "description"));
        return Value::Object(map);
    }
    if let Some(Value::Array(all)) = map.remove("allOf")
        && let [Value::Object(only)] = all.as_slice()
        && let Some(name) = only.get("$ref")
    {
        map.insert("$ref".into(), name.clone());
    }
    let alternatives = map.remove("oneOf").is_some();
    if alternatives && !map.contains_key("type") {
        map.insert("type".into(), "string".into());
    }
    for key in ["default", "nullable", "anyOf", "not"] {
        map.remove(key);
    }
    Value::Object(map.into_iter().map(|(key, value)| nested(key, value)).collect())
}

fn nested(key: String, value: Value) -> (String, Value) {
    let value = match (key.as_str(), value) {
        ("properties", Value::Object(fields)) => {
            Value::Object(fields.into_iter().map(|(name, of)| (name, definition(of))).collect())
        }
        ("items" | "additionalProperties", of) => definition(of),
        ("$ref", Value::String(name)) => name.replace("#/components/schemas/", "#/definitions/").into(),
        (_, value) => value,
    };
    (key, value)
}

fn convert_path(path: Value) -> Value {
    let Value::Object(path) = path else { return path };
    let convert = |(key, value): (String, Value)| match (key.as_str(), value) {
        ("parameters", Value::Array(parameters)) => {
            (key, parameters.into_iter().map(parameter).collect::<Vec<_>>().into())
        }
        (_, Value::Object(operation)) => (key, operation_of(operation)),
        (_, value) => (key, value),
    };
    Value::Object(path.into_iter().map(convert).collect())
}

/// A parameter: its type stands in it.
fn parameter(parameter: Value) -> Value {
    let Value::Object(mut map) = parameter else { return parameter };
    let schema = take(&mut map, "schema").unwrap_or_default();
    map.extend(schema);
    Value::Object(map)
}

fn operation_of(mut operation: Map<String, Value>) -> Value {
    let mut parameters: Vec<Value> = match operation.remove("parameters") {
        Some(Value::Array(parameters)) => parameters.into_iter().map(parameter).collect(),
        _ => Vec::new(),
    };
    let mut consumes: Vec<String> = vec!["*/*".into()];
    if let Some(mut body) = take(&mut operation, "requestBody") {
        let content = take(&mut body, "content").unwrap_or_default();
        if !content.contains_key("*/*") {
            consumes = content.keys().cloned().collect();
        }
        let schema = content.into_iter().next().map(|(_, mut of)| definition(of["schema"].take()));
        let mut of_body = json!({"name": "body", "in": "body", "schema": schema});
        if body.contains_key("required") {
            of_body["required"] = true.into();
        }
        parameters.insert(0, of_body);
    }
    if !parameters.is_empty() {
        operation.insert("parameters".into(), parameters.into());
    }
    let responses = take(&mut operation, "responses").unwrap_or_default();
    let responses: Map<String, Value> = responses.into_iter().map(|(code, of)| (code, response(of))).collect();
    operation.insert("responses".into(), responses.into());
    operation.insert("consumes".into(), consumes.into());
    operation.insert("produces".into(), json!(PRODUCES));
    operation.insert("schemes".into(), json!(["https"]));
    Value::Object(operation)
}

fn response(response: Value) -> Value {
    let Value::Object(mut map) = response else { return response };
    if let Some((_, mut of)) = take(&mut map, "content").unwrap_or_default().into_iter().next() {
        map.insert("schema".into(), definition(of["schema"].take()));
    }
    Value::Object(map)
}
