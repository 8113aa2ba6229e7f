//! Layers and archives made here.

use std::fs;
use std::path::Path;

use runtime_image::{Error, Store};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

pub(crate) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |text, b| text + &format!("{b:02x}"))
}

/// A layer from (path, kind, content or link target) rows.
pub(crate) fn layer(rows: &[(&str, EntryType, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, kind, content) in rows {
        let mut header = Header::new_gnu();
        // By hand, since the builder refuses what a hostile layer holds.
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(if *kind == EntryType::Directory { 0o750 } else { 0o4755 });
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(1_000_000);
        let data: &[u8] = if kind.is_symlink() || kind.is_hard_link() {
            header.as_gnu_mut().unwrap().linkname[..content.len()].copy_from_slice(content.as_bytes());
            b""
        } else {
            content.as_bytes()
        };
        header.set_size(data.len() as u64);
        if *kind == EntryType::Char {
            let (major, minor) = content.split_once(':').unwrap();
            header.set_device_major(major.parse().unwrap()).unwrap();
            header.set_device_minor(minor.parse().unwrap()).unwrap();
            header.set_size(0);
        }
        header.set_cksum();
        builder.append(&header, if *kind == EntryType::Char { &b""[..] } else { data }).unwrap();
    }
    builder.into_inner().unwrap()
}

/// A docker-archive of one image.
pub(crate) fn docker_archive(path: &Path, tag: &str, layers: &[Vec<u8>]) {
    let diffs: Vec<String> = layers.iter().map(|l| digest(l)).collect();
    let config = serde_json::json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/sh"], "Env": ["A=b"]},
        "rootfs": {"type": "layers", "diff_ids": diffs}})
    .to_string();
    let names: Vec<String> = (0..layers.len()).map(|n| format!("{n}/layer.tar")).collect();
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": [tag], "Layers": names}]).to_string();
    let mut builder = tar::Builder::new(fs::File::create(path).unwrap());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes).unwrap();
    };
    add("config.json", config.as_bytes());
    add("manifest.json", manifest.as_bytes());
    for (name, layer) in names.iter().zip(layers) {
        add(name, layer);
    }
    builder.finish().unwrap();
}

pub(crate) fn import(
    rows: &[&[(&str, EntryType, &str)]],
) -> (tempfile::TempDir, Result<Vec<runtime_image::Image>, Error>) {
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("a.tar");
    let layers: Vec<Vec<u8>> = rows.iter().map(|rows| layer(rows)).collect();
    docker_archive(&archive, "box:1", &layers);
    let result = Store::open(&dir.path().join("images")).unwrap().import(&archive, None);
    (dir, result)
}

pub(crate) const DIR: EntryType = EntryType::Directory;
pub(crate) const FILE: EntryType = EntryType::Regular;
pub(crate) const SYM: EntryType = EntryType::Symlink;
pub(crate) const HARD: EntryType = EntryType::Link;
