//! What the kernel has been told of a container's cgroup, on whatever hierarchies this machine has.

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::oci::Bundle;
use crate::support::{busybox, eventually, program};

/// Where a controller is in charge of a container.
pub(crate) struct Place {
    pub(crate) dir: PathBuf,
    pub(crate) v2: bool,
}

impl Place {
    /// `None` where this machine has no such controller.
    pub(crate) fn of(bundle: &Bundle, controller: &str) -> Option<Self> {
        let groups = fs::read_to_string(format!("/proc/{}/cgroup", pid(bundle))).unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        groups.lines().find_map(|group| {
            let mut parts = group.splitn(3, ':').skip(1);
            let (names, path) = (parts.next().unwrap(), parts.next().unwrap());
            let v2 = names.is_empty();
            if !v2 && names.split(',').all(|name| name != controller) {
                return None;
            }
            let is_of = |kind: &str, options: &str| match v2 {
                true => kind == "cgroup2",
                false => kind == "cgroup" && options.split(',').any(|option| option == controller),
            };
            let mount = mounts.lines().find_map(|line| {
                let (head, tail) = line.split_once(" - ").unwrap();
                let tail: Vec<&str> = tail.split(' ').collect();
                is_of(tail[0], tail[2]).then(|| head.split(' ').nth(4).unwrap())
            })?;
            let dir = Path::new(mount).join(path.trim_start_matches('/'));
            let has = || {
                fs::read_to_string(dir.join("cgroup.controllers")).unwrap().split_whitespace().any(|c| c == controller)
            };
            (!v2 || has()).then_some(Self { dir, v2 })
        })
    }

    /// The text of a file, `(v1, v2)`.
    fn read(&self, files: (&str, &str)) -> String {
        let file = self.dir.join(if self.v2 { files.1 } else { files.0 });
        let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        text.trim().to_owned()
    }
}

pub(crate) fn pid(bundle: &Bundle) -> i64 {
    state(bundle)["pid"].as_i64().unwrap()
}

fn state(bundle: &Bundle) -> Value {
    serde_json::from_str(&bundle.good(&["state", &bundle.id])).unwrap()
}

/// Runs in the background; `words` come before the command.
pub(crate) fn detach(bundle: &Bundle, words: &[&str]) {
    let mut run = bundle.command(&[words, &["run", "-d", "-b", bundle.bundle(), &bundle.id]].concat());
    assert!(run.stdout(Stdio::null()).stderr(Stdio::inherit()).status().unwrap().success());
}

pub(crate) fn update(bundle: &Bundle, resources: &Value) {
    let path = bundle.dir.path().join("resources.json");
    fs::write(&path, resources.to_string()).unwrap();
    bundle.good(&["update", "-r", path.to_str().unwrap(), &bundle.id]);
}

