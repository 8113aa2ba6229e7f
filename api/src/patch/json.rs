//! RFC 6902 as `evanphx/json-patch` does it for kube-apiserver: negative indices count from the end, replacing or
//! testing an absent field of an object is no error, copies are bounded.

use serde_json::{Map, Value};

use crate::decode::node::MAX_DEPTH;
use crate::document::unescape;
use crate::{Status, StatusResult};

/// How many operations a patch may have.
const MAX_OPERATIONS: usize = 10_000;
/// How many bytes all copies together may have.
const MAX_COPIED: usize = 3 << 20;

/// 422: an operation does not apply. Kubernetes does not say which.
pub(super) fn rejected() -> Box<Status> {
    Status::failure(422, "Invalid", "the server rejected our request due to an error in our request")
}

pub(super) fn apply(mut document: Value, operations: &Value) -> StatusResult<Value> {
    let operations = match operations {
        Value::Null => &Vec::new(),
        other => other.as_array().ok_or_else(rejected)?,
    };
    if operations.len() > MAX_OPERATIONS {
        let count = operations.len();
        let limit = format!("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {count}");
        return Err(Status::too_large(format!("Request entity too large: {limit}")));
    }
    let mut copied = 0;
    for operation in operations {
        step(&mut document, operation, &mut copied).ok_or_else(rejected)?;
    }
    Ok(document)
}

/// Does one operation; `None` where it does not apply.
fn step(document: &mut Value, operation: &Value, copied: &mut usize) -> Option<()> {
    let text = |key: &str| operation.get(key).and_then(Value::as_str);
    let value = operation.get("value").cloned();
    let path = text("path")?;
    match text("op")? {
        "add" => add(document, path, value.unwrap_or_default()),
        "remove" => remove(document, path).map(drop),
        "replace" => replace(document, path, value.unwrap_or_default()),
        "move" => {
            let moved = remove(document, text("from")?)?;
            add(document, path, moved)
        }
        "copy" => {
            let copy = get(document, text("from")?)?.unwrap_or_default();
            *copied += copy.to_string().len();
            (*copied <= MAX_COPIED).then_some(())?;
            add(document, path, copy)
        }
        "test" => test(document, path, value.unwrap_or_default()),
        _ => None,
    }
}

/// The container that a path's last part names something in, and that part.
fn find<'a>(document: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    let (parents, last) = path.rsplit_once('/')?;
    let mut at = document;
    for part in parents.split('/').skip(1) {
        at = match at {
            Value::Object(map) => map.get_mut(&*unescape(part))?,
            Value::Array(items) => {
                let index = index(part, items.len())?;
                items.get_mut(index)?
            }
            _ => return None,
        };
    }
    (at.is_object() || at.is_array()).then(|| (at, unescape(last).into_owned()))
}

/// An index into `length` items; negative ones count from the end.
fn index(text: &str, length: usize) -> Option<usize> {
    let index: i64 = text.parse().ok()?;
    let length = i64::try_from(length).ok()?;
    let index = if index < 0 { index + length } else { index };
    (0..length).contains(&index).then(|| usize::try_from(index).ok()).flatten()
}

fn add(document: &mut Value, path: &str, value: Value) -> Option<()> {
    // What was read is bounded in depth; what is put together must stay so.
    (path.matches('/').count() + depth(&value) <= MAX_DEPTH).then_some(())?;
    let (container, key) = find(document, path)?;
    match container {
        Value::Object(map) => {
            map.insert(key, value);
        }
        Value::Array(items) if key == "-" => items.push(value),
        Value::Array(items) => {
            let at = index(&key, items.len() + 1)?;
            items.insert(at, value);
        }
        _ => return None,
    }
    Some(())
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

fn remove(document: &mut Value, path: &str) -> Option<Value> {
    let (container, key) = find(document, path)?;
    match container {
        Value::Object(map) => map.remove(&key),
        Value::Array(items) => {
            let at = index(&key, items.len())?;
            Some(items.remove(at))
        }
        _ => None,
    }
}

fn replace(document: &mut Value, path: &str, value: Value) -> Option<()> {
    if path.is_empty() {
        *document = value.is_object().then_some(value)?;
        return Some(());
    }
    (path.matches('/').count() + depth(&value) <= MAX_DEPTH).then_some(())?;
    let (container, key) = find(document, path)?;
    match container {
        Value::Object(map) => {
            map.insert(key, value);
        }
        Value::Array(items) => {
            let at = index(&key, items.len())?;
            *items.get_mut(at)? = value;
        }
        _ => return None,
    }
    Some(())
}

/// The value at a path: `None` where the path does not apply, `Some(None)` for an absent field.
fn get(document: &mut Value, path: &str) -> Option<Option<Value>> {
    let (container, key) = find(document, path)?;
    match container {
        Value::Object(map) => Some(map.get(&key).cloned()),
        Value::Array(items) => {
            let at = index(&key, items.len())?;
            Some(items.get(at).cloned())
        }
        _ => None,
    }
}

fn test(document: &mut Value, path: &str, expected: Value) -> Option<()> {
    let found = if path.is_empty() { document.clone() } else { get(document, path)?.unwrap_or_default() };
    same(&found, &expected).then_some(())
}

/// Equal as JSON: numbers by value.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => same_maps(a, b),
        (a, b) => a == b,
    }
}

fn same_maps(a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
}
