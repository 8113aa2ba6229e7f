//! The OCI command line: `trimtab oci COMMAND`.

mod arguments;
mod attached;
mod container;
mod create;
mod describe;
mod document;
mod events;
mod exec;
mod features;
mod foreground;
mod help;
mod hooks;
#[cfg(test)]
mod mutations;
mod namespaces;
mod notify;
mod rootless;
mod strict;
mod update;

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::process::Signal;

use crate::shim::log::rfc3339;
use crate::state::State;
use crate::{Error, Result, files, protect};
use arguments::Arguments;
use container::{Container, Status};

/// What `exec` answers where it could not begin: any other code is the process's own.
const EXEC_FAILED: u8 = 255;

/// Options before the command.
#[derive(Debug)]
pub(crate) struct Global {
    root: PathBuf,
    /// `--root` was given.
    own_root: bool,
    log: Option<PathBuf>,
    json_log: bool,
    debug: bool,
    cgroups: Cgroups,
    /// We are root, and of the host.
    host_root: bool,
    /// New containers stay in our own cgroups where there are none that we may use.
    rootless: bool,
    /// Descriptors that were passed to us by the protocol of systemd.
    listen_fds: u32,
}

/// Who makes the cgroups of new containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cgroups {
    /// We do.
    Files,
    Systemd,
    /// Nobody: they stay in our own.
    None,
}

/// How much something matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Debug,
    Warning,
}

/// Runs `trimtab oci ARGS...`; `args` starts after `oci`. Must be called before any other thread is started.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let words = args.into_iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let mut arguments = Arguments::new(words);
    let global = match global(&mut arguments) {
        Ok(global) => global,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {}", one_line(&error.to_string()));
            return ExitCode::FAILURE;
        }
    };
    let command = arguments.next().unwrap_or_else(|| "help".to_owned());
    match dispatch(&global, &command, &mut arguments) {
        Ok(code) => code,
        Err(error) => {
            global.fail(&error);
            if command == "exec" { ExitCode::from(EXEC_FAILED) } else { ExitCode::FAILURE }
        }
    }
}

fn global(arguments: &mut Arguments) -> Result<Global> {
    let host_root = rootless::is_host_root();
    let listen_fds = std::env::var("LISTEN_FDS").ok().and_then(|count| count.parse().ok()).unwrap_or(0);
    let mut global = Global {
        root: rootless::default_root(),
        own_root: false,
        log: None,
        json_log: false,
        debug: false,
        cgroups: Cgroups::Files,
        host_root,
        rootless: !host_root,
        listen_fds,
    };
    while let Some(option) = arguments.leading_option() {
        match option.as_str() {
            "--root" => (global.root, global.own_root) = (arguments.value("--root")?.into(), true),
            "--log" => global.log = log_file(&arguments.value("--log")?)?,
            "--log-format" => {
                global.json_log = match arguments.value("--log-format")?.as_str() {
                    "json" => true,
                    "text" => false,
                    other => return Err(Error::Invalid(format!("--log-format: {other:?} is not text or json"))),
                }
            }
            "--debug" => global.debug = true,
            "--log-level" => global.debug = arguments.value(&option)? == "debug",
            "--rootless" => global.rootless = rootless::parse(&arguments.value(&option)?, host_root)?,
            "--criu" => drop(arguments.value(&option)?),
            "--cgroup-manager" => {
                global.cgroups = match arguments.value(&option)?.as_str() {
                    "cgroupfs" => Cgroups::Files,
                    "systemd" => Cgroups::Systemd,
                    "disabled" => Cgroups::None,
                    other => {
                        let what = "is not cgroupfs, systemd or disabled";
                        return Err(Error::Invalid(format!("{option}: {other:?} {what}")));
                    }
                }
            }
            "--systemd-cgroup" => global.cgroups = Cgroups::Systemd,
            "--version" | "-v" => arguments.restart_with("version"),
            "--help" | "-h" => arguments.restart_with("help"),
            other => return Err(Error::Invalid(format!("unknown option {other}"))),
        }
    }
    Ok(global)
}

