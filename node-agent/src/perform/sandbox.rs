//! The pod's network and shim, and what the shim tells.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use node_plan::etc::{ClusterDns, hostname, hosts, resolv_conf};
use node_plan::member::{member, own_users};
use node_plan::observed::Observed;
use node_plan::step::{Ended, Process};
use node_plan::{Fact, limits, qos};
use runtime_core::pod::{ContainerState, PodConfig, Shim};
use tokio::task::JoinSet;

use super::{Performer, files};
use crate::pipes::watched;
use crate::{blocking, chain};

/// How long a pod waits for the node's network before it says so.
const NETWORK_WAIT: Duration = Duration::from_secs(10);

pub(super) fn on_host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|s| s.host_network) == Some(true)
}

/// Gives the pod its addresses.
pub(super) async fn attach(p: &Performer, pod: &Pod) -> Result<Vec<IpAddr>, String> {
    if on_host_network(pod) {
        return Ok(p.agent.facts.ips.clone());
    }
    let mut network = p.agent.network.clone();
    let ready = tokio::time::timeout(NETWORK_WAIT, network.wait_for(Option::is_some)).await;
    let network = ready.ok().and_then(Result::ok).and_then(|n| n.clone());
    let network = network.ok_or("the node's network is not ready: it has no pod range yet")?;
    // A pod with a user namespace owns its network namespace: its shim has made both.
    let own = if own_users(pod) { Some(shim(p, pod).await?.network().map_err(|e| chain(&e))?) } else { None };
    let attached = network.attach(pod.metadata.uid.as_deref().unwrap_or_default(), own).await;
    attached.map(|a| a.addresses).map_err(|error| chain(&error))
}

/// Writes the pod's files of /etc and starts its shim.
pub(super) async fn start(p: &Performer, pod: &Pod, seen: &Observed) -> Result<(), String> {
    let paths = p.paths.clone();
    let etc = etc(p, pod, seen);
    blocking(move || {
        for (name, text) in etc {
            files::write_new(&paths.etc(&name), text.as_bytes()).map_err(|e| format!("write {name}: {e}"))?;
        }
        files::memory_dir(&paths.shm(), Some(64 << 20), 0o1777).map_err(|e| format!("/dev/shm: {e}"))
    })
    .await?;
    shim(p, pod).await?;
    // The shim may be another one than when the network was attached, with a namespace of its own.
    if own_users(pod) { attach(p, pod).await.map(drop) } else { Ok(()) }
}

/// The pod's shim: the one that runs, perhaps since a former agent, or a new one.
async fn shim(p: &Performer, pod: &Pod) -> Result<Arc<Shim>, String> {
    let config = config(p, pod)?;
    let (paths, program) = (p.paths.clone(), p.agent.config.program.clone());
    let shim = blocking(move || {
        if let Ok(shim) = Shim::adopt(&paths.run) {
            return Ok(shim);
        }
        if paths.run.exists() {
            Shim::destroy(&paths.run).map_err(|e| chain(&e))?;
        }
        Shim::start(&program, &config).map_err(|e| chain(&e))
    });
    let shim = Arc::new(shim.await?);
    *p.shim.lock() = Some(shim.clone());
    Ok(shim)
}

fn config(p: &Performer, pod: &Pod) -> Result<PodConfig, String> {
    let spec = pod.spec.clone().unwrap_or_default();
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let on_host = on_host_network(pod);
    let sysctls = spec.security_context.and_then(|c| c.sysctls).unwrap_or_default();
    let range = || p.agent.users.take(&uid).map_err(|e| format!("take a range of user ids: {e}"));
    Ok(PodConfig {
        run_dir: p.paths.run.clone(),
        hostname: if on_host { node_name(p) } else { hostname(pod) },
        network: (!on_host).then(|| namespace(p, &uid)),
        host_ipc: spec.host_ipc == Some(true),
        host_pid: spec.host_pid == Some(true),
        shared_pid: spec.share_process_namespace == Some(true),
        user_map: if own_users(pod) { Some(range()?) } else { None },
        sysctls: sysctls.into_iter().map(|s| (s.name, s.value)).collect(),
        cgroup: PathBuf::from(qos::cgroup(&p.agent.config.cgroup_root(), pod)),
        resources: limits::of_pod(pod),
        id: uid,
    })
}

/// The hostname inside; on the host's network the node's.
pub(super) fn hostname_of(p: &Performer, pod: &Pod) -> String {
    if on_host_network(pod) { node_name(p) } else { hostname(pod) }
}

fn node_name(p: &Performer) -> String {
    let own = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Some(own.trim().to_owned()).filter(|n| !n.is_empty()).unwrap_or_else(|| p.agent.config.node_name.clone())
}

fn namespace(p: &Performer, uid: &str) -> PathBuf {
    crate::routes::namespaces(&p.agent.config).join(uid)
}

