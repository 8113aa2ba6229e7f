//! The machine's state and the words its steps share.

use api::kinds::{Change, Operation};
use api::{Document, GroupVersion, ObjectName, Schema, Status, Timestamp};
use bytes::Bytes;
use serde_json::{Value, json};
use store::{Compare, Op, Txn};

use super::{Answer, Ask, Request, Shown, Snapshot, Verb, binding, change, create, delete, scale};
use crate::admission::Plugin;
use crate::cache::encode_stored;
use crate::canonical::omit_empty;
use crate::conversion::{self, Conversion};
use crate::entropy::Entropy;
use crate::read::options;
use crate::row::{Resource, Version};

/// Why a step stops.
pub(crate) enum Stop {
    /// For an answer.
    Ask(Ask),
    /// For good.
    Fail(Box<Status>),
}

impl From<Box<Status>> for Stop {
    fn from(status: Box<Status>) -> Self {
        Self::Fail(status)
    }
}

/// The result of a step inside the machine.
pub(crate) type Stepped<T> = Result<T, Stop>;

/// One run.
pub(crate) struct Machine<'a> {
    pub request: &'a Request,
    pub snapshot: &'a dyn Snapshot,
    pub plugins: &'a [&'a dyn Plugin],
    pub entropy: Entropy,
    pub warnings: Vec<String>,
    pub annotations: Vec<(String, String)>,
    pub goes_on: bool,
}

