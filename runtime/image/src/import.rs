//! Import of OCI layouts (a directory or a tar of one) and docker-archives.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::archive::{Member, Members};
use crate::blob::{Incoming, io_error};
use crate::document::{self, Descriptor, Document, Manifest, malformed};
use crate::ingest::Ingest;
use crate::reference::Reference;
use crate::store::{Record, Store};
use crate::{Error, Image, Platform, Result, layer};

/// No honest archive has more members.
const MAX_MEMBERS: usize = 10_000;
/// Unpacked bytes of one image.
const MAX_UNPACKED_BYTES: u64 = 64 << 30;

/// One image of a docker-archive's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// An image found in an archive: its manifest's descriptor and its names.
struct Found {
    manifest: Descriptor,
    names: Vec<String>,
}

impl Store {
    /// Imports an OCI layout (directory or tar) or a docker-archive. `name` replaces the names in the archive, which
    /// then must hold one image.
    pub fn import(&self, archive: &Path, name: Option<&str>) -> Result<Vec<Image>> {
        let name = name.map(|name| Reference::parse(name).map(|r| r.to_string())).transpose()?;
        let result = self.import_named(archive, name);
        if result.is_err() {
            let _ = self.sweep_unused();
        }
        result
    }

    fn import_named(&self, archive: &Path, name: Option<String>) -> Result<Vec<Image>> {
        let ingest = self.ingest()?;
        let dir = if archive.is_dir() { archive.to_owned() } else { extract(archive, &ingest)? };
        let mut found = if dir.join("index.json").exists() {
            self.read_layout(&dir, &ingest)?
        } else {
            self.read_docker(&dir, &ingest)?
        };
        if let Some(name) = name {
            match found.as_mut_slice() {
                [only] => only.names = vec![name],
                _ => return Err(malformed(&shown(archive), format!("{} images, but one name", found.len()))),
            }
        }
        found.into_iter().map(|found| self.import_one(found, &ingest)).collect()
    }

    fn import_one(&self, found: Found, ingest: &Ingest) -> Result<Image> {
        let manifest = self.manifest(&found.manifest.digest)?;
        let chain = self.unpack(&manifest, ingest, MAX_UNPACKED_BYTES, |_| {})?;
        let repositories = found.names.iter().filter_map(|name| Reference::parse(name).ok().map(|r| r.name()));
        let record = Record {
            digests: repositories.map(|name| format!("{name}@{}", found.manifest.digest)).collect(),
            manifest: found.manifest.digest,
            names: found.names.into_iter().collect(),
            chain,
            pinned: false,
        };
        self.record(&manifest.config.digest, record)
    }

    fn read_layout(&self, dir: &Path, ingest: &Ingest) -> Result<Vec<Found>> {
        let bytes = read_small(&dir.join("index.json"))?;
        let Document::Index(index) = document::parse(&bytes, "index.json")? else {
            return Err(malformed("index.json", "not an index"));
        };
        let mut found = Vec::new();
        for descriptor in index.manifests.into_iter().take(MAX_MEMBERS) {
            let names = names(&descriptor);
            let Some(manifest) = self.take_manifest(dir, ingest, descriptor)? else { continue };
            found.push(Found { manifest, names });
        }
        Ok(found)
    }

    /// Copies a manifest and what it names into the store; through an index, that for this machine. `None` where the
    /// index has none.
    fn take_manifest(&self, dir: &Path, ingest: &Ingest, descriptor: Descriptor) -> Result<Option<Descriptor>> {
        let path = layout_blob(dir, &descriptor.digest)?;
        match document::parse(&read_small(&path)?, &descriptor.digest)? {
            Document::Index(index) => match document::choose(&index, &Platform::host()) {
                // One level: an index of indexes is not an image.
                Some(inner) if inner.digest != descriptor.digest => {
                    let bytes = read_small(&layout_blob(dir, &inner.digest)?)?;
                    let Document::Manifest(manifest) = document::parse(&bytes, &inner.digest)? else {
                        return Err(malformed(&inner.digest, "an index within an index"));
                    };
                    self.take_blobs(dir, ingest, inner, &manifest).map(Some)
                }
                _ => Ok(None),
            },
            Document::Manifest(manifest) => self.take_blobs(dir, ingest, &descriptor, &manifest).map(Some),
        }
    }

    fn take_blobs(&self, dir: &Path, ingest: &Ingest, own: &Descriptor, manifest: &Manifest) -> Result<Descriptor> {
        for descriptor in manifest.layers.iter().chain([&manifest.config, own]) {
            if !self.has_blob(&descriptor.digest) {
                self.copy_in(&layout_blob(dir, &descriptor.digest)?, ingest, Some(&descriptor.digest))?;
            }
        }
        Ok(own.clone())
    }

    fn read_docker(&self, dir: &Path, ingest: &Ingest) -> Result<Vec<Found>> {
        let saved: Vec<Saved> = document::json(&read_small(&dir.join("manifest.json"))?, "manifest.json")?;
        saved.into_iter().map(|image| self.take_saved(dir, ingest, image)).collect()
    }

