//! `cargo xtask mutants`: faults planted one at a time, each of which a test must catch.
//!
//! A mutant is an exact text of a file and what stands there instead. It is put into a copy of the tree below `target/`,
//! the tests of one crate are built there, and the named ones are run: if they pass, the mutant survived, and a test is
//! missing.

mod table;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::run::{cargo, cargo_within, root};
use table::{MUTANTS, Mutant};

/// Tests that run for longer hang, which is as good as failing.
const PATIENCE_SECONDS: u32 = 600;

/// What became of a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Caught,
    Survived,
    /// It does not compile: no test was asked.
    Broken,
}

/// Plants the mutants whose name contains `only`, one after the other, and prints what became of each.
pub(crate) fn run(only: &str) -> Result<()> {
    let tree = copy()?;
    let chosen: Vec<&Mutant> = MUTANTS.iter().filter(|m| m.name.contains(only)).collect();
    sound(&tree, &chosen)?;
    let mut bad = Vec::new();
    println!("{:<62} {:<9} {:>6}  tests", "mutant", "fate", "time");
    for mutant in &chosen {
        let begun = Instant::now();
        let fate = plant(&tree, mutant)?;
        let seconds = begun.elapsed().as_secs();
        println!("{:<62} {:<9} {seconds:>4} s  {} {}", mutant.name, format!("{fate:?}"), mutant.package, mutant.tests);
        if fate != Fate::Caught {
            bad.push(mutant.name);
        }
    }
    println!("{} of {} caught", chosen.len() - bad.len(), chosen.len());
    if !bad.is_empty() {
        bail!("not caught: {}", bad.join("; "));
    }
    Ok(())
}

/// A copy of all files that git knows or would add; only what differs is written, so that little is built anew.
fn copy() -> Result<PathBuf> {
    let tree = root().join("target/mutants");
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .context("git ls-files")?;
    let names = String::from_utf8(listed.stdout)?;
    for name in names.split('\0').filter(|n| !n.is_empty()) {
        let (from, to) = (root().join(name), tree.join(name));
        if !from.is_file() {
            continue;
        }
        let new = fs::read(&from).with_context(|| from.display().to_string())?;
        if fs::read(&to).is_ok_and(|old| old == new) {
            continue;
        }
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&to, new)?;
    }
    Ok(tree)
}

/// Without a mutant every test that is to catch one passes. (This also builds all that the mutants share.)
fn sound(tree: &Path, chosen: &[&Mutant]) -> Result<()> {
    let all: BTreeSet<(&str, &str)> = chosen.iter().map(|mutant| (mutant.package, mutant.tests)).collect();
    for (package, tests) in all {
        let status = tests_of(package, cargo(), tree).arg(tests).stdout(Stdio::null()).status()?;
        ensure!(status.success(), "{package} {tests} does not pass without a mutant");
    }
    Ok(())
}

fn plant(tree: &Path, mutant: &Mutant) -> Result<Fate> {
    let path = tree.join(mutant.file);
    let text = fs::read_to_string(&path).with_context(|| format!("{}: {}", mutant.name, path.display()))?;
    let planted = mutated(&text, mutant)?;
    fs::write(&path, planted)?;
    let fate = tried(tree, mutant);
    fs::write(&path, text)?;
    fate
}

/// The text must be there exactly once, or the mutant means something else than it meant.
fn mutated(text: &str, mutant: &Mutant) -> Result<String> {
    let found = text.matches(mutant.needle).count();
    if found != 1 {
        bail!("{}: {:?} is {found} times in {}", mutant.name, mutant.needle, mutant.file);
    }
    Ok(text.replacen(mutant.needle, mutant.instead, 1))
}

fn tried(tree: &Path, mutant: &Mutant) -> Result<Fate> {
    let passes = |last: &str| -> Result<bool> {
        let mut command = tests_of(mutant.package, cargo_within(PATIENCE_SECONDS), tree);
        command.arg(last).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(command.status().context("timeout cargo test")?.success())
    };
    Ok(match passes("--no-run")? {
        false => Fate::Broken,
        true if passes(mutant.tests)? => Fate::Survived,
        true => Fate::Caught,
    })
}

/// The tests of one crate of the copy; what was built for the tree itself is used again.
fn tests_of(package: &str, mut cargo: Command, tree: &Path) -> Command {
    cargo.current_dir(tree).env("CARGO_TARGET_DIR", root().join("target"));
    cargo.args(["test", "--quiet", "--locked", "--package", package]);
    cargo
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::table::MUTANTS;
    use super::{mutated, root};

    #[test]
    fn every_mutant_can_be_planted_and_changes_something() {
        assert!(MUTANTS.len() >= 20);
        for mutant in MUTANTS {
            let text = fs::read_to_string(root().join(mutant.file)).unwrap();
            let planted = mutated(&text, mutant).unwrap();
            assert_ne!(planted, text, "{}", mutant.name);
        }
    }
}
