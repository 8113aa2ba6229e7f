//! What an expression may cost at most, from the bounds of its variables' types (`checker/cost.go`,
//! `k8s.io/apiserver/pkg/cel/library/cost.go`).

use super::ast::{Const, Expr, Fold, FoldKind, Kind, Select};
use super::check::Types;
use super::static_type::Type;

/// A cost, and the most elements or characters of the value.
#[derive(Clone, Copy)]
struct Bound {
    cost: u64,
    size: u64,
}

/// The most that evaluating a checked expression costs.
pub(super) fn estimate(root: &Expr, types: &Types) -> u64 {
    Estimator { types, locals: Vec::new() }.expr(root).cost
}

struct Estimator<'t> {
    types: &'t Types,
    /// Sizes of loop variables whose type says none.
    locals: Vec<(String, u64)>,
}

/// A share of a size, rounded up.
fn part(size: u64, factor: f64) -> u64 {
    let product = (size as f64 * factor).ceil();
    if product >= u64::MAX as f64 { u64::MAX } else { product as u64 }
}

fn tenth(size: u64) -> u64 {
    part(size, 0.1)
}

impl Estimator<'_> {
    fn type_of(&self, expr: &Expr) -> &Type {
        self.types.get(expr.id as usize).unwrap_or(&Type::DYN)
    }

    /// The size that a type says: scalars count as one, what is not known as without bound.
    fn typed(&self, expr: &Expr) -> u64 {
        size_of(self.type_of(expr))
    }

    fn expr(&mut self, expr: &Expr) -> Bound {
        let size = self.typed(expr);
        match &expr.kind {
            Kind::Const(constant) => Bound { cost: 0, size: literal(constant) },
            Kind::Ident(name) => {
                let local = self.locals.iter().rev().find(|(known, _)| known == name);
                Bound { cost: 1, size: local.map_or(size, |(_, bound)| size.min(*bound)) }
            }
            Kind::Select { of, how, .. } => {
                let inner = self.expr(of).cost;
                let counted = matches!(self.type_of(of), Type::Map(_) | Type::Object(_) | Type::Optional(_));
                let own = u64::from(counted && *how != Select::Test);
                Bound { cost: inner.saturating_add(own), size }
            }
            Kind::Index { of, index, .. } => {
                let cost = self.expr(of).cost.saturating_add(self.expr(index).cost).saturating_add(1);
                Bound { cost, size }
            }
            Kind::And(terms) | Kind::Or(terms) => Bound { cost: self.sum(terms), size: 1 },
            Kind::Cond(parts) => {
                let [condition, yes, no] = &**parts;
                let (condition, yes, no) = (self.expr(condition), self.expr(yes), self.expr(no));
                Bound { cost: condition.cost.saturating_add(yes.cost.max(no.cost)), size: yes.size.max(no.size) }
            }
            Kind::List(items) => {
                let cost = items.iter().fold(10_u64, |sum, (_, item)| sum.saturating_add(self.expr(item).cost));
                Bound { cost, size: items.len() as u64 }
            }
            Kind::Map(entries) => {
                let cost = entries.iter().fold(30_u64, |sum, entry| {
                    sum.saturating_add(self.expr(&entry.key).cost).saturating_add(self.expr(&entry.value).cost)
                });
                Bound { cost, size: entries.len() as u64 }
            }
            Kind::Object { fields, .. } => {
                let cost = fields.iter().fold(40_u64, |sum, f| sum.saturating_add(self.expr(&f.value).cost));
                Bound { cost, size }
            }
            Kind::Fold(fold) => self.fold(fold),
            Kind::OptMap { of, var, body, .. } => {
                let of = self.expr(of);
                self.locals.push((var.clone(), of.size));
                let body = self.expr(body);
                self.locals.pop();
                Bound { cost: of.cost.saturating_add(body.cost).saturating_add(2), size: body.size }
            }
            Kind::Call { name, target, args } => self.call(name, target.as_deref(), args, size),
        }
    }

    fn sum(&mut self, parts: &[Expr]) -> u64 {
        parts.iter().fold(0, |sum: u64, part| sum.saturating_add(self.expr(part).cost))
    }

    /// What a loop costs for each element besides its own expressions, and once.
    fn fold(&mut self, fold: &Fold) -> Bound {
        let range = self.expr(&fold.range);
        let depth = self.locals.len();
        let element = match self.type_of(&fold.range) {
            Type::List(list) => size_of(&list.of),
            Type::Map(map) if fold.vars.len() == 1 => size_of(&map.key),
            Type::Map(map) => size_of(&map.of),
            _ => u64::MAX,
        };
        if let Some(name) = fold.vars.last() {
            self.locals.push((name.clone(), element));
        }
        let filter = fold.filter.as_ref().map_or(0, |filter| self.expr(filter).cost);
        let body = self.expr(&fold.body);
        self.locals.truncate(depth);
        let (each, once) = match fold.kind {
            FoldKind::All => (3, 1),
            FoldKind::Exists => (4, 1),
            FoldKind::ExistsOne => (2, 2),
            FoldKind::List => (12, 11),
            FoldKind::Map | FoldKind::Entries => (3, 31),
        };
        let step = body.cost.saturating_add(filter).saturating_add(each);
        let cost = range.cost.saturating_add(range.size.saturating_mul(step)).saturating_add(once);
        Bound { cost, size: if each == 12 || once == 31 { range.size } else { 1 } }
    }

    fn call(&mut self, name: &str, target: Option<&Expr>, args: &[Expr], typed: u64) -> Bound {
        let bounds: Vec<Bound> = target.into_iter().chain(args).map(|arg| self.expr(arg)).collect();
        let inner = bounds.iter().fold(0_u64, |sum, bound| sum.saturating_add(bound.cost));
        let size = |at: usize| bounds.get(at).map_or(1, |bound| bound.size);
        let texts = |expr: Option<&Expr>| match expr.map(|expr| self.type_of(expr)) {
            Some(Type::List(list)) => match &list.of {
                Type::String(max) | Type::Bytes(max) => 1_u64.saturating_add(tenth(max.unwrap_or(u64::MAX))),
                _ => 1,
            },
            _ => 1,
        };
        let pattern = |at: usize, by: usize| tenth(size(at).saturating_add(1)).saturating_mul(part(size(by), 0.25));
        let (cost, size) = match name {
            "check" => (350_000, 1),
            "dyn" => (1, size(0)),
            "startsWith" | "endsWith" => (tenth(size(1)), 1),
            "_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_" => (tenth(size(0).min(size(1))), 1),
            "@in" if matches!(args.get(1).map(|a| self.type_of(a)), Some(Type::List(_))) => (size(1), 1),
            "_+_" => match args.first().map(|a| self.type_of(a)) {
                Some(Type::String(_) | Type::Bytes(_)) => {
                    let both = size(0).saturating_add(size(1));
                    (tenth(both), both)
                }
                Some(Type::List(_)) => (1, size(0).saturating_add(size(1))),
                _ => (1, typed),
            },
            "matches" => (pattern(0, 1), 1),
            "find" | "findAll" => (pattern(0, 1), size(0)),
            "contains" => (tenth(size(0)).saturating_mul(tenth(size(1))), 1),
            "validate" => (part(tenth(size(1)), 32.0), typed),
            "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" | "includes" => {
                let is_list = matches!(target.map(|t| self.type_of(t)), Some(Type::List(_) | Type::Dyn(_)));
                let cost = if is_list { size(0).saturating_mul(texts(target)) } else { tenth(size(0)) };
                (cost, typed)
            }
            "sort" | "distinct" => (size(0).saturating_mul(size(0)).saturating_mul(texts(target)), size(0)),
            "sets.contains" | "sets.equivalent" | "sets.intersects" => {
                (size(0).saturating_mul(size(1)).saturating_add(1), 1)
            }
            "lowerAscii" | "upperAscii" | "substring" | "trim" | "url" | "jsonpatch.escapeKey" => {
                (tenth(size(0)), size(0))
            }
            "replace" => {
                let grown = size(0).saturating_add(1).saturating_mul(size(2)).saturating_add(size(0));
                let plain = size(2) <= 1;
                (part(size(0), 0.2), if plain { size(0) } else { grown })
            }
            "split" => (part(size(0), 0.2), size(0)),
            "join" => {
                let element = match target.map(|t| self.type_of(t)) {
                    Some(Type::List(list)) => size_of(&list.of),
                    _ => u64::MAX,
                };
                let mark = if args.is_empty() { 0 } else { size(1) };
                let all = size(0).saturating_mul(element.saturating_add(mark));
                (tenth(all), all)
            }
            "bytes" | "strings.quote" => (tenth(size(0)), size(0)),
            "format" | "cidr" | "ip" | "isIP" | "isCIDR" | "quantity" | "isQuantity" | "semver" | "isSemver" => {
                (tenth(size(0)).max(1), typed)
            }
            "ip.isCanonical" => (part(size(0), 0.2), 1),
            "containsIP" | "containsCIDR" => (part(32, 0.1).saturating_add(tenth(size(1).min(1 << 20))), 1),
            _ => (1, typed),
        };
        Bound { cost: inner.saturating_add(cost), size }
    }
}

fn literal(constant: &Const) -> u64 {
    match constant {
        Const::Text(text) => text.chars().count() as u64,
        Const::Bytes(bytes) => bytes.len() as u64,
        _ => 1,
    }
}

fn size_of(of: &Type) -> u64 {
    match of {
        Type::Optional(of) => size_of(of),
        Type::Dyn(_) | Type::String(_) | Type::Bytes(_) | Type::List(_) | Type::Map(_) => of.max().unwrap_or(u64::MAX),
        _ => 1,
    }
}