/// `FILE`, or as crun's callers say it `file:FILE`. Whoever wants it in the system's log must put it there himself.
fn log_file(text: &str) -> Result<Option<PathBuf>> {
    match text.split_once(':') {
        Some(("file", path)) => Ok(Some(path.into())),
        Some((kind, _)) if !kind.contains('/') => Err(Error::Invalid(format!("--log: unknown log type {kind:?}"))),
        _ => Ok((!text.is_empty()).then(|| text.into())),
    }
}

fn dispatch(global: &Global, command: &str, arguments: &mut Arguments) -> Result<ExitCode> {
    let done = |result: Result<()>| result.map(|()| ExitCode::SUCCESS);
    if matches!(arguments.peek(), Some("-h" | "--help")) {
        return done(help::of(command));
    }
    match command {
        "create" => done(create::create(global, arguments)),
        "run" => create::run(global, arguments),
        "exec" => exec::exec(global, arguments),
        "start" => done(start(global, arguments)),
        "kill" => done(kill(global, arguments)),
        "delete" => done(delete(global, arguments)),
        "pause" => done(freeze(global, arguments, true)),
        "resume" => done(freeze(global, arguments, false)),
        "update" => done(update::update(global, arguments)),
        "events" => done(events::events(global, arguments)),
        "state" => done(describe::state(global, arguments)),
        "list" => done(describe::list(global, arguments)),
        "ps" => describe::ps(global, arguments),
        "spec" => done(describe::spec(arguments)),
        "checkpoint" | "restore" => Err(Error::Invalid(format!("{command}: not supported"))),
        "features" => done(arguments.end().and_then(|()| features::features())),
        "version" => done(describe::version()),
        "help" => done(help::all()),
        other => Err(Error::Invalid(format!("No help topic for '{other}': no such command"))),
    }
}

fn start(global: &Global, arguments: &mut Arguments) -> Result<()> {
    let container = Container::load(&global.root, &arguments.only_id()?)?;
    match container.status() {
        Status::Created => {}
        other => return Err(Error::State(format!("cannot start a container in the {} state", other.name()))),
    }
    let spec = container.spec()?;
    let hooks = spec.hooks().as_ref();
    let poststart = hooks.and_then(|h| h.poststart().as_ref());
    let relay = notify::listen(container.dir())?;
    let begun = container.open_gate().and_then(|()| hooks::run("poststart", poststart, &container.oci_state(), None));
    // A hook that fails ends the container, and takes it away (runtime.md, Lifecycle 7 and 9).
    begun.inspect_err(|_| {
        if hooks.is_some_and(|h| h.start_container().is_some() || h.poststart().is_some()) {
            let _ = remove(global, &container, true);
        }
    })?;
    let told = relay.zip(container.process()).map_or(Ok(()), |(relay, first)| relay.wait(container.pid, &first));
    told.unwrap_or_else(|e| global.say(Level::Warning, &e.to_string()));
    Ok(())
}

fn kill(global: &Global, arguments: &mut Arguments) -> Result<()> {
    let mut all = false;
    while let Some(option) = arguments.option() {
        match option.as_str() {
            "-a" | "--all" => all = true,
            other => return Err(Error::Invalid(format!("kill: unknown option {other}"))),
        }
    }
    let container = Container::load(&global.root, &arguments.positional("a container id")?)?;
    let signal = parse_signal(&arguments.next().unwrap_or_else(|| "TERM".to_owned()))?;
    arguments.end()?;
    // Without a pid namespace of its own the others outlive the first process.
    let shared = container.spec().is_ok_and(|spec| !has_own(&spec, LinuxNamespaceType::Pid));
    if all || (shared && signal == libc::SIGKILL) {
        let pids = container.processes()?;
        if pids.is_empty() && !all {
            return Err(Error::State("container not running".to_owned()));
        }
        pids.into_iter().for_each(|pid| crate::cgroup::signal(pid, signal));
        return Ok(());
    }
    match container.process() {
        Some(pidfd) => crate::sys::signal(&pidfd, signal).map_err(|e| Error::System("kill".to_owned(), e)),
        None => Err(Error::State("container not running".to_owned())),
    }
}

