//! The options of writes: `CreateOptions`, `UpdateOptions`, `PatchOptions`, `DeleteOptions`, checked as upstream does.

use api::decode::{FieldValidation, Format, delete_options};
use api::field::{Error, Errors, Path};
use api::validation::field_manager;
use api::{GroupKind, Status, StatusResult};
use serde_json::Value;

use crate::request::{Query, unread_number};
use crate::rows::Behaviour;

/// Options of create, update and patch.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub(crate) struct WriteOptions {
    pub dry_run: bool,
    pub manager: String,
    pub validation: FieldValidation,
    pub force: Option<bool>,
}

impl WriteOptions {
    /// Reads a query; `kind` is `CreateOptions` and so on, `apply` a server-side apply.
    pub(crate) fn parse(query: &Query, kind: &str, apply: bool) -> StatusResult<Self> {
        let manager = query.get("fieldManager").unwrap_or_default().to_owned();
        let validation = query.get("fieldValidation").unwrap_or_default();
        let force = query.optional_flag("force").filter(|_| kind == "PatchOptions");
        let mut errors = Errors::new();
        if apply && manager.is_empty() {
            errors.push(Error::required(Path::new("fieldManager"), "is required for apply patch"));
        }
        if !apply && force.is_some() {
            errors.push(Error::forbidden(Path::new("force"), "may not be specified for non-apply patch"));
        }
        errors.extend(field_manager(&manager, &Path::new("fieldManager")));
        let dry: Vec<&str> = query.all("dryRun").collect();
        errors.extend(dry_run_errors(&dry));
        if FieldValidation::parse(validation).is_none() {
            let allowed = ["", "Ignore", "Strict", "Warn"];
            errors.push(Error::not_supported(Path::new("fieldValidation"), validation, &allowed));
        }
        refuse(errors, kind)?;
        let validation = FieldValidation::parse(validation).unwrap_or_default();
        Ok(Self { dry_run: !dry.is_empty(), manager, validation, force })
    }
}

fn dry_run_errors(values: &[&str]) -> Option<Error> {
    let bad = values.iter().any(|value| *value != "All");
    bad.then(|| {
        let value: Vec<Value> = values.iter().map(|v| Value::from(*v)).collect();
        Error::not_supported(Path::new("dryRun"), value, &["All"])
    })
}

fn refuse(errors: Errors, kind: &str) -> StatusResult<()> {
    match errors.is_empty() {
        true => Ok(()),
        false => Err(Status::invalid(&GroupKind { group: "meta.k8s.io".into(), kind: kind.into() }, "", &errors)),
    }
}

/// What becomes of dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum Propagation {
    Foreground,
    Background,
    Orphan,
}

/// Options of delete and deletecollection.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub(crate) struct DeleteOptions {
    pub dry_run: bool,
    pub grace_seconds: Option<i64>,
    pub propagation: Option<Propagation>,
    pub orphan_dependents: Option<bool>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    /// Only if it cannot be read (`ignoreStoreReadErrorWithClusterBreakingPotential`).
    pub unsafely: bool,
}

impl DeleteOptions {
    /// Reads the body, or the query where there is none.
    pub(crate) fn parse(query: &Query, body: &[u8], format: Format) -> StatusResult<Self> {
        let value = match body.is_empty() {
            true => of_query(query)?,
            false => delete_options(body, format).map_err(Status::bad_request)?,
        };
        let text = |key: &str| value.get(key).and_then(Value::as_str);
        let policy = text("propagationPolicy").filter(|p| !p.is_empty());
        let orphan = value.get("orphanDependents").and_then(Value::as_bool);
        let dry: Vec<&str> =
            value.get("dryRun").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let mut errors = Errors::new();
        if let (Some(policy), true) = (policy, orphan.is_some()) {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(Error::invalid(Path::new("propagationPolicy"), policy, why));
        }
        let propagation = policy.map(propagation).transpose().unwrap_or_else(|error| {
            errors.push(error);
            None
        });
        errors.extend(dry_run_errors(&dry));
        let unsafely = value.get("ignoreStoreReadErrorWithClusterBreakingPotential") == Some(&Value::Bool(true));
        if unsafely {
            errors.extend(unsafe_errors(&value));
        }
        refuse(errors, "DeleteOptions")?;
        let precondition = |key: &str| value.pointer(&format!("/preconditions/{key}")).and_then(Value::as_str);
        Ok(Self {
            dry_run: !dry.is_empty(),
            grace_seconds: value.get("gracePeriodSeconds").and_then(Value::as_i64).map(|s| if s < 0 { 1 } else { s }),
            propagation,
            orphan_dependents: orphan,
            uid: precondition("uid").map(str::to_owned),
            resource_version: precondition("resourceVersion").map(str::to_owned),
            unsafely,
        })
    }
}

impl DeleteOptions {
    /// The warning for those who do not say what becomes of dependents.
    pub(crate) fn remark(&self, behaviour: &Behaviour) -> Option<String> {
        let text = behaviour.orphans.filter(|text| !text.is_empty())?;
        (self.propagation.is_none() && self.orphan_dependents.is_none()).then(|| text.to_owned())
    }
}

/// What the deletion of something unreadable does not go together with.
fn unsafe_errors(value: &Value) -> Errors {
    let path = || Path::new("ignoreStoreReadErrorWithClusterBreakingPotential");
    let others = ["propagationPolicy", "orphanDependents", "gracePeriodSeconds", "preconditions"];
    let given = others.into_iter().filter(|name| value.get(name).is_some());
    given.map(|name| Error::invalid(path(), true, format!("cannot be set together with .{name}"))).collect()
}

fn propagation(policy: &str) -> Result<Propagation, Error> {
    match policy {
        "Foreground" => Ok(Propagation::Foreground),
        "Background" => Ok(Propagation::Background),
        "Orphan" => Ok(Propagation::Orphan),
        other => {
            let allowed = ["Foreground", "Background", "Orphan", "nil"];
            Err(Error::not_supported(Path::new("propagationPolicy"), other, &allowed))
        }
    }
}

fn of_query(query: &Query) -> StatusResult<Value> {
    let mut value = serde_json::Map::new();
    if let Some(text) = query.get("gracePeriodSeconds").filter(|t| !t.is_empty()) {
        let bad = |why| Status::bad_request(unread_number("ParseInt", text, &why));
        value.insert("gracePeriodSeconds".into(), text.parse::<i64>().map_err(bad)?.into());
    }
    if let Some(policy) = query.get("propagationPolicy") {
        value.insert("propagationPolicy".into(), policy.into());
    }
    if let Some(orphan) = query.optional_flag("orphanDependents") {
        value.insert("orphanDependents".into(), orphan.into());
    }
    if let Some(uid) = query.get("uid") {
        value.insert("preconditions".into(), serde_json::json!({"uid": uid}));
    }
    let unsafely = "ignoreStoreReadErrorWithClusterBreakingPotential";
    if let Some(flag) = query.optional_flag(unsafely) {
        value.insert(unsafely.into(), flag.into());
    }
    let dry: Vec<Value> = query.all("dryRun").map(Value::from).collect();
    if !dry.is_empty() {
        value.insert("dryRun".into(), dry.into());
    }
    Ok(Value::Object(value))
}
