//! The embedded store against power cuts, damage, full disks and its own process being killed.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use futures::StreamExt;
use store::embedded::disk::Disk;
use store::embedded::lossy::{Lossy, Unsynced};
use store::embedded::{Embedded, Identity, LogConfig, Settings};
use store::{Commit, Error, Event, Op, Range, Revision, Store, Txn};

use crate::conformance::{delete, put, write};

fn settings(segment_bytes: usize, snapshot_bytes: usize) -> Settings {
    Settings { log: LogConfig { segment_bytes }, snapshot_bytes, ..Settings::default() }
}

fn open(disk: &Lossy, settings: Settings) -> Result<Embedded, Error> {
    Embedded::open_on(disk.clone(), settings, &Identity { cluster: 7, member: 1, voters: vec![1] })
}

/// The transactions of the small history: puts, replacements, deletions, several keys at once.
fn history() -> Vec<Vec<Op>> {
    let one = |i: usize| match i % 5 {
        4 => vec![delete(&format!("/k/{}", (i - 1) % 4))],
        3 => vec![put("/k/both", &i.to_string()), put(&format!("/k/{}", i % 4), "with both")],
        _ => vec![put(&format!("/k/{}", i % 4), &format!("value {i} {}", "x".repeat(i * 7 % 90)))],
    };
    (0..24).map(one).collect()
}

/// Writes the history until the store fails; returns how many transactions were acknowledged.
async fn play(store: &Embedded) -> usize {
    for (i, ops) in history().into_iter().enumerate() {
        if store.commit(Txn { compare: vec![], ops }).await.is_err() {
            return i;
        }
    }
    history().len()
}

type Content = BTreeMap<Bytes, Bytes>;

/// What the store holds after so many transactions of the history, and the revision.
fn expected(transactions: usize) -> (Content, Revision) {
    let (mut content, mut revision) = (Content::new(), 1);
    for ops in history().into_iter().take(transactions) {
        let mut changed = false;
        for op in ops {
            changed |= match op {
                Op::Put { key, value, .. } => content.insert(key, value).is_none_or(|_| true),
                Op::Delete { key } => content.remove(&key).is_some(),
            };
        }
        revision += Revision::from(changed);
    }
    (content, revision)
}

async fn found(store: &Embedded) -> (Content, Revision) {
    let page = store.range(Range::prefix("/")).await.unwrap();
    (page.entries.into_iter().map(|e| (e.key, e.value)).collect(), page.revision)
}

/// The store must hold what was acknowledged, at most the one transaction that was under way more, and go on.
async fn check_survivor(disk: &Lossy, settings: Settings, acknowledged: usize, when: &str) {
    let store = open(disk, settings).unwrap_or_else(|e| panic!("{when}: {e}"));
    let found = found(&store).await;
    let possible = [acknowledged, (acknowledged + 1).min(history().len())].map(expected);
    assert!(possible.contains(&found), "{when}: {acknowledged} acknowledged, found {found:?}");
    let revision = write(&store, vec![put("/after", "x")]).await;
    assert_eq!(revision, found.1 + 1, "{when}: the next revision");
    drop(store);
    let again = open(disk, settings).unwrap_or_else(|e| panic!("{when}, opened again: {e}"));
    assert_eq!(again.revision().await.unwrap(), revision, "{when}, opened again");
}

/// How many bytes the whole history takes, opening included.
async fn total_bytes(settings: Settings) -> u64 {
    let disk = Lossy::default();
    let store = open(&disk, settings).unwrap();
    assert_eq!(play(&store).await, history().len());
    drop(store);
    disk.written()
}

async fn cut_everywhere(settings: Settings, step: usize) {
    for cut in (0..total_bytes(settings).await).step_by(step) {
        let disk = Lossy::default();
        disk.fuse(cut);
        let acknowledged = match open(&disk, settings) {
            Ok(store) => play(&store).await,
            Err(_) => 0,
        };
        for unsynced in [Unsynced::Kept, Unsynced::Lost, Unsynced::Torn(0x9d2c_5680_5bd1_e995 ^ cut)] {
            let when = format!("cut at byte {cut}, unsynced {unsynced:?}");
            check_survivor(&disk.after_power_cut(unsynced), settings, acknowledged, &when).await;
        }
    }
}