fn has_own(spec: &Spec, kind: LinuxNamespaceType) -> bool {
    let listed = spec.linux().as_ref().and_then(|l| l.namespaces().as_deref()).unwrap_or_default();
    listed.iter().any(|n| n.typ() == kind && namespaces::path_of(n).is_none())
}

fn delete(global: &Global, arguments: &mut Arguments) -> Result<()> {
    let mut force = false;
    while let Some(option) = arguments.option() {
        match option.as_str() {
            "-f" | "--force" => force = true,
            other => return Err(Error::Invalid(format!("delete: unknown option {other}"))),
        }
    }
    let id = arguments.positional("a container id")?;
    arguments.end()?;
    match Container::load(&global.root, &id) {
        Ok(container) => remove(global, &container, force),
        Err(e) => match Container::load_unfinished(&global.root, &id) {
            // Killed half-way through create.
            Ok(container) if force || !container.has_creator() => remove(global, &container, true),
            Ok(_) => Err(Error::State(format!("container {id} is being created"))),
            // Never there, or its state was cut by a crash of the machine.
            Err(_) if force => {
                crate::protocol::check_id(&id)?;
                let _ = std::fs::remove_dir_all(global.root.join(&id));
                Ok(())
            }
            Err(_) => Err(e),
        },
    }
}

/// Deletes a container. One that was never started has done nothing that anybody could miss.
fn remove(global: &Global, container: &Container, force: bool) -> Result<()> {
    let deletable = |status| matches!(status, Status::Stopped | Status::Creating | Status::Created);
    if let Some(status) = (!force).then(|| container.status()).filter(|status| !deletable(*status)) {
        return Err(Error::State(format!(
            "cannot delete container {} that is not stopped: {}",
            container.id,
            status.name()
        )));
    }
    take_away(global, container, container.spec().ok().as_ref())
}

/// Kills what runs of a container and removes all there is of it.
fn take_away(global: &Global, container: &Container, spec: Option<&Spec>) -> Result<()> {
    let process = container.process();
    let attached = container.attached.as_ref();
    let namespace = attached.and_then(|attached| attached.namespace(process.as_ref().map(|_| container.pid)));
    if let Some(pidfd) = &process {
        let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
    }
    container.remove_cgroup(process.as_ref())?;
    let state = container.state_as(Status::Stopped, spec);
    detach(global, container, namespace.as_ref());
    container.forget()?;
    run_poststop(global, spec, &state);
    Ok(())
}

/// Takes away what a container has mounted where others live.
fn detach(global: &Global, container: &Container, namespace: Option<&OwnedFd>) {
    let detached = container.attached.as_ref().map_or(Ok(()), |attached| attached.detach(namespace));
    detached.unwrap_or_else(|e| global.say(Level::Warning, &e.to_string()));
}

/// A hook that fails must not bring the container back (runtime.md, Lifecycle 13).
fn run_poststop(global: &Global, spec: Option<&Spec>, state: &State) {
    let hooks = spec.and_then(|spec| spec.hooks().as_ref());
    let failures = hooks::run_each("poststop", hooks.and_then(|h| h.poststop().as_ref()), state);
    failures.iter().for_each(|failure| global.say(Level::Warning, failure));
}

fn freeze(global: &Global, arguments: &mut Arguments, frozen: bool) -> Result<()> {
    let container = Container::load(&global.root, &arguments.only_id()?)?;
    let wanted = if frozen { [Status::Running, Status::Created] } else { [Status::Paused, Status::Paused] };
    let status = container.status();
    if !wanted.contains(&status) {
        return Err(Error::State(format!("container {} is {}", container.id, status.name())));
    }
    let host = container.host()?;
    host.freeze(&host.open(&container.cgroup)?, frozen)
}

