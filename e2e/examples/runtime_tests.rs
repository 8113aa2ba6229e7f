//! The runtime's test programs on machines of their own (`cargo xtask conformance machine`).
//! usage: runtime_tests MACHINE ONLY PROGRAM=PLACE...
//! MACHINE is a name in [`MACHINES`], ONLY is in the names of the tests that are wanted; each may be empty.

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::qemu::Boot;

/// Name, purpose (a script of `e2e/machine`), the tests that it is there for, what its kernel is told.
type Machine = (&'static str, &'static str, &'static str, &'static str);

const MACHINES: [Machine; 4] = [
    ("v2", "runtime", "", ""),
    ("selinux", "runtime", "labels::", "security=selinux"),
    ("systemd", "systemd", "systemd::", ""),
    ("systemd-v1", "systemd", "systemd::", "systemd.unified_cgroup_hierarchy=0"),
];

/// How long a machine may say nothing: emulated processors are slow, and some tests have much to do.
const SILENCE: Duration = Duration::from_secs(600);
const MEMORY_MIB: u32 = 1024;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let (wanted, only) =
        words.next().zip(words.next()).context("usage: runtime_tests MACHINE ONLY PROGRAM=PLACE...")?;
    let files: Vec<(PathBuf, String)> =
        words.filter_map(|word| word.split_once('=').map(|(file, place)| (file.into(), place.to_owned()))).collect();
    let machines: Vec<&Machine> = MACHINES.iter().filter(|(name, ..)| wanted.is_empty() || *name == wanted).collect();
    ensure!(!machines.is_empty(), "no machine {wanted}; there are {:?}", MACHINES.map(|(name, ..)| name));
    let mut failed = Vec::new();
    for machine in machines {
        println!("machine {}", machine.0);
        if !passes(machine, &only, &files)? {
            failed.push(machine.0);
        }
    }
    ensure!(failed.is_empty(), "tests failed on the machines {failed:?}");
    Ok(())
}

/// Boots a machine and shows what the tests say in it: whether all passed.
fn passes((name, purpose, tests, kernel): &Machine, only: &str, files: &[(PathBuf, String)]) -> Result<bool> {
    let dir = tempfile::Builder::new().prefix("tt-vm-").tempdir()?;
    let boot = Boot::build(dir.path(), purpose, files)?;
    boot.make_disk(name)?;
    let only = if only.is_empty() { tests } else { only };
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-smp", "2"]);
    boot.describe(&mut command, name, MEMORY_MIB, &format!("tt.only={only} {kernel}"));
    boot.watch(&mut command, name, SILENCE)
}
