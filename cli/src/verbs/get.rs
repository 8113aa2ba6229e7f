//! `trimtab get`.

use std::io::{Write as _, stdout};
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use futures::AsyncBufReadExt as _;
use serde_json::{Value, json};

use super::files::Files;
use super::resources::{Aim, Resources, aims};
use super::session::{Connection, JSON, Session, TABLE, is_not_found, query};
use super::value::{list, text, text_at};
use crate::print::{self, Output, View, jsonpath::Template, table};

/// Shows objects.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  trimtab get pods\n  trimtab get pods,services -A -o wide\n  trimtab get pod/web -o yaml\n  \
    trimtab get pods -l app=web -w\n  trimtab get nodes -o jsonpath='{.items[*].metadata.name}'\n  \
    trimtab get deploy -o custom-columns=NAME:.metadata.name,IMAGE:.spec.template.spec.containers[*].image"
)]
pub(crate) struct Get {
    /// TYPE, TYPE NAME..., or TYPE/NAME...
    #[arg(value_name = "TYPE[/NAME]")]
    what: Vec<String>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    at: Connection,
    /// All namespaces.
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// wide, json, yaml, name, jsonpath=TEMPLATE, custom-columns=SPEC.
    #[arg(long, short)]
    output: Option<String>,
    /// Only objects with these labels.
    #[arg(long, short = 'l', default_value = "")]
    selector: String,
    /// Only objects with these fields.
    #[arg(long, default_value = "")]
    field_selector: String,
    /// Sort by a JSONPath.
    #[arg(long, value_name = "JSONPATH")]
    sort_by: Option<String>,
    /// Go on showing changes.
    #[arg(long, short)]
    watch: bool,
    /// Show changes only.
    #[arg(long)]
    watch_only: bool,
    /// No titles.
    #[arg(long)]
    no_headers: bool,
    /// A column with all labels.
    #[arg(long)]
    show_labels: bool,
    /// A column for each of these labels.
    #[arg(long, short = 'L', value_delimiter = ',')]
    label_columns: Vec<String>,
    /// The kind before each name.
    #[arg(long)]
    show_kind: bool,
    /// Success also where there is nothing.
    #[arg(long)]
    ignore_not_found: bool,
    /// Keep managedFields in JSON and YAML.
    #[arg(long)]
    show_managed_fields: bool,
}

/// Shows them.
pub(crate) async fn run(get: Get) -> Result<ExitCode> {
    let output = Output::parse(get.output.as_deref())?;
    let session = get.at.open()?;
    let resources = Resources::discover(&session).await?;
    let aims =
        if get.files.filename.is_empty() { aims(&get.what, &resources)? } else { of_files(&get.files, &resources)? };
    if get.watch || get.watch_only {
        let [aim] = aims.as_slice() else { bail!("you may only specify a single resource type with --watch") };
        return watch(&get, &session, aim, &output).await;
    }
    if output.is_table() {
        tables(&get, &session, &aims, &output).await
    } else {
        objects(&get, &session, &aims, &output).await
    }
}

fn of_files(files: &Files, resources: &Resources) -> Result<Vec<Aim>> {
    let mut aims = Vec::new();
    for (_, object) in files.objects()? {
        let resource = resources.of_object(text(&object, "apiVersion"), text(&object, "kind"))?.clone();
        aims.push(Aim { resource, names: vec![text_at(&object, "/metadata/name").into()] });
    }
    Ok(aims)
}

/// The paths to ask for an aim.
fn paths(get: &Get, session: &Session, aim: &Aim, extra: &[(&str, &str)]) -> Vec<String> {
    let namespace = if get.all_namespaces { "" } else { session.namespace.as_str() };
    let mut pairs = vec![("labelSelector", get.selector.as_str()), ("fieldSelector", get.field_selector.as_str())];
    pairs.extend(extra);
    if aim.names.is_empty() {
        return vec![format!("{}{}", aim.resource.path(namespace), query(&pairs))];
    }
    aim.names.iter().map(|name| format!("{}{}", aim.resource.object(namespace, name), query(extra))).collect()
}

