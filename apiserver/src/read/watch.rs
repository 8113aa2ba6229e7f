//! WATCH: initial events, changes as the client's selectors see them, bookmarks, ends.
//!
//! A watcher holds no queue of its own: it has a position in its resource's log of changes. One that is too slow for
//! the log has its stream ended and resumes from the last revision it saw; older revisions come from the store.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use api::{Document, Status, StatusResult};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::Response;
use http::header::{self, HeaderValue};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use store::Revision;
use tokio::sync::watch;
use tokio::time::Instant;

use super::options::{self, ListOptions};
use super::{convert, form, fresh_enough, kind_of, table_shape};
use crate::cache::kind::change;
use crate::cache::{Change, Item, Kind, encode};
use crate::call::Call;
use crate::conversion::relabelled;
use crate::core::Core;
use crate::negotiate::{Accepted, Encoding, Form, Offer};
use crate::parts::Body;
use crate::respond;

/// Bookmarks come at least that often.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// And so long before the end.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
/// A watch without `timeoutSeconds` ends after that and up to as much again.
const MIN_TIMEOUT_SECONDS: u64 = 1800;
/// Frames that are ready are sent together up to this size.
const PIECE: usize = 64 * 1024;

/// Answers a WATCH.
pub(crate) async fn watch(core: &Core, call: Call) -> StatusResult<Response<Body>> {
    let accepted = call.negotiate(Offer::Stream)?;
    let mut options = ListOptions::parse(&call, true)?;
    options.selection.name = Some(call.target.object.name.clone()).filter(|name| !name.is_empty());
    let wanted = options::revision(&options.resource_version).map_err(options::untranslated)?;
    let kind = kind_of(core, &call)?;
    let mut watcher = Watcher::new(core, call, kind, options, accepted)?;
    if let Err(status) = watcher.begin(wanted).await {
        watcher.fail(&status);
    }
    let frames = stream::unfold(watcher, |mut watcher| async move {
        let bytes = watcher.next().await?;
        Some((Ok(Frame::data(bytes)), watcher))
    });
    let media = match accepted.encoding {
        Encoding::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        _ => "application/json",
    };
    let mut response = respond::whole(200, media, Bytes::new());
    *response.body_mut() = StreamBody::new(frames).boxed_unsync();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Ok(response)
}

struct Watcher {
    core: Core,
    call: Call,
    kind: Arc<Kind>,
    changed: watch::Receiver<Revision>,
    stop: watch::Receiver<bool>,
    /// Tells that there are other rows.
    rows: watch::Receiver<u64>,
    /// For revisions that the log no longer has.
    history: Option<store::Watch>,
    prefix: String,
    options: ListOptions,
    encoding: Encoding,
    form: Form,
    headers_shown: bool,
    position: Revision,
    pending: VecDeque<Bytes>,
    deadline: Instant,
    bookmark_at: Instant,
    ended: bool,
}

impl Watcher {
    fn new(core: &Core, call: Call, kind: Arc<Kind>, options: ListOptions, accepted: Accepted) -> StatusResult<Self> {
        let prefix = call.row.key_prefix(&call.target().object.namespace).ok_or_else(Status::page_not_found)?;
        let seconds = options
            .timeout_seconds
            .filter(|seconds| *seconds > 0)
            .unwrap_or_else(|| MIN_TIMEOUT_SECONDS + core.entropy().below(MIN_TIMEOUT_SECONDS));
        let deadline = Instant::now() + Duration::from_secs(seconds);
        let mut watcher = Self {
            changed: kind.subscribe(),
            stop: core.stop.subscribe(),
            rows: core.registry.subscribe(),
            core: core.clone(),
            history: None,
            prefix,
            encoding: accepted.encoding,
            form: accepted.form,
            headers_shown: false,
            position: 0,
            pending: VecDeque::new(),
            deadline,
            bookmark_at: deadline,
            ended: false,
            call,
            kind,
            options,
        };
        watcher.plan_bookmark();
        Ok(watcher)
    }

