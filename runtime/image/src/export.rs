//! Export: an OCI layout (image-layout.md), as a directory or as a tar that is a docker-archive, too: `manifest.json` in it
//! names the same blobs. Whoever reads either form finds what he expects.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::blob::{self, Hashing, io_error};
use crate::document::{self, Descriptor, Platform};
use crate::ingest::Ingest;
use crate::reference::Reference;
use crate::store::{Record, Store};
use crate::{Error, Result, tree};

/// What goes out, in the order it is written.
#[derive(Default)]
struct Plan {
    /// Descriptors of `index.json`.
    manifests: Vec<Value>,
    /// Entries of `manifest.json`.
    saved: Vec<Value>,
    /// Blobs, and the layers they unpack to.
    blobs: Vec<(Descriptor, Option<String>)>,
    seen: BTreeSet<String>,
}

/// Where it goes.
enum Sink<W: Write> {
    Tar(Box<tar::Builder<W>>),
    Directory(PathBuf),
}

impl Store {
    /// Writes images as one tar. By name, only that name goes with the image; by id, all. With `referrers`, what came with
    /// the image goes with it.
    pub fn export(&self, references: &[String], referrers: bool, to: impl Write) -> Result<()> {
        let (plan, _held) = self.plan(references, referrers)?;
        let sink = Sink::Tar(Box::new(tar::Builder::new(to)));
        self.write(plan, sink)?;
        Ok(())
    }

    /// Writes images to a tar file, which is whole or not there.
    pub fn export_file(&self, references: &[String], referrers: bool, path: &Path) -> Result<()> {
        let fresh = fresh(path)?;
        let write = || {
            let file = File::create(&fresh).map_err(|e| io_error(&fresh, e))?;
            let mut out = BufWriter::with_capacity(1 << 17, file);
            self.export(references, referrers, &mut out)?;
            let file = out.into_inner().map_err(|e| io_error(&fresh, e.into_error()))?;
            file.sync_all().map_err(|e| io_error(&fresh, e))?;
            fs::rename(&fresh, path).map_err(|e| io_error(path, e))
        };
        write().inspect_err(|_| drop(tree::remove(&fresh)))
    }

    /// Writes images as an OCI layout to a directory, which must not be there.
    pub fn export_layout(&self, references: &[String], referrers: bool, path: &Path) -> Result<()> {
        if path.exists() {
            return Err(io_error(path, io::ErrorKind::AlreadyExists.into()));
        }
        let fresh = fresh(path)?;
        let write = || {
            tree::remove(&fresh)?;
            let (plan, _held) = self.plan(references, referrers)?;
            let blobs = fresh.join("blobs/sha256");
            DirBuilder::new().recursive(true).mode(0o755).create(&blobs).map_err(|e| io_error(&blobs, e))?;
            self.write(plan, Sink::<io::Sink>::Directory(fresh.clone()))?;
            fs::rename(&fresh, path).map_err(|e| io_error(path, e))
        };
        write().inspect_err(|_| drop(tree::remove(&fresh)))
    }

    fn plan(&self, references: &[String], referrers: bool) -> Result<(Plan, Ingest)> {
        // Held first, so that nothing of what is found is collected.
        let held = self.ingest()?;
        let mut plan = Plan::default();
        for reference in references {
            let (id, record) = self.find(reference)?.ok_or_else(|| Error::NotFound(reference.clone()))?;
            let named = Reference::parse(reference).ok().and_then(|r| r.tagged());
            let names = match named.filter(|name| record.names.contains(name)) {
                Some(name) => vec![name],
                None => record.names.iter().cloned().collect(),
            };
            self.add(&mut plan, &id, &record, &names)?;
            for digest in record.referrers.iter().filter(|_| referrers) {
                self.add_referrer(&mut plan, digest)?;
            }
        }
        Ok((plan, held))
    }