async fn tables(get: &Get, session: &Session, aims: &[Aim], output: &Output) -> Result<ExitCode> {
    let include = if get.sort_by.is_some() { "Object" } else { "" };
    let mut shown = 0;
    let mut code = ExitCode::SUCCESS;
    for aim in aims {
        let mut table: Option<Value> = None;
        for path in paths(get, session, aim, &[("includeObject", include)]) {
            match session.accepting(&path, TABLE).await {
                Ok(more) => join(&mut table, more),
                Err(error) if get.ignore_not_found && is_not_found(&error) => {}
                // One that is missing does not hide the others.
                Err(error) if aims.len() > 1 || aim.names.len() > 1 => {
                    eprintln!("{}", super::worded(&error));
                    code = ExitCode::FAILURE;
                }
                Err(error) => return Err(error),
            }
        }
        let Some(mut table) = table.filter(|t| !list(t, "rows").is_empty()) else { continue };
        sort(get, &mut table)?;
        let many = aims.iter().any(|other| other.resource != aim.resource);
        let view = view(get, output, aim, many);
        let between = if shown > 0 && many { "\n" } else { "" };
        write!(stdout(), "{between}{}", table::text(&table, &view))?;
        shown += 1;
    }
    if shown == 0 && code == ExitCode::SUCCESS && !get.ignore_not_found {
        nothing(get, session, aims);
    }
    Ok(code)
}

fn nothing(get: &Get, session: &Session, aims: &[Aim]) {
    if !get.all_namespaces && aims.iter().any(|aim| aim.resource.namespaced) {
        eprintln!("No resources found in {} namespace.", session.namespace);
    } else {
        eprintln!("No resources found");
    }
}

fn view(get: &Get, output: &Output, aim: &Aim, many: bool) -> View {
    View {
        wide: matches!(output, Output::Wide),
        namespaces: get.all_namespaces && aim.resource.namespaced,
        no_headers: get.no_headers,
        labels: get.show_labels,
        label_columns: get.label_columns.clone(),
        kind: (many || get.show_kind).then(|| aim.resource.name()),
    }
}

/// Rows of several answers in one table.
fn join(table: &mut Option<Value>, more: Value) {
    match table {
        None => *table = Some(more),
        Some(table) => {
            let rows = list(&more, "rows").to_vec();
            if let Some(all) = table.get_mut("rows").and_then(Value::as_array_mut) {
                all.extend(rows);
            }
        }
    }
}

fn sort(get: &Get, table: &mut Value) -> Result<()> {
    let Some(path) = &get.sort_by else { return Ok(()) };
    let template = Template::parse(path)?;
    if let Some(rows) = table.get_mut("rows").and_then(Value::as_array_mut) {
        rows.sort_by_cached_key(|row| key(&template, row.get("object").unwrap_or(&Value::Null)));
    }
    Ok(())
}

/// A sorting key: numbers by value, all else as text.
fn key(template: &Template, object: &Value) -> (i64, String) {
    match template.values(object).first() {
        Some(Value::Number(number)) => (number.as_i64().unwrap_or_default(), String::new()),
        Some(value) => (0, print::jsonpath::show(value)),
        None => (i64::MIN, String::new()),
    }
}

