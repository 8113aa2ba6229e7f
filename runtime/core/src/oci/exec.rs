//! `exec`: a process beside the first one.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;

use oci_spec::runtime::{Capabilities, Capability, Process, Spec};
use rustix::fs::{Mode, OFlags};
use rustix::thread::ThreadNameSpaceType;

use super::arguments::Arguments;
use super::container::{Container, Status};
use super::create::{number, preserved, send_descriptor, send_terminal, write_pid_file};
use super::{Global, Level, document, foreground, protect};
use crate::launch::{self, Join};
use crate::process::Prepared;
use crate::{Error, Result, failed, seccomp};

/// What the command line says.
#[derive(Debug, Default)]
pub(super) struct Options {
    process: Option<PathBuf>,
    pid_file: Option<PathBuf>,
    console_socket: Option<PathBuf>,
    pidfd_socket: Option<PathBuf>,
    preserve_fds: u32,
    detach: bool,
    tty: bool,
    ignore_paused: bool,
    /// (controllers, path below the container's cgroup).
    cgroups: Vec<(Vec<String>, PathBuf)>,
    cwd: Option<PathBuf>,
    user: Option<String>,
    groups: Vec<u32>,
    env: Vec<String>,
    capabilities: Vec<String>,
    no_new_privileges: bool,
    /// AppArmor's.
    profile: Option<String>,
    /// SELinux's.
    label: Option<String>,
    id: String,
    args: Vec<String>,
}

const NAMESPACES: [(&str, ThreadNameSpaceType); 7] = [
    ("time", ThreadNameSpaceType::TIME),
    ("user", ThreadNameSpaceType::USER),
    ("mnt", ThreadNameSpaceType::MOUNT),
    ("net", ThreadNameSpaceType::NETWORK),
    ("ipc", ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION),
    ("uts", ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME),
    ("cgroup", ThreadNameSpaceType::CONTROL_GROUP),
];

