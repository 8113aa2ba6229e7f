//! Durable puts of 1 KiB, one after the other: `puts raw|embedded DIR COUNT` and `puts etcd URL COUNT`. Prints a line
//! `put NANOSECONDS` for each. `cargo xtask bench P2` is the way to call it.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs::File;
use std::future::Future;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use etcd_client::Client;
use store::embedded::{Embedded, Settings};
use store::{Op, Store, Txn};

const VALUE: usize = 1024;
/// What frames and keys add to a value in the log.
const RECORD: usize = 1152;
/// Keys that are written in turn.
const KEYS: usize = 100;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [home, at, count] = words.as_slice() else { panic!("usage: puts raw|embedded|etcd DIR|URL COUNT") };
    let count = count.parse().unwrap();
    match home.as_str() {
        "raw" => raw(Path::new(at), count),
        "embedded" => embedded(Path::new(at), count).await,
        "etcd" => etcd(at, count).await,
        other => panic!("{other:?} is neither raw nor embedded nor etcd"),
    }
}

/// The floor: a write into reserved space, and its sync.
fn raw(dir: &Path, count: usize) {
    std::fs::create_dir_all(dir).unwrap();
    let file = File::create(dir.join("raw")).unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, (count * RECORD) as u64).unwrap();
    let bytes = [7; RECORD];
    for at in 0..count {
        let start = Instant::now();
        file.write_all_at(&bytes, (at * RECORD) as u64).unwrap();
        file.sync_data().unwrap();
        said(start);
    }
}

async fn embedded(dir: &Path, count: usize) {
    let store = Embedded::open(dir, Settings::default()).unwrap();
    timed(count, |key, value| {
        let put = Op::Put { key: key.into(), value: value.into(), lease: 0 };
        store.commit(Txn { compare: Vec::new(), ops: vec![put] })
    })
    .await;
}

async fn etcd(url: &str, count: usize) {
    let client = loop {
        if let Ok(mut client) = Client::connect([url], None).await
            && client.status().await.is_ok()
        {
            break client;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    timed(count, |key, value| {
        let mut client = client.clone();
        async move { client.put(key, value, None).await }
    })
    .await;
}

async fn timed<F, T, E: std::fmt::Debug>(count: usize, put: impl Fn(Vec<u8>, Vec<u8>) -> F)
where
    F: Future<Output = Result<T, E>>,
{
    for at in 0..count {
        let (key, value) = (format!("/one/{}", at % KEYS).into_bytes(), vec![b'v'; VALUE]);
        let start = Instant::now();
        put(key, value).await.unwrap();
        said(start);
    }
}

fn said(start: Instant) {
    println!("put {}", start.elapsed().as_nanos());
}
