//! What a list or watch asks for, read from the query and checked as upstream checks it.

use std::borrow::Cow;

use api::field::{Error, Errors, Path};
use api::{FieldSelector, GroupKind, LabelSelector, Status, StatusResult};
use store::Revision;

use crate::cache::Item;
use crate::call::Call;
use crate::request::{Query, unread_number};
use crate::row::{Resource, Version};

/// `?resourceVersionMatch=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum Match {
    Unset,
    Exact,
    NotOlderThan,
}

/// The options of a list or watch.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub(crate) struct ListOptions {
    pub selection: Selection,
    /// 0: no limit.
    pub limit: usize,
    pub continue_token: String,
    pub resource_version: String,
    pub version_match: Match,
    pub timeout_seconds: Option<u64>,
    pub bookmarks: bool,
    pub send_initial_events: Option<bool>,
}

/// Which objects.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub(crate) struct Selection {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
    /// Only the object of this name (the deprecated watch of one object).
    pub name: Option<String>,
}

impl Selection {
    /// Whether an object is selected.
    pub(crate) fn selects(&self, item: &Item) -> bool {
        let field = |name: &str| Cow::Borrowed(item.field(name).unwrap_or_default());
        let named = self.name.as_deref().is_none_or(|name| name == &*item.name);
        named && self.labels.matches(|key| item.label(key)) && self.fields.matches(field)
    }

    /// Whether everything is.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty() && self.name.is_none()
    }

    /// Reads both selectors of a query.
    pub(crate) fn parse(call: &Call) -> StatusResult<Self> {
        let (query, row) = (&call.query, &call.row);
        let text = |key: &str| query.get(key).unwrap_or_default();
        let labels = LabelSelector::parse(text("labelSelector")).map_err(Status::bad_request)?;
        let fields = FieldSelector::parse(text("fieldSelector")).map_err(Status::bad_request)?;
        known_fields(&fields, row, call.version())?;
        let convert = row.versions.iter().find_map(|version| version.convert);
        let fields = fields.renamed(|field| convert.and_then(|convert| convert.stored_field(field)));
        Ok(Self { labels, fields, name: None })
    }
}

/// Refuses fields that the kind does not offer.
fn known_fields(fields: &FieldSelector, row: &Resource, version: &Version) -> StatusResult<()> {
    let offered = row.strategy.selectable_in(&version.name);
    for requirement in fields.requirements() {
        let field = requirement.field.as_str();
        let known = matches!(field, "metadata.name" | "metadata.namespace") || offered.iter().any(|f| *f == field);
        if !known {
            return Err(Status::bad_request(unknown_field(row, field, !offered.is_empty())));
        }
    }
    Ok(())
}

/// Kinds with fields of their own have a conversion function, with its own words; the others share one.
fn unknown_field(row: &Resource, field: &str, has_own: bool) -> String {
    match (row.group.as_str(), row.kind.as_str()) {
        ("batch", "Job") => format!("field label {field:?} not supported for Job"),
        ("", "ConfigMap" | "PersistentVolume" | "PersistentVolumeClaim") => unknown_to_all(field),
        ("apiextensions.k8s.io" | "certificates.k8s.io", _) => format!("field label not supported: {field}"),
        _ if row.custom || has_own => format!("field label not supported: {field}"),
        _ => unknown_to_all(field),
    }
}

fn unknown_to_all(field: &str) -> String {
    format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
}

