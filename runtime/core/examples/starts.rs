//! Containers started, ended and removed in one pod's shim, one after the other: `starts COUNT`. Prints a line
//! `running|ended|removed NANOSECONDS` for each, counted from the request to start, and `pss BYTES` for the shim.
//! `cargo xtask bench P18` is the way to call it; the shim is the program that `TRIMTAB_PROGRAM` names, or the example
//! `runtime` beside this one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)]
#[path = "../tests/all/support.rs"]
mod support;

use std::time::{Duration, Instant};

use serde_json::json;
use support::{Pod, busybox};

fn main() {
    let count: usize = std::env::args().nth(1).and_then(|word| word.parse().ok()).unwrap();
    busybox().unwrap();
    let pod = Pod::start();
    for n in 0..count {
        let config = pod.container_with(&format!("c{n}"), "", |s| s["process"]["args"] = json!(["/bin/true"]));
        let start = Instant::now();
        let said = |what: &str| println!("{what} {}", start.elapsed().as_nanos());
        pod.shim.start_container(&config).unwrap();
        said("running");
        pod.wait(&config.id);
        said("ended");
        pod.shim.remove_container(&config.id).unwrap();
        said("removed");
    }
    let shim = std::fs::read(pod.config.run_dir.join("shim.json")).unwrap();
    let shim: serde_json::Value = serde_json::from_slice(&shim).unwrap();
    // Memory is that of a shim which has come to rest (REST_AFTER).
    std::thread::park_timeout(Duration::from_secs(2));
    let memory = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", shim["pid"])).unwrap();
    let pss = memory.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")).unwrap();
    println!("pss {}", pss.parse::<u64>().unwrap() << 10);
}
