//! `create` and `run`.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;

use oci_spec::runtime::{Linux, LinuxNamespaceType, LinuxResources, Mount, Spec};
use rustix::process::{Signal, geteuid};

use super::arguments::Arguments;
use super::attached::Attached;
use super::container::{Container, Place, Status, is_zombie};
use super::namespaces::{Namespaces, path_of};
use super::{Cgroups, Global, Level, document, foreground, hooks, notify, protect};
use crate::cgroup::{self, Group, Host, Named, Placeholder, Unit};
use crate::launch::{self, Files, Init, NEW_MOUNT, Started};
use crate::process::Prepared;
use crate::rootfs::{self, Plan, Sources};
use crate::{Error, Result, seccomp};

/// What the command line says.
#[derive(Debug, Default)]
struct Options {
    id: String,
    bundle: PathBuf,
    config: PathBuf,
    pid_file: Option<PathBuf>,
    console_socket: Option<PathBuf>,
    pidfd_socket: Option<PathBuf>,
    preserve_fds: u32,
    detach: bool,
    keep: bool,
    /// Ours is the container's, too.
    own_keyring: bool,
    /// The host's root is the initramfs.
    no_pivot: bool,
}

/// `create`: everything but the program runs.
pub(super) fn create(global: &Global, arguments: &mut Arguments) -> Result<()> {
    protect();
    let options = options(arguments)?;
    let mut spec = load_spec(global, &options)?;
    let mut container = reserve(global, &options, &mut spec)?;
    let made = start(global, &mut container, &spec, &options, true).and_then(|started| {
        hand_over_terminal(&options, &started)?;
        tell_pid(&options, &started)
    });
    made.inspect_err(|_| undo(global, &container, &spec))
}

/// `run`: create, start, and unless detached wait and delete.
pub(super) fn run(global: &Global, arguments: &mut Arguments) -> Result<ExitCode> {
    protect();
    let options = options(arguments)?;
    let mut spec = load_spec(global, &options)?;
    let mut container = reserve(global, &options, &mut spec)?;
    let signals = if options.detach { None } else { Some(foreground::signals()?) };
    let relay = notify::listen(container.dir()).inspect_err(|_| undo(global, &container, &spec))?;
    let started = start(global, &mut container, &spec, &options, false);
    let started = started.inspect_err(|_| undo(global, &container, &spec))?;
    let begun = tell_pid(&options, &started)
        .and_then(|()| if options.console_socket.is_some() { hand_over_terminal(&options, &started) } else { Ok(()) })
        .and_then(|()| {
            let hook_list = spec.hooks().as_ref().and_then(|h| h.poststart().as_ref());
            hooks::run("poststart", hook_list, &container.state_as(Status::Running, Some(&spec)), None)
        });
    begun.inspect_err(|_| undo(global, &container, &spec))?;
    let Some(signals) = signals else {
        // It runs: what is not heard of it is no reason to end it.
        let told = relay.map_or(Ok(()), |relay| relay.wait(started.pid, &started.pidfd));
        told.unwrap_or_else(|e| global.say(Level::Warning, &e.to_string()));
        return Ok(ExitCode::SUCCESS);
    };
    let terminal = started.terminal.filter(|_| options.console_socket.is_none());
    let code = foreground::wait(&started.pidfd, terminal, &signals, relay)?;
    if !options.keep {
        super::take_away(global, &container, Some(&spec))?;
    }
    Ok(code)
}

