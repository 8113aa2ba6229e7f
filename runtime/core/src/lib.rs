//! Containers on Linux: namespaces, cgroups, mounts, seccomp, capabilities. Synchronous, single-threaded, no tokio,
//! no Kubernetes.
//!
//! Front ends: the OCI command line ([`oci`]), and the pod shim ([`shim`]) with the client that the node agent uses
//! ([`pod`]). Beside them, for whoever handles files of containers as an ordinary user: [`rootless`].

mod capabilities;
mod cgroup;
mod channel;
mod destroy;
mod devices;
mod files;
mod id_maps;
mod labels;
mod launch;
mod mount_options;
mod network_devices;
pub mod oci;
pub mod pod;
mod proc;
mod process;
mod protect;
mod protocol;
mod resolve;
mod rootfs;
pub mod rootless;
mod scheduling;
pub mod seccomp;
pub mod shim;
mod state;
mod sys;
mod unpivoted;

pub use sys::allocator::ByRole;

/// Why the runtime could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A step failed in the kernel: what was being done, and the error.
    #[error("{0}: {1}")]
    System(String, #[source] std::io::Error),
    /// The request itself is wrong: the field, and what is wrong with it.
    #[error("{0}")]
    Invalid(String),
    /// The container is as it should be, but its program does not run: what a shell would say.
    #[error("{0}")]
    Program(String),
    /// No such container or pod.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The container is not in a state that allows it.
    #[error("{0}")]
    State(String),
}

/// The result of a runtime operation.
pub type Result<T> = std::result::Result<T, Error>;

/// A number of 32 bits in decimal digits, and nothing else: what a library takes beside (a sign) is none.
fn decimal(text: &str) -> Option<u32> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Turns the error of a step into ours: `.map_err(failed(|| "what was being done".to_owned()))`.
fn failed<E: Into<std::io::Error>>(what: impl FnOnce() -> String) -> impl FnOnce(E) -> Error {
    move |e| Error::System(what(), e.into())
}
