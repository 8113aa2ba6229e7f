//! Does what the write machine asks for, and commits what it decides.

mod collection;
pub(crate) mod connect;
pub(crate) mod lease;
mod outside;
pub(crate) mod session;
mod trust;
pub(crate) mod turns;

use std::sync::Arc;

use api::decode::Format;
use api::patch::PatchType;
use api::{Document, ObjectName, Status, StatusResult};
use bytes::Bytes;
use http::Response;
use serde_json::Value;
use store::{Commit, Revision, Txn};

use crate::attributes::{Attributes, ResourceAttributes, User};
use crate::call::Call;
use crate::core::Core;
use crate::negotiate::{Encoding, Form, Offer};
use crate::parts::Body;
use crate::read::{PATIENCE, formed};
use crate::respond::{self, Style};
use crate::row::Resource;
use crate::write::options::{DeleteOptions, WriteOptions};
use crate::write::{Answer, Done, Request, Settings, Shown, Step, Verb, body, store_status};
pub(crate) use outside::Outside;
use session::Session;

/// A write that meets so many conflicts in a row is given up.
const MAX_TRIES: usize = 50;

/// Answers a writing request.
pub(crate) async fn write(core: &Core, call: &Call, body: Bytes) -> StatusResult<Response<Body>> {
    let accepted = call.negotiate(Offer::Forms)?;
    let style = Style::of(accepted.encoding, accepted.pretty, &call.headers, &call.query);
    let body = body::transcoded(call, body)?;
    if call.attributes.verb == "deletecollection" {
        return collection::delete(core, call, body, accepted.form, style).await;
    }
    let request = request(core, call, body).await?;
    let done = match crate::answers::answerer(core, call) {
        Some(answerer) => crate::answers::answer(core, &request, answerer.as_ref()).await,
        None => perform(core, &request).await,
    };
    let mut response = match done.answer {
        Ok(answer) => shown(call, answer, accepted.form, style)?,
        Err(status) => respond::status(&status, style),
    };
    respond::warn(&mut response, &done.warnings);
    respond::annotate(&mut response, done.annotations);
    Ok(response)
}

fn shown(call: &Call, answer: Answer, form: Form, style: Style) -> StatusResult<Response<Body>> {
    Ok(match (answer.shown, form) {
        (Shown::Object(document), Form::Native) => respond::object(answer.code, &document, style),
        (Shown::Object(document), form) => respond::value(answer.code, &formed(call, &document, form)?, style),
        (Shown::Status(mut status), _) => {
            // In protobuf upstream fills in the code where JSON has none.
            if style.encoding == Encoding::Protobuf && status.get("code").is_none() && answer.code != 200 {
                status["code"] = answer.code.into();
            }
            respond::value(answer.code, &status, style)
        }
    })
}

/// The request for the machine: verb, options and format.
async fn request(core: &Core, call: &Call, body: Bytes) -> StatusResult<Request> {
    let media = body::media_type(&call.headers);
    let verb = match call.attributes.verb.as_str() {
        "create" => Verb::Create,
        "update" => Verb::Update,
        "patch" if media == "application/apply-patch+yaml" => Verb::Apply,
        "patch" => Verb::Patch(patch_type(call, &media)?),
        _ => Verb::Delete(DeleteOptions::default()),
    };
    let format = match verb {
        Verb::Create | Verb::Update => body::format(&call.headers)?,
        Verb::Delete(_) if !body.is_empty() => body::format(&call.headers)?,
        _ => Format::Json,
    };
    let (verb, options) = match verb {
        Verb::Delete(_) => (Verb::Delete(DeleteOptions::parse(&call.query, &body, format)?), WriteOptions::default()),
        verb => {
            let options = options(call, &verb)?;
            (verb, options)
        }
    };
    let settings = settings(core, call).await?;
    let call = call.clone();
    Ok(Request { call, verb, options, body, format, settings, internal: false, collection: false })
}

/// Strategic merge needs a schema with merge keys; custom resources have none.
fn patch_type(call: &Call, media: &str) -> StatusResult<PatchType> {
    let known = PatchType::of_media_type(media);
    let offered = |kind: &PatchType| !(call.row.custom && *kind == PatchType::Strategic);
    known.filter(offered).ok_or_else(|| body::unknown_patch(call.row.custom))
}

fn options(call: &Call, verb: &Verb) -> StatusResult<WriteOptions> {
    let kind = match verb {
        Verb::Create => "CreateOptions",
        Verb::Update => "UpdateOptions",
        _ => "PatchOptions",
    };
    WriteOptions::parse(&call.query, kind, matches!(verb, Verb::Apply))
}

/// What of the configuration the machine needs, with a lease for what expires.
pub(crate) async fn settings(core: &Core, call: &Call) -> StatusResult<Settings> {
    let config = &core.config;
    let lease = match call.row.behaviour.expires {
        true => {
            let granted = core.leases.current(core.cache.store().as_ref(), config.event_ttl).await;
            granted.map_err(|e| store_status(&e))?
        }
        false => 0,
    };
    Ok(Settings {
        service_cidrs: config.service_cidrs.clone(),
        node_ports: (*config.node_ports.start(), *config.node_ports.end()),
        own_prefix: config.own_prefix.clone(),
        lease,
    })
}

