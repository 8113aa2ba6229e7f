//! Reads a request's body: its kind first, then its fields, with kube-apiserver's errors around Go's.

use serde_json::Value;

use super::node::{Node, Path, Strict};
use super::read::{Words, read};
use super::{Decoded, FieldValidation, Format, json, yaml};
use crate::name::{GroupVersion, GroupVersionKind};
use crate::schema::{Schema, custom_tree, is_registered};
use crate::{Document, Status, StatusResult};

/// What Go calls the struct it looks for a kind with.
const TYPE_META: &str =
    r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
const PARSE: &str = "couldn't get version/kind; json parse error: ";

/// The kind that a body names (its parts may be empty), before anything else is read. `expected` is the kind that
/// errors name.
pub fn kind(bytes: &[u8], format: Format, expected: &str) -> StatusResult<GroupVersionKind> {
    let tree = parse(bytes, format).map_err(|why| unrecognized(expected, &why, bytes))?;
    named_kind(&tree.node).map_err(|why| unrecognized(expected, &why, bytes))
}

/// A body as a tree, with the faults of its own syntax that only strict reading minds.
struct Tree<'a> {
    node: Node<'a>,
    duplicates: Vec<String>,
}

fn parse(bytes: &[u8], format: Format) -> Result<Tree<'_>, String> {
    match format {
        Format::Json => {
            let node = json::parse(bytes).map_err(|why| format!("{PARSE}{why}"))?;
            Ok(Tree { node, duplicates: Vec::new() })
        }
        Format::Yaml => yaml::parse(bytes).map(|read| Tree { node: read.node, duplicates: read.duplicates }),
    }
}

fn named_kind(node: &Node<'_>) -> Result<GroupVersionKind, String> {
    if !matches!(node, Node::Map(_) | Node::Null) {
        let found = node.go_kind();
        return Err(format!("{PARSE}json: cannot unmarshal {found} into Go value of type {TYPE_META}"));
    }
    let text = |key: &str| match node.get(key) {
        None | Some(Node::Null) => Ok(""),
        Some(Node::String(text)) => Ok(text.as_ref()),
        Some(other) => {
            let found = other.go_kind();
            Err(format!("{PARSE}json: cannot unmarshal {found} into Go struct field .{key} of type string"))
        }
    };
    let (api_version, kind) = (text("apiVersion")?, text("kind")?);
    let group_version = match api_version {
        "" => GroupVersion { group: String::new(), version: String::new() },
        text => GroupVersion::parse(text).ok_or_else(|| format!("unexpected GroupVersion string: {text}"))?,
    };
    Ok(group_version.kind(kind))
}

/// 400 for a body whose kind cannot be told.
fn unrecognized(expected: &str, why: &str, body: &[u8]) -> Box<Status> {
    let summary = summary(body);
    Status::bad_request(format!("the object provided is unrecognized (must be of type {expected}): {why} ({summary})"))
}

/// The beginning of a body as errors show it.
fn summary(body: &[u8]) -> String {
    let start = body.get(..30).unwrap_or(body);
    let more = if body.len() > 30 { " ..." } else { "" };
    match body.first() {
        None => "<empty>".into(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(start)),
        Some(_) => {
            let hex: String = start.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{hex}{more}")
        }
    }
}

/// Fills in what a body leaves out.
fn with_defaults(mut found: GroupVersionKind, default: &GroupVersionKind) -> GroupVersionKind {
    if found.kind.is_empty() {
        found.kind.clone_from(&default.kind);
    }
    if found.version.is_empty() && (found.group.is_empty() || found.group == default.group) {
        found.group.clone_from(&default.group);
        found.version.clone_from(&default.version);
    }
    found
}

/// 400: the body is of another kind, or of another version than the path's.
fn check_kind(found: &GroupVersionKind, wanted: &GroupVersionKind, custom: bool) -> StatusResult<()> {
    let same_kind = found.kind == wanted.kind && found.group == wanted.group;
    if found == wanted || (custom && found.group_version() == wanted.group_version()) {
        return Ok(());
    }
    if same_kind || custom {
        return Err(Status::bad_request(format!(
            "the API version in the data ({}) does not match the expected API version ({})",
            found.group_version(),
            wanted.group_version()
        )));
    }
    Err(cannot_be_handled(found, wanted, &unreadable(found, wanted)))
}

/// Why an object of one kind cannot be read as one of another.
fn unreadable(found: &GroupVersionKind, wanted: &GroupVersionKind) -> String {
    let internal = match wanted.group.split('.').next() {
        None | Some("") => "core",
        Some(group) => group,
    };
    let (kind, version) = (&found.kind, &found.version);
    if is_registered(found) {
        return format!("converting ({version}.{kind}) to ({internal}.{}): unknown conversion", wanted.kind);
    }
    let group_version = found.group_version().to_string();
    format!("no kind {kind:?} is registered for version {group_version:?} in scheme \"api\"")
}

/// The kind of a patched object must be what it was; what the patch took away comes back. The error is upstream's text.
pub(crate) fn same_kind(wanted: &GroupVersionKind, patched: &mut Document) -> Result<(), String> {
    let found = with_defaults(named_kind(&Node::of(patched.value()))?, wanted);
    if found != *wanted {
        return Err(unreadable(&found, wanted));
    }
    patched.set("/apiVersion", wanted.group_version().to_string());
    patched.set("/kind", wanted.kind.as_str());
    Ok(())
}

