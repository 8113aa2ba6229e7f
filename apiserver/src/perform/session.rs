//! One request's run of the pure machine: what it asks is found out and remembered until it has decided.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use api::{Document, Status, StatusResult};
use store::{Entry, Range, Txn};
use tokio::time::Instant;

use crate::cache::Item;
use crate::call::Call;
use crate::conversion::{Converted, Question};
use crate::core::Core;
use crate::entropy::Entropy;
use crate::hooks::{self, Hooks};
use crate::policies::Policies;
use crate::rows::Rows;
use crate::view::View;
use crate::write;
use crate::write::machine::{Machine, Stepped, Stop};
use crate::write::{Ask, Known, Request, Snapshot, Step, Webhooks, step, store_status};

/// A write takes no longer than this, whatever it waits for (`requestTimeoutUpperBound`).
const MAX_TIME: Duration = Duration::from_secs(34);
/// So many questions are answered for one request.
const MAX_QUESTIONS: usize = 1000;

/// The run.
pub(crate) struct Session<'a> {
    core: &'a Core,
    request: &'a Request,
    entropy: Entropy,
    hooks: Arc<Hooks>,
    policies: Arc<Policies>,
    rows: Arc<Rows>,
    known: Answers,
    replies: Vec<(hooks::Call, hooks::Reply)>,
    converted: Vec<(Question, Converted)>,
    questions: usize,
    deadline: Instant,
}

/// What the store answered since the caches were read.
#[derive(Default)]
struct Answers {
    objects: BTreeMap<String, Option<Read>>,
    keys: BTreeMap<String, Known>,
    lists: BTreeMap<String, BTreeSet<String>>,
}

/// An object, and whether what is stored differs from it.
struct Read {
    document: Document,
    stale: bool,
}

impl Read {
    fn of(item: &Item) -> Self {
        Self { document: item.document(), stale: item.stale }
    }
}

/// What came of it, with all that is to be told besides.
pub(crate) struct Settled<T> {
    /// The result.
    pub answer: StatusResult<T>,
    /// `Warning` texts.
    pub warnings: Vec<String>,
    /// For audit.
    pub annotations: Vec<(String, String)>,
}

impl<'a> Session<'a> {
    /// Nothing is asked yet.
    pub(crate) fn new(core: &'a Core, request: &'a Request) -> Self {
        Self {
            core,
            request,
            entropy: core.entropy(),
            hooks: core.hooks.current(core),
            policies: core.policies.current(core),
            rows: core.registry.current(),
            known: Answers::default(),
            replies: Vec::new(),
            converted: Vec::new(),
            questions: 0,
            deadline: Instant::now() + allowed(&request.call),
        }
    }