fn options(arguments: &mut Arguments) -> Result<Options> {
    let mut options = Options { bundle: ".".into(), config: "config.json".into(), ..Options::default() };
    while let Some(option) = arguments.option() {
        let mut value = || arguments.value(&option);
        match option.as_str() {
            "-b" | "--bundle" => options.bundle = value()?.into(),
            "-f" | "--config" => options.config = value()?.into(),
            "--pid-file" => options.pid_file = Some(value()?.into()),
            "--console-socket" => options.console_socket = Some(value()?.into()),
            "--pidfd-socket" => options.pidfd_socket = Some(value()?.into()),
            "--preserve-fds" => options.preserve_fds = preserved(&value()?)?,
            "-d" | "--detach" => options.detach = true,
            "--keep" => options.keep = true,
            "--no-new-keyring" => options.own_keyring = true,
            "--no-pivot" => options.no_pivot = true,
            // Processes of the container are its own to reap.
            "--no-subreaper" => {}
            other => return Err(Error::Invalid(format!("unknown option {other}"))),
        }
    }
    options.id = arguments.only_id()?;
    // Before what is made of it.
    crate::protocol::check_id(&options.id)?;
    options.bundle = std::fs::canonicalize(&options.bundle)
        .map_err(|e| Error::System(format!("bundle {}", options.bundle.display()), e))?;
    Ok(options)
}

pub(super) fn number(text: &str) -> Result<u32> {
    crate::decimal(text).ok_or_else(|| Error::Invalid(format!("{text:?} is not a number")))
}

/// More descriptors than a process can have (fs.nr_open) are a mistake.
pub(super) fn preserved(text: &str) -> Result<u32> {
    const MOST: u32 = 1 << 30;
    let count = number(text)?;
    if count > MOST {
        return Err(Error::Invalid(format!("--preserve-fds: {count} is more than a process can have")));
    }
    Ok(count)
}

fn load_spec(global: &Global, options: &Options) -> Result<Spec> {
    let document = document::spec(&options.bundle.join(&options.config))?;
    document.warnings.iter().for_each(|warning| global.say(Level::Warning, warning));
    Ok(document.content)
}

fn reserve(global: &Global, options: &Options, spec: &mut Spec) -> Result<Container> {
    let own = || Host::discover().map(|host| if global.rootless { host.delegated() } else { Some(host.own()) });
    let place = match (global.cgroups, named_cgroup(spec)) {
        (Cgroups::None, _) => Place::None,
        (Cgroups::Systemd, _) if !global.host_root => {
            let what = "--systemd-cgroup: for root of the host alone: the bus of a user is not used";
            return Err(Error::Invalid(what.to_owned()));
        }
        (Cgroups::Systemd, path) => Place::Unit(Unit::named(path, &options.id)?),
        (Cgroups::Files, Some(path)) if path.is_absolute() => Place::Path(path.to_owned()),
        (Cgroups::Files, Some(path)) => Place::Path(own()?.unwrap_or_default().join(path)),
        (Cgroups::Files, None) => own()?.map_or(Place::None, |own| Place::Path(own.join(&options.id))),
    };
    if let Place::Path(path) = &place {
        cgroup::clean(path).map_err(|e| Error::Invalid(format!("linux.cgroupsPath: {e}")))?;
    }
    Container::reserve(&global.root, &options.id, &options.bundle, spec, place)
}

fn named_cgroup(spec: &Spec) -> Option<&Path> {
    let path = spec.linux().as_ref().and_then(|l| l.cgroups_path().as_deref());
    path.filter(|path| !path.as_os_str().is_empty())
}

/// The limits of a container. Who is not root of the host may not rule over devices, and need not: he opens none that he
/// could not open outside.
fn limits(global: &Global, spec: &Spec) -> Option<LinuxResources> {
    let mut resources = spec.linux().as_ref()?.resources().clone().filter(|_| global.cgroups != Cgroups::None)?;
    if !global.host_root {
        resources.set_devices(None);
    }
    Some(resources)
}

/// Makes the rest of the container's cgroup, with limits where it is ours alone. Limits that somebody asks for, and a cgroup that he
/// names, he has to get.
fn finish_cgroup(
    global: &Global,
    container: &Container,
    host: &Host,
    group: &Group,
    spec: &Spec,
    limits: Option<&LinuxResources>,
) -> Result<()> {
    host.finish(group, limits.filter(|_| container.unit.is_none()))?;
    let wanted = global.cgroups != Cgroups::None && (!global.rootless || named_cgroup(spec).is_some());
    if host.is_nowhere(group) && wanted && !global.host_root {
        let place = container.cgroup.display();
        return Err(Error::Invalid(format!("linux.cgroupsPath: permission denied to make cgroup {place}")));
    }
    Ok(())
}

