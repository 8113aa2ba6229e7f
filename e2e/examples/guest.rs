//! A command on a machine that has this one's files (`cargo xtask conformance oci --machine`), with cgroup v2 alone.
//! usage: guest FOLDER PROGRAM [ARGUMENT...]
//! The command begins in FOLDER, which must not lie on an overlay for what is done in it. What is written stays in the
//! machine.

use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::qemu::Boot;

const NAME: &str = "guest";
/// How long it may say nothing. Commands have limits of their own, below this.
const SILENCE: Duration = Duration::from_secs(2 * 3600);
const MEMORY_MIB: u32 = 2048;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (folder, line) = words.split_first().context("usage: guest FOLDER PROGRAM [ARGUMENT...]")?;
    // It is a word of the kernel's command line.
    let plain = folder.starts_with('/') && !folder.contains(|letter: char| letter.is_whitespace() || letter == '"');
    ensure!(plain, "{folder} is no absolute path without blanks");
    let dir = tempfile::Builder::new().prefix("tt-vm-").tempdir()?;
    let boot = Boot::build(dir.path(), NAME, &[])?;
    std::fs::write(boot.root().join("command"), script(folder, line))?;
    boot.make_disk(NAME)?;
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-smp", "2"]);
    boot.describe(&mut command, NAME, MEMORY_MIB, &format!("tt.apart={folder}"));
    let _files = boot.share_files(&mut command, MEMORY_MIB)?;
    boot.watch(&mut command, NAME, SILENCE)
}

/// What a shell in the machine is to do: the command, in its folder, with our PATH.
fn script(folder: &str, line: &[String]) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    let line: Vec<String> = line.iter().map(|word| quoted(word)).collect();
    format!("cd {} && PATH={} exec {}\n", quoted(folder), quoted(&path), line.join(" "))
}

/// One word of a shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
