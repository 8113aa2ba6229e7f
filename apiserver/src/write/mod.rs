//! Writes: one pure machine for every verb and kind, re-run from the request when a commit meets a conflict.
//!
//! `step(request, snapshot, ..) -> Ask(Read | List | Webhooks | Convert) | Done(Txn, answer)`. It holds no async, clock,
//! randomness or I/O: [`crate::perform`] does what it asks for and commits what it decides.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::{Document, Status, StatusResult};
use bytes::Bytes;
use ipnet::IpNet;
use store::{Compare, Error, Op, Txn};

pub(crate) mod addresses;
pub(crate) mod admit;
pub(crate) mod allocate;
mod binding;
pub(crate) mod body;
mod change;
mod create;
mod delete;
pub(crate) mod machine;
mod meta;
pub(crate) mod options;
mod policies;
mod quota;
mod round;
pub(crate) mod scale;
#[cfg(test)]
mod tests;
mod webhooks;

use crate::admission::Plugin;
use crate::attributes::User;
use crate::authz::Authorizer;
use crate::cache::Item;
use crate::call::Call;
use crate::conversion::{Converted, Question};
use crate::entropy::Entropy;
use crate::hooks::{self, Hooks};
use crate::rows::Rows;
use crate::view::View;
pub(crate) use change::equal_but_for;
use machine::Machine;
use options::{DeleteOptions, WriteOptions};

/// What is to be done.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub(crate) enum Verb {
    Create,
    Update,
    Patch(api::patch::PatchType),
    Apply,
    Delete(DeleteOptions),
}

/// A write, with all that its steps need.
#[derive(Clone)]
#[allow(missing_docs)]
pub(crate) struct Request {
    pub call: Call,
    pub verb: Verb,
    pub options: WriteOptions,
    pub body: Bytes,
    pub format: api::decode::Format,
    pub settings: Settings,
    /// Made by the server itself: no webhook is asked.
    pub internal: bool,
    /// One of many objects that a deletecollection deletes.
    pub collection: bool,
}

/// What of the configuration the machine needs.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub(crate) struct Settings {
    pub service_cidrs: Vec<IpNet>,
    pub node_ports: (u16, u16),
    pub own_prefix: String,
    /// The lease that expiring objects get; 0: none yet.
    pub lease: i64,
}

/// What stands at a key that is no object: an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum Known {
    Unknown,
    Free,
    Taken,
}

/// What the machine may look at.
pub(crate) trait Snapshot {
    /// All objects, as the caches hold them.
    fn view(&self) -> &dyn View;
    /// The object at a key in its stored form, with its resourceVersion.
    fn object(&self, key: &str) -> Option<Document>;
    /// Whether what is stored there differs from that: by an older version, or without defaults.
    fn stale(&self, _key: &str) -> bool {
        false
    }
    /// Whether a key of our own is taken, as far as that was asked.
    fn key(&self, key: &str) -> Known;
    /// The keys under a prefix of our own, if that was asked.
    fn keys(&self, prefix: &str) -> Option<&BTreeSet<String>>;
    /// The webhooks, and what those that were asked answered.
    fn webhooks(&self) -> Webhooks<'_>;
    /// What a conversion webhook answered to this very question.
    fn converted(&self, _question: &Question) -> Option<&Converted> {
        None
    }
    /// The admission policies, where there are any.
    fn policies(&self) -> Option<Policies<'_>> {
        None
    }
}

/// What a snapshot knows of admission policies.
#[derive(Clone, Copy)]
#[allow(missing_docs)]
pub(crate) struct Policies<'a> {
    pub policies: &'a crate::policies::Policies,
    pub authorizers: &'a [Arc<dyn Authorizer>],
}

/// What a snapshot knows of webhooks.
#[derive(Clone, Copy)]
#[allow(missing_docs)]
pub(crate) struct Webhooks<'a> {
    pub hooks: &'a Hooks,
    pub rows: &'a Rows,
    pub authorizers: &'a [Arc<dyn Authorizer>],
    pub replies: &'a [(hooks::Call, hooks::Reply)],
}

