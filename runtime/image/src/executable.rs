//! An image of one static executable, made without a registry: the built-in image that runs this very program.

use std::fs::{self, DirBuilder, File};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, PermissionsExt};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::blob::{self, Hashing, io_error};
use crate::document::{self, Configuration, Descriptor, Manifest, RootFs};
use crate::ingest::Ingest;
use crate::reference::Reference;
use crate::store::{Record, Store, publish};
use crate::{Error, Image, Result, tree};

/// What the image was made from: unchanged means the image is still right, without hashing the executable again.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Source {
    executable: String,
    entrypoint: Vec<String>,
    inode: u64,
    bytes: u64,
    /// Not the time of change: linking the file changes that.
    modified_ns: i128,
    image: String,
}

impl Store {
    /// An image of one static executable, with no registry and no network. It is the root's only file, under the name that
    /// `entrypoint` begins with, whatever its own is. The layer's tar is not kept, only the unpacked file.
    pub fn add_executable(&self, name: &str, executable: &Path, entrypoint: &[&str]) -> Result<Image> {
        let name = Reference::parse(name)?.tagged().ok_or_else(|| Error::Reference(name.to_owned()))?;
        let mut source = describe(executable, entrypoint)?;
        let note = self.root().join(format!("executable-{}.json", blob::hex(&blob::digest(name.as_bytes()))?));
        if let Some(image) = self.unchanged(&note, &source, &name)? {
            return Ok(image);
        }
        let ingest = self.ingest()?;
        let (diff, bytes) = self.add_layer(&ingest, executable, entrypoint)?;
        let (id, record) = self.add_documents(&ingest, &name, &diff, bytes, entrypoint)?;
        let image = self.record(&id, record)?;
        source.image = id;
        let text = serde_json::to_vec(&source).map_err(|e| Error::Malformed(e.to_string()))?;
        blob::replace(&note, &text)?;
        Ok(image)
    }

    /// The bytes of a blob, to be sent elsewhere. That of a layer made from an executable is made again.
    pub(crate) fn open_blob(&self, blob: &Descriptor, layer: Option<&str>) -> Result<Box<dyn Read + Send>> {
        let path = blob::path(&self.blobs(), &blob.digest)?;
        match File::open(&path) {
            Ok(file) => Ok(Box::new(file)),
            // The first layer's ChainID is its DiffID, and that is its digest where nothing compressed it.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && layer == Some(&*blob.digest) => {
                let dir = self.layers().join(blob::hex(&blob.digest)?);
                tar_of(&dir).map_err(|e| io_error(&dir, e))
            }
            Err(e) => Err(io_error(&path, e)),
        }
    }

    fn unchanged(&self, note: &Path, source: &Source, name: &str) -> Result<Option<Image>> {
        let Some(known) = fs::read(note).ok().and_then(|b| serde_json::from_slice::<Source>(&b).ok()) else {
            return Ok(None);
        };
        let same = Source { image: String::new(), ..known };
        if same != *source {
            return Ok(None);
        }
        Ok(self.get(name)?.filter(|image| image.layers.iter().all(|layer| layer.exists())))
    }

    /// Links the executable into a layer, or copies it; returns the layer's DiffID and the size of its tar. A link shares
    /// the pages that containers and we run from, and takes no time.
    fn add_layer(&self, ingest: &Ingest, executable: &Path, entrypoint: &[&str]) -> Result<(String, u64)> {
        let staged = ingest.path.join("layer");
        DirBuilder::new().mode(0o755).create(&staged).map_err(|e| io_error(&staged, e))?;
        let program = entrypoint.first().and_then(|program| Path::new(program).file_name());
        let file_name = program.ok_or_else(|| Error::NotFound(executable.display().to_string()))?;
        let target = staged.join(file_name);
        let fill = || -> std::io::Result<(String, u64)> {
            if !(is_ours(executable)? && fs::hard_link(executable, &target).is_ok()) {
                let mut output = File::create(&target)?;
                std::io::copy(&mut File::open(executable)?, &mut output)?;
                output.set_permissions(fs::Permissions::from_mode(0o755))?;
                output.sync_all()?;
            }
            File::open(&staged)?.sync_all()?;
            digest_of_tar(Path::new(file_name), &File::open(&target)?)
        };
        let (diff, size) = fill().map_err(|e| io_error(executable, e))?;
        let layer = self.layers().join(blob::hex(&diff)?);
        // Its file may be a link to what was overwritten since.
        if layer.exists() && !same_file(&layer.join(file_name), &target) {
            tree::remove(&layer)?;
        }
        publish(&staged, &layer)?;
        Ok((diff, size))
    }

    fn add_documents(
        &self,
        ingest: &Ingest,
        name: &str,
        diff: &str,
        bytes: u64,
        entrypoint: &[&str],
    ) -> Result<(String, Record)> {
        let mut config = oci_spec::image::Config::default();
        config.set_entrypoint(Some(entrypoint.iter().map(|arg| (*arg).to_owned()).collect()));
        config.set_env(Some(vec!["PATH=/".to_owned()]));
        let configuration = Configuration {
            architecture: document::architecture().to_owned(),
            os: "linux".to_owned(),
            config: Some(config),
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids: vec![diff.to_owned()] },
        };
        let text = serde_json::to_vec(&configuration).map_err(|e| Error::Malformed(e.to_string()))?;
        let id = self.put_blob(&ingest.path, &text)?;
        let descriptor = |media_type: &str, digest: &str, size| Descriptor {
            media_type: media_type.to_owned(),
            digest: digest.to_owned(),
            size,
            ..Descriptor::default()
        };
        let manifest = Manifest {
            schema_version: 2,
            media_type: document::MANIFEST.to_owned(),
            config: descriptor(document::CONFIG, &id, text.len() as u64),
            layers: vec![descriptor(document::LAYER, diff, bytes)],
            ..Manifest::default()
        };
        let text = serde_json::to_vec(&manifest).map_err(|e| Error::Malformed(e.to_string()))?;
        let digest = self.put_blob(&ingest.path, &text)?;
        let repository = Reference::parse(name)?.name();
        let record = Record {
            digests: [format!("{repository}@{digest}")].into(),
            manifest: digest,
            names: [name.to_owned()].into(),
            chain: vec![diff.to_owned()],
            ..Record::default()
        };
        Ok((id, record))
    }
}

