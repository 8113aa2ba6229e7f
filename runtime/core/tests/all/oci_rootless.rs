//! The command line as somebody calls it who is not root: an ordinary user, with an id that nobody else has, and root of
//! a user namespace, which is what podman makes of one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{busybox, eventually, receive_fd};
use crate::user::{BECOME, Delegated, Holder, Theirs, USER, after, maps};

#[test]
fn a_users_container_goes_through_its_states() {
    let Some(_) = busybox() else { return };
    let theirs = Theirs::new("user", "sleep 1000", |_| {});
    let id = theirs.bundle.id.as_str();
    let mut create = theirs.command(&["create", "-b", theirs.bundle.bundle(), id]);
    assert!(create.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success(), "{}", theirs.run());
    let status = || serde_json::from_str::<Value>(&theirs.good(&["state", id])).unwrap()["status"].clone();
    assert_eq!(status(), "created");
    theirs.good(&["start", id]);
    assert_eq!(status(), "running");
    let said = theirs.good(&["exec", id, "sh", "-c", "id -u; cat /proc/self/uid_map; grep CapEff /proc/self/status"]);
    let words: Vec<&str> = said.split_whitespace().collect();
    assert_eq!(words, ["0", "0", &USER.to_string(), "1", "CapEff:", "00000000000001eb"]);
    let mut sleep = theirs.command(&["exec", id, "sleep", "1000"]).spawn().unwrap();
    let pids = || -> Vec<i32> { serde_json::from_str(&theirs.good(&["ps", "-f", "json", id])).unwrap() };
    eventually("both are seen without a cgroup", || pids().len() == 2);
    // There is none that could be frozen, or limited.
    assert!(theirs.bad(&["pause", id]).contains("no freezer cgroup"));
    assert!(theirs.bad(&["update", "--memory", "64M", id]).contains("linux.resources.memory.limit"));
    assert!(theirs.good(&["events", "--stats", id]).starts_with("{\"type\":\"stats\""));
    theirs.good(&["kill", "--all", id, "KILL"]);
    assert_eq!(sleep.wait().unwrap().code(), Some(137));
    eventually("it stops", || status() == "stopped");
    theirs.good(&["delete", id]);
    theirs.detach();
    assert!(theirs.bad(&["delete", id]).contains("not stopped"));
    theirs.good(&["delete", "-f", id]);
    assert_eq!(theirs.good(&["list", "-q"]), "");
}

