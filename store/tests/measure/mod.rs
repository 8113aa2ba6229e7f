//! Figures, not checks: `cargo test -p store --release measure -- --ignored --nocapture`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use store::Store;
use store::embedded::{Embedded, Settings};

use crate::conformance::{put, write};

fn line(what: &str, mut times: Vec<Duration>) -> Duration {
    times.sort();
    let at = |part: usize| times[(times.len() - 1) * part / 100];
    println!("{what}: p50 {:?} p99 {:?}", at(50), at(99));
    at(50)
}

/// What one write of a reserved place and its sync cost.
fn raw(dir: &std::path::Path, rounds: usize) -> Vec<Duration> {
    let file = File::create(dir.join("raw")).unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 16 << 20).unwrap();
    let bytes = [7; 1152];
    let one = |i: usize| {
        let start = Instant::now();
        file.write_all_at(&bytes, (i * bytes.len()) as u64).unwrap();
        file.sync_data().unwrap();
        start.elapsed()
    };
    (0..rounds).map(one).collect()
}

async fn single(store: &impl Store, rounds: usize) -> Vec<Duration> {
    let value = "v".repeat(1024);
    let mut times = Vec::new();
    for i in 0..rounds {
        let start = Instant::now();
        write(store, vec![put(&format!("/one/{}", i % 100), &value)]).await;
        times.push(start.elapsed());
    }
    times
}

async fn many(store: &(impl Store + Clone), writers: usize, rounds: usize) -> f64 {
    let start = Instant::now();
    let tasks = (0..writers).map(|w| {
        let store = store.clone();
        tokio::spawn(async move {
            let value = "v".repeat(1024);
            for i in 0..rounds {
                write(&store, vec![put(&format!("/many/{w}/{}", i % 100), &value)]).await;
            }
        })
    });
    futures::future::join_all(tasks.collect::<Vec<_>>()).await;
    (writers * rounds) as f64 / start.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a figure, not a check"]
async fn durable_puts() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let store = Embedded::open(&dir.path().join("store"), Settings::default()).unwrap();
    for _ in 0..3 {
        let floor = line("raw write and fdatasync, 1152 B", raw(dir.path(), 1000));
        let ours = line("embedded, one durable put, 1 KiB", single(&store, 1000).await);
        println!("ratio {:.2}", ours.as_secs_f64() / floor.as_secs_f64());
    }
    for writers in [1, 64, 1000] {
        let rate = many(&store, writers, 20_000 / writers).await;
        println!("embedded, {writers} writers: {rate:.0} puts/s");
    }
    if let Some((etcd, _server)) = crate::server::start().await {
        line("etcd over gRPC, one durable put, 1 KiB", single(&etcd, 1000).await);
        println!("etcd over gRPC, 64 writers: {:.0} puts/s", many(&etcd, 64, 100).await);
    }
}
