//! kubectl's dialect of JSONPath: `{.items[*].metadata.name}`, `{range}`…`{end}`, filters, quotes.

use anyhow::{Result, bail};
use serde_json::Value;

/// A template: text and expressions.
#[derive(Debug)]
pub(crate) struct Template(Vec<Piece>);

#[derive(Debug)]
enum Piece {
    Text(String),
    Path(Vec<Step>),
    Range(Vec<Step>, Vec<Piece>),
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// `$`: back to the whole document.
    Root,
    Field(String),
    Index(i64),
    /// `[from:to:step]`.
    Slice(Option<i64>, Option<i64>, i64),
    /// `*` or `[*]`.
    All,
    /// `..name`: at any depth.
    Anywhere,
    /// `['a','b']`.
    Union(Vec<Step>),
    Filter(Vec<Step>, Compare, Operand),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Compare {
    Exists,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    None,
    Literal(Value),
    Path(Vec<Step>),
}

impl Template {
    /// Reads a template. One without braces is one expression, as for `custom-columns` and `--sort-by`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let relaxed = if text.contains('{') { text.to_owned() } else { format!("{{{}}}", dotted(text)) };
        let mut tokens = tokens(&relaxed)?.into_iter().peekable();
        let pieces = pieces(&mut tokens, false)?;
        Ok(Self(pieces))
    }

    /// The text for a document.
    pub(crate) fn render(&self, document: &Value) -> Result<String> {
        let mut out = String::new();
        render(&self.0, document, document, &mut out)?;
        Ok(out)
    }

    /// The values of the first expression.
    pub(crate) fn values<'a>(&self, document: &'a Value) -> Vec<&'a Value> {
        self.0
            .iter()
            .find_map(|p| if let Piece::Path(path) = p { Some(find(path, document, document)) } else { None })
            .unwrap_or_default()
    }
}

/// `metadata.name` and `.metadata.name` alike.
fn dotted(text: &str) -> String {
    if text.starts_with(['.', '[', '$', '@']) { text.into() } else { format!(".{text}") }
}

enum Token {
    Text(String),
    Expression(String),
}

/// Splits a template at its braces; braces inside quotes do not count.
fn tokens(text: &str) -> Result<Vec<Token>> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        let (before, after) = rest.split_at(open);
        if !before.is_empty() {
            out.push(Token::Text(before.into()));
        }
        let inner = after.get(1..).unwrap_or_default();
        let Some(close) = closing(inner) else { bail!("unclosed action") };
        out.push(Token::Expression(inner.get(..close).unwrap_or_default().trim().into()));
        rest = inner.get(close + 1..).unwrap_or_default();
    }
    if !rest.is_empty() {
        out.push(Token::Text(rest.into()));
    }
    Ok(out)
}

fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '}') => return Some(at),
            (None, _) => {}
        }
    }
    None
}

fn pieces(tokens: &mut std::iter::Peekable<std::vec::IntoIter<Token>>, inside: bool) -> Result<Vec<Piece>> {
    let mut out = Vec::new();
    while let Some(token) = tokens.next() {
        match token {
            Token::Text(text) => out.push(Piece::Text(text)),
            Token::Expression(e) if e == "end" => {
                if !inside {
                    bail!("not in range, nothing to end");
                }
                return Ok(out);
            }
            Token::Expression(e) => match e.strip_prefix("range ") {
                Some(path) => out.push(Piece::Range(steps(path.trim())?, pieces(tokens, true)?)),
                None if e.starts_with(['"', '\'']) => out.push(Piece::Text(unquote(&e))),
                None => out.push(Piece::Path(steps(&e)?)),
            },
        }
    }
    if inside {
        bail!("range is not closed with {{end}}");
    }
    Ok(out)
}

/// A quoted text with Go's escapes.
fn unquote(quoted: &str) -> String {
    let inner = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
    inner.replace("\\n", "\n").replace("\\t", "\t").replace("\\\"", "\"").replace("\\'", "'").replace("\\\\", "\\")
}

fn steps(text: &str) -> Result<Vec<Step>> {
    let mut out = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('$') {
            out.push(Step::Root);
            rest = after;
        } else if let Some(after) = rest.strip_prefix('@') {
            rest = after;
        } else if let Some(after) = rest.strip_prefix("..") {
            out.push(Step::Anywhere);
            rest = field(after, &mut out);
        } else if let Some(after) = rest.strip_prefix('.') {
            rest = field(after, &mut out);
        } else if let Some(after) = rest.strip_prefix('[') {
            let Some(end) = bracket_end(after) else { bail!("unterminated array") };
            out.push(bracket(after.get(..end).unwrap_or_default().trim())?);
            rest = after.get(end + 1..).unwrap_or_default();
        } else {
            let before = rest.len();
            rest = field(rest, &mut out);
            if rest.len() == before {
                bail!("unrecognized character in action: {:?}", rest.chars().next().unwrap_or_default());
            }
        }
    }
    Ok(out)
}

