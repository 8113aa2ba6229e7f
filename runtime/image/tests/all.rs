//! The store against archives made here: what goes in comes out, and hostile layers stay in.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use runtime_image::{Auth, Error, Progress, PullOptions, Store};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |text, b| text + &format!("{b:02x}"))
}

/// A layer from (path, kind, content or link target) rows.
fn layer(rows: &[(&str, EntryType, &str)]) -> Vec<u8> {
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
fn docker_archive(path: &Path, tag: &str, layers: &[Vec<u8>]) {
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

fn import(rows: &[&[(&str, EntryType, &str)]]) -> (tempfile::TempDir, Result<Vec<runtime_image::Image>, Error>) {
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("a.tar");
    let layers: Vec<Vec<u8>> = rows.iter().map(|rows| layer(rows)).collect();
    docker_archive(&archive, "box:1", &layers);
    let result = Store::open(&dir.path().join("images")).unwrap().import(&archive, None);
    (dir, result)
}

const DIR: EntryType = EntryType::Directory;
const FILE: EntryType = EntryType::Regular;
const SYM: EntryType = EntryType::Symlink;
const HARD: EntryType = EntryType::Link;

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
fn an_executable_becomes_an_image() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("prog");
    fs::write(&program, "#!elf").unwrap();
    let store = Store::open(&dir.path().join("images")).unwrap();
    let image = store.add_executable("trimtab/builtin:v1", &program, &["/prog", "serve"]).unwrap();
    assert_eq!(fs::read(image.layers[0].join("prog")).unwrap(), b"#!elf");
    assert_eq!(store.get("trimtab/builtin:v1").unwrap().as_ref(), Some(&image));
    assert_eq!(store.add_executable("trimtab/builtin:v1", &program, &["/prog", "serve"]).unwrap(), image);
    fs::write(&program, "#!elf two").unwrap();
    let second = store.add_executable("trimtab/builtin:v1", &program, &["/prog", "serve"]).unwrap();
    assert_ne!(second.id, image.id);
    assert_eq!(store.list().unwrap().len(), 2);
    // In use keeps an image without names; nothing else does.
    store.collect(std::slice::from_ref(&image.id)).unwrap();
    assert!(store.get(&image.id).unwrap().is_some());
    store.remove("trimtab/builtin:v1").unwrap();
    store.collect(&[]).unwrap();
    assert_eq!(store.list().unwrap(), []);
}

#[test]
fn a_layer_that_is_a_link_does_not_keep_what_was_written_over_it() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("prog");
    let store = Store::open(&dir.path().join("images")).unwrap();
    let add = |text: &str| {
        fs::write(&program, text).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        store.add_executable("trimtab/builtin:v1", &program, &["/prog"]).unwrap()
    };
    let one = add("#!one");
    let two = add("#!two, in place");
    assert_ne!(one.layers, two.layers);
    fs::remove_file(&program).unwrap();
    assert_eq!(add("#!one"), one);
    assert_eq!(fs::read(one.layers[0].join("prog")).unwrap(), b"#!one");
    assert_eq!(fs::read(two.layers[0].join("prog")).unwrap(), b"#!two, in place");
}

/// A registry of fixed answers; the first time a blob is asked for, half of it comes.
fn registry(pages: Vec<(String, &'static str, Vec<u8>)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let mut broken = std::collections::BTreeSet::new();
        for stream in listener.incoming() {
            let _ = answer(stream.unwrap(), &pages, &mut broken);
        }
    });
    address
}

