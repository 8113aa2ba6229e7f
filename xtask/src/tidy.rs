//! `cargo xtask tidy`: the rules of ARCHITECTURE.md that a program can check.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use cargo_metadata::{DependencyKind, MetadataCommand};

use crate::run::root;

/// Which of our crates a crate may use. Uses go down only.
const EDGES: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("store", &[]),
    ("stream", &[]),
    ("runtime-core", &[]),
    ("runtime-image", &[]),
    ("network", &[]),
    ("client", &["api"]),
    ("reconcile", &["api"]),
    ("controller", &["api", "reconcile"]),
    ("scheduler", &["api", "reconcile"]),
    ("node-plan", &["api", "reconcile"]),
    ("driver", &["api", "reconcile", "client"]),
    ("apiserver", &["api", "store", "stream", "client"]),
    ("node-agent", &["api", "reconcile", "client", "stream", "node-plan", "runtime-core", "runtime-image", "network"]),
];

/// Crates and folders that decide: no async, clock, randomness, environment or I/O.
const PURE: &[&str] =
    &["api/src", "reconcile/src", "controller/src", "scheduler/src", "node-agent/plan/src", "apiserver/src/write"];

/// What pure code may not say, outside comments.
const IMPURE: &[&str] = &[
    "async fn",
    ".await",
    "tokio::",
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::env::",
    "std::process",
    "std::thread",
    "SystemTime::now",
    "Instant::now",
    "Timestamp::now",
    "rand::",
];

/// Names that say nothing.
const BANNED_FILES: &[&str] = &["utils.rs", "util.rs", "common.rs", "helpers.rs", "helper.rs", "types.rs", "misc.rs"];

/// Checks everything and lists all that is wrong.
pub(crate) fn run() -> Result<()> {
    let mut faults = edges()?;
    for file in sources(&root())? {
        faults.extend(source(&file)?);
    }
    if faults.is_empty() {
        return Ok(());
    }
    faults.iter().for_each(|fault| eprintln!("{fault}"));
    bail!("tidy: {} faults", faults.len())
}

fn edges() -> Result<Vec<String>> {
    let metadata = MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec()?;
    let ours: Vec<String> = metadata.packages.iter().map(|p| p.name.to_string()).collect();
    let mut faults = Vec::new();
    for package in &metadata.packages {
        let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == package.name.as_str()) else { continue };
        let used = package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development);
        for dependency in used.filter(|d| ours.contains(&d.name) && !allowed.contains(&d.name.as_str())) {
            faults.push(format!("{}: may not use {}: see ARCHITECTURE.md, Folders", package.name, dependency.name));
        }
    }
    Ok(faults)
}

fn source(path: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(path)?;
    let shown = path.strip_prefix(root()).unwrap_or(path).display().to_string();
    let mut faults = Vec::new();
    if !text.lines().find(|l| !l.starts_with("#!") && !l.trim().is_empty()).is_some_and(|l| l.starts_with("//!")) {
        faults.push(format!("{shown}: begins without a //! head that says what the file is for"));
    }
    if path.file_name().is_some_and(|name| BANNED_FILES.iter().any(|banned| name == *banned)) {
        faults.push(format!("{shown}: the name says nothing; name it for what is in it"));
    }
    if PURE.iter().any(|folder| shown.starts_with(folder)) {
        faults.extend(impure(&text).map(|(line, word)| format!("{shown}:{line}: {word:?} in a pure crate")));
    }
    Ok(faults)
}

/// Lines of the code proper (before the tests) that do what deciders may not.
fn impure(text: &str) -> impl Iterator<Item = (usize, &'static str)> {
    let code = text.lines().take_while(|line| line.trim() != "#[cfg(test)]");
    let spoken = code.enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
    spoken.filter_map(|(at, line)| IMPURE.iter().find(|word| line.contains(**word)).map(|word| (at + 1, *word)))
}

fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                directories.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::impure;

    #[test]
    fn impure_words_are_found_in_code_and_not_in_comments_or_tests() {
        let text = "// Timestamp::now\nlet t = Timestamp::now();\n#[cfg(test)]\nstd::fs::read()\n";
        assert_eq!(impure(text).collect::<Vec<_>>(), [(2, "Timestamp::now")]);
    }
}
