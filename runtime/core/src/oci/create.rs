//! `create` and `run`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use oci_spec::runtime::{LinuxIdMapping, LinuxNamespace, LinuxNamespaceType, LinuxPersonalityDomain, Spec};
use rustix::fs::{Mode, OFlags};
use rustix::thread::LinkNameSpaceType;

use super::arguments::Arguments;
use super::container::Container;
use super::{Global, foreground, hooks, protect};
use crate::cgroup::{self, Host};
use crate::launch::{self, IdMaps, Init, NEW_IPC, NEW_MOUNT, NEW_NET, NEW_PID, NEW_USER, NEW_UTS, Started};
use crate::process::Prepared;
use crate::rootfs::{self, Sources};
use crate::{Error, Result, failed};

/// What the command line says.
#[derive(Debug, Default)]
struct Options {
    id: String,
    bundle: PathBuf,
    pid_file: Option<PathBuf>,
    console_socket: Option<PathBuf>,
    preserve_fds: u32,
    detach: bool,
    keep: bool,
}

/// `create`: everything but the program runs.
pub(super) fn create(global: &Global, arguments: &mut Arguments) -> Result<()> {
    protect();
    let options = options(arguments)?;
    let spec = load_spec(&options.bundle)?;
    let mut container = reserve(global, &options, &spec)?;
    let made = start(&mut container, &spec, &options, true).and_then(|started| {
        hand_over_terminal(&options, &started)?;
        write_pid_file(options.pid_file.as_deref(), started.pid)
    });
    made.inspect_err(|_| undo(&container))
}

/// `run`: create, start, and unless detached wait and delete.
pub(super) fn run(global: &Global, arguments: &mut Arguments) -> Result<ExitCode> {
    protect();
    let options = options(arguments)?;
    let spec = load_spec(&options.bundle)?;
    let mut container = reserve(global, &options, &spec)?;
    let signals = if options.detach { None } else { Some(foreground::signals()?) };
    let started = start(&mut container, &spec, &options, false).inspect_err(|_| undo(&container))?;
    let begun = write_pid_file(options.pid_file.as_deref(), started.pid)
        .and_then(|()| if options.console_socket.is_some() { hand_over_terminal(&options, &started) } else { Ok(()) })
        .and_then(|()| hooks::run(spec.hooks().as_ref().and_then(|h| h.poststart().as_ref()), &container.oci_state()));
    begun.inspect_err(|_| undo(&container))?;
    let Some(signals) = signals else { return Ok(ExitCode::SUCCESS) };
    let terminal = started.terminal.filter(|_| options.console_socket.is_none());
    let code = foreground::wait(started.pid, &started.pidfd, terminal, &signals)?;
    if !options.keep {
        super::remove(&container, true)?;
    }
    Ok(code)
}

fn options(arguments: &mut Arguments) -> Result<Options> {
    let mut options = Options { bundle: PathBuf::from("."), ..Options::default() };
    while let Some(option) = arguments.option() {
        let mut value = || arguments.value(&option);
        match option.as_str() {
            "-b" | "--bundle" => options.bundle = value()?.into(),
            "--pid-file" => options.pid_file = Some(value()?.into()),
            "--console-socket" => options.console_socket = Some(value()?.into()),
            "--preserve-fds" => options.preserve_fds = number(&value()?)?,
            "-d" | "--detach" => options.detach = true,
            "--keep" => options.keep = true,
            // The root is always entered by pivot_root, the keyring is always new.
            "--no-pivot" | "--no-new-keyring" | "--no-subreaper" => {}
            other => return Err(Error::Invalid(format!("unknown option {other}"))),
        }
    }
    options.id = arguments.positional("a container id")?;
    options.bundle = std::fs::canonicalize(&options.bundle)
        .map_err(|e| Error::System(format!("bundle {}", options.bundle.display()), e))?;
    // Absolute before anything changes the directory.
    Ok(options)
}

pub(super) fn number(text: &str) -> Result<u32> {
    text.parse().map_err(|_| Error::Invalid(format!("{text:?} is not a number")))
}

fn load_spec(bundle: &Path) -> Result<Spec> {
    let path = bundle.join("config.json");
    let spec: Spec = crate::files::read(&path)?;
    if !spec.version().starts_with("1.") {
        return Err(Error::Invalid(format!("ociVersion: {:?} is not 1.x", spec.version())));
    }
    if spec.linux().is_none() {
        return Err(Error::Invalid("linux: missing".to_owned()));
    }
    Ok(spec)
}

