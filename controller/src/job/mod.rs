//! Job: pods that run to their end, so many of them (`pkg/controller/job`, `pkg/controller/ttlafterfinished`).
//!
//! Every pod carries a finalizer until its end is counted in the Job's status, so that none is counted twice or
//! lost: first its uid goes into `uncountedTerminatedPods`, then the finalizer goes, then the uid becomes a count.

mod count;
mod indexes;
mod pod;

use jiff::SignedDuration;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use reconcile::effect::reference;
use reconcile::resource::name_of;
use reconcile::{
    Change, Controller, Decider, Effect, Key, Outcome, Preconditions, Propagation, Target, Timestamp, Told, Watch,
    World, conditions, merge, owners, pods, selector,
};

use crate::podset::{self, nonzero};
use count::Counts;

/// The most pods created or deleted in one go.
const BURST: usize = 500;
/// The wait after the first failure of a pod, doubled with each, and the longest.
const BACKOFF_SECONDS: i64 = 10;
const LONGEST_SECONDS: i64 = 600;

/// The Job controller.
pub struct Jobs;

impl Controller for Jobs {
    fn name(&self) -> &'static str {
        "job-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of::<Job>(), Watch::of::<Pod>()]
    }

    fn touches(&self, change: &Change, world: &World) -> Vec<Key> {
        let mut keys = podset::touched(change, world, |job: &Job, labels| {
            let selector = job.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            selector.is_some_and(|selector| selector::selects(selector, labels))
        });
        if let Some(pod) = change.now::<Pod>().filter(|p| pod::is_tracked(p) && job_of(world, p).is_none()) {
            keys.push(Key::of::<Pod>(name_of(&pod.metadata)));
        }
        let gone = change.was::<Job>().filter(|_| change.after.is_none()).and_then(|j| j.metadata.uid.as_deref());
        let left = gone.into_iter().flat_map(|uid| world.owned::<Pod>(uid));
        keys.extend(left.filter(|p| pod::is_tracked(p)).map(|p| Key::of::<Pod>(name_of(&p.metadata))));
        keys
    }
}

/// The Job that controls a pod, if it is there.
fn job_of<'a>(world: &'a World, pod: &Pod) -> Option<&'a Job> {
    let key = owners::controller_key::<Job>(&pod.metadata)?;
    world.get::<Job>(&key.object).filter(|j| owners::is_controlled_by(&pod.metadata, &j.metadata))
}

impl Decider for Jobs {
    type World = World;
    type Key = Key;
    type Effect = Effect;

    fn decide(&self, world: &World, key: &Key, now: Timestamp) -> Outcome<Effect> {
        if podset::is::<Pod>(key) {
            return orphan(world, key);
        }
        let Some(job) = world.get::<Job>(&key.object) else {
            return Outcome::nothing("Gone", "the Job does not exist");
        };
        if let Some(end) = finished(job) {
            return expire(job, end, now);
        }
        let Some(spec) = &job.spec else { return Outcome::nothing("Invalid", "the Job has no spec") };
        if spec.managed_by.as_deref().is_some_and(|m| m != "kubernetes.io/job-controller") {
            return Outcome::nothing("ManagedByOther", "another controller manages the Job");
        }
        if let Some(field) = unsupported(job) {
            let message = format!("spec.{field} is not supported; the Job is left alone");
            let mut outcome = Outcome::nothing("Unsupported", message.clone());
            outcome.effect(Effect::warning(reference(job), "UnsupportedField", message));
            return outcome;
        }
        let Some(selector) = &spec.selector else { return Outcome::nothing("Invalid", "the Job has no selector") };
        let claim = match owners::claim::<Job, Pod>(world, (self.name(), key), job, selector) {
            Ok(claim) => claim,
            Err(wait) => return wait,
        };
        let mut outcome = Outcome { effects: claim.effects, ..Outcome::default() };
        sync(job, claim.objects, now, &mut outcome);
        outcome
    }
}

/// What of a Job this controller does not know: better no pods than pods that break its rules.
fn unsupported(job: &Job) -> Option<&'static str> {
    let spec = job.spec.as_ref()?;
    let known = matches!(spec.completion_mode.as_deref(), None | Some("NonIndexed" | "Indexed"));
    match () {
        () if !known => Some("completionMode"),
        () if spec.pod_failure_policy.is_some() => Some("podFailurePolicy"),
        () if spec.success_policy.is_some() => Some("successPolicy"),
        () if spec.backoff_limit_per_index.is_some() => Some("backoffLimitPerIndex"),
        () => None,
    }
}