impl<'a> Webhooks<'a> {
    /// What was answered to this very question.
    pub(crate) fn reply(&self, call: &hooks::Call) -> Option<&'a hooks::Reply> {
        self.replies.iter().rev().find(|(asked, _)| asked == call).map(|(_, reply)| reply)
    }
}

/// A question that must be answered before the machine goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Whether this key is taken.
    Read(String),
    /// Which keys there are under this prefix.
    List(String),
    /// What these webhooks say; they may be asked at the same time.
    Webhooks(Vec<hooks::Call>),
    /// These objects in another version.
    Convert(Question),
}

/// Where the machine stands.
#[derive(Debug)]
pub(crate) enum Step {
    /// It needs an answer.
    Ask(Ask),
    /// It has decided.
    Done(Done),
}

/// A decision.
#[derive(Debug)]
pub(crate) struct Done {
    /// What to commit; empty: nothing.
    pub txn: Txn,
    /// What to answer once that is committed.
    pub answer: StatusResult<Answer>,
    /// `Warning` texts.
    pub warnings: Vec<String>,
    /// What audit is to note.
    pub annotations: Vec<(String, String)>,
    /// Whether the request goes on from what that commit leaves: a pod without grace is marked before it is deleted.
    pub goes_on: bool,
}

/// A success.
#[derive(Debug)]
#[allow(missing_docs)]
pub(crate) struct Answer {
    pub code: u16,
    pub shown: Shown,
}

/// What is shown of it.
#[derive(Debug)]
pub(crate) enum Shown {
    /// An object in the request's version; a commit's revision becomes its resourceVersion.
    Object(Document),
    /// A Status of success.
    Status(serde_json::Value),
}

/// Decides, or asks. The same arguments give the same step.
pub(crate) fn step(request: &Request, snapshot: &dyn Snapshot, plugins: &[&dyn Plugin], entropy: Entropy) -> Step {
    let mut machine = Machine::new(request, snapshot, plugins, entropy);
    let decided = machine.run();
    let Machine { warnings, annotations, goes_on, .. } = machine;
    let goes_on = goes_on && !request.dry_run();
    match decided {
        Err(machine::Stop::Ask(ask)) => Step::Ask(ask),
        Err(machine::Stop::Fail(status)) => {
            Step::Done(Done { txn: Txn::default(), answer: Err(status), warnings, annotations, goes_on: false })
        }
        Ok((txn, answer)) => {
            let txn = if request.dry_run() { Txn::default() } else { txn };
            Step::Done(Done { txn, answer: Ok(answer), warnings, annotations, goes_on })
        }
    }
}

impl Request {
    /// Whether nothing is to be stored.
    pub(crate) fn dry_run(&self) -> bool {
        match &self.verb {
            Verb::Delete(options) => options.dry_run,
            _ => self.options.dry_run,
        }
    }

    /// Who asks.
    pub(crate) fn user(&self) -> &User {
        &self.call.attributes.user
    }

    /// The subresource's name, empty for the resource itself.
    pub(crate) fn subresource(&self) -> &str {
        &self.call.target.subresource
    }
}

/// A compare and a put that replace what an item holds.
pub(crate) fn stored(item: &Item, document: &Document) -> (Compare, Op) {
    let key = String::from_utf8_lossy(&item.key).into_owned();
    let compare = Compare { key: item.key.clone(), mod_revision: item.revision };
    (compare, machine::put(&key, document, 0))
}

/// What a failing store means to a client.
pub(crate) fn store_status(error: &Error) -> Box<Status> {
    match error {
        Error::TooLarge(..) => Status::too_large("etcdserver: request is too large"),
        Error::NoSpace => Status::failure(507, "", "the store has no space left: only deletes are taken"),
        Error::Compacted(_) => Status::expired("The resourceVersion for the provided list is too old."),
        Error::Unknown(_) | Error::Unavailable(_) => {
            Status::retry(500, "ServerTimeout", format!("the store is unavailable: {error}"), 1)
        }
        other => Status::internal(other),
    }
}
