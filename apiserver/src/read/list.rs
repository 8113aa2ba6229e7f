//! LIST: which objects at which revision, and the bytes of the answer.

use std::sync::Arc;

use api::{Document, LabelSelector, Status, StatusResult};
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream;
use http::Response;
use http::header::{self, HeaderValue};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Map, Value, json};
use store::{Error, Range, Revision};

use super::options::{self, ListOptions, Match};
use super::token::Token;
use super::{convert, document_in, form, fresh_enough, kind_of, table_shape, too_large};
use crate::cache::kind::Part;
use crate::cache::{Item, encode};
use crate::call::Call;
use crate::core::Core;
use crate::negotiate::{Encoding, Form, Offer};
use crate::parts::Body;
use crate::respond::{self, Style};

/// A part of a list is handed to the connection in pieces of about this size.
const PIECE: usize = 64 * 1024;
/// Entries read at once from the store's history.
const HISTORY_PAGE: usize = 1000;

/// What a list has found.
#[derive(Default)]
pub(crate) struct Found {
    items: Vec<Arc<Item>>,
    revision: Revision,
    continue_token: String,
    remaining: Option<usize>,
}

/// Answers a LIST.
pub(crate) async fn list(core: &Core, call: &Call) -> StatusResult<Response<Body>> {
    let accepted = call.negotiate(Offer::Forms)?;
    let options = ListOptions::parse(call, false)?;
    let found = find(core, call, &options).await?;
    let style = Style::of(accepted.encoding, accepted.pretty, &call.headers, &call.query);
    match accepted.form {
        Form::Native if style.encoding == Encoding::Json && !style.pretty => Ok(streamed(call, found, style)),
        form => Ok(respond::bytes(200, whole(call, &found, form)?, style)),
    }
}

/// The selected objects.
pub(crate) async fn find(core: &Core, call: &Call, options: &ListOptions) -> StatusResult<Found> {
    let text = options.resource_version.as_str();
    let wanted =
        options::revision(text).map_err(|why| Status::bad_request(format!("invalid resource version: {why}")))?;
    if !options.continue_token.is_empty() {
        let prefix = prefix(call)?;
        let (start, revision) = Token::parse(&options.continue_token, &prefix)?;
        if !matches!(text, "" | "0") {
            return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
        }
        // Upstream answers this from its cache, which knows no limit.
        let unlimited = ListOptions { limit: 0, ..options.clone() };
        return at(core, call, if text == "0" { &unlimited } else { options }, start, revision).await;
    }
    let legacy_exact = options.limit > 0 && options.version_match == Match::Unset && wanted > 0;
    if options.version_match == Match::Exact || legacy_exact {
        let prefix = prefix(call)?;
        return at(core, call, options, prefix, Some(wanted)).await;
    }
    fresh_enough(core, text, wanted).await?;
    let limit = if text == "0" { 0 } else { options.limit };
    current(core, call, options, limit, None).await
}

fn prefix(call: &Call) -> StatusResult<String> {
    call.row.key_prefix(&call.target().object.namespace).ok_or_else(Status::page_not_found)
}

/// From the cache, as it is now. `start`: from that key on.
async fn current(
    core: &Core,
    call: &Call,
    options: &ListOptions,
    limit: usize,
    start: Option<&str>,
) -> StatusResult<Found> {
    let prefix = prefix(call)?;
    let kind = kind_of(core, call)?;
    let seen = core.cache.seen();
    let start = start.unwrap_or(&prefix);
    // One more than wanted tells whether there are more.
    let most = if limit == 0 { 0 } else { limit + 1 };
    let selects = |item: &Item| options.selection.selects(item);
    let by_index = |r: &api::selector::FieldRequirement| kind.find(&r.field, &r.value, &prefix);
    let mut required = options.selection.fields.requirements().iter().filter(|r| r.equal);
    let up_to = if most == 0 { usize::MAX } else { most };
    let mut part = if call.row.converter.is_some() && !options.selection.is_everything() {
        // A selector sees what the webhook makes of an object.
        let Part { items, count, applied } = kind.select(&prefix, start, 0, &LabelSelector::everything(), |_| true);
        let items = convert::shown(core, call, items).await?.into_iter().filter(|item| selects(item));
        Part { items: items.take(up_to).collect(), count, applied }
    } else {
        let part = match required.find_map(by_index) {
            Some((all, applied)) => {
                let selected = all.into_iter().filter(|item| item.key.as_ref() >= start.as_bytes() && selects(item));
                Part { items: selected.take(up_to).collect(), count: 0, applied }
            }
            None => kind.select(&prefix, start, most, &options.selection.labels, selects),
        };
        Part { items: convert::shown(core, call, part.items).await?, ..part }
    };
    let revision = seen.max(part.applied);
    let more = limit > 0 && part.items.len() > limit;
    if more {
        part.items.truncate(limit);
    }
    Ok(page(part.items, more, part.count.saturating_sub(limit), &prefix, revision, options))
}

