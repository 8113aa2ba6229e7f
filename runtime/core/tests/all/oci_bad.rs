//! Specifications and words that are wrong: one error that names what, and nothing left behind.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::oci::Bundle;
use crate::support::busybox;

/// A specification with a value in as many fields as a container here can have.
fn rich() -> Value {
    json!({
        "hostname": "h", "domainname": "d",
        "process": {
            "terminal": false, "consoleSize": {"height": 1, "width": 1},
            "user": {"uid": 0, "gid": 0, "umask": 18, "additionalGids": [5]},
            "args": ["/bin/true"], "env": ["A=b"], "cwd": "/", "noNewPrivileges": true, "oomScoreAdj": 500,
            "apparmorProfile": "unconfined", "selinuxLabel": "",
            "capabilities": {"bounding": ["CAP_KILL"], "effective": [], "permitted": [], "inheritable": [], "ambient": []},
            "rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}],
            "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 0},
            "scheduler": {"policy": "SCHED_BATCH", "nice": 1},
            "execCPUAffinity": {"initial": "0", "final": "0"}
        },
        "root": {"path": "rootfs", "readonly": false},
        "hooks": {"poststop": [{"path": "/bin/true", "args": ["true"], "env": ["A=b"], "timeout": 5}]},
        "annotations": {"a": "b"},
        "linux": {
            "uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}],
            "gidMappings": [{"containerID": 0, "hostID": 0, "size": 1}],
            "sysctl": {"kernel.msgmax": "8192"},
            "devices": [{"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 438, "uid": 0, "gid": 0}],
            "rootfsPropagation": "private", "mountLabel": "", "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/bus"],
            "personality": {"domain": "LINUX"}, "timeOffsets": {"boottime": {"secs": 1, "nanosecs": 1}},
            "memoryPolicy": {"mode": "MPOL_DEFAULT", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]},
            "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{"names": ["getcwd"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
                    "args": [{"index": 0, "value": 1, "valueTwo": 1, "op": "SCMP_CMP_EQ"}]}]},
            "resources": {
                "devices": [{"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"}],
                "memory": {"limit": 1 << 30, "reservation": 1 << 30, "swap": 1 << 30, "swappiness": 1, "disableOOMKiller": false},
                "cpu": {"shares": 100, "quota": 1000, "period": 1000, "cpus": "0", "mems": "0"},
                "pids": {"limit": 9}, "unified": {"cgroup.max.depth": "1"},
                "blockIO": {"weight": 10, "throttleReadBpsDevice": [{"major": 1, "minor": 3, "rate": 1}]},
                "hugepageLimits": [{"pageSize": "2MB", "limit": 1}],
                "network": {"classID": 1, "priorities": [{"name": "lo", "priority": 1}]}
            }
        }
    })
}

/// Puts one document into another.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            from.into_iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value));
        }
        (into, from) => *into = from,
    }
}

/// `/a/b/0/c` as errors say it.
fn spoken(pointer: &str) -> String {
    let word = |key: &str| if key.parse::<usize>().is_ok() { format!("[{key}]") } else { format!(".{key}") };
    pointer.split('/').skip(1).map(word).collect::<String>().trim_start_matches('.').to_owned()
}

/// What there is of a bundle's container on this machine.
pub(crate) fn residue(bundle: &Bundle) -> Vec<String> {
    let states = fs::read_dir(bundle.root()).unwrap().map(|entry| entry.unwrap().path().display().to_string());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mounts = mounts.lines().filter(|line| line.contains(bundle.bundle())).map(str::to_owned).collect::<Vec<_>>();
    let cgroups = Command::new("find").args(["/sys/fs/cgroup", "-name", &bundle.id]).output().unwrap();
    let cgroups = String::from_utf8(cgroups.stdout).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
    let running = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let line = fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(bundle.bundle()).then_some(line)
    });
    states.chain(mounts).chain(cgroups).chain(running).collect()
}

/// Tries to create: the one line of error, and nothing else.
pub(crate) fn refused(bundle: &Bundle, id: &str) -> String {
    // A container that comes to be would hold a pipe.
    let place = bundle.dir.path().join("said");
    let mut create = bundle.command(&["create", "-b", bundle.bundle(), id]);
    let status = create.stdout(Stdio::null()).stderr(fs::File::create(&place).unwrap()).status().unwrap();
    let said = fs::read_to_string(place).unwrap();
    if status.success() {
        bundle.good(&["delete", "-f", id]);
        return "error: none".to_owned();
    }
    assert!(said.lines().count() == 1, "{said:?}");
    said.trim().strip_prefix("error: ").unwrap().to_owned()
}