fn reserve(global: &Global, options: &Options, spec: &Spec) -> Result<Container> {
    let path = spec.linux().as_ref().and_then(|l| l.cgroups_path().clone()).filter(|p| !p.as_os_str().is_empty());
    let cgroup = match path {
        Some(path) if path.is_absolute() => path,
        Some(path) => cgroup::own_path().join(path),
        None => cgroup::own_path().join(&options.id),
    };
    Container::reserve(&global.root, &options.id, &options.bundle, spec, &cgroup)
}

/// Takes back what a failed create has made.
fn undo(container: &Container) {
    let _ = Host::discover().and_then(|host| crate::destroy::remove_cgroup(&host, &container.cgroup));
    let _ = container.forget();
}

fn start(container: &mut Container, spec: &Spec, options: &Options, gated: bool) -> Result<Started> {
    let linux = spec.linux().as_ref();
    let process = spec.process().as_ref().ok_or_else(|| Error::Invalid("process: missing".to_owned()))?;
    if process.terminal().unwrap_or(false) && options.console_socket.is_none() && (gated || options.detach) {
        return Err(Error::Invalid("process.terminal: needs --console-socket".to_owned()));
    }
    let seccomp = linux.and_then(|l| l.seccomp().as_ref()).map(crate::seccomp::compile).transpose()?;
    let prepared =
        Prepared::of(process, seccomp)?.with_personality(personality(spec)).with_preserved_fds(options.preserve_fds);
    let host = Host::discover()?;
    let group = host.create(&container.cgroup, linux.and_then(|l| l.resources().as_ref()))?;
    let wants_cgroups =
        spec.mounts().iter().flatten().any(|m| m.typ().as_deref().is_some_and(|t| t.starts_with("cgroup")));
    let plan = rootfs::plan(
        spec,
        Sources {
            rootfs: None,
            bundle: &container.bundle,
            attach_to: &container.bundle,
            users: None,
            cgroups: if wants_cgroups { host.mounts(&group)? } else { Vec::new() },
        },
    )?;
    let namespaces = Namespaces::of(linux.and_then(|l| l.namespaces().as_deref()).unwrap_or_default())?;
    let state = container.oci_state();
    let at = |pid: i32| with_pid(&state, pid);
    let hook_list = spec.hooks().as_ref();
    let create_hooks = || hooks::run(hook_list.and_then(|h| h.create_container().as_ref()), &state);
    let start_hooks = || hooks::run(hook_list.and_then(|h| h.start_container().as_ref()), &state);
    let text = |value: &Option<String>| value.clone().filter(|v| !v.is_empty());
    let init = Init {
        process: &prepared,
        rootfs: &plan,
        new: namespaces.new,
        new_cgroup: namespaces.new_cgroup,
        join: namespaces.join,
        pid_namespace: namespaces.pid.as_ref().map(AsFd::as_fd),
        user_map: user_map(spec, namespaces.new & NEW_USER != 0)?,
        user_namespace: None,
        hostname: text(spec.hostname()),
        domainname: text(spec.domainname()),
        sysctls: linux.and_then(|l| l.sysctl().clone()).unwrap_or_default().into_iter().collect(),
        born_in: host.birthplace(&group),
        gate: if gated { Some(container.make_gate()?) } else { None },
        before_pivot: Some(&create_hooks),
        before_exec: Some(&start_hooks),
    };
    let standard = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    let started = launch::start(&init, standard, |pid| {
        if init.born_in.is_none() {
            host.place(&group, pid)?;
        }
        #[allow(deprecated)]
        let early = hook_list.and_then(|h| h.prestart().as_ref());
        hooks::run(early, &at(pid))?;
        hooks::run(hook_list.and_then(|h| h.create_runtime().as_ref()), &at(pid))
    })?;
    container.started(started.pid)?;
    Ok(started)
}

fn with_pid(state: &serde_json::Value, pid: i32) -> serde_json::Value {
    let mut state = state.clone();
    if let Some(object) = state.as_object_mut() {
        object.insert("pid".to_owned(), pid.into());
    }
    state
}

fn personality(spec: &Spec) -> Option<u64> {
    let personality = spec.linux().as_ref()?.personality().as_ref()?;
    Some(match personality.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    })
}

/// The namespaces of a spec, opened or to be made.
#[derive(Default)]
struct Namespaces {
    new: u64,
    new_cgroup: bool,
    join: Vec<(LinkNameSpaceType, OwnedFd)>,
    pid: Option<OwnedFd>,
}

