//! What a pod's volumes hold, as values: the agent writes them.

use std::collections::BTreeMap;

use api::k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource, Volume, VolumeProjection,
};

use crate::env::Sources;
use crate::fields::{Downward, field, resource};
use crate::qos::Amounts;

/// What a volume is.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Content {
    /// A directory of the pod's own, on disk.
    Directory,
    /// A directory of the pod's own, in memory; the size is in bytes.
    Memory { size_bytes: Option<i64> },
    /// A path of the node.
    Host { path: String, kind: HostKind },
    /// Files that are replaced all at once. `secret`: never on disk.
    Files { files: BTreeMap<String, File>, secret: bool },
}

/// What a host path must be, or become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum HostKind {
    Any,
    DirectoryOrCreate,
    Directory,
    FileOrCreate,
    File,
    Socket,
    CharDevice,
    BlockDevice,
}

/// A file of a volume.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct File {
    pub data: Vec<u8>,
    pub mode: u32,
    /// The owner, where it is not root.
    pub uid: Option<u32>,
}

/// A token to ask the API server for before a volume can be written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct TokenWish {
    pub volume: String,
    pub path: String,
    /// Empty means the API server's own.
    pub audience: String,
    pub expiration_seconds: i64,
}

/// The names of the objects that a pod's volumes and environments are made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Needs {
    pub config_maps: Vec<String>,
    pub secrets: Vec<String>,
}

/// The objects that `pod` refers to.
pub fn needs(pod: &Pod) -> Needs {
    let mut needs = Needs::default();
    let spec = pod.spec.clone().unwrap_or_default();
    for volume in spec.volumes.iter().flatten() {
        needs.config_maps.extend(volume.config_map.as_ref().map(|c| c.name.clone()));
        needs.secrets.extend(volume.secret.as_ref().and_then(|s| s.secret_name.clone()));
        for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            needs.config_maps.extend(source.config_map.as_ref().map(|c| c.name.clone()));
            needs.secrets.extend(source.secret.as_ref().map(|s| s.name.clone()));
        }
    }
    for member in crate::member::members(pod) {
        for from in member.container.env_from.iter().flatten() {
            needs.config_maps.extend(from.config_map_ref.as_ref().map(|r| r.name.clone()));
            needs.secrets.extend(from.secret_ref.as_ref().map(|r| r.name.clone()));
        }
        for from in member.container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
            needs.config_maps.extend(from.config_map_key_ref.as_ref().map(|r| r.name.clone()));
            needs.secrets.extend(from.secret_key_ref.as_ref().map(|r| r.name.clone()));
        }
    }
    needs.secrets.extend(spec.image_pull_secrets.iter().flatten().map(|r| r.name.clone()));
    for list in [&mut needs.config_maps, &mut needs.secrets] {
        list.sort();
        list.dedup();
    }
    needs
}

/// The tokens that a pod's volumes hold.
pub fn tokens(pod: &Pod) -> Vec<TokenWish> {
    let spec = pod.spec.clone().unwrap_or_default();
    let mut wishes = Vec::new();
    for volume in spec.volumes.iter().flatten() {
        for token in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            let Some(token) = &token.service_account_token else { continue };
            wishes.push(TokenWish {
                volume: volume.name.clone(),
                path: token.path.clone(),
                audience: token.audience.clone().unwrap_or_default(),
                expiration_seconds: token.expiration_seconds.unwrap_or(3600),
            });
        }
    }
    wishes
}

/// What one volume of a pod holds. The error is what the FailedMount event says.
pub fn content(pod: &Pod, volume: &Volume, sources: &Sources, facts: &Downward<'_>) -> Result<Content, String> {
    let failed = |why: String| format!("MountVolume.SetUp failed for volume \"{}\" : {why}", volume.name);
    let files = |files: Result<BTreeMap<String, File>, String>, secret| {
        files.map(|files| Content::Files { files, secret }).map_err(failed)
    };
    if let Some(empty) = &volume.empty_dir {
        return Ok(match empty.medium.as_deref() {
            Some("Memory") => {
                let limit = empty.size_limit.as_ref().and_then(|q| api::Quantity::parse(&q.0).ok());
                Content::Memory { size_bytes: limit.map(|q| q.value()).filter(|v| *v > 0) }
            }
            _ => Content::Directory,
        });
    }
    if let Some(host) = &volume.host_path {
        let kind = host_kind(host.type_.as_deref().unwrap_or_default());
        return Ok(Content::Host { path: host.path.clone(), kind });
    }
    if let Some(map) = &volume.config_map {
        let want = Want { mode: map.default_mode, items: map.items.as_deref(), optional: map.optional };
        return files(config_map(&map.name, &want, sources), false);
    }
    if let Some(secret) = &volume.secret {
        let want = Want { mode: secret.default_mode, items: secret.items.as_deref(), optional: secret.optional };
        return files(secret_files(secret.secret_name.as_deref().unwrap_or_default(), &want, sources), true);
    }
    if let Some(downward) = &volume.downward_api {
        let items = downward.items.as_deref().unwrap_or_default();
        return files(downward_files(pod, items, mode_or(downward.default_mode), facts), false);
    }
    if let Some(projected) = &volume.projected {
        return files(projection(pod, &volume.name, projected, sources, facts), true);
    }
    Err(failed("no volume plugin matched".into()))
}

fn host_kind(name: &str) -> HostKind {
    match name {
        "DirectoryOrCreate" => HostKind::DirectoryOrCreate,
        "Directory" => HostKind::Directory,
        "FileOrCreate" => HostKind::FileOrCreate,
        "File" => HostKind::File,
        "Socket" => HostKind::Socket,
        "CharDevice" => HostKind::CharDevice,
        "BlockDevice" => HostKind::BlockDevice,
        _ => HostKind::Any,
    }
}

