//! The system calls that rustix does not have, and all `unsafe` of this crate.
#![allow(unsafe_code)]

pub(crate) mod allocator;
mod bpf;
#[cfg(target_arch = "x86_64")]
mod entry;
mod rest;

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use libc::{c_char, c_int, c_long};
pub(crate) use rest::rest;

pub(crate) use bpf::set_device_program;

/// `struct clone_args` of linux/sched.h, version 2.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// `struct mount_attr` of linux/mount.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MountAttributes {
    pub(crate) set: u64,
    pub(crate) clear: u64,
    pub(crate) propagation: u64,
    pub(crate) user_namespace: u64,
}

/// One instruction of a classic BPF program (`struct sock_filter`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when true.
    pub when_true: u8,
    /// Instructions to skip when false.
    pub when_false: u8,
    /// Operand.
    pub k: u32,
}

/// linux/sched.h; libc's constant has lost it to 32 bits.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which side of [`fork`] we are on.
pub(crate) enum Forked {
    Parent { pid: i32, pidfd: OwnedFd },
    Child,
}

fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// clone3 with the given flags (new namespaces, CLONE_PARENT), as fork: the child goes on here on a copy of the stack. `cgroup` is a v2
/// cgroup's directory the child is born in. The process must have one thread only, or locks that other threads hold
/// stay locked in the child for ever.
pub(crate) fn fork(namespaces: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Forked> {
    let mut pidfd: c_int = -1;
    let into = if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 };
    let args = CloneArgs {
        flags: namespaces | libc::CLONE_PIDFD as u64 | into,
        pidfd: &raw mut pidfd as u64,
        // A child of our parent tells him what we would tell.
        exit_signal: if namespaces & libc::CLONE_PARENT as u64 == 0 { libc::SIGCHLD as u64 } else { 0 },
        cgroup: cgroup.map_or(0, |fd| fd.as_raw_fd() as u64),
        ..CloneArgs::default()
    };
    // SAFETY: without CLONE_VM the child has memory of its own and no stack is passed; `args` and `pidfd` outlive
    // the call and the size is that of the structure.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) })?;
    if pid == 0 {
        return Ok(Forked::Child);
    }
    // SAFETY: the kernel has just put a fresh descriptor there, and nobody else knows it.
    Ok(Forked::Parent { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// Ends the process without running destructors or exit handlers: what a forked child must do.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: never returns and touches no memory.
    unsafe { libc::_exit(code) }
}

/// execve; returns only when it failed.
pub(crate) fn exec(path: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both arrays end with a null pointer and point to strings that outlive the call.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// execveat of a descriptor; returns only when it failed.
pub(crate) fn exec_fd(fd: BorrowedFd<'_>, args: &[CString], env: &[CString]) -> io::Error {
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: as for `exec`; the empty path names the descriptor itself.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd.as_raw_fd(),
            c"".as_ptr(),
            args.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect()
}

/// mount_setattr on what a descriptor refers to.
pub(crate) fn mount_setattr(mount: BorrowedFd<'_>, recursive: bool, attributes: &MountAttributes) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the structure outlives the call and the size is its own.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            ptr::from_ref(attributes),
            size_of::<MountAttributes>(),
        )
    };
    check(result).map(|_| ())
}

/// SECCOMP_FILTER_FLAG_NEW_LISTENER.
pub(crate) const SECCOMP_NEW_LISTENER: u32 = 8;

/// Installs a seccomp filter on this process. `flags` are SECCOMP_FILTER_FLAG_*; with NEW_LISTENER among them returns the
/// descriptor that notifications are read from.
pub(crate) fn seccomp(program: &[Instruction], flags: u32) -> io::Result<Option<OwnedFd>> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let filter = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: `Instruction` has the layout of sock_filter, and the program outlives the call; the kernel only reads.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const filter) };
    let result = check(result)?;
    if flags & SECCOMP_NEW_LISTENER == 0 {
        return Ok(None);
    }
    // SAFETY: with this flag the result is a fresh descriptor, which nobody else knows.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(result as RawFd) }))
}

/// Closes all descriptors from `first` on but some. For a forked child that goes on to exec or to its end: nothing in it
/// may use or drop a descriptor it knew before.
pub(crate) fn close_others(first: u32, keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut kept: Vec<u32> = keep.iter().map(|fd| fd.as_raw_fd() as u32).filter(|fd| *fd >= first).collect();
    kept.sort_unstable();
    let mut from = first;
    for fd in kept.into_iter().chain([u32::MAX]) {
        if fd > from {
            let last = if fd == u32::MAX { fd } else { fd - 1 };
            // SAFETY: the caller is a forked child that forgets everything it had.
            check(unsafe { libc::syscall(libc::SYS_close_range, from, last, 0) })?;
        }
        from = fd.saturating_add(1);
    }
    Ok(())
}

/// Closes all descriptors from `first` on. For a forked child that goes on without exec: nothing in it may use or drop
/// a descriptor it knew before.
pub(crate) fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: the caller runs a forked child that forgets everything it had.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    check(result).map(|_| ())
}

/// Makes `from` also known as `to`, without close-on-exec: how the standard streams of a process are set.
pub(crate) fn dup_to(from: BorrowedFd<'_>, to: RawFd) -> io::Result<()> {
    if from.as_raw_fd() == to {
        // dup2 onto itself keeps the close-on-exec flag.
        // SAFETY: clears a flag of a descriptor that is open.
        return check(c_long::from(unsafe { libc::fcntl(to, libc::F_SETFD, 0) })).map(|_| ());
    }
    // SAFETY: replaces one of the standard descriptors, which nothing in this process owns.
    check(c_long::from(unsafe { libc::dup2(from.as_raw_fd(), to) })).map(|_| ())
}