/// Reads a field's name, in which `\.` is a dot; returns what follows.
fn field<'a>(text: &'a str, out: &mut Vec<Step>) -> &'a str {
    let mut name = String::new();
    let mut escaped = false;
    let mut end = text.len();
    for (at, c) in text.char_indices() {
        if escaped {
            name.push(c);
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if matches!(c, '.' | '[' | ' ' | '$' | '=' | '!' | '<' | '>' | ')' | ']') {
            end = at;
            break;
        } else {
            name.push(c);
        }
    }
    match name.as_str() {
        "" => {}
        "*" => out.push(Step::All),
        _ => out.push(Step::Field(name)),
    }
    text.get(end..).unwrap_or_default()
}

fn bracket_end(text: &str) -> Option<usize> {
    let mut depth = 0;
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            (None, _) => {}
        }
    }
    None
}

fn bracket(text: &str) -> Result<Step> {
    if let Some(filter) = text.strip_prefix("?(").and_then(|t| t.strip_suffix(')')) {
        return condition(filter.trim());
    }
    let mut parts: Vec<Step> = Vec::new();
    for part in text.split(',').map(str::trim) {
        parts.push(match part {
            "*" => Step::All,
            quoted if quoted.starts_with(['"', '\'']) => Step::Field(unquote(quoted)),
            slice if slice.contains(':') => slice_of(slice)?,
            number => match number.parse() {
                Ok(index) => Step::Index(index),
                Err(_) => bail!("invalid array index {number}"),
            },
        });
    }
    Ok(if parts.len() == 1 { parts.remove(0) } else { Step::Union(parts) })
}

fn slice_of(text: &str) -> Result<Step> {
    let mut parts = text.split(':').map(|p| if p.trim().is_empty() { Ok(None) } else { p.trim().parse().map(Some) });
    let mut next = || parts.next().transpose().map(Option::flatten);
    match (next(), next(), next()) {
        (Ok(from), Ok(to), Ok(step)) => Ok(Step::Slice(from, to, step.unwrap_or(1))),
        _ => bail!("invalid array index {text}"),
    }
}

fn condition(text: &str) -> Result<Step> {
    const OPERATORS: [(&str, Compare); 6] = [
        ("==", Compare::Equal),
        ("!=", Compare::NotEqual),
        ("<=", Compare::LessOrEqual),
        (">=", Compare::GreaterOrEqual),
        ("<", Compare::Less),
        (">", Compare::Greater),
    ];
    let found =
        OPERATORS.iter().filter_map(|(sign, op)| Some((text.find(sign)?, sign, *op))).min_by_key(|(at, ..)| *at);
    let Some((at, sign, operator)) = found else {
        return Ok(Step::Filter(steps(text)?, Compare::Exists, Operand::None));
    };
    let left = steps(text.get(..at).unwrap_or_default().trim())?;
    let right = text.get(at + sign.len()..).unwrap_or_default().trim();
    let operand = match right {
        quoted if quoted.starts_with(['"', '\'']) => Operand::Literal(unquote(quoted).into()),
        path if path.starts_with(['@', '$', '.']) => Operand::Path(steps(path)?),
        literal => Operand::Literal(serde_json::from_str(literal).unwrap_or_else(|_| literal.into())),
    };
    Ok(Step::Filter(left, operator, operand))
}

fn render(pieces: &[Piece], root: &Value, here: &Value, out: &mut String) -> Result<()> {
    for piece in pieces {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Path(path) => {
                let shown: Vec<String> = find(path, root, here).into_iter().map(show).collect();
                out.push_str(&shown.join(" "));
            }
            Piece::Range(path, inner) => {
                for value in find(path, root, here) {
                    render(inner, root, value, out)?;
                }
            }
        }
    }
    Ok(())
}

