//! Labels of security modules: AppArmor's profile and SELinux's label of a process (config.md, Linux Process), SELinux's
//! context of file systems (config-linux.md, Mount Label).

use std::fs;
use std::os::fd::OwnedFd;

use oci_spec::runtime::{Linux, Process};
use rustix::fs::{Mode, OFlags, StatVfsMountFlags, XattrFlags};
use rustix::io::Errno;

use crate::{Error, Result, failed, proc};

const PROFILE: &str = "process.apparmorProfile";
const LABEL: &str = "process.selinuxLabel";
const MOUNTS: &str = "linux.mountLabel";

/// The profile of who has none.
const UNCONFINED: &str = "unconfined";

/// `SELINUX_MAGIC` of linux/magic.h.
const SELINUX: i64 = 0xf97c_ff8c;

/// What a process is labelled with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Labels {
    apparmor: Option<String>,
    selinux: Option<String>,
}

impl Labels {
    /// Those of the `process` of a spec.
    pub(crate) fn of(process: &Process) -> Result<Self> {
        Ok(Self {
            apparmor: text(PROFILE, process.apparmor_profile().as_ref())?,
            selinux: text(LABEL, process.selinux_label().as_ref())?,
        })
    }

    /// What of them this host sets; an error where it should and its module is not enabled. Asked for outside: a
    /// container's /sys says what it likes.
    pub(crate) fn here(&self) -> Result<Option<Self>> {
        let apparmor = match &self.apparmor {
            Some(profile) if !apparmor_is_enabled() && profile == UNCONFINED => None,
            Some(_) if !apparmor_is_enabled() => return Err(not_enabled(PROFILE, "AppArmor")),
            profile => profile.clone(),
        };
        if self.selinux.is_some() && !selinux_is_enabled() {
            return Err(not_enabled(LABEL, "SELinux"));
        }
        let any = apparmor.is_some() || self.selinux.is_some();
        Ok(any.then(|| Self { apparmor, selinux: self.selinux.clone() }))
    }

    /// Keys that we make from here on have the process's label.
    pub(crate) fn label_keys(&self, proc: &OwnedFd) -> Result<()> {
        let Some(label) = &self.selinux else { return Ok(()) };
        set(proc, "self/attr/keycreate", label).map_err(failed(|| format!("{LABEL}: label keys as {label:?}")))
    }

    /// Keys have our own label again, and what this process or a child of it becomes by exec has these. Before the
    /// filter, which may forbid to say so; so startContainer hooks, which run inside, have the labels too, as with runc. What
    /// the process may not become (with no_new_privs: what is not bounded by what it is) the kernel refuses then or at exec.
    pub(crate) fn label_process(&self, proc: &OwnedFd) -> Result<()> {
        if let Some(label) = &self.selinux {
            set(proc, "self/attr/keycreate", "").map_err(failed(|| format!("{LABEL}: label no more keys")))?;
            set(proc, "self/attr/exec", label).map_err(failed(|| format!("{LABEL}: set {label:?}")))?;
        }
        let Some(profile) = &self.apparmor else { return Ok(()) };
        let what = || format!("{PROFILE}: set {profile:?}");
        // Before Linux 5.8 AppArmor has no place of its own.
        let file = match proc::open(proc, "self/attr/apparmor/exec") {
            Err(Errno::NOENT) => proc::open(proc, "self/attr/exec"),
            file => file,
        };
        match proc::write(&file.map_err(failed(what))?, &format!("exec {profile}")) {
            Err(Errno::NOENT) => Err(Error::Invalid(format!("{PROFILE}: no profile {profile:?} is loaded"))),
            written => written.map_err(failed(what)),
        }
    }
}

/// SELinux's context of a container's new file systems, where it is to have one. Without SELinux, as with crun, none has:
/// a process would be less confined than it should be, a file system is not.
pub(crate) fn of_mounts(linux: Option<&Linux>) -> Result<Option<String>> {
    let label = text(MOUNTS, linux.and_then(|l| l.mount_label().as_ref()))?;
    Ok(label.filter(|_| selinux_is_enabled()))
}

/// Labels the root of a file system that takes no context; `mount` is a detached one.
pub(crate) fn label_root(mount: &OwnedFd, label: &str) -> rustix::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(mount, ".", flags, Mode::empty())?;
    rustix::fs::fsetxattr(&root, "security.selinux", label.as_bytes(), XattrFlags::empty())
}

/// A label that somebody asks for. None has NUL in it.
fn text(field: &str, label: Option<&String>) -> Result<Option<String>> {
    match label.filter(|label| !label.is_empty()) {
        Some(label) if label.contains('\0') => Err(Error::Invalid(format!("{field}: {label:?} contains NUL"))),
        label => Ok(label.cloned()),
    }
}

fn not_enabled(field: &str, module: &str) -> Error {
    Error::Invalid(format!("{field}: {module} is not enabled on this host"))
}

fn set(proc: &OwnedFd, attribute: &str, value: &str) -> rustix::io::Result<()> {
    proc::write(&proc::open(proc, attribute)?, value)
}

fn apparmor_is_enabled() -> bool {
    fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|said| said.first() == Some(&b'Y'))
}

/// As libselinux says: its file system is there to be written to (a container may look at the host's), and it has a
/// policy, without which its labels are words without a colon.
fn selinux_is_enabled() -> bool {
    const PLACE: &str = "/sys/fs/selinux";
    let known = rustix::fs::statfs(PLACE).is_ok_and(|stat| stat.f_type == SELINUX);
    let writable = || rustix::fs::statvfs(PLACE).is_ok_and(|stat| !stat.f_flag.contains(StatVfsMountFlags::RDONLY));
    let policy = || fs::read("/proc/self/attr/current").is_ok_and(|label| label.contains(&b':'));
    known && writable() && policy()
}