    fn plan_bookmark(&mut self) {
        let last = self.deadline.checked_sub(BOOKMARK_BEFORE_END).unwrap_or(self.deadline);
        let next = Instant::now() + BOOKMARK_EVERY;
        self.bookmark_at = if last > Instant::now() { next.min(last) } else { next };
    }

    /// Finds the place to start from; queues the initial events where they are wanted.
    async fn begin(&mut self, wanted: Revision) -> StatusResult<()> {
        let initial = match self.options.send_initial_events {
            Some(send) => send,
            None => wanted == 0,
        };
        if initial || wanted == 0 {
            let text = self.options.resource_version.clone();
            fresh_enough(&self.core, &text, wanted).await?;
            return self.begin_now(initial).await;
        }
        self.begin_at(wanted).await
    }

    async fn begin_now(&mut self, initial: bool) -> StatusResult<()> {
        let seen = self.core.cache.seen();
        let (items, applied) = self.kind.list(&self.prefix);
        self.position = seen.max(applied);
        if !initial {
            return Ok(());
        }
        let items = convert::shown(&self.core, &self.call, items).await?;
        let selection = self.options.selection.clone();
        for item in items.iter().filter(|item| selection.selects(item)) {
            let frame = self.frame("ADDED", item, None)?;
            self.pending.push_back(frame);
        }
        if self.options.send_initial_events == Some(true) && self.options.bookmarks {
            let bookmark = self.bookmark(self.position, true)?;
            self.pending.push_back(bookmark);
        }
        Ok(())
    }

    async fn begin_at(&mut self, wanted: Revision) -> StatusResult<()> {
        self.position = wanted;
        if self.kind.remembers(wanted) {
            return Ok(());
        }
        match self.core.cache.store().watch(self.prefix.clone().into(), wanted + 1).await {
            Ok(watch) => {
                self.history = Some(watch);
                Ok(())
            }
            Err(error) => Err(lost(&error, wanted)),
        }
    }

    /// Ends the watch with what went wrong as its last event.
    fn fail(&mut self, status: &Status) {
        self.pending.push_back(frame(self.encoding, "ERROR", &status.to_bytes()));
        self.ended = true;
    }