/// Controller; file and text of v1, file and text of v2.
pub(crate) type Row = (&'static str, (&'static str, &'static str), (&'static str, &'static str));

pub(crate) fn check(bundle: &Bundle, rows: &[Row]) {
    for (controller, (v1, v1_text), (v2, v2_text)) in rows {
        let place = Place::of(bundle, controller).unwrap_or_else(|| panic!("no {controller} here"));
        assert_eq!(place.read((v1, v2)), if place.v2 { *v2_text } else { *v1_text }, "{controller}");
    }
}

#[test]
fn the_kernel_has_each_limit() {
    let Some(_) = busybox() else { return };
    let bundle = Bundle::new("each", "sleep 1000", |s| {
        s["linux"]["resources"] = json!({
            "memory": {"limit": 64 << 20, "swap": 96 << 20, "reservation": 32 << 20},
            "cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "burst": 10_000, "cpus": "0", "mems": "0"},
            "pids": {"limit": 33}
        });
    });
    detach(&bundle, &[]);
    check(
        &bundle,
        &[
            ("memory", ("memory.limit_in_bytes", "67108864"), ("memory.max", "67108864")),
            ("memory", ("memory.memsw.limit_in_bytes", "100663296"), ("memory.swap.max", "33554432")),
            ("memory", ("memory.soft_limit_in_bytes", "33554432"), ("memory.low", "33554432")),
            ("cpu", ("cpu.shares", "512"), ("cpu.weight", "59")),
            ("cpu", ("cpu.cfs_quota_us", "50000"), ("cpu.max", "50000 100000")),
            ("cpu", ("cpu.cfs_burst_us", "10000"), ("cpu.max.burst", "10000")),
            ("cpuset", ("cpuset.cpus", "0"), ("cpuset.cpus", "0")),
            ("cpuset", ("cpuset.mems", "0"), ("cpuset.mems", "0")),
            ("pids", ("pids.max", "33"), ("pids.max", "33")),
        ],
    );
    // What is not said stays as it is.
    update(&bundle, &json!({"cpu": {"period": 200_000}, "memory": {"swap": 80 << 20}, "pids": {"limit": -1}}));
    check(
        &bundle,
        &[
            ("memory", ("memory.limit_in_bytes", "67108864"), ("memory.max", "67108864")),
            ("memory", ("memory.memsw.limit_in_bytes", "83886080"), ("memory.swap.max", "16777216")),
            ("cpu", ("cpu.cfs_period_us", "200000"), ("cpu.max", "50000 200000")),
            ("pids", ("pids.max", "max"), ("pids.max", "max")),
        ],
    );
    update(&bundle, &json!({"memory": {"limit": -1}, "cpu": {"quota": -1, "burst": 0, "idle": 1}}));
    let all = "9223372036854771712";
    check(
        &bundle,
        &[
            ("memory", ("memory.limit_in_bytes", all), ("memory.max", "max")),
            ("memory", ("memory.memsw.limit_in_bytes", all), ("memory.swap.max", "max")),
            ("cpu", ("cpu.cfs_quota_us", "-1"), ("cpu.max", "max 200000")),
            ("cpu", ("cpu.idle", "1"), ("cpu.idle", "1")),
        ],
    );
}

#[test]
fn the_kernel_has_the_limits_of_a_device_and_of_huge_pages() {
    let Some(_) = busybox() else { return };
    let bundle = Bundle::new("device", "sleep 1000", |_| {});
    detach(&bundle, &[]);
    // Partitions and those without a queue have no limits of their own.
    let disks = fs::read_dir("/sys/block").unwrap().map(|entry| entry.unwrap().path());
    let disk = disks.into_iter().find(|path| path.join("device").exists());
    let blkio = Place::of(&bundle, "blkio").or_else(|| Place::of(&bundle, "io"));
    if let (Some(disk), Some(blkio)) = (disk, blkio) {
        let number = fs::read_to_string(disk.join("dev")).unwrap().trim().to_owned();
        let (major, minor) = number.split_once(':').unwrap();
        let rate = |rate: u64| json!([{"major": major.parse::<i64>().unwrap(), "minor": minor.parse::<i64>().unwrap(), "rate": rate}]);
        update(
            &bundle,
            &json!({"blockIO": {"throttleReadBpsDevice": rate(1 << 20), "throttleWriteIOPSDevice": rate(77)}}),
        );
        let both = format!("{number} rbps=1048576 wbps=max riops=max wiops=77");
        let read = (format!("{number} 1048576"), "blkio.throttle.read_bps_device");
        let write = (format!("{number} 77"), "blkio.throttle.write_iops_device");
        for (text, v1) in [read, write] {
            assert_eq!(blkio.read((v1, "io.max")), if blkio.v2 { both.clone() } else { text });
        }
    } else {
        println!("skipped: no disk, or no controller of block devices");
    }
    match Place::of(&bundle, "hugetlb") {
        Some(pages) if pages.dir.join("hugetlb.2MB.events").exists() || !pages.v2 => {
            update(&bundle, &json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}]}));
            assert_eq!(pages.read(("hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max")), "4194304");
            assert_eq!(pages.read(("hugetlb.2MB.rsvd.limit_in_bytes", "hugetlb.2MB.rsvd.max")), "4194304");
        }
        _ => println!("skipped: no controller of huge pages"),
    }
}