/// A pod whose Job is gone needs no counting.
fn orphan(world: &World, key: &Key) -> Outcome<Effect> {
    let Some(pod) = world.get::<Pod>(&key.object) else {
        return Outcome::nothing("Gone", "the pod does not exist");
    };
    if job_of(world, pod).is_some() || !pod::is_tracked(pod) {
        return Outcome::nothing("Tracked", "the pod's Job is there");
    }
    let mut outcome = Outcome::nothing("NoJob", "the pod's Job is gone");
    outcome.effect(pod::untrack(pod));
    outcome
}

fn list(job: &Job) -> Option<&Vec<JobCondition>> {
    job.status.as_ref()?.conditions.as_ref()
}

/// When the Job came to its end.
fn finished(job: &Job) -> Option<Timestamp> {
    let end = ["Complete", "Failed"].into_iter().find_map(|t| conditions::find(list(job), t));
    let end = end.filter(|c| c.status == "True")?;
    Some(end.last_transition_time.as_ref().map_or(Timestamp::MIN, |t| t.0))
}

/// Deletes a finished Job when its time to live is over.
fn expire(job: &Job, end: Timestamp, now: Timestamp) -> Outcome<Effect> {
    let mut outcome = Outcome::nothing("Finished", "the Job has finished");
    let ttl = job.spec.as_ref().and_then(|s| s.ttl_seconds_after_finished);
    let Some(ttl) = ttl.filter(|_| job.metadata.deletion_timestamp.is_none()) else { return outcome };
    let due = end.saturating_add(SignedDuration::from_secs(ttl.into())).unwrap_or(end);
    if due > now {
        outcome.wake(due);
        return outcome;
    }
    outcome.because("Expired", "its time to live is over");
    outcome.effect(Effect::Delete {
        target: Target::of(job),
        preconditions: Preconditions {
            uid: job.metadata.uid.clone(),
            resource_version: job.metadata.resource_version.clone(),
        },
        propagation: Some(Propagation::Foreground),
        grace_seconds: None,
        told: Told::default(),
    });
    outcome
}

/// What the Job is coming to.
enum End {
    Running,
    /// Reason and message.
    Failing(String, String),
    Succeeding(String, String),
}

fn is_suspended(job: &Job) -> bool {
    job.spec.as_ref().and_then(|s| s.suspend).unwrap_or_default()
}

fn sync(job: &Job, pods: Vec<&Pod>, now: Timestamp, outcome: &mut Outcome<Effect>) {
    let old = job.status.clone().unwrap_or_default();
    let mut status = old.clone();
    status.start_time = status.start_time.or_else(|| (!is_suspended(job)).then(|| conditions::time(now)));
    let mut counts = Counts::new(job, &mut status, &pods);
    let active: Vec<&Pod> = pods.iter().copied().filter(|p| pods::is_active(p)).collect();
    let end = end(job, &status, &counts, &pods, now, outcome);
    let mut kept = active.clone();
    match &end {
        End::Running if job.metadata.deletion_timestamp.is_none() => {
            let steps = manage(job, &counts, &active, &pods, now, outcome);
            kept.retain(|p| !steps.deleted.contains(&p.metadata.uid));
            outcome.effects.extend(steps.effects);
            suspend(job, &mut status, now, outcome);
        }
        End::Running => {}
        End::Failing(..) | End::Succeeding(..) => {
            outcome.effects.extend(active.iter().map(|p| podset::delete(job, p)));
            kept.clear();
        }
    }
    let untracked = counts.track(job, &mut status, matches!(end, End::Failing(..)), !matches!(end, End::Running));
    status.active = nonzero(kept.len());
    status.ready = Some(podset::count(kept.iter().filter(|p| pods::is_ready(p)).count()));
    let terminating = pods.iter().filter(|p| pods::is_terminating(p)).count() + active.len() - kept.len();
    status.terminating = Some(podset::count(terminating));
    let told = conclude(job, &mut status, &end, terminating == 0 && untracked.is_empty(), now);
    let patch = merge::status(job.metadata.resource_version.as_deref(), &old, &status);
    let written = patch.is_some();
    outcome.effects.extend(patch.map(|body| Effect::patch_status(job, body)));
    outcome.effects.extend(told.filter(|_| written));
    outcome.effects.extend(untracked);
}

