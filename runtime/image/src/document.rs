//! The few fields of manifests, indexes and configurations that the store needs. OCI and Docker v2 schema 2 agree on
//! them (OCI image-spec: manifest.md, image-index.md, config.md).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Error, Result, reference};

/// No document of an honest image is larger, in bytes (what registries accept).
pub(crate) const MAX_DOCUMENT_BYTES: u64 = 4 << 20;

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Platform {
    pub(crate) architecture: String,
    pub(crate) os: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) variant: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    pub(crate) media_type: String,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Index {
    pub(crate) schema_version: u32,
    pub(crate) media_type: String,
    pub(crate) manifests: Vec<Descriptor>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Configuration {
    pub(crate) architecture: String,
    pub(crate) os: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) config: Option<oci_spec::image::Config>,
    pub(crate) rootfs: RootFs,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RootFs {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) diff_ids: Vec<String>,
}

/// What a document is, by its own words (media types on the wire are not always set).
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Index),
}

/// Reads a manifest or an index.
pub(crate) fn parse(bytes: &[u8], what: &str) -> Result<Document> {
    let value: serde_json::Value = json(bytes, what)?;
    let document = match (value.get("manifests"), value.get("layers")) {
        // Both at once is the ambiguity of CVE-2021-41190.
        (Some(_), Some(_)) => return Err(malformed(what, "both a manifest and an index")),
        (Some(_), None) => Document::Index(serde_json::from_value(value).map_err(|e| malformed(what, e))?),
        _ => Document::Manifest(check(serde_json::from_value(value).map_err(|e| malformed(what, e))?, what)?),
    };
    Ok(document)
}

/// Reads JSON, naming the document in the error.
pub(crate) fn json<T: serde::de::DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| malformed(what, e))
}

/// An error about a document.
pub(crate) fn malformed(what: &str, why: impl std::fmt::Display) -> Error {
    Error::Malformed(format!("{what}: {why}"))
}

fn check(manifest: Manifest, what: &str) -> Result<Manifest> {
    if manifest.layers.len() > 500 {
        return Err(malformed(what, "more than 500 layers"));
    }
    for descriptor in manifest.layers.iter().chain([&manifest.config]) {
        if !reference::is_digest(&descriptor.digest) {
            return Err(malformed(what, format!("unsupported digest {:?}", descriptor.digest)));
        }
    }
    Ok(manifest)
}

/// Go's name of this machine's architecture.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The manifest of an index that fits this machine.
pub(crate) fn choose(index: &Index) -> Option<&Descriptor> {
    let fits =
        |d: &&Descriptor| d.platform.as_ref().is_some_and(|p| p.os == "linux" && p.architecture == architecture());
    index.manifests.iter().find(fits).or_else(|| match index.manifests.as_slice() {
        [only] if only.platform.is_none() => Some(only),
        _ => None,
    })
}
