//! A container as OCI says it.

use std::path::PathBuf;

use api::k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};
use oci_spec::runtime::{
    Capabilities, Capability, Linux, LinuxCapabilities, LinuxDeviceCgroup, LinuxNamespace, LinuxNamespaceType,
    LinuxSeccomp, Mount, Process, Root, Spec, User,
};

use crate::env::expand;
use crate::limits;
use crate::qos::oom_score_adj;
use crate::security::{self, Identity};

/// Paths that a container must not read.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// Paths that it must not write.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What a container is made from, beside its specification.
#[derive(Clone, Debug, Default)]
pub struct Parts<'a> {
    /// The image's entry point.
    pub entrypoint: &'a [String],
    /// The image's command.
    pub cmd: &'a [String],
    /// The image's environment, `NAME=value`.
    pub image_env: &'a [String],
    /// The image's working directory.
    pub working_dir: &'a str,
    /// The environment from [`crate::env::environment`].
    pub env: Vec<(String, String)>,
    /// Who the process is.
    pub identity: Identity,
    /// The pod's hostname.
    pub hostname: String,
    /// The container's cgroup, relative to the hierarchies' roots.
    pub cgroup: String,
    /// The node's memory, for who is killed first.
    pub memory_capacity_bytes: i64,
    /// The pid namespace of the container that an ephemeral one looks into.
    pub target: Option<PathBuf>,
    /// Volumes and files, already resolved.
    pub mounts: Vec<Bind>,
    /// The filter for an ordinary container.
    pub default_seccomp: Option<LinuxSeccomp>,
    /// The filter of a `Localhost` profile.
    pub local_seccomp: Option<LinuxSeccomp>,
}

/// A path of the host inside the container.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Bind {
    pub source: PathBuf,
    pub target: String,
    pub read_only: bool,
    /// Read-only for everything mounted below, too.
    pub recursive_read_only: bool,
    /// `HostToContainer`, `Bidirectional`, or neither.
    pub propagation: Option<String>,
}

/// The specification of a container's process, mounts and limits. The error says which field cannot be met.
pub fn spec(pod: &Pod, container: &Container, parts: &Parts<'_>) -> Result<Spec, String> {
    let mut spec = Spec::default();
    spec.set_hostname(Some(parts.hostname.clone()));
    spec.set_process(Some(process(pod, container, parts)?));
    let context = container.security_context.as_ref();
    let mut root = Root::default();
    root.set_path("rootfs".into());
    root.set_readonly(Some(context.and_then(|c| c.read_only_root_filesystem) == Some(true)));
    spec.set_root(Some(root));
    spec.set_mounts(Some(mounts(container, &parts.mounts)));
    spec.set_linux(Some(linux(pod, container, parts)?));
    Ok(spec)
}

fn process(pod: &Pod, container: &Container, parts: &Parts<'_>) -> Result<Process, String> {
    let env = full_env(parts);
    let value = |name: &str| parts.env.iter().find(|(n, _)| n == name).map(|(_, v)| v);
    let given = |list: &Option<Vec<String>>| -> Option<Vec<String>> {
        list.as_ref().filter(|l| !l.is_empty()).map(|l| l.iter().map(|word| expand(word, value)).collect())
    };
    let args = arguments(given(&container.command), given(&container.args), parts);
    if args.is_empty() {
        return Err("no command specified".into());
    }
    let mut process = Process::default();
    process.set_terminal(Some(container.tty == Some(true)));
    process.set_args(Some(args));
    process.set_env(Some(env));
    let dir = container.working_dir.as_deref().filter(|d| !d.is_empty()).unwrap_or(parts.working_dir);
    process.set_cwd(if dir.is_empty() { "/".into() } else { dir.into() });
    process.set_user(user(&parts.identity));
    process.set_capabilities(Some(capabilities(container)));
    process.set_no_new_privileges(Some(security::no_new_privileges(container)));
    process.set_oom_score_adj(Some(oom_score_adj(pod, container, parts.memory_capacity_bytes)));
    process.set_rlimits(None);
    Ok(process)
}

/// A command of the pod's replaces the image's entry point and command, arguments alone only its command.
fn arguments(command: Option<Vec<String>>, args: Option<Vec<String>>, parts: &Parts<'_>) -> Vec<String> {
    match (command, args) {
        (Some(command), args) => [command, args.unwrap_or_default()].concat(),
        (None, Some(args)) => [parts.entrypoint.to_vec(), args].concat(),
        (None, None) => [parts.entrypoint.to_vec(), parts.cmd.to_vec()].concat(),
    }
}

