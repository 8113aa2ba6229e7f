//! Waiting for a process in the foreground: signals go to it, its terminal is ours, its exit code becomes ours.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use super::notify::Relay;
use crate::{Error, Result, failed, sys};

/// Those a caller sends to the runtime and means for the container.
const FORWARDED: [i32; 9] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGTERM,
    libc::SIGCONT,
    libc::SIGTSTP,
    libc::SIGWINCH,
];

/// Blocks the signals before the process starts, so that none is lost.
pub(super) fn signals() -> Result<OwnedFd> {
    sys::signal_fd(&FORWARDED).map_err(|e| Error::System("watch signals".to_owned(), e))
}

/// Waits for the end. With a terminal, copies between it and our own streams. `relay`: whoever manages us is told when the
/// process is ready; it is still us that he looks at.
pub(super) fn wait(
    pidfd: &OwnedFd,
    terminal: Option<OwnedFd>,
    signals: &OwnedFd,
    mut relay: Option<Relay>,
) -> Result<ExitCode> {
    let _raw = terminal.as_ref().and_then(|_| Raw::enter());
    let mut session = Session { terminal, input: true };
    session.resize();
    loop {
        let (ended, signalled, output, input) = session.poll(pidfd, signals, relay.as_ref())?;
        if let Some(ready) = relay.take_if(|relay| relay.is_ready()) {
            // Who does not listen any more does not want to know.
            let _ = ready.tell(rustix::process::getpid().as_raw_nonzero().get());
        }
        if signalled {
            forward(pidfd, signals, &session);
        }
        if output {
            session.show();
        }
        if input {
            session.type_in();
        }
        if ended {
            while session.terminal.is_some() && session.show() {}
            return collect(pidfd);
        }
    }
}

struct Session {
    terminal: Option<OwnedFd>,
    /// Our input has not ended.
    input: bool,
}

impl Session {
    fn poll(&self, pidfd: &OwnedFd, signals: &OwnedFd, relay: Option<&Relay>) -> Result<(bool, bool, bool, bool)> {
        let stdin = rustix::stdio::stdin();
        let mut fds = vec![PollFd::new(pidfd, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        if let Some(terminal) = &self.terminal {
            fds.push(PollFd::new(terminal, PollFlags::IN));
            if self.input {
                fds.push(PollFd::new(&stdin, PollFlags::IN));
            }
        }
        // Last: the places of the others are known.
        let streams = fds.len();
        fds.extend(relay.map(|relay| PollFd::new(relay, PollFlags::IN)));
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(failed(|| "wait".to_owned())(e)),
        }
        let ready = |at: usize| at < streams && fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
        Ok((ready(0), ready(1), ready(2), ready(3)))
    }

    /// Terminal to standard output; whether there was something.
    fn show(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        let Some(terminal) = &self.terminal else { return false };
        let ready =
            poll(&mut [PollFd::new(terminal, PollFlags::IN)], Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 }));
        if !matches!(ready, Ok(1..)) {
            return false;
        }
        match rustix::io::read(terminal, &mut buffer) {
            Ok(n @ 1..) => {
                write_all(rustix::stdio::stdout(), buffer.get(..n).unwrap_or_default());
                true
            }
            _ => {
                self.terminal = None;
                false
            }
        }
    }

    fn type_in(&mut self) {
        let mut buffer = [0; 4 << 10];
        match (rustix::io::read(rustix::stdio::stdin(), &mut buffer), &self.terminal) {
            (Ok(n @ 1..), Some(terminal)) => write_all(terminal.as_fd(), buffer.get(..n).unwrap_or_default()),
            _ => self.input = false,
        }
    }

    fn resize(&self) {
        if let (Some(terminal), Ok(size)) = (&self.terminal, tcgetwinsize(rustix::stdio::stdin())) {
            let _ = tcsetwinsize(terminal, size);
        }
    }
}

fn write_all(fd: std::os::fd::BorrowedFd<'_>, mut data: &[u8]) {
    while let Ok(n @ 1..) = rustix::io::retry_on_intr(|| rustix::io::write(fd, data)) {
        data = data.get(n..).unwrap_or_default();
        if data.is_empty() {
            return;
        }
    }
}

fn forward(pidfd: &OwnedFd, signals: &OwnedFd, session: &Session) {
    let mut record = [MaybeUninit::<u8>::uninit(); size_of::<libc::signalfd_siginfo>()];
    while let Ok((bytes, _)) = rustix::io::read(signals, &mut record) {
        let number = bytes.get(..4).and_then(|b| <[u8; 4]>::try_from(b).ok()).map_or(0, i32::from_ne_bytes);
        if number == libc::SIGWINCH {
            session.resize();
        } else if let Some(signal) = Signal::from_named_raw(number) {
            let _ = pidfd_send_signal(pidfd, signal);
        }
    }
}

fn collect(pidfd: &OwnedFd) -> Result<ExitCode> {
    let what = || "wait for the process".to_owned();
    let status = loop {
        match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Err(Errno::INTR) => {}
            other => break other.map_err(failed(what))?,
        }
    };
    let status = status.ok_or_else(|| Error::State(what()))?;
    let code = status.exit_status().unwrap_or_else(|| 128 + status.terminating_signal().unwrap_or_default());
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

/// Our terminal in raw mode, until dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> Option<Self> {
        let stdin = rustix::stdio::stdin();
        if !isatty(stdin) {
            return None;
        }
        let before = tcgetattr(stdin).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin, OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.0);
    }
}
