//! Many watchers with selectors during many writes, each of which sees exactly its events; a slow one that is ended and
//! resumes; a long list in pages while it changes. On the embedded store and on etcd.
//!
//! Sizes are those of `cargo xtask reads` where [`FULL`] is set, and smaller ones otherwise.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use apiserver::{Config, Server, User};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::{join_all, try_join_all};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use store::embedded::{Embedded, Settings};
use store::{Commit, Event, Op, Revision, Store, Txn};
use tokio::sync::watch;

use super::services::etcd;
use super::{parts, send};

/// Set by `cargo xtask reads`.
const FULL: &str = "TRIMTAB_READS_FULL";
/// All that is waited for comes within this, or something is wrong.
const PATIENCE: Duration = Duration::from_secs(300);
const PREFIX: &str = "/registry/configmaps/";
const ALL: &str = "/api/v1/configmaps";
const NAMESPACES: [&str; 4] = ["a", "b", "c", "d"];
const NAMES: usize = 400;
const WRITERS: usize = 16;

struct Sizes {
    watchers: usize,
    writes: usize,
    objects: usize,
    page: usize,
}

fn sizes() -> Sizes {
    match std::env::var_os(FULL) {
        Some(_) => Sizes { watchers: 200, writes: 20_000, objects: 100_000, page: 500 },
        // Enough that the log of changes forgets what the slow watcher has not read.
        None => Sizes { watchers: 50, writes: 6_400, objects: 6_000, page: 99 },
    }
}

/// A small generator of numbers.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % sides as u64) as usize
    }
}

/// What is looked at of an object.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    name: String,
    namespace: String,
    resource_version: String,
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
}

/// One event: its type, the object and its revision.
type Seen = (String, String, Revision);

fn named(metadata: &Metadata) -> String {
    format!("{}/{}", metadata.namespace, metadata.name)
}

fn metadata(value: &[u8]) -> Metadata {
    serde_json::from_slice::<Object>(value).expect("an object").metadata
}

fn revision(metadata: &Metadata) -> Revision {
    metadata.resource_version.parse().expect("a revision")
}

/// A connection that is used again and again.
struct Client(SendRequest<Full<Bytes>>);

impl Client {
    async fn new(server: &Server) -> Self {
        let user = User { name: "test".into(), groups: vec!["system:masters".into()], ..User::default() };
        let (sender, connection) = handshake(TokioIo::new(server.local(user))).await.expect("HTTP");
        tokio::spawn(connection);
        Self(sender)
    }

    async fn ask(&mut self, method: Method, path: &str, body: Option<Value>) -> (u16, Bytes) {
        let media = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = Request::builder().method(method).uri(path).header("host", "x").header("content-type", media);
        self.0.ready().await.expect("a connection");
        let answer =
            self.0.send_request(request.body(Full::new(body.into())).expect("a request")).await.expect("an answer");
        let code = answer.status().as_u16();
        (code, answer.into_body().collect().await.expect("a body").to_bytes())
    }
}

async fn start(store: &Arc<dyn Store>) -> Server {
    Server::start(Config::default(), Arc::clone(store), parts()).await.expect("a server")
}

/// Runs a scenario on both homes of the store.
async fn on_both<F: Future<Output = ()>>(name: &str, scenario: impl Fn(Arc<dyn Store>) -> F) {
    let folder = tempfile::tempdir().expect("a folder");
    let embedded = Embedded::open(folder.path(), Settings::default()).expect("a store");
    let begun = Instant::now();
    scenario(Arc::new(embedded)).await;
    println!("{name} on the embedded store: {:.1} s", begun.elapsed().as_secs_f64());
    let Some((_running, etcd)) = etcd().await else { return };
    let begun = Instant::now();
    scenario(Arc::new(etcd)).await;
    println!("{name} on etcd: {:.1} s", begun.elapsed().as_secs_f64());
}

// Writers

fn labels(dice: &mut Dice) -> Value {
    let color = [json!("red"), json!("green"), json!("blue"), Value::Null][dice.below(4)].clone();
    json!({"color": color, "size": dice.below(5).to_string()})
}

