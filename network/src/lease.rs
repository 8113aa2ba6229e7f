//! Which pod has which addresses: a file, so that a restart gives none twice.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The version of the file.
const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Contents {
    version: u32,
    /// Pod id -> addresses.
    leases: BTreeMap<String, Vec<IpAddr>>,
    /// The last address given in each range, so that a freed one rests before it is given again.
    last: BTreeMap<IpNet, IpAddr>,
}

/// All leases of one node.
#[derive(Debug)]
pub(crate) struct Leases {
    path: PathBuf,
    contents: Contents,
}

impl Leases {
    /// Reads the file, or begins with none.
    pub(crate) fn open(path: PathBuf) -> Result<Self> {
        let contents = match fs::read(&path) {
            Ok(bytes) => parse(&path, &bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Contents { version: VERSION, leases: BTreeMap::new(), last: BTreeMap::new() }
            }
            Err(error) => return Err(Error::System(format!("read {}", path.display()), error)),
        };
        Ok(Self { path, contents })
    }

    /// The addresses of a pod, one from each range; the same again if it has some.
    pub(crate) fn take(&mut self, id: &str, ranges: &[IpNet]) -> Result<Vec<IpAddr>> {
        if let Some(held) = self.contents.leases.get(id) {
            return Ok(held.clone());
        }
        let addresses = ranges.iter().map(|range| self.next(range)).collect::<Result<Vec<_>>>()?;
        for (range, address) in ranges.iter().zip(&addresses) {
            self.contents.last.insert(*range, *address);
        }
        self.contents.leases.insert(id.to_owned(), addresses.clone());
        self.save()?;
        Ok(addresses)
    }

    /// Gives a pod's addresses back. Idempotent.
    pub(crate) fn release(&mut self, id: &str) -> Result<()> {
        match self.contents.leases.remove(id) {
            Some(_) => self.save(),
            None => Ok(()),
        }
    }

    /// Who has what.
    pub(crate) fn all(&self) -> &BTreeMap<String, Vec<IpAddr>> {
        &self.contents.leases
    }

    /// The next free host of a range after the last one given; the first host is the node's own.
    fn next(&self, range: &IpNet) -> Result<IpAddr> {
        let held = |ip: &IpAddr| self.contents.leases.values().flatten().any(|taken| taken == ip);
        let last = self.contents.last.get(range).copied();
        let after = range.hosts().skip(1).filter(|ip| last.is_some_and(|last| *ip > last));
        let from_start = range.hosts().skip(1);
        after.chain(from_start).take(1 << 17).find(|ip| !held(ip)).ok_or(Error::Exhausted(*range))
    }

    fn save(&self) -> Result<()> {
        let bytes = serde_json::to_vec(&self.contents).map_err(|e| Error::Invalid(e.to_string()))?;
        replace(&self.path, &bytes).map_err(|e| Error::System(format!("write {}", self.path.display()), e))
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Contents> {
    let contents: Contents = serde_json::from_slice(bytes)
        .map_err(|e| Error::Invalid(format!("{}: {e}; delete it once no pod runs here", path.display())))?;
    match contents.version {
        VERSION => Ok(contents),
        other => Err(Error::Invalid(format!("{}: version {other} is newer than this program", path.display()))),
    }
}

/// Writes a whole file or leaves the old one.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::Leases;

    #[test]
    fn a_freed_address_rests_and_a_restart_gives_none_twice() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("leases.json");
        let ranges = ["10.0.0.0/29".parse().unwrap()];
        let mut leases = Leases::open(path.clone()).unwrap();
        let take = |leases: &mut Leases, id: &str| leases.take(id, &ranges).map(|a| a[0].to_string());
        assert_eq!(take(&mut leases, "a").unwrap(), "10.0.0.2");
        assert_eq!(take(&mut leases, "a").unwrap(), "10.0.0.2");
        leases.release("a").unwrap();
        let mut leases = Leases::open(path).unwrap();
        let rest: Vec<_> = ["b", "c", "d", "e"].iter().map(|id| take(&mut leases, id).unwrap()).collect();
        assert_eq!(rest, ["10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
        assert_eq!(take(&mut leases, "f").unwrap(), "10.0.0.2");
        assert!(take(&mut leases, "g").is_err());
    }
}
