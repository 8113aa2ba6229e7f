//! Which texts are names, labels, keys (`k8s.io/apimachinery/pkg/util/validation`).
//!
//! Each function returns what is wrong in upstream's words; an empty list means the text is good.

/// What is wrong with a text.
pub type Messages = Vec<String>;

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const QUALIFIED: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

/// The longest DNS label.
pub const LABEL_MAX: usize = 63;
/// The longest DNS name.
pub const SUBDOMAIN_MAX: usize = 253;

/// "must be no more than {max} characters".
pub fn max_length(max: usize) -> String {
    format!("must be no more than {max} characters")
}

/// "must be no more than {max} bytes": what upstream says of labels.
fn max_bytes(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

/// "must be between {low} and {high}, inclusive".
pub fn between(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

fn pattern(message: &str, regex: &str, examples: &[&str]) -> String {
    let quoted: Vec<String> = examples.iter().map(|e| format!("'{e}', ")).collect();
    format!("{message} (e.g. {}regex used for validation is '{regex}')", quoted.join(" or "))
}

fn too_long(text: &str, max: usize) -> Messages {
    if text.len() > max { vec![max_length(max)] } else { Vec::new() }
}

/// Whether a text has at least one character, only those allowed, and starts and ends with those of `edge`.
fn framed(text: &str, edge: impl Fn(u8) -> bool, inner: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(|b| edge(*b)) && bytes.last().is_some_and(|b| edge(*b)) && bytes.iter().all(|b| inner(*b))
}

fn lower(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn is_label(text: &str) -> bool {
    framed(text, lower, |b| lower(b) || b == b'-')
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

/// RFC 1123 label.
pub fn label(text: &str) -> Messages {
    let mut messages = too_long(text, LABEL_MAX);
    if !is_label(text) {
        messages.push(if is_subdomain(text) {
            "must not contain dots".into()
        } else {
            pattern(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
                 and end with an alphanumeric character",
                LABEL,
                &["my-name", "123-abc"],
            )
        });
    }
    messages
}

/// RFC 1123 subdomain.
pub fn subdomain(text: &str) -> Messages {
    let mut messages = too_long(text, SUBDOMAIN_MAX);
    if !is_subdomain(text) {
        messages.push(pattern(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
             start and end with an alphanumeric character",
            SUBDOMAIN,
            &["example.com"],
        ));
    }
    messages
}

/// RFC 1123 subdomain after a leading `*.`.
pub fn wildcard_subdomain(text: &str) -> Messages {
    let mut messages = too_long(text, SUBDOMAIN_MAX);
    if !text.strip_prefix("*.").is_some_and(is_subdomain) {
        messages.push(pattern(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist \
             of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            &format!(r"\*\.{SUBDOMAIN}"),
            &["*.example.com"],
        ));
    }
    messages
}

/// RFC 1123 subdomain in any case, as names of drivers are.
pub fn subdomain_of_any_case(text: &str) -> Messages {
    let mut messages = too_long(text, SUBDOMAIN_MAX);
    if !is_subdomain(&text.to_lowercase()) {
        messages.push(pattern(
            "an RFC 1123 subdomain must consist of alphanumeric characters, '-' or '.', and must start and end with \
             an alphanumeric character",
            SUBDOMAIN,
            &["Example.com"],
        ));
    }
    messages
}

/// RFC 1035 label: starts with a letter.
pub fn label_1035(text: &str) -> Messages {
    let mut messages = too_long(text, LABEL_MAX);
    if !is_label(text) || !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        messages.push(pattern(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
             character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    messages
}

fn is_qualified_part(text: &str) -> bool {
    framed(text, |b| b.is_ascii_alphanumeric(), |b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

const QUALIFIED_MESSAGE: &str =
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

/// A label key: a name of up to 63 characters, with an optional subdomain and slash before it.
pub fn qualified_name(text: &str) -> Messages {
    let regex = || pattern(QUALIFIED_MESSAGE, QUALIFIED, &["MyName", "my.name", "123-abc"]);
    let mut messages = Messages::new();
    let name = match text.split('/').collect::<Vec<_>>().as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                messages.push("prefix part must be non-empty".into());
            } else {
                let bytes = |m: String| m.replace(&max_length(SUBDOMAIN_MAX), &max_bytes(SUBDOMAIN_MAX));
                messages.extend(subdomain(prefix).into_iter().map(|m| format!("prefix part {}", bytes(m))));
            }
            *name
        }
        _ => {
            let hint = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!("a valid label key {} {hint}", regex())];
        }
    };
    if name.is_empty() {
        messages.push("name part must be non-empty".into());
    } else if name.len() > LABEL_MAX {
        messages.push(format!("name part {}", max_bytes(LABEL_MAX)));
    }
    if !is_qualified_part(name) {
        messages.push(format!("name part {}", regex()));
    }
    messages
}

/// A label value: empty, or like the name part of a key.
pub fn label_value(text: &str) -> Messages {
    let mut messages = if text.len() > LABEL_MAX { vec![max_bytes(LABEL_MAX)] } else { Messages::new() };
    if !text.is_empty() && !is_qualified_part(text) {
        messages.push(pattern(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
             start and end with an alphanumeric character",
            &format!("({QUALIFIED})?"),
            &["MyValue", "my_value", "12345"],
        ));
    }
    messages
}

/// What fits a path segment. A `prefix` may also be `.` or `..`.
pub fn path_segment(text: &str, prefix: bool) -> Messages {
    if !prefix && (text == "." || text == "..") {
        return vec![format!("may not be '{text}'")];
    }
    ["/", "%"].iter().filter(|bad| text.contains(**bad)).map(|bad| format!("may not contain '{bad}'")).collect()
}

/// An environment variable's name: printable ASCII besides `=`.
pub fn env_name(text: &str) -> Messages {
    let mut messages = Messages::new();
    if text.is_empty() {
        messages.push("environment variable name must be non-empty".into());
    }
    if !text.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
        messages.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='".into(),
        );
    }
    messages
}

/// A key of a ConfigMap or Secret.
pub fn config_key(text: &str) -> Messages {
    let mut messages = too_long(text, SUBDOMAIN_MAX);
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        messages.push(pattern(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    messages.extend(match text {
        "." => Some("must not be '.'".to_owned()),
        ".." => Some("must not be '..'".to_owned()),
        _ if text.starts_with("..") => Some("must not start with '..'".to_owned()),
        _ => None,
    });
    messages
}

/// The name of a port (RFC 6335, lower case).
pub fn port_name(text: &str) -> Messages {
    let mut messages = too_long(text, 15);
    if text.is_empty() || !text.bytes().all(|b| lower(b) || b == b'-') {
        messages.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !text.bytes().any(|b| b.is_ascii_lowercase()) {
        messages.push("must contain at least one letter (a-z)".into());
    }
    if text.contains("--") {
        messages.push("must not contain consecutive hyphens".into());
    }
    if text.starts_with('-') || text.ends_with('-') {
        messages.push("must not begin or end with a hyphen".into());
    }
    messages
}

/// A port's number.
pub fn port_number(port: i64) -> Messages {
    if (1..=65535).contains(&port) { Vec::new() } else { vec![between(1, 65535)] }
}

/// `25%`.
pub fn percent(text: &str) -> Messages {
    let digits = text.strip_suffix('%').unwrap_or_default();
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Vec::new();
    }
    let message = "a valid percent string must be a numeric string followed by an ending '%'";
    vec![pattern(message, "[0-9]+%", &["1%", "93%"])]
}

/// The name of an HTTP header.
pub fn http_header(text: &str) -> Messages {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Vec::new();
    }
    let message = "a valid HTTP header must consist of alphanumeric characters or '-'";
    vec![pattern(message, "[-A-Za-z0-9]+", &["X-Header-Name"])]
}

/// A user's or group's id on Linux.
pub fn numeric_id(id: i64) -> Messages {
    let max = i64::from(i32::MAX);
    if (0..=max).contains(&id) { Vec::new() } else { vec![between(0, max)] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_others_as_kubernetes_does() {
        type Check = fn(&str) -> Messages;
        let cases: [(Check, &[&str], &[&str]); 8] = [
            (label, &["a", "0-a", "a0"], &["", "-a", "a-", "A", "a.b", "a_b", "é"]),
            (subdomain, &["a.b", "0.1"], &["", ".", "a..b", "a.", "A.b", "a.-b"]),
            (label_1035, &["a", "a-0"], &["0a", "", "a-"]),
            (qualified_name, &["a", "A_b.c", "x.y/Z"], &["", "/a", "a/", "a/b/c", "X/a", "-a", "a-"]),
            (label_value, &["", "a", "A_1.b"], &["-", "a ", "é"]),
            (env_name, &["A", "a b", "0"], &["", "a=b", "é", "\n"]),
            (config_key, &["a", ".a", "A_-."], &["", ".", "..", "..a", "a/b"]),
            (port_name, &["http", "a-1"], &["", "80", "a--b", "-a", "abcdefghijklmnop", "A"]),
        ];
        for (number, (check, good, bad)) in cases.into_iter().enumerate() {
            good.iter().for_each(|text| assert_eq!(check(text), Messages::new(), "{number} {text}"));
            bad.iter().for_each(|text| assert_ne!(check(text), Messages::new(), "{number} {text}"));
        }
    }
}