    /// The next bytes; `None`: the watch is over.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.take() {
                return Some(bytes);
            }
            if self.ended {
                return None;
            }
            match self.history.take() {
                Some(history) => self.follow_history(history).await,
                None => self.follow_log().await,
            }
        }
    }

    /// What is ready, together.
    fn take(&mut self) -> Option<Bytes> {
        let first = self.pending.pop_front()?;
        if self.pending.is_empty() || first.len() >= PIECE {
            return Some(first);
        }
        let mut piece = first.to_vec();
        while let Some(next) = self.pending.pop_front() {
            piece.extend_from_slice(&next);
            if piece.len() >= PIECE {
                break;
            }
        }
        Some(piece.into())
    }

    async fn follow_log(&mut self) {
        self.changed.borrow_and_update();
        let seen = self.core.cache.seen();
        let Ok((changes, upto)) = self.kind.since(self.position) else {
            self.ended = true;
            return;
        };
        if !changes.is_empty() {
            self.queue(&changes).await;
            self.position = upto;
            return;
        }
        self.position = self.position.max(seen);
        let now = Instant::now();
        if now >= self.deadline || self.is_replaced() {
            self.ended = true;
        } else if self.options.bookmarks && now >= self.bookmark_at {
            self.plan_bookmark();
            match self.bookmark(self.position, false) {
                Ok(bookmark) => self.pending.push_back(bookmark),
                Err(_) => self.ended = true,
            }
        } else {
            self.wait().await;
        }
    }

    /// Whether a definition has another row by now: its watchers must come again.
    fn is_replaced(&self) -> bool {
        let row = &self.call.row;
        row.custom && self.core.registry.current().get(&row.group_resource()).is_none_or(|now| !row.is_made_as(now))
    }

    async fn wait(&mut self) {
        let until = if self.options.bookmarks { self.bookmark_at.min(self.deadline) } else { self.deadline };
        tokio::select! {
            changed = self.changed.changed() => self.ended |= changed.is_err(),
            changed = self.rows.changed(), if self.call.row.custom => self.ended |= changed.is_err(),
            () = tokio::time::sleep_until(until) => {}
            _ = self.stop.wait_for(|stop| *stop) => self.ended = true,
        }
    }

    async fn follow_history(&mut self, mut history: store::Watch) {
        let batch = tokio::select! {
            batch = history.next() => batch,
            () = tokio::time::sleep_until(self.deadline) => None,
            _ = self.stop.wait_for(|stop| *stop) => None,
        };
        let batch = match batch {
            Some(Ok(batch)) => batch,
            Some(Err(error)) => return self.fail(&lost(&error, self.position)),
            None => return self.ended = true,
        };
        let strategy = self.kind.strategy();
        let changes: Vec<Arc<Change>> =
            batch.events.iter().filter_map(|event| change(event, &strategy, None)).map(|(_, c)| Arc::new(c)).collect();
        self.queue(&changes).await;
        self.position = self.position.max(batch.revision);
        // Once the log covers the rest, it is cheaper.
        if !self.kind.remembers(self.position) || self.core.cache.seen() < self.position {
            self.history = Some(history);
        }
    }

    async fn queue(&mut self, changes: &[Arc<Change>]) {
        let changes = match shown(&self.core, &self.call, changes).await {
            Ok(changes) => changes,
            Err(status) => return self.fail(&status),
        };
        for change in changes.iter() {
            match self.seen_as(change) {
                Ok(Some(frame)) => self.pending.push_back(frame),
                Ok(None) => {}
                Err(_) => self.ended = true,
            }
        }
    }

    /// A change as this watcher's selectors see it: an object that comes to be selected is added, one that no longer is
    /// is deleted (in its last selected state, at the change's revision).
    fn seen_as(&mut self, change: &Change) -> StatusResult<Option<Bytes>> {
        let mine =
            |item: &&Arc<Item>| item.key.starts_with(self.prefix.as_bytes()) && self.options.selection.selects(item);
        let new = change.new.as_ref().filter(mine).cloned();
        let old = change.old.as_ref().filter(mine).cloned();
        let (encoding, protobuf) = (self.encoding, self.encoding == Encoding::Protobuf);
        let shared = new.iter().chain(&old).all(|item| self.shares_frames(item));
        match (new, old) {
            (None, None) => Ok(None),
            (Some(new), Some(_)) if shared => {
                Ok(Some(change.frame(protobuf, || frame(encoding, "MODIFIED", &new.bytes))))
            }
            (Some(new), Some(_)) => self.frame("MODIFIED", &new, None).map(Some),
            (Some(new), None) if shared && change.old.is_none() => {
                Ok(Some(change.frame(protobuf, || frame(encoding, "ADDED", &new.bytes))))
            }
            (Some(new), None) => self.frame("ADDED", &new, None).map(Some),
            (None, Some(old)) if shared && change.new.is_none() => {
                Ok(Some(change.frame(protobuf, || frame(encoding, "DELETED", &old.at(change.revision)))))
            }
            (None, Some(old)) => self.frame("DELETED", &old, Some(change.revision)).map(Some),
        }
    }

    /// Whether the frame is the one of everyone who wants that version.
    fn shares_frames(&self, item: &Item) -> bool {
        self.form == Form::Native && self.call.row.shows(self.call.version(), item.api_version())
    }

    fn frame(&mut self, event: &str, item: &Item, revision: Option<Revision>) -> StatusResult<Bytes> {
        let bytes = revision.map_or_else(|| item.bytes.clone(), |revision| item.at(revision));
        if self.shares_frames(item) {
            return Ok(frame(self.encoding, event, &bytes));
        }
        let document = Document::parse(&bytes).unwrap_or_default();
        let document = relabelled(&self.call.row, self.call.version(), document);
        let object = self.formed(&document)?;
        Ok(frame(self.encoding, event, &object))
    }

    fn formed(&mut self, document: &Document) -> StatusResult<Bytes> {
        let value = match self.form {
            Form::Native => return Ok(encode(document)),
            Form::Partial(version) | Form::PartialList(version) => form::partial(document, version),
            Form::Table(version) => {
                let mut shape = table_shape(&self.call, version)?;
                shape.now = self.core.now();
                shape.headers = !std::mem::replace(&mut self.headers_shown, true);
                let metadata = json!({"resourceVersion": document.resource_version()});
                form::table(&self.call.row, self.call.version(), &shape, std::slice::from_ref(document), metadata)
            }
        };
        Ok(Document::new(value).map(|d| encode(&d)).unwrap_or_default())
    }

    fn bookmark(&mut self, revision: Revision, initial_end: bool) -> StatusResult<Bytes> {
        let mut document = self.call.version().schema.zero();
        document.set("/kind", self.call.row.kind.as_str());
        document.set("/apiVersion", self.call.row.group_version(self.call.version()).to_string());
        document.set("/metadata/resourceVersion", revision.to_string());
        if initial_end {
            document.set("/metadata/annotations", Value::Object(initial_end_annotation()));
        }
        let object = match self.form {
            Form::Table(_) | Form::Partial(_) | Form::PartialList(_) => self.formed(&document)?,
            Form::Native => encode(&document),
        };
        Ok(frame(self.encoding, "BOOKMARK", &object))
    }
}

