//! Exports: what goes out comes in again, in both forms, and what fails leaves no file.

use std::fs;

use runtime_image::{Error, Store};

use crate::registry::Registry;
use crate::sample::{Sample, pull, residue};
use crate::support::{FILE, digest, docker_archive, layer};

fn stored() -> (tempfile::TempDir, Store, String) {
    let registry = Registry::honest();
    Sample::two().serve(&registry);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("images")).unwrap();
    let image = pull(&store, &registry, |_| {}).unwrap();
    (dir, store, image.names[0].clone())
}

#[test]
fn what_is_exported_is_imported_again() {
    let (dir, store, name) = stored();
    let second = store.tag(&name, "example.org/second:2").unwrap();
    let id = store.get(&name).unwrap().unwrap().id;
    let (tar, layout) = (dir.path().join("out.tar"), dir.path().join("layout"));
    store.export_file(std::slice::from_ref(&name), false, &tar).unwrap();
    store.export_layout(std::slice::from_ref(&id), false, &layout).unwrap();
    for (path, names) in [(&tar, vec![name.clone()]), (&layout, vec![name.clone(), second.clone()])] {
        let other = tempfile::tempdir().unwrap();
        let other = Store::open(other.path()).unwrap();
        let images = other.import(path, None).unwrap();
        assert!(images.iter().all(|image| image.id == id));
        let mut found: Vec<String> = other.get(&id).unwrap().unwrap().names;
        found.sort();
        let mut names = names;
        names.sort();
        assert_eq!(found, names);
        assert_eq!(other.verify(&id).unwrap(), Vec::<String>::new());
    }
    // The same bytes each time.
    let again = dir.path().join("again.tar");
    store.export_file(std::slice::from_ref(&name), false, &again).unwrap();
    assert_eq!(digest(&fs::read(&tar).unwrap()), digest(&fs::read(&again).unwrap()));
}

#[test]
fn an_export_is_a_docker_archive_too() {
    let (dir, store, name) = stored();
    let tar = dir.path().join("out.tar");
    store.export_file(std::slice::from_ref(&name), false, &tar).unwrap();
    // Without its index, only the docker-archive is left of it.
    let unpacked = dir.path().join("unpacked");
    tar::Archive::new(fs::File::open(&tar).unwrap()).unpack(&unpacked).unwrap();
    fs::remove_file(unpacked.join("index.json")).unwrap();
    let other = Store::open(&dir.path().join("other")).unwrap();
    let images = other.import(&unpacked, None).unwrap();
    assert_eq!((images[0].names.clone(), &images[0].id), (vec![name.clone()], &store.get(&name).unwrap().unwrap().id));
}

#[test]
fn a_failed_export_leaves_nothing() {
    let (dir, store, name) = stored();
    let (tar, layout) = (dir.path().join("out.tar"), dir.path().join("layout"));
    let blob = dir.path().join("images/blobs/sha256").join(digest(&Sample::two().packed[0]).replace("sha256:", ""));
    let mut bytes = fs::read(&blob).unwrap();
    bytes[20] ^= 1;
    fs::write(&blob, bytes).unwrap();
    for result in [
        store.export_file(std::slice::from_ref(&name), false, &tar),
        store.export_layout(std::slice::from_ref(&name), false, &layout),
        store.export_file(&["nothing".to_owned()], false, &tar),
    ] {
        assert!(matches!(result, Err(Error::Digest { .. } | Error::NotFound(_))), "{result:?}");
    }
    let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["images"]);
    assert!(store.verify(&name).unwrap()[0].contains(&digest(&Sample::two().packed[0])));
    // What is there is not written over.
    fs::create_dir(&layout).unwrap();
    assert!(matches!(store.export_layout(&[name], false, &layout), Err(Error::Io(..))));
}

#[test]
fn an_import_that_fails_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (archive, root) = (dir.path().join("a.tar"), dir.path().join("images"));
    let store = Store::open(&root).unwrap();
    docker_archive(&archive, "box:1", &[layer(&[("a", FILE, "x")])]);
    let whole = fs::read(&archive).unwrap();
    let manifest = String::from_utf8_lossy(&whole).find("[{\"Config\"").unwrap();
    let mut wrong = whole.clone();
    wrong[manifest + 3] = b'X';
    for (bytes, why) in [
        (&whole[..whole.len() / 2], ""),
        (&whole[..700], "cut"),
        (b"<html>", "middle of a member"),
        (b"", "neither an OCI layout nor a docker-archive"),
        (&wrong, "manifest.json"),
        (&[&whole[..512], &whole[..]].concat(), ""),
    ] {
        fs::write(&archive, bytes).unwrap();
        let error = store.import(&archive, None).unwrap_err();
        assert!(matches!(error, Error::Malformed(_)) && error.to_string().contains(why), "{error:?}");
        assert_eq!(residue(&root), Vec::<String>::new(), "{error}");
    }
    let error = store.import(&dir.path().join("nothing.tar"), None).unwrap_err();
    assert!(matches!(error, Error::NotFound(_)), "{error:?}");
    fs::write(&archive, &whole).unwrap();
    store.import(&archive, None).unwrap();
}
