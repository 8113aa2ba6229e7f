//! The memory of each pod on disk: written whole, by rename, so that a crash leaves the old or the new one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use node_plan::Observed;
use serde::{Deserialize, Serialize};

use crate::perform::remove_tree;

/// The file of a pod's memory, in the pod's folder.
pub(crate) const STATE: &str = "state.json";

/// A pod and what was seen of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub(crate) pod: Pod,
    pub(crate) seen: Observed,
}

/// Writes a memory. Not synced to the disk: after a crash of the machine nothing of what it tells still runs.
pub(crate) fn save(path: &Path, memory: &Memory) -> io::Result<()> {
    let bytes = serde_json::to_vec(memory).map_err(io::Error::other)?;
    replace(path, &bytes, 0o600)
}

/// Every memory below `pods`; one that cannot be read is passed over with a warning. A folder without a memory is what was
/// left when an agent was killed that took it away: it goes.
pub(crate) fn load_all(pods: &Path) -> Vec<Memory> {
    let entries = fs::read_dir(pods).into_iter().flatten().flatten().map(|entry| entry.path());
    let (whole, left): (Vec<_>, Vec<_>) = entries.partition(|pod| pod.join(STATE).exists());
    for pod in left {
        if let Err(error) = remove_tree(&pod) {
            tracing::warn!(%error, path = %pod.display(), "what was left of a pod cannot be removed");
        }
    }
    whole.iter().filter_map(|pod| load(&pod.join(STATE))).collect()
}

fn load(path: &Path) -> Option<Memory> {
    let bytes = fs::read(path).ok()?;
    let memory = serde_json::from_slice::<Memory>(&bytes);
    memory.inspect_err(|error| tracing::warn!(%error, path = %path.display(), "a pod's memory is unreadable")).ok()
}

/// Replaces a file by rename.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let parent = path.parent().ok_or_else(|| io::Error::other("no parent"))?;
    private_dir(parent)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let fresh = parent.join(format!(".{name}.new"));
    let mut file: File = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&fresh)?;
    file.write_all(bytes)?;
    fs::rename(&fresh, path)
}

/// Makes a directory that only root enters, with its parents.
pub(crate) fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o750).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_agent_had_begun_to_forget_is_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let (pod, left) = (dir.path().join("u1"), dir.path().join("u2"));
        let memory = Memory { pod: Pod::default(), seen: Observed::new(api::Timestamp::UNIX_EPOCH) };
        save(&pod.join(STATE), &memory).unwrap();
        fs::create_dir_all(left.join("volumes/v")).unwrap();
        assert_eq!(load_all(dir.path()).len(), 1);
        assert!(pod.exists() && !left.exists());
    }
}
