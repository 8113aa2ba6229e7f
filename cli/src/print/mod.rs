//! How objects are shown: tables, YAML, JSON, names, templates, descriptions. Pure: values in, text out.

mod columns;
pub(crate) mod describe;
pub(crate) mod jsonpath;
pub(crate) mod table;
mod tabs;
mod yaml;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use columns::Columns;
use jsonpath::Template;
pub(crate) use table::View;
pub(crate) use tabs::align;

/// What `-o` asks for.
#[derive(Debug)]
pub(crate) enum Output {
    /// The server's table.
    Table,
    /// The same with the columns of lower priority.
    Wide,
    Json,
    Yaml,
    /// `pod/web`.
    Name,
    JsonPath(Template),
    Columns(Columns),
}

impl Output {
    /// Reads the value of `-o`.
    pub(crate) fn parse(text: Option<&str>) -> Result<Self> {
        let Some(text) = text.filter(|t| !t.is_empty()) else { return Ok(Self::Table) };
        let (word, value) = text.split_once('=').unwrap_or((text, ""));
        Ok(match word {
            "wide" => Self::Wide,
            "json" => Self::Json,
            "yaml" => Self::Yaml,
            "name" => Self::Name,
            "jsonpath" | "jsonpath-as-json" if value.is_empty() => {
                bail!("template format specified but no template given")
            }
            "jsonpath" => Self::JsonPath(Template::parse(value)?),
            "custom-columns" => Self::Columns(Columns::parse(value)?),
            _ => bail!(
                "unable to match a printer suitable for the output format {text:?}, allowed formats are: \
                 custom-columns,json,jsonpath,name,wide,yaml"
            ),
        })
    }

    /// Whether the server makes the rows.
    pub(crate) fn is_table(&self) -> bool {
        matches!(self, Self::Table | Self::Wide)
    }
}

/// The text of objects in a form other than a table. `names` has `pod/web` for each.
pub(crate) fn objects(
    output: &Output,
    objects: &[Value],
    names: &[String],
    as_list: bool,
    headers: bool,
) -> Result<String> {
    let whole = || match (objects, as_list) {
        ([one], false) => one.clone(),
        _ => json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": objects}),
    };
    Ok(match output {
        Output::Table | Output::Wide => String::new(),
        Output::Json => format!("{}\n", pretty(&whole())),
        Output::Yaml => yaml::yaml(&whole()),
        Output::Name => names.iter().map(|name| format!("{name}\n")).collect(),
        Output::JsonPath(template) => template.render(&whole())?,
        Output::Columns(columns) => {
            let header = headers.then(|| columns.header());
            let lines: Vec<String> = header.into_iter().chain(objects.iter().map(|o| columns.row(o))).collect();
            tabs::align(&format!("{}\n", lines.join("\n")), 6, 3)
        }
    })
}

/// JSON as kubectl writes it: four spaces.
pub(crate) fn pretty(value: &Value) -> String {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    match serde::Serialize::serialize(value, &mut serializer) {
        Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => value.to_string(),
    }
}
