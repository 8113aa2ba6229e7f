//! Hooks: programs of the caller that run at points of a container's life, with its state on standard input.

use std::ffi::{CString, OsStr};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use oci_spec::runtime::Hook;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::container::State;
use crate::{Error, Result, sys};

/// More than this of what a hook says of its failure is not told.
const MAX_SAID_BYTES: usize = 4096;

/// Runs the hooks of a kind one after the other; the first that fails stops them. `env` is for those without an
/// environment of their own; `None`: they have ours.
pub(super) fn run(kind: &str, hooks: Option<&Vec<Hook>>, state: &State, env: Option<&[CString]>) -> Result<()> {
    for (at, hook) in hooks.into_iter().flatten().enumerate() {
        run_one(hook, state, env).map_err(|failure| {
            let path = hook.path().display();
            Error::State(format!("error running {kind} hook #{at}: {path}: {failure}"))
        })?;
    }
    Ok(())
}

/// Runs all hooks of a kind, whatever becomes of each; a sentence for each that failed.
pub(super) fn run_each(kind: &str, hooks: Option<&Vec<Hook>>, state: &State) -> Vec<String> {
    let run = |hook: &Hook| {
        let failure = run_one(hook, state, None).err()?;
        Some(format!("{kind} hook {failure} ({})", hook.path().display()))
    };
    hooks.into_iter().flatten().filter_map(run).collect()
}

/// Why a hook did not do what it should.
fn run_one(hook: &Hook, state: &State, env: Option<&[CString]>) -> std::result::Result<(), String> {
    let args = hook.args().clone().unwrap_or_default();
    let mut command = Command::new(hook.path());
    if let Some((name, rest)) = args.split_first() {
        command.arg0(name).args(rest);
    }
    match (hook.env(), env) {
        (Some(own), _) => {
            command.env_clear().envs(own.iter().filter_map(|variable| variable.split_once('=')));
        }
        (None, Some(env)) => {
            command.env_clear().envs(env.iter().filter_map(|variable| {
                let bytes = variable.as_bytes();
                let at = bytes.iter().position(|b| *b == b'=')?;
                Some((OsStr::from_bytes(bytes.get(..at)?), OsStr::from_bytes(bytes.get(at + 1..)?)))
            }));
        }
        (None, None) => {}
    }
    let failed = |e: std::io::Error| format!("failed: {e}");
    let state = serde_json::to_vec(state).map_err(|e| format!("failed: {e}"))?;
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(failed)?;
    let end = hook.timeout().and_then(|t| u64::try_from(t).ok()).map(|t| Instant::now() + Duration::from_secs(t));
    // Who does not read its state to the end must not end us.
    let Some(said) = sys::ignoring_broken_pipes(|| attend(&mut child, &state, end)).map_err(failed)? else {
        let _ = child.kill();
        let _ = child.wait();
        return Err("timed out".to_owned());
    };
    let status = child.wait().map_err(failed)?;
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => Err(format!("failed with exit code {code}: {said}")),
        None => Err(format!("ended by {}: {said}", signal_text(status.signal().unwrap_or_default()))),
    }
}

fn signal_text(number: i32) -> String {
    // The one that a filter sends deserves a word.
    let word = if number == libc::SIGSYS { " (bad system call)" } else { "" };
    format!("signal {number}{word}")
}

fn ends_within(child: &Child, timeout: Duration) -> bool {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let Some(pidfd) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else { return true };
    let timeout = Timespec { tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX), tv_nsec: 0 };
    !matches!(poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)), Ok(0))
}