impl<'a> Machine<'a> {
    pub(crate) fn new(
        request: &'a Request,
        snapshot: &'a dyn Snapshot,
        plugins: &'a [&'a dyn Plugin],
        entropy: Entropy,
    ) -> Self {
        Self { request, snapshot, plugins, entropy, warnings: Vec::new(), annotations: Vec::new(), goes_on: false }
    }

    /// By verb and subresource.
    pub(crate) fn run(&mut self) -> Stepped<(Txn, Answer)> {
        let own_kind = self.request.call.subresource().is_none_or(|sub| sub.kind.kind == self.request.call.row.kind);
        match (&self.request.verb, self.request.subresource()) {
            (Verb::Create, "binding") => binding::bind(self),
            (Verb::Create, "eviction") => binding::evict(self),
            (_, "scale") => scale::write(self),
            (Verb::Create, "") if self.request.call.row.kind == "Binding" => binding::bind(self),
            (Verb::Create, "") => create::create(self),
            (Verb::Delete(options), "") => delete::delete(self, options),
            (Verb::Update | Verb::Patch(_) | Verb::Apply, _) if own_kind => change::change(self),
            _ => Err(crate::service::not_allowed().into()),
        }
    }

    /// Notes something for audit.
    pub(crate) fn annotate(&mut self, key: String, value: String) {
        self.annotations.push((key, value));
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.request.call.now
    }

    pub(crate) fn version(&self) -> &'a Version {
        self.request.call.version()
    }

    /// The object the path names.
    pub(crate) fn object_name(&self) -> &'a ObjectName {
        &self.request.call.target.object
    }

    /// The key of an object of the request's resource.
    pub(crate) fn key(&self, name: &ObjectName) -> Stepped<String> {
        self.request.call.row.key(name).ok_or_else(|| crate::service::not_allowed().into())
    }

    /// The object that the path names, in the form that the machine works on; 404 where it is not.
    pub(crate) fn current(&self) -> Stepped<(String, Document)> {
        let key = self.key(self.object_name())?;
        match self.object(&key)? {
            Some(document) => Ok((key, document)),
            None => Err(self.not_found().into()),
        }
    }

    /// The object at a key of the request's resource, in the form that the machine works on: a built-in one as it is
    /// stored, a custom one in the request's version.
    pub(crate) fn object(&self, key: &str) -> Stepped<Option<Document>> {
        let call = &self.request.call;
        match self.snapshot.object(key) {
            Some(stored) if call.row.custom => self.translated(call.version(), stored).map(Some),
            stored => Ok(stored),
        }
    }

    fn translated(&self, version: &Version, document: Document) -> Stepped<Document> {
        let converted = self.converted(&self.request.call.row, version, document)?;
        converted.map_err(|why| options::untranslated(why).into())
    }

    /// An object of a row in one of its versions; the error inside is upstream's text.
    pub(crate) fn converted(
        &self,
        row: &Resource,
        version: &Version,
        document: Document,
    ) -> Stepped<Result<Document, String>> {
        let question = match conversion::convert(row, version, document) {
            Ok(Conversion::Done(document)) => return Ok(Ok(document)),
            Ok(Conversion::Ask(question)) => question,
            Err(why) => return Ok(Err(why)),
        };
        match self.snapshot.converted(&question) {
            None => Err(Stop::Ask(Ask::Convert(question))),
            Some(Ok(documents)) => {
                let document = documents.first().cloned().unwrap_or_default();
                Ok(Ok(conversion::received(version, document)))
            }
            Some(Err(why)) => Ok(Err(why.clone())),
        }
    }

    /// Stores an object of the request's resource.
    pub(crate) fn put(&self, key: &str, document: &Document) -> Stepped<Op> {
        let row = &self.request.call.row;
        match row.storage_version().filter(|_| row.custom && !self.request.dry_run()) {
            Some(version) => Ok(put(key, &self.translated(version, document.clone())?, self.lease())),
            None => Ok(put(key, document, self.lease())),
        }
    }

    pub(crate) fn not_found(&self) -> Box<Status> {
        Status::not_found(&self.request.call.resource(), &self.object_name().name)
    }

    /// The schema of what the machine works on.
    pub(crate) fn storage_schema(&self) -> Schema {
        let call = &self.request.call;
        let other = || {
            let storage = call.row.storage.as_ref()?;
            let version = GroupVersion::parse(&storage.api_version)?;
            Schema::of_kind(&version.group, &version.version, &call.row.kind)
        };
        match self.version().convert {
            None => self.version().schema.clone(),
            Some(_) => other().unwrap_or_else(|| self.version().schema.clone()),
        }
    }

    /// What was read, in the request's version, without what Go omits and with all defaults: they belong to the writer.
    pub(crate) fn complete(&self, document: &mut Document) {
        omit_empty(&self.version().schema, document);
        self.version().schema.default(document);
        let row = &self.request.call.row;
        row.to_hub(self.version(), document);
        row.strategy.default(document);
        row.out_of_hub(self.version(), document);
    }

    /// Both kinds of defaults on what the machine works on.
    pub(crate) fn default(&self, document: &mut Document) {
        let schema = self.storage_schema();
        omit_empty(&schema, document);
        schema.default(document);
        self.request.call.row.strategy.default(document);
    }

    /// What the kind's own rules see of this write.
    pub(crate) fn rules_change<'b>(&'b self, operation: Operation, old: Option<&'b Document>) -> Change<'b> {
        Change {
            operation,
            subresource: self.request.subresource(),
            old,
            user: &self.request.call.attributes.user.name,
            now: self.now(),
            version: &self.version().name,
        }
    }

    /// What the machine works on in the request's version.
    pub(crate) fn shown(&self, mut document: Document) -> Document {
        self.request.call.row.out_of_hub(self.version(), &mut document);
        document
    }

    /// An answer with an object, given as the machine works on it.
    pub(crate) fn answer(&self, code: u16, stored: Document) -> Answer {
        Answer { code, shown: Shown::Object(self.shown(self.read_back(stored))) }
    }

    /// A custom object written in another version than the stored one comes back as it is read from the store: without
    /// what the stored version does not know, and with its defaults.
    fn read_back(&self, object: Document) -> Document {
        let row = &self.request.call.row;
        let elsewhere = row.storage.as_ref().filter(|storage| storage.api_version != object.api_version());
        let plain = row.custom && row.converter.is_none() && !self.request.dry_run();
        let Some(storage) = elsewhere.filter(|_| plain) else { return object };
        let (own, revision) = (object.api_version().to_owned(), object.resource_version().to_owned());
        let mut stored = object;
        stored.set("/apiVersion", storage.api_version.as_str());
        let mut read = row.strategy.read(&encode_stored(&stored)).unwrap_or(stored);
        read.set("/apiVersion", own);
        if !revision.is_empty() {
            read.set("/metadata/resourceVersion", revision);
        }
        read
    }

    fn lease(&self) -> i64 {
        if self.request.call.row.behaviour.expires { self.request.settings.lease } else { 0 }
    }
}

/// A success without an object.
pub(super) fn success(code: u16, details: Value) -> Answer {
    let mut status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code});
    if let (Some(status), false) = (status.as_object_mut(), details.is_null()) {
        status.insert("details".into(), details);
    }
    if let (Some(status), true) = (status.as_object_mut(), code == 0) {
        status.remove("code");
    }
    Answer { code: if code == 0 { 201 } else { code }, shown: Shown::Status(status) }
}

/// That an object still is as it was read.
pub(super) fn unchanged(key: &str, document: &Document) -> Compare {
    let mod_revision = document.resource_version().parse().unwrap_or_default();
    Compare { key: Bytes::copy_from_slice(key.as_bytes()), mod_revision }
}

/// That a key is free.
pub(super) fn free(key: &str) -> Compare {
    Compare { key: Bytes::copy_from_slice(key.as_bytes()), mod_revision: 0 }
}

/// Stores an object: the resourceVersion is the store's and not part of the value.
pub(super) fn put(key: &str, document: &Document, lease: i64) -> Op {
    Op::Put { key: Bytes::copy_from_slice(key.as_bytes()), value: encode_stored(document), lease }
}

/// Removes a key.
pub(super) fn remove(key: &str) -> Op {
    Op::Delete { key: Bytes::copy_from_slice(key.as_bytes()) }
}
