//! Our own executable must not be writable through /proc/PID/exe of a process that enters a container (CVE-2019-5736).
//! So the shim and the OCI command line run it again from a read-only mount that is in no mount namespace.

use std::ffi::{CString, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{CWD, StatVfsMountFlags};
use rustix::mount::{MountAttrFlags, OpenTreeFlags, open_tree};

use crate::sys::{self, MountAttributes};

/// Runs this program again, protected, with the same arguments. Returns where it is protected already, or cannot be
/// (then the not dumpable state of entering processes is what is left).
pub(crate) fn run_from_read_only_mount() {
    let protected = rustix::fs::statvfs("/proc/self/exe").is_ok_and(|s| s.f_flag.contains(StatVfsMountFlags::RDONLY));
    if protected {
        return;
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let Ok(mount) = open_tree(CWD, "/proc/self/exe", flags) else { return };
    let attributes = MountAttributes { set: MountAttrFlags::MOUNT_ATTR_RDONLY.bits().into(), ..Default::default() };
    if sys::mount_setattr(mount.as_fd(), false, &attributes).is_err() {
        return;
    }
    let string = |text: OsString| CString::new(text.as_bytes()).unwrap_or_default();
    let args: Vec<CString> = std::env::args_os().map(string).collect();
    let env: Vec<CString> = std::env::vars_os()
        .filter_map(|(key, value)| CString::new([key.as_bytes(), b"=", value.as_bytes()].concat()).ok())
        .collect();
    sys::exec_fd(mount.as_fd(), &args, &env);
}