#[tokio::test]
async fn a_cut_at_every_byte_loses_nothing() {
    cut_everywhere(settings(4 << 10, 1 << 20), 1).await;
}

#[tokio::test]
async fn a_cut_while_segments_and_snapshots_change_loses_nothing() {
    cut_everywhere(settings(512, 1024), 3).await;
}

/// What is said of damage: the file, the offset, and what to do.
fn assert_says(what: &str, name: &str) {
    for word in [name, "damaged at offset ", "Nothing was changed", "restore the data directory from a backup"] {
        assert!(what.contains(word), "{word:?} is not in {what:?}");
    }
}

async fn played(settings: Settings) -> Lossy {
    let disk = Lossy::default();
    let store = open(&disk, settings).unwrap();
    assert_eq!(play(&store).await, history().len());
    drop(store);
    disk
}

/// Every bit of every file: the store either refuses and names the file, or has everything.
#[tokio::test]
async fn damage_is_refused_or_harmless() {
    let settings = settings(4 << 10, 1 << 20);
    let disk = played(settings).await;
    let mut refused = 0;
    let names = disk.list().unwrap();
    for name in names.iter().filter(|n| !n.ends_with(".tmp")) {
        let size = disk.read(name).unwrap().len();
        for at in 0..size {
            let hurt = disk.after_power_cut(Unsynced::Kept);
            hurt.damage(name, at, |byte| byte ^ (1 << (at % 8)));
            match open(&hurt, settings) {
                Err(Error::Corrupt(what)) => {
                    assert_says(&what, name);
                    refused += 1;
                }
                Err(other) => panic!("{name} at {at}: {other}"),
                Ok(store) => assert_eq!(found(&store).await, expected(history().len()), "{name} at {at}"),
            }
        }
    }
    assert!(refused > 1000, "only {refused} were noticed");
}

/// A file whose end is missing, as after a copy that stopped half way: a snapshot half written, a log cut short.
#[tokio::test]
async fn a_file_cut_short_is_refused() {
    let settings = settings(4 << 10, 1 << 20);
    let disk = played(settings).await;
    for name in disk.list().unwrap().iter().filter(|n| !n.ends_with(".tmp")) {
        let size = disk.read(name).unwrap().len();
        for len in (0..size).step_by(if name.starts_with("snap-") { 1 } else { 8 }) {
            let hurt = disk.after_power_cut(Unsynced::Kept);
            hurt.shorten(name, len);
            match open(&hurt, settings).map(|_| ()) {
                Err(Error::Corrupt(what)) => assert_says(&what, name),
                other => panic!("{name} of {len} bytes: {other:?}"),
            }
        }
    }
}

/// On a real disk the directory is named, too.
#[tokio::test]
async fn damage_on_a_real_disk_is_told_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(4 << 10, 1 << 20);
    let store = Embedded::open(dir.path(), settings).unwrap();
    play(&store).await;
    drop(store);
    let log = dir.path().join("log-0000000000000001.seg");
    let sound = std::fs::read(&log).unwrap();
    let mut hurt = sound.clone();
    hurt[200] ^= 1;
    std::fs::write(&log, hurt).unwrap();
    match Embedded::open(dir.path(), settings).map(|_| ()) {
        Err(Error::Corrupt(what)) => {
            assert_says(&what, "log-0000000000000001.seg");
            assert!(what.starts_with(&dir.path().display().to_string()), "{what}");
        }
        other => panic!("{other:?}"),
    }
    std::fs::write(&log, sound).unwrap();
    let store = Embedded::open(dir.path(), settings).unwrap();
    assert_eq!(found(&store).await, expected(history().len()), "nothing was changed");
}

