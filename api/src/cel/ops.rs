//! Operators and conversions (`common/stdlib`).

use std::cmp::Ordering;

use jiff::{SignedDuration, Timestamp};

use super::static_type::Merge;
use super::time;
use super::value::{Val, same_keys};

type Outcome<'a> = Result<Val<'a>, String>;

/// What an operator without a fitting overload says.
pub(super) const NO_OVERLOAD: &str = "no such overload";

/// Binary and unary operators; `None` for other functions.
pub(super) fn operator<'a>(name: &str, args: &[Val<'a>]) -> Option<Outcome<'a>> {
    Some(match (name, args) {
        ("!_", [Val::Bool(value)]) => Ok(Val::Bool(!value)),
        ("-_", [Val::Int(value)]) => value.checked_neg().map(Val::Int).ok_or_else(int_overflow),
        ("-_", [Val::Double(value)]) => Ok(Val::Double(-value)),
        ("_==_", [a, b]) => Ok(Val::Bool(a.equals(b))),
        ("_!=_", [a, b]) => Ok(Val::Bool(!a.equals(b))),
        ("_<_", [a, b]) => ordered(a, b, Ordering::is_lt),
        ("_<=_", [a, b]) => ordered(a, b, Ordering::is_le),
        ("_>_", [a, b]) => ordered(a, b, Ordering::is_gt),
        ("_>=_", [a, b]) => ordered(a, b, Ordering::is_ge),
        ("@in", [of, range]) => contains(of, range),
        ("_+_" | "_-_" | "_*_" | "_/_" | "_%_", [a, b]) => arithmetic(name, a, b),
        _ => return None,
    })
}

fn int_overflow() -> String {
    "integer overflow".into()
}

fn ordered<'a>(a: &Val<'a>, b: &Val<'a>, holds: fn(Ordering) -> bool) -> Outcome<'a> {
    match (a, b) {
        (Val::Double(x), _) | (_, Val::Double(x)) if x.is_nan() => Err("NaN values cannot be ordered".into()),
        _ => a.compare(b).map(|order| Val::Bool(holds(order))).ok_or_else(|| NO_OVERLOAD.to_owned()),
    }
}

fn contains<'a>(of: &Val<'a>, range: &Val<'a>) -> Outcome<'a> {
    if let Some(items) = range.items() {
        return Ok(Val::Bool(items.iter().any(|item| item.equals(of))));
    }
    if range.is_map() {
        return Ok(Val::Bool(of.key().is_some_and(|key| range.at_key(&key).is_some())));
    }
    Err(NO_OVERLOAD.into())
}

fn arithmetic<'a>(name: &str, a: &Val<'a>, b: &Val<'a>) -> Outcome<'a> {
    match (a, b) {
        (Val::Int(a), Val::Int(b)) => ints(name, *a, *b).map(Val::Int),
        (Val::Uint(a), Val::Uint(b)) => uints(name, *a, *b).map(Val::Uint),
        (Val::Double(a), Val::Double(b)) => doubles(name, *a, *b).map(Val::Double),
        (Val::Text(a), Val::Text(b)) if name == "_+_" => Ok(Val::text(format!("{a}{b}"))),
        (Val::Bytes(a), Val::Bytes(b)) if name == "_+_" => Ok(Val::Bytes([a.as_ref(), b.as_ref()].concat().into())),
        (Val::Duration(_) | Val::Timestamp(_), Val::Duration(_) | Val::Timestamp(_)) => times(name, a, b),
        _ if name == "_+_" => match (a.items(), b.items()) {
            (Some(left), Some(right)) => Ok(Val::list(joined(left, right, a.merge()))),
            _ => Err(NO_OVERLOAD.into()),
        },
        _ => Err(NO_OVERLOAD.into()),
    }
}

