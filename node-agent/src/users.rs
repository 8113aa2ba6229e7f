//! Ranges of user ids for pods with a user namespace: 65,536 ids a pod, no two pods the same.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::memory::private_dir;

/// Ids of one range, as many as images use.
const LENGTH: u32 = 65_536;
/// Ranges that fit in 32 bits; the first is the host's own.
const RANGES: u32 = u32::MAX / LENGTH;

/// Who has which range: a link named by the range's number that leads to the pod's uid, made in one step.
#[derive(Debug)]
pub(crate) struct Ranges {
    dir: PathBuf,
    lock: Mutex<()>,
}

impl Ranges {
    pub(crate) fn open(data_dir: &Path) -> io::Result<Self> {
        let dir = directory(data_dir);
        private_dir(&dir)?;
        Ok(Self { dir, lock: Mutex::new(()) })
    }

    /// The pod's range: (inside, outside, length). The same one until it is released.
    pub(crate) fn take(&self, uid: &str) -> io::Result<(u32, u32, u32)> {
        let _held = self.lock.lock();
        let taken = self.taken()?;
        let own = taken.iter().find(|(_, owner)| *owner == uid).map(|(range, _)| *range);
        let range = match own.or_else(|| (1..RANGES).find(|range| !taken.contains_key(range))) {
            Some(range) => range,
            None => return Err(io::Error::other("no range of user ids is left")),
        };
        if own.is_none() {
            symlink(uid, self.dir.join(range.to_string()))?;
        }
        Ok((0, range * LENGTH, LENGTH))
    }

    /// Gives a range back. Idempotent.
    pub(crate) fn release(&self, uid: &str) -> io::Result<()> {
        let _held = self.lock.lock();
        for (range, _) in self.taken()?.into_iter().filter(|(_, owner)| owner == uid) {
            fs::remove_file(self.dir.join(range.to_string()))?;
        }
        Ok(())
    }

    fn taken(&self) -> io::Result<BTreeMap<u32, String>> {
        let mut taken = BTreeMap::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let range = entry.file_name().to_string_lossy().parse::<u32>();
            if let (Ok(range), Ok(owner)) = (range, fs::read_link(entry.path())) {
                taken.insert(range, owner.to_string_lossy().into_owned());
            }
        }
        Ok(taken)
    }
}

/// Where ranges are noted.
pub(crate) fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("users")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_pods_have_the_same_range() {
        let dir = tempfile::tempdir().unwrap();
        let ranges = Ranges::open(dir.path()).unwrap();
        let (a, b) = (ranges.take("a").unwrap(), ranges.take("b").unwrap());
        assert_eq!((a, b), ((0, 65_536, 65_536), (0, 131_072, 65_536)));
        let ranges = Ranges::open(dir.path()).unwrap();
        assert_eq!(ranges.take("b").unwrap(), b, "a restart knows");
        ranges.release("a").unwrap();
        ranges.release("a").unwrap();
        assert_eq!(ranges.take("c").unwrap(), a);
    }
}