/// A value as text: strings bare, the rest as JSON.
pub(crate) fn show(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn find<'a>(path: &[Step], root: &'a Value, here: &'a Value) -> Vec<&'a Value> {
    let mut found = vec![here];
    for step in path {
        found = found.into_iter().flat_map(|value| follow(step, root, value)).collect();
    }
    found
}

fn follow<'a>(step: &Step, root: &'a Value, value: &'a Value) -> Vec<&'a Value> {
    match step {
        Step::Root => vec![root],
        Step::Field(name) => value.get(name.as_str()).into_iter().collect(),
        Step::Index(index) => at(value, *index).into_iter().collect(),
        Step::Slice(from, to, by) => slice(value, *from, *to, *by),
        Step::All => children(value),
        Step::Anywhere => {
            let mut all = vec![value];
            children(value).into_iter().for_each(|child| all.extend(follow(step, root, child)));
            all
        }
        Step::Union(steps) => steps.iter().flat_map(|step| follow(step, root, value)).collect(),
        Step::Filter(left, operator, right) => {
            let keep = |item: &&'a Value| holds(left, *operator, right, root, item);
            children(value).into_iter().filter(keep).collect()
        }
    }
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(list) => list.iter().collect(),
        Value::Object(map) => map.values().collect(),
        _ => Vec::new(),
    }
}

fn at(value: &Value, index: i64) -> Option<&Value> {
    let list = value.as_array()?;
    let length = i64::try_from(list.len()).ok()?;
    let index = if index < 0 { index + length } else { index };
    list.get(usize::try_from(index).ok()?)
}

fn slice(value: &Value, from: Option<i64>, to: Option<i64>, by: i64) -> Vec<&Value> {
    let Some(list) = value.as_array() else { return Vec::new() };
    let length = i64::try_from(list.len()).unwrap_or(i64::MAX);
    let place = |index: i64| usize::try_from(if index < 0 { index + length } else { index }).unwrap_or_default();
    let (from, to) = (place(from.unwrap_or(0)), place(to.unwrap_or(length)).min(list.len()));
    let step = usize::try_from(by).unwrap_or(1).max(1);
    list.get(from..to.max(from)).unwrap_or_default().iter().step_by(step).collect()
}

fn holds(left: &[Step], operator: Compare, right: &Operand, root: &Value, item: &Value) -> bool {
    let found = find(left, root, item);
    let Some(value) = found.first() else { return false };
    let other = match right {
        Operand::None => return true,
        Operand::Literal(literal) => literal,
        Operand::Path(path) => match find(path, root, item).first() {
            Some(value) => *value,
            None => return false,
        },
    };
    let order = match (value.as_f64(), other.as_f64()) {
        (Some(a), Some(b)) => a.partial_cmp(&b),
        _ => Some(show(value).cmp(&show(other))),
    };
    match (operator, order) {
        (Compare::Exists, _) => true,
        (Compare::Equal, Some(order)) => order.is_eq(),
        (Compare::NotEqual, Some(order)) => order.is_ne(),
        (Compare::Less, Some(order)) => order.is_lt(),
        (Compare::LessOrEqual, Some(order)) => order.is_le(),
        (Compare::Greater, Some(order)) => order.is_gt(),
        (Compare::GreaterOrEqual, Some(order)) => order.is_ge(),
        (_, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::Template;
    use serde_json::json;

    #[test]
    fn expressions_find_what_kubectl_finds() {
        let document = json!({
            "items": [
                {"metadata": {"name": "a", "labels": {"x.y/z": "1"}}, "n": 1, "status": {"conditions": [{"type": "Ready", "status": "True"}]}},
                {"metadata": {"name": "b"}, "n": 2},
                {"metadata": {"name": "c"}, "n": 3},
            ],
        });
        let cases = [
            ("{.items[*].metadata.name}", "a b c"),
            (".items[0].metadata.name", "a"),
            ("items[-1].metadata.name", "c"),
            ("{.items[0:2].n}", "1 2"),
            ("{range .items[*]}{.metadata.name}{\"\\t\"}{.n}{\"\\n\"}{end}", "a\t1\nb\t2\nc\t3\n"),
            ("{.items[?(@.n>1)].metadata.name}", "b c"),
            ("{.items[?(@.metadata.name==\"b\")].n}", "2"),
            ("{.items[0].status.conditions[?(@.type==\"Ready\")].status}", "True"),
            ("{.items[0].metadata.labels.x\\.y/z}", "1"),
            ("{.items[0].metadata.labels['x.y/z']}", "1"),
            ("{..name}", "a b c"),
            ("{.items[0].metadata}", "{\"labels\":{\"x.y/z\":\"1\"},\"name\":\"a\"}"),
            ("{.nope}-", "-"),
        ];
        for (template, want) in cases {
            let rendered = Template::parse(template).and_then(|t| t.render(&document));
            assert_eq!(rendered.ok().as_deref(), Some(want), "{template}");
        }
        for bad in ["{.a", "{range .a}", "{end}", "{.a[x]}"] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }
}
