//! What every home must do alike. Each case starts on an empty store.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use store::{Batch, Commit, Compare, Entry, Error, Event, Op, Range, Revision, Store, Txn, Watch};

pub(crate) fn put(key: &str, value: &str) -> Op {
    Op::Put { key: Bytes::from(key.to_owned()), value: Bytes::from(value.to_owned()), lease: 0 }
}

pub(crate) fn delete(key: &str) -> Op {
    Op::Delete { key: Bytes::from(key.to_owned()) }
}

pub(crate) fn when(key: &str, mod_revision: Revision) -> Compare {
    Compare { key: Bytes::from(key.to_owned()), mod_revision }
}

/// Commits without a condition and returns the revision.
pub(crate) async fn write(store: &impl Store, ops: Vec<Op>) -> Revision {
    match store.commit(Txn { compare: vec![], ops }).await.unwrap() {
        Commit::Done(revision) => revision,
        conflict => panic!("{conflict:?}"),
    }
}

fn text(entries: &[Entry]) -> Vec<(String, String)> {
    let text = |b: &Bytes| String::from_utf8(b.to_vec()).unwrap();
    entries.iter().map(|e| (text(&e.key), text(&e.value))).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

async fn content(store: &impl Store, range: Range) -> Vec<(String, String)> {
    text(&store.range(range).await.unwrap().entries)
}

/// One line for each event: `revision +key=value (previous)`.
fn line(event: &Event) -> String {
    let show = |b: &Bytes| String::from_utf8_lossy(b).into_owned();
    let old = |p: &Option<Entry>| p.as_ref().map_or("-".to_owned(), |p| show(&p.value));
    match event {
        Event::Put { entry, previous } => format!("+{}={} ({})", show(&entry.key), show(&entry.value), old(previous)),
        Event::Delete { key, previous, .. } => format!("-{} ({})", show(key), old(previous)),
    }
}

async fn next(watch: &mut Watch) -> Result<Batch, Error> {
    let next = tokio::time::timeout(Duration::from_secs(20), watch.next()).await;
    next.expect("a batch in time").expect("the watch goes on")
}

/// Reads until the watch has delivered everything up to `revision`; every batch must move forward.
async fn until(watch: &mut Watch, revision: Revision) -> Vec<(Revision, String)> {
    let mut lines = Vec::new();
    let mut seen = 0;
    while seen < revision {
        let batch = next(watch).await.unwrap();
        assert!(batch.revision >= seen, "{} after {seen}", batch.revision);
        for event in &batch.events {
            assert!(event.revision() > seen, "event of {} after {seen}", event.revision());
            assert!(event.revision() <= batch.revision);
        }
        lines.extend(batch.events.iter().map(|e| (e.revision(), line(e))));
        seen = batch.revision;
    }
    lines
}

pub(crate) async fn order(store: &impl Store) {
    let start = store.revision().await.unwrap();
    for key in ["/b", "/a/2", "/a/10", "/c"] {
        write(store, vec![put(key, key)]).await;
    }
    assert_eq!(store.revision().await.unwrap(), start + 4);
    let all = content(store, Range::prefix("/")).await;
    assert_eq!(all, pairs(&[("/a/10", "/a/10"), ("/a/2", "/a/2"), ("/b", "/b"), ("/c", "/c")]));
    let page = store.range(Range::prefix("/a/")).await.unwrap();
    assert_eq!((page.entries.len(), page.count, page.revision), (2, 2, start + 4));
}

pub(crate) async fn reads_at_revisions(store: &impl Store) {
    let first = write(store, vec![put("/k", "1")]).await;
    let second = write(store, vec![put("/k", "2")]).await;
    let gone = write(store, vec![delete("/k")]).await;
    let again = write(store, vec![put("/k", "3")]).await;
    for (revision, expected) in
        [(first - 1, None), (first, Some("1")), (second, Some("2")), (gone, None), (0, Some("3"))]
    {
        let page = store.range(Range { revision, ..Range::key("/k") }).await.unwrap();
        assert_eq!(page.entries.first().map(|e| e.value.as_ref()), expected.map(str::as_bytes), "at {revision}");
    }
    let entry = store.range(Range::key("/k")).await.unwrap().entries.remove(0);
    assert_eq!((entry.create_revision, entry.mod_revision), (again, again));
    let old = store.range(Range { revision: second, ..Range::key("/k") }).await.unwrap().entries.remove(0);
    assert_eq!((old.create_revision, old.mod_revision), (first, second));
}

pub(crate) async fn pages(store: &impl Store) {
    for i in 0..10 {
        write(store, vec![put(&format!("/p/{i}"), "x")]).await;
    }
    let page = store.range(Range { limit: 4, ..Range::prefix("/p/") }).await.unwrap();
    assert_eq!((page.entries.len(), page.count), (4, 10));
    write(store, vec![delete("/p/7"), put("/p/42", "new")]).await;
    let start = [page.entries[3].key.as_ref(), &[0]].concat().into();
    let rest = Range { start, revision: page.revision, ..Range::prefix("/p/") };
    let rest = store.range(rest).await.unwrap();
    assert_eq!((rest.entries.len(), rest.count, rest.revision), (6, 6, page.revision));
    let count = store.range(Range { count_only: true, ..Range::prefix("/p/") }).await.unwrap();
    assert_eq!((count.entries.len(), count.count), (0, 10));
}

pub(crate) async fn transactions(store: &impl Store) {
    let create = Txn { compare: vec![when("/t", 0)], ops: vec![put("/t", "1")] };
    let Commit::Done(created) = store.commit(create.clone()).await.unwrap() else { panic!("not created") };
    let Commit::Conflict(at, found) = store.commit(create).await.unwrap() else { panic!("created twice") };
    assert_eq!(at, created);
    assert_eq!(found[0].as_ref().map(|e| (e.value.as_ref(), e.mod_revision)), Some((&b"1"[..], created)));

    let update = Txn { compare: vec![when("/t", created), when("/u", 0)], ops: vec![put("/t", "2")] };
    let Commit::Done(updated) = store.commit(update.clone()).await.unwrap() else { panic!("not updated") };
    assert_eq!(updated, created + 1);
    let Commit::Conflict(at, found) = store.commit(update).await.unwrap() else { panic!("stale update") };
    assert_eq!((at, found.len(), found[1].is_none()), (updated, 2, true));

    let nothing = Txn { compare: vec![when("/t", updated)], ops: vec![delete("/absent")] };
    assert_eq!(store.commit(nothing).await.unwrap(), Commit::Done(updated));
    assert_eq!(store.revision().await.unwrap(), updated);
}

pub(crate) async fn several_operations(store: &impl Store) {
    write(store, vec![put("/old", "x")]).await;
    let revision = write(store, vec![put("/m/1", "a"), delete("/old"), put("/m/2", "b")]).await;
    let page = store.range(Range::prefix("/")).await.unwrap();
    assert_eq!(text(&page.entries), pairs(&[("/m/1", "a"), ("/m/2", "b")]));
    assert!(page.entries.iter().all(|e| e.mod_revision == revision));
}

pub(crate) async fn refuses_malformed(store: &impl Store) {
    let twice = Txn { compare: vec![], ops: vec![put("/x", "1"), put("/x", "2")] };
    assert!(matches!(store.commit(twice).await, Err(Error::Invalid(_))));
    let large = Txn { compare: vec![], ops: vec![put("/x", &"v".repeat(store::MAX_TXN_BYTES + 1))] };
    assert!(matches!(store.commit(large).await, Err(Error::TooLarge(size, _)) if size > store::MAX_TXN_BYTES));
    assert_eq!(content(store, Range::prefix("/")).await, vec![]);
}

pub(crate) async fn watch_from_a_revision(store: &impl Store) {
    let first = write(store, vec![put("/w", "1")]).await;
    write(store, vec![put("/w", "2")]).await;
    let last = write(store, vec![delete("/w")]).await;
    let mut watch = store.watch("/".into(), first).await.unwrap();
    let seen = until(&mut watch, last).await;
    let expected = [(first, "+/w=1 (-)"), (first + 1, "+/w=2 (1)"), (last, "-/w (2)")];
    assert_eq!(seen, expected.map(|(r, l)| (r, l.to_owned())));

    let live = write(store, vec![put("/w", "3")]).await;
    assert_eq!(until(&mut watch, live).await, vec![(live, "+/w=3 (-)".to_owned())]);

    let mut later = store.watch("/".into(), 0).await.unwrap();
    let only = write(store, vec![put("/w", "4")]).await;
    assert_eq!(until(&mut later, only).await, vec![(only, "+/w=4 (3)".to_owned())]);
}

pub(crate) async fn whole_revisions(store: &impl Store) {
    let from = store.revision().await.unwrap() + 1;
    let mut watch = store.watch("/".into(), from).await.unwrap();
    let mut last = 0;
    for round in 0..20 {
        let value = "v".repeat(20_000);
        last = write(store, (0..40).map(|i| put(&format!("/{round}/{i:02}"), &value)).collect()).await;
    }
    let mut counts = std::collections::BTreeMap::new();
    let mut seen = 0;
    while seen < last {
        let batch = next(&mut watch).await.unwrap();
        let mut here = std::collections::BTreeMap::new();
        for (i, event) in batch.events.iter().enumerate() {
            *here.entry(event.revision()).or_insert(0) += 1;
            assert!(event.key().ends_with(format!("/{:02}", i % 40).as_bytes()), "in the order of the transaction");
        }
        assert!(here.values().all(|n| *n == 40), "a batch holds part of a revision: {here:?}");
        counts.extend(here);
        seen = batch.revision;
    }
    assert_eq!(counts.len(), 20);
}

pub(crate) async fn watch_prefix(store: &impl Store) {
    let mut watch = store.watch("/in/".into(), 0).await.unwrap();
    write(store, vec![put("/in", "no"), put("/out/1", "no")]).await;
    let last = write(store, vec![put("/in/1", "yes"), put("/out/2", "no")]).await;
    assert_eq!(until(&mut watch, last).await, vec![(last, "+/in/1=yes (-)".to_owned())]);
}

pub(crate) async fn progress(store: &impl Store) {
    let mut watch = store.watch("/in/".into(), 0).await.unwrap();
    let last = write(store, vec![put("/out", "x")]).await;
    let mut seen = 0;
    while seen < last {
        store.progress().await.unwrap();
        if let Ok(batch) = tokio::time::timeout(Duration::from_millis(500), watch.next()).await {
            let batch = batch.unwrap().unwrap();
            assert!(batch.events.is_empty());
            seen = batch.revision;
        }
    }
    let after = write(store, vec![put("/in/1", "x")]).await;
    assert_eq!(until(&mut watch, after).await.len(), 1);
}

pub(crate) async fn compaction(store: &impl Store) {
    let first = write(store, vec![put("/c", "1"), put("/d", "1")]).await;
    let second = write(store, vec![put("/c", "2")]).await;
    write(store, vec![delete("/d")]).await;
    let last = write(store, vec![put("/c", "3")]).await;
    store.compact(second).await.unwrap();
    assert!(matches!(store.range(Range { revision: first, ..Range::prefix("/") }).await, Err(Error::Compacted(_))));
    let kept = Range { revision: second, ..Range::prefix("/") };
    assert_eq!(content(store, kept).await, pairs(&[("/c", "2"), ("/d", "1")]));
    let refused = match store.watch("/".into(), first).await {
        Err(error) => error,
        Ok(mut watch) => next(&mut watch).await.unwrap_err(),
    };
    assert!(matches!(refused, Error::Compacted(_)), "{refused:?}");
    assert!(matches!(store.compact(first).await, Err(Error::Compacted(_))));
    assert!(matches!(store.compact(last + 10).await, Err(Error::FutureRevision(_))));
    let mut watch = store.watch("/".into(), second + 1).await.unwrap();
    let seen: Vec<String> = until(&mut watch, last).await.into_iter().map(|(_, line)| line).collect();
    assert_eq!(seen, ["-/d (1)", "+/c=3 (2)"]);
    store.compact(last).await.unwrap();
    assert_eq!(content(store, Range::prefix("/")).await, pairs(&[("/c", "3")]));
}

pub(crate) async fn future_revisions(store: &impl Store) {
    let now = write(store, vec![put("/f", "1")]).await;
    let future = Range { revision: now + 100, ..Range::key("/f") };
    assert!(matches!(store.range(future).await, Err(Error::FutureRevision(_))));
    let mut watch = store.watch("/".into(), now + 2).await.unwrap();
    write(store, vec![put("/f", "2")]).await;
    let last = write(store, vec![put("/f", "3")]).await;
    assert_eq!(until(&mut watch, last).await, vec![(last, "+/f=3 (2)".to_owned())]);
}

pub(crate) async fn resume(store: &impl Store) {
    let from = store.revision().await.unwrap() + 1;
    let writes = async {
        for i in 0..300 {
            write(store, vec![put(&format!("/r/{}", i % 7), &i.to_string())]).await;
        }
    };
    let reads = async {
        let mut seen = Vec::new();
        let mut at = from;
        while seen.len() < 300 {
            let mut watch = store.watch("/".into(), at).await.unwrap();
            for _ in 0..3 {
                let Ok(batch) = tokio::time::timeout(Duration::from_millis(200), next(&mut watch)).await else { break };
                let batch = batch.unwrap();
                seen.extend(batch.events.iter().map(Event::revision));
                at = batch.revision + 1;
            }
        }
        seen
    };
    let (seen, ()) = futures::join!(reads, writes);
    assert_eq!(seen, (from..from + 300).collect::<Vec<_>>());
}

pub(crate) async fn leases(store: &impl Store) {
    let short = store.lease_grant(1).await.unwrap();
    let kept = store.lease_grant(2).await.unwrap();
    assert_ne!(short, kept);
    let leased = |key: &str, lease| Op::Put { key: Bytes::from(key.to_owned()), value: "x".into(), lease };
    write(store, vec![leased("/l/short", short), leased("/l/kept", kept), leased("/l/moved", short)]).await;
    let moved = write(store, vec![put("/l/moved", "free")]).await;
    let mut watch = store.watch("/l/".into(), moved + 1).await.unwrap();
    let mut left = 3;
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        store.lease_keep_alive(kept).await.unwrap();
        left = store.range(Range::prefix("/l/")).await.unwrap().count;
        if left == 2 {
            break;
        }
    }
    assert_eq!(left, 2, "only the expired lease takes its key along");
    assert_eq!(until(&mut watch, moved + 1).await, vec![(moved + 1, "-/l/short (x)".to_owned())]);
    assert!(matches!(store.lease_keep_alive(short).await, Err(Error::LeaseNotFound(_))));
    let dead = Txn { compare: vec![], ops: vec![leased("/l/late", short)] };
    assert!(matches!(store.commit(dead).await, Err(Error::LeaseNotFound(_))));
}

