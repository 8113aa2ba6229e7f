//! Reads the table of built-in types, once.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::Value;

use super::resource::Resource;
use super::shape::{Field, Item, List, Scalar, Shape, Type, TypeRef};

const SOURCE: &str = include_str!("../../schema/v1.37.json");
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

/// The built-in types and resources.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) kubernetes: String,
    pub(crate) resources: Vec<Resource>,
    types: Vec<Type>,
    by_name: HashMap<String, u32>,
    /// Group and version to the prefix of its types' names.
    packages: HashMap<(String, String), String>,
}

/// The table. It is our own file, tested to load: a broken one leaves it empty.
pub(crate) fn table() -> &'static Table {
    static TABLE: LazyLock<Table> = LazyLock::new(|| read(SOURCE).unwrap_or_default());
    &TABLE
}

impl Table {
    pub(super) fn at(&self, index: u32) -> &Type {
        self.types.get(index as usize).unwrap_or(super::shape::ANYTHING)
    }

    pub(super) fn type_named(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    pub(super) fn kind(&self, group: &str, version: &str, kind: &str) -> Option<u32> {
        let package = self.packages.get(&(group.to_owned(), version.to_owned()))?;
        let own = self.type_named(&format!("{package}{kind}")).filter(|at| self.at(*at).field("apiVersion").is_some());
        own.or_else(|| self.shared_kind(kind))
    }

    /// Kinds of `meta/v1` that every group and version has.
    fn shared_kind(&self, kind: &str) -> Option<u32> {
        let shared = matches!(kind, "DeleteOptions" | "Status" | "WatchEvent");
        shared.then(|| self.type_named(&format!("{META}{kind}"))).flatten()
    }

    /// The group and version that a type's name stands for.
    pub(crate) fn group_version_of(&self, name: &str) -> Option<(&str, &str)> {
        let package = name.trim_end_matches(|c: char| c != '.');
        let found = self.packages.iter().find(|(_, prefix)| *prefix == package)?;
        Some((&found.0.0, &found.0.1))
    }

    /// Whether some kind of that name is registered in the group and version.
    pub(crate) fn has_kind(&self, group: &str, version: &str, kind: &str) -> bool {
        self.kind(group, version, kind).is_some() || ((group, version, kind) == ("", "v1", "List"))
    }
}

#[derive(Deserialize)]
struct Source {
    kubernetes: String,
    types: BTreeMap<String, SourceType>,
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct SourceType {
    #[serde(default)]
    fields: BTreeMap<String, SourceField>,
    #[serde(default)]
    is: String,
    #[serde(default)]
    map: String,
    unions: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SourceField {
    #[serde(rename = "type")]
    type_: SourceShape,
    pb: Option<SourcePb>,
    #[serde(default)]
    required: bool,
    #[serde(default, deserialize_with = "present")]
    default: Option<Value>,
    #[serde(default, rename = "enum")]
    allowed: Vec<String>,
    #[serde(default)]
    list: String,
    #[serde(default)]
    keys: Vec<String>,
    #[serde(default)]
    patch: String,
    #[serde(default)]
    merge_key: String,
    #[serde(default)]
    map: String,
}

/// A default of null is one, too: some fields are always written.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
#[serde(untagged)]
enum SourceShape {
    Name(String),
    List([Box<SourceShape>; 1]),
    Map(BTreeMap<String, Box<SourceShape>>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum SourcePb {
    One(u32),
    Way(Vec<u32>),
}

fn read(source: &str) -> Result<Table, serde_json::Error> {
    let source: Source = serde_json::from_str(source)?;
    let by_name: HashMap<String, u32> = source.types.keys().cloned().zip(0..).collect();
    let atomic: Vec<bool> = source.types.values().map(|t| t.map == "atomic").collect();
    let packages = packages(&source.resources);
    let names = Names { by_name: &by_name, atomic: &atomic, plain: plain(&source.types) };
    let types = source.types.into_iter().map(|(name, of)| type_of(name, of, &names)).collect();
    Ok(Table { kubernetes: source.kubernetes, resources: source.resources, types, by_name, packages })
}

fn packages(resources: &[Resource]) -> HashMap<(String, String), String> {
    let package = |r: &Resource| r.type_name.trim_end_matches(|c: char| c != '.').to_owned();
    let mut all: HashMap<_, _> = resources.iter().map(|r| ((r.group.clone(), r.version.clone()), package(r))).collect();
    all.insert(("meta.k8s.io".into(), "v1".into()), META.into());
    all
}

/// Types without fields, by name: how a value of theirs looks.
fn plain(types: &BTreeMap<String, SourceType>) -> HashMap<String, Shape> {
    let struct_like =
        |name: &str, is: &str| is == "object" && !name.ends_with(".RawExtension") && !name.ends_with(".FieldsV1");
    let without = types.iter().filter(|(name, of)| of.fields.is_empty() && !struct_like(name, &of.is));
    without.map(|(name, of)| (name.clone(), plain_shape(name, &of.is))).collect()
}

fn plain_shape(name: &str, is: &str) -> Shape {
    match (name.rsplit('.').next().unwrap_or_default(), is) {
        ("Quantity", _) => Shape::Scalar(Scalar::Quantity),
        ("IntOrString", _) => Shape::Scalar(Scalar::IntOrString),
        ("MicroTime", _) => Shape::Scalar(Scalar::MicroTime),
        (_, "time") => Shape::Scalar(Scalar::Time),
        (_, "any") => Shape::Any,
        _ => Shape::Object,
    }
}

struct Names<'a> {
    by_name: &'a HashMap<String, u32>,
    atomic: &'a [bool],
    plain: HashMap<String, Shape>,
}

impl Names<'_> {
    fn shape(&self, of: &SourceShape, field: Option<&SourceField>) -> Shape {
        match of {
            SourceShape::Name(name) => self.named(name, field),
            SourceShape::List([of]) => Shape::List { of: Box::new(self.item(of, None)), kind: list_kind(field) },
            SourceShape::Map(of) => {
                let of = of.get("*").map_or(Item::of(Shape::Any), |of| self.item(of, None));
                Shape::Map { of: Box::new(of), atomic: field.is_some_and(|f| f.map == "atomic") }
            }
        }
    }

    fn item(&self, of: &SourceShape, field: Option<&SourceField>) -> Item {
        let named = match of {
            SourceShape::Name(name) => self.by_name.get(name).map(|at| TypeRef::BuiltIn(*at)),
            _ => None,
        };
        Item { named, ..Item::of(self.shape(of, field)) }
    }

    fn named(&self, name: &str, field: Option<&SourceField>) -> Shape {
        if let Some(shape) = scalar(name).map(Shape::Scalar).or_else(|| self.plain.get(name).cloned()) {
            return shape;
        }
        match (name, self.by_name.get(name)) {
            ("object", _) => Shape::Object,
            (_, None) => Shape::Any,
            (_, Some(&at)) => {
                let own = self.atomic.get(at as usize).copied().unwrap_or_default();
                let map = field.map_or("", |f| f.map.as_str());
                Shape::Struct { of: TypeRef::BuiltIn(at), atomic: map == "atomic" || (own && map != "granular") }
            }
        }
    }
}

fn scalar(name: &str) -> Option<Scalar> {
    Some(match name {
        "string" => Scalar::String,
        "bool" => Scalar::Bool,
        "int32" => Scalar::Int32,
        "int64" => Scalar::Int64,
        "double" => Scalar::Double,
        "bytes" => Scalar::Bytes,
        "time" => Scalar::Time,
        _ => return None,
    })
}

fn list_kind(field: Option<&SourceField>) -> List {
    match field.map(|f| (f.list.as_str(), &f.keys)) {
        Some(("map", keys)) => List::Map(keys.clone()),
        Some(("set", _)) => List::Set,
        Some(("atomic", _)) => List::Atomic,
        _ => List::Unmarked,
    }
}

fn type_of(name: String, of: SourceType, names: &Names<'_>) -> Type {
    let fields = of.fields.into_iter().map(|(name, field)| field_of(name, field, names)).collect();
    Type { name, fields, unions: of.unions, atomic: of.map == "atomic", ..Type::default() }
}

fn field_of(name: String, of: SourceField, names: &Names<'_>) -> Field {
    let item = names.item(&of.type_, Some(&of));
    let pb = match of.pb {
        None => Vec::new(),
        Some(SourcePb::One(number)) => vec![number],
        Some(SourcePb::Way(way)) => way,
    };
    Field {
        name,
        item: Item { default: of.default, ..item },
        pb,
        required: of.required,
        allowed: of.allowed,
        patch_strategy: of.patch,
        merge_key: of.merge_key,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_table_is_whole() {
        let table = super::read(super::SOURCE).expect("the table must parse");
        assert_eq!((table.types.len(), table.resources.len()), (626, 72));
        for resource in &table.resources {
            let found = table.kind(&resource.group, &resource.version, &resource.kind);
            assert_eq!(found, table.type_named(&resource.type_name), "{}", resource.type_name);
        }
        for (group, version, kind) in [("apps", "v1", "DeploymentList"), ("batch", "v1", "DeleteOptions")] {
            assert!(table.kind(group, version, kind).is_some(), "{kind}");
        }
        assert!(table.kind("", "v1", "Nope").is_none());
    }
}
