//! What goes in comes out in overlayfs's form, and hostile layers stay in.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use runtime_image::{Error, Store};
use tar::EntryType;

use crate::support::{DIR, FILE, HARD, SYM, import};

#[test]
fn layers_unpack_into_overlay_form() {
    let below: &[_] =
        &[("etc/", DIR, ""), ("etc/a", FILE, "one"), ("gone", FILE, "x"), ("opaque/", DIR, ""), ("usr/", DIR, "")];
    let above: &[_] = &[
        ("etc/b", FILE, "two"),
        ("etc/c", HARD, "etc/b"),
        ("etc/l", SYM, "../../../outside"),
        (".wh.gone", FILE, ""),
        ("opaque/", DIR, ""),
        ("opaque/.wh..wh..opq", FILE, ""),
        (".wh.usr", FILE, ""),
        ("usr/", DIR, ""),
        ("null", EntryType::Char, "1:3"),
    ];
    let (_dir, images) = import(&[below, above]);
    let image = &images.unwrap()[0];
    assert_eq!(image.names, ["docker.io/library/box:1"]);
    assert_eq!(image.config.cmd().as_deref(), Some(&["/sh".to_owned()][..]));
    let top = &image.layers[0];
    assert_eq!(fs::read_to_string(top.join("etc/b")).unwrap(), "two");
    let file = fs::metadata(top.join("etc/b")).unwrap();
    assert_eq!(
        (file.uid(), file.gid(), file.mode() & 0o7777, file.mtime(), file.nlink()),
        (7, 8, 0o4755, 1_000_000, 2)
    );
    // The layer has no entry for etc: it takes its attributes from the layer below.
    assert_eq!(fs::metadata(top.join("etc")).unwrap().mode() & 0o777, 0o750);
    let hidden = fs::symlink_metadata(top.join("gone")).unwrap();
    assert!(hidden.file_type().is_char_device() && hidden.rdev() == 0);
    let opaque = |name: &str| {
        let mut value = [0; 8];
        rustix::fs::lgetxattr(top.join(name), "trusted.overlay.opaque", &mut value).map(|n| value[..n].to_vec())
    };
    assert_eq!(opaque("opaque").unwrap(), b"y");
    assert_eq!(opaque("usr").unwrap(), b"y");
    assert!(opaque("etc").is_err());
    assert_eq!(fs::metadata(top.join("null")).unwrap().rdev(), rustix::fs::makedev(1, 3));
}

#[test]
fn hostile_layers_are_refused() {
    for (rows, why) in [
        (&[("../evil", FILE, "x")][..], "leaves the root"),
        (&[("a/../../evil", FILE, "x")], "leaves the root"),
        (&[("l", SYM, "/tmp"), ("l/evil", FILE, "x")], "l/evil"),
        (&[("l", SYM, "."), ("l/d/", DIR, "")], "l/d"),
        (&[("a", FILE, "1"), ("a", FILE, "2")], "twice"),
        (&[("a", SYM, "x"), ("a/", DIR, "")], "a"),
        (&[("h", HARD, "../../etc/passwd")], "leaves the root"),
        (&[("h", HARD, "missing")], "h"),
        (&[("l", SYM, "/etc"), ("h", HARD, "l/passwd")], "l/passwd"),
        (&[("w", EntryType::Char, "0:0")], "device 0:0"),
        (&[(".wh...", FILE, "")], "bad whiteout"),
        (&[("f", FILE, "1"), ("f/g", FILE, "2")], "f/g"),
    ] {
        let (dir, result) = import(&[rows]);
        match result {
            Err(Error::Malformed(text)) => assert!(text.contains(why), "{rows:?}: {text}"),
            other => panic!("{rows:?}: {other:?}"),
        }
        let store = Store::open(&dir.path().join("images")).unwrap();
        assert_eq!(store.list().unwrap(), []);
        assert!(!dir.path().join("images/evil").exists() && !dir.path().join("evil").exists());
        store.collect(&[]).unwrap();
        for sub in ["layers", "blobs/sha256", "ingest"] {
            assert_eq!(fs::read_dir(dir.path().join("images").join(sub)).unwrap().count(), 0, "{rows:?}: {sub}");
        }
    }
}

#[test]
fn a_link_in_a_layer_below_gives_nothing_of_the_host_away() {
    use std::os::unix::fs::PermissionsExt;
    let host = tempfile::tempdir().unwrap();
    fs::create_dir(host.path().join("x")).unwrap();
    fs::set_permissions(host.path().join("x"), fs::Permissions::from_mode(0o711)).unwrap();
    let below: &[_] = &[("l", SYM, host.path().to_str().unwrap())];
    let above: &[_] = &[("l/x/f", FILE, "x")];
    let (_dir, images) = import(&[below, above]);
    let image = &images.unwrap()[0];
    // It leads on within the layer, where nothing is: directories do not take their modes from those of the host.
    let inside = image.layers[0].join(host.path().join("x").strip_prefix("/").unwrap());
    assert_eq!(fs::symlink_metadata(inside).unwrap().mode() & 0o7777, 0o755);
    assert_eq!(fs::read_dir(host.path().join("x")).unwrap().count(), 0);
}