/// One of several that write objects of their own: creates, patches, replaces and deletes them. Returns the revisions it
/// was told.
async fn write(server: Server, number: usize, writes: usize) -> Vec<(String, Revision)> {
    let (mut client, mut dice, mut told) = (Client::new(&server).await, Dice(number as u64), Vec::new());
    let mut there = vec![false; NAMES];
    for _ in 0..writes {
        let at = dice.below(NAMES / WRITERS) * WRITERS + number;
        let (namespace, name) = (NAMESPACES[at % NAMESPACES.len()], format!("obj-{at}"));
        let (objects, labels) = (format!("/api/v1/namespaces/{namespace}/configmaps"), labels(&mut dice));
        // No two are alike: a write that changes nothing is none.
        let data = json!({"number": told.len().to_string(), "x": "y".repeat(400)});
        let object = json!({"metadata": {"name": name, "labels": without_nulls(&labels)}, "data": data});
        let path = format!("{objects}/{name}");
        let (code, body) = match dice.below(10) {
            _ if !there[at] => client.ask(Method::POST, &objects, Some(object)).await,
            0..2 => client.ask(Method::DELETE, &path, None).await,
            2..4 => client.ask(Method::PUT, &path, Some(object)).await,
            _ => client.ask(Method::PATCH, &path, Some(json!({"metadata": {"labels": labels}, "data": data}))).await,
        };
        assert!((200..300).contains(&code), "{path}: {}", String::from_utf8_lossy(&body));
        // A deletion is answered with a Status, which has no revision.
        let made: Metadata = serde_json::from_slice::<Object>(&body).expect("metadata").metadata;
        there[at] = !made.resource_version.is_empty();
        if there[at] {
            told.push((named(&made), revision(&made)));
        }
    }
    told
}

fn without_nulls(labels: &Value) -> Value {
    let labels = labels.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    labels.map(|(key, value)| (key.clone(), value.clone())).collect::<serde_json::Map<_, _>>().into()
}

// Watchers

/// What a watcher asks for, and which objects that selects.
struct Choice {
    path: String,
    selects: Box<dyn Fn(&Metadata) -> bool + Send + Sync>,
}

type Test = fn(&Metadata, usize) -> bool;

fn color(object: &Metadata) -> Option<&str> {
    object.labels.get("color").map(String::as_str)
}

/// Selectors; `@` stands for a number that differs from watcher to watcher.
const LABELS: [(&str, Test); 9] = [
    ("", |_, _| true),
    ("color=red", |o, _| color(o) == Some("red")),
    ("color!=green", |o, _| color(o) != Some("green")),
    ("color in (red,blue)", |o, _| matches!(color(o), Some("red" | "blue"))),
    ("color notin (red,blue)", |o, _| !matches!(color(o), Some("red" | "blue"))),
    ("color", |o, _| color(o).is_some()),
    ("!color", |o, _| color(o).is_none()),
    ("color=red,size=3", |o, _| color(o) == Some("red") && o.labels.get("size").is_some_and(|s| s == "3")),
    ("size>2", |o, _| o.labels.get("size").and_then(|s| s.parse::<u8>().ok()).is_some_and(|size| size > 2)),
];
const FIELDS: [(&str, Test); 4] = [
    ("", |_, _| true),
    ("metadata.name=obj-@", |o, at| o.name == format!("obj-{at}")),
    ("metadata.name!=obj-@", |o, at| o.name != format!("obj-{at}")),
    ("metadata.namespace=b", |o, _| o.namespace == "b"),
];

/// The number of a choice that selects everything.
const EVERYTHING: usize = 49;

fn choice(number: usize) -> Choice {
    let namespace = NAMESPACES.get(number % (NAMESPACES.len() + 1)).copied();
    let (labels, has_labels) = LABELS[number / 5 % LABELS.len()];
    let (fields, has_fields) = FIELDS[number / 3 % FIELDS.len()];
    let at = number * 7 % NAMES;
    let scope = namespace.map_or_else(|| ALL.to_owned(), |n| format!("/api/v1/namespaces/{n}/configmaps"));
    let escaped =
        |text: &str| text.replace('@', &at.to_string()).replace('=', "%3D").replace('>', "%3E").replace(' ', "%20");
    let path = format!("{scope}?labelSelector={}&fieldSelector={}", escaped(labels), escaped(fields));
    let selects = move |object: &Metadata| {
        namespace.is_none_or(|n| n == object.namespace) && has_labels(object, at) && has_fields(object, at)
    };
    Choice { path, selects: Box::new(selects) }
}

/// All changes, as the store tells them: the object, the revision, what was there before and after.
struct Changed {
    name: String,
    revision: Revision,
    old: Option<Metadata>,
    new: Option<Metadata>,
}

fn changed(event: &Event) -> Changed {
    let (new, old) = match event {
        Event::Put { entry, previous } => (Some(metadata(&entry.value)), previous),
        Event::Delete { previous, .. } => (None, previous),
    };
    let old = old.as_ref().map(|entry| metadata(&entry.value));
    let name = new.as_ref().or(old.as_ref()).map(named).expect("an object");
    Changed { name, revision: event.revision(), old, new }
}

