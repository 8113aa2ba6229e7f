//! Get, list and watch, from the caches.

use std::sync::Arc;
use std::time::Duration;

use api::{Document, Status, StatusResult};
use bytes::Bytes;
use http::Response;
use serde_json::json;
use store::Revision;

pub(crate) mod convert;
pub(crate) mod form;
pub(crate) mod list;
pub(crate) mod options;
pub(crate) mod scale;
pub(crate) mod token;
pub(crate) mod watch;

use crate::cache::{Item, Kind, encode};
use crate::call::Call;
use crate::conversion::relabelled;
use crate::core::Core;
use crate::negotiate::{Form, Offer};
use crate::parts::Body;
use crate::respond::{self, Style};
use form::{Include, Shown};

/// How long a read waits for a revision it was promised.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// Reads one object.
pub(crate) async fn get(core: &Core, call: &Call) -> StatusResult<Response<Body>> {
    if call.query.get("export").is_some_and(|v| !matches!(v, "" | "false" | "0")) {
        return Err(Status::bad_request("the export parameter, deprecated since v1.14, is no longer supported"));
    }
    let accepted = call.negotiate(Offer::Forms)?;
    if matches!(accepted.form, Form::Table(_)) {
        table_shape(call, "v1")?;
    }
    let text = call.query.get("resourceVersion").unwrap_or_default();
    let wanted = options::revision(text).map_err(options::untranslated)?;
    fresh_enough(core, text, wanted).await?;
    let item = named(core, call).await?;
    let style = Style::of(accepted.encoding, accepted.pretty, &call.headers, &call.query);
    shown(call, &item, accepted.form, style)
}

/// The object that the path names, in the call's version.
async fn named(core: &Core, call: &Call) -> StatusResult<Arc<Item>> {
    let object = &call.target().object;
    let found = call.row.key(object).and_then(|key| kind_of(core, call).ok()?.get(key.as_bytes()));
    let item = found.ok_or_else(|| Status::not_found(&call.resource(), &object.name))?;
    let shown = convert::shown(core, call, vec![Arc::clone(&item)]).await?;
    Ok(shown.into_iter().next().unwrap_or(item))
}

fn shown(call: &Call, item: &Item, form: Form, style: Style) -> StatusResult<Response<Body>> {
    Ok(match form {
        Form::Native => respond::bytes(200, bytes_in(call, item), style),
        _ => respond::value(200, &formed(call, &document_in(call, item), form)?, style),
    })
}

/// A single object in a form other than its own.
pub(crate) fn formed(call: &Call, document: &Document, form: Form) -> StatusResult<serde_json::Value> {
    match form {
        Form::Native => Ok(document.value().clone()),
        Form::Partial(version) => Ok(form::partial(document, version)),
        Form::PartialList(_) => Err(wrong_form("PartialObjectMetadataList", "not a list", call, &call.row.kind)),
        Form::Table(version) => {
            let metadata = json!({"resourceVersion": document.resource_version()});
            let shown = table_shape(call, version)?;
            Ok(form::table(&call.row, call.version(), &shown, std::slice::from_ref(document), metadata))
        }
    }
}

/// 406: a list asked for as one object, or the other way round; upstream names its internal type.
pub(crate) fn wrong_form(asked: &str, what: &str, call: &Call, kind: &str) -> Box<Status> {
    let package = if call.row.group.is_empty() { "core" } else { call.row.group.split('.').next().unwrap_or_default() };
    let message = format!("you requested {asked}, but the requested object is {what} (*{package}.{kind})");
    Status::failure(406, "NotAcceptable", message)
}

/// How tables are shown to this call.
pub(crate) fn table_shape(call: &Call, version: &'static str) -> StatusResult<Shown> {
    let include = Include::parse(&call.query).map_err(Status::bad_request)?;
    Ok(Shown { version, include, now: call.now, headers: true })
}

/// The cache of the call's resource.
pub(crate) fn kind_of(core: &Core, call: &Call) -> StatusResult<Arc<Kind>> {
    let storage = call.row.storage.as_ref().ok_or_else(Status::page_not_found)?;
    core.cache.kind(&storage.prefix).ok_or_else(Status::page_not_found)
}

/// The bytes of an object in the call's version.
fn bytes_in(call: &Call, item: &Item) -> Bytes {
    match call.row.shows(call.version(), item.api_version()) {
        true => item.bytes.clone(),
        false => encode(&document_in(call, item)),
    }
}

/// The tree of an object in the call's version. [`convert::shown`] has seen to what needs a webhook.
pub(crate) fn document_in(call: &Call, item: &Item) -> Document {
    relabelled(&call.row, call.version(), item.document())
}

/// Waits until the cache is as new as a read with this resourceVersion may expect: empty is the store's own revision.
pub(crate) async fn fresh_enough(core: &Core, text: &str, wanted: Revision) -> StatusResult<()> {
    match text {
        "0" => Ok(()),
        "" => {
            let in_time = core.cache.catch_up(PATIENCE).await.map_err(|e| crate::write::store_status(&e))?;
            if in_time { Ok(()) } else { Err(too_large(core.cache.seen() + 1, core.cache.seen(), true)) }
        }
        _ if core.cache.wait(wanted, PATIENCE).await => Ok(()),
        _ => Err(too_large(wanted, core.cache.seen(), true)),
    }
}

/// 504: the revision is not there yet.
pub(crate) fn too_large(wanted: Revision, current: Revision, retry: bool) -> Box<Status> {
    let message = format!("Timeout: Too large resource version: {wanted}, current: {current}");
    let cause = api::status::Cause {
        reason: "ResourceVersionTooLarge".into(),
        message: "Too large resource version".into(),
        ..api::status::Cause::default()
    };
    let retry_after_seconds = retry.then_some(1);
    let details = api::status::Details { causes: vec![cause], retry_after_seconds, ..api::status::Details::default() };
    Status::failure(504, "Timeout", message).with(details)
}
