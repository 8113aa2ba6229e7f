//! The runtime's two front ends as a program of their own: `runtime shim RUN_DIR` and `runtime oci ARGS...`; and
//! `runtime root COMMAND...`, which runs a command as root of a user namespace. Tests run it in place of the whole
//! `trimtab`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match (args.next().as_deref().and_then(|a| a.to_str()), args) {
        (Some("shim"), mut args) => match args.next() {
            Some(run_dir) => runtime_core::shim::main(Path::new(&run_dir)),
            None => ExitCode::from(2),
        },
        (Some("oci"), args) => runtime_core::oci::main(args.collect()),
        (Some("root"), args) => root(args.collect()),
        _ => ExitCode::from(2),
    }
}

fn root(words: Vec<OsString>) -> ExitCode {
    let Some((program, args)) = words.split_first() else { return ExitCode::from(2) };
    match runtime_core::rootless::become_root() {
        Ok(why) => why.iter().for_each(|why| eprintln!("{why}")),
        Err(error) => eprintln!("error: {error}"),
    }
    eprintln!("{}", Command::new(program).args(args).exec());
    ExitCode::FAILURE
}
