//! Field selectors (`k8s.io/apimachinery/pkg/fields`): `metadata.name=x,status.phase!=Running`.

use std::fmt;

/// One term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    /// The field's path, such as `spec.nodeName`.
    pub field: String,
    /// Whether the value must be this (`=`, `==`) or must not (`!=`).
    pub equal: bool,
    /// The value.
    pub value: String,
}

/// All terms must hold; without terms it selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    requirements: Vec<FieldRequirement>,
}

impl FieldSelector {
    /// Reads a selector. The error is upstream's text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let terms = split_terms(text).into_iter().filter(|term| !term.is_empty());
        let requirements = terms.map(|term| requirement(text, &term)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { requirements: sorted(requirements) })
    }

    /// Its terms, sorted by field.
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.requirements
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether all terms hold; `value` gives a field's value, the empty string where it has none.
    pub fn matches<'a>(&self, value: impl Fn(&str) -> std::borrow::Cow<'a, str>) -> bool {
        self.requirements.iter().all(|r| (value(&r.field) == r.value) == r.equal)
    }

    /// The one value a field must have, if the selector says so.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.requirements.iter().find(|r| r.field == field && r.equal).map(|r| r.value.as_str())
    }
}

fn sorted(mut requirements: Vec<FieldRequirement>) -> Vec<FieldRequirement> {
    requirements.sort_by(|a, b| a.field.cmp(&b.field));
    requirements
}

/// Cuts at commas that are not escaped.
fn split_terms(text: &str) -> Vec<String> {
    let mut terms = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        match c {
            ',' if !escaped => terms.push(String::new()),
            _ => terms.last_mut().into_iter().for_each(|term| term.push(c)),
        }
        escaped = c == '\\' && !escaped;
    }
    terms
}

fn requirement(text: &str, term: &str) -> Result<FieldRequirement, String> {
    let invalid = || format!("invalid selector: '{text}'; can't understand '{term}'");
    let (field, operator, value) = split_term(term).ok_or_else(invalid)?;
    Ok(FieldRequirement { field: field.to_owned(), equal: operator != "!=", value: unescape(value)? })
}

fn split_term(term: &str) -> Option<(&str, &str, &str)> {
    let mut escaped = false;
    for (at, c) in term.char_indices() {
        if !escaped {
            let rest = term.get(at..).unwrap_or_default();
            for operator in ["!=", "==", "="] {
                if let Some(value) = rest.strip_prefix(operator) {
                    return Some((term.get(..at).unwrap_or_default(), operator, value));
                }
            }
        }
        escaped = c == '\\' && !escaped;
    }
    None
}

fn unescape(value: &str) -> Result<String, String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(next @ ('\\' | ',' | '=')) => out.push(next),
                Some(next) => return Err(format!("invalid field selector: invalid escape sequence: \\{next}")),
                None => return Err("invalid field selector: invalid escape sequence: \\".into()),
            },
            ',' | '=' => return Err(format!("invalid field selector: unescaped character in value: {c}")),
            c => out.push(c),
        }
    }
    Ok(out)
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=")
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operator = |r: &FieldRequirement| if r.equal { "=" } else { "!=" };
        let terms = self.requirements.iter().map(|r| format!("{}{}{}", r.field, operator(r), escape(&r.value)));
        f.write_str(&terms.collect::<Vec<_>>().join(","))
    }
}
