//! What the command line says of itself.

use super::print;
use crate::{Error, Result};

/// Command, what it takes, what it does.
const COMMANDS: [(&str, &str, &str); 17] = [
    ("checkpoint", "ID", "not supported"),
    (
        "create",
        "[-b BUNDLE] [-f CONFIG] [--pid-file F] [--console-socket S] [--pidfd-socket S] [--preserve-fds N]\n       \
         [--no-pivot] [--no-new-keyring] ID",
        "make a container; its program waits for start",
    ),
    ("delete", "[-f] ID", "remove a container that has stopped or never started; -f: kill it first"),
    ("events", "[--interval TIME] [--stats] ID", "tell what a container uses, and when it wants for memory"),
    (
        "exec",
        "[-p PROCESS.json] [-d] [-t] [-u UID[:GID]] [-g GID] [-e K=V] [-c CAP] [--cwd D] [--cgroup PATH] [--pid-file F]\n       \
         [--console-socket S] [--pidfd-socket S] [--preserve-fds N] [--no-new-privs]\n       \
         [--apparmor PROFILE] [--process-label LABEL] [--ignore-paused] ID [COMMAND ARGS...]",
        "run a process in a container",
    ),
    ("features", "", "tell what this runtime can do"),
    ("kill", "[-a] ID [SIGNAL]", "send a signal by name or number"),
    ("list", "[-q] [-f table|json]", "list containers"),
    ("pause", "ID", "stop all processes of a container for a while"),
    ("ps", "[-f table|json] ID [PS-OPTIONS...]", "list the processes of a container"),
    ("restore", "ID", "not supported"),
    ("resume", "ID", "let a paused container go on"),
    (
        "run",
        "[-b BUNDLE] [-f CONFIG] [-d] [--keep] [--pid-file F] [--console-socket S] [--pidfd-socket S]\n       \
         [--preserve-fds N] [--no-pivot] [--no-new-keyring] ID",
        "create, start, and without -d wait and delete",
    ),
    ("spec", "[-b BUNDLE] [--rootless]", "write a config.json to start from"),
    ("start", "ID", "let a created container's program run"),
    ("state", "ID", "tell the state of a container"),
    (
        "update",
        "[-r FILE|-] [--memory BYTES] [--memory-swap BYTES] [--memory-reservation BYTES] [--cpu-shares N]\n       \
         [--cpu-quota N] [--cpu-period N] [--cpu-burst N] [--cpu-idle N] [--cpu-rt-period N] [--cpu-rt-runtime N]\n       \
         [--cpuset-cpus LIST] [--cpuset-mems LIST] [--pids-limit N] [--blkio-weight N] ID",
        "change the limits of a container",
    ),
];

/// The whole command line.
pub(super) fn all() -> Result<()> {
    let commands = COMMANDS.map(|(name, _, what)| format!("   {name:<10} {what}\n")).concat();
    print(&format!(
        "NAME:\n   trimtab oci - Open Container Initiative runtime\n\n\
         USAGE:\n   trimtab oci [--root DIR] [--rootless true|false|auto] [--log FILE] [--log-format text|json] [--debug] [--systemd-cgroup] COMMAND\n\n\
         COMMANDS:\n{commands}"
    ))
}

/// One command.
pub(super) fn of(command: &str) -> Result<()> {
    match COMMANDS.iter().find(|(name, ..)| *name == command) {
        Some((name, words, what)) => {
            print(&format!("NAME:\n   trimtab oci {name} - {what}\n\nUSAGE:\n   trimtab oci {name} {words}\n"))
        }
        None => Err(Error::Invalid(format!("No help topic for '{command}'"))),
    }
}
