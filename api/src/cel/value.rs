//! Values while an expression is evaluated. Documents are looked into where they stand; nothing of them is copied.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Number, Value};

use super::authorize::Subject;
use super::kube::Special;
use super::static_type::{Merge, Type};
use super::time;
use crate::time::rfc3339;

/// A value.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Val<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Cow<'a, str>),
    Bytes(Rc<[u8]>),
    /// Nanoseconds.
    Duration(i64),
    Timestamp(Timestamp),
    List(Rc<Vec<Val<'a>>>),
    Map(Rc<BTreeMap<Key, Val<'a>>>),
    /// An array or an object of a document, with its declared type.
    Json(&'a Value, Type),
    Optional(Option<Rc<Val<'a>>>),
    Type(Type),
    Special(Rc<Special>),
    Authorizer(Rc<Subject<'a>>),
}

/// A key of a map that an expression made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Key {
    Bool(bool),
    Int(i64),
    Uint(u64),
    Text(String),
}

impl<'a> Val<'a> {
    /// A part of a document, by its declared type.
    pub fn of(json: &'a Value, of: &Type) -> Self {
        match (json, of) {
            (Value::Null, _) => Self::Null,
            (Value::Bool(value), _) => Self::Bool(*value),
            (Value::Number(number), Type::Double) => number.as_f64().map_or(Self::Null, Self::Double),
            (Value::Number(number), _) => number_of(number),
            (Value::String(text), Type::Timestamp) => time::parse(text).map_or_else(|| text_of(text), Self::Timestamp),
            (Value::String(text), Type::Duration) => time::duration(text).map_or_else(|| text_of(text), Self::Duration),
            (Value::String(text), Type::Bytes(_)) => {
                STANDARD.decode(text).map_or_else(|_| text_of(text), |bytes| Self::Bytes(bytes.into()))
            }
            (Value::String(text), _) => text_of(text),
            (Value::Array(_) | Value::Object(_), of) => Self::Json(json, of.clone()),
        }
    }

    /// Text.
    pub fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Self::Text(text.into())
    }

    pub(super) fn list(items: Vec<Self>) -> Self {
        Self::List(Rc::new(items))
    }

    pub(super) fn some(value: Self) -> Self {
        Self::Optional(Some(Rc::new(value)))
    }

    pub(super) fn special(special: Special) -> Self {
        Self::Special(Rc::new(special))
    }

    /// Whether it is `true`.
    pub fn is_true(&self) -> bool {
        matches!(self, Self::Bool(true))
    }

    /// The text, where it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The elements, where it is a list.
    pub fn items(&self) -> Option<Vec<Self>> {
        match self {
            Self::List(items) => Some(items.as_ref().clone()),
            Self::Json(Value::Array(items), of) => {
                let of = element(of);
                Some(items.iter().map(|item| Self::of(item, &of)).collect())
            }
            _ => None,
        }
    }

    /// Keys and values, where it is a map or an object.
    pub fn entries(&self) -> Option<Vec<(Key, Self)>> {
        match self {
            Self::Map(map) => Some(map.iter().map(|(k, v)| (k.clone(), v.clone())).collect()),
            Self::Json(Value::Object(map), Type::Object(of)) => {
                let declared = of.fields.iter();
                let found = declared.filter_map(|(key, (name, of))| Some((key, map.get(name)?, of)));
                Some(found.map(|(key, value, of)| (Key::Text(key.clone()), Self::of(value, of))).collect())
            }
            Self::Json(Value::Object(map), of) => {
                let of = element(of);
                Some(map.iter().map(|(k, v)| (Key::Text(k.clone()), Self::of(v, &of))).collect())
            }
            _ => None,
        }
    }

    /// What stands under a key of a map or in a field of an object.
    pub(super) fn at_key(&self, key: &Key) -> Option<Self> {
        match (self, key) {
            (Self::Map(map), key) => map.get(key).cloned().or_else(|| map.get(&key.other()?).cloned()),
            (Self::Json(Value::Object(map), Type::Object(of)), Key::Text(key)) => {
                let (name, of) = of.fields.get(key)?;
                map.get(name).map(|value| Self::of(value, of))
            }
            (Self::Json(Value::Object(map), of), Key::Text(key)) => map.get(key).map(|v| Self::of(v, &element(of))),
            _ => None,
        }
    }

    pub(super) fn is_map(&self) -> bool {
        matches!(self, Self::Map(_) | Self::Json(Value::Object(_), _))
    }

    /// Elements, characters, or bytes.
    pub(super) fn size(&self) -> Option<u64> {
        Some(match self {
            Self::Text(text) => text.chars().count(),
            Self::Bytes(bytes) => bytes.len(),
            Self::List(items) => items.len(),
            Self::Map(map) => map.len(),
            Self::Json(Value::Array(items), _) => items.len(),
            Self::Json(Value::Object(map), _) => map.len(),
            Self::Optional(Some(value)) => return value.size(),
            _ => return None,
        } as u64)
    }

    /// A key for a map; `None` for what is none.
    pub(super) fn key(&self) -> Option<Key> {
        Some(match self {
            Self::Bool(value) => Key::Bool(*value),
            Self::Int(value) => Key::Int(*value),
            Self::Uint(value) => Key::Uint(*value),
            Self::Double(value) if value.fract() == 0.0 => Key::Int(*value as i64),
            Self::Text(text) => Key::Text(text.clone().into_owned()),
            _ => return None,
        })
    }

    /// The type at run time.
    pub(super) fn type_of(&self) -> Type {
        match self {
            Self::Null => Type::Null,
            Self::Bool(_) => Type::Bool,
            Self::Int(_) => Type::Int,
            Self::Uint(_) => Type::Uint,
            Self::Double(_) => Type::Double,
            Self::Text(_) => Type::TEXT,
            Self::Bytes(_) => Type::Bytes(None),
            Self::Duration(_) => Type::Duration,
            Self::Timestamp(_) => Type::Timestamp,
            Self::List(_) | Self::Json(Value::Array(_), _) => Type::list(Type::DYN),
            Self::Json(_, Type::Object(of)) => Type::Object(Arc::clone(of)),
            Self::Map(_) | Self::Json(..) => Type::map_of(Type::DYN, Type::DYN),
            Self::Optional(_) => Type::optional(Type::DYN),
            Self::Type(_) => Type::Type(Arc::new(Type::DYN)),
            Self::Special(special) => special.type_of(),
            Self::Authorizer(subject) => subject.type_of(),
        }
    }

    /// Equality as expressions see it: numbers of different types compare by value, other types are unequal.
    pub(super) fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Duration(a), Self::Duration(b)) => a == b,
            (Self::Timestamp(a), Self::Timestamp(b)) => a == b,
            (Self::Optional(a), Self::Optional(b)) => match (a, b) {
                (Some(a), Some(b)) => a.equals(b),
                (None, None) => true,
                _ => false,
            },
            (Self::Type(a), Self::Type(b)) => same_type(a, b),
            (Self::Special(a), Self::Special(b)) => a == b,
            (Self::Int(_) | Self::Uint(_) | Self::Double(_), Self::Int(_) | Self::Uint(_) | Self::Double(_)) => {
                self.compare(other) == Some(Ordering::Equal)
            }
            _ => self.equal_aggregates(other),
        }
    }

    fn equal_aggregates(&self, other: &Self) -> bool {
        if let (Some(a), Some(b)) = (self.items(), other.items()) {
            if a.len() != b.len() {
                return false;
            }
            return match self.merge().or_else(|| other.merge()) {
                Some(Merge::Set) => a.iter().all(|item| b.iter().any(|o| o.equals(item))),
                Some(Merge::Map(keys)) => {
                    a.iter().all(|item| b.iter().any(|o| same_keys(item, o, &keys) && o.equals(item)))
                }
                _ => a.iter().zip(&b).all(|(a, b)| a.equals(b)),
            };
        }
        let (Some(a), Some(b)) = (self.entries(), other.entries()) else { return false };
        a.len() == b.len() && a.iter().all(|(key, value)| other.at_key(key).is_some_and(|o| o.equals(value)))
    }

    /// How its schema merges it, where it is a list with a say in that.
    pub(super) fn merge(&self) -> Option<Merge> {
        match self {
            Self::Json(_, Type::List(list)) if list.merge != Merge::Atomic => Some(list.merge.clone()),
            _ => None,
        }
    }

    /// Order, where there is one.
    pub(super) fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(b)),
            (Self::Uint(a), Self::Uint(b)) => Some(a.cmp(b)),
            (Self::Double(a), Self::Double(b)) => a.partial_cmp(b),
            (Self::Int(a), Self::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Self::Uint(a), Self::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Self::Int(a), Self::Double(b)) => (*a as f64).partial_cmp(b),
            (Self::Uint(a), Self::Double(b)) => (*a as f64).partial_cmp(b),
            (Self::Double(a), Self::Int(b)) => a.partial_cmp(&(*b as f64)),
            (Self::Double(a), Self::Uint(b)) => a.partial_cmp(&(*b as f64)),
            (Self::Text(a), Self::Text(b)) => Some(a.cmp(b)),
            (Self::Bytes(a), Self::Bytes(b)) => Some(a.cmp(b)),
            (Self::Duration(a), Self::Duration(b)) => Some(a.cmp(b)),
            (Self::Timestamp(a), Self::Timestamp(b)) => Some(a.cmp(b)),
            (Self::Special(a), Self::Special(b)) => a.compare(b),
            _ => None,
        }
    }

    /// As JSON; the error says what cannot be written so.
    pub fn to_json(&self) -> Result<Value, String> {
        if let Some(items) = self.items() {
            return items.iter().map(Self::to_json).collect();
        }
        if let Self::Json(json, _) = self {
            return Ok((*json).clone());
        }
        if let Some(entries) = self.entries() {
            let mut map = Map::new();
            for (key, value) in entries {
                map.insert(key.to_string(), value.to_json()?);
            }
            return Ok(Value::Object(map));
        }
        Ok(match self {
            Self::Null => Value::Null,
            Self::Bool(value) => (*value).into(),
            Self::Int(value) => (*value).into(),
            Self::Uint(value) => (*value).into(),
            Self::Double(value) => Number::from_f64(*value).map_or(Value::Null, Value::Number),
            Self::Text(text) => text.as_ref().into(),
            Self::Bytes(bytes) => STANDARD.encode(bytes).into(),
            Self::Duration(nanos) => time::show(*nanos).into(),
            Self::Timestamp(time) => rfc3339(*time).into(),
            Self::Optional(Some(value)) => value.to_json()?,
            other => return Err(format!("unsupported conversion of {} to JSON", other.type_of())),
        })
    }
}

