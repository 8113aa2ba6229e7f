//! The Common Expression Language as Kubernetes speaks it: compiled once, evaluated under a bound.
//!
//! `compile(expression, environment) -> Program`, with cel-go's faults; `program.evaluate(scope) -> value`, charged as
//! cel-go charges it and stopped at Kubernetes' own limits, so that no expression hangs a server. Why it is our own:
//! `docs/adr/0004-own-cel.md`.

pub mod admission;
mod ast;
mod authorize;
mod check;
mod declare;
mod escape;
mod estimate;
mod eval;
mod kind;
mod kube;
mod lex;
mod lists;
mod macros;
mod ops;
mod parse;
pub mod policy;
mod schema;
mod source;
mod static_type;
#[cfg(test)]
mod tests;
mod text;
mod time;
pub mod type_check;
pub(crate) mod url;
mod value;

use std::fmt;

pub use authorize::{Authorize, Check, Decision, Subject};
pub use escape::escape;
pub use kind::type_of_kind;
pub use schema::type_of;
pub use static_type::{ListType, MapType, Merge, ObjectType, Type};
pub use value::{Key, Val};

/// The most one evaluation may cost (`celconfig.PerCallLimit`).
pub const PER_CALL_LIMIT: u64 = 1_000_000;

/// What an expression may name.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: Vec<(String, Type)>,
    makes: Vec<&'static str>,
}

impl Environment {
    /// With one more variable.
    #[must_use]
    pub fn with(mut self, name: &str, of: Type) -> Self {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.into(), of));
        self
    }

    /// Without a variable.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.variables.retain(|(known, _)| known != name);
        self
    }

    /// With objects that expressions may make: `Object{..}`, and `Object.spec{..}` below it.
    #[must_use]
    pub fn making(mut self, names: &[&'static str]) -> Self {
        self.makes.extend(names);
        self
    }

    /// The type of a variable.
    pub fn variable(&self, name: &str) -> Option<&Type> {
        self.variables.iter().find(|(known, _)| known == name).map(|(_, of)| of)
    }

    fn makes(&self, name: &str) -> bool {
        self.makes
            .iter()
            .any(|made| name.strip_prefix(made).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
    }
}

/// A compiled expression.
#[derive(Debug)]
pub struct Program {
    root: ast::Expr,
    types: check::Types,
}

/// Why an evaluation gave no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The expression's own error, in cel-go's words.
    Error(String),
    /// It costs more than one evaluation may.
    Limit,
}

impl Failure {
    /// An error.
    pub fn error(text: impl Into<String>) -> Self {
        Self::Error(text.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(text) => f.write_str(text),
            Self::Limit => f.write_str("operation cancelled: actual cost limit exceeded"),
        }
    }
}

/// Where an evaluation finds its variables.
pub trait Scope<'a> {
    /// A variable's value; `None` where there is no such variable.
    fn variable(&self, name: &str) -> Option<Result<Val<'a>, Failure>>;

    /// A field of a variable that is made when asked for; `None` where the variable is a plain value.
    fn field(&self, _variable: &str, _field: &str) -> Option<Result<Val<'a>, Failure>> {
        None
    }
}

/// Variables that are all known beforehand.
impl<'a> Scope<'a> for [(&str, Val<'a>)] {
    fn variable(&self, name: &str) -> Option<Result<Val<'a>, Failure>> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| Ok(value.clone()))
    }
}

/// Compiles an expression. The error is cel-go's text, one part a fault: place, message, the line and a mark below it.
pub fn compile(expression: &str, environment: &Environment) -> Result<Program, String> {
    let show = |faults: Vec<source::Fault>| source::render(expression, &faults);
    let parsed = parse::parse(expression).map_err(show)?;
    let types = check::check(&parsed.root, parsed.nodes, environment).map_err(show)?;
    Ok(Program { root: parsed.root, types })
}

impl Program {
    /// The type of its values.
    pub fn result(&self) -> &Type {
        self.types.get(self.root.id as usize).unwrap_or(&Type::DYN)
    }

    /// Whether it names a variable.
    pub fn mentions(&self, variable: &str) -> bool {
        self.root.mentions(variable)
    }

    /// What evaluating it costs at most, as far as the types of its variables bound that.
    pub fn estimate(&self) -> u64 {
        estimate::estimate(&self.root, &self.types)
    }

    /// Evaluates it; the second value is what it cost.
    pub fn evaluate<'a, S: Scope<'a> + ?Sized>(&'a self, scope: &S) -> (Result<Val<'a>, Failure>, u64) {
        struct By<'s, S: ?Sized>(&'s S);
        impl<'a, S: Scope<'a> + ?Sized> Scope<'a> for By<'_, S> {
            fn variable(&self, name: &str) -> Option<Result<Val<'a>, Failure>> {
                self.0.variable(name)
            }

            fn field(&self, variable: &str, field: &str) -> Option<Result<Val<'a>, Failure>> {
                self.0.field(variable, field)
            }
        }
        let by = By(scope);
        let evaluator = eval::Evaluator::new(&by);
        let result = evaluator.run(&self.root);
        (result, evaluator.spent())
    }
}
