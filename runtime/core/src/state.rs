//! What others are told of a container: hooks, agents, and whoever asks for its state.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

/// The version of runtime-spec that we go by.
pub(crate) const SPECIFICATION: &str = "1.3.0";

/// What others are told of a container (runtime.md, State). The order of fields is runc's, which some rely on.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct State {
    pub(crate) oci_version: &'static str,
    pub(crate) id: String,
    pub(crate) pid: i32,
    pub(crate) status: &'static str,
    pub(crate) bundle: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rootfs: Option<PathBuf>,
    pub(crate) created: String,
    pub(crate) annotations: BTreeMap<String, String>,
}

impl State {
    /// The same of a container whose first process, or another of it, has this pid.
    pub(crate) fn with_pid(&self, pid: i32) -> Self {
        Self { pid, ..self.clone() }
    }
}