/// `unified` names files of v2.
#[test]
fn files_can_be_named() {
    let Some(_) = busybox() else { return };
    let bundle = Bundle::new("unified", "sleep 1000", |_| {});
    detach(&bundle, &[]);
    let memory = Place::of(&bundle, "memory").unwrap();
    let path = bundle.dir.path().join("unified.json");
    let words = ["update", "-r", path.to_str().unwrap(), &bundle.id];
    fs::write(&path, json!({"unified": {"memory.high": "33554432", "pids.max": "44"}}).to_string()).unwrap();
    if memory.v2 {
        bundle.good(&words);
        let pids = Place::of(&bundle, "pids").unwrap();
        assert_eq!((memory.read(("", "memory.high")), pids.read(("", "pids.max"))), ("33554432".into(), "44".into()));
        fs::write(&path, json!({"unified": {"memory.nosuch": "1"}}).to_string()).unwrap();
        assert!(bundle.bad(&words).contains("memory.nosuch"));
    } else {
        let said = bundle.bad(&words);
        assert!(said.contains("memory.high: no memory controller of cgroup v2"), "{said}");
    }
}

/// Where a container is made from a cgroup that processes are in, as from every login on a host with v2 alone, it goes
/// beside that; below it nothing could be limited, or even be born.
#[test]
fn containers_of_a_session_are_beside_it() {
    let Some(_) = busybox() else { return };
    let root = Path::new("/sys/fs/cgroup");
    let Ok(controllers) = fs::read_to_string(root.join("cgroup.controllers")) else {
        return println!("skipped: not cgroup v2 alone");
    };
    for controller in controllers.split_whitespace() {
        fs::write(root.join("cgroup.subtree_control"), format!("+{controller}")).unwrap();
    }
    let session = root.join(format!("trimtab-test-session-{}", std::process::id()));
    fs::create_dir(&session).unwrap();
    let bundle = Bundle::new("session", "sleep 1000", |s| {
        s["linux"].as_object_mut().unwrap().remove("cgroupsPath");
        s["linux"]["resources"]["pids"] = json!({"limit": 77});
    });
    let line = format!("echo 0 > {}/cgroup.procs && exec \"$@\"", session.display());
    let run = bundle.command(&["run", "-d", "-b", bundle.bundle(), &bundle.id]);
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &line, "sh"]).arg(run.get_program()).args(run.get_args());
    let output = shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
    fs::remove_dir(&session).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let pids = Place::of(&bundle, "pids").unwrap();
    assert_eq!((pids.dir.as_path(), pids.read(("", "pids.max"))), (root.join(&bundle.id).as_path(), "77".to_owned()));
}

/// Where the mount of a container's cgroups is one of v2, its options are v2's.
#[test]
fn options_of_the_mount_are_checked() {
    let Some(_) = busybox() else { return };
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        return println!("skipped: not cgroup v2 alone");
    }
    let with = |option: &str| {
        let mount =
            json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", option]});
        Bundle::new("options", "true", |spec| spec["mounts"].as_array_mut().unwrap().push(mount))
    };
    let good = with("nsdelegate");
    good.good(&["run", "-b", good.bundle(), &good.id]);
    let bad = with("nosuch");
    let said = bad.bad(&["run", "-b", bad.bundle(), &bad.id]);
    assert!(said.contains("mounts: /sys/fs/cgroup: option nosuch"), "{said}");
}

/// What comes of opening a device of a container for writing.
pub(crate) fn opened(bundle: &Bundle, device: &str) -> String {
    let line = format!("true > /dev/{device} && echo opened || echo refused");
    bundle.good(&["exec", &bundle.id, "sh", "-c", &line])
}