/// Whether the Job is at its end: what was decided before stands.
fn end(
    job: &Job,
    status: &JobStatus,
    counts: &Counts<'_>,
    pods: &[&Pod],
    now: Timestamp,
    outcome: &mut Outcome<Effect>,
) -> End {
    let Some(spec) = &job.spec else { return End::Running };
    let decided = |type_: &str| {
        let c = conditions::find(list(job), type_).filter(|c| c.status == "True")?;
        Some((c.reason.clone().unwrap_or_default(), c.message.clone().unwrap_or_default()))
    };
    if let Some((reason, message)) = decided("SuccessCriteriaMet") {
        return End::Succeeding(reason, message);
    }
    if let Some((reason, message)) = decided("FailureTarget") {
        return End::Failing(reason, message);
    }
    let limit = spec.backoff_limit.unwrap_or(6);
    if counts.failed() > limit || restarted_too_often(job, pods, limit) {
        let message = "Job has reached the specified backoff limit";
        return End::Failing("BackoffLimitExceeded".into(), message.into());
    }
    if let (Some(seconds), Some(start), false) = (spec.active_deadline_seconds, &status.start_time, is_suspended(job)) {
        let due = start.0.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
        if due <= now {
            let message = "Job was active longer than specified deadline";
            return End::Failing("DeadlineExceeded".into(), message.into());
        }
        outcome.wake(due);
    }
    let active = pods.iter().any(|p| pods::is_active(p));
    let complete = match spec.completions {
        Some(completions) => counts.succeeded() >= completions,
        None => counts.succeeded() > 0,
    };
    if complete && !active {
        return End::Succeeding("CompletionsReached".into(), "Reached expected number of succeeded pods".into());
    }
    End::Running
}

/// Containers that are restarted in place count against the limit too.
fn restarted_too_often(job: &Job, pods: &[&Pod], limit: i32) -> bool {
    let policy = job.spec.as_ref().and_then(|s| s.template.spec.as_ref()).and_then(|s| s.restart_policy.as_deref());
    if policy != Some("OnFailure") {
        return false;
    }
    let living = pods.iter().filter(|p| matches!(pods::phase(p), "Running" | "Pending"));
    let statuses = living.filter_map(|p| p.status.as_ref());
    let containers = statuses.flat_map(|s| s.init_container_statuses.iter().chain(&s.container_statuses).flatten());
    let restarts: i32 = containers.map(|c| c.restart_count).sum();
    if limit == 0 { restarts > 0 } else { restarts >= limit }
}

/// Creations and deletions of pods.
#[derive(Default)]
struct Steps {
    effects: Vec<Effect>,
    deleted: Vec<Option<String>>,
}

fn manage(
    job: &Job,
    counts: &Counts<'_>,
    active: &[&Pod],
    pods: &[&Pod],
    now: Timestamp,
    outcome: &mut Outcome<Effect>,
) -> Steps {
    let Some(spec) = &job.spec else { return Steps::default() };
    let have = podset::count(active.len());
    let parallelism = spec.parallelism.unwrap_or(1);
    let want = match spec.completions {
        _ if is_suspended(job) => 0,
        None if counts.succeeded() > 0 => have,
        None => parallelism,
        Some(completions) => (completions - counts.succeeded()).clamp(0, parallelism.max(0)),
    };
    outcome.because("Counted", format!("{have} pods of {want} are active"));
    let surplus = surplus(job, counts, active, usize::try_from(have - want).unwrap_or_default(), now);
    if !surplus.is_empty() {
        return remove(job, &surplus);
    }
    let waits = spec.pod_replacement_policy.as_deref() == Some("Failed");
    let terminating = if waits { podset::count(pods.iter().filter(|p| pods::is_terminating(p)).count()) } else { 0 };
    let missing = usize::try_from(want - have - terminating).unwrap_or_default().min(BURST);
    if missing == 0 {
        return Steps::default();
    }
    if let Some(until) = backoff(pods).filter(|until| *until > now) {
        outcome.because("Backoff", "pods have failed: waiting before the next");
        outcome.wake(until);
        return Steps::default();
    }
    let new: Vec<_> = match count::is_indexed(job) {
        true => counts.pending(missing, active).into_iter().map(|i| pod::new(job, Some(i))).collect(),
        false => std::iter::repeat_n(pod::new(job, None), missing).collect(),
    };
    Steps { effects: new.into_iter().map(|p| podset::create(job, p)).collect(), deleted: Vec::new() }
}