/// Deletes an object on the server's own behalf, on the one path of every write.
pub(crate) async fn internal_delete(core: &Core, row: &Arc<Resource>, object: ObjectName) -> StatusResult<()> {
    let verb = Verb::Delete(DeleteOptions::default());
    let (options, body) = (WriteOptions::default(), Bytes::new());
    internal(core, row, Internal { name: "delete", object, subresource: "", verb, options, body }).await
}

/// Applies a part of an object (server-side, by force) on the server's own behalf.
pub(crate) async fn internal_apply(
    core: &Core,
    row: &Arc<Resource>,
    subresource: &str,
    config: &Document,
    manager: &str,
) -> StatusResult<()> {
    let object = ObjectName { namespace: config.namespace().into(), name: config.name().into() };
    let options = WriteOptions { manager: manager.into(), force: Some(true), ..WriteOptions::default() };
    let body = config.to_bytes().into();
    internal(core, row, Internal { name: "patch", object, subresource, verb: Verb::Apply, options, body }).await
}

/// A write of the server's own.
struct Internal<'a> {
    /// The verb, as authorization names it.
    name: &'a str,
    object: ObjectName,
    subresource: &'a str,
    verb: Verb,
    options: WriteOptions,
    body: Bytes,
}

async fn internal(core: &Core, row: &Arc<Resource>, write: Internal<'_>) -> StatusResult<()> {
    let Internal { name, object, subresource, verb, options, body } = write;
    let user = User { name: "system:apiserver".into(), groups: vec!["system:masters".into()], ..User::default() };
    let version = row.storage_version().ok_or_else(Status::page_not_found)?;
    let target = ResourceAttributes {
        group_version: row.group_version(version),
        resource: row.plural.clone(),
        subresource: subresource.into(),
        object,
        fields: Vec::new(),
    };
    let attributes = Attributes { user, verb: name.into(), resource: Some(target), path: String::new() };
    let call = Call::in_storage(attributes, Arc::clone(row), core.now()).ok_or_else(Status::page_not_found)?;
    let settings = settings(core, &call).await?;
    let format = Format::Json;
    let request = Request { call, verb, options, body, format, settings, internal: true, collection: false };
    perform(core, &request).await.answer.map(drop)
}

/// Runs the machine until its decision is committed. A failure or a decision to change nothing is only believed when it
/// was made from the store's latest state.
pub(crate) async fn perform(core: &Core, request: &Request) -> Done {
    let mut session = Session::new(core, request);
    let mut fresh = false;
    let mut turn = None;
    let mut tries = 0;
    while tries < MAX_TRIES {
        let seen = core.cache.seen();
        let done = match session.step() {
            Step::Ask(ask) => match session.learn(ask).await {
                Ok(()) => continue,
                Err(status) => return failed(status),
            },
            Step::Done(done) => done,
        };
        if done.txn.ops.is_empty() {
            if fresh || !catch_up(core, seen).await {
                return done;
            }
            fresh = true;
            session.forget();
            continue;
        }
        match core.cache.store().commit(done.txn.clone()).await {
            Ok(Commit::Done(revision)) if done.goes_on => {
                if let Ok(Answer { shown: Shown::Object(document), .. }) = stamped(done, revision).answer
                    && let Some(key) = request.call.row.key(&request.call.target.object)
                {
                    session.wrote(key, document);
                }
            }
            Ok(Commit::Done(revision)) => return stamped(done, revision),
            Ok(Commit::Conflict(_, found)) => {
                let contended = turns::contended(&done.txn, &found);
                session.note(&done.txn, found);
                if let Some(contended) = contended {
                    if turn.is_none() {
                        turn = core.turns.take(&contended).await;
                    }
                    // What others took is to be seen before one looks again for what is left.
                    catch_up(core, seen).await;
                }
            }
            Err(error) => return failed(store_status(&error)),
        }
        tries += 1;
    }
    let name = &request.call.target.object.name;
    failed(Status::conflict(&request.call.resource(), name, "too many conflicts, please try again"))
}

/// Whether the caches learned something new by waiting for the store's latest revision.
async fn catch_up(core: &Core, seen: Revision) -> bool {
    matches!(core.cache.catch_up(PATIENCE).await, Ok(true)) && core.cache.seen() > seen
}

fn failed(status: Box<Status>) -> Done {
    Done { txn: Txn::default(), answer: Err(status), warnings: Vec::new(), annotations: Vec::new(), goes_on: false }
}

/// A committed object's resourceVersion is the commit's revision.
fn stamped(mut done: Done, revision: Revision) -> Done {
    if let Ok(Answer { shown: Shown::Object(document), .. }) = &mut done.answer {
        document.set("/metadata/resourceVersion", Value::from(revision.to_string()));
    }
    done
}
