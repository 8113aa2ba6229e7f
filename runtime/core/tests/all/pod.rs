//! The shim through its handle.

use crate::support::{Pod, busybox};

#[test]
fn a_container_runs_and_its_end_is_known() {
    let Some(_) = busybox() else { return };
    let pod = Pod::start();
    let (state, log) = pod.run("a", "echo out; echo err >&2; exit 7");
    let exit = state.exit.unwrap();
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (7, None, false));
    assert!(exit.finished_at >= exit.started_at);
    let mut lines: Vec<&str> = log.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["err", "out"]);
}