    fn add(&self, plan: &mut Plan, id: &str, record: &Record, names: &[String]) -> Result<()> {
        let (document, bytes) = self.document(&record.manifest)?;
        let described = document.describe(&bytes);
        let manifest = document::image(document, &record.manifest)?;
        let configuration = document::configuration(&self.read_blob(id)?, id)?;
        let own = Descriptor {
            platform: Some(Platform { architecture: configuration.architecture, os: configuration.os, variant: None }),
            artifact_type: String::new(),
            annotations: BTreeMap::new(),
            ..described
        };
        let shown = names.iter().map(Some).chain(names.is_empty().then_some(None));
        for name in shown {
            let mut descriptor = own.clone();
            if let Some(name) = name {
                let tag = name.rsplit(':').next().unwrap_or_default();
                descriptor.annotations.insert("io.containerd.image.name".to_owned(), name.clone());
                descriptor.annotations.insert("org.opencontainers.image.ref.name".to_owned(), tag.to_owned());
            }
            plan.list(&descriptor)?;
        }
        let path = |digest: &str| Ok::<_, Error>(format!("blobs/sha256/{}", blob::hex(digest)?));
        let layers = manifest.layers.iter().map(|layer| path(&layer.digest)).collect::<Result<Vec<_>>>()?;
        plan.saved.push(json!({"Config": path(id)?, "RepoTags": names, "Layers": layers}));
        let layers = manifest.layers.into_iter().zip(record.chain.iter().cloned().map(Some));
        plan.take(layers.chain([(manifest.config, None), (own, None)]));
        Ok(())
    }

    /// Of what came with an image, a document and what it names; those that another names are not listed themselves.
    fn add_referrer(&self, plan: &mut Plan, digest: &str) -> Result<()> {
        let (document, bytes) = self.document(digest)?;
        let own = document.describe(&bytes);
        if document.subject().is_some() && !plan.seen.contains(digest) {
            plan.list(&own)?;
        }
        plan.take(document.blobs().cloned().chain([own]).map(|blob| (blob, None)));
        Ok(())
    }

    fn write<W: Write>(&self, plan: Plan, mut sink: Sink<W>) -> Result<()> {
        let index = json!({"schemaVersion": 2, "mediaType": document::INDEX, "manifests": plan.manifests});
        let documents = [
            ("oci-layout", json!({"imageLayoutVersion": "1.0.0"})),
            ("index.json", index),
            ("manifest.json", Value::Array(plan.saved)),
        ];
        for (name, document) in documents {
            let text = document.to_string();
            sink.put(name, text.len() as u64, &mut text.as_bytes())?;
        }
        for (descriptor, layer) in &plan.blobs {
            let mut stream = Hashing::new(self.open_blob(descriptor, layer.as_deref())?);
            sink.put(&format!("blobs/sha256/{}", blob::hex(&descriptor.digest)?), descriptor.size, &mut stream)?;
            let (_, got, _) = stream.finish();
            if got != descriptor.digest {
                return Err(Error::Digest { digest: descriptor.digest.clone(), got });
            }
        }
        sink.finish()
    }
}

impl Plan {
    fn list(&mut self, descriptor: &Descriptor) -> Result<()> {
        self.manifests.push(serde_json::to_value(descriptor).map_err(|e| Error::Malformed(e.to_string()))?);
        Ok(())
    }

    fn take(&mut self, blobs: impl Iterator<Item = (Descriptor, Option<String>)>) {
        self.blobs.extend(blobs.filter(|(blob, _)| self.seen.insert(blob.digest.clone())));
    }
}

impl<W: Write> Sink<W> {
    /// One file, of exactly `size` bytes.
    fn put(&mut self, name: &str, size: u64, from: &mut impl Read) -> Result<()> {
        let failed = |e: io::Error| Error::Io(name.to_owned(), e);
        // One byte more than there may be, so that too much is seen.
        let mut from = Counted { inner: from.take(size.saturating_add(1)), bytes: 0 };
        match self {
            Self::Tar(builder) => {
                let mut header = tar::Header::new_ustar();
                header.set_path(name).map_err(failed)?;
                header.set_size(size);
                header.set_mode(0o644);
                header.set_mtime(0);
                header.set_cksum();
                builder.append(&header, &mut from).map_err(failed)?;
            }
            Self::Directory(dir) => {
                let mut file = File::create(dir.join(name)).map_err(failed)?;
                io::copy(&mut from, &mut file).and_then(|_| file.sync_all()).map_err(failed)?;
            }
        }
        match from.bytes == size {
            true => Ok(()),
            false => Err(document::malformed(name, format!("{} bytes; its manifest says {size}", from.bytes))),
        }
    }

    fn finish(self) -> Result<()> {
        match self {
            Self::Tar(builder) => builder.into_inner().and_then(|mut to| to.flush()),
            Self::Directory(dir) => File::open(dir).and_then(|dir| dir.sync_all()),
        }
        .map_err(|e| Error::Io("export".to_owned(), e))
    }
}

struct Counted<R> {
    inner: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.bytes += n as u64;
        Ok(n)
    }
}

/// The name beside a path under which it is written first.
fn fresh(path: &Path) -> Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| Error::NotFound(path.display().to_string()))?;
    let mut fresh = std::ffi::OsString::from(".");
    fresh.push(name);
    fresh.push(".new");
    Ok(path.with_file_name(fresh))
}
