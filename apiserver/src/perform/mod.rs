//! Does what the write machine asks for, and commits what it decides.

mod collection;
pub(crate) mod lease;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::decode::Format;
use api::patch::PatchType;
use api::{Document, ObjectName, Status, StatusResult};
use bytes::Bytes;
use http::{HeaderMap, Response};
use serde_json::Value;
use store::{Commit, Entry, Range, Revision, Txn};

use crate::attributes::{Attributes, ResourceAttributes, User};
use crate::cache::Item;
use crate::call::Call;
use crate::core::Core;
use crate::negotiate::{Form, Offer};
use crate::parts::Body;
use crate::read::{PATIENCE, formed};
use crate::request::Query;
use crate::respond::{self, Style};
use crate::row::Resource;
use crate::view::View;
use crate::write::options::{DeleteOptions, WriteOptions};
use crate::write::{
    Answer, Ask, Done, Known, Request, Settings, Shown, Snapshot, Step, Verb, body, step, store_status,
};

/// A write that meets so many conflicts in a row is given up.
const MAX_TRIES: usize = 50;

/// Answers a writing request.
pub(crate) async fn write(core: &Core, call: &Call, body: Bytes) -> StatusResult<Response<Body>> {
    let accepted = call.negotiate(Offer::Forms)?;
    let style = Style::of(accepted.encoding, accepted.pretty, &call.headers, &call.query);
    let body = body::transcoded(call, body)?;
    if call.attributes.verb == "deletecollection" {
        return collection::delete(core, call, body, style).await;
    }
    let request = request(core, call, body).await?;
    let done = match crate::answers::answerer(core, call) {
        Some(answerer) => crate::answers::answer(core, &request, answerer.as_ref()),
        None => perform(core, &request).await,
    };
    let mut response = match done.answer {
        Ok(answer) => shown(call, answer, accepted.form, style)?,
        Err(status) => respond::status(&status, style),
    };
    respond::warn(&mut response, &done.warnings);
    Ok(response)
}

