//! The evaluator: the tree is walked, and every step is charged as cel-go's cost tracker charges it
//! (`interpreter/runtimecost.go`), so that no expression runs for long.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::ast::{Const, Entry, Expr, Field, Fold, FoldKind, Kind, Select};
use super::declare::type_named;
use super::value::{Key, Val};
use super::{Failure, PER_CALL_LIMIT, Scope, authorize, kube, lists, ops, text, time};

type Outcome<'a> = Result<Val<'a>, Failure>;

/// One evaluation.
pub(super) struct Evaluator<'s, 'a> {
    scope: &'s dyn Scope<'a>,
    spent: Cell<u64>,
}

/// Loop variables, the innermost first.
struct Locals<'l, 'a> {
    name: &'a str,
    value: Val<'a>,
    outer: Option<&'l Locals<'l, 'a>>,
}

type Env<'l, 'a> = Option<&'l Locals<'l, 'a>>;

impl<'s, 'a> Evaluator<'s, 'a> {
    pub(super) fn new(scope: &'s dyn Scope<'a>) -> Self {
        Self { scope, spent: Cell::new(0) }
    }

    pub(super) fn spent(&self) -> u64 {
        self.spent.get()
    }

    fn charge(&self, cost: u64) -> Result<(), Failure> {
        let spent = self.spent.get().saturating_add(cost);
        self.spent.set(spent);
        if spent > PER_CALL_LIMIT { Err(Failure::Limit) } else { Ok(()) }
    }

