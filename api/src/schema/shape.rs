//! The words of the table: types, fields, shapes.

use serde_json::Value;

/// A type that stands in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum TypeRef {
    BuiltIn(u32),
    Own(u32),
}

/// A scalar as JSON shows it. Two integers and two times differ in range and form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Scalar {
    String,
    Bool,
    Int32,
    Int64,
    Double,
    /// Base64 text of bytes.
    Bytes,
    /// RFC 3339, whole seconds.
    Time,
    /// RFC 3339, six decimals.
    MicroTime,
    /// A quantity's text.
    Quantity,
    IntOrString,
}

/// How a list is merged by server-side apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum List {
    /// The schema does not say: as atomic.
    Unmarked,
    /// Owned as a whole.
    Atomic,
    /// Distinct scalars.
    Set,
    /// Objects with keys.
    Map(Vec<String>),
}

/// What a value looks like.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Shape {
    Scalar(Scalar),
    /// Anything at all, kept as it is.
    Any,
    /// Any object, kept as it is.
    Object,
    Struct {
        of: TypeRef,
        atomic: bool,
    },
    List {
        of: Box<Item>,
        kind: List,
    },
    /// From string to something.
    Map {
        of: Box<Item>,
        atomic: bool,
    },
}

/// A shape with what stands where there is no value.
#[derive(Clone, Debug)]
pub struct Item {
    /// The shape.
    pub shape: Shape,
    /// Whether null is a value (custom resources only; null is absent otherwise).
    pub nullable: bool,
    /// The value where there is none.
    pub default: Option<Value>,
    /// The type that it refers to by name, of those the built-in table has (a time and a quantity have one, too).
    pub named: Option<TypeRef>,
}

/// One field of a struct.
#[derive(Clone, Debug)]
pub struct Field {
    /// The JSON name.
    pub name: String,
    /// What stands there.
    pub item: Item,
    /// The way to the field in protobuf: field numbers through embedded messages. Empty where it has none.
    pub pb: Vec<u32>,
    /// Whether it must be there.
    pub required: bool,
    /// The values allowed.
    pub allowed: Vec<String>,
    /// `x-kubernetes-patch-strategy`: `merge`, `replace`, `retainKeys`, comma separated.
    pub patch_strategy: String,
    /// `x-kubernetes-patch-merge-key`.
    pub merge_key: String,
}

/// A struct.
#[derive(Clone, Debug, Default)]
pub struct Type {
    /// The OpenAPI name, `io.k8s.api.core.v1.Pod`; empty in custom resources.
    pub name: String,
    /// Its fields, sorted by name.
    pub fields: Vec<Field>,
    /// Whether fields besides these are kept (`x-kubernetes-preserve-unknown-fields`).
    pub open: bool,
    /// Whether it is an object with apiVersion, kind and metadata of its own (`x-kubernetes-embedded-resource`).
    pub embedded: bool,
    /// `x-kubernetes-unions`, as OpenAPI carries it.
    pub unions: Option<Value>,
    /// Whether it merges as a whole wherever it stands.
    pub atomic: bool,
}

/// What a broken reference resolves to.
pub(super) const ANYTHING: &Type =
    &Type { name: String::new(), fields: Vec::new(), open: true, embedded: false, unions: None, atomic: false };

impl Item {
    /// A shape without anything besides.
    pub fn of(shape: Shape) -> Self {
        Self { shape, nullable: false, default: None, named: None }
    }
}

impl Type {
    /// A field by its JSON name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        let at = self.fields.binary_search_by(|f| f.name.as_str().cmp(name)).ok()?;
        self.fields.get(at)
    }

    /// The name Go's error texts give it: the last part of the OpenAPI name.
    pub fn go_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or_default()
    }
}
