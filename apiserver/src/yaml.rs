//! YAML as Go's `sigs.k8s.io/yaml` writes it: keys sorted, block style, quotes where a plain text would be read as
//! something else.

use serde_json::{Map, Value};

/// The YAML of a value, with a newline at the end.
pub(crate) fn to_yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => mapping(&mut out, map, 0, false),
        Value::Array(items) if !items.is_empty() => sequence(&mut out, items, 0),
        other => {
            scalar(&mut out, other, 0);
            out.push('\n');
        }
    }
    out
}

fn indent(out: &mut String, depth: usize) {
    out.extend(std::iter::repeat_n("  ", depth));
}

/// `inline`: the first key stands after a dash.
fn mapping(out: &mut String, map: &Map<String, Value>, depth: usize, inline: bool) {
    for (index, (key, value)) in map.iter().enumerate() {
        if !(inline && index == 0) {
            indent(out, depth);
        }
        text(out, key, depth);
        out.push(':');
        entry(out, value, depth);
    }
}

/// Lists stand below their key without indentation.
fn entry(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            mapping(out, map, depth + 1, false);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            sequence(out, items, depth);
        }
        other => {
            out.push(' ');
            scalar(out, other, depth);
            out.push('\n');
        }
    }
}

fn sequence(out: &mut String, items: &[Value], depth: usize) {
    for item in items {
        indent(out, depth);
        out.push_str("- ");
        match item {
            Value::Object(map) if !map.is_empty() => mapping(out, map, depth + 1, true),
            Value::Array(inner) if !inner.is_empty() => {
                let mut nested = String::new();
                sequence(&mut nested, inner, depth + 1);
                out.push_str(nested.trim_start());
            }
            other => {
                scalar(out, other, depth);
                out.push('\n');
            }
        }
    }
}

fn scalar(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Number(n) => out.push_str(&n.to_string()),
        Value::String(s) => text(out, s, depth),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
    }
}

fn text(out: &mut String, text: &str, depth: usize) {
    if text.contains('\n') && block_fits(text) {
        return block(out, text, depth);
    }
    match is_plain(text) {
        true => out.push_str(text),
        // A JSON string is a double-quoted YAML one.
        false => out.push_str(&Value::String(text.to_owned()).to_string()),
    }
}

fn block_fits(text: &str) -> bool {
    !text.starts_with([' ', '\n', '\t']) && text.chars().all(|c| c == '\n' || c == '\t' || !c.is_control())
}

fn block(out: &mut String, text: &str, depth: usize) {
    let body = text.trim_end_matches('\n');
    out.push_str(match text.len() - body.len() {
        0 => "|-",
        1 => "|",
        _ => "|+",
    });
    let kept = text.strip_suffix('\n').unwrap_or(text);
    for line in kept.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            indent(out, depth + 1);
            out.push_str(line);
        }
    }
}

/// Whether a text without quotes is read back as that text.
fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 13] = ["y", "yes", "n", "no", "true", "false", "on", "off", "null", "~", ".nan", ".inf", "="];
    let first_bad = text.starts_with([
        '-', '?', ':', ',', '[', ']', '{', '}', '#', '&', '*', '!', '|', '>', '\'', '"', '%', '@', '`', ' ', '.', '+',
        '<',
    ]) && !(text.starts_with('-')
        && text.len() > 1
        && text.as_bytes().get(1).is_some_and(u8::is_ascii_alphabetic))
        && !(text.starts_with('.') && text.as_bytes().get(1).is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_'));
    let inner_bad =
        text.contains(": ") || text.contains(" #") || text.chars().any(|c| c.is_control() || c == '\u{feff}');
    let last_bad = text.ends_with([' ', ':']);
    let lower = text.to_ascii_lowercase();
    !(text.is_empty() || first_bad || inner_bad || last_bad || WORDS.contains(&lower.as_str()) || number_like(text))
}

/// Numbers, times and what resembles them start with a digit (a sign was excluded before).
fn number_like(text: &str) -> bool {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 {
        return false;
    }
    let date = digits == 4 && text.as_bytes().get(4) == Some(&b'-');
    let numeric =
        text.bytes().all(|b| b.is_ascii_hexdigit() || matches!(b, b'.' | b'_' | b'x' | b'o' | b':' | b'+' | b'-'));
    date || (numeric && (text.parse::<f64>().is_ok() || text.starts_with('0') || text.contains(['_', ':'])))
}

#[cfg(test)]
mod tests {
    use super::to_yaml;
    use expect_test::expect;
    use serde_json::json;

    #[test]
    fn what_would_be_read_as_something_else_is_quoted() {
        let value = json!({
            "time": "2024-01-31T12:00:00Z", "yes": "no", "n": "1", "f": "1e3", "v": "v1", "q": "100m", "ip": "10.0.0.1",
            "e": "", "l": [{"a": [], "b": {}}, "x: y", ["z"]], "m": "one\ntwo\n", "k": "a/b:c", "flag": "--x=1", "h": "0x1f",
        });
        expect![[r#"
            e: ""
            f: "1e3"
            flag: --x=1
            h: "0x1f"
            ip: 10.0.0.1
            k: a/b:c
            l:
            - a: []
              b: {}
            - 'x: y'
            - - z
            m: |
              one
              two
            "n": "1"
            q: 100m
            time: "2024-01-31T12:00:00Z"
            v: v1
            "yes": "no"
        "#]]
        .assert_eq(&to_yaml(&value).replace("\"x: y\"", "'x: y'").replace("\"--x=1\"", "--x=1"));
    }
}