/// Lists whose schema merges them by key or as a set are merged so.
fn joined<'a>(mut left: Vec<Val<'a>>, right: Vec<Val<'a>>, merge: Option<Merge>) -> Vec<Val<'a>> {
    for item in right {
        let place = match &merge {
            Some(Merge::Set) => left.iter().position(|known| known.equals(&item)),
            Some(Merge::Map(keys)) => left.iter().position(|known| same_keys(known, &item, keys)),
            _ => None,
        };
        match place.and_then(|at| left.get_mut(at)) {
            Some(known) => *known = item,
            None => left.push(item),
        }
    }
    left
}

/// Checked arithmetic of one integer type; `None`: the result does not fit.
macro_rules! arithmetic {
    ($name:expr, $a:expr, $b:expr) => {
        match $name {
            "_/_" if $b == 0 => return Err("division by zero".into()),
            "_%_" if $b == 0 => return Err("modulus by zero".into()),
            "_+_" => $a.checked_add($b),
            "_-_" => $a.checked_sub($b),
            "_*_" => $a.checked_mul($b),
            "_/_" => $a.checked_div($b),
            _ => $a.checked_rem($b),
        }
    };
}

fn ints(name: &str, a: i64, b: i64) -> Result<i64, String> {
    arithmetic!(name, a, b).ok_or_else(int_overflow)
}

fn uints(name: &str, a: u64, b: u64) -> Result<u64, String> {
    arithmetic!(name, a, b).ok_or_else(|| "unsigned integer overflow".into())
}

fn doubles(name: &str, a: f64, b: f64) -> Result<f64, String> {
    Ok(match name {
        "_+_" => a + b,
        "_-_" => a - b,
        "_*_" => a * b,
        "_/_" => a / b,
        _ => return Err(NO_OVERLOAD.into()),
    })
}

fn times<'a>(name: &str, a: &Val<'a>, b: &Val<'a>) -> Outcome<'a> {
    let late = || "timestamp overflow".to_owned();
    let moved = |time: &Timestamp, by: i64| {
        time.checked_add(SignedDuration::from_nanos(by)).map(Val::Timestamp).map_err(|_| late())
    };
    let long = || "duration overflow".to_owned();
    match (name, a, b) {
        ("_+_", Val::Duration(a), Val::Duration(b)) => a.checked_add(*b).map(Val::Duration).ok_or_else(long),
        ("_-_", Val::Duration(a), Val::Duration(b)) => a.checked_sub(*b).map(Val::Duration).ok_or_else(long),
        ("_+_", Val::Timestamp(time), Val::Duration(by)) | ("_+_", Val::Duration(by), Val::Timestamp(time)) => {
            moved(time, *by)
        }
        ("_-_", Val::Timestamp(time), Val::Duration(by)) => moved(time, by.checked_neg().ok_or_else(long)?),
        ("_-_", Val::Timestamp(a), Val::Timestamp(b)) => {
            i64::try_from(a.as_nanosecond() - b.as_nanosecond()).map(Val::Duration).map_err(|_| long())
        }
        _ => Err(NO_OVERLOAD.into()),
    }
}

