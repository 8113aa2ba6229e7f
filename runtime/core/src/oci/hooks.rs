//! Hooks: programs of the caller that run at points of a container's life, with its state on standard input.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use oci_spec::runtime::Hook;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::{Error, Result};

/// Runs hooks one after the other; the first that fails stops them.
pub(super) fn run(hooks: Option<&Vec<Hook>>, state: &serde_json::Value) -> Result<()> {
    hooks.into_iter().flatten().try_for_each(|hook| run_one(hook, state))
}

fn run_one(hook: &Hook, state: &serde_json::Value) -> Result<()> {
    let what = || format!("hook {}", hook.path().display());
    let args = hook.args().clone().unwrap_or_default();
    let mut command = Command::new(hook.path());
    if let Some((name, rest)) = args.split_first() {
        command.arg0(name).args(rest);
    }
    command.env_clear();
    for variable in hook.env().iter().flatten() {
        if let Some((name, value)) = variable.split_once('=') {
            command.env(name, value);
        }
    }
    let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(|e| Error::System(what(), e))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook need not read it.
        let _ = stdin.write_all(state.to_string().as_bytes());
    }
    if let Some(seconds) = hook.timeout().and_then(|t| u64::try_from(t).ok()) {
        wait_for(&mut child, Duration::from_secs(seconds), &what())?;
    }
    let output = child.wait_with_output().map_err(|e| Error::System(what(), e))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::State(format!("{}: {}: {said}", what(), output.status)))
}

fn wait_for(child: &mut Child, timeout: Duration, what: &str) -> Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pidfd = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let Some(pidfd) = pidfd else { return Ok(()) };
    let timeout = Timespec { tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX), tv_nsec: 0 };
    if matches!(poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)), Ok(0)) {
        let _ = child.kill();
        return Err(Error::State(format!("{what}: timed out")));
    }
    Ok(())
}
