//! Tables as the server sends them (`meta.k8s.io/v1 Table`) and as kubectl prints them.

use serde_json::Value;

use super::tabs::align;

/// What to show of a table.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// Columns of lower priority too.
    pub wide: bool,
    /// A column NAMESPACE first.
    pub namespaces: bool,
    /// No titles.
    pub no_headers: bool,
    /// A last column with all labels.
    pub labels: bool,
    /// A column for each of these labels.
    pub label_columns: Vec<String>,
    /// `pod/` before names.
    pub kind: Option<String>,
}

/// A table's text.
pub(crate) fn text(table: &Value, view: &View) -> String {
    let columns: Vec<Column> =
        list(table, "columnDefinitions").iter().enumerate().filter_map(|c| Column::of(c, view)).collect();
    let mut lines = Vec::new();
    if !view.no_headers {
        lines.push(header(&columns, view));
    }
    lines.extend(list(table, "rows").iter().map(|row| line(row, &columns, view)));
    let mut text = lines.join("\n");
    text.push('\n');
    // Go's writer is asked for columns of at least 6 with 3 between.
    align(&text, 6, 3)
}

struct Column {
    index: usize,
    title: String,
    is_name: bool,
}

impl Column {
    fn of((index, definition): (usize, &Value), view: &View) -> Option<Self> {
        let priority = definition.get("priority").and_then(Value::as_i64).unwrap_or_default();
        let of = |field: &str| definition.get(field).and_then(Value::as_str).unwrap_or_default();
        let shown = priority == 0 || view.wide;
        shown.then(|| Self {
            index,
            title: of("name").to_uppercase(),
            is_name: of("format") == "name" || index == 0 && of("name") == "Name",
        })
    }
}

fn header(columns: &[Column], view: &View) -> String {
    let first = view.namespaces.then(|| "NAMESPACE".to_owned());
    let labels = view.label_columns.iter().map(|label| label.rsplit('/').next().unwrap_or_default().to_uppercase());
    let last = view.labels.then(|| "LABELS".to_owned());
    let titles = first.into_iter().chain(columns.iter().map(|c| c.title.clone())).chain(labels).chain(last);
    titles.collect::<Vec<_>>().join("\t")
}

fn line(row: &Value, columns: &[Column], view: &View) -> String {
    let meta = |field: &str| row.get("object").and_then(|o| o.get("metadata")).and_then(|m| m.get(field));
    let labels = meta("labels").and_then(Value::as_object);
    let mut cells = Vec::new();
    if view.namespaces {
        cells.push(meta("namespace").and_then(Value::as_str).unwrap_or_default().to_owned());
    }
    for column in columns {
        let cell = list(row, "cells").get(column.index).map_or_else(String::new, cell);
        let kind = view.kind.as_ref().filter(|_| column.is_name);
        cells.push(kind.map_or_else(|| cell.clone(), |kind| format!("{kind}/{cell}")));
    }
    for label in &view.label_columns {
        cells.push(labels.and_then(|l| l.get(label)).and_then(Value::as_str).unwrap_or_default().to_owned());
    }
    if view.labels {
        let pairs = labels.into_iter().flatten().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()));
        let pairs = pairs.collect::<Vec<_>>().join(",");
        cells.push(if pairs.is_empty() { "<none>".into() } else { pairs });
    }
    cells.join("\t")
}

/// One cell: of several lines only the first.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Null => "<none>".into(),
        other => other.to_string(),
    };
    match text.find(['\n', '\r', '\u{c}']) {
        Some(end) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.replace('\t', " "),
    }
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::{View, text};
    use serde_json::json;

    #[test]
    fn a_table_reads_as_kubectl_prints_it() {
        let table = json!({
            "columnDefinitions": [
                {"name": "Name", "format": "name"}, {"name": "Age"}, {"name": "IP", "priority": 1},
            ],
            "rows": [
                {"cells": ["web", "5m", "10.0.0.1"], "object": {"metadata": {"namespace": "default", "labels": {"a": "b"}}}},
                {"cells": ["db", "10s", null], "object": {"metadata": {"namespace": "x"}}},
            ],
        });
        assert_eq!(text(&table, &View::default()), "NAME   AGE\nweb    5m\ndb     10s\n");
        let all = View { wide: true, namespaces: true, labels: true, kind: Some("pod".into()), ..View::default() };
        assert_eq!(
            text(&table, &all),
            "NAMESPACE   NAME      AGE   IP         LABELS\n\
             default     pod/web   5m    10.0.0.1   a=b\n\
             x           pod/db    10s   <none>     <none>\n"
        );
    }
}
