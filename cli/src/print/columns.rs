//! `-o custom-columns=NAME:.metadata.name,...`.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::jsonpath::{Template, show};

/// Titles and where their values stand.
#[derive(Debug)]
pub(crate) struct Columns(Vec<(String, Template)>);

impl Columns {
    /// Reads `TITLE:path,TITLE:path`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut columns = Vec::new();
        for part in split(text) {
            let Some((title, path)) = part.split_once(':') else {
                bail!("unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>");
            };
            let template = Template::parse(path).with_context(|| format!("custom column {title}"))?;
            columns.push((title.to_owned(), template));
        }
        if columns.is_empty() {
            bail!("custom-columns format specified but no custom columns given");
        }
        Ok(Self(columns))
    }

    /// The titles.
    pub(crate) fn header(&self) -> String {
        self.0.iter().map(|(title, _)| title.as_str()).collect::<Vec<_>>().join("\t")
    }

    /// One object's row.
    pub(crate) fn row(&self, object: &Value) -> String {
        let cell = |template: &Template| {
            let values: Vec<String> = template.values(object).into_iter().map(show).collect();
            if values.is_empty() { "<none>".to_owned() } else { values.join(",") }
        };
        self.0.iter().map(|(_, template)| cell(template)).collect::<Vec<_>>().join("\t")
    }
}

/// At commas outside brackets.
fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut depth = 0usize;
    for c in text.chars() {
        match c {
            '[' | '(' => depth += 1,
            ']' | ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        match (c, parts.last_mut()) {
            (',', _) if depth == 0 => parts.push(String::new()),
            (c, Some(part)) => part.push(c),
            _ => {}
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}
