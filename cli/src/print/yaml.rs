//! YAML as kubectl writes it: keys sorted, lists not indented, double quotes where a text could be read as something
//! else.

use serde_json::Value;

/// The text of a value.
pub(crate) fn yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => object(map, 0, true, &mut out),
        Value::Array(items) if !items.is_empty() => list(items, 0, &mut out),
        other => {
            out.push_str(&scalar(other, 0));
            out.push('\n');
        }
    }
    out
}

fn indent(level: usize, out: &mut String) {
    out.extend(std::iter::repeat_n("  ", level));
}

/// Lines `key: value`; the first is not indented where a list item's dash stands before it.
fn object(map: &serde_json::Map<String, Value>, level: usize, first_indented: bool, out: &mut String) {
    for (at, (key, value)) in map.iter().enumerate() {
        if at > 0 || first_indented {
            indent(level, out);
        }
        out.push_str(&text(key, level));
        out.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.push('\n');
                object(inner, level + 1, true, out);
            }
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                list(items, level, out);
            }
            other => {
                out.push(' ');
                out.push_str(&scalar(other, level + 1));
                out.push('\n');
            }
        }
    }
}

fn list(items: &[Value], level: usize, out: &mut String) {
    for item in items {
        indent(level, out);
        out.push_str("- ");
        match item {
            Value::Object(inner) if !inner.is_empty() => object(inner, level + 1, false, out),
            Value::Array(inner) if !inner.is_empty() => {
                let mut nested = String::new();
                list(inner, level + 1, &mut nested);
                out.push_str(nested.trim_start());
            }
            other => {
                out.push_str(&scalar(other, level + 1));
                out.push('\n');
            }
        }
    }
}

fn scalar(value: &Value, level: usize) -> String {
    match value {
        Value::String(it) => text(it, level),
        Value::Object(_) => "{}".into(),
        Value::Array(_) => "[]".into(),
        other => other.to_string(),
    }
}

fn text(it: &str, level: usize) -> String {
    let printable = it.chars().all(|c| c == '\n' || c == '\t' || !c.is_control());
    if printable && it.contains('\n') && !it.starts_with([' ', '\n', '\t']) {
        return block(it, level);
    }
    if plain(it) { it.into() } else { Value::from(it).to_string() }
}

/// `|`, with the mark for how it ends.
fn block(it: &str, level: usize) -> String {
    let body = it.trim_end_matches('\n');
    let mark = match it.len() - body.len() {
        0 => "-",
        1 => "",
        _ => "+",
    };
    let ends = it.len().saturating_sub(body.len()).saturating_sub(1);
    let pad = "  ".repeat(level);
    let lines: Vec<String> =
        body.split('\n').map(|line| if line.is_empty() { String::new() } else { format!("{pad}{line}") }).collect();
    format!("|{mark}\n{}{}", lines.join("\n"), "\n".repeat(ends))
}

/// Whether a text without quotes is read back as that text.
fn plain(it: &str) -> bool {
    let reserved = ["", "~", "null", "true", "false", "yes", "no", "on", "off", "y", "n", ".nan", ".inf", "<<", "="];
    let first = it.chars().next().unwrap_or(' ');
    let rest = it.chars().nth(1);
    let opens = match first {
        '-' | '?' | ':' => rest.is_none_or(|c| c == ' '),
        c => " \t,[]{}#&*!|>'\"%@`".contains(c),
    };
    let like_a_number = first.is_ascii_digit()
        || (matches!(first, '-' | '+' | '.') && rest.is_some_and(|c| c.is_ascii_digit() || c == '.'));
    let unclear = opens
        || reserved.contains(&it.to_lowercase().as_str())
        || (like_a_number && number_or_time(it))
        || [": ", " #"].iter().any(|mark| it.contains(mark))
        || it.ends_with([':', ' '])
        || it.starts_with("---")
        || it.chars().any(char::is_control);
    !unclear
}

/// What a YAML 1.1 reader takes for a number or a time.
fn number_or_time(it: &str) -> bool {
    let digits = it.trim_start_matches(['-', '+']).replace('_', "");
    let radix = digits.starts_with("0x") || digits.starts_with("0o") || digits.starts_with("0b");
    let date = it.len() >= 8 && it.get(4..5) == Some("-") && it.bytes().filter(|b| *b == b'-').count() >= 2;
    let sexagesimal = digits.contains(':') && digits.chars().all(|c| c.is_ascii_digit() || c == ':' || c == '.');
    digits.parse::<f64>().is_ok()
        || radix
        || date && it.bytes().all(|b| b.is_ascii_digit() || b"-:.TtZz+ ".contains(&b))
        || sexagesimal
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn texts_are_quoted_where_they_could_be_something_else() {
        let value = json!({
            "a": "3", "b": "true", "c": "2026-11-24T02:14:50Z", "d": "web-1", "e": "", "f": "a: b", "g": [], "h": {},
            "i": ["x", {"k": [1, null]}, ["y"]], "j": "one\ntwo\n", "k": "10.0.0.1", "l": "1Gi", "m": "*", "n": "--listen",
            "o": "one\n\ntwo", "p": "1e3", "q": "a\u{7}", "r": ":8080", "s": "10.0.0.0/8",
        });
        let text = super::yaml(&value);
        let back: serde_json::Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(back, value, "{text}");
        expect_test::expect![[r#"
            a: "3"
            b: "true"
            c: "2026-11-24T02:14:50Z"
            d: web-1
            e: ""
            f: "a: b"
            g: []
            h: {}
            i:
            - x
            - k:
              - 1
              - null
            - - "y"
            j: |
              one
              two
            k: 10.0.0.1
            l: 1Gi
            m: "*"
            "n": --listen
            o: |-
              one

              two
            p: "1e3"
            q: "a\u0007"
            r: :8080
            s: 10.0.0.0/8
        "#]]
        .assert_eq(&text);
    }
}