    pub(super) fn run(&self, root: &'a Expr) -> Outcome<'a> {
        self.expr(root, None)
    }

    fn expr(&self, expr: &'a Expr, env: Env<'_, 'a>) -> Outcome<'a> {
        match &expr.kind {
            Kind::Const(constant) => Ok(of_const(constant)),
            Kind::Ident(name) => self.ident(name, env),
            Kind::Select { of, field, how } => self.select(expr, of, field, *how, env),
            Kind::Index { of, index, optional } => self.index(of, index, *optional, env),
            Kind::Call { name, target, args } => self.call(name, target.as_deref(), args, env),
            Kind::And(terms) => self.logic(terms, false, env),
            Kind::Or(terms) => self.logic(terms, true, env),
            Kind::Cond(parts) => self.conditional(parts, env),
            Kind::List(items) => self.list(items, env),
            Kind::Map(entries) => self.map(entries, env),
            Kind::Object { fields, .. } => self.object(fields, env),
            Kind::Fold(fold) => self.fold(fold, env),
            Kind::OptMap { of, var, body, flat } => self.opt_map(of, var, body, *flat, env),
        }
    }

    fn conditional(&self, parts: &'a [Expr; 3], env: Env<'_, 'a>) -> Outcome<'a> {
        let [condition, yes, no] = parts;
        match self.expr(condition, env)? {
            Val::Bool(true) => self.expr(yes, env),
            Val::Bool(false) => self.expr(no, env),
            _ => no_overload(),
        }
    }

    fn map(&self, entries: &'a [Entry], env: Env<'_, 'a>) -> Outcome<'a> {
        self.charge(30)?;
        let mut map = BTreeMap::new();
        for entry in entries {
            let key = self.expr(&entry.key, env)?;
            let key = key.key().ok_or_else(|| Failure::error(format!("unsupported key type: {}", key.type_of())))?;
            if let Some(value) = present(self.expr(&entry.value, env)?, entry.optional)? {
                map.insert(key, value);
            }
        }
        Ok(Val::Map(Rc::new(map)))
    }

    fn opt_map(&self, of: &'a Expr, var: &'a str, body: &'a Expr, flat: bool, env: Env<'_, 'a>) -> Outcome<'a> {
        match self.expr(of, env)? {
            Val::Optional(None) => Ok(Val::Optional(None)),
            Val::Optional(Some(value)) => {
                let locals = Locals { name: var, value: Val::clone(&value), outer: env };
                let result = self.expr(body, Some(&locals))?;
                Ok(if flat { result } else { Val::some(result) })
            }
            _ => no_overload(),
        }
    }

    fn ident(&self, name: &str, env: Env<'_, 'a>) -> Outcome<'a> {
        self.charge(1)?;
        let mut at = env;
        while let Some(local) = at {
            if local.name == name {
                return Ok(local.value.clone());
            }
            at = local.outer;
        }
        match self.scope.variable(name) {
            Some(found) => found,
            None => match type_named(name) {
                Some(of) => Ok(Val::Type(of)),
                None => Err(Failure::error(format!("no such attribute(s): {name}"))),
            },
        }
    }

    fn is_local(&self, name: &str, env: Env<'_, 'a>) -> bool {
        let mut at = env;
        while let Some(local) = at {
            if local.name == name {
                return true;
            }
            at = local.outer;
        }
        false
    }

    fn select(&self, expr: &'a Expr, of: &'a Expr, field: &str, how: Select, env: Env<'_, 'a>) -> Outcome<'a> {
        if let Kind::Ident(root) = &of.kind
            && !self.is_local(root, env)
            && how == Select::Plain
            && let Some(found) = self.scope.field(root, field)
        {
            self.charge(2)?;
            return found;
        }
        if let Some(named) = expr.dotted().as_deref().and_then(type_named) {
            return Ok(Val::Type(named));
        }
        let target = self.expr(of, env)?;
        let (target, was_optional) = match target {
            Val::Optional(None) => return Ok(if how == Select::Test { Val::Bool(false) } else { Val::Optional(None) }),
            Val::Optional(Some(value)) => (Val::clone(&value), true),
            other => (other, false),
        };
        if how != Select::Test {
            self.charge(1)?;
        }
        let found = target.at_key(&Key::Text(field.to_owned()));
        match how {
            Select::Test if target.is_map() => Ok(Val::Bool(found.is_some())),
            Select::Test => no_overload(),
            Select::Optional => Ok(found.map_or(Val::Optional(None), Val::some)),
            Select::Plain if was_optional => Ok(found.map_or(Val::Optional(None), Val::some)),
            Select::Plain => match found {
                Some(value) => Ok(value),
                None if target.is_map() => Err(Failure::error(format!("no such key: {field}"))),
                None => no_overload(),
            },
        }
    }

    fn index(&self, of: &'a Expr, index: &'a Expr, optional: bool, env: Env<'_, 'a>) -> Outcome<'a> {
        let (target, key) = (self.expr(of, env)?, self.expr(index, env)?);
        self.charge(1)?;
        let (target, optional) = match target {
            Val::Optional(None) => return Ok(Val::Optional(None)),
            Val::Optional(Some(value)) => (Val::clone(&value), true),
            other => (other, optional),
        };
        let found = element(&target, &key);
        match (found, optional) {
            (Ok(value), true) => Ok(Val::some(value)),
            (Ok(value), false) => Ok(value),
            (Err(_), true) => Ok(Val::Optional(None)),
            (Err(error), false) => Err(Failure::error(error)),
        }
    }

    /// `&&` and `||`: an error gives way to a term that decides.
    fn logic(&self, terms: &'a [Expr], decides: bool, env: Env<'_, 'a>) -> Outcome<'a> {
        let mut failed = None;
        for term in terms {
            match self.expr(term, env) {
                Ok(Val::Bool(value)) if value == decides => return Ok(Val::Bool(decides)),
                Ok(Val::Bool(_)) => {}
                Ok(_) => failed = failed.or(Some(Failure::error(ops::NO_OVERLOAD))),
                Err(Failure::Error(error)) => failed = failed.or(Some(Failure::Error(error))),
                Err(limit) => return Err(limit),
            }
        }
        failed.map_or(Ok(Val::Bool(!decides)), Err)
    }

    fn list(&self, items: &'a [(bool, Expr)], env: Env<'_, 'a>) -> Outcome<'a> {
        self.charge(10)?;
        let mut made = Vec::with_capacity(items.len());
        for (optional, item) in items {
            made.extend(present(self.expr(item, env)?, *optional)?);
        }
        Ok(Val::list(made))
    }

    fn object(&self, fields: &'a [Field], env: Env<'_, 'a>) -> Outcome<'a> {
        self.charge(40)?;
        let mut map = BTreeMap::new();
        for field in fields {
            if let Some(value) = present(self.expr(&field.value, env)?, field.optional)? {
                map.insert(Key::Text(field.name.clone()), value);
            }
        }
        Ok(Val::Map(Rc::new(map)))
    }

    fn call(&self, name: &'a str, target: Option<&'a Expr>, args: &'a [Expr], env: Env<'_, 'a>) -> Outcome<'a> {
        let full = target.and_then(Expr::dotted).map(|prefix| format!("{prefix}.{name}"));
        let full = full.filter(|full| !super::declare::overloads(full).is_empty()).filter(|full| {
            let root = full.split('.').next().unwrap_or_default();
            !self.is_local(root, env) && self.scope.variable(root).is_none()
        });
        let mut values = Vec::with_capacity(args.len() + 1);
        if let (None, Some(target)) = (&full, target) {
            values.push(self.expr(target, env)?);
        }
        for arg in args {
            values.push(self.expr(arg, env)?);
        }
        let name: Cow<'_, str> = full.map_or(Cow::Borrowed(name), Cow::Owned);
        self.charge(cost(&name, &values))?;
        let result =
            dispatch(&name, &values).unwrap_or_else(|| Err(ops::NO_OVERLOAD.into())).map_err(Failure::Error)?;
        // What was made has to be paid for as well, since it can be made again from itself.
        if matches!(result, Val::Text(_) | Val::List(_)) && !matches!(&*name, "_+_") {
            self.charge(share(result.size().unwrap_or_default()))?;
        }
        Ok(result)
    }

    fn fold(&self, fold: &'a Fold, env: Env<'_, 'a>) -> Outcome<'a> {
        let range = self.expr(&fold.range, env)?;
        let pairs: Vec<(Val<'a>, Val<'a>)> = match (range.items(), range.entries()) {
            (Some(items), _) => items.into_iter().enumerate().map(|(at, item)| (Val::Int(at as i64), item)).collect(),
            (None, Some(entries)) => entries.into_iter().map(|(key, value)| (key.val(), value)).collect(),
            (None, None) => return no_overload(),
        };
        let keys = range.is_map();
        let (mut made, mut entries, mut hits, mut failed) = (Vec::new(), BTreeMap::new(), 0, None);
        for (key, value) in pairs {
            // The loop's condition and its step read what was found so far.
            self.charge(3)?;
            let (first, second) = match fold.vars.len() {
                2 => (key.clone(), value),
                _ if keys => (key.clone(), Val::Null),
                _ => (value, Val::Null),
            };
            let outer;
            let mut at = env;
            if let Some(name) = fold.vars.get(1) {
                outer = Locals { name, value: second, outer: env };
                at = Some(&outer);
            }
            let name = fold.vars.first().map_or("", String::as_str);
            let locals = Locals { name, value: first, outer: at };
            let at = Some(&locals);
            if let Some(filter) = &fold.filter {
                match self.expr(filter, at)? {
                    Val::Bool(true) => {}
                    Val::Bool(false) => continue,
                    _ => return no_overload(),
                }
            }
            match fold.kind {
                FoldKind::All | FoldKind::Exists => {
                    let decides = fold.kind == FoldKind::Exists;
                    match self.expr(&fold.body, at) {
                        Ok(Val::Bool(value)) if value == decides => return Ok(Val::Bool(decides)),
                        Ok(Val::Bool(_)) => {}
                        Ok(_) => failed = failed.or(Some(Failure::error(ops::NO_OVERLOAD))),
                        Err(Failure::Error(error)) => failed = failed.or(Some(Failure::Error(error))),
                        Err(limit) => return Err(limit),
                    }
                }
                FoldKind::ExistsOne => hits += usize::from(self.expr(&fold.body, at)?.is_true()),
                FoldKind::List => {
                    self.charge(11)?;
                    made.push(self.expr(&fold.body, at)?);
                }
                FoldKind::Map => {
                    self.charge(1)?;
                    let key = key.key().ok_or_else(|| Failure::error(ops::NO_OVERLOAD))?;
                    entries.insert(key, self.expr(&fold.body, at)?);
                }
                FoldKind::Entries => {
                    let more = self.expr(&fold.body, at)?.entries();
                    for (key, value) in more.ok_or_else(|| Failure::error(ops::NO_OVERLOAD))? {
                        if entries.contains_key(&key) {
                            return Err(Failure::error(format!("insert failed: key {key} already exists")));
                        }
                        entries.insert(key, value);
                    }
                }
            }
        }
        match (fold.kind, failed) {
            (_, Some(failed)) => Err(failed),
            (FoldKind::All, None) => Ok(Val::Bool(true)),
            (FoldKind::Exists, None) => Ok(Val::Bool(false)),
            (FoldKind::ExistsOne, None) => Ok(Val::Bool(hits == 1)),
            (FoldKind::List, None) => Ok(Val::list(made)),
            (FoldKind::Map | FoldKind::Entries, None) => Ok(Val::Map(Rc::new(entries))),
        }
    }
}

fn no_overload<'a>() -> Outcome<'a> {
    Err(Failure::error(ops::NO_OVERLOAD))
}

fn of_const(constant: &Const) -> Val<'_> {
    match constant {
        Const::Null => Val::Null,
        Const::Bool(value) => Val::Bool(*value),
        Const::Int(value) => Val::Int(*value),
        Const::Uint(value) => Val::Uint(*value),
        Const::Double(value) => Val::Double(*value),
        Const::Text(text) => Val::text(text.as_str()),
        Const::Bytes(bytes) => Val::Bytes(bytes.as_slice().into()),
    }
}

/// What an optional entry comes down to.
fn present(value: Val<'_>, optional: bool) -> Result<Option<Val<'_>>, Failure> {
    match (optional, value) {
        (false, value) => Ok(Some(value)),
        (true, Val::Optional(value)) => Ok(value.map(|value| Val::clone(&value))),
        (true, other) => {
            let text = format!("cannot initialize optional entry from non-optional value of type {}", other.type_of());
            Err(Failure::error(text))
        }
    }
}

fn element<'a>(target: &Val<'a>, key: &Val<'a>) -> Result<Val<'a>, String> {
    if target.is_map() {
        let key = key.key().ok_or(ops::NO_OVERLOAD)?;
        return target.at_key(&key).ok_or_else(|| format!("no such key: {key}"));
    }
    let at = match key.key() {
        Some(Key::Int(at)) => at,
        Some(Key::Uint(at)) => i64::try_from(at).map_err(|_| "index out of range".to_owned())?,
        _ => return Err(format!("unsupported index type '{}' in list", key.type_of())),
    };
    let found = match (target, usize::try_from(at)) {
        (Val::List(items), Ok(at)) => items.get(at).cloned(),
        (Val::Json(serde_json::Value::Array(items), super::Type::List(of)), Ok(at)) => {
            items.get(at).map(|item| Val::of(item, &of.of))
        }
        (Val::Json(serde_json::Value::Array(items), _), Ok(at)) => {
            items.get(at).map(|item| Val::of(item, &super::Type::DYN))
        }
        (Val::List(_) | Val::Json(..), Err(_)) => None,
        _ => return Err(ops::NO_OVERLOAD.into()),
    };
    found.ok_or_else(|| format!("index out of bounds: {at}"))
}

fn dispatch<'a>(name: &str, args: &[Val<'a>]) -> Option<Result<Val<'a>, String>> {
    if let Some(found) = ops::operator(name, args) {
        return Some(found);
    }
    if let ("size", [of]) = (name, args) {
        return of.size().map(|size| Ok(Val::Int(size as i64)));
    }
    if let [of] = args
        && let Some(found) = ops::convert(name, of)
    {
        return Some(found);
    }
    if let ("matches", [Val::Text(of), Val::Text(wanted)]) = (name, args) {
        return Some(text::pattern(wanted).map(|regex| Val::Bool(regex.is_match(of))));
    }
    let zone = args.get(1).and_then(Val::as_text);
    if name.starts_with("get")
        && let Some(found) = time::get(name, args.first()?, zone)
    {
        return Some(found.map(Val::Int));
    }
    text::call(name, args)
        .or_else(|| lists::call(name, args))
        .or_else(|| kube::call(name, args))
        .or_else(|| authorize::call(name, args))
}

/// A tenth, rounded up: what walking over that many characters costs.
fn share(size: u64) -> u64 {
    size.div_ceil(10)
}

/// What a call costs before it is made.
fn cost(name: &str, args: &[Val<'_>]) -> u64 {
    let size = |at: usize| args.get(at).and_then(Val::size).unwrap_or(1);
    match name {
        "check" => 350_000,
        "startsWith" | "endsWith" => share(size(1)),
        "@in" => size(1),
        "_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_" => share(size(0).min(size(1))),
        "_+_" => share(size(0).saturating_add(size(1))),
        "matches" | "find" | "findAll" => share(size(0).saturating_add(1)).saturating_mul(size(1).div_ceil(4)),
        "contains" => share(size(0)).saturating_mul(share(size(1))),
        "validate" => share(size(1).saturating_add(1)).saturating_mul(32),
        "replace" | "split" | "ip.isCanonical" => share(size(0).saturating_mul(2)),
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" | "includes" => traversal(args.first()),
        "sort" | "distinct" | "sets.contains" | "sets.equivalent" | "sets.intersects" => {
            size(0).saturating_mul(if args.len() > 1 { size(1) } else { size(0) }).max(1)
        }
        "url"
        | "lowerAscii"
        | "upperAscii"
        | "substring"
        | "trim"
        | "cidr"
        | "isIP"
        | "isCIDR"
        | "ip"
        | "quantity"
        | "isQuantity"
        | "semver"
        | "isSemver"
        | "bytes"
        | "string"
        | "strings.quote"
        | "format"
        | "join"
        | "slice"
        | "flatten"
        | "reverse"
        | "jsonpatch.escapeKey" => share(size(0)).max(1),
        "lists.range" => match args.first() {
            Some(Val::Int(size)) => u64::try_from(*size).unwrap_or_default(),
            _ => 1,
        },
        _ => 1,
    }
}

/// One for each element, and a tenth of the length of those that are texts.
fn traversal(of: Option<&Val<'_>>) -> u64 {
    let Some(of) = of else { return 1 };
    match of.items() {
        Some(items) => items.iter().map(|item| 1 + item.as_text().map_or(0, |text| share(text.len() as u64))).sum(),
        None => share(of.size().unwrap_or(1)),
    }
}