impl ListOptions {
    /// Reads a query for a list, or for a watch.
    pub(crate) fn parse(call: &Call, watch: bool) -> StatusResult<Self> {
        let query = &call.query;
        let options = Self {
            selection: Selection::parse(call)?,
            limit: number(query, "limit")?.and_then(|n| usize::try_from(n).ok()).unwrap_or_default(),
            continue_token: query.get("continue").unwrap_or_default().into(),
            resource_version: query.get("resourceVersion").unwrap_or_default().into(),
            version_match: match query.get("resourceVersionMatch") {
                Some("Exact") => Match::Exact,
                Some("NotOlderThan") => Match::NotOlderThan,
                _ => Match::Unset,
            },
            timeout_seconds: number(query, "timeoutSeconds")?.and_then(|n| u64::try_from(n).ok()),
            bookmarks: query.flag("allowWatchBookmarks"),
            send_initial_events: query.optional_flag("sendInitialEvents"),
        };
        let asked = query.get("resourceVersionMatch").unwrap_or_default();
        let errors = if watch { options.watch_errors(asked) } else { options.list_errors(asked) };
        match errors.is_empty() {
            true => Ok(options),
            false => {
                let kind = GroupKind { group: "meta.k8s.io".into(), kind: "ListOptions".into() };
                Err(Status::invalid(&kind, "", &errors))
            }
        }
    }

    fn list_errors(&self, asked: &str) -> Errors {
        let at = || Path::new("resourceVersionMatch");
        let mut errors = Errors::new();
        if !asked.is_empty() {
            if self.resource_version.is_empty() {
                let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
                errors.push(Error::forbidden(at(), why));
            }
            if !self.continue_token.is_empty() {
                errors.push(Error::forbidden(at(), "resourceVersionMatch is forbidden when continue is provided"));
            }
            if self.version_match == Match::Unset {
                errors.push(unsupported_match(asked, "\"Exact\", \"NotOlderThan\", \"\""));
            }
            if self.version_match == Match::Exact && self.resource_version == "0" {
                let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
                errors.push(Error::forbidden(at(), why));
            }
        }
        if self.send_initial_events.is_some() {
            let at = Path::new("sendInitialEvents");
            errors.push(Error::forbidden(at, "sendInitialEvents is forbidden for list"));
        }
        errors
    }

    fn watch_errors(&self, asked: &str) -> Errors {
        let at = || Path::new("resourceVersionMatch");
        let mut errors = Errors::new();
        // Upstream turns a watch from "most recent" or "any" into one with initial events first.
        let implied = self.send_initial_events.is_none() && matches!(self.resource_version.as_str(), "" | "0");
        if implied && asked.is_empty() && !self.continue_token.is_empty() {
            errors.push(Error::forbidden(at(), "resourceVersionMatch is forbidden when continue is provided"));
        }
        if self.send_initial_events.is_some() && asked != "NotOlderThan" {
            let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            errors.push(Error::forbidden(at(), why));
        }
        if !asked.is_empty() {
            if self.send_initial_events.is_none() {
                let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                errors.push(Error::forbidden(at(), why));
            }
            if asked != "NotOlderThan" {
                errors.push(unsupported_match(asked, "\"NotOlderThan\""));
            }
            if !self.continue_token.is_empty() {
                errors.push(Error::forbidden(at(), "resourceVersionMatch is forbidden when continue is provided"));
            }
        }
        errors
    }
}

/// Upstream gives the values in an order of its own here.
fn unsupported_match(asked: &str, values: &str) -> Error {
    let mut error = Error::not_supported(Path::new("resourceVersionMatch"), asked, &[]);
    error.detail = format!("supported values: {values}");
    error
}

fn number(query: &Query, key: &str) -> StatusResult<Option<i64>> {
    let Some(text) = query.get(key).filter(|text| !text.is_empty()) else { return Ok(None) };
    text.parse().map(Some).map_err(|why| Status::bad_request(unread_number("ParseInt", text, &why)))
}

/// Reads a resourceVersion; the empty one is 0. The error is upstream's text.
pub(crate) fn revision(text: &str) -> Result<Revision, String> {
    let refused = |why: String| format!("resourceVersion: Invalid value: {text:?}: {why}");
    match text {
        "" => Ok(0),
        _ if text.starts_with('+') => Err(refused(format!("strconv.ParseUint: parsing {text:?}: invalid syntax"))),
        _ => text.parse().map_err(|why| refused(unread_number("ParseUint", text, &why))),
    }
}

/// 500 without a reason: what upstream answers where a storage error is not translated.
pub(crate) fn untranslated(why: String) -> Box<Status> {
    Status::failure(500, "", why)
}