#[tokio::test]
async fn a_missing_file_is_refused() {
    let settings = settings(512, 1 << 20);
    let disk = played(settings).await;
    let names = disk.list().unwrap();
    let needed: Vec<_> = names.iter().filter(|n| !n.ends_with(".tmp")).collect();
    assert!(needed.len() > 3, "{needed:?}");
    for name in needed.split_last().unwrap().1.iter().chain([needed.last().unwrap()]) {
        let hurt = disk.after_power_cut(Unsynced::Kept);
        hurt.remove(name).unwrap();
        let last_segment = names.iter().filter(|n| n.starts_with("log-")).max() == Some(name);
        // The last segment cannot be told from one that was never begun.
        assert!(last_segment || matches!(open(&hurt, settings), Err(Error::Corrupt(_))), "{name}");
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_serves_reads_and_deletes() {
    let settings = settings(8 << 10, 1 << 20);
    let disk = Lossy::default();
    let store = open(&disk, settings).unwrap();
    write(&store, vec![put("/first", "x"), put("/second", "x")]).await;
    disk.capacity(Some(disk.used()));
    let mut full = None;
    for i in 0..100 {
        let ops = vec![put(&format!("/fill/{i}"), &"x".repeat(500))];
        if let Err(error) = store.commit(Txn { compare: vec![], ops }).await {
            full = Some(error);
            break;
        }
    }
    assert!(matches!(full, Some(Error::NoSpace)), "{full:?}");
    let before = store.range(Range::prefix("/")).await.unwrap();
    let deleted = write(&store, vec![delete("/first")]).await;
    assert_eq!(deleted, before.revision + 1);
    drop(store);

    let store = open(&disk, settings).unwrap();
    assert_eq!(store.range(Range::prefix("/")).await.unwrap().count, before.count - 1);
    let refused = store.commit(Txn { compare: vec![], ops: vec![put("/more", "x")] }).await;
    assert!(matches!(refused, Err(Error::NoSpace)), "{refused:?}");
    write(&store, vec![delete("/second")]).await;
    disk.capacity(None);
    let mut more = Err(Error::NoSpace);
    while matches!(more, Err(Error::NoSpace)) {
        more = store.commit(Txn { compare: vec![], ops: vec![put("/more", "x")] }).await;
        tokio::task::yield_now().await;
    }
    assert!(matches!(more, Ok(Commit::Done(_))), "{more:?}");
}

/// A snapshot for which there is no room is left out, and what there is of it goes; the log goes on.
#[tokio::test]
async fn a_snapshot_that_finds_no_room_costs_nothing() {
    let settings = settings(2 << 10, 8 << 10);
    let snapshots =
        |disk: &Lossy| disk.list().unwrap().into_iter().filter(|n| n.starts_with("snap-")).collect::<Vec<_>>();
    let run = async |capacity| {
        let disk = Lossy::default();
        disk.capacity(capacity);
        let store = open(&disk, settings).unwrap();
        for i in 0..45 {
            write(&store, vec![put(&format!("/{i}"), &"x".repeat(60))]).await;
        }
        drop(store);
        disk
    };
    let roomy = snapshots(&run(None).await);
    assert!(roomy.len() == 1 && roomy[0].as_str() > "snap-0000000000000001", "{roomy:?}");

    let disk = run(Some(15 << 10)).await;
    assert_eq!(snapshots(&disk), ["snap-0000000000000001"]);
    let store = open(&disk, settings).unwrap();
    assert_eq!(store.range(Range::prefix("/")).await.unwrap().count, 45);
    write(&store, vec![delete("/1")]).await;
    disk.capacity(None);
    for i in 0..300 {
        write(&store, vec![put("/n", &i.to_string())]).await;
    }
    drop(store);
    assert!(snapshots(&disk)[0] > roomy[0], "{:?}", snapshots(&disk));
}

/// Old revisions, leases and watches are as they were after the log was replaced by a snapshot and read again.
#[tokio::test]
async fn a_snapshot_keeps_history() {
    let settings = settings(2 << 10, 4 << 10);
    let disk = Lossy::default();
    let store = open(&disk, settings).unwrap();
    let lease = store.lease_grant(3600).await.unwrap();
    let leased = Op::Put { key: "/leased".into(), value: "x".into(), lease };
    let first = write(&store, vec![leased]).await;
    for i in 0..200 {
        write(&store, vec![put("/n", &i.to_string())]).await;
    }
    store.compact(first + 50).await.unwrap();
    drop(store);
    let files = disk.list().unwrap();
    assert!(!files.iter().any(|f| f.starts_with("snap-0000000000000001")), "no snapshot was made: {files:?}");

    let store = open(&disk, settings).unwrap();
    let old = Range { revision: first + 60, ..Range::key("/n") };
    assert_eq!(store.range(old).await.unwrap().entries[0].value, "59");
    let old = Range { revision: first + 49, ..Range::key("/n") };
    assert!(matches!(store.range(old).await, Err(Error::Compacted(r)) if r == first + 50));
    let mut watch = store.watch("/n".into(), first + 51).await.unwrap();
    let batch = watch.next().await.unwrap().unwrap();
    let Event::Put { entry, previous } = &batch.events[0] else { panic!("{batch:?}") };
    assert_eq!((&entry.value[..], &previous.as_ref().unwrap().value[..]), (&b"50"[..], &b"49"[..]));
    store.lease_revoke(lease).await.unwrap();
    assert_eq!(store.range(Range::key("/leased")).await.unwrap().count, 0);
}

#[tokio::test]
async fn history_is_compacted_by_size() {
    let settings = Settings { history_bytes: 64 << 10, ..Settings::default() };
    let disk = Lossy::default();
    let small = Settings { log: LogConfig { segment_bytes: 64 << 10 }, ..settings };
    let store = open(&disk, small).unwrap();
    let first = write(&store, vec![put("/n", "first")]).await;
    for _ in 0..300 {
        write(&store, vec![put("/n", &"x".repeat(1000))]).await;
    }
    let old = store.range(Range { revision: first, ..Range::key("/n") }).await;
    assert!(matches!(old, Err(Error::Compacted(_))), "{old:?}");
    let last = store.revision().await.unwrap();
    assert!(store.range(Range { revision: last - 20, ..Range::key("/n") }).await.is_ok());
}

#[tokio::test]
async fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path(), Settings::default()).unwrap();
    let second = Embedded::open(dir.path(), Settings::default()).map(|_| ());
    assert!(matches!(&second, Err(Error::Unavailable(why)) if why.contains("in use")), "{second:?}");
    drop(store);
    Embedded::open(dir.path(), Settings::default()).unwrap();
}

