//! The eBPF program that decides on the devices of a v2 cgroup (bpf(2), linux/bpf.h).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use libc::{c_int, c_long};

use super::check;

/// How our program is known among those of others.
const NAME: [u8; 16] = *b"trimtab_devices\0";

/// Programs of a cgroup that are looked at.
const MAX_PROGRAMS: usize = 64;

const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// Every program up the tree must allow.
const ALLOW_MULTI: u32 = 2;
const REPLACE: u32 = 4;

/// The head of `union bpf_attr` for BPF_PROG_LOAD.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// BPF_PROG_ATTACH.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replaced: u32,
}

/// BPF_PROG_QUERY.
#[repr(C)]
struct Query {
    target: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
}

/// BPF_PROG_GET_FD_BY_ID.
#[repr(C)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

/// BPF_OBJ_GET_INFO_BY_FD.
#[repr(C)]
struct Ask {
    fd: u32,
    length: u32,
    info: u64,
}

/// The head of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct Info {
    before: [u64; 8],
    name: [u8; 16],
}

/// Calls bpf(2).
///
/// # Safety
/// `attributes` must be the head of bpf_attr for this command, and what it points to must be as long as it says.
unsafe fn bpf<T>(command: c_int, attributes: &mut T) -> io::Result<c_long> {
    // SAFETY: the structure outlives the call and the size is its own; the rest is the caller's promise.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, ptr::from_mut(attributes), size_of::<T>()) })
}

/// Loads an eBPF program of type CGROUP_DEVICE and attaches it to a v2 cgroup, in the place of the one that was attached
/// so before. `code` holds 8-byte instructions.
pub(crate) fn set_device_program(cgroup: BorrowedFd<'_>, code: &[u64]) -> io::Result<()> {
    const PROG_ATTACH: c_int = 8;
    let program = load(code)?;
    let before = attached(cgroup)?;
    let mut attach = Attach {
        target: cgroup.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI | if before.is_some() { REPLACE } else { 0 },
        replaced: before.as_ref().map_or(0, |fd| fd.as_raw_fd() as u32),
    };
    // SAFETY: the structure is that of the command, and points to nothing.
    unsafe { bpf(PROG_ATTACH, &mut attach) }.map(|_| ())
}

fn load(code: &[u64]) -> io::Result<OwnedFd> {
    const PROG_LOAD: c_int = 5;
    let mut load = Load {
        kind: TYPE_CGROUP_DEVICE,
        count: code.len() as u32,
        instructions: code.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: NAME,
    };
    // SAFETY: the structure is that of the command, and what it points to outlives the call; the kernel only reads.
    let program = unsafe { bpf(PROG_LOAD, &mut load) }?;
    // SAFETY: a fresh descriptor nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(program as RawFd) })
}

/// Our program on this cgroup, if there is one.
fn attached(cgroup: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    const PROG_QUERY: c_int = 16;
    let mut ids = [0_u32; MAX_PROGRAMS];
    let mut query = Query {
        target: cgroup.as_raw_fd() as u32,
        kind: ATTACH_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: MAX_PROGRAMS as u32,
    };
    // SAFETY: the structure is that of the command, and the array is as long as it says.
    unsafe { bpf(PROG_QUERY, &mut query) }?;
    for id in ids.iter().take(query.count as usize) {
        // One that has gone meanwhile is not ours: those go by our hand alone.
        if let Ok(program) = by_id(*id)
            && name(&program)? == NAME
        {
            return Ok(Some(program));
        }
    }
    Ok(None)
}

fn by_id(id: u32) -> io::Result<OwnedFd> {
    const PROG_GET_FD_BY_ID: c_int = 13;
    // SAFETY: the structure is that of the command, and points to nothing.
    let fd = unsafe { bpf(PROG_GET_FD_BY_ID, &mut ById { id, next: 0, flags: 0 }) }?;
    // SAFETY: a fresh descriptor nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

fn name(program: &OwnedFd) -> io::Result<[u8; 16]> {
    const OBJ_GET_INFO_BY_FD: c_int = 15;
    let mut info = Info::default();
    let mut ask =
        Ask { fd: program.as_raw_fd() as u32, length: size_of::<Info>() as u32, info: (&raw mut info) as u64 };
    // SAFETY: the structure is that of the command, and the room for the answer is as long as it says.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut ask) }?;
    Ok(info.name)
}
