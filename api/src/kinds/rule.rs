//! Rules of a kind as data: where a value stands, and what it must be.
//!
//! A place is a dotted path; `items[*]` is every item of a list, and `spec!` a part that Go has as a plain struct, so
//! that what must be in it must be there also where the part itself is not.

use serde_json::Value;

use super::Change;
use crate::Document;
use crate::field::{Error, Errors, Path};
use crate::tree::{get, list};
use crate::validation::labels::label_selector;
use crate::validation::text::Messages;
use crate::validation::{address, invalid_each, same};

/// A place and what stands there.
pub(super) struct Rule(pub &'static str, pub Must);

/// What a value must be.
#[derive(Clone, Copy)]
pub(super) enum Must {
    /// There, and neither an empty text nor an empty list; with this detail.
    Be(&'static str),
    /// There, and one of these.
    Choose(&'static [&'static str]),
    /// One of these, where there is a value.
    Within(&'static [&'static str]),
    /// There, and a text without fault.
    Name(fn(&str) -> Messages),
    /// A text without fault, where there is a value.
    Read(fn(&str) -> Messages),
    /// A text without fault, where it is not empty.
    Maybe(fn(&str) -> Messages),
    /// At least that number, where there is one.
    AtLeast(i64, &'static str),
    /// At least that number; absent is nought.
    Number(i64, &'static str),
    /// A `metav1.LabelSelector`.
    Selector,
    /// A network.
    Cidr,
    /// What a function says of a value that is there.
    Pass(fn(&Value, &Path) -> Errors),
    /// What a function says, also of what is not there.
    Hold(fn(&Value, &Path) -> Errors),
}

/// All that is wrong by these rules.
pub(super) fn check(rules: &[Rule], object: &Document) -> Errors {
    let mut errors = Errors::new();
    for Rule(at, must) in rules {
        walk(object.value(), at, &Path::default(), *must, &mut errors);
    }
    errors
}

/// Fields (dotted paths) that an update may not change. With `told`, the error shows the new value; declared validation
/// does not.
pub(super) fn keep(fields: &[&str], told: bool, new: &Document, change: &Change<'_>) -> Errors {
    let Some(old) = change.old else { return Errors::new() };
    let changed = |field: &&&str| {
        let pointer = format!("/{}", field.replace('.', "/"));
        !same(new.at(&pointer), old.at(&pointer))
    };
    let error = |field: &&str| {
        let value = new.at(&format!("/{}", field.replace('.', "/"))).filter(|_| told);
        Error::invalid(Path::new(field), value.cloned().unwrap_or_default(), "field is immutable")
    };
    fields.iter().filter(changed).map(error).collect()
}

fn walk(value: &Value, at: &str, path: &Path, must: Must, errors: &mut Errors) {
    let (step, rest) = at.split_once('.').unwrap_or((at, ""));
    let mut descend = |value: Option<&Value>, path: &Path| match (rest, value) {
        ("", value) => errors.extend(must.check(value, path)),
        (rest, Some(value)) => walk(value, rest, path, must, errors),
        (_, None) => {}
    };
    if let Some(name) = step.strip_suffix("[*]") {
        let path = path.child(name);
        list(value, name).iter().enumerate().for_each(|(i, item)| descend(Some(item), &path.index(i)));
    } else if let Some(name) = step.strip_suffix('!') {
        descend(Some(get(value, name).unwrap_or(&Value::Null)), &path.child(name));
    } else {
        descend(get(value, step), &path.child(step));
    }
}

impl Must {
    fn check(self, value: Option<&Value>, path: &Path) -> Errors {
        let text = value.and_then(Value::as_str);
        let number = value.and_then(Value::as_i64);
        match (self, value) {
            (Self::Be(detail), value) if value.is_none_or(nothing) => vec![Error::required(path.clone(), detail)],
            (Self::Choose(_) | Self::Name(_), value) if value.is_none_or(nothing) => {
                vec![Error::required(path.clone(), "")]
            }
            (Self::Choose(allowed) | Self::Within(allowed), Some(value)) => {
                let known = text.is_some_and(|text| allowed.contains(&text));
                if known { Errors::new() } else { vec![Error::not_supported(path.clone(), value.clone(), allowed)] }
            }
            (Self::Name(check) | Self::Read(check), Some(_)) => faults(text.unwrap_or_default(), check, path),
            (Self::Maybe(check), _) => {
                text.filter(|t| !t.is_empty()).map_or_else(Errors::new, |t| faults(t, check, path))
            }
            (Self::AtLeast(low, detail), Some(_)) => least(number, low, detail, path),
            (Self::Number(low, detail), _) => least(Some(number.unwrap_or_default()), low, detail, path),
            (Self::Selector, Some(selector)) => label_selector(Some(selector), path),
            (Self::Cidr, Some(_)) => address::cidr(text.unwrap_or_default(), path),
            (Self::Pass(check), Some(value)) => check(value, path),
            (Self::Hold(check), value) => check(value.unwrap_or(&Value::Null), path),
            _ => Errors::new(),
        }
    }
}

fn nothing(value: &Value) -> bool {
    value.is_null() || value == "" || value.as_array().is_some_and(Vec::is_empty)
}

fn faults(text: &str, check: fn(&str) -> Messages, path: &Path) -> Errors {
    invalid_each(path, text, check(text))
}

fn least(number: Option<i64>, low: i64, detail: &str, path: &Path) -> Errors {
    let bad = number.filter(|n| *n < low);
    bad.map(|n| Error::invalid(path.clone(), n, detail)).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::{Must, Rule, check};
    use crate::Document;
    use crate::validation::text::label;
    use serde_json::json;

    #[test]
    fn each_rule_finds_its_place() {
        let rules = [
            Rule("spec!.name", Must::Name(label)),
            Rule("spec!.items[*].kind", Must::Choose(&["A", "B"])),
            Rule("spec!.items[*].size", Must::AtLeast(1, "must be positive")),
            Rule("spec!.extra.text", Must::Be("say it")),
        ];
        let told = |spec: serde_json::Value| {
            let object = Document::new(json!({ "spec": spec })).unwrap_or_default();
            check(&rules, &object).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(check(&rules, &Document::default()).len(), 1);
        assert_eq!(told(json!({"name": "a", "items": [{"kind": "A"}]})), Vec::<String>::new());
        assert_eq!(
            told(json!({"name": "a", "items": [{"kind": "B"}, {"kind": "C", "size": 0}], "extra": {}})),
            [
                r#"spec.items[1].kind: Unsupported value: "C": supported values: "A", "B""#,
                "spec.items[1].size: Invalid value: 0: must be positive",
                "spec.extra.text: Required value: say it"
            ]
        );
    }
}
