//! CronJob: Jobs at the times of a schedule (`pkg/controller/cronjob`).
//!
//! A job is named by its CronJob and its minute, so that none is made twice. It carries the time it was due at; what the
//! status says of it is made from there once the job is seen.

mod due;
#[cfg(test)]
mod tests;

use api::cron::Schedule;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use reconcile::effect::reference;
use reconcile::{
    Answer, Change, Controller, Decider, Effect, Key, Live, Notice, ObjectName, Outcome, Resource, Timestamp, Told,
    Watch, World, conditions, merge, owners,
};
use serde_json::{Value, json};

const NAME: &str = "cronjob-controller";
/// When a job was due.
const DUE: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// The CronJob controller.
pub struct CronJobs;

impl Controller for CronJobs {
    fn name(&self) -> &'static str {
        NAME
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of::<CronJob>(), Watch::of::<Job>()]
    }

    fn touches(&self, change: &Change, _: &World) -> Vec<Key> {
        let by_job = change.both::<Job>().filter_map(|job| owners::controller_key::<CronJob>(&job.metadata));
        change.key_of::<CronJob>().into_iter().chain(by_job).collect()
    }
}

impl Decider for CronJobs {
    type World = World;
    type Key = Key;
    type Effect = Effect;

    fn decide(&self, world: &World, key: &Key, now: Timestamp) -> Outcome<Effect> {
        let Some(cron) = world.get::<CronJob>(&key.object) else {
            return Outcome::nothing("Gone", "the CronJob does not exist");
        };
        let uid = cron.metadata.uid.as_deref().unwrap_or_default();
        let controlled = |job: &&Job| owners::is_controlled_by(&job.metadata, &cron.metadata);
        let jobs: Vec<&Job> = world.owned::<Job>(uid).filter(controlled).collect();
        let mut status = cron.status.clone().unwrap_or_default();
        let read_live = unanswered(world, key, &status, &jobs);
        if !read_live.is_empty() {
            return Outcome { read_live, ..Outcome::default() };
        }
        let mut outcome = Outcome::default();
        follow(cron, &jobs, &mut status, &mut outcome);
        missing(world, key, cron, &jobs, &mut status, &mut outcome);
        if cron.metadata.deletion_timestamp.is_none() {
            start(cron, &jobs, &mut status, now, &mut outcome);
        }
        status.active = status.active.filter(|active| !active.is_empty());
        let before = cron.status.clone().unwrap_or_default();
        let patch = merge::status(cron.metadata.resource_version.as_deref(), &before, &status);
        outcome.effects.extend(patch.map(|body| Effect::patch_status(cron, body)));
        // Last: when a job began is known from the job alone until the status has it.
        outcome.effects.extend(surplus(cron, &jobs).into_iter().map(|job| delete(cron, job)));
        outcome
    }
}

/// `Complete` or `Failed`, where the job has ended.
fn end_of(job: &Job) -> Option<&'static str> {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_ref());
    ["Complete", "Failed"].into_iter().find(|end| conditions::is_true(conditions, end))
}

fn due_at(job: &Job) -> Option<Timestamp> {
    job.metadata.annotations.as_ref()?.get(DUE)?.parse().ok()
}

fn is_active(status: &CronJobStatus, job: &Job) -> bool {
    status.active.iter().flatten().any(|active| active.uid == job.metadata.uid)
}

/// Active jobs that the watch does not know: whether they are there only the server can say.
fn unknown<'s>(status: &'s CronJobStatus, jobs: &[&Job]) -> impl Iterator<Item = &'s ObjectReference> {
    let known: Vec<Option<String>> = jobs.iter().map(|job| job.metadata.uid.clone()).collect();
    status.active.iter().flatten().filter(move |active| !known.contains(&active.uid))
}

fn question(active: &ObjectReference) -> Live {
    let name = |text: &Option<String>| text.clone().unwrap_or_default();
    let object = ObjectName { namespace: name(&active.namespace), name: name(&active.name) };
    Live::Object(Resource::of::<Job>(), object)
}