/// Everything that happens from a revision on, until somebody says up to which revision that is wanted.
async fn history(store: Arc<dyn Store>, from: Revision, upto: watch::Receiver<Revision>) -> Vec<Changed> {
    let mut watch = store.watch(PREFIX.into(), from).await.expect("a watch");
    let (mut all, mut seen, mut upto) = (Vec::new(), 0, upto);
    while seen < *upto.borrow_and_update() {
        tokio::select! {
            batch = watch.next() => {
                let batch = batch.expect("goes on").expect("no error");
                seen = batch.revision;
                all.extend(batch.events.iter().map(changed));
            }
            _ = upto.changed() => {}
        }
    }
    all
}

fn expected(choice: &Choice, history: &[Changed]) -> Vec<Seen> {
    let selects = |object: &Option<Metadata>| object.as_ref().is_some_and(|object| (choice.selects)(object));
    let event = |change: &Changed| {
        let kind = match (selects(&change.old), selects(&change.new)) {
            (false, false) => return None,
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
        };
        Some((kind.to_owned(), change.name.clone(), change.revision))
    };
    history.iter().filter_map(event).collect()
}

/// A watcher and what it has seen.
struct Watcher {
    choice: Choice,
    seen: Mutex<Vec<Seen>>,
    resumed: AtomicUsize,
    /// Nothing is read while this is true.
    halted: watch::Sender<bool>,
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    object: Object,
}

/// Watches from a revision on; a stream that ends is resumed from what was seen last, until the server ends.
async fn follow(
    server: Server,
    watcher: Arc<Watcher>,
    from: Revision,
    progress: watch::Sender<()>,
    over: Arc<AtomicBool>,
) {
    let mut halted = watcher.halted.subscribe();
    loop {
        let at = watcher.seen.lock().last().map_or(from, |(_, _, revision)| *revision);
        let path = format!("{}&watch=1&resourceVersion={at}", watcher.choice.path);
        let answer = send(&server, "system:masters", Method::GET, &path, None).await;
        assert_eq!(answer.status(), 200, "{path}");
        let (mut body, mut rest) = (answer.into_body(), Vec::new());
        while let Some(frame) = body.frame().await {
            rest.extend_from_slice(&frame.expect("a clean stream").into_data().expect("data"));
            let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            for line in rest.drain(..whole).collect::<Vec<u8>>().split(|byte| *byte == b'\n').filter(|l| !l.is_empty())
            {
                let line: Line = serde_json::from_slice(line).unwrap_or_else(|e| panic!("{path}: {e}"));
                let object = line.object.metadata;
                watcher.seen.lock().push((line.kind, named(&object), revision(&object)));
            }
            progress.send_replace(());
            halted.wait_for(|halted| !halted).await.expect("the watcher lives");
        }
        assert!(rest.is_empty(), "{path}: part of an event at the end");
        if over.load(Ordering::Acquire) {
            return;
        }
        watcher.resumed.fetch_add(1, Ordering::Relaxed);
    }
}

