//! The pod's volumes on the host.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use api::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, Volume};
use kube::api::{Api, PostParams};
use node_plan::env::Sources;
use node_plan::fields::Downward;
use node_plan::observed::Observed;
use node_plan::volumes::{Content, HostKind, TokenWish, content, fs_group, tokens};

use super::{Performer, files};
use crate::blocking;
use crate::paths::PodPaths;

/// Writes every volume; says when they are to be written again.
pub(super) async fn mount_all(p: &Performer, pod: &Pod, seen: &Observed) -> Result<Option<Timestamp>, String> {
    let (sources, refresh) = sources(p, pod).await?;
    let facts = downward(p, seen);
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.clone()).unwrap_or_default();
    let mut contents = Vec::new();
    for volume in volumes {
        let content = content(pod, &volume, &sources, &facts)?;
        contents.push((volume, content));
    }
    let (paths, group) = (p.paths.clone(), fs_group(pod));
    blocking(move || {
        for (volume, content) in contents {
            let failed = |e| format!("MountVolume.SetUp failed for volume \"{}\" : {e}", volume.name);
            mount(&paths, &volume, &content, group).map_err(failed)?;
        }
        Ok(())
    })
    .await?;
    Ok(refresh)
}

/// What the downward API tells of this pod.
pub(super) fn downward<'a>(p: &'a Performer, seen: &Observed) -> Downward<'a> {
    let ips = seen.network.done().map(|ips| ips.iter().map(ToString::to_string).collect());
    Downward { node: p.agent.facts.clone(), pod_ips: ips.unwrap_or_default(), allocatable: Some(&p.agent.allocatable) }
}

/// All objects, tokens and services that the pod is made from.
pub(super) async fn sources(p: &Performer, pod: &Pod) -> Result<(Sources, Option<Timestamp>), String> {
    let mut sources = p.hold.values().await;
    p.agent.services.synced().await;
    sources.services = p.agent.services.all().iter().map(|s| (**s).clone()).collect();
    let mut refresh: Option<Timestamp> = None;
    for wish in tokens(pod) {
        let (token, renew_at) = token(p, pod, &wish).await?;
        refresh = Some(refresh.map_or(renew_at, |r| r.min(renew_at)));
        sources.tokens.insert((wish.volume, wish.path), token);
    }
    Ok((sources, refresh))
}

/// A token that is not near its end: the one at hand, or a new one.
async fn token(p: &Performer, pod: &Pod, wish: &TokenWish) -> Result<(String, Timestamp), String> {
    let key = (wish.volume.clone(), wish.path.clone());
    let now = Timestamp::now();
    if let Some(held) = p.tokens.lock().get(&key).filter(|(_, renew)| now < *renew) {
        return Ok(held.clone());
    }
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let account = pod.spec.as_ref().and_then(|s| s.service_account_name.clone());
    let account = account.filter(|a| !a.is_empty()).unwrap_or_else(|| "default".into());
    let failed = |e: kube::Error| {
        format!("MountVolume.SetUp failed for volume \"{}\" : failed to fetch token: {}", wish.volume, crate::chain(&e))
    };
    let api: Api<ServiceAccount> = Api::namespaced(p.agent.client.clone(), namespace);
    let answer =
        api.create_token_request(&account, &PostParams::default(), &request(pod, wish)).await.map_err(failed)?;
    let status = answer.status.ok_or("failed to fetch token: the answer has no status")?;
    let (Some(token), Some(expires)) = (status.token, status.expiration_timestamp) else {
        return Err("failed to fetch token: the answer has none".into());
    };
    let held = (token, renew_at(now, expires.0));
    p.tokens.lock().insert(key, held.clone());
    Ok(held)
}

/// After four fifths of its life, and within a day (kubelet's rule).
fn renew_at(now: Timestamp, expires: Timestamp) -> Timestamp {
    const DAY_S: i64 = 86_400;
    let life = expires.duration_since(now).as_secs();
    node_plan::clock::after_s(now, (life * 4 / 5).clamp(1, DAY_S))
}