/// Takes back what a failed create has made. A cgroup that others are in is not ours. Hooks that have run have others that
/// clean up behind them (runtime.md, Lifecycle 3 to 5, 9 and 13).
fn undo(global: &Global, container: &Container, spec: &Spec) {
    if let Some(process) = container.ready() {
        let _ = rustix::process::pidfd_send_signal(&process, Signal::KILL);
        crate::destroy::wait_for_end(&process);
    }
    if container.owns_cgroup {
        let _ = match &container.unit {
            Some(_) => container.remove_cgroup(None),
            None => container.host().and_then(|host| crate::destroy::remove_cgroup(&host, &container.cgroup)),
        };
    }
    let namespace = container.attached.as_ref().and_then(|attached| attached.namespace(None));
    super::detach(global, container, namespace.as_ref());
    let _ = container.forget();
    if container.hooked.get() {
        super::run_poststop(global, Some(spec), &container.state_as(Status::Stopped, Some(spec)));
    }
}

fn start(global: &Global, container: &mut Container, spec: &Spec, options: &Options, gated: bool) -> Result<Started> {
    let linux = spec.linux().as_ref().ok_or_else(|| Error::Invalid("linux: missing".to_owned()))?;
    let namespaces = Namespaces::of(linux)?;
    let own_users = namespaces.user.is_some() || namespaces.user_map.is_some();
    let prepared = prepare(global, spec, linux, options, gated, own_users)?;
    let host = container.host()?;
    host.refuse_used(&container.cgroup)?;
    let limits = limits(global, spec);
    // A unit that is there already is somebody's, even if nothing runs in it.
    let placeholder: Option<Placeholder> = match &container.unit {
        Some(unit) => {
            let devices = limits.as_ref().and_then(|limits| host.unit_devices(limits));
            unit.start(&container.annotations, devices.as_deref())?
        }
        None => None,
    };
    container.owns_cgroup = true;
    let group = host.begin(&container.cgroup)?;
    let owner = owner_of_cgroup(spec, linux, &namespaces).filter(|_| global.host_root);
    let (own_mounts, pivot) = (namespaces.new & NEW_MOUNT != 0, !options.no_pivot);
    let opened = open_files(container, spec, (own_mounts, pivot), None);
    if let (Ok(plan), Some(root), false) = (&opened, spec.root(), own_mounts) {
        let mounts = linux.namespaces().iter().flatten().find(|n| n.typ() == LinuxNamespaceType::Mount);
        let namespace = mounts.and_then(path_of).map(Path::to_owned);
        container.attach(Attached::new(plan.root(), container.bundle.join(root.path()), namespace)?)?;
    }
    let shown = rootfs::shows_cgroups(spec);
    let open_inside = || {
        let host = container.discover()?;
        let cgroups = if shown { host.mounts(&host.open(&container.cgroup)?)? } else { Vec::new() };
        open_files(container, spec, (own_mounts, pivot), Some(cgroups))
    };
    let files = match opened {
        Err(e) if launch::is_refusal(&e) && !own_users && !geteuid().is_root() => {
            return Err(Error::Invalid(format!("linux.namespaces: without a user namespace only root may {e}")));
        }
        Err(e) if launch::is_refusal(&e) && own_mounts => Files::OpenedInside(&open_inside),
        plan => Files::Opened(plan?),
    };
    let state = container.state_as(Status::Creating, Some(spec));
    let hook_list = spec.hooks().as_ref();
    let create_hooks = || {
        // The host's /proc is still in sight, and knows us by the pid that the hook can use.
        let pid = std::fs::read_link("/proc/self").ok().and_then(|link| link.to_str()?.parse().ok());
        let state = state.with_pid(pid.unwrap_or_default());
        hooks::run("createContainer", hook_list.and_then(|h| h.create_container().as_ref()), &state, None)
    };
    let start_hooks = |env: &[CString]| match hook_list.and_then(|h| h.start_container().as_ref()) {
        // By the pid that it has inside, as far as its filter lets it know.
        Some(hooks) => {
            let pid = i32::try_from(std::process::id()).unwrap_or_default();
            hooks::run("startContainer", Some(hooks), &state.with_pid(pid), Some(env))
        }
        None => Ok(()),
    };
    let listener = |pid: i32, fd: OwnedFd| seccomp::notify(linux, &state.with_pid(pid), pid, &fd);
    let text = |value: &Option<String>| value.clone().filter(|v| !v.is_empty());
    // Root of a user namespace may not put a child into a cgroup of ours.
    let near = namespaces.user.is_none() && (namespaces.user_map.is_none() || namespaces.join.is_empty());
    let birthplace = host.birthplace(&group).filter(|_| near);
    let offered = shown && matches!(files, Files::Opened(_));
    let make_cgroups = || {
        finish_cgroup(global, container, &host, &group, spec, limits.as_ref())?;
        owner.map_or(Ok(()), |owner| host.give(&group, owner))?;
        host.seats(&group, offered)
    };
    let init = Init {
        process: &prepared,
        rootfs: files,
        new: namespaces.new,
        new_cgroup: namespaces.new_cgroup,
        new_time: namespaces.new_time,
        join: namespaces.join,
        pid_namespace: namespaces.pid.as_ref().map(AsFd::as_fd),
        user_map: namespaces.user_map,
        user_namespace: namespaces.user.as_ref().map(AsFd::as_fd),
        hostname: text(spec.hostname()),
        domainname: text(spec.domainname()),
        sysctls: linux.sysctl().clone().unwrap_or_default().into_iter().collect(),
        born_in: birthplace,
        cgroups: &make_cgroups,
        // systemd gives up a scope that has nobody in it; devices go to the namespaces that it is in by then.
        watched: hook_list.is_some() || container.unit.is_some() || linux.net_devices().is_some(),
        gate: if gated { Some(container.make_gate()?) } else { None },
        before_pivot: Some(&create_hooks),
        before_exec: Some(&start_hooks),
        listener: &listener,
    };
    let standard = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    let started = launch::start(&init, standard, |pid| {
        container.keep(spec)?;
        if init.born_in.is_none() {
            host.place_unified(&group, pid)?;
        }
        if container.unit.is_some() {
            // Nobody else is limited with it, or counted.
            drop(placeholder);
            let limited = limits.as_ref().map_or(Ok(()), |limits| container.limit(&group, limits));
            // One that has ended, and its unit with it, has said itself why.
            limited.or_else(|e| if is_zombie(pid) { Ok(()) } else { Err(e) })?;
        }
        if let Some(devices) = linux.net_devices() {
            crate::network_devices::move_all(devices, pid)?;
        }
        if hook_list.is_some() {
            container.hooked.set(true);
            // Those may ask for it.
            container.creating(pid)?;
        }
        let state = state.with_pid(pid);
        #[allow(deprecated)]
        let early = hook_list.and_then(|h| h.prestart().as_ref());
        hooks::run("prestart", early, &state, None)?;
        hooks::run("createRuntime", hook_list.and_then(|h| h.create_runtime().as_ref()), &state, None)
    })?;
    container.started(started.pid)?;
    Ok(started)
}