impl Key {
    /// The same number in the other integer type.
    fn other(&self) -> Option<Self> {
        match self {
            Self::Int(value) => u64::try_from(*value).ok().map(Self::Uint),
            Self::Uint(value) => i64::try_from(*value).ok().map(Self::Int),
            _ => None,
        }
    }

    pub(super) fn val<'a>(&self) -> Val<'a> {
        match self {
            Self::Bool(value) => Val::Bool(*value),
            Self::Int(value) => Val::Int(*value),
            Self::Uint(value) => Val::Uint(*value),
            Self::Text(text) => Val::text(text.clone()),
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Uint(value) => write!(f, "{value}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

fn number_of<'a>(number: &Number) -> Val<'a> {
    match (number.as_i64(), number.as_u64()) {
        (Some(value), _) => Val::Int(value),
        (None, Some(value)) => Val::Uint(value),
        _ => Val::Double(number.as_f64().unwrap_or_default()),
    }
}

fn text_of(text: &str) -> Val<'_> {
    Val::Text(Cow::Borrowed(text))
}

/// The declared type of elements and map values.
fn element(of: &Type) -> Type {
    match of {
        Type::List(list) => list.of.clone(),
        Type::Map(map) => map.of.clone(),
        _ => Type::DYN,
    }
}

/// Types as values are equal by their outermost name.
fn same_type(a: &Type, b: &Type) -> bool {
    matches!(
        (a, b),
        (Type::List(_), Type::List(_))
            | (Type::Map(_), Type::Map(_))
            | (Type::Optional(_), Type::Optional(_))
            | (Type::Type(_), Type::Type(_))
    ) || a == b
}

/// Whether two list elements have the same map keys.
pub(super) fn same_keys(a: &Val<'_>, b: &Val<'_>, keys: &[String]) -> bool {
    keys.iter().all(|key| {
        let key = Key::Text(super::escape::escape(key).unwrap_or_else(|| key.clone()));
        match (a.at_key(&key), b.at_key(&key)) {
            (Some(a), Some(b)) => a.equals(&b),
            (None, None) => true,
            _ => false,
        }
    })
}
