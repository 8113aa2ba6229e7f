//! Room for images: when the disk that holds them fills up, those that no container needs are removed, the ones that have
//! been idle longest first (kubelet's image garbage collection, with its defaults).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::Timestamp;
use node_plan::observed::{ImageStage, Observed};
use runtime_image::{Image, Store};

use crate::agent::Agent;
use crate::memory::load_all;
use crate::{blocking, chain};

/// How often the disk is looked at.
const PERIOD: Duration = Duration::from_secs(300);
/// Percent of the disk in use above which images are removed, and down to which.
const HIGH: u64 = 85;
const LOW: u64 = 80;
/// Seconds for which an image must have been idle.
const MIN_IDLE_S: i64 = 120;
/// Images of this registry are made from our own program and cannot be pulled again.
const BUILT_IN: &str = "trimtab.local/";

/// Looks at the disk for ever.
pub(crate) async fn keep_room(agent: Arc<Agent>) {
    let mut idle = BTreeMap::new();
    loop {
        let (of, known) = (agent.clone(), std::mem::take(&mut idle));
        let looked = blocking(move || {
            let disk = Disk::of(&of.config.images_dir);
            collect(&of.images, &in_use(&of.config.data_dir), known, disk)
        });
        match looked.await {
            Ok((since, None)) => idle = since,
            Ok((since, Some(failure))) => {
                idle = since;
                agent.recorder.node(true, "FreeDiskSpaceFailed", &failure);
            }
            Err(error) => tracing::warn!(error, "images are not collected"),
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Since when each image has been idle.
type Idle = BTreeMap<String, Timestamp>;

/// Bytes of the disk that images lie on.
#[derive(Clone, Copy, Debug)]
struct Disk {
    size: u64,
    available: u64,
}

impl Disk {
    fn of(dir: &Path) -> Self {
        rustix::fs::statvfs(dir).map_or(Self { size: 0, available: 0 }, |s| Self {
            size: s.f_blocks.saturating_mul(s.f_frsize),
            available: s.f_bavail.saturating_mul(s.f_frsize),
        })
    }

    /// How many bytes are to be freed: none while the disk is not filled to `HIGH`.
    fn excess(self) -> u64 {
        let free_at = |percent: u64| self.size / 100 * (100 - percent);
        if self.available > free_at(HIGH) { 0 } else { free_at(LOW).saturating_sub(self.available) }
    }
}

/// The ids of the images that the containers of an instance run from, or are about to, as its agent has written them down.
pub fn in_use(data_dir: &Path) -> BTreeSet<String> {
    used(&load_all(&data_dir.join("pods")).iter().map(|memory| &memory.seen).collect::<Vec<_>>())
}

/// The ids of the images that containers run from, or are about to.
fn used(pods: &[&Observed]) -> BTreeSet<String> {
    let containers = pods.iter().flat_map(|seen| seen.containers.values());
    let ids = containers.flat_map(|c| {
        let next = if let ImageStage::Ready { image, .. } = &c.image { Some(image.id.clone()) } else { None };
        next.into_iter().chain(c.current.as_ref().map(|run| run.image.id.clone()))
    });
    ids.collect()
}

/// Removes what is to go. The text is for an event: too little could be freed.
fn collect(store: &Store, used: &BTreeSet<String>, known: Idle, disk: Disk) -> Result<(Idle, Option<String>), String> {
    let images = store.list().map_err(|error| chain(&error))?;
    let (idle, candidates) = candidates(&images, used, known, Timestamp::now());
    let excess = disk.excess();
    let mut freed = 0;
    for id in candidates {
        if freed >= excess {
            break;
        }
        tracing::info!(id, "an idle image is removed: the disk is full");
        store.remove(&id).map_err(|error| chain(&error))?;
        let used: Vec<String> = used.iter().cloned().collect();
        freed += store.collect(&used).map_err(|error| chain(&error))?;
    }
    let failure = (freed < excess).then(|| {
        format!(
            "Failed to garbage collect required amount of images. Attempted to free {excess} bytes, but only found \
             {freed} bytes eligible to free."
        )
    });
    Ok((idle, failure))
}

/// Since when images are idle, and those that may go, the longest idle first.
fn candidates(images: &[Image], used: &BTreeSet<String>, known: Idle, now: Timestamp) -> (Idle, Vec<String>) {
    let kept = |image: &&Image| used.contains(&image.id) || image.names.iter().any(|name| name.starts_with(BUILT_IN));
    let since = |image: &Image| (image.id.clone(), known.get(&image.id).copied().unwrap_or(now));
    let idle: Idle = images.iter().filter(|image| !kept(image)).map(since).collect();
    let mut list: Vec<(Timestamp, String)> = idle.iter().map(|(id, since)| (*since, id.clone())).collect();
    list.retain(|(since, _)| now.duration_since(*since).as_secs() >= MIN_IDLE_S);
    list.sort();
    (idle, list.into_iter().map(|(_, id)| id).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, name: &str) -> Image {
        let (names, digests, layers) = (vec![name.to_owned()], Vec::new(), Vec::new());
        Image { id: id.into(), names, digests, size_bytes: 1, config: Default::default(), layers }
    }

    #[test]
    fn the_longest_idle_goes_first_and_nothing_in_use() {
        let at = |seconds: i64| Timestamp::from_second(seconds).unwrap();
        let images = ["a", "b", "c", "d"].map(|id| image(id, "docker.io/library/x:1"));
        let images = [images.as_slice(), &[image("e", "trimtab.local/web:1")]].concat();
        let used = BTreeSet::from(["b".to_owned()]);
        let known = Idle::from([("a".into(), at(500)), ("c".into(), at(100)), ("gone".into(), at(1))]);
        let (idle, list) = candidates(&images, &used, known, at(1000));
        assert_eq!(list, ["c", "a"], "d has just become idle");
        assert_eq!(idle.keys().collect::<Vec<_>>(), ["a", "c", "d"]);
        let (_, list) = candidates(&images, &used, idle, at(2000));
        assert_eq!(list, ["c", "a", "d"]);
    }

    #[test]
    fn a_disk_is_freed_from_high_to_low() {
        let disk = |available| Disk { size: 1000, available }.excess();
        assert_eq!([disk(500), disk(151), disk(150), disk(0)], [0, 0, 50, 200]);
    }

    #[test]
    fn images_leave_the_store_until_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let program = dir.path().join("program");
        for name in ["one", "two", "three"] {
            std::fs::write(&program, name.repeat(4000)).unwrap();
            store.add_executable(&format!("example.com/{name}:1"), &program, &["/program"]).unwrap();
        }
        let images = store.list().unwrap();
        let used = BTreeSet::from([images[0].id.clone()]);
        let known: Idle = images.iter().map(|i| (i.id.clone(), Timestamp::UNIX_EPOCH)).collect();
        let full = Disk { size: 100, available: 19 };
        let before = images.len();
        let (known, failure) = collect(&store, &used, known, full).unwrap();
        assert_eq!(failure, None);
        assert_eq!(store.list().unwrap().len(), before, "not yet filled to the mark");
        let (known, failure) = collect(&store, &used, known, Disk { size: 100, available: 10 }).unwrap();
        assert_eq!((failure, store.list().unwrap().len()), (None, before - 1));
        let (_, failure) = collect(&store, &used, known, Disk { size: 100 << 40, available: 0 }).unwrap();
        assert!(failure.unwrap().starts_with("Failed to garbage collect"));
        assert_eq!(store.list().unwrap().iter().map(|i| i.id.clone()).collect::<BTreeSet<_>>(), used);
    }
}