fn cannot_be_handled(found: &GroupVersionKind, wanted: &GroupVersionKind, why: &str) -> Box<Status> {
    let (kind, version, wanted) = (&found.kind, &found.version, &wanted.kind);
    Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {wanted}: {why}"))
}

pub(crate) fn body(
    schema: &Schema,
    bytes: &[u8],
    format: Format,
    validation: FieldValidation,
) -> StatusResult<Decoded> {
    let wanted = schema.kind();
    let unrecognized = |why: String| unrecognized(&wanted.kind, &why, bytes);
    let tree = parse(bytes, format).map_err(unrecognized)?;
    let found = named_kind(&tree.node).map_err(unrecognized)?;
    if schema.is_custom() && found.kind.is_empty() {
        let body = String::from_utf8_lossy(bytes);
        return Err(unrecognized(format!("Object 'Kind' is missing in '{body}'")));
    }
    let found = if schema.is_custom() { found } else { with_defaults(found, wanted) };
    check_kind(&found, wanted, schema.is_custom())?;
    let refused = |why: String| cannot_be_handled(&found, wanted, &why);
    let (mut document, unknown) = fields(schema, tree.node).map_err(refused)?;
    document.set("/apiVersion", found.group_version().to_string());
    document.set("/kind", found.kind.as_str());
    let strict: Vec<String> = yaml_error(&tree.duplicates).into_iter().chain(unknown).collect();
    match validation {
        FieldValidation::Strict if !strict.is_empty() => Err(refused(strict_error(&strict))),
        FieldValidation::Warn => Ok(Decoded { document, warnings: warnings(&strict) }),
        _ => Ok(Decoded { document, warnings: Vec::new() }),
    }
}

fn fields(schema: &Schema, node: Node<'_>) -> Result<(Document, Vec<String>), String> {
    if schema.is_custom() {
        let mut strict = Strict::default();
        let value = node.plain(&mut Path::default(), &mut strict);
        let (document, unknown) = custom_tree(schema, value)?;
        strict.0.extend(unknown.iter().map(|path| format!("unknown field {path:?}")));
        return Ok((document, strict.0));
    }
    let outcome = read(schema, node, Words::Json)?;
    Ok((Document::new(Value::Object(outcome.value)).unwrap_or_default(), outcome.strict))
}

/// Reads a JSON body without a schema, with the duplicate fields it has.
pub(crate) fn plain_strict(bytes: &[u8]) -> Result<(Value, Vec<String>), String> {
    let mut strict = Strict::default();
    let value = json::parse(bytes)?.plain(&mut Path::default(), &mut strict);
    Ok((value, strict.0))
}

/// All strict faults as one error.
pub(crate) fn strict_error(faults: &[String]) -> String {
    format!("strict decoding error: {}", faults.join(", "))
}

const YAML_ERROR: &str = "yaml: unmarshal errors:\n";

fn yaml_error(duplicates: &[String]) -> Option<String> {
    let lines: Vec<String> = duplicates.iter().map(|line| format!("  {line}")).collect();
    (!lines.is_empty()).then(|| format!("{YAML_ERROR}{}", lines.join("\n")))
}

/// Strict faults as `Warning` headers: YAML's come one line each.
fn warnings(faults: &[String]) -> Vec<String> {
    let lines = |fault: &String| match fault.strip_prefix(YAML_ERROR) {
        Some(lines) => lines.lines().map(|line| line.trim().to_owned()).collect(),
        None => vec![fault.clone()],
    };
    faults.iter().flat_map(lines).collect()
}

/// Reads the DeleteOptions that a DELETE sends along; of other kinds are none. The error is upstream's text.
pub fn delete_options(bytes: &[u8], format: Format) -> Result<Value, String> {
    let tree = parse(bytes, format)?;
    let found = named_kind(&tree.node)?;
    if !matches!(found.kind.as_str(), "" | "DeleteOptions") {
        let (kind, group_version) = (&found.kind, found.group_version().to_string());
        return Err(format!("no kind {kind:?} is registered for version {group_version:?} in scheme \"api\""));
    }
    let schema = Schema::of_kind("", "v1", "DeleteOptions").ok_or("there is no DeleteOptions")?;
    read(&schema, tree.node, Words::Json).map(|outcome| Value::Object(outcome.value))
}

/// Reads the body of a server-side apply, which is YAML (or JSON) without a schema. Nothing is an empty object.
pub fn apply_body(bytes: &[u8]) -> StatusResult<Document> {
    let wrong = |why: String| Status::bad_request(format!("error decoding patch: {why}"));
    // Upstream turns YAML into JSON on the way here, and is content with what begins as JSON does.
    let looks_like_json = bytes.trim_ascii_start().starts_with(b"{");
    let tree = parse(bytes, Format::Yaml).map_err(|why| match looks_like_json {
        true => wrong(format!("error converting YAML to JSON: {why}")),
        false => Status::bad_request(format!("error encoding patch: {why}")),
    })?;
    if !matches!(tree.node, Node::Map(_) | Node::Null) {
        let found = tree.node.go_kind();
        let why = format!("json: cannot unmarshal {found} into Go value of type map[string]interface {{}}");
        return Err(wrong(format!("error unmarshaling JSON: while decoding JSON: {why}")));
    }
    let value = tree.node.plain(&mut Path::default(), &mut Strict::default());
    Ok(Document::new(value).unwrap_or_default())
}