pub(crate) async fn revoked_lease(store: &impl Store) {
    let lease = store.lease_grant(600).await.unwrap();
    let ops = ["/l/1", "/l/2"].map(|k| Op::Put { key: k.into(), value: "x".into(), lease }).to_vec();
    let revision = write(store, ops).await;
    assert_eq!(store.range(Range::key("/l/1")).await.unwrap().entries[0].lease, lease);
    store.lease_revoke(lease).await.unwrap();
    let page = store.range(Range::prefix("/l/")).await.unwrap();
    assert_eq!((page.count, page.revision), (0, revision + 1));
    assert!(matches!(store.lease_revoke(lease).await, Err(Error::LeaseNotFound(_))));
}

/// Many writers increase one counter by compare and swap; no increase may be lost and no revision shared.
pub(crate) async fn concurrent_commits(store: &impl Store) {
    write(store, vec![put("/n", "0")]).await;
    let from = store.revision().await.unwrap() + 1;
    let mut watch = store.watch("/".into(), from).await.unwrap();
    let increase = async || {
        for _ in 0..10 {
            loop {
                let entry = store.range(Range::key("/n")).await.unwrap().entries.remove(0);
                let value: u64 = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
                let ops = vec![put("/n", &(value + 1).to_string())];
                let compare = vec![when("/n", entry.mod_revision)];
                if let Commit::Done(_) = store.commit(Txn { compare, ops }).await.unwrap() {
                    break;
                }
            }
        }
    };
    futures::future::join_all((0..8).map(|_| increase())).await;
    assert_eq!(content(store, Range::key("/n")).await, pairs(&[("/n", "80")]));
    let seen = until(&mut watch, from + 79).await;
    let values: Vec<String> = seen.into_iter().map(|(_, l)| l).collect();
    assert_eq!(values, (1..=80).map(|n| format!("+/n={n} ({})", n - 1)).collect::<Vec<_>>());
}

/// Appends the revisions of events to `seen` until `revision` is among them.
pub(crate) async fn collect(watch: &mut Watch, seen: &mut Vec<Revision>, revision: Revision) {
    while seen.last() != Some(&revision) {
        seen.extend(next(watch).await.unwrap().events.iter().map(Event::revision));
    }
}