/// The files of the pod's /etc.
fn etc(p: &Performer, pod: &Pod, seen: &Observed) -> Vec<(String, String)> {
    let config = &p.agent.config;
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cluster = ClusterDns { servers: config.cluster_dns.clone(), domain: config.cluster_domain.clone() };
    let host = on_host_network(pod).then(|| read("/etc/hosts"));
    let ips = seen.network.done().cloned().unwrap_or_default();
    vec![
        ("hosts".into(), hosts(pod, &ips, &config.cluster_domain, host.as_deref())),
        ("hostname".into(), format!("{}\n", hostname_of(p, pod))),
        ("resolv.conf".into(), resolv_conf(pod, &cluster, &read("/etc/resolv.conf"))),
    ]
}

impl Performer {
    /// What a former agent's shim has to tell; where it is dead, what it left, and that it is lost. All of it is to be
    /// known before anything is decided: what the former agent did last may stand in no memory.
    pub(crate) async fn adopt(&self, pod: &Pod) -> Vec<Fact> {
        let run = self.paths.run.clone();
        let found = blocking(move || {
            let shim = Shim::adopt(&run).map_err(|e| chain(&e))?;
            let list = shim.containers().map_err(|e| chain(&e))?;
            Ok((shim, list))
        });
        match found.await {
            Ok((shim, list)) => {
                *self.shim.lock() = Some(Arc::new(shim));
                self.processes(pod, list)
            }
            Err(_) => {
                let run = self.paths.run.clone();
                let left = blocking(move || Shim::exits(&run).map_err(|e| chain(&e))).await.unwrap_or_default();
                let ended: Vec<_> = left.into_iter().filter(|c| c.exit.is_some()).collect();
                let mut facts = self.processes(pod, ended);
                facts.push(Fact::SandboxLost);
                facts
            }
        }
    }

    /// Follows the shim's changes until it ends.
    pub(crate) fn follow_shim(&self, pod: &Pod, tasks: &mut JoinSet<()>) {
        let Ok(shim) = self.shim() else { return };
        let (performer, pod) = (self.clone(), pod.clone());
        tasks.spawn(async move {
            if let Err(error) = performer.follow(&pod, &shim).await {
                tracing::debug!(%error, pod = pod.metadata.name, "the shim is gone");
            }
            performer.tell(Fact::SandboxLost).await;
        });
    }

    async fn follow(&self, pod: &Pod, shim: &Arc<Shim>) -> io::Result<()> {
        let changes = watched(shim.changes().map_err(|e| io::Error::other(chain(&e)))?)?;
        loop {
            let of = shim.clone();
            let list = blocking(move || of.containers().map_err(|e| chain(&e))).await.map_err(io::Error::other)?;
            for fact in self.processes(pod, list) {
                self.tell(fact).await;
            }
            let mut ready = changes.readable().await?;
            match drain(changes.get_ref()) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) => return Err(error),
            }
        }
    }

    fn processes(&self, pod: &Pod, list: Vec<ContainerState>) -> Vec<Fact> {
        list.into_iter().map(|state| self.process(pod, state)).collect()
    }

    fn process(&self, pod: &Pod, state: ContainerState) -> Fact {
        let ended = state.exit.as_ref().map(|exit| Ended {
            code: exit.code,
            signal: exit.signal,
            oom_killed: exit.oom_killed,
            finished_at: time(exit.finished_at),
        });
        let message = ended.map(|e| self.message(pod, &state.id, e.code)).unwrap_or_default();
        Fact::Process {
            run: state.id,
            process: Process { pid: state.pid, started_at: time(state.started_at) },
            exit: ended,
            message,
        }
    }

    /// The termination message: the file's, or with `FallbackToLogsOnError` the end of a failed run's log.
    fn message(&self, pod: &Pod, run: &str, code: i32) -> String {
        const MESSAGE_BYTES: u64 = 4096;
        let text = files::read_limited(&self.paths.message(run), MESSAGE_BYTES).unwrap_or_default();
        let Some((name, attempt)) = run.rsplit_once('-') else { return text };
        let policy = member(pod, name).and_then(|m| m.container.termination_message_policy.clone());
        if !text.is_empty() || code == 0 || policy.as_deref() != Some("FallbackToLogsOnError") {
            return text;
        }
        let log = self.paths.log(name, attempt.parse().unwrap_or(0));
        crate::logs::tail_text(&log, 80, 2048).unwrap_or_default()
    }
}

fn time(nanoseconds: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or_default()
}

/// Reads the descriptor empty; 0 means its other end is closed.
fn drain(fd: &impl AsFd) -> io::Result<usize> {
    let mut buffer = [0_u8; 64];
    Ok(rustix::io::read(fd.as_fd(), &mut buffer)?)
}
