//! Jobs from their first pod to their end.

use expect_test::{Expect, expect};

use crate::job::Jobs;
use crate::model::script::run;

fn check(script: &str, expect: Expect) {
    expect.assert_eq(&run(vec![Box::new(Jobs)], script));
}

/// A Job whose pods end so.
fn job(spec: &str, end: &str) -> String {
    let selector = "selector: {matchLabels: {job: j}}";
    let template = format!(
        "template: {{metadata: {{labels: {{job: j}}, annotations: {{end: {end}}}}}, spec: {{restartPolicy: Never}}}}"
    );
    format!("apply Job ns/j {{spec: {{{spec}, {selector}, {template}}}}}\n")
}

#[test]
fn every_pod_is_counted_once_and_then_let_go() {
    let script = job("completions: 2, parallelism: 2", "Succeeded") + "kubelet\ntrace\nget Pod\nagain";
    check(
        &script,
        expect![[r#"
        job-controller: create pods ns/j-*
        job-controller: create pods ns/j-*
        job-controller: patch jobs.batch/status ns/j {"metadata":{},"status":{"ready":0,"startTime":"2027-01-15T08:00:00Z","terminating":0,"uncountedTerminatedPods":{}}}
        job-controller: patch jobs.batch/status ns/j {"metadata":{},"status":{"active":2}}
        job-controller: patch jobs.batch/status ns/j {"metadata":{},"status":{"active":null,"conditions":[{"lastProbeTime":"2027-01-15T08:00:00Z","lastTransitionTime":"2027-01-15T08:00:00Z","message":"Reached expected number of succeeded pods","reason":"CompletionsReached","status":"True","type":"SuccessCriteriaMet"}],"uncountedTerminatedPods":{"succeeded":["uid-2","uid-3"]}}}
        job-controller: patch pods ns/j-2 {"metadata":{"$deleteFromPrimitiveList/finalizers":["batch.kubernetes.io/job-tracking"]}}
        job-controller: patch pods ns/j-3 {"metadata":{"$deleteFromPrimitiveList/finalizers":["batch.kubernetes.io/job-tracking"]}}
        job-controller: patch jobs.batch/status ns/j {"metadata":{},"status":{"completionTime":"2027-01-15T08:00:00Z","conditions":[{"lastProbeTime":"2027-01-15T08:00:00Z","lastTransitionTime":"2027-01-15T08:00:00Z","message":"Reached expected number of succeeded pods","reason":"CompletionsReached","status":"True","type":"SuccessCriteriaMet"},{"lastProbeTime":"2027-01-15T08:00:00Z","lastTransitionTime":"2027-01-15T08:00:00Z","message":"Reached expected number of succeeded pods","reason":"CompletionsReached","status":"True","type":"Complete"}],"succeeded":2,"uncountedTerminatedPods":{"succeeded":null}}}
        job-controller: event Completed: Job completed
        --
        j-2 Succeeded n0 [j]
        j-3 Succeeded n0 [j]
        --
    "#]],
    );
}

#[test]
fn indexes_are_filled_in_order() {
    let spec = "completions: 3, parallelism: 2, completionMode: Indexed";
    let script =
        job(spec, "Succeeded") + "trace create\nkubelet 1\ntrace create\nuntil-quiet\ntrace completedIndexes\nagain";
    check(
        &script,
        expect![[r#"
        job-controller: create pods ns/j-0-*
        job-controller: create pods ns/j-1-*
        --
        job-controller: create pods ns/j-2-*
        --
        job-controller: patch jobs.batch/status ns/j {"metadata":{},"status":{"active":null,"completedIndexes":"0-2","conditions":[{"lastProbeTime":"2027-01-15T08:00:00Z","lastTransitionTime":"2027-01-15T08:00:00Z","message":"Reached expected number of succeeded pods","reason":"CompletionsReached","status":"True","type":"SuccessCriteriaMet"}],"succeeded":3}}
        --
    "#]],
    );
}

#[test]
fn failures_wait_longer_each_time_and_the_limit_ends_it() {
    let script = job("backoffLimit: 1", "Failed")
        + "kubelet\ntrace create\nwait 9\ntrace create\nwait 2\ntrace create\nkubelet\ntrace Failed\nagain";
    check(
        &script,
        expect![[r#"
        job-controller: create pods ns/j-*
        --
        --
        job-controller: create pods ns/j-*
        --
        job-controller: patch jobs.batch/status ns/j {"metadata":{},"status":{"conditions":[{"lastProbeTime":"2027-01-15T08:00:11Z","lastTransitionTime":"2027-01-15T08:00:11Z","message":"Job has reached the specified backoff limit","reason":"BackoffLimitExceeded","status":"True","type":"FailureTarget"},{"lastProbeTime":"2027-01-15T08:00:11Z","lastTransitionTime":"2027-01-15T08:00:11Z","message":"Job has reached the specified backoff limit","reason":"BackoffLimitExceeded","status":"True","type":"Failed"}],"failed":2,"uncountedTerminatedPods":{"failed":null}}}
        --
    "#]],
    );
}

#[test]
fn the_deadline_ends_running_pods_and_the_time_to_live_the_job() {
    let script = job("activeDeadlineSeconds: 60, ttlSecondsAfterFinished: 100", "Running")
        + "kubelet\ntrace nothing\nwait 61\ntrace delete\nuntil-quiet\ntrace DeadlineExceeded\nwait 101\ntrace delete";
    check(
        &script,
        expect![[r#"
        --
        job-controller: delete pods ns/j-2 Background
        job-controller: patch pods ns/j-2 {"metadata":{"$deleteFromPrimitiveList/finalizers":["batch.kubernetes.io/job-tracking"]}}
        --
        job-controller: patch jobs.batch/status ns/j {"metadata":{},"status":{"conditions":[{"lastProbeTime":"2027-01-15T08:01:00Z","lastTransitionTime":"2027-01-15T08:01:00Z","message":"Job was active longer than specified deadline","reason":"DeadlineExceeded","status":"True","type":"FailureTarget"},{"lastProbeTime":"2027-01-15T08:01:01Z","lastTransitionTime":"2027-01-15T08:01:01Z","message":"Job was active longer than specified deadline","reason":"DeadlineExceeded","status":"True","type":"Failed"}],"terminating":0}}
        job-controller: event DeadlineExceeded: Job was active longer than specified deadline
        --
        job-controller: delete jobs.batch ns/j Foreground
        --
    "#]],
    );
}

#[test]
fn a_suspended_job_has_no_pods_and_none_of_them_failed() {
    let script = job("parallelism: 2, suspend: false", "Running")
        + "until-quiet\ntrace nothing\n"
        + &job("parallelism: 2, suspend: true", "Running")
        + "until-quiet\ntrace\nget Pod\nagain";
    check(
        &script,
        expect![[r#"
        --
        job-controller: patch pods ns/j-2 {"metadata":{"$deleteFromPrimitiveList/finalizers":["batch.kubernetes.io/job-tracking"]}}
        job-controller: patch pods ns/j-3 {"metadata":{"$deleteFromPrimitiveList/finalizers":["batch.kubernetes.io/job-tracking"]}}
        job-controller: delete pods ns/j-2 Background
        job-controller: delete pods ns/j-3 Background
        job-controller: event Suspended: Job suspended
        job-controller: patch jobs.batch/status ns/j {"metadata":{},"status":{"active":null,"conditions":[{"lastProbeTime":"2027-01-15T08:00:00Z","lastTransitionTime":"2027-01-15T08:00:00Z","message":"Job suspended","reason":"JobSuspended","status":"True","type":"Suspended"}],"startTime":null,"terminating":2}}
        job-controller: patch jobs.batch/status ns/j {"metadata":{},"status":{"terminating":0}}
        --
        --
    "#]],
    );
}
