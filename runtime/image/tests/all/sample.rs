//! An image behind an index, as registries have it, and pulls of it.

use std::io::Write;

use bytes::Bytes;
use runtime_image::{Auth, Error, Image, Progress, PullOptions, Registries, Store};
use serde_json::json;

use crate::registry::Registry;
use crate::support::{DIR, FILE, digest, layer};

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An image's documents and layers.
pub(crate) struct Sample {
    /// Layers as they come.
    pub(crate) packed: Vec<Vec<u8>>,
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
    pub(crate) index: Vec<u8>,
}

impl Sample {
    /// Of layers and their packed forms.
    pub(crate) fn of(layers: &[Vec<u8>], packed: Vec<Vec<u8>>) -> Self {
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let diffs: Vec<String> = layers.iter().map(|l| digest(l)).collect();
        let config = json!({"architecture": arch, "os": "linux", "rootfs": {"type": "layers", "diff_ids": diffs}});
        let config = config.to_string().into_bytes();
        let describe =
            |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()});
        let packed_kind = "application/vnd.oci.image.layer.v1.tar+gzip";
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
            "config": describe("application/vnd.oci.image.config.v1+json", &config),
            "layers": packed.iter().map(|l| describe(packed_kind, l)).collect::<Vec<_>>()});
        let manifest = manifest.to_string().into_bytes();
        let mut own = describe(MANIFEST, &manifest);
        own["platform"] = json!({"architecture": arch, "os": "linux"});
        let mut other = describe(MANIFEST, b"other");
        other["platform"] = json!({"architecture": "s390x", "os": "linux"});
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [other, own]});
        Self { packed, config, manifest, index: index.to_string().into_bytes() }
    }

    /// Two layers: `a`, and `b/c` of 45 kB.
    pub(crate) fn two() -> Self {
        let layers =
            vec![layer(&[("a", FILE, "one")]), layer(&[("b/", DIR, ""), ("b/c", FILE, &"long ".repeat(9000))])];
        let packed = vec![gzip(&layers[0]), zstd::encode_all(&layers[1][..], 1).unwrap()];
        Self::of(&layers, packed)
    }

    /// Puts it into a registry as `team/app:1`.
    pub(crate) fn serve(&self, registry: &Registry) {
        let mut content = registry.content.lock().unwrap();
        for blob in self.packed.iter().chain([&self.config]) {
            content.blobs.insert(("team/app".to_owned(), digest(blob)), Bytes::copy_from_slice(blob));
        }
        let manifests = [(digest(&self.manifest), MANIFEST, &self.manifest), ("1".to_owned(), INDEX, &self.index)];
        for (name, kind, bytes) in manifests {
            let value = (kind.to_owned(), Bytes::copy_from_slice(bytes));
            content.manifests.insert(("team/app".to_owned(), name), value);
        }
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Does asynchronous work.
pub(crate) fn wait<T>(work: impl Future<Output = T>) -> T {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(work)
}

pub(crate) fn options(addresses: &[&str]) -> PullOptions {
    let plain_http = addresses.iter().map(|address| (*address).to_owned()).collect();
    PullOptions { registries: Registries { plain_http, ..Registries::default() }, ..PullOptions::default() }
}

/// Pulls `team/app:1` with what refers to it, as nobody.
pub(crate) fn pull_all(store: &Store, registry: &Registry) -> Result<Image, Error> {
    let (name, mut options) = (format!("{}/team/app:1", registry.address), options(&[&registry.address]));
    options.referrers = true;
    wait(store.pull(&name, &Auth::Anonymous, &options, |_| {}))
}

/// Pulls `team/app:1` as nobody.
pub(crate) fn pull(
    store: &Store,
    registry: &Registry,
    progress: impl Fn(Progress) + Send + Sync,
) -> Result<Image, Error> {
    let (name, options) = (format!("{}/team/app:1", registry.address), options(&[&registry.address]));
    wait(store.pull(&name, &Auth::Anonymous, &options, progress))
}

/// Names of the files in the store's folders for blobs, layers, parts and what is on its way.
pub(crate) fn residue(root: &std::path::Path) -> Vec<String> {
    let mut all = Vec::new();
    for sub in ["blobs/sha256", "layers", "partial", "ingest"] {
        for entry in std::fs::read_dir(root.join(sub)).into_iter().flatten() {
            all.push(format!("{sub}/{}", entry.unwrap().file_name().to_string_lossy()));
        }
    }
    all
}
