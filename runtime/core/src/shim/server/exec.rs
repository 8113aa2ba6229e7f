//! Processes beside a container's first one.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll;
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, pidfd_send_signal};
use rustix::thread::ThreadNameSpaceType;

use super::{Server, Source};
use crate::launch::{self, Join};
use crate::pod::ExecConfig;
use crate::shim::container;
use crate::{Error, Result, failed};

/// How many there may be.
const MAX_EXECS: usize = 1024;

/// One of them.
#[derive(Debug)]
pub(super) struct Joined {
    pidfd: OwnedFd,
    /// Where its exit code goes.
    exit: OwnedFd,
    /// Of the event that nobody reads there.
    pub(super) token: u64,
}

impl Joined {
    /// Tells its caller how it ended.
    pub(super) fn tell(self, queue: &OwnedFd, code: i32) {
        let _ = rustix::io::write(&self.exit, &code.to_le_bytes());
        // A container that is just being made may hold a copy, whose events nobody wants.
        let _ = epoll::delete(queue, &self.exit);
    }
}

impl Server {
    /// Starts one; answers its streams, the end of its exit code first.
    pub(super) fn exec(&mut self, exec: &ExecConfig) -> Result<Vec<OwnedFd>> {
        let what = || "make pipes".to_owned();
        if self.execs.len() >= MAX_EXECS {
            return Err(Error::State(format!("{MAX_EXECS} processes run already")));
        }
        let container = self.containers.get(&exec.container).ok_or_else(|| Error::NotFound(exec.container.clone()))?;
        if container.state.exit.is_some() {
            return Err(Error::State(format!("container {} has ended", exec.container)));
        }
        let (args, users) = (Some(exec.args.as_slice()), self.users.is_some());
        let process = container::prepare(&container.config, &mut self.filters, args, Some(exec.tty), users)?;
        let pid_path = format!("/proc/{}/ns/pid", container.state.pid);
        let pid_namespace = rustix::fs::open(pid_path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(failed(|| "open the pid namespace".to_owned()))?;
        let plain = || pipe_with(PipeFlags::CLOEXEC).map_err(failed(what));
        let (exit, exit_end) = plain()?;
        let (mut fds, mut child) = (vec![exit], vec![container::null()?, container::null()?, container::null()?]);
        if !exec.tty {
            let ((stdin, input), (out, stdout), (err, stderr)) = (plain()?, plain()?, plain()?);
            if exec.stdin {
                child = vec![stdin, stdout, stderr];
                fds.push(input);
            } else {
                child = vec![container::null()?, stdout, stderr];
            }
            fds.extend([out, err]);
        }
        self.give(&child, process.uid())?;
        let [stdin, stdout, stderr] = child.as_slice() else { return Err(Error::State("no streams".to_owned())) };
        let join = Join {
            process: &process,
            target: container.pidfd.as_fd(),
            namespaces: ThreadNameSpaceType::MOUNT
                | ThreadNameSpaceType::CONTROL_GROUP
                | self.users.as_ref().map_or(ThreadNameSpaceType::empty(), |_| ThreadNameSpaceType::USER),
            pid_namespace: Some(pid_namespace.as_fd()),
            user_namespace: self.users.as_ref().map(AsFd::as_fd),
            root: None,
            born_in: self.host.birthplace(&container.group),
            doors: &self.host.doors(&container.group)?,
            listener: &|pid, fd| container::notify(&container.config, &self.run_dir, pid, &fd),
        };
        let started = launch::join(&join, [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()], |pid| match join.born_in {
            Some(_) => Ok(()),
            None => self.host.place_unified(&container.group, pid),
        })?;
        fds.extend(started.terminal);
        let token = self.watch(exit_end.as_fd(), Source::Joined(started.pid))?;
        self.execs.insert(started.pid, Joined { pidfd: started.pidfd, exit: exit_end, token });
        Ok(fds)
    }

    /// Nobody reads how a process ends: nobody is there for it any more.
    pub(super) fn left(&mut self, pid: i32) {
        if let Some(joined) = self.execs.get(&pid) {
            let _ = epoll::delete(&self.queue, &joined.exit);
            let _ = pidfd_send_signal(&joined.pidfd, Signal::KILL);
        }
    }
}
