//! Capabilities: the five sets of a process, as masks.

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::{Result, failed};

/// By number (linux/capability.h).
const NUMBERS: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

/// The sets a process shall have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sets {
    bounding: u64,
    effective: u64,
    permitted: u64,
    inheritable: u64,
    ambient: u64,
    refused_ambient: u64,
    /// Asked for, and not ours to give, or not within its bounds.
    missing: u64,
}

impl Sets {
    /// The sets of a spec, as far as we have them ourselves: nobody can give what he has not. Ambient are those only
    /// that are permitted and inheritable. `own_users`: for a process in another user namespace, which has all in there,
    /// whatever we have here (user_namespaces(7)).
    pub(crate) fn of(capabilities: Option<&LinuxCapabilities>, own_users: bool) -> Result<Self> {
        let Some(capabilities) = capabilities else { return Ok(Self::default()) };
        let own = rustix::thread::capabilities(None).map_err(failed(|| "read own capabilities".to_owned()))?;
        let held = if own_users { u64::MAX } else { own.permitted.bits() };
        let bounding = mask(capabilities.bounding().as_ref()) & held;
        let permitted = mask(capabilities.permitted().as_ref()) & bounding;
        // Those that are not bounding the kernel refuses, and runc's callers rely on that.
        let inheritable = mask(capabilities.inheritable().as_ref()) & held;
        let ambient = mask(capabilities.ambient().as_ref());
        let asked = mask(capabilities.bounding().as_ref()) | mask(capabilities.inheritable().as_ref()) | ambient;
        Ok(Self {
            bounding,
            permitted,
            effective: mask(capabilities.effective().as_ref()) & permitted,
            inheritable,
            ambient: ambient & permitted & inheritable,
            refused_ambient: ambient & !(permitted & inheritable) & held,
            missing: asked & !held | mask(capabilities.permitted().as_ref()) & !bounding,
        })
    }

    /// The names of those asked for as ambient that cannot be.
    pub(crate) fn refused_ambient(&self) -> impl Iterator<Item = String> {
        names_of(self.refused_ambient)
    }

    /// The names of those asked for that nobody here could give.
    pub(crate) fn missing(&self) -> impl Iterator<Item = String> {
        names_of(self.missing)
    }

    /// Cuts the bounding set; needs CAP_SETPCAP, so it comes first.
    pub(crate) fn bound(&self) -> Result<()> {
        for bit in bits(!self.bounding) {
            match rustix::thread::remove_capability_from_bounding_set(bit) {
                // A number this kernel does not know.
                Ok(()) | Err(rustix::io::Errno::INVAL) => {}
                Err(e) => return Err(failed(|| "drop bounding capabilities".to_owned())(e)),
            }
        }
        Ok(())
    }

    /// Sets the other sets, after the user has changed with capabilities kept.
    pub(crate) fn apply(&self) -> Result<()> {
        let what = || "set capabilities".to_owned();
        let set = CapabilitySet::from_bits_retain;
        let sets = CapabilitySets {
            effective: set(self.effective),
            permitted: set(self.permitted),
            inheritable: set(self.inheritable),
        };
        rustix::thread::set_capabilities(None, sets).map_err(failed(what))?;
        rustix::thread::clear_ambient_capability_set().map_err(failed(what))?;
        for bit in bits(self.ambient) {
            rustix::thread::configure_capability_in_ambient_set(bit, true).map_err(failed(what))?;
        }
        Ok(())
    }
}

fn names_of(mask: u64) -> impl Iterator<Item = String> {
    NUMBERS.iter().enumerate().filter(move |(n, _)| mask & 1 << n != 0).map(|(_, c)| format!("CAP_{c}"))
}

fn bits(mask: u64) -> impl Iterator<Item = CapabilitySet> {
    (0..NUMBERS.len() as u32).map(|n| CapabilitySet::from_bits_retain(1 << n)).filter(move |bit| mask & bit.bits() != 0)
}

fn mask(capabilities: Option<&Capabilities>) -> u64 {
    let Some(capabilities) = capabilities else { return 0 };
    NUMBERS.iter().enumerate().filter(|(_, c)| capabilities.contains(c)).fold(0, |mask, (n, _)| mask | 1 << n)
}

/// What is told of capabilities that nobody knows or can give (config.md, Linux Process).
pub(crate) fn ignored(names: &[String]) -> String {
    format!("ignoring unknown or unavailable capabilities: [{}]", names.join(" "))
}

/// The names of all capabilities, for `features`.
pub(crate) fn names() -> Vec<String> {
    NUMBERS.iter().map(|c| format!("CAP_{c}")).collect()
}