/// Runs a process in a container.
pub(super) fn exec(global: &Global, arguments: &mut Arguments) -> Result<ExitCode> {
    protect();
    let options = options(arguments)?;
    let container = Container::load(&global.root, &options.id)?;
    check_status(&container, options.ignore_paused)?;
    let target = container.process().ok_or_else(|| Error::State("container not running".to_owned()))?;
    let spec = container.spec()?;
    let linux = spec.linux().as_ref();
    let open = |name: &str| {
        let path = format!("/proc/{}/ns/{name}", container.pid);
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(failed(|| format!("open the {name} namespace")))
    };
    let pid_namespace = open("pid")?;
    let namespaces = differing(container.pid);
    let users = namespaces.contains(ThreadNameSpaceType::USER).then(|| open("user")).transpose()?;
    // In a mount namespace of somebody else's a container sees its own root alone.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = container.attached.as_ref().map(|_| {
        let root = rustix::fs::open(format!("/proc/{}/root", container.pid), flags, Mode::empty());
        root.map_err(failed(|| "open the container's root".to_owned()))
    });
    let root = root.transpose()?;
    let prepared = prepare(global, &options, &spec, users.is_some())?;
    let host = container.host()?;
    let group = host.open(&container.cgroup)?;
    let state = container.oci_state();
    let listener = |pid: i32, fd: OwnedFd| match linux {
        Some(linux) => seccomp::notify(linux, &state, pid, &fd),
        None => Ok(()),
    };
    let doors = if options.cgroups.is_empty() { host.doors(&group)? } else { Vec::new() };
    let join = Join {
        process: &prepared,
        target: target.as_fd(),
        namespaces,
        pid_namespace: Some(pid_namespace.as_fd()),
        user_namespace: users.as_ref().map(AsFd::as_fd),
        root: root.as_ref().map(AsFd::as_fd),
        // A group that processes may not be born in may still be one to fall back from.
        born_in: host
            .birthplace(&group)
            .filter(|_| options.cgroups.is_empty() && users.is_none() && host.takes_processes(&group)),
        doors: &doors,
        listener: &listener,
    };
    let signals = if options.detach { None } else { Some(foreground::signals()?) };
    let standard = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    let started = launch::join(&join, standard, |pid| match (join.born_in, options.cgroups.is_empty()) {
        (Some(_), _) => Ok(()),
        (None, true) => host.place_beside(&group, pid, container.pid),
        (None, false) => host.place_below(&group, pid, &options.cgroups),
    })?;
    if let Some(socket) = &options.pidfd_socket {
        send_descriptor(socket, b"pidfd", started.pidfd.as_fd())?;
    }
    write_pid_file(options.pid_file.as_deref(), started.pid).inspect_err(|_| end(&started.pidfd))?;
    let terminal = match (&options.console_socket, started.terminal) {
        (Some(socket), Some(master)) => send_terminal(socket, master.as_fd()).map(|()| None)?,
        (_, ours) => ours,
    };
    match signals {
        Some(signals) => foreground::wait(&started.pidfd, terminal, &signals, None),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// A process that nobody could find again.
fn end(pidfd: &OwnedFd) {
    let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
}

fn check_status(container: &Container, ignore_paused: bool) -> Result<()> {
    match container.status() {
        Status::Running | Status::Created => Ok(()),
        Status::Paused if ignore_paused => Ok(()),
        Status::Paused => Err(Error::State("cannot exec in a paused container (use --ignore-paused)".to_owned())),
        other => Err(Error::State(format!("cannot exec in a {} container", other.name()))),
    }
}

fn prepare(global: &Global, options: &Options, spec: &Spec, own_users: bool) -> Result<Prepared> {
    let base = spec.process().as_ref().ok_or_else(|| Error::Invalid("process: missing".to_owned()))?;
    let mut process = match &options.process {
        Some(path) => {
            let document = document::process(path)?;
            document.warnings.iter().for_each(|warning| global.say(Level::Warning, warning));
            from_file(document.content, base, options)
        }
        None => from_words(options, base)?,
    };
    label(&mut process, options, base);
    let linux = spec.linux().as_ref();
    let seccomp = linux.and_then(|l| l.seccomp().as_ref()).map(crate::seccomp::compile).transpose()?;
    let mut prepared = Prepared::of(&process, seccomp.map(Rc::new), own_users)?
        .in_container(linux)?
        .with_preserved_fds(options.preserve_fds);
    if let Some(mask) = prepared.scheduling.initial_mask() {
        global.say(Level::Debug, &format!("initial CPU affinity: {mask:#x}"));
    }
    prepared.plain_newlines = options.console_socket.is_none();
    prepared.insists_on_oom_score = !own_users && global.host_root;
    prepared.warnings().iter().for_each(|warning| global.say(Level::Warning, warning));
    if prepared.terminal && options.detach && options.console_socket.is_none() {
        return Err(Error::Invalid("process.terminal: needs --console-socket".to_owned()));
    }
    Ok(prepared)
}

pub(super) fn options(arguments: &mut Arguments) -> Result<Options> {
    let mut options = Options::default();
    while let Some(option) = arguments.leading_option() {
        let mut value = || arguments.value(&option);
        match option.as_str() {
            "-p" | "--process" => options.process = Some(value()?.into()),
            "--pid-file" => options.pid_file = Some(value()?.into()),
            "--console-socket" => options.console_socket = Some(value()?.into()),
            "--pidfd-socket" => options.pidfd_socket = Some(value()?.into()),
            "--preserve-fds" => options.preserve_fds = preserved(&value()?)?,
            "-d" | "--detach" => options.detach = true,
            "-t" | "--tty" => options.tty = true,
            "--cwd" => options.cwd = Some(value()?.into()),
            "-u" | "--user" => options.user = Some(value()?),
            "-g" | "--additional-gids" => {
                let list = value()?;
                options.groups.extend(list.split(',').map(|id| one_id(&option, id)).collect::<Result<Vec<_>>>()?);
            }
            "-e" | "--env" => options.env.push(value()?),
            "-c" | "--cap" => options.capabilities.push(value()?),
            "--cgroup" => options.cgroups.push(sub_cgroup(&value()?)?),
            "--no-new-privs" => options.no_new_privileges = true,
            "--ignore-paused" => options.ignore_paused = true,
            "--no-subreaper" => {}
            "--apparmor" => options.profile = Some(value()?),
            "--process-label" => options.label = Some(value()?),
            other => return Err(Error::Invalid(format!("exec: unknown option {other}"))),
        }
    }
    options.id = arguments.positional("a container id")?;
    options.args = arguments.rest();
    Ok(options)
}

fn one_id(option: &str, text: &str) -> Result<u32> {
    number(text).map_err(|e| Error::Invalid(format!("{option}: {e}")))
}

/// `CONTROLLER[,CONTROLLER...]:PATH`, or a path for all. It starts at the container's cgroup and stays below it.
fn sub_cgroup(text: &str) -> Result<(Vec<String>, PathBuf)> {
    let (controllers, path) = text.split_once(':').unwrap_or(("", text));
    let path = Path::new(path.trim_start_matches('/'));
    if path.components().any(|c| !matches!(c, Component::Normal(_) | Component::CurDir)) {
        return Err(Error::Invalid(format!("--cgroup: bad sub cgroup path {text:?}: `..` components are not allowed")));
    }
    let controllers = controllers.split(',').filter(|c| !c.is_empty()).map(str::to_owned).collect();
    Ok((controllers, path.to_owned()))
}

/// What a process of a file does not say of its own it has from the container.
fn from_file(mut process: Process, base: &Process, options: &Options) -> Process {
    if process.capabilities().is_none() {
        process.set_capabilities(base.capabilities().clone());
    }
    if process.io_priority().is_none() {
        process.set_io_priority(*base.io_priority());
    }
    if process.scheduler().is_none() {
        process.set_scheduler(base.scheduler().clone());
    }
    if process.exec_cpu_affinity().is_none() {
        process.set_exec_cpu_affinity(base.exec_cpu_affinity().clone());
    }
    if options.tty {
        process.set_terminal(Some(true));
    }
    process
}

/// The container's own process with the words of the command line.
pub(super) fn from_words(options: &Options, base: &Process) -> Result<Process> {
    let mut process = base.clone();
    process.set_args(Some(options.args.clone())).set_terminal(Some(options.tty)).set_console_size(None);
    if let Some(cwd) = &options.cwd {
        process.set_cwd(cwd.clone());
    }
    if options.no_new_privileges {
        process.set_no_new_privileges(Some(true));
    }
    let mut env = process.env().clone().unwrap_or_default();
    env.extend(options.env.iter().cloned());
    process.set_env(Some(env));
    // What is not said of the user stays, as with runc.
    let mut user = process.user().clone();
    if let Some(text) = &options.user {
        let (uid, gid) = text.split_once(':').map_or((text.as_str(), None), |(uid, gid)| (uid, Some(gid)));
        user.set_uid(one_id("--user", uid)?);
        if let Some(gid) = gid {
            user.set_gid(one_id("--user", gid)?);
        }
    }
    let groups = user.additional_gids().iter().flatten().chain(&options.groups).copied().collect();
    user.set_additional_gids(Some(groups));
    process.set_user(user);
    add_capabilities(&mut process, &options.capabilities)?;
    Ok(process)
}

/// The labels of the command line, or else of the process, or else of the container.
fn label(process: &mut Process, options: &Options, base: &Process) {
    let first = |said: [&Option<String>; 3]| said.into_iter().flatten().find(|label| !label.is_empty()).cloned();
    let profile = first([&options.profile, process.apparmor_profile(), base.apparmor_profile()]);
    let label = first([&options.label, process.selinux_label(), base.selinux_label()]);
    process.set_apparmor_profile(profile).set_selinux_label(label);
}

fn add_capabilities(process: &mut Process, names: &[String]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let mut more = Capabilities::new();
    for name in names {
        let bare = name.strip_prefix("CAP_").unwrap_or(name);
        more.insert(bare.parse::<Capability>().map_err(|_| Error::Invalid(format!("--cap: {name:?} is unknown")))?);
    }
    // Its default is not the empty one.
    let mut capabilities = process.capabilities().clone().unwrap_or_default();
    if process.capabilities().is_none() {
        let none = || Some(Capabilities::new());
        capabilities.set_bounding(none()).set_effective(none()).set_permitted(none()).set_ambient(none());
    }
    let with = |set: &Option<Capabilities>| Some(set.iter().flatten().chain(&more).copied().collect());
    let (bounding, effective, permitted) =
        (with(capabilities.bounding()), with(capabilities.effective()), with(capabilities.permitted()));
    // As far as they are inheritable: what else is asked for is not added to those.
    let heritable = |c: &&Capability| capabilities.inheritable().iter().flatten().any(|i| i == *c);
    let ambient = capabilities.ambient().iter().flatten().chain(more.iter().filter(heritable)).copied().collect();
    capabilities.set_bounding(bounding).set_effective(effective).set_permitted(permitted).set_ambient(Some(ambient));
    process.set_capabilities(Some(capabilities));
    Ok(())
}

/// The namespaces of a process that are not ours too.
fn differing(pid: i32) -> ThreadNameSpaceType {
    let link = |who: &str, name: &str| std::fs::read_link(format!("/proc/{who}/ns/{name}")).ok();
    let differs = |name: &str| link("self", name) != link(&pid.to_string(), name);
    NAMESPACES.iter().filter(|(name, _)| differs(name)).fold(ThreadNameSpaceType::empty(), |all, (_, flag)| all | *flag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sub_cgroups_stay_below_the_container() {
        let read = |text| sub_cgroup(text).ok();
        assert_eq!(read("sub/a"), Some((vec![], "sub/a".into())));
        assert_eq!(read("/"), Some((vec![], "".into())));
        assert_eq!(read("cpu,cpuacct:x"), Some((vec!["cpu".into(), "cpuacct".into()], "x".into())));
        for bad in ["..", "a/../b", "cpu:../x"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
