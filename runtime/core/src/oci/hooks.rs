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

use crate::state::State;
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

/// Gives a hook its state and reads what it says until it has ended: whatever it reads or writes, and whoever else holds
/// its streams. `None`: not in time.
fn attend(child: &mut Child, state: &[u8], end: Option<Instant>) -> std::io::Result<Option<String>> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    // A filter of the container may forbid it: then its streams have to tell.
    let pidfd = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let (mut input, mut output) = (child.stdin.take(), child.stderr.take());
    input.as_ref().map_or(Ok(()), |input| ioctl_fionbio(input, true))?;
    output.as_ref().map_or(Ok(()), |output| ioctl_fionbio(output, true))?;
    let (mut left, mut said) = (state, Vec::new());
    loop {
        let ended = {
            let mut fds: Vec<PollFd<'_>> = pidfd.iter().map(|pidfd| PollFd::new(pidfd, PollFlags::IN)).collect();
            fds.extend(input.iter().map(|input| PollFd::new(input, PollFlags::OUT)));
            fds.extend(output.iter().map(|output| PollFd::new(output, PollFlags::IN)));
            if fds.is_empty() {
                true
            } else {
                let patience = end.map(|end| Timespec::try_from(end.saturating_duration_since(Instant::now())));
                match poll(&mut fds, patience.transpose().map_err(std::io::Error::other)?.as_ref()) {
                    Ok(0) => return Ok(None),
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(e) => return Err(e.into()),
                }
                pidfd.is_some() && fds.first().is_some_and(|fd| !fd.revents().is_empty())
            }
        };
        if input.as_mut().is_some_and(|input| is_done(write_some(input, &mut left))) {
            input = None;
        }
        if output.as_mut().is_some_and(|output| is_done(read_all(output, &mut said))) {
            output = None;
        }
        if ended {
            return Ok(Some(String::from_utf8_lossy(&said).trim().to_owned()));
        }
    }
}

/// Whether a stream has come to its end, or broken.
fn is_done(result: std::io::Result<bool>) -> bool {
    result.unwrap_or_else(|e| e.kind() != std::io::ErrorKind::WouldBlock)
}

fn write_some(input: &mut impl Write, left: &mut &[u8]) -> std::io::Result<bool> {
    let written = input.write(left)?;
    *left = left.get(written..).unwrap_or_default();
    Ok(left.is_empty())
}

/// Reads what is there; only the beginning is kept.
fn read_all(output: &mut impl Read, said: &mut Vec<u8>) -> std::io::Result<bool> {
    let mut part = [0; 4096];
    loop {
        let n = output.read(&mut part)?;
        let room = MAX_SAID_BYTES.saturating_sub(said.len()).min(n);
        said.extend_from_slice(part.get(..room).unwrap_or_default());
        if n == 0 {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::SPECIFICATION;

    fn hook(script: &str, timeout: i64) -> Hook {
        let hook = serde_json::json!({"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": timeout});
        serde_json::from_value(hook).unwrap()
    }

    fn state() -> State {
        let annotations = [("long".to_owned(), "x".repeat(1 << 20))].into();
        let (id, bundle, created) = ("id".to_owned(), "/".into(), String::new());
        State { oci_version: SPECIFICATION, id, pid: 1, status: "creating", bundle, rootfs: None, created, annotations }
    }

    /// Each has a state that fits into no pipe.
    #[test]
    fn hooks_need_not_read_nor_be_short_nor_alone() {
        for (script, timeout, want) in [
            ("exit 0", 60, Ok(())),
            ("cat > /dev/null", 60, Ok(())),
            ("head -c 1000000 /dev/zero >&2; cat > /dev/null", 60, Ok(())),
            ("sleep 20 & exit 0", 60, Ok(())),
            ("echo why >&2; exec 0<&-; exit 3", 60, Err("failed with exit code 3: why")),
            ("kill -9 $$", 60, Err("ended by signal 9: ")),
            ("sleep 100", 1, Err("timed out")),
        ] {
            let start = Instant::now();
            assert_eq!(run_one(&hook(script, timeout), &state(), None), want.map_err(str::to_owned), "{script}");
            assert!(start.elapsed() < Duration::from_secs(15), "{script}");
        }
    }
}