fn describe(executable: &Path, entrypoint: &[&str]) -> Result<Source> {
    let metadata = fs::metadata(executable).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::NotFound(executable.display().to_string()),
        _ => io_error(executable, e),
    })?;
    Ok(Source {
        executable: executable.display().to_string(),
        entrypoint: entrypoint.iter().map(|arg| (*arg).to_owned()).collect(),
        inode: metadata.ino(),
        bytes: metadata.len(),
        modified_ns: i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec()),
        image: String::new(),
    })
}

/// The tar that holds the one file of a directory.
fn tar_of(dir: &Path) -> std::io::Result<Box<dyn Read + Send>> {
    let entry = fs::read_dir(dir)?.next().ok_or(std::io::ErrorKind::NotFound)??;
    let file = File::open(entry.path())?;
    let bytes = file.metadata()?.len();
    let header = header(Path::new(&entry.file_name()), bytes)?;
    let head = std::io::Cursor::new(header.as_bytes().to_vec());
    Ok(Box::new(head.chain(file.take(bytes)).chain(std::io::repeat(0).take(padding(bytes)))))
}

/// What fills the last block of a file, and the end of its archive.
fn padding(bytes: u64) -> u64 {
    (512 - bytes % 512) % 512 + 1024
}

fn header(name: &Path, bytes: u64) -> std::io::Result<tar::Header> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_size(bytes);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    Ok(header)
}

/// Whether a file can stand in a layer as it is: root's, for all to read and run, without anybody's rights.
fn is_ours(executable: &Path) -> std::io::Result<bool> {
    let metadata = fs::symlink_metadata(executable)?;
    Ok(metadata.is_file() && metadata.uid() == 0 && metadata.gid() == 0 && metadata.mode() & 0o7777 == 0o755)
}

fn same_file(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| fs::symlink_metadata(path).map(|m| (m.dev(), m.ino())).ok();
    identity(one).is_some_and(|found| Some(found) == identity(other))
}

/// The digest and size of the tar that would hold this file alone.
fn digest_of_tar(name: &Path, file: &File) -> std::io::Result<(String, u64)> {
    let bytes = file.metadata()?.len();
    let mut tar = Hashing::new(std::io::sink());
    tar.write_all(header(name, bytes)?.as_bytes())?;
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < bytes {
        let n = file.read_at(&mut buffer, at)?;
        if n == 0 {
            return Err(std::io::Error::other("changed while it was read"));
        }
        let n = n.min(usize::try_from(bytes - at).unwrap_or(n));
        tar.write_all(buffer.get(..n).unwrap_or_default())?;
        at += n as u64;
    }
    tar.write_all(&vec![0; padding(bytes) as usize])?;
    let (_, diff, size) = tar.finish();
    Ok((diff, size))
}