fn answer(
    mut stream: TcpStream,
    pages: &[(String, &'static str, Vec<u8>)],
    broken: &mut std::collections::BTreeSet<String>,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let path = lines.next().unwrap()?.split(' ').nth(1).unwrap().to_owned();
    let mut from = 0;
    for line in lines {
        let line = line?.to_ascii_lowercase();
        if let Some(range) = line.strip_prefix("range: bytes=") {
            from = range.split('-').next().unwrap().parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    let Some((_, kind, body)) = pages.iter().find(|(page, ..)| *page == path) else {
        let body = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no"}]}"#;
        return write!(stream, "HTTP/1.1 404 x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    };
    let status = if from > 0 { "206 x" } else { "200 x" };
    let body = &body[from..];
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    let cut = path.contains("/blobs/") && broken.insert(path);
    stream.write_all(if cut { &body[..body.len() / 2] } else { body })
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The registry's pages for an image `app:1` behind an index.
fn pages(layers: &[Vec<u8>], packed: &[Vec<u8>]) -> Vec<(String, &'static str, Vec<u8>)> {
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let diffs: Vec<String> = layers.iter().map(|l| digest(l)).collect();
    let config =
        serde_json::json!({"architecture": arch, "os": "linux", "rootfs": {"type": "layers", "diff_ids": diffs}});
    let config = config.to_string().into_bytes();
    let describe =
        |kind: &str, bytes: &[u8]| serde_json::json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()});
    let manifest_kind = "application/vnd.oci.image.manifest.v1+json";
    let index_kind = "application/vnd.oci.image.index.v1+json";
    let packed_kind = "application/vnd.oci.image.layer.v1.tar+gzip";
    let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": manifest_kind,
        "config": describe("application/vnd.oci.image.config.v1+json", &config),
        "layers": packed.iter().map(|l| describe(packed_kind, l)).collect::<Vec<_>>()});
    let manifest = manifest.to_string().into_bytes();
    let mut own = describe(manifest_kind, &manifest);
    own["platform"] = serde_json::json!({"architecture": arch, "os": "linux"});
    let mut other = describe(manifest_kind, b"other");
    other["platform"] = serde_json::json!({"architecture": "s390x", "os": "linux"});
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": index_kind, "manifests": [other, own]})
        .to_string()
        .into_bytes();
    let blob =
        |bytes: &[u8]| (format!("/v2/team/app/blobs/{}", digest(bytes)), "application/octet-stream", bytes.to_vec());
    let mut pages: Vec<_> = packed.iter().map(|l| blob(l)).collect();
    pages.push(blob(&config));
    pages.push((format!("/v2/team/app/manifests/{}", digest(&manifest)), manifest_kind, manifest));
    pages.push(("/v2/team/app/manifests/1".to_owned(), index_kind, index));
    pages.push(("/v2/".to_owned(), "application/json", b"{}".to_vec()));
    pages
}

fn pull(
    store: &Store,
    name: &str,
    address: &str,
    progress: impl Fn(Progress) + Send + Sync,
) -> Result<runtime_image::Image, Error> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let options = PullOptions { plain_http: vec![address.to_owned()], ..PullOptions::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(store.pull(name, &Auth::Anonymous, &options, progress))
}

#[test]
fn images_are_pulled_verified_and_resumed() {
    let layers = vec![layer(&[("a", FILE, "one")]), layer(&[("b/", DIR, ""), ("b/c", FILE, &"long ".repeat(9000))])];
    let packed = vec![gzip(&layers[0]), zstd::encode_all(&layers[1][..], 1).unwrap()];
    let address = registry(pages(&layers, &packed));
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let seen = std::sync::Mutex::new(Vec::new());
    let name = format!("{address}/team/app:1");
    let image = pull(&store, &name, &address, |p| seen.lock().unwrap().push(p)).unwrap();
    assert_eq!(image.names.join(" "), name);
    assert_eq!(fs::read_to_string(image.layers[1].join("a")).unwrap(), "one");
    assert_eq!(fs::read_to_string(image.layers[0].join("b/c")).unwrap().len(), 45_000);
    let seen = seen.into_inner().unwrap();
    assert!(matches!(seen[0], Progress::Resolved { layers: 2, .. }), "{seen:?}");
    assert_eq!(seen.iter().filter(|p| matches!(p, Progress::Unpacked { .. })).count(), 2);
    assert_eq!(store.get(&image.digests[0]).unwrap(), Some(image.clone()));
    assert_eq!(pull(&store, &name, &address, |_| {}).unwrap(), image);
    assert!(matches!(pull(&store, &format!("{address}/team/app:2"), &address, |_| {}), Err(Error::NotFound(_))));
}

#[test]
fn what_is_not_what_its_digest_says_is_refused() {
    let layers = vec![layer(&[("a", FILE, "one")])];
    let packed = vec![gzip(&layers[0])];
    for lie in ["blob", "diff"] {
        let mut pages = pages(if lie == "diff" { &packed } else { &layers }, &packed);
        if lie == "blob" {
            let last = pages[0].2.len() - 1;
            pages[0].2[last] ^= 1;
        }
        let address = registry(pages);
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let result = pull(&store, &format!("{address}/team/app:1"), &address, |_| {});
        assert!(matches!(result, Err(Error::Digest { .. })), "{lie}: {result:?}");
        assert_eq!(store.list().unwrap(), []);
    }
}
