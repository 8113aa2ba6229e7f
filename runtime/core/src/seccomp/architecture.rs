//! The architectures whose system calls the kernel of this machine takes.

use oci_spec::runtime::Arch;

use super::syscalls::{self, Multiplexer, Numbers};

/// One of them.
#[derive(Debug)]
pub(super) struct Architecture {
    pub(super) oci: Arch,
    /// As `features` says it.
    pub(super) name: &'static str,
    /// AUDIT_ARCH_* (linux/audit.h), which a call comes with.
    pub(super) audit: u32,
    /// In the table of system calls.
    column: usize,
    /// Where two have one `audit`: whether the numbers are those with [`X32_BIT`].
    pub(super) above: Option<bool>,
    /// From this number on calls are not numbered by their age (arch/arm/include/uapi/asm/unistd.h).
    pub(super) unordered: u32,
    /// Arguments have 64 bits.
    pub(super) wide: bool,
    pub(super) multiplexers: &'static [Multiplexer],
}

/// Numbers from here on are the x32 ABI's.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// All of them, the machine's own first.
pub(super) const ALL: &[Architecture] = if cfg!(target_arch = "aarch64") { &OF_AARCH64 } else { &OF_X86_64 };

pub(super) static OF_X86_64: [Architecture; 3] = [
    Architecture {
        oci: Arch::ScmpArchX86_64,
        name: "SCMP_ARCH_X86_64",
        audit: 0xc000_003e,
        column: syscalls::X86_64,
        above: Some(false),
        unordered: u32::MAX,
        wide: true,
        multiplexers: &[],
    },
    Architecture {
        oci: Arch::ScmpArchX86,
        name: "SCMP_ARCH_X86",
        audit: 0x4000_0003,
        column: syscalls::X86,
        above: None,
        unordered: u32::MAX,
        wide: false,
        multiplexers: &syscalls::MULTIPLEXERS,
    },
    Architecture {
        oci: Arch::ScmpArchX32,
        name: "SCMP_ARCH_X32",
        audit: 0xc000_003e,
        column: syscalls::X32,
        above: Some(true),
        unordered: u32::MAX,
        // Its registers are those of x86-64, and the kernel reads all of them.
        wide: true,
        multiplexers: &[],
    },
];

pub(super) static OF_AARCH64: [Architecture; 2] = [
    Architecture {
        oci: Arch::ScmpArchAarch64,
        name: "SCMP_ARCH_AARCH64",
        audit: 0xc000_00b7,
        column: syscalls::AARCH64,
        above: None,
        unordered: u32::MAX,
        wide: true,
        multiplexers: &[],
    },
    Architecture {
        oci: Arch::ScmpArchArm,
        name: "SCMP_ARCH_ARM",
        audit: 0x4000_0028,
        column: syscalls::ARM,
        above: None,
        unordered: 0xf_0000,
        wide: false,
        multiplexers: &[],
    },
];

impl Architecture {
    /// The number that a call has in the kernel's description of it.
    pub(super) fn number(&self, call: Numbers) -> Option<u32> {
        let bit = if self.above == Some(true) { X32_BIT } else { 0 };
        call.at(self.column).map(|number| number | bit)
    }
}
