//! Functions of strings (`common/stdlib`, `ext/strings.go` version 2, `library/regex.go`).

use regex::Regex;

use super::value::Val;

type Outcome<'a> = Result<Val<'a>, String>;

/// The most a compiled pattern may take, in bytes.
const PATTERN_LIMIT: usize = 1 << 20;
/// The longest text that `format` pads or rounds to.
const MAX_PRECISION: usize = 100;

/// Compiles a pattern; bounded in size.
pub(super) fn pattern(text: &str) -> Result<Regex, String> {
    let made = regex::RegexBuilder::new(text).size_limit(PATTERN_LIMIT).build();
    made.map_err(|error| format!("error parsing regexp: {}", error.to_string().lines().last().unwrap_or_default()))
}

/// Functions whose first argument is text; `None` for others.
pub(super) fn call<'a>(name: &str, args: &[Val<'a>]) -> Option<Outcome<'a>> {
    let (Val::Text(of), rest) = args.split_first()? else { return None };
    let of: &str = of;
    Some(match (name, rest) {
        ("contains", [Val::Text(part)]) => Ok(Val::Bool(of.contains(part.as_ref()))),
        ("startsWith", [Val::Text(part)]) => Ok(Val::Bool(of.starts_with(part.as_ref()))),
        ("endsWith", [Val::Text(part)]) => Ok(Val::Bool(of.ends_with(part.as_ref()))),
        ("matches", [Val::Text(wanted)]) => pattern(wanted).map(|regex| Val::Bool(regex.is_match(of))),
        ("find", [Val::Text(wanted)]) => {
            pattern(wanted).map(|regex| Val::text(regex.find(of).map_or("", |m| m.as_str()).to_owned()))
        }
        ("findAll", [Val::Text(wanted)]) => find_all(of, wanted, -1),
        ("findAll", [Val::Text(wanted), Val::Int(most)]) => find_all(of, wanted, *most),
        ("lowerAscii", []) => Ok(Val::text(of.to_ascii_lowercase())),
        ("upperAscii", []) => Ok(Val::text(of.to_ascii_uppercase())),
        ("trim", []) => Ok(Val::text(of.trim().to_owned())),
        ("charAt", [Val::Int(at)]) => char_at(of, *at),
        ("indexOf", [Val::Text(part)]) => index_of(of, part, 0),
        ("indexOf", [Val::Text(part), Val::Int(from)]) => index_of(of, part, *from),
        ("lastIndexOf", [Val::Text(part)]) => last_index_of(of, part, None),
        ("lastIndexOf", [Val::Text(part), Val::Int(from)]) => last_index_of(of, part, Some(*from)),
        ("replace", [Val::Text(old), Val::Text(new)]) => Ok(Val::text(of.replace(old.as_ref(), new))),
        ("replace", [Val::Text(old), Val::Text(new), Val::Int(most)]) => Ok(match usize::try_from(*most) {
            Ok(most) => Val::text(of.replacen(old.as_ref(), new, most)),
            Err(_) => Val::text(of.replace(old.as_ref(), new)),
        }),
        ("split", [Val::Text(mark)]) => Ok(split(of, mark, -1)),
        ("split", [Val::Text(mark), Val::Int(most)]) => Ok(split(of, mark, *most)),
        ("substring", [Val::Int(from)]) => substring(of, *from, None),
        ("substring", [Val::Int(from), Val::Int(to)]) => substring(of, *from, Some(*to)),
        ("strings.quote", []) => Ok(Val::text(crate::quote::quote(of))),
        ("jsonpatch.escapeKey", []) => Ok(Val::text(of.replace('~', "~0").replace('/', "~1"))),
        ("format", [values]) => format_text(of, &values.items()?).map(Val::text),
        _ => return None,
    })
}

fn find_all<'a>(of: &str, wanted: &str, most: i64) -> Outcome<'a> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let found = pattern(wanted)?.find_iter(of).take(most).map(|m| Val::text(m.as_str().to_owned())).collect();
    Ok(Val::list(found))
}