/// Blocks the given signals and returns a descriptor that reads them.
pub(crate) fn signal_fd(signals: &[c_int]) -> io::Result<OwnedFd> {
    // SAFETY: `set` is initialised by sigemptyset before it is used; the rest are plain calls on it.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        check(c_long::from(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut())))?;
        let fd = check(c_long::from(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// All signals unblocked and at their default, as a new program expects them.
pub(crate) fn reset_signals() {
    // SAFETY: plain calls with an initialised set; SIG_DFL runs no code of ours.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut());
        for signal in 1..=libc::SIGRTMAX() {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
}

/// Sends a signal by number: those for real time have no name that is safe to use, and 0 only looks.
pub(crate) fn signal(process: &OwnedFd, signal: c_int) -> io::Result<()> {
    let none = ptr::null::<libc::siginfo_t>();
    // SAFETY: without information of ours the kernel makes its own.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, none, 0) }).map(|_| ())
}

/// Ends this process on a signal, until it becomes another program.
pub(crate) fn end_on(signal: c_int) {
    extern "C" fn end(signal: c_int) {
        exit_now(128 + signal)
    }
    // SAFETY: the handler does nothing but `_exit`, which may be called at any time.
    unsafe { libc::signal(signal, end as *const () as libc::sighandler_t) };
}

/// Ignores a signal.
pub(crate) fn ignore_signal(signal: c_int) {
    // SAFETY: SIG_IGN runs no code of ours.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Runs something that writes to whoever may stop reading: that is an error then, and ends nobody.
pub(crate) fn ignoring_broken_pipes<T>(run: impl FnOnce() -> T) -> T {
    // SAFETY: SIG_IGN runs no code of ours, and what was there before is put back.
    let before = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let result = run();
    // SAFETY: as above.
    unsafe { libc::signal(libc::SIGPIPE, before) };
    result
}

/// A new session keyring, so that a container does not share its creator's.
pub(crate) fn new_session_keyring() -> io::Result<()> {
    // SAFETY: a null name makes an anonymous keyring.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, ptr::null::<c_char>()) };
    check(result).map(|_| ())
}

/// Sets the execution domain of this process.
pub(crate) fn personality(persona: u64) -> io::Result<()> {
    // SAFETY: changes a flag of the process only.
    check(c_long::from(unsafe { libc::personality(persona as libc::c_ulong) })).map(|_| ())
}

/// Brings the loopback of the network namespace up.
pub(crate) fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    // SAFETY: all-zero bytes are a valid ifreq; name and flags are set before the kernel reads them.
    let mut request = unsafe { std::mem::zeroed::<libc::ifreq>() };
    request.ifr_name[0] = b'l' as c_char;
    request.ifr_name[1] = b'o' as c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request outlives the call; the kernel only reads it.
    check(c_long::from(unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as libc::Ioctl, &raw const request)
    }))
    .map(|_| ())
}

/// Which kind of namespace a descriptor is: one of CLONE_NEW*.
pub(crate) fn namespace_kind(namespace: impl AsFd) -> io::Result<c_int> {
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: this request takes no argument.
    check(c_long::from(unsafe { libc::ioctl(namespace.as_fd().as_raw_fd(), NS_GET_NSTYPE) })).map(|kind| kind as c_int)
}

/// `struct sched_attr` of linux/sched/types.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SchedulerAttributes {
    pub(crate) size: u32,
    pub(crate) policy: u32,
    pub(crate) flags: u64,
    pub(crate) nice: i32,
    pub(crate) priority: u32,
    pub(crate) runtime: u64,
    pub(crate) deadline: u64,
    pub(crate) period: u64,
    pub(crate) clamp: [u32; 2],
}

/// Sets the scheduling policy of this process.
pub(crate) fn set_scheduler(attributes: &SchedulerAttributes) -> io::Result<()> {
    let attributes = SchedulerAttributes { size: size_of::<SchedulerAttributes>() as u32, ..*attributes };
    // SAFETY: the structure says its size and outlives the call; the kernel only reads.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) }).map(|_| ())
}

/// Sets the input and output priority of this process: class and level of linux/ioprio.h.
pub(crate) fn set_io_priority(priority: c_int) -> io::Result<()> {
    const WHO_PROCESS: c_int = 1;
    // SAFETY: changes a number of the process only.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, priority) }).map(|_| ())
}

/// Sets where this process gets its memory from: MPOL_* and a bit for each node.
pub(crate) fn set_memory_policy(mode: c_int, nodes: &[u64]) -> io::Result<()> {
    let mask = if nodes.is_empty() { ptr::null() } else { nodes.as_ptr() };
    // The kernel counts one bit less than it is told.
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    // SAFETY: the mask has as many bits as the kernel reads, and outlives the call.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) }).map(|_| ())
}

/// Makes a terminal the controlling one of this session.
pub(crate) fn set_controlling_terminal(terminal: impl AsFd) -> io::Result<()> {
    Ok(rustix::process::ioctl_tiocsctty(terminal)?)
}

/// Leaves namespaces for new ones. The flags never hold CLONE_FILES, the one that can surprise safe code.
pub(crate) fn unshare(flags: rustix::thread::UnshareFlags) -> rustix::io::Result<()> {
    let flags = flags & !rustix::thread::UnshareFlags::FILES;
    // SAFETY: without CLONE_FILES the descriptor table stays shared, which is what I/O safety is about.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// Sleeps until a child has ended (or at once, when one already has).
pub(crate) fn wait_for_child() {
    // SAFETY: `set` is initialised before use; a blocked SIGCHLD stays pending until sigwait takes it, so none is lost.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut());
        let mut signal = 0;
        libc::sigwait(&raw const set, &raw mut signal);
    }
}
