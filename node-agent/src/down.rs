//! Ending everything that an instance has on this machine, without an API server.

use std::fs;
use std::io;
use std::path::Path;

use network::Network;
use runtime_core::pod::Shim;

use crate::perform::remove_tree;
use crate::{Error, Result, blocking, chain};

/// Destroys all pods of an instance: processes, mounts, cgroups, namespaces, links, service rules. Idempotent; goes on
/// after a failure and returns the first.
pub async fn purge(instance: &str, data_dir: &Path, run_dir: &Path) -> Result<()> {
    let (pods, data) = (run_dir.join("pods"), data_dir.join("pods"));
    let destroyed = blocking(move || {
        let mut first = Ok(());
        for pod in entries(&pods) {
            first = first.and(Shim::destroy(&pod).map_err(|error| chain(&error)));
        }
        for pod in entries(&data) {
            first = first.and(remove_tree(&pod).map_err(|error| format!("{}: {error}", pod.display())));
        }
        first
    });
    let destroyed = destroyed.await.map_err(Error::Invalid);
    let network = Network::purge(instance, &run_dir.join("netns")).await.map_err(Error::from);
    let leases = gone(fs::remove_dir_all(data_dir.join("network"))).map_err(|e| Error::Io("addresses".into(), e));
    let users =
        gone(fs::remove_dir_all(crate::users::directory(data_dir))).map_err(|e| Error::Io("user ids".into(), e));
    let run = gone(fs::remove_dir_all(run_dir)).map_err(|e| Error::Io(run_dir.display().to_string(), e));
    cgroups(&format!("trimtab-{instance}"));
    destroyed.and(network).and(leases).and(users).and(run)
}

fn entries(dir: &Path) -> Vec<std::path::PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// The instance's own cgroups, empty by now, in every hierarchy.
fn cgroups(root: &str) {
    let mut roots = entries(Path::new("/sys/fs/cgroup"));
    roots.push("/sys/fs/cgroup".into());
    for hierarchy in roots {
        for class in ["burstable", "besteffort", ""] {
            let _ = fs::remove_dir(hierarchy.join(root).join(class));
        }
    }
}