/// Which keys of an object, and how.
struct Want<'a> {
    mode: Option<i32>,
    items: Option<&'a [KeyToPath]>,
    optional: Option<bool>,
}

/// The API server defaults a volume's mode to 0644.
fn mode_or(mode: Option<i32>) -> u32 {
    mode.and_then(|m| u32::try_from(m).ok()).unwrap_or(0o644)
}

fn config_map(name: &str, want: &Want<'_>, sources: &Sources) -> Result<BTreeMap<String, File>, String> {
    let Some(map) = sources.config_maps.get(name) else {
        return absent("configmap", name, want);
    };
    let text = map.data.iter().flatten().map(|(k, v)| (k.clone(), v.as_bytes().to_vec()));
    let binary = map.binary_data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone()));
    selected(text.chain(binary).collect(), want, "configmap references non-existent config key: ")
}

fn secret_files(name: &str, want: &Want<'_>, sources: &Sources) -> Result<BTreeMap<String, File>, String> {
    let Some(secret) = sources.secrets.get(name) else {
        return absent("secret", name, want);
    };
    let data = secret.data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone()));
    selected(data.collect(), want, "references non-existent secret key: ")
}

fn absent(kind: &str, name: &str, want: &Want<'_>) -> Result<BTreeMap<String, File>, String> {
    if want.optional == Some(true) { Ok(BTreeMap::new()) } else { Err(format!("{kind} \"{name}\" not found")) }
}

fn selected(data: BTreeMap<String, Vec<u8>>, want: &Want<'_>, missing: &str) -> Result<BTreeMap<String, File>, String> {
    let mode = mode_or(want.mode);
    let Some(items) = want.items.filter(|i| !i.is_empty()) else {
        return Ok(data.into_iter().map(|(key, data)| (key, File { data, mode, uid: None })).collect());
    };
    let mut files = BTreeMap::new();
    for item in items {
        match data.get(&item.key) {
            Some(data) => {
                let mode = item.mode.map_or(mode, |m| mode_or(Some(m)));
                files.insert(item.path.clone(), File { data: data.clone(), mode, uid: None });
            }
            None if want.optional == Some(true) => {}
            None => return Err(format!("{missing}{}", item.key)),
        }
    }
    Ok(files)
}

fn downward_files(
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    mode: u32,
    facts: &Downward<'_>,
) -> Result<BTreeMap<String, File>, String> {
    let mut files = BTreeMap::new();
    for item in items {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(reference), _) => field(pod, &reference.field_path, facts)?,
            (None, Some(reference)) => resource(pod, None, reference, facts)?,
            (None, None) => continue,
        };
        let mode = item.mode.map_or(mode, |m| mode_or(Some(m)));
        files.insert(item.path.clone(), File { data: text.into_bytes(), mode, uid: None });
    }
    Ok(files)
}

fn projection(
    pod: &Pod,
    volume: &str,
    projected: &ProjectedVolumeSource,
    sources: &Sources,
    facts: &Downward<'_>,
) -> Result<BTreeMap<String, File>, String> {
    let mut files = BTreeMap::new();
    for source in projected.sources.iter().flatten() {
        files.extend(projected_part(pod, volume, source, projected.default_mode, sources, facts)?);
    }
    Ok(files)
}

fn projected_part(
    pod: &Pod,
    volume: &str,
    source: &VolumeProjection,
    mode: Option<i32>,
    sources: &Sources,
    facts: &Downward<'_>,
) -> Result<BTreeMap<String, File>, String> {
    if let Some(map) = &source.config_map {
        let want = Want { mode, items: map.items.as_deref(), optional: map.optional };
        return config_map(&map.name, &want, sources);
    }
    if let Some(secret) = &source.secret {
        let want = Want { mode, items: secret.items.as_deref(), optional: secret.optional };
        return secret_files(&secret.name, &want, sources);
    }
    if let Some(downward) = &source.downward_api {
        return downward_files(pod, downward.items.as_deref().unwrap_or_default(), mode_or(mode), facts);
    }
    if let Some(token) = &source.service_account_token {
        let text = sources.tokens.get(&(volume.into(), token.path.clone()));
        let text = text.ok_or_else(|| "failed to fetch token".to_string())?;
        let file = File { data: text.clone().into_bytes(), mode: token_mode(pod, mode), uid: only_user(pod) };
        return Ok(BTreeMap::from([(token.path.clone(), file)]));
    }
    Err("this kind of projection is not supported".into())
}

/// A token is its owner's alone where its owner is known.
fn token_mode(pod: &Pod, mode: Option<i32>) -> u32 {
    let group = fs_group(pod).is_some();
    if group || only_user(pod).is_some() { 0o600 } else { mode_or(mode) }
}

/// The one user that all containers run as, if they name the same one.
fn only_user(pod: &Pod) -> Option<u32> {
    let of_pod = pod.spec.as_ref().and_then(|s| s.security_context.as_ref()).and_then(|c| c.run_as_user);
    let own = |c: &api::k8s_openapi::api::core::v1::Container| c.security_context.as_ref().and_then(|s| s.run_as_user);
    let mut users = crate::member::members(pod).into_iter().map(|m| own(&m.container).or(of_pod));
    let first = users.next()??;
    users.all(|u| u == Some(first)).then(|| u32::try_from(first).ok())?
}

/// The group that owns the pod's volumes.
pub fn fs_group(pod: &Pod) -> Option<u32> {
    let context = pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
    context.and_then(|c| c.fs_group).and_then(|g| u32::try_from(g).ok())
}

/// Allocatable amounts as plain text, for the downward API.
pub fn plain(amounts: &Amounts) -> BTreeMap<String, String> {
    amounts.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone())).collect()
}
