//! Pulls from a registry that behaves.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runtime_image::{Auth, Error, Image, Platform, Progress, Store};

use crate::registry::{Answer, Registry};
use crate::sample::{Sample, options, pull, residue, wait};
use crate::support::digest;

#[test]
fn images_are_pulled_verified_and_resumed() {
    // The first time a blob is asked for, half of it comes.
    let broken = Mutex::new(std::collections::BTreeSet::new());
    let registry = Registry::lying(move |seen, answer| {
        let cut = seen.path.contains("/blobs/") && broken.lock().unwrap().insert(seen.path.clone());
        Answer { cut: cut.then_some(answer.body.len() / 2), ..answer }
    });
    Sample::two().serve(&registry);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let seen = Mutex::new(Vec::new());
    let image = pull(&store, &registry, |p| seen.lock().unwrap().push(p)).unwrap();
    let name = format!("{}/team/app:1", registry.address);
    assert_eq!(image.names.join(" "), name);
    assert_eq!(fs::read_to_string(image.layers[1].join("a")).unwrap(), "one");
    assert_eq!(fs::read_to_string(image.layers[0].join("b/c")).unwrap().len(), 45_000);
    let seen = seen.into_inner().unwrap();
    assert!(matches!(seen[0], Progress::Resolved { layers: 2, .. }), "{seen:?}");
    assert_eq!(seen.iter().filter(|p| matches!(p, Progress::Unpacked { .. })).count(), 2);
    assert_eq!(registry.asked("GET", "/blobs/").iter().filter(|seen| seen.header("range").is_some()).count(), 3);
    assert_eq!(store.get(&image.digests[0]).unwrap(), Some(image.clone()));
    assert_eq!(pull(&store, &registry, |_| {}).unwrap(), image);
    assert_eq!(store.verify(&name).unwrap(), Vec::<String>::new());
    let two = format!("{}/team/app:2", registry.address);
    let missing = wait(store.pull(&two, &Auth::Anonymous, &options(&[&registry.address]), |_| {}));
    assert!(matches!(missing, Err(Error::NotFound(_))));
}

#[test]
fn another_platform_is_pulled_when_it_is_asked_for() {
    let registry = Registry::honest();
    Sample::two().serve(&registry);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let mut options = options(&[&registry.address]);
    options.platform = Platform::parse("linux/riscv64").unwrap();
    let name = format!("{}/team/app:1", registry.address);
    let error = wait(store.pull(&name, &Auth::Anonymous, &options, |_| {})).unwrap_err();
    assert_eq!(error.to_string(), format!("{name} for linux/riscv64: not found"));
    options.platform = Platform::parse("linux/s390x").unwrap();
    // It is in the index, and nowhere else.
    let error = wait(store.pull(&name, &Auth::Anonymous, &options, |_| {})).unwrap_err();
    assert!(matches!(error, Error::NotFound(_)), "{error}");
}

#[test]
fn a_registry_that_is_busy_is_asked_again_when_it_says() {
    let asked = AtomicUsize::new(0);
    let registry = Registry::lying(move |seen, answer| match seen.path.contains("/blobs/") {
        true if asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) => {
            Answer::new(429, "").with("retry-after", "0")
        }
        _ => answer,
    });
    Sample::two().serve(&registry);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    pull(&store, &registry, |_| {}).unwrap();
    // It always is: that is its own error.
    let registry = Registry::lying(|_, _| Answer::new(503, "").with("retry-after", "0"));
    let error = pull(&store, &registry, |_| {}).unwrap_err().to_string();
    assert!(error.contains("503 Service Unavailable"), "{error}");
    assert_eq!(registry.asked("GET", "/manifests/").len(), 3);
}

#[test]
fn what_is_left_of_a_pull_is_gone_on_with() {
    let sample = Sample::two();
    let registry = Registry::honest();
    sample.serve(&registry);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let partial = |bytes: &[u8]| {
        let name = digest(&sample.packed[1]).replace("sha256:", "");
        fs::create_dir_all(dir.path().join("partial")).unwrap();
        fs::write(dir.path().join(format!("partial/{name}.partial")), bytes).unwrap();
    };
    let range = |registry: &Registry| {
        let asked = registry.asked("GET", &digest(&sample.packed[1]));
        asked.iter().map(|seen| seen.header("range").map(str::to_owned)).collect::<Vec<_>>()
    };
    partial(&sample.packed[1][..10]);
    let image = pull(&store, &registry, |_| {}).unwrap();
    assert_eq!(range(&registry), [Some("bytes=10-".to_owned())]);
    // Damage on the disk costs another fetch, and nothing else.
    store.remove(&image.id).unwrap();
    store.collect(&[]).unwrap();
    partial(b"damage on the disk");
    pull(&store, &registry, |_| {}).unwrap();
    assert_eq!(range(&registry)[1..], [Some("bytes=18-".to_owned()), None]);
    assert_eq!(store.verify(&image.id).unwrap(), Vec::<String>::new());
    assert!(residue(dir.path()).iter().all(|name| !name.starts_with("partial") && !name.starts_with("ingest")));
}

