//! Fields and flags of the command line that not every caller uses.

use std::fs;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::oci::Bundle;
use crate::support::{busybox, program};

/// Runs to its end; what it says on both outputs.
fn output_of(bundle: &Bundle) -> String {
    let output = bundle.oci(&["run", "-b", bundle.bundle(), &bundle.id]);
    [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat()
}

/// Runs in the background with the streams closed.
fn detach(bundle: &Bundle) {
    let mut run = bundle.command(&["run", "-d", "-b", bundle.bundle(), &bundle.id]);
    assert!(run.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success(), "{}", output_of(bundle));
}

#[test]
fn limits_change_and_are_told() {
    let Some(_) = busybox() else { return };
    let bundle = Bundle::new("limits", "sleep 1000", |s| {
        s["linux"]["resources"] = json!({"pids": {"limit": 7}, "cpu": {"quota": 50_000, "period": 100_000}});
    });
    let id = bundle.id.as_str();
    detach(&bundle);
    let stats = || -> Value { serde_json::from_str(&bundle.good(&["events", "--stats", id])).unwrap() };
    assert_eq!(stats()["data"]["pids"], json!({"current": 1, "limit": 7}));
    // As the kernel has it, by the names of runc's readers.
    let said = stats();
    let cpus = said["data"]["cpuset"]["cpus"].as_array().unwrap();
    assert!(!cpus.is_empty() && !said["data"]["cpuset"]["mems"].as_array().unwrap().is_empty(), "{said}");
    let accounting = Path::new("/sys/fs/cgroup/cpuacct/trimtab-test/oci").join(id);
    if accounting.exists() {
        assert!(said["data"]["cpuset"]["sched_relax_domain_level"].is_i64(), "{said}");
        let usage = &said["data"]["cpu"]["usage"];
        let each = |name: &str| -> Vec<u64> { serde_json::from_value(usage[name].clone()).unwrap() };
        assert!(each("percpu").iter().sum::<u64>() > 0, "{usage}");
        assert_eq!(["percpu_kernel", "percpu_user"].map(|name| each(name).len()), [each("percpu").len(); 2]);
    }
    assert!(bundle.bad(&["events", "--interval", "1m30", id]).starts_with("--interval: "));
    bundle.good(&["update", id, "--memory", "64M", "--pids-limit", "33", "--cpu-period", "80000"]);
    assert_eq!(stats()["data"]["memory"]["usage"]["limit"], json!(64 << 20));
    assert_eq!(stats()["data"]["pids"]["limit"], json!(33));
    let mut update = bundle.command(&["update", "-r", "-", id]);
    let mut update = update.stdin(Stdio::piped()).spawn().unwrap();
    serde_json::to_writer(update.stdin.take().unwrap(), &json!({"pids": {"limit": -1}})).unwrap();
    assert!(update.wait().unwrap().success());
    assert_eq!(stats()["data"]["pids"]["limit"], json!(null));
    assert!(bundle.bad(&["update", id, "--memory", "lots"]).contains("is not a number"));
    let check = json!({"memory": {"limit": 4096, "checkBeforeUpdate": true}}).to_string();
    fs::write(bundle.dir.path().join("check.json"), check).unwrap();
    let path = bundle.dir.path().join("check.json");
    assert!(bundle.bad(&["update", "-r", path.to_str().unwrap(), id]).contains("rejecting memory limit"));
    let list: Value = serde_json::from_str(&bundle.good(&["list", "-f", "json"])).unwrap();
    assert_eq!((&list[0]["id"], &list[0]["owner"]), (&json!(id), &json!("root")));
    let table = bundle.good(&["list"]);
    assert!(table.lines().nth(1).unwrap().ends_with(" root"), "{table}");
    let table = bundle.good(&["ps", id]);
    assert_eq!(table.lines().count(), 2, "{table}");
    let mut events = bundle.command(&["events", "--interval", "10ms", id]).stdout(Stdio::piped()).spawn().unwrap();
    // It ends with the container, once it has begun.
    let mut line = String::new();
    std::io::BufReader::new(events.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("{\"type\":\"stats\","), "{line}");
    bundle.good(&["delete", "-f", id]);
    events.wait().unwrap();
}

#[test]
fn a_time_namespace_has_clocks_of_its_own() {
    let Some(_) = busybox() else { return };
    let bundle = Bundle::new("time", "cat /proc/self/timens_offsets; sleep 1000", |s| {
        s["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
        s["linux"]["timeOffsets"] = json!({"monotonic": {"secs": 7881, "nanosecs": 27}, "boottime": {"secs": 13}});
    });
    detach(&bundle);
    let offsets = bundle.good(&["exec", &bundle.id, "cat", "/proc/self/timens_offsets"]);
    let words: Vec<&str> = offsets.split_whitespace().collect();
    assert_eq!(words, ["monotonic", "7881", "27", "boottime", "13", "0"]);
    let without = Bundle::new("notime", "true", |s| s["linux"]["timeOffsets"] = json!({"monotonic": {"secs": 1}}));
    assert!(output_of(&without).contains("linux.timeOffsets: needs a time namespace"));
}

#[test]
fn scheduling_is_what_was_asked_for() {
    let Some(_) = busybox() else { return };
    let bundle = Bundle::new("sched", "awk '{print $19}' /proc/self/stat; busybox ionice -p 1", |s| {
        s["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 7});
        s["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 5});
    });
    assert_eq!(output_of(&bundle).lines().collect::<Vec<_>>(), ["7", "best-effort: prio 5"]);
    let bundle = Bundle::new("cpus", "sleep 1000", |_| {});
    detach(&bundle);
    let process = json!({"args": ["grep", "Cpus_allowed_list", "/proc/self/status"], "cwd": "/", "env": ["PATH=/bin"],
        "execCPUAffinity": {"final": "0"}});
    let path = bundle.dir.path().join("process.json");
    fs::write(&path, process.to_string()).unwrap();
    let said = bundle.good(&["exec", "-p", path.to_str().unwrap(), &bundle.id]);
    assert_eq!(said, "Cpus_allowed_list:\t0\n");
    // What a file does not say, the container does; its own first process goes where it may.
    let bundle = Bundle::new("affinity", "sleep 1000", |s| s["process"]["execCPUAffinity"] = json!({"final": "0"}));
    detach(&bundle);
    let process = json!({"args": ["grep", "Cpus_allowed_list", "/proc/1/status", "/proc/self/status"], "cwd": "/"});
    fs::write(&path, process.to_string()).unwrap();
    let said = bundle.good(&["exec", "-p", path.to_str().unwrap(), &bundle.id]);
    let lines: Vec<&str> =
        said.lines().filter_map(|line| line.split_once(":Cpus_allowed_list:\t")).map(|l| l.1).collect();
    assert!(lines.len() == 2 && lines[1] == "0", "{said}");
    assert!(lines[0] != "0" || !std::path::Path::new("/sys/devices/system/cpu/cpu1").exists(), "{said}");
}

#[test]
fn who_joins_is_whom_the_container_says_where_nobody_else_does() {
    let Some(_) = busybox() else { return };
    let bundle = Bundle::new("joins", "sleep 1000", |s| {
        s["process"]["user"] = json!({"uid": 7, "gid": 8, "additionalGids": [9]});
    });
    detach(&bundle);
    for (words, want) in [
        (vec![], "7 8 8 9"),
        (vec!["-u", "1"], "1 8 8 9"),
        (vec!["-u", "1:2"], "1 2 2 9"),
        (vec!["-g", "10"], "7 8 8 9 10"),
        (vec!["-u", "1:2", "-g", "10", "-g", "11"], "1 2 2 9 10 11"),
    ] {
        let words = [vec!["exec"], words, vec![&bundle.id, "sh", "-c", "echo $(id -u) $(id -g) $(id -G)"]].concat();
        assert_eq!(bundle.good(&words).trim(), want, "{words:?}");
    }
}

/// Runs with a capability less than this process has.
fn run_without(bundle: &Bundle, capability: &str) -> String {
    let mut run = Command::new("setpriv");
    run.args([&format!("--bounding-set=-{capability}"), &format!("--inh-caps=-{capability}"), "--"]);
    run.arg(program()).arg("oci").arg("--root").arg(bundle.root()).args(["run", "-b", bundle.bundle(), &bundle.id]);
    let output = run.stdin(Stdio::null()).output().unwrap();
    [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat()
}

#[test]
fn what_we_have_not_the_right_to_give_is_told() {
    let Some(_) = busybox() else { return };
    let bundle = Bundle::new("caps", "grep CapBnd /proc/self/status", |s| {
        s["process"]["capabilities"] = json!({"bounding": ["CAP_KILL", "CAP_SYS_TIME", "CAP_NOBODY"],
            "permitted": ["CAP_KILL", "CAP_CHOWN"], "inheritable": ["CAP_KILL"]});
    });
    let said = run_without(&bundle, "sys_time");
    assert!(said.contains("CapBnd:\t0000000000000020\n"), "{said}");
    for name in ["CAP_CHOWN CAP_SYS_TIME", "CAP_NOBODY"] {
        assert!(said.contains(&format!("unavailable capabilities: [{name}]")), "{said}");
    }
    // What is to be inherited has to be within bounds, or it is the kernel who refuses it.
    let bundle = Bundle::new("caps", "true", |s| {
        s["process"]["capabilities"] = json!({"bounding": [], "inheritable": ["CAP_KILL"]});
    });
    assert_eq!(
        bundle.bad(&["run", "-b", bundle.bundle(), &bundle.id]),
        "set capabilities: Operation not permitted (os error 1)"
    );
    // config.md, Linux Process: set, or an error.
    let bundle = Bundle::new("oom", "true", |s| s["process"]["oomScoreAdj"] = json!(-500));
    let said = run_without(&bundle, "sys_resource");
    assert!(said.contains("process.oomScoreAdj: set: Permission denied"), "{said}");
}

#[test]
fn a_session_keyring_is_new_or_whose_it_was() {
    let Some(_) = busybox() else { return };
    // keyctl(2) with KEYCTL_JOIN_SESSION_KEYRING; /proc/keys names the keyrings that one has.
    let number = if cfg!(target_arch = "aarch64") { 219 } else { 250 };
    let join = format!(
        "import ctypes, os, sys; ctypes.CDLL(None).syscall({number}, 1, b'trimtab-keyring'); os.execv(sys.argv[1], sys.argv[1:])"
    );
    let keyring = |arguments: &[&str]| {
        let bundle = Bundle::new("keyring", "grep -c trimtab-keyring /proc/keys", |s| {
            s["linux"]["maskedPaths"] = json!([]);
            // Who is not its owner sees it as one that he has.
            s["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        });
        let mut run = Command::new("python3");
        run.args(["-c", &join]).arg(program()).arg("oci").arg("--root").arg(bundle.root());
        let output = run.args(["run", "-b", bundle.bundle()]).args(arguments).arg(&bundle.id).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Ok(own) = keyring(&[]) else {
        println!("skipped: no python3");
        return;
    };
    assert_eq!((own.as_str(), keyring(&["--no-new-keyring"]).unwrap().as_str()), ("0", "1"));
}

#[test]
fn a_user_database_that_is_a_pipe_keeps_nobody_waiting() {
    let Some(_) = busybox() else { return };
    let bundle = Bundle::new("pipe", "echo $HOME", |_| {});
    let passwd = bundle.dir.path().join("rootfs/etc/passwd");
    fs::remove_file(&passwd).unwrap();
    assert!(Command::new("mkfifo").arg(&passwd).status().unwrap().success());
    let mut run = Command::new("timeout");
    run.arg("20").arg(program()).arg("oci").arg("--root").arg(bundle.root());
    let output = run.args(["run", "-b", bundle.bundle(), &bundle.id]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "/\n", "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_mount_shows_other_ids() {
    let Some(_) = busybox() else { return };
    let bundle = Bundle::new("idmap", "stat -c %u:%g /x/file", |_| {});
    let source = bundle.dir.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "").unwrap();
    let config = bundle.dir.path().join("config.json");
    let mut spec: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
    let maps = |outside: u32| json!([{"containerID": 0, "hostID": outside, "size": 10}]);
    spec["mounts"].as_array_mut().unwrap().push(json!({"destination": "/x", "type": "bind", "source": source,
        "options": ["bind", "idmap"], "uidMappings": maps(1000), "gidMappings": maps(2000)}));
    fs::write(&config, spec.to_string()).unwrap();
    assert_eq!(output_of(&bundle), "1000:2000\n");
}

#[test]
fn descriptors_and_cgroups_are_passed_on() {
    let Some(_) = busybox() else { return };
    let bundle = Bundle::new("pass", "echo $LISTEN_FDS $LISTEN_PID; cat /proc/self/fd/3", |s| {
        s["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "cgroup");
    });
    let line = format!(
        "echo said | LISTEN_FDS=1 {} oci --root {} run -b {} {} 3<&0",
        program().display(),
        bundle.root().display(),
        bundle.bundle(),
        bundle.id
    );
    let output = Command::new("sh").args(["-c", &line]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1 1\nsaid\n", "{}", String::from_utf8_lossy(&output.stderr));
    let config = bundle.dir.path().join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    let mut spec: Value = serde_json::from_str(&text).unwrap();
    spec["process"]["args"] = json!(["sleep", "1000"]);
    fs::write(&config, spec.to_string()).unwrap();
    detach(&bundle);
    let id = bundle.id.as_str();
    assert!(bundle.bad(&["exec", "--cgroup", "..", id, "true"]).contains("bad sub cgroup path"));
    assert!(bundle.bad(&["exec", "--cgroup", "nowhere", id, "true"]).contains("adding pid"));
    assert!(bundle.bad(&["exec", "--cgroup", "what:/", id, "true"]).contains("unknown controller"));
    assert!(bundle.good(&["exec", "--cgroup", "/", id, "cat", "/proc/self/cgroup"]).contains(id));
    assert_eq!(bundle.oci(&["exec", id, "nowhere"]).status.code(), Some(255));
    // The cgroup is this container's alone.
    let other = format!("{id}x");
    assert!(bundle.bad(&["run", "-d", "-b", bundle.bundle(), &other]).contains("cgroup is not empty"));
    assert_eq!(bundle.status(), "running");
}

#[test]
fn a_network_device_moves_in_with_its_addresses() {
    let Some(_) = busybox() else { return };
    let ip = |line: &str| Command::new("ip").args(line.split(' ')).status().is_ok_and(|status| status.success());
    let (ours, theirs) =
        (format!("ttn{}a", std::process::id() % 10_000), format!("ttn{}b", std::process::id() % 10_000));
    // Not every kernel has both.
    for kind in [format!("{ours} type veth peer name {theirs}"), format!("{theirs} type dummy")] {
        if !ip(&format!("link add {kind}")) {
            println!("skipped: no ip(8), or no devices as {kind}");
            continue;
        }
        assert!(ip(&format!("address add 192.0.2.77/24 dev {theirs}")));
        assert!(ip(&format!("link set {theirs} mtu 1400")));
        let forwarding = "/proc/sys/net/ipv4/conf/inside/forwarding";
        let bundle = Bundle::new("netdev", &format!("busybox ip address show dev inside; cat {forwarding}"), |s| {
            s["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "network"}));
            s["linux"]["netDevices"] = json!({theirs.clone(): {"name": "inside"}});
            s["linux"]["sysctl"] = json!({"net.ipv4.conf.inside.forwarding": "1"});
        });
        let said = output_of(&bundle);
        assert!(said.contains("192.0.2.77/24") && said.contains("mtu 1400") && said.contains("UP"), "{said}");
        assert!(said.ends_with("\n1\n"), "{said}");
        // It ends with the container's namespace.
        assert!(output_of(&bundle).contains("linux.netDevices: move"));
    }
}

/// A network namespace with a name, until dropped.
struct Network(String);

impl Drop for Network {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

#[test]
fn network_devices_go_to_a_namespace_that_is_joined_by_names_of_the_kernels() {
    let Some(_) = busybox() else { return };
    let ip = |line: &str| Command::new("ip").args(line.split(' ')).status().is_ok_and(|status| status.success());
    let network = Network(format!("ttj{}", std::process::id()));
    let name = &network.0;
    if !ip(&format!("netns add {name}")) || !ip(&format!("-n {name} link add eth0 type veth peer name other")) {
        println!("skipped: no ip(8), or no veth");
        return;
    }
    for (template, want) in [("eth%d", "eth1"), ("%d", "0")] {
        let [ours, peer] = ["a", "b"].map(|end| format!("tt{}{end}", std::process::id() % 1_000_000));
        assert!(ip(&format!("link add {ours} type veth peer name {peer}")));
        let bundle = Bundle::new("joined", &format!("busybox ip link show dev {want}; cat /seen"), |s| {
            let path = format!("/run/netns/{name}");
            s["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "network", "path": path}));
            s["linux"]["netDevices"] = json!({ours.clone(): {"name": template}});
            // Hooks find it in its namespaces, too (config.md, CreateRuntime Hooks).
            let script = "readlink /proc/$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/')/ns/net > rootfs/seen";
            s["hooks"] = json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]});
        });
        let mut run = bundle.command(&["run", "-b", bundle.bundle(), &bundle.id]);
        let output = run.current_dir(bundle.dir.path()).output().unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        let inode =
            fs::metadata(format!("/run/netns/{name}")).map(|m| std::os::unix::fs::MetadataExt::ino(&m)).unwrap();
        assert!(said.contains(want) && said.contains("UP"), "{said}");
        assert!(said.ends_with(&format!("net:[{inode}]\n")), "{said}");
        assert!(ip(&format!("link delete {peer}")));
    }
}

#[test]
fn mounts_have_the_options_they_name_and_no_others() {
    let Some(_) = busybox() else { return };
    let options = "awk '{print $2, $4}' /proc/self/mounts | grep -E '^/(kept|bind|new|old)'; stat -c %a /new /old";
    let mounts = |s: &mut Value, source: &Path| {
        s["mounts"].as_array_mut().unwrap().extend([
            json!({"destination": "/kept", "type": "bind", "source": source, "options": ["rbind", "rprivate"]}),
            json!({"destination": "/bind", "type": "bind", "source": source, "options": ["bind", "ro", "dev"]}),
            json!({"destination": "/new", "type": "tmpfs", "source": "tmpfs", "options": ["size=4k"]}),
            json!({"destination": "/old", "type": "tmpfs", "source": "tmpfs", "options": ["size=4k"]}),
        ]);
    };
    for (users, bind) in [(false, "ro,noatime"), (true, "ro,nosuid,noexec,noatime")] {
        let bundle = Bundle::new("options", options, |s| {
            if users {
                s["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
                let map = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
                (s["linux"]["uidMappings"], s["linux"]["gidMappings"]) = (map.clone(), map);
            }
        });
        let [config, source, old] = ["config.json", "source", "rootfs/old"].map(|name| bundle.dir.path().join(name));
        let mut spec: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
        mounts(&mut spec, &source);
        fs::write(&config, spec.to_string()).unwrap();
        fs::create_dir(&source).unwrap();
        fs::create_dir(&old).unwrap();
        fs::set_permissions(&old, std::os::unix::fs::PermissionsExt::from_mode(0o750)).unwrap();
        let source = Mount::tmpfs(&source, "nosuid,nodev,noexec,noatime");
        let output = output_of(&bundle);
        let line = |place: &str| {
            let line = output.lines().find_map(|line| line.strip_prefix(place)).unwrap_or_else(|| panic!("{output}"));
            line.trim().to_owned()
        };
        assert!(line("/kept").starts_with("rw,nosuid,nodev,noexec,noatime"), "{output}");
        assert!(line("/bind").starts_with(bind) && !line("/bind").contains("nodev"), "{output}");
        assert!(!line("/new").contains("mode=") && line("/old").contains("mode=750"), "{output}");
        assert!(output.ends_with("1777\n750\n"), "{output}");
        drop(source);
    }
}

#[test]
fn a_mount_can_be_changed_and_options_are_for_file_systems() {
    let Some(_) = busybox() else { return };
    let script = "awk '$2 == \"/x\" || $2 == \"/proc\" {print $2, $4}' /proc/self/mounts";
    let bundle = Bundle::new("remount", script, |s| {
        s["mounts"].as_array_mut().unwrap().extend([
            json!({"destination": "/x", "type": "tmpfs", "options": ["size=64k", "sync", "lazytime", "silent", "nofail"]}),
            json!({"destination": "/x", "type": "tmpfs", "options": ["remount", "noexec", "size=128k", "async"]}),
            json!({"destination": "/proc", "options": ["remount", "bind", "ro"]}),
        ]);
    });
    let output = output_of(&bundle);
    let options = |place: &str| output.lines().find_map(|line| line.strip_prefix(place)).unwrap_or(&output).to_owned();
    for (word, is_there) in [("noexec", true), ("size=128k", true), ("lazytime", true), ("sync", false)] {
        assert_eq!(options("/x ").contains(word), is_there, "{word}: {output}");
    }
    assert!(options("/proc ").starts_with("ro,"), "{output}");
    for (mount, want) in [
        (
            json!({"destination": "/x", "source": "/", "options": ["bind", "size=1k"]}),
            "mounts: /x: option size=1k: not for",
        ),
        (json!({"destination": "/bin", "options": ["remount", "ro"]}), "set the options of /bin"),
        (json!({"destination": "/nowhere", "options": ["remount", "ro"]}), "mounts: /nowhere: remount"),
    ] {
        let bundle = Bundle::new("remount", "true", |s| s["mounts"].as_array_mut().unwrap().push(mount));
        assert!(output_of(&bundle).contains(want), "{want}: {}", output_of(&bundle));
    }
}

#[test]
fn a_mount_can_show_what_is_mounted_in_the_container() {
    let Some(_) = busybox() else { return };
    let bundle = Bundle::new("inside", "cat /again/deep/file", |_| {});
    let [config, rootfs, outside] = ["config.json", "rootfs", "outside"].map(|name| bundle.dir.path().join(name));
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "from outside\n").unwrap();
    let mut spec: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
    // The last as some callers say it: both by their paths on the host.
    spec["mounts"].as_array_mut().unwrap().extend([
        json!({"destination": "/tree/deep", "source": outside, "options": ["bind"]}),
        json!({"destination": rootfs.join("again"), "source": rootfs.join("tree"), "options": ["rbind"]}),
    ]);
    fs::write(&config, spec.to_string()).unwrap();
    assert_eq!(output_of(&bundle), "from outside\n");
}

/// A mount of ours, until dropped.
struct Mount(PathBuf);

impl Mount {
    fn tmpfs(place: &Path, options: &str) -> Self {
        let mount = |args: &[&str]| Command::new("mount").args(args).arg(place).status().unwrap().success();
        assert!(mount(&["-t", "tmpfs", "-o", options, "tmpfs"]));
        Self(place.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_directory_that_only_root_may_enter_can_be_the_one_to_work_in() {
    let Some(_) = busybox() else { return };
    let bundle = Bundle::new("cwd", "pwd", |s| {
        s["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        s["process"]["cwd"] = json!("/closed");
    });
    let closed = bundle.dir.path().join("rootfs/closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    assert_eq!(output_of(&bundle), "/closed\n");
}

#[test]
fn a_shared_root_is_shared_in_the_container_alone() {
    let Some(_) = busybox() else { return };
    let bundle = Bundle::new("shared", "awk '$5 == \"/\" {print $7, $8}' /proc/self/mountinfo", |s| {
        s["linux"]["rootfsPropagation"] = json!("shared");
    });
    let mut run = Command::new("unshare");
    run.args(["--mount", "--propagation", "shared"]).arg(program()).arg("oci").arg("--root").arg(bundle.root());
    let output = run.args(["run", "-b", bundle.bundle(), &bundle.id]).output().unwrap();
    let (text, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(text.starts_with("shared:") && text.trim_end().ends_with(" -"), "{text} {said}");
}
