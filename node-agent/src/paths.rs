//! Where everything of a pod stands on the host.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

use crate::Config;

/// The folders of one pod.
#[derive(Clone, Debug)]
pub(crate) struct PodPaths {
    /// `<data>/pods/<uid>`: memory, volumes, files of /etc, writable layers.
    pub(crate) data: PathBuf,
    /// `<run>/pods/<uid>`: the shim's.
    pub(crate) run: PathBuf,
    /// `<logs>/<namespace>_<name>_<uid>`.
    pub(crate) logs: PathBuf,
}

impl PodPaths {
    pub(crate) fn of(config: &Config, pod: &Pod) -> Self {
        let meta = &pod.metadata;
        let text = |s: &Option<String>| s.clone().unwrap_or_default();
        let (uid, namespace, name) = (text(&meta.uid), text(&meta.namespace), text(&meta.name));
        Self {
            data: config.data_dir.join("pods").join(&uid),
            run: config.run_dir.join("pods").join(&uid),
            logs: config.log_dir.join(format!("{namespace}_{name}_{uid}")),
        }
    }

    /// The pod's memory.
    pub(crate) fn state(&self) -> PathBuf {
        self.data.join(crate::memory::STATE)
    }

    /// A file of the pod's /etc.
    pub(crate) fn etc(&self, file: &str) -> PathBuf {
        self.data.join("etc").join(file)
    }

    /// `/dev/shm` of the pod's containers.
    pub(crate) fn shm(&self) -> PathBuf {
        self.data.join("shm")
    }

    /// A volume, where CSI drivers and log shippers expect it: `volumes/kubernetes.io~<plugin>/<name>`.
    pub(crate) fn volume(&self, plugin: &str, name: &str) -> PathBuf {
        self.data.join("volumes").join(format!("kubernetes.io~{plugin}")).join(name)
    }

    /// The writable layer of a run.
    pub(crate) fn scratch(&self, run: &str) -> PathBuf {
        self.data.join("containers").join(run)
    }

    /// The termination message of a run.
    pub(crate) fn message(&self, run: &str) -> PathBuf {
        self.data.join("messages").join(run)
    }

    /// The log of a run.
    pub(crate) fn log(&self, container: &str, attempt: u32) -> PathBuf {
        log_of(&self.logs, container, attempt)
    }
}

/// `<pod's logs>/<container>/<attempt>.log`.
pub(crate) fn log_of(logs: &Path, container: &str, attempt: u32) -> PathBuf {
    logs.join(container).join(format!("{attempt}.log"))
}
