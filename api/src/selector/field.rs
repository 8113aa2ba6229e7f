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
        let mut terms = split_terms(text);
        terms.sort_unstable();
        let terms = terms.into_iter().filter(|term| !term.is_empty());
        let requirements = terms.map(|term| requirement(text, term)).collect::<Result<_, _>>()?;
        Ok(Self { requirements })
    }

    /// Its terms, sorted by field.
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.requirements
    }

    /// The same with the fields that `name` gives another name.
    pub fn renamed(mut self, name: impl Fn(&str) -> Option<String>) -> Self {
        for requirement in &mut self.requirements {
            if let Some(other) = name(&requirement.field) {
                requirement.field = other;
            }
        }
        self
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

/// Cuts at commas that are not escaped.
fn split_terms(text: &str) -> Vec<&str> {
    let mut escaped = false;
    text.split(|c| {
        let cuts = c == ',' && !escaped;
        escaped = c == '\\' && !escaped;
        cuts
    })
    .collect()
}

fn requirement(text: &str, term: &str) -> Result<FieldRequirement, String> {
    let invalid = || format!("invalid selector: '{text}'; can't understand '{term}'");
    let (field, operator, value) = split_term(term).ok_or_else(invalid)?;
    Ok(FieldRequirement { field: field.to_owned(), equal: operator != "!=", value: unescape(value)? })
}

/// The field, the first operator, and the value as written.
fn split_term(term: &str) -> Option<(&str, &str, &str)> {
    let at = term.find(['=', '!']).filter(|_| term.contains('='))?;
    let (at, rest) = match term.get(at..)? {
        rest if rest.starts_with('!') && !rest.starts_with("!=") => {
            let next = at + 1 + term.get(at + 1..)?.find(['=', '!'])?;
            let (field, operator, value) = split_term(term.get(next..)?)?;
            return Some((term.get(..next + field.len())?, operator, value));
        }
        rest => (at, rest),
    };
    let operator = ["!=", "==", "="].into_iter().find(|operator| rest.starts_with(operator))?;
    Some((term.get(..at)?, operator, rest.strip_prefix(operator)?))
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
            ',' | '=' => return Err(format!("invalid field selector: unescaped character in value: {}", u32::from(c))),
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

#[cfg(test)]
mod tests {
    use super::FieldSelector;

    #[test]
    fn selectors_parse_match_and_fail_as_upstream() {
        let selector = FieldSelector::parse(r"spec.nodeName!=a\,b,metadata.name==x").expect("valid");
        assert_eq!(selector.to_string(), r"metadata.name=x,spec.nodeName!=a\,b");
        let object = |node: &'static str| move |field: &str| if field == "spec.nodeName" { node } else { "x" }.into();
        assert!(selector.matches(object("")) && !selector.matches(object("a,b")));
        assert_eq!(selector.exact("metadata.name"), Some("x"));
        assert_eq!(selector.exact("spec.nodeName"), None);
        let cases = [
            ("metadata.name", "invalid selector: 'metadata.name'; can't understand 'metadata.name'"),
            ("a!b", "invalid selector: 'a!b'; can't understand 'a!b'"),
            ("a=b=c", "invalid field selector: unescaped character in value: 61"),
            (r"a=b\c", r"invalid field selector: invalid escape sequence: \c"),
            (r"a=b\", r"invalid field selector: invalid escape sequence: \"),
        ];
        for (text, error) in cases {
            assert_eq!(FieldSelector::parse(text).err().as_deref(), Some(error), "{text}");
        }
        assert!(FieldSelector::parse("").expect("valid").is_empty());
        assert_eq!(FieldSelector::parse("=a").expect("valid").requirements()[0].field, "");
        assert_eq!(FieldSelector::parse("a!b=c").expect("valid").requirements()[0].field, "a!b");
    }
}
