//! The schema table: what every type's fields are, and one handle for built-in and custom types alike.
//!
//! The facts of the built-in types stand in `schema/v1.37.json` and are parsed once. A CustomResourceDefinition's
//! structural schema becomes a [`Schema`] of the same form, so that every walker (decode, prune, default, strategic
//! merge, apply, OpenAPI) exists once.

mod check;
mod custom;
mod default;
mod load;
mod prune;
mod resource;
mod rules;
mod shape;
mod show;

use std::sync::Arc;

use serde_json::Value;

use crate::name::GroupVersionKind;
use crate::{Document, StatusResult, field};

pub use crate::decode::{Decoded, FieldValidation, Format};
pub(crate) use check::format_holds;
pub(crate) use custom::tree as custom_tree;
pub use resource::{Column, Resource, Scope, Subresource};
pub use rules::{Rule, Rules, compile_own};
pub use shape::{Field, List, Scalar, Shape, Type};
pub use shape::{Item, TypeRef};

/// A type and the table it stands in: cheap to clone.
#[derive(Clone, Debug)]
pub struct Schema {
    /// Types of a custom resource; built-in ones stand in the static table.
    own: Arc<[Type]>,
    root: TypeRef,
    kind: GroupVersionKind,
    /// The `openAPIV3Schema` of a custom resource, with what types do not say: bounds, patterns, descriptions.
    raw: Option<Arc<Value>>,
}

/// Every resource the built-in table knows, in the order of upstream's discovery.
pub fn resources() -> &'static [Resource] {
    &load::table().resources
}

/// The Kubernetes version the table was taken from, `v1.37.2`.
pub fn kubernetes_version() -> &'static str {
    &load::table().kubernetes
}

/// A built-in type by its OpenAPI name.
pub(crate) fn type_named(name: &str) -> Option<&'static Type> {
    let table = load::table();
    table.type_named(name).map(|at| table.at(at))
}

/// The OpenAPI name of a built-in type.
pub(crate) fn name_of(of: TypeRef) -> &'static str {
    match of {
        TypeRef::BuiltIn(at) => &load::table().at(at).name,
        TypeRef::Own(_) => "",
    }
}

/// The group and version of a built-in type.
pub(crate) fn group_version_of(name: &str) -> Option<(&'static str, &'static str)> {
    load::table().group_version_of(name)
}

/// Whether the table has a kind.
pub(crate) fn is_registered(kind: &GroupVersionKind) -> bool {
    load::table().has_kind(&kind.group, &kind.version, &kind.kind)
}

impl Schema {
    /// The schema of a built-in kind; list kinds and the kinds of subresources and options too.
    pub fn of_kind(group: &str, version: &str, kind: &str) -> Option<Self> {
        let root = load::table().kind(group, version, kind)?;
        let kind = GroupVersionKind { group: group.into(), version: version.into(), kind: kind.into() };
        Some(Self { own: Arc::new([]), root: TypeRef::BuiltIn(root), kind, raw: None })
    }

    /// Whether such a kind is built in.
    pub fn has_kind(group: &str, version: &str, kind: &str) -> bool {
        load::table().kind(group, version, kind).is_some()
    }

    /// The schema of a built-in type by its OpenAPI name, such as `io.k8s.api.core.v1.PodSpec`.
    pub fn of_type(name: &str) -> Option<Self> {
        let root = load::table().type_named(name)?;
        let kind = GroupVersionKind { group: String::new(), version: String::new(), kind: String::new() };
        Some(Self { own: Arc::new([]), root: TypeRef::BuiltIn(root), kind, raw: None })
    }

    /// The schema of a custom resource from its `openAPIV3Schema`. Parts that are no structural schema accept anything:
    /// whether it is one is the CustomResourceDefinition's own validation.
    pub fn from_crd(open_api_v3_schema: &Value, kind: &GroupVersionKind) -> Self {
        let (own, root) = custom::types(open_api_v3_schema);
        Self { own, root, kind: kind.clone(), raw: Some(Arc::new(open_api_v3_schema.clone())) }
    }

