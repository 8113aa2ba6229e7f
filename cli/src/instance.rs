//! An instance: a data directory, and the short id that everything it makes on the host carries.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Where the default instance keeps its data.
pub(crate) const DEFAULT_DATA_DIR: &str = "/var/lib/trimtab";

/// Letters of an id: five of them give 28 million ids.
const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// One instance on this host.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    /// Five characters of `[a-z0-9]`; a part of the names of links, cgroups, tables and directories.
    pub(crate) id: String,
    /// What outlives a reboot.
    pub(crate) data: PathBuf,
}

impl Instance {
    /// Opens the instance of a data directory, making both if they are not there.
    pub(crate) fn open(data: &Path) -> Result<Self> {
        private_directory(data)?;
        let data = fs::canonicalize(data).with_context(|| format!("open {}", data.display()))?;
        match Self::existing(&data)? {
            Some(instance) => Ok(instance),
            None => Self::create(data),
        }
    }

    /// The instance of a data directory, if there is one.
    pub(crate) fn existing(data: &Path) -> Result<Option<Self>> {
        let path = data.join("instance");
        let id = match fs::read_to_string(&path) {
            Ok(text) => text.trim().to_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        if id.is_empty() || id.len() > 6 || !id.bytes().all(|b| LETTERS.contains(&b)) {
            bail!("{} is damaged: it must hold an id of 1 to 6 characters of [a-z0-9]", path.display());
        }
        Ok(Some(Self { id, data: fs::canonicalize(data)? }))
    }

    fn create(data: PathBuf) -> Result<Self> {
        let id = id_of(&data);
        let temporary = data.join("instance.new");
        fs::write(&temporary, format!("{id}\n"))?;
        fs::File::open(&temporary)?.sync_all()?;
        fs::rename(&temporary, data.join("instance"))?;
        Ok(Self { id, data })
    }

    /// What dies with the boot: `/run/trimtab/<id>`.
    pub(crate) fn run_dir(&self) -> PathBuf {
        Path::new("/run/trimtab").join(&self.id)
    }

    /// Whether this is the instance whose paths other software knows (`/var/lib/kubelet`, `/var/log/pods`).
    pub(crate) fn is_default(&self) -> bool {
        self.data == Path::new(DEFAULT_DATA_DIR)
    }

    /// Held as long as a process works on the instance; another one is told so.
    pub(crate) fn lock(&self) -> Result<fs::File> {
        let path = self.data.join("lock");
        let file = fs::OpenOptions::new().create(true).append(true).open(&path)?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(file),
            Err(_) => {
                bail!("another trimtab works on {}; stop it first, or choose another --data-dir", self.data.display())
            }
        }
    }

    /// The administrator's kubeconfig.
    pub(crate) fn admin_kubeconfig(&self) -> PathBuf {
        self.data.join("admin.kubeconfig")
    }
}

/// A directory that only we can read.
pub(crate) fn private_directory(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("make {}", path.display()))
}

/// An id from the directory's path, so that the same path gives the same names again.
fn id_of(data: &Path) -> String {
    let mut hash = network::name_hash(data.as_os_str().as_encoded_bytes());
    let mut letter = || {
        let letter = LETTERS.get((hash % LETTERS.len() as u64) as usize).copied().unwrap_or(b'0');
        hash /= LETTERS.len() as u64;
        char::from(letter)
    };
    (0..5).map(|_| letter()).collect()
}

#[cfg(test)]
mod tests {
    use super::Instance;

    #[test]
    fn an_instance_keeps_its_id_and_two_differ() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (Instance::open(&dir.path().join("a")).unwrap(), Instance::open(&dir.path().join("b")).unwrap());
        assert_ne!(a.id, b.id);
        assert_eq!(Instance::open(&dir.path().join("a")).unwrap().id, a.id);
        std::fs::write(a.data.join("instance"), "../x").unwrap();
        assert!(Instance::open(&a.data).is_err());
    }
}
