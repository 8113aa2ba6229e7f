//! The OCI command line: `trimtab oci create|start|state|kill|delete|run|exec|list|ps|pause|resume|spec|features`.

mod arguments;
mod container;
mod create;
mod describe;
mod exec;
mod foreground;
mod hooks;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use rustix::process::Signal;

use crate::cgroup::Host;
use crate::shim::log::rfc3339;
use crate::{Error, Result, files, protect};
use arguments::Arguments;
use container::{Container, Status};

/// Where containers' states lie unless `--root` says otherwise.
const DEFAULT_ROOT: &str = "/run/trimtab/oci";

const USAGE: &str = "usage: trimtab oci [--root DIR] [--log FILE] [--log-format text|json] COMMAND

  create [-b BUNDLE] [--pid-file F] [--console-socket S] [--preserve-fds N] ID
  start ID
  run [-b BUNDLE] [-d] [--keep] [--pid-file F] [--console-socket S] [--preserve-fds N] ID
  exec [-p PROCESS.json] [-d] [-t] [-u UID[:GID]] [-g GID] [-e K=V] [-c CAP] [--cwd D] [--pid-file F]
       [--console-socket S] [--preserve-fds N] [--no-new-privs] ID [COMMAND ARGS...]
  kill [-a] ID [SIGNAL]
  delete [-f] ID
  state ID
  list [-q] [-f table|json]
  ps [-f table|json] ID
  pause ID, resume ID
  spec [-b BUNDLE]
  features
";

/// Options before the command.
#[derive(Debug)]
pub(crate) struct Global {
    root: PathBuf,
    log: Option<PathBuf>,
    json_log: bool,
}