fn page(
    items: Vec<Arc<Item>>,
    more: bool,
    left: usize,
    prefix: &str,
    revision: Revision,
    options: &ListOptions,
) -> Found {
    let last = items.last().filter(|_| more).map(|item| String::from_utf8_lossy(&item.key).into_owned());
    let remaining = last.as_ref().filter(|_| options.selection.is_everything()).map(|_| left);
    let continue_token = last.map(|last| Token::after(&last, prefix, revision)).unwrap_or_default();
    Found { items, revision, continue_token, remaining }
}

/// As of a revision (`None`: the latest), from a key on.
async fn at(
    core: &Core,
    call: &Call,
    options: &ListOptions,
    start: String,
    revision: Option<Revision>,
) -> StatusResult<Found> {
    let Some(revision) = revision else {
        fresh_enough(core, "", 0).await?;
        return current(core, call, options, options.limit, Some(&start)).await;
    };
    let kind = kind_of(core, call)?;
    if kind.revision() <= revision && revision <= core.cache.seen() {
        // That revisions are given up after a while is the store's to say, also where nothing changed meanwhile.
        let probe = Range { count_only: true, revision, ..Range::key(start.clone().into_bytes()) };
        core.cache.store().range(probe).await.map_err(|e| gone(&e, options, revision))?;
        let found = current(core, call, options, options.limit, Some(&start)).await?;
        // Nothing changed since that revision, unless it did while we looked.
        if kind.revision() <= revision {
            return Ok(restamp(found, &prefix(call)?, revision));
        }
    }
    history(core, call, options, start, revision).await
}

/// Gives an unchanged list the revision that was asked for.
fn restamp(mut found: Found, prefix: &str, revision: Revision) -> Found {
    found.revision = revision;
    if let (false, Some(last)) = (found.continue_token.is_empty(), found.items.last()) {
        found.continue_token = Token::after(&String::from_utf8_lossy(&last.key), prefix, revision);
    }
    found
}

/// From the store's history.
async fn history(
    core: &Core,
    call: &Call,
    options: &ListOptions,
    start: String,
    revision: Revision,
) -> StatusResult<Found> {
    let prefix = prefix(call)?;
    let end = store::prefix_end(prefix.as_bytes());
    // One more than wanted tells whether there are more.
    let whole = options.limit > 0 && options.selection.is_everything();
    let step = if whole { HISTORY_PAGE.min(options.limit + 1) } else { HISTORY_PAGE };
    let mut range = Range { start: start.into(), end, limit: step, revision, count_only: false };
    let mut items: Vec<Arc<Item>> = Vec::new();
    loop {
        let part = core.cache.store().range(range.clone()).await.map_err(|e| gone(&e, options, revision))?;
        let read = part.entries.iter().filter_map(|entry| Item::of(entry, &call.row.strategy).map(Arc::new));
        for (at, item) in convert::shown(core, call, read.collect()).await?.into_iter().enumerate() {
            if !options.selection.selects(&item) {
                continue;
            }
            if options.limit > 0 && items.len() == options.limit {
                return Ok(page(items, true, part.count.saturating_sub(at), &prefix, revision, options));
            }
            items.push(item);
        }
        match part.entries.last() {
            Some(last) if part.entries.len() == step => range.start = [last.key.as_ref(), &[0]].concat().into(),
            _ => return Ok(page(items, false, 0, &prefix, revision, options)),
        }
    }
}