    /// The group, version and kind it was made for; empty for a bare type.
    pub fn kind(&self) -> &GroupVersionKind {
        &self.kind
    }

    /// The root type.
    pub fn root(&self) -> &Type {
        self.resolve(self.root)
    }

    /// What refers to the root type.
    pub(crate) fn root_reference(&self) -> TypeRef {
        self.root
    }

    /// The type that a reference in this table means.
    pub fn resolve(&self, reference: TypeRef) -> &Type {
        match reference {
            TypeRef::BuiltIn(index) => load::table().at(index),
            TypeRef::Own(index) => self.own.get(index as usize).unwrap_or(shape::ANYTHING),
        }
    }

    /// The raw schema of a custom resource.
    pub fn raw(&self) -> Option<&Value> {
        self.raw.as_deref()
    }

    /// Whether it is a custom resource's.
    pub fn is_custom(&self) -> bool {
        matches!(self.root, TypeRef::Own(_))
    }

    /// Reads one object from a request's body, checks its fields, and canonicalises its values (quantities, times).
    /// Nothing is defaulted. Errors are Kubernetes' own Statuses: 400 for what cannot be read, and for unknown and
    /// duplicate fields where `validation` is strict; otherwise these are dropped and, with `Warn`, told in
    /// [`Decoded::warnings`].
    pub fn decode(&self, bytes: &[u8], format: Format, validation: FieldValidation) -> StatusResult<Decoded> {
        crate::decode::body(self, bytes, format, validation)
    }

    /// Checks a tree that was made by a program (a patch's result) as [`Schema::decode`] does, without its texts around:
    /// the error is Go's bare text.
    pub fn read(&self, value: Value) -> Result<crate::decode::Read, String> {
        crate::decode::tree(self, value)
    }

    /// Reads a tree that server-side apply merged; unknown fields are dropped. The error is apimachinery's text.
    pub(crate) fn read_unstructured(&self, value: Value) -> Result<Document, String> {
        use crate::decode::{node::Node, read};
        let outcome = read::read(self, Node::of(&value), read::Words::Unstructured)?;
        Ok(Document::new(Value::Object(outcome.value)).unwrap_or_default())
    }

    /// An object without any values, as Go's zero value of the type shows it.
    pub fn zero(&self) -> Document {
        default::zero(self)
    }

    /// Drops fields the schema does not know; returns their paths.
    pub fn prune(&self, document: &mut Document) -> Vec<String> {
        prune::prune(self, document)
    }

    /// Sets the table's own defaults, among them the zero values that Kubernetes' output always has (`resources: {}`).
    /// Defaults that depend on other fields are [`crate::kinds`]'.
    pub fn default(&self, document: &mut Document) {
        default::default(self, document);
    }

    /// Checks a custom resource against its structural schema: types, required, enums, bounds, patterns, unique list
    /// keys. What stands in `old` just so is let pass (ratcheting). Built-in kinds are checked by [`crate::kinds`]; for
    /// them this returns nothing.
    pub fn check(&self, document: &Document, old: Option<&Document>) -> field::Errors {
        check::check(self, document, old)
    }

    /// Checks a value against a schema of any part of a custom resource.
    pub(crate) fn check_value(schema: &Value, value: &Value) -> field::Errors {
        check::value(schema, value)
    }

    /// Drops what a schema of any part of a custom resource does not know.
    pub(crate) fn prune_value(schema: &Value, value: &mut Value) {
        prune::value(schema, value);
    }

    /// Applies a strategic merge patch. Errors are those kube-apiserver answers (400 or 500).
    pub fn strategic_merge(&self, document: &Document, patch: &Value) -> StatusResult<Document> {
        crate::patch::strategic(self, document, patch)
    }
}
