//! Starting a container: everything the specification needs, gathered from the pod, the image and the host.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use api::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use node_plan::env::environment;
use node_plan::member::member;
use node_plan::observed::{ImageStage, Observed};
use node_plan::security::{ImageUsers, identity};
use node_plan::spec::{Bind, Parts, bind_of, spec, sub_path};
use node_plan::step::{Process, StartFailure};
use node_plan::{qos, run_id};
use runtime_core::pod::{ContainerConfig, Rootfs};
use runtime_image::Image;

use super::{Performer, propagation, sandbox, subpath, volume};
use crate::{blocking, chain};

/// A log file is turned over when it is larger, in bytes; and how many are kept (kubelet's defaults).
const LOG_MAX_BYTES: u64 = 10 << 20;
const LOG_FILES: u32 = 5;

/// Creates and starts a container.
pub(super) async fn start(
    p: &Performer,
    pod: &Pod,
    seen: &Observed,
    name: &str,
    attempt: u32,
) -> Result<Process, StartFailure> {
    let member = member(pod, name).ok_or_else(|| StartFailure::Config(format!("container {name} not found")))?;
    let container = member.container.into_owned();
    let image = image(p, seen, name).await?;
    let target = target(pod, seen, name)?;
    let (sources, _) = volume::sources(p, pod).await.map_err(StartFailure::Config)?;
    let facts = volume::downward(p, seen);
    let env = environment(pod, &container, &sources, &facts).map_err(StartFailure::Config)?;
    let (p, pod) = (p.clone(), pod.clone());
    let started = tokio::task::spawn_blocking(move || build(&p, &pod, &container, attempt, &image, target, env));
    started.await.map_err(|error| StartFailure::Create(error.to_string()))?
}

/// The pid namespace of the container that an ephemeral one looks into.
fn target(pod: &Pod, seen: &Observed, name: &str) -> Result<Option<PathBuf>, StartFailure> {
    let Some(target) = node_plan::member::target(pod, name) else { return Ok(None) };
    let run = seen.containers.get(target).and_then(|s| s.current.as_ref()).filter(|run| run.running());
    let run = run.ok_or_else(|| StartFailure::Config(format!("unable to find target container {target}")))?;
    Ok(Some(format!("/proc/{}/ns/pid", run.pid).into()))
}

async fn image(p: &Performer, seen: &Observed, name: &str) -> Result<Image, StartFailure> {
    let id = match seen.containers.get(name).map(|s| &s.image) {
        Some(ImageStage::Ready { image, .. }) => image.id.clone(),
        _ => return Err(StartFailure::Create("the image is not there".into())),
    };
    let images = p.agent.images.clone();
    let found = blocking(move || images.get(&id).map_err(|error| chain(&error))).await;
    found.map_err(StartFailure::Create)?.ok_or_else(|| StartFailure::Create("the image was removed".into()))
}

fn build(
    p: &Performer,
    pod: &Pod,
    container: &Container,
    attempt: u32,
    image: &Image,
    target: Option<PathBuf>,
    env: Vec<(String, String)>,
) -> Result<Process, StartFailure> {
    let run = run_id(&container.name, attempt);
    let shim = p.shim().map_err(StartFailure::Create)?;
    let create = |what: &str| {
        let what = what.to_owned();
        move |error: std::io::Error| StartFailure::Create(format!("{what}: {error}"))
    };
    // The descriptors stay open until the container's mounts are made.
    let mut held = Vec::new();
    let mounts = binds(p, pod, container, &run, &env, &mut held)?;
    let config = &image.config;
    let passwd = from_layers(&image.layers, "etc/passwd");
    let group = from_layers(&image.layers, "etc/group");
    let user = config.user().clone().unwrap_or_default();
    let users = ImageUsers { user: &user, passwd: &passwd, group: &group };
    let parts = Parts {
        entrypoint: config.entrypoint().as_deref().unwrap_or_default(),
        cmd: config.cmd().as_deref().unwrap_or_default(),
        image_env: config.env().as_deref().unwrap_or_default(),
        working_dir: config.working_dir().as_deref().unwrap_or_default(),
        env,
        identity: identity(pod, container, &users).map_err(StartFailure::Config)?,
        hostname: sandbox::hostname_of(p, pod),
        cgroup: format!("{}/{run}", qos::cgroup(&p.agent.config.cgroup_root(), pod)),
        memory_capacity_bytes: p.agent.memory_bytes,
        target,
        mounts,
        default_seccomp: super::seccomp::default_profile(container).map_err(StartFailure::Config)?,
        local_seccomp: super::seccomp::local_profile(&p.agent.config, pod, container).map_err(StartFailure::Config)?,
    };
    let log_path = p.paths.log(&container.name, attempt);
    let folder = log_path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).map_err(create("make the log's directory"))?;
    let config = ContainerConfig {
        id: run.clone(),
        spec: spec(pod, container, &parts).map_err(StartFailure::Config)?,
        rootfs: Rootfs { lower: image.layers.clone(), scratch: p.paths.scratch(&run) },
        log_path,
        log_max_bytes: LOG_MAX_BYTES,
        log_files: LOG_FILES,
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
    };
    fs::create_dir_all(&config.rootfs.scratch).map_err(create("make the writable layer"))?;
    let state = shim.start_container(&config).map_err(|error| StartFailure::Run(chain(&error)))?;
    drop(held);
    let started_at = Timestamp::from_nanosecond(i128::from(state.started_at)).unwrap_or_else(|_| Timestamp::now());
    Ok(Process { pid: state.pid, started_at })
}

