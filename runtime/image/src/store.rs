//! The image store: blobs, unpacked layers and an index of names, in one directory that several processes may use.
//!
//! ```text
//! lock            taken while the index changes
//! index.json      every image: id, manifest, names, digests, chain of layers
//! blobs/sha256/   manifests, configurations, layers as they came
//! layers/<chain>  unpacked layers in overlayfs form, by ChainID
//! partial/        blobs that are being fetched, or were when a process died
//! ingest/<n>/     what is on its way in; its maker holds a lock on the directory, and `held` in it names the blobs that
//!                 no collection may take away meanwhile
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::blob::{self, Incoming, io_error};
use crate::document::{self, Document, Manifest};
use crate::ingest::Ingest;
use crate::reference::{Reference, is_digest};
use crate::{Error, Image, Referrer, Result, layer, partial, tree};

const VERSION: u32 = 1;
/// How long a blob that was begun waits for somebody to go on with it, in seconds.
const PARTIAL_LIFE_S: u64 = 24 * 3600;

/// The images of an instance, in a directory of mode 0700. Safe for several processes; cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// What the store has of an image.
#[derive(Clone, Debug)]
pub struct Details {
    /// What a container needs of it.
    pub image: Image,
    /// `sha256:...` of the manifest.
    pub manifest_digest: String,
    /// The manifest and the configuration as they came.
    #[allow(missing_docs)]
    pub manifest: serde_json::Value,
    #[allow(missing_docs)]
    pub configuration: serde_json::Value,
    /// What came with it because it refers to it.
    pub referrers: Vec<Referrer>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Index {
    version: u32,
    pub(crate) images: BTreeMap<String, Record>,
}

/// One image in the index; the key is its id.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) manifest: String,
    pub(crate) names: BTreeSet<String>,
    pub(crate) digests: BTreeSet<String>,
    /// Fetched by digest: no tag that moves on takes it away.
    #[serde(default)]
    pub(crate) pinned: bool,
    /// ChainIDs, the lowest layer first.
    pub(crate) chain: Vec<String>,
    /// Digests of the manifests and indexes that came because they refer to it, and of those that they name.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) referrers: BTreeSet<String>,
}

impl Store {
    /// Opens the store below `root` (`<data>/images`), making it where absent and clearing what a killed process left.
    pub fn open(root: &Path) -> Result<Self> {
        let store = Self { root: root.to_owned() };
        for dir in [root.to_owned(), store.blobs(), store.layers(), store.ingests()] {
            DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(|e| io_error(&dir, e))?;
        }
        let _lock = store.lock()?;
        let version = store.read_index()?.version;
        if version > VERSION {
            return Err(Error::Malformed(format!("{}: format {version} is newer than {VERSION}", root.display())));
        }
        store.clear_ingests()?;
        let since = SystemTime::now().checked_sub(Duration::from_secs(PARTIAL_LIFE_S));
        partial::clear(&store.partials(), Some(since.unwrap_or(SystemTime::UNIX_EPOCH)))?;
        Ok(store)
    }

    /// The image by name (normalised as docker does), `name@sha256:...`, id, or a unique prefix of an id.
    pub fn get(&self, reference: &str) -> Result<Option<Image>> {
        self.find(reference)?.map_or(Ok(None), |(id, record)| self.load(&id, &record))
    }

    /// All images, by id.
    pub fn list(&self) -> Result<Vec<Image>> {
        let index = self.read_index()?;
        index.images.iter().filter_map(|(id, record)| self.load(id, record).transpose()).collect()
    }

    /// What the store has of an image: documents as they came.
    pub fn details(&self, reference: &str) -> Result<Option<Details>> {
        let Some((id, record)) = self.find(reference)? else { return Ok(None) };
        let json = |digest: &str| document::json(&self.read_blob(digest)?, digest);
        let Some(image) = self.load(&id, &record)? else { return Ok(None) };
        Ok(Some(Details {
            image,
            manifest: json(&record.manifest)?,
            configuration: json(&id)?,
            referrers: self.referrers(&record)?,
            manifest_digest: record.manifest,
        }))
    }

    /// Gives an image another name, which leaves any image that has it. Returns the name in full.
    pub fn tag(&self, reference: &str, name: &str) -> Result<String> {
        let parsed = Reference::parse(name)?;
        let name = parsed.tagged().filter(|_| parsed.digest.is_none());
        let name = name.ok_or_else(|| Error::Reference(format!("{parsed}: a name may not hold a digest")))?;
        let mut found = false;
        self.change(|index| {
            let Some(id) = find(index, reference).map(|(id, _)| id.to_owned()) else { return };
            for (other, record) in &mut index.images {
                record.names.retain(|known| *known != name);
                if *other == id {
                    record.names.insert(name.clone());
                    record.digests.insert(format!("{}@{}", parsed.name(), record.manifest));
                    found = true;
                }
            }
        })?;
        if found { Ok(name) } else { Err(Error::NotFound(reference.to_owned())) }
    }