async fn watched(store: Arc<dyn Store>) {
    let sizes = sizes();
    let server = start(&store).await;
    let from = store.revision().await.expect("a revision");
    let (last, upto) = watch::channel(Revision::MAX);
    let history = tokio::spawn(history(Arc::clone(&store), from + 1, upto));
    let (progress, over) = (watch::Sender::new(()), Arc::new(AtomicBool::new(false)));
    let watcher = |number: usize| {
        let (seen, resumed, halted) = (Mutex::default(), AtomicUsize::new(0), watch::Sender::new(number == 0));
        // The first is the slow one, and it watches everything.
        let choice = choice(if number == 0 { EVERYTHING } else { number });
        Arc::new(Watcher { choice, seen, resumed, halted })
    };
    let watchers: Vec<Arc<Watcher>> = (0..sizes.watchers).map(watcher).collect();
    let start = |watcher: &Arc<Watcher>| {
        tokio::spawn(follow(server.clone(), Arc::clone(watcher), from, progress.clone(), Arc::clone(&over)))
    };
    let following: Vec<_> = watchers.iter().map(start).collect();

    let write = |number| tokio::spawn(write(server.clone(), number, sizes.writes / WRITERS));
    let told = try_join_all((0..WRITERS).map(write)).await.expect("all writers end");
    last.send_replace(store.revision().await.expect("a revision"));
    store.progress().await.expect("progress");
    watchers[0].halted.send_replace(false);
    let history = tokio::time::timeout(PATIENCE, history).await.expect("in time").expect("no panic");

    let wanted: Vec<Vec<Seen>> = watchers.iter().map(|watcher| expected(&watcher.choice, &history)).collect();
    let reached = || watchers.iter().zip(&wanted).all(|(watcher, wanted)| watcher.seen.lock().len() >= wanted.len());
    let mut news = progress.subscribe();
    let all_seen = tokio::time::timeout(PATIENCE, news.wait_for(|()| reached())).await.is_ok();
    over.store(true, Ordering::Release);
    server.shutdown(Duration::from_secs(5)).await;
    join_all(following).await.into_iter().for_each(|ended| ended.expect("no panic"));

    for (watcher, wanted) in watchers.iter().zip(&wanted) {
        let (seen, path) = (watcher.seen.lock(), &watcher.choice.path);
        let differs = seen.iter().zip(wanted).position(|(seen, wanted)| seen != wanted);
        assert_eq!(differs, None, "{path}: {:?}, not {:?}", differs.map(|at| &seen[at]), differs.map(|at| &wanted[at]));
        assert_eq!(seen.len(), wanted.len(), "{path}: all were {all_seen}");
    }
    for (name, revision) in told.into_iter().flatten() {
        let written = history.binary_search_by_key(&revision, |change| change.revision).map(|at| &history[at]);
        assert!(written.is_ok_and(|change| change.name == name && change.new.is_some()), "{name} at {revision}");
    }
    assert!(history.len() >= sizes.writes, "{} of {}", history.len(), sizes.writes);
    let slow = watchers[0].resumed.load(Ordering::Relaxed);
    assert!(slow > 0, "the slow watcher was never ended");
    let events: usize = wanted.iter().map(Vec::len).sum();
    let resumed: usize = watchers.iter().map(|watcher| watcher.resumed.load(Ordering::Relaxed)).sum();
    println!(
        "{} watchers saw {events} events of {} writes, {resumed} streams were resumed",
        sizes.watchers, sizes.writes
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_watcher_sees_exactly_its_events() {
    on_both("watchers", watched).await;
}

// Lists

/// Puts objects into the store as a server would, many at a time; returns them with their revisions.
async fn fill(store: &Arc<dyn Store>, objects: usize) -> BTreeMap<String, Revision> {
    let object = |at: usize| {
        let (namespace, name) = (NAMESPACES[at % NAMESPACES.len()], format!("obj-{at:06}"));
        let metadata = format!(r#"{{"name":"{name}","namespace":"{namespace}","labels":{{"part":"{}"}}}}"#, at % 10);
        let value = format!(r#"{{"kind":"ConfigMap","apiVersion":"v1","metadata":{metadata},"data":{{"x":"y"}}}}"#);
        (format!("{namespace}/{name}"), value)
    };
    let all: Vec<usize> = (0..objects).collect();
    let put = |chunk: &[usize]| {
        let objects: Vec<(String, String)> = chunk.iter().map(|at| object(*at)).collect();
        let put = |(name, value): &(String, String)| Op::Put {
            key: format!("{PREFIX}{name}").into(),
            value: value.clone().into(),
            lease: 0,
        };
        let txn = Txn { compare: Vec::new(), ops: objects.iter().map(put).collect() };
        let store = Arc::clone(store);
        async move {
            let Commit::Done(revision) = store.commit(txn).await.expect("a commit") else { panic!("a conflict") };
            objects.into_iter().map(move |(name, _)| (name, revision)).collect::<Vec<_>>()
        }
    };
    let chunks: Vec<_> = all.chunks(100).map(put).collect();
    let filled = futures::stream::iter(chunks).buffer_unordered(16).collect::<Vec<_>>().await;
    filled.into_iter().flatten().collect()
}

#[derive(Deserialize)]
struct List {
    metadata: ListMetadata,
    items: Vec<Object>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMetadata {
    resource_version: String,
    #[serde(default, rename = "continue")]
    continue_token: String,
    remaining_item_count: Option<usize>,
}

/// All pages of a list: one revision, and the objects with theirs.
async fn pages(client: &mut Client, selector: &str, size: usize) -> (Revision, BTreeMap<String, Revision>) {
    let (mut found, mut token, mut version, mut total) = (BTreeMap::new(), String::new(), None, None);
    loop {
        let path = format!("{ALL}?limit={size}&labelSelector={selector}&continue={token}");
        let (code, body) = client.ask(Method::GET, &path, None).await;
        assert_eq!(code, 200, "{}", String::from_utf8_lossy(&body));
        let list: List = serde_json::from_slice(&body).expect("a list");
        let first = version.get_or_insert_with(|| list.metadata.resource_version.clone());
        assert_eq!(*first, list.metadata.resource_version, "every page is of one revision");
        found.extend(list.items.iter().map(|o| (named(&o.metadata), revision(&o.metadata))));
        token = list.metadata.continue_token;
        if selector.is_empty() {
            let sum = found.len() + list.metadata.remaining_item_count.unwrap_or(0);
            assert_eq!(*total.get_or_insert(sum), sum, "what remains after {}", found.len());
        }
        if token.is_empty() {
            return (version.and_then(|v| v.parse().ok()).expect("a revision"), found);
        }
        assert_eq!(list.items.len(), size, "only the last page is short");
    }
}

/// Changes objects until told to stop: some go, some come, some are changed.
async fn change(server: Server, number: usize, objects: usize, stop: watch::Receiver<bool>) {
    let (mut client, mut dice) = (Client::new(&server).await, Dice(number as u64));
    let mut count = 0;
    while !*stop.borrow() {
        let at = dice.below(objects);
        let objects = format!("/api/v1/namespaces/{}/configmaps", NAMESPACES[at % NAMESPACES.len()]);
        let path = format!("{objects}/obj-{at:06}");
        count += 1;
        match dice.below(3) {
            0 => client.ask(Method::DELETE, &path, None).await,
            1 => {
                let metadata = json!({"name": format!("obj-{at:06}-{number}-{count}"), "labels": {"part": "3"}});
                client.ask(Method::POST, &objects, Some(json!({"metadata": metadata}))).await
            }
            _ => {
                let labels = json!({"part": dice.below(10).to_string()});
                client.ask(Method::PATCH, &path, Some(json!({"metadata": {"labels": labels}}))).await
            }
        };
    }
}

/// What was there at a revision, by what was filled in and what happened since.
fn at(
    revision: Revision,
    filled: &BTreeMap<String, Revision>,
    history: &[Changed],
    selects: impl Fn(&Metadata) -> bool,
    filled_selected: impl Fn(&str) -> bool,
) -> BTreeMap<String, Revision> {
    let mut there: BTreeMap<String, Revision> =
        filled.iter().filter(|(name, _)| filled_selected(name)).map(|(name, at)| (name.clone(), *at)).collect();
    for change in history.iter().filter(|change| change.revision <= revision) {
        match change.new.as_ref().filter(|new| selects(new)) {
            Some(_) => there.insert(change.name.clone(), change.revision),
            None => there.remove(&change.name),
        };
    }
    there
}

async fn paged(store: Arc<dyn Store>) {
    let sizes = sizes();
    let filled = fill(&store, sizes.objects).await;
    let from = store.revision().await.expect("a revision");
    let server = start(&store).await;
    let (last, upto) = watch::channel(Revision::MAX);
    let history = tokio::spawn(history(Arc::clone(&store), from + 1, upto));
    let (stop, stopped) = watch::channel(false);
    let change = |number| tokio::spawn(change(server.clone(), number, sizes.objects, stopped.clone()));
    let changing: Vec<_> = (0..4).map(change).collect();

    let mut client = Client::new(&server).await;
    let (all_at, all) = pages(&mut client, "", sizes.page).await;
    let (part_at, part) = pages(&mut client, "part%3D3", sizes.page).await;
    // A page that ends where the store's own pages do.
    let (odd_at, odd) = pages(&mut client, "", 999).await;
    stop.send_replace(true);
    try_join_all(changing).await.expect("all writers end");
    last.send_replace(store.revision().await.expect("a revision"));
    store.progress().await.expect("progress");
    let history = tokio::time::timeout(PATIENCE, history).await.expect("in time").expect("no panic");

    let everything = |revision| at(revision, &filled, &history, |_| true, |_| true);
    let of_part_3 = |name: &str| name.ends_with('3');
    let is_part_3 = |object: &Metadata| object.labels.get("part").is_some_and(|part| part == "3");
    for (what, revision, found, wanted) in [
        ("all", all_at, all, everything(all_at)),
        ("a part", part_at, part, at(part_at, &filled, &history, is_part_3, of_part_3)),
        ("odd pages", odd_at, odd, everything(odd_at)),
    ] {
        let wrong = found.iter().find(|(name, at)| wanted.get(*name) != Some(at));
        assert_eq!(wrong, None, "{what} at {revision}");
        assert_eq!(found.len(), wanted.len(), "{what} at {revision}");
    }
    let meanwhile = history.iter().filter(|change| change.revision > all_at && change.revision <= part_at).count();
    assert!(meanwhile > 10, "only {meanwhile} changes during the list");
    println!("{} objects in pages of {}, {meanwhile} changes meanwhile", sizes.objects, sizes.page);
    server.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_in_pages_is_one_state_while_it_changes() {
    on_both("pages", paged).await;
}