#[test]
fn a_user_has_states_of_his_own_and_the_example_runs() {
    let Some(_) = busybox() else { return };
    let theirs = Theirs::new("example", "true", |_| {});
    fs::remove_file(theirs.path("config.json")).unwrap();
    let run = |line: &str| {
        let line = format!("cd {} && exec {} oci {line}", theirs.bundle.bundle(), theirs.program.display());
        let mut shell = Command::new(BECOME[0]);
        shell.args(&BECOME[1..]).args(["sh", "-c", &line]).env("XDG_RUNTIME_DIR", theirs.path("")).stdin(Stdio::null());
        let output = shell.output().unwrap();
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat()
    };
    assert_eq!(run("spec --rootless"), "");
    theirs.change(|spec| {
        spec["process"]["terminal"] = json!(false);
        spec["process"]["args"] = json!(["sh", "-c", "test -d /sys/kernel && id -u && cat /proc/self/setgroups"]);
    });
    assert_eq!(run(&format!("run {}", theirs.bundle.id)), "0\ndeny\n");
    let mut root = Command::new(BECOME[0]);
    let root =
        root.args(&BECOME[1..]).arg(&theirs.program).args(["root", "cat", "/proc/self/uid_map"]).output().unwrap();
    let words = String::from_utf8_lossy(&root.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(words, format!("0 {USER} 1"));
    assert!(String::from_utf8_lossy(&root.stderr).contains("have no ids for 54321"), "{root:?}");
    theirs.change(|spec| spec["process"]["args"] = json!(["sleep", "1000"]));
    assert_eq!(run(&format!("run -d {} > /dev/null 2>&1", theirs.bundle.id)), "");
    assert!(theirs.path("trimtab/oci").join(&theirs.bundle.id).join("state.json").exists());
    assert_eq!(run(&format!("delete -f {}", theirs.bundle.id)), "");
}

#[test]
fn a_user_gets_what_he_may_have_and_is_told_what_not() {
    let Some(_) = busybox() else { return };
    let theirs = Theirs::new("fields", "true", |spec| {
        spec["hostname"] = json!("inside");
        spec["process"]["oomScoreAdj"] = json!(300);
        let more = [json!({"type": "network"})];
        spec["linux"]["namespaces"].as_array_mut().unwrap().extend(more);
        spec["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1", "kernel.msgmax": "9000"});
        spec["linux"]["devices"] = json!([{"path": "/dev/deep/null", "type": "c", "major": 1, "minor": 3}]);
        spec["linux"]["resources"] = json!({"devices": [{"allow": false, "access": "rwm"}]});
        spec["mounts"]
            .as_array_mut()
            .unwrap()
            .push(json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}));
    });
    // Only the host's node of that name can be shown.
    assert!(theirs.run().contains("bind device null"));
    theirs.change(|spec| {
        spec["linux"]["devices"] = json!([{"path": "/dev/null", "type": "c", "major": 1, "minor": 3}]);
        spec["process"]["args"] = json!(["sh", "-c", "hostname; cat /proc/self/oom_score_adj /proc/sys/net/ipv4/ip_forward \
            /proc/sys/kernel/msgmax; stat -c %t:%T /dev/null /dev/tty; ls /sys/class/net /sys/fs/cgroup /sys/firmware; echo x > /dev/null"]);
    });
    let said = theirs.run();
    let words: Vec<&str> = said.split_whitespace().collect();
    let want =
        ["inside", "300", "1", "9000", "1:3", "5:0", "/sys/class/net:", "lo", "/sys/firmware:", "/sys/fs/cgroup:"];
    let (sorted, mut all) = (words.get(6..).unwrap_or_default().to_vec(), words);
    assert_eq!(all.drain(..6.min(all.len())).collect::<Vec<_>>(), want[..6], "{said}");
    assert!(want[6..].iter().all(|word| sorted.contains(word)) && sorted.len() == 4, "{said}");
    // Nobody may make himself less likely to be killed; that is no reason to fail.
    theirs.change(|spec| {
        spec["process"]["oomScoreAdj"] = json!(-300);
        spec["process"]["args"] = json!(["cat", "/proc/self/oom_score_adj"]);
    });
    assert_eq!(theirs.run(), fs::read_to_string("/proc/self/oom_score_adj").unwrap());
    let all_but_users = ["mount", "pid", "uts", "ipc", "network"].map(|kind| json!({"type": kind}));
    let pts = json!([{"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["gid=5"]}]);
    for (pointer, value, want) in [
        ("/linux/resources", json!({"pids": {"limit": 7}}), "linux.resources.pids.limit: there is no pids cgroup"),
        ("/linux/cgroupsPath", json!("/trimtab-test/not-his"), "linux.cgroupsPath: permission denied"),
        ("/process/user", json!({"uid": 0, "gid": 0, "additionalGids": [7]}), "process.user.additionalGids"),
        ("/process/user", json!({"uid": 7, "gid": 0}), "process.user.uid"),
        ("/linux/uidMappings", maps(&[(0, 0, 1)]), "linux.uidMappings: write (newuidmap"),
        ("/linux/gidMappings", maps(&[(0, 0, 1)]), "linux.gidMappings: write (newgidmap"),
        ("/mounts", pts, "mounts: /dev/pts: "),
        ("/linux", json!({"namespaces": all_but_users}), "linux.namespaces: without a user namespace only root may"),
    ] {
        let before = fs::read(theirs.path("config.json")).unwrap();
        theirs.change(|spec| {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            spec.pointer_mut(parent).unwrap()[key] = value.clone();
        });
        let said = theirs.run();
        assert!(said.contains(want), "{pointer} {value}: {said}");
        assert_eq!(theirs.good(&["list", "-q"]), "", "{pointer}");
        fs::write(theirs.path("config.json"), before).unwrap();
    }
    assert!(
        theirs.bad(&["--rootless", "false", "run", "-b", theirs.bundle.bundle(), "x"]).contains("permission denied")
    );
    assert!(theirs.bad(&["--rootless", "perhaps", "list"]).contains("is not true, false or auto"));
}

#[test]
fn ids_of_subuid_are_mapped() {
    let Some(_) = busybox() else { return };
    if !Path::new("/usr/bin/newuidmap").exists() {
        println!("skipped: newuidmap (package uidmap) is not there");
        return;
    }
    let mut theirs =
        Theirs::new("subuid", "id; touch /file && stat -c %u:%g /file; cat /proc/self/setgroups", |spec| {
            let map = maps(&[(0, USER, 1), (1, 700_000, 1000)]);
            (spec["linux"]["uidMappings"], spec["linux"]["gidMappings"]) = (map.clone(), map);
            spec["process"]["user"] = json!({"uid": 77, "gid": 78, "additionalGids": [79]});
        });
    fs::set_permissions(theirs.path("rootfs"), fs::Permissions::from_mode(0o777)).unwrap();
    // The machine's own lists stay as they are.
    let mut words = "true".to_owned();
    for (file, line) in [
        ("passwd", format!("somebody:x:{USER}:{USER}::/:/bin/sh\n")),
        ("group", format!("somebody:x:{USER}:\n")),
        ("subuid", "somebody:700000:1000\n".to_owned()),
        ("subgid", "somebody:700000:1000\n".to_owned()),
    ] {
        let (etc, own) = (Path::new("/etc").join(file), theirs.path(file));
        fs::write(&own, fs::read_to_string(&etc).unwrap_or_default() + &line).unwrap();
        words += &format!(" && mount --bind {} {}", own.display(), etc.display());
    }
    theirs.through = after(&words);
    assert_eq!(theirs.run(), "uid=77 gid=78 groups=79\n77:78\nallow\n");
    let stat = fs::metadata(theirs.path("rootfs/file")).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!((stat.uid(), stat.gid()), (700_076, 700_077));
    // The same for whoever needs no container.
    let (first, rest) = theirs.through.split_first().unwrap();
    let mut root = Command::new(first);
    let root = root.args(rest).arg(&theirs.program).args(["root", "cat", "/proc/self/uid_map", "/proc/self/gid_map"]);
    let output = root.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(said, format!("0 {USER} 1 1 700000 1000 0 {USER} 1 1 700000 1000"), "{output:?}");
    theirs.change(|spec| spec["linux"]["uidMappings"] = maps(&[(0, USER, 1), (1, 700_000, 1001)]));
    assert!(theirs.run().contains("uid range [1-1002) -> [700000-701001) not allowed"), "{}", theirs.run());
}

#[test]
fn a_delegated_cgroup_is_used() {
    let Some(_) = busybox() else { return };
    let mut theirs = Theirs::new("delegated", "sleep 1000", |spec| {
        spec["mounts"]
            .as_array_mut()
            .unwrap()
            .push(json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}));
    });
    let Some(group) = Delegated::new(&theirs.bundle.id) else { return };
    theirs.through = after(&format!("echo $$ > {}/caller/cgroup.procs", group.0.display()));
    theirs.detach();
    let id = theirs.bundle.id.as_str();
    assert!(group.has(id));
    // Seen from inside, in a cgroup namespace, it is the root, also of what is mounted.
    let said = theirs.good(&[
        "exec",
        id,
        "sh",
        "-c",
        "grep 0:: /proc/self/cgroup; cat /sys/fs/cgroup/*/cgroup.procs \
        /sys/fs/cgroup/cgroup.procs | head -n 1",
    ]);
    assert_eq!(said, "0::/\n1\n");
    theirs.good(&["pause", id]);
    let status = || serde_json::from_str::<Value>(&theirs.good(&["state", id])).unwrap()["status"].clone();
    assert_eq!(status(), "paused");
    theirs.good(&["resume", id]);
    assert_eq!(status(), "running");
    let pids: Vec<i32> = serde_json::from_str(&theirs.good(&["ps", "-f", "json", id])).unwrap();
    assert_eq!(pids.len(), 1);
    theirs.good(&["delete", "-f", id]);
    assert!(!group.has(id));
    // By name, too, and even if caller and container have nothing else in common.
    let named = format!("/{}/named", group.0.file_name().unwrap().to_str().unwrap());
    theirs.change(|spec| spec["linux"]["cgroupsPath"] = json!(named));
    theirs.detach();
    assert!(group.has("named"));
    theirs.good(&["delete", "-f", id]);
    assert!(!group.has("named"));
    // Into it may go only who is below it.
    theirs.through = BECOME.map(str::to_owned).to_vec();
    assert!(theirs.run().contains("clone into the cgroup: Permission denied"), "{}", theirs.run());
    assert!(!group.has("named"));
}

