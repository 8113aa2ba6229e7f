//! The OCI command line: `trimtab oci create|start|state|kill|delete|run|exec|list|ps|pause|resume|spec|features`.

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs `trimtab oci ARGS...`; `args` starts after `oci`. Must be called before any other thread is started.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let _ = args;
    ExitCode::FAILURE
}
