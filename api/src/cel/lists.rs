//! Functions of lists, sets and optionals (`ext/lists.go` version 3, `ext/sets.go`, `library/lists.go`).

use std::cmp::Ordering;

use super::ops::{NO_OVERLOAD, operator};
use super::value::Val;

type Outcome<'a> = Result<Val<'a>, String>;

/// The longest list that `lists.range` makes.
const MAX_RANGE: i64 = 1_000_000;

/// Functions of lists and optionals; `None` for others.
pub(super) fn call<'a>(name: &str, args: &[Val<'a>]) -> Option<Outcome<'a>> {
    if let Some(outcome) = optional(name, args) {
        return Some(outcome);
    }
    if let ("lists.range", [Val::Int(size)]) = (name, args) {
        return Some(match size {
            ..0 => Err(format!("lists.range: size must be non-negative, got {size}")),
            0..=MAX_RANGE => Ok(Val::list((0..*size).map(Val::Int).collect())),
            _ => Err(format!("lists.range: size {size} exceeds maximum allowed ({MAX_RANGE})")),
        });
    }
    let (first, rest) = args.split_first()?;
    if name == "includes" {
        return Some(Ok(Val::Bool(includes(first, rest.first()?))));
    }
    let items = first.items()?;
    Some(match (name, rest) {
        ("isSorted", []) => sorted(&items).map(Val::Bool),
        ("sum", []) => sum(&items),
        ("min", []) => extreme("min", items, Ordering::is_lt),
        ("max", []) => extreme("max", items, Ordering::is_gt),
        ("indexOf", [of]) => Ok(position(items.iter().position(|item| item.equals(of)))),
        ("lastIndexOf", [of]) => Ok(position(items.iter().rposition(|item| item.equals(of)))),
        ("join", []) => join(&items, ""),
        ("join", [Val::Text(mark)]) => join(&items, mark),
        ("slice", [Val::Int(from), Val::Int(to)]) => slice(items, *from, *to),
        ("flatten", []) => flatten(items, 1).map(Val::list),
        ("flatten", [Val::Int(depth)]) if *depth < 0 => Err("level must be non-negative".into()),
        ("flatten", [Val::Int(depth)]) => flatten(items, *depth).map(Val::list),
        ("sort", []) => sort(items),
        ("distinct", []) => Ok(Val::list(distinct(items))),
        ("reverse", []) => Ok(Val::list(items.into_iter().rev().collect())),
        ("first", []) => Ok(items.into_iter().next().map_or(Val::Optional(None), Val::some)),
        ("last", []) => Ok(items.into_iter().next_back().map_or(Val::Optional(None), Val::some)),
        ("optional.unwrap" | "unwrapOpt", []) => {
            let present = items.into_iter().filter_map(|item| match item {
                Val::Optional(value) => value.map(|v| Val::clone(&v)),
                other => Some(other),
            });
            Ok(Val::list(present.collect()))
        }
        ("sets.contains", [of]) => Ok(Val::Bool(covers(&items, &of.items()?))),
        ("sets.intersects", [of]) => {
            let other = of.items()?;
            Ok(Val::Bool(other.iter().any(|wanted| items.iter().any(|item| item.equals(wanted)))))
        }
        ("sets.equivalent", [of]) => {
            let other = of.items()?;
            Ok(Val::Bool(covers(&items, &other) && covers(&other, &items)))
        }
        _ => return None,
    })
}

fn optional<'a>(name: &str, args: &[Val<'a>]) -> Option<Outcome<'a>> {
    Some(match (name, args) {
        ("optional.of", [value]) => Ok(Val::some(value.clone())),
        ("optional.none", []) => Ok(Val::Optional(None)),
        ("optional.ofNonZeroValue", [value]) => {
            Ok(if is_zero(value) { Val::Optional(None) } else { Val::some(value.clone()) })
        }
        ("hasValue", [Val::Optional(value)]) => Ok(Val::Bool(value.is_some())),
        ("value", [Val::Optional(value)]) => match value {
            Some(value) => Ok(Val::clone(value)),
            None => Err("optional.none() dereference".into()),
        },
        ("or", [Val::Optional(value), other]) => {
            Ok(if value.is_some() { Val::Optional(value.clone()) } else { other.clone() })
        }
        ("orValue", [Val::Optional(value), other]) => {
            Ok(value.as_ref().map_or_else(|| other.clone(), |value| Val::clone(value)))
        }
        _ => return None,
    })
}

