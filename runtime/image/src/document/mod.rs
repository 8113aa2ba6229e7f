//! The few fields of manifests, indexes and configurations that the store needs. OCI and Docker v2 schema 2 agree on
//! them (OCI image-spec: manifest.md, image-index.md, config.md).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, Result, blob, options, reference};

#[cfg(test)]
mod mutations;
mod shape;

/// No document of an honest image is larger, in bytes (what registries accept).
pub(crate) const MAX_DOCUMENT_BYTES: u64 = 4 << 20;

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Layers of one image.
const MAX_LAYERS: usize = 500;

pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) artifact_type: String,
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
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) artifact_type: String,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
    /// What it refers to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) subject: Option<Descriptor>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Index {
    pub(crate) schema_version: u32,
    pub(crate) media_type: String,
    pub(crate) artifact_type: String,
    pub(crate) manifests: Vec<Descriptor>,
    pub(crate) subject: Option<Descriptor>,
    pub(crate) annotations: BTreeMap<String, String>,
}

/// An image's configuration. What we do not know of it is not lost: blobs are kept as they came.
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

impl Document {
    /// What it refers to.
    pub(crate) fn subject(&self) -> Option<&Descriptor> {
        match self {
            Self::Manifest(manifest) => manifest.subject.as_ref(),
            Self::Index(index) => index.subject.as_ref(),
        }
    }

    /// Blobs that have to be where a manifest is.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        let manifest = if let Self::Manifest(manifest) = self { Some(manifest) } else { None };
        manifest.into_iter().flat_map(|manifest| manifest.layers.iter().chain([&manifest.config]))
    }

    /// Documents that have to be where an index is.
    pub(crate) fn manifests(&self) -> &[Descriptor] {
        if let Self::Index(index) = self { &index.manifests } else { &[] }
    }

    /// Its descriptor in a list of referrers (OCI distribution-spec, Listing Referrers).
    pub(crate) fn describe(&self, bytes: &[u8]) -> Descriptor {
        let (media_type, usual, artifact_type, annotations) = match self {
            Self::Manifest(it) => {
                let named = Some(&it.artifact_type).filter(|name| !name.is_empty());
                (&it.media_type, MANIFEST, named.unwrap_or(&it.config.media_type), &it.annotations)
            }
            Self::Index(it) => (&it.media_type, INDEX, &it.artifact_type, &it.annotations),
        };
        Descriptor {
            media_type: if media_type.is_empty() { usual.to_owned() } else { media_type.clone() },
            digest: blob::digest(bytes),
            size: bytes.len() as u64,
            artifact_type: artifact_type.clone(),
            platform: None,
            annotations: annotations.clone(),
        }
    }
}

/// Reads a manifest or an index.
pub(crate) fn parse(bytes: &[u8], what: &str) -> Result<Document> {
    let mut value: Value = json(bytes, what)?;
    shape::drop_nulls(&mut value);
    let is_index = match (value.get("manifests"), value.get("layers")) {
        // Both at once is the ambiguity of CVE-2021-41190.
        (Some(_), Some(_)) => return Err(malformed(what, "both a manifest and an index")),
        (manifests, _) => manifests.is_some(),
    };
    let said = value.get("mediaType").and_then(Value::as_str).and_then(says_index);
    if said.is_some_and(|said| said != is_index) {
        return Err(malformed(what, "mediaType says another kind of document than it is"));
    }
    if value.get("schemaVersion").and_then(Value::as_u64).is_some_and(|version| version != 2) {
        return Err(malformed(what, "schemaVersion: only 2 is supported"));
    }
    let typed = |e: serde_json::Error| malformed(what, e);
    match is_index {
        true => {
            shape::check(&value, shape::INDEX, what)?;
            check_index(serde_json::from_value(value).map_err(typed)?, what).map(Document::Index)
        }
        false => {
            shape::check(&value, shape::MANIFEST, what)?;
            check_manifest(serde_json::from_value(value).map_err(typed)?, what).map(Document::Manifest)
        }
    }
}

/// Whether a document is of the kind that its registry labels it as (CVE-2021-41190).
pub(crate) fn agrees(bytes: &[u8], content_type: Option<&str>, what: &str) -> Result<()> {
    let label = content_type.and_then(|kind| kind.split(';').next()).map(str::trim);
    let is_index = matches!(parse(bytes, what)?, Document::Index(_));
    match label.and_then(says_index) {
        Some(said) if said != is_index => Err(malformed(what, format!("Content-Type {label:?} is not what it is"))),
        _ => Ok(()),
    }
}

/// Whether a media type is an index's; `None` for one that is neither an index's nor a manifest's.
fn says_index(media_type: &str) -> Option<bool> {
    match media_type {
        INDEX | DOCKER_INDEX => Some(true),
        MANIFEST | DOCKER_MANIFEST => Some(false),
        _ => None,
    }
}

/// Reads a configuration and checks what a container is made from.
pub(crate) fn configuration(bytes: &[u8], what: &str) -> Result<Configuration> {
    let mut value: Value = json(bytes, what)?;
    shape::drop_nulls(&mut value);
    shape::check(&value, shape::CONFIGURATION, what)?;
    let configuration: Configuration = serde_json::from_value(value).map_err(|e| malformed(what, e))?;
    for (at, diff) in configuration.rootfs.diff_ids.iter().enumerate() {
        if !reference::is_digest(diff) {
            return Err(malformed(what, format!("rootfs.diff_ids[{at}]: unsupported digest {:?}", short(diff))));
        }
    }
    Ok(configuration)
}

