//! What `up` and `server` share: a control plane in the foreground, until TERM or INT.

use std::fs::File;

use anyhow::{Result, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::instance::Instance;
use crate::plane::{Options, Plane};
use crate::progress::Progress;
use crate::up::PlaneArguments;

/// A control plane, and what is needed to go on from it and to end it.
pub(crate) struct Foreground {
    /// The instance it works on.
    pub(crate) instance: Instance,
    /// What it was started with.
    pub(crate) options: Options,
    /// The control plane.
    pub(crate) plane: Plane,
    /// Where steps are told.
    pub(crate) progress: Progress,
    _lock: File,
    term: Signal,
    int: Signal,
}

impl Foreground {
    /// Takes the instance and starts its control plane. Signals count from here on.
    pub(crate) async fn start(arguments: &PlaneArguments) -> Result<Self> {
        let progress = Progress::new();
        let instance = Instance::open(&arguments.data_dir)?;
        let _lock = instance.lock()?;
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let options = arguments.options()?;
        progress.step("starting the control plane");
        let plane = tokio::select! {
            plane = Plane::start(&instance, &options) => plane?,
            _ = term.recv() => bail!("stopped while the control plane was starting"),
            _ = int.recv() => bail!("stopped while the control plane was starting"),
        };
        progress.done(&format!("API server at https://{}", options.listen));
        Ok(Self { instance, options, plane, progress, _lock, term, int })
    }

    /// Says that all is there: the kubeconfig's path for people, `ready` for scripts.
    pub(crate) fn ready(&self) {
        self.progress.finish();
        eprintln!("kubeconfig: {}", self.instance.admin_kubeconfig().display());
        println!("ready");
    }

    /// Returns at the first TERM or INT.
    pub(crate) async fn signalled(&mut self) {
        tokio::select! { _ = self.term.recv() => {}, _ = self.int.recv() => {} }
    }
}