#[test]
fn each_field_of_the_wrong_type_is_named() {
    let Some(_) = busybox() else { return };
    let bundle = Bundle::new("types", "true", |s| merge(s, rich()));
    let config = bundle.dir.path().join("config.json");
    let good: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
    let all = mutations::pointers(&good);
    assert!(all.len() > 150, "{}", all.len());
    let mut wrong = Vec::new();
    for pointer in all.into_iter().skip(1) {
        // Capabilities that nobody knows are left out, be they what they may.
        let names = pointer.starts_with("/process/capabilities/") && pointer.matches('/').count() == 4;
        let mut spec = good.clone();
        let place = spec.pointer_mut(&pointer).unwrap();
        *place = if place.is_boolean() { json!("yes") } else { json!(true) };
        fs::write(&config, spec.to_string()).unwrap();
        let error = if names { continue } else { refused(&bundle, &bundle.id) };
        let field = pointer.rsplit('/').find(|key| key.parse::<usize>().is_err()).unwrap();
        let named = error.contains(&spoken(&pointer)) || error.contains(field);
        wrong.extend((!named).then(|| format!("{pointer}: {error}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(residue(&bundle), Vec::<String>::new());
}

/// JSON pointer, value that is put there, error wanted.
type Case = (&'static str, Value, &'static str);

#[test]
fn values_that_cannot_be_are_named() {
    let Some(_) = busybox() else { return };
    let cases: Vec<Case> = vec![
        ("/ociVersion", json!("2.0.0"), "ociVersion: \"2.0.0\""),
        ("/root", json!(null), "root: missing"),
        ("/root/path", json!("nowhere"), "root.path: open"),
        ("/root/path", json!("config.json"), "root.path: attach"),
        ("/process", json!(null), "process: missing"),
        ("/process/args", json!([]), "process.args"),
        ("/process/args", json!([""]), "process.args"),
        ("/process/args", json!(["nowhere"]), "executable file not found in $PATH"),
        ("/process/args", json!(["/bin/true", "a\u{0}b"]), "process.args"),
        ("/process/env", json!(["A=\u{0}"]), "process.env"),
        ("/process/cwd", json!("relative"), "process.cwd"),
        ("/process/cwd", json!("/etc/passwd"), "process.cwd"),
        ("/process/user/uid", json!(u32::MAX), "process.user.uid"),
        ("/process/user/gid", json!(1_u64 << 32), "process.user.gid"),
        ("/process/rlimits", json!([{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}]), "process.rlimits"),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_CORE", "soft": 1, "hard": 1}, {"type": "RLIMIT_CORE", "soft": 1, "hard": 1}]),
            "twice",
        ),
        ("/process/apparmorProfile", json!("a\u{0}b"), "process.apparmorProfile: \"a\\0b\" contains NUL"),
        ("/process/selinuxLabel", json!("a:b:c\u{0}"), "process.selinuxLabel: \"a:b:c\\0\" contains NUL"),
        ("/process/terminal", json!(true), "process.terminal"),
        ("/process/scheduler", json!({"policy": "SCHED_OTHER", "nice": 99}), "process.scheduler"),
        ("/process/ioPriority", json!({"class": "IOPRIO_CLASS_RT", "priority": 99}), "process.ioPriority"),
        ("/process/oomScoreAdj", json!(9999), "process.oomScoreAdj"),
        ("/mounts", json!([{"destination": "/x"}]), "mounts: /x"),
        ("/mounts", json!([{"destination": "/x", "type": "nosuchfs", "source": "x"}]), "mounts: /x: type nosuchfs"),
        (
            "/mounts",
            json!([{"destination": "/x", "type": "tmpfs", "options": ["nosuchoption"]}]),
            "mounts: /x: option nosuchoption",
        ),
        (
            "/mounts",
            json!([{"destination": "/x", "type": "bind", "source": "/nowhere", "options": ["bind"]}]),
            "/nowhere",
        ),
        ("/linux/namespaces", json!([{"type": "mount"}, {"type": "mount"}]), "linux.namespaces: mount occurs twice"),
        (
            "/linux/namespaces",
            json!([{"type": "mount"}, {"type": "ipc", "path": "/nowhere"}]),
            "linux.namespaces: open /nowhere",
        ),
        (
            "/linux/namespaces",
            json!([{"type": "mount"}, {"type": "ipc", "path": "/proc/self/ns/net"}]),
            "is not a ipc namespace",
        ),
        ("/linux/uidMappings", json!([{"containerID": 0, "hostID": 0, "size": 1}]), "linux.uidMappings"),
        ("/linux/sysctl", json!({"kernel.panic": "1"}), "linux.sysctl: kernel.panic"),
        ("/linux/sysctl", json!({"kernel.msgmax": "many"}), "msgmax"),
        ("/linux/cgroupsPath", json!("/trimtab-test/../.."), "linux.cgroupsPath: cgroup path /trimtab-test/../.."),
        ("/linux/cgroupsPath", json!("/"), "linux.cgroupsPath"),
        ("/linux/intelRdt", json!({"closID": "x"}), "linux.intelRdt"),
        ("/linux/resources", json!({"devices": [{"allow": true, "access": "x"}]}), "linux.resources.devices: access"),
        ("/linux/rootfsPropagation", json!("sideways"), "linux.rootfsPropagation: \"sideways\""),
        ("/linux/timeOffsets", json!({"monotonic": {"secs": 1}}), "linux.timeOffsets"),
        ("/linux/memoryPolicy", json!({"mode": "MPOL_X"}), "linux.memoryPolicy"),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_NOTHING"}), "linux.seccomp.defaultAction"),
        ("/linux/resources", json!({"cpu": {"cpus": "many"}}), "cpu"),
        ("/linux/resources", json!({"unified": {"../x": "1"}}), "unified"),
        ("/linux/mountLabel", json!("a:b:c\u{0}"), "linux.mountLabel: \"a:b:c\\0\" contains NUL"),
        ("/linux/netDevices", json!({"nothere": {}}), "linux.netDevices"),
        ("/hooks", json!({"createRuntime": [{"path": "relative"}]}), "createRuntime"),
        ("/hooks", json!({"prestart": [{"path": "/nowhere"}]}), "prestart hook #0: /nowhere"),
        ("/hostname", json!("h"), "hostname"),
    ];
    let mut wrong = Vec::new();
    for (pointer, value, want) in cases {
        let bundle = Bundle::new("values", "true", |spec| {
            if pointer == "/hostname" {
                spec["linux"]["namespaces"] = json!([{"type": "pid"}, {"type": "mount"}]);
            }
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            spec.pointer_mut(parent).unwrap()[key] = value.clone();
        });
        let error = refused(&bundle, &bundle.id);
        let left = residue(&bundle);
        let good = error.contains(want) && left.is_empty();
        wrong.extend((!good).then(|| format!("{pointer} {value}: {error}, leaves {left:?}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn ids_bundles_and_options_are_checked() {
    let Some(_) = busybox() else { return };
    let bundle = Bundle::new("words", "true", |_| {});
    for id in ["", "a/b", "../x", "/x", ".x", "a b", "a\nb", "é"] {
        assert!(refused(&bundle, id).contains("does not match"), "{id:?}");
    }
    // Callers make paths of an id: it is the one that is named.
    let named = Bundle::new("words", "true", |s| s["linux"]["cgroupsPath"] = json!("."));
    assert!(refused(&named, ".").contains("does not match"));
    for (words, want) in [
        (vec!["create", "-b", "/nowhere", "x"], "bundle /nowhere"),
        (vec!["create", "-b", "/", "x"], "/config.json does not exist"),
        (vec!["create", "--nosuch", "x"], "--nosuch"),
        (vec!["create", "--preserve-fds", "few", "x"], "\"few\" is not a number"),
        (vec!["create"], "a container id"),
        (vec!["start", "nobody"], "container nobody does not exist"),
        (vec!["state", "a", "b"], "unexpected argument \"b\""),
        (vec!["pause", "a", "b"], "unexpected argument \"b\""),
        (vec!["delete", "a", "b"], "unexpected argument \"b\""),
        (vec!["state", "--nosuch", "a"], "unknown option --nosuch"),
        (vec!["list", "b"], "unexpected argument \"b\""),
        (vec!["list", "-f", "xml"], "--format: \"xml\""),
        (vec!["ps", "-f", "xml", "a"], "--format: \"xml\""),
        (vec!["kill", "nobody", "NOSUCH"], "does not exist"),
        (vec!["nosuch"], "nosuch"),
    ] {
        let error = bundle.bad(&words);
        assert!(error.contains(want) && !error.contains('\n'), "{words:?}: {error}");
    }
    for (text, want) in [("", "config.json"), ("{", "config.json"), ("[]", "config.json"), ("{}", "ociVersion")] {
        fs::write(bundle.dir.path().join("config.json"), text).unwrap();
        let error = refused(&bundle, &bundle.id);
        assert!(error.contains(want), "{text:?}: {error}");
    }
}
