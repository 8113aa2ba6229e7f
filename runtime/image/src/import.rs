//! Import of OCI layouts (a directory or a tar of one) and docker-archives.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::archive::{Member, Members};
use crate::blob::{self, Incoming, io_error};
use crate::document::{self, Descriptor, Document, Manifest, malformed};
use crate::ingest::Ingest;
use crate::reference::Reference;
use crate::registry::MAX_REFERRERS;
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

/// An image found in an archive: its manifest's descriptor, its names, and the digests of what refers to it.
struct Found {
    manifest: Descriptor,
    names: Vec<String>,
    referrers: BTreeSet<String>,
}

/// What refers to something, found in an archive: its digest, those of what it names, and that of its subject.
struct Attached {
    documents: Vec<String>,
    subject: String,
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
            referrers: found.referrers,
        };
        self.record(&manifest.config.digest, record)
    }

    fn read_layout(&self, dir: &Path, ingest: &Ingest) -> Result<Vec<Found>> {
        let bytes = read_small(&dir.join("index.json"))?;
        let Document::Index(index) = document::parse(&bytes, "index.json")? else {
            return Err(malformed("index.json", "not an index"));
        };
        let (mut found, mut attached) = (Vec::new(), Vec::new());
        for descriptor in index.manifests.into_iter().take(MAX_MEMBERS) {
            let names = names(&descriptor);
            let (document, digest) = (layout_document(dir, &descriptor.digest)?, &descriptor.digest);
            match document.subject().filter(|_| names.is_empty()) {
                Some(subject) => {
                    let subject = subject.digest.clone();
                    let documents = self.take_referrer(dir, ingest, digest, &document)?;
                    if attached.len() == MAX_REFERRERS {
                        return Err(malformed("index.json", format!("more than {MAX_REFERRERS} that refer to others")));
                    }
                    attached.push(Attached { documents, subject });
                }
                None => {
                    let Some(manifest) = self.take_manifest(dir, ingest, descriptor, document)? else { continue };
                    found.push(Found { manifest, names, referrers: BTreeSet::new() });
                }
            }
        }
        if found.is_empty() && !attached.is_empty() {
            return Err(malformed("index.json", "nothing but what refers to other images"));
        }
        attach(&mut found, &attached);
        Ok(found)
    }

    /// Copies a manifest and what it names into the store; through an index, that for this machine. `None` where the
    /// index has none.
    fn take_manifest(
        &self,
        dir: &Path,
        ingest: &Ingest,
        own: Descriptor,
        document: Document,
    ) -> Result<Option<Descriptor>> {
        let (own, document) = match &document {
            Document::Manifest(_) => (own, document),
            Document::Index(index) => match document::choose(index, &Platform::host()) {
                // One level: an index of indexes is not an image.
                Some(inner) if inner.digest != own.digest => (inner.clone(), layout_document(dir, &inner.digest)?),
                _ => return Ok(None),
            },
        };
        let manifest = Document::Manifest(document::image(document, &own.digest)?);
        self.take_blobs(dir, ingest, manifest.blobs().chain([&own]))?;
        Ok(Some(own))
    }

    /// Copies what refers to something, and what it names, into the store. Returns the digests of all documents.
    fn take_referrer(&self, dir: &Path, ingest: &Ingest, digest: &str, document: &Document) -> Result<Vec<String>> {
        let own = document.describe(&read_small(&layout_blob(dir, digest)?)?);
        self.take_blobs(dir, ingest, document.blobs().chain([&own]))?;
        let mut all = vec![digest.to_owned()];
        for part in document.manifests() {
            let inner = layout_document(dir, &part.digest)?;
            if !inner.manifests().is_empty() {
                return Err(malformed(&part.digest, "an index within an index"));
            }
            self.take_blobs(dir, ingest, inner.blobs().chain([part]))?;
            all.push(part.digest.clone());
        }
        Ok(all)
    }

    fn take_blobs<'a>(&self, dir: &Path, ingest: &Ingest, mut all: impl Iterator<Item = &'a Descriptor>) -> Result<()> {
        all.try_for_each(|blob| {
            let path = layout_blob(dir, &blob.digest)?;
            let bytes = fs::metadata(&path).map_err(|e| match e.kind() {
                std::io::ErrorKind::NotFound => malformed(&blob.digest, "not in the archive"),
                _ => io_error(&path, e),
            })?;
            let bytes = bytes.len();
            if bytes != blob.size {
                let size = blob.size;
                return Err(malformed(&blob.digest, format!("{bytes} bytes; what names it says {size}")));
            }
            match self.has_blob(&blob.digest) {
                true => Ok(()),
                false => self.copy_in(&path, ingest, Some(&blob.digest)).map(drop),
            }
        })
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
            ..Manifest::default()
        };
        let text = serde_json::to_vec(&manifest).map_err(|e| Error::Malformed(e.to_string()))?;
        let digest = self.put_blob(&ingest.path, &text)?;
        let tags = image.repo_tags.unwrap_or_default();
        let names = tags.iter().map(|tag| Reference::parse(tag).map(|r| r.to_string())).collect::<Result<_>>()?;
        Ok(Found {
            manifest: descriptor(document::MANIFEST, (digest, text.len() as u64)),
            names,
            referrers: BTreeSet::new(),
        })
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

/// Gives each image what refers to it, or to what refers to it. What refers to something else goes with all of them: the
/// index that an image was chosen from is in no archive of ours.
fn attach(found: &mut [Found], attached: &[Attached]) {
    let of = |one: &'_ Attached| one.documents.iter().map(|own| (own.clone(), one.subject.clone())).collect::<Vec<_>>();
    let subjects: BTreeMap<String, String> = attached.iter().flat_map(of).collect();
    for one in attached {
        // Each digest is met once on the way, since none can be known to what it is made from.
        let chain = std::iter::successors(Some(&one.subject), |subject| subjects.get(*subject));
        let last = chain.take(MAX_REFERRERS).last();
        let owner = found.iter().position(|image| Some(&image.manifest.digest) == last);
        for (_, image) in found.iter_mut().enumerate().filter(|(at, _)| owner.is_none_or(|owner| owner == *at)) {
            image.referrers.extend(one.documents.iter().cloned());
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

fn layout_document(dir: &Path, digest: &str) -> Result<Document> {
    let bytes = read_small(&layout_blob(dir, digest)?)?;
    match blob::digest(&bytes) {
        got if got == digest => document::parse(&bytes, digest),
        got => Err(Error::Digest { digest: digest.to_owned(), got }),
    }
}

fn layout_blob(dir: &Path, digest: &str) -> Result<PathBuf> {
    blob::path(&dir.join("blobs/sha256"), digest)
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
