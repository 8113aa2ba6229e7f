//! The default profile: what containers may call, by the capabilities they have. The same calls are open as in the
//! default profile that docker, containerd and podman share, to programs of each architecture that the machine runs.

use oci_spec::runtime::{
    Capabilities, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};

use super::{architecture, syscalls};
use crate::{Error, Result};

/// Calls that need one of the capabilities; with none listed they are closed to everybody.
const RESTRICTED: [(&str, &[Capability]); 110] = [
    ("_sysctl", &[]),
    ("acct", &[Capability::SysPacct]),
    ("add_key", &[]),
    ("afs_syscall", &[]),
    ("bdflush", &[]),
    ("bpf", &[Capability::SysAdmin, Capability::Bpf]),
    ("break", &[]),
    ("chroot", &[Capability::SysChroot]),
    ("clock_settime", &[Capability::SysTime]),
    ("clock_settime64", &[Capability::SysTime]),
    ("clone", &[Capability::SysAdmin]),
    ("clone3", &[Capability::SysAdmin]),
    ("create_module", &[]),
    ("delete_module", &[Capability::SysModule]),
    ("epoll_ctl_old", &[]),
    ("epoll_wait_old", &[]),
    ("fanotify_init", &[Capability::SysAdmin]),
    ("finit_module", &[Capability::SysModule]),
    ("fsconfig", &[Capability::SysAdmin]),
    ("fsmount", &[Capability::SysAdmin]),
    ("fsopen", &[Capability::SysAdmin]),
    ("fspick", &[Capability::SysAdmin]),
    ("ftime", &[]),
    ("get_kernel_syms", &[]),
    ("get_mempolicy", &[Capability::SysNice]),
    ("get_tls", &[]),
    ("getpmsg", &[]),
    ("gtty", &[]),
    ("idle", &[]),
    ("init_module", &[Capability::SysModule]),
    ("io_uring_enter", &[]),
    ("io_uring_register", &[]),
    ("io_uring_setup", &[]),
    ("ioperm", &[Capability::SysRawio]),
    ("iopl", &[Capability::SysRawio]),
    ("kcmp", &[Capability::SysPtrace]),
    ("kexec_file_load", &[]),
    ("kexec_load", &[]),
    ("keyctl", &[]),
    ("lock", &[]),
    ("lookup_dcookie", &[Capability::SysAdmin]),
    ("mbind", &[Capability::SysNice]),
    ("migrate_pages", &[]),
    ("mount", &[Capability::SysAdmin]),
    ("mount_setattr", &[Capability::SysAdmin]),
    ("move_mount", &[Capability::SysAdmin]),
    ("move_pages", &[]),
    ("mpx", &[]),
    ("nfsservctl", &[]),
    ("nice", &[]),
    ("oldfstat", &[]),
    ("oldlstat", &[]),
    ("oldolduname", &[]),
    ("oldstat", &[]),
    ("olduname", &[]),
    ("open_by_handle_at", &[Capability::DacReadSearch]),
    ("open_tree", &[Capability::SysAdmin]),
    ("open_tree_attr", &[Capability::SysAdmin]),
    ("pciconfig_iobase", &[]),
    ("pciconfig_read", &[]),
    ("pciconfig_write", &[]),
    ("perf_event_open", &[Capability::SysAdmin, Capability::Perfmon]),
    ("personality", &[]),
    ("pidfd_getfd", &[Capability::SysPtrace]),
    ("pivot_root", &[]),
    ("process_madvise", &[Capability::SysPtrace]),
    ("process_vm_readv", &[Capability::SysPtrace]),
    ("process_vm_writev", &[Capability::SysPtrace]),
    ("prof", &[]),
    ("profil", &[]),
    ("putpmsg", &[]),
    ("query_module", &[]),
    ("quotactl", &[Capability::SysAdmin]),
    ("quotactl_fd", &[Capability::SysAdmin]),
    ("readdir", &[]),
    ("reboot", &[Capability::SysBoot]),
    ("request_key", &[]),
    ("security", &[]),
    ("set_mempolicy", &[Capability::SysNice]),
    ("set_mempolicy_home_node", &[Capability::SysNice]),
    ("setdomainname", &[Capability::SysAdmin]),
    ("sethostname", &[Capability::SysAdmin]),
    ("setns", &[Capability::SysAdmin]),
    ("settimeofday", &[Capability::SysTime]),
    ("sgetmask", &[]),
    ("sigaction", &[]),
    ("signal", &[]),
    ("sigpending", &[]),
    ("sigsuspend", &[]),
    ("socket", &[]),
    ("ssetmask", &[]),
    ("stime", &[Capability::SysTime]),
    ("stty", &[]),
    ("swapoff", &[]),
    ("swapon", &[]),
    ("sysfs", &[]),
    ("syslog", &[Capability::SysAdmin, Capability::Syslog]),
    ("tuxcall", &[]),
    ("ulimit", &[]),
    ("umount", &[Capability::SysAdmin]),
    ("umount2", &[Capability::SysAdmin]),
    ("unshare", &[Capability::SysAdmin]),
    ("uselib", &[]),
    ("userfaultfd", &[]),
    ("usr26", &[]),
    ("usr32", &[]),
    ("ustat", &[]),
    ("vhangup", &[Capability::SysTtyConfig]),
    ("vm86", &[]),
    ("vm86old", &[]),
];