fn gone(error: &Error, options: &ListOptions, revision: Revision) -> Box<Status> {
    match error {
        Error::Compacted(_) if options.continue_token.is_empty() => {
            Status::expired("The resourceVersion for the provided list is too old.")
        }
        Error::Compacted(_) => {
            let mut status = Status::expired(CONTINUE_TOO_OLD);
            status.metadata.continue_ = Token::inconsistent(&options.continue_token);
            status
        }
        Error::FutureRevision(_) => too_large(revision, revision.saturating_sub(1), false),
        other => crate::write::store_status(other),
    }
}

const CONTINUE_TOO_OLD: &str = "The provided continue parameter is too old to display a consistent list result. You can \
    start a new list without the continue parameter, or use the continue token in this response to retrieve the \
    remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were \
    created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

fn metadata(found: &Found) -> Value {
    let mut metadata = Map::new();
    metadata.insert("resourceVersion".into(), found.revision.to_string().into());
    if !found.continue_token.is_empty() {
        metadata.insert("continue".into(), found.continue_token.clone().into());
    }
    if let Some(remaining) = found.remaining {
        metadata.insert("remainingItemCount".into(), remaining.into());
    }
    Value::Object(metadata)
}

/// The whole list as compact JSON.
pub(crate) fn whole(call: &Call, found: &Found, form: Form) -> StatusResult<Bytes> {
    let documents = || found.items.iter().map(|item| document_in(call, item)).collect::<Vec<_>>();
    let value = match form {
        Form::Native => return Ok(pieces(call, found).concat().into()),
        Form::Table(version) => {
            let shape = table_shape(call, version)?;
            form::table(&call.row, call.version(), &shape, &documents(), metadata(found))
        }
        Form::Partial(_) => {
            return Err(super::wrong_form("PartialObjectMetadata", "a list", call, &call.row.list_kind));
        }
        Form::PartialList(version) => {
            let items: Vec<Value> = documents().iter().map(|d| form::partial(d, version)).collect();
            // As upstream: no list is made for nothing.
            let items = if items.is_empty() { Value::Null } else { items.into() };
            let api_version = format!("meta.k8s.io/{version}");
            json!({"kind": "PartialObjectMetadataList", "apiVersion": api_version, "metadata": metadata(found), "items": items})
        }
    };
    Ok(Document::new(value).map(|d| encode(&d)).unwrap_or_default())
}

/// The list's bytes in pieces: stored bytes side by side, nothing is encoded again.
fn pieces(call: &Call, found: &Found) -> Vec<Bytes> {
    let head = format!(
        "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{},\"items\":[",
        call.row.list_kind,
        call.row.group_version(call.version()),
        metadata(found)
    );
    let mut out = Vec::new();
    let mut piece = BytesMut::with_capacity(PIECE);
    piece.put_slice(head.as_bytes());
    for (index, item) in found.items.iter().enumerate() {
        if index > 0 {
            piece.put_u8(b',');
        }
        put_item(call, item, &mut piece);
        if piece.len() >= PIECE {
            out.push(piece.split().freeze());
        }
    }
    piece.put_slice(b"]}");
    out.push(piece.freeze());
    out
}

/// Items of a built-in list carry neither kind nor apiVersion; those of a custom one do.
fn put_item(call: &Call, item: &Item, piece: &mut BytesMut) {
    if call.row.shows(call.version(), item.api_version()) {
        match call.row.custom {
            true => piece.put_slice(&item.bytes),
            false => {
                piece.put_u8(b'{');
                piece.put_slice(&item.body());
            }
        }
        return;
    }
    let mut document = document_in(call, item);
    if !call.row.custom {
        document.remove("/kind");
        document.remove("/apiVersion");
    }
    piece.put_slice(&encode(&document));
}

/// A list's answer as a stream, compressed as a whole where it is large and the client accepts that.
fn streamed(call: &Call, found: Found, style: Style) -> Response<Body> {
    let mut pieces = pieces(call, &found);
    drop(found);
    if style.gzip && pieces.len() > 2 {
        return respond::bytes(200, pieces.concat().into(), style);
    }
    pieces.push(Bytes::from_static(b"\n"));
    let frames = stream::iter(pieces.into_iter().map(|piece| Ok(Frame::data(piece))));
    let mut response = respond::whole(200, "application/json", Bytes::new());
    *response.body_mut() = StreamBody::new(frames).boxed_unsync();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

impl Found {
    /// The objects, in order.
    pub(crate) fn items(&self) -> &[Arc<Item>] {
        &self.items
    }
}
