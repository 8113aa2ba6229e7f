//! Containers as units of systemd, on machines where that is the first program.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::cgroups::{Place, Row, add_device, check, detach, opened, pid, rules, update};
use crate::oci::Bundle;
use crate::support::{busybox, eventually};

const FLAG: &str = "--systemd-cgroup";

/// Whether systemd runs here; a line that says so where it does not.
fn booted() -> bool {
    let booted = Path::new("/run/systemd/system").exists() && busybox().is_some();
    if !booted {
        println!("skipped: the first program is not systemd");
    }
    booted
}

fn show(unit: &str, property: &str) -> String {
    let output = Command::new("systemctl").args(["show", "--value", "--property", property, unit]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn systemctl(words: &[&str]) {
    assert!(Command::new("systemctl").args(words).status().unwrap().success());
}

/// `CONTROLLERS:PATH` of a container's first process, in every hierarchy.
fn groups(bundle: &Bundle) -> Vec<String> {
    let text = std::fs::read_to_string(format!("/proc/{}/cgroup", pid(bundle))).unwrap();
    text.lines().map(|line| line.split_once(':').unwrap().1.to_owned()).collect()
}

fn limits(spec: &mut Value) {
    spec["linux"]["resources"] = json!({
        "memory": {"limit": 64 << 20, "swap": 96 << 20, "reservation": 32 << 20},
        "cpu": {"shares": 512, "quota": 33_333, "period": 100_000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 33}
    });
    add_device(spec);
}

const LIMITS: [Row; 6] = [
    ("memory", ("memory.limit_in_bytes", "67108864"), ("memory.max", "67108864")),
    ("memory", ("memory.memsw.limit_in_bytes", "100663296"), ("memory.swap.max", "33554432")),
    ("cpu", ("cpu.shares", "512"), ("cpu.weight", "59")),
    ("cpuset", ("cpuset.cpus", "0"), ("cpuset.cpus", "0")),
    ("cpuset", ("cpuset.mems", "0"), ("cpuset.mems", "0")),
    ("pids", ("pids.max", "33"), ("pids.max", "33")),
];

#[test]
fn a_container_is_a_scope() {
    if !booted() {
        return;
    }
    let bundle = Bundle::new("scope", "sleep 1000", |s| {
        limits(s);
        s["annotations"] = json!({"org.systemd.property.TimeoutStopUSec": "uint64 7000000",
            "org.systemd.property.CollectMode": "'inactive-or-failed'", "other": "thing"});
    });
    let unit = format!("tt-{}.scope", bundle.id);
    rename(&bundle, &format!("trimtab-test.slice:tt:{}", bundle.id));
    detach(&bundle, &[FLAG]);
    let path = format!("/trimtab.slice/trimtab-test.slice/{unit}");
    let astray = || groups(&bundle).into_iter().filter(|group| !group.ends_with(&path)).collect::<Vec<_>>();
    assert_eq!(astray(), Vec::<String>::new());
    let v2 = Place::of(&bundle, "memory").unwrap().v2;
    let told = |wanted: &[(&str, &str)]| {
        for (property, value) in wanted {
            assert_eq!(show(&unit, property), *value, "{property}");
        }
    };
    told(&[
        ("ActiveState", "active"),
        ("Slice", "trimtab-test.slice"),
        ("ControlGroup", &path),
        ("Delegate", "yes"),
        ("TasksMax", "33"),
        ("CPUQuotaPerSecUSec", "340ms"),
        (if v2 { "CPUWeight" } else { "CPUShares" }, if v2 { "59" } else { "512" }),
        (if v2 { "MemoryMax" } else { "MemoryLimit" }, "67108864"),
        ("TimeoutStopUSec", "7s"),
        ("CollectMode", "inactive-or-failed"),
    ]);
    let holds = || {
        check(&bundle, &LIMITS);
        assert_eq!(astray(), Vec::<String>::new());
        assert_eq!((opened(&bundle, "log1"), opened(&bundle, "null")), ("refused\n".into(), "opened\n".into()));
    };
    holds();
    check(&bundle, &[("cpu", ("cpu.cfs_quota_us", "33333"), ("cpu.max", "33333 100000"))]);
    // The first process is the only one.
    assert_eq!(bundle.good(&["ps", "-f", "json", &bundle.id]), format!("[\n  {}\n]\n", pid(&bundle)));
    // systemd writes all that it knows of once more.
    systemctl(&["daemon-reload"]);
    holds();
    update(
        &bundle,
        &json!({"pids": {"limit": 44}, "memory": {"limit": 128 << 20, "swap": 128 << 20}, "devices": rules(true)}),
    );
    told(&[("TasksMax", "44"), (if v2 { "MemoryMax" } else { "MemoryLimit" }, "134217728")]);
    systemctl(&["daemon-reload"]);
    check(
        &bundle,
        &[
            ("pids", ("pids.max", "44"), ("pids.max", "44")),
            ("memory", ("memory.limit_in_bytes", "134217728"), ("memory.max", "134217728")),
            ("memory", ("memory.memsw.limit_in_bytes", "134217728"), ("memory.swap.max", "0")),
        ],
    );
    assert_eq!((astray(), opened(&bundle, "log1")), (Vec::new(), "opened\n".to_owned()));
    bundle.good(&["pause", &bundle.id]);
    assert_eq!(bundle.status(), "paused");
    bundle.good(&["resume", &bundle.id]);
    bundle.good(&["kill", &bundle.id, "KILL"]);
    eventually("it stops", || bundle.status() == "stopped");
    bundle.good(&["delete", &bundle.id]);
    assert_gone(&bundle, &unit);
}

/// Says where a bundle's cgroup is to be.
fn rename(bundle: &Bundle, path: &str) {
    let config = bundle.dir.path().join("config.json");
    let mut spec: Value = serde_json::from_str(&std::fs::read_to_string(&config).unwrap()).unwrap();
    spec["linux"]["cgroupsPath"] = json!(path);
    std::fs::write(&config, spec.to_string()).unwrap();
}

fn assert_gone(bundle: &Bundle, unit: &str) {
    eventually("the unit is forgotten", || {
        ["not-found", ""].contains(&show(unit, "LoadState").as_str()) || show(unit, "ActiveState") == "inactive"
    });
    let found = Command::new("find").args(["/sys/fs/cgroup", "-name", unit]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "{}", bundle.id);
}

#[test]
fn a_running_container_can_be_deleted_and_made_again() {
    if !booted() {
        return;
    }
    let bundle = Bundle::new("again", "sleep 1000", |s| s["linux"]["cgroupsPath"] = json!(""));
    let unit = format!("trimtab-{}.scope", bundle.id);
    for _ in 0..3 {
        detach(&bundle, &[FLAG]);
        assert!(groups(&bundle).iter().all(|group| group.ends_with(&format!(":/system.slice/{unit}"))));
        bundle.good(&["delete", "-f", &bundle.id]);
        assert_gone(&bundle, &unit);
    }
}

#[test]
fn a_container_can_be_a_slice() {
    if !booted() {
        return;
    }
    let bundle = Bundle::new("slice", "sleep 1000", limits);
    let unit = format!("trimtab-{}.slice", bundle.id);
    rename(&bundle, &format!("trimtab.slice::{unit}"));
    detach(&bundle, &[FLAG]);
    check(&bundle, &LIMITS);
    assert_eq!(show(&unit, "ActiveState"), "active");
    let path = format!(":{}", show(&unit, "ControlGroup"));
    assert!(groups(&bundle).iter().all(|group| group.ends_with(&path)), "{path} {:?}", groups(&bundle));
    bundle.good(&["delete", "-f", &bundle.id]);
    assert_gone(&bundle, &unit);
}

#[test]
fn a_unit_that_is_there_is_left_alone() {
    if !booted() {
        return;
    }
    let bundle = Bundle::new("other", "sleep 1000", |_| {});
    let unit = format!("trimtab-{}.slice", bundle.id);
    // One that is there for no reason but its name could be taken over.
    std::fs::write(format!("/run/systemd/system/{unit}"), "[Slice]\n").unwrap();
    systemctl(&["daemon-reload"]);
    systemctl(&["start", &unit]);
    rename(&bundle, &format!("trimtab.slice::{unit}"));
    let error = bundle.bad(&[FLAG, "create", "-b", bundle.bundle(), &bundle.id]);
    assert!(error.contains(&unit), "{error}");
    assert_eq!(show(&unit, "ActiveState"), "active");
    systemctl(&["stop", &unit]);
}

#[test]
fn what_cannot_be_started_leaves_no_unit() {
    if !booted() {
        return;
    }
    type Change<'a> = &'a dyn Fn(&mut Value);
    let cases: [(Change<'_>, &str); 4] = [
        (&|s| s["process"]["args"] = json!(["/nowhere"]), "/nowhere"),
        (&|s| s["linux"]["resources"] = json!({"cpu": {"cpus": "77777"}}), "cpuset.cpus"),
        (&|s| s["annotations"] = json!({"org.systemd.property.Nonsense": "5"}), "Nonsense"),
        (&|s| s["hooks"] = json!({"createRuntime": [{"path": "/bin/false"}]}), "createRuntime"),
    ];
    for (change, want) in cases {
        let bundle = Bundle::new("fails", "sleep 1000", |s| {
            s["linux"]["cgroupsPath"] = json!("");
            change(s);
        });
        let error = bundle.bad(&[FLAG, "create", "-b", bundle.bundle(), &bundle.id]);
        assert!(error.contains(want) && !error.contains('\n'), "{error}");
        assert_gone(&bundle, &format!("trimtab-{}.scope", bundle.id));
        assert_eq!(bundle.good(&["list", "-q"]), "");
    }
}

#[test]
fn errors_of_systemd_cgroups_are_one_line() {
    let Some(_) = busybox() else { return };
    let bundle = Bundle::new("units", "true", |_| {});
    let refused = || bundle.bad(&[FLAG, "create", "-b", bundle.bundle(), &bundle.id]);
    assert!(refused().contains("is not slice:prefix:name: of three parts"), "{}", refused());
    if !Path::new("/run/dbus/system_bus_socket").exists() {
        rename(&bundle, "system.slice:tt:x");
        let error = refused();
        assert!(error.starts_with("--systemd-cgroup: no system bus at /run/dbus/system_bus_socket: "), "{error}");
    }
}