/// PATH, HOSTNAME and HOME where nobody sets them, the image's variables, then the container's.
fn full_env(parts: &Parts<'_>) -> Vec<String> {
    let mut env: Vec<(String, String)> = vec![
        ("PATH".into(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()),
        ("HOSTNAME".into(), parts.hostname.clone()),
        ("HOME".into(), parts.identity.home.clone().unwrap_or_else(|| "/".into())),
    ];
    let image = parts.image_env.iter().filter_map(|v| v.split_once('=')).map(|(n, v)| (n.to_owned(), v.to_owned()));
    for (name, value) in image.chain(parts.env.iter().cloned()) {
        match env.iter_mut().find(|(n, _)| *n == name) {
            Some((_, old)) => *old = value,
            None => env.push((name, value)),
        }
    }
    env.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn user(identity: &Identity) -> User {
    let mut user = User::default();
    user.set_uid(identity.uid);
    user.set_gid(identity.gid);
    user.set_additional_gids(Some(identity.groups.clone()));
    user
}

/// The capabilities of a container as OCI names them.
pub fn capability_set(container: &Container) -> Capabilities {
    let parse = |name: &String| serde_json::from_value::<Capability>(name.as_str().into()).ok();
    security::capabilities(container).iter().filter_map(parse).collect()
}

/// Nothing is inheritable, so that no child gains what its parent has dropped.
fn capabilities(container: &Container) -> LinuxCapabilities {
    let set = capability_set(container);
    let mut capabilities = LinuxCapabilities::default();
    capabilities.set_bounding(Some(set.clone()));
    capabilities.set_effective(Some(set.clone()));
    capabilities.set_permitted(Some(set));
    capabilities.set_inheritable(None);
    capabilities.set_ambient(None);
    capabilities
}

fn linux(pod: &Pod, container: &Container, parts: &Parts<'_>) -> Result<Linux, String> {
    let privileged = security::privileged(container);
    let mut linux = Linux::default();
    let mut resources = limits::of_container(container);
    if privileged {
        let mut all = LinuxDeviceCgroup::default();
        all.set_allow(true);
        all.set_access(Some("rwm".into()));
        resources.set_devices(Some(vec![all]));
    }
    linux.set_resources(Some(resources));
    linux.set_cgroups_path(Some(parts.cgroup.clone().into()));
    linux.set_namespaces(parts.target.clone().map(|path| {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(LinuxNamespaceType::Pid).set_path(Some(path));
        vec![namespace]
    }));
    let unmasked = container.security_context.as_ref().and_then(|c| c.proc_mount.as_deref()) == Some("Unmasked");
    let paths = |list: &[&str]| (!privileged && !unmasked).then(|| list.iter().map(|p| (*p).into()).collect());
    linux.set_masked_paths(paths(&MASKED));
    linux.set_readonly_paths(paths(&READ_ONLY));
    linux.set_seccomp(seccomp(pod, container, parts)?);
    Ok(linux)
}

/// The container's profile, else the pod's, else the default one; privileged containers have none.
fn seccomp(pod: &Pod, container: &Container, parts: &Parts<'_>) -> Result<Option<LinuxSeccomp>, String> {
    let own = container.security_context.as_ref().and_then(|c| c.seccomp_profile.as_ref());
    let of_pod = pod.spec.as_ref().and_then(|s| s.security_context.as_ref()).and_then(|c| c.seccomp_profile.as_ref());
    match own.or(of_pod).map(|p| p.type_.as_str()) {
        _ if security::privileged(container) => Ok(None),
        Some("Unconfined") => Ok(None),
        Some("Localhost") => match &parts.local_seccomp {
            None => Err("failed to generate seccomp spec opts: seccomp profile is not there".into()),
            profile => Ok(profile.clone()),
        },
        _ => Ok(parts.default_seccomp.clone()),
    }
}

/// File systems of the kernel, then the pod's, shorter paths first.
fn mounts(container: &Container, binds: &[Bind]) -> Vec<Mount> {
    let privileged = security::privileged(container);
    let system = if privileged { "rw" } else { "ro" };
    let mut list = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", system]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", system]),
    ];
    let mut binds: Vec<&Bind> = binds.iter().collect();
    binds.sort_by_key(|b| b.target.matches('/').count());
    list.extend(binds.into_iter().map(bind));
    list
}

fn mount(target: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount.set_destination(target.into());
    mount.set_typ(Some(kind.into()));
    mount.set_source(Some(source.into()));
    mount.set_options(Some(options.iter().map(|o| (*o).into()).collect()));
    mount
}

fn bind(bind: &Bind) -> Mount {
    let propagation = match bind.propagation.as_deref() {
        Some("Bidirectional") => "rshared",
        Some("HostToContainer") => "rslave",
        _ => "rprivate",
    };
    let access = match (bind.read_only, bind.recursive_read_only) {
        (true, true) => "rro",
        (true, false) => "ro",
        (false, _) => "rw",
    };
    mount(&bind.target, "bind", &bind.source.to_string_lossy(), &["rbind", propagation, access])
}

/// A volume mount as a bind, without its source.
pub fn bind_of(mount: &VolumeMount) -> Bind {
    let read_only = mount.read_only == Some(true);
    let recursive = matches!(mount.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible"));
    Bind {
        source: PathBuf::new(),
        target: mount.mount_path.clone(),
        read_only,
        recursive_read_only: read_only && recursive,
        propagation: mount.mount_propagation.clone(),
    }
}

/// The part of a volume that is mounted: `subPath`, or `subPathExpr` with the container's variables in it. The error
/// names a variable that is not set.
pub fn sub_path(mount: &VolumeMount, env: &[(String, String)]) -> Result<Option<String>, String> {
    if let Some(path) = mount.sub_path.as_ref().filter(|p| !p.is_empty()) {
        return Ok(Some(path.clone()));
    }
    let Some(text) = mount.sub_path_expr.as_ref().filter(|p| !p.is_empty()) else { return Ok(None) };
    let path = expand(text, |name| env.iter().find(|(n, _)| n == name).map(|(_, v)| v));
    match path.contains("$(") {
        true => Err(format!("missing value for subPathExpr {text}")),
        false => Ok(Some(path)),
    }
}