#[test]
fn a_user_joins_namespaces_that_are_his() {
    let Some(_) = busybox() else { return };
    let holder = Holder::new(&[&BECOME[..], &["unshare", "--map-root-user", "--net", "--uts"]].concat());
    let theirs = Theirs::new("join", "sleep 1000", |spec| {
        let path = |kind: &str, name: &str| json!({"type": kind, "path": holder.namespace(name)});
        spec["linux"]["namespaces"] = json!([path("user", "user"), path("network", "net"), path("uts", "uts"), {"type": "mount"}, {"type": "pid"}]);
        (spec["linux"]["uidMappings"], spec["linux"]["gidMappings"]) = (Value::Null, Value::Null);
    });
    theirs.detach();
    let links = |names: &str| format!("for name in {names}; do readlink /proc/self/ns/$name; done");
    let said = theirs.good(&["exec", &theirs.bundle.id, "sh", "-c", &links("user net uts")]);
    let want: Vec<String> = ["user", "net", "uts"]
        .iter()
        .map(|name| fs::read_link(holder.namespace(name)).unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(said.lines().collect::<Vec<_>>(), want);
}

/// With mounts of his own, as podman's has them, and without.
#[test]
fn root_of_a_user_namespace_is_served() {
    let Some(_) = busybox() else { return };
    for own_mounts in [true, false] {
        let mut theirs = Theirs::new("inner", "sleep 1000", |spec| {
            spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "user");
            spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
            spec["linux"]["timeOffsets"] = json!({"monotonic": {"secs": 77}});
            (spec["linux"]["uidMappings"], spec["linux"]["gidMappings"]) = (Value::Null, Value::Null);
            spec["linux"]["devices"] = json!([{"path": "/dev/null", "type": "c", "major": 1, "minor": 3}]);
        });
        let through: &[&str] = if own_mounts { &["--mount"] } else { &[] };
        let holder = Holder::new(&[&BECOME[..], &["unshare", "--map-root-user"], through].concat());
        let pid = holder.0.id().to_string();
        let enter = ["nsenter", "--target", &pid, "--user", "--preserve-credentials"];
        let enter = [&BECOME[..], &enter, if own_mounts { &["--mount"] } else { &[] }].concat();
        theirs.through = enter.into_iter().map(str::to_owned).collect();
        theirs.detach();
        let id = theirs.bundle.id.as_str();
        let said = theirs.good(&["exec", id, "sh", "-c", "id -u; grep monotonic /proc/self/timens_offsets; echo $$"]);
        let words: Vec<&str> = said.split_whitespace().collect();
        assert_eq!(words[..3], ["0", "monotonic", "77"], "{said}");
        assert_ne!(words[4], "1", "{said}");
        // Another beside it, and one in a user namespace below.
        let state: Value = serde_json::from_str(&theirs.good(&["state", id])).unwrap();
        let other = |change: &dyn Fn(&mut Value)| {
            theirs.change(|spec| {
                spec["linux"]["timeOffsets"] = Value::Null;
                change(spec);
            });
            theirs.good(&["run", "-b", theirs.bundle.bundle(), "other"])
        };
        let beside = json!({"type": "pid", "path": format!("/proc/{}/ns/pid", state["pid"])});
        let said = other(&|spec| {
            spec["process"]["args"] = json!(["ps"]);
            spec["linux"]["namespaces"] = json!([{"type": "mount"}, beside]);
        });
        assert!(said.contains("sleep 1000"), "{said}");
        let said = other(&|spec| {
            spec["process"]["args"] = json!(["readlink", "/proc/self/ns/user"]);
            spec["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "user"}, {"type": "pid"}]);
            (spec["linux"]["uidMappings"], spec["linux"]["gidMappings"]) = (maps(&[(0, 0, 1)]), maps(&[(0, 0, 1)]));
        });
        let outside = fs::read_link(holder.namespace("user")).unwrap();
        assert!(said.starts_with("user:") && said.trim() != outside.to_str().unwrap(), "{said}");
        theirs.good(&["delete", "-f", id]);
    }
}

#[test]
fn a_user_has_hooks_terminals_and_overlays() {
    let Some(_) = busybox() else { return };
    let theirs = Theirs::new("more", "tty; cat /over/file; echo new > /over/file; cat /hook", |_| {});
    // Longer than the kernel takes in one option.
    let long = "x".repeat(200);
    let [low, high, upper, work] = ["low", "high", "upper", "work"].map(|name| theirs.path(&long).join(name));
    [&low, &high, &upper, &work].into_iter().for_each(|path| fs::create_dir_all(path).unwrap());
    fs::write(low.join("file"), "low\n").unwrap();
    fs::write(high.join("file"), "high\n").unwrap();
    theirs.change(|spec| {
        let options = [
            format!("lowerdir={}:{}", high.display(), low.display()),
            format!("upperdir={}", upper.display()),
            format!("workdir={}", work.display()),
            "userxattr".to_owned(),
        ];
        spec["mounts"]
            .as_array_mut()
            .unwrap()
            .push(json!({"destination": "/over", "type": "overlay", "source": "overlay", "options": options}));
        let touch = format!("id -u > {}", theirs.path("rootfs/hook").display());
        spec["hooks"] = json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", touch]}]});
        spec["process"]["terminal"] = json!(true);
    });
    theirs.give();
    let socket = theirs.path("console");
    let listener = UnixListener::bind(&socket).unwrap();
    std::os::unix::fs::chown(&socket, Some(USER), Some(USER)).unwrap();
    let words = ["run", "--console-socket", socket.to_str().unwrap(), "-b", theirs.bundle.bundle(), &theirs.bundle.id];
    let run = theirs.command(&words).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let (connection, _) = listener.accept().unwrap();
    let terminal = receive_fd(&connection);
    let said = run.wait_with_output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    assert_eq!(crate::support::read_all(terminal), format!("/dev/pts/0\r\nhigh\r\n{USER}\r\n"));
    assert_eq!(fs::read_to_string(upper.join("file")).unwrap(), "new\n");
}
