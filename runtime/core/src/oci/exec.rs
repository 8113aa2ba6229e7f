//! `exec`: a process beside the first one.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

use oci_spec::runtime::{Capabilities, Capability, Process, UserBuilder};
use rustix::fs::{Mode, OFlags};
use rustix::thread::ThreadNameSpaceType;

use super::arguments::Arguments;
use super::container::{Container, Status};
use super::create::{number, send_terminal, write_pid_file};
use super::{Global, foreground, protect};
use crate::cgroup::Host;
use crate::launch::{self, Join};
use crate::process::Prepared;
use crate::{Error, Result, failed, files};

/// What the command line says.
#[derive(Debug, Default)]
struct Options {
    process: Option<PathBuf>,
    pid_file: Option<PathBuf>,
    console_socket: Option<PathBuf>,
    preserve_fds: u32,
    detach: bool,
    tty: bool,
    cwd: Option<PathBuf>,
    user: Option<String>,
    groups: Vec<u32>,
    env: Vec<String>,
    capabilities: Vec<String>,
    no_new_privileges: bool,
    id: String,
    args: Vec<String>,
}

const NAMESPACES: [(&str, ThreadNameSpaceType); 6] = [
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
    match container.status() {
        Status::Running | Status::Created => {}
        other => return Err(Error::State(format!("cannot exec in a {} container", other.name()))),
    }
    let target = container.process().ok_or_else(|| Error::State("container not running".to_owned()))?;
    let spec = container.spec()?;
    let base = spec.process().as_ref().ok_or_else(|| Error::Invalid("process: missing".to_owned()))?;
    let process = process(&options, base)?;
    let seccomp = spec.linux().as_ref().and_then(|l| l.seccomp().as_ref()).map(crate::seccomp::compile).transpose()?;
    let prepared = Prepared::of(&process, seccomp)?.with_preserved_fds(options.preserve_fds);
    if prepared.terminal && options.detach && options.console_socket.is_none() {
        return Err(Error::Invalid("process.terminal: needs --console-socket".to_owned()));
    }
    let pid_path = format!("/proc/{}/ns/pid", container.pid);
    let pid_namespace = rustix::fs::open(pid_path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed(|| "open the pid namespace".to_owned()))?;
    let host = Host::discover()?;
    let group = host.open(&container.cgroup)?;
    let join = Join {
        process: &prepared,
        target: target.as_fd(),
        namespaces: differing(container.pid),
        pid_namespace: Some(pid_namespace.as_fd()),
        born_in: host.birthplace(&group),
    };
    let signals = if options.detach { None } else { Some(foreground::signals()?) };
    let standard = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    let started = launch::join(&join, standard, |pid| match join.born_in {
        Some(_) => Ok(()),
        None => host.place(&group, pid),
    })?;
    write_pid_file(options.pid_file.as_deref(), started.pid)?;
    let mut terminal = started.terminal;
    if let (Some(socket), Some(master)) = (&options.console_socket, terminal.take()) {
        send_terminal(socket, master.as_fd())?;
    }
    match signals {
        Some(signals) => foreground::wait(started.pid, &started.pidfd, terminal, &signals),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn options(arguments: &mut Arguments) -> Result<Options> {
    let mut options = Options::default();
    while let Some(option) = arguments.option() {
        let mut value = || arguments.value(&option);
        match option.as_str() {
            "-p" | "--process" => options.process = Some(value()?.into()),
            "--pid-file" => options.pid_file = Some(value()?.into()),
            "--console-socket" => options.console_socket = Some(value()?.into()),
            "--preserve-fds" => options.preserve_fds = number(&value()?)?,
            "-d" | "--detach" => options.detach = true,
            "-t" | "--tty" => options.tty = true,
            "--cwd" => options.cwd = Some(value()?.into()),
            "-u" | "--user" => options.user = Some(value()?),
            "-g" | "--additional-gids" => options.groups.push(number(&value()?)?),
            "-e" | "--env" => options.env.push(value()?),
            "-c" | "--cap" => options.capabilities.push(value()?),
            "--no-new-privs" => options.no_new_privileges = true,
            // No such labels here; the container's own cgroup is the only one.
            "--apparmor" | "--process-label" | "--cgroup" => drop(value()?),
            other => return Err(Error::Invalid(format!("exec: unknown option {other}"))),
        }
    }
    options.id = arguments.positional("a container id")?;
    options.args = arguments.rest();
    Ok(options)
}

/// The process of a file, or the container's own with the words of the command line.
fn process(options: &Options, base: &Process) -> Result<Process> {
    if let Some(path) = &options.process {
        return files::read(path);
    }
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
    if let Some(user) = &options.user {
        let (uid, gid) = user.split_once(':').unwrap_or((user, "0"));
        let user = UserBuilder::default().uid(number(uid)?).gid(number(gid)?).additional_gids(options.groups.clone());
        process.set_user(user.build().map_err(|e| Error::Invalid(format!("--user: {e}")))?);
    } else if !options.groups.is_empty() {
        let mut user = process.user().clone();
        user.set_additional_gids(Some(options.groups.clone()));
        process.set_user(user);
    }
    add_capabilities(&mut process, &options.capabilities)?;
    Ok(process)
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
    capabilities.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
    process.set_capabilities(Some(capabilities));
    Ok(())
}

/// The namespaces of a process that are not ours too.
fn differing(pid: i32) -> ThreadNameSpaceType {
    let link = |who: &str, name: &str| std::fs::read_link(format!("/proc/{who}/ns/{name}")).ok();
    let differs = |name: &str| link("self", name) != link(&pid.to_string(), name);
    NAMESPACES.iter().filter(|(name, _)| differs(name)).fold(ThreadNameSpaceType::empty(), |all, (_, flag)| all | *flag)
}
