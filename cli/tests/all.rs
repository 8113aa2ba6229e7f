//! The program as it was linked. Needs root.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]
#![cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{CWD, FileType, Mode, StatVfsMountFlags, mknodat, statvfs};

const PROGRAM: &str = env!("CARGO_BIN_EXE_trimtab");

/// A number of some bytes, as this machine has them.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Where the kernel begins, and the address of a symbol (elf(5), 64 bits).
fn entry_and(symbol: &str) -> (u64, Option<u64>) {
    let file = std::fs::read(PROGRAM).unwrap();
    let at = |from: u64, length: u64| &file[from as usize..(from + length) as usize];
    let (sections, size, count) = (number(at(40, 8)), number(at(58, 2)), number(at(60, 2)));
    let section = |index: u64| at(sections + index * size, size);
    let table = (0..count).map(section).find(|header| number(&header[4..8]) == 2).unwrap();
    let names = number(&section(number(&table[40..44]))[24..32]);
    let (first, length) = (number(&table[24..32]), number(&table[32..40]));
    let named = |entry: &&[u8]| {
        let name = &file[(names + number(&entry[..4])) as usize..];
        name.starts_with(symbol.as_bytes()) && name.get(symbol.len()) == Some(&0)
    };
    let found = at(first, length).chunks(24).find(named).map(|entry| number(&entry[8..16]));
    (number(at(24, 8)), found)
}

/// Whether the program, with these words, runs from a read-only mount of itself. They make it fail and say why in a log
/// that nobody reads, so that it stays.
fn runs_read_only(log: &Path, words: &[&str]) -> bool {
    let mut child = Command::new(PROGRAM);
    child.args(["oci", "--log", log.to_str().unwrap()]).args(words).stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    let mut said = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut said).unwrap();
    assert!(said.contains("no such command"), "{said}");
    let mount = statvfs(format!("/proc/{}/exe", child.id())).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    mount.f_flag.contains(StatVfsMountFlags::RDONLY)
}

#[test]
fn the_program_begins_at_its_own_entry() {
    let (entry, own) = entry_and("trimtab_entry");
    assert_eq!(Some(entry), own);
    assert_ne!(Some(entry), entry_and("_start").1);
    // A word that starts processes in containers, where nothing behind the entry heeds it.
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    mknodat(CWD, &log, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    assert!(runs_read_only(&log, &["nosuch", "run"]));
    assert!(!runs_read_only(&log, &["nosuch", "other"]));
}
