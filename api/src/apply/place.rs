//! Where a value stands in the schema, and what that makes of it: a leaf, a list, a map.

use serde_json::Value;

use super::element::{Element, Scalar};
use crate::schema::{Item, List, Schema, Shape, Type};

/// A place in a schema.
#[derive(Clone, Copy)]
pub(super) enum Place<'s> {
    Root,
    Item(&'s Item),
    /// No schema says more: maps are granular, lists atomic.
    Deduced,
    /// No schema says more: all is atomic.
    Untyped,
}

/// What a value is.
#[derive(Clone, Copy)]
pub(super) enum Atom<'s> {
    Scalar(Option<crate::schema::Scalar>),
    /// A list; atomic unless its items have keys or are a set.
    List {
        of: Place<'s>,
        kind: &'s List,
    },
    Map {
        fields: Fields<'s>,
        atomic: bool,
    },
}

/// The fields of a map.
#[derive(Clone, Copy)]
pub(super) struct Fields<'s> {
    of: Option<&'s Type>,
    /// Where other keys stand; `None`: there are none.
    others: Option<Place<'s>>,
}

impl<'s> Fields<'s> {
    /// Where a field stands.
    pub(super) fn get(&self, name: &str) -> Option<Place<'s>> {
        self.declared(name).or(self.others)
    }

    /// Where a field stands that the schema names.
    pub(super) fn declared(&self, name: &str) -> Option<Place<'s>> {
        self.of?.field(name).map(|field| Place::Item(&field.item))
    }
}

/// What a value at a place is; without a schema the value decides.
pub(super) fn atom<'s>(schema: &'s Schema, place: Place<'s>, value: Option<&Value>) -> Atom<'s> {
    match place {
        Place::Root => structure(schema.root(), false),
        Place::Deduced => free(value, false),
        Place::Untyped => free(value, true),
        Place::Item(item) => match &item.shape {
            Shape::Scalar(scalar) => Atom::Scalar(Some(*scalar)),
            Shape::Any => free(value, !schema.is_custom()),
            Shape::Object => free(value, false),
            Shape::Struct { of, atomic } => structure(schema.resolve(*of), *atomic),
            Shape::List { of, kind } => Atom::List { of: Place::Item(of), kind },
            Shape::Map { of, atomic } => {
                Atom::Map { fields: Fields { of: None, others: Some(Place::Item(of)) }, atomic: *atomic }
            }
        },
    }
}

fn structure(of: &Type, atomic: bool) -> Atom<'_> {
    let others = (of.open || of.fields.is_empty()).then_some(Place::Deduced);
    // What nobody knows the inside of has one owner.
    let raw = of.name.ends_with(".RawExtension");
    Atom::Map { fields: Fields { of: Some(of), others }, atomic: atomic || raw }
}

fn free<'s>(value: Option<&Value>, atomic: bool) -> Atom<'s> {
    match value {
        Some(Value::Object(_)) => Atom::Map { fields: Fields { of: None, others: Some(Place::Deduced) }, atomic },
        Some(Value::Array(_)) => Atom::List { of: Place::Untyped, kind: &List::Atomic },
        _ => Atom::Scalar(None),
    }
}

/// What tells an item apart from others of its list; the error is structured-merge-diff's.
pub(super) fn item_element(schema: &Schema, of: Place<'_>, kind: &List, item: &Value) -> Result<Element, String> {
    let keys = match (kind, item) {
        (List::Map(keys), Value::Object(_)) => keys,
        (List::Map(_), Value::Null) => return Err("associative list with keys may not have a null element".into()),
        (List::Map(_), _) => return Err("associative list with keys may not have non-map elements".into()),
        (_, Value::Object(_)) => {
            return Err("associative list without keys has an element that's a map type".into());
        }
        (_, Value::Array(_)) => return Err("not supported: associative list with lists as elements".into()),
        (_, Value::Null) => {
            return Err("associative list without keys has an element that's an explicit null".into());
        }
        (_, scalar) => return Ok(Element::Value(Scalar(scalar.clone()))),
    };
    let found = keys.iter().filter_map(|key| {
        let value = item.get(key).cloned().or_else(|| default_of(schema, of, key))?;
        Some((key.clone(), Scalar(value)))
    });
    let mut found: Vec<(String, Scalar)> = found.collect();
    if found.is_empty() && !keys.is_empty() {
        let keys = keys.iter().map(|key| format!("{key:?}")).collect::<Vec<_>>().join(" ");
        let why = "(and doesn't have default values for any key fields)";
        return Err(format!("associative list with keys has an element that omits all key fields [{keys}] {why}"));
    }
    found.sort();
    Ok(Element::Key(found))
}

fn default_of(schema: &Schema, of: Place<'_>, key: &str) -> Option<Value> {
    match atom(schema, of, None) {
        Atom::Map { fields, .. } => match fields.declared(key)? {
            Place::Item(item) => item.default.clone(),
            _ => None,
        },
        _ => None,
    }
}