/// The pods to take away: those of indexes that need none, then at least so many others.
fn surplus<'a>(job: &Job, counts: &Counts<'_>, active: &[&'a Pod], least: usize, now: Timestamp) -> Vec<&'a Pod> {
    let mut gone = if count::is_indexed(job) { counts.unneeded(active) } else { Vec::new() };
    let rest: Vec<&Pod> = active.iter().copied().filter(|p| !gone.iter().any(|g| std::ptr::eq(*g, *p))).collect();
    let more = least.saturating_sub(gone.len());
    gone.extend(podset::by_deletion_order(rest, active, now).into_iter().take(more));
    gone.truncate(BURST);
    gone
}

/// Deletes pods that shall not count as failed: their finalizer goes first.
fn remove(job: &Job, pods: &[&Pod]) -> Steps {
    let untrack = pods.iter().filter(|p| pod::is_tracked(p)).map(|p| pod::untrack(p));
    let delete = pods.iter().map(|p| podset::delete(job, p));
    Steps { effects: untrack.chain(delete).collect(), deleted: pods.iter().map(|p| p.metadata.uid.clone()).collect() }
}

/// Until when no new pod may be made: after the last failures in a row, twice as long for each.
fn backoff(pods: &[&Pod]) -> Option<Timestamp> {
    let mut ends: Vec<(Timestamp, bool)> = pods.iter().filter_map(|p| pod::ended(p)).collect();
    ends.sort();
    let failures = ends.iter().rev().take_while(|(_, failed)| *failed).count();
    let (last, _) = ends.last().filter(|_| failures > 0)?;
    let doubled = BACKOFF_SECONDS.checked_shl(u32::try_from(failures - 1).ok()?.min(16)).unwrap_or(LONGEST_SECONDS);
    last.saturating_add(SignedDuration::from_secs(doubled.min(LONGEST_SECONDS))).ok()
}

fn condition(type_: &str, is: &str, reason: &str, message: &str, now: Timestamp) -> JobCondition {
    JobCondition {
        type_: type_.into(),
        status: is.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_probe_time: Some(conditions::time(now)),
        last_transition_time: Some(conditions::time(now)),
    }
}

/// Notes that the Job was suspended or goes on.
fn suspend(job: &Job, status: &mut JobStatus, now: Timestamp, outcome: &mut Outcome<Effect>) {
    let suspended = conditions::is_true(status.conditions.as_ref(), "Suspended");
    let list = status.conditions.get_or_insert_default();
    match (is_suspended(job), suspended) {
        (true, false) => {
            conditions::remove(list, "Suspended");
            list.push(condition("Suspended", "True", "JobSuspended", "Job suspended", now));
            status.start_time = None;
            outcome.effect(Effect::normal(reference(job), "Suspended", "Job suspended"));
        }
        (false, true) => {
            conditions::remove(list, "Suspended");
            list.push(condition("Suspended", "False", "JobResumed", "Job resumed", now));
            status.start_time = Some(conditions::time(now));
            outcome.effect(Effect::normal(reference(job), "Resumed", "Job resumed"));
        }
        _ => {}
    }
    status.conditions = status.conditions.take().filter(|l| !l.is_empty());
}

/// Writes what the Job comes to, and once no pod is left to count or end, that it has come to it.
fn conclude(job: &Job, status: &mut JobStatus, end: &End, settled: bool, now: Timestamp) -> Option<Effect> {
    let (interim, last, reason, message) = match end {
        End::Running => return None,
        End::Failing(reason, message) => ("FailureTarget", "Failed", reason, message),
        End::Succeeding(reason, message) => ("SuccessCriteriaMet", "Complete", reason, message),
    };
    let list = status.conditions.get_or_insert_default();
    let known = conditions::find(Some(list), interim).is_some();
    if !known {
        list.push(condition(interim, "True", reason, message, now));
    }
    let uncounted = status.uncounted_terminated_pods.as_ref();
    let empty = |l: Option<&Vec<String>>| l.is_none_or(Vec::is_empty);
    let counted = uncounted.is_none_or(|u| empty(u.failed.as_ref()) && empty(u.succeeded.as_ref()));
    if !settled || !counted || status.active.is_some() {
        return None;
    }
    list.push(condition(last, "True", reason, message, now));
    if last == "Complete" {
        status.completion_time = Some(conditions::time(now));
        return Some(Effect::normal(reference(job), "Completed", "Job completed"));
    }
    Some(Effect::warning(reference(job), reason, message.as_str()))
}

#[cfg(test)]
mod tests;
