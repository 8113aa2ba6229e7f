//! The forms of an object besides itself: table rows and metadata only.

use api::schema::Column;
use api::{Document, Timestamp, time};
use serde_json::{Value, json};

use crate::request::Query;
use crate::row::{Resource, Version};

/// What `?includeObject=` leaves of an object in a table row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum Include {
    None,
    Metadata,
    Object,
}

impl Include {
    /// Reads the query; the default is metadata.
    pub(crate) fn parse(query: &Query) -> Result<Self, String> {
        match query.get("includeObject").unwrap_or_default() {
            "None" => Ok(Self::None),
            "" | "Metadata" => Ok(Self::Metadata),
            "Object" => Ok(Self::Object),
            other => Err(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', 'Object', 'None', or empty"
            )),
        }
    }
}

/// The metadata-only form.
pub(crate) fn partial(document: &Document, version: &str) -> Value {
    let metadata = document.at("/metadata").cloned().unwrap_or_else(|| json!({}));
    json!({"kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata})
}

/// A table of these objects.
pub(crate) fn table(
    row: &Resource,
    version: &Version,
    shown: &Shown,
    documents: &[Document],
    metadata: Value,
) -> Value {
    let rows: Vec<Value> = documents.iter().map(|document| table_row(row, version, shown, document)).collect();
    // As upstream: the plain columns' rows are no list as long as there are none.
    let rows = if rows.is_empty() && !has_own_cells(row) { Value::Null } else { rows.into() };
    let mut table = json!({
        "kind": "Table",
        "apiVersion": format!("meta.k8s.io/{}", shown.version),
        "metadata": metadata,
        "columnDefinitions": if shown.headers { definitions(row, version) } else { Value::Null },
        "rows": rows,
    });
    if !shown.headers
        && let Some(table) = table.as_object_mut()
    {
        table.insert("columnDefinitions".into(), Value::Null);
    }
    table
}

/// How a table is shown.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub(crate) struct Shown {
    /// `v1` or `v1beta1` of meta.k8s.io.
    pub version: &'static str,
    pub include: Include,
    pub now: Timestamp,
    /// With column definitions: all but later events of a watch.
    pub headers: bool,
}

fn table_row(row: &Resource, version: &Version, shown: &Shown, document: &Document) -> Value {
    let mut stored = document.clone();
    row.to_hub(version, &mut stored);
    let cells = row.strategy.cells(&stored, shown.now).unwrap_or_else(|| plain_cells(version, document, shown.now));
    let object = match shown.include {
        Include::None => Value::Null,
        Include::Metadata => partial(document, shown.version),
        Include::Object => document.value().clone(),
    };
    let mut found = json!({ "cells": cells, "object": object });
    let conditions = row.strategy.row_conditions(&stored);
    if let (false, Some(found)) = (conditions.is_empty(), found.as_object_mut()) {
        found.insert("conditions".into(), conditions.into());
    }
    found
}

/// A kind without cells of its own shows its name and its age.
fn plain_cells(version: &Version, document: &Document, now: Timestamp) -> Vec<Value> {
    let cell = |column: &&Column| match column.name.as_str() {
        "Name" => json!(document.name()),
        // Without a time (a bookmark has none) it is Go's first.
        "Created At" => document.at("/metadata/creationTimestamp").cloned().unwrap_or("0001-01-01T00:00:00Z".into()),
        _ => json!(time::age(document, now)),
    };
    plain_columns(version).iter().map(cell).collect()
}

fn plain_columns(version: &Version) -> Vec<&Column> {
    version.columns.iter().filter(|c| matches!(c.name.as_str(), "Name" | "Age" | "Created At")).collect()
}

fn has_own_cells(row: &Resource) -> bool {
    row.custom || row.strategy.cells(&Document::default(), Timestamp::UNIX_EPOCH).is_some()
}

fn definitions(row: &Resource, version: &Version) -> Value {
    let columns = if has_own_cells(row) { version.columns.iter().collect() } else { plain_columns(version) };
    columns.into_iter().map(definition).collect()
}

fn definition(column: &Column) -> Value {
    json!({
        "name": column.name,
        "type": column.type_name,
        "format": column.format,
        "description": "",
        "priority": column.priority,
    })
}