/// Changes in the call's version.
async fn shown<'c>(core: &Core, call: &Call, changes: &'c [Arc<Change>]) -> StatusResult<Cow<'c, [Arc<Change>]>> {
    if !call.row.custom {
        return Ok(Cow::Borrowed(changes));
    }
    let items = changes.iter().flat_map(|change| [&change.old, &change.new]).flatten().cloned();
    let mut shown = convert::shown(core, call, items.collect()).await?.into_iter();
    let mut next = |item: &Option<Arc<Item>>| item.as_ref().and_then(|_| shown.next());
    let changes = changes.iter().map(|change| (change, next(&change.old), next(&change.new)));
    let same = |a: &Option<Arc<Item>>, b: &Option<Arc<Item>>| match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (a, b) => a.is_none() && b.is_none(),
    };
    let one = |(change, old, new): (&Arc<Change>, Option<Arc<Item>>, Option<Arc<Item>>)| match same(&change.old, &old)
        && same(&change.new, &new)
    {
        true => Arc::clone(change),
        false => Arc::new(change.with(old, new)),
    };
    Ok(Cow::Owned(changes.map(one).collect()))
}

/// Why the store's history cannot be followed from a revision on.
fn lost(error: &store::Error, from: Revision) -> Box<Status> {
    match error {
        store::Error::Compacted(oldest) => Status::expired(format!("too old resource version: {from} ({oldest})")),
        other => crate::write::store_status(other),
    }
}

fn initial_end_annotation() -> serde_json::Map<String, Value> {
    [("k8s.io/initial-events-end".to_owned(), Value::from("true"))].into_iter().collect()
}

/// One event of the stream: a line of JSON, or a message with its length before it.
fn frame(encoding: Encoding, event: &str, object: &[u8]) -> Bytes {
    if encoding == Encoding::Protobuf {
        let document = Document::parse(object).unwrap_or_default();
        return crate::protobuf::watch_event(event, &document).into();
    }
    let head = format!("{{\"type\":\"{event}\",\"object\":");
    [head.as_bytes(), object, b"}\n"].concat().into()
}
