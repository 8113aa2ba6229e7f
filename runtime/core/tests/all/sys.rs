//! The requests of a seccomp agent to the kernel (seccomp_unotify(2)), the label of a key, and all `unsafe` of these tests.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use libc::{c_int, seccomp_notif, seccomp_notif_resp};

const RECEIVE: libc::Ioctl = 0xc050_2100_u32 as libc::Ioctl;
const SEND: libc::Ioctl = 0xc018_2101_u32 as libc::Ioctl;
const CONTINUE: u32 = 1;

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The next call that waits: its cookie, and its number.
pub(crate) fn receive(listener: &OwnedFd) -> io::Result<(u64, c_int)> {
    // SAFETY: all-zero bytes are a valid structure, as the kernel wants it; it has the size that the request names.
    let mut call = unsafe { std::mem::zeroed::<seccomp_notif>() };
    // SAFETY: as above; the structure outlives the call.
    check(unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE, &raw mut call) })?;
    Ok((call.id, call.data.nr))
}

/// Answers a call: an error, or `None` to have the kernel do it.
pub(crate) fn answer(listener: &OwnedFd, id: u64, error: Option<c_int>) -> io::Result<()> {
    let flags = if error.is_none() { CONTINUE } else { 0 };
    let mut answer = seccomp_notif_resp { id, val: 0, error: -error.unwrap_or(0), flags };
    // SAFETY: the structure has the size that the request names and outlives the call.
    check(unsafe { libc::ioctl(listener.as_raw_fd(), SEND, &raw mut answer) })
}

/// What a security module calls a key (keyctl(2), KEYCTL_GET_SECURITY).
pub(crate) fn key_label(key: i32) -> io::Result<Vec<u8>> {
    let mut label = vec![0u8; 256];
    // SAFETY: the kernel writes no more than the length that it is told, which is that of the vector.
    let length =
        unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_GET_SECURITY, key, label.as_mut_ptr(), label.len()) };
    label.truncate(usize::try_from(length).map_err(|_| io::Error::last_os_error())?);
    Ok(label)
}
