//! A pull whose process is killed again and again, at any moment: each goes on where the last one ended, nothing is ever
//! taken for whole that is not, and in the end the image is.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use runtime_image::Store;

use crate::registry::Registry;
use crate::sample::{Sample, options, pull, residue, wait};
use crate::support::{FILE, digest, layer};

const KILLS: u32 = 50;
const CHILD: &str = "killed::the_process_that_is_killed";
/// The registry's address and the store's root, for the process that is killed.
const TASK: &str = "PULL_INTO";

/// Not a test of its own: what the test below starts and kills.
#[test]
fn the_process_that_is_killed() {
    let Ok(task) = std::env::var(TASK) else { return };
    let (address, root) = task.split_once(' ').unwrap();
    let store = Store::open(Path::new(root)).unwrap();
    let name = format!("{address}/team/app:1");
    wait(store.pull(&name, &runtime_image::Auth::Anonymous, &options(&[address]), |_| {})).unwrap();
}

fn start(registry: &Registry, root: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", CHILD]).env(TASK, format!("{} {}", registry.address, root.display()));
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Whether the process ended by itself within the time.
fn ended_within(child: &Child, time: Duration) -> bool {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    let fd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&time)).unwrap() > 0
}

/// Layers whose bytes do not repeat, 600 kB each.
fn sample() -> Sample {
    let mut state = 1u64;
    let mut text = || {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            format!("{:016x}", state)
        };
        (0..37_500).map(|_| next()).collect::<String>()
    };
    let layers: Vec<Vec<u8>> = (0..8).map(|n| layer(&[(&format!("file-{n}"), FILE, &text())])).collect();
    Sample::of(&layers, layers.clone())
}

/// Everything that can be seen of the store is whole.
fn check(root: &Path) {
    for entry in fs::read_dir(root.join("blobs/sha256")).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = format!("sha256:{}", path.file_name().unwrap().to_str().unwrap());
        assert_eq!(digest(&fs::read(&path).unwrap()), name, "a blob is not what its name says");
    }
    // Without opening it, which clears what is left.
    let Ok(index) = fs::read(root.join("index.json")) else { return };
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    if index["images"].as_object().is_some_and(|images| !images.is_empty()) {
        let store = Store::open(root).unwrap();
        for image in store.list().unwrap() {
            assert_eq!(store.verify(&image.id).unwrap(), Vec::<String>::new());
        }
    }
}

#[test]
fn an_image_is_whole_however_often_its_pull_is_killed() {
    let sample = sample();
    let registry = Registry::honest();
    sample.serve(&registry);
    let dir = tempfile::tempdir().unwrap();
    // How long a pull takes that nobody kills: the moments are drawn from that.
    let begun = Instant::now();
    start(&registry, &dir.path().join("first")).wait().unwrap();
    let whole = u64::try_from(begun.elapsed().as_micros()).unwrap();
    check(&dir.path().join("first"));
    registry.seen.lock().unwrap().clear();

    let root = dir.path().join("images");
    let (mut kills, mut ends, mut seed) = (0, 0, 7u64);
    while kills < KILLS {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut child = start(&registry, &root);
        let ended = ended_within(&child, Duration::from_micros((seed >> 33) % (whole + whole / 8)));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert!(status.success() || !ended, "{status}");
        check(&root);
        if !ended && !status.success() {
            kills += 1;
            continue;
        }
        // It was too fast for us: from the beginning.
        ends += 1;
        let store = Store::open(&root).unwrap();
        store.list().unwrap().iter().for_each(|image| store.remove(&image.id).unwrap());
        store.collect(&[]).unwrap();
        assert_eq!(residue(&root), Vec::<String>::new());
    }
    let resumed = registry.asked("GET", "/blobs/").iter().filter(|seen| seen.header("range").is_some()).count();
    println!("{kills} kills, {ends} pulls that ended before, {resumed} blobs gone on with");
    assert!(resumed > 0, "no pull went on where another was killed");

    let store = Store::open(&root).unwrap();
    let image = pull(&store, &registry, |_| {}).unwrap();
    check(&root);
    assert_eq!(image.layers.len(), 8);
    for (n, layer) in image.layers.iter().rev().enumerate() {
        assert_eq!(fs::metadata(layer.join(format!("file-{n}"))).unwrap().len(), 600_000);
    }
    assert!(residue(&root).iter().all(|name| !name.starts_with("partial") && !name.starts_with("ingest")));
}
