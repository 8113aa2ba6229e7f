//! The socket between a container's first process and its parent while it is being set up: fixed-size messages, which
//! may carry one descriptor. End of file means that exec has happened.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recv, recvmsg, sendmsg, socketpair,
};

use crate::{Error, Result, failed};

/// In the place of errno.
const PROGRAM: i32 = -1;

/// Text of a failure that does not fit is cut.
const TEXT_BYTES: usize = 480;
const MESSAGE_BYTES: usize = 8 + TEXT_BYTES;

/// What the two sides say to each other.
#[derive(Debug)]
pub(crate) enum Message {
    /// Parent: user and group ids are mapped.
    Mapped,
    /// Parent: the process is in its cgroups.
    Placed,
    /// Child: I am in my v1 cgroups and my namespaces.
    Entered,
    /// Child: here is the terminal's master.
    Terminal(OwnedFd),
    /// Child: all is set up, waiting to be started.
    Ready,
    /// Child: this descriptor of mine is a seccomp listener; I wait until you have taken it.
    Listening(i32),
    /// Parent: the listener is where it belongs.
    Taken,
    /// A process in between: the child, which is the parent's too, has this pid and descriptor.
    Born { pid: i32, pidfd: OwnedFd },
    /// Child: a step failed. What was being done, and errno (0: none; negative: it is the program that does not run).
    Failed { stage: String, errno: i32 },
}

impl Message {
    /// What a child says of a step that failed.
    pub(crate) fn of(error: Error) -> Self {
        match error {
            Error::System(stage, e) => Self::Failed { stage, errno: e.raw_os_error().unwrap_or(libc::EIO) },
            Error::Program(text) => Self::Failed { stage: text, errno: PROGRAM },
            other => Self::Failed { stage: other.to_string(), errno: 0 },
        }
    }

    /// The same to whoever hears of it.
    pub(crate) fn error(stage: String, errno: i32) -> Error {
        match errno {
            0 => Error::Invalid(stage),
            PROGRAM => Error::Program(stage),
            errno => Error::System(stage, io::Error::from_raw_os_error(errno)),
        }
    }
}

/// One end.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Channel {
    /// Two connected ends, both close-on-exec.
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(a), Self(b)))
    }

    /// Sends a message; a terminal as a descriptor beside it.
    pub(crate) fn send(&self, message: &Message) -> io::Result<()> {
        let (kind, errno, text, fd) = match message {
            Message::Mapped => (1u32, 0, "", None),
            Message::Placed => (2, 0, "", None),
            Message::Terminal(fd) => (3, 0, "", Some(fd.as_fd())),
            Message::Ready => (4, 0, "", None),
            Message::Entered => (9, 0, "", None),
            Message::Listening(fd) => (7, *fd, "", None),
            Message::Taken => (8, 0, "", None),
            Message::Born { pid, pidfd } => (6, *pid, "", Some(pidfd.as_fd())),
            Message::Failed { stage, errno } => (5, *errno, stage.as_str(), None),
        };
        send_with_fds(self.0.as_fd(), &encode(kind, errno, text), fd.as_slice())
    }

    /// Reports that all is set up and waits until somebody writes a byte.
    pub(crate) fn wait_at(&self, gate: BorrowedFd<'_>) -> Result<()> {
        // The first process of a pid namespace ignores what it does not handle, and who waits should be easy to end.
        crate::sys::end_on(libc::SIGTERM);
        self.send(&Message::Ready).map_err(|e| Error::System("report ready".to_owned(), e))?;
        let mut byte = [0];
        rustix::io::retry_on_intr(|| rustix::io::read(gate, &mut byte))
            .map_err(failed(|| "wait to be started".to_owned()))?;
        Ok(())
    }

    /// Tells the parent which of our descriptors is a seccomp listener, and waits until he has it. From the moment the
    /// filter is there this may use `write`, which no filter may send to the listener, before anybody can answer for
    /// other calls.
    pub(crate) fn hand_over(&self, listener: OwnedFd) -> io::Result<()> {
        rustix::io::write(&self.0, &encode(7, listener.as_raw_fd(), ""))?;
        let mut bytes = [0; MESSAGE_BYTES];
        // A filter may forbid reading too; then nobody waits, and the parent takes what he finds.
        let _ = rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut bytes));
        Ok(())
    }

    /// The next message; `None` at end of file.
    pub(crate) fn receive(&self) -> io::Result<Option<Message>> {
        let mut bytes = [0; MESSAGE_BYTES];
        let (n, fds) = match receive_with_fds(self.0.as_fd(), &mut bytes) {
            // The peer ended without reading everything; that is told once, and before what it said.
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => receive_with_fds(self.0.as_fd(), &mut bytes)?,
            other => other?,
        };
        if n == 0 {
            return Ok(None);
        }
        let word = |at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).unwrap_or([0; 4]);
        let text = bytes.get(8..n).unwrap_or_default();
        let text = text.split(|b| *b == 0).next().unwrap_or_default();
        Ok(Some(match (u32::from_le_bytes(word(0)), fds.into_iter().next()) {
            (1, _) => Message::Mapped,
            (2, _) => Message::Placed,
            (3, Some(fd)) => Message::Terminal(fd),
            (4, _) => Message::Ready,
            (9, _) => Message::Entered,
            (7, _) => Message::Listening(i32::from_le_bytes(word(4))),
            (8, _) => Message::Taken,
            (6, Some(pidfd)) => Message::Born { pid: i32::from_le_bytes(word(4)), pidfd },
            _ => Message::Failed {
                stage: String::from_utf8_lossy(text).into_owned(),
                errno: i32::from_le_bytes(word(4)),
            },
        }))
    }
}

fn encode(kind: u32, number: i32, text: &str) -> [u8; MESSAGE_BYTES] {
    let mut bytes = [0; MESSAGE_BYTES];
    let said = kind.to_le_bytes().into_iter().chain(number.to_le_bytes()).chain(text.bytes());
    bytes.iter_mut().zip(said).for_each(|(to, from)| *to = from);
    bytes
}

/// At most so many descriptors in one message.
const MAX_FDS: usize = 8;

/// Sends one packet with descriptors. A peer that has gone is an error, not a signal.
pub(crate) fn send_with_fds(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives one packet of any length up to a largest, for which room is made when it is there. Empty: the peer has closed.
pub(crate) fn receive_any_with_fds(socket: BorrowedFd<'_>, most: usize) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let look = RecvFlags::PEEK | RecvFlags::TRUNC;
    let (_, length) = rustix::io::retry_on_intr(|| recv(socket, &mut [0; 1], look))?;
    let mut bytes = vec![0; length.min(most)];
    let (n, fds) = receive_with_fds(socket, &mut bytes)?;
    bytes.truncate(n);
    Ok((bytes, fds))
}

/// Receives one packet with descriptors, which are close-on-exec. 0 bytes: the peer has closed.
pub(crate) fn receive_with_fds(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    loop {
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, RecvFlags::CMSG_CLOEXEC);
        let received = match received {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        return Ok((received.bytes, fds));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_takes_the_room_it_needs() {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let receive = || receive_any_with_fds(theirs.as_fd(), 1000).unwrap();
        send_with_fds(ours.as_fd(), b"short", &[ours.as_fd()]).unwrap();
        let (bytes, fds) = receive();
        assert_eq!((bytes.as_slice(), bytes.capacity(), fds.len()), (b"short".as_slice(), 5, 1));
        send_with_fds(ours.as_fd(), &[7; 3000], &[]).unwrap();
        assert_eq!(receive().0, [7; 1000]);
        drop((ours, fds));
        assert!(receive().0.is_empty());
    }
}
