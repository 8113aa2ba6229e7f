//! Runs programs and says what they are.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use cargo_metadata::{Artifact, Message};

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    unowned(Command::new(cargo_program()))
}

/// The same, ended after so many seconds.
pub(crate) fn cargo_within(seconds: u32) -> Command {
    let mut command = Command::new("timeout");
    command.arg(seconds.to_string()).arg(cargo_program());
    unowned(command)
}

fn cargo_program() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// What cargo told us of our own package would make ring, and all that uses it, be built anew.
fn unowned(mut command: Command) -> Command {
    let own = |name: &str| ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| name.starts_with(prefix));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(own)) {
        command.env_remove(name);
    }
    command
}

/// Runs a command in the workspace's root with its output shown; an exit code other than 0 is an error.
pub(crate) fn show(command: &mut Command) -> Result<()> {
    let line = describe(command);
    eprintln!("+ {line}");
    let status = command.current_dir(root()).status().with_context(|| format!("start {line}"))?;
    if !status.success() {
        bail!("{line}: {status}");
    }
    Ok(())
}

/// A program that cargo has built.
pub(crate) struct Built {
    /// Of the target.
    pub(crate) name: String,
    /// It runs the tests of its target.
    pub(crate) tests: bool,
    pub(crate) program: PathBuf,
}

/// Runs a command of cargo that builds, and returns the programs that it tells of.
pub(crate) fn built(command: &mut Command) -> Result<Vec<Built>> {
    let command = command.arg("--message-format=json-render-diagnostics");
    let line = describe(command);
    eprintln!("+ {line}");
    let output =
        command.current_dir(root()).stderr(Stdio::inherit()).output().with_context(|| format!("start {line}"))?;
    if !output.status.success() {
        bail!("{line}: {}", output.status);
    }
    let mut programs = Vec::new();
    for message in Message::parse_stream(output.stdout.as_slice()) {
        if let Message::CompilerArtifact(Artifact { target, profile, executable: Some(program), .. }) = message? {
            programs.push(Built { name: target.name, tests: profile.test, program: program.into() });
        }
    }
    Ok(programs)
}

/// Puts folders of programs first on a command's PATH, and the administrator's last.
pub(crate) fn with_path<'a>(command: &'a mut Command, tools: &[PathBuf]) -> Result<&'a mut Command> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let parts = tools.iter().cloned().chain(std::env::split_paths(&path)).chain(["/usr/sbin".into()]);
    Ok(command.env("PATH", std::env::join_paths(parts)?))
}

/// Whether a program is on PATH.
pub(crate) fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]).any(|dir| dir.join(program).is_file())
}

fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|a| a.to_string_lossy().into_owned()));
    words.join(" ")
}
