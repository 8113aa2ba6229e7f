//! The document: one Kubernetes object as its JSON tree.
//!
//! A newtype, so that the representation can become cheaper without touching anyone: clones share one tree until one of
//! them is changed. Paths are JSON pointers (RFC 6901): `/metadata/name`.

use std::borrow::Cow;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// One object (always a JSON object at the root).
#[derive(Clone, Debug, PartialEq)]
pub struct Document(Arc<Value>);

impl Default for Document {
    fn default() -> Self {
        Self(Arc::new(Value::Object(Map::new())))
    }
}

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Map::deserialize(deserializer).map(Self::from)
    }
}

impl From<Map<String, Value>> for Document {
    fn from(map: Map<String, Value>) -> Self {
        Self(Arc::new(Value::Object(map)))
    }
}

impl Document {
    /// The document that `value` is, or `None` where its root is not an object.
    pub fn new(value: Value) -> Option<Self> {
        value.is_object().then(|| Self(Arc::new(value)))
    }

    /// Reads stored bytes. Input from outside goes through `schema::decode` instead, which checks it.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// The document of a typed object.
    pub fn of<T: Serialize>(typed: &T) -> Result<Self, serde_json::Error> {
        let value = serde_json::to_value(typed)?;
        Self::new(value).ok_or_else(|| serde::ser::Error::custom("the root of an object must be a JSON object"))
    }

    /// The typed form; unknown fields are dropped, so never store what comes back from it.
    pub fn typed<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(&*self.0)
    }

    /// The tree.
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// The tree, to change in place; it is copied first where a clone shares it. The root must stay an object.
    pub fn value_mut(&mut self) -> &mut Value {
        Arc::make_mut(&mut self.0)
    }

    /// The tree, by value.
    pub fn into_value(self) -> Value {
        Arc::unwrap_or_clone(self.0)
    }

    /// The canonical bytes: compact JSON, keys sorted.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_string().into_bytes()
    }

    /// The value at a JSON pointer.
    pub fn at(&self, pointer: &str) -> Option<&Value> {
        if !pointer.is_empty() && !pointer.starts_with('/') {
            return None;
        }
        steps(pointer).try_fold(&*self.0, |value, step| match value {
            Value::Object(map) => map.get(&*step),
            Value::Array(items) => items.get(index(&step)?),
            _ => None,
        })
    }

    /// The value at a JSON pointer, to change in place.
    pub fn at_mut(&mut self, pointer: &str) -> Option<&mut Value> {
        // What is not there is no reason to copy.
        self.at(pointer)?;
        steps(pointer).try_fold(self.value_mut(), |value, step| match value {
            Value::Object(map) => map.get_mut(&*step),
            Value::Array(items) => items.get_mut(index(&step)?),
            _ => None,
        })
    }

    /// The string at a JSON pointer, empty where there is none (as Go's zero value is).
    pub fn str_at(&self, pointer: &str) -> &str {
        self.at(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// The whole number at a JSON pointer.
    pub fn i64_at(&self, pointer: &str) -> Option<i64> {
        self.at(pointer).and_then(Value::as_i64)
    }

    /// The bool at a JSON pointer; absent is false.
    pub fn bool_at(&self, pointer: &str) -> bool {
        self.at(pointer).and_then(Value::as_bool).unwrap_or_default()
    }

    /// The list at a JSON pointer, empty where there is none.
    pub fn list_at(&self, pointer: &str) -> &[Value] {
        self.at(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// Puts a value at a pointer of object keys, making the objects on the way.
    /// A non-object on the way is replaced; list indices are not made.
    pub fn set(&mut self, pointer: &str, value: impl Into<Value>) {
        let mut at = self.value_mut();
        for key in steps(pointer) {
            if !at.is_object() {
                *at = Value::Object(Map::new());
            }
            let Value::Object(map) = at else { return };
            at = map.entry(key).or_insert(Value::Null);
        }
        *at = value.into();
    }

    /// Puts a value where nothing stands yet.
    pub fn set_default(&mut self, pointer: &str, value: impl Into<Value>) {
        if self.at(pointer).is_none_or(Value::is_null) {
            self.set(pointer, value);
        }
    }

    /// Takes the value at a pointer away and returns it.
    pub fn remove(&mut self, pointer: &str) -> Option<Value> {
        let (parent, key) = pointer.rsplit_once('/')?;
        self.at(pointer)?;
        self.at_mut(parent)?.as_object_mut()?.remove(&*unescape(key))
    }

    /// `apiVersion`.
    pub fn api_version(&self) -> &str {
        self.str_at("/apiVersion")
    }

    /// `kind`.
    pub fn kind(&self) -> &str {
        self.str_at("/kind")
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.str_at("/metadata/name")
    }

    /// `metadata.namespace`, empty for cluster-wide objects.
    pub fn namespace(&self) -> &str {
        self.str_at("/metadata/namespace")
    }

    /// `metadata.uid`.
    pub fn uid(&self) -> &str {
        self.str_at("/metadata/uid")
    }

    /// `metadata.resourceVersion`.
    pub fn resource_version(&self) -> &str {
        self.str_at("/metadata/resourceVersion")
    }

    /// Whether `metadata.deletionTimestamp` is set.
    pub fn deleting(&self) -> bool {
        self.at("/metadata/deletionTimestamp").is_some_and(|v| !v.is_null())
    }

    /// `metadata.labels` as pairs.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.strings_at("/metadata/labels")
    }

    /// One label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.at("/metadata/labels")?.get(key)?.as_str()
    }

    /// `metadata.annotations` as pairs.
    pub fn annotations(&self) -> impl Iterator<Item = (&str, &str)> {
        self.strings_at("/metadata/annotations")
    }

    /// One annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.at("/metadata/annotations")?.get(key)?.as_str()
    }

    /// `metadata.finalizers`.
    pub fn finalizers(&self) -> impl Iterator<Item = &str> {
        self.list_at("/metadata/finalizers").iter().filter_map(Value::as_str)
    }

    fn strings_at(&self, pointer: &str) -> impl Iterator<Item = (&str, &str)> {
        let map = self.at(pointer).and_then(Value::as_object);
        map.into_iter().flatten().filter_map(|(k, v)| Some((k.as_str(), v.as_str()?)))
    }
}

/// The steps of a JSON pointer; the empty one has none.
fn steps(pointer: &str) -> impl Iterator<Item = Cow<'_, str>> {
    pointer.split('/').skip(1).map(unescape)
}

/// A step of a JSON pointer as the key that it means.
pub(crate) fn unescape(token: &str) -> Cow<'_, str> {
    match token.contains('~') {
        true => token.replace("~1", "/").replace("~0", "~").into(),
        false => token.into(),
    }
}

/// A step as an index, which has no sign and no leading zero.
fn index(step: &str) -> Option<usize> {
    let plain = !step.starts_with('+') && (step == "0" || !step.starts_with('0'));
    plain.then(|| step.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::Document;
    use serde_json::json;

    #[test]
    fn set_makes_parents_and_remove_takes_only_the_leaf() {
        let mut doc = Document::default();
        doc.set("/metadata/annotations/a~1b", "x");
        assert_eq!(doc.value(), &json!({"metadata": {"annotations": {"a/b": "x"}}}));
        assert_eq!(doc.remove("/metadata/annotations/a~1b"), Some(json!("x")));
        assert_eq!(doc.value(), &json!({"metadata": {"annotations": {}}}));
        assert_eq!(doc.remove("/spec/replicas"), None);
    }
}
