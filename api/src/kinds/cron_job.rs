//! CronJob.

use serde_json::Value;

use super::cell::{self, NONE, containers, or, row};
use super::workload::counts;
use super::{Change, Operation, Rules, job, workload};
use crate::cron::Schedule;
use crate::field::{Error, Errors, Path};
use crate::tree::{fill, get, object, text};
use crate::validation::one_of;
use crate::{Document, Timestamp, time};

/// Rules of `batch/v1 CronJob`.
pub(super) struct CronJob;

impl Rules for CronJob {
    fn default(&self, cron: &mut Document) {
        let spec = object(cron.value_mut(), "spec");
        fill(spec, "concurrencyPolicy", "Allow");
        fill(spec, "suspend", false);
        fill(spec, "successfulJobsHistoryLimit", 3);
        fill(spec, "failedJobsHistoryLimit", 1);
        job::default_template(object(object(spec, "jobTemplate"), "spec"));
    }

    fn validate(&self, new: &Document, change: &Change<'_>) -> Errors {
        if change.subresource == "status" {
            return Errors::new();
        }
        let mut errors = validate_spec(new.at("/spec").unwrap_or(&Value::Null), &Path::new("spec"), change.old);
        // A job's name is the cron job's with eleven characters more.
        if change.operation == Operation::Create && new.name().len() > 52 {
            let path = Path::new("metadata").child("name");
            errors.push(Error::invalid(path, new.name(), "must be no more than 52 characters"));
        }
        errors
    }

    fn warnings(&self, new: &Document, change: &Change<'_>) -> Vec<String> {
        workload::warnings(new, change, "/spec/jobTemplate/spec/template", true)
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn cells(&self, cron: &Document, now: Timestamp) -> Option<Vec<Value>> {
        let last = match cron.str_at("/status/lastScheduleTime") {
            "" => NONE.to_owned(),
            last => time::since(last, now),
        };
        let (names, images) = containers(cron, "/spec/jobTemplate/spec/template/spec/containers");
        row![
            cron.name(),
            cron.str_at("/spec/schedule"),
            or(cron.str_at("/spec/timeZone"), NONE),
            cell::boolean(cron.at("/spec/suspend")),
            cron.list_at("/status/active").len(),
            last,
            cell::age(cron, now),
            names,
            images,
            cell::selector_or_none(cron.at("/spec/jobTemplate/spec/selector")),
        ]
    }
}

fn validate_spec(spec: &Value, path: &Path, old: Option<&Document>) -> Errors {
    let schedule = text(spec, "schedule");
    let mut errors = match schedule {
        "" => Errors::new(),
        _ if schedule.contains("TZ") => {
            let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
            vec![Error::invalid(path.child("schedule"), schedule, detail)]
        }
        _ => {
            let fault = Schedule::parse(schedule).err();
            fault.map(|why| Error::invalid(path.child("schedule"), schedule, why)).into_iter().collect()
        }
    };
    errors.extend(counts(spec, &["startingDeadlineSeconds"], path));
    let zone = get(spec, "timeZone");
    if old.is_none_or(|old| old.at("/spec/timeZone") != zone) {
        errors.extend(zone.and_then(Value::as_str).and_then(|zone| time_zone(zone, path.child("timeZone"))));
    }
    let policy = text(spec, "concurrencyPolicy");
    errors.extend(one_of(policy, &path.child("concurrencyPolicy"), &["Allow", "Forbid", "Replace"]));
    let template = get(spec, "jobTemplate").and_then(|t| get(t, "spec")).unwrap_or(&Value::Null);
    errors.extend(job::template_spec(template, &path.child("jobTemplate").child("spec")));
    errors.extend(counts(spec, &["successfulJobsHistoryLimit", "failedJobsHistoryLimit"], path));
    if schedule.is_empty() {
        // Upstream finds this with rules of another sort, which come last.
        errors.push(Error::required(path.child("schedule"), ""));
    }
    errors
}

/// What is wrong with a time zone: its name is bounded as IANA bounds it (`validateTimeZone`).
fn time_zone(name: &str, path: Path) -> Option<Error> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte);
    let good = |part: &str| {
        !matches!(part, "." | "..")
            && !part.starts_with('-')
            && (1..=14).contains(&part.len())
            && part.bytes().all(plain)
    };
    let why = match name {
        "" => "timeZone must be nil or non-empty string".into(),
        _ if name.split('/').all(good) && time::zone(name).is_some() => return None,
        _ if name.eq_ignore_ascii_case("local") => {
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones".into()
        }
        _ => format!("unknown time zone {name}"),
    };
    Some(Error::invalid(path, name, why))
}