fn is_zero(value: &Val<'_>) -> bool {
    match value {
        Val::Null | Val::Bool(false) | Val::Int(0) | Val::Uint(0) | Val::Duration(0) => true,
        Val::Double(value) => *value == 0.0,
        other => other.size() == Some(0),
    }
}

fn includes(of: &Val<'_>, wanted: &Val<'_>) -> bool {
    match of.items() {
        Some(items) => items.iter().any(|item| item.equals(wanted)),
        None => of.equals(wanted),
    }
}

fn position<'a>(at: Option<usize>) -> Val<'a> {
    Val::Int(at.map_or(-1, |at| at as i64))
}

fn covers(items: &[Val<'_>], wanted: &[Val<'_>]) -> bool {
    wanted.iter().all(|wanted| items.iter().any(|item| item.equals(wanted)))
}

fn sorted(items: &[Val<'_>]) -> Result<bool, String> {
    for (a, b) in items.iter().zip(items.iter().skip(1)) {
        if a.compare(b).ok_or(NO_OVERLOAD)?.is_gt() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn sum<'a>(items: &[Val<'a>]) -> Outcome<'a> {
    let Some((first, rest)) = items.split_first() else { return Ok(Val::Int(0)) };
    rest.iter().try_fold(first.clone(), |sum, item| {
        operator("_+_", &[sum, item.clone()]).unwrap_or_else(|| Err(NO_OVERLOAD.into()))
    })
}

fn extreme<'a>(name: &str, items: Vec<Val<'a>>, better: fn(Ordering) -> bool) -> Outcome<'a> {
    let mut items = items.into_iter();
    let mut best = items.next().ok_or_else(|| format!("{name} called on empty list"))?;
    for item in items {
        if better(item.compare(&best).ok_or(NO_OVERLOAD)?) {
            best = item;
        }
    }
    Ok(best)
}

fn join<'a>(items: &[Val<'a>], mark: &str) -> Outcome<'a> {
    let texts: Option<Vec<&str>> = items.iter().map(Val::as_text).collect();
    texts.map(|texts| Val::text(texts.join(mark))).ok_or_else(|| "join: invalid input".into())
}

fn slice<'a>(items: Vec<Val<'a>>, from: i64, to: i64) -> Outcome<'a> {
    let length = items.len();
    let (Ok(start), Ok(end)) = (usize::try_from(from), usize::try_from(to)) else {
        return Err(format!("cannot slice({from}, {to}), negative indexes not supported"));
    };
    if start > end {
        return Err(format!("cannot slice({from}, {to}), start index must be less than or equal to end index"));
    }
    if end > length {
        return Err(format!("cannot slice({from}, {to}), list is length {length}"));
    }
    Ok(Val::list(items.into_iter().skip(start).take(end - start).collect()))
}

fn flatten<'a>(items: Vec<Val<'a>>, depth: i64) -> Result<Vec<Val<'a>>, String> {
    let mut flat = Vec::new();
    for item in items {
        match item.items() {
            Some(inner) if depth > 0 => flat.extend(flatten(inner, depth - 1)?),
            _ => flat.push(item),
        }
    }
    Ok(flat)
}

fn sort<'a>(mut items: Vec<Val<'a>>) -> Outcome<'a> {
    if let Some(first) = items.first() {
        for item in &items {
            if first.type_of() != item.type_of() {
                return Err("list elements must have the same type".into());
            }
            first.compare(item).ok_or("list elements must be comparable")?;
        }
    }
    items.sort_by(|a, b| a.compare(b).unwrap_or(Ordering::Equal));
    Ok(Val::list(items))
}

fn distinct(items: Vec<Val<'_>>) -> Vec<Val<'_>> {
    let mut kept: Vec<Val<'_>> = Vec::new();
    for item in items {
        if !kept.iter().any(|known| known.equals(&item)) {
            kept.push(item);
        }
    }
    kept
}
