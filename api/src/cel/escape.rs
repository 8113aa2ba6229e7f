//! Names of properties in expressions (`k8s.io/apiserver/pkg/cel/escaping.go`).

use super::parse::RESERVED;

/// Words with a meaning of their own, which are reserved too.
const WORDS: [&str; 4] = ["true", "false", "null", "in"];

/// The identifier of a property; `None` where it has none and expressions cannot reach it.
pub fn escape(name: &str) -> Option<String> {
    if WORDS.contains(&name) || RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/')) {
        return None;
    }
    let escaped = name.replace("__", "\0");
    let escaped = escaped.replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__");
    Some(escaped.replace('\0', "__underscores__"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_escaped_as_upstream_does() {
        let cases = [
            ("a", Some("a")),
            ("namespace", Some("__namespace__")),
            ("a__b", Some("a__underscores__b")),
            ("a-b.c/d", Some("a__dash__b__dot__c__slash__d")),
            ("1a", None),
            ("a$", None),
            ("", None),
        ];
        for (name, want) in cases {
            assert_eq!(super::escape(name).as_deref(), want, "{name}");
        }
    }
}