/// Who outside is the user of a container that may make cgroups below its own: it has a cgroup namespace, and cgroups that
/// it may write to (config-linux.md, Cgroup ownership).
fn owner_of_cgroup(spec: &Spec, linux: &Linux, namespaces: &Namespaces) -> Option<u32> {
    let is_cgroups = |mount: &&Mount| {
        let source = mount.source().as_deref() == Some(Path::new("cgroup"));
        source && mount.destination() == Path::new("/sys/fs/cgroup")
    };
    let mount = spec.mounts().iter().flatten().find(is_cgroups)?;
    let read_only = mount.options().iter().flatten().any(|option| option == "ro");
    let user = spec.process().as_ref()?.user().uid();
    let known = namespaces.new_cgroup && namespaces.user.is_none() && !read_only;
    let maps = linux.uid_mappings().as_deref().filter(|_| namespaces.user_map.is_some());
    known.then(|| crate::devices::outside(maps, user)).filter(|owner| *owner != 0)
}

/// Opens what the container's file system is made of.
fn open_files(
    container: &Container,
    spec: &Spec,
    (own_mounts, pivot): (bool, bool),
    cgroups: Option<Vec<Named>>,
) -> Result<Plan> {
    let root = spec.root().as_ref().ok_or_else(|| Error::Invalid("root: missing".to_owned()))?;
    let sources = Sources {
        rootfs: None,
        bundle: &container.bundle,
        attach_to: &container.bundle.join(root.path()),
        users: None,
        own_mounts,
        pivot,
        cgroups,
    };
    rootfs::plan(spec, sources)
}

