//! Small JSON files of our own, replaced whole, readable by root only.

use std::fs::{self, DirBuilder, File};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, Result, cgroup};

/// Writes by write and rename. Not synced: all that is written here lies below /run and tells of processes, mounts and
/// cgroups, which die with the boot. After a crash of the machine there is nothing left that it could tell of.
pub(crate) fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let bytes = serde_json::to_vec(value).map_err(|e| Error::Invalid(e.to_string()))?;
    let temporary = path.with_extension("new");
    let replace = || -> std::io::Result<()> {
        let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
        file.write_all(&bytes)?;
        fs::rename(&temporary, path)
    };
    replace().map_err(|e| Error::System(format!("write {}", path.display()), e))
}

/// No document is larger, in bytes: ours are far smaller, and so are those that callers of ours write.
const MAX_BYTES: u64 = 16 << 20;

/// Reads; `NotFound` where there is none.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::NotFound(path.display().to_string()),
        _ => Error::System(format!("read {}", path.display()), e),
    })?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::Invalid(format!("{}: larger than {MAX_BYTES} bytes", path.display())));
    }
    serde_json::from_slice(&bytes).map_err(|e| Error::Invalid(format!("{}: {e}", path.display())))
}

/// Makes a directory and its parents for root only.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|e| Error::System(format!("make {}", path.display()), e))
}

/// Field 22 of /proc/PID/stat, `None` where the process is gone.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    let stat = cgroup::read(rustix::fs::CWD, format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses, which may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Now, in nanoseconds since the epoch.
pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
