//! An expression as a tree. Macros are nodes of their own, so that neither the checker nor the evaluator sees a loop.

/// A node with its place (in characters) and its number, by which the checker keeps its type.
#[derive(Clone, Debug)]
pub(super) struct Expr {
    pub id: u32,
    pub at: usize,
    pub kind: Kind,
}

/// What a node is.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Const(Const),
    Ident(String),
    Select {
        of: Box<Expr>,
        field: String,
        how: Select,
    },
    Index {
        of: Box<Expr>,
        index: Box<Expr>,
        optional: bool,
    },
    /// A function; operators have names such as `_+_`.
    Call {
        name: String,
        target: Option<Box<Expr>>,
        args: Vec<Expr>,
    },
    /// `&&` and `||` of any number of terms.
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Cond(Box<[Expr; 3]>),
    /// Elements, each with whether it is optional (`?x`).
    List(Vec<(bool, Expr)>),
    Map(Vec<Entry>),
    Object {
        name: String,
        fields: Vec<Field>,
    },
    Fold(Box<Fold>),
    /// `x.optMap(v, e)` and `x.optFlatMap(v, e)`.
    OptMap {
        of: Box<Expr>,
        var: String,
        body: Box<Expr>,
        flat: bool,
    },
}

/// How a field is selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Select {
    /// `a.b`
    Plain,
    /// `a.?b`
    Optional,
    /// `has(a.b)`
    Test,
}

/// A literal.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Const {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
}

/// One entry of a map literal.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub optional: bool,
    pub key: Expr,
    pub value: Expr,
}

/// One field of an object literal.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub optional: bool,
    pub name: String,
    pub value: Expr,
}

/// A macro over a list or a map.
#[derive(Clone, Debug)]
pub(super) struct Fold {
    pub kind: FoldKind,
    pub range: Expr,
    /// One or two loop variables.
    pub vars: Vec<String>,
    /// What elements must hold; `None` where all are taken.
    pub filter: Option<Expr>,
    /// What becomes of an element (of a predicate macro: the predicate).
    pub body: Expr,
}

/// Which macro.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FoldKind {
    All,
    Exists,
    ExistsOne,
    /// A list of bodies; of those elements that pass the filter.
    List,
    /// A map from the range's keys to bodies.
    Map,
    /// A map put together from the bodies, which are maps.
    Entries,
}

impl Expr {
    /// Its direct children.
    pub(super) fn children(&self) -> Vec<&Expr> {
        match &self.kind {
            Kind::Const(_) | Kind::Ident(_) => Vec::new(),
            Kind::Select { of, .. } => vec![of],
            Kind::Index { of, index, .. } => vec![of, index],
            Kind::Call { target, args, .. } => target.iter().map(|t| &**t).chain(args).collect(),
            Kind::And(terms) | Kind::Or(terms) => terms.iter().collect(),
            Kind::Cond(parts) => parts.iter().collect(),
            Kind::List(items) => items.iter().map(|(_, item)| item).collect(),
            Kind::Map(entries) => entries.iter().flat_map(|e| [&e.key, &e.value]).collect(),
            Kind::Object { fields, .. } => fields.iter().map(|f| &f.value).collect(),
            Kind::Fold(fold) => [&fold.range, &fold.body].into_iter().chain(&fold.filter).collect(),
            Kind::OptMap { of, body, .. } => vec![of, body],
        }
    }

    /// `a.b.c` as a dotted name, where it is nothing but identifiers.
    pub(super) fn dotted(&self) -> Option<String> {
        match &self.kind {
            Kind::Ident(name) => Some(name.clone()),
            Kind::Select { of, field, how: Select::Plain } => Some(format!("{}.{field}", of.dotted()?)),
            _ => None,
        }
    }

    /// Whether a name is used anywhere inside.
    pub(super) fn mentions(&self, name: &str) -> bool {
        matches!(&self.kind, Kind::Ident(found) if found == name) || self.children().iter().any(|c| c.mentions(name))
    }
}