/// The first process, as its specification and the command line have it.
fn prepare(
    global: &Global,
    spec: &Spec,
    linux: &Linux,
    options: &Options,
    gated: bool,
    own_users: bool,
) -> Result<Prepared> {
    let process = spec.process().as_ref().ok_or_else(|| Error::Invalid("process: missing".to_owned()))?;
    if process.terminal().unwrap_or(false) && options.console_socket.is_none() && (gated || options.detach) {
        return Err(Error::Invalid("process.terminal: needs --console-socket".to_owned()));
    }
    if options.console_socket.is_some() && !process.terminal().unwrap_or(false) {
        return Err(Error::Invalid("--console-socket: process.terminal is not set".to_owned()));
    }
    let seccomp = linux.seccomp().as_ref().map(crate::seccomp::compile).transpose()?;
    if let Some(program) = &seccomp {
        global.say(Level::Debug, &format!("seccomp filter flags: {}", program.flags()));
    }
    let mut prepared = Prepared::of(process, seccomp.map(Rc::new), own_users)?
        .in_container(Some(linux))?
        .with_preserved_fds(options.preserve_fds)
        .with_listen_fds(global.listen_fds);
    prepared.scheduling.forget_affinity();
    prepared.plain_newlines = options.console_socket.is_none();
    prepared.new_keyring = !options.own_keyring;
    prepared.insists_on_oom_score = !own_users && global.host_root;
    prepared.warnings().iter().for_each(|warning| global.say(Level::Warning, warning));
    Ok(prepared)
}

/// Writes the pid file, and sends the descriptor of the process to whoever wants it.
fn tell_pid(options: &Options, started: &Started) -> Result<()> {
    if let Some(socket) = &options.pidfd_socket {
        send_descriptor(socket, b"pidfd", started.pidfd.as_fd())?;
    }
    write_pid_file(options.pid_file.as_deref(), started.pid)
}

fn hand_over_terminal(options: &Options, started: &Started) -> Result<()> {
    match (&options.console_socket, &started.terminal) {
        (Some(socket), Some(terminal)) => send_terminal(socket, terminal.as_fd()),
        _ => Ok(()),
    }
}

/// Sends a terminal's master over a unix socket, as runc's callers expect it.
pub(super) fn send_terminal(socket: &Path, terminal: BorrowedFd<'_>) -> Result<()> {
    send_descriptor(socket, b"/dev/ptmx", terminal)
}

/// Sends a descriptor over a unix socket, with a word beside it.
pub(super) fn send_descriptor(socket: &Path, word: &[u8], fd: BorrowedFd<'_>) -> Result<()> {
    let what = || format!("send {} to {}", String::from_utf8_lossy(word), socket.display());
    let stream = std::os::unix::net::UnixStream::connect(socket).map_err(|e| Error::System(what(), e))?;
    crate::channel::send_with_fds(stream.as_fd(), word, &[fd]).map_err(|e| Error::System(what(), e))
}

pub(super) fn write_pid_file(path: Option<&Path>, pid: i32) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let temporary = path.with_file_name(format!(".{}", path.file_name().unwrap_or_default().to_string_lossy()));
    let written = std::fs::write(&temporary, pid.to_string()).and_then(|()| std::fs::rename(&temporary, path));
    written.map_err(|e| Error::System(format!("write {}", path.display()), e))
}
