//! Memory and disk of the node: measured all the time, told as conditions, and freed by evicting pods.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use node_plan::clock::seconds;
use node_plan::observed::Verdict;
use node_plan::pressure::{Level, Resource, Usage, victim};
use runtime_core::pod::Shim;
use tokio::sync::mpsc;

use crate::agent::Agent;
use crate::paths::PodPaths;
use crate::{blocking, chain};

/// How often the node is measured (kubelet's default).
const PERIOD: Duration = Duration::from_secs(10);
/// Seconds for which a condition stays after its cause (kubelet's default).
const TRANSITION_S: i64 = 300;
/// Directories deeper than this are not counted.
const MAX_DEPTH: usize = 64;

/// A pod's uid and why it is to end.
pub(crate) type Eviction = (String, Verdict);

/// Measures for ever.
pub(crate) async fn watch(agent: Arc<Agent>, evict: mpsc::Sender<Eviction>) {
    let mut seen: BTreeMap<Resource, Timestamp> = BTreeMap::new();
    let mut last: Option<Arc<Pod>> = None;
    loop {
        let levels = levels(&agent.config.data_dir);
        let now = Timestamp::now();
        seen.extend(levels.iter().filter(|level| level.is_short()).map(|level| (level.resource, now)));
        seen.retain(|_, at| seconds(*at, now) < TRANSITION_S);
        let short: Vec<Resource> = seen.keys().copied().collect();
        agent.pressure.send_if_modified(|before| std::mem::replace(before, short.clone()) != short);
        // One at a time: what the last one leaves is to be seen first.
        let ending = last.as_ref().is_some_and(|pod| PodPaths::of(&agent.config, pod).run.exists());
        if let Some(level) = levels.into_iter().find(Level::is_short).filter(|_| !ending)
            && let Some((pod, verdict)) = choose(&agent, level).await
        {
            tracing::warn!(pod = pod.metadata.name, message = verdict.message, "a pod is evicted");
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            last = Some(pod);
            if evict.send((uid, verdict)).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
}

fn levels(data_dir: &Path) -> Vec<Level> {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| -> u64 {
        let line = memory.lines().find_map(|l| l.strip_prefix(name));
        let kib: Option<u64> = line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse().ok());
        kib.unwrap_or(0).saturating_mul(1024)
    };
    let memory = Level { resource: Resource::Memory, available: field("MemAvailable:"), size: field("MemTotal:") };
    let disk = rustix::fs::statvfs(data_dir).ok().map(|s| Level {
        resource: Resource::Disk,
        available: s.f_bavail.saturating_mul(s.f_frsize),
        size: s.f_blocks.saturating_mul(s.f_frsize),
    });
    [memory].into_iter().chain(disk).collect()
}

async fn choose(agent: &Arc<Agent>, level: Level) -> Option<(Arc<Pod>, Verdict)> {
    let pods: Vec<Arc<Pod>> = agent.pods.borrow().values().filter(|pod| active(pod)).cloned().collect();
    let of = agent.clone();
    let measured = blocking(move || {
        let measure = |pod: &Arc<Pod>| (Pod::clone(pod), usage(&of, pod, level.resource).unwrap_or_default());
        Ok(pods.iter().map(measure).collect::<Vec<_>>())
    });
    let measured = measured.await.ok()?;
    victim(&level, &measured).map(|(pod, verdict)| (Arc::new(pod.clone()), verdict))
}

/// Has something that could be freed, and is not being freed already.
fn active(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    pod.metadata.deletion_timestamp.is_none() && !matches!(phase, Some("Succeeded" | "Failed"))
}

fn usage(agent: &Agent, pod: &Pod, resource: Resource) -> Result<Usage, String> {
    let paths = PodPaths::of(&agent.config, pod);
    let shim = Shim::adopt(&paths.run).map_err(|error| chain(&error))?;
    let mut usage = Usage::default();
    for container in shim.containers().map_err(|error| chain(&error))?.iter().filter(|c| c.exit.is_none()) {
        let name = container.id.rsplit_once('-').map_or(container.id.as_str(), |(name, _)| name);
        let bytes = match resource {
            Resource::Memory => shim.stats(Some(&container.id)).map_or(0, |stats| stats.memory_working_set_bytes),
            Resource::Disk => size(&paths.scratch(&container.id), 0)
                .and_then(|own| Ok(own + size(&paths.logs.join(name), 0)?))
                .unwrap_or(0),
        };
        usage.containers.push((name.to_owned(), bytes));
    }
    usage.total = match resource {
        Resource::Memory => shim.stats(None).map_or(0, |stats| stats.memory_working_set_bytes),
        Resource::Disk => size(&paths.data, 0).unwrap_or(0) + size(&paths.logs, 0).unwrap_or(0),
    };
    Ok(usage)
}

/// Bytes of disk below a directory, on its own file system alone: what lies in memory frees no disk.
fn size(dir: &Path, depth: usize) -> io::Result<u64> {
    let device = fs::symlink_metadata(dir)?.dev();
    let mut sum = 0_u64;
    for entry in fs::read_dir(dir)? {
        // What goes away meanwhile takes no room.
        let Ok(meta) = entry.as_ref().map_err(|_| ()).and_then(|e| fs::symlink_metadata(e.path()).map_err(|_| ()))
        else {
            continue;
        };
        if meta.dev() != device {
            continue;
        }
        sum = sum.saturating_add(meta.blocks().saturating_mul(512));
        if meta.is_dir() && depth < MAX_DEPTH {
            sum = sum.saturating_add(size(&entry?.path(), depth + 1).unwrap_or(0));
        }
    }
    Ok(sum)
}
