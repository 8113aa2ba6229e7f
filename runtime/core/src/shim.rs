//! The pod shim: one thread, parent of every container of a pod.

use std::path::Path;
use std::process::ExitCode;

/// Runs the shim of the pod whose configuration stands in `run_dir`: `trimtab shim <run_dir>`. Must be called before
/// any other thread is started. Returns in the spawning process once the pod stands (or failed); the shim itself goes on
/// in the background.
pub fn main(run_dir: &Path) -> ExitCode {
    let _ = run_dir;
    ExitCode::FAILURE
}
