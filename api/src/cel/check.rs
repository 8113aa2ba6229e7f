//! The type checker (`checker/checker.go`): every node gets a type, and faults are in cel-go's words.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Environment;
use super::ast::{Const, Expr, Fold, FoldKind, Kind, Select};
use super::declare::{overloads, type_named};
use super::source::Fault;
use super::static_type::Type;

/// Types by a node's number.
pub(super) type Types = Vec<Type>;

/// Checks a tree against an environment.
pub(super) fn check(root: &Expr, nodes: u32, environment: &Environment) -> Result<Types, Vec<Fault>> {
    let types = vec![Type::DYN; nodes as usize];
    let mut checker = Checker { environment, scope: Vec::new(), types, faults: Vec::new() };
    checker.expr(root);
    if checker.faults.is_empty() { Ok(checker.types) } else { Err(checker.faults) }
}

struct Checker<'e> {
    environment: &'e Environment,
    /// Loop variables, the innermost last.
    scope: Vec<(String, Type)>,
    types: Types,
    faults: Vec<Fault>,
}

impl Checker<'_> {
    fn expr(&mut self, expr: &Expr) -> Type {
        let of = self.kind(expr);
        if let Some(place) = self.types.get_mut(expr.id as usize) {
            *place = of.clone();
        }
        of
    }

    /// What cannot be typed is dyn, so that one fault does not lead to others.
    fn fault(&mut self, at: usize, message: String) -> Type {
        self.faults.push(Fault::new(at, message));
        Type::DYN
    }

    fn kind(&mut self, expr: &Expr) -> Type {
        match &expr.kind {
            Kind::Const(constant) => of_const(constant),
            Kind::Ident(name) => self.ident(expr.at, name),
            Kind::Select { of, field, how } => self.select(expr, of, field, *how),
            Kind::Index { of, index, optional } => self.index(expr.at, of, index, *optional),
            Kind::Call { name, target, args } => self.call(expr.at, name, target.as_deref(), args),
            Kind::And(terms) | Kind::Or(terms) => {
                let name = if matches!(expr.kind, Kind::And(_)) { "_&&_" } else { "_||_" };
                let found: Vec<Type> = terms.iter().map(|term| self.expr(term)).collect();
                if found.iter().any(|of| !bool_like(of)) {
                    let pair: Vec<Type> = found.into_iter().take(2).collect();
                    return self.no_overload(expr.at, name, &pair, false);
                }
                Type::Bool
            }
            Kind::Cond(parts) => self.conditional(expr.at, parts),
            Kind::List(items) => self.list(items),
            Kind::Map(entries) => {
                let (mut key, mut value) = (None, None);
                for entry in entries {
                    let found = self.expr(&entry.key);
                    self.join(&mut key, found, entry.key.at);
                    let mut found = self.expr(&entry.value);
                    if entry.optional {
                        found = unwrapped(&found);
                    }
                    self.join(&mut value, found, entry.value.at);
                }
                Type::map_of(key.unwrap_or(Type::DYN), value.unwrap_or(Type::DYN))
            }
            Kind::Object { name, fields } => {
                for field in fields {
                    self.expr(&field.value);
                }
                match self.environment.makes(name) {
                    true => Type::DYN,
                    false => self.fault(expr.at, format!("undeclared reference to '{name}' (in container '')")),
                }
            }
            Kind::Fold(fold) => self.fold(fold),
            Kind::OptMap { of, var, body, flat } => {
                let found = self.expr(of);
                let inner = unwrapped(&found);
                if !matches!(found, Type::Optional(_) | Type::Dyn(_)) {
                    return self.no_overload(expr.at, "hasValue", &[found], true);
                }
                self.scope.push((var.clone(), inner));
                let result = self.expr(body);
                self.scope.pop();
                if *flat { result } else { Type::optional(result) }
            }
        }
    }

    fn lookup(&self, name: &str) -> Option<Type> {
        let local = self.scope.iter().rev().find(|(known, _)| known == name);
        local.map(|(_, of)| of.clone()).or_else(|| self.environment.variable(name).cloned())
    }

    fn ident(&mut self, at: usize, name: &str) -> Type {
        match self.lookup(name).or_else(|| type_named(name).map(|of| Type::Type(Arc::new(of)))) {
            Some(of) => of,
            None => self.fault(at, format!("undeclared reference to '{name}' (in container '')")),
        }
    }

    fn select(&mut self, expr: &Expr, of: &Expr, field: &str, how: Select) -> Type {
        if let Some(name) = expr.dotted()
            && let Some(named) = type_named(&name)
        {
            return Type::Type(Arc::new(named));
        }
        // A variable may have a dotted name: `authorizer.requestResource`.
        if let Some(of) = expr.dotted().and_then(|name| self.environment.variable(&name).cloned()) {
            return of;
        }
        let target = self.expr(of);
        let optional = matches!(target, Type::Optional(_));
        let found = match unwrapped(&target) {
            Type::Object(object) => match object.fields.get(field) {
                Some((_, of)) => of.clone(),
                None => self.fault(expr.at, format!("undefined field '{field}'")),
            },
            Type::Map(map) => map.of.clone(),
            Type::Dyn(_) => Type::DYN,
            other => {
                let message = format!("type '{other}' does not support field selection");
                self.fault(expr.at, message)
            }
        };
        match how {
            Select::Test => Type::Bool,
            Select::Optional => Type::optional(found),
            Select::Plain if optional => Type::optional(found),
            Select::Plain => found,
        }
    }

    fn index(&mut self, at: usize, of: &Expr, index: &Expr, optional: bool) -> Type {
        let (target, key) = (self.expr(of), self.expr(index));
        let found = match unwrapped(&target) {
            Type::List(list) if numeric_like(&key) => list.of.clone(),
            Type::Map(map) if map.key.takes(&key, &mut BTreeMap::new()) => map.of.clone(),
            Type::Dyn(_) => Type::DYN,
            _ => {
                let name = if optional { "_[?_]" } else { "_[_]" };
                return self.no_overload(at, name, &[target, key], false);
            }
        };
        if optional || matches!(target, Type::Optional(_)) { Type::optional(found) } else { found }
    }

    fn call(&mut self, at: usize, name: &str, target: Option<&Expr>, args: &[Expr]) -> Type {
        // `sets.contains(..)` is a function with a dotted name, unless `sets` is a variable.
        let qualified = target.and_then(Expr::dotted).map(|prefix| format!("{prefix}.{name}"));
        if let Some(full) = qualified.filter(|full| !overloads(full).is_empty()) {
            let root = full.split('.').next().unwrap_or_default();
            if self.lookup(root).is_none() {
                let types: Vec<Type> = args.iter().map(|arg| self.expr(arg)).collect();
                return self.resolve(at, &full, types, false);
            }
        }
        let types: Vec<Type> = target.into_iter().chain(args).map(|arg| self.expr(arg)).collect();
        self.resolve(at, name, types, target.is_some())
    }

    fn resolve(&mut self, at: usize, name: &str, args: Vec<Type>, member: bool) -> Type {
        let all = overloads(name);
        if all.is_empty() {
            return self.fault(at, format!("undeclared reference to '{name}' (in container '')"));
        }
        let mut found: Option<Type> = None;
        for overload in all.iter().filter(|o| o.member == member && o.params.len() == args.len()) {
            let mut bound = BTreeMap::new();
            if !overload.params.iter().zip(&args).all(|(param, arg)| param.takes(arg, &mut bound)) {
                continue;
            }
            let result = overload.result.bound(&bound);
            found = Some(match found {
                None => result,
                Some(known) if known == result => known,
                Some(_) => Type::DYN,
            });
        }
        match found {
            Some(of) => of,
            None => self.no_overload(at, name, &args, member),
        }
    }

    fn no_overload(&mut self, at: usize, name: &str, args: &[Type], member: bool) -> Type {
        let texts: Vec<String> = args.iter().map(ToString::to_string).collect();
        let signature = match (member, texts.split_first()) {
            (true, Some((receiver, rest))) => format!("{receiver}.({})", rest.join(", ")),
            _ => format!("({})", texts.join(", ")),
        };
        self.fault(at, format!("found no matching overload for '{name}' applied to '{signature}'"))
    }

    fn conditional(&mut self, at: usize, parts: &[Expr; 3]) -> Type {
        let [condition, yes, no] = parts;
        let types = [self.expr(condition), self.expr(yes), self.expr(no)];
        let mut bound = BTreeMap::new();
        let param = Type::Param("A");
        let fits = bool_like(&types[0]) && param.takes(&types[1], &mut bound) && param.takes(&types[2], &mut bound);
        if fits { param.bound(&bound) } else { self.no_overload(at, "_?_:_", &types, false) }
    }

    fn list(&mut self, items: &[(bool, Expr)]) -> Type {
        let mut of = None;
        for (optional, item) in items {
            let mut found = self.expr(item);
            if *optional {
                found = unwrapped(&found);
            }
            self.join(&mut of, found, item.at);
        }
        Type::list(of.unwrap_or(Type::DYN))
    }

    /// Aggregates are of one type.
    fn join(&mut self, known: &mut Option<Type>, found: Type, at: usize) {
        match known {
            None => *known = Some(found),
            Some(wanted) if wanted.is_dyn() => {}
            Some(_) if found.is_dyn() => *known = Some(Type::DYN),
            Some(wanted) if wanted.takes(&found, &mut BTreeMap::new()) => {}
            Some(wanted) if found.takes(wanted, &mut BTreeMap::new()) => *known = Some(found),
            Some(wanted) => {
                let message = format!("expected type '{wanted}' but found '{found}'");
                self.fault(at, message);
            }
        }
    }

    fn fold(&mut self, fold: &Fold) -> Type {
        let range = self.expr(&fold.range);
        let two = fold.vars.len() == 2;
        let (first, second) = match &range {
            Type::List(list) if two => (Type::Int, list.of.clone()),
            Type::List(list) => (list.of.clone(), Type::DYN),
            Type::Map(map) => (map.key.clone(), map.of.clone()),
            Type::Dyn(_) => (Type::DYN, Type::DYN),
            other => {
                let message = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.fault(fold.range.at, message);
                (Type::DYN, Type::DYN)
            }
        };
        let depth = self.scope.len();
        self.scope.extend(fold.vars.iter().cloned().zip([first.clone(), second]));
        if let Some(filter) = &fold.filter {
            self.predicate(filter, "_?_:_");
        }
        let result = match fold.kind {
            FoldKind::All => self.predicate(&fold.body, "_&&_"),
            FoldKind::Exists => self.predicate(&fold.body, "_||_"),
            FoldKind::ExistsOne => self.predicate(&fold.body, "_?_:_"),
            FoldKind::List => Type::list(self.expr(&fold.body)),
            FoldKind::Map => Type::map_of(first, self.expr(&fold.body)),
            FoldKind::Entries => self.expr(&fold.body),
        };
        self.scope.truncate(depth);
        result
    }

    fn predicate(&mut self, expr: &Expr, name: &str) -> Type {
        let found = self.expr(expr);
        if bool_like(&found) {
            return Type::Bool;
        }
        match name {
            "_?_:_" => self.no_overload(expr.at, name, &[found, Type::DYN, Type::DYN], false),
            _ => self.no_overload(expr.at, name, &[Type::Bool, found], false),
        }
    }
}

fn of_const(constant: &Const) -> Type {
    match constant {
        Const::Null => Type::Null,
        Const::Bool(_) => Type::Bool,
        Const::Int(_) => Type::Int,
        Const::Uint(_) => Type::Uint,
        Const::Double(_) => Type::Double,
        Const::Text(text) => Type::String(Some(text.chars().count() as u64)),
        Const::Bytes(bytes) => Type::Bytes(Some(bytes.len() as u64)),
    }
}

fn unwrapped(of: &Type) -> Type {
    match of {
        Type::Optional(inner) => Type::clone(inner),
        other => other.clone(),
    }
}

fn bool_like(of: &Type) -> bool {
    matches!(of, Type::Bool | Type::Dyn(_))
}

fn numeric_like(of: &Type) -> bool {
    matches!(of, Type::Int | Type::Uint | Type::Double | Type::Dyn(_))
}