fn char_at<'a>(of: &str, at: i64) -> Outcome<'a> {
    let length = of.chars().count();
    match usize::try_from(at) {
        Ok(at) if at == length => Ok(Val::text("")),
        Ok(at) => of.chars().nth(at).map(|c| Val::text(c.to_string())).ok_or_else(|| out_of_range(at as i64)),
        Err(_) => Err(out_of_range(at)),
    }
}

fn out_of_range(at: i64) -> String {
    format!("index out of range: {at}")
}

/// The byte where a character begins; the length for the one after the last.
fn byte_at(of: &str, at: usize) -> Option<usize> {
    of.char_indices().map(|(byte, _)| byte).chain([of.len()]).nth(at)
}

fn index_of<'a>(of: &str, part: &str, from: i64) -> Outcome<'a> {
    if part.is_empty() {
        return Ok(Val::Int(from));
    }
    let start = usize::try_from(from).map_err(|_| out_of_range(from))?;
    let Some(byte) = byte_at(of, start) else { return Ok(Val::Int(-1)) };
    let rest = of.get(byte..).unwrap_or_default();
    let found = rest.find(part).and_then(|at| rest.get(..at));
    Ok(Val::Int(found.map_or(-1, |before| (start + before.chars().count()) as i64)))
}

fn last_index_of<'a>(of: &str, part: &str, from: Option<i64>) -> Outcome<'a> {
    let length = of.chars().count() as i64;
    let from = from.unwrap_or(length);
    if part.is_empty() {
        return Ok(Val::Int(from));
    }
    if from < 0 {
        return Err(out_of_range(from));
    }
    let end = usize::try_from(from).ok().and_then(|from| byte_at(of, from)).unwrap_or(of.len());
    let end = (end + part.len()).min(of.len());
    let end = (0..=end).rev().find(|at| of.is_char_boundary(*at)).unwrap_or_default();
    let found = of.get(..end).and_then(|head| head.rfind(part).and_then(|at| head.get(..at)));
    Ok(Val::Int(found.map_or(-1, |before| before.chars().count() as i64)))
}

fn split<'a>(of: &str, mark: &str, most: i64) -> Val<'a> {
    let parts: Vec<&str> = match (most, mark) {
        (0, _) => Vec::new(),
        (_, "") => of.split_inclusive(|_: char| true).collect(),
        (most, mark) if most > 0 => of.splitn(most as usize, mark).collect(),
        _ => of.split(mark).collect(),
    };
    Val::list(parts.into_iter().map(|part| Val::text(part.to_owned())).collect())
}

fn substring<'a>(of: &str, from: i64, to: Option<i64>) -> Outcome<'a> {
    let length = of.chars().count() as i64;
    let end = to.unwrap_or(length);
    if to.is_some() && from > end {
        return Err(format!("invalid substring range. start: {from}, end: {end}"));
    }
    for at in [from, end] {
        if !(0..=length).contains(&at) {
            return Err(out_of_range(at));
        }
    }
    let text: String = of.chars().skip(from as usize).take((end - from) as usize).collect();
    Ok(Val::text(text))
}

/// `format`: `%s`, `%d`, `%f`, `%e`, `%b`, `%o`, `%x`, `%X`, with a precision for the floats.
fn format_text(pattern: &str, values: &[Val<'_>]) -> Result<String, String> {
    let mut out = String::new();
    let mut chars = pattern.chars().peekable();
    let mut next = values.iter().enumerate();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.next_if_eq(&'%').is_some() {
            out.push('%');
            continue;
        }
        let mut precision = None;
        if chars.next_if_eq(&'.').is_some() {
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            precision = digits.parse::<usize>().ok();
            if precision.is_none_or(|p| p > MAX_PRECISION) {
                return Err(format!("could not parse formatting clause: error while parsing precision: {digits}"));
            }
        }
        let clause = chars.next().ok_or("could not parse formatting clause: unexpected end of format string")?;
        let (_, value) = next.next().ok_or_else(|| format!("index {} out of range", values.len()))?;
        out.push_str(&clause_text(clause, precision, value)?);
    }
    Ok(out)
}

