//! The corpus of layers, as it is and in thousands of mutations: whatever comes in, nothing outside the layer's directory
//! changes, nothing panics, and what is wrong is said to be the layer's fault. Seeded: a failure repeats.

use std::ffi::OsStr;
use std::fs;
use std::io::Cursor;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use mutations::{Random, rounds};

use super::corpus::{self, Case};
use crate::{Error, Result, blob, tree};

/// Mutations of each case, and of those whose paths are thousands of directories deep. All of them take a few seconds.
const MUTATIONS: u64 = 300;
const DEEP_MUTATIONS: u64 = 10;
const MAX_BYTES: u64 = 1 << 20;

/// A directory in memory, where syncing takes no time: `outside`, and `box/N` for each layer.
struct Yard {
    dir: tempfile::TempDir,
}

impl Yard {
    fn new() -> Self {
        let shm = Path::new("/dev/shm");
        let dir = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
        let dir = dir.unwrap();
        fs::create_dir(dir.path().join("box")).unwrap();
        fs::write(dir.path().join("outside"), "as it was").unwrap();
        Self { dir }
    }

    fn layer(&self, number: usize) -> PathBuf {
        self.dir.path().join("box").join(number.to_string())
    }

    /// Unpacks layers upon each other, the lowest first.
    fn unpack(&self, layers: &[Vec<u8>]) -> Result<()> {
        for (number, archive) in layers.iter().enumerate() {
            let below: Vec<PathBuf> = (0..number).rev().map(|below| self.layer(below)).collect();
            let (archive, diff) = (Cursor::new(archive.clone()), blob::digest(archive));
            super::unpack(archive, &self.layer(number), &below, &diff, MAX_BYTES)?;
        }
        Ok(())
    }

    /// Checks that nothing but the layers' directories is new, and removes those.
    fn clear(&self, what: &str) {
        let names = |dir: &Path| {
            let mut all: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            all.sort();
            all
        };
        assert_eq!(names(self.dir.path()), ["box", "outside"], "{what}");
        for (number, name) in names(&self.dir.path().join("box")).into_iter().enumerate() {
            assert_eq!(name.to_str(), Some(number.to_string().as_str()), "{what}");
            tree::remove(&self.layer(number)).unwrap();
            assert!(!self.layer(number).exists(), "{what}");
        }
        assert_eq!(fs::read(self.dir.path().join("outside")).unwrap(), b"as it was", "{what}");
    }
}

#[test]
fn the_corpus_comes_to_what_it_says() {
    let yard = Yard::new();
    for case in corpus::cases() {
        let layers = [&case.below[..], std::slice::from_ref(&case.archive)].concat();
        let result = yard.unpack(&layers);
        match (&case.refused, &result) {
            (Some(why), Err(Error::Malformed(text))) => {
                let why = String::from_utf8_lossy(why);
                assert!(text.contains(&*why), "{}: {text:?} does not speak of {why:?}", case.name);
                assert!(!text.chars().any(char::is_control), "{}: {text:?}", case.name);
            }
            // What several layers show together is for a mount to tell.
            (None, Ok(())) if !case.below.is_empty() => {}
            (None, Ok(())) => check_tree(&case, &yard.layer(0)),
            _ => panic!("{}: {result:?}", case.name),
        }
        yard.clear(case.name);
    }
}

fn check_tree(case: &Case, staged: &Path) {
    for (path, text) in &case.holds {
        let found = staged.join(OsStr::from_bytes(path));
        assert!(found.symlink_metadata().is_ok(), "{}: {} is missing", case.name, found.display());
        if let Some(text) = text {
            assert_eq!(&fs::read(&found).unwrap(), text, "{}", case.name);
        }
    }
    for path in &case.absent {
        let found = staged.join(OsStr::from_bytes(path));
        assert!(found.symlink_metadata().is_err(), "{}: {} is there", case.name, found.display());
    }
}

#[test]
fn mutations_of_the_corpus_stay_within_the_layer() {
    let yard = Yard::new();
    let cases = corpus::cases();
    let (mut all, mut unpacked, mut refused) = (0, 0, 0);
    for (at, case) in cases.iter().enumerate() {
        let mutations = rounds(if case.archive.len() > 1 << 12 { DEEP_MUTATIONS } else { MUTATIONS });
        all += mutations;
        for mutation in 0..mutations {
            let mut layers = [&case.below[..], std::slice::from_ref(&case.archive)].concat();
            let mut random = Random::of(at, mutation);
            let mutated = random.below(layers.len() as u64) as usize;
            layers[mutated] = mutate(&layers[mutated], &cases, &mut random);
            let what = format!("{}, mutation {mutation}", case.name);
            match yard.unpack(&layers) {
                Ok(()) => unpacked += 1,
                Err(Error::Malformed(text)) => {
                    assert!(text.len() < 10_000 && !text.chars().any(char::is_control), "{what}: {text:?}");
                    refused += 1;
                }
                Err(other) => panic!("{what}: {other:?}"),
            }
            yard.clear(&what);
        }
    }
    // Mutations that all fail at once, or all succeed, would test nothing.
    assert!(unpacked > all / 20 && refused > all / 4, "{unpacked} of {all} unpacked, {refused} refused");
}

/// A few changes, after which most checksums are right again.
fn mutate(archive: &[u8], cases: &[Case], random: &mut Random) -> Vec<u8> {
    let mut bytes = archive.to_vec();
    for _ in 0..1 + random.below(4) {
        change(&mut bytes, cases, random);
    }
    if random.below(10) > 0 {
        for block in bytes.chunks_exact_mut(512).filter(|block| block.get(257..262) == Some(b"ustar")) {
            let mut header = tar::Header::new_old();
            header.as_mut_bytes().copy_from_slice(block);
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
    }
    bytes
}

fn change(bytes: &mut Vec<u8>, cases: &[Case], random: &mut Random) {
    let length = bytes.len() as u64;
    if length < 512 {
        return;
    }
    let block = (random.below(length / 512) * 512) as usize;
    match random.below(8) {
        0 => bytes[random.below(length) as usize] ^= 1 << random.below(8),
        1 => bytes[random.below(length) as usize] = random.below(256) as u8,
        // A byte of a header, where most meaning is.
        2 => bytes[block + random.below(345) as usize] = b"\0/.07LxgKS12345\xff\x80"[random.below(17) as usize],
        3 => bytes[block + 156] = b"0123456LKxgSVDZ\0"[random.below(16) as usize],
        4 => {
            let copy = bytes[block..block + 512].to_vec();
            bytes.splice(block..block, copy);
        }
        5 => drop(bytes.drain(block..block + 512)),
        6 => {
            let other = &cases[random.below(cases.len() as u64) as usize].archive;
            let from = (random.below(other.len() as u64 / 512 + 1) * 512) as usize;
            let to = other.len().min(from + 2048);
            bytes.splice(block..block, other[from.min(to)..to].iter().copied());
        }
        _ => bytes.truncate(random.below(length) as usize),
    }
}
