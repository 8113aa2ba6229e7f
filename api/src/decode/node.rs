//! A body before a schema has read it: keys in their order, duplicates and number texts kept.

use std::borrow::Cow;

use serde_json::{Map, Number, Value};

use crate::quote::quote;

/// How deep a body may nest. Go allows 10,000; but every client written with `serde_json` reads no more than 128, a list
/// or watch event around the object included, and no recursion of ours may come near the end of a stack.
pub(crate) const MAX_DEPTH: usize = 120;

/// A JSON value as it was written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node<'a> {
    Null,
    Bool(bool),
    /// The literal.
    Number(Cow<'a, str>),
    String(Cow<'a, str>),
    List(Vec<Node<'a>>),
    Map(Vec<(Cow<'a, str>, Node<'a>)>),
}

impl<'a> Node<'a> {
    /// The tree that a value is.
    pub(crate) fn of(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(b) => Self::Bool(*b),
            Value::Number(n) => Self::Number(number_text(n).into()),
            Value::String(s) => Self::String(s.into()),
            Value::Array(items) => Self::List(items.iter().map(Node::of).collect()),
            Value::Object(map) => Self::Map(map.iter().map(|(k, v)| (k.into(), Node::of(v))).collect()),
        }
    }

    /// A field; of duplicates the last.
    pub(crate) fn get(&self, key: &str) -> Option<&Node<'a>> {
        let Self::Map(entries) = self else { return None };
        entries.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    /// What Go's errors call such a value.
    pub(crate) fn go_kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Number(_) => "number",
            Self::String(_) => "string",
            Self::List(_) => "array",
            Self::Map(_) => "object",
        }
    }

    /// The plain value: whole numbers as integers, of duplicates the last. Paths of duplicates go to `strict`.
    pub(crate) fn plain(self, path: &mut Path, strict: &mut Strict) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(b) => Value::Bool(b),
            Self::Number(text) => number(&text).map_or(Value::Null, Value::Number),
            Self::String(s) => Value::String(s.into_owned()),
            Self::List(items) => {
                let item = |(at, node): (usize, Node<'_>)| {
                    let before = path.index(at);
                    let value = node.plain(path, strict);
                    path.back(before);
                    value
                };
                Value::Array(items.into_iter().enumerate().map(item).collect())
            }
            Self::Map(entries) => {
                let mut map = Map::new();
                for (key, node) in entries {
                    if map.contains_key(key.as_ref()) {
                        strict.add("duplicate", path, &key);
                    }
                    let before = path.key(&key);
                    let value = node.plain(path, strict);
                    path.back(before);
                    map.insert(key.into_owned(), value);
                }
                Value::Object(map)
            }
        }
    }
}

/// The place of a value as strict errors write it: `spec.containers[0].name`.
#[derive(Debug, Default)]
pub(crate) struct Path(String);

impl Path {
    /// Goes to a field; what it returns takes [`Path::back`] to where it was.
    pub(crate) fn key(&mut self, key: &str) -> usize {
        let before = self.0.len();
        if before > 0 {
            self.0.push('.');
        }
        self.0.push_str(key);
        before
    }

    /// Goes to an item.
    pub(crate) fn index(&mut self, index: usize) -> usize {
        let before = self.0.len();
        self.0.push_str(&format!("[{index}]"));
        before
    }

    /// Whether it is the root.
    pub(crate) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Goes back.
    pub(crate) fn back(&mut self, before: usize) {
        self.0.truncate(before);
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Unknown and duplicate fields, each told once, at most a hundred.
#[derive(Debug, Default)]
pub(crate) struct Strict(pub(crate) Vec<String>);

impl Strict {
    /// `what` is `unknown` or `duplicate`.
    pub(crate) fn add(&mut self, what: &str, path: &Path, field: &str) {
        let dot = if path.0.is_empty() { "" } else { "." };
        let text = format!("{what} field {}", quote(&format!("{}{dot}{field}", path.0)));
        if self.0.len() < 100 && !self.0.contains(&text) {
            self.0.push(text);
        }
    }
}

/// A number as Go reads it into `interface{}`: an integer where it can be one. `None` where it is out of range.
pub(crate) fn number(text: &str) -> Option<Number> {
    match text.parse::<i64>() {
        Ok(whole) if !text.contains('.') => Some(whole.into()),
        _ => float(text.parse().ok()?),
    }
}

/// A float as a number that prints as Go prints it: without a fraction where it has none.
pub(crate) fn float(value: f64) -> Option<Number> {
    if value.fract() == 0.0 && value.abs() < 9e18 { Some((value as i64).into()) } else { Number::from_f64(value) }
}

fn number_text(number: &Number) -> String {
    match number.as_f64() {
        Some(value) if number.is_f64() => go_float(value),
        _ => number.to_string(),
    }
}

/// A float as Go's `encoding/json` writes it.
pub(crate) fn go_float(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{value:e}");
        if text.contains("e-") { text } else { text.replace('e', "e+") }
    } else {
        format!("{value}")
    }
}