fn clause_text(clause: char, precision: Option<usize>, value: &Val<'_>) -> Result<String, String> {
    let wrong = |what: &str| Err(format!("error during formatting: {what}, was given {}", value.type_of()));
    let float = |value: &Val<'_>| match value {
        Val::Double(value) => Some(*value),
        Val::Int(value) => Some(*value as f64),
        Val::Uint(value) => Some(*value as f64),
        _ => None,
    };
    match (clause, value) {
        ('s', value) => Ok(shown(value)),
        ('d', Val::Int(value)) => Ok(value.to_string()),
        ('d', Val::Uint(value)) => Ok(value.to_string()),
        ('d', _) => wrong("decimal clause can only be used on integers"),
        ('f', value) => match float(value) {
            Some(value) => Ok(format!("{value:.*}", precision.unwrap_or(6))),
            None => wrong("fixed-point clause can only be used on doubles"),
        },
        ('e', value) => match float(value) {
            Some(value) => Ok(exponent(value, precision.unwrap_or(6))),
            None => wrong("scientific clause can only be used on doubles"),
        },
        ('b', Val::Int(value)) => Ok(format!("{}{:b}", sign(*value), value.unsigned_abs())),
        ('b', Val::Uint(value)) => Ok(format!("{value:b}")),
        ('b', Val::Bool(value)) => Ok(u8::from(*value).to_string()),
        ('b', _) => wrong("only integers and bools can be formatted as binary"),
        ('o', Val::Int(value)) => Ok(format!("{}{:o}", sign(*value), value.unsigned_abs())),
        ('o', Val::Uint(value)) => Ok(format!("{value:o}")),
        ('o', _) => wrong("octal clause can only be used on integers"),
        ('x' | 'X', value) => {
            let hex = match value {
                Val::Int(value) => format!("{}{:x}", sign(*value), value.unsigned_abs()),
                Val::Uint(value) => format!("{value:x}"),
                Val::Text(text) => text.bytes().map(|b| format!("{b:02x}")).collect(),
                Val::Bytes(bytes) => bytes.iter().map(|b| format!("{b:02x}")).collect(),
                _ => return wrong("only integers, byte buffers, and strings can be formatted as hex"),
            };
            Ok(if clause == 'X' { hex.to_uppercase() } else { hex })
        }
        (other, _) => Err(format!("could not parse formatting clause: unrecognized formatting clause \"{other}\"")),
    }
}

fn sign(value: i64) -> &'static str {
    if value < 0 { "-" } else { "" }
}

fn exponent(value: f64, precision: usize) -> String {
    let text = format!("{value:.precision$e}");
    let Some((mantissa, power)) = text.split_once('e') else { return text };
    let (sign, digits) = power.strip_prefix('-').map_or(("+", power), |digits| ("-", digits));
    format!("{mantissa}e{sign}{digits:0>2}")
}

/// A value as `%s` writes it.
fn shown(value: &Val<'_>) -> String {
    if let Some(items) = value.items() {
        return format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", "));
    }
    if let Some(entries) = value.entries() {
        let mut texts: Vec<String> =
            entries.iter().map(|(k, v)| format!("{}: {}", shown(&k.val()), shown(v))).collect();
        texts.sort();
        return format!("{{{}}}", texts.join(", "));
    }
    match value {
        Val::Null => "null".into(),
        Val::Type(of) => of.to_string(),
        other => match super::ops::convert("string", other) {
            Some(Ok(Val::Text(text))) => text.into_owned(),
            _ => other.type_of().to_string(),
        },
    }
}
