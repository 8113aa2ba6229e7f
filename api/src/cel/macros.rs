//! Macros: calls that are syntax (`parser/macro.go`, `ext/comprehensions.go`, the optional library).

use super::ast::{Const, Expr, Fold, FoldKind, Kind, Select};
use super::parse::Parser;
use super::source::Fault;

type Result<T> = std::result::Result<T, Fault>;

/// `has(a.b)`, or a plain call.
pub(super) fn global(parser: &mut Parser, name: String, mut args: Vec<Expr>, at: usize) -> Result<Expr> {
    if name != "has" || args.len() != 1 {
        return Ok(parser.call(at, &name, args));
    }
    match args.pop().map(|arg| (arg.at, arg.kind)) {
        Some((_, Kind::Select { of, field, how: Select::Plain })) => {
            Ok(parser.node(at, Kind::Select { of, field, how: Select::Test }))
        }
        _ => Err(Fault::new(at, "invalid argument to has() macro")),
    }
}

/// A macro on a range, or a plain member call.
pub(super) fn member(parser: &mut Parser, of: Expr, name: String, mut args: Vec<Expr>, at: usize) -> Result<Expr> {
    if matches!(name.as_str(), "optMap" | "optFlatMap") && args.len() == 2 {
        let body = args.pop();
        let var = variable(args.first(), &format!("{name}() variable name must be a simple identifier"))?;
        let Some(body) = body else { return Ok(parser.call(at, &name, args)) };
        let flat = name == "optFlatMap";
        return Ok(parser.node(at, Kind::OptMap { of: Box::new(of), var, body: Box::new(body), flat }));
    }
    let Some((kind, vars, filtered)) = shape(&name, args.len()) else {
        return Ok(parser.node(at, Kind::Call { name, target: Some(Box::new(of)), args }));
    };
    let mut names = Vec::new();
    for i in 0..vars {
        let found = variable(args.get(i), "argument must be a simple name")?;
        if names.contains(&found) {
            return Err(Fault::new(at, "duplicate variable name"));
        }
        if found == "__result__" || found == "@result" {
            return Err(Fault::new(at, "iteration variable overwrites accumulator variable"));
        }
        names.push(found);
    }
    let mut rest = args.split_off(vars).into_iter();
    let filter = if filtered { rest.next() } else { None };
    let body = match rest.next() {
        Some(body) => body,
        // `filter` keeps the element itself.
        None => parser.node(at, Kind::Ident(names.first().cloned().unwrap_or_default())),
    };
    Ok(parser.node(at, Kind::Fold(Box::new(Fold { kind, range: of, vars: names, filter, body }))))
}

/// The kind of a macro, its number of variables, and whether a filter comes before the body.
fn shape(name: &str, args: usize) -> Option<(FoldKind, usize, bool)> {
    Some(match (name, args) {
        ("all", 2 | 3) => (FoldKind::All, args - 1, false),
        ("exists", 2 | 3) => (FoldKind::Exists, args - 1, false),
        ("exists_one", 2) => (FoldKind::ExistsOne, 1, false),
        ("existsOne", 2 | 3) => (FoldKind::ExistsOne, args - 1, false),
        ("map", 2) => (FoldKind::List, 1, false),
        ("map", 3) | ("filter", 2) => (FoldKind::List, 1, true),
        ("transformList", 3 | 4) => (FoldKind::List, 2, args == 4),
        ("transformMap", 3 | 4) => (FoldKind::Map, 2, args == 4),
        ("transformMapEntry", 3 | 4) => (FoldKind::Entries, 2, args == 4),
        _ => return None,
    })
}

fn variable(arg: Option<&Expr>, fault: &str) -> Result<String> {
    match arg.map(|arg| (&arg.kind, arg.at)) {
        Some((Kind::Ident(name), _)) => Ok(name.clone()),
        Some((Kind::Const(Const::Null), at)) | Some((_, at)) => Err(Fault::new(at, fault)),
        None => Err(Fault::new(0, fault)),
    }
}