    fn take_saved(&self, dir: &Path, ingest: &Ingest, image: Saved) -> Result<Found> {
        let descriptor = |media_type: &str, (digest, size)| Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size,
            ..Descriptor::default()
        };
        let config = self.copy_in(&member(dir, &image.config)?, ingest, None)?;
        let mut layers = Vec::new();
        for layer in &image.layers {
            layers.push(descriptor(document::LAYER, self.copy_in(&member(dir, layer)?, ingest, None)?));
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: document::MANIFEST.to_owned(),
            config: descriptor(document::CONFIG, config),
            layers,
        };
        let text = serde_json::to_vec(&manifest).map_err(|e| Error::Malformed(e.to_string()))?;
        let digest = self.put_blob(ingest, &text)?;
        let tags = image.repo_tags.unwrap_or_default();
        let names = tags.iter().map(|tag| Reference::parse(tag).map(|r| r.to_string())).collect::<Result<_>>()?;
        Ok(Found { manifest: descriptor(document::MANIFEST, (digest, text.len() as u64)), names })
    }

    fn copy_in(&self, path: &Path, ingest: &Ingest, expected: Option<&str>) -> Result<(String, u64)> {
        let mut file = File::open(path).map_err(|e| io_error(path, e))?;
        let mut incoming = Incoming::create(&ingest.path, "blob")?;
        let mut buffer = vec![0; 1 << 17];
        loop {
            let n = file.read(&mut buffer).map_err(|e| io_error(path, e))?;
            if n == 0 {
                return incoming.commit(&self.blobs(), expected);
            }
            incoming.write(buffer.get(..n).unwrap_or_default())?;
        }
    }
}

/// The names a layout gives to one of its images. A bare tag names nothing.
fn names(descriptor: &Descriptor) -> Vec<String> {
    ["io.containerd.image.name", "org.opencontainers.image.ref.name"]
        .iter()
        .filter_map(|key| descriptor.annotations.get(*key))
        .filter(|name| name.contains(['/', ':']))
        .filter_map(|name| Reference::parse(name).ok())
        .filter_map(|reference| reference.tagged())
        .take(1)
        .collect()
}

fn layout_blob(dir: &Path, digest: &str) -> Result<PathBuf> {
    crate::blob::path(&dir.join("blobs/sha256"), digest)
}

/// Unpacks the members of an archive into the ingest directory: regular files, and the symbolic links by which
/// docker-archives share layers, as their targets.
fn extract(archive: &Path, ingest: &Ingest) -> Result<PathBuf> {
    let file = File::open(archive).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::NotFound(shown(archive)),
        _ => io_error(archive, e),
    })?;
    let dir = ingest.path.join("archive");
    fs::create_dir(&dir).map_err(|e| io_error(&dir, e))?;
    let wrong = |e: std::io::Error| malformed(&shown(archive), e);
    let mut members = Members::new(layer::Bounded { inner: layer::decompress(file)?, left: MAX_UNPACKED_BYTES });
    let mut count = 0;
    while let Some(member) = members.next().map_err(wrong)? {
        count += 1;
        if count > MAX_MEMBERS {
            return Err(malformed(&shown(archive), "too many members"));
        }
        let path = dir.join(layer::clean(&member.path)?);
        let parent = path.parent().unwrap_or(&dir);
        fs::create_dir_all(parent).map_err(|e| placed(archive, parent, e))?;
        if member.kind.is_file() {
            let out = File::options().create_new(true).write(true).open(&path);
            let copied = std::io::copy(&mut members, &mut out.map_err(|e| placed(archive, &path, e))?);
            if copied.map_err(wrong)? != member.size {
                return Err(malformed(
                    &shown(archive),
                    format!("{} is cut off", String::from_utf8_lossy(&member.path)),
                ));
            }
        } else if member.kind.is_symlink() || member.kind.is_hard_link() {
            link(&member, &dir, &path).map_err(|e| placed(archive, &path, e))?;
        }
    }
    Ok(dir)
}

/// Why a member has no place: it is there already, or something else is where its folder should be.
fn placed(archive: &Path, path: &Path, error: std::io::Error) -> Error {
    use std::io::ErrorKind::{AlreadyExists, InvalidFilename, IsADirectory, NotADirectory};
    match error.kind() {
        AlreadyExists | InvalidFilename | IsADirectory | NotADirectory => {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            malformed(&shown(archive), format!("member {name:?}: {error}"))
        }
        _ => io_error(path, error),
    }
}

/// A link becomes a hard link to a member that came before; one that points elsewhere is left out, and missed later.
fn link(member: &Member, dir: &Path, path: &Path) -> std::io::Result<()> {
    let base = if member.kind.is_symlink() { path.parent().unwrap_or(dir) } else { dir };
    let mut resolved = base.to_owned();
    for component in member.link.split(|b| *b == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                resolved.pop();
            }
            name => resolved.push(std::ffi::OsStr::new(&*String::from_utf8_lossy(name))),
        }
    }
    if resolved.starts_with(dir) && resolved.is_file() {
        fs::hard_link(&resolved, path)?;
    }
    Ok(())
}

fn member(dir: &Path, name: &str) -> Result<PathBuf> {
    let path = dir.join(layer::clean(name.as_bytes())?);
    if path.is_file() { Ok(path) } else { Err(malformed("manifest.json", format!("{name} is not in the archive"))) }
}

fn read_small(path: &Path) -> Result<Vec<u8>> {
    let metadata = fs::metadata(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => malformed(&shown(path), "missing: neither an OCI layout nor a docker-archive"),
        _ => io_error(path, e),
    })?;
    if metadata.len() > document::MAX_DOCUMENT_BYTES {
        return Err(malformed(&shown(path), "too large"));
    }
    fs::read(path).map_err(|e| io_error(path, e))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