async fn objects(get: &Get, session: &Session, aims: &[Aim], output: &Output) -> Result<ExitCode> {
    let mut found: Vec<(String, Value)> = Vec::new();
    let mut as_list = aims.len() > 1;
    for aim in aims {
        as_list |= aim.names.len() != 1;
        for path in paths(get, session, aim, &[]) {
            let answer = match session.get(&path).await {
                Err(error) if get.ignore_not_found && is_not_found(&error) => continue,
                other => other?,
            };
            found.extend(taken_apart(answer, aim).into_iter().map(|object| (aim.resource.name(), object)));
        }
    }
    if get.ignore_not_found && found.is_empty() && !as_list {
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(path) = &get.sort_by {
        let template = Template::parse(path)?;
        found.sort_by_cached_key(|(_, object)| key(&template, object));
    }
    let names: Vec<String> = found.iter().map(|(kind, o)| format!("{kind}/{}", text_at(o, "/metadata/name"))).collect();
    let mut all: Vec<Value> = found.into_iter().map(|(_, object)| object).collect();
    if !get.show_managed_fields {
        all.iter_mut().for_each(without_managed_fields);
    }
    write!(stdout(), "{}", print::objects(output, &all, &names, as_list, !get.no_headers)?)?;
    Ok(ExitCode::SUCCESS)
}

/// The items of a list, each with its apiVersion and kind; or the one object.
fn taken_apart(answer: Value, aim: &Aim) -> Vec<Value> {
    let Some(items) = answer.get("items").and_then(Value::as_array).filter(|_| aim.names.is_empty()) else {
        return vec![answer];
    };
    let version = text(&answer, "apiVersion");
    let whole = |item: &Value| {
        let mut whole = item.clone();
        if let Some(map) = whole.as_object_mut() {
            map.entry("apiVersion").or_insert_with(|| json!(version));
            map.entry("kind").or_insert_with(|| json!(aim.resource.kind));
        }
        whole
    };
    items.iter().map(whole).collect()
}

fn without_managed_fields(object: &mut Value) {
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("managedFields");
    }
}

async fn watch(get: &Get, session: &Session, aim: &Aim, output: &Output) -> Result<ExitCode> {
    let accept = if output.is_table() { TABLE } else { JSON };
    let one = aim.names.first().map(|name| format!("metadata.name={name}"));
    let fields = one.as_deref().unwrap_or(&get.field_selector).to_owned();
    let all = Aim { resource: aim.resource.clone(), names: Vec::new() };
    let namespace = if get.all_namespaces { "" } else { session.namespace.as_str() };
    let path = all.resource.path(namespace);
    let selectors = [("labelSelector", get.selector.as_str()), ("fieldSelector", fields.as_str())];
    let first = session.accepting(&format!("{path}{}", query(&selectors)), accept).await?;
    let mut headers = !get.no_headers;
    if !get.watch_only {
        show(get, output, aim, &first, &mut headers)?;
    }
    let version = text_at(&first, "/metadata/resourceVersion");
    let [labels, fields] = selectors;
    let pairs = [labels, fields, ("watch", "true"), ("resourceVersion", version), ("allowWatchBookmarks", "false")];
    let stream = session.stream(&format!("{path}{}", query(&pairs)), accept).await?;
    let mut lines = stream.lines();
    while let Some(line) = futures::StreamExt::next(&mut lines).await {
        let mut event: Value = serde_json::from_str(&line?)?;
        // Only the first table of a watch says what its columns are.
        if let Some(columns) =
            event.pointer_mut("/object/columnDefinitions").filter(|c| c.is_null() || **c == json!([]))
        {
            *columns = first.get("columnDefinitions").cloned().unwrap_or_default();
        }
        let object = event.get("object").unwrap_or(&Value::Null);
        match text(&event, "type") {
            "ERROR" => bail!("Error from server: {}", text(object, "message")),
            "BOOKMARK" => {}
            _ => show(get, output, aim, object, &mut headers)?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows a table, a list or an object of a watch; titles once.
fn show(get: &Get, output: &Output, aim: &Aim, value: &Value, headers: &mut bool) -> Result<()> {
    let out = if output.is_table() {
        let view = View { no_headers: !*headers, ..view(get, output, aim, false) };
        if list(value, "rows").is_empty() { String::new() } else { table::text(value, &view) }
    } else {
        let mut objects = match value.get("items") {
            Some(Value::Array(_)) => taken_apart(value.clone(), &Aim { names: Vec::new(), ..aim.clone() }),
            _ => vec![value.clone()],
        };
        objects.iter_mut().for_each(without_managed_fields);
        let names: Vec<String> =
            objects.iter().map(|o| format!("{}/{}", aim.resource.name(), text_at(o, "/metadata/name"))).collect();
        let mut out = String::new();
        for (object, name) in objects.iter().zip(&names) {
            out.push_str(&print::objects(
                output,
                std::slice::from_ref(object),
                std::slice::from_ref(name),
                false,
                *headers,
            )?);
        }
        out
    };
    *headers &= out.is_empty();
    stdout().write_all(out.as_bytes())?;
    stdout().flush()?;
    Ok(())
}
