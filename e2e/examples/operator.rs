//! An operator on controller-runtime tells its story (`cargo xtask e2e operator`): on a cluster of our own, or on the one
//! of a kubeconfig that is given, whoever serves it. `OPERATOR` is its program.

use std::path::PathBuf;
use std::process::{Command, ExitCode, Output, Stdio};

use anyhow::{Context, Result};
use e2e::cluster::{Cluster, stories};
use e2e::story::{self, Place};

/// A cluster that others run.
struct Elsewhere {
    kubeconfig: PathBuf,
    dir: tempfile::TempDir,
}

impl Place for Elsewhere {
    fn shell(&self, line: &str) -> Result<Output> {
        let mut command = Command::new("bash");
        command.args(["-c", line]).env("KUBECONFIG", &self.kubeconfig);
        command.env("WORK", self.dir.path()).env("HOME", self.dir.path());
        Ok(command.current_dir(stories()).stdin(Stdio::null()).output()?)
    }

    fn logs(&self) -> String {
        let log = |name: &str| std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
        ["one.log", "two.log"].map(log).join("\n")
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => {
            println!("operator: passed");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    match std::env::args_os().nth(1) {
        Some(kubeconfig) => {
            let kubeconfig = std::path::absolute(kubeconfig)?;
            told(&Elsewhere { kubeconfig, dir: tempfile::tempdir()? })
        }
        None => {
            let mut cluster = Cluster::start("op", 9, 1, None)?;
            told(&cluster)?;
            cluster.nodes.iter_mut().try_for_each(|node| node.down())
        }
    }
}

fn told(place: &dyn Place) -> Result<()> {
    story::tell(place, &stories().join("operator.story")).with_context(|| place.logs())
}