    fn look(&self) -> Look<'_> {
        Look { session: self }
    }

    /// What the machine says now.
    pub(crate) fn step(&self) -> Step {
        step(self.request, &self.look(), &self.core.parts.admission, self.entropy.clone())
    }

    /// Runs a part of the machine until it has decided.
    pub(crate) async fn settle<T>(&mut self, run: impl Fn(&mut Machine<'_>) -> Stepped<T>) -> Settled<T> {
        loop {
            let (outcome, warnings, annotations) = {
                let look = self.look();
                let plugins = &self.core.parts.admission;
                let mut machine = Machine::new(self.request, &look, plugins, self.entropy.clone());
                let outcome = run(&mut machine);
                (outcome, machine.warnings, machine.annotations)
            };
            let answer = match outcome {
                Ok(answer) => Ok(answer),
                Err(Stop::Fail(status)) => Err(status),
                Err(Stop::Ask(ask)) => match self.learn(ask).await {
                    Ok(()) => continue,
                    Err(status) => Err(status),
                },
            };
            return Settled { answer, warnings, annotations };
        }
    }

    /// Finds out what the machine wants to know.
    pub(crate) async fn learn(&mut self, ask: Ask) -> StatusResult<()> {
        self.questions += 1;
        if self.questions > MAX_QUESTIONS {
            return Err(Status::internal("a request that asks without end"));
        }
        let store = self.core.cache.store();
        match ask {
            Ask::Read(key) => {
                let page = store.range(Range::key(key.clone().into_bytes())).await.map_err(|e| store_status(&e))?;
                let known = if page.entries.is_empty() { Known::Free } else { Known::Taken };
                self.known.keys.insert(key, known);
            }
            Ask::List(prefix) => {
                let page =
                    store.range(Range::prefix(prefix.clone().into_bytes())).await.map_err(|e| store_status(&e))?;
                let keys = page.entries.iter().map(|e| String::from_utf8_lossy(&e.key).into_owned()).collect();
                self.known.lists.insert(prefix, keys);
            }
            Ask::Webhooks(calls) => {
                let asked = self.core.outside.ask(self.core, &calls, self.deadline);
                let replies = tokio::time::timeout_at(self.deadline, asked).await.map_err(|_| late())?;
                self.replies.extend(calls.into_iter().zip(replies));
            }
            Ask::Convert(question) => {
                let asked = self.core.outside.convert(self.core, &question);
                let converted = tokio::time::timeout_at(self.deadline, asked).await.map_err(|_| late())?;
                self.converted.push((question, converted));
            }
        }
        Ok(())
    }

    /// What a commit of this request left, for the step after it.
    pub(crate) fn wrote(&mut self, key: String, document: Document) {
        self.known.objects.insert(key, Some(Read { document, stale: false }));
    }

    /// What stood at the keys of a commit that met a conflict.
    pub(crate) fn note(&mut self, txn: &Txn, found: Vec<Option<Entry>>) {
        for (compare, entry) in txn.compare.iter().zip(found) {
            let key = String::from_utf8_lossy(&compare.key).into_owned();
            if key.starts_with(&self.core.config.own_prefix) {
                let known = if entry.is_some() { Known::Taken } else { Known::Free };
                self.known.keys.insert(key, known);
            } else {
                let kind = self.core.cache.of_key(&key);
                let read = |entry: Entry| Some(Read::of(&Item::of(&entry, &kind.as_ref()?.strategy())?));
                self.known.objects.insert(key, entry.and_then(read));
            }
        }
    }

    /// The caches know better now than what was read from the store. What webhooks said stays.
    pub(crate) fn forget(&mut self) {
        self.known = Answers::default();
    }
}

/// How long a request may take: what it says, up to the limit.
fn allowed(call: &Call) -> Duration {
    let asked = call.query.get("timeout").and_then(api::duration::parse).filter(|asked| !asked.is_zero());
    asked.map_or(MAX_TIME, |asked| asked.min(MAX_TIME))
}

/// 504: no time is left.
pub(crate) fn late() -> Box<Status> {
    let why = "Timeout: request did not complete within requested timeout - context deadline exceeded";
    Status::failure(504, "Timeout", why).with(api::status::Details::default())
}

struct Look<'a> {
    session: &'a Session<'a>,
}

impl Snapshot for Look<'_> {
    fn view(&self) -> &dyn View {
        self.session.core
    }

    fn object(&self, key: &str) -> Option<Document> {
        match self.session.known.objects.get(key) {
            Some(answered) => answered.as_ref().map(|read| read.document.clone()),
            None => cached(self.session.core, key).map(|item| item.document()),
        }
    }

    fn stale(&self, key: &str) -> bool {
        match self.session.known.objects.get(key) {
            Some(answered) => answered.as_ref().is_some_and(|read| read.stale),
            None => cached(self.session.core, key).is_some_and(|item| item.stale),
        }
    }

    fn converted(&self, question: &Question) -> Option<&Converted> {
        self.session.converted.iter().rev().find(|(asked, _)| asked == question).map(|(_, converted)| converted)
    }

    fn key(&self, key: &str) -> Known {
        self.session.known.keys.get(key).copied().unwrap_or(Known::Unknown)
    }

    fn keys(&self, prefix: &str) -> Option<&BTreeSet<String>> {
        self.session.known.lists.get(prefix)
    }

    fn policies(&self) -> Option<write::Policies<'_>> {
        let policies = &self.session.policies;
        Some(write::Policies { policies, authorizers: &self.session.core.parts.authorizers })
    }

    fn webhooks(&self) -> Webhooks<'_> {
        let Session { hooks, rows, replies, core, .. } = self.session;
        Webhooks { hooks, rows, authorizers: &core.parts.authorizers, replies }
    }
}

fn cached(core: &Core, key: &str) -> Option<Arc<Item>> {
    core.cache.of_key(key)?.get(key.as_bytes())
}
