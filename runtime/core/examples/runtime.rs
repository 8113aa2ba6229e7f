//! The runtime's two front ends as a program of their own: `runtime shim RUN_DIR` and `runtime oci ARGS...`. Tests run
//! it in place of the whole `trimtab`.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match (args.next().as_deref().and_then(|a| a.to_str()), args) {
        (Some("shim"), mut args) => match args.next() {
            Some(run_dir) => runtime_core::shim::main(Path::new(&run_dir)),
            None => ExitCode::from(2),
        },
        (Some("oci"), args) => runtime_core::oci::main(args.collect()),
        _ => ExitCode::from(2),
    }
}