fn unanswered(world: &World, key: &Key, status: &CronJobStatus, jobs: &[&Job]) -> Vec<Live> {
    unknown(status, jobs).map(question).filter(|question| world.live(NAME, key, question).is_none()).collect()
}

/// Jobs that are gone are active no longer.
fn missing(
    world: &World,
    key: &Key,
    cron: &CronJob,
    jobs: &[&Job],
    status: &mut CronJobStatus,
    outcome: &mut Outcome<Effect>,
) {
    let gone = |active: &&ObjectReference| match world.live(NAME, key, &question(active)) {
        Some(Answer::Object(found)) => found.as_ref().is_none_or(|found| found.metadata().uid != active.uid),
        _ => false,
    };
    let gone: Vec<ObjectReference> = unknown(status, jobs).filter(gone).cloned().collect();
    for active in gone {
        let name = active.name.clone().unwrap_or_default();
        outcome.effect(Effect::normal(reference(cron), "MissingJob", format!("Active job went missing: {name}")));
        drop_active(status, &active.uid);
    }
}

fn drop_active(status: &mut CronJobStatus, uid: &Option<String>) {
    if let Some(active) = &mut status.active {
        active.retain(|other| other.uid != *uid);
    }
}

/// What the status says of the jobs there are: those that began, those that ended, the last success.
fn follow(cron: &CronJob, jobs: &[&Job], status: &mut CronJobStatus, outcome: &mut Outcome<Effect>) {
    for job in jobs {
        let name = job.metadata.name.as_deref().unwrap_or_default();
        let last = status.last_schedule_time.as_ref().map(|time| time.0);
        // One that somebody else made by hand has no time it was due at.
        if let Some(due) = due_at(job).filter(|due| last.is_none_or(|last| last < *due)) {
            status.last_schedule_time = Some(conditions::time(due));
            if end_of(job).is_none() && !is_active(status, job) {
                status.active.get_or_insert_default().push(reference(*job));
            }
        }
        let Some(end) = end_of(job) else { continue };
        if is_active(status, job) {
            drop_active(status, &job.metadata.uid);
            let text = format!("Saw completed job: {name}, condition: {end}");
            outcome.effect(Effect::normal(reference(cron), "SawCompletedJob", text));
        }
        let completed = job.status.as_ref().and_then(|s| s.completion_time.clone()).filter(|_| end == "Complete");
        let last = status.last_successful_time.as_ref().map(|time| time.0);
        if let Some(completed) = completed.filter(|time| last.is_none_or(|last| last < time.0)) {
            status.last_successful_time = Some(completed);
        }
    }
}

/// The oldest of the jobs that ended, beyond how many are kept.
fn surplus<'j>(cron: &CronJob, jobs: &[&'j Job]) -> Vec<&'j Job> {
    let of = |end: &str, limit: Option<i32>| {
        let Some(limit) = limit else { return Vec::new() };
        let stays = |job: &&&Job| job.metadata.deletion_timestamp.is_none() && end_of(job) == Some(end);
        let mut ended: Vec<&Job> = jobs.iter().filter(stays).copied().collect();
        let started = |job: &Job| job.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|time| time.0);
        ended.sort_by_key(|job| (started(job).is_none(), started(job), job.metadata.name.clone()));
        let many = ended.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
        ended.truncate(many);
        ended
    };
    let mut all = of("Complete", cron.spec.successful_jobs_history_limit);
    all.extend(of("Failed", cron.spec.failed_jobs_history_limit));
    all
}

fn told(cron: &CronJob, done: (&str, String), failed: (&str, &str)) -> Told {
    let notice = |warning, reason: &str, message: String| Notice {
        about: reference(cron),
        warning,
        reason: reason.into(),
        message,
    };
    Told { done: Some(notice(false, done.0, done.1)), failed: Some(notice(true, failed.0, failed.1.into())) }
}