/// A signal by number or by name, with or without SIG; 0 asks only whether somebody is there.
fn parse_signal(text: &str) -> Result<i32> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
        "WINCH", "IO", "PWR", "SYS",
    ];
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let by_name = NAMES.iter().position(|known| *known == name).and_then(|at| i32::try_from(at + 1).ok());
    // Those that are for real time have no names but the ends of their range.
    let from = |end: i32, rest: &str| if rest.is_empty() { Some(end) } else { end.checked_add(rest.parse().ok()?) };
    let real_time = || match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => from(libc::SIGRTMIN(), rest),
        (_, Some(rest)) => from(libc::SIGRTMAX(), rest),
        _ => None,
    };
    let number = by_name.or_else(real_time).or_else(|| text.parse().ok());
    number
        .filter(|n| (0..=libc::SIGRTMAX()).contains(n))
        .ok_or_else(|| Error::Invalid(format!("unknown signal {text:?}")))
}

fn print(text: &str) -> Result<()> {
    let written = std::io::stdout().write_all(text.as_bytes());
    written.map_err(|e| Error::System("write to standard output".to_owned(), e))
}

impl Global {
    /// Errors go to standard error, and to the log in the form its reader parses. Of a program that does not run it is
    /// told as if it said so itself.
    fn fail(&self, error: &Error) {
        let word = if matches!(error, Error::Program(_)) { "" } else { "error: " };
        let _ = writeln!(std::io::stderr(), "{word}{}", one_line(&error.to_string()));
        self.log(&self.record("error", &error.to_string()));
    }

    /// What matters less than an error goes to the log, or where there is none to standard error, in the log's form.
    fn say(&self, level: Level, message: &str) {
        let name = match level {
            Level::Debug if !self.debug => return,
            Level::Debug => "debug",
            Level::Warning => "warning",
        };
        let line = self.record(name, message);
        match self.log {
            Some(_) => self.log(&line),
            None => drop(writeln!(std::io::stderr(), "{line}")),
        }
    }

    fn record(&self, level: &str, message: &str) -> String {
        let time = rfc3339(files::now());
        if self.json_log {
            serde_json::json!({"level": level, "msg": message, "time": time}).to_string()
        } else {
            format!("time={time:?} level={level} msg={message:?}")
        }
    }

    fn log(&self, line: &str) {
        let Some(path) = &self.log else { return };
        if let Ok(mut file) = std::fs::File::options().create(true).append(true).open(path) {
            let _ = writeln!(file, "{line}");
        }
    }
}

/// A sentence for a terminal, where what somebody wrote into a document means nothing.
fn one_line(text: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

/// For commands that start processes in containers.
fn protect() {
    protect::run_from_read_only_mount();
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_one_line() {
        assert_eq!(one_line("a \"b\"\n\u{1b}[2Jé"), "a \"b\"\\n\\u{1b}[2Jé");
    }

    #[test]
    fn signals_have_names_and_numbers() {
        let (first, last) = (libc::SIGRTMIN(), libc::SIGRTMAX());
        for (text, want) in [
            ("9", 9),
            ("0", 0),
            ("KILL", 9),
            ("sigterm", 15),
            ("SIGSYS", 31),
            ("SIGRTMIN", first),
            ("RTMIN+3", first + 3),
            ("SIGRTMAX-2", last - 2),
        ] {
            assert_eq!(parse_signal(text).ok(), Some(want), "{text}");
        }
        for text in ["", "SIG", "-1", "65", "NOPE", "RTMAX+1", "RTMINx", "RTMIN+2147483647"] {
            assert!(parse_signal(text).is_err(), "{text}");
        }
    }
}