/// The personas that are harmless: PER_LINUX, UNAME26, PER_LINUX32, both, and the query.
const PERSONAS: [u64; 5] = [0x0, 0x8, 0x20000, 0x20008, 0xffff_ffff];
/// CLONE_NEW* except time's.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;
const AF_VSOCK: u64 = 40;
const ENOSYS: u32 = 38;

/// The profile for a process with these capabilities in its bounding set: everything else answers EPERM, and calls newer
/// than the profile ENOSYS.
pub fn default_profile(capabilities: &Capabilities) -> Result<LinuxSeccomp> {
    let has = |wanted: &[Capability]| wanted.iter().any(|c| capabilities.contains(c));
    let open = |name: &&str| match RESTRICTED.binary_search_by(|(restricted, _)| restricted.cmp(name)) {
        Ok(at) => RESTRICTED.get(at).is_some_and(|(_, wanted)| has(wanted)),
        Err(_) => true,
    };
    let mut rules = vec![rule(syscalls::names().filter(open), LinuxSeccompAction::ScmpActAllow, None, None)?];
    for persona in PERSONAS {
        rules.push(allow_if("personality", argument(0, persona, None, LinuxSeccompOperator::ScmpCmpEq)?)?);
    }
    rules.push(allow_if("socket", argument(0, AF_VSOCK, None, LinuxSeccompOperator::ScmpCmpNe)?)?);
    if !has(&[Capability::SysAdmin]) {
        let plain = argument(0, NAMESPACE_FLAGS, Some(0), LinuxSeccompOperator::ScmpCmpMaskedEq)?;
        rules.push(allow_if("clone", plain)?);
        // Its flags lie behind a pointer; libc falls back to clone.
        rules.push(rule(["clone3"].into_iter(), LinuxSeccompAction::ScmpActErrno, Some(ENOSYS), None)?);
    }
    let profile = LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(1u32)
        .architectures(architecture::ALL.iter().map(|a| a.oci).collect::<Vec<_>>())
        .syscalls(rules);
    profile.build().map_err(invalid)
}

fn allow_if(name: &'static str, argument: LinuxSeccompArg) -> Result<LinuxSyscall> {
    rule([name].into_iter(), LinuxSeccompAction::ScmpActAllow, None, Some(argument))
}

fn rule(
    names: impl Iterator<Item = &'static str>,
    action: LinuxSeccompAction,
    errno: Option<u32>,
    argument: Option<LinuxSeccompArg>,
) -> Result<LinuxSyscall> {
    let mut rule = LinuxSyscallBuilder::default().names(names.map(str::to_owned).collect::<Vec<_>>()).action(action);
    if let Some(errno) = errno {
        rule = rule.errno_ret(errno);
    }
    if let Some(argument) = argument {
        rule = rule.args(vec![argument]);
    }
    rule.build().map_err(invalid)
}

fn argument(index: usize, value: u64, two: Option<u64>, op: LinuxSeccompOperator) -> Result<LinuxSeccompArg> {
    let mut argument = LinuxSeccompArgBuilder::default().index(index).value(value).op(op);
    if let Some(two) = two {
        argument = argument.value_two(two);
    }
    argument.build().map_err(invalid)
}

fn invalid(error: impl std::fmt::Display) -> Error {
    Error::Invalid(format!("linux.seccomp: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restrictions_are_sorted_and_real() {
        assert!(RESTRICTED.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for (name, _) in RESTRICTED {
            assert!(syscalls::names().any(|known| known == name), "{name}");
        }
    }
}