/// Reads JSON, naming the document in the error.
pub(crate) fn json<T: serde::de::DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| malformed(what, e))
}

/// An error about a document.
pub(crate) fn malformed(what: &str, why: impl std::fmt::Display) -> Error {
    Error::Malformed(format!("{what}: {why}"))
}

/// The beginning of a text that may be of any length.
pub(crate) fn short(text: &str) -> String {
    text.chars().take(100).collect()
}

/// Of a document that is to be a container's image, the manifest.
pub(crate) fn image(document: Document, what: &str) -> Result<Manifest> {
    let Document::Manifest(manifest) = document else { return Err(malformed(what, "an index, not a manifest")) };
    let kind = manifest.config.media_type.as_str();
    match kind {
        "" | CONFIG | DOCKER_CONFIG => Ok(manifest),
        _ => Err(malformed(what, format!("config.mediaType {:?}: an artifact, not an image", short(kind)))),
    }
}

fn check_manifest(manifest: Manifest, what: &str) -> Result<Manifest> {
    if manifest.layers.len() > MAX_LAYERS {
        return Err(malformed(what, format!("layers: more than {MAX_LAYERS}")));
    }
    let layers = manifest.layers.iter().enumerate().map(|(at, layer)| (format!("layers[{at}].digest"), layer));
    let subject = manifest.subject.iter().map(|subject| ("subject.digest".to_owned(), subject));
    check_digests(layers.chain([("config.digest".to_owned(), &manifest.config)]).chain(subject), what)?;
    Ok(manifest)
}

fn check_index(index: Index, what: &str) -> Result<Index> {
    let manifests = index.manifests.iter().enumerate().map(|(at, one)| (format!("manifests[{at}].digest"), one));
    check_digests(manifests.chain(index.subject.iter().map(|one| ("subject.digest".to_owned(), one))), what)?;
    Ok(index)
}

fn check_digests<'a>(mut all: impl Iterator<Item = (String, &'a Descriptor)>, what: &str) -> Result<()> {
    let wrong = all.find(|(_, descriptor)| !reference::is_digest(&descriptor.digest));
    wrong.map_or(Ok(()), |(field, descriptor)| {
        Err(malformed(what, format!("{field}: unsupported digest {:?}", short(&descriptor.digest))))
    })
}

/// Go's name of this machine's architecture.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The manifest of an index that fits a platform best.
pub(crate) fn choose<'a>(index: &'a Index, wanted: &options::Platform) -> Option<&'a Descriptor> {
    let ranked = index.manifests.iter().filter_map(|d| Some((rank(d.platform.as_ref()?, wanted)?, d)));
    // The first of the best.
    let best = ranked.fold(None, |best: Option<(u32, &Descriptor)>, one| match best {
        Some(best) if best.0 >= one.0 => Some(best),
        _ => Some(one),
    });
    best.map(|(_, descriptor)| descriptor).or_else(|| match index.manifests.as_slice() {
        [only] if only.platform.is_none() => Some(only),
        _ => None,
    })
}

/// How well a platform suits: the higher its variant the better, up to the one that is wanted. `None` where it does not.
fn rank(found: &Platform, wanted: &options::Platform) -> Option<u32> {
    if found.os != wanted.os || found.architecture != wanted.architecture {
        return None;
    }
    // Where nobody says, what each architecture calls its own first, but for arm, where most machines are v7.
    let (least, most) = match found.architecture.as_str() {
        "amd64" => (1, 1),
        "arm64" => (8, 8),
        "arm" => (6, 7),
        _ => (0, 0),
    };
    let version = |variant: &str| variant.strip_prefix('v').and_then(|digits| digits.parse::<u32>().ok());
    let of = |variant: Option<&str>, unsaid: u32| match variant.filter(|text| !text.is_empty()) {
        None => Some(unsaid),
        Some(text) => version(text),
    };
    let (found, wanted) = (of(found.variant.as_deref(), least)?, of(wanted.variant.as_deref(), most)?);
    (found <= wanted).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(platforms: &[&str], wanted: &str) -> Option<usize> {
        let manifests = platforms.iter().map(|text| {
            let options::Platform { os, architecture, variant } = options::Platform::parse(text).unwrap();
            let platform = Some(Platform { os, architecture, variant });
            Descriptor { platform, ..Descriptor::default() }
        });
        let index = Index { manifests: manifests.collect(), ..Index::default() };
        let found = choose(&index, &options::Platform::parse(wanted).unwrap())?;
        index.manifests.iter().position(|d| std::ptr::eq(d, found))
    }

    #[test]
    fn the_best_variant_that_runs_is_chosen() {
        for (platforms, wanted, want) in [
            (&["windows/amd64", "linux/amd64"][..], "linux/amd64", Some(1)),
            (&["linux/amd64/v3", "linux/amd64"], "linux/amd64", Some(1)),
            (&["linux/amd64/v3", "linux/amd64/v2", "linux/amd64"], "linux/amd64/v2", Some(1)),
            (&["linux/amd64/v3"], "linux/amd64", None),
            (&["linux/arm/v5", "linux/arm/v6", "linux/arm/v7"], "linux/arm", Some(2)),
            (&["linux/arm/v5", "linux/arm/v6", "linux/arm/v7"], "linux/arm/v6", Some(1)),
            (&["linux/arm64/v8"], "linux/arm64", Some(0)),
            (&["linux/arm64", "linux/arm64"], "linux/arm64/v8", Some(0)),
            (&["unknown/unknown"], "linux/amd64", None),
        ] {
            assert_eq!(chosen(platforms, wanted), want, "{platforms:?} {wanted}");
        }
    }
}