const CHILD_DIR: &str = "STORE_TEST_CHILD_DIR";

/// Not a test of its own: what the killed child does. It prints each number once its write is acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_writes_until_killed() {
    use std::io::Write;
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    let store = Embedded::open(Path::new(&dir), Settings::default()).unwrap();
    let writer = async |lane: usize| {
        for i in 0.. {
            let revision = write(&store, vec![put(&format!("/{lane}/{i:06}"), &i.to_string())]).await;
            writeln!(std::io::stdout(), "ack {lane} {i} {revision}").unwrap();
        }
    };
    futures::join!(writer(0), writer(1), writer(2), writer(3));
}

#[tokio::test]
async fn a_killed_process_loses_nothing() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    let dir = tempfile::tempdir().unwrap();
    let mut before = 0;
    for round in 0..3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child_that_writes_until_killed", "--nocapture"])
            .env(CHILD_DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut acknowledged = BTreeMap::new();
        let parse = |line: String| -> Option<(u64, u64, Revision)> {
            let mut words = line.split_once("ack ")?.1.split(' ').map(|w| w.parse().ok());
            Some((words.next()??, words.next()??, words.next()??))
        };
        for (lane, i, revision) in lines.filter_map(parse) {
            acknowledged.insert(lane, (i, revision));
            if i == 150 + round * 50 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        let store = Embedded::open(dir.path(), Settings::default()).unwrap();
        for (lane, (last, revision)) in acknowledged {
            let page = store.range(Range::prefix(format!("/{lane}/"))).await.unwrap();
            let numbers: Vec<String> = page.entries.iter().map(|e| String::from_utf8_lossy(&e.value).into()).collect();
            assert!(numbers.len() as u64 > last, "{lane}: {} of {last}", numbers.len());
            assert!(numbers.iter().enumerate().all(|(i, n)| *n == i.to_string()), "{lane}: a gap");
            assert!(page.revision >= revision && revision > before);
        }
        before = store.revision().await.unwrap();
        for lane in 0..4 {
            let keys = store.range(Range::prefix(format!("/{lane}/"))).await.unwrap().entries;
            write(&store, keys.into_iter().map(|e| Op::Delete { key: e.key }).collect()).await;
        }
    }
}