    /// Removes a name, or with an id all names of an image. Blobs stay until [`Store::collect`]. No error where absent.
    pub fn remove(&self, reference: &str) -> Result<()> {
        self.change(|index| {
            let Some((id, _)) = find(index, reference) else { return };
            let id = id.to_owned();
            let name = Reference::parse(reference).ok().filter(|_| !is_id(&id, reference)).map(|r| r.to_string());
            let Some(record) = index.images.get_mut(&id) else { return };
            match name {
                Some(name) => {
                    record.names.remove(&name);
                    record.pinned &= !record.digests.remove(&name);
                }
                None => {
                    record.names.clear();
                    record.pinned = false;
                }
            }
            if record.names.is_empty() && !record.pinned {
                record.digests.clear();
            }
        })
    }

    /// The id and the record of an image.
    pub(crate) fn find(&self, reference: &str) -> Result<Option<(String, Record)>> {
        let index = self.read_index()?;
        Ok(find(&index, reference).map(|(id, record)| (id.to_owned(), record.clone())))
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    pub(crate) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub(crate) fn partials(&self) -> PathBuf {
        self.root.join("partial")
    }

    pub(crate) fn ingests(&self) -> PathBuf {
        self.root.join("ingest")
    }

    pub(crate) fn has_blob(&self, digest: &str) -> bool {
        self.blob_bytes(digest).is_some()
    }

    /// The size of a blob, if it is here.
    pub(crate) fn blob_bytes(&self, digest: &str) -> Option<u64> {
        let path = blob::path(&self.blobs(), digest).ok()?;
        fs::metadata(path).ok().map(|metadata| metadata.len())
    }

    /// The bytes of a small blob.
    pub(crate) fn read_blob(&self, digest: &str) -> Result<Vec<u8>> {
        let path = blob::path(&self.blobs(), digest)?;
        let bytes = fs::metadata(&path).map_err(|e| io_error(&path, e))?.len();
        if bytes > document::MAX_DOCUMENT_BYTES {
            return Err(Error::Malformed(format!("{digest}: a document of {bytes} bytes")));
        }
        fs::read(&path).map_err(|e| io_error(&path, e))
    }

    /// Stores a small document; returns its digest.
    pub(crate) fn put_blob(&self, ingest: &Path, bytes: &[u8]) -> Result<String> {
        let mut incoming = Incoming::create(ingest, "document")?;
        incoming.write(bytes)?;
        incoming.commit(&self.blobs(), None).map(|(digest, _)| digest)
    }

    pub(crate) fn manifest(&self, digest: &str) -> Result<Manifest> {
        document::image(self.document(digest)?.0, digest)
    }

    /// A manifest or index, and the bytes that it was read from.
    pub(crate) fn document(&self, digest: &str) -> Result<(Document, Vec<u8>)> {
        let bytes = self.read_blob(digest)?;
        Ok((document::parse(&bytes, digest)?, bytes))
    }

    /// Unpacks the layers of a manifest whose blobs are all here. Returns the ChainIDs, the lowest first.
    pub(crate) fn unpack(
        &self,
        manifest: &Manifest,
        ingest: &Ingest,
        max_bytes: u64,
        mut done: impl FnMut(&str),
    ) -> Result<Vec<String>> {
        let id = &manifest.config.digest;
        let configuration = document::configuration(&self.read_blob(id)?, id)?;
        let diffs = &configuration.rootfs.diff_ids;
        if diffs.len() != manifest.layers.len() {
            let (layers, diffs) = (manifest.layers.len(), diffs.len());
            let why = format!("rootfs.diff_ids: {diffs} of them, and {layers} layers in the manifest");
            return Err(document::malformed(id, why));
        }
        let mut chain: Vec<String> = Vec::new();
        for diff in diffs {
            chain.push(chain_id(chain.last(), diff));
        }
        ingest.hold_layers(self, &chain)?;
        let mut left = max_bytes;
        for (at, ((descriptor, diff), id)) in manifest.layers.iter().zip(diffs).zip(&chain).enumerate() {
            let target = self.layers().join(blob::hex(id)?);
            if !target.exists() {
                let parents: Vec<PathBuf> = self.layer_paths(chain.get(..at).unwrap_or_default())?;
                let blob = blob::path(&self.blobs(), &descriptor.digest)?;
                let file = File::open(&blob).map_err(|e| io_error(&blob, e))?;
                let staged = ingest.path.join("layer");
                left = left.saturating_sub(layer::unpack(file, &staged, &parents, diff, left)?);
                publish(&staged, &target)?;
            }
            done(&descriptor.digest);
        }
        Ok(chain)
    }

    /// Records a whole image and moves the names to it.
    pub(crate) fn record(&self, id: &str, record: Record) -> Result<Image> {
        // The index may not reach the disk before what it names.
        for dir in [self.blobs(), self.layers()] {
            File::open(&dir).and_then(|dir| dir.sync_all()).map_err(|e| io_error(&dir, e))?;
        }
        self.change(|index| {
            for other in index.images.values_mut() {
                other.names.retain(|name| !record.names.contains(name));
            }
            let entry = index.images.entry(id.to_owned()).or_default();
            entry.names.extend(record.names);
            entry.digests.extend(record.digests);
            entry.pinned |= record.pinned;
            entry.referrers.extend(record.referrers);
            (entry.manifest, entry.chain) = (record.manifest, record.chain);
        })?;
        self.get(id)?.ok_or_else(|| Error::NotFound(id.to_owned()))
    }

    /// The layers' directories, topmost first, as overlayfs wants them.
    pub(crate) fn layer_paths(&self, chain: &[String]) -> Result<Vec<PathBuf>> {
        chain.iter().rev().map(|id| Ok(self.layers().join(blob::hex(id)?))).collect()
    }

    /// An image of the index. `None` where somebody has removed a part of it behind our back: whoever needs it brings it
    /// anew, and the others are as they were.
    fn load(&self, id: &str, record: &Record) -> Result<Option<Image>> {
        let layers = self.layer_paths(&record.chain)?;
        if ![id, &record.manifest].iter().all(|digest| self.has_blob(digest)) || !layers.iter().all(|dir| dir.is_dir())
        {
            return Ok(None);
        }
        let manifest = self.manifest(&record.manifest)?;
        let configuration = document::configuration(&self.read_blob(id)?, id)?;
        Ok(Some(Image {
            id: id.to_owned(),
            names: record.names.iter().cloned().collect(),
            digests: record.digests.iter().cloned().collect(),
            size_bytes: manifest.config.size + manifest.layers.iter().map(|d| d.size).sum::<u64>(),
            config: configuration.config.unwrap_or_default(),
            layers,
        }))
    }

    pub(crate) fn lock(&self) -> Result<File> {
        let path = self.root.join("lock");
        let file =
            File::options().create(true).truncate(false).write(true).open(&path).map_err(|e| io_error(&path, e))?;
        flock(&file, FlockOperation::LockExclusive).map_err(|e| io_error(&path, e.into()))?;
        Ok(file)
    }

    pub(crate) fn read_index(&self) -> Result<Index> {
        let path = self.root.join("index.json");
        match fs::read(&path) {
            Ok(bytes) => document::json(&bytes, &path.display().to_string()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Index { version: VERSION, ..Index::default() }),
            Err(e) => Err(io_error(&path, e)),
        }
    }

    pub(crate) fn write_index(&self, index: &Index) -> Result<()> {
        let bytes = serde_json::to_vec(index).map_err(|e| Error::Malformed(e.to_string()))?;
        blob::replace(&self.root.join("index.json"), &bytes)
    }

    fn change(&self, change: impl FnOnce(&mut Index)) -> Result<()> {
        let _lock = self.lock()?;
        let mut index = self.read_index()?;
        change(&mut index);
        self.write_index(&index)
    }
}

/// ChainID of a layer upon its parents (OCI image-spec, config.md).
pub(crate) fn chain_id(parent: Option<&String>, diff: &str) -> String {
    parent.map_or_else(|| diff.to_owned(), |parent| blob::digest(format!("{parent} {diff}").as_bytes()))
}

/// Moves a finished layer to its place. Somebody else may have been faster: then theirs is as good.
pub(crate) fn publish(staged: &Path, target: &Path) -> Result<()> {
    match fs::rename(staged, target) {
        Ok(()) => Ok(()),
        Err(_) if target.exists() => tree::remove(staged).map(drop),
        Err(e) => Err(io_error(target, e)),
    }
}

fn is_id(id: &str, reference: &str) -> bool {
    let hex = reference.strip_prefix("sha256:").unwrap_or(reference);
    hex.len() >= 6 && id.strip_prefix("sha256:").is_some_and(|id| id.starts_with(hex))
}

fn find<'a>(index: &'a Index, reference: &str) -> Option<(&'a str, &'a Record)> {
    let images = || index.images.iter().map(|(id, record)| (id.as_str(), record));
    if is_digest(reference) {
        return images().find(|(id, record)| *id == reference || record.manifest == reference);
    }
    let by_name = Reference::parse(reference).ok().and_then(|r| {
        let pinned = r.digest.as_ref().map(|digest| format!("{}@{digest}", r.name()));
        let tagged = r.tagged().filter(|_| pinned.is_none());
        images().find(|(_, record)| {
            pinned.as_ref().is_some_and(|p| record.digests.contains(p))
                || tagged.as_ref().is_some_and(|t| record.names.contains(t))
        })
    });
    by_name.or_else(|| {
        let mut matching = images().filter(|(id, _)| is_id(id, reference));
        matching.next().filter(|_| matching.next().is_none())
    })
}

pub(crate) fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let list = fs::read_dir(dir).map_err(|e| io_error(dir, e))?;
    list.map(|entry| entry.map(|e| e.path()).map_err(|e| io_error(dir, e))).collect()
}
