//! Taking a pod down whole, with the help of its shim or from its files alone.

use std::path::{Path, PathBuf};

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal};

use crate::cgroup::Host;
use crate::protocol::{self, Call, ContainerFile, PodFile, ShimFile};
use crate::{Error, Result, failed, files};

/// Kills everything in the pod, removes its cgroups and its run directory. Containers have their mounts in namespaces of
/// their own, which end with their last process: nothing is mounted on the host.
pub(crate) fn destroy(run_dir: &Path) -> Result<()> {
    if !run_dir.exists() {
        return Ok(());
    }
    // What a living shim leaves undone is done below; it may also be dead, or hang.
    let _ = protocol::call(run_dir, Call::Shutdown);
    kill_shim(run_dir)?;
    let host = Host::discover()?;
    for path in cgroups(run_dir)? {
        remove_cgroup(&host, &path)?;
    }
    match std::fs::remove_dir_all(run_dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::System(format!("remove {}", run_dir.display()), e))
        }
        _ => Ok(()),
    }
}

/// Kills what is in a cgroup and removes it, and its parents as far as they are empty then.
pub(crate) fn remove_cgroup(host: &Host, path: &Path) -> Result<()> {
    let group = host.open(path)?;
    host.kill(&group)?;
    host.remove(&group)?;
    host.remove_empty_parents(&group);
    Ok(())
}

/// The cgroups of the pod's containers, then the pod's own.
fn cgroups(run_dir: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    let list = std::fs::read_dir(run_dir.join("containers")).into_iter().flatten();
    for path in list.filter_map(|entry| entry.ok().map(|e| e.path())) {
        if path.extension().is_some_and(|e| e == "json")
            && let Ok(file) = files::read::<ContainerFile>(&path)
        {
            paths.extend(file.config.spec.linux().as_ref().and_then(|l| l.cgroups_path().clone()));
        }
    }
    match files::read::<PodFile>(&run_dir.join("pod.json")) {
        Ok(file) => paths.push(file.config.cgroup),
        Err(Error::NotFound(_)) => {}
        Err(e) => return Err(e),
    }
    Ok(paths)
}

fn kill_shim(run_dir: &Path) -> Result<()> {
    let shim: ShimFile = match files::read(&run_dir.join("shim.json")) {
        Ok(shim) => shim,
        Err(Error::NotFound(_)) => return Ok(()),
        Err(e) => return Err(e),
    };
    let Some(pidfd) = Pid::from_raw(shim.pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
        return Ok(());
    };
    // The descriptor is of whoever has the pid now: is it still the shim?
    if files::start_time(shim.pid) != Some(shim.start_time) {
        return Ok(());
    }
    match pidfd_send_signal(&pidfd, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(e) => return Err(failed(|| format!("kill the shim {}", shim.pid))(e)),
    }
    wait_for_end(&pidfd);
    Ok(())
}

/// Waits until a process that has been killed is gone. It may be anybody's child.
pub(crate) fn wait_for_end(pidfd: &std::os::fd::OwnedFd) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use std::os::fd::AsFd;
    let timeout = Timespec { tv_sec: 10, tv_nsec: 0 };
    let _ = poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&timeout));
    let _ = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
}