/// A file of the image, from the topmost layer that has it; empty where none has.
fn from_layers(layers: &[PathBuf], file: &str) -> String {
    const MOST: u64 = 1 << 20;
    let found = layers.iter().map(|layer| layer.join(file));
    let plain = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file());
    found.into_iter().find(plain).and_then(|path| super::files::read_limited(&path, MOST).ok()).unwrap_or_default()
}

fn binds(
    p: &Performer,
    pod: &Pod,
    container: &Container,
    run: &str,
    env: &[(String, String)],
    held: &mut Vec<OwnedFd>,
) -> Result<Vec<Bind>, StartFailure> {
    let spec = pod.spec.clone().unwrap_or_default();
    let mounts = container.volume_mounts.clone().unwrap_or_default();
    let own = |path: &str| mounts.iter().any(|m| m.mount_path.trim_end_matches('/') == path);
    let mut binds = Vec::new();
    for file in ["hosts", "hostname", "resolv.conf"] {
        let target = format!("/etc/{file}");
        if !own(&target) {
            binds.push(Bind { source: p.paths.etc(file), target, ..Bind::default() });
        }
    }
    if !own("/dev/shm") {
        let source = if spec.host_ipc == Some(true) { "/dev/shm".into() } else { p.paths.shm() };
        binds.push(Bind { source, target: "/dev/shm".into(), ..Bind::default() });
    }
    binds.push(message_file(p, container, run)?);
    for mount in &mounts {
        let volume = spec.volumes.iter().flatten().find(|v| v.name == mount.name);
        let missing = || StartFailure::Config(format!("volume {:?} not found", mount.name));
        let root = volume::path(&p.paths, volume.ok_or_else(missing)?);
        let source = match sub_path(mount, env).map_err(StartFailure::Config)? {
            None => root,
            Some(part) => {
                let failed = |e| {
                    StartFailure::Config(format!(
                        "failed to prepare subPath for volumeMount \"{}\" of container \"{}\": {e}",
                        mount.name, container.name
                    ))
                };
                let fd = subpath::open(&root, &part).map_err(failed)?;
                let source = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd()));
                held.push(fd);
                source
            }
        };
        propagation::check(&source, mount.mount_propagation.as_deref()).map_err(StartFailure::Create)?;
        binds.push(Bind { source, ..bind_of(mount) });
    }
    Ok(binds)
}

/// An empty file that the container may write its last words to.
fn message_file(p: &Performer, container: &Container, run: &str) -> Result<Bind, StartFailure> {
    let source = p.paths.message(run);
    let made = super::files::write_new(&source, b"")
        .and_then(|()| fs::set_permissions(&source, fs::Permissions::from_mode(0o666)));
    made.map_err(|e| StartFailure::Create(format!("make the termination message file: {e}")))?;
    let target = container.termination_message_path.clone().filter(|t| !t.is_empty());
    Ok(Bind { source, target: target.unwrap_or_else(|| "/dev/termination-log".into()), ..Bind::default() })
}
