//! Seccomp: the OCI section becomes a classic BPF program.

mod compile;
mod profile;
mod syscalls;

pub use compile::compile;
pub use profile::default_profile;

use crate::sys::{self, Instruction};
use crate::{Error, Result};

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

    /// Puts this process and its children under the filter, for ever.
    pub(crate) fn install(&self) -> Result<()> {
        sys::seccomp(&self.code, self.flags).map_err(|e| Error::System("install the seccomp filter".to_owned(), e))
    }
}
