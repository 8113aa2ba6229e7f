//! Jobs at their times, one at a time or not, and what is kept of them.

use expect_test::{Expect, expect};

use crate::cronjob::CronJobs;
use crate::model::script::run;

fn check(script: &str, expect: Expect) {
    expect.assert_eq(&run(vec![Box::new(CronJobs)], script));
}

/// Every five minutes, from 08:00:00 on.
fn cron(more: &str) -> String {
    let template = "jobTemplate: {metadata: {labels: {a: b}}, spec: {template: {spec: {restartPolicy: Never}}}}";
    format!("apply CronJob ns/c {{spec: {{schedule: '*/5 * * * *', {more} {template}}}}}\n")
}

const END: &str = "{status: {startTime: '2027-01-15T08:05:00Z', completionTime: '2027-01-15T08:06:00Z', \
                   conditions: [{type: Complete, status: 'True'}]}}";

#[test]
fn a_job_begins_at_its_minute_once() {
    let script = cron("") + "trace\nwait 299\ntrace\nwait 2\ntrace\nget Job\nagain\nwait 300\ntrace create";
    check(
        &script,
        expect![[r#"
        --
        --
        cronjob-controller: create jobs.batch ns/c-30000005
        cronjob-controller: patch cronjobs.batch/status ns/c {"metadata":{},"status":{"active":[{"apiVersion":"batch/v1","kind":"Job","name":"c-30000005","namespace":"ns","resourceVersion":"2","uid":"uid-2"}],"lastScheduleTime":"2027-01-15T08:05:00Z"}}
        --
        c-30000005 [c]
        --
        cronjob-controller: create jobs.batch ns/c-30000010
        --
    "#]],
    );
}

#[test]
fn one_waits_for_the_other_or_takes_its_place() {
    let script = cron("concurrencyPolicy: Forbid,") + "wait 301\ntrace create\nwait 300\ntrace";
    check(
        &script,
        expect![[r#"
        cronjob-controller: create jobs.batch ns/c-30000005
        --
        --
    "#]],
    );
    let script = cron("concurrencyPolicy: Replace,") + "wait 301\ntrace create\nwait 300\ntrace jobs\nget Job";
    check(
        &script,
        expect![[r#"
        cronjob-controller: create jobs.batch ns/c-30000005
        --
        cronjob-controller: delete jobs.batch ns/c-30000005 Background
        cronjob-controller: create jobs.batch ns/c-30000010
        cronjob-controller: patch cronjobs.batch/status ns/c {"metadata":{},"status":{"active":null}}
        cronjob-controller: patch cronjobs.batch/status ns/c {"metadata":{},"status":{"active":[{"apiVersion":"batch/v1","kind":"Job","name":"c-30000010","namespace":"ns","resourceVersion":"5","uid":"uid-3"}],"lastScheduleTime":"2027-01-15T08:10:00Z"}}
        --
        c-30000010 [c]
        --
    "#]],
    );
}

#[test]
fn what_ended_is_counted_and_the_oldest_goes() {
    let script = cron("successfulJobsHistoryLimit: 0,")
        + "wait 301\ntrace create\napply Job ns/c-30000005 "
        + END
        + "\ntrace\nget Job\nagain";
    check(
        &script,
        expect![[r#"
        cronjob-controller: create jobs.batch ns/c-30000005
        --
        cronjob-controller: event SawCompletedJob: Saw completed job: c-30000005, condition: Complete
        cronjob-controller: patch cronjobs.batch/status ns/c {"metadata":{},"status":{"active":null,"lastSuccessfulTime":"2027-01-15T08:06:00Z"}}
        cronjob-controller: delete jobs.batch ns/c-30000005 Background
        --
        --
    "#]],
    );
}

#[test]
fn what_is_suspended_or_too_late_does_not_begin() {
    let script = cron("suspend: true,") + "wait 301\ntrace";
    check(
        &script,
        expect![[r#"
        --
    "#]],
    );
    let after_another = |more: &str| {
        cron(&format!("concurrencyPolicy: Forbid, {more}"))
            + "wait 301\ntrace create\nwait 450\napply Job ns/c-30000005 "
            + END
            + "\ntrace create"
    };
    check(
        &after_another(""),
        expect![[r#"
        cronjob-controller: create jobs.batch ns/c-30000005
        --
        cronjob-controller: create jobs.batch ns/c-30000010
        --
    "#]],
    );
    check(
        &after_another("startingDeadlineSeconds: 100,"),
        expect![[r#"
        cronjob-controller: create jobs.batch ns/c-30000005
        --
        --
    "#]],
    );
}

#[test]
fn a_zone_tells_the_hours_of_its_clocks() {
    let of = |zone: &str| {
        cron(&format!("timeZone: {zone},")).replace("*/5 * * * *", "35 13 * * *") + "wait 301\ntrace create"
    };
    check(
        &of("Asia/Kolkata"),
        expect![[r#"
        cronjob-controller: create jobs.batch ns/c-30000005
        --
    "#]],
    );
    check(
        &of("Nowhere/Such"),
        expect![[r#"
        --
    "#]],
    );
}