fn request(pod: &Pod, wish: &TokenWish) -> TokenRequest {
    let bound = BoundObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
    };
    let audiences = if wish.audience.is_empty() { Vec::new() } else { vec![wish.audience.clone()] };
    let spec = TokenRequestSpec {
        audiences: Some(audiences),
        bound_object_ref: Some(bound),
        expiration_seconds: Some(wish.expiration_seconds),
        ..TokenRequestSpec::default()
    };
    TokenRequest { spec: Some(spec), ..TokenRequest::default() }
}

/// Where a volume stands on the host.
pub(super) fn path(paths: &PodPaths, volume: &Volume) -> PathBuf {
    if let Some(host) = &volume.host_path {
        return PathBuf::from(&host.path);
    }
    let plugin = match volume {
        Volume { empty_dir: Some(_), .. } => "empty-dir",
        Volume { config_map: Some(_), .. } => "configmap",
        Volume { secret: Some(_), .. } => "secret",
        Volume { downward_api: Some(_), .. } => "downward-api",
        _ => "projected",
    };
    paths.volume(plugin, &volume.name)
}

fn mount(paths: &PodPaths, volume: &Volume, content: &Content, group: Option<u32>) -> Result<(), String> {
    let at = path(paths, volume);
    let text = |e: std::io::Error| e.to_string();
    match content {
        Content::Host { path, kind } => host(Path::new(path), *kind),
        Content::Directory => directory(&at, group).map_err(text),
        Content::Memory { size_bytes } => {
            files::memory_dir(&at, *size_bytes, 0o777).map_err(text)?;
            own(&at, group).map_err(text)
        }
        Content::Files { files, secret } => {
            if *secret {
                files::memory_dir(&at, None, 0o755).map_err(text)?;
            }
            fs::create_dir_all(&at).map_err(text)?;
            fs::set_permissions(&at, fs::Permissions::from_mode(0o777)).map_err(text)?;
            own(&at, group).map_err(text)?;
            files::write_all(&at, files, group).map(drop).map_err(text)
        }
    }
}

fn directory(at: &Path, group: Option<u32>) -> std::io::Result<()> {
    if at.exists() {
        return Ok(());
    }
    fs::create_dir_all(at)?;
    fs::set_permissions(at, fs::Permissions::from_mode(0o777))?;
    own(at, group)
}

/// A volume of a group: new files in it belong to the group, too.
fn own(at: &Path, group: Option<u32>) -> std::io::Result<()> {
    let Some(group) = group else { return Ok(()) };
    chown(at, None, Some(group))?;
    fs::set_permissions(at, fs::Permissions::from_mode(0o2777))
}

/// Checks what a host path is, and makes it where that is asked for.
fn host(path: &Path, kind: HostKind) -> Result<(), String> {
    let shown = path.display();
    let made = match kind {
        HostKind::DirectoryOrCreate if !path.exists() => fs::create_dir_all(path),
        HostKind::FileOrCreate if !path.exists() => fs::write(path, b""),
        _ => Ok(()),
    };
    made.map_err(|e| format!("{shown}: {e}"))?;
    let meta = fs::metadata(path);
    let is = |test: fn(&fs::Metadata) -> bool| meta.as_ref().is_ok_and(test);
    let (fits, what) = match kind {
        HostKind::Any => (true, ""),
        HostKind::Directory | HostKind::DirectoryOrCreate => (is(fs::Metadata::is_dir), "a directory"),
        HostKind::File | HostKind::FileOrCreate => (is(fs::Metadata::is_file), "a file"),
        HostKind::Socket => (is(|m| m.file_type().is_socket()), "a socket"),
        HostKind::CharDevice => (is(|m| m.file_type().is_char_device()), "a character device"),
        HostKind::BlockDevice => (is(|m| m.file_type().is_block_device()), "a block device"),
    };
    if fits { Ok(()) } else { Err(format!("hostPath type check failed: {shown} is not {what}")) }
}