fn shown(call: &Call, answer: Answer, form: Form, style: Style) -> StatusResult<Response<Body>> {
    Ok(match (answer.shown, form) {
        (Shown::Object(document), Form::Native) => respond::object(answer.code, &document, style),
        (Shown::Object(document), form) => respond::value(answer.code, &formed(call, &document, form)?, style),
        (Shown::Status(status), _) => respond::value(answer.code, &status, style),
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
    Ok(Request { call: call.clone(), verb, options, body, format, settings: settings(core, call).await? })
}

/// Strategic merge needs a schema with merge keys; custom resources have none.
fn patch_type(call: &Call, media: &str) -> StatusResult<PatchType> {
    let known = PatchType::of_media_type(media);
    known.filter(|kind| !(call.row.custom && *kind == PatchType::Strategic)).ok_or_else(body::unknown_patch)
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
pub(crate) async fn internal_delete(core: &Core, row: &Arc<Resource>, object: ObjectName) {
    let user = User { name: "system:apiserver".into(), groups: vec!["system:masters".into()], ..User::default() };
    let Some(version) = row.versions.iter().find(|v| v.served) else { return };
    let target = ResourceAttributes {
        group_version: row.group_version(version),
        resource: row.plural.clone(),
        subresource: String::new(),
        object,
        fields: Vec::new(),
    };
    let attributes = Attributes { user, verb: "delete".into(), resource: Some(target), path: String::new() };
    let call = Call::new(attributes, Arc::clone(row), Query::default(), HeaderMap::new(), core.now());
    let Some(call) = call else { return };
    let Ok(settings) = settings(core, &call).await else { return };
    let request = Request {
        call,
        verb: Verb::Delete(DeleteOptions::default()),
        options: WriteOptions::default(),
        body: Bytes::new(),
        format: Format::Json,
        settings,
    };
    if let Err(status) = perform(core, &request).await.answer {
        tracing::debug!(%status, "an object of a deleted definition could not be deleted");
    }
}

/// What the store answered since the caches were read.
#[derive(Default)]
struct Answers {
    objects: BTreeMap<String, Option<Document>>,
    keys: BTreeMap<String, Known>,
    lists: BTreeMap<String, BTreeSet<String>>,
}

struct Look<'a> {
    core: &'a Core,
    answers: &'a Answers,
}

impl Snapshot for Look<'_> {
    fn view(&self) -> &dyn View {
        self.core
    }

    fn object(&self, key: &str) -> Option<Document> {
        match self.answers.objects.get(key) {
            Some(answered) => answered.clone(),
            None => cached(self.core, key),
        }
    }

    fn key(&self, key: &str) -> Known {
        self.answers.keys.get(key).copied().unwrap_or(Known::Unknown)
    }

    fn keys(&self, prefix: &str) -> Option<&BTreeSet<String>> {
        self.answers.lists.get(prefix)
    }
}

fn cached(core: &Core, key: &str) -> Option<Document> {
    core.cache.of_key(key)?.get(key.as_bytes()).map(|item| item.document())
}

/// Runs the machine until its decision is committed. A failure or a decision to change nothing is only believed when it
/// was made from the store's latest state.
pub(crate) async fn perform(core: &Core, request: &Request) -> Done {
    let plugins = core.parts.admission.as_slice();
    let entropy = core.entropy();
    let mut answers = Answers::default();
    let mut fresh = false;
    for _ in 0..MAX_TRIES {
        let seen = core.cache.seen();
        let look = Look { core, answers: &answers };
        let done = match step(request, &look, plugins, entropy.clone()) {
            Step::Ask(ask) => match learn(core, &mut answers, ask).await {
                Ok(()) => continue,
                Err(error) => return failed(store_status(&error)),
            },
            Step::Done(done) => done,
        };
        if done.txn.ops.is_empty() {
            if fresh || !catch_up(core, seen).await {
                return done;
            }
            fresh = true;
            answers = Answers::default();
            continue;
        }
        match core.cache.store().commit(done.txn.clone()).await {
            Ok(Commit::Done(revision)) => return stamped(done, revision),
            Ok(Commit::Conflict(_, found)) => note(core, &mut answers, &done.txn, found),
            Err(error) => return failed(store_status(&error)),
        }
    }
    let name = &request.call.target.object.name;
    failed(Status::conflict(&request.call.resource(), name, "too many conflicts, please try again"))
}

/// Whether the caches learned something new by waiting for the store's latest revision.
async fn catch_up(core: &Core, seen: Revision) -> bool {
    matches!(core.cache.catch_up(PATIENCE).await, Ok(true)) && core.cache.seen() > seen
}

fn failed(status: Box<Status>) -> Done {
    Done { txn: Txn::default(), answer: Err(status), warnings: Vec::new() }
}

async fn learn(core: &Core, answers: &mut Answers, ask: Ask) -> Result<(), store::Error> {
    let store = core.cache.store();
    match ask {
        Ask::Read(key) => {
            let page = store.range(Range::key(key.clone().into_bytes())).await?;
            let known = if page.entries.is_empty() { Known::Free } else { Known::Taken };
            answers.keys.insert(key, known);
        }
        Ask::List(prefix) => {
            let page = store.range(Range::prefix(prefix.clone().into_bytes())).await?;
            let keys = page.entries.iter().map(|e| String::from_utf8_lossy(&e.key).into_owned()).collect();
            answers.lists.insert(prefix, keys);
        }
    }
    Ok(())
}

/// What stood at the keys of a commit that met a conflict.
fn note(core: &Core, answers: &mut Answers, txn: &Txn, found: Vec<Option<Entry>>) {
    for (compare, entry) in txn.compare.iter().zip(found) {
        let key = String::from_utf8_lossy(&compare.key).into_owned();
        if key.starts_with(&core.config.own_prefix) {
            let known = if entry.is_some() { Known::Taken } else { Known::Free };
            answers.keys.insert(key, known);
        } else {
            let kind = core.cache.of_key(&key);
            let read = |entry: Entry| Some(Item::of(&entry, kind.as_ref()?.strategy())?.document());
            answers.objects.insert(key, entry.and_then(read));
        }
    }
}

/// A committed object's resourceVersion is the commit's revision.
fn stamped(mut done: Done, revision: Revision) -> Done {
    if let Ok(Answer { shown: Shown::Object(document), .. }) = &mut done.answer {
        document.set("/metadata/resourceVersion", Value::from(revision.to_string()));
    }
    done
}
