//! How many pods of a Job have come to which end.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::{Job, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use reconcile::{Effect, pods};

use super::{indexes, pod};
use crate::podset::{count, nonzero};

/// The most uids in a status at once.
const MOST_UNCOUNTED: usize = 500;

/// Whether each pod stands for one of the numbers below `completions`.
pub(super) fn is_indexed(job: &Job) -> bool {
    job.spec.as_ref().and_then(|s| s.completion_mode.as_deref()) == Some("Indexed")
}

/// The Job's counts, and the pods whose end is not among them yet.
pub(super) struct Counts<'a> {
    pods: Vec<&'a Pod>,
    completions: usize,
    indexed: bool,
    /// Indexes that are written down as done.
    written: BTreeSet<usize>,
    done: BTreeSet<usize>,
    succeeded: i32,
    failed: i32,
}

fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

impl<'a> Counts<'a> {
    /// Turns the uids of pods without a finalizer into counts, and sees what else has ended.
    pub(super) fn new(job: &Job, status: &mut JobStatus, pods: &[&'a Pod]) -> Self {
        let tracked: Vec<&Pod> = pods.iter().copied().filter(|p| pod::is_tracked(p)).collect();
        let uids: BTreeSet<String> = tracked.iter().map(|p| uid(p)).collect();
        let uncounted = status.uncounted_terminated_pods.get_or_insert_with(UncountedTerminatedPods::default);
        let succeeded = settle(&mut uncounted.succeeded, &uids);
        let failed = settle(&mut uncounted.failed, &uids);
        let in_list = |l: &Option<Vec<String>>, p: &Pod| l.iter().flatten().any(|u| *u == uid(p));
        let new = |p: &&&Pod| !in_list(&uncounted.succeeded, p) && !in_list(&uncounted.failed, p);
        let newly = |is: &dyn Fn(&Pod) -> bool| tracked.iter().filter(new).filter(|p| is(p)).count();
        let (new_succeeded, new_failed) =
            (newly(&|p| pods::phase(p) == "Succeeded"), newly(&|p| pod::is_failed(p, job)));
        let waiting = |l: &Option<Vec<String>>| l.as_ref().map_or(0, Vec::len);
        let all_succeeded = count(new_succeeded + waiting(&uncounted.succeeded));
        let all_failed = count(new_failed + waiting(&uncounted.failed));
        status.succeeded = Some(status.succeeded.unwrap_or_default() + succeeded).filter(|n| *n != 0);
        status.failed = Some(status.failed.unwrap_or_default() + failed).filter(|n| *n != 0);

        let completions = job.spec.as_ref().and_then(|s| s.completions).unwrap_or_default();
        let completions = usize::try_from(completions).unwrap_or_default();
        let written = indexes::parse(status.completed_indexes.as_deref().unwrap_or_default(), completions);
        let indexed = is_indexed(job);
        let mut done = written.clone();
        if indexed {
            let ended = tracked.iter().filter(|p| pods::phase(p) == "Succeeded");
            done.extend(ended.filter_map(|p| pod::index(p)).filter(|i| *i < completions));
        }
        Self {
            succeeded: if indexed { count(done.len()) } else { status.succeeded.unwrap_or_default() + all_succeeded },
            failed: status.failed.unwrap_or_default() + all_failed,
            pods: tracked,
            completions,
            indexed,
            written,
            done,
        }
    }

    pub(super) fn succeeded(&self) -> i32 {
        self.succeeded
    }

    pub(super) fn failed(&self) -> i32 {
        self.failed
    }

    /// The first indexes that have neither ended well nor an active pod.
    pub(super) fn pending(&self, most: usize, active: &[&Pod]) -> Vec<usize> {
        let busy: BTreeSet<usize> = active.iter().filter_map(|p| pod::index(p)).collect();
        (0..self.completions).filter(|i| !self.done.contains(i) && !busy.contains(i)).take(most).collect()
    }

    /// Active pods of indexes that are done, that another has too, or that are none.
    pub(super) fn unneeded<'b>(&self, active: &[&'b Pod]) -> Vec<&'b Pod> {
        let mut taken = BTreeSet::new();
        let mut sorted: Vec<&Pod> = active.to_vec();
        sorted.sort_by_key(|p| (p.metadata.creation_timestamp.clone().map(|t| t.0), p.metadata.name.clone()));
        let needed = |p: &Pod, taken: &mut BTreeSet<usize>| {
            pod::index(p).is_some_and(|i| i < self.completions && !self.done.contains(&i) && taken.insert(i))
        };
        sorted.into_iter().filter(|p| !needed(p, &mut taken)).collect()
    }

    /// Writes the uids of ended pods into the status, and takes the finalizers of all that stand there.
    /// `failing`: every pod counts as failed now. `ending`: no pod is waited for.
    pub(super) fn track(&mut self, job: &Job, status: &mut JobStatus, failing: bool, ending: bool) -> Vec<Effect> {
        let uncounted = status.uncounted_terminated_pods.get_or_insert_with(UncountedTerminatedPods::default);
        let mut untracked = Vec::new();
        let mut noted = 0;
        let going = ending || job.metadata.deletion_timestamp.is_some();
        for pod in &self.pods {
            let (won, lost) = (pods::phase(pod) == "Succeeded", pod::is_failed(pod, job));
            if !(won || lost || going) || noted >= MOST_UNCOUNTED {
                continue;
            }
            let list = match () {
                () if won && self.indexed => {
                    let index = pod::index(pod).filter(|i| *i < self.completions);
                    noted += usize::from(index.is_some_and(|i| self.written.insert(i)));
                    None
                }
                () if won => Some(&mut uncounted.succeeded),
                () if lost || failing => Some(&mut uncounted.failed),
                () => None,
            };
            if let Some(list) = list {
                noted += usize::from(note(list, uid(pod)));
            }
            untracked.push(pod::untrack(pod));
        }
        if self.indexed {
            status.completed_indexes = Some(indexes::write(&self.written)).filter(|t| !t.is_empty());
            status.succeeded = nonzero(self.written.len());
        }
        untracked
    }
}

/// Adds a uid unless it is there.
fn note(list: &mut Option<Vec<String>>, uid: String) -> bool {
    let list = list.get_or_insert_default();
    let new = !list.contains(&uid);
    if new {
        list.push(uid);
    }
    new
}

/// Takes the uids out whose pods are no longer tracked, and says how many they were.
fn settle(list: &mut Option<Vec<String>>, tracked: &BTreeSet<String>) -> i32 {
    let Some(uids) = list else { return 0 };
    let before = uids.len();
    uids.retain(|uid| tracked.contains(uid));
    let settled = count(before - uids.len());
    *list = list.take().filter(|l| !l.is_empty());
    settled
}
