//! Names, and the collection of what nobody needs.

use std::fs;
use std::sync::Mutex;

use runtime_image::{Error, Progress, Store};

use crate::registry::Registry;
use crate::sample::{Sample, pull, residue};
use crate::support::{FILE, docker_archive, layer};

#[test]
fn names_are_given_moved_and_taken() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("images")).unwrap();
    let archive = dir.path().join("a.tar");
    let ids = ["one", "two"].map(|text| {
        docker_archive(&archive, &format!("{text}:1"), &[layer(&[("a", FILE, text)])]);
        store.import(&archive, None).unwrap().remove(0).id
    });
    assert_eq!(store.tag("one:1", "moving").unwrap(), "docker.io/library/moving:latest");
    assert_eq!(store.get("moving").unwrap().unwrap().id, ids[0]);
    store.tag(&ids[1], "moving").unwrap();
    assert_eq!(store.get("moving").unwrap().unwrap().id, ids[1]);
    assert_eq!(store.get("one:1").unwrap().unwrap().names, ["docker.io/library/one:1"]);
    assert!(matches!(store.tag("three:1", "moving"), Err(Error::NotFound(_))));
    let digest = format!("a@sha256:{}", "a".repeat(64));
    assert!(matches!(store.tag("one:1", &digest), Err(Error::Reference(_))));
    assert!(matches!(store.tag("one:1", "Bad Name"), Err(Error::Reference(_))));
    store.remove("two:1").unwrap();
    store.collect(&[]).unwrap();
    assert_eq!(store.list().unwrap().len(), 2, "each has a name still");
    let details = store.details("moving").unwrap().unwrap();
    assert_eq!(details.configuration["config"]["Env"][0], "A=b");
    assert_eq!(details.manifest["layers"].as_array().unwrap().len(), 1);
    assert!(store.details("two:1").unwrap().is_none());
}

/// Somebody removes a part of one image behind the store's back: the others do not notice, and it can be brought again.
#[test]
fn an_image_that_is_not_whole_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let (root, archive) = (dir.path().join("images"), dir.path().join("a.tar"));
    let store = Store::open(&root).unwrap();
    let import = |text: &str| {
        docker_archive(&archive, &format!("{text}:1"), &[layer(&[("a", FILE, text)])]);
        store.import(&archive, None).unwrap().remove(0)
    };
    let other = import("other");
    for part in ["manifest", "configuration", "layer"] {
        let image = import("broken");
        let blob = |digest: &str| root.join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
        match part {
            "manifest" => fs::remove_file(blob(&store.details("broken:1").unwrap().unwrap().manifest_digest)).unwrap(),
            "configuration" => fs::remove_file(blob(&image.id)).unwrap(),
            _ => fs::remove_dir_all(&image.layers[0]).unwrap(),
        }
        assert!(store.get("broken:1").unwrap().is_none(), "{part}");
        assert!(store.details("broken:1").unwrap().is_none(), "{part}");
        let left = store.list().unwrap();
        assert_eq!(left.iter().map(|image| &image.id).collect::<Vec<_>>(), [&other.id], "{part}");
        store.collect(&[]).unwrap();
        assert_eq!(store.verify("other:1").unwrap(), Vec::<String>::new(), "{part}");
        assert_eq!(import("broken").id, image.id);
        assert_eq!(store.verify("broken:1").unwrap(), Vec::<String>::new(), "{part}");
        assert_eq!(store.list().unwrap().len(), 2, "{part}");
    }
}

#[test]
fn a_pull_under_way_keeps_its_own_and_nothing_else() {
    let registry = Registry::honest();
    Sample::two().serve(&registry);
    let dir = tempfile::tempdir().unwrap();
    let (store, root) = (Store::open(&dir.path().join("images")).unwrap(), dir.path().join("images"));
    let archive = dir.path().join("a.tar");
    docker_archive(&archive, "old:1", &[layer(&[("a", FILE, "old")])]);
    store.import(&archive, None).unwrap();
    store.remove("old:1").unwrap();
    let freed = Mutex::new(Vec::new());
    // At every step of the pull somebody else collects.
    let image = pull(&store, &registry, |step| {
        let bytes = Store::open(&root).unwrap().collect(&[]).unwrap();
        freed.lock().unwrap().push((step, bytes));
    });
    let image = image.unwrap();
    assert_eq!(store.verify(&image.id).unwrap(), Vec::<String>::new());
    let freed = freed.into_inner().unwrap();
    assert!(freed[0].1 > 0, "{freed:?}");
    assert!(freed[1..].iter().all(|(_, bytes)| *bytes == 0), "{freed:?}");
    assert!(freed.iter().any(|(step, _)| matches!(step, Progress::Unpacked { .. })));
}

#[test]
fn a_tree_deeper_than_paths_are_long_is_collected() {
    let deep = "d/".repeat(1900);
    let mut tar = Vec::new();
    let mut builder = tar::Builder::new(&mut tar);
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.set_mode(0o644);
    builder.append_data(&mut header, format!("{deep}file"), &b""[..]).unwrap();
    builder.finish().unwrap();
    drop(builder);
    let dir = tempfile::tempdir().unwrap();
    let (archive, root) = (dir.path().join("a.tar"), dir.path().join("images"));
    // Twice in one image, so that the second passes through the directories of the first.
    let above = layer(&[("b", FILE, "x")]);
    docker_archive(&archive, "deep:1", &[tar.clone(), above, tar]);
    let store = Store::open(&root).unwrap();
    store.import(&archive, None).unwrap();
    store.remove("deep:1").unwrap();
    store.collect(&[]).unwrap();
    assert_eq!(residue(&root), Vec::<String>::new());
    // And what a killed import left of one.
    let left = root.join("ingest/0");
    fs::create_dir(&left).unwrap();
    let mut at = std::fs::File::open(&left).unwrap();
    for _ in 0..3000 {
        rustix::fs::mkdirat(&at, "d", rustix::fs::Mode::RWXU).unwrap();
        let flags = rustix::fs::OFlags::DIRECTORY;
        at = rustix::fs::openat(&at, "d", flags, rustix::fs::Mode::empty()).unwrap().into();
    }
    Store::open(&root).unwrap();
    assert_eq!(residue(&root), Vec::<String>::new());
}
