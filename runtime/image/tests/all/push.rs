//! Pushes: what is there is not sent, the manifest comes last, and what was pushed is what is pulled.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use runtime_image::{Auth, Error, Progress, PushOptions, Store};

use crate::registry::{Answer, Registry};
use crate::sample::{Sample, options, pull, wait};
use crate::support::digest;

/// A store that has `team/app:1` from a registry.
fn stored(registry: &Registry) -> (tempfile::TempDir, Store) {
    Sample::two().serve(registry);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    pull(&store, registry, |_| {}).unwrap();
    registry.seen.lock().unwrap().clear();
    (dir, store)
}

fn push(store: &Store, image: &str, target: &str, progress: impl Fn(Progress) + Send + Sync) -> Result<String, Error> {
    let registries = options(&[target.split('/').next().unwrap()]).registries;
    let options = PushOptions { registries, referrers: false };
    wait(store.push(image, target, &Auth::Anonymous, &options, progress))
}

#[test]
fn what_is_pushed_is_what_is_pulled() {
    let (from, to) = (Registry::honest(), Registry::honest());
    let (_dir, store) = stored(&from);
    let (image, target) = (format!("{}/team/app:1", from.address), format!("{}/other/app:2", to.address));
    let steps = Mutex::new(Vec::new());
    let manifest = push(&store, &image, &target, |step| steps.lock().unwrap().push(step)).unwrap();
    assert_eq!(manifest, digest(&Sample::two().manifest));
    assert!(matches!(to.seen.lock().unwrap().last(), Some(seen) if seen.path == "/v2/other/app/manifests/2"));
    let sent =
        |step: &&Progress| matches!(step, Progress::Sent { done_bytes, total_bytes, .. } if done_bytes == total_bytes);
    assert!(steps.lock().unwrap().iter().filter(sent).count() >= 3);
    let dir = tempfile::tempdir().unwrap();
    let second = Store::open(dir.path()).unwrap();
    let pulled = wait(second.pull(&target, &Auth::Anonymous, &options(&[&to.address]), |_| {})).unwrap();
    assert_eq!(pulled.id, store.get(&image).unwrap().unwrap().id);
    assert_eq!(second.verify(&target).unwrap(), Vec::<String>::new());
    // A second time there is nothing to send but the manifest.
    to.seen.lock().unwrap().clear();
    push(&store, &image, &target, |_| {}).unwrap();
    assert_eq!((to.asked("POST", "").len(), to.asked("PUT", "/blobs/").len(), to.asked("PUT", "").len()), (0, 0, 1));
}

#[test]
fn a_registry_takes_blobs_over_from_another_repository_of_its_own() {
    let registry = Registry::honest();
    let (_dir, store) = stored(&registry);
    let image = format!("{}/team/app:1", registry.address);
    push(&store, &image, &format!("{}/team/copy:1", registry.address), |_| {}).unwrap();
    assert_eq!(registry.asked("POST", "/v2/team/copy/blobs/uploads/").len(), 3);
    assert_eq!(registry.asked("PUT", "/blobs/").len(), 0);
}

#[test]
fn an_image_of_an_executable_is_pushed_though_its_layer_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("images")).unwrap();
    let program = dir.path().join("prog");
    fs::write(&program, "#!elf").unwrap();
    let image = store.add_executable("trimtab/builtin:v1", &program, &["/prog"]).unwrap();
    let registry = Registry::honest();
    let target = format!("{}/builtin:v1", registry.address);
    push(&store, "trimtab/builtin:v1", &target, |_| {}).unwrap();
    let second = Store::open(&dir.path().join("second")).unwrap();
    let pulled = wait(second.pull(&target, &Auth::Anonymous, &options(&[&registry.address]), |_| {})).unwrap();
    assert_eq!(pulled.id, image.id);
    assert_eq!(fs::read(pulled.layers[0].join("prog")).unwrap(), b"#!elf");
}

#[test]
fn an_upload_that_breaks_is_begun_again_and_one_that_is_refused_is_named() {
    let puts = AtomicUsize::new(0);
    let to = Registry::lying(move |seen, answer| {
        let first = seen.method == "PUT" && seen.path.contains("/blobs/") && puts.fetch_add(1, Ordering::Relaxed) == 0;
        if first { Answer { cut: Some(0), ..Answer::new(201, "xx") } } else { answer }
    });
    let from = Registry::honest();
    let (_dir, store) = stored(&from);
    let image = format!("{}/team/app:1", from.address);
    push(&store, &image, &format!("{}/app:1", to.address), |_| {}).unwrap();
    for (status, why) in [
        (403, "/app:1: authorization failed"),
        (413, "sha256:"),
        (413, "413 Payload Too Large"),
        (500, "500 Internal Server Error"),
    ] {
        let registry = Registry::lying(move |seen, answer| match seen.method.as_str() {
            "PUT" => Answer::new(status, "").with("retry-after", "0"),
            _ => answer,
        });
        let error = push(&store, &image, &format!("{}/app:1", registry.address), |_| {}).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert_eq!(registry.asked("PUT", "/manifests/").len(), 0);
    }
}

#[test]
fn an_upload_is_not_led_away_from_its_registry_with_credentials() {
    let elsewhere = Registry::honest();
    let other = elsewhere.address.clone();
    let registry = Registry::lying(move |seen, answer| match (seen.header("authorization"), seen.method.as_str()) {
        (None, _) => Answer::new(401, "").with("www-authenticate", "Basic realm=\"x\""),
        (_, "POST") => answer.with("location", &format!("http://{other}{}1", seen.path)),
        _ => answer,
    });
    let from = Registry::honest();
    let (_dir, store) = stored(&from);
    let me = Auth::Basic { username: "me".into(), password: "secret".into() };
    let options = PushOptions { registries: options(&[&registry.address]).registries, referrers: false };
    let target = format!("{}/app:1", registry.address);
    wait(store.push(&format!("{}/team/app:1", from.address), &target, &me, &options, |_| {})).unwrap();
    let seen = elsewhere.seen.lock().unwrap();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|seen| seen.header("authorization").is_none()));
}

#[test]
fn what_cannot_be_pushed_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let error = push(&store, "nothing", "127.0.0.1:1/nothing:1", |_| {}).unwrap_err();
    assert_eq!(error.to_string(), "nothing: not found");
    let target = format!("127.0.0.1:1/app@sha256:{}", "a".repeat(64));
    let error = push(&store, "nothing", &target, |_| {}).unwrap_err();
    assert!(error.to_string().contains("a tag is needed"), "{error}");
}