fn delete(cron: &CronJob, job: &Job) -> Effect {
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let done = ("SuccessfulDelete", format!("Deleted job {name}"));
    Effect::delete(job).telling(told(cron, done, ("FailedDelete", "Deleted job: {error}")))
}

/// Starts the job that is due, and says when to look again.
fn start(cron: &CronJob, jobs: &[&Job], status: &mut CronJobStatus, now: Timestamp, outcome: &mut Outcome<Effect>) {
    let spec = &cron.spec;
    let zone = spec.time_zone.as_deref().unwrap_or_default();
    let Some(zone) = api::time::zone(zone) else {
        return outcome.because("UnknownTimeZone", format!("invalid timeZone: {zone:?}: unknown time zone {zone}"));
    };
    if spec.suspend == Some(true) {
        return outcome.because("Suspended", "the CronJob is suspended");
    }
    let schedule = match Schedule::parse(&spec.schedule) {
        Ok(schedule) => schedule,
        Err(why) => return outcome.because("UnparseableSchedule", why),
    };
    let begun = begun(cron, status, now);
    let times = due::Times { schedule: &schedule, zone: &zone, begun, now };
    let Ok(found) = times.latest(spec.starting_deadline_seconds) else {
        return outcome.because("InvalidSchedule", "time difference between two schedules is less than 1 second");
    };
    let Some(due) = found.filter(|due| *due <= now) else {
        outcome.because("NotDue", "no job is due yet");
        return wake(&times, outcome);
    };
    let late = spec.starting_deadline_seconds.and_then(|seconds| due::later(due, seconds)).is_some_and(|end| end < now);
    let busy = status.active.iter().flatten().next().is_some();
    if late {
        outcome.because("MissSchedule", format!("Missed scheduled time to start a job: {due}"));
        return wake(&times, outcome);
    }
    if status.last_schedule_time.as_ref().map(|time| time.0) == Some(due) {
        outcome.because("Started", "the job that is due was started");
        return wake(&times, outcome);
    }
    if busy && spec.concurrency_policy.as_deref() == Some("Forbid") {
        let why = "Not starting job because prior execution is running and concurrency policy is Forbid";
        outcome.because("JobAlreadyActive", why);
        return wake(&times, outcome);
    }
    if spec.concurrency_policy.as_deref() == Some("Replace") {
        let active: Vec<&&Job> = jobs.iter().filter(|job| is_active(status, job)).collect();
        for job in active {
            outcome.effect(delete(cron, job));
            drop_active(status, &job.metadata.uid);
        }
    }
    outcome.because("Due", format!("a job is due since {due}"));
    outcome.effect(create(cron, due, &zone));
    wake(&due::Times { begun: due, ..times }, outcome);
}

/// Since when times of the schedule count.
fn begun(cron: &CronJob, status: &CronJobStatus, now: Timestamp) -> Timestamp {
    let created = cron.metadata.creation_timestamp.as_ref();
    status.last_schedule_time.as_ref().or(created).map_or(now, |time| time.0)
}

fn wake(times: &due::Times<'_>, outcome: &mut Outcome<Effect>) {
    if let Some(at) = times.next() {
        outcome.wake(at);
    }
}

fn create(cron: &CronJob, due: Timestamp, zone: &TimeZone) -> Effect {
    let namespace = cron.metadata.namespace.as_deref().unwrap_or_default();
    let own = cron.metadata.name.as_deref().unwrap_or_default();
    let template = cron.spec.job_template.clone();
    let meta = template.metadata.unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    annotations.insert(DUE.into(), api::time::rfc3339_in(due, zone));
    let job: Value = json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {
            "name": format!("{own}-{}", due.as_second() / 60), "namespace": namespace,
            "labels": meta.labels.unwrap_or_default(), "annotations": annotations,
            "ownerReferences": [owners::reference(cron)],
        },
        "spec": template.spec,
    });
    let done = ("SuccessfulCreate", "Created job {name}".to_owned());
    Effect::create::<Job>(namespace, job).telling(told(cron, done, ("FailedCreate", "Error creating job: {error}")))
}
