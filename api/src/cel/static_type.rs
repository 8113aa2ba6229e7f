//! Static types, as cel-go names them, with the sizes that estimates need.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The largest request body that estimates assume, in bytes (`celconfig.MaxRequestSizeBytes`).
pub(super) const MAX_REQUEST: u64 = 3 * 1024 * 1024;

/// The type of an expression or a variable: cheap to clone. Two types are equal whatever their bounds.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Type {
    /// Known only when evaluated; with the most elements it may have, where that is known.
    Dyn(Option<u64>),
    Null,
    Bool,
    Int,
    Uint,
    Double,
    /// Text, with its greatest length where a schema says one.
    String(Option<u64>),
    Bytes(Option<u64>),
    Duration,
    Timestamp,
    List(Arc<ListType>),
    Map(Arc<MapType>),
    Object(Arc<ObjectType>),
    Optional(Arc<Type>),
    /// The type of a type.
    Type(Arc<Type>),
    /// A type of a library, such as `kubernetes.Quantity`.
    Opaque(&'static str),
    /// A type parameter of a declaration.
    Param(&'static str),
}

/// A list: its elements, their most, and how a schema says they merge (which decides equality and `+`).
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct ListType {
    pub of: Type,
    pub max: Option<u64>,
    pub merge: Merge,
}

/// `x-kubernetes-list-type`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Merge {
    Atomic,
    Set,
    Map(Vec<String>),
}

/// A map.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct MapType {
    pub key: Type,
    pub of: Type,
    pub max: Option<u64>,
}

/// An object with declared fields, by their names in expressions.
#[derive(Clone, Debug, Default)]
pub struct ObjectType {
    /// The name that errors show.
    pub name: String,
    /// By name in expressions (escaped): the name in JSON, and the type.
    pub fields: BTreeMap<String, (String, Type)>,
    /// The bytes that the smallest such object takes as JSON.
    pub min_size: u64,
}

impl Type {
    /// A type that is known only when evaluated.
    pub const DYN: Self = Self::Dyn(None);
    /// Text of any length.
    pub const TEXT: Self = Self::String(None);

    /// A plain list.
    pub fn list(of: Self) -> Self {
        Self::List(Arc::new(ListType { of, max: None, merge: Merge::Atomic }))
    }

    /// A map from strings.
    pub fn map(of: Self) -> Self {
        Self::map_of(Self::TEXT, of)
    }

    pub(super) fn map_of(key: Self, of: Self) -> Self {
        Self::Map(Arc::new(MapType { key, of, max: None }))
    }

    /// A value or none.
    pub fn optional(of: Self) -> Self {
        Self::Optional(Arc::new(of))
    }

    /// An object with fields whose names need no escape.
    pub fn object(name: &str, fields: impl IntoIterator<Item = (&'static str, Self)>) -> Self {
        let fields = fields.into_iter().map(|(name, of)| (name.to_owned(), (name.to_owned(), of))).collect();
        Self::Object(Arc::new(ObjectType { name: name.into(), fields, min_size: 2 }))
    }

    /// The same object under another name.
    pub(super) fn named(self, name: &str) -> Self {
        match self {
            Self::Object(object) => {
                Self::Object(Arc::new(ObjectType { name: name.into(), ..ObjectType::clone(&object) }))
            }
            other => other,
        }
    }

    pub(super) fn is_dyn(&self) -> bool {
        matches!(self, Self::Dyn(_))
    }

    /// Whether null may stand where this type is wanted.
    fn takes_null(&self) -> bool {
        matches!(self, Self::Object(_) | Self::Opaque(_) | Self::Duration | Self::Timestamp)
    }

    /// Whether a value of type `actual` may stand here. Type parameters are bound on the way.
    pub(super) fn takes(&self, actual: &Self, bound: &mut BTreeMap<&'static str, Self>) -> bool {
        match (self, actual) {
            (Self::Param(name), _) => match bound.get(name).cloned() {
                None => {
                    bound.insert(name, actual.clone());
                    true
                }
                Some(known) if known.is_dyn() => true,
                Some(known) if actual.is_dyn() => {
                    bound.insert(name, actual.clone());
                    known.takes(actual, bound)
                }
                Some(Self::Null) if actual.takes_null() => {
                    bound.insert(name, actual.clone());
                    true
                }
                Some(known) => known.takes(actual, bound),
            },
            (Self::Dyn(_), _) | (_, Self::Dyn(_)) => true,
            (_, Self::Null) => self.takes_null() || matches!(self, Self::Null),
            (Self::List(a), Self::List(b)) => a.of.takes(&b.of, bound),
            (Self::Map(a), Self::Map(b)) => a.key.takes(&b.key, bound) && a.of.takes(&b.of, bound),
            (Self::Optional(a), Self::Optional(b)) => a.takes(b, bound),
            (Self::Type(_), Self::Type(_)) => true,
            (a, b) => a == b,
        }
    }

    /// The type with its parameters replaced; what was not bound is dyn.
    pub(super) fn bound(&self, bound: &BTreeMap<&'static str, Self>) -> Self {
        match self {
            Self::Param(name) => bound.get(name).cloned().unwrap_or(Self::DYN),
            Self::List(list) => Self::List(Arc::new(ListType { of: list.of.bound(bound), ..ListType::clone(list) })),
            Self::Map(map) => Self::map_of(map.key.bound(bound), map.of.bound(bound)),
            Self::Optional(of) => Self::optional(of.bound(bound)),
            Self::Type(of) => Self::Type(Arc::new(of.bound(bound))),
            other => other.clone(),
        }
    }

    /// The most elements, characters or bytes that a value may have, where the type says so.
    pub(super) fn max(&self) -> Option<u64> {
        match self {
            Self::Dyn(max) | Self::String(max) | Self::Bytes(max) => *max,
            Self::List(list) => list.max,
            Self::Map(map) => map.max,
            _ => None,
        }
    }

    /// The bytes of the smallest value as JSON.
    pub fn min_size(&self) -> u64 {
        match self {
            Self::Dyn(_) | Self::Int | Self::Uint | Self::Double => 1,
            Self::Bool | Self::Null => 4,
            Self::Duration => 3,
            Self::Timestamp => 12,
            Self::Object(object) => object.min_size,
            _ => 2,
        }
    }
}

impl PartialEq for Type {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::List(a), Self::List(b)) => a.of == b.of,
            (Self::Map(a), Self::Map(b)) => a.key == b.key && a.of == b.of,
            (Self::Object(a), Self::Object(b)) => {
                Arc::ptr_eq(a, b) || a.name == b.name && a.fields.keys().eq(b.fields.keys())
            }
            (Self::Optional(a), Self::Optional(b)) | (Self::Type(a), Self::Type(b)) => a == b,
            (Self::Opaque(a), Self::Opaque(b)) | (Self::Param(a), Self::Param(b)) => a == b,
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn(_) => f.write_str("dyn"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::String(_) => f.write_str("string"),
            Self::Bytes(_) => f.write_str("bytes"),
            Self::Duration => f.write_str("google.protobuf.Duration"),
            Self::Timestamp => f.write_str("google.protobuf.Timestamp"),
            Self::List(list) => write!(f, "list({})", list.of),
            Self::Map(map) => write!(f, "map({}, {})", map.key, map.of),
            Self::Object(object) => f.write_str(&object.name),
            Self::Optional(of) => write!(f, "optional_type({of})"),
            Self::Type(of) => write!(f, "type({of})"),
            Self::Opaque(name) | Self::Param(name) => f.write_str(name),
        }
    }
}