impl Namespaces {
    fn of(listed: &[LinuxNamespace]) -> Result<Self> {
        let mut namespaces = Self::default();
        for (at, namespace) in listed.iter().enumerate() {
            if listed.iter().skip(at + 1).any(|other| other.typ() == namespace.typ()) {
                return Err(Error::Invalid(format!("linux.namespaces: {} occurs twice", namespace.typ())));
            }
            match namespace.path() {
                Some(path) if !path.as_os_str().is_empty() => namespaces.join(namespace.typ(), path)?,
                _ => namespaces.make(namespace.typ())?,
            }
        }
        if namespaces.new & NEW_MOUNT == 0 {
            return Err(Error::Invalid("linux.namespaces: a mount namespace of its own is needed".to_owned()));
        }
        Ok(namespaces)
    }

    fn make(&mut self, kind: LinuxNamespaceType) -> Result<()> {
        match kind {
            LinuxNamespaceType::Mount => self.new |= NEW_MOUNT,
            LinuxNamespaceType::Pid => self.new |= NEW_PID,
            LinuxNamespaceType::Network => self.new |= NEW_NET,
            LinuxNamespaceType::Ipc => self.new |= NEW_IPC,
            LinuxNamespaceType::Uts => self.new |= NEW_UTS,
            LinuxNamespaceType::User => self.new |= NEW_USER,
            LinuxNamespaceType::Cgroup => self.new_cgroup = true,
            LinuxNamespaceType::Time => return Err(unsupported("a time namespace")),
        }
        Ok(())
    }

    fn join(&mut self, kind: LinuxNamespaceType, path: &Path) -> Result<()> {
        let what = || format!("linux.namespaces: open {}", path.display());
        let namespace =
            rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(failed(what))?;
        let kind = match kind {
            LinuxNamespaceType::Pid => {
                self.pid = Some(namespace);
                return Ok(());
            }
            LinuxNamespaceType::Network => LinkNameSpaceType::Network,
            LinuxNamespaceType::Ipc => LinkNameSpaceType::InterProcessCommunication,
            LinuxNamespaceType::Uts => LinkNameSpaceType::HostNameAndNISDomainName,
            LinuxNamespaceType::Cgroup => LinkNameSpaceType::ControlGroup,
            LinuxNamespaceType::Mount => return Err(unsupported("joining a mount namespace")),
            LinuxNamespaceType::User => return Err(unsupported("joining a user namespace")),
            LinuxNamespaceType::Time => return Err(unsupported("a time namespace")),
        };
        self.join.push((kind, namespace));
        Ok(())
    }
}

fn unsupported(what: &str) -> Error {
    Error::Invalid(format!("linux.namespaces: {what} is not supported"))
}

fn user_map(spec: &Spec, wanted: bool) -> Result<Option<IdMaps>> {
    if !wanted {
        return Ok(None);
    }
    let linux = spec.linux().as_ref();
    let text = |field: &str, maps: Option<&Vec<LinuxIdMapping>>| {
        let lines: Vec<String> = maps
            .into_iter()
            .flatten()
            .map(|m| format!("{} {} {}\n", m.container_id(), m.host_id(), m.size()))
            .collect();
        if lines.is_empty() { Err(Error::Invalid(format!("linux.{field}: missing"))) } else { Ok(lines.concat()) }
    };
    let uid = text("uidMappings", linux.and_then(|l| l.uid_mappings().as_ref()))?;
    let gid = text("gidMappings", linux.and_then(|l| l.gid_mappings().as_ref()))?;
    Ok(Some(IdMaps { uid, gid }))
}

fn hand_over_terminal(options: &Options, started: &Started) -> Result<()> {
    match (&options.console_socket, &started.terminal) {
        (Some(socket), Some(terminal)) => send_terminal(socket, terminal.as_fd()),
        _ => Ok(()),
    }
}

/// Sends a terminal's master over a unix socket, as runc's callers expect it.
pub(super) fn send_terminal(socket: &Path, terminal: BorrowedFd<'_>) -> Result<()> {
    let what = || format!("send the terminal to {}", socket.display());
    let stream = std::os::unix::net::UnixStream::connect(socket).map_err(|e| Error::System(what(), e))?;
    crate::channel::send_with_fds(stream.as_fd(), b"/dev/ptmx", &[terminal]).map_err(|e| Error::System(what(), e))
}

pub(super) fn write_pid_file(path: Option<&Path>, pid: i32) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let temporary = path.with_file_name(format!(".{}", path.file_name().unwrap_or_default().to_string_lossy()));
    let written = std::fs::write(&temporary, pid.to_string()).and_then(|()| std::fs::rename(&temporary, path));
    written.map_err(|e| Error::System(format!("write {}", path.display()), e))
}