/// Gives a container a device that nobody has without a rule. To open the log of the kernel for writing takes no right of
/// its own.
pub(crate) fn add_device(spec: &mut Value) {
    spec["linux"]["devices"] = json!([{"path": "/dev/log1", "type": "c", "major": 1, "minor": 11, "fileMode": 438}]);
    spec["linux"]["resources"]["devices"] = rules(false);
}

/// Rules that allow the device that [`add_device`] adds, or none.
pub(crate) fn rules(log: bool) -> Value {
    json!([{"allow": false, "access": "rwm"}, {"allow": log, "type": "c", "major": 1, "minor": 11, "access": "rw"}])
}

#[test]
fn device_rules_hold_and_change() {
    let Some(_) = busybox() else { return };
    let bundle = Bundle::new("devices", "sleep 1000", add_device);
    detach(&bundle, &[]);
    assert_eq!((opened(&bundle, "log1"), opened(&bundle, "null")), ("refused\n".into(), "opened\n".into()));
    update(&bundle, &json!({"devices": rules(true)}));
    assert_eq!(opened(&bundle, "log1"), "opened\n");
    update(&bundle, &json!({"devices": rules(false), "pids": {"limit": 50}}));
    assert_eq!((opened(&bundle, "log1"), opened(&bundle, "null")), ("refused\n".into(), "opened\n".into()));
}

