//! The JSON paths of printer columns and scale: `.spec.a['b.c'][0]`, `.items[*].x`,
//! `.status.conditions[?(@.type=="Ready")].status`.

use serde_json::Value;

/// A path.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Path(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Key(String),
    Index(i64),
    All,
    /// The items whose field has this text.
    Where(Vec<String>, String),
    /// What we cannot read leads nowhere.
    Unknown,
}

impl Path {
    /// Reads a path; parts that are not understood lead nowhere.
    pub(super) fn parse(text: &str) -> Self {
        let mut steps = Vec::new();
        let mut rest = text.trim().trim_start_matches('{').trim_end_matches('}').trim_start_matches('$');
        while !rest.is_empty() {
            let (step, after) = match rest.strip_prefix('[') {
                Some(inside) => bracket(inside),
                None => key(rest.strip_prefix('.').unwrap_or(rest)),
            };
            steps.extend(step);
            rest = after;
        }
        Self(steps)
    }

    /// All values there.
    pub(super) fn values<'a>(&self, root: &'a Value) -> Vec<&'a Value> {
        self.0.iter().fold(vec![root], |at, step| at.into_iter().flat_map(|value| follow(step, value)).collect())
    }
}

/// A key up to the next dot or bracket; `\.` is a dot in it.
fn key(text: &str) -> (Option<Step>, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '\\' => name.extend(chars.next().map(|(_, escaped)| escaped)),
            '.' | '[' => return (step_of(name), text.get(at..).unwrap_or_default()),
            other => name.push(other),
        }
    }
    (step_of(name), "")
}

fn step_of(name: String) -> Option<Step> {
    match name.as_str() {
        "" => None,
        "*" => Some(Step::All),
        _ => Some(Step::Key(name)),
    }
}

fn bracket(inside: &str) -> (Option<Step>, &str) {
    let Some((content, rest)) = inside.split_once(']') else { return (Some(Step::Unknown), "") };
    let unquoted = content.trim().trim_matches(['\'', '"']);
    let step = match content.trim() {
        "*" => Step::All,
        quoted if quoted.starts_with(['\'', '"']) => Step::Key(unquoted.into()),
        filter if filter.starts_with("?(") => condition(filter),
        number => number.parse().map_or(Step::Unknown, Step::Index),
    };
    (Some(step), rest)
}

fn condition(filter: &str) -> Step {
    let inner = filter.trim_start_matches("?(").trim_end_matches(')').trim();
    let parts = inner.strip_prefix("@.").and_then(|inner| inner.split_once("=="));
    match parts {
        Some((field, value)) => {
            let field = field.trim().split('.').map(str::to_owned).collect();
            Step::Where(field, value.trim().trim_matches(['\'', '"']).to_owned())
        }
        None => Step::Unknown,
    }
}

fn follow<'a>(step: &Step, value: &'a Value) -> Vec<&'a Value> {
    match step {
        Step::Key(key) => value.get(key).into_iter().collect(),
        Step::Index(index) => item(value, *index).into_iter().collect(),
        Step::All => match value {
            Value::Array(items) => items.iter().collect(),
            Value::Object(map) => map.values().collect(),
            _ => Vec::new(),
        },
        Step::Where(field, wanted) => {
            let items = value.as_array().into_iter().flatten();
            items.filter(|item| is(field, wanted, item)).collect()
        }
        Step::Unknown => Vec::new(),
    }
}

fn item(value: &Value, index: i64) -> Option<&Value> {
    let items = value.as_array()?;
    let index = if index < 0 { i64::try_from(items.len()).ok()? + index } else { index };
    items.get(usize::try_from(index).ok()?)
}

fn is(field: &[String], wanted: &str, item: &Value) -> bool {
    let found = field.iter().try_fold(item, |at, key| at.get(key));
    found.is_some_and(|v| v.as_str().map_or_else(|| *v == wanted, |text| text == wanted))
}

#[cfg(test)]
mod tests {
    use super::Path;
    use serde_json::json;

    #[test]
    fn paths_of_printer_columns() {
        let object =
            json!({"a": {"b.c": [1, 2]}, "s": [{"type": "Ready", "status": "True"}, {"type": "X", "status": "No"}]});
        for (path, want) in [
            (".a['b.c'][1]", json!([2])),
            (".a.b\\.c[-1]", json!([2])),
            (".s[?(@.type==\"Ready\")].status", json!(["True"])),
            (".s[*].status", json!(["True", "No"])),
            (".none.x", json!([])),
            (".s[", json!([])),
        ] {
            assert_eq!(json!(Path::parse(path).values(&object)), want, "{path}");
        }
    }
}