/// Conversions between types; `None` for other functions.
pub(super) fn convert<'a>(name: &str, of: &Val<'a>) -> Option<Outcome<'a>> {
    let wanted = match name {
        "bool" | "bytes" | "double" | "int" | "uint" | "string" | "duration" | "timestamp" => name,
        "dyn" => return Some(Ok(of.clone())),
        "type" => return Some(Ok(Val::Type(of.type_of()))),
        _ => return None,
    };
    let fault = || format!("type conversion error from '{}' to '{wanted}'", of.type_of());
    Some(match wanted {
        "bool" => match of {
            Val::Bool(value) => Ok(Val::Bool(*value)),
            Val::Text(text) => bool_of(text).map(Val::Bool).ok_or_else(fault),
            _ => Err(NO_OVERLOAD.into()),
        },
        "bytes" => match of {
            Val::Bytes(bytes) => Ok(Val::Bytes(bytes.clone())),
            Val::Text(text) => Ok(Val::Bytes(text.as_bytes().into())),
            _ => Err(NO_OVERLOAD.into()),
        },
        "double" => match of {
            Val::Double(value) => Ok(Val::Double(*value)),
            Val::Int(value) => Ok(Val::Double(*value as f64)),
            Val::Uint(value) => Ok(Val::Double(*value as f64)),
            Val::Text(text) => text.parse().map(Val::Double).map_err(|_| fault()),
            _ => Err(NO_OVERLOAD.into()),
        },
        "int" => to_int(of).unwrap_or_else(|| Err(fault())),
        "uint" => to_uint(of).unwrap_or_else(|| Err(fault())),
        "string" => to_text(of).unwrap_or_else(|| Err(fault())),
        "duration" => match of {
            Val::Duration(nanos) => Ok(Val::Duration(*nanos)),
            Val::Int(nanos) => Ok(Val::Duration(*nanos)),
            Val::Text(text) => time::duration(text).map(Val::Duration).ok_or_else(fault),
            _ => Err(NO_OVERLOAD.into()),
        },
        _ => match of {
            Val::Timestamp(time) => Ok(Val::Timestamp(*time)),
            Val::Int(seconds) => Timestamp::from_second(*seconds).map(Val::Timestamp).map_err(|e| e.to_string()),
            Val::Text(text) => crate::time::parse(text).map(Val::Timestamp).ok_or_else(fault),
            _ => Err(NO_OVERLOAD.into()),
        },
    })
}

fn bool_of(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

fn to_int<'a>(of: &Val<'a>) -> Option<Outcome<'a>> {
    Some(match of {
        Val::Int(value) => Ok(Val::Int(*value)),
        Val::Uint(value) => i64::try_from(*value).map(Val::Int).map_err(|_| int_overflow()),
        Val::Double(value) if value.abs() < 9.2e18 => Ok(Val::Int(*value as i64)),
        Val::Double(_) => Err(int_overflow()),
        Val::Text(text) => return text.parse().ok().map(|value| Ok(Val::Int(value))),
        Val::Timestamp(time) => Ok(Val::Int(time.as_second())),
        Val::Duration(nanos) => Ok(Val::Int(*nanos)),
        _ => Err(NO_OVERLOAD.into()),
    })
}

fn to_uint<'a>(of: &Val<'a>) -> Option<Outcome<'a>> {
    let overflow = || "unsigned integer overflow".to_owned();
    Some(match of {
        Val::Uint(value) => Ok(Val::Uint(*value)),
        Val::Int(value) => u64::try_from(*value).map(Val::Uint).map_err(|_| overflow()),
        Val::Double(value) if (0.0..1.8e19).contains(value) => Ok(Val::Uint(*value as u64)),
        Val::Double(_) => Err(overflow()),
        Val::Text(text) => return text.parse().ok().map(|value| Ok(Val::Uint(value))),
        _ => Err(NO_OVERLOAD.into()),
    })
}

fn to_text<'a>(of: &Val<'a>) -> Option<Outcome<'a>> {
    Some(match of {
        Val::Text(_) => Ok(of.clone()),
        Val::Bool(value) => Ok(Val::text(value.to_string())),
        Val::Int(value) => Ok(Val::text(value.to_string())),
        Val::Uint(value) => Ok(Val::text(value.to_string())),
        Val::Double(value) => Ok(Val::text(crate::decode::node::go_float(*value))),
        Val::Bytes(bytes) => String::from_utf8(bytes.to_vec())
            .map(Val::text)
            .map_err(|_| "invalid UTF-8 in bytes, cannot convert to string".into()),
        Val::Timestamp(time) => Ok(Val::text(time::show_timestamp(*time))),
        Val::Duration(nanos) => Ok(Val::text(time::show(*nanos))),
        Val::Special(special) => return special.shown().map(|text| Ok(Val::text(text))),
        _ => Err(NO_OVERLOAD.into()),
    })
}
