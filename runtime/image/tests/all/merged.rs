//! What the layers of the corpus show together, mounted as a container has them: what the corpus says, and what umoci makes
//! of the same images.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use runtime_image::{Image, Store};

use crate::corpus::{self, Case};
use crate::support::docker_archive;

/// Layers mounted over each other, in a mount namespace that lives as long as this.
struct Mounted(Child);

impl Mounted {
    fn of(image: &Image, dir: &Path) -> Self {
        let (empty, to) = (dir.join("empty"), dir.join("merged"));
        for path in [&empty, &to] {
            fs::create_dir_all(path).unwrap();
        }
        let layers = image.layers.iter().chain([&empty]).map(|path| path.to_str().unwrap());
        let layers = format!("lowerdir={}", layers.collect::<Vec<_>>().join(":"));
        let script = "mount -t overlay -o \"$0\" overlay \"$1\" && echo mounted && read end";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, &layers]).arg(&to);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "mounted\n", "{layers}");
        Self(child)
    }

    fn root(&self, dir: &Path) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", self.0.id(), dir.join("merged").display()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

/// A case as an image of a store. `None` for what is refused, and for trees deeper than paths are long.
fn image_of(case: &Case, dir: &Path) -> Option<(Store, Image)> {
    if case.refused.is_some() || case.archive.len() > 1 << 16 || case.name == "deep" {
        return None;
    }
    let layers = [&case.below[..], std::slice::from_ref(&case.archive)].concat();
    docker_archive(&dir.join("a.tar"), "case:1", &layers);
    let store = Store::open(&dir.join("images")).unwrap();
    let image = store.import(&dir.join("a.tar"), None).unwrap_or_else(|e| panic!("{}: {e}", case.name)).remove(0);
    Some((store, image))
}

#[test]
fn layers_show_together_what_the_corpus_says() {
    let mut seen = 0;
    for case in corpus::cases() {
        let dir = tempfile::tempdir().unwrap();
        let Some((_, image)) = image_of(&case, dir.path()) else { continue };
        let mounted = Mounted::of(&image, dir.path());
        let root = mounted.root(dir.path());
        for (path, text) in &case.holds {
            let path = root.join(OsStr::from_bytes(path));
            assert!(path.symlink_metadata().is_ok(), "{}: {} is missing", case.name, path.display());
            if let Some(text) = text {
                assert_eq!(&fs::read(&path).unwrap(), text, "{}: {}", case.name, path.display());
            }
        }
        for path in &case.absent {
            let path = root.join(OsStr::from_bytes(path));
            assert!(path.symlink_metadata().is_err(), "{}: {} is there", case.name, path.display());
        }
        seen += 1;
    }
    assert!(seen > 30, "{seen}");
}

#[test]
fn layers_show_together_what_umoci_makes_of_them() {
    if Command::new("umoci").arg("--version").output().is_err() {
        println!("skipped: no umoci here");
        return;
    }
    let mut wrong = Vec::new();
    for case in corpus::cases() {
        let dir = tempfile::tempdir().unwrap();
        let Some((store, image)) = image_of(&case, dir.path()) else { continue };
        store.export_layout(&["case:1".to_owned()], false, &dir.path().join("layout")).unwrap();
        let mut umoci = Command::new("umoci");
        umoci.args(["unpack", "--image"]).arg(dir.path().join("layout:1")).arg(dir.path().join("bundle"));
        let output = umoci.output().unwrap();
        let theirs = match output.status.success() {
            true => tree(&dir.path().join("bundle/rootfs")),
            false => BTreeMap::from([(PathBuf::new(), String::from_utf8_lossy(&output.stderr).trim().to_owned())]),
        };
        let mounted = Mounted::of(&image, dir.path());
        let ours = tree(&mounted.root(dir.path()));
        if ours != theirs {
            wrong.push(format!("{}:\n  ours {ours:?}\n  theirs {theirs:?}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Everything below a directory but times of directories, which those that are only passed through have of their own.
fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut rest = vec![root.to_owned()];
    while let Some(path) = rest.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let kind = metadata.file_type();
        let what = match () {
            () if kind.is_dir() => {
                rest.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                "directory".to_owned()
            }
            () if kind.is_symlink() => format!("to {}", fs::read_link(&path).unwrap().display()),
            () if kind.is_file() => {
                let text = fs::read(&path).unwrap();
                let text = String::from_utf8_lossy(&text[..text.len().min(100)]).into_owned();
                format!("{} {}.{} {text:?}", metadata.len(), metadata.mtime(), metadata.mtime_nsec())
            }
            () => format!("{} {:x} {}", kind.is_char_device(), metadata.rdev(), metadata.mtime()),
        };
        let mut value = [0; 64];
        let attribute = rustix::fs::lgetxattr(&path, "user.a", &mut value).map(|n| value[..n].to_vec()).ok();
        let (uid, gid, mode) = (metadata.uid(), metadata.gid(), metadata.mode());
        let links = if kind.is_dir() { 0 } else { metadata.nlink() };
        let what = format!("{uid}:{gid} {mode:o} {links} {what} {attribute:?}");
        all.insert(path.strip_prefix(root).unwrap().to_owned(), what);
    }
    all
}