/// What is asked for and what is allowed are compared access by access: v2 in a program of ours, v1 in the kernel.
#[test]
fn an_access_that_nobody_allows_is_none() {
    let Some(_) = busybox() else { return };
    if !Path::new("/dev/fuse").exists() {
        println!("skipped: no /dev/fuse");
        return;
    }
    let script =
        "for mode in '<' '>' '<>'; do (eval \": $mode /dev/fuse\") 2> /dev/null && echo -n \"$mode \"; done; true";
    let fuse = |allow, access| json!({"allow": allow, "type": "c", "major": 10, "minor": 229, "access": access});
    for (rules, want) in [
        (vec![fuse(true, "r")], "< "),
        (vec![fuse(true, "rw"), fuse(false, "w")], "< "),
        (vec![fuse(true, "r"), fuse(true, "w")], "< > <> "),
        (vec![json!({"allow": true, "access": "r"})], "< "),
    ] {
        let bundle = Bundle::new("access", script, |s| {
            s["linux"]["devices"] = json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]);
            let all = [json!({"allow": false, "access": "rwm"})];
            s["linux"]["resources"] = json!({"devices": all.iter().chain(&rules).collect::<Vec<_>>()});
        });
        let run = format!("exec {} oci --root {} run", program().display(), bundle.root().display());
        let run = format!("{run} -b {} {}", bundle.bundle(), bundle.id);
        // As the machine has it, and in mounts that show v2 alone.
        let unified = format!("umount -R /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup; {run}");
        for line in [run, unified] {
            let output = Command::new("unshare").args(["--mount", "sh", "-c", &line]).output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(said, want, "{rules:?}, {line}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

/// What `events` says, line by line.
struct Events {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Events {
    fn of(bundle: &Bundle) -> Self {
        let mut command = bundle.command(&["events", "--interval", "20ms", &bundle.id]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn until(&mut self, kind: &str) {
        let told = |line: std::io::Result<String>| -> Value { serde_json::from_str(&line.unwrap()).unwrap() };
        assert!(self.lines.by_ref().map(told).any(|event| event["type"] == kind), "no {kind}");
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn want_of_memory_is_told() {
    let Some(_) = busybox() else { return };
    let script = "until test -e /go; do sleep 0.1; done; (x=$(yes | head -c 100000000)); echo > /over; sleep 1000";
    let bundle = Bundle::new("want", script, |s| {
        s["linux"]["resources"]["memory"] = json!({"limit": 16 << 20, "swap": 16 << 20});
    });
    detach(&bundle, &[]);
    let mut events = Events::of(&bundle);
    // It watches by then.
    events.until("stats");
    fs::write(bundle.dir.path().join("rootfs/go"), "").unwrap();
    events.until("oom");
    eventually("the rest goes on", || bundle.dir.path().join("rootfs/over").exists());
    assert_eq!(bundle.status(), "running");
}

#[test]
fn a_paused_container_is_frozen_and_can_be_deleted() {
    let Some(_) = busybox() else { return };
    let bundle = Bundle::new("frozen", "sleep 1000 & sleep 1000", |_| {});
    detach(&bundle, &[]);
    let place = Place::of(&bundle, "freezer").or_else(|| Place::of(&bundle, "pids")).unwrap();
    let frozen = || place.read(("freezer.state", "cgroup.freeze"));
    bundle.good(&["pause", &bundle.id]);
    assert_eq!(frozen(), if place.v2 { "1" } else { "FROZEN" });
    assert_eq!(bundle.status(), "paused");
    bundle.good(&["resume", &bundle.id]);
    assert_eq!(frozen(), if place.v2 { "0" } else { "THAWED" });
    bundle.good(&["pause", &bundle.id]);
    bundle.good(&["delete", "-f", &bundle.id]);
    assert!(!place.dir.exists());
}

/// Once its children have controllers, a v2 cgroup takes no processes.
#[test]
fn a_container_can_have_cgroups_of_its_own() {
    let Some(_) = busybox() else { return };
    let script = "cd /sys/fs/cgroup; test -e cgroup.procs || cd pids; mkdir own && echo 1 > own/cgroup.procs; \
        ! test -e cgroup.subtree_control || echo +pids > cgroup.subtree_control; echo > /ready; sleep 1000";
    let bundle = Bundle::new("own", script, |s| {
        let mount = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"});
        s["mounts"].as_array_mut().unwrap().push(mount);
    });
    detach(&bundle, &[]);
    eventually("it is ready", || bundle.dir.path().join("rootfs/ready").exists());
    let place = Place::of(&bundle, "pids").unwrap();
    assert!(place.dir.ends_with("own"), "{}", place.dir.display());
    let said = bundle.good(&["exec", &bundle.id, "grep", "-E", "pids|^0:", "/proc/self/cgroup"]);
    assert_eq!(place.v2, said.ends_with("/own\n"), "{said}");
    let pids: Vec<u32> = serde_json::from_str(&bundle.good(&["ps", "-f", "json", &bundle.id])).unwrap();
    assert_eq!(pids.len(), 1);
    bundle.good(&["delete", "-f", &bundle.id]);
    assert!(!place.dir.parent().unwrap().exists());
}

/// config-linux.md, Cgroup ownership.
#[test]
fn a_container_owns_its_v2_cgroup_but_not_its_limits() {
    let Some(_) = busybox() else { return };
    let script = "cd /sys/fs/cgroup; stat -c '%n %u' . cgroup.procs cgroup.subtree_control cgroup.events; mkdir own";
    let owned = |options: &[&str]| {
        let bundle = Bundle::new("owned", script, |s| {
            let namespaces = s["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.extend([json!({"type": "user"}), json!({"type": "network"})]);
            let map = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
            (s["linux"]["uidMappings"], s["linux"]["gidMappings"]) = (map.clone(), map);
            s["linux"]["resources"] = json!({});
            s["mounts"].as_array_mut().unwrap().push(json!({"destination": "/sys/fs/cgroup", "type": "cgroup",
                "source": "cgroup", "options": options}));
        });
        // On a host with v1, too, in mounts that show v2 alone.
        let line = format!(
            "umount -R /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup && {} oci --root {} run -b {} {}",
            program().display(),
            bundle.root().display(),
            bundle.bundle(),
            bundle.id
        );
        let output = Command::new("unshare").args(["--mount", "sh", "-c", &line]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (said, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (said, error) = owned(&[]);
    assert_eq!(said, ". 0\ncgroup.procs 0\ncgroup.subtree_control 0\ncgroup.events 65534\n", "{error}");
    assert!(error.is_empty(), "{error}");
    let (said, error) = owned(&["ro"]);
    assert!(said.starts_with(". 65534\n") && error.contains("mkdir"), "{said} {error}");
}
