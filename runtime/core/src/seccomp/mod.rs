//! Seccomp: the OCI section becomes a classic BPF program.

mod agent;
mod architecture;
mod cache;
mod compile;
mod instruction;
mod profile;
mod syscalls;

use std::os::fd::OwnedFd;

pub(crate) use agent::notify;
pub(crate) use cache::Cache;
pub use compile::compile;
pub use profile::default_profile;

use crate::sys::{self, Instruction};
use crate::{Error, Result};

/// The architectures whose calls filters can tell, as `features` says them; the machine's own first.
pub(crate) fn architectures() -> Vec<&'static str> {
    architecture::ALL.iter().map(|architecture| architecture.name).collect()
}

/// A compiled filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    code: Vec<Instruction>,
    flags: u32,
}

impl Program {
    /// The instructions.
    pub fn code(&self) -> &[Instruction] {
        &self.code
    }

    /// SECCOMP_FILTER_FLAG_*.
    pub(crate) fn flags(&self) -> u32 {
        self.flags
    }

    /// Whether it sends calls to somebody else to answer.
    pub(crate) fn has_listener(&self) -> bool {
        self.flags & sys::SECCOMP_NEW_LISTENER != 0
    }

    /// Puts this process and its children under the filter, for ever; returns where its notifications are to be read.
    pub(crate) fn install(&self) -> Result<Option<OwnedFd>> {
        sys::seccomp(&self.code, self.flags).map_err(|e| Error::System("install the seccomp filter".to_owned(), e))
    }
}
