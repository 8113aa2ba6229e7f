//! A store of somebody who is root of a user namespace alone: what he cannot make is left out or has another form.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use runtime_image::Store;
use tar::EntryType;

use crate::support::{DIR, FILE, docker_archive, layer};

const CHILD: &str = "users::the_process_in_a_user_namespace";
/// The folder of the archive and the store, for that process.
const TASK: &str = "IMPORT_IN";

/// Not a test of its own: what the test below starts.
#[test]
fn the_process_in_a_user_namespace() {
    let Ok(folder) = std::env::var(TASK) else { return };
    let folder = Path::new(&folder);
    Store::open(&folder.join("images")).unwrap().import(&folder.join("a.tar"), None).unwrap();
}

/// This program again, in a user namespace where 0 is 0 and the others are 800000 and on.
fn start(folder: &Path) -> Child {
    let mut command = Command::new("unshare");
    command.args(["--user", "sh", "-c", "echo ready; read go && exec \"$@\"", "sh"]);
    command.arg(std::env::current_exe().unwrap()).args(["--exact", CHILD]).env(TASK, folder);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut ready).unwrap();
    assert_eq!(ready, "ready\n");
    for file in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{}/{file}", child.id()), "0 0 1\n1 800000 1000\n").unwrap();
    }
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    child
}

#[test]
fn layers_unpack_in_a_user_namespace() {
    let folder = tempfile::tempdir().unwrap();
    let below = layer(&[("gone", FILE, "x"), ("opaque/", DIR, "")]);
    let above: &[_] = &[
        ("file", FILE, "content"),
        (".wh.gone", FILE, ""),
        ("opaque/", DIR, ""),
        ("opaque/.wh..wh..opq", FILE, ""),
        ("null", EntryType::Char, "1:3"),
    ];
    docker_archive(&folder.path().join("a.tar"), "box:1", &[below, layer(above)]);
    assert!(start(folder.path()).wait_with_output().unwrap().status.success());
    let image = Store::open(&folder.path().join("images")).unwrap().get("box:1").unwrap().unwrap();
    let top = &image.layers[0];
    let file = fs::metadata(top.join("file")).unwrap();
    assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777), (800_006, 800_007, 0o4755));
    let hidden = fs::symlink_metadata(top.join("gone")).unwrap();
    assert!(hidden.file_type().is_char_device() && hidden.rdev() == 0);
    let mut value = [0; 8];
    let opaque = rustix::fs::lgetxattr(top.join("opaque"), "user.overlay.opaque", &mut value);
    assert_eq!(opaque.map(|n| value[..n].to_vec()).unwrap(), b"y");
    assert!(!top.join("null").exists());
}
