//! Which value a plain YAML scalar means: YAML 1.1 as go-yaml v2 reads it.

use std::borrow::Cow;

use super::node::{Node, go_float};

/// What a scalar without quotes and without a tag means.
pub(super) fn resolve(text: Cow<'_, str>) -> Result<Node<'_>, String> {
    let known = match text.as_ref() {
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Some(Node::Bool(true)),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Some(Node::Bool(false)),
        "" | "~" | "null" | "Null" | "NULL" => Some(Node::Null),
        ".nan" | ".NaN" | ".NAN" => return Err("json: unsupported value: NaN".into()),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Err("json: unsupported value: +Inf".into()),
        "-.inf" | "-.Inf" | "-.INF" => return Err("json: unsupported value: -Inf".into()),
        _ => numeric(&text).map(|number| Node::Number(number.into())),
    };
    Ok(known.unwrap_or(Node::String(text)))
}

/// The JSON form of a scalar that is a number.
fn numeric(text: &str) -> Option<String> {
    if !text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) {
        return None;
    }
    if text.starts_with('.') {
        return is_float(text).then(|| text.parse().ok().map(go_float)).flatten();
    }
    if looks_like_date(text) {
        return None;
    }
    let plain = text.replace('_', "");
    integer(&plain).or_else(|| is_float(&plain).then(|| plain.parse().ok().map(go_float)).flatten())
}

/// `2024-01-31...`: a timestamp, which stays a string.
fn looks_like_date(text: &str) -> bool {
    let (year, rest) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    year.len() == 4 && rest.starts_with('-')
}

/// Go's `ParseInt(text, 0, 64)`, or `ParseUint`: prefixes 0x, 0o, 0b and a leading nought for octal.
fn integer(text: &str) -> Option<String> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let prefixed = |prefixes: [&str; 2]| prefixes.iter().find_map(|p| digits.strip_prefix(p));
    let (radix, digits) = match (prefixed(["0x", "0X"]), prefixed(["0o", "0O"]), prefixed(["0b", "0B"])) {
        (Some(digits), _, _) => (16, digits),
        (_, Some(digits), _) => (8, digits),
        (_, _, Some(digits)) => (2, digits),
        _ => match digits.strip_prefix('0') {
            Some(octal) if !octal.is_empty() => (8, octal),
            _ => (10, digits),
        },
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let size = u64::from_str_radix(digits, radix).ok()?;
    match negative {
        false => Some(size.to_string()),
        true => 0i64.checked_sub_unsigned(size).map(|n| n.to_string()),
    }
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let shaped = digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    shaped && exponent.is_none_or(|e| !e.is_empty() && digits(e))
}

#[cfg(test)]
mod tests {
    use super::{Node, resolve};

    #[test]
    fn plain_scalars_are_yaml_1_1() {
        let number = |text: &'static str| Node::Number(text.into());
        let cases = [
            ("yes", Node::Bool(true)),
            ("Off", Node::Bool(false)),
            ("~", Node::Null),
            ("1_000", number("1000")),
            ("0x1F", number("31")),
            ("0777", number("511")),
            ("0o17", number("15")),
            ("08", number("8")),
            ("-0b11", number("-3")),
            ("1e3", number("1000")),
            ("1.0", number("1")),
            (".5", number("0.5")),
            ("1e30", number("1e+30")),
            ("18446744073709551615", number("18446744073709551615")),
            ("2024-01-31", Node::String("2024-01-31".into())),
            ("1.2.3", Node::String("1.2.3".into())),
            ("500m", Node::String("500m".into())),
            ("-", Node::String("-".into())),
            ("yEs", Node::String("yEs".into())),
        ];
        for (text, node) in cases {
            assert_eq!(resolve(text.into()), Ok(node), "{text}");
        }
    }
}