/// Runs `trimtab oci ARGS...`; `args` starts after `oci`. Must be called before any other thread is started.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let words = args.into_iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let mut arguments = Arguments::new(words);
    let global = match global(&mut arguments) {
        Ok(global) => global,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error}");
            return ExitCode::FAILURE;
        }
    };
    match dispatch(&global, &mut arguments) {
        Ok(code) => code,
        Err(error) => {
            report(&global, &error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn global(arguments: &mut Arguments) -> Result<Global> {
    let mut global = Global { root: PathBuf::from(DEFAULT_ROOT), log: None, json_log: false };
    while let Some(option) = arguments.option() {
        match option.as_str() {
            "--root" => global.root = arguments.value("--root")?.into(),
            "--log" => global.log = Some(arguments.value("--log")?.into()),
            "--log-format" => global.json_log = arguments.value("--log-format")? == "json",
            // What there is to say is said always.
            "--debug" => {}
            "--log-level" | "--rootless" | "--criu" => drop(arguments.value(&option)?),
            "--systemd-cgroup" => {
                return Err(Error::Invalid("--systemd-cgroup: only the cgroupfs driver is there".to_owned()));
            }
            "--version" | "-v" => arguments.restart_with("version"),
            "--help" | "-h" => arguments.restart_with("help"),
            other => return Err(Error::Invalid(format!("unknown option {other}"))),
        }
    }
    Ok(global)
}

fn dispatch(global: &Global, arguments: &mut Arguments) -> Result<ExitCode> {
    let command = arguments.positional("a command")?;
    let done = |result: Result<()>| result.map(|()| ExitCode::SUCCESS);
    match command.as_str() {
        "create" => done(create::create(global, arguments)),
        "run" => create::run(global, arguments),
        "exec" => exec::exec(global, arguments),
        "start" => done(start(global, arguments)),
        "kill" => done(kill(global, arguments)),
        "delete" => done(delete(global, arguments)),
        "pause" => done(freeze(global, arguments, true)),
        "resume" => done(freeze(global, arguments, false)),
        "state" => done(describe::state(global, arguments)),
        "list" => done(describe::list(global, arguments)),
        "ps" => done(describe::ps(global, arguments)),
        "spec" => done(describe::spec(arguments)),
        "features" => done(describe::features()),
        "version" => done(describe::version()),
        "help" => done(print(USAGE)),
        other => Err(Error::Invalid(format!("unknown command {other}\n{USAGE}"))),
    }
}

fn start(global: &Global, arguments: &mut Arguments) -> Result<()> {
    let container = Container::load(&global.root, &arguments.positional("a container id")?)?;
    match container.status() {
        Status::Created => {}
        other => return Err(Error::State(format!("cannot start a container in the {} state", other.name()))),
    }
    container.open_gate()?;
    hooks::run(container.spec()?.hooks().as_ref().and_then(|h| h.poststart().as_ref()), &container.oci_state())
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
    if arguments.take_flag("-a") || arguments.take_flag("--all") {
        all = true;
    }
    if all {
        let host = Host::discover()?;
        let group = host.open(&container.cgroup)?;
        host.processes(&group)?.into_iter().for_each(|pid| crate::cgroup::signal(pid, signal));
        return Ok(());
    }
    match container.process() {
        Some(pidfd) => {
            Ok(rustix::process::pidfd_send_signal(pidfd, signal).map_err(crate::failed(|| "kill".to_owned()))?)
        }
        None => Err(Error::State("container not running".to_owned())),
    }
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
    force |= arguments.take_flag("-f") || arguments.take_flag("--force");
    match Container::load(&global.root, &id) {
        Ok(container) => remove(&container, force),
        Err(Error::NotFound(_) | Error::Invalid(_)) if force => {
            // Killed half-way through create, or its state was cut by a crash of the machine.
            crate::protocol::check_id(&id)?;
            let _ = std::fs::remove_dir_all(global.root.join(&id));
            Ok(())
        }
        Err(e) => Err(e),
    }
}

fn remove(container: &Container, force: bool) -> Result<()> {
    let status = container.status();
    if status != Status::Stopped && !force && status != Status::Creating {
        return Err(Error::State(format!(
            "cannot delete container {} that is not stopped: {}",
            container.id,
            status.name()
        )));
    }
    if let Some(pidfd) = container.process() {
        let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
    }
    crate::destroy::remove_cgroup(&Host::discover()?, &container.cgroup)?;
    let state = container.oci_state();
    let hooks = container.spec().ok().and_then(|spec| spec.hooks().clone());
    container.forget()?;
    // A hook that fails must not bring the container back (runtime.md, Lifecycle 13).
    let _ = hooks::run(hooks.as_ref().and_then(|h| h.poststop().as_ref()), &state);
    Ok(())
}

fn freeze(global: &Global, arguments: &mut Arguments, frozen: bool) -> Result<()> {
    let container = Container::load(&global.root, &arguments.positional("a container id")?)?;
    let wanted = if frozen { [Status::Running, Status::Created] } else { [Status::Paused, Status::Paused] };
    let status = container.status();
    if !wanted.contains(&status) {
        return Err(Error::State(format!("container {} is {}", container.id, status.name())));
    }
    let host = Host::discover()?;
    host.freeze(&host.open(&container.cgroup)?, frozen)
}

/// A signal by number or by name, with or without SIG.
fn parse_signal(text: &str) -> Result<Signal> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
        "WINCH", "IO", "PWR", "SYS",
    ];
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let by_name = NAMES.iter().position(|known| *known == name).and_then(|at| i32::try_from(at + 1).ok());
    let number = by_name.or_else(|| text.parse().ok());
    number.and_then(Signal::from_named_raw).ok_or_else(|| Error::Invalid(format!("unknown signal {text:?}")))
}

fn print(text: &str) -> Result<()> {
    let written = std::io::stdout().write_all(text.as_bytes());
    written.map_err(|e| Error::System("write to standard output".to_owned(), e))
}

/// Errors go to standard error, and to the log in the form its reader parses.
fn report(global: &Global, message: &str) {
    let _ = writeln!(std::io::stderr(), "{message}");
    let Some(path) = &global.log else { return };
    let time = rfc3339(files::now());
    let line = if global.json_log {
        serde_json::json!({"level": "error", "msg": message, "time": time}).to_string()
    } else {
        format!("time={time:?} level=error msg={message:?}")
    };
    if let Ok(mut file) = std::fs::File::options().create(true).append(true).open(path) {
        let _ = writeln!(file, "{line}");
    }
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
    fn signals_have_names_and_numbers() {
        for (text, want) in [("9", 9), ("KILL", 9), ("sigterm", 15), ("SIGSYS", 31), ("1", 1)] {
            assert_eq!(parse_signal(text).map(|s| s.as_raw()).ok(), Some(want), "{text}");
        }
        for text in ["", "SIG", "0", "-1", "65", "NOPE"] {
            assert!(parse_signal(text).is_err(), "{text}");
        }
    }
}