#[test]
fn a_registry_without_ranges_sends_all_of_it_again() {
    let lies: [fn(Answer) -> Answer; 2] = [|_| Answer::new(416, ""), |answer| Answer { status: 200, ..answer }];
    for lie in lies {
        let sample = Sample::two();
        let whole = sample.packed[1].clone();
        let registry = Registry::lying(move |seen, answer| match seen.header("range") {
            Some(_) => Answer { body: whole.clone().into(), ..lie(answer) },
            None => answer,
        });
        sample.serve(&registry);
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        fs::create_dir(dir.path().join("partial")).unwrap();
        let name = digest(&sample.packed[1]).replace("sha256:", "");
        fs::write(dir.path().join(format!("partial/{name}.partial")), &sample.packed[1][..10]).unwrap();
        let image = pull(&store, &registry, |_| {}).unwrap();
        assert_eq!(store.verify(&image.id).unwrap(), Vec::<String>::new());
    }
}

#[test]
fn two_pulls_of_one_image_fetch_each_blob_once() {
    let registry = Registry::honest();
    Sample::two().serve(&registry);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let (name, options) = (format!("{}/team/app:1", registry.address), options(&[&registry.address]));
    let one = || store.pull(&name, &Auth::Anonymous, &options, |_| {});
    let (first, second) = wait(async { tokio::join!(one(), one()) });
    assert_eq!(first.unwrap(), second.unwrap());
    assert_eq!(registry.asked("GET", "/blobs/").len(), 3);
}

/// Another process that has ten bytes of a layer and fetches the rest, which never comes.
fn elsewhere(root: &Path, layer: &[u8]) -> Child {
    let path = root.join("partial").join(digest(layer).replace("sha256:", "") + ".partial");
    fs::create_dir_all(root.join("partial")).unwrap();
    fs::write(&path, &layer[..10]).unwrap();
    let mut command = Command::new("flock");
    command.arg("--no-fork").arg(path).args(["sh", "-c", "echo held; read end"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "held\n");
    child
}

/// A pull in a thread of its own: what it shows, and at last what comes of it.
fn begin(root: &Path, registry: &Arc<Registry>) -> (Receiver<Progress>, Receiver<Result<Image, Error>>) {
    let ((step, steps), (end, ends)) = (channel(), channel());
    let (root, registry) = (root.to_owned(), registry.clone());
    std::thread::spawn(move || {
        let store = Store::open(&root).unwrap();
        let step = Mutex::new(step);
        let result = pull(&store, &registry, |progress| drop(step.lock().unwrap().send(progress)));
        end.send(result).unwrap();
    });
    (steps, ends)
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn what_another_process_fetches_is_gone_on_with_when_that_is_killed() {
    let sample = Sample::two();
    let registry = Arc::new(Registry::honest());
    sample.serve(&registry);
    let dir = tempfile::tempdir().unwrap();
    let mut other = elsewhere(dir.path(), &sample.packed[1]);
    let (steps, ends) = begin(dir.path(), &registry);
    let followed = |step: &Progress| matches!(step, Progress::Fetched { done_bytes: 10, .. });
    assert!(std::iter::from_fn(|| steps.recv_timeout(LONG).ok()).any(|step| followed(&step)));
    other.kill().unwrap();
    other.wait().unwrap();
    let image = ends.recv_timeout(LONG).unwrap().unwrap();
    assert_eq!(Store::open(dir.path()).unwrap().verify(&image.id).unwrap(), Vec::<String>::new());
    let asked = registry.asked("GET", &digest(&sample.packed[1]));
    assert_eq!(asked.iter().map(|seen| seen.header("range")).collect::<Vec<_>>(), [Some("bytes=10-")]);
}

#[test]
fn a_pull_that_fails_does_not_wait_for_what_another_process_fetches() {
    let sample = Sample::two();
    let missing = digest(&sample.packed[0]);
    let registry = Arc::new(Registry::lying(move |seen, answer| match seen.path.ends_with(&missing) {
        true => Answer::new(404, ""),
        false => answer,
    }));
    sample.serve(&registry);
    let dir = tempfile::tempdir().unwrap();
    let mut other = elsewhere(dir.path(), &sample.packed[1]);
    let (_steps, ends) = begin(dir.path(), &registry);
    assert!(matches!(ends.recv_timeout(LONG).unwrap(), Err(Error::NotFound(_))));
    // What the other has is still its own.
    assert_eq!(residue(dir.path()).len(), 1);
    other.kill().unwrap();
    other.wait().unwrap();
}
